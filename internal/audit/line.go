package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// MaxLine is the longest line that the log writes, in bytes. The limits of
	// the fields below keep every line under it.
	MaxLine = 32 << 10

	timeLayout = "2006-01-02T15:04:05.000000000Z07:00"
	hashLen    = 2 * sha256.Size
	hashStart  = `,"hash":"`
	hashEnd    = `"}`
)

// What the fields may take of a line, in bytes as written, escapes included.
const (
	maxName   = 256
	maxText   = 1024
	maxImage  = 512
	maxArgv   = 6 << 10
	maxDetail = 4 << 10
	maxGroups = 4 << 10
)

// noHash is the Prev of the first line of a chain.
var noHash = strings.Repeat("0", hashLen)

// line builds one line of the log.
type line struct {
	b     []byte
	comma bool
	cut   []string
}

// appendLine appends e as a line with its newline, and returns e's hash. It
// depends on nothing but e.
func appendLine(dst []byte, e *Event) ([]byte, string) {
	start := len(dst)
	l := line{b: append(dst, '{')}
	l.number("v", Version)
	l.key("seq").b = strconv.AppendUint(l.b, e.Seq, 10)
	l.text("prev", e.Prev, hashLen)
	l.text("time", e.Time.UTC().Format(timeLayout), maxName)
	l.text("id", e.ID, maxName)
	l.text("kind", string(e.Kind), maxName)
	l.text("host", e.Host, maxName)
	l.number("pid", int64(e.PID))
	l.principal(e.Principal)
	l.text("environment", e.Environment, maxName)
	l.text("action", e.Action, maxName)
	l.resource(e.Resource)
	if e.Decides() {
		l.text("verdict", e.Verdict.String(), maxName)
	}
	l.text("rule", e.Rule, maxText)
	l.text("reason", e.Reason, maxText)
	l.texts("argv", e.Argv, maxArgv)
	l.text("detail", e.Detail, maxDetail)
	l.text("far", e.Far, maxName)
	l.result(e.Result)
	l.repair(e.repair)
	l.texts("cut", merge(e.Cut, l.cut), maxText)
	sum := sha256.Sum256(l.b[start:])
	hash := hex.EncodeToString(sum[:])
	l.b = append(l.b, hashStart...)
	l.b = append(l.b, hash...)
	l.b = append(l.b, hashEnd+"\n"...)
	return l.b, hash
}

func merge(a, b []string) []string {
	if len(a) == 0 {
		return b
	}
	return append(append([]string(nil), a...), b...)
}

func (l *line) principal(p Principal) {
	if p.zero() {
		return
	}
	l.open("principal", '{')
	l.number("uid", int64(p.UID))
	l.text("name", p.Name, maxName)
	l.texts("groups", p.Groups, maxGroups)
	l.text("key", p.Key, maxName)
	l.close('}')
}

func (l *line) resource(r Resource) {
	if r == (Resource{}) {
		return
	}
	l.open("resource", '{')
	l.text("container", r.Container, maxName)
	l.text("name", r.Name, maxName)
	l.text("container_type", r.ContainerType, maxName)
	l.text("image", r.Image, maxImage)
	l.text("host", r.Host, maxName)
	l.close('}')
}

func (l *line) result(r *Result) {
	if r == nil {
		return
	}
	l.open("result", '{')
	l.number("exit", int64(r.Exit))
	l.text("signal", r.Signal, maxName)
	l.number("in", r.In)
	l.number("out", r.Out)
	l.number("us", r.Duration.Microseconds())
	l.text("recording", r.Recording, hashLen)
	l.text("error", r.Error, maxText)
	l.close('}')
}

func (l *line) repair(r *repair) {
	if r == nil {
		return
	}
	l.open("repair", '{')
	l.number("bytes", r.Bytes)
	l.text("sha256", r.Sum, hashLen)
	l.close('}')
}

func (l *line) key(name string) *line {
	if l.comma {
		l.b = append(l.b, ',')
	}
	l.comma = true
	l.b = append(l.b, '"')
	l.b = append(l.b, name...)
	l.b = append(l.b, '"', ':')
	return l
}

func (l *line) open(name string, bracket byte) {
	l.key(name).b = append(l.b, bracket)
	l.comma = false
}

func (l *line) close(bracket byte) {
	l.b = append(l.b, bracket)
	l.comma = true
}

func (l *line) number(name string, n int64) {
	l.key(name).b = strconv.AppendInt(l.b, n, 10)
}

// text appends a field, unless it is empty.
func (l *line) text(name, s string, limit int) {
	if s == "" {
		return
	}
	var whole bool
	l.key(name)
	if l.b, whole = appendQuoted(l.b, s, limit); !whole {
		l.cut = append(l.cut, name)
	}
}

// texts appends a list, unless it is empty. limit is for all of it.
func (l *line) texts(name string, list []string, limit int) {
	if len(list) == 0 {
		return
	}
	l.open(name, '[')
	end := len(l.b) + limit
	for i, s := range list {
		room := end - len(l.b) - len(`,""`)
		if room <= 0 {
			l.cut = append(l.cut, name)
			break
		}
		if i > 0 {
			l.b = append(l.b, ',')
		}
		var whole bool
		if l.b, whole = appendQuoted(l.b, s, room); !whole {
			l.cut = append(l.cut, name)
			break
		}
	}
	l.close(']')
}

// appendQuoted appends s as a JSON string, at most limit bytes between its
// quotes, and reports whether all of s went in. What does not print (controls,
// marks of direction, invisible characters) is escaped; invalid UTF-8 becomes
// U+FFFD.
func appendQuoted(dst []byte, s string, limit int) ([]byte, bool) {
	dst = append(dst, '"')
	end := len(dst) + limit
	for i := 0; i < len(s); {
		r, n := rune(s[i]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRuneInString(s[i:])
		}
		had := len(dst)
		if dst = appendRune(dst, r); len(dst) > end {
			return append(dst[:had], '"'), false
		}
		i += n
	}
	return append(dst, '"'), true
}

