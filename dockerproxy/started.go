package dockerproxy

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"jumpsuite/internal/audit"
	"jumpsuite/policy"
)

// What is only for the one who made or started a container: start, attach,
// wait, resize, kill, stop, rm.

const (
	// unboundTime is how long it may take from a lease to the container that it
	// is for; attachTime from attaching to a container to starting it.
	unboundTime = 10 * time.Minute
	attachTime  = time.Minute
)

// sessionKey is a caller attached to a container.
type sessionKey struct {
	container string
	owner     owner
}

// questionOn is what has to be allowed for a container to be used by whoever
// made or started it.
func (x *exchange) questionOn(t *target) policy.Request {
	if !t.made() {
		return x.question(policy.DockerStart, t.resource())
	}
	q := x.runQuestion(t.lease.Image, &policy.Run{Digest: true}) // its limits were kept when it was made
	if x.decide(q).Allowed() {
		return q
	}
	return x.question(policy.DockerStart, policy.Resource{ContainerType: policy.None, Image: t.lease.Image})
}

// notYours refuses what is only for a container's owner.
func notYours(what string, t *target) *Refusal {
	return forbidden("", "%s is for containers that you made or started here, and %s is not one", what, t.shortName())
}

// mine finds the container that the path means and makes sure that it is the
// caller's.
func (x *exchange) mine() (*target, policy.Request, error) {
	t := x.attachedTo()
	if t == nil {
		if !x.gate.staysWith(x.ref) {
			x.gate.forgetFar(x.ref)
		}
		var err error
		if t, err = x.find(); err != nil {
			return nil, policy.Request{}, err
		}
	}
	q := x.questionOn(t)
	if t.leasedTo(x.conn.caller.owner()) {
		return t, q, nil
	}
	if d := x.decide(q); !d.Allowed() {
		_, err := x.permitted(q, d, t.about(), audit.Decision)
		return nil, q, x.hide(err)
	}
	return nil, q, x.hide(x.refuse(q, t.about(), notYours(x.op.name, t)))
}

// attachedTo is the container that the path means, if it is on another host and the
// caller is attached to it: that host's gate lets nobody attach to what is another's,
// and looks again.
func (x *exchange) attachedTo() *target {
	if !x.gate.FarGate || x.terms != nil {
		return nil
	}
	t := x.gate.recall(x.ref)
	if t == nil || x.gate.session(sessionKey{t.ID, x.conn.caller.owner()}) == nil {
		return nil
	}
	his := *t
	his.yours = true
	return &his
}

func serveStart(x *exchange) error {
	if x.gate.FarGate {
		return x.startFar()
	}
	unlock, err := x.lockLeases()
	if err != nil {
		return err
	}
	defer unlock()
	t, err := x.find()
	if err != nil {
		return err
	}
	q := x.questionOn(t)
	d := x.decide(q)
	if d.Allowed() {
		if err := x.startPossible(t, d); err != nil {
			return x.hide(x.refuse(q, t.about(), err))
		}
	}
	if t.State.Running && d.Allowed() {
		unlock() // the caller may never read the answer
		return x.runsAlready(t, q, d)
	}
	if _, err := x.permitted(q, d, t.about(), audit.Open); err != nil {
		return x.hide(err)
	}
	return x.start(t, d, unlock)
}

// runsAlready answers as the Engine does, and leases nothing: what somebody else
// started is not the caller's for having asked.
func (x *exchange) runsAlready(t *target, q policy.Request, d policy.Decision) error {
	about := t.about()
	about.Detail = "it runs already"
	if _, err := x.permitted(q, d, about, audit.Decision); err != nil {
		return err
	}
	return x.notModified()
}

// startPossible refuses what no rule can allow.
func (x *exchange) startPossible(t *target, d policy.Decision) error {
	if t.made() {
		if !t.leasedTo(x.conn.caller.owner()) {
			return notYours("start", t)
		}
		return x.attachedAsDue(t, d)
	}
	if err := x.guard(t, d.Obligations.Limits.Start.Escapes); err != nil {
		return err
	}
	if t.State.Running {
		return nil
	}
	if le := t.lease; le != nil && le.Owner != x.conn.caller.owner() && le.StartedAt == "" && time.Now().Before(le.Until) {
		return &Refusal{Status: http.StatusConflict, Text: "somebody else is about to start " + t.shortName(), Hint: "try again in a minute"}
	}
	if t.lease != nil && t.lease.StartedAt == "" {
		return nil // attached already, and counted then
	}
	return x.room(d.Obligations.Limits.Run.Containers)
}

