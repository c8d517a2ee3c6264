package intact_test

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/coder/websocket"

	"jumpsuite/internal/intact"
)

// size is that of the messages here: the reader's buffer is full more than once.
const size = 6000

// The head of such a message: final, binary, two bytes of length, and to a server a mask.
var (
	fromServer = []byte{0x82, 126, size >> 8, size & 0xff}
	fromClient = []byte{0x82, 126 | 0x80, size >> 8, size & 0xff, 0, 0, 0, 0}
)

// sides are both ways to get a websocket, each with the other end of its connection.
var sides = []struct {
	name string
	open func(*testing.T) (*websocket.Conn, net.Conn)
	head []byte
}{
	{"dialled", dialled, fromServer},
	{"accepted", accepted, fromClient},
}

func dialled(t *testing.T) (*websocket.Conn, net.Conn) {
	t.Helper()
	near, far := net.Pipe()
	answers := roundTrip(func(r *http.Request) (*http.Response, error) {
		sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // RFC 6455, 4.2.2
		h := http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Accept": {base64.StdEncoding.EncodeToString(sum[:])}}
		return &http.Response{StatusCode: http.StatusSwitchingProtocols, Header: h, Body: near}, nil
	})
	c, _, err := intact.Dial(t.Context(), "ws://host", websocket.DialOptions{HTTPClient: &http.Client{Transport: answers}})
	if err != nil {
		t.Fatal(err)
	}
	return c, far
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func accepted(t *testing.T) (*websocket.Conn, net.Conn) {
	t.Helper()
	near, far := net.Pipe()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for name, value := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="} {
		r.Header.Set(name, value)
	}
	c, err := intact.Accept(given{httptest.NewRecorder(), near}, r)
	if err != nil {
		t.Fatal(err)
	}
	return c, far
}

// given is a ResponseWriter of a connection.
type given struct {
	http.ResponseWriter
	conn net.Conn
}

func (g given) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return g.conn, bufio.NewReadWriter(bufio.NewReader(g.conn), bufio.NewWriter(g.conn)), nil
}

// readCut reads a message of which n bytes come, and then the connection's end.
func readCut(t *testing.T, c *websocket.Conn, far io.WriteCloser, head []byte, n int) ([]byte, error) {
	t.Helper()
	go func() {
		far.Write(append(bytes.Clone(head), make([]byte, n)...))
		far.Close()
	}()
	_, b, err := c.Read(t.Context())
	return b, err
}

func TestAMessageThatIsCutIsNone(t *testing.T) {
	for _, side := range sides {
		t.Run(side.name, func(t *testing.T) {
			for n := range size {
				c, far := side.open(t)
				b, err := readCut(t, c, far, side.head, n)
				c.CloseNow()
				if err == nil {
					t.Errorf("cut after %d of %d bytes: a message of %d bytes, and no error", n, size, len(b))
				}
			}
		})
	}
}

func TestAWholeMessageArrives(t *testing.T) {
	for _, side := range sides {
		c, far := side.open(t)
		defer c.CloseNow()
		if b, err := readCut(t, c, far, side.head, size); err != nil || len(b) != size {
			t.Errorf("%s: %d bytes, %v", side.name, len(b), err)
		}
	}
}

func TestARefusalComesWithItsAnswer(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "not you", http.StatusForbidden) }))
	defer s.Close()
	_, answer, err := intact.Dial(t.Context(), s.URL, websocket.DialOptions{})
	if err == nil || answer == nil || answer.StatusCode != http.StatusForbidden {
		t.Errorf("got %v, %v", answer, err)
	}
}
