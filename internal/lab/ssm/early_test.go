package ssm_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"jumpsuite/internal/session/frame"
)

// The agent acknowledges what comes before it has completed the handshake, and drops
// it. What it says of itself is for the service alone.
func TestWhatIsSentBeforeTheHandshakeIsLost(t *testing.T) {
	_, open, out := raw(t)
	conn := open(*out.StreamUrl, *out.TokenValue)
	f, _ := hears(t, conn)
	if f.Type != frame.Output || f.Kind != frame.HandshakeRequest || f.Sequence != 0 {
		t.Fatalf("the first message is %s, %d, number %d", f.Type, f.Kind, f.Sequence)
	}
	early := frame.Frame{Type: frame.Input, Created: time.Now(), Flags: frame.First, Kind: frame.Data, Payload: []byte("early")}
	if err := conn.Write(t.Context(), websocket.MessageBinary, early.Append(nil)); err != nil {
		t.Fatal(err)
	}
	for {
		f, text := hears(t, conn)
		if f.Type == frame.Ack {
			if !strings.Contains(text, `"AcknowledgedMessageSequenceNumber":0`) {
				t.Errorf("got %s", text)
			}
			return
		}
		if f.Type != frame.Output || !bytes.Contains(f.Payload, []byte("AgentVersion")) { // the request, again
			t.Fatalf("got %s %s", f.Type, text)
		}
	}
}
