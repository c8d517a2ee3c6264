package lab_test

import (
	"cmp"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/worlds"
)

// play is a lab that plays one of the worlds, and a deployment of api:2 in it.
type play struct {
	t      *testing.T
	lab    *lab.Lab
	client *ecs.Client
	before *types.Service // as it was when the lab was started
	mine   string         // the deployment id in UpdateService's answer
	err    error          // UpdateService's
}

// look is what DescribeServices says of api now; nil when it says nothing.
func (p *play) look() *types.Service {
	out, err := p.client.DescribeServices(p.t.Context(), &ecs.DescribeServicesInput{Cluster: aws.String("prod"), Services: []string{"api"}})
	if err != nil || len(out.Services) == 0 {
		return nil
	}
	return &out.Services[0]
}

// register registers api's definition with another image, changed by change.
func (p *play) register(image string, change func(*types.ContainerDefinition)) *string {
	p.t.Helper()
	d, err := p.client.DescribeTaskDefinition(p.t.Context(), &ecs.DescribeTaskDefinitionInput{TaskDefinition: p.before.TaskDefinition})
	if err != nil {
		p.t.Fatal(err)
	}
	c := d.TaskDefinition.ContainerDefinitions
	repository, _, _ := strings.Cut(*c[0].Image, ":")
	c[0].Image = aws.String(repository + ":" + image)
	change(&c[0])
	out, err := p.client.RegisterTaskDefinition(p.t.Context(), &ecs.RegisterTaskDefinitionInput{
		Family: d.TaskDefinition.Family, NetworkMode: d.TaskDefinition.NetworkMode, ContainerDefinitions: c})
	if err != nil {
		p.t.Fatal(err)
	}
	return out.TaskDefinition.TaskDefinitionArn
}

func (p *play) update(definition *string) {
	out, err := p.client.UpdateService(p.t.Context(), &ecs.UpdateServiceInput{Cluster: aws.String("prod"), Service: aws.String("api"), TaskDefinition: definition})
	if p.err = err; err == nil {
		p.mine = *out.Service.Deployments[0].Id
	}
}

// event reports whether the service has an event with that text.
func (p *play) event(text string) bool {
	s := p.look()
	return s != nil && slices.ContainsFunc(s.Events, func(e types.ServiceEvent) bool { return strings.Contains(*e.Message, text) })
}

// deployment is the deployment with a status, or nothing.
func (p *play) deployment(status string) types.Deployment {
	if s := p.look(); s != nil {
		for _, d := range s.Deployments {
			if *d.Status == status {
				return d
			}
		}
	}
	return types.Deployment{Id: aws.String("")}
}

// tasks are all tasks of a desired status, with what they say of their first container.
func (p *play) tasks(status types.DesiredStatus) []types.Task {
	list, err := p.client.ListTasks(p.t.Context(), &ecs.ListTasksInput{Cluster: aws.String("prod"), DesiredStatus: status})
	if err != nil || len(list.TaskArns) == 0 {
		return nil
	}
	out, err := p.client.DescribeTasks(p.t.Context(), &ecs.DescribeTasksInput{Cluster: aws.String("prod"), Tasks: list.TaskArns})
	if err != nil {
		return nil
	}
	return out.Tasks
}

// stopped reports whether a task has stopped with that code, and a reason that contains text.
func (p *play) stopped(code types.TaskStopCode, text string) bool {
	return slices.ContainsFunc(p.tasks(types.DesiredStatusStopped), func(t types.Task) bool {
		reasons := aws.ToString(t.StoppedReason) + " " + aws.ToString(t.Containers[0].Reason)
		return t.StopCode == code && strings.Contains(reasons, text)
	})
}

func (p *play) host(state func(types.ContainerInstance) bool) bool {
	list, err := p.client.ListContainerInstances(p.t.Context(), &ecs.ListContainerInstancesInput{Cluster: aws.String("prod")})
	if err != nil {
		return false
	}
	out, err := p.client.DescribeContainerInstances(p.t.Context(), &ecs.DescribeContainerInstancesInput{Cluster: aws.String("prod"), ContainerInstances: list.ContainerInstanceArns})
	return err == nil && slices.ContainsFunc(out.ContainerInstances, state)
}

