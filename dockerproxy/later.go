package dockerproxy

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"

	"github.com/docker/docker/api/types/container"

	"jumpsuite/internal/audit"
)

// Nothing of a detached exec comes back by which it could be ended, should its start
// not be on record. So the host is asked for it when its client starts it, create and
// start in one: the client's create is decided and recorded, and answered with an id of
// the gate's own. What the host then says to the create is the answer to the start.

// later is an exec that its host has not been asked for.
type later struct {
	options container.ExecOptions
	event   string // id of the event of the create
}

// execLater answers the create of a detached exec.
func (x *exchange) execLater(e *execution, o *container.ExecOptions) error {
	var id [32]byte
	rand.Read(id[:]) // it never fails
	e.id, e.later = hex.EncodeToString(id[:]), &later{*o, x.event.ID}
	if !x.gate.remember(e) {
		return tooManyExecs()
	}
	return x.replyJSON(http.StatusCreated, struct {
		ID string `json:"Id"`
	}{e.id})
}

// startLater decides anew, as the start of every exec does, and asks for both.
func (x *exchange) startLater(e *execution, o *container.ExecStartOptions) error {
	if err := x.startable(e, o, nil); err != nil {
		return err
	}
	if !o.Detach {
		return badRequest("the exec was created to be detached")
	}
	x.ref = e.container
	asked := *e.question.Exec
	j, err := x.judgeExec(&asked)
	if err != nil {
		return err
	}
	if _, err := x.permitted(j.question, j.decision, j.about, audit.Decision); err != nil {
		return x.hide(err)
	}
	if !e.started.CompareAndSwap(false, true) {
		return &Refusal{Status: http.StatusConflict, Text: "exec " + e.id[:12] + " was started already"}
	}
	done := &execution{
		id: e.id, container: e.container, owner: e.owner, tty: e.tty, argv: e.argv,
		question: j.question, about: j.about, stdin: e.stdin, created: e.created, size: e.size,
	}
	if j.target != nil {
		done.container = j.target.ID
	}
	ans, err := x.createAndDetach(done, e.later, o, &j)
	if errors.Is(err, errUnfit) {
		x.change(err.Error())
		e.started.Store(false)
		return x.startLater(e, o) // the long way
	}
	done.started.Store(true)
	done.end()
	e.end()
	if j.target == nil && done.there != "" {
		x.was(done.question, done.about)
		x.change("exec in this container")
	}
	if err != nil {
		x.failed(err)
		return err
	}
	x.gate.mu.Lock()
	x.gate.execs[e.id] = done
	x.gate.mu.Unlock()
	return x.reply(ans.status, "", nil)
}

// createAndDetach asks for both, and reads what came of it.
func (x *exchange) createAndDetach(e *execution, l *later, o *container.ExecStartOptions, j *judgedExec) (*answer, error) {
	up, version, err := x.engine()
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(x.ctx, func() { up.conn.Close() })
	defer stop()
	up.done = false
	create := x.askExec(e, &l.options, j)
	create.event = l.event
	err = up.write(version, create)
	if err == nil {
		err = up.write(version, x.forFar(&ask{method: http.MethodPost, path: "/exec/" + lastExec + "/start", body: o}))
	}
	if err != nil {
		x.conn.dropUpstream()
		return nil, x.gate.gone(err)
	}
	if e.there, err = x.created(e, up, j); err != nil {
		x.conn.dropUpstream() // with the start's answer
		return nil, err
	}
	ans, err := up.read(http.MethodPost)
	if err != nil {
		x.conn.dropUpstream()
		return nil, x.gate.gone(err)
	}
	_, ans, err = x.take(ans)
	return ans, engineRefusal(err)
}
