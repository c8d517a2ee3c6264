package ecsstatus

import (
	"testing"

	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
)

// Where traffic is shifted between two target groups, a task is in the one or in
// the other; one that is in neither is not registered.
func TestTasksAreInTheOneTargetGroupOrInTheOther(t *testing.T) {
	healthy := func(id string) map[endpoint]elbtypes.TargetHealth {
		return map[endpoint]elbtypes.TargetHealth{{id, 80}: {State: elbtypes.TargetHealthStateEnumHealthy}}
	}
	groups := []LoadBalancer{{TargetGroup: "blue", Alternate: "green", Port: 80}}
	tasks := []Task{{ID: "old", Address: "10.0.0.1"}, {ID: "new", Address: "10.0.0.2"}, {ID: "fresh", Address: "10.0.0.3"}}
	got := joinTargets(groups, tasks, nil, []pair{{healthy("10.0.0.1"), healthy("10.0.0.2")}})
	for id, want := range map[string]string{"old": "blue healthy", "new": "green healthy", "fresh": "blue unused"} {
		if targets := got[id]; len(targets) != 1 || targets[0].TargetGroup+" "+targets[0].State != want {
			t.Errorf("%s: %+v, want %s", id, targets, want)
		}
	}
}
