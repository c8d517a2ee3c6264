package dockerengine

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"

	"jumpsuite/internal/lab/engine"
	"jumpsuite/internal/lab/rootfs"
)

// task is a task on a host. What its inbox runs may use all of it; everything
// else only what says so.
type task struct {
	engine.Task // never changes
	engine      *Engine
	ctx         context.Context // of its launch
	cancel      context.CancelFunc
	inbox       inbox
	muted       atomic.Bool
	containers  []*contained // never changes

	launching  bool // containers may still be made and started
	doomed     bool // to be removed when it has launched
	stopping   bool
	done       bool // AllStopped was told
	reappeared bool // a container came back and was stopped
}

func newTask(e *Engine, t engine.Task) *task {
	k := &task{Task: t, engine: e, launching: true}
	k.ctx, k.cancel = context.WithCancel(e.ctx)
	for _, c := range t.Containers {
		k.containers = append(k.containers, newContained(k, c))
	}
	return k
}

// contained returns the container of that name, or nil.
func (k *task) contained(name string) *contained {
	for _, c := range k.containers {
		if c.spec.Name == name {
			return c
		}
	}
	return nil
}

// mute ends all telling.
func (k *task) mute() { k.muted.Store(true) }

func (k *task) tell(ev engine.Event) {
	if k.Notify != nil && !k.muted.Load() {
		k.Notify(ev)
	}
}

// launch pulls, creates and starts. It runs outside the inbox, since it takes
// long, and ends at the first failure or when the task is stopped.
func (k *task) launch() {
	defer k.cancel()
	k.inbox.post(func() { k.tell(engine.Event{Kind: engine.PullStarted}) })
	failed, err := k.bringUp()
	k.inbox.post(func() {
		k.launching = false
		if err != nil && !k.stopping {
			k.tell(engine.Event{Kind: engine.Failed, Container: failed.spec.Name, Reason: err.Error()})
			k.stop()
		}
		k.finish()
		if k.doomed {
			k.remove(true)
		}
	})
}

// bringUp returns the container that could not be pulled, made or started, and
// why. A launch that was cancelled ends without an error.
func (k *task) bringUp() (*contained, error) {
	for _, c := range k.containers {
		if err := k.engine.pullFor(k.ctx, c); err != nil {
			return c, k.unlessCancelled(err)
		}
	}
	k.inbox.post(func() { k.tell(engine.Event{Kind: engine.PullStopped}) })
	for _, c := range k.containers {
		if k.ctx.Err() != nil {
			return nil, nil
		}
		// Not k.ctx: a start is either done or not, never cut short.
		if err := c.bringUp(k.engine.ctx); err != nil {
			return c, err
		}
	}
	return nil, nil
}

func (k *task) unlessCancelled(err error) error {
	if k.ctx.Err() != nil {
		return nil
	}
	return err
}

// handle is told each event of Docker about a container of the task.
func (k *task) handle(c *contained, action events.Action) {
	switch action {
	case events.ActionStart:
		k.started(c)
	case events.ActionDie:
		k.died(c)
	case events.ActionHealthStatusHealthy, events.ActionHealthStatusUnhealthy:
		if !c.exited {
			k.tellStarted(c)
			healthy := action == events.ActionHealthStatusHealthy
			k.tell(engine.Event{Kind: engine.Health, Container: c.spec.Name, Healthy: healthy})
		}
	}
}

func (k *task) started(c *contained) {
	c.running, c.born = true, time.Now()
	state, err := c.inspect()
	if err != nil {
		k.engine.note("look at a started container", err, c)
		return
	}
	c.address.Store(address(state))
	if c.exited {
		k.back(c)
		return
	}
	if k.stopping { // Stop came between its start and this
		k.end(c)
	}
	go func() {
		c.awaitReady(k.engine.ctx)
		k.inbox.post(func() { k.tellStarted(c) })
	}()
}

// tellStarted tells, once, that a container runs. That is when its program
// does: on a fast clock the time until then would be minutes.
func (k *task) tellStarted(c *contained) {
	if c.told {
		return
	}
	c.told = true
	close(c.begun)
	k.tell(engine.Event{Kind: engine.Started, Container: c.spec.Name, Digest: c.image.digest, RuntimeID: c.id})
	if k.Running && c.spec.Health != nil { // it has been so for a while
		k.tell(engine.Event{Kind: engine.Health, Container: c.spec.Name, Healthy: true})
	}
}

// back is told that a container that had ended runs again. Once for a task it
// is stopped; after that it is left alone.
func (k *task) back(c *contained) {
	k.tell(engine.Event{Kind: engine.Reappeared, Container: c.spec.Name, RuntimeID: c.id})
	if !k.reappeared {
		k.reappeared = true
		k.end(c)
	}
}

func (k *task) died(c *contained) {
	c.running = false
	c.ended()
	c.address.Store("")
	if c.exited {
		return
	}
	c.exited = true
	k.tellStarted(c)
	ev := engine.Event{Kind: engine.Exited, Container: c.spec.Name, RuntimeID: c.id, Digest: c.image.digest}
	state, err := c.inspect()
	if err != nil {
		k.engine.note("look at an ended container", err, c)
	} else {
		ev.ExitCode, ev.Reason = &state.State.ExitCode, exitReason(state)
	}
	k.tell(ev)
	if c.spec.Essential {
		k.stop()
	}
	k.finish()
}

// exitReason is the agent's word for an end that is not the program's own.
func exitReason(state container.InspectResponse) string {
	switch {
	case state.State.OOMKilled:
		return "OutOfMemoryError: Container killed due to memory usage"
	case state.State.Error != "":
		return "DockerStateError: " + state.State.Error
	}
	return ""
}

// stop ends what runs of the task.
func (k *task) stop() {
	if k.stopping {
		return
	}
	k.stopping = true
	k.cancel()
	for _, c := range k.containers {
		if c.running {
			k.end(c)
		}
	}
	k.finish()
}

// end sends SIGTERM, and SIGKILL when the stop time-out is over.
func (k *task) end(c *contained) {
	k.engine.note("stop a container", c.terminate(), c)
	c.ended()
	c.killer = time.AfterFunc(c.stopTimeout(), c.thisTime(func() {
		k.engine.note("kill a container", c.kill("SIGKILL"), c)
	}))
}

// finish tells that nothing of the task runs any more, when that is so.
func (k *task) finish() {
	if k.done || k.launching {
		return
	}
	for _, c := range k.containers {
		if c.running || c.starts() {
			return
		}
	}
	k.done = true
	k.tell(engine.Event{Kind: engine.AllStopped})
	k.engine.Clock.AfterFunc(k.engine.Cleanup, func() {
		if k.engine.ctx.Err() == nil && k.engine.forget(k.ID) != nil {
			k.inbox.post(func() { k.remove(false) })
		}
	})
}

// remove deletes the task's containers. Without force it does as the agent,
// and leaves one alone that someone started again.
func (k *task) remove(force bool) {
	if k.launching {
		k.doomed = true
		return
	}
	for _, c := range k.containers {
		k.engine.note("remove a container", c.remove(force), c)
	}
}

// kill ends one container with a code, as if by itself.
func (k *task) kill(c *contained, code int) {
	if c.running {
		k.engine.note("end a container", c.exec(rootfs.Exit(code)), c)
	}
}

func (k *task) override(o engine.Override) {
	for _, c := range k.containers {
		if c.running {
			k.engine.note("override a container", c.override(o), c)
		}
	}
}
