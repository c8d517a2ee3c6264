package dockerproxy

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"jumpsuite/internal/audit"
	"jumpsuite/policy"
)

func TestASessionThatIsSilentOrLongIsEnded(t *testing.T) {
	for _, tt := range []struct {
		name string
		l    policy.SessionLimits
		want string
	}{
		{"silent", policy.SessionLimits{Idle: 300 * time.Millisecond}, "the session was silent for 300ms (limits.session.idle)"},
		{"long", policy.SessionLimits{For: 300 * time.Millisecond}, "the session has lasted 300ms (limits.session.for)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			told := make(chan string, 4)
			h := newHarness(t, newFakeEngine(t).socket, "test", func(g *Gate) { g.Notify = func(_ Caller, text string) { told <- text } })
			q := policy.Request{Principal: policy.Principal{User: "dev"}, Action: policy.DockerPs, Environment: "test"}
			h.gate.policy.Load().Decide(q).Obligations.Limits.Session = tt.l // a file's are a minute at least
			conn, br := startExec(t, h, "dev", `{"AttachStdin":true,"AttachStdout":true,"Cmd":["cat"]}`, `{"Detach":false,"Tty":false}`)
			io.WriteString(conn, "x")
			if b, _ := io.ReadAll(br); string(b) != "x" {
				t.Errorf("got %q, want what was sent before", b)
			}
			if got := <-told; got != tt.want {
				t.Errorf("the caller was told %q, want %q", got, tt.want)
			}
			eventually(t, "its close says why", func() bool {
				return slices.ContainsFunc(h.log.all(), func(e audit.Event) bool { return e.Kind == audit.Close && e.Result.Error == tt.want })
			})
		})
	}
}

func TestWhatGoesByKeepsASessionOpen(t *testing.T) {
	over := make(chan time.Duration, 1)
	began := time.Now()
	i := newIdle(200*time.Millisecond, func() { over <- time.Since(began) })
	var seen strings.Builder
	tap := i.tap(func(b []byte) error { seen.Write(b); return nil })
	for range 10 {
		time.Sleep(50 * time.Millisecond)
		tap([]byte("x"))
	}
	select {
	case at := <-over:
		if at < 500*time.Millisecond { // on a machine that is slow the ten take longer
			t.Errorf("it was over after %v, with something each 50 ms", at)
		}
	case <-time.After(10 * time.Second):
		t.Error("silence was not noticed")
	}
	if seen.String() != strings.Repeat("x", 10) {
		t.Errorf("the next tap saw %q", seen.String())
	}
}
