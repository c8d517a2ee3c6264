package deployer

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"golang.org/x/sys/unix"

	"jumpsuite/ecsstatus"
)

// How long AWS's clock must run before something that ECS shows, or does not
// show, is believed.
const (
	// provenAfter is how long a task must have run to count. It is when ECS
	// counts a task without any health check as healthy (doc comment of
	// DeploymentConfiguration.MinimumHealthyPercent). We ask it of the others
	// too: a target is healthy after its first good check, and a container
	// that crashes some seconds later would be taken for deployed between two crashes.
	provenAfter = 40 * time.Second
	// staleFor is how long a read may lag behind a change: people have seen up
	// to ten seconds.
	staleFor = 30 * time.Second
	// breakerPatience is how long ECS has for its own roll-back after its
	// circuit breaker tripped; the two are in the same millisecond.
	breakerPatience = 60 * time.Second
	// roomPatience is how long nothing may move, with ECS saying that it finds no room
	// or may not stop anything, before that is believed to stay so. ECS's circuit breaker
	// takes a minute at least for a service whose tasks find no room: it counts the
	// third time that it has tried.
	roomPatience = 45 * time.Second
	// oldPatience is how long old tasks may go on running beside a complete
	// set of healthy new ones before they are left to ECS.
	oldPatience = 2 * time.Minute
)

// Goal is the deployment that is followed.
type Goal struct {
	ContainerType string
	ID            string    // of the deployment: the anchor
	Definition    string    // ARN of its task definition
	Since         time.Time // when it began, by AWS's clock
	// Earlier are the deployments that were there before: one of them that is
	// PRIMARY again is ECS's own roll-back, any other is someone else's.
	Earlier map[string]bool
	// Container and Digest are what is wanted; without a digest any will do.
	Container, Digest string
	Checked           []string                          // essential containers with a health check
	Logs              map[string]types.LogConfiguration // how the containers log, by name
	Groups            int                               // target groups that a task must be healthy in
	MaxFailures       int                               // zero: as the circuit breaker
	WaitDrained       bool                              // it is no success until the old tasks have stopped
	Breaker           Breaker
	// Undoes is when the deployment began that this one rolls back; zero if it
	// is no roll-back.
	Undoes time.Time
	// Stages is the strategy by which ECS shifts the traffic in stages; empty: it
	// rolls. Rollout is the service deployment's ARN then; empty: not known yet.
	// TakesBack is whether it is that one's roll-back that is followed.
	Stages, Rollout string
	TakesBack       bool
}

// Breaker is a service's deployment circuit breaker.
type Breaker struct {
	Enabled, Rollback bool
	Type              string // COUNT, BOUNDED_PERCENT, UNBOUNDED_PERCENT; empty is BOUNDED_PERCENT
	Value             int    // zero is 50
}

// Observation is what one look at AWS found.
type Observation struct {
	At      time.Time          // AWS's clock
	Service *ecsstatus.Service // nil: it is not there any more
	// Tasks are the deployment's: those that live, and all that have stopped
	// since it began.
	Tasks []ecsstatus.Task
	Old   []ecsstatus.Task // tasks of other deployments that have not stopped
	// Rollout is the service deployment of a goal with Stages; nil: not shown yet.
	Rollout *types.ServiceDeployment
	// Hosts are what people call the hosts of those that live, by container instance
	// ARN; those that could not be read are left out.
	Hosts map[string]string
	// Targets are what the load balancers think of those that live, by task ID.
	Targets map[string][]ecsstatus.Target
}

// Outcome is what became of a deployment.
type Outcome int

const (
	// Going means that nothing is decided.
	Going Outcome = iota
	// Deployed means that every new task runs and is healthy.
	Deployed
	// Failed means that it will not become so.
	Failed
	// TakenBack means that ECS rolled it back itself.
	TakenBack
	// Superseded means that someone else's deployment took its place.
	Superseded
	// Gone means that the service was deleted.
	Gone
)

// Verdict is the judgement of an observation. Its zero value decides nothing.
type Verdict struct {
	Outcome Outcome
	Reason  string
	Missing []string // while Going: what is still to come
	Other   string   // TakenBack, Superseded: the deployment that is PRIMARY
	Err     error    // Lost: AWS's last
}

// Trail is what must be remembered between two looks. Its zero value is the
// beginning.
type Trail struct {
	missing, failed, whole, stuck time.Time // since when; zero: not so
	seen                          time.Time // the last look
}

// judge decides about an observation. It is pure: the same in, the same out.
func judge(g Goal, o Observation, t Trail) (Verdict, Trail) {
	v, t := judgeNow(g, o, t)
	t.seen = o.At
	return v, t
}

