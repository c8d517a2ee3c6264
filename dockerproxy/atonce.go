package dockerproxy

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/docker/docker/api/types/container"

	"jumpsuite/internal/audit"
	"jumpsuite/policy"
)

// A docker exec is a look, a create, a start and a look at how it ended, and each
// would be a round trip to a host that is far. So a jump server's gate asks for
// create and start in one, when the client creates, and for the container with
// them: what it is cannot change the decision, or does so on terms (terms.go). The
// host's gate decides about each as ever, and tells the exit code with the end of the
// stream. What is detached waits for the client's start (later.go).
//
// Only docker exec is served so, which says what it is: who creates an exec there
// starts it. Before the host is asked, the start is on record, too, and is being
// recorded where that is due. Nothing of the stream is read before the client's own
// start was decided, anew: what it is refused for then (its form, a policy of
// meanwhile) ends the exec, on record.

// lastExec in place of an exec's id is the one that the request before has created
// on the same connection: the host's gate is asked to start it before its id is known.
const lastExec = "last"

// begunTime is how long an exec that was started with its create waits for its
// client to start it.
const begunTime = 10 * time.Second

// begun is an exec that the host was asked to start already. That is on record, and
// is being recorded where it has to be, from before the host was asked.
type begun struct {
	gate   *Gate
	up     *upstream
	stop   func()
	opened audit.Event // of the start, which the host was told
	record policy.Recording
	rec    Recording // nil: it is not recorded
	taps   taps
	taken  bool // an exchange has the event and the recording, and closes them
}

// beforehand puts the start of an exec on record, and begins its recording, where the
// decision obliges to one: what fails is refused while nothing runs.
func (x *exchange) beforehand(e *execution, d policy.Decision) (*begun, error) {
	about := e.about
	about.Detail = "exec start"
	y := &exchange{ctx: x.ctx, gate: x.gate, conn: x.conn, op: x.op, req: x.req}
	if _, err := y.permitted(e.question, d, about, audit.Open); err != nil {
		return nil, err
	}
	rec, t, err := y.startRecording(d, e.session())
	if err != nil {
		y.close(err)
		return nil, err
	}
	return &begun{gate: x.gate, opened: y.event, record: d.Obligations.Record, rec: rec, taps: t}, nil
}

// errUntaken is why an exec ended that was started with its create.
var errUntaken = errors.New("its client did not start it")

// end closes the stream, and the event and the recording, unless an exchange does.
func (b *begun) end(why error) {
	if b == nil {
		return
	}
	if b.up != nil {
		b.stop()
		b.up.conn.Close()
	}
	if b.taken {
		return
	}
	var r audit.Result
	if b.rec != nil {
		r.Recording, _ = b.rec.Close()
	}
	y := &exchange{gate: b.gate, event: b.opened, opened: true}
	y.closeWith(r, cmp.Or(why, errUntaken))
}

// untaken ends an exec that its client has not started.
func (e *execution) untaken() {
	b := e.begun.Swap(nil)
	if b == nil {
		return
	}
	e.started.Store(true)
	e.end()
	b.end(nil)
}

// takes makes the event and the recording of the start, which are there already, this
// exchange's. By now it is known in which container it is.
func (x *exchange) takes(b *begun, e *execution, q policy.Request) {
	x.event, x.opened, b.taken = b.opened, true, true
	x.was(q, e.about)
	if k := q.Resource.ContainerType; k != policy.None {
		x.event.Resource.ContainerType = k
	}
}

// isExec reports whether it is docker exec that asks, through a gate elsewhere.
func (x *exchange) isExec() bool { return x.gate.FarGate && x.req.value(verbHeader) == "exec" }

// unlooked is what the policy says to an exec in whichever container ref is, where
// that is enough: no look at the container is needed before it. What it depends on
// besides are the terms. exec is what is to be done; nil: it is not known yet.
func (x *exchange) unlooked(exec *policy.Exec) (q policy.Request, d policy.Decision, on *terms, ok bool) {
	q = x.question(policy.DockerExec, policy.Resource{})
	q.Exec = exec
	if !x.isExec() || !x.unseen() || x.gate.recall(x.ref) != nil {
		return q, d, nil, false
	}
	p := x.gate.policy.Load()
	if d = p.Certain(q); !d.Allowed() {
		var rules policy.Terms
		rules, d = p.Terms(q)
		on = &terms{Any: []policy.Terms{rules}}
		if d.Allowed() && on.encoded() == "" {
			return q, d, nil, false
		}
	}
	// What may have to be recorded and cannot be depends on what it turns out to be.
	able := d.Obligations.Record == policy.RecordNothing || x.recordable(exec != nil && exec.Detach) == nil
	if !d.Allowed() || !able {
		return q, d, nil, false
	}
	return q, d, on, true
}

// aboutRef is what an event says of a container that was not looked at.
func (x *exchange) aboutRef() audit.Event {
	if isID(x.ref) {
		return audit.Event{Resource: audit.Resource{Container: x.ref}}
	}
	return audit.Event{Resource: audit.Resource{Name: x.ref}}
}

