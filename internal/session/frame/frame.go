// Package frame is the wire format of a Session Manager data channel: one
// binary websocket message is one frame.
//
// A frame has a header of 120 bytes and a payload, all numbers big-endian:
//
//	off  len  field
//	  0    4  header length: 116, the offset of the payload length
//	  4   32  message type, filled up with spaces
//	 36    4  schema version: 1
//	 40    8  created, milliseconds since 1970
//	 48    8  sequence number
//	 56    8  flags: 1 first, 2 last
//	 64   16  message id, a UUID whose halves are swapped
//	 80   32  SHA-256 of the payload
//	112    4  payload type
//	116    4  payload length; the peers do not look at it
//	120    n  payload
//
// The layout is that of the open-source ends (amazon-ssm-agent,
// agent/session/contracts/agentmessage.go; session-manager-plugin,
// src/message/clientmessage.go). The package knows nothing of order, acks or
// connections.
package frame

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

// The types of messages, as far as a data channel has them.
const (
	Input    = "input_stream_data"  // client to agent
	Output   = "output_stream_data" // agent to client
	Ack      = "acknowledge"
	Closed   = "channel_closed"      // the service ends the session
	Start    = "start_publication"   // the peer's websocket is back
	Pause    = "pause_publication"   // the peer's websocket is away
	State    = "agent_session_state" // agent to service
	maxType  = 32
	lengthAt = 116
	// HeaderSize is how many bytes come before the payload.
	HeaderSize = 120
	schema     = 1
)

// Payload is what a stream message carries.
type Payload uint32

// The payloads of input_stream_data and output_stream_data.
const (
	Data              Payload = 1
	HandshakeRequest  Payload = 5
	HandshakeResponse Payload = 6
	HandshakeComplete Payload = 7
	Flag              Payload = 10
	Stderr            Payload = 11
	ExitCode          Payload = 12
)

// Flags of a frame.
const (
	First = 1
	Last  = 2
)

// The values of a Flag payload, 4 bytes.
const (
	DisconnectPort   = 1
	TerminateSession = 2
	PortError        = 3 // agent to client: the port could not be connected to
)

// ID is a message id in the usual order of a UUID's bytes.
type ID [16]byte

func (id ID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// Frame is one message. Its zero value lacks a type.
type Frame struct {
	Type     string
	Created  time.Time // to the millisecond
	Sequence int64
	Flags    uint64
	ID       ID
	Kind     Payload
	Payload  []byte // Parse leaves it in the buffer that it was given

	raw []byte // of what the service itself makes: the frame as it came
}

// ErrDigest is a payload whose digest is another's.
var ErrDigest = errors.New("the digest is not the payload's")

// Parse reads a frame. What it accepts, Append writes again byte for byte.
// The payload is the rest of b; the frame shares b's memory.
//
// What the ends make has to be right in each field. What the service makes
// itself (Closed, Start, Pause) is taken as loosely as the open-source ends take it:
// Start and Pause have no digest and no length worth the name.
func Parse(b []byte) (Frame, error) {
	if len(b) < HeaderSize {
		return Frame{}, fmt.Errorf("a frame of %d bytes is shorter than its header", len(b))
	}
	switch name := string(bytes.TrimRight(b[4:36], " \x00")); name {
	case Closed, Start, Pause:
		return loose(name, b), nil
	default:
		if err := check(b); err != nil {
			return Frame{}, fmt.Errorf("frame %q: %w", name, err)
		}
		return Frame{Type: name, Kind: Payload(binary.BigEndian.Uint32(b[112:])), Payload: b[HeaderSize:]}.header(b), nil
	}
}

// ParseUnchecked reads a frame as the agent does, which looks neither at the
// digest nor at the length: a damaged payload comes out as it is.
func ParseUnchecked(b []byte) (Frame, error) {
	f, err := Parse(b)
	if err == nil || len(b) < HeaderSize || binary.BigEndian.Uint32(b) != lengthAt || !validType(b[4:36]) {
		return f, err
	}
	name := string(bytes.TrimRight(b[4:36], " "))
	return Frame{Type: name, Kind: Payload(binary.BigEndian.Uint32(b[112:])), Payload: b[HeaderSize:]}.header(b), nil
}

// header is f with the numbers that stand in b.
func (f Frame) header(b []byte) Frame {
	f.Created = time.UnixMilli(int64(binary.BigEndian.Uint64(b[40:])))
	f.Sequence = int64(binary.BigEndian.Uint64(b[48:]))
	f.Flags = binary.BigEndian.Uint64(b[56:])
	copy(f.ID[8:], b[64:72])
	copy(f.ID[:8], b[72:80])
	return f
}

// loose reads what the service made.
func loose(name string, b []byte) Frame {
	f := Frame{Type: name, raw: b}.header(b)
	if at := int64(binary.BigEndian.Uint32(b)) + 4; name == Closed && at <= int64(len(b)) {
		f.Payload = b[at:]
	}
	return f
}

// check refuses what Append would not write.
func check(b []byte) error {
	if n := binary.BigEndian.Uint32(b); n != lengthAt {
		return fmt.Errorf("header length %d, not %d", n, lengthAt)
	}
	if v := binary.BigEndian.Uint32(b[36:]); v != schema {
		return fmt.Errorf("schema version %d, not %d", v, schema)
	}
	if n := binary.BigEndian.Uint32(b[lengthAt:]); int64(n) != int64(len(b)-HeaderSize) {
		return fmt.Errorf("payload length %d, with %d bytes there", n, len(b)-HeaderSize)
	}
	if binary.BigEndian.Uint64(b[40:]) == 0 {
		return errors.New("no creation date")
	}
	return checkContent(b)
}

func checkContent(b []byte) error {
	if name := b[4:36]; !validType(name) {
		return fmt.Errorf("message type %q", name)
	}
	if sha256.Sum256(b[HeaderSize:]) != [sha256.Size]byte(b[80:112]) {
		return ErrDigest
	}
	return nil
}

// validType takes a name of small letters and underscores, filled up with spaces.
func validType(field []byte) bool {
	name := strings.TrimRight(string(field), " ")
	return name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz_") == "" && !strings.ContainsAny(name, " \x00")
}

// Append writes the frame to the end of b.
func (f Frame) Append(b []byte) []byte {
	if f.raw != nil {
		return append(b, f.raw...)
	}
	b = binary.BigEndian.AppendUint32(b, lengthAt)
	name := [maxType]byte{}
	copy(name[:], f.Type+strings.Repeat(" ", max(0, maxType-len(f.Type))))
	b = append(b, name[:]...)
	b = binary.BigEndian.AppendUint32(b, schema)
	b = binary.BigEndian.AppendUint64(b, uint64(f.Created.UnixMilli()))
	b = binary.BigEndian.AppendUint64(b, uint64(f.Sequence))
	b = binary.BigEndian.AppendUint64(b, f.Flags)
	b = append(append(b, f.ID[8:]...), f.ID[:8]...)
	digest := sha256.Sum256(f.Payload)
	b = append(b, digest[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(f.Kind))
	b = binary.BigEndian.AppendUint32(b, uint32(len(f.Payload)))
	return append(b, f.Payload...)
}