func judgeNow(g Goal, o Observation, t Trail) (Verdict, Trail) {
	if o.Service == nil || o.Service.Status != "ACTIVE" {
		return Verdict{Outcome: Gone, Reason: "the service was deleted"}, t
	}
	if g.Stages != "" {
		return judgeStages(g, o, t)
	}
	whole := t.whole
	t.whole = time.Time{} // unless it is seen again
	own, primary := o.Service.Deployment(g.ID), o.Service.Primary()
	if own == nil || own.Status != "PRIMARY" {
		return judgeDisplaced(g, o, t, own, primary)
	}
	t.missing = time.Time{}
	if own.RolloutState == "FAILED" {
		return judgeBroken(g, o, t, own)
	}
	if why := failure(g, o); why != "" {
		return Verdict{Outcome: Failed, Reason: why}, t
	}
	t.whole = whole
	return judgeHealth(g, o, t, own)
}

// judgeDisplaced decides when the deployment is not the PRIMARY one. A read
// may be older than the deployment: that it is not shown is "not yet" for a
// while, and what is PRIMARY then is no one's who came after us.
func judgeDisplaced(g Goal, o Observation, t Trail, own, primary *ecsstatus.Deployment) (Verdict, Trail) {
	if g.supersededBy(primary) {
		return superseded(primary), t
	}
	if t.missing.IsZero() {
		t.missing = o.At
	}
	if own == nil && o.At.Sub(t.missing) < staleFor && !givenUp(g, o.Service) || primary == nil {
		return Verdict{Missing: []string{"ECS does not show the deployment yet"}}, t
	}
	why := "ECS rolled it back"
	if own != nil && own.Reason != "" {
		why += ": " + strings.TrimSuffix(own.Reason, ".")
	}
	if last := lastFailing(o); last != "" {
		why += ": " + last
	}
	return Verdict{Outcome: TakenBack, Other: primary.ID, Reason: why}, t
}

// givenUp reports whether ECS's events say that the deployment failed: one that
// is not shown then is not shown any more.
func givenUp(g Goal, s *ecsstatus.Service) bool {
	return slices.ContainsFunc(s.Events, func(e ecsstatus.Event) bool {
		return strings.Contains(e.Message, "(deployment "+g.ID+") deployment failed")
	})
}

// supersededBy reports whether a PRIMARY deployment is someone else's that came
// after the goal's.
func (g Goal) supersededBy(primary *ecsstatus.Deployment) bool {
	return primary != nil && primary.ID != g.ID && !g.Earlier[primary.ID] && primary.Created.After(g.Since)
}

func superseded(by *ecsstatus.Deployment) Verdict {
	return Verdict{Outcome: Superseded, Other: by.ID,
		Reason: fmt.Sprintf("deployment %s to %s took over at %s", by.ID, ecsstatus.ShortName(by.TaskDefinition), clock(by.Created))}
}

// judgeBroken decides when ECS has given up: with roll-back switched on it is
// given a minute for that, because two roll-backs would be one too many.
func judgeBroken(g Goal, o Observation, t Trail, own *ecsstatus.Deployment) (Verdict, Trail) {
	if t.failed.IsZero() {
		t.failed = o.At
	}
	if g.Breaker.Enabled && g.Breaker.Rollback && o.At.Sub(t.failed) < breakerPatience {
		return Verdict{Missing: []string{"ECS's circuit breaker has tripped and will roll back"}}, t
	}
	why := "ECS has given it up"
	if own.Reason != "" {
		why = strings.TrimSuffix(own.Reason, ".")
	}
	if last := lastFailing(o); last != "" {
		why += ": " + last
	}
	return Verdict{Outcome: Failed, Reason: why}, t
}

// failure is why a deployment will not succeed, by its tasks; empty if they do
// not say so.
func failure(g Goal, o Observation) string {
	tasks := failing(o.Tasks)
	for _, task := range tasks {
		if why := hopeless(task); why != "" {
			return why
		}
	}
	for _, task := range o.Tasks {
		if why := wrongImage(g, task); why != "" {
			return why
		}
	}
	if limit := maxFailures(g, desired(o.Service)); len(tasks) >= limit {
		return fmt.Sprintf("%s; the last: %s", countOf(len(tasks), "task failed", "tasks failed"), lastFailing(o))
	}
	return ""
}

// lastFailing is how the last task that failed did; empty if none has.
func lastFailing(o Observation) string {
	tasks := failing(o.Tasks)
	if len(tasks) == 0 {
		return ""
	}
	last := tasks[len(tasks)-1]
	return describe(last) + unwell(o.Service, last)
}