// askExec asks for an exec to be created, and for the container where that is not
// known, on the terms that there are.
func (x *exchange) askExec(e *execution, o *container.ExecOptions, j *judgedExec) *ask {
	a := &ask{method: http.MethodPost, path: "/containers/" + e.container + "/exec", body: o, outlook: j.target == nil}
	if j.on != nil {
		a.path, a.terms = "/jumpsuite"+a.path, j.on.encoded()
	}
	return x.forFar(a)
}

// execAtOnce asks the host's gate to create and to start the exec that e will be.
// What is wrong is told as create's answer. errUnfit is terms that do not fit.
func (x *exchange) execAtOnce(e *execution, o *container.ExecOptions, j judgedExec) (err error) {
	e.id = audit.NewID(time.Now()) // until the host has said its own
	if !x.gate.remember(e) {
		return tooManyExecs()
	}
	b, err := x.beforehand(e, j.decision)
	kept := false
	defer func() {
		if !kept {
			x.gate.drop(e)
			b.end(err)
		}
	}()
	if err != nil {
		return err
	}
	up, version, err := x.own(true)
	if err != nil {
		return err
	}
	unwatched := context.AfterFunc(x.ctx, func() { up.conn.Close(); e.untaken() })
	b.up, b.stop = up, func() { unwatched() }
	start := container.ExecStartOptions{Tty: o.Tty, ConsoleSize: o.ConsoleSize}
	err = up.write(version, x.askExec(e, o, &j))
	if err == nil {
		err = up.write(version, &ask{method: http.MethodPost, path: "/exec/" + lastExec + "/start", body: start, upgrade: true, event: b.opened.ID})
	}
	if err != nil {
		return x.gate.gone(err)
	}
	id, err := x.created(e, up, &j)
	if err != nil {
		return err
	}
	e.begun.Store(b)
	x.gate.rename(e, id)
	kept = true
	time.AfterFunc(begunTime, e.untaken)
	return x.replyJSON(http.StatusCreated, struct {
		ID string `json:"Id"`
	}{e.id})
}

// created reads what came of the create, and completes what is known of the exec by
// the container that it is in. It returns its id there.
func (x *exchange) created(e *execution, up *upstream, j *judgedExec) (id string, err error) {
	ans, err := up.read(http.MethodPost)
	if err != nil {
		return "", x.gate.gone(err)
	}
	t, raw, err := x.createdWhere(ans, j)
	if err != nil {
		return "", err
	}
	var made struct {
		ID string `json:"Id"`
	}
	if err := json.Unmarshal(raw, &made); err != nil || !isID(made.ID) {
		return "", x.opaqueExec()
	}
	if t != nil {
		argv := e.about.Argv
		e.container, e.question.Resource, e.about = t.ID, x.question(policy.DockerExec, t.resource()).Resource, t.about()
		e.about.Argv = argv
	}
	return made.ID, nil
}

func (x *exchange) opaqueExec() error {
	return unavailable("the answer of the host's gate to exec is not understood")
}

// createdWhere is the body of the answer to a create, and the container that it says
// it is about, where that was not known.
func (x *exchange) createdWhere(ans *answer, j *judgedExec) (t *target, raw []byte, err error) {
	switch {
	case j.on != nil:
		return x.tookOnTerms(ans, j.on)
	case j.target == nil && ans.status == http.StatusCreated:
		if t, err = x.outlookIn(ans); err == nil && t == nil {
			err = x.opaqueExec()
		}
	}
	if err != nil {
		return nil, nil, err
	}
	raw, _, err = x.take(ans)
	return t, raw, engineRefusal(err)
}

// startedRef is the exec that is meant: on a jump server's connection, where the word
// stands for it, the one that the request before has created there, if it has.
func (x *exchange) startedRef() string {
	if x.conn.caller.fromFar() && x.ref == lastExec {
		return x.before
	}
	return x.ref
}

// Ends of a stream that can tell, and be told, how an exec ended: those of a
// tunnel.
type (
	exitTeller  interface{ SayExit(code int) error }
	exitListens interface{ Exit() (code int, said bool) }
)

// exits is an exec whose output has ended: its exit code is told to a jump server's
// gate, which need not ask, and kept for the client's question.
func (x *exchange) exits(e *execution, up *upstream) {
	if x.gate.FarGate {
		if l, ok := up.conn.(exitListens); ok {
			if code, said := l.Exit(); said {
				e.exit.Store(&code)
			}
		}
		return
	}
	tell, ok := x.conn.conn.(exitTeller)
	if !ok || !x.conn.caller.fromFar() {
		return
	}
	y, done := x.aside()
	defer done()
	s, err := y.execEnd(e, true)
	if err == nil && !s.Running && s.ExitCode != nil {
		e.exit.Store(s.ExitCode)
		_ = tell.SayExit(*s.ExitCode) // or the other gate asks
	}
}
