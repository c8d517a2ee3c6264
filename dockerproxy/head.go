package dockerproxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// Bounds of a message's head. Docker's own heads have some 200 bytes; a pull
// may bring credentials.
const (
	maxLine    = 8 << 10
	maxHeaders = 64
)

// head is the start line and the header fields of an HTTP/1.1 message. Keys are
// as they came, in lower case.
type head struct {
	start  string
	fields []headField
}

type headField struct{ key, value string }

// errNoRequest is a connection that ended between two requests.
var errNoRequest = errors.New("connection ended")

// readHead reads a head the strict way: CRLF at each line's end, no folded
// lines, names that are tokens, no control characters in values.
func readHead(br *bufio.Reader, h *head) error {
	h.fields = h.fields[:0]
	start, err := readLine(br)
	if err != nil {
		return err
	}
	h.start = start
	for {
		line, err := readLine(br)
		if err != nil {
			return unexpected(err)
		}
		if line == "" {
			return nil
		}
		if len(h.fields) == maxHeaders {
			return badRequest("more than %d header fields", maxHeaders)
		}
		f, err := parseField(line)
		if err != nil {
			return err
		}
		h.fields = append(h.fields, f)
	}
}

func readLine(br *bufio.Reader) (string, error) {
	raw, err := br.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return "", &Refusal{Status: http.StatusRequestHeaderFieldsTooLarge, Text: "a line of the request's head is too long"}
	case err == io.EOF && len(raw) == 0:
		return "", errNoRequest
	case err != nil:
		return "", unexpected(err)
	}
	if len(raw) < 2 || raw[len(raw)-2] != '\r' {
		return "", badRequest("a line of the head does not end in CRLF")
	}
	return string(raw[:len(raw)-2]), nil
}

func unexpected(err error) error {
	if err == io.EOF || err == errNoRequest {
		return io.ErrUnexpectedEOF
	}
	return err
}

func parseField(line string) (headField, error) {
	name, value, ok := strings.Cut(line, ":")
	if !ok || !isToken(name) {
		return headField{}, badRequest("a header field that is none: %q", clip(line))
	}
	value = strings.Trim(value, " \t")
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return headField{}, badRequest("a control character in the header field %s", name)
		}
	}
	return headField{strings.ToLower(name), value}, nil
}

func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' {
			continue
		}
		if strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// get is the value of the only field with this key; many is set when it is
// there more than once.
func (h *head) get(key string) (value string, many bool) {
	n := 0
	for _, f := range h.fields {
		if f.key == key {
			value = f.value
			n++
		}
	}
	return value, n > 1
}

func (h *head) value(key string) string {
	v, _ := h.get(key)
	return v
}

// has reports whether a list-valued field (Connection) names token.
func (h *head) has(key, token string) bool {
	for _, f := range h.fields {
		if f.key != key {
			continue
		}
		for part := range strings.SplitSeq(f.value, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

// framing is how long a body is.
type framing struct {
	length  int64 // -1: until the connection ends (answers only)
	chunked bool
}

// frameRequest finds the length of a request's body. Whatever two parsers could
// read in two ways is refused.
func frameRequest(h *head) (framing, error) {
	te, teMany := h.get("transfer-encoding")
	cl, clMany := h.get("content-length")
	switch {
	case teMany || clMany:
		return framing{}, badRequest("the length of the body is given twice")
	case te != "" && cl != "":
		return framing{}, badRequest("both Content-Length and Transfer-Encoding")
	case te != "":
		if !strings.EqualFold(te, "chunked") {
			return framing{}, &Refusal{Status: http.StatusNotImplemented, Text: fmt.Sprintf("Transfer-Encoding %q is not supported", clip(te))}
		}
		return framing{chunked: true}, nil
	case cl == "":
		return framing{}, nil
	}
	n, err := parseDigits(cl)
	if err != nil {
		return framing{}, badRequest("Content-Length %q is no length", clip(cl))
	}
	return framing{length: n}, nil
}

func parseDigits(s string) (int64, error) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, strconv.ErrSyntax
		}
	}
	return strconv.ParseInt(s, 10, 63)
}

