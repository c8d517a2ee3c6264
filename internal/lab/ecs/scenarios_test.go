package ecs

import (
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/internal/lab/world"
)

// with is a world of one service, web, with more settings of it.
func with(more string) string {
	return `
clusters: [{name: lab, hosts: [{count: 3}]}]
images:
  - {repository: web, tags: [v1]}
  - {repository: web, tags: [v2]}
  - {repository: web, tags: [gone], missing: true}
  - {repository: web, tags: [crash], exit: 3, after: 5s}
  - {repository: web, tags: [die], exit: 3, after: 3s, http: -1}
  - {repository: web, tags: [sick], unhealthy: true}
  - {repository: web, tags: [error], http: 503}
  - {repository: web, tags: [slow], stop: 20s}
  - {repository: web, tags: [broken], start-error: 'exec: "/app": not found'}
services:
  - name: web
    image: web:v1
    cpu: 100
    memory: 200
    port: 8080
` + more
}

const breaker = `
    circuit-breaker: {enable: true, rollback: true}
`

const balanced = `
    load-balancers: [{interval: 10s, unhealthy: 2, delay: 20s}]
    grace: 10s
`

func TestAMissingImageFailsTasksBeforeTheyRun(t *testing.T) {
	r := newRig(t, with(""))
	id := r.deploy("web", "web:gone")
	r.until("three failed tasks", func() bool { return r.deployment("web", id).FailedTasks >= 3 })
	if s := r.service("web"); s.RunningCount != 1 {
		t.Errorf("the old task is gone: %s", r.dump())
	}
	for _, task := range r.tasks("web", types.DesiredStatusStopped) {
		reason := str(task.Containers[0].Reason)
		if task.StopCode != types.TaskStopCodeTaskFailedToStart || task.StartedAt != nil || !strings.HasPrefix(reason, "CannotPullContainerError: Error response from daemon: manifest for ") {
			t.Errorf("task stopped with %s, started %v, reason %q", task.StopCode, task.StartedAt, reason)
		}
	}
	r.event("web", "(service web) is unable to consistently start tasks successfully.")
}

func TestACachedImageStartsThoughItIsGone(t *testing.T) {
	r := newRig(t, strings.Replace(with(""), "{count: 3}", "{cached: ['web:gone']}", 1))
	id := r.deploy("web", "web:gone")
	r.completed("web", id)
	if digest := *r.tasks("web", "")[0].Containers[0].ImageDigest; !strings.HasPrefix(digest, "sha256:") {
		t.Errorf("digest %q", digest)
	}
}

func TestACrashLoopIsNotSeenByTheCircuitBreaker(t *testing.T) {
	r := newRig(t, with(breaker))
	id := r.deploy("web", "web:crash")
	r.until("five tasks that ended", func() bool { return len(r.tasks("web", types.DesiredStatusStopped)) >= 5 })
	for _, task := range r.tasks("web", types.DesiredStatusStopped) {
		if task.StopCode != types.TaskStopCodeEssentialContainerExited || *task.Containers[0].ExitCode != 3 || *task.StoppedReason != "Essential container in task exited" {
			t.Errorf("stopped with %s, exit code %d, %q", task.StopCode, *task.Containers[0].ExitCode, *task.StoppedReason)
		}
	}
	if d := r.deployment("web", id); d.RolloutState != types.DeploymentRolloutStateInProgress || d.FailedTasks != 0 {
		t.Errorf("deployment is %s with %d failed tasks: %s", d.RolloutState, d.FailedTasks, r.dump())
	}
}

// rolledBack checks a roll-back of the circuit breaker: the old deployment is
// PRIMARY again under its own id.
func rolledBack(t *testing.T, r *rig, old, failed string) {
	t.Helper()
	r.event("web", "(service web) (deployment "+failed+") deployment failed: tasks failed to start.")
	r.event("web", "(service web) rolling back to deployment "+old+".")
	r.completed("web", old)
	r.until("the failed deployment to disappear", func() bool { return len(r.service("web").Deployments) == 1 })
	o := r.rollout("web")
	if o.Status != types.ServiceDeploymentStatusRollbackSuccessful || o.Rollback == nil || o.DeploymentCircuitBreaker.Status != types.ServiceDeploymentRollbackMonitorsStatusTriggered {
		t.Errorf("service deployment: %s, breaker %+v", o.Status, *o.DeploymentCircuitBreaker)
	}
	if want := "Service deployment rolled back because the circuit breaker threshold was exceeded."; str(o.StatusReason) != want {
		t.Errorf("status reason %q, want %q", str(o.StatusReason), want)
	}
}

