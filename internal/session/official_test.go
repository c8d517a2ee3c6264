package session_test

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/realagent"
)

// official starts the complete official agent on the lab's host, where the environment variable
// OFFICIAL_SSM names a folder with it: the tests of this package are then about a
// session with it, through the lab's relay. Without, the lab plays the agent.
func official(t testing.TB, l *lab.Lab) *realagent.Agent {
	t.Helper()
	folder, err := realagent.Folder()
	if err != nil {
		if os.Getenv(realagent.Variable) != "" {
			t.Fatal(err)
		}
		return nil
	}
	a, err := realagent.Start(realagent.Options{Folder: folder, Dir: t.TempDir(), Instance: host, Lab: l})
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
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := a.Await(ctx, true); err != nil {
		t.Fatal(err)
	}
	l.ResetCalls()
	return a
}

// exact leaves a test out whose link asks for an agent that is better than the official
// one, where that is the host's, and does what shows it.
func exact(t *testing.T, link string) {
	t.Helper()
	if _, err := realagent.Folder(); err == nil && (strings.Contains(link, "damage") || strings.Contains(link, "cut-agent")) {
		t.Skip("left out with the official agent, which hands messages to the port twice, and damaged ones")
	}
}

func TestTheOfficialAgentIsTheHostsWhereItIs(t *testing.T) {
	if _, err := realagent.Folder(); err != nil {
		t.Skipf("the official agent is left out: %v", err)
	}
	l := start(t, "")
	listen(t, l, echo)
	s := open(t, l)
	greeted(t, s)
	if version, ok := l.RealAgent(host); !ok || version != s.AgentVersion() {
		t.Errorf("an agent of version %s has answered; connected is %q, %v", s.AgentVersion(), version, ok)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}