// unhealthyEvent is what ECS says of a task that fails a load balancer's check.
var unhealthyEvent = regexp.MustCompile(`is unhealthy in \(target-group .*due to \(reason (.*)\)`)

// unwell is why a task was unhealthy for the load balancer: its target has gone
// with the task, and what ECS said of it has stayed.
func unwell(s *ecsstatus.Service, t ecsstatus.Task) string {
	if own := ownUnwell(s, t); own != "" || !failedCheck(t) {
		return own
	}
	return otherUnwell(s)
}

// failedCheck reports whether a task was stopped for a load balancer's check.
func failedCheck(t ecsstatus.Task) bool {
	return strings.HasPrefix(t.StoppedReason, "Task failed ELB health checks")
}

// ownUnwell is why a task's target was unhealthy, if ECS says so of that task.
func ownUnwell(s *ecsstatus.Service, t ecsstatus.Task) string {
	for _, e := range s.Events {
		if m := unhealthyEvent.FindStringSubmatch(e.Message); m != nil && strings.Contains(e.Message, "(task "+t.ID+")") {
			return "; its target was unhealthy: " + m[1]
		}
	}
	return ""
}

// otherUnwell is why the last target was unhealthy of which ECS says so: it does not of a
// task with which its circuit breaker trips.
func otherUnwell(s *ecsstatus.Service) string {
	for i := len(s.Events) - 1; i >= 0; i-- {
		if m := unhealthyEvent.FindStringSubmatch(s.Events[i].Message); m != nil {
			return "; a target was unhealthy: " + m[1]
		}
	}
	return ""
}

// maxFailures is the number of failed tasks with which a deployment has failed:
// as ECS's circuit breaker counts (half of the desired tasks, at least 3, at
// most 200), or sooner if the service has a lower threshold.
func maxFailures(g Goal, desired int) int {
	if g.MaxFailures > 0 {
		return g.MaxFailures
	}
	limit := min(max((desired+1)/2, 3), 200)
	if g.Breaker.Enabled {
		limit = min(limit, g.Breaker.threshold(desired))
	}
	return limit
}

func (b Breaker) threshold(desired int) int {
	value := b.Value
	if value == 0 {
		value = 50
	}
	percent := max((desired*value+99)/100, 1)
	switch b.Type {
	case "COUNT":
		return value
	case "UNBOUNDED_PERCENT":
		return percent
	}
	return min(max(percent, 3), 200)
}

// failing are the tasks that stopped by themselves, in the order in which they
// stopped.
func failing(tasks []ecsstatus.Task) []ecsstatus.Task {
	var out []ecsstatus.Task
	for _, t := range tasks {
		if failed(t) {
			out = append(out, t)
		}
	}
	slices.SortStableFunc(out, func(a, b ecsstatus.Task) int { return a.Stopping.Compare(b.Stopping) })
	return out
}

// failed reports whether a task stopped for a reason of its own. One that was
// scaled in, that a person stopped, or whose host went is no failure.
func failed(t ecsstatus.Task) bool {
	switch t.StopCode {
	case "TaskFailedToStart", "EssentialContainerExited":
		return true
	case "ServiceSchedulerInitiated":
		return strings.HasPrefix(t.StoppedReason, "Task failed ")
	}
	return false
}

// hopeless says why no further task can do better than t: the image is gone.
func hopeless(t ecsstatus.Task) string {
	for _, c := range t.Containers {
		if !strings.HasPrefix(c.Reason, "CannotPull") {
			continue
		}
		for _, sign := range []string{"not found", "manifest unknown", "does not exist"} {
			if strings.Contains(c.Reason, sign) {
				return fmt.Sprintf("the image %s is not there to be pulled: %s", c.Image, c.Reason)
			}
		}
	}
	return ""
}

// wrongImage says that a host started another image than the wanted one: the
// ECS agent takes what it has when it cannot pull (ECS_IMAGE_PULL_BEHAVIOR=default).
func wrongImage(g Goal, t ecsstatus.Task) string {
	c := t.Container(g.Container)
	if c == nil || g.Digest == "" || c.Digest == "" || c.Digest == g.Digest {
		return ""
	}
	return fmt.Sprintf("task %s runs %s and not %s: its host had another image of that name already, or the tag has moved since", t.ID, short(c.Digest), short(g.Digest))
}

// short is a digest as people compare it.
func short(digest string) string {
	const length = len("sha256:") + 12
	return digest[:min(len(digest), length)]
}