func TestTheCircuitBreakerRollsBack(t *testing.T) {
	for _, tt := range []struct{ name, settings, image string }{
		{"a missing image", breaker, "web:gone"},
		{"a container that does not start", breaker, "web:broken"},
		{"a failing container health check", breaker + "    health: {interval: 5s, retries: 2}\n", "web:sick"},
		{"failing load-balancer checks", breaker + balanced, "web:error"},
		{"a crash loop behind a load balancer", breaker + balanced, "web:die"},
		{"a failing check with stop-first", breaker + balanced + "    min: 0\n    max: 100\n", "web:error"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, with(tt.settings))
			old := *r.service("web").Deployments[0].Id
			failed := r.deploy("web", tt.image)
			rolledBack(t, r, old, failed)
			r.event("web", "has reached a steady state.")
		})
	}
}

func TestUnhealthyTasksSayWhy(t *testing.T) {
	r := newRig(t, with(balanced))
	r.deploy("web", "web:error")
	r.event("web", "(service web) (task ", ") (instance i-", ") (port 32", ") is unhealthy in (target-group arn:aws:elasticloadbalancing:", ") due to (reason Health checks failed with these codes: [503])")
	r.event("web", "has started 1 tasks: (task ", "). Amazon ECS replaced 1 tasks due to an unhealthy status.")
	r.until("an unhealthy task to be stopped", func() bool {
		for _, task := range r.tasks("web", types.DesiredStatusStopped) {
			if strings.HasPrefix(*task.StoppedReason, "Task failed ELB health checks in (target-group arn:") {
				return true
			}
		}
		return false
	})
	if s := r.service("web"); s.RunningCount < 1 {
		t.Errorf("the old task is gone: %s", r.dump())
	}
}

func TestAFailingContainerCheckIsAnEventAndAReason(t *testing.T) {
	r := newRig(t, with("    health: {interval: 5s, retries: 2}\n"))
	r.do("container-health", "web", "unhealthy")
	r.event("web", "(service web) (task ", ") failed container health checks.")
	r.until("the task to be replaced", func() bool {
		stopped := r.tasks("web", types.DesiredStatusStopped)
		return len(stopped) > 0 && *stopped[0].StoppedReason == "Task failed container health checks" && stopped[0].HealthStatus == types.HealthStatusUnhealthy
	})
	r.until("a healthy one", func() bool {
		tasks := r.tasks("web", "")
		return len(tasks) == 1 && tasks[0].HealthStatus == types.HealthStatusHealthy
	})
}

func TestTheCircuitBreakerWithoutRollBackStalls(t *testing.T) {
	r := newRig(t, with("    circuit-breaker: {enable: true}\n"))
	id := r.deploy("web", "web:gone")
	r.until("the deployment to fail", func() bool { return r.deployment("web", id).RolloutState == types.DeploymentRolloutStateFailed })
	r.until("its tasks to end", func() bool { return r.deployment("web", id).PendingCount == 0 })
	s := r.service("web")
	d := s.Deployments[0]
	if *d.Id != id || *d.Status != "PRIMARY" || *d.RolloutStateReason != "ECS deployment circuit breaker: tasks failed to start." {
		t.Errorf("failed deployment: %s", r.dump())
	}
	if len(s.Deployments) != 2 || s.Deployments[1].RunningCount != 1 {
		t.Errorf("the old task is gone: %s", r.dump())
	}
	if o := r.rollout("web"); o.Status != types.ServiceDeploymentStatusStopped || o.DeploymentCircuitBreaker.FailureCount != 3 || o.DeploymentCircuitBreaker.Threshold != 3 {
		t.Errorf("service deployment: %s %+v", o.Status, *o.DeploymentCircuitBreaker)
	}
	again := r.deploy("web", "web:v2")
	r.completed("web", again)
	r.until("only the good deployment", func() bool { return len(r.service("web").Deployments) == 1 })
}

