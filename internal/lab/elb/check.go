package elb

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// watchHealth checks a target at the group's interval until ctx ends.
func (b *Balancer) watchHealth(ctx context.Context, g *group, t *target) {
	if b.config.Clock.Sleep(ctx, registration) != nil {
		return
	}
	b.set(ctx, g, t, Status{State: Initial, Reason: "Elb.InitialHealthChecking", Description: "Initial health checks in progress"})
	r := record{healthy: g.Settings.Healthy, unhealthy: g.Settings.Unhealthy, state: Initial}
	for {
		failure := b.checkOnce(ctx, g, t)
		if ctx.Err() != nil {
			return
		}
		if s, ok := r.result(failure); ok {
			b.set(ctx, g, t, s)
		}
		if b.config.Clock.Sleep(ctx, time.Duration(g.Settings.Interval)) != nil {
			return
		}
	}
}

// checkOnce makes one check. Its result is nil when the target answers 200, and what
// AWS says of the failure otherwise.
func (b *Balancer) checkOnce(ctx context.Context, g *group, t *target) *Status {
	b.mu.Lock()
	check := t.check
	b.mu.Unlock()
	limit := max(b.config.Clock.Outside(time.Duration(g.Settings.Timeout)), patience)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	status, err := check(ctx)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return &Status{State: Unhealthy, Reason: "Target.Timeout", Description: "Request timed out"}
	case err != nil:
		return &Status{State: Unhealthy, Reason: "Target.FailedHealthChecks", Description: "Health checks failed"}
	case status != 200:
		return &Status{State: Unhealthy, Reason: "Target.ResponseCodeMismatch", Description: fmt.Sprintf("Health checks failed with these codes: [%d]", status)}
	}
	return nil
}

// record counts a target's checks.
type record struct {
	healthy, unhealthy int // thresholds
	state              string
	why                Status // of the last failure that was told
	good, bad          int    // in a row
}

// result takes the result of a check, and tells the state that it leads to, if
// that is a new one. A new target needs one good check only [ALB user guide,
// "Health checks for your target groups"].
func (r *record) result(failure *Status) (Status, bool) {
	if failure != nil {
		r.good, r.bad = 0, r.bad+1
		if r.bad < r.unhealthy || r.state == Unhealthy && *failure == r.why {
			return Status{}, false
		}
		r.state, r.why = Unhealthy, *failure
		return *failure, true
	}
	r.good, r.bad = r.good+1, 0
	need := r.healthy
	if r.state == Initial {
		need = 1
	}
	if r.state == Healthy || r.good < need {
		return Status{}, false
	}
	r.state = Healthy
	return Status{State: Healthy}, true
}

// change is a target's new state.
type change struct {
	arn    string
	target Target
	status Status
}

// news are the changes that are still to be told. They are told in order, from
// one goroutine, with no lock held: a watcher may call the balancer, and what
// it calls may be called with the watcher's lock held.
type news struct {
	mu       sync.Mutex
	watchers []func(string, Target, string, string, string)
	waiting  []change
	wake     chan struct{}
}

func (n *news) add(c change) {
	n.mu.Lock()
	n.waiting = append(n.waiting, c)
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

func (n *news) take() ([]change, []func(string, Target, string, string, string)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	changes := n.waiting
	n.waiting = nil
	return changes, n.watchers
}

// Watch has f called on each change of a target's state from now on, one after
// the other; unused means that it is gone.
func (b *Balancer) Watch(f func(arn string, t Target, state, reason, description string)) {
	b.news.mu.Lock()
	defer b.news.mu.Unlock()
	b.news.watchers = append(b.news.watchers, f)
}

// tell is the goroutine that tells the news.
func (b *Balancer) tell() {
	defer b.running.Done()
	for {
		select {
		case <-b.ctx.Done():
			return
		case <-b.news.wake:
		}
		changes, watchers := b.news.take()
		for _, c := range changes {
			for _, f := range watchers {
				f(c.arn, c.target, c.status.State, c.status.Reason, c.status.Description)
			}
		}
	}
}