// attachedAsDue refuses to start what was made, without the stream that has to
// be recorded.
func (x *exchange) attachedAsDue(t *target, d policy.Decision) error {
	if d.Obligations.Record == policy.RecordNothing {
		return nil
	}
	if x.gate.session(sessionKey{t.ID, x.conn.caller.owner()}) == nil {
		return forbidden("leave out --detach, or call docker start -a", "sessions are recorded here, and one that is detached cannot be")
	}
	return nil
}

// start starts the container and leases it to the caller.
func (x *exchange) start(t *target, d policy.Decision, unlock func()) error {
	le := t.lease
	if !t.made() {
		le = newLease(leaseStarted, x.conn.caller.owner(), x.event.ID, lasting(d.Obligations.Limits.Start.For))
		le.Container = t.ID
	}
	if err := x.gate.Leases.write(t.ID, le); err != nil {
		return unavailable("%v", err)
	}
	var watch *agentWatch
	if t.byECS() && x.gate.watchTime() > 0 {
		watch = x.gate.watchAgent(x.ctx, t.ID)
		defer watch.close()
	}
	if err := x.startNow(t, le); err != nil {
		if !t.made() {
			x.gate.Leases.remove(t.ID)
		}
		return err
	}
	unlock()
	notice := ""
	if watch != nil {
		notice = x.afterStart(t, le, watch)
	}
	return x.started(notice)
}

// startNow starts the container, and writes down when the Engine says that was.
func (x *exchange) startNow(t *target, le *lease) error {
	_, ans, err := x.fetch(&ask{method: http.MethodPost, path: "/containers/" + t.ID + "/start"})
	if err != nil {
		return startRefusal(t, err)
	}
	if ans.status == http.StatusNotModified && !t.made() {
		return &Refusal{Status: http.StatusConflict, Recorded: true, Text: "somebody else started " + t.shortName() + " at the same moment"}
	}
	now, err := x.lookup(t.ID, nil)
	if err != nil {
		return nil // it has ended and is gone already: run --rm of something short
	}
	if !t.excused && !t.made() { // what was made has what the policy lists
		if err := x.recheck(now); err != nil {
			return err
		}
	}
	le.StartedAt = now.State.StartedAt
	if err := x.gate.Leases.write(t.ID, le); err != nil {
		x.gate.log().Error("a lease is not complete", "container", t.ID, "err", err)
	}
	return nil
}

func (x *exchange) notModified() error {
	x.answered = true
	b := appendHead(x.conn.out[:0], http.StatusNotModified, "", -2, x.last)
	_, err := x.conn.conn.Write(append(append(b, x.header...), "\r\n"...))
	return err
}

// noticeHeader tells clients of other makes what there is to say about a start.
const noticeHeader = "X-Jumpsuite-Notice"

func (x *exchange) started(notice string) error {
	x.answered = true
	b := appendHead(x.conn.out[:0], http.StatusNoContent, "", -2, x.last)
	if notice != "" {
		x.gate.tell(x.conn.caller, notice)
		b = append(append(append(b, noticeHeader+": "...), clean(notice)...), "\r\n"...)
	}
	_, err := x.conn.conn.Write(append(append(b, x.header...), "\r\n"...))
	return err
}

func serveAttach(x *exchange) error {
	if !x.req.upgrade {
		return badRequest("attach needs an upgrade to a stream")
	}
	t, err := x.find()
	if err != nil {
		return err
	}
	q := x.questionOn(t)
	d := x.decide(q)
	if !t.leasedTo(x.conn.caller.owner()) && d.Allowed() && !x.gate.FarGate {
		if err := x.leaseForStart(t, d); err != nil {
			return x.hide(x.refuse(q, t.about(), err))
		}
	}
	if _, err := x.permitted(q, d, t.about(), audit.Open); err != nil {
		return x.hide(err)
	}
	return x.attach(t, q, d)
}