func TestASecondFailureInARowHasNoRollBackTarget(t *testing.T) {
	r := newRig(t, with(breaker+"    failed: true\n"))
	if s := r.service("web"); s.RunningCount != 0 || s.Deployments[0].RolloutState != types.DeploymentRolloutStateFailed {
		t.Fatalf("the world does not begin failed: %s", r.dump())
	}
	id := r.deploy("web", "web:gone")
	r.until("the deployment to fail", func() bool { return r.deployment("web", id).RolloutState == types.DeploymentRolloutStateFailed })
	if e := findEvent(r.service("web").Events, []string{"rolling back"}); e != "" {
		t.Errorf("rolled back to nothing: %s", e)
	}
}

func TestARollBackCanFailToo(t *testing.T) {
	r := newRig(t, with(breaker+"    min: 0\n    max: 100\n"))
	old := *r.service("web").Deployments[0].Id
	if err := r.registry.Delete("web:v1"); err != nil {
		t.Fatal(err)
	}
	r.deploy("web", "web:gone")
	r.event("web", "rolling back to deployment "+old+".")
	r.until("the roll-back to fail", func() bool { return r.deployment("web", old).RolloutState == types.DeploymentRolloutStateFailed })
	if o := r.rollout("web"); o.Status != types.ServiceDeploymentStatusRollbackFailed {
		t.Errorf("service deployment is %s", o.Status)
	}
}

func TestNoRoomIsAnEventThatNamesTheClosestHost(t *testing.T) {
	r := newRig(t, strings.Replace(with("    desired: 2\n"), "{count: 3}", "{count: 2, memory: 250}", 1))
	r.deploy("web", "web:v2")
	r.event("web", "(service web) was unable to place a task because no container instance met all of its requirements. The closest matching (container-instance ",
		") has insufficient memory available. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.")
	if n := countEvents(r.service("web").Events, "was unable to place"); n != 1 {
		t.Errorf("told %d times", n)
	}
	r.update(&sdk.UpdateServiceInput{Service: ptr("web"), Cluster: ptr("lab"), DeploymentConfiguration: &types.DeploymentConfiguration{MinimumHealthyPercent: ptr(int32(50))}})
	r.completed("web", *r.service("web").Deployments[0].Id)
}

func countEvents(events []types.ServiceEvent, part string) int {
	n := 0
	for _, e := range events {
		if strings.Contains(*e.Message, part) {
			n++
		}
	}
	return n
}

func TestLackOfRoomTripsTheCircuitBreaker(t *testing.T) {
	r := newRig(t, strings.Replace(with(breaker), "{count: 3}", "{memory: 250}", 1))
	old := *r.service("web").Deployments[0].Id
	rolledBack(t, r, old, r.deploy("web", "web:v2"))
}

func TestMinAndMaxThatLeaveNoRoomAreStuck(t *testing.T) {
	r := newRig(t, with("    min: 100\n    max: 100\n"))
	r.deploy("web", "web:v2")
	r.event("web", "(service web) was unable to stop or start tasks during a deployment because of the service deployment configuration. Update the minimumHealthyPercent or maximumPercent value and try again.")
	if n := len(r.tasks("web", "")); n != 1 {
		t.Errorf("%d tasks", n)
	}
}

func TestReplacingStopsBeforeItStarts(t *testing.T) {
	r := newRig(t, with("    min: 0\n    max: 100\n    host-port: 8080\n"))
	id := r.deploy("web", "web:v2")
	r.completed("web", id)
	old, now := r.tasks("web", types.DesiredStatusStopped)[0], r.tasks("web", "")[0]
	if now.CreatedAt.Before(*old.StoppedAt) {
		t.Errorf("the new task was made at %s, before the old one stopped at %s", now.CreatedAt, old.StoppedAt)
	}
}

