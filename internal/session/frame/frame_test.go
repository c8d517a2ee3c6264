package frame

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"time"
)

func sample() Frame {
	return Frame{Type: Output, Created: time.UnixMilli(1700000000123), Sequence: 258, Flags: First, Kind: Data,
		ID: ID{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, Payload: []byte("abc")}
}

func TestAFrameIsLaidOutAsTheOpenSourceEndsHaveIt(t *testing.T) {
	want := "00000074" + hex.EncodeToString([]byte("output_stream_data              ")) + "00000001" +
		"0000018bcfe5687b" + "0000000000000102" + "0000000000000001" +
		"08090a0b0c0d0e0f0001020304050607" + // the UUID's halves, swapped
		"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" + // FIPS 180-2, "abc"
		"00000001" + "00000003" + "616263"
	if got := hex.EncodeToString(sample().Append(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := sample().ID.String(); got != "00010203-0405-0607-0809-0a0b0c0d0e0f" {
		t.Errorf("got %s", got)
	}
}

func TestWhatIsWrittenIsReadBack(t *testing.T) {
	got, err := Parse(sample().Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	if want := sample(); got.Type != want.Type || !got.Created.Equal(want.Created) || got.Sequence != want.Sequence || got.Flags != want.Flags ||
		got.ID != want.ID || got.Kind != want.Kind || !bytes.Equal(got.Payload, want.Payload) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestDamagedFramesAreRefused(t *testing.T) {
	good := sample().Append(nil)
	for _, tt := range []struct {
		name, want string
		change     func([]byte) []byte
	}{
		{"cut in its header", "shorter than its header", func(b []byte) []byte { return b[:119] }},
		{"cut in its payload", "payload length 3, with 2 bytes there", func(b []byte) []byte { return b[:122] }},
		{"another payload", "the digest is not the payload's", func(b []byte) []byte { b[120] = 'x'; return b }},
		{"another header length", "header length 112", func(b []byte) []byte { b[3] = 112; return b }},
		{"another schema", "schema version 2", func(b []byte) []byte { b[39] = 2; return b }},
		{"no date", "no creation date", func(b []byte) []byte { clear(b[40:48]); return b }},
		{"a type filled up with zeros", "message type", func(b []byte) []byte { b[35] = 0; return b }},
		{"no type", "message type", func(b []byte) []byte { copy(b[4:36], strings.Repeat(" ", 32)); return b }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Parse(tt.change(bytes.Clone(good))); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestTheAgentTakesADamagedPayload(t *testing.T) {
	b := sample().Append(nil)
	b[120] = 'x'
	if f, err := ParseUnchecked(b[:122]); err != nil || string(f.Payload) != "xb" || f.Sequence != 258 {
		t.Errorf("got %+v, %v", f, err)
	}
	b[4] = 'X'
	if f, err := ParseUnchecked(b); err == nil {
		t.Errorf("got %+v", f)
	}
}

func TestWhatTheServiceMakesIsTakenLoosely(t *testing.T) {
	b := sample().Append(nil)
	copy(b[4:36], "channel_closed"+strings.Repeat("\x00", 18))
	b[119] = 99 // a wrong length
	clear(b[80:112])
	f, err := Parse(b)
	if err != nil || f.Type != Closed || string(f.Payload) != "abc" {
		t.Errorf("got %+v, %v", f, err)
	}
	copy(b[4:36], "pause_publication               ")
	if f, err := Parse(b); err != nil || f.Type != Pause || f.Payload != nil {
		t.Errorf("got %+v, %v", f, err)
	}
}

// FuzzParse: what parses re-encodes to the same bytes.
func FuzzParse(f *testing.F) {
	f.Add(sample().Append(nil))
	ack := Frame{Type: Ack, Created: time.UnixMilli(1), Flags: AckFlags, Payload: sample().Acknowledge()}
	f.Add(ack.Append(nil))
	closed := Frame{Type: Closed, Created: time.UnixMilli(1), Payload: Encode(ChannelClosed{Output: "the end"})}
	f.Add(closed.Append(nil))
	f.Add(bytes.Repeat([]byte{0}, HeaderSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := Parse(b)
		if err != nil {
			return
		}
		if got := frame.Append(nil); !bytes.Equal(got, b) {
			t.Errorf("got  %x\nfrom %x", got, b)
		}
	})
}