// leaseForStart leases a container that does not run to a caller who attaches to
// it in order to start it: docker start -a does things in that order.
func (x *exchange) leaseForStart(t *target, d policy.Decision) error {
	if t.State.Running || t.made() {
		return notYours("attach", t)
	}
	unlock, err := x.lockLeases()
	if err != nil {
		return err
	}
	defer unlock()
	again, err := x.lookup(t.ID, nil)
	if err != nil {
		return err
	}
	if again.State.Running {
		return notYours("attach", t)
	}
	if err := x.startPossible(again, d); err != nil {
		return err
	}
	le := newLease(leaseStarted, x.conn.caller.owner(), audit.NewID(time.Now()), attachTime)
	le.Container = t.ID
	if err := x.gate.Leases.write(t.ID, le); err != nil {
		return unavailable("%v", err)
	}
	t.lease = le
	return nil
}

// session is a caller's attached stream; recording may be nil.
type session struct{ recording Recording }

func (g *Gate) session(k sessionKey) *session {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sessions[k]
}

func (g *Gate) setSession(k sessionKey, s *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s == nil {
		delete(g.sessions, k)
		return
	}
	if g.sessions == nil {
		g.sessions = map[sessionKey]*session{}
	}
	g.sessions[k] = s
}

func (x *exchange) attach(t *target, q policy.Request, d policy.Decision) error {
	rec, taps, err := x.startRecording(d, Session{Action: q.Action.String(), Container: t.ID, Argv: nil, Terminal: t.Config.Tty})
	if err != nil {
		return err
	}
	if rec != nil {
		defer rec.Close() // once more, if a panic ends this
	}
	k := sessionKey{t.ID, x.conn.caller.owner()}
	s := &session{recording: rec}
	x.gate.setSession(k, s)
	defer x.gate.setSession(k, nil)
	ctx, cancel := context.WithCancelCause(x.ctx)
	defer cancel(nil)
	if !x.gate.FarGate {
		defer time.AfterFunc(attachTime, func() { x.endUnlessStarted(t.ID, cancel) }).Stop()
	}
	x.ctx = ctx
	taps, stop := x.bounded(d.Obligations.Limits.Session, taps)
	defer stop()
	err = x.hijack(&ask{method: http.MethodPost, path: "/containers/" + t.ID + "/attach", query: x.query}, stillSo(q, d), taps)
	var result audit.Result
	if rec != nil {
		sum, closeErr := rec.Close()
		result.Recording = sum
		err = errors.Join(err, asTapError(closeErr))
	}
	x.closeWith(result, err)
	return err
}

// endUnlessStarted ends a stream to a container that its caller attached to and
// then did not start: the next to start it may be somebody else.
func (x *exchange) endUnlessStarted(id string, cancel context.CancelCauseFunc) {
	le, err := x.gate.Leases.read(id)
	if err == nil && le != nil && le.Owner == x.conn.caller.owner() && (le.Kind == leaseMade || le.StartedAt != "") {
		return
	}
	cancel(errors.New("the container was not started"))
}

// serveWait waits for a container's end. Its close has the container's exit
// code: what docker run and docker start -a ended with.
func serveWait(x *exchange) error {
	t, q, err := x.mine()
	if err != nil {
		return err
	}
	if _, err := x.follow(q, t.about(), audit.Open); err != nil {
		return err
	}
	var end waited
	err = x.stream(&ask{method: http.MethodPost, path: "/containers/" + t.ID + "/wait", query: x.query}, still(q), end.take)
	x.closeWith(audit.Result{Exit: end.code()}, err)
	return err
}

// waited is the Engine's answer to a wait: an object with the exit code.
type waited struct{ body []byte }

func (w *waited) take(b []byte) error {
	if len(w.body)+len(b) <= 4<<10 {
		w.body = append(w.body, b...)
	}
	return nil
}

func (w *waited) code() int {
	var said struct{ StatusCode int }
	if json.Unmarshal(w.body, &said) != nil {
		return 0
	}
	return said.StatusCode
}

// follow decides and records what belongs to a session that is on record
// already and changes nothing: its line need not be on the disk at once.
func (x *exchange) follow(q policy.Request, about audit.Event, kind audit.Kind) (policy.Decision, error) {
	about.Follows = true
	d, err := x.permitted(q, x.decide(q), about, kind)
	if err != nil {
		err = x.hide(err)
	}
	return d, err
}

