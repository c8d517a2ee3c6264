package ecs

import (
	"fmt"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

const small = `
clusters: [{name: lab, hosts: [{count: 3}]}]
images:
  - {repository: web, tags: [v1]}
  - {repository: web, tags: [v2]}
services:
  - name: web
    image: web:v1
    cpu: 100
    memory: 200
    port: 8080
    desired: 2
`

func TestARollingDeploymentReplacesAllTasks(t *testing.T) {
	r := newRig(t, small)
	before := r.service("web")
	if before.RunningCount != 2 || before.Deployments[0].RolloutState != types.DeploymentRolloutStateCompleted {
		t.Fatalf("the world does not begin steady: %s", r.dump())
	}
	id := r.deploy("web", "web:v2")
	r.completed("web", id)
	r.event("web", "(service web) has reached a steady state.")
	s := r.service("web")
	if len(s.Deployments) != 1 || *s.Deployments[0].Id != id || s.RunningCount != 2 {
		t.Errorf("after the deployment: %s", r.dump())
	}
	for _, task := range r.tasks("web", types.DesiredStatusRunning) {
		if !strings.HasSuffix(*task.Containers[0].Image, "web:v2") || *task.StartedBy != id {
			t.Errorf("task %s runs %s, started by %s", *task.TaskArn, *task.Containers[0].Image, *task.StartedBy)
		}
	}
	if o := r.rollout("web"); o.Status != types.ServiceDeploymentStatusSuccessful || o.TargetServiceRevision.RunningTaskCount != 2 {
		t.Errorf("service deployment: %+v", o)
	}
	for _, task := range r.tasks("web", types.DesiredStatusStopped) {
		if want := "Scaling activity initiated by (deployment " + id + ")"; *task.StoppedReason != want || task.StopCode != types.TaskStopCodeServiceSchedulerInitiated {
			t.Errorf("stopped task: %s, want %s", *task.StoppedReason, want)
		}
	}
	r.event("web", "(service web) has started 2 tasks: (task ", ") (task ", ").")
	r.event("web", "(service web) (deployment "+id+") deployment completed.")
	// Both at once, or one after the other: as the new ones become healthy.
	if n := stoppedRunning(r.service("web").Events); n != 2 {
		t.Errorf("%d running tasks were stopped, want 2: %s", n, r.dump())
	}
}

// stoppedRunning is how many tasks the events of a service say were stopped.
func stoppedRunning(events []types.ServiceEvent) (total int) {
	for _, e := range events {
		n := 0
		if _, rest, ok := strings.Cut(*e.Message, ") has stopped "); ok {
			fmt.Sscanf(rest, "%d running tasks: (task ", &n)
		}
		total += n
	}
	return total
}

func TestADeploymentResolvesTheDigestOnce(t *testing.T) {
	r := newRig(t, small)
	id := r.deploy("web", "web:v2")
	r.completed("web", id)
	want, _, err := r.registry.Resolve(r.world.Reference("web:v2"))
	if err != nil {
		t.Fatal(err)
	}
	out, err := r.DescribeServiceRevisions(r.ctx, &sdk.DescribeServiceRevisionsInput{ServiceRevisionArns: []string{*r.rollout("web").TargetServiceRevision.Arn}})
	if err != nil {
		t.Fatal(err)
	}
	if got := str(out.ServiceRevisions[0].ContainerImages[0].ImageDigest); got != want {
		t.Errorf("the revision's digest is %q, want %q", got, want)
	}
}
