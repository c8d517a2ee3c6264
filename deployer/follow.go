package deployer

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/aws/smithy-go"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/awsconfig"
	"jumpsuite/internal/cli"
)

// More outcomes, which judge does not give: they are the follower's own.
const (
	// TimedOut means that the time was over while something was missing.
	TimedOut Outcome = iota + 100
	// Lost means that the time was over, and AWS did not answer.
	Lost
)

const (
	// patienceWithAWS is after how many failed looks in a row the person is told
	// that AWS is in trouble: it often is for a moment.
	patienceWithAWS = 3
	// patienceWithNo is how long AWS may say no (denied, credentials that are over,
	// a target group that is not there), by its clock, before the following is
	// given up: it will go on saying no. IAM takes some seconds to know of a change.
	patienceWithNo = time.Minute
)

// follower follows one deployment: it looks, judges and tells.
type follower struct {
	d        *Deployer
	w        *watcher
	deadline time.Time // AWS's clock
	looked   time.Time // AWS's clock, at the last look
	trail    Trail
	last     Progress
	traits   traits                        // of the service, at the last look
	failures int                           // looks in a row that came to nothing
	told     bool                          // that they do
	no       time.Time                     // since when AWS has been saying no; zero: it does not
	least    time.Duration                 // between two looks, since AWS has throttled one
	calm     int                           // looks in a row without a change
	tailed   int                           // failed tasks whose logs were, or will be
	targets  map[string][]ecsstatus.Target // of the deployment's tasks by ID, as last seen unwell
}

// follow looks until something is decided, the time is over, or ctx ends; only
// the last is an error. AWS being out of reach decides nothing.
//
// That nobody watches any more does not end the following of a roll-back, and of a
// deployment of which tasks have failed: it goes on unseen, because nobody else
// would take it back.
func (d *Deployer) follow(ctx context.Context, g Goal, timeout time.Duration) (Verdict, error) {
	f := &follower{d: d, w: d.watch(d.reader, g), deadline: d.clock.Now().Add(timeout)}
	for {
		v := f.once(ctx)
		if v.Outcome != Going {
			return v, nil
		}
		err := f.rest(ctx)
		if err == nil {
			continue
		}
		if !cli.Unwatched(err) || !f.failing() {
			return v, err
		}
		ctx = context.WithoutCancel(ctx)
		d.tell(Event{Kind: Unseen, Deployment: g.ID, TaskDefinition: g.Definition, Message: err.Error() + "; " + f.unseen()})
	}
}

// failing reports whether the deployment is one that somebody must see to its end.
func (f *follower) failing() bool { return f.last.Failed > 0 || !f.w.goal.Undoes.IsZero() }

func (f *follower) unseen() string {
	if !f.w.goal.Undoes.IsZero() {
		return "the roll-back is followed to its end unseen"
	}
	return "the deployment is failing, and is followed to its end unseen"
}

// rest waits until the next look is due. Where that is some time off, it glances at the
// service in between, which is one call: what ECS does shows there first, so that a
// failure is seen as soon as if each glance were a look.
func (f *follower) rest(ctx context.Context) error {
	for left := f.pause(); left > 0; {
		step := left
		if f.mayGlance() {
			step = min(left, quickLook)
		}
		if err := f.d.wait(ctx, step); err != nil {
			return err
		}
		if left -= step; left > 0 && f.stirs(ctx) {
			return nil
		}
	}
	return nil
}

// mayGlance reports whether AWS answers, and nobody has said how often to look.
func (f *follower) mayGlance() bool {
	return f.failures == 0 && f.d.Interval == 0 && f.least <= quickLook
}

// stirs glances at the service and reports whether it is another than at the last look. What
// keeps it from being read is for the look to find out.
func (f *follower) stirs(ctx context.Context) bool {
	s, err := f.d.reader.Service(ctx, f.w.goal.ContainerType)
	return err != nil || !reflect.DeepEqual(traitsOf(s), f.traits)
}

// traits are what changes of a service when something happens to its tasks. Its zero
// value is no service's.
type traits struct {
	status      string
	desired     int
	event       string // the last one's ID
	deployments []ecsstatus.Deployment
}

func traitsOf(s *ecsstatus.Service) traits {
	t := traits{status: s.Status, desired: s.Desired, deployments: s.Deployments}
	if n := len(s.Events); n > 0 {
		t.event = s.Events[n-1].ID
	}
	return t
}

// wait waits between two looks.
func (d *Deployer) wait(ctx context.Context, pause time.Duration) error {
	if d.Sleep != nil {
		return d.Sleep(ctx, pause)
	}
	return sleep(ctx, pause)
}

// once makes one look and says what it means.
func (f *follower) once(ctx context.Context) Verdict {
	o, err := f.w.look(ctx)
	if err != nil {
		return f.blind(ctx, awsconfig.Explain(err))
	}
	f.seen()
	if v := f.d.keeper.seen(ctx, o.Service); v.Outcome != Going {
		return v
	}
	if o.Service != nil {
		f.traits = traitsOf(o.Service)
	}
	v, trail := judge(f.w.goal, o, f.trail)
	f.trail = trail
	f.report(o, v)
	f.forgive(o)
	if v.Outcome == Going && o.At.After(f.deadline) {
		v = f.late(o, v)
	}
	f.d.showTails(ctx)
	return v
}

// forgive puts the deadline off by the time that ECS has taken as it was told to.
func (f *follower) forgive(o Observation) {
	if takesItsTime(o.Rollout) && !f.looked.IsZero() {
		f.deadline = f.deadline.Add(o.At.Sub(f.looked))
	}
	f.looked = o.At
}

