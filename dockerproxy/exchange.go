package dockerproxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"jumpsuite/internal/audit"
	"jumpsuite/policy"
)

// exchange is one request and what becomes of it.
type exchange struct {
	ctx   context.Context
	gate  *Gate
	conn  *connection
	op    *operation
	req   *request
	ref   string // of the path, as it came
	query url.Values
	body  []byte
	began time.Time

	before   string      // id of the exec that the request before has created; empty: it has not
	event    audit.Event // of the decision, once there is one
	seen     *sighting   // the container, where the look for its host has found it; its answer is used once
	terms    *terms      // on which a jump server's gate allows it; nil: on any
	unfit    bool        // it was asked on terms already, and has to be looked at
	next     string      // id that the event will have; empty: any
	header   string      // more lines for the answer's head
	opened   bool        // event has to be closed
	answered bool        // the answer has begun
	last     bool        // no other request may follow on the connection
	in, out  int64       // bytes of payload
}

// run takes a request whose head is read to its end.
func (x *exchange) run(ctx context.Context) error {
	x.ctx = ctx
	op, ref, err := route(x.req.method, x.req.path)
	if err != nil {
		return err
	}
	x.op, x.ref = op, ref
	if err := x.checkForm(); err != nil {
		return err
	}
	if x.query, err = op.query.parse(x.req.query); err != nil {
		return err
	}
	if op.name == "stats" && x.query.Get("stream") == "" { // the Engine's own default, said before anybody is asked
		x.query = setQuery(x.query, "stream", "1")
	}
	if op.body > 0 {
		x.conn.patienceForBody()
		if x.body, err = x.req.readBody(x.conn.br, op.body); err != nil {
			return err
		}
	}
	x.conn.relax()
	if err := x.place(); err != nil {
		return err
	}
	if err := x.mayLookUp(); err != nil {
		return err
	}
	err = op.serve(x)
	if x.opened {
		x.close(err)
	}
	return err
}

// checkForm refuses what the operation has no use for: the Engine would take a
// form in a body for the query, and an upgrade for another protocol.
func (x *exchange) checkForm() error {
	switch {
	case x.op.body == 0 && (x.req.length > 0 || x.req.chunked):
		return badRequest("%s takes no body", x.op.name)
	case x.op.body > 0 && !isJSON(x.req.value("content-type")):
		return badRequest("the body of %s has to be application/json", x.op.name)
	case x.req.upgrade && !x.op.upgrade:
		return forbidden("", "%s cannot be upgraded to another protocol", x.op.name)
	case x.req.upgrade && !strings.EqualFold(x.req.value("upgrade"), "tcp"):
		return badRequest("it can be upgraded to tcp only")
	}
	return nil
}

func isJSON(contentType string) bool {
	media, _, _ := strings.Cut(contentType, ";")
	return strings.EqualFold(strings.TrimSpace(media), "application/json")
}

// isHere refuses a request for another host.
func (g *Gate) isHere(host string) error {
	if host == "" || slices.Contains(g.Hosts, host) || host == "localhost" && !g.FarGate {
		return nil
	}
	return &Refusal{Status: http.StatusNotFound, Text: fmt.Sprintf("host %s is not reached from here", printable(host))}
}

// question is what the policy is asked for this caller here.
func (x *exchange) question(a policy.Action, r policy.Resource) policy.Request {
	r.Host = x.gate.host()
	if len(x.gate.Hosts) > 1 {
		r.HostNames = x.gate.Hosts[1:]
	}
	return policy.Request{Principal: x.conn.caller.Principal, Environment: x.gate.Environment, Action: a, Resource: r}
}

func (x *exchange) decide(q policy.Request) policy.Decision {
	return x.gate.policy.Load().Decide(q)
}

func (x *exchange) possible(a policy.Action) bool {
	return x.gate.policy.Load().Possible(x.question(a, policy.Resource{})).Allowed()
}

// permit decides, records, and returns the refusal if there is one.
func (x *exchange) permit(q policy.Request, about audit.Event) (policy.Decision, error) {
	return x.permitted(q, x.decide(q), about, audit.Decision)
}

// permitOpen is permit for what takes time: the event is closed when the
// exchange ends.
func (x *exchange) permitOpen(q policy.Request, about audit.Event) (policy.Decision, error) {
	return x.permitted(q, x.decide(q), about, audit.Open)
}

