package deployer

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/awsconfig"
)

// More outcomes, which judge does not give: they are the follower's own.
const (
	// TimedOut means that the time was over while something was missing.
	TimedOut Outcome = iota + 100
	// Lost means that the time was over, and AWS did not answer.
	Lost
)

// patienceWithAWS is after how many failed looks the person is told.
const patienceWithAWS = 3

// follower follows one deployment: it looks, judges and tells.
type follower struct {
	d        *Deployer
	w        *watcher
	deadline time.Time // AWS's clock
	trail    Trail
	last     Progress
	failures int // looks in a row that came to nothing
	calm     int // looks in a row without a change
}

// follow looks until something is decided, the time is over, or ctx ends; only
// the last is an error. AWS being out of reach decides nothing.
func (d *Deployer) follow(ctx context.Context, g Goal, timeout time.Duration) (Verdict, error) {
	f := &follower{d: d, w: d.watch(d.reader, g), deadline: d.clock.Now().Add(timeout)}
	for {
		v := f.once(ctx)
		if v.Outcome != Going {
			return v, nil
		}
		if err := sleep(ctx, f.pause()); err != nil {
			return v, err
		}
	}
}

// once makes one look and says what it means.
func (f *follower) once(ctx context.Context) Verdict {
	o, err := f.w.look(ctx)
	if err != nil {
		return f.blind(err)
	}
	f.seen()
	if v := f.d.keeper.seen(ctx, o.Service); v.Outcome != Going {
		return v
	}
	v, trail := judge(f.w.goal, o, f.trail)
	f.trail = trail
	f.report(o, v)
	if v.Outcome == Going && o.At.After(f.deadline) {
		return f.late(o, v)
	}
	return v
}

// blind is a look that came to nothing.
func (f *follower) blind(err error) Verdict {
	err = awsconfig.Explain(err)
	f.failures++
	if f.failures == patienceWithAWS {
		f.d.tell(Event{Kind: AWSLost, Deployment: f.w.goal.ID, Message: "AWS does not answer; ECS goes on by itself, and so does the following: " + err.Error()})
	}
	if f.d.clock.Now().After(f.deadline) {
		return Verdict{Outcome: Lost, Reason: err.Error()}
	}
	return Verdict{}
}

func (f *follower) seen() {
	if f.failures >= patienceWithAWS {
		f.d.tell(Event{Kind: AWSBack, Deployment: f.w.goal.ID, Message: "AWS answers again"})
	}
	f.failures = 0
}

// pause is how long to wait until the next look: longer while nothing changes,
// and longer still while AWS throttles or is out of reach.
func (f *follower) pause() time.Duration {
	if f.failures > 0 {
		return max(f.d.Interval, f.d.backoff(f.failures))
	}
	if f.d.Interval > 0 {
		return f.d.Interval
	}
	return min(quickLook+time.Duration(f.calm)*time.Second, slowLook)
}

// late is the verdict when the time is over: what was still missing, and the
// last thing that ECS could not do.
func (f *follower) late(o Observation, v Verdict) Verdict {
	if asBefore(f.w.goal, o) {
		return unmoved()
	}
	if !f.trail.whole.IsZero() && desired(o.Service) > 0 {
		return Verdict{Outcome: Deployed, Reason: leftOver(oldTasks(o))} // only old tasks are in the way
	}
	why := "the time is over; still missing: " + strings.Join(v.Missing, ", ")
	for i := len(o.Service.Events) - 1; i >= 0; i-- {
		e := o.Service.Events[i]
		if !e.Time.Before(f.w.goal.Since) && strings.Contains(e.Message, "unable") {
			why += "; ECS says: " + e.Message
			break
		}
	}
	return Verdict{Outcome: TimedOut, Reason: why, Missing: v.Missing}
}

// report tells what is new: service events since the deployment began, tasks
// that stopped, progress.
func (f *follower) report(o Observation, v Verdict) {
	if o.Service == nil {
		return
	}
	for _, e := range o.Service.Events {
		if !e.Time.Before(f.w.goal.Since) && !f.d.told[e.ID] {
			f.d.told[e.ID] = true
			f.d.tell(Event{Time: e.Time, Kind: ServiceSaid, Deployment: f.w.goal.ID, Message: e.Message})
		}
	}
	for _, t := range o.Tasks {
		if ended(t) && !f.d.told[t.ID] {
			f.d.told[t.ID] = true
			f.d.tell(Event{Time: o.At, Kind: TaskStopped, Deployment: f.w.goal.ID, Message: stopLine(t), Task: &t})
		}
	}
	if o.Service.Status != "ACTIVE" {
		return // nothing but the service was read
	}
	p := progress(f.w.goal, o, v)
	changed := !reflect.DeepEqual(p, f.last)
	f.calm++
	if changed {
		f.last, f.calm = p, 0
	}
	f.d.tell(Event{Time: o.At, Kind: Progressed, Deployment: f.w.goal.ID, Message: progressLine(p), Progress: &p, Changed: changed})
}

// ended reports whether it is known how a task ended. With a load balancer it
// takes minutes from there until it has stopped. A container that ended by itself
// has an exit code or a reason, which may come a moment later.
func ended(t ecsstatus.Task) bool {
	switch {
	case t.LastStatus == "STOPPED":
		return true
	case t.StopCode == "EssentialContainerExited", t.StopCode == "TaskFailedToStart":
		return slices.ContainsFunc(t.Containers, func(c ecsstatus.Container) bool { return c.ExitCode != nil || c.Reason != "" })
	}
	return t.StopCode != ""
}

func stopLine(t ecsstatus.Task) string {
	if t.StopCode == "" {
		return describe(t)
	}
	return describe(t) + " (" + t.StopCode + ")"
}

func progressLine(p Progress) string {
	line := fmt.Sprintf("%d of %d new tasks healthy", p.Healthy, p.Desired)
	if len(p.Missing) > 0 {
		line += ": " + strings.Join(p.Missing, ", ")
	}
	if p.Failed > 0 {
		line += fmt.Sprintf("; %d failed", p.Failed)
	}
	if p.Old > 0 {
		line += "; " + countOf(p.Old, "old task runs", "old tasks run")
	}
	if p.Draining > 0 {
		line += fmt.Sprintf("; %d draining", p.Draining)
	}
	return line
}
