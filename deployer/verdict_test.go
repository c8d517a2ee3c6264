package deployer

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/quick"
	"time"

	"jumpsuite/ecsstatus"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// seen builds an observation of two desired tasks, a minute after deployment
// "new" began beside "old".
type seen struct{ Observation }

func look() *seen {
	return &seen{Observation{At: noon.Add(time.Minute), Service: &ecsstatus.Service{
		Name: "web", Status: "ACTIVE", Desired: 2, Config: ecsstatus.Config{Scheduling: "REPLICA"},
		Deployments: []ecsstatus.Deployment{
			{ID: "new", Status: "PRIMARY", RolloutState: "IN_PROGRESS", Desired: 2, TaskDefinition: "td/web:2", Created: noon},
			{ID: "old", Status: "ACTIVE", RolloutState: "COMPLETED", TaskDefinition: "td/web:1"},
		}},
		Targets: map[string][]ecsstatus.Target{},
	}}
}

// good adds n tasks that have run for a minute.
func (s *seen) good(n int) *seen {
	for range n {
		s.task(ecsstatus.Task{LastStatus: "RUNNING", DesiredStatus: "RUNNING", Started: noon})
	}
	return s
}

func (s *seen) task(t ecsstatus.Task) *seen {
	t.ID = fmt.Sprintf("t%d", len(s.Tasks)+1)
	if t.LastStatus == "" {
		t.LastStatus, t.DesiredStatus = "STOPPED", "STOPPED"
	}
	if t.Containers == nil {
		t.Containers = []ecsstatus.Container{{Name: "web", Image: "web:2"}}
	}
	s.Tasks = append(s.Tasks, t)
	return s
}

// crashed adds n tasks that ran and exited.
func (s *seen) crashed(n int) *seen {
	for range n {
		code := 1
		s.task(ecsstatus.Task{StopCode: "EssentialContainerExited", StoppedReason: "Essential container in task exited", Started: noon, Containers: []ecsstatus.Container{{Name: "web", ExitCode: &code}}})
	}
	return s
}

func (s *seen) old(desired string) *seen {
	s.Old = append(s.Old, ecsstatus.Task{ID: "o", LastStatus: "RUNNING", DesiredStatus: desired})
	return s
}

func (s *seen) rollout(state string) *seen {
	s.Service.Deployments[0].RolloutState = state
	return s
}

func (s *seen) desired(n int) *seen {
	s.Service.Desired = n
	return s
}

func (s *seen) deployments(d ...ecsstatus.Deployment) *seen {
	s.Service.Deployments = d
	return s
}

// with adds one running task that f changes.
func (s *seen) with(f func(*ecsstatus.Task)) *seen {
	t := ecsstatus.Task{LastStatus: "RUNNING", DesiredStatus: "RUNNING", Started: noon, Containers: []ecsstatus.Container{{Name: "web", Image: "web:2"}}}
	f(&t)
	return s.task(t)
}

func (s *seen) target(task, state, reason string) *seen {
	s.Targets[task] = append(s.Targets[task], ecsstatus.Target{State: state, Reason: reason})
	return s
}

func (s *seen) event(message string) *seen {
	s.Service.Events = append(s.Service.Events, ecsstatus.Event{Time: s.At, Message: message})
	return s
}

func plainGoal() Goal {
	return Goal{ContainerType: "web", ID: "new", Since: noon, Earlier: map[string]bool{"old": true}, Container: "web", Digest: digestA}
}

