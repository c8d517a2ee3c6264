package dockerproxy

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"jumpsuite/internal/audit"
	"jumpsuite/policy"
)

// A jump server's gate has to know a container before it can decide about it, and
// the host may be far: the look-up is a round trip, and what is asked for then is
// another. What only reads a container is asked for at once, and comes with the
// look-up. The host's gate decides and records before it answers, as ever; this one
// does so before any of the answer goes to the caller, and drops what it refuses.

// outlookHeader asks a host's gate for the outlook of the container beside the
// answer, and has it there: JSON in base64.
const outlookHeader = "x-jumpsuite-outlook"

// maxOutlook bounds that: a line of a head has to hold it, as long as the other end
// reads those of answers. A longer one is asked for on its own.
const maxOutlook = maxAnswerLine - 100

// ahead asks a host's gate for what a request reads of a container, and for the
// container, in one. Without an answer and an error they are to be asked for one
// after the other: what the caller may not do to any container is not tried.
func (x *exchange) ahead(a policy.Action, what string) (*answer, *target, error) {
	if s := x.seen; s != nil { // it has come while its host was looked for
		return s.answer, s.target, nil
	}
	if !x.gate.FarGate || !isRef(x.ref) || x.gate.recall(x.ref) != nil || !x.possible(a) {
		return nil, nil, nil
	}
	x.next = cmp.Or(x.next, audit.NewID(time.Now()))
	ans, err := x.send(&ask{method: http.MethodGet, path: "/containers/" + x.ref + "/" + what, query: x.query, outlook: true})
	if err != nil {
		return nil, nil, err
	}
	t, err := x.outlookIn(ans)
	if err != nil || t == nil {
		x.conn.dropUpstream()
		return nil, nil, err
	}
	return ans, t, nil
}

// reads is what a request does no more than read of a container on another host; empty:
// it does more, or what the look-up brings is enough.
func (x *exchange) reads() (a policy.Action, what string) {
	switch {
	case x.op.name == "inspect" && !glances[x.req.value(verbHeader)]:
		return policy.DockerInspect, "json"
	case x.op.name == "logs", x.op.name == "stats":
		return x.op.action, x.op.name
	}
	return 0, ""
}

// outlookIn is the container that an answer says it is about; of what is not there it
// says so.
func (x *exchange) outlookIn(ans *answer) (*target, error) {
	if ans.value(outlookHeader) == "" && ans.status == http.StatusNotFound {
		_, _, err := x.take(ans)
		return nil, farRefusal(err)
	}
	return x.outlookOn(ans)
}

// outlookOn is the container that an answer says it is about; nil: it does not.
func (x *exchange) outlookOn(ans *answer) (*target, error) {
	value := ans.value(outlookHeader)
	if value == "" {
		return nil, nil
	}
	raw, err := base64.StdEncoding.DecodeString(value)
	if err != nil {
		return nil, x.opaque(x.ref)
	}
	return x.believed(raw, x.ref)
}

// believed is the container that a host's gate says goes by ref.
func (x *exchange) believed(raw []byte, ref string) (*target, error) {
	var o outlook
	if err := json.Unmarshal(raw, &o); err != nil || !isID(o.ID) || o.Type == "" {
		return nil, x.opaque(ref)
	}
	t := o.target()
	if !strings.HasPrefix(t.ID, ref) && t.shortName() != ref {
		return nil, unavailable("host %s: asked for container %s, its gate answers with %s, called %s", x.gate.host(), printable(ref), t.ID[:12], printable(t.shortName()))
	}
	x.gate.note(ref, t)
	return t, nil
}

func (x *exchange) opaque(ref string) error {
	return unavailable("the answer of the host's gate about container %s is not understood", printable(ref))
}

// found adds the outlook to the answer where a jump server's gate wants it there.
// What is not there it records itself.
func (x *exchange) found(t *target, err error) error {
	if !x.conn.caller.fromFar() || x.req == nil || x.req.value(outlookHeader) == "" {
		return err
	}
	if err != nil {
		return asked(err)
	}
	raw, err := json.Marshal(x.outlookOf(t))
	if err != nil {
		return fmt.Errorf("encode what is known of a container: %w", err)
	}
	if base64.StdEncoding.EncodedLen(len(raw)) <= maxOutlook {
		x.header = outlookHeader + ": " + base64.StdEncoding.EncodeToString(raw) + "\r\n"
	}
	return nil
}

// streamOf is an exchange that reads a stream of a container.
func (x *exchange) streamOf(a policy.Action, what string, copy func(*source, framing) (int64, error)) error {
	ans, t, err := x.ahead(a, what)
	if err == nil && t == nil {
		t, err = x.find()
	}
	if err != nil {
		return err
	}
	if _, err := x.permitFound(t, a, audit.Open); err != nil {
		x.unread(ans)
		return err
	}
	if a == policy.DockerLogs {
		x.header += ttyHeader + ": " + fmt.Sprint(t.Config.Tty) + "\r\n"
	}
	q := x.question(a, t.resource())
	ask := &ask{method: http.MethodGet, path: "/containers/" + t.ID + "/" + what, query: x.query}
	return x.streamFrom(ask, ans, still(q), copy)
}

// unread drops an answer that is not for the caller.
func (x *exchange) unread(ans *answer) {
	if ans != nil {
		x.conn.dropUpstream()
	}
}

// ttyHeader tells the CLI how the log that follows is written, so that it need not
// look at the container before.
const ttyHeader = "x-jumpsuite-tty"

// glances are the verbs whose client looks at a container only to know whether it
// is there, and how it is connected: an outline, which the look-up has brought.
var glances = map[string]bool{"logs": true, "exec": true, "start": true}

// glance reports whether an outline will do. It does not where there is more at no
// cost.
func (x *exchange) glance() bool { return x.gate.FarGate && glances[x.req.value(verbHeader)] }
