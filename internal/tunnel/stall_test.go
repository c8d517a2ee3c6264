package tunnel

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// A gate that stalls is waited out for as long as it takes:
//
//	R3_TEST_STALLS=1 go test -v -run Stall ./internal/tunnel
func TestStallsOfAGateAreOverInTheirTime(t *testing.T) {
	if os.Getenv("R3_TEST_STALLS") == "" {
		t.Skip("it takes half a minute: R3_TEST_STALLS=1")
	}
	none := func(err error) bool { _, ok := errors.AsType[*NoGateError](err); return ok }
	for _, tt := range []struct {
		name string
		most time.Duration
		gate func(far net.Conn)
		is   func(error) bool
	}{
		{"it says nothing", bannerTime, func(net.Conn) {}, none},
		{"its banner comes byte by byte", bannerTime, func(far net.Conn) {
			for _, b := range []byte(banner) {
				far.Write([]byte{b})
				time.Sleep(2 * time.Second)
			}
		}, none},
		{"it answers no TLS", handshakeTime, func(far net.Conn) { io.WriteString(far, banner); io.Copy(io.Discard, far) }, func(err error) bool { return errors.Is(err, errSlow) }},
		{"it reads nothing", handshakeTime, func(far net.Conn) { io.WriteString(far, banner) }, func(err error) bool { return errors.Is(err, errSlow) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			near, far := tcpPair(t)
			defer far.Close()
			go tt.gate(far)
			began := time.Now()
			c, err := Carry(t.Context(), near)
			if err == nil {
				defer c.Close()
				s, oerr := c.Open(t.Context())
				if oerr != nil {
					t.Fatal(oerr)
				}
				_, err = Client(t.Context(), s, Identity{Key: newKey(t), Trusted: only()}, hello)
			}
			took := time.Since(began)
			t.Logf("over after %.1f s, of %v: %v", took.Seconds(), tt.most, err)
			if !tt.is(err) || took > 2*tt.most {
				t.Errorf("got %v after %v", err, took)
			}
		})
	}
}
