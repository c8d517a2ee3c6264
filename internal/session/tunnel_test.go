package session_test

import (
	"crypto/ed25519"
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/world"
	"jumpsuite/internal/session"
	"jumpsuite/internal/tunnel"
)

// identity makes a key that trusts whoever comes: here it is about bytes.
func identity(t *testing.T) tunnel.Identity {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return tunnel.Identity{Key: key, Trusted: func(tunnel.KeyID) bool { return true }}
}

// bytesEach way a stream of the whole stack carries.
const (
	streams   = 3
	upEach    = 3_000_000
	downEach  = 100_000
	wholeTime = 3 * time.Minute
)

// stack serves the tunnel on the lab's host: each stream's Purpose is its seed;
// noise goes both ways at once.
func stack(t *testing.T, l *lab.Lab, far chan<- error) {
	t.Helper()
	id := identity(t)
	welcome := func(tunnel.Hello, tunnel.KeyID) (tunnel.Welcome, error) {
		return tunnel.Welcome{Environment: "test", Host: host, Version: "1"}, nil
	}
	err := l.Listen(host, 2376, func(c net.Conn) {
		tunnel.Serve(t.Context(), c, func(s net.Conn) {
			conn, hello, err := tunnel.Accept(t.Context(), s, id, welcome)
			if err != nil {
				far <- err
				return
			}
			defer conn.Close()
			seed, err := strconv.ParseUint(hello.Purpose, 10, 64)
			if err != nil {
				far <- err
				return
			}
			far <- both(conn, seed+1, downEach, seed, upEach)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// both sends the noise of one seed and checks that of another, at once, each to its end.
func both(c *tunnel.Conn, out uint64, n int, in uint64, m int) error {
	sent := make(chan error, 1)
	go func() {
		err := send(c, out, n)
		if err == nil {
			err = c.CloseWrite()
		}
		sent <- err
	}()
	if err := check(c, in, m); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if k, err := c.Read(make([]byte, 1)); k > 0 || err == nil {
		return fmt.Errorf("%d bytes more than were sent", k)
	}
	if err := <-sent; err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// throughTunnel carries streams over one session, and says what went wrong.
func throughTunnel(t *testing.T, l *lab.Lab) {
	t.Helper()
	far, near := make(chan error, streams), make(chan error, streams)
	stack(t, l, far)
	s, err := session.Start(t.Context(), config(l))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	carrier, err := tunnel.Carry(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer carrier.Close()
	id := identity(t)
	for i := range uint64(streams) {
		go func() {
			stream, err := carrier.Open(t.Context())
			if err != nil {
				near <- err
				return
			}
			seed := 10 * (i + 1)
			conn, err := tunnel.Client(t.Context(), stream, id, tunnel.Hello{User: "dev1", UID: 1001, Groups: []string{"dev"}, Audit: "a1", Environment: "test", Purpose: strconv.FormatUint(seed, 10)})
			if err != nil {
				near <- err
				return
			}
			defer conn.Close()
			near <- both(conn, seed, upEach, seed+1, downEach)
		}()
	}
	late := time.After(wholeTime)
	for range 2 * streams {
		select {
		case err = <-near:
		case err = <-far:
		case <-late:
			t.Fatalf("not done in %v; the carrier says %v, the session %v", wholeTime, carrier.Err(), s.Err())
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// The agent of these labs is as bad as the real one: it delivers twice.
func TestTheWholeStackIsIntactWhateverTheWayDoesToIt(t *testing.T) {
	for _, tt := range []struct{ name, link string }{
		{"lost, repeated and swapped", "{lose: 0.01, repeat: 0.1, swap: 0.1}"},
		{"websockets cut at any byte", "{cut: 600000, cut-agent: 600000}"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(2) {
				throughTunnel(t, start(t, fmt.Sprintf("seed: %d\nlink: %s", seed, tt.link)))
			}
		})
	}
}

func TestTheWholeStackLosesNothingInSixtyLostWebsockets(t *testing.T) {
	t.Parallel()
	l := start(t, "")
	stop, cuts := cutting(t, l, 60)
	throughTunnel(t, l)
	close(stop)
	if n := <-cuts; n < 60 {
		t.Errorf("only %d cuts before the end", n)
	}
}

// cutting cuts the websockets of a lab's sessions, now this side's, now the
// other's, now both, n times.
func cutting(t *testing.T, l *lab.Lab, n int) (stop chan struct{}, cuts <-chan int) {
	stop, done := make(chan struct{}), make(chan int, 1)
	go func() {
		k := 0
		defer func() { done <- k }()
		for side := []string{"client", "agent", "both"}; k < n; k++ {
			select {
			case <-time.After(30 * time.Millisecond):
			case <-stop:
				return
			}
			if err := l.Do(world.Action{Do: "session-cut", To: host, Value: side[k%3]}); err != nil {
				t.Error(err)
			}
		}
	}()
	return stop, done
}
