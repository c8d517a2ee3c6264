package session

import (
	"slices"
	"testing"
	"time"

	"jumpsuite/internal/session/frame"
)

// numbered is a message from the agent of n bytes.
func numbered(sequence int64, n int) frame.Frame {
	return frame.Frame{Type: frame.Output, Sequence: sequence, Kind: frame.Data, Payload: make([]byte, n)}
}

// sequences are the numbers of frames.
func sequences(frames []frame.Frame) []int64 {
	var out []int64
	for _, f := range frames {
		out = append(out, f.Sequence)
	}
	return out
}

func TestMessagesAreDeliveredInOrderAndOnce(t *testing.T) {
	var i incoming
	var got []frame.Frame
	for _, n := range []int64{1, 0, 0, 3, 3, 2, 1, 4} {
		i.receive(numbered(n, 1), func(f frame.Frame) { got = append(got, f) })
	}
	if want := []int64{0, 1, 2, 3, 4}; !slices.Equal(sequences(got), want) {
		t.Errorf("delivered %v, want %v", sequences(got), want)
	}
	if want := []int64{1, 0, 0, 3, 3, 2, 1, 4}; !slices.Equal(sequences(i.acks), want) {
		t.Errorf("acknowledged %v, want %v: each, however often it comes", sequences(i.acks), want)
	}
}

func TestEarlyMessagesAreBoundedAndWhatIsDroppedIsNotAcknowledged(t *testing.T) {
	var i incoming
	none := func(frame.Frame) { t.Error("one was delivered") }
	for n := int64(1); n <= 2*earlyMessages; n++ {
		i.receive(numbered(n, 1024), none)
	}
	kept := earlyLimit / 1024
	if len(i.early) != kept || len(i.acks) != kept || i.size > earlyLimit {
		t.Errorf("%d kept, %d acknowledged, %d bytes; want %d", len(i.early), len(i.acks), i.size, kept)
	}
	if i.pause() == 0 {
		t.Error("the agent is not slowed down")
	}
	n := 0
	i.receive(numbered(0, 1024), func(frame.Frame) { n++ })
	if n != kept+1 || len(i.early) != 0 || i.size != 0 || i.pause() != 0 {
		t.Errorf("%d delivered, %d left, %d bytes", n, len(i.early), i.size)
	}
}

func TestAMessageThatWasSentTwiceMeasuresNothing(t *testing.T) {
	o := outgoing{rto: firstRTO}
	start := time.Unix(1000, 0)
	o.push(frame.Data, nil)
	o.take(start)
	if o.take(start.Add(firstRTO-1)) != nil {
		t.Error("sent again before its time")
	}
	if m := o.take(start.Add(firstRTO)); m == nil || m.sequence != 0 || o.rto != 2*firstRTO {
		t.Fatalf("got %+v, time-out %v", m, o.rto)
	}
	o.acknowledge(0, start.Add(firstRTO+time.Millisecond))
	if o.srtt != 0 || o.rto != firstRTO || len(o.queue) != 0 {
		t.Errorf("round trip %v, time-out %v, %d left", o.srtt, o.rto, len(o.queue))
	}
	o.push(frame.Data, nil)
	o.take(start)
	o.acknowledge(1, start.Add(40*time.Millisecond))
	if o.srtt != 40*time.Millisecond || o.rto != 120*time.Millisecond {
		t.Errorf("round trip %v, time-out %v", o.srtt, o.rto)
	}
}

func TestOnlyTheFrontIsSentAgainAndAllOverANewWebsocket(t *testing.T) {
	o := outgoing{rto: firstRTO}
	now := time.Unix(1000, 0)
	for range 4 {
		o.push(frame.Data, nil)
	}
	taken := func() (got []int64) {
		for m := o.take(now); m != nil; m = o.take(now) {
			got = append(got, m.sequence)
		}
		return got
	}
	taken()
	o.acknowledge(2, now)
	now = now.Add(time.Second)
	if got := taken(); !slices.Equal(got, []int64{0}) {
		t.Errorf("after the time-out: %v", got)
	}
	o.restart()
	if got := taken(); !slices.Equal(got, []int64{0, 1, 3}) {
		t.Errorf("over a new websocket: %v", got)
	}
	for _, n := range []int64{-1, 2, 4, 99} { // unknown, again, and not sent yet
		if o.acknowledge(n, now) {
			t.Errorf("the ack of %d made room", n)
		}
	}
	if now = now.Add(stallLimit + time.Second); !o.stalled(now) {
		t.Error("a silent agent is waited for for ever")
	}
}
