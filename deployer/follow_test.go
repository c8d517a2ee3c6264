package deployer

import (
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/awsconfig"
)

func TestStoppedTaskIsToldAsSoonAsItIsKnownWhy(t *testing.T) {
	code := 1
	exited := []ecsstatus.Container{{Name: "web", ExitCode: &code}}
	for _, tt := range []struct {
		name string
		in   ecsstatus.Task
		want bool
	}{
		{"running", ecsstatus.Task{LastStatus: "RUNNING"}, false},
		{"exited, and its code is not there yet", ecsstatus.Task{LastStatus: "STOPPING", StopCode: "EssentialContainerExited"}, false},
		{"exited", ecsstatus.Task{LastStatus: "DEACTIVATING", StopCode: "EssentialContainerExited", Containers: exited}, true},
		{"failed to start", ecsstatus.Task{LastStatus: "STOPPING", StopCode: "TaskFailedToStart", Containers: []ecsstatus.Container{{Reason: "CannotPullContainerError"}}}, true},
		{"unhealthy, while it drains", ecsstatus.Task{LastStatus: "DEACTIVATING", StopCode: "ServiceSchedulerInitiated", StoppedReason: "Task failed ELB health checks"}, true},
		{"stopped, whatever is known", ecsstatus.Task{LastStatus: "STOPPED"}, true},
	} {
		if got := ended(tt.in); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestTheTimeBeingOverIsNoReasonToTakeBackWhatIsWell(t *testing.T) {
	o := look().good(2).old("RUNNING").Observation
	g := plainGoal()
	v, trail := judge(g, o, Trail{})
	if v.Outcome != Going {
		t.Fatalf("outcome %d, want that the old task is waited for", v.Outcome)
	}
	f := &follower{w: &watcher{goal: g}, trail: trail}
	if got := f.late(o, v); got.Outcome != Deployed || got.Reason != "1 old task still runs" {
		t.Errorf("got %+v, want deployed, and what the old task does", got)
	}
	o = look().good(2).deployments(ecsstatus.Deployment{ID: "old", Status: "PRIMARY"}).Observation
	v, f.trail = judge(g, o, trail)
	if got := f.late(o, v); got.Outcome != TimedOut {
		t.Errorf("got %+v, want that a deployment that is not shown is no success", got)
	}
	o = look().good(1).old("RUNNING").Observation
	v, f.trail = judge(g, o, Trail{})
	if got := f.late(o, v); got.Outcome != TimedOut {
		t.Errorf("got %+v, want that a missing task is one", got)
	}
}

// A change has five minutes, whatever --interval says.
func TestALongIntervalMakesNoChangeWait(t *testing.T) {
	if got := (&Deployer{Interval: time.Hour}).backoff(1); got != quickLook {
		t.Errorf("waits %s, want %s", got, quickLook)
	}
}

// What throttling teaches is forgotten slowly, or all the tools that draw from
// the same bucket would empty it again together.
func TestThrottlingIsRememberedForSomeLooks(t *testing.T) {
	f := &follower{d: New(aws.Config{}, "prod"), w: &watcher{}, deadline: time.Now().Add(time.Hour)}
	throttled := &awsconfig.Error{Kind: awsconfig.Throttled}
	var pauses []time.Duration
	for range 6 {
		f.blind(t.Context(), throttled)
		pauses = append(pauses, f.pause())
	}
	f.seen()
	after := f.pause()
	for range 30 {
		f.seen()
	}
	if want := []time.Duration{4e9, 8e9, 16e9, 32e9, 32e9, 32e9}; !slices.Equal(pauses, want) || after != 24*time.Second || f.pause() != quickLook {
		t.Errorf("pauses %v, then %v, in the end %v", pauses, after, f.pause())
	}
}

func TestLooksAreFewerWhileNothingChangesOrAWSIsInTrouble(t *testing.T) {
	for _, tt := range []struct {
		name string
		f    follower
		want time.Duration
	}{
		{"something changed", follower{d: &Deployer{}}, 2 * time.Second},
		{"nothing for three looks", follower{d: &Deployer{}, calm: 3}, 5 * time.Second},
		{"nothing for long", follower{d: &Deployer{}, calm: 100}, 10 * time.Second},
		{"a fixed interval", follower{d: &Deployer{Interval: 3 * time.Second}, calm: 100}, 3 * time.Second},
		{"a fixed interval, throttled once", follower{d: &Deployer{Interval: time.Minute}, failures: 1}, time.Minute},
		{"a short interval, throttled twice", follower{d: &Deployer{Interval: 100 * time.Millisecond}, failures: 2}, 200 * time.Millisecond},
		{"throttled once", follower{d: &Deployer{}, failures: 1}, 2 * time.Second},
		{"throttled four times", follower{d: &Deployer{}, failures: 4}, 16 * time.Second},
		{"throttled a while ago", follower{d: &Deployer{}, least: 12 * time.Second}, 12 * time.Second},
		{"throttled, at a fixed interval", follower{d: &Deployer{Interval: 3 * time.Second}, least: 5 * time.Second}, 5 * time.Second},
		{"out of reach for long", follower{d: &Deployer{}, failures: 100}, 32 * time.Second},
	} {
		if got := tt.f.pause(); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}
