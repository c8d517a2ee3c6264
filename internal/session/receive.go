package session

import (
	"bytes"
	"time"

	"jumpsuite/internal/session/frame"
)

const (
	// inboxLimit is how many bytes may wait for Read before the websocket is
	// not read any more: the back-pressure that the protocol lacks.
	inboxLimit = 256 << 10
	// earlyLimit and earlyMessages bound what came before its turn. The agent has
	// no window and resends only its first message, ten times a second: what is
	// dropped here costs a tenth of a second each.
	earlyLimit    = 3 << 20
	earlyMessages = 4096
	// ackLimit is how many acks may wait before the websocket is not read any more.
	ackLimit = 2048
)

// signal is a wake-up for one who waits for room; its zero value is unusable.
type signal chan struct{}

func (s signal) signal() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// incoming is what comes from the agent.
type incoming struct {
	expected int64                 // sequence number of the next message
	early    map[int64]frame.Frame // after it; copies
	size     int                   // bytes in early
	inbox    bytes.Buffer          // in order, for Read
	began    bool                  // the port has said something
	acks     []frame.Frame         // to be acknowledged, without payloads
	room     signal
}

// receive takes a stream message, and hands what is in order now to deliver.
// A message is acknowledged when it has been delivered, or kept for later, or
// was delivered before; one that there is no room for is as if it had not come.
func (i *incoming) receive(f frame.Frame, deliver func(frame.Frame)) {
	if f.Sequence > i.expected && !i.keep(f) {
		return
	}
	if f.Sequence == i.expected {
		deliver(f)
		i.expected++
		i.turn(deliver)
	}
	f.Payload = nil
	i.acks = append(i.acks, f)
}

// keep keeps a message that came before its turn, if there is room.
func (i *incoming) keep(f frame.Frame) bool {
	if _, ok := i.early[f.Sequence]; ok {
		return true
	}
	if len(i.early) >= earlyMessages || i.size+len(f.Payload) > earlyLimit {
		return false
	}
	if i.early == nil {
		i.early = map[int64]frame.Frame{}
	}
	f.Payload = bytes.Clone(f.Payload)
	i.early[f.Sequence] = f
	i.size += len(f.Payload)
	return true
}

// turn delivers those whose turn has come.
func (i *incoming) turn(deliver func(frame.Frame)) {
	for {
		f, ok := i.early[i.expected]
		if !ok {
			return
		}
		delete(i.early, i.expected)
		i.size -= len(f.Payload)
		deliver(f)
		i.expected++
	}
}

// crowded reports whether no more should be read from the websocket.
func (i *incoming) crowded() bool { return i.inbox.Len() >= inboxLimit || len(i.acks) >= ackLimit }

// pause is how long to wait before the next frame is read. While many messages
// are early, one is missing that the agent sends ten times a second at most, and new
// ones do nothing but get lost: so the agent is slowed down.
func (i *incoming) pause() time.Duration {
	switch n := len(i.early); {
	case n > earlyMessages*7/8 || i.size > earlyLimit*7/8:
		return 50 * time.Millisecond
	case n > earlyMessages/2 || i.size > earlyLimit/2:
		return 10 * time.Millisecond
	}
	return 0
}

// drop forgets all.
func (i *incoming) drop() {
	i.inbox = bytes.Buffer{}
	i.early, i.size, i.acks = nil, 0, nil
}
