package dockerproxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// dialTimeout is how long the Engine has to take a connection. Answers have as
// long as they need.
const dialTimeout = 10 * time.Second

// maxAnswer bounds what the gate reads of an answer that it has to understand,
// in bytes: an inspect has some 10 kB, a ps 2 kB for each container.
const maxAnswer = 32 << 20

// maxAnswerLine is how long a line of an answer's head may be, in bytes.
const maxAnswerLine = 4 << 10

// upstream is one connection to the Engine. It is used by one exchange at a time.
type upstream struct {
	conn net.Conn
	br   *bufio.Reader
	buf  []byte // for request heads
	used bool
	gate *Gate
	done bool      // no answer is under way
	at   time.Time // when that came to be
}

func (g *Gate) dial(ctx context.Context) (*upstream, error) {
	timeout := dialTimeout
	if g.FarGate {
		timeout = farDialTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := g.Engine(ctx)
	if err != nil && g.FarGate {
		return nil, g.unreached(err)
	}
	if err != nil {
		return nil, unavailable("the Docker Engine cannot be reached: %v", err)
	}
	return &upstream{conn: conn, br: bufio.NewReaderSize(conn, maxAnswerLine), gate: g}, nil
}

// ask is a request to the Engine, made by the gate from what it understood.
type ask struct {
	method  string
	path    string // without the version; every part is the gate's, or checked
	query   url.Values
	body    any    // as JSON; nil: none
	upgrade bool   // ask for the raw stream
	auth    string // X-Registry-Auth
	verb    string // for a far gate: the word that was typed
	event   string // for a far gate: the id of ours
	outlook bool   // for a far gate: say which container it is about
	terms   string // for a far gate: on which terms, as the header has them
}

// answer is what the Engine said, the body not yet read.
type answer struct {
	head
	framing
	status int
	up     *upstream
}

// send writes the request and reads the answer's head.
func (u *upstream) send(version string, a *ask) (*answer, error) {
	if err := u.write(version, a); err != nil {
		return nil, err
	}
	return u.read(a.method)
}

func (u *upstream) write(version string, a *ask) error {
	b := append(u.buf[:0], a.method...)
	b = append(b, ' ')
	if version != "" {
		b = append(append(b, "/v"...), version...)
	}
	b = append(b, a.path...)
	if len(a.query) > 0 {
		b = append(append(b, '?'), a.query.Encode()...)
	}
	b = append(b, " HTTP/1.1\r\nHost: docker\r\nUser-Agent: jumpsuite\r\n"...)
	if a.auth != "" {
		b = append(append(append(b, "X-Registry-Auth: "...), a.auth...), "\r\n"...)
	}
	want := ""
	if a.outlook {
		want = "1"
	}
	for _, h := range []struct{ key, value string }{{verbHeader, a.verb}, {eventHeader, a.event}, {outlookHeader, want}, {termsHeader, a.terms}} {
		if h.value != "" {
			b = append(append(append(append(b, h.key...), ": "...), h.value...), "\r\n"...)
		}
	}
	if a.upgrade {
		b = append(b, "Connection: Upgrade\r\nUpgrade: tcp\r\n"...)
	}
	var body []byte
	if a.body != nil {
		var err error
		if body, err = encode(a.body); err != nil {
			return fmt.Errorf("encode the request for the Engine: %w", err)
		}
		b = append(b, "Content-Type: application/json\r\n"...)
	}
	if a.body != nil || a.method == http.MethodPost {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, int64(len(body)), 10)
		b = append(b, "\r\n"...)
	}
	b = append(append(b, "\r\n"...), body...)
	u.buf = b[:0]
	u.used = true
	_, err := u.conn.Write(b)
	return err
}

// encode is JSON without HTML's escapes, as the Engine's own.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}

func (u *upstream) read(method string) (*answer, error) {
	a := &answer{up: u}
	for {
		if err := readHead(u.br, &a.head); err != nil {
			return nil, err
		}
		proto, rest, _ := strings.Cut(a.start, " ")
		code, _, _ := strings.Cut(rest, " ")
		status, err := strconv.Atoi(code)
		if err != nil || proto != "HTTP/1.1" || status < 100 || status > 999 {
			return nil, unavailable("the Docker Engine's answer is not HTTP/1.1")
		}
		a.status = status
		if status >= 200 || status == http.StatusSwitchingProtocols {
			return a, a.frame(method)
		}
	}
}

