package dockerproxy

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/docker/docker/api/types/events"

	"jumpsuite/internal/audit"
	"jumpsuite/policy"
)

// payloadReader reads an answer's body without its framing.
type payloadReader struct {
	src  *source
	in   framing
	d    dechunker
	left int64
	rest []byte
	done bool
}

func newPayload(ans *answer) *payloadReader {
	return payloadOf(newSource(ans.up.conn, ans.up.br), ans.framing)
}

func payloadOf(src *source, in framing) *payloadReader {
	return &payloadReader{src: src, in: in, left: in.length, done: !in.chunked && in.length == 0}
}

func (p *payloadReader) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		if p.done {
			p.src.release()
			return 0, io.EOF
		}
		p.src.release()
		raw, err := p.src.next()
		if err != nil {
			p.src.release()
			return 0, err
		}
		if p.rest, p.done, err = unframe(raw, p.in, &p.d, &p.left); err != nil {
			return 0, err
		}
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// eventActions are what docker stats wants to know. An exec's events have its
// command line, and are not among them.
var eventActions = []string{"create", "start", "die", "destroy", "rename", "pause", "unpause", "stop", "restart"}

// eventAttributes are shown; the others are labels.
var eventAttributes = []string{"name", "image", "exitCode", "oldName", "signal"}

// serveEvents tells what containers do, of those that the caller may see the
// stats of.
func serveEvents(x *exchange) error {
	q := x.question(policy.DockerStats, policy.Resource{})
	possible := func(p *policy.Policy, who policy.Principal) bool { return p.Possible(as(q, who)).Allowed() }
	if _, err := x.permitted(q, x.gate.policy.Load().Possible(q), audit.Event{}, audit.Open); err != nil {
		return err
	}
	query := url.Values{"filters": {formatFilters(map[string][]string{"type": {"container"}, "event": eventActions})}}
	for _, key := range []string{"since", "until"} {
		if v := x.query.Get(key); v != "" {
			query.Set(key, v)
		}
	}
	return x.streamAs(&ask{method: http.MethodGet, path: "/events", query: query}, possible, x.copyEvents)
}

func (x *exchange) copyEvents(src *source, in framing) (sent int64, err error) {
	return copyObjects(x.conn.conn, src, in, func(m *events.Message) any {
		if !x.shown(m) {
			return nil
		}
		return x.cleaned(*m)
	})
}

// copyObjects passes on a stream of objects, each as a chunk of its own: what
// make makes of it, or nothing where that is nil.
func copyObjects[T any](dst io.Writer, src *source, in framing, make func(*T) any) (sent int64, err error) {
	whole := &bounded{r: payloadOf(src, in)}
	dec := json.NewDecoder(whole)
	for {
		var v T
		whole.left = maxObject
		if err := dec.Decode(&v); err == io.EOF {
			_, err = io.WriteString(dst, "0\r\n\r\n")
			return sent, err
		} else if err != nil {
			return sent, err
		}
		out := make(&v)
		if out == nil {
			continue
		}
		n, err := writeChunk(dst, out)
		sent += n
		if err != nil {
			return sent, err
		}
	}
}

// maxObject bounds an object of a stream, in bytes: the Engine's have a few KiB.
const maxObject = 1 << 20

// bounded is a reader that gives no more than left bytes.
type bounded struct {
	r    io.Reader
	left int
}

// Read reads.
func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, unavailable("the Docker Engine sends an object of more than %d bytes", maxObject)
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

func (x *exchange) shown(m *events.Message) bool {
	if m.Type != events.ContainerEventType {
		return false
	}
	kind := m.Actor.Attributes[ecsFamilyLabel]
	if kind == "" {
		kind = policy.None
	}
	return x.decide(x.question(policy.DockerStats, policy.Resource{ContainerType: kind, Image: m.Actor.Attributes["image"]})).Allowed()
}

// cleaned is an event without the container's labels. A jump server's gate also
// has to decide about it.
func (x *exchange) cleaned(m events.Message) events.Message {
	all := m.Actor.Attributes
	m.Actor.Attributes = map[string]string{}
	if kind := all[ecsFamilyLabel]; kind != "" && x.conn.caller.fromFar() {
		m.Actor.Attributes[ecsFamilyLabel] = kind
	}
	for _, key := range eventAttributes {
		if v, ok := all[key]; ok {
			m.Actor.Attributes[key] = visibleText(v)
		}
	}
	return m
}

func writeChunk(w io.Writer, v any) (int64, error) {
	body, err := encode(v)
	if err != nil {
		return 0, err
	}
	b := strconv.AppendInt(nil, int64(len(body)), 16)
	b = append(append(append(b, "\r\n"...), body...), "\r\n"...)
	_, err = w.Write(b)
	return int64(len(body)), err
}

// atoi is for numbers that a param has checked.
func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}
