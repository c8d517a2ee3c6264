package dockerproxy

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"jumpsuite/policy"
)

// limitError is a session that the policy's limits have ended.
type limitError struct {
	limit string
	after time.Duration
}

func (e *limitError) Error() string {
	if e.limit == "limits.session.idle" {
		return fmt.Sprintf("the session was silent for %v (%s)", e.after, e.limit)
	}
	return fmt.Sprintf("the session has lasted %v (%s)", e.after, e.limit)
}

// bounded bounds a session that is about to begin: how long it may last, and how
// long it may be silent. stop ends the bounding, and tells the caller if it was a
// bound that ended the session.
func (x *exchange) bounded(l policy.SessionLimits, t taps) (bounded taps, stop func()) {
	if l == (policy.SessionLimits{}) {
		return t, func() {}
	}
	ctx, cancel := context.WithCancelCause(x.ctx)
	x.ctx = ctx
	var timers []*time.Timer
	if l.For > 0 {
		timers = append(timers, time.AfterFunc(l.For, func() { cancel(&limitError{"limits.session.for", l.For}) }))
	}
	if l.Idle > 0 {
		idle := newIdle(l.Idle, func() { cancel(&limitError{"limits.session.idle", l.Idle}) })
		t.in, t.out = idle.tap(t.in), idle.tap(t.out)
		timers = append(timers, idle.timer)
	}
	return t, func() {
		for _, timer := range timers {
			timer.Stop()
		}
		var why *limitError
		if errors.As(context.Cause(ctx), &why) {
			x.gate.tell(x.conn.caller, why.Error())
		}
		cancel(nil)
	}
}

// idle calls over once nothing was seen for a while.
type idle struct {
	last  atomic.Int64 // nanoseconds since began
	began time.Time
	timer *time.Timer
}

func newIdle(most time.Duration, over func()) *idle {
	i := &idle{began: time.Now()}
	ready := make(chan struct{})
	i.timer = time.AfterFunc(most, func() {
		<-ready
		silent := time.Since(i.began) - time.Duration(i.last.Load())
		if silent >= most {
			over()
			return
		}
		i.timer.Reset(most - silent)
	})
	close(ready)
	return i
}

// tap sees that something goes by, and lets next see it.
func (i *idle) tap(next func([]byte) error) func([]byte) error {
	return func(b []byte) error {
		i.last.Store(int64(time.Since(i.began)))
		if next == nil {
			return nil
		}
		return next(b)
	}
}
