package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"jumpsuite/internal/keys"
	"jumpsuite/internal/lab/world"
)

// cut cuts the websockets of a host's sessions, now this side's, now the other's.
func (f *far) cut(t *testing.T, host string, stop <-chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-time.After(700 * time.Millisecond):
		}
		if err := f.lab.Do(world.Action{Do: "session-cut", To: host, Value: []string{"client", "agent", "both"}[i%3]}); err != nil {
			t.Error(err)
		}
	}
}

// AWS closes the websocket of each session about once an hour.
func TestACommandOutlivesTheSessionsWebsockets(t *testing.T) {
	f := jumpServer(t)
	container(t, "web", "sleep", "1000")
	docker(t, f.Host, "", "-H", "10.0.0.1", "ps").expect(t, "ps", 0, "web", "")
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() { f.cut(t, testHost, stop); close(done) }()
	in := strings.Repeat("0123456789abcde\n", 12_000)
	got := docker(t, f.Host, in, "-H", "10.0.0.1", "exec", "-i", "web", "cat")
	close(stop)
	<-done
	if got.code != 0 || got.out != in || got.err != "" {
		t.Errorf("got code %d, %d of %d bytes, stderr %q", got.code, len(got.out), len(in), got.err)
	}
}

// idleWords are AWS's for a session that was idle for too long.
const idleWords = "Your session timed out due to inactivity and has been terminated."

// ended is how the end of a session is told.
const ended = "host 10.0.0.1: the way to the host was lost: the session to " + testHost + " was ended: "

// ends ends the host's sessions at AWS's side.
func ends(words string) func(*testing.T, *far) {
	return func(t *testing.T, f *far) {
		if err := f.lab.Do(world.Action{Do: "session-end", To: testHost, Value: words}); err != nil {
			t.Error(err)
		}
	}
}

// On a terminal the words stand below what was shown, and the terminal is as it was.
// The next command has a session of its own.
func TestWhyASessionEndedIsSaidOnATerminal(t *testing.T) {
	f := jumpServer(t)
	container(t, "web", "sleep", "1000")
	s := on(t, sudoDocker(t, f.Host, "-H", "10.0.0.1", "exec", "-it", "web", "sh"), true)
	s.types("echo b''egun\n")
	s.sees("begun", 1)
	ends(idleWords)(t, f)
	s.sees(ended+idleWords, 1)
	s.sees("hint: try again; how long a session may be idle", 1)
	<-s.done
	if code := s.cmd.ProcessState.ExitCode(); code == 0 {
		t.Error("it looks like a success")
	}
	docker(t, f.Host, "", "-H", "10.0.0.1", "exec", "web", "echo", "again").expect(t, "the next one", 0, "again", "")
	if n := f.starts(testHost); n != 2 {
		t.Errorf("%d sessions were started, want 2", n)
	}
}

// What was cut does not look as if it had ended.
func TestWhatIsCutIsNoSuccess(t *testing.T) {
	const lost = "host 10.0.0.1: the way to the host was lost: r3-ssm, or the session to the host, has ended\nhint: try again"
	for _, tt := range []struct {
		name  string
		args  string
		cut   func(*testing.T, *far)
		begun string
		says  string
	}{
		{"logs, r3-ssm is killed", "logs -f web", func(t *testing.T, f *far) { f.ssm.cmd.Process.Kill() }, "one", lost},
		{"stats, r3-ssm is killed", "stats", func(t *testing.T, f *far) { f.ssm.cmd.Process.Kill() }, "web", lost},
		{"stats of one, r3-ssm is killed", "stats web", func(t *testing.T, f *far) { f.ssm.cmd.Process.Kill() }, "web", lost},
		{"exec, r3-ssm is killed", "exec web sh -c echo~one;sleep~1000", func(t *testing.T, f *far) { f.ssm.cmd.Process.Kill() }, "one", lost},
		{"logs, the session is ended", "logs -f web", ends(idleWords), "one", ended + idleWords + "\nhint: try again; how long a session may be idle"},
		{"exec, the session is ended", "exec web sh -c echo~one;sleep~1000", ends(idleWords), "one", ended + idleWords + "\nhint: try again"},
		{"stats, the session is ended", "stats", ends(idleWords), "web", ended + idleWords + "\nhint: try again"},
		{"logs, somebody ends the session", "logs -f web", ends(" "), "one", "host 10.0.0.1: the way to the host was lost: the session to the host was ended, and nobody said why: somebody has ended it, or "},
		{"logs, with words that drive terminals", "logs -f web", ends("a\x1b]0;title\a\x1b[2J\nb " + strings.Repeat("c", 2000)), "one", ended + `a\u001b]0;title\u0007\u001b[2J b ` + strings.Repeat("c", 200)},
		{"logs, the host's key is revoked", "logs -f web", func(t *testing.T, f *far) {
			own, err := f.keys[testHost].Own()
			if err != nil {
				t.Fatal(err)
			}
			var here keys.Store
			if err := here.Revoke(keys.Entry{Key: keys.ID(own), Name: testHost}); err != nil {
				t.Fatal(err)
			}
		}, "one", " is not trusted here\nhint: "},
		{"logs, the jump server's key is revoked", "logs -f web", func(t *testing.T, f *far) {
			own, err := keys.Store{}.Own()
			if err != nil {
				t.Fatal(err)
			}
			if err := f.keys[testHost].Revoke(keys.Entry{Key: keys.ID(own), Name: "jump"}); err != nil {
				t.Fatal(err)
			}
		}, "one", "does not trust this jump server's key ed25519:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := jumpServer(t)
			container(t, "web", "sh", "-c", "echo one; exec sleep 1000")
			args := append([]string{"-H", "10.0.0.1"}, strings.Fields(tt.args)...)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "~", " ")
			}
			cmd := f.Sudo(t.Context(), args...)
			var out background
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it has begun", func() bool { return strings.Contains(out.text(), tt.begun) })
			tt.cut(t, f)
			done := make(chan error, 1)
			go func() { done <- cmd.Wait() }()
			select {
			case err := <-done:
				if err == nil {
					t.Errorf("it looks like a success: %q", out.text())
				}
				if !strings.Contains(out.text(), tt.says) {
					t.Errorf("it does not say %q: %q (%v)", tt.says, out.text(), err)
				}
			case <-time.After(25 * time.Second):
				cmd.Process.Kill()
				t.Errorf("it goes on")
			}
		})
	}
}

// An hour of a service that closes every websocket each minute: a log that is
// followed has each of its lines, once and in order.
func TestALogIsFollowedThroughSixtyCuts(t *testing.T) {
	f := jumpServer(t)
	container(t, "web", "sh", "-c", "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); [ $((i%50)) = 0 ] && sleep 0.15; done; echo over; exec sleep 1000")
	s := on(t, sudoDocker(t, f.Host, "-H", "10.0.0.1", "logs", "-f", "web"), true)
	s.sees("line 0", 1)
	for i := range 60 {
		if err := f.lab.Do(world.Action{Do: "session-cut", To: testHost, Value: []string{"client", "agent", "both"}[i%3]}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	s.sees("over", 1)
	var want strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&want, "line %d\r\n", i)
	}
	if got := s.text(); got != want.String()+"over\r\n" {
		t.Errorf("got %d bytes, want %d, all of them in order", len(got), want.Len()+len("over\r\n"))
	}
	s.types(ctrlC)
	s.ends(130)
	if n := f.starts(testHost); n != 1 {
		t.Errorf("%d sessions were started, want 1", n)
	}
}
