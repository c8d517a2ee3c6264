package session_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"jumpsuite/internal/lab"
)

// noise is a stream that is the same for the same seed.
func noise(seed uint64) io.Reader {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	return rand.NewChaCha8(key)
}

// send writes n bytes of noise in pieces of many sizes.
func send(w io.Writer, seed uint64, n int) error {
	r, size := noise(seed), rand.New(rand.NewPCG(seed, 0))
	for n > 0 {
		piece := min(n, 1+size.IntN(40_000))
		if size.IntN(3) == 0 {
			piece = min(n, 1+size.IntN(30))
		}
		b := make([]byte, piece)
		r.Read(b)
		if _, err := w.Write(b); err != nil {
			return fmt.Errorf("with %d bytes to go: %w", n, err)
		}
		n -= piece
	}
	return nil
}

// check reads n bytes, which have to be the noise of a seed.
func check(r io.Reader, seed uint64, n int) error {
	want := noise(seed)
	got, expected := make([]byte, 8<<10), make([]byte, 8<<10)
	for at := 0; at < n; {
		k, err := r.Read(got[:min(len(got), n-at)])
		want.Read(expected[:k])
		if !bytes.Equal(got[:k], expected[:k]) {
			return fmt.Errorf("the bytes from %d on are others", at)
		}
		if at += k; err != nil && at < n {
			return fmt.Errorf("after %d of %d bytes: %w", at, n, err)
		}
	}
	return nil
}

// exchange sends noise both ways at once, and says which way it went wrong.
func exchange(t *testing.T, l *lab.Lab, seed uint64, up, down int) {
	t.Helper()
	far := make(chan error, 2)
	listen(t, l, func(c net.Conn) {
		go func() { far <- send(c, seed+1, down) }()
		far <- check(c, seed, up)
		io.Copy(io.Discard, c)
	})
	s := open(t, l)
	if err := s.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	greeted(t, s)
	near := make(chan error, 1)
	go func() { near <- send(s, seed, up) }()
	if err := check(s, seed+1, down); err != nil {
		t.Errorf("seed %d, down: %v", seed, err)
	}
	if err := <-near; err != nil {
		t.Errorf("seed %d: write: %v", seed, err)
	}
	for range 2 {
		select {
		case err := <-far:
			if err != nil {
				t.Errorf("seed %d, at the far side: %v", seed, err)
			}
		case <-time.After(time.Minute):
			t.Fatalf("seed %d: the far side waits; sessions open: %d", seed, l.Sessions(host))
		}
	}
}

func TestAStreamIsIntactWhateverTheWayDoesToIt(t *testing.T) {
	for _, tt := range []struct{ name, link string }{
		{"a good way", "{}"},
		{"delay", "{delay: 5ms}"},
		{"loss", "{lose: 0.03}"},
		{"repetition", "{repeat: 0.2}"},
		{"reordering", "{swap: 0.2}"},
		{"truncated and changed frames", "{damage: 0.03, exact: true}"},
		{"the client's websocket is cut at any byte", "{cut: 30000, exact: true}"},
		{"the agent's websocket is cut at any byte", "{cut-agent: 120000, exact: true}"},
		{"all of it", "{delay: 1ms, lose: 0.01, repeat: 0.05, swap: 0.05, damage: 0.01, cut: 120000, cut-agent: 120000, exact: true}"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			exact(t, tt.link)
			t.Parallel()
			for seed := range uint64(2) {
				l := start(t, fmt.Sprintf("seed: %d\nlink: %s", seed, tt.link))
				exchange(t, l, seed, 600_000, 120_000)
			}
		})
	}
}

// An hour's session loses its websocket once; this one loses it sixty times, on
// either side or both, while it carries bytes both ways.
func TestSixtyLostWebsocketsLoseNothing(t *testing.T) {
	exact(t, "cut-agent")
	t.Parallel()
	l := start(t, "link: {exact: true}")
	stop, cuts := cutting(t, l, 60)
	exchange(t, l, 7, 30_000_000, 400_000)
	close(stop)
	if n := <-cuts; n < 60 {
		t.Errorf("only %d cuts before the end", n)
	}
}
