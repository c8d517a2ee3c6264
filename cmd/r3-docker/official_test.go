package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"jumpsuite/internal/lab/realagent"
	"jumpsuite/internal/lab/sudoer"
	"jumpsuite/internal/lab/world"
)

// official puts the complete official agent on a host of the jump server's tests, and a gate
// beside it that requires a session of that agent's behind each connection.
func (f *far) official(t *testing.T, id, environment string) *realagent.Agent {
	t.Helper()
	folder, err := realagent.Folder()
	if err != nil {
		t.Skipf("the official agent is left out: %v", err)
	}
	a, err := realagent.Start(realagent.Options{Folder: folder, Dir: t.TempDir(), Instance: id, Lab: f.lab})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the agent says:\n%s", a.Log())
		}
	})
	connected(t, a, true)
	args := append(f.gate(t, id, environment, ""), "--agent-check", "require")
	b := ready(t, nil, a.Command(context.Background(), filepath.Join(sudoer.Bin, "r3-dockerproxy"), args...))
	if err := f.lab.Forward(id, 2376, tcpAddress.FindString(b.text())); err != nil {
		t.Fatal(err)
	}
	return a
}

func connected(t *testing.T, a *realagent.Agent, want bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := a.Await(ctx, want); err != nil {
		t.Fatal(err)
	}
}

// much is how many bytes go through the official agent in each direction.
const much = 50_000_000

func TestDockerThroughTheOfficialAgent(t *testing.T) {
	if _, err := realagent.Folder(); err != nil {
		t.Skipf("the official agent is left out: %v", err)
	}
	f := jumpServer(t)
	a := f.official(t, testHost, "test")
	container(t, "web", "sh", "-c", "echo from the log; exec sleep 1000")
	t.Run("commands", func(t *testing.T) { f.commands(t) })
	t.Run("the second witness", func(t *testing.T) { f.witnessed(t) })
	t.Run("a terminal, while websockets are cut", func(t *testing.T) { f.terminal(t, a) })
	t.Run("bytes both ways at once, while websockets are cut", func(t *testing.T) { f.bytes(t) })
	t.Run("an agent that is stopped", func(t *testing.T) { f.stopped(t, a) })
}

// commands are those that people type most.
func (f *far) commands(t *testing.T) {
	for _, tt := range []struct{ stdin, args, out string }{
		{"", "-H 10.0.0.1 ps --format {{.Names}}", "web\n"},
		{"", "-H 10.0.0.1 logs web", "from the log\n"},
		{"one two three", "-H 10.0.0.1 exec -i web wc -w", "3\n"},
		{"a b c", "-H 10.0.0.1 run -i --rm lab/web:1 wc -w", "3\n"},
		{"", "--environment test images --format {{.Repository}}", "lab/web\n"},
	} {
		docker(t, f.Host, tt.stdin, strings.Fields(tt.args)...).expect(t, tt.args, 0, tt.out, "")
	}
	if n := f.starts(testHost); n != 1 {
		t.Errorf("%d sessions were started, want 1 for all commands", n)
	}
}

// behind is what the host's log says of the session behind a connection.
var behind = regexp.MustCompile(`ssm session lab-[0-9a-f]+ of jumpsuite-docker by arn:aws:iam::123456789012:user/lab`)

func (f *far) witnessed(t *testing.T) {
	log, err := os.ReadFile(filepath.Join(f.audits[testHost], "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	opened := 0
	for l := range bytes.Lines(log) {
		if !bytes.Contains(l, []byte(`"tunnel.open"`)) {
			continue
		}
		opened++
		if !behind.Match(l) {
			t.Errorf("got %s", l)
		}
	}
	if opened == 0 {
		t.Error("no tunnel.open is on record")
	}
}

func (f *far) cutNow(t *testing.T, side string) {
	t.Helper()
	if err := f.lab.Do(world.Action{Do: "session-cut", To: testHost, Value: side}); err != nil {
		t.Fatal(err)
	}
}

// terminal goes on though websockets are cut and the agent is killed: the session has a
// process of its own.
func (f *far) terminal(t *testing.T, a *realagent.Agent) {
	s := on(t, sudoDocker(t, f.Host, "-H", "10.0.0.1", "exec", "-it", "web", "sh"), true)
	for i, happens := range []func(){
		func() {}, func() { f.cutNow(t, "client") }, func() { f.cutNow(t, "agent") }, func() { f.cutNow(t, "both") }, func() { f.cutNow(t, "control") },
		func() {
			if err := a.Kill(t.Context()); err != nil {
				t.Fatal(err)
			}
			connected(t, a, false)
			f.cutNow(t, "agent")
		},
		func() {
			if err := a.Again(); err != nil {
				t.Fatal(err)
			}
			connected(t, a, true)
		},
	} {
		happens()
		s.types(fmt.Sprintf("echo $((%d+1000))\r", i))
		s.sees(fmt.Sprint(i+1000), 1)
	}
	s.types("exit 3\r")
	s.ends(3)
}

// bytes carries much in each direction at once, on streams of their own.
func (f *far) bytes(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var both sync.WaitGroup
	both.Go(func() { f.up(t, ctx) })
	both.Go(func() { f.down(t, ctx) })
	done := make(chan struct{})
	go func() { both.Wait(); close(done) }()
	for i := 0; ; i++ {
		select {
		case <-done:
			return
		case <-time.After(700 * time.Millisecond):
			f.cutNow(t, []string{"client", "agent", "both"}[i%3])
		}
	}
}

func (f *far) up(t *testing.T, ctx context.Context) {
	sum := sha256.New()
	cmd := f.Sudo(ctx, "-H", "10.0.0.1", "exec", "-i", "web", "sha256sum")
	cmd.Stdin = io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{1}), much), sum)
	out, err := cmd.CombinedOutput()
	if want := fmt.Sprintf("%x  -\n", sum.Sum(nil)); err != nil || string(out) != want {
		t.Errorf("up: got %s, %v, want %s", out, err, want)
	}
}

// counter counts what a hash is of.
type counter struct {
	hash.Hash
	n int64
}

// Write adds b.
func (c *counter) Write(b []byte) (int, error) {
	c.n += int64(len(b))
	return c.Hash.Write(b)
}

// down is a text, as logs are; what does not compress comes at 0.7 MB a second.
func (f *far) down(t *testing.T, ctx context.Context) {
	got := counter{Hash: sha256.New()}
	cmd := f.Sudo(ctx, "-H", "10.0.0.1", "exec", "web", "seq", "10000000", fmt.Sprint(10000000+much/9-1))
	cmd.Stdout = &got
	err := cmd.Run()
	want := sha256.New()
	for i := range much / 9 {
		fmt.Fprintln(want, 10000000+i)
	}
	if err != nil || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Errorf("down: %v, %d bytes, which are not the ones that were sent", err, got.n)
	}
}

// stopped is an agent that systemd stops: the session that is open goes on, and no other begins.
func (f *far) stopped(t *testing.T, a *realagent.Agent) {
	if err := a.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	connected(t, a, false)
	if err := f.lab.Do(world.Action{Do: "session-end", To: testHost, Value: "ended"}); err != nil {
		t.Fatal(err)
	}
	docker(t, f.Host, "", "-H", "10.0.0.1", "ps").expect(t, "ps", 125, "", testHost+" is not connected to Session Manager")
	if err := a.Again(); err != nil {
		t.Fatal(err)
	}
	connected(t, a, true)
	docker(t, f.Host, "", "-H", "10.0.0.1", "ps", "--format", "{{.Names}}").expect(t, "ps", 0, "web\n", "")
}
