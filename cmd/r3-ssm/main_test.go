package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"jumpsuite/internal/carrier"
	"jumpsuite/internal/cli"
	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/labtest"
	"jumpsuite/internal/lab/world"
	"jumpsuite/internal/tunnel"
)

const (
	first   = "i-0123456789abcdef0"
	second  = "i-0123456789abcdef1"
	offline = "i-0123456789abcdef2"
	port    = 2376
)

var place = carrier.Place{Cluster: "prod"}

// startLab starts a lab with three hosts, one of them offline, and sets the
// environment for it.
func startLab(t *testing.T, more string) *lab.Lab {
	t.Helper()
	return labtest.Start(t, lab.Config{World: labtest.World(t, `
clusters:
  - name: prod
    hosts: [{instance: `+first+`, ip: 10.0.0.1}, {instance: `+second+`, ip: 10.0.0.2}, {instance: `+offline+`, ip: 10.0.0.3, offline: true}]
images: [{repository: web, tags: [v1]}]
services: [{name: web, image: "web:v1", desired: 2}]
`+more)})
}

// gate makes a host's port one on which a gate carries echoes.
func gate(t *testing.T, l *lab.Lab, host string) {
	t.Helper()
	err := l.Listen(host, port, func(c net.Conn) {
		tunnel.Serve(context.Background(), c, func(s net.Conn) { io.Copy(s, s); s.Close() })
	})
	if err != nil {
		t.Fatal(err)
	}
}

// start runs r3-ssm serve until the test ends.
func start(t *testing.T, args ...string) (carrier.Client, *labtest.Output) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	args = append([]string{"r3-ssm", "serve", "--listen", "unix://" + socket, "--uid", fmt.Sprint(os.Geteuid())}, args...)
	said := labtest.Run(t, run, args...)
	return carrier.Client{Socket: socket}, said
}

// count is how often an operation was called.
func count(l *lab.Lab, operation string) (n int) {
	for _, c := range l.Calls() {
		if c.Operation == operation {
			n++
		}
	}
	return n
}

// echoes sends a line and wants it back, and then its end.
func echoes(t *testing.T, c carrier.Client, host, text string) {
	t.Helper()
	conn, err := c.Dial(t.Context(), place, host)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	io.WriteString(conn, text)
	conn.CloseWrite()
	if got, err := io.ReadAll(conn); string(got) != text || err != nil {
		t.Errorf("got %d bytes, %v; want %d", len(got), err, len(text))
	}
}

func TestManyStreamsAtOnceStartOneSession(t *testing.T) {
	l := startLab(t, "")
	gate(t, l, first)
	c, _ := start(t)
	var all sync.WaitGroup
	for i := range 8 { // a host takes no more whose owner it does not know
		all.Go(func() { echoes(t, c, first, fmt.Sprintf("stream %d %s", i, strings.Repeat("x", 5000))) })
	}
	all.Wait()
	if got := count(l, "StartSession"); got != 1 {
		t.Errorf("%d sessions were started, want 1", got)
	}
}

func TestASessionThatIsNotUsedEnds(t *testing.T) {
	l := startLab(t, "")
	gate(t, l, first)
	c, _ := start(t, "--idle", "50ms")
	echoes(t, c, first, "once")
	labtest.Await(t, "AWS is told that the session is over", func() bool { return count(l, "TerminateSession") == 1 })
	echoes(t, c, first, "twice")
	if got := count(l, "StartSession"); got != 2 {
		t.Errorf("%d sessions were started, want 2", got)
	}
}