func TestALostHostIsNoticedMinutesLater(t *testing.T) {
	r := newRig(t, "clock: {speed: 1500}"+with("    desired: 3\n"))
	task := r.tasks("web", "")[0]
	host := r.instanceOf(task)
	r.do("host-lost", *host.Ec2InstanceId, "")
	if i := r.instanceOf(task); i.AgentConnected {
		t.Error("the agent is still connected")
	}
	if s := r.service("web"); s.RunningCount != 3 {
		t.Errorf("ECS noticed at once: %s", r.dump())
	}
	lost := r.now()
	r.until("the task to be given up", func() bool { return *r.task(*task.TaskArn).LastStatus == "STOPPED" })
	gone := r.task(*task.TaskArn)
	if gone.StoppedAt.Sub(lost) < 13*time.Minute {
		t.Errorf("given up after %s", gone.StoppedAt.Sub(lost))
	}
	if want := "Host EC2 (instance " + *host.Ec2InstanceId + ") terminated."; *gone.StoppedReason != want || gone.StopCode != types.TaskStopCodeTerminationNotice {
		t.Errorf("stopped with %s %q, want %q", gone.StopCode, *gone.StoppedReason, want)
	}
	r.until("a replacement", func() bool { return len(r.tasks("web", "")) == 3 && r.service("web").RunningCount == 3 })
	list, err := r.ListContainerInstances(r.ctx, &sdk.ListContainerInstancesInput{Cluster: ptr("lab")})
	if err != nil || len(list.ContainerInstanceArns) != 2 {
		t.Errorf("%d instances are listed, %v", len(list.ContainerInstanceArns), err)
	}
	r.do("host-back", *host.Ec2InstanceId, "")
	if list, _ = r.ListContainerInstances(r.ctx, &sdk.ListContainerInstancesInput{Cluster: ptr("lab")}); len(list.ContainerInstanceArns) != 3 {
		t.Errorf("the host is not back: %v", list.ContainerInstanceArns)
	}
}

func (r *rig) instanceOf(task types.Task) types.ContainerInstance {
	r.t.Helper()
	out, err := r.DescribeContainerInstances(r.ctx, &sdk.DescribeContainerInstancesInput{Cluster: task.ClusterArn, ContainerInstances: []string{*task.ContainerInstanceArn}})
	if err != nil || len(out.ContainerInstances) != 1 {
		r.t.Fatalf("describe container instance: %v %+v", err, out)
	}
	return out.ContainerInstances[0]
}

func (r *rig) task(arn string) types.Task {
	r.t.Helper()
	out, err := r.DescribeTasks(r.ctx, &sdk.DescribeTasksInput{Cluster: ptr(strings.Split(arn, "/")[1]), Tasks: []string{arn}})
	if err != nil || len(out.Tasks) != 1 {
		r.t.Fatalf("describe task: %v %+v", err, out)
	}
	return out.Tasks[0]
}

func TestADrainingHostLosesItsTasksWithinTheMinimum(t *testing.T) {
	for _, tt := range []struct {
		name, limits string
		moves        bool
	}{
		{"start first", "    min: 100\n    max: 200\n", true},
		{"stop first", "    min: 50\n    max: 100\n", true},
		{"neither", "    min: 100\n    max: 100\n", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, with("    desired: 2\n"+tt.limits))
			task := r.tasks("web", "")[0]
			host := *r.instanceOf(task).Ec2InstanceId
			r.do("host-drain", host, "")
			if !tt.moves {
				start := r.now()
				r.until("some minutes to pass", func() bool { return r.now().Sub(start) > 5*time.Minute })
				if *r.task(*task.TaskArn).DesiredStatus != "RUNNING" {
					t.Errorf("moved though nothing may move: %s", r.dump())
				}
				return
			}
			r.until("the task to move", func() bool {
				return *r.task(*task.TaskArn).LastStatus == "STOPPED" && r.service("web").RunningCount == 2
			})
		})
	}
}

