package deployer

import (
	"testing"
	"time"

	"jumpsuite/ecsstatus"
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
		{"throttled once", follower{d: &Deployer{}, failures: 1}, 2 * time.Second},
		{"throttled four times", follower{d: &Deployer{}, failures: 4}, 16 * time.Second},
		{"out of reach for long", follower{d: &Deployer{}, failures: 100}, 32 * time.Second},
	} {
		if got := tt.f.pause(); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}
