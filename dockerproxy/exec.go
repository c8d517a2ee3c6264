package dockerproxy

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/docker/docker/api/types/container"

	"jumpsuite/internal/audit"
	"jumpsuite/policy"
)

// Bounds of what is remembered of execs.
const (
	maxExecs     = 4096
	maxExecsEach = 1024             // of one caller, not yet over
	execKept     = time.Hour        // after its end, for exec inspect
	execUnused   = 10 * time.Minute // created and never started
	maxExecArgs  = 64
	maxVariables = 256
)

// execution is an exec that was created here: an exec's id says nothing about
// its container, and nothing about who may use it, so this does.
type execution struct {
	id        string
	container string // full id
	owner     owner
	tty       bool
	argv      []string
	question  policy.Request // asked again at the start
	about     audit.Event
	stdin     bool
	created   time.Time
	size      [2]uint // height and width at the start

	started   atomic.Bool
	ended     atomic.Int64 // when nothing of it was streamed here any more, in nanoseconds since 1970; zero: it goes on
	recording atomic.Pointer[Recording]
	begun     atomic.Pointer[begun]        // the host was asked to start it, and the client has not
	exit      atomic.Pointer[int]          // its exit code, where that came with the stream's end
	why       atomic.Pointer[func() error] // why its stream was ended before its time; nil while it was not

	later *later // the host has not been asked to create it yet; nil: it has
	there string // its id at the host's gate; empty: id
}

// execRequest is what a client sends. Docker's library for Python repeats the
// container; the path is what counts, and that is all that goes on.
type execRequest struct {
	container.ExecOptions
	Container string
}

func serveExecCreate(x *exchange) error {
	var sent execRequest
	if err := unmarshal(x.body, &sent); err != nil {
		return err
	}
	if err := judge(&sent, execVerdicts); err != nil {
		return err
	}
	o := sent.ExecOptions
	clampConsole(o.ConsoleSize)
	j, err := x.judgeExec(execAsked(&o))
	if err != nil {
		return err
	}
	if _, err := x.permitted(j.question, j.decision, j.about, audit.Decision); err != nil {
		return x.hide(err)
	}
	e := &execution{
		container: x.ref, owner: x.conn.caller.owner(), tty: o.Tty, argv: o.Cmd,
		question: j.question, about: j.about, stdin: o.AttachStdin, created: time.Now(),
	}
	if o.ConsoleSize != nil {
		e.size = *o.ConsoleSize
	}
	if j.target != nil {
		e.container = j.target.ID
	}
	switch {
	case x.isExec() && j.question.Exec.Detach:
		return x.execLater(e, &o)
	case x.isExec():
		err := x.execAtOnce(e, &o, j)
		if errors.Is(err, errUnfit) {
			return serveExecCreate(x) // the long way, from the beginning
		}
		return err
	}
	return x.createExec(e, &o)
}

// judgedExec is what the policy says to an exec.
type judgedExec struct {
	target   *target // nil: it need not be known
	on       *terms  // on which the decision counts; nil: on none
	question policy.Request
	decision policy.Decision
	about    audit.Event
}

// judgeExec decides about an exec in the container that goes by x.ref.
func (x *exchange) judgeExec(asked *policy.Exec) (j judgedExec, err error) {
	j.about = x.aboutRef()
	enough := false
	if j.question, j.decision, j.on, enough = x.unlooked(asked); !enough {
		if j.target, err = x.find(); err != nil {
			return j, err
		}
		j.question, j.about = x.question(policy.DockerExec, j.target.resource()), j.target.about()
		j.question.Exec = asked
		j.decision = x.decide(j.question)
	}
	if j.on != nil {
		j.about = x.termed(j.about)
	}
	j.about.Argv = asked.Argv
	if j.decision.Allowed() {
		if err := x.execPossible(j.target, j.question, j.decision); err != nil {
			return j, x.refuse(j.question, j.about, err)
		}
	}
	return j, nil
}

// refuse records a refusal of the gate's own to what the policy would allow.
func (x *exchange) refuse(q policy.Request, about audit.Event, err error) error {
	r, ok := err.(*Refusal)
	if !ok {
		return err
	}
	about.Kind, about.Action, about.Verdict, about.Rule, about.Reason = audit.Decision, q.Action.String(), audit.Deny, "gate", r.Text
	if err := x.record(about); err != nil {
		return err
	}
	r.Recorded = true
	return r
}