func TestVerdicts(t *testing.T) {
	lb := func(g *Goal) { g.Groups = 1 }
	lbs := func(g *Goal) { g.Groups = 2 }
	check := func(g *Goal) { g.Checked = []string{"web"} }
	first := func(g *Goal) { g.MaxFailures = 1 }
	takesBack := func(g *Goal) { g.Breaker = Breaker{Enabled: true, Rollback: true} }
	count1 := func(g *Goal) { g.Breaker = Breaker{Enabled: true, Type: "COUNT", Value: 1} }
	plain := func(*Goal) {}
	health := func(state string) func(*ecsstatus.Task) {
		return func(t *ecsstatus.Task) { t.Containers[0].HealthStatus = state }
	}
	digest := func(d string) func(*ecsstatus.Task) { return func(t *ecsstatus.Task) { t.Containers[0].Digest = d } }
	young := func(t *ecsstatus.Task) { t.Started = noon.Add(21 * time.Second) }
	stopped := func(code, reason string) ecsstatus.Task {
		return ecsstatus.Task{StopCode: code, StoppedReason: reason}
	}
	dep := func(id, status, rollout string) ecsstatus.Deployment {
		return ecsstatus.Deployment{ID: id, Status: status, RolloutState: rollout, TaskDefinition: "td/web:9", Created: noon.Add(time.Second)}
	}
	older := func(d ecsstatus.Deployment) ecsstatus.Deployment {
		d.Created = noon.Add(-time.Hour)
		return d
	}
	for _, tt := range []struct {
		name string
		goal func(*Goal)
		o    *seen
		want Outcome
		text string // in the reason, or in what is missing
	}{
		{"nothing yet", plain, look(), Going, "2 not started"},
		{"all are healthy and ECS is done", plain, look().good(2).rollout("COMPLETED"), Deployed, ""},
		{"all are healthy and no old task is left", plain, look().good(2), Deployed, ""},
		{"all are healthy and old ones drain", plain, look().good(2).old("STOPPED"), Deployed, "1 old task is draining"},
		{"all are healthy and old ones still run", plain, look().good(2).old("RUNNING"), Going, "1 old task is still to stop"},
		{"protected old tasks are not waited for", plain, look().good(2).old("RUNNING").event("(service web) was unable to reach steady state because (taskSet ecs-svc/1) was unable to scale in due to (reason 1 tasks under protection)"), Deployed, "1 old task still runs"},
		{"one of two", plain, look().good(1), Going, "1 not started"},
		{"completed does not count without healthy tasks", plain, look().good(1).rollout("COMPLETED"), Going, "1 not started"},
		{"the live desired count went up", plain, look().good(2).desired(3), Going, "1 not started"},
		{"the live desired count went down", plain, look().good(1).desired(1), Deployed, ""},
		{"desired 0 waits for the old ones", plain, look().desired(0).old("RUNNING"), Going, "1 old task is still to stop"},
		{"desired 0 waits for ECS", plain, look().desired(0), Going, "not completed"},
		{"desired 0 and completed", plain, look().desired(0).rollout("COMPLETED"), Deployed, ""},
		{"desired 0 behind a Classic Load Balancer", plain, look().desired(0).rollout(""), Deployed, ""},
		{"a task that stops does not count", plain, look().good(1).with(func(t *ecsstatus.Task) { t.DesiredStatus = "STOPPED" }), Going, "1 not started"},
		{"running for 39 s is not proven", plain, look().good(1).with(young), Going, "1 running for less than 40s"},
		{"running for 39 s and completed is not proven", plain, look().good(1).with(young).rollout("COMPLETED"), Going, "1 running for less than 40s"},
		{"a health check proves nothing sooner", check, look().with(health("HEALTHY")).with(func(t *ecsstatus.Task) { young(t); health("HEALTHY")(t) }), Going, "1 running for less than 40s"},
		{"a healthy target proves nothing sooner", lb, look().with(young).with(young).target("t1", "healthy", "").target("t2", "healthy", ""), Going, "2 running for less than 40s"},
		{"health unknown", check, look().with(health("HEALTHY")).with(health("UNKNOWN")), Going, "1 running, health check of web not passed"},
		{"health bad", check, look().with(health("HEALTHY")).with(health("UNHEALTHY")), Going, "1 running, health check of web not passed"},
		{"agent disconnected", plain, look().good(1).with(func(t *ecsstatus.Task) { t.Disconnected = true }), Going, "whose agent ECS does not hear"},
		{"targets healthy", lb, look().good(2).target("t1", "healthy", "").target("t2", "healthy", ""), Deployed, ""},
		{"a target still initial", lb, look().good(2).target("t1", "healthy", "").target("t2", "initial", "Elb.InitialHealthChecking"), Going, "1 running, target initial (Elb.InitialHealthChecking)"},
		{"a target not registered", lb, look().good(2).target("t1", "healthy", ""), Going, "1 running, not registered in the load balancer"},
		{"healthy in one group of two", lbs, look().good(2).target("t1", "healthy", "").target("t1", "healthy", "").target("t2", "healthy", "").target("t2", "unhealthy", "Target.Timeout"), Going, "target unhealthy (Target.Timeout)"},
		{"the wanted digest", plain, look().with(digest(digestA)).with(digest(digestA)), Deployed, ""},
		{"another digest", plain, look().with(digest(digestA)).with(digest(digestB)), Failed, "task t2 runs sha256:bbbbbbbbbbbb and not sha256:aaaaaaaaaaaa"},
		{"two crashes are not enough", plain, look().crashed(2), Going, "2 not started"},
		{"three crashes", plain, look().crashed(3), Failed, "3 tasks failed; the last: task t3: Essential container in task exited; container web exited with 1"},
		{"three crashes, and two that run at this look", plain, look().crashed(3).good(2), Failed, "3 tasks failed"},
		{"the first crash is enough if so asked", first, look().crashed(1), Failed, "1 task failed"},
		{"the circuit breaker's own lower threshold", count1, look().crashed(1), Failed, "1 task failed"},
		{"eight desired need four", plain, look().desired(8).crashed(3), Going, "8 not started"},
		{"eight desired and four crashes", plain, look().desired(8).crashed(4), Failed, "4 tasks failed"},
		{"scaled in is no failure", plain, look().task(stopped("ServiceSchedulerInitiated", "Scaling activity initiated by (deployment new)")).task(stopped("ServiceSchedulerInitiated", "Scaling activity initiated by (deployment new)")).task(stopped("ServiceSchedulerInitiated", "Scaling activity initiated by (deployment new)")), Going, "2 not started"},
		{"stopped by a person is no failure", first, look().task(stopped("UserInitiated", "Task stopped by user")), Going, ""},
		{"a lost host is no failure", first, look().task(stopped("TerminationNotice", "Host EC2 (instance i-1) terminated.")), Going, ""},
		{"failed container health checks", first, look().task(stopped("ServiceSchedulerInitiated", "Task failed container health checks")), Failed, "Task failed container health checks"},
		{"failed load-balancer checks", first, look().task(stopped("ServiceSchedulerInitiated", "Task failed ELB health checks in (target-group arn)")), Failed, "Task failed ELB health checks"},
		{"not started", first, look().task(stopped("TaskFailedToStart", "Task failed to start")), Failed, "Task failed to start"},
		{"the image is gone", plain, look().task(ecsstatus.Task{StopCode: "TaskFailedToStart", Containers: []ecsstatus.Container{{Name: "web", Image: "web:2", Reason: "CannotPullContainerError: Error response from daemon: manifest for web:2 not found: manifest unknown"}}}), Failed, "the image web:2 is not there to be pulled"},
		{"a registry that does not answer may heal", plain, look().task(ecsstatus.Task{StopCode: "TaskFailedToStart", Containers: []ecsstatus.Container{{Name: "web", Image: "web:2", Reason: "CannotPullContainerError: net/http: TLS handshake timeout"}}}), Going, ""},
		{"ECS gave up", plain, look().rollout("FAILED").crashed(1), Failed, "Essential container in task exited"},
		{"ECS gave up and rolls back itself", takesBack, look().rollout("FAILED").crashed(5), Going, "will roll back"},
		{"ECS rolled back", takesBack, look().deployments(dep("old", "PRIMARY", "IN_PROGRESS"), dep("new", "ACTIVE", "FAILED")), TakenBack, "ECS rolled it back"},
		{"rolled back, and gone by the next look", takesBack, look().good(2).deployments(dep("old", "PRIMARY", "COMPLETED")).event("(service web) (deployment new) deployment failed: tasks failed to start."), TakenBack, "ECS rolled it back"},
		{"another one failed, ours is not shown", takesBack, look().deployments(dep("old", "PRIMARY", "COMPLETED")).event("(service web) (deployment newer) deployment failed: tasks failed to start."), Going, ""},
		{"rolled back and completed", takesBack, look().good(2).deployments(dep("old", "PRIMARY", "COMPLETED"), dep("new", "ACTIVE", "FAILED")), TakenBack, ""},
		{"not shown yet", plain, look().deployments(dep("old", "PRIMARY", "COMPLETED")), Going, "does not show the deployment yet"},
		{"someone else's", plain, look().good(2).deployments(dep("other", "PRIMARY", "IN_PROGRESS"), dep("new", "ACTIVE", "IN_PROGRESS")), Superseded, "deployment other to web:9 took over"},
		{"someone else's and ours is gone", plain, look().deployments(dep("other", "PRIMARY", "IN_PROGRESS")), Superseded, "took over at 12:00:01 UTC"},
		{"a read so old that it shows what was before the one before", plain, look().deployments(older(dep("older", "PRIMARY", "COMPLETED"))), Going, "does not show the deployment yet"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := plainGoal()
			tt.goal(&g)
			got, _ := judge(g, tt.o.Observation, Trail{})
			if got.Outcome != tt.want {
				t.Errorf("outcome %d (%s; missing %v), want %d", got.Outcome, got.Reason, got.Missing, tt.want)
			}
			if text := got.Reason + " " + strings.Join(got.Missing, ", "); !strings.Contains(text, tt.text) {
				t.Errorf("said %q, want %q in it", text, tt.text)
			}
		})
	}
}