// scenario is what must come to be seen in a world.
type scenario struct {
	world string
	// deploy deploys api:2, where that is not simply done.
	deploy func(*play)
	// seen are things to wait for, one after the other.
	seen []func(*play) bool
}

// plain deploys api:2.
func plain(p *play) { p.update(p.register("2", func(*types.ContainerDefinition) {})) }

func event(text string) func(*play) bool {
	return func(p *play) bool { return p.event(text) }
}

func stopped(code types.TaskStopCode, text string) func(*play) bool {
	return func(p *play) bool { return p.stopped(code, text) }
}

func refused(code string) func(*play) bool {
	return func(p *play) bool { return p.err != nil && strings.Contains(p.err.Error(), code) }
}

var scenarios = []scenario{
	{world: "image-missing", seen: []func(*play) bool{stopped(types.TaskStopCodeTaskFailedToStart, "CannotPullContainerError"), func(p *play) bool { return p.deployment("PRIMARY").FailedTasks > 0 }}},
	{world: "image-cached", deploy: func(p *play) {
		await(p.t, "the image is deleted", func() bool { _, _, err := p.lab.Registry.Resolve(p.lab.World.ECR() + "/api:2"); return err != nil })
		plain(p)
	}, seen: []func(*play) bool{func(p *play) bool {
		return p.deployment("PRIMARY").RunningCount == 2 && *p.deployment("PRIMARY").Id == p.mine
	}}},
	{world: "crash-loop", seen: []func(*play) bool{stopped(types.TaskStopCodeEssentialContainerExited, "Essential container in task exited")}},
	{world: "container-unhealthy", seen: []func(*play) bool{event("failed container health checks")}},
	{world: "target-unhealthy", seen: []func(*play) bool{event("Health checks failed with these codes: [503]")}},
	{world: "target-wrong-port", deploy: func(p *play) {
		p.update(p.register("2", func(c *types.ContainerDefinition) { c.PortMappings[0].ContainerPort = aws.Int32(9090) }))
		if !refused("InvalidParameterException")(p) {
			p.t.Errorf("a definition without the port: got %v", p.err)
		}
		plain(p)
	}, seen: []func(*play) bool{event("is unhealthy in (target-group")}},
	{world: "no-room-cpu", seen: []func(*play) bool{event("has insufficient CPU units available")}},
	{world: "no-room-memory", seen: []func(*play) bool{event("has insufficient memory available")}},
	{world: "no-room-port", seen: []func(*play) bool{event("is already using a port required by your task")}},
	{world: "stuck-bounds", seen: []func(*play) bool{event("was unable to stop or start tasks during a deployment")}},
	{world: "host-lost", seen: []func(*play) bool{
		func(p *play) bool { return p.host(func(i types.ContainerInstance) bool { return !i.AgentConnected }) },
		stopped(types.TaskStopCodeTerminationNotice, "Host EC2 (instance"),
	}},
	{world: "host-draining", seen: []func(*play) bool{func(p *play) bool {
		return p.host(func(i types.ContainerInstance) bool { return *i.Status == "DRAINING" && i.RunningTasksCount == 0 })
	}, func(p *play) bool {
		return p.deployment("PRIMARY").RolloutState == types.DeploymentRolloutStateCompleted
	}}},
	{world: "throttled", seen: []func(*play) bool{refused("ThrottlingException")}},
	{world: "accepted-then-error", seen: []func(*play) bool{refused("ServerException"), func(p *play) bool {
		d := p.deployment("PRIMARY")
		return aws.ToString(d.TaskDefinition) != *p.before.TaskDefinition
	}}},
	{world: "unavailable", seen: []func(*play) bool{func(p *play) bool { return p.tasks(types.DesiredStatusRunning) == nil }, func(p *play) bool { return p.tasks(types.DesiredStatusRunning) != nil }}},
	{world: "stale-reads", seen: []func(*play) bool{func(p *play) bool { return *p.deployment("PRIMARY").Id != p.mine }, func(p *play) bool { return *p.deployment("PRIMARY").Id == p.mine }}},
	{world: "slow-drain", seen: []func(*play) bool{func(p *play) bool {
		draining := slices.ContainsFunc(p.tasks(types.DesiredStatusStopped), func(t types.Task) bool { return *t.LastStatus == "DEACTIVATING" })
		return p.deployment("PRIMARY").RunningCount == 2 && draining
	}, func(p *play) bool {
		return p.deployment("PRIMARY").RolloutState == types.DeploymentRolloutStateCompleted
	}}},
	{world: "partial", seen: []func(*play) bool{event("was unable to place a task"), func(p *play) bool { n := p.deployment("PRIMARY").RunningCount; return n > 0 && n < 5 }}},
	{world: "foreign-deployment", seen: []func(*play) bool{func(p *play) bool { return p.mine != "" && *cmp.Or(p.deployment("PRIMARY").Id, &p.mine) != p.mine }}},
	{world: "breaker-rolls-back", seen: []func(*play) bool{
		event("deployment failed: tasks failed to start."), event("rolling back to deployment"),
		func(p *play) bool {
			d := p.deployment("PRIMARY")
			return *d.Id == *p.before.Deployments[0].Id && d.RolloutState == types.DeploymentRolloutStateCompleted
		}}},
	{world: "breaker-without-rollback", seen: []func(*play) bool{func(p *play) bool {
		d := p.deployment("PRIMARY")
		return *d.Id == p.mine && d.RolloutState == types.DeploymentRolloutStateFailed
	}, func(p *play) bool { return p.deployment("ACTIVE").RunningCount == 2 }}},
	{world: "breaker-without-completed", seen: []func(*play) bool{func(p *play) bool {
		d := p.deployment("PRIMARY")
		return *d.Id == p.mine && d.RolloutState == types.DeploymentRolloutStateFailed
	}}},
	{world: "rollback-fails", deploy: func(p *play) {
		plain(p)
		mine := p.mine
		await(p.t, "the old definition is gone", func() bool { p.update(p.before.TaskDefinition); return p.err != nil })
		p.mine = mine
	}, seen: []func(*play) bool{refused("TaskDefinition is inactive.")}},
	{world: "service-deleted", seen: []func(*play) bool{func(p *play) bool { s := p.look(); return s == nil || *s.Status != "ACTIVE" }, func(p *play) bool {
		p.update(p.before.TaskDefinition)
		return refused("ServiceNot")(p)
	}}},
	{world: "desired-changes", seen: []func(*play) bool{
		func(p *play) bool { s := p.look(); return s != nil && s.DesiredCount == 4 },
		func(p *play) bool { s := p.look(); return s != nil && s.DesiredCount == 3 }}},
	{world: "client-killed", deploy: func(*play) {}, seen: []func(*play) bool{func(p *play) bool {
		d := p.deployment("PRIMARY")
		return d.RolloutState == types.DeploymentRolloutStateInProgress && *p.look().DeploymentConfiguration.MaximumPercent == 100
	}}},
	{world: "protected-tasks", seen: []func(*play) bool{event("under protection")}},
	{world: "blue-green", seen: []func(*play) bool{stageSeen("BAKE_TIME"), rolloutSeen(types.ServiceDeploymentStatusSuccessful)}},
	{world: "blue-green-hook-fails", seen: []func(*play) bool{rolloutSeen(types.ServiceDeploymentStatusRollbackSuccessful), func(p *play) bool {
		return p.rollout().LifecycleHookDetails[0].Status == types.DeploymentLifecycleHookStatusFailed
	}}},
	{world: "blue-green-paused", seen: []func(*play) bool{func(p *play) bool {
		hooks := p.rollout().LifecycleHookDetails
		return len(hooks) == 1 && hooks[0].Status == types.DeploymentLifecycleHookStatusAwaitingAction
	}}},
	{world: "blue-green-alarm", seen: []func(*play) bool{event("deployment failed: alarm detected."), rolloutSeen(types.ServiceDeploymentStatusRollbackSuccessful)}},
	{world: "wrong-architecture", seen: []func(*play) bool{stopped(types.TaskStopCodeEssentialContainerExited, "Essential container in task exited"), func(p *play) bool {
		p.update(p.register("4", func(*types.ContainerDefinition) {}))
		return p.err == nil
	}, stopped(types.TaskStopCodeTaskFailedToStart, "no matching manifest for linux/amd64"), func(p *play) bool {
		p.update(p.register("3", func(*types.ContainerDefinition) {}))
		return p.err == nil
	}, func(p *play) bool {
		return p.deployment("PRIMARY").RolloutState == types.DeploymentRolloutStateCompleted
	}}},
	{world: "other-kinds", deploy: func(*play) {}, seen: []func(*play) bool{otherKinds}},
}