// execPossible refuses what no policy can allow, or what cannot be done as the
// policy wants it.
func (x *exchange) execPossible(t *target, q policy.Request, d policy.Decision) error {
	if !x.gate.FarGate {
		if err := x.guard(t, d.Obligations.Limits.Exec.Escapes); err != nil {
			return err
		}
	}
	if d.Obligations.Record == policy.RecordNothing {
		return nil
	}
	return x.recordable(q.Exec != nil && q.Exec.Detach)
}

func (x *exchange) recordable(detached bool) error {
	switch {
	case detached:
		return forbidden("leave out --detach", "sessions are recorded here, and one that is detached cannot be")
	case x.gate.Recorder == nil:
		return &Refusal{Status: http.StatusServiceUnavailable, Text: "sessions are recorded here, and there is no recorder"}
	}
	return nil
}

// execAsked is the part of an exec that the policy speaks of. Whether it is to
// be detached is only known at the start, and asked then.
func execAsked(o *container.ExecOptions) *policy.Exec {
	e := &policy.Exec{Argv: o.Cmd, User: o.User, WorkDir: o.WorkingDir, Privileged: o.Privileged}
	e.Detach = !o.AttachStdin && !o.AttachStdout && !o.AttachStderr
	for _, v := range o.Env {
		name, _, _ := strings.Cut(v, "=")
		e.Env = append(e.Env, name)
	}
	return e
}

func (x *exchange) createExec(e *execution, o *container.ExecOptions) error {
	body, _, err := x.fetch(&ask{method: http.MethodPost, path: "/containers/" + e.container + "/exec", body: o})
	if err != nil {
		return engineRefusal(err)
	}
	var made struct {
		ID string `json:"Id"`
	}
	if err := json.Unmarshal(body, &made); err != nil || !isID(made.ID) {
		return unavailable("the Docker Engine's answer to exec is not understood")
	}
	e.id = made.ID
	if !x.gate.remember(e) {
		return tooManyExecs()
	}
	x.conn.madeExec = e.id
	return x.replyJSON(http.StatusCreated, made)
}

func (g *Gate) remember(e *execution) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.execs == nil {
		g.execs = map[string]*execution{}
	}
	if len(g.execs) >= maxExecs {
		g.forget((*execution).stale)
	}
	if len(g.execs) >= maxExecs {
		g.forget(func(old *execution) bool { return old.over() })
	}
	if len(g.execs) >= maxExecs || g.execsOf(e.owner) >= maxExecsEach {
		return false
	}
	g.execs[e.id] = e
	return true
}

func tooManyExecs() error {
	return &Refusal{Status: http.StatusTooManyRequests, Text: "too many execs at a time"}
}

// rename keeps an exec under the id that it turned out to have, and drop no longer.
func (g *Gate) rename(e *execution, id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.execs, e.id)
	e.id = id
	g.execs[id] = e
}

func (g *Gate) drop(e *execution) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.execs, e.id)
}

func (g *Gate) forget(which func(*execution) bool) {
	for id, e := range g.execs {
		if which(e) {
			delete(g.execs, id)
		}
	}
}

// execsOf is how many execs of a caller's are waiting to be started, or run: one
// caller must not be able to keep all others from theirs.
func (g *Gate) execsOf(o owner) (n int) {
	for _, e := range g.execs {
		if e.owner == o && !e.over() && !e.stale() {
			n++
		}
	}
	return n
}

// stale reports whether nobody will ask for the exec any more. One that runs is
// asked for as long as it does, be it for days.
func (e *execution) stale() bool {
	if !e.started.Load() {
		return time.Since(e.created) > execUnused
	}
	return e.over() && time.Since(time.Unix(0, e.ended.Load())) > execKept
}

// atHost is the id by which the host's gate, or the Engine, knows it.
func (e *execution) atHost() string { return cmp.Or(e.there, e.id) }

func (e *execution) over() bool { return e.ended.Load() != 0 }

func (e *execution) end() { e.ended.Store(time.Now().UnixNano()) }

// execution finds an exec of this caller's. Another's is no other's business.
func (x *exchange) execution() (*execution, error) {
	x.gate.mu.Lock()
	e := x.gate.execs[x.startedRef()]
	x.gate.mu.Unlock()
	if e == nil || e.owner != x.conn.caller.owner() {
		return nil, &Refusal{Status: http.StatusNotFound, Text: "No such exec instance: " + printable(x.ref), Engine: true}
	}
	return e, nil
}