func judgeHealth(g Goal, o Observation, t Trail, own *ecsstatus.Deployment) (Verdict, Trail) {
	want := desired(o.Service)
	var lacks []string
	good := 0
	for _, task := range o.Tasks {
		switch lack := lacking(g, o, task); {
		case task.LastStatus == "STOPPED" || task.DesiredStatus == "STOPPED":
		case lack == "":
			good++
		default:
			lacks = append(lacks, lack)
		}
	}
	if good < want {
		t.whole = time.Time{}
		if noRoom(g, o) && asBefore(g, o) {
			return unmoved(), t
		}
		why := standstill(g, o, len(lacks))
		if why == "" {
			t.stuck = time.Time{}
		} else if t.stuck.IsZero() {
			t.stuck = stuckSince(o, t)
		} else if o.At.Sub(t.stuck) >= roomPatience {
			return Verdict{Outcome: Failed, Reason: why, Missing: tally(lacks, want-good-len(lacks))}, t
		}
		return Verdict{Missing: tally(lacks, want-good-len(lacks))}, t
	}
	if t.whole.IsZero() {
		t.whole = o.At
	}
	return judgeRest(g, o, t, own), t
}

// standstill is why nothing can move any more, as long as nobody changes anything
// from outside: ECS says that it cannot start or stop tasks, no new task is on its way, no
// old one drains, and none of the old ones may be stopped. It is empty if something can.
func standstill(g Goal, o Observation, onTheirWay int) string {
	said := cannot(o).Message
	running, draining := oldTasks(o)
	low, _ := percents(o.Service)
	keep := (desired(o.Service)*low + 99) / 100
	if said == "" || onTheirWay > 0 || draining > 0 {
		return ""
	}
	living := 0
	for _, t := range o.Tasks {
		if t.LastStatus != "STOPPED" && t.DesiredStatus != "STOPPED" {
			living++
		}
	}
	if running > 0 && running+living > keep {
		return "" // ECS can stop an old one
	}
	return fmt.Sprintf("nothing moves: ECS says: %s; and %s", said, countOf(running, "old task has to stay", "old tasks have to stay"))
}

// stuckSince is when something has come to a standstill that is seen for the first time:
// when ECS said so, but not before the look that did not see it.
func stuckSince(o Observation, t Trail) time.Time {
	said := cannot(o).Time
	switch {
	case t.seen.IsZero() || said.After(o.At):
		return o.At
	case said.Before(t.seen):
		return t.seen
	}
	return said
}

// cannot is ECS's last word that it cannot place, start or stop tasks; zero if it
// has started one since. It does not repeat itself for hours, so the word may be
// from before the deployment.
func cannot(o Observation) ecsstatus.Event {
	for i := len(o.Service.Events) - 1; i >= 0; i-- {
		m := o.Service.Events[i].Message
		switch {
		case strings.Contains(m, "was unable to place a task"), strings.Contains(m, "was unable to stop or start tasks"):
			return o.Service.Events[i]
		case strings.Contains(m, "has started "), strings.Contains(m, "has reached a steady state"):
			return ecsstatus.Event{}
		}
	}
	return ecsstatus.Event{}
}

// judgeRest decides about the old tasks when the new ones are all well. Those
// that are being stopped only drain; those that ECS does not stop (protected
// from scale-in) are no reason to take back what works.
func judgeRest(g Goal, o Observation, t Trail, own *ecsstatus.Deployment) Verdict {
	running, draining := oldTasks(o)
	completed := own.RolloutState == "COMPLETED" || own.RolloutState == "" && running+draining == 0
	switch {
	case completed, running == 0 && desired(o.Service) > 0:
		return drained(g, running, draining)
	case running == 0 && draining == 0 && desired(o.Service) == 0:
		return Verdict{Missing: []string{"ECS has not completed the deployment"}}
	case protected(o), desired(o.Service) > 0 && o.At.Sub(t.whole) >= oldPatience:
		return drained(g, running, draining)
	}
	return stillOld(running, draining)
}

// drained is success, unless old tasks are waited for.
func drained(g Goal, running, draining int) Verdict {
	if g.WaitDrained && running+draining > 0 {
		return stillOld(running, draining)
	}
	return Verdict{Outcome: Deployed, Reason: leftOver(running, draining)}
}

func stillOld(running, draining int) Verdict {
	return Verdict{Missing: []string{countOf(running+draining, "old task is still to stop", "old tasks are still to stop")}}
}