func TestASlowDrainKeepsTheOldDeployment(t *testing.T) {
	r := newRig(t, with("    load-balancers: [{interval: 5s, delay: 300s}]\n"))
	old := r.tasks("web", "")[0]
	id := r.deploy("web", "web:v2")
	r.until("the old task to drain", func() bool { return *r.task(*old.TaskArn).LastStatus == "DEACTIVATING" })
	r.event("web", "(service web) has begun draining connections on 1 tasks.")
	r.event("web", "(service web) deregistered 1 targets in (target-group arn:")
	r.event("web", "(service web) registered 1 targets in (target-group arn:")
	s := r.service("web")
	if len(s.Deployments) != 2 || s.Deployments[0].RunningCount != 1 || s.Deployments[0].RolloutState != types.DeploymentRolloutStateInProgress {
		t.Errorf("while it drains: %s", r.dump())
	}
	r.completed("web", id)
	gone := r.task(*old.TaskArn)
	if wait := gone.StoppedAt.Sub(*gone.StoppingAt); wait < 300*time.Second {
		t.Errorf("drained for %s only", wait)
	}
	told := 0
	for _, e := range r.service("web").Events {
		if strings.Contains(*e.Message, " deregistered ") {
			told++
		}
	}
	if told != 1 {
		t.Errorf("the deregistration was told %d times, want once, when the drain begins", told)
	}
}

func TestAForeignDeploymentSupersedesOurs(t *testing.T) {
	r := newRig(t, with(""))
	ours := r.deploy("web", "web:gone")
	r.do("deploy", "web", "web:v2")
	theirs := *r.service("web").Deployments[0].Id
	if theirs == ours {
		t.Fatal("no new deployment")
	}
	if d := r.deployment("web", ours); *d.Status != "ACTIVE" {
		t.Errorf("ours is %s", *d.Status)
	}
	r.completed("web", theirs)
	r.until("ours to disappear", func() bool { return r.deployment("web", ours).Id == nil })
	list, err := r.ListServiceDeployments(r.ctx, &sdk.ListServiceDeploymentsInput{Cluster: ptr("lab"), Service: ptr("web"), Status: []types.ServiceDeploymentStatus{"STOPPED"}})
	if err != nil || len(list.ServiceDeployments) != 1 {
		t.Errorf("stopped service deployments: %+v, %v", list, err)
	}
}

func TestProtectedTasksAreNotScaledIn(t *testing.T) {
	r := newRig(t, with("    protected: true\n"))
	id := r.deploy("web", "web:v2")
	r.event("web", "(service web) was unable to reach steady state because (taskSet ecs-svc/", ") was unable to scale in due to (reason 1 tasks under protection)")
	if d := r.deployment("web", id); d.RolloutState != types.DeploymentRolloutStateInProgress {
		t.Errorf("deployment is %s", d.RolloutState)
	}
	r.do("protect", "web", "off")
	r.completed("web", id)
}

func TestTheDesiredCountChangesInTheMiddle(t *testing.T) {
	r := newRig(t, with("    desired: 2\n"))
	id := r.deploy("web", "web:v2")
	r.do("desired", "web", "5")
	r.completed("web", id)
	if s := r.service("web"); s.RunningCount != 5 || s.DesiredCount != 5 {
		t.Errorf("after scaling out: %s", r.dump())
	}
	r.do("desired", "web", "0")
	r.until("no tasks", func() bool { return r.service("web").RunningCount == 0 })
	next := r.deploy("web", "web:v1")
	r.completed("web", next)
}

func TestADeletedServiceDrainsAndGoes(t *testing.T) {
	r := newRig(t, with(""))
	r.do("service-delete", "web", "")
	if s := r.service("web"); *s.Status != "DRAINING" {
		t.Errorf("status is %s", *s.Status)
	}
	r.until("the service to be inactive", func() bool { return *r.service("web").Status == "INACTIVE" })
	_, err := r.UpdateService(r.ctx, &sdk.UpdateServiceInput{Cluster: ptr("lab"), Service: ptr("web"), ForceNewDeployment: true})
	isError(t, err, "ServiceNotActiveException", "Service was not ACTIVE.")
}

