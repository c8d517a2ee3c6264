package session

import (
	"crypto/rand"
	"time"

	"jumpsuite/internal/session/frame"
)

const (
	// chunk is how much of a stream goes into one message, in bytes: the rate
	// of messages is limited, their size is not (up to 32 KiB has been seen to pass).
	chunk = 16 << 10
	// window is how many messages may be unacknowledged: 1.5 MiB of data.
	window = 96

	// The retransmission time-out begins as the agent's and never exceeds a second.
	// It doubles with each message that is sent again, and halves with each ack of such a one:
	// what is lost on the way is lost with a websocket, not for want of room.
	firstRTO = 200 * time.Millisecond
	leastRTO = 100 * time.Millisecond
	mostRTO  = time.Second
	// stallLimit is how long a message may go unacknowledged over a websocket
	// that works before the session is given up.
	stallLimit = 5 * time.Minute
)

// message is one of the stream that has not been acknowledged.
type message struct {
	sequence int64
	id       frame.ID
	kind     frame.Payload
	payload  []byte
	first    time.Time // when it was sent; zero: not yet
	sent     time.Time // when it was sent last
	again    bool      // sent more than once: its ack measures nothing
	acked    bool      // while one before it is not
}

func (m *message) frame() frame.Frame {
	f := frame.Frame{Type: frame.Input, Created: time.Now(), Sequence: m.sequence, ID: m.id, Kind: m.kind, Payload: m.payload}
	if m.sequence == 0 {
		f.Flags = frame.First
	}
	return f
}

// outgoing is what goes to the agent: a window of messages in order. All kinds
// share one counter. Only the first that is unacknowledged is sent again on a
// time-out, as the agent does it and keeps early ones; after a new websocket all are.
type outgoing struct {
	next    int64      // sequence number of the next message
	queue   []*message // unacknowledged; the first never has acked set
	current int        // of those, how many were sent over this websocket

	srtt, rttvar time.Duration
	rto          time.Duration
	heard        time.Time // when the last ack of something new came
}

// full reports whether there is no room for a write of n bytes, or its beginning.
func (o *outgoing) full(n int) bool { return len(o.queue) >= window && !o.tailHasRoom(n) }

// tailHasRoom reports whether the last message can take a write of n bytes whole,
// since the agent may deliver a message twice, and records are whole writes. Small writes
// that come faster than messages go share one.
func (o *outgoing) tailHasRoom(n int) bool {
	if o.current == len(o.queue) {
		return false
	}
	tail := o.queue[len(o.queue)-1]
	return tail.sent.IsZero() && tail.kind == frame.Data && len(tail.payload)+n <= chunk
}

// add takes some of p, at least a byte; it must not be full.
func (o *outgoing) add(p []byte) int {
	if !o.tailHasRoom(len(p)) {
		o.push(frame.Data, nil)
	}
	tail := o.queue[len(o.queue)-1]
	n := min(len(p), chunk-len(tail.payload))
	tail.payload = append(tail.payload, p[:n]...)
	return n
}

// push adds a message of its own, window or not.
func (o *outgoing) push(kind frame.Payload, payload []byte) {
	o.queue = append(o.queue, &message{sequence: o.next, id: newID(), kind: kind, payload: payload})
	o.next++
}

// take is the next message that is due at now, or nil.
func (o *outgoing) take(now time.Time) *message {
	o.skip()
	var m *message
	switch {
	case o.overdue(now) <= 0:
		m = o.queue[0]
		o.rto = min(2*o.rto, mostRTO)
	case o.current < len(o.queue):
		m = o.queue[o.current]
		o.current++
	default:
		return nil
	}
	m.stamp(now)
	return m
}

// skip passes over what was acknowledged before it was its turn to be sent again.
func (o *outgoing) skip() {
	for o.current < len(o.queue) && o.queue[o.current].acked {
		o.current++
	}
}

// never is longer than anybody waits.
const never = time.Duration(1<<63 - 1)

// overdue is how long it is until the front has to be sent again, if nothing happens.
func (o *outgoing) overdue(now time.Time) time.Duration {
	if o.current == 0 {
		return never
	}
	return o.rto - now.Sub(o.queue[0].sent)
}

// wait is how long it is until take has something to give, if nothing happens.
func (o *outgoing) wait(now time.Time) time.Duration {
	o.skip()
	if o.current < len(o.queue) {
		return 0
	}
	return max(o.overdue(now), 0)
}

func (m *message) stamp(now time.Time) {
	m.again = !m.sent.IsZero()
	m.sent = now
	if !m.again {
		m.first = now
	}
}

// stalled reports whether the agent has been silent about the front for too long.
func (o *outgoing) stalled(now time.Time) bool {
	return len(o.queue) > 0 && !o.queue[0].first.IsZero() && now.Sub(o.queue[0].first) > stallLimit && now.Sub(o.heard) > stallLimit
}

// restart makes all go again, in order: the websocket is a new one.
func (o *outgoing) restart() {
	o.current = 0
	o.rto = max(o.rto, firstRTO)
}

// acknowledge takes the ack of a message, and reports whether there is more
// room now. Unknown ones, and those that came before, are nothing to it.
func (o *outgoing) acknowledge(sequence int64, now time.Time) bool {
	if len(o.queue) == 0 || sequence < o.queue[0].sequence || sequence >= o.queue[0].sequence+int64(len(o.queue)) {
		return false
	}
	m := o.queue[sequence-o.queue[0].sequence]
	if m.acked || m.sent.IsZero() {
		return false
	}
	m.acked, m.payload = true, nil
	o.heard = now
	if m.again {
		o.rto = max(o.rto/2, leastRTO) // something comes through
	} else {
		o.measure(now.Sub(m.sent))
	}
	return o.shift()
}

// shift drops what is acknowledged at the front.
func (o *outgoing) shift() bool {
	n := 0
	for n < len(o.queue) && o.queue[n].acked {
		o.queue[n] = nil
		n++
	}
	o.queue = o.queue[n:]
	o.current = max(o.current-n, 0)
	return n > 0
}

// measure is RFC 6298's estimate, from samples of messages that were sent once
// (Karn's rule).
func (o *outgoing) measure(rtt time.Duration) {
	if o.srtt == 0 {
		o.srtt, o.rttvar = rtt, rtt/2
	} else {
		o.rttvar += ((o.srtt - rtt).Abs() - o.rttvar) / 4
		o.srtt += (rtt - o.srtt) / 8
	}
	o.rto = min(max(o.srtt+4*o.rttvar, leastRTO), mostRTO)
}

// drop forgets all.
func (o *outgoing) drop() { o.queue, o.current = nil, 0 }

// newID is a random UUID (version 4).
func newID() frame.ID {
	var id frame.ID
	rand.Read(id[:]) // never fails
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}