// asBefore reports of a roll-back whether the service is in fact as it was:
// as many healthy tasks of the former definition as are desired, of whatever
// deployment, and none of another definition. ECS replaces the former
// deployment's tasks by equal ones, and where there is no room for that, the
// roll-back's own deployment never gets further.
func asBefore(g Goal, o Observation) bool {
	if g.Undoes.IsZero() {
		return false
	}
	good := 0
	for _, t := range slices.Concat(o.Tasks, o.Old) {
		if t.DesiredStatus == "STOPPED" || t.LastStatus == "STOPPED" {
			continue
		}
		if t.TaskDefinition != g.Definition {
			return false
		}
		if lacking(g, o, t) == "" {
			good++
		}
	}
	return good >= desired(o.Service)
}

// noRoom reports of a roll-back whether ECS found no host for a task since the
// deployment that it undoes began: ECS does not repeat an event that it has told.
func noRoom(g Goal, o Observation) bool {
	return !g.Undoes.IsZero() && slices.ContainsFunc(o.Service.Events, func(e ecsstatus.Event) bool {
		return !e.Time.Before(g.Undoes) && strings.Contains(e.Message, "was unable to place a task")
	})
}

// unmoved is the verdict for a service that is as it was.
func unmoved() Verdict {
	return Verdict{Outcome: Deployed, Reason: "the former deployment's tasks still run, as ECS has not started new ones in their place"}
}

func leftOver(running, draining int) string {
	var parts []string
	if running > 0 {
		parts = append(parts, countOf(running, "old task still runs", "old tasks still run"))
	}
	if draining > 0 {
		parts = append(parts, countOf(draining, "old task is draining", "old tasks are draining"))
	}
	return strings.Join(parts, ", ")
}

func oldTasks(o Observation) (running, draining int) {
	for _, t := range o.Old {
		if t.DesiredStatus == "STOPPED" {
			draining++
		} else {
			running++
		}
	}
	return running, draining
}

func protected(o Observation) bool {
	for _, e := range o.Service.Events {
		if strings.Contains(e.Message, "under protection") && o.At.Sub(e.Time) < oldPatience {
			return true
		}
	}
	return false
}

// lacking says what a task lacks to be counted as healthy: empty if nothing.
func lacking(g Goal, o Observation, t ecsstatus.Task) string {
	if t.LastStatus != "RUNNING" {
		return strings.ToLower(t.LastStatus)
	}
	if t.Disconnected {
		return "running on a host whose agent ECS does not hear"
	}
	for _, name := range g.Checked {
		if c := t.Container(name); c == nil || c.HealthStatus != "HEALTHY" {
			return "running, health check of " + name + " not passed"
		}
	}
	if lack := lackingTarget(g, o.Targets[t.ID]); lack != "" {
		return lack
	}
	if o.At.Sub(t.Started) < provenAfter {
		return fmt.Sprintf("running for less than %s", provenAfter)
	}
	return ""
}

func lackingTarget(g Goal, targets []ecsstatus.Target) string {
	if len(targets) < g.Groups {
		return "running, not registered in the load balancer"
	}
	for _, target := range targets {
		if target.Healthy() {
			continue
		}
		lack := "running, target " + target.State
		if target.Reason != "" {
			lack += " (" + target.Reason + ")"
		}
		return lack
	}
	return ""
}

// tally is "2 pending, 1 not started".
func tally(lacks []string, notStarted int) []string {
	count := map[string]int{}
	for _, l := range lacks {
		count[l]++
	}
	var out []string
	for _, l := range slices.Sorted(maps.Keys(count)) {
		out = append(out, fmt.Sprintf("%d %s", count[l], l))
	}
	if notStarted > 0 {
		out = append(out, fmt.Sprintf("%d not started", notStarted))
	}
	return out
}

// describe says how a task ended: "task 4f… (essential container web exited with 1)".
func describe(t ecsstatus.Task) string {
	parts := []string{}
	if t.StoppedReason != "" {
		parts = append(parts, t.StoppedReason)
	}
	for _, c := range t.Containers {
		if c.ExitCode != nil {
			parts = append(parts, fmt.Sprintf("container %s exited with %s", c.Name, exitText(*c.ExitCode)))
		}
		if c.Reason != "" {
			parts = append(parts, c.Reason)
		}
		if c.HealthStatus == "UNHEALTHY" {
			parts = append(parts, "container "+c.Name+" is unhealthy")
		}
	}
	if len(parts) == 0 {
		parts = append(parts, t.StopCode)
	}
	return fmt.Sprintf("task %s: %s", t.ID, strings.Join(parts, "; "))
}

// exitText is an exit code, and the signal that it stands for: 128 and the
// signal's number, as shells and Docker have it.
func exitText(code int) string {
	name := unix.SignalName(syscall.Signal(code - 128))
	if code <= 128 || name == "" {
		return strconv.Itoa(code)
	}
	return fmt.Sprintf("%d (%s)", code, name)
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05 MST") }