func (x *exchange) permitted(q policy.Request, d policy.Decision, about audit.Event, kind audit.Kind) (policy.Decision, error) {
	about.Action, about.Rule = q.Action.String(), d.Rule()
	about.Verdict, about.Kind = audit.Verdict(d.Allowed()), kind
	if k := q.Resource.ContainerType; about.Resource.ContainerType == "" && k != policy.None {
		about.Resource.ContainerType = k
	}
	if !d.Allowed() {
		about.Kind = audit.Decision
		if about.Reason == "" {
			about.Reason = d.Reason()
		}
	}
	if err := x.record(about); err != nil {
		return policy.Decision{}, err
	}
	if !d.Allowed() {
		return d, x.denied(q, d)
	}
	return d, nil
}

// record writes the event. What cannot be recorded is not done.
func (x *exchange) record(e audit.Event) error {
	x.fill(&e)
	if err := x.gate.Record(&e); err != nil {
		return &Refusal{Status: http.StatusServiceUnavailable, Recorded: true,
			Text: fmt.Sprintf("it cannot be recorded, and so is not done: %v", err)}
	}
	x.event, x.opened = e, e.Kind == audit.Open
	return nil
}

func (x *exchange) fill(e *audit.Event) {
	c := &x.conn.caller
	e.Time = time.Now()
	e.ID, x.next = cmp.Or(x.next, audit.NewID(e.Time)), ""
	e.Principal = audit.Principal{UID: c.UID, Name: c.User, Groups: c.Groups, Key: c.Key}
	e.Environment = x.gate.Environment
	if e.Resource.Host == "" && x.gate.host() != policy.None {
		e.Resource.Host = x.gate.host()
	}
	if e.Detail == "" && x.op != nil {
		e.Detail = x.op.name
	}
	if c.fromFar() {
		e.Far = x.farEvent()
	}
}

// close ends an event that was opened.
func (x *exchange) close(err error) { x.closeWith(audit.Result{}, err) }

func (x *exchange) closeWith(r audit.Result, err error) {
	if !x.opened {
		return
	}
	x.opened = false
	r.In, r.Out = x.in, x.out
	r.Duration = time.Since(x.event.Time)
	if err != nil {
		r.Error = err.Error()
	}
	e := x.event
	e.Kind, e.Time, e.Result = audit.Close, time.Now(), &r
	if err := x.gate.Record(&e); err != nil {
		x.gate.log().Error("the end of an event is not on record", "id", e.ID, "err", err)
	}
}

// recordRefusal records what was refused before the policy was asked.
func (x *exchange) recordRefusal(r *Refusal) {
	if x.op != nil && x.op.name == "ping" {
		return
	}
	e := audit.Event{Kind: audit.Decision, Verdict: audit.Deny, Action: "docker.unknown", Rule: "gate", Reason: r.Text}
	if x.op != nil && x.op.action != 0 {
		e.Action = x.op.action.String()
	}
	if x.op == nil {
		e.Detail = printable(x.req.start)
	}
	x.fill(&e)
	if err := x.gate.Record(&e); err != nil {
		x.gate.log().Error("a refusal is not on record", "err", err, "reason", r.Text)
	}
}

// denied is the refusal for a decision that does not allow.
func (x *exchange) denied(q policy.Request, d policy.Decision) *Refusal {
	where := x.gate.Environment
	if where == "" {
		where = "an unknown environment"
	}
	return &Refusal{
		Status: http.StatusForbidden, Rule: d.Rule(), Recorded: true, Hint: x.hint(q, d),
		Text: fmt.Sprintf("%s is not allowed in %s (rule %s): %s", q.Action, where, d.Rule(), d.Reason()),
	}
}

