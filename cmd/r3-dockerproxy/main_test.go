package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"jumpsuite/internal/audit"
	"jumpsuite/internal/cli"
	"jumpsuite/internal/keys"
	"jumpsuite/internal/lab/dockerd"
)

// The test binary is the command, too.
func TestMain(m *testing.M) {
	if os.Getenv("R3_DOCKERPROXY_TEST") != "" {
		cli.Main("r3-dockerproxy", run)
	}
	os.Exit(m.Run())
}

const patient = 20 * time.Second

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patient); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if is() {
			return
		}
	}
	t.Fatalf("%s: not so after %v", what, patient)
}

const testPolicy = `
jump-servers:
  - {name: all, keys: ["*"], environments: [test], actions: [docker.version]}
environments:
  - {name: test, cluster: test, region: eu-central-1, production: false}
rules:
  - name: root-looks
    effect: allow
    principals: [user:root]
    actions: [docker.version, docker.ps]
    environments: [test]
`

// proxy is the command, running.
type proxy struct {
	t           *testing.T
	dir, socket string
	policy      string
	store       keys.Store
	cmd         *exec.Cmd
	mu          sync.Mutex
	log         bytes.Buffer
	done        chan struct{}
}

func (p *proxy) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *proxy) said(text string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Contains(p.log.String(), text)
}

// command is r3-dockerproxy with its options in dir.
func command(dir, engine string, more ...string) *exec.Cmd {
	args := append([]string{"--policy", filepath.Join(dir, "policy.yaml"), "--environment", "test",
		"--listen", "unix://" + filepath.Join(dir, "gate.sock"), "--engine", engine,
		"--leases", filepath.Join(dir, "leases"), "--keys", filepath.Join(dir, "keys"), "--trusted-keys", filepath.Join(dir, "trusted"), "--audit", filepath.Join(dir, "audit")}, more...)
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), "R3_DOCKERPROXY_TEST=1")
	return cmd
}

func start(t *testing.T, engine string, more ...string) *proxy {
	t.Helper()
	dir := t.TempDir()
	p := &proxy{t: t, dir: dir, socket: filepath.Join(dir, "gate.sock"), policy: filepath.Join(dir, "policy.yaml"), done: make(chan struct{})}
	p.write(testPolicy)
	p.store = keys.Store{Dir: filepath.Join(dir, "keys"), Admin: filepath.Join(dir, "trusted"), Owner: os.Geteuid()}
	p.cmd = command(dir, engine, more...)
	p.cmd.Stderr = p
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.done
	})
	eventually(t, "it is ready", func() bool { return p.said("msg=ready") })
	return p
}

func (p *proxy) write(policy string) {
	p.t.Helper()
	if err := os.WriteFile(p.policy, []byte(policy), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func needRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a policy file has to be root's")
	}
}

// get asks for a path and returns the whole answer.
func (p *proxy) get(path string) string {
	conn, err := net.Dial("unix", p.socket)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patient))
	conn.Write([]byte("GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n"))
	b := make([]byte, 64<<10)
	n, _ := conn.Read(b)
	return string(b[:n])
}

func TestItServesReloadsAndStops(t *testing.T) {
	needRoot(t)
	if testing.Short() {
		t.Skip("a Docker Engine is not started with -short")
	}
	d, err := dockerd.Start(context.Background(), dockerd.Options{})
	if err != nil {
		t.Skipf("no Docker Engine: %v", err)
	}
	defer d.Close()
	p := start(t, d.Host())
	if got := p.get("/v1.41/containers/json"); !strings.Contains(got, "200 OK") {
		t.Errorf("ps by root: got %q", got)
	}
	if got := p.get("/v1.41/images/json"); !strings.Contains(got, "docker.images is not allowed in test (rule default)") {
		t.Errorf("images by root: got %q", got)
	}

	p.write(strings.Replace(testPolicy, "docker.ps", "docker.images", 1))
	p.cmd.Process.Signal(syscall.SIGHUP)
	eventually(t, "the new policy is in force", func() bool { return strings.Contains(p.get("/v1.41/images/json"), "200 OK") })
	if got := p.get("/v1.41/containers/json"); !strings.Contains(got, "403") {
		t.Errorf("ps after the reload: got %q", got)
	}

	p.write("rules: [")
	p.cmd.Process.Signal(syscall.SIGHUP)
	eventually(t, "nothing is allowed", func() bool { return strings.Contains(p.get("/v1.41/images/json"), "403") })
	eventually(t, "the log says where the policy is wrong", func() bool { return p.said("policy.yaml:1:") })

	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(patient):
		t.Fatal("it does not stop")
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("got exit %d, want 0: %s", code, p.log.String())
	}
	checkLog(t, filepath.Join(p.dir, "audit", "audit.log"))
}

// checkLog reads the log of the test above: who asked is root, as the kernel says.
func checkLog(t *testing.T, path string) {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	allowed, refused := 0, 0
	for line := range bytes.Lines(b) {
		e, err := audit.ParseLine(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind != audit.Decision {
			continue
		}
		if e.Principal.Name != "root" || e.Environment != "test" {
			t.Errorf("got an event by %q in %q", e.Principal.Name, e.Environment)
		}
		if e.Verdict == audit.Allow {
			allowed++
		} else {
			refused++
		}
	}
	if allowed == 0 || refused == 0 {
		t.Errorf("got %d allowed and %d refused, want some of both", allowed, refused)
	}
}

func TestWhatItRefusesToStartWith(t *testing.T) {
	needRoot(t)
	for _, tt := range []struct {
		name   string
		policy string
		args   []string
		code   int
		says   string
	}{
		{"two environments", testPolicy, []string{"--environment=prod2"}, 64, "given 2 times"},
		{"no interval", testPolicy, []string{"--reap", "0s"}, 64, "--reap"},
		{"a mode that is none", testPolicy, []string{"--mode", "rw"}, 64, "mode"},
		{"an address of others", testPolicy, []string{"--listen", "tcp://0.0.0.0:2376"}, 64, "no address of the loopback"},
		{"a second unix socket", testPolicy, []string{"--listen", "unix:///x"}, 64, "two unix sockets"},
		{"a check that is none", testPolicy, []string{"--agent-check", "maybe"}, 64, "off, record or require"},
		{"a policy that is wrong", "rules: [", nil, 78, "policy.yaml:1:"},
		{"a policy without the environment", strings.ReplaceAll(testPolicy, "test", "prod"), nil, 78, `no environment "test"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(tt.policy), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := command(dir, "unix:///nonexistent", tt.args...).CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != tt.code || !strings.Contains(string(out), tt.says) {
				t.Errorf("got %v and %q, want exit %d and %q", err, out, tt.code, tt.says)
			}
		})
	}
}

func TestItTakesNobodysPlace(t *testing.T) {
	needRoot(t)
	p := start(t, "unix:///nonexistent")
	out, err := command(p.dir, "unix:///nonexistent").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != cli.ExitUnavailable {
		t.Errorf("a second one: got %v and %q, want exit %d", err, out, cli.ExitUnavailable)
	}
	if got := p.get("/_ping"); !strings.Contains(got, "502") || !strings.Contains(got, "cannot be reached") {
		t.Errorf("without an Engine: got %q", got)
	}
}