func TestAStreamKeepsItsSession(t *testing.T) {
	l := startLab(t, "")
	gate(t, l, first)
	c, _ := start(t, "--idle", "20ms")
	conn, err := c.Dial(t.Context(), place, first)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	time.Sleep(200 * time.Millisecond) // ten times as long as a session without streams is kept
	io.WriteString(conn, "still here")
	b := make([]byte, 10)
	if _, err := io.ReadFull(conn, b); err != nil || string(b) != "still here" || count(l, "TerminateSession") > 0 {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestASessionThatWasLostIsStartedAnew(t *testing.T) {
	l := startLab(t, "")
	var lines []net.Conn
	var mu sync.Mutex
	err := l.Listen(first, port, func(c net.Conn) {
		mu.Lock()
		lines = append(lines, c)
		mu.Unlock()
		tunnel.Serve(context.Background(), c, func(s net.Conn) { io.Copy(s, s); s.Close() })
	})
	if err != nil {
		t.Fatal(err)
	}
	c, said := start(t)
	echoes(t, c, first, "before")
	mu.Lock()
	lines[0].Close()
	mu.Unlock()
	labtest.Await(t, "it is noticed", func() bool { return strings.Contains(said.String(), "session ended") })
	echoes(t, c, first, "after")
}

func TestEachWayAHostCannotBeReachedHasItsSentence(t *testing.T) {
	for _, tt := range []struct {
		name  string
		setup func(*lab.Lab)
		host  string
		args  []string
		kind  carrier.Kind
		want  string
		hint  string
		code  int
	}{
		{"its agent is offline", nil, offline, nil, carrier.Offline, offline + " is not connected to Session Manager", "amazon-ssm-agent", cli.ExitUnavailable},
		{"no such document", nil, first, []string{"--document", "nosuch"}, carrier.NoDocument, `there is no session document "nosuch"`, "has to create the document", cli.ExitConfig},
		{"nothing listens", nil, first, nil, carrier.NoGate, "listens on the port", "systemctl status r3-dockerproxy", cli.ExitUnavailable},
		{"something else listens", func(l *lab.Lab) {
			l.Listen(first, port, func(c net.Conn) { io.WriteString(c, "SSH-2.0-x\r\n"); io.Copy(io.Discard, c) })
		}, first, nil, carrier.NoGate, "something else said", "install jumpsuite on the host", cli.ExitUnavailable},
		{"an older gate", func(l *lab.Lab) {
			l.Listen(first, port, func(c net.Conn) { io.WriteString(c, "jumpsuite tunnel 0\n"); io.Copy(io.Discard, c) })
		}, first, nil, carrier.NoGate, "speaks version 0 of the tunnel", "the same release", cli.ExitUnavailable},
		{"IAM says no", func(l *lab.Lab) { l.AddFault(world.Fault{Operation: "StartSession", Error: "denied"}) }, first, nil,
			carrier.NotAllowed, "the AWS credentials do not allow ssm:StartSession", "IAM policy", cli.ExitUnavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := startLab(t, "link: {crash: 100ms}")
			if tt.setup != nil {
				tt.setup(l)
			}
			c, _ := start(t, tt.args...)
			_, err := c.Dial(t.Context(), place, tt.host)
			var e *carrier.Error
			if !errors.As(err, &e) || e.Kind != tt.kind || !strings.Contains(e.Text, tt.want) || !strings.Contains(e.Next, tt.hint) || e.ExitCode() != tt.code {
				t.Errorf("got %#v, want %s %q %q %d", err, tt.kind, tt.want, tt.hint, tt.code)
			}
		})
	}
}

func TestHostsAndContainersAreToldAndAskedForOnce(t *testing.T) {
	l := startLab(t, "")
	c, _ := start(t)
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			hosts, err := c.Hosts(t.Context(), place)
			if err != nil || len(hosts) != 3 {
				t.Errorf("got %+v, %v", hosts, err)
				return
			}
			want := carrier.Host{ID: first, Address: "10.0.0.1", Name: "ip-10-0-0-1", State: "ACTIVE", Online: true, Agent: hosts[0].Agent}
			if hosts[0] != want || !hosts[1].Online || hosts[2].Online || hosts[0].Agent == "" {
				t.Errorf("got %+v, want %+v first", hosts, want)
			}
		})
	}
	all.Wait()
	if n := count(l, "ListContainerInstances"); n != 1 {
		t.Errorf("ECS was asked %d times, want once", n)
	}
	var found []carrier.Found
	labtest.Await(t, "a task runs", func() bool {
		tasks, err := c.Where(t.Context(), place, "nosuchcontainer")
		if err != nil || len(tasks) > 0 {
			t.Fatalf("got %+v, %v", tasks, err)
		}
		found = containers(t, c, l)
		return len(found) == 2
	})
	got, err := c.Where(t.Context(), place, found[0].Container[:12])
	if err != nil || len(got) != 1 || got[0] != found[0] {
		t.Errorf("by the beginning of its id: got %+v, %v, want %+v", got, err, found[0])
	}
	if err := c.Learn(t.Context(), place, strings.Repeat("e", 64), second); err != nil {
		t.Fatal(err)
	}
	got, err = c.Where(t.Context(), place, strings.Repeat("e", 20))
	if err != nil || len(got) != 1 || got[0].Host != second {
		t.Errorf("learnt: got %+v, %v", got, err)
	}
}

