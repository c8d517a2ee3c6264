package dockerproxy

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"jumpsuite/internal/audit"
	"jumpsuite/policy"
)

// reaper is the principal of what the gate does by itself.
const reaper = "system:reaper"

// Reap ends, every so often until ctx ends, what was left behind: containers
// that were made or started through the gate and whose time is over, and those
// that an interrupted docker run --rm never started. It touches nothing that
// was started again since by somebody else.
func (g *Gate) Reap(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := g.ReapOnce(ctx); err != nil && ctx.Err() == nil {
			g.log().Warn("what was left behind is not removed", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// ReapOnce looks through all leases once.
func (g *Gate) ReapOnce(ctx context.Context) error {
	all, err := g.Leases.all()
	if err != nil {
		return err
	}
	x := &exchange{ctx: ctx, gate: g, req: &request{}, conn: &connection{gate: g, caller: Caller{Principal: policy.Principal{User: reaper}}}}
	defer x.conn.close()
	var errs []error
	for key := range all {
		errs = append(errs, x.reap(key))
	}
	return errors.Join(errs...)
}

// reap looks at one lease. What is to be done is found with the lock held, and
// then done without it: to stop a container takes time.
func (x *exchange) reap(key string) error {
	act, err := x.reapable(key)
	if err != nil || act == nil {
		return err
	}
	return act()
}

// reapable reads a lease again, under the lock, and returns what is to be done;
// nil for nothing.
func (x *exchange) reapable(key string) (act func() error, err error) {
	unlock, err := x.lockLeases()
	if err != nil {
		return nil, err
	}
	defer unlock()
	le, err := x.gate.Leases.read(key)
	if err != nil || le == nil {
		return nil, err
	}
	if le.Container == "" {
		return nil, x.reapUnbound(key, le)
	}
	t, err := x.lookup(le.Container, nil)
	var r *Refusal
	if errors.As(err, &r) && r.Status == http.StatusNotFound {
		return nil, x.gate.Leases.remove(key)
	}
	if err != nil || !over(t, le) {
		return nil, err
	}
	switch {
	case le.Kind == leaseMade && t.Config.Labels[leaseLabel] == le.Number:
		return func() error { return x.reapMade(t, le) }, nil
	case le.Kind == leaseStarted && le.StartedAt == t.State.StartedAt && t.State.Running:
		return func() error { return x.reapStarted(t, le) }, nil
	}
	return nil, x.gate.Leases.remove(key)
}

// over reports whether a lease has ended: its time is over, or it is of a
// docker run --rm that was interrupted before it started anything.
func over(t *target, le *lease) bool {
	now := time.Now()
	neverStarted := le.Kind == leaseMade && le.Remove && t.State.Status == "created" && now.Sub(le.Since) > unboundTime
	return neverStarted || !now.Before(le.Until)
}

// reapMade removes what was made here, and its anonymous volumes.
func (x *exchange) reapMade(t *target, le *lease) error {
	return x.onRecord(t, le, "docker.rm", "its time is over; made in "+le.Event, func() error {
		_, _, err := x.fetch(&ask{method: http.MethodDelete, path: "/containers/" + t.ID, query: url.Values{"force": {"1"}, "v": {"1"}}})
		return gone(err)
	})
}

// reapStarted stops what was started here, if nobody started it since.
func (x *exchange) reapStarted(t *target, le *lease) error {
	return x.onRecord(t, le, "docker.stop", "its time is over; started in "+le.Event, func() error {
		_, _, err := x.fetch(&ask{method: http.MethodPost, path: "/containers/" + t.ID + "/stop"})
		return gone(err)
	})
}

// gone takes "it is not there" for success.
func gone(err error) error {
	var e *EngineError
	if errors.As(err, &e) && (e.Status == http.StatusNotFound || e.Status == http.StatusConflict) {
		return nil
	}
	return err
}

// onRecord does something to a container and then drops its lease, on record.
func (x *exchange) onRecord(t *target, le *lease, action, why string, do func() error) error {
	e := t.about()
	e.Kind, e.Action, e.Verdict, e.Rule, e.Detail = audit.Open, action, audit.Allow, "lease", why
	if err := x.record(e); err != nil {
		return err
	}
	err := do()
	if err == nil {
		err = x.dropLease(le)
	}
	x.close(err)
	return err
}

// dropLease removes a lease, unless there is another for the container by now.
func (x *exchange) dropLease(le *lease) error {
	unlock, err := x.lockLeases()
	if err != nil {
		return err
	}
	defer unlock()
	now, err := x.gate.Leases.read(le.Container)
	if err != nil || now == nil || now.Number != le.Number {
		return err
	}
	return x.gate.Leases.remove(le.Container)
}

// reapUnbound looks for the container of a lease whose gate did not live to
// write its id down.
func (x *exchange) reapUnbound(number string, le *lease) error {
	if time.Since(le.Since) < unboundTime {
		return nil
	}
	body, _, err := x.fetch(&ask{method: http.MethodGet, path: "/containers/json", query: url.Values{
		"all": {"1"}, "filters": {formatFilters(map[string][]string{"label": {leaseLabel + "=" + number}})},
	}})
	if err != nil {
		return err
	}
	ids, err := idsOf(body)
	if err != nil {
		return err
	}
	if len(ids) == 0 {
		return x.gate.Leases.remove(number)
	}
	for _, id := range ids {
		if _, err := x.lookup(id, nil); err != nil { // which files the lease under its id
			return err
		}
	}
	return nil
}