// rollout is api's last service deployment.
func (p *play) rollout() types.ServiceDeployment {
	s := p.look()
	if s == nil || s.CurrentServiceDeployment == nil {
		return types.ServiceDeployment{}
	}
	out, err := p.client.DescribeServiceDeployments(p.t.Context(), &ecs.DescribeServiceDeploymentsInput{ServiceDeploymentArns: []string{*s.CurrentServiceDeployment}})
	if err != nil || len(out.ServiceDeployments) == 0 {
		return types.ServiceDeployment{}
	}
	return out.ServiceDeployments[0]
}

func stageSeen(stage types.ServiceDeploymentLifecycleStage) func(*play) bool {
	return func(p *play) bool { return p.rollout().LifecycleStage == stage }
}

func rolloutSeen(status types.ServiceDeploymentStatus) func(*play) bool {
	return func(p *play) bool { return p.rollout().Status == status }
}

// otherKinds looks at the services that have no ordinary deployments.
func otherKinds(p *play) bool {
	names := []string{"idle", "agent", "codedeploy", "external", "bluegreen", "classic", "leaving"}
	out, err := p.client.DescribeServices(p.t.Context(), &ecs.DescribeServicesInput{Cluster: aws.String("prod"), Services: names})
	if err != nil || len(out.Services) != len(names) {
		p.t.Fatalf("got %+v, %v", out, err)
	}
	s := out.Services
	if s[0].DesiredCount != 0 || s[1].SchedulingStrategy != types.SchedulingStrategyDaemon || s[2].DeploymentController.Type != types.DeploymentControllerTypeCodeDeploy ||
		s[3].DeploymentController.Type != types.DeploymentControllerTypeExternal || s[4].DeploymentConfiguration.Strategy != types.DeploymentStrategyBlueGreen ||
		len(s[5].LoadBalancers) != 1 || s[5].LoadBalancers[0].LoadBalancerName == nil || s[5].Deployments[0].RolloutState != "" || *s[6].Status != "DRAINING" {
		p.t.Errorf("got %+v", s)
	}
	return true
}

func TestTheWorldsPlayWhatTheySay(t *testing.T) {
	var played []string
	for _, s := range scenarios {
		played = append(played, s.world)
	}
	slices.Sort(played)
	if want := worlds.Names(); !slices.Equal(played, want) {
		t.Fatalf("played are %v, want %v", played, want)
	}
	for _, s := range scenarios {
		t.Run(s.world, func(t *testing.T) {
			t.Parallel()
			playScenario(t, s)
		})
	}
}

func playScenario(t *testing.T, s scenario) {
	w, err := worlds.Read(s.world)
	if err != nil {
		t.Fatal(err)
	}
	w.Clock.Speed = 150
	l, err := lab.Start(t.Context(), lab.Config{World: w})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := &play{t: t, lab: l, client: client(l)}
	await(t, "the service is there", func() bool { p.before = p.look(); return p.before != nil || s.world == "other-kinds" })
	if s.deploy == nil {
		s.deploy = plain
	}
	s.deploy(p)
	for i, seen := range s.seen {
		await(t, "thing "+string(rune('1'+i))+" is seen", func() bool { return seen(p) })
	}
}