func TestStopServiceDeploymentRollsBack(t *testing.T) {
	r := newRig(t, with(""))
	old := *r.service("web").Deployments[0].Id
	r.deploy("web", "web:gone")
	arn := r.rollout("web").ServiceDeploymentArn
	r.until("the deployment to start", func() bool { return r.rollout("web").Status == types.ServiceDeploymentStatusInProgress })
	if _, err := r.StopServiceDeployment(r.ctx, &sdk.StopServiceDeploymentInput{ServiceDeploymentArn: arn}); err != nil {
		t.Fatal(err)
	}
	if got := r.rollout("web").Status; got != types.ServiceDeploymentStatusRollbackRequested && got != types.ServiceDeploymentStatusRollbackInProgress {
		t.Errorf("status is %s", got)
	}
	r.completed("web", old)
	r.until("the roll-back to succeed", func() bool { return r.rollout("web").Status == types.ServiceDeploymentStatusRollbackSuccessful })
	_, err := r.StopServiceDeployment(r.ctx, &sdk.StopServiceDeploymentInput{ServiceDeploymentArn: arn})
	isError(t, err, "ConflictException", "ROLLBACK_SUCCESSFUL")
}

func TestADaemonRunsOnEachHost(t *testing.T) {
	r := newRig(t, with("    scheduling: DAEMON\n"))
	if s := r.service("web"); s.RunningCount != 3 || s.DesiredCount != 3 {
		t.Fatalf("in the beginning: %s", r.dump())
	}
	id := r.deploy("web", "web:v2")
	r.completed("web", id)
	hosts := map[string]bool{}
	for _, task := range r.tasks("web", "") {
		hosts[*task.ContainerInstanceArn] = true
	}
	if len(hosts) != 3 {
		t.Errorf("on %d hosts", len(hosts))
	}
	_, err := r.UpdateService(r.ctx, &sdk.UpdateServiceInput{Cluster: ptr("lab"), Service: ptr("web"), DesiredCount: ptr(int32(2))})
	isError(t, err, "InvalidParameterException", "daemon scheduling strategy")
}

func TestOtherControllersHaveTaskSets(t *testing.T) {
	for _, controller := range []string{"CODE_DEPLOY", "EXTERNAL"} {
		r := newRig(t, with("    controller: "+controller+"\n"))
		s := r.service("web")
		if len(s.Deployments) != 0 || len(s.TaskSets) != 1 || s.RunningCount != 1 {
			t.Errorf("%s: %+v", controller, s)
		}
		_, err := r.UpdateService(r.ctx, &sdk.UpdateServiceInput{Cluster: ptr("lab"), Service: ptr("web"), TaskDefinition: ptr(r.register("web", "web:v2"))})
		isError(t, err, "InvalidParameterException", "Unable to update task definition on services with a")
	}
}

func TestAClassicLoadBalancerHasNoRolloutState(t *testing.T) {
	r := newRig(t, with("    load-balancers: [{classic: true}]\n"))
	id := r.deploy("web", "web:v2")
	r.until("the new task alone", func() bool { s := r.service("web"); return len(s.Deployments) == 1 && s.RunningCount == 1 })
	if d := r.deployment("web", id); d.RolloutState != "" {
		t.Errorf("rolloutState is %s", d.RolloutState)
	}
}

func TestAwsvpcTasksHaveAnAddress(t *testing.T) {
	r := newRig(t, with("    network-mode: awsvpc\n"+balanced))
	id := r.deploy("web", "web:v2")
	r.completed("web", id)
	task := r.tasks("web", "")[0]
	details := map[string]string{}
	for _, d := range task.Attachments[0].Details {
		details[*d.Name] = *d.Value
	}
	if details["privateIPv4Address"] == "" || details["privateIPv4Address"] != *task.Containers[0].NetworkInterfaces[0].PrivateIpv4Address {
		t.Errorf("attachment %v, interfaces %+v", details, task.Containers[0].NetworkInterfaces)
	}
}

