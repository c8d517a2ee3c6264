package main

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/world"
)

// Why a host is not reached, as the person sees it who typed sudo docker.
func TestEachWayAHostIsNotReachedIsSaid(t *testing.T) {
	f := jumpServer(t)
	container(t, "web", "sleep", "1000")
	says := func(line string) func(net.Conn) {
		return func(c net.Conn) { io.WriteString(c, line); io.Copy(io.Discard, c) }
	}
	for _, tt := range []struct {
		name  string
		setup func(t *testing.T) error
		args  string
		code  int
		err   []string
	}{
		{"IAM does not allow it", func(*testing.T) error {
			f.lab.AddFault(world.Fault{Operation: "StartSession", Error: "denied"})
			return nil
		}, "-H 10.0.0.1 ps", 125, []string{"host 10.0.0.1: ", "the AWS credentials do not allow ssm:StartSession, which a session to " + testHost + " needs", "\nhint: ", "IAM policy"}},
		{"nothing listens on it", func(*testing.T) error {
			f.lab.ClearFaults()
			return f.lab.Forward(prodHost, 2376, "127.0.0.1:1")
		}, "-H 10.0.1.1 ps", 125, []string{"host 10.0.1.1: ", prodHost, "\nhint: ", "systemctl status r3-dockerproxy"}},
		{"something else listens there", func(*testing.T) error { return f.lab.Listen(prodHost, 2376, says("SSH-2.0-x\r\n")) },
			"-H 10.0.1.1 ps", 125, []string{`something else said "S`, "\nhint: install jumpsuite on the host"}},
		{"its gate is older", func(*testing.T) error { return f.lab.Listen(prodHost, 2376, says("jumpsuite tunnel 0\n")) },
			"-H 10.0.1.1 ps", 125, []string{"the host's gate speaks version 0 of the tunnel", "\nhint: install the same release on jump server and host"}},
		{"it takes itself to be elsewhere", func(t *testing.T) error { f.host(t, prodHost, "test"); return nil },
			"-H 10.0.1.1 ps", 125, []string{"is in the environment test, not in prod"}},
		{"its own policy says no", func(t *testing.T) error { f.hostWith(t, testHost, "test", "docker.logs,"); return nil },
			"-H 10.0.0.1 logs web", 1, []string{"host 10.0.0.1 refuses: docker.logs is not allowed in test", "\nhint: "}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// What a row sets up stays until the end, as it would on a host.
			if err := tt.setup(f.t); err != nil {
				t.Fatal(err)
			}
			got := docker(t, f.Host, "", strings.Fields(tt.args)...)
			for _, want := range tt.err {
				if !strings.Contains(got.err, want) {
					t.Errorf("stderr %q has no %q", got.err, want)
				}
			}
			if got.code != tt.code || got.out != "" {
				t.Errorf("got %d and %q, want %d", got.code, got.out, tt.code)
			}
		})
	}
}

// A session that is new has room for a few who have not said who they are; the
// others wait for that.
func TestFiftyCommandsAtOnceShareASession(t *testing.T) {
	f := jumpServer(t)
	container(t, "web", "sleep", "1000")
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			docker(t, f.Host, "", "-H", "10.0.0.1", "ps", "--format", "{{.Names}}").expect(t, "ps", 0, "web\n", "")
		})
	}
	wg.Wait()
	if n := f.starts(testHost); n != 1 {
		t.Errorf("%d sessions were started, want 1", n)
	}
}

// Nobody is there any more for whom the command runs: the host's gate ends it, or,
// where it cannot see the process, says so.
func TestAKilledClientLeavesNothingOnItsHost(t *testing.T) {
	f := jumpServer(t)
	container(t, "entered", "sleep", "1000")
	s := on(t, sudoDocker(t, f.Host, "-H", "10.0.0.1", "exec", "-it", "entered", "sh", "-c", "echo entered; exec sleep 2000"), true)
	s.sees("entered", 1)
	syscall.Kill(processOf("r3-docker", "-H"), syscall.SIGKILL)
	eventually(t, "the command has ended, or is on record as an orphan", func() bool {
		if !inside(t, "entered", "sleep 2000") {
			return true
		}
		b, err := os.ReadFile(filepath.Join(f.audits[testHost], "audit.log"))
		return err == nil && strings.Contains(string(b), "orphan: ")
	})
	s.ends(-1)
}

// A host whose agent takes the session and whose gate says nothing: those who are
// well are shown without it, and what is said of it tells how long they waited.
func TestATableDoesNotWaitForAHostThatHangs(t *testing.T) {
	f := jumpServer(t)
	container(t, "web", "sleep", "1000")
	if err := f.lab.Listen(prodHost, 2376, func(c net.Conn) { io.Copy(io.Discard, c) }); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"ps --format {{.Host}}/{{.Names}}", "stats --no-stream --format {{.Host}}/{{.Name}}"} {
		got := docker(t, f.Host, "", strings.Fields(args)...)
		got.expect(t, args, 1, "10.0.0.1/web\n", "docker: host 10.0.1.1: no answer within ")
		for _, want := range []string{", when others had long answered\n", "docker: host 10.0.1.2: " + deadHost + " is not connected to Session Manager\n"} {
			if !strings.Contains(got.err, want) {
				t.Errorf("%s: stderr %q has no %q", args, got.err, want)
			}
		}
	}
}

// The account has no such session document: that is said for a host, and in a table
// for each of them.
func TestADocumentThatIsMissingIsSaid(t *testing.T) {
	f := jumpServerIn(t, `
clusters:
  - {name: test, hosts: [{instance: `+testHost+`, ip: 10.0.0.1}]}
  - {name: prod, hosts: [{instance: `+prodHost+`, ip: 10.0.1.1}]}
documents: []
`, lab.Config{})
	const missing = `there is no session document "jumpsuite-docker" in this account and region`
	for _, tt := range []struct {
		args string
		code int
		err  []string
	}{
		{"-H 10.0.0.1 ps", 125, []string{"host 10.0.0.1: " + missing, "\nhint: an administrator has to create the document"}},
		{"-H 10.0.0.1 exec web sh", 125, []string{"host 10.0.0.1: " + missing}},
		{"ps", 1, []string{"docker: host 10.0.0.1: " + missing, "docker: host 10.0.1.1: " + missing, "\nhint: "}},
		{"images", 1, []string{"docker: host 10.0.0.1: " + missing, "docker: host 10.0.1.1: " + missing}},
	} {
		got := docker(t, f.Host, "", strings.Fields(tt.args)...)
		for _, want := range tt.err {
			if !strings.Contains(got.err, want) {
				t.Errorf("%s: stderr %q has no %q", tt.args, got.err, want)
			}
		}
		if got.code != tt.code {
			t.Errorf("%s: got %d, want %d", tt.args, got.code, tt.code)
		}
	}
}
