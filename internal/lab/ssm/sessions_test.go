package ssm_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	api "github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/coder/websocket"

	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/clock"
	"jumpsuite/internal/lab/ssm"
	"jumpsuite/internal/lab/world"
	"jumpsuite/internal/session/frame"
)

const documents = `
clusters: [{name: prod, hosts: [{instance: i-0abc}, {instance: i-0off, offline: true}]}]
documents:
  - {name: pinned, port: 2376}
  - name: asked
    content: |
      {"schemaVersion": "1.0", "sessionType": "Port",
       "parameters": {"port": {"type": "String", "allowedPattern": "^[0-9]+$"}, "more": {"type": "String", "default": "x"}},
       "properties": {"portNumber": "{{ port }}"}}
  - {name: broken, content: '{"schemaVersion": "2.2"}'}
`

// alone is an SSM without a lab around it.
func alone(t *testing.T, text string) *ssm.SSM {
	t.Helper()
	w, err := world.Parse([]byte(text), "world")
	if err != nil {
		t.Fatal(err)
	}
	s := ssm.New(ssm.Config{World: w, Clock: clock.New(1), Service: func() string { return "http://127.0.0.1:1" }})
	t.Cleanup(s.Close)
	return s
}

func TestSessionsAreStartedAsAWSDoes(t *testing.T) {
	s := alone(t, documents)
	for _, tt := range []struct {
		name, target, document string
		parameters             map[string][]string
		want                   string
	}{
		{"a host and a document", "i-0abc", "pinned", nil, ""},
		{"a parameter", "i-0abc", "asked", map[string][]string{"port": {"22"}}, ""},
		{"an offline host", "i-0off", "pinned", nil, "TargetNotConnected: i-0off is not connected."},
		{"no such host", "i-0nil", "pinned", nil, "TargetNotConnected: i-0nil is not connected."},
		{"no such document", "i-0abc", "none", nil, "InvalidDocument: Document with name none does not exist."},
		{"the default document, which is not there", "i-0abc", "", nil, "InvalidDocument: Document with name SSM-SessionManagerRunShell does not exist."},
		{"a document of another schema", "i-0abc", "broken", nil, "InvalidDocument: Document broken is of schema \"2.2\", not 1.0"},
		{"a parameter that is missing", "i-0abc", "asked", nil, "InvalidParameters: Parameter port of document asked is required"},
		{"a value that is not allowed", "i-0abc", "asked", map[string][]string{"port": {"22;ls"}}, "InvalidParameters: Parameter port has value not matching ^[0-9]+$"},
		{"an unknown parameter", "i-0abc", "pinned", map[string][]string{"host": {"127.0.0.1"}}, "InvalidParameters: Document pinned has no parameter host"},
		{"two values", "i-0abc", "asked", map[string][]string{"port": {"1", "2"}}, "InvalidParameters: Parameter port takes one value"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := &api.StartSessionInput{Target: &tt.target, Parameters: tt.parameters}
			if tt.document != "" {
				in.DocumentName = &tt.document
			}
			_, err := s.StartSession(t.Context(), in)
			if got := text(err); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestASessionThatIsOverGetsAnEmptyToken(t *testing.T) {
	s := alone(t, documents)
	out, err := s.StartSession(t.Context(), &api.StartSessionInput{Target: aws.String("i-0abc"), DocumentName: aws.String("pinned")})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // to end it again is no error
		if _, err := s.TerminateSession(t.Context(), &api.TerminateSessionInput{SessionId: out.SessionId}); err != nil {
			t.Error(err)
		}
	}
	again, err := s.ResumeSession(t.Context(), &api.ResumeSessionInput{SessionId: out.SessionId})
	if err != nil || *again.TokenValue != "" {
		t.Errorf("got %v, %v", again, err)
	}
	_, err = s.ResumeSession(t.Context(), &api.ResumeSessionInput{SessionId: aws.String("nobody-0")})
	if got := text(err); got != "DoesNotExistException: Session nobody-0 does not exist" {
		t.Errorf("got %s", got)
	}
}

// raw starts a session of a lab, and returns what opens its websocket.
func raw(t *testing.T) (*lab.Lab, func(url, token string) *websocket.Conn, *api.StartSessionOutput) {
	t.Helper()
	w, err := world.Parse([]byte("clusters: [{name: prod, hosts: [{instance: i-0abc}]}]"), "world")
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.Start(t.Context(), lab.Config{World: w})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := l.Listen("i-0abc", 2376, func(c net.Conn) { io.Copy(io.Discard, c) }); err != nil {
		t.Fatal(err)
	}
	out, err := client(l).StartSession(t.Context(), &api.StartSessionInput{Target: aws.String("i-0abc"), DocumentName: aws.String("jumpsuite-docker")})
	if err != nil {
		t.Fatal(err)
	}
	return l, func(url, token string) *websocket.Conn {
		conn, _, err := websocket.Dial(t.Context(), url, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.CloseNow() })
		open := frame.Encode(frame.Open{Schema: frame.OpenSchema, RequestID: "r", Token: token})
		if err := conn.Write(t.Context(), websocket.MessageText, open); err != nil {
			t.Fatal(err)
		}
		return conn
	}, out
}

// closed waits for the end of a websocket, and says how it came.
func closed(t *testing.T, conn *websocket.Conn) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		if _, _, err := conn.Read(ctx); err != nil {
			return err
		}
	}
}

func TestATokenOpensOnce(t *testing.T) {
	_, open, out := raw(t)
	conn := open(*out.StreamUrl, *out.TokenValue)
	if _, _, err := conn.Read(t.Context()); err != nil { // the handshake's request
		t.Fatal(err)
	}
	for _, token := range []string{*out.TokenValue, "made up", ""} {
		err := closed(t, open(*out.StreamUrl, token))
		if e, ok := errors.AsType[websocket.CloseError](err); !ok || e.Code != websocket.StatusPolicyViolation {
			t.Errorf("token %q: got %v", token, err)
		}
	}
}

func TestTheAddressIsToBeUsedAsItIs(t *testing.T) {
	_, _, out := raw(t)
	bare, _, _ := strings.Cut(*out.StreamUrl, "&")
	_, answer, err := websocket.Dial(t.Context(), bare, nil)
	if err == nil || answer == nil || answer.StatusCode != 403 {
		t.Errorf("got %v, %v", answer, err)
	}
}

func TestTheSessionsOfALostHostHang(t *testing.T) {
	l, _, _ := raw(t)
	s := connect(t, l)
	defer s.Close()
	if err := l.Do(world.Action{Do: "host-lost", To: "i-0abc"}); err != nil {
		t.Fatal(err)
	}
	s.SetReadDeadline(time.Now().Add(2 * time.Second)) // longer than the agent's first attempts
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	_, err := client(l).StartSession(t.Context(), &api.StartSessionInput{Target: aws.String("i-0abc"), DocumentName: aws.String("jumpsuite-docker")})
	if err == nil || !strings.Contains(err.Error(), "TargetNotConnected") {
		t.Errorf("got %v", err)
	}
}

func TestWhoSendsTooManyMessagesIsCut(t *testing.T) {
	_, open, out := raw(t)
	conn := open(*out.StreamUrl, *out.TokenValue)
	ack := frame.Frame{Type: frame.Ack, Created: time.Now(), Payload: frame.Encode(frame.Acknowledged{Sequence: -1})}.Append(nil)
	go func() {
		for range 1500 {
			if conn.Write(t.Context(), websocket.MessageBinary, ack) != nil {
				return
			}
		}
	}()
	if err := closed(t, conn); websocket.CloseStatus(err) != -1 || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want a cut without a word", err)
	}
}