// blind is a look that came to nothing.
func (f *follower) blind(ctx context.Context, err error) Verdict {
	if ctx.Err() != nil {
		return Verdict{} // it was we who ended it
	}
	now := f.d.clock.Now()
	f.failures++
	if kind, known := kindOf(err); known && kind == awsconfig.Throttled {
		f.least = min(max(2*f.least, f.d.backoff(2)), f.d.backoff(5))
	}
	if !refuses(err) {
		f.no = time.Time{}
	} else if f.no.IsZero() {
		f.no = now
	}
	if !f.told && (f.failures == patienceWithAWS || !f.no.IsZero()) {
		f.told = true
		f.d.tell(Event{Kind: AWSLost, Deployment: f.w.goal.ID, Message: blindness(f.no, err)})
	}
	// One look that fails just when the time is over is no lost sight.
	if now.After(f.deadline) && f.failures >= patienceWithAWS || !f.no.IsZero() && now.Sub(f.no) >= patienceWithNo {
		return Verdict{Outcome: Lost, Reason: err.Error(), Err: err}
	}
	return Verdict{}
}

func blindness(no time.Time, err error) string {
	if no.IsZero() {
		return "AWS does not answer; ECS goes on by itself, and so does the following: " + err.Error()
	}
	return "the deployment cannot be followed; ECS goes on by itself: " + err.Error()
}

func kindOf(err error) (kind awsconfig.Kind, known bool) {
	e, ok := errors.AsType[*awsconfig.Error](err)
	if !ok {
		return 0, false
	}
	return e.Kind, true
}

// refuses reports whether an error is AWS's answer, and not its trouble: it
// will be the same the next time.
func refuses(err error) bool {
	switch kind, known := kindOf(err); {
	case !known:
		api, ok := errors.AsType[smithy.APIError](err)
		return ok && api.ErrorFault() == smithy.FaultClient
	case kind == awsconfig.Throttled, kind == awsconfig.Unreachable, kind == awsconfig.Faulty:
		return false
	}
	return true
}

func (f *follower) seen() {
	if f.told {
		f.d.tell(Event{Kind: AWSBack, Deployment: f.w.goal.ID, Message: "AWS answers again"})
	}
	f.failures, f.told, f.no = 0, false, time.Time{}
	f.least -= f.least / 4
}

// pause is how long to wait until the next look: short while tasks fail, longer while
// nothing changes, and longer still while AWS throttles or is out of reach. What throttling has
// taught is forgotten slowly: the bucket is everybody's.
func (f *follower) pause() time.Duration {
	if f.failures > 0 {
		return max(f.d.Interval, f.d.backoff(f.failures), f.least)
	}
	if f.d.Interval > 0 {
		return max(f.d.Interval, f.least)
	}
	return max(f.pace(), f.least)
}

// pace is how long the time between two looks is by what is to be seen. The verdict
// must not come later than the look after that of ECS's circuit breaker, which counts as
// we do: so it is short as long as failures add up to one, and when it is only a matter
// of time. That it may be long when nothing changes is made good by the glances of rest.
func (f *follower) pace() time.Duration {
	pace := min(quickLook+time.Duration(max(f.calm-calmLooks, 0))*time.Second, slowLook)
	if f.last.Failed > 0 {
		pace = quickLook
	}
	if f.last.Failed > 0 && 2*f.last.Failed >= maxFailures(f.w.goal, f.last.Desired) {
		pace = shortLook
	}
	if stuck := f.trail.stuck; !stuck.IsZero() {
		due := stuck.Add(roomPatience).Sub(f.looked)
		pace = min(pace, max(due, shortLook))
	}
	return pace
}

// late is the verdict when the time is over: what was still missing, and the
// last thing that ECS could not do.
func (f *follower) late(o Observation, v Verdict) Verdict {
	if f.w.goal.Stages != "" {
		return lateStage(o, v)
	}
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
	f.d.tellEvents(o.Service, f.w.goal, time.Time{})
	f.remember(o.Targets)
	for _, t := range o.Tasks {
		if ended(t) && !f.d.told[t.ID] {
			f.d.told[t.ID] = true
			f.stopped(t, o)
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

// tellEvents tells what ECS has said since a goal's deployment began, until some time
// (zero: now), and has not been told.
func (d *Deployer) tellEvents(s *ecsstatus.Service, g Goal, until time.Time) {
	for _, e := range s.Events {
		if !e.Time.Before(g.Since) && (until.IsZero() || !e.Time.After(until)) && !d.told[e.ID] {
			d.told[e.ID] = true
			d.tell(Event{Time: e.Time, Kind: ServiceSaid, Deployment: g.ID, Message: e.Message})
		}
	}
}

// remember keeps what the load balancers say of unwell targets: of a task that has
// stopped they say nothing any more.
func (f *follower) remember(targets map[string][]ecsstatus.Target) {
	if f.targets == nil {
		f.targets = map[string][]ecsstatus.Target{}
	}
	for id, list := range targets {
		if i := slices.IndexFunc(list, func(t ecsstatus.Target) bool { return t.State == "unhealthy" }); i >= 0 {
			f.targets[id] = list
		}
	}
}

// stopped tells that a task stopped, with all that is known of why.
func (f *follower) stopped(t ecsstatus.Task, o Observation) {
	f.d.tell(Event{Time: o.At, Kind: TaskStopped, Deployment: f.w.goal.ID, Message: stopLine(t) + unwell(o.Service, t), Task: &t, Targets: f.targets[t.ID]})
	if failed(t) {
		f.wantTails(t)
	}
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
