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

func TestLooksAreShortWhileAVerdictIsNear(t *testing.T) {
	at := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name string
		in   follower
		want time.Duration
	}{
		{"it has begun", follower{last: Progress{Desired: 2}}, quickLook},
		{"nothing changes for a while", follower{last: Progress{Desired: 2}, calm: calmLooks}, quickLook},
		{"one of three has failed", follower{last: Progress{Desired: 2, Failed: 1}, calm: 100}, quickLook},
		{"two of three have failed", follower{last: Progress{Desired: 2, Failed: 2}, calm: 100}, shortLook},
		{"two of ten have failed", follower{last: Progress{Desired: 20, Failed: 2}, calm: 100}, quickLook},
		{"AWS throttles", follower{last: Progress{Desired: 2, Failed: 2}, least: 4 * time.Second}, 4 * time.Second},
		{"it has come to a standstill", follower{last: Progress{Desired: 2}, calm: 100, looked: at.Add(20 * time.Second), trail: Trail{stuck: at}}, slowLook},
		{"the standstill's patience is nearly over", follower{last: Progress{Desired: 2}, calm: 100, looked: at.Add(roomPatience - 4*time.Second), trail: Trail{stuck: at}}, 4 * time.Second},
	} {
		f := tt.in
		f.d, f.w = &Deployer{}, &watcher{}
		if got := f.pause(); got != tt.want {
			t.Errorf("%s: %s until the next look, want %s", tt.name, got, tt.want)
		}
	}
}

func TestAStandstillBeginsWhenECSSaysSo(t *testing.T) {
	at := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name             string
		said, seen, want time.Duration // since at; the look is after a minute
	}{
		{"between two looks", 55 * time.Second, 50 * time.Second, 55 * time.Second},
		{"long ago, and something moved until the last look", 5 * time.Second, 50 * time.Second, 50 * time.Second},
		{"before the first look", 5 * time.Second, -1, time.Minute},
	} {
		o := Observation{At: at.Add(time.Minute), Service: &ecsstatus.Service{Events: []ecsstatus.Event{{Time: at.Add(tt.said), Message: "(service web) was unable to place a task because …"}}}}
		var trail Trail
		if tt.seen >= 0 {
			trail.seen = at.Add(tt.seen)
		}
		if got := stuckSince(o, trail).Sub(at); got != tt.want {
			t.Errorf("%s: since %s, want %s", tt.name, got, tt.want)
		}
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
		{"nothing for twenty looks", follower{d: &Deployer{}, calm: 20}, 7 * time.Second},
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
