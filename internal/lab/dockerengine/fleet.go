package dockerengine

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"jumpsuite/internal/lab/engine"
)

// Fleet is an engine.Engine with a Docker Engine for each host, as it is outside
// labs: no host sees the containers of another.
type Fleet struct {
	hosts map[string]*Engine // by private address

	mu sync.Mutex
	at map[string]*Engine // where a task is, by its ID
}

var _ engine.Engine = (*Fleet)(nil)

// StartFleet starts an Engine for each of some hosts, which are named by their
// private addresses. The caller owes a Close; ctx is for the start only.
func StartFleet(ctx context.Context, c Config, hosts []string) (*Fleet, error) {
	f := &Fleet{hosts: map[string]*Engine{}, at: map[string]*Engine{}}
	for _, address := range hosts {
		e, err := Start(ctx, c)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("the Docker Engine of host %s: %w", address, err), f.Close())
		}
		f.hosts[address] = e
	}
	return f, nil
}

// On is a host's Engine, or nil.
func (f *Fleet) On(address string) *Engine { return f.hosts[address] }

// Launch implements engine.Engine. On a host that came later nothing can be started.
func (f *Fleet) Launch(t engine.Task) {
	e := f.hosts[t.Host.IP]
	if e == nil {
		go func() {
			t.Notify(engine.Event{Kind: engine.Failed, Reason: "DockerClientConfigError: the lab has no Docker Engine for host " + t.Host.IP})
			t.Notify(engine.Event{Kind: engine.AllStopped})
		}()
		return
	}
	f.mu.Lock()
	f.at[t.ID] = e
	f.mu.Unlock()
	e.Launch(t)
}

// of does something with the Engine that has a task, if one has.
func (f *Fleet) of(taskID string, do func(*Engine)) {
	f.mu.Lock()
	e := f.at[taskID]
	f.mu.Unlock()
	if e != nil {
		do(e)
	}
}

// Stop implements engine.Engine.
func (f *Fleet) Stop(taskID string) { f.of(taskID, func(e *Engine) { e.Stop(taskID) }) }

// Remove implements engine.Engine.
func (f *Fleet) Remove(taskID string) {
	f.of(taskID, func(e *Engine) { e.Remove(taskID) })
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.at, taskID)
}

// Lose implements engine.Engine.
func (f *Fleet) Lose(hostID string) {
	for _, e := range f.hosts {
		e.Lose(hostID)
	}
}

// Check implements engine.Engine.
func (f *Fleet) Check(ctx context.Context, taskID, container string, port int, path string) (status int, err error) {
	err = fmt.Errorf("no task %s", taskID)
	f.of(taskID, func(e *Engine) { status, err = e.Check(ctx, taskID, container, port, path) })
	return status, err
}

// Override implements engine.Engine.
func (f *Fleet) Override(taskID string, o engine.Override) {
	f.of(taskID, func(e *Engine) { e.Override(taskID, o) })
}

// Kill implements engine.Engine.
func (f *Fleet) Kill(taskID, container string, code int) {
	f.of(taskID, func(e *Engine) { e.Kill(taskID, container, code) })
}

// Close implements engine.Engine.
func (f *Fleet) Close() (err error) {
	for _, e := range f.hosts {
		err = errors.Join(err, e.Close())
	}
	return err
}
