package dockerproxy

import (
	"encoding/binary"

	"jumpsuite/policy"
)

// startRecording begins the recording that a decision obliges to, and returns
// what has to see the bytes. Nil: nothing is to be recorded.
func (x *exchange) startRecording(d policy.Decision, s Session) (Recording, taps, error) {
	if d.Obligations.Record == policy.RecordNothing {
		return nil, taps{}, nil
	}
	if err := x.recordable(false); err != nil {
		return nil, taps{}, err
	}
	s.ID, s.Caller, s.Environment = x.event.ID, x.conn.caller, x.gate.Environment
	s.Input = d.Obligations.Record == policy.RecordAll
	rec, err := x.gate.Recorder(s)
	if err != nil {
		return nil, taps{}, unavailable("the session cannot be recorded, and so is not begun: %v", err)
	}
	t := taps{out: outputTap(rec, s.Terminal), failed: rec.Failed()}
	if s.Input {
		t.in = func(b []byte) error { return asTapError(rec.Input(b)) }
	}
	return rec, t, nil
}

func asTapError(err error) error {
	if err == nil {
		return nil
	}
	return &tapError{err}
}

// outputTap records output. Without a terminal the stream has frames, of which
// only the content is recorded.
func outputTap(rec Recording, terminal bool) func([]byte) error {
	write := func(b []byte) error {
		_, err := rec.Write(b)
		return asTapError(err)
	}
	if terminal {
		return write
	}
	f := &frames{content: write}
	return f.take
}

// frames finds the content of the Engine's multiplexed streams, however their
// bytes are cut up: eight bytes of head (stream, three zeros, the length as 32
// bits, the highest byte first), then the content.
type frames struct {
	content func([]byte) error
	head    [8]byte
	have    int    // bytes of head
	left    uint32 // bytes of content
}

func (f *frames) take(b []byte) error {
	for len(b) > 0 {
		if f.left == 0 {
			n := copy(f.head[f.have:], b)
			f.have += n
			b = b[n:]
			if f.have == len(f.head) {
				f.have, f.left = 0, binary.BigEndian.Uint32(f.head[4:])
			}
			continue
		}
		n := min(uint32(len(b)), f.left)
		if err := f.content(b[:n]); err != nil {
			return err
		}
		f.left -= n
		b = b[n:]
	}
	return nil
}
