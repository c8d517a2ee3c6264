package tunnel

import (
	"net"
	"os"
	"sync/atomic"
	"time"

	"jumpsuite/internal/loopback"
)

// The SSM agent reads 1,024 bytes, sends them, sleeps for a millisecond, and so
// on: what is ahead in its socket is what a keystroke's echo waits for. So
// streams write no more than keeps the agent busy until it is looked again, one
// after the other, and who writes little goes first.
const (
	queueLeast = 1 << 10 // bytes that may be unread when another piece is written
	queueMost  = 4 << 10 // the same, where the agent was found idle
	queueSmall = 8 << 10 // the same for a small piece
	small      = 512
	queueLook  = 500 * time.Microsecond
	// An agent that reads nothing hangs, or waits for its own websocket, which may take
	// minutes: after so many looks they come less and less often.
	queueLooks = 50
	queueRare  = 20 * time.Millisecond
)

// room is what the streams of a carrier share to keep the agent's queue short.
// Nil: nobody waits.
type room struct {
	watch *loopback.Watch
	turn  chan struct{} // held by the bulk stream that writes next
	bulk  int           // between queueLeast and queueMost; whoever has the turn may change it
}

// roomIn is the room at the other end of conn, where the kernel can tell how much
// of it there is: on the same machine. It is nil elsewhere.
func roomIn(conn net.Conn) *room {
	w, err := loopback.Open(conn)
	if err != nil {
		return nil
	}
	return &room{watch: w, turn: make(chan struct{}, 1), bulk: queueLeast}
}

func (r *room) close() {
	if r != nil {
		r.watch.Close()
	}
}

// patience is how long a stream's writer waits: until its deadline, or until the
// stream or its carrier is closed.
type patience struct {
	deadline atomic.Int64 // unix nanoseconds; zero: none
	closed   chan struct{}
	over     <-chan struct{} // the carrier
}

// write calls do when there is room for n bytes.
func (r *room) write(p *patience, n int, do func() error) error {
	if r == nil {
		return do()
	}
	if n <= small {
		if _, err := r.wait(p, queueSmall); err != nil {
			return err
		}
		return do()
	}
	select {
	case r.turn <- struct{}{}:
	case <-p.closed:
		return net.ErrClosed
	case <-p.over:
		return net.ErrClosed
	}
	defer func() { <-r.turn }()
	unread, err := r.wait(p, r.bulk)
	if err != nil {
		return err
	}
	r.adapt(unread)
	return do()
}

// adapt makes the queue longer where the agent had nothing left to do when we
// looked again, as on a busy machine, and shorter by and by.
func (r *room) adapt(unread int) {
	if unread == 0 {
		r.bulk = min(r.bulk+256, queueMost)
	} else {
		r.bulk = max(r.bulk-8, queueLeast)
	}
}

// wait waits until no more than most is unread, and says how much is. Where the
// kernel does not say it, nobody waits.
func (r *room) wait(p *patience, most int) (unread int, err error) {
	for looks := 0; ; looks++ {
		peer, err := r.watch.Peer()
		if err != nil || peer.Unread <= most {
			return peer.Unread, nil
		}
		if d := p.deadline.Load(); d != 0 && time.Now().UnixNano() > d {
			return 0, os.ErrDeadlineExceeded
		}
		select {
		case <-p.closed:
			return 0, net.ErrClosed
		case <-p.over:
			return 0, net.ErrClosed
		case <-time.After(nextLook(looks)):
		}
	}
}

// nextLook is how long to wait after so many looks that found no room.
func nextLook(looks int) time.Duration {
	if looks < queueLooks {
		return queueLook
	}
	return min(queueLook<<min(looks-queueLooks+1, 10), queueRare)
}