func serveExecStart(x *exchange) (err error) {
	var o container.ExecStartOptions
	if err := unmarshal(x.body, &o); err != nil {
		return err
	}
	if err := judge(&o, execStartVerdicts); err != nil {
		return err
	}
	clampConsole(o.ConsoleSize)
	e, err := x.execution()
	if err != nil {
		return err
	}
	if e.later != nil {
		return x.startLater(e, &o)
	}
	b := e.begun.Swap(nil)
	defer func() { b.end(err) }()
	if err := x.startable(e, &o, b); err != nil {
		return err
	}
	stays, d, err := x.execAgain(e, &o, b)
	if err != nil {
		return err
	}
	if !e.started.CompareAndSwap(false, true) {
		return &Refusal{Status: http.StatusConflict, Text: "exec " + e.id[:12] + " was started already"}
	}
	if o.Detach {
		return x.startDetached(e, &o)
	}
	return x.startAttached(e, &o, b, stays, d)
}

func (x *exchange) startable(e *execution, o *container.ExecStartOptions, b *begun) error {
	switch {
	case e.started.Load():
		return &Refusal{Status: http.StatusConflict, Text: "exec " + e.id[:12] + " was started already"}
	case e.stale():
		return &Refusal{Status: http.StatusConflict, Text: "exec " + e.id[:12] + " was created too long ago", Hint: "call docker exec again"}
	case o.Tty != e.tty:
		return badRequest("the exec was created with Tty %v", e.tty)
	case o.Detach == x.req.upgrade, o.Detach && b != nil:
		return badRequest("an exec is either detached or upgraded to a stream")
	}
	return nil
}

// execAgain decides anew: the policy may have changed since the exec was
// created, and so may the container. stays is what has to hold for as long as it runs.
func (x *exchange) execAgain(e *execution, o *container.ExecStartOptions, b *begun) (stays allowed, d policy.Decision, err error) {
	q := e.question
	t, err := x.lookup(e.container, nil)
	if err != nil {
		return nil, policy.Decision{}, err
	}
	asked := *q.Exec
	asked.Detach = o.Detach
	q.Exec = &asked
	q.Principal, q.Resource = x.conn.caller.Principal, x.question(policy.DockerExec, t.resource()).Resource
	d = x.decide(q)
	if d.Allowed() {
		if err := x.execPossible(t, q, d); err != nil {
			return nil, d, x.refuse(q, e.about, err)
		}
		stays = stillListed(t.kind(), q, d)
	}
	switch {
	case b == nil || !d.Allowed():
	case d.Obligations.Record > b.record:
		return nil, d, x.refuse(q, e.about, forbidden("call docker exec again", "%v", errPolicyChanged))
	default:
		x.takes(b, e, q)
		return stays, d, nil
	}
	kind := audit.Open
	if o.Detach {
		kind = audit.Decision
	}
	d, err = x.permitted(q, d, e.about, kind)
	return stays, d, err
}

// stillListed is stillSo where, too, the container's type stays listed if it was:
// it may be an escape.
func stillListed(kind string, q policy.Request, d policy.Decision) allowed {
	so := stillSo(q, d)
	if !slices.Contains(d.Obligations.Limits.Exec.Escapes, kind) {
		return so
	}
	return func(p *policy.Policy, who policy.Principal) bool {
		return so(p, who) && slices.Contains(p.Decide(as(q, who)).Obligations.Limits.Exec.Escapes, kind)
	}
}

func (x *exchange) startDetached(e *execution, o *container.ExecStartOptions) error {
	defer e.end()
	_, ans, err := x.fetch(&ask{method: http.MethodPost, path: "/exec/" + e.id + "/start", body: o})
	if err != nil {
		return engineRefusal(err)
	}
	return x.reply(ans.status, "", nil)
}

func (x *exchange) startAttached(e *execution, o *container.ExecStartOptions, b *begun, stays allowed, d policy.Decision) error {
	defer e.end()
	if o.ConsoleSize != nil {
		e.size = *o.ConsoleSize
	}
	rec, t, err := x.recorded(e, b, d)
	if err != nil {
		return err
	}
	if rec != nil {
		defer rec.Close() // once more, if a panic ends this
		e.recording.Store(&rec)
	}
	over := x.running(e)
	defer over()
	t, stop := x.bounded(d.Obligations.Limits.Session, t)
	defer stop()
	t.over = func(up *upstream) { x.exits(e, up) }
	t.begun = func(ctx context.Context) {
		why := func() error { return context.Cause(ctx) }
		e.why.Store(&why)
	}
	err = x.hijackFrom(&ask{method: http.MethodPost, path: "/exec/" + e.id + "/start", body: o}, b, stays, t)
	e.recording.Store(nil)
	result := x.afterExec(e, err)
	if rec != nil {
		sum, closeErr := rec.Close()
		result.Recording = sum
		if err == nil && closeErr != nil {
			err = &tapError{closeErr}
		}
	}
	x.closeWith(result, err)
	return err
}