func serveResize(x *exchange) error {
	if x.query.Get("h") == "" || x.query.Get("w") == "" {
		return badRequest("a size has a height and a width")
	}
	t, q, err := x.mine()
	if err != nil {
		return err
	}
	if _, err := x.follow(q, x.sized(t.about()), audit.Decision); err != nil {
		return err
	}
	if s := x.gate.session(sessionKey{t.ID, x.conn.caller.owner()}); s != nil && s.recording != nil {
		if err := s.recording.Resize(atoi(x.query.Get("w")), atoi(x.query.Get("h"))); err != nil {
			return unavailable("the session cannot be recorded: %v", err)
		}
	}
	return x.passEmpty(&ask{method: http.MethodPost, path: "/containers/" + t.ID + "/resize", query: x.query})
}

// sized adds to an event which size is asked for.
func (x *exchange) sized(about audit.Event) audit.Event {
	about.Detail = x.op.name + " " + x.query.Get("w") + "x" + x.query.Get("h")
	return about
}

// serveKill sends a signal, as docker run and docker start -a do with those that
// they get.
func serveKill(x *exchange) error {
	a := &ask{method: http.MethodPost, path: "/containers/" + x.ref + "/kill", query: x.query}
	if x.unseen() {
		if o := x.ownersTerms(true); o != nil {
			if done, err := x.emptyOnTerms(a, o, "kill "+x.query.Get("signal")); done {
				return err
			}
		}
	}
	t, q, err := x.mine()
	if err != nil {
		return err
	}
	about := t.about()
	about.Detail = "kill " + x.query.Get("signal")
	if _, err := x.permit(q, about); err != nil {
		return x.hide(err)
	}
	return x.passEmpty(&ask{method: http.MethodPost, path: "/containers/" + t.ID + "/kill", query: x.query})
}

// mineOnTerms does something to the caller's container on terms, if that is possible.
func (x *exchange) mineOnTerms(a policy.Action, method, what string) (done bool, err error) {
	if !x.unseen() {
		return false, nil
	}
	q := x.question(a, policy.Resource{})
	rules, d := x.gate.policy.Load().Terms(q)
	if !d.Allowed() {
		return false, nil
	}
	ask := &ask{method: method, path: "/containers/" + x.ref + what, query: x.query}
	again := func(t *target) policy.Request { return x.question(a, t.resource()) }
	return x.emptyOnTerms(ask, &offer{&terms{Any: []policy.Terms{rules}, Yours: true}, q, d, again}, "")
}

// emptyOnTerms is passEmpty on terms.
func (x *exchange) emptyOnTerms(a *ask, o *offer, detail string) (done bool, err error) {
	ans, done, err := x.asksOnTerms(a, o, detail)
	if !done || err != nil {
		return done, err
	}
	if ans.status == http.StatusNoContent {
		return true, x.empty()
	}
	return true, x.reply(ans.status, "", nil)
}

func serveStop(x *exchange) error {
	if done, err := x.mineOnTerms(policy.DockerStop, http.MethodPost, "/stop"); done {
		return err
	}
	t, err := x.mineFor(policy.DockerStop)
	if err != nil {
		return err
	}
	return x.passEmpty(&ask{method: http.MethodPost, path: "/containers/" + t.ID + "/stop", query: x.query})
}

func serveRemove(x *exchange) error {
	if done, err := x.mineOnTerms(policy.DockerRm, http.MethodDelete, ""); done {
		return err
	}
	t, err := x.mineFor(policy.DockerRm)
	if err != nil {
		return err
	}
	err = x.passEmpty(&ask{method: http.MethodDelete, path: "/containers/" + t.ID, query: x.query})
	if err == nil && !x.gate.FarGate {
		x.gate.Leases.remove(t.ID)
	}
	return err
}

// mineFor decides about an action that is both the policy's to grant and only
// for the container's owner.
func (x *exchange) mineFor(a policy.Action) (*target, error) {
	x.gate.forgetFar(x.ref)
	t, err := x.find()
	if err != nil {
		return nil, err
	}
	q := x.question(a, t.resource())
	d := x.decide(q)
	if d.Allowed() && !t.leasedTo(x.conn.caller.owner()) {
		return nil, x.hide(x.refuse(q, t.about(), notYours(x.op.name, t)))
	}
	if _, err := x.permitted(q, d, t.about(), audit.Open); err != nil {
		return nil, x.hide(err)
	}
	return t, nil
}
