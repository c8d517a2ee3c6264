package dockerproxy

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/docker/docker/api/types/container"

	"jumpsuite/internal/audit"
	"jumpsuite/policy"
)

// A docker exec is a look, a create, a start and a look at how it ended, and each
// would be a round trip to a host that is far. So a jump server's gate asks for
// create and start in one, when the client creates, and for the container with
// them, where what it is cannot change the decision. The host's gate decides about
// each as ever, and tells the exit code with the end of the stream.
//
// Only docker exec is served so, which says what it is: who creates an exec there
// starts it. Nothing of the stream is read before the client's start was decided,
// recorded and, where that is due, is being recorded.

// lastExec in place of an exec's id is the one that the request before has created
// on the same connection: the host's gate is asked to start it before its id is known.
const lastExec = "last"

// begunTime is how long an exec that was started with its create waits for its
// client to start it.
const begunTime = 10 * time.Second

// begun is an exec that the host was asked to start already.
type begun struct {
	up    *upstream
	event string // id of the event of the start, which the host was told
	stop  func()
}

// end closes the stream, if it still is nobody's.
func (b *begun) end() {
	if b != nil {
		b.stop()
		b.up.conn.Close()
	}
}

// untaken ends an exec that its client has not started.
func (e *execution) untaken() {
	b := e.begun.Swap(nil)
	if b == nil {
		return
	}
	e.started.Store(true)
	e.end()
	b.end()
}

// isExec reports whether it is docker exec that asks, through a gate elsewhere.
func (x *exchange) isExec() bool { return x.gate.FarGate && x.req.value(verbHeader) == "exec" }

// unlooked is what the policy says to an exec in whichever container ref is, where
// that is enough: no look at the container is needed before it. exec is what is to
// be done; nil: it is not known yet.
func (x *exchange) unlooked(exec *policy.Exec) (policy.Request, policy.Decision, bool) {
	q := x.question(policy.DockerExec, policy.Resource{})
	q.Exec = exec
	if !x.isExec() || !isRef(x.ref) || x.gate.recall(x.ref) != nil || exec != nil && exec.Detach {
		return q, policy.Decision{}, false
	}
	d := x.gate.policy.Load().Certain(q)
	return q, d, d.Allowed()
}

// aboutRef is what an event says of a container that was not looked at.
func (x *exchange) aboutRef() audit.Event {
	if isID(x.ref) {
		return audit.Event{Resource: audit.Resource{Container: x.ref}}
	}
	return audit.Event{Resource: audit.Resource{Name: x.ref}}
}

// execAtOnce asks the host's gate to create and to start the exec that e will be,
// and for the container where that is not known. What is wrong is told as create's
// answer.
func (x *exchange) execAtOnce(e *execution, o *container.ExecOptions, known bool) error {
	up, version, err := x.own(true)
	if err != nil {
		return err
	}
	unwatched := context.AfterFunc(x.ctx, func() { up.conn.Close() })
	b := &begun{up: up, event: audit.NewID(time.Now()), stop: func() { unwatched() }}
	kept := false
	defer func() {
		if !kept {
			b.end()
		}
	}()
	start := container.ExecStartOptions{Tty: o.Tty, ConsoleSize: o.ConsoleSize}
	err = up.write(version, x.forFar(&ask{method: http.MethodPost, path: "/containers/" + e.container + "/exec", body: o, outlook: !known}))
	if err == nil {
		err = up.write(version, &ask{method: http.MethodPost, path: "/exec/" + lastExec + "/start", body: start, upgrade: true, event: b.event})
	}
	if err != nil {
		return x.gate.gone(err)
	}
	if err := x.created(e, up, known); err != nil {
		return err
	}
	e.begun.Store(b)
	if !x.gate.remember(e) {
		return &Refusal{Status: http.StatusTooManyRequests, Text: "too many execs at a time"}
	}
	kept = true
	time.AfterFunc(begunTime, e.untaken)
	return x.replyJSON(http.StatusCreated, struct {
		ID string `json:"Id"`
	}{e.id})
}

// created reads what came of the create.
func (x *exchange) created(e *execution, up *upstream, known bool) error {
	ans, err := up.read(http.MethodPost)
	if err != nil {
		return x.gate.gone(err)
	}
	var t *target
	if !known && ans.status == http.StatusCreated {
		if t, err = x.outlookIn(ans); err != nil {
			return err
		}
	}
	raw, _, err := x.take(ans)
	if err != nil {
		return engineRefusal(err)
	}
	var made struct {
		ID string `json:"Id"`
	}
	if err := json.Unmarshal(raw, &made); err != nil || !isID(made.ID) || !known && t == nil {
		return unavailable("the answer of the host's gate to exec is not understood")
	}
	e.id = made.ID
	if t != nil {
		argv := e.about.Argv
		e.container, e.question.Resource, e.about = t.ID, x.question(policy.DockerExec, t.resource()).Resource, t.about()
		e.about.Argv = argv
	}
	return nil
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
