package deployer_test

import (
	"testing"

	"jumpsuite/internal/cli"
	"jumpsuite/internal/lab/world"
)

const stagedWorld = `
clusters: [{name: prod, hosts: [{count: 3}]}]
images: [{repository: web, tags: ["1"]}, {repository: web, tags: ["2"], exit: 1, after: 2s}]
services: [{name: web, image: "web:1", desired: 2, port: 80, strategy: BLUE_GREEN, bake: 10s, load-balancers: [{interval: 5s, healthy: 2, delay: 5s}]}]
`

// Whatever AWS answers to StopServiceDeployment, the service ends as it was: by
// ECS's roll-back, or by a roll-forward where ECS refuses.
func TestADeploymentInStagesIsRolledBackWhateverAWSAnswers(t *testing.T) {
	for _, tt := range []struct {
		name           string
		fault          world.Fault
		stops, updates int
	}{
		{"the answer is lost", world.Fault{Error: "server", After: true, Times: 1}, 1, 1},
		{"the first try comes to nothing", world.Fault{Error: "throttle", Times: 1}, 2, 1},
		{"it is refused", world.Fault{Error: "denied"}, 1, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := play(t, stagedWorld)
			tt.fault.Operation = "StopServiceDeployment"
			p.lab.AddFault(tt.fault)
			if err := p.deploy(t.Context(), "web:2"); cli.ExitCode(err) != cli.ExitRolledBack {
				t.Errorf("ended with %v, want 75", err)
			}
			if stops, updates := p.count("StopServiceDeployment"), p.count("UpdateService"); stops != tt.stops || updates != tt.updates {
				t.Errorf("%d StopServiceDeployment, %d UpdateService; want %d, %d", stops, updates, tt.stops, tt.updates)
			}
		})
	}
}