// clip shortens what a caller sent for a message.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// request is what a caller asked for, before anyone knows what it means.
type request struct {
	head
	framing
	method  string
	path    []string // decoded once, without the version
	version string   // as 1.45; empty: not said
	query   string   // raw
	upgrade bool     // Connection: Upgrade
	bounded bool     // a read deadline is set
}

// readRequest reads a request's head from br. The errors are *Refusal, or what
// reading the connection gave.
func readRequest(br *bufio.Reader, r *request) error {
	r.method = ""
	if err := readHead(br, &r.head); err != nil {
		return err
	}
	method, target, err := parseStart(r.start)
	if err != nil {
		return err
	}
	r.method = method
	if r.framing, err = frameRequest(&r.head); err != nil {
		return err
	}
	if err := checkHeaders(&r.head); err != nil {
		return err
	}
	r.upgrade = r.has("connection", "upgrade") || r.value("upgrade") != ""
	path, query, _ := strings.Cut(target, "?")
	r.query = query
	r.version, r.path, err = parsePath(path)
	return err
}

func parseStart(line string) (method, target string, err error) {
	method, rest, ok := strings.Cut(line, " ")
	target, proto, ok2 := strings.Cut(rest, " ")
	if !ok || !ok2 || !isToken(method) {
		return "", "", badRequest("no HTTP request line: %q", clip(line))
	}
	if proto != "HTTP/1.1" {
		return "", "", &Refusal{Status: http.StatusHTTPVersionNotSupported, Text: "only HTTP/1.1 is spoken here"}
	}
	if !strings.HasPrefix(target, "/") {
		return "", "", badRequest("the request's target is no path: %q", clip(target))
	}
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return "", "", badRequest("a character in the request's target that does not belong there")
		}
	}
	return method, target, nil
}

func checkHeaders(h *head) error {
	if _, many := h.get("host"); many || !h.present("host") {
		return badRequest("there has to be one Host header")
	}
	if h.present("expect") {
		return &Refusal{Status: http.StatusExpectationFailed, Text: "Expect is not supported"}
	}
	for _, key := range []string{"content-type", "upgrade", "x-registry-auth", "content-encoding", hostHeader, verbHeader, environmentHeader, eventHeader, outlookHeader} {
		if _, many := h.get(key); many {
			return badRequest("the header %s is there twice", key)
		}
	}
	if h.value("content-encoding") != "" {
		return badRequest("Content-Encoding is not supported")
	}
	return nil
}

func (h *head) present(key string) bool {
	for _, f := range h.fields {
		if f.key == key {
			return true
		}
	}
	return false
}

// readBody reads the whole body, of at most limit bytes.
func (r *request) readBody(br *bufio.Reader, limit int64) ([]byte, error) {
	tooLarge := &Refusal{Status: http.StatusRequestEntityTooLarge, Text: fmt.Sprintf("the request's body is larger than %d bytes", limit)}
	if r.chunked {
		return readChunks(br, limit, tooLarge)
	}
	if r.length > limit {
		return nil, tooLarge
	}
	body := make([]byte, r.length)
	_, err := io.ReadFull(br, body)
	return body, err
}

// readChunks reads a chunked body. Extensions are dropped, trailers refused:
// what is sent on has a length and nothing else.
func readChunks(br *bufio.Reader, limit int64, tooLarge error) ([]byte, error) {
	var body []byte
	for {
		line, err := readLine(br)
		if err != nil {
			return nil, unexpected(err)
		}
		digits, _, _ := strings.Cut(line, ";")
		n, err := strconv.ParseUint(strings.TrimRight(digits, " \t"), 16, 31)
		if err != nil || strings.HasPrefix(digits, "+") {
			return nil, badRequest("a chunk without a size")
		}
		if int64(len(body))+int64(n) > limit {
			return nil, tooLarge
		}
		if n == 0 {
			return body, endOfLine(br, "trailers are not supported")
		}
		at := len(body)
		body = append(body, make([]byte, n)...)
		if _, err := io.ReadFull(br, body[at:]); err != nil {
			return nil, unexpected(err)
		}
		if err := endOfLine(br, "a chunk is longer than it says"); err != nil {
			return nil, err
		}
	}
}

func endOfLine(br *bufio.Reader, otherwise string) error {
	line, err := readLine(br)
	if err != nil {
		return unexpected(err)
	}
	if line != "" {
		return badRequest("%s", otherwise)
	}
	return nil
}
