package deployer

import (
	"testing"

	"jumpsuite/ecsstatus"
)

// ECS's circuit breaker may have rolled back, and be done with it, between the look
// that sees the failure and the read before our roll-back.
func TestARollBackOfECSsThatIsOverIsSeen(t *testing.T) {
	earlier := ecsstatus.Deployment{ID: "ecs-svc/1", Status: "PRIMARY"}
	failed := ecsstatus.Event{Message: "(service web) (deployment ecs-svc/2) deployment failed: tasks failed to start."}
	other := ecsstatus.Event{Message: "(service web) (deployment ecs-svc/1) deployment completed."}
	for _, tt := range []struct {
		name   string
		events []ecsstatus.Event
		want   Outcome
	}{
		{"said", []ecsstatus.Event{other, failed}, TakenBack},
		{"an old read", []ecsstatus.Event{other}, Going},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &ecsstatus.Service{Status: "ACTIVE", Deployments: []ecsstatus.Deployment{earlier}, Events: tt.events}
			if got := takenOver(Goal{ID: "ecs-svc/2", Earlier: map[string]bool{"ecs-svc/1": true}}, s); got.Outcome != tt.want {
				t.Errorf("got %v, want %v", got.Outcome, tt.want)
			}
		})
	}
}