// recorded is the exec's recording, which may have begun already.
func (x *exchange) recorded(e *execution, b *begun, d policy.Decision) (Recording, taps, error) {
	if b != nil {
		return b.rec, b.taps, nil
	}
	return x.startRecording(d, e.session())
}

func (e *execution) session() Session {
	return Session{
		Action: policy.DockerExec.String(), Container: e.container, Argv: e.argv,
		Terminal: e.tty, Rows: int(e.size[0]), Columns: int(e.size[1]),
	}
}

// execState is what the Engine says of an exec.
type execState struct {
	ID          string
	ContainerID string
	Running     bool
	ExitCode    *int
	Pid         int
}

func (x *exchange) execState(id string) (execState, error) {
	var s execState
	body, _, err := x.fetch(&ask{method: http.MethodGet, path: "/exec/" + id + "/json"})
	if err == nil {
		err = json.Unmarshal(body, &s)
	}
	return s, err
}

func serveExecResize(x *exchange) error {
	if x.query.Get("h") == "" || x.query.Get("w") == "" {
		return badRequest("a size has a height and a width")
	}
	e, err := x.execution()
	if err != nil {
		return err
	}
	if _, err := x.follow(x.asNow(e.question), x.sized(e.about), audit.Decision); err != nil {
		return err
	}
	if r := e.recording.Load(); r != nil {
		if err := (*r).Resize(atoi(x.query.Get("w")), atoi(x.query.Get("h"))); err != nil {
			return unavailable("the session cannot be recorded: %v", err)
		}
	}
	return x.passEmpty(&ask{method: http.MethodPost, path: "/exec/" + e.atHost() + "/resize", query: x.query})
}

// passEmpty asks for something whose answer has no body to speak of.
func (x *exchange) passEmpty(a *ask) error {
	_, ans, err := x.fetch(a)
	if err != nil {
		return engineRefusal(err)
	}
	if ans.status == http.StatusNoContent {
		return x.empty()
	}
	return x.reply(ans.status, "", nil)
}

// asNow is a question of before, asked by the caller as he is now.
func (x *exchange) asNow(q policy.Request) policy.Request { return as(q, x.conn.caller.Principal) }

func serveExecInspect(x *exchange) error {
	e, err := x.execution()
	if err != nil {
		return err
	}
	if _, err := x.follow(x.asNow(e.question), e.about, audit.Decision); err != nil {
		return err
	}
	cut := e.cut()
	if _, lost := errors.AsType[*lostError](cut); lost {
		return unknownEnd(cut)
	}
	if code := e.exit.Load(); code != nil && x.gate.FarGate {
		return x.replyJSON(http.StatusOK, execState{ID: e.id, ContainerID: e.container, ExitCode: code})
	}
	body, _, err := x.fetch(&ask{method: http.MethodGet, path: "/exec/" + e.atHost() + "/json"})
	if err != nil {
		return engineRefusal(err)
	}
	var s execState
	if err := json.Unmarshal(body, &s); err != nil || s.ContainerID != e.container {
		return unavailable("the Docker Engine's answer about the exec is not understood")
	}
	if s.Running && cut != nil {
		return unknownEnd(cut)
	}
	s.ID = e.id
	return x.replyJSON(http.StatusOK, s)
}

// cut is why the exec's stream was ended before its time. Nil: it was not.
func (e *execution) cut() error {
	why := e.why.Load()
	if why == nil {
		return nil
	}
	if err := (*why)(); err != context.Canceled && err != errClientGone {
		return err
	}
	return nil
}

// unknownEnd is in place of the state of an exec whose stream was cut and that runs
// on: docker takes the exit code of one that runs for 0.
func unknownEnd(cut error) *Refusal {
	r := unavailable("how the exec ended is not known: %v", cut)
	r.Fault = true
	return r
}

// workDir checks a working directory: below /proc it could be one that leaked
// into the container from outside (CVE-2024-21626).
func workDir(dir string) error {
	if dir == "" {
		return nil
	}
	if !strings.HasPrefix(dir, "/") || path.Clean(dir) != strings.TrimSuffix(dir, "/") && dir != "/" {
		return badRequest("the working directory %q is not in its plain form", clip(dir))
	}
	for _, no := range []string{"/proc", "/sys", "/dev/fd"} {
		if within(path.Clean(dir), no) {
			return forbidden("", "the working directory %s is not available", no)
		}
	}
	return nil
}