// frame finds how long the answer's body is.
func (a *answer) frame(method string) error {
	cl := a.value("content-length")
	switch {
	case a.status == http.StatusSwitchingProtocols, method == http.MethodHead, a.status == http.StatusNoContent, a.status == http.StatusNotModified:
		a.length = 0
	case strings.EqualFold(a.value("transfer-encoding"), "chunked"):
		a.chunked = true
	case cl == "":
		a.length = -1
	default:
		n, err := parseDigits(cl)
		if err != nil {
			return unavailable("the Docker Engine's answer has no proper length")
		}
		a.length = n
	}
	return nil
}

// all reads the whole body, of at most limit bytes.
func (a *answer) all(limit int64) ([]byte, error) {
	tooLarge := unavailable("the Docker Engine's answer is larger than %d bytes", limit)
	switch {
	case a.chunked:
		return readChunks(a.up.br, limit, tooLarge)
	case a.length < 0:
		b, err := io.ReadAll(io.LimitReader(a.up.br, limit+1))
		if int64(len(b)) > limit {
			err = tooLarge
		}
		return b, err
	case a.length > limit:
		return nil, tooLarge
	}
	b := make([]byte, a.length)
	_, err := io.ReadFull(a.up.br, b)
	return b, err
}

// lasts reports whether the connection can be used again once the body is read.
func (a *answer) lasts() bool {
	return a.status != http.StatusSwitchingProtocols && a.length >= 0 && !a.has("connection", "close")
}

// message is the text of an error that the Engine answered with.
func message(body []byte) string {
	var m struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &m) != nil || m.Message == "" {
		return strings.TrimSpace(clip(string(body)))
	}
	return m.Message
}

// EngineError is the Engine's own refusal to what the gate asked.
type EngineError struct {
	Status int
	Text   string
	Rule   string // of the far gate that refused, if one did
	Host   string // where that is
}

func (e *EngineError) Error() string { return e.Text }

// version is the API version that is spoken with this Engine: its newest that
// the gate knows. It is found out once.
func (g *Gate) version(ctx context.Context, u *upstream) (string, error) {
	if g.FarGate {
		return farVersion, nil
	}
	if v := g.pinned.Load(); v != nil {
		return *v, nil
	}
	a, err := u.send("", &ask{method: http.MethodGet, path: "/_ping"})
	if err != nil {
		return "", g.gone(err)
	}
	if _, err := a.all(maxAnswer); err != nil {
		return "", g.gone(err)
	}
	v, err := pin(a.value("api-version"))
	if err != nil {
		return "", err
	}
	g.pinned.Store(&v)
	return v, nil
}

// Warm finds out which version the Engine speaks before a caller waits for it.
// What goes wrong is told to the first who asks.
func (g *Gate) Warm(ctx context.Context) {
	u, err := g.dial(ctx)
	if err != nil {
		return
	}
	defer u.conn.Close()
	_, _ = g.version(ctx, u)
}

func pin(engine string) (string, error) {
	minor, err := strconv.Atoi(strings.TrimPrefix(engine, "1."))
	switch {
	case err != nil || !strings.HasPrefix(engine, "1."):
		return "", unavailable("the Docker Engine does not say which API it speaks: %q", clip(engine))
	case minor < oldestMinor:
		return "", unavailable("this Docker Engine is too old: its API is %s, 1.%d is needed (Engine 20.10)", engine, oldestMinor)
	}
	return fmt.Sprintf("1.%d", min(minor, newestMinor)), nil
}

// gone is an Engine, or a host, that ended the connection.
func (g *Gate) gone(err error) error {
	if r, ok := err.(*Refusal); ok {
		return r
	}
	if g.FarGate {
		return g.unreached(err)
	}
	return unavailable("the Docker Engine ended the connection: %v", err)
}