// hint says what can be done about a denial.
func (x *exchange) hint(q policy.Request, d policy.Decision) string {
	verb := strings.ReplaceAll(q.Action.String(), ".", " ")
	limits, _ := x.gate.policy.Load().Environment(x.gate.Environment)
	switch d.Rule() {
	case "floor":
		return "do it in a non-productive environment"
	case jumpServersRule: // which policy explain does not ask about
		return "an administrator of the host looks at jump-servers in its policy: it has to have the jump server's key, as 'r3-admin keys show' prints it there, and " + q.Action.String()
	case "limits.exec.privileged", "limits.run.privileged":
		return ""
	case "limits.exec.commands":
		return "allowed: " + commandList(limits.Limits.Exec.Commands)
	case "limits.run.networks":
		return "allowed: " + strings.Join(limits.Limits.Run.Networks, ", ")
	case "limits.run.volumes":
		return "allowed: " + orNone(limits.Limits.Run.Volumes)
	case "limits.run.binds":
		return "allowed: " + orNone(limits.Limits.Run.Binds)
	}
	return fmt.Sprintf("ask an administrator: r3-admin policy explain --user %s --env %s %s", x.conn.caller.User, x.gate.Environment, verb)
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

func commandList(commands [][]string) string {
	var out []string
	for _, c := range commands {
		out = append(out, strings.Join(c, " "))
	}
	return orNone(out)
}

// engine is the connection to the Engine for this exchange, and the version
// that is spoken on it.
func (x *exchange) engine() (*upstream, string, error) {
	if x.conn.up == nil {
		x.conn.up = x.gate.idleUpstream()
	}
	if x.conn.up == nil {
		x.conn.up = x.gate.nextSpare(x.ctx)
	}
	if x.conn.up == nil {
		up, err := x.gate.dial(x.ctx)
		if err != nil {
			x.gate.pinned.Store(nil) // it may come back as another one
			return nil, "", err
		}
		x.conn.up = up
	}
	v, err := x.gate.version(x.ctx, x.conn.up)
	if err != nil {
		x.conn.dropUpstream()
	}
	return x.conn.up, v, err
}

// send asks the Engine. A connection that was kept and turns out to be dead is
// replaced, for requests that change nothing.
func (x *exchange) send(a *ask) (*answer, error) {
	for {
		up, version, err := x.engine()
		if err != nil {
			return nil, err
		}
		kept := up.used
		up.done = false
		stop := context.AfterFunc(x.ctx, func() { up.conn.Close() })
		ans, err := up.send(version, x.forFar(a))
		stop()
		if err == nil {
			return ans, nil
		}
		x.conn.dropUpstream()
		if !kept || a.method == http.MethodPost || a.method == http.MethodDelete || x.ctx.Err() != nil {
			return nil, x.gate.gone(err)
		}
	}
}

// fetch asks the Engine and reads the whole answer. What is no success is an
// *EngineError.
func (x *exchange) fetch(a *ask) ([]byte, *answer, error) {
	if a.method == http.MethodPost || a.method == http.MethodDelete {
		x.conn.freshen()
	}
	ans, err := x.send(a)
	if err != nil {
		return nil, nil, err
	}
	return x.take(ans)
}

// take reads the whole answer.
func (x *exchange) take(ans *answer) ([]byte, *answer, error) {
	body, err := ans.all(maxAnswer)
	ans.up.finished()
	if err != nil || !ans.lasts() {
		x.conn.dropUpstream()
	}
	if err != nil {
		return nil, nil, x.gate.gone(err)
	}
	if ans.status >= 300 && ans.status != http.StatusNotModified {
		return nil, nil, x.engineError(ans, body)
	}
	return body, ans, nil
}

// freshen makes sure that what changes something goes out on a connection that
// lives: it cannot be sent twice.
func (c *connection) freshen() {
	if c.up != nil && c.up.gate.FarGate {
		return // a stream that has ended shows when it is used, and is not kept for long
	}
	if c.up != nil && !alive(c.up.conn) {
		c.dropUpstream()
	}
}

// engineRefusal passes an error of the Engine's on as its own.
func engineRefusal(err error) error {
	var e *EngineError
	if errors.As(err, &e) {
		return e.refusal()
	}
	return err
}

// reply answers with a whole body.
func (x *exchange) reply(status int, contentType string, body []byte) error {
	x.answered = true
	b := appendHead(x.conn.out[:0], status, contentType, int64(len(body)), x.last)
	b = append(append(append(b, x.header...), "\r\n"...), body...)
	_, err := x.conn.conn.Write(b)
	if cap(b) <= 64<<10 {
		x.conn.out = b[:0]
	}
	x.out += int64(len(body))
	return err
}

func (x *exchange) replyJSON(status int, v any) error {
	body, err := encode(v)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	return x.reply(status, "application/json", body)
}

// empty answers 204.
func (x *exchange) empty() error {
	x.answered = true
	b := appendHead(x.conn.out[:0], http.StatusNoContent, "", -2, x.last)
	_, err := x.conn.conn.Write(append(append(b, x.header...), "\r\n"...))
	return err
}