// containers finds each container that runs by its task.
func containers(t *testing.T, c carrier.Client, l *lab.Lab) (all []carrier.Found) {
	t.Helper()
	var out bytes.Buffer
	reader, err := new(places).at(t.Context(), place)
	if err != nil {
		t.Fatal(err)
	}
	tasks, err := reader.finder.reader.Tasks(t.Context(), "")
	if err != nil {
		t.Fatal(err, out.String())
	}
	for _, task := range tasks {
		found, err := c.Where(t.Context(), place, task.ARN)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	return all
}

func TestByHandADialIsOneStream(t *testing.T) {
	l := startLab(t, "")
	gate(t, l, second)
	var out, said bytes.Buffer
	for _, name := range []string{second, "10.0.0.2", "ip-10-0-0-2"} {
		out.Reset()
		err := run(t.Context(), []string{"r3-ssm", "dial", "--cluster", "prod", name}, cli.Stdio{In: strings.NewReader("hello"), Out: &out, Err: &said})
		if err != nil || out.String() != "hello" {
			t.Errorf("%s: got %q, %v %s", name, out.String(), err, said.String())
		}
	}
	if count(l, "StartSession") != 3 || count(l, "TerminateSession") != 3 {
		t.Errorf("%d sessions were started, %d ended; want 3", count(l, "StartSession"), count(l, "TerminateSession"))
	}
}

func TestWhatIsWrongOnTheCommandLineIsSaid(t *testing.T) {
	startLab(t, "")
	for _, tt := range []struct {
		args, want string
		code       int
	}{
		{"hosts", "no cluster is given", cli.ExitUsage},
		{"hosts --cluster nosuch", `no cluster "nosuch"`, cli.ExitNotFound},
		{"dial --cluster prod", "give one HOST", cli.ExitUsage},
		{"dial --cluster prod nosuch", "there is no host nosuch in cluster prod", cli.ExitNotFound},
		{"where --cluster prod 4f1c", "ECS knows no container 4f1c in cluster prod", cli.ExitNotFound},
		{"serve --listen /x", "is no unix socket", cli.ExitUsage},
		{"serve --idle 0s", "has to be longer than nothing", cli.ExitUsage},
	} {
		err := run(t.Context(), append([]string{"r3-ssm"}, strings.Fields(tt.args)...), cli.Stdio{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard})
		if err == nil || !strings.Contains(err.Error(), tt.want) || cli.ExitCode(err) != tt.code {
			t.Errorf("%s: got %v (%d), want %q (%d)", tt.args, err, cli.ExitCode(err), tt.want, tt.code)
		}
	}
}

// One session takes some 200 streams. Who needs more gets another, and nobody
// loses his.
func TestManyStreamsToOneHost(t *testing.T) {
	l := startLab(t, "")
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	everybody := tunnel.Identity{Key: key, Trusted: func(tunnel.KeyID) bool { return true }}
	err = l.Listen(first, port, func(c net.Conn) {
		tunnel.Serve(context.Background(), c, func(s net.Conn) {
			conn, _, err := tunnel.Accept(context.Background(), s, everybody, func(tunnel.Hello, tunnel.KeyID) (tunnel.Welcome, error) { return tunnel.Welcome{}, nil })
			if err != nil {
				return
			}
			io.Copy(conn, conn)
			conn.Close()
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	c, said := start(t)
	const streams = 300
	conns := make(chan *tunnel.Conn, streams)
	for range streams {
		go func() {
			raw, err := c.Dial(t.Context(), place, first)
			if err != nil {
				t.Error(err)
				conns <- nil
				return
			}
			conn, err := tunnel.Client(t.Context(), raw, everybody, tunnel.Hello{User: "dev1", Audit: "a1"})
			if err != nil {
				t.Error(err)
			}
			conns <- conn
		}()
	}
	var open []*tunnel.Conn
	for range streams {
		if conn := <-conns; conn != nil {
			defer conn.Close()
			open = append(open, conn)
		}
	}
	for i, conn := range open {
		conn.Write([]byte("x"))
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			t.Errorf("stream %d of %d: %v", i, len(open), err)
		}
	}
	if n := count(l, "StartSession"); n < 2 || n > 3 {
		t.Errorf("got %d sessions for %d streams, want two or three\n%s", n, streams, said)
	}
}