func TestAKilledContainerIsReplaced(t *testing.T) {
	r := newRig(t, with(""))
	r.do("kill", "web", "137")
	r.until("the task to stop", func() bool {
		stopped := r.tasks("web", types.DesiredStatusStopped)
		return len(stopped) == 1 && *stopped[0].LastStatus == "STOPPED" && *stopped[0].Containers[0].ExitCode == 137
	})
	r.until("another", func() bool { return r.service("web").RunningCount == 1 })
}

func TestTheLaunchThrottleGrows(t *testing.T) {
	r := newRig(t, with("    min: 0\n    max: 100\n"))
	r.deploy("web", "web:broken")
	r.until("five starts", func() bool { return len(r.tasks("web", types.DesiredStatusStopped)) >= 6 })
	var made []time.Time
	for _, task := range r.tasks("web", types.DesiredStatusStopped)[1:] {
		made = append(made, *task.CreatedAt)
	}
	for i := 2; i < len(made); i++ {
		if made[i].Sub(made[i-1]) <= made[i-1].Sub(made[i-2]) {
			t.Errorf("tasks were made at %v: the waits do not grow", made)
		}
	}
	id := r.deploy("web", "web:v2")
	r.completed("web", id)
}

func TestStaleReadsShowThePast(t *testing.T) {
	r := newRig(t, "stale-reads: 60s\n"+with(""))
	old := r.service("web").TaskDefinition
	at := r.now()
	id := r.deploy("web", "web:v2")
	if got := r.service("web").TaskDefinition; *got != *old {
		t.Errorf("the change shows at once")
	}
	r.until("the deployment to show", func() bool { return r.deployment("web", id).Id != nil })
	if wait := r.now().Sub(at); wait < 60*time.Second {
		t.Errorf("it showed after %s", wait)
	}
	r.completed("web", id)
}

func TestPartOfTheNewTasksFindsRoom(t *testing.T) {
	r := newRig(t, strings.Replace(with("    desired: 4\n"), "{count: 3}", "{count: 3, memory: 400}", 1))
	id := r.deploy("web", "web:v2")
	r.event("web", "was unable to place a task because")
	r.until("two new tasks beside four old ones", func() bool {
		s := r.service("web")
		return len(s.Deployments) == 2 && s.Deployments[0].RunningCount == 2 && s.Deployments[1].RunningCount == 4
	})
	if d := r.deployment("web", id); d.RolloutState != types.DeploymentRolloutStateInProgress {
		t.Errorf("deployment is %s: %s", d.RolloutState, r.dump())
	}
}

func TestAHostIsLostInTheMiddleOfADeployment(t *testing.T) {
	r := newRig(t, "clock: {speed: 1500}"+with("    desired: 3\n    load-balancers: [{interval: 10s, timeout: 2s, delay: 5s}]\n"))
	id := r.deploy("web", "web:v2")
	r.until("a new task to run", func() bool { return r.deployment("web", id).RunningCount > 0 })
	r.do("host-lost", *r.instanceOf(r.tasks("web", "")[0]).Ec2InstanceId, "")
	r.completed("web", id)
	for _, task := range r.tasks("web", "") {
		if *task.StartedBy != id || task.Connectivity != types.ConnectivityConnected {
			t.Errorf("task of %s is %s", *task.StartedBy, task.Connectivity)
		}
	}
}

func TestTheScheduleIsTheSameFastAndSlow(t *testing.T) {
	for _, speed := range []float64{100, 600} {
		w, err := world.Parse([]byte(with("    desired: 4\n    min: 50\n    max: 150\n"+balanced)), "world")
		if err != nil {
			t.Fatal(err)
		}
		w.Clock.Speed = speed
		r := rigOf(t, w)
		id := r.deploy("web", "web:v2")
		low, high := 4, 0
		r.until("the deployment to complete", func() bool {
			s := r.service("web")
			up := 0
			for _, d := range s.Deployments {
				up += int(d.RunningCount)
			}
			low, high = min(low, up), max(high, up+int(s.PendingCount))
			return r.deployment("web", id).RolloutState == types.DeploymentRolloutStateCompleted
		})
		if low < 2 || high > 6 {
			t.Errorf("at speed %g between %d and %d tasks, want 2 to 6", speed, low, high)
		}
	}
}