func appendRune(dst []byte, r rune) []byte {
	switch {
	case r == '"' || r == '\\':
		return append(dst, '\\', byte(r))
	case r >= 0x20 && r < 0x7f:
		return append(dst, byte(r))
	case r == '\n':
		return append(dst, '\\', 'n')
	case r == '\r':
		return append(dst, '\\', 'r')
	case r == '\t':
		return append(dst, '\\', 't')
	case r >= 0xa0 && unicode.IsPrint(r):
		return utf8.AppendRune(dst, r)
	case r > 0xffff:
		r -= 0x10000
		return appendUnicode(appendUnicode(dst, 0xd800+r>>10), 0xdc00+r&0x3ff)
	}
	return appendUnicode(dst, r)
}

func appendUnicode(dst []byte, r rune) []byte {
	const digits = "0123456789abcdef"
	return append(dst, '\\', 'u', digits[r>>12&15], digits[r>>8&15], digits[r>>4&15], digits[r&15])
}

// HashError is a line that is not what its own hash says.
type HashError struct{ Said, Is string }

func (e *HashError) Error() string { return "the line does not match its own hash" }

// ParseLine reads a line, without its newline, and checks it against its own
// hash: the error is a *HashError where it does not match.
func ParseLine(b []byte) (Event, error) {
	said, body, err := splitHash(b)
	if err != nil {
		return Event{}, err
	}
	sum := sha256.Sum256(body)
	if is := hex.EncodeToString(sum[:]); is != said {
		return Event{}, &HashError{Said: said, Is: is}
	}
	e, err := decodeLine(b)
	if err != nil {
		return Event{}, fmt.Errorf("the line is not an event: %w", err)
	}
	return e, nil
}

func splitHash(b []byte) (hash string, body []byte, err error) {
	at := len(b) - len(hashStart) - hashLen - len(hashEnd)
	if at < 1 || b[0] != '{' || !bytes.HasPrefix(b[at:], []byte(hashStart)) || !bytes.HasSuffix(b, []byte(hashEnd)) {
		return "", nil, errors.New("the line is not an event: it does not end in a hash")
	}
	return string(b[at+len(hashStart) : len(b)-len(hashEnd)]), b[:at], nil
}

// wire is a line as encoding/json reads it.
type wire struct {
	V         int            `json:"v"`
	Seq       uint64         `json:"seq"`
	Prev      string         `json:"prev"`
	Time      string         `json:"time"`
	ID        string         `json:"id"`
	Kind      Kind           `json:"kind"`
	Host      string         `json:"host"`
	PID       int            `json:"pid"`
	Principal *wirePrincipal `json:"principal"`
	Env       string         `json:"environment"`
	Action    string         `json:"action"`
	Resource  *wireResource  `json:"resource"`
	Verdict   string         `json:"verdict"`
	Rule      string         `json:"rule"`
	Reason    string         `json:"reason"`
	Argv      []string       `json:"argv"`
	Detail    string         `json:"detail"`
	Far       string         `json:"far"`
	Result    *wireResult    `json:"result"`
	Repair    *repair        `json:"repair"`
	Cut       []string       `json:"cut"`
	Hash      string         `json:"hash"`
}

type wirePrincipal struct {
	UID    int      `json:"uid"`
	Name   string   `json:"name"`
	Groups []string `json:"groups"`
	Key    string   `json:"key"`
}

type wireResource struct {
	Container     string `json:"container"`
	Name          string `json:"name"`
	ContainerType string `json:"container_type"`
	Image         string `json:"image"`
	Host          string `json:"host"`
}

type wireResult struct {
	Exit      int    `json:"exit"`
	Signal    string `json:"signal"`
	In        int64  `json:"in"`
	Out       int64  `json:"out"`
	US        int64  `json:"us"`
	Recording string `json:"recording"`
	Error     string `json:"error"`
}

func decodeLine(b []byte) (Event, error) {
	var w wire
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&w); err != nil {
		return Event{}, err
	}
	if _, err := d.Token(); err != io.EOF {
		return Event{}, errors.New("there is more after its end")
	}
	if w.V != Version {
		return Event{}, fmt.Errorf("version %d is not known here (only %d)", w.V, Version)
	}
	return w.event()
}

func (w *wire) event() (Event, error) {
	at, err := time.Parse(timeLayout, w.Time)
	if err != nil {
		return Event{}, err
	}
	if len(w.Prev) != hashLen {
		return Event{}, errors.New("it names no line before it")
	}
	e := Event{Seq: w.Seq, Prev: w.Prev, Hash: w.Hash, Time: at.UTC(), ID: w.ID, Kind: w.Kind, Host: w.Host, PID: w.PID,
		Environment: w.Env, Action: w.Action, Verdict: w.Verdict == Allow.String(), Rule: w.Rule, Reason: w.Reason,
		Argv: w.Argv, Detail: w.Detail, Far: w.Far, Cut: w.Cut, repair: w.Repair}
	if w.Principal != nil {
		e.Principal = Principal(*w.Principal)
	}
	if w.Resource != nil {
		e.Resource = Resource(*w.Resource)
	}
	if r := w.Result; r != nil {
		e.Result = &Result{Exit: r.Exit, Signal: r.Signal, In: r.In, Out: r.Out,
			Duration: time.Duration(r.US) * time.Microsecond, Recording: r.Recording, Error: r.Error}
	}
	return e, nil
}
