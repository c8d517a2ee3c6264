package tunnel

import (
	"net"
	"time"

	"jumpsuite/internal/loopback"
)

// The SSM agent reads 1,024 bytes, sends them, sleeps for a millisecond, and so
// on: what is ahead in its socket is what a keystroke's echo waits for. So no
// more is written than keeps the agent busy until it is looked again.
const (
	queueMost = 2 << 10 // bytes that it may have left unread before it gets more
	queueLook = 500 * time.Microsecond
)

// roomIn waits for room at the other end of conn, where the kernel can tell how
// much of it there is: on the same machine. Elsewhere, or where the kernel does
// not say, nobody waits.
func roomIn(conn net.Conn) (wait, done func()) {
	w, err := loopback.Open(conn)
	if err != nil {
		return nil, func() {}
	}
	return func() {
		for {
			p, err := w.Peer()
			if err != nil || p.Unread <= queueMost {
				return
			}
			time.Sleep(queueLook)
		}
	}, func() { w.Close() }
}