// A roll-back whose own tasks find no room: the former deployment's still run.
func TestRollbackIsDoneWhenTheServiceIsAsItWas(t *testing.T) {
	former := func(s *seen, definition string, started time.Time) *seen {
		s.Old = append(s.Old, ecsstatus.Task{ID: "o", LastStatus: "RUNNING", DesiredStatus: "RUNNING", TaskDefinition: definition, Started: started})
		return s
	}
	const unable = "(service web) was unable to place a task because no container instance met all of its requirements."
	back := func(g *Goal) { g.Definition, g.Undoes = "td/web:1", noon }
	for _, tt := range []struct {
		name string
		goal func(*Goal)
		o    *seen
		want Outcome
	}{
		{"no room, and all of the former still run", back, former(former(look(), "td/web:1", noon), "td/web:1", noon).event(unable), Deployed},
		{"room may come", back, former(former(look(), "td/web:1", noon), "td/web:1", noon), Going},
		{"one of the former is missing", back, former(look(), "td/web:1", noon).event(unable), Going},
		{"one of the former is not proven", back, former(former(look(), "td/web:1", noon), "td/web:1", noon.Add(59*time.Second)).event(unable), Going},
		{"one of the failed still runs", back, former(former(former(look(), "td/web:1", noon), "td/web:1", noon), "td/web:2", noon).event(unable), Going},
		{"not a roll-back", func(g *Goal) { g.Definition = "td/web:1" }, former(former(look(), "td/web:1", noon), "td/web:1", noon).event(unable), Going},
	} {
		g := plainGoal()
		tt.goal(&g)
		if got, _ := judge(g, tt.o.Observation, Trail{}); got.Outcome != tt.want {
			t.Errorf("%s: outcome %d (%s), want %d", tt.name, got.Outcome, got.Reason, tt.want)
		}
	}
}

