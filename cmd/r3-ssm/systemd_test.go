package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"jumpsuite/internal/carrier"
	"jumpsuite/internal/lab/labtest"
)

// asMain makes the test's own program r3-ssm.
const asMain = "R3_SSM_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asMain) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// With systemd's socket it ends by itself when nothing is left to do, and the next
// one who asks finds the next process.
func TestWithSystemdsSocketItEndsByItselfAndNobodyNotices(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may ask")
	}
	l := startLab(t, "")
	gate(t, l, first)
	path := filepath.Join(t.TempDir(), "ssm.sock")
	u, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	c := carrier.Client{Socket: path}
	for round := range 2 {
		cmd, said := labtest.Activate(t, asMain, u, "1", "serve", "--idle", "100ms")
		echoes(t, c, first, "round")
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case err := <-ended:
			if err != nil || !strings.Contains(said.String(), "session ended") {
				t.Errorf("round %d: it ended with %v: %s", round, err, said)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("round %d: it goes on: %s", round, said)
		}
		if _, err := os.Stat(path); err != nil {
			t.Errorf("the socket is systemd's, and is gone: %v", err)
		}
		if n := l.Sessions(first); n != 0 {
			t.Errorf("%d sessions are left", n)
		}
	}
}