func TestServiceThatIsDeletedIsGone(t *testing.T) {
	draining := look()
	draining.Service.Status = "DRAINING"
	for name, o := range map[string]Observation{"not there": {At: noon}, "draining": draining.Observation} {
		if got, _ := judge(plainGoal(), o, Trail{}); got.Outcome != Gone {
			t.Errorf("%s: outcome %d, want Gone", name, got.Outcome)
		}
	}
}

// later judges the same observation twice, with AWS's clock run on in between.
func later(g Goal, o Observation, by time.Duration) Verdict {
	_, trail := judge(g, o, Trail{})
	o.At = o.At.Add(by)
	v, _ := judge(g, o, trail)
	return v
}

func TestPatienceRunsOnAWSsClock(t *testing.T) {
	takesBack := plainGoal()
	takesBack.Breaker = Breaker{Enabled: true, Rollback: true}
	missing := look().deployments(ecsstatus.Deployment{ID: "old", Status: "PRIMARY", RolloutState: "COMPLETED"}).Observation
	for _, tt := range []struct {
		name  string
		goal  Goal
		o     Observation
		after time.Duration
		want  Outcome
	}{
		{"not shown for 29 s", plainGoal(), missing, 29 * time.Second, Going},
		{"not shown for 30 s", plainGoal(), missing, 30 * time.Second, TakenBack},
		{"failed for 59 s with ECS's roll-back due", takesBack, look().rollout("FAILED").Observation, 59 * time.Second, Going},
		{"failed for 60 s without ECS's roll-back", takesBack, look().rollout("FAILED").Observation, 60 * time.Second, Failed},
		{"old tasks beside healthy new ones for less than 2 min", plainGoal(), look().good(2).old("RUNNING").Observation, 119 * time.Second, Going},
		{"old tasks beside healthy new ones for 2 min", plainGoal(), look().good(2).old("RUNNING").Observation, 120 * time.Second, Deployed},
	} {
		if got := later(tt.goal, tt.o, tt.after); got.Outcome != tt.want {
			t.Errorf("%s: outcome %d (%s), want %d", tt.name, got.Outcome, got.Reason, tt.want)
		}
	}
}

// The circuit breaker's thresholds as AWS documents them.
func TestBreakerThresholds(t *testing.T) {
	for _, tt := range []struct {
		b       Breaker
		desired int
		want    int
	}{
		{Breaker{}, 1, 3},
		{Breaker{}, 25, 13},
		{Breaker{}, 400, 200},
		{Breaker{}, 800, 200},
		{Breaker{Type: "COUNT", Value: 7}, 100, 7},
		{Breaker{Type: "UNBOUNDED_PERCENT", Value: 10}, 10, 1},
		{Breaker{Type: "UNBOUNDED_PERCENT", Value: 100}, 800, 800},
		{Breaker{Type: "BOUNDED_PERCENT", Value: 20}, 100, 20},
	} {
		if got := tt.b.threshold(tt.desired); got != tt.want {
			t.Errorf("%+v, desired %d: %d, want %d", tt.b, tt.desired, got, tt.want)
		}
	}
}

func TestFailuresAreSeenNoLaterThanByTheBreaker(t *testing.T) {
	never := func(desired, value uint8, enabled bool, kind uint8) bool {
		b := Breaker{Enabled: enabled, Value: int(value), Type: []string{"", "COUNT", "UNBOUNDED_PERCENT", "BOUNDED_PERCENT"}[kind%4]}
		limit := maxFailures(Goal{Breaker: b}, int(desired))
		return limit >= 1 && limit <= min(max((int(desired)+1)/2, 3), 200) && (!enabled || limit <= b.threshold(int(desired)))
	}
	if err := quick.Check(never, nil); err != nil {
		t.Error(err)
	}
}

func TestSuccessNeedsAsManyGoodTasksAsAreDesired(t *testing.T) {
	never := func(want, good uint8, rollout bool) bool {
		o := look().desired(int(want%20) + 1).good(int(good % 20))
		if rollout {
			o.rollout("COMPLETED")
		}
		v, _ := judge(plainGoal(), o.Observation, Trail{})
		return (v.Outcome == Deployed) == (good%20 >= want%20+1)
	}
	if err := quick.Check(never, nil); err != nil {
		t.Error(err)
	}
}

func TestJudgingIsPure(t *testing.T) {
	o := look().crashed(2).good(1).old("RUNNING").Observation
	before := fmt.Sprintf("%+v", o)
	a, ta := judge(plainGoal(), o, Trail{})
	b, tb := judge(plainGoal(), o, Trail{})
	if !reflect.DeepEqual(a, b) || ta != tb || before != fmt.Sprintf("%+v", o) {
		t.Errorf("two judgements differ, or the observation changed: %+v, %+v", a, b)
	}
}
