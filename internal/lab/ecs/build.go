package ecs

import (
	"fmt"
	"maps"
	"slices"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/internal/lab/elb"
	"jumpsuite/internal/lab/world"
)

// How long ago things happened that were there before the lab.
const (
	hostAge    = 72 * time.Hour
	serviceAge = 48 * time.Hour
	taskAge    = 2 * time.Hour
)

// agentPorts are the host ports that the ECS agent registers as taken.
var agentPorts = []int{22, 2375, 2376, 51678, 51679}

// build makes the state from the world, which is complete.
func (p *Plane) build() {
	for _, w := range p.world.Clusters {
		c := &cluster{name: w.Name, arn: p.arn("cluster", w.Name), byTask: map[string]*task{}}
		for _, h := range w.Hosts {
			c.instances = append(c.instances, p.buildInstance(c, h))
		}
		p.state.clusters = append(p.state.clusters, c)
	}
	for i := range p.world.Services {
		w := &p.world.Services[i]
		if c := p.state.cluster(w.Cluster); c != nil {
			p.buildService(c, w)
		}
	}
	if p.waiting == 0 {
		close(p.steady)
	}
}

func (p *Plane) buildInstance(c *cluster, h world.Host) *instance {
	id := p.hexID(32)
	i := &instance{
		seq: p.nextSeq(), index: len(c.instances), cluster: c, id: id, arn: p.arn("container-instance", c.name, id),
		ec2: h.Instance, ip: h.IP, zone: p.region + h.Zone, arch: h.Arch, cpu: h.CPU, memory: h.Memory, enis: orInt(h.ENIs, 15), gpus: h.GPUs,
		reserved: slices.Concat(agentPorts, h.Ports), ports: map[hostPort]bool{}, nextPort: 32768,
		status: "ACTIVE", connected: !h.Lost, cached: map[string]string{}, registered: p.now().Add(-hostAge), version: 3,
	}
	i.inZone = c.zone(i.zone)
	if h.Draining {
		i.status = "DRAINING"
	}
	for _, image := range h.Cached {
		i.cached[p.world.Reference(image)] = "sha256:" + p.hexID(64)
	}
	return i
}

// zone is the place of a zone among the cluster's; a new one is added.
func (c *cluster) zone(name string) int {
	if at := slices.Index(c.zones, name); at >= 0 {
		return at
	}
	c.zones = append(c.zones, name)
	return len(c.zones) - 1
}

// buildService makes a service as its world says: with all its tasks running,
// or fresh, failed, draining or inactive.
func (p *Plane) buildService(c *cluster, w *world.Service) {
	def := p.buildDefinition(w)
	s := p.newService(c, p.createInput(w))
	s.config = p.buildConfig(w)
	s.controller = types.DeploymentControllerType(w.Controller)
	s.bake, s.stepBake, s.protect = time.Duration(w.Bake), time.Duration(w.StepBake), w.Protected
	s.desired = *w.Desired
	s.created = p.now().Add(-serviceAge)
	c.services = append(c.services, s)
	switch {
	case w.Status != "ACTIVE":
		s.status, s.desired, s.held = w.Status, 0, true
	case w.Fresh:
		p.deploy(s, def)
	default:
		p.buildDeployment(s, def, w.Failed)
	}
}

// createInput is what CreateService would have been asked for.
func (p *Plane) createInput(w *world.Service) *sdk.CreateServiceInput {
	in := &sdk.CreateServiceInput{
		ServiceName: &w.Name, SchedulingStrategy: types.SchedulingStrategy(w.Scheduling), LoadBalancers: p.buildGroups(w),
		PlacementStrategy: []types.PlacementStrategy{
			{Type: types.PlacementStrategyTypeSpread, Field: ptr("attribute:ecs.availability-zone")},
			{Type: types.PlacementStrategyTypeSpread, Field: ptr("instanceId")},
		},
	}
	if len(in.LoadBalancers) > 0 || w.Grace > 0 {
		in.HealthCheckGracePeriodSeconds = ptr(int32(time.Duration(w.Grace).Seconds()))
	}
	if w.CapacityProvider != "" {
		in.CapacityProviderStrategy = []types.CapacityProviderStrategyItem{{CapacityProvider: &w.CapacityProvider, Weight: 1}}
	}
	for _, c := range w.Constraints {
		if c == string(types.PlacementConstraintTypeDistinctInstance) {
			in.PlacementConstraints = append(in.PlacementConstraints, types.PlacementConstraint{Type: types.PlacementConstraintTypeDistinctInstance})
			continue
		}
		in.PlacementConstraints = append(in.PlacementConstraints, types.PlacementConstraint{Type: types.PlacementConstraintTypeMemberOf, Expression: &c})
	}
	if w.NetworkMode == "awsvpc" {
		in.NetworkConfiguration = &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{
			AssignPublicIp: types.AssignPublicIpDisabled, Subnets: []string{"subnet-0" + p.hexID(16)}, SecurityGroups: []string{"sg-0" + p.hexID(16)}}}
	}
	return in
}

func (p *Plane) buildGroups(w *world.Service) []types.LoadBalancer {
	var out []types.LoadBalancer
	for _, l := range w.LoadBalancers {
		b := types.LoadBalancer{ContainerName: ptr(l.Container), ContainerPort: ptr(int32(l.Port))}
		if l.Classic {
			b.LoadBalancerName = ptr(l.TargetGroup)
		} else {
			b.TargetGroupArn = ptr(p.addGroup(w, l))
			b.AdvancedConfiguration = p.advanced(w, l)
		}
		out = append(out, b)
	}
	return out
}

// advanced is the second target group of a balancer, with the listener rules
// that share the traffic between the two. The rules are names and no more.
func (p *Plane) advanced(w *world.Service, l world.LoadBalancer) *types.AdvancedConfiguration {
	if l.Alternate == "" {
		return nil
	}
	rule := func(port string) *string {
		return ptr("arn:aws:elasticloadbalancing:" + p.region + ":" + p.account + ":listener-rule/app/lab/" + p.hexID(16) + "/" + port + "/" + p.hexID(16))
	}
	other := l
	other.TargetGroup = l.Alternate
	return &types.AdvancedConfiguration{AlternateTargetGroupArn: ptr(p.addGroup(w, other)), ProductionListenerRule: rule("443"), TestListenerRule: rule("8443"),
		RoleArn: ptr("arn:aws:iam::" + p.account + ":role/ecsInfrastructureRoleForLoadBalancers")}
}

func (p *Plane) addGroup(w *world.Service, l world.LoadBalancer) string {
	kind := "instance"
	if w.NetworkMode == "awsvpc" {
		kind = "ip"
	}
	arn := p.balancer.AddGroup(elb.Group{Name: l.TargetGroup, Type: kind, Port: l.Port, Settings: l})
	p.groups[arn] = l
	return arn
}

func (p *Plane) buildConfig(w *world.Service) types.DeploymentConfiguration {
	c := defaultConfig(types.SchedulingStrategy(w.Scheduling))
	c.MinimumHealthyPercent, c.MaximumPercent = ptr(int32(*w.Min)), ptr(int32(*w.Max))
	c.Strategy = types.DeploymentStrategy(w.Strategy)
	c.BakeTimeInMinutes = ptr(int32((time.Duration(w.Bake) + time.Minute - 1) / time.Minute))
	percent, minutes := orNumber(w.Percent), ptr(int32((time.Duration(w.StepBake)+time.Minute-1)/time.Minute))
	switch c.Strategy {
	case types.DeploymentStrategyLinear:
		c.LinearConfiguration = &types.LinearConfiguration{StepPercent: percent, StepBakeTimeInMinutes: minutes}
	case types.DeploymentStrategyCanary:
		c.CanaryConfiguration = &types.CanaryConfiguration{CanaryPercent: percent, CanaryBakeTimeInMinutes: minutes}
	}
	for i, h := range w.Hooks {
		c.LifecycleHooks = append(c.LifecycleHooks, p.buildHook(w, i, h))
	}
	if len(w.Alarms) > 0 {
		c.Alarms = &types.DeploymentAlarms{AlarmNames: w.Alarms, Enable: true, Rollback: true}
	}
	if b := w.CircuitBreaker; b != nil {
		c.DeploymentCircuitBreaker = &types.DeploymentCircuitBreaker{
			Enable: b.Enable, Rollback: b.Rollback, ResetOnHealthyTask: ptr(!b.NoResetHealthy),
			ThresholdConfiguration: &types.ThresholdConfiguration{Type: types.ThresholdType(b.Type), Value: int32(b.Value)},
		}
	}
	return c
}

// orNumber is nil for zero, which stands for AWS's default.
func orNumber(f float64) *float64 {
	if f == 0 {
		return nil
	}
	return &f
}

func (p *Plane) buildHook(w *world.Service, n int, h world.Hook) types.DeploymentLifecycleHook {
	out := types.DeploymentLifecycleHook{TargetType: types.DeploymentLifecycleHookTargetTypePause}
	for _, s := range h.Stages {
		out.LifecycleStages = append(out.LifecycleStages, types.DeploymentLifecycleHookStage(s))
	}
	if h.Timeout > 0 || h.Action != "" {
		minutes := max(int32(time.Duration(h.Timeout)/time.Minute), 1)
		out.TimeoutConfiguration = &types.DeploymentLifecycleHookTimeoutConfiguration{TimeoutInMinutes: &minutes, Action: types.DeploymentLifecycleHookAction(h.Action)}
	}
	if h.Type != "PAUSE" {
		arn := fmt.Sprintf("arn:aws:lambda:%s:%s:function:%s-hook-%d", p.region, p.account, w.Name, n+1)
		out.TargetType, out.HookTargetArn, out.RoleArn = types.DeploymentLifecycleHookTargetTypeAwsLambda, &arn, ptr("arn:aws:iam::"+p.account+":role/ecsHooks")
		p.lambdas[arn] = h
	}
	return out
}

// buildDefinition registers the family of a service, up to the revision in use.
func (p *Plane) buildDefinition(w *world.Service) *definition {
	in := p.definitionInput(w)
	var d *definition
	for {
		if f := p.state.families[w.Family]; f != nil && len(f.definitions) >= w.Revision {
			d = f.definitions[w.Revision-1]
			break
		}
		d = p.register(in)
		d.td.RegisteredAt = when(p.now().Add(-serviceAge))
	}
	return d
}

func (p *Plane) definitionInput(w *world.Service) *sdk.RegisterTaskDefinitionInput {
	in := &sdk.RegisterTaskDefinitionInput{
		Family: ptr(w.Family), NetworkMode: types.NetworkMode(w.NetworkMode), RequiresCompatibilities: []types.Compatibility{types.CompatibilityEc2},
	}
	for _, key := range sortedKeys(w.Tags) {
		in.Tags = append(in.Tags, types.Tag{Key: ptr(key), Value: ptr(w.Tags[key])})
	}
	for _, c := range w.Containers {
		in.ContainerDefinitions = append(in.ContainerDefinitions, p.containerDefinition(c))
	}
	return in
}

func (p *Plane) containerDefinition(c world.Container) types.ContainerDefinition {
	out := types.ContainerDefinition{
		Name: ptr(c.Name), Image: ptr(p.world.Reference(c.Image)), Cpu: int32(c.CPU), Essential: c.Essential, Command: c.Command,
		Memory: number(c.Memory), MemoryReservation: number(c.Reservation), StopTimeout: number(int(time.Duration(c.StopTimeout).Seconds())),
	}
	for _, key := range slices.Sorted(maps.Keys(c.Environment)) {
		out.Environment = append(out.Environment, types.KeyValuePair{Name: ptr(key), Value: ptr(c.Environment[key])})
	}
	if c.Port != 0 {
		out.PortMappings = []types.PortMapping{{ContainerPort: number(c.Port), HostPort: number(c.HostPort), Protocol: types.TransportProtocolTcp}}
	}
	if c.GPUs > 0 {
		out.ResourceRequirements = []types.ResourceRequirement{{Type: types.ResourceTypeGpu, Value: ptr(fmt.Sprint(c.GPUs))}}
	}
	if c.LogGroup != "" {
		out.LogConfiguration = &types.LogConfiguration{LogDriver: types.LogDriverAwslogs, Options: map[string]string{
			"awslogs-group": c.LogGroup, "awslogs-region": p.region, "awslogs-stream-prefix": "ecs"}}
	}
	if h := c.Health; h != nil {
		seconds := func(d world.Duration) *int32 { return number(int(time.Duration(d).Seconds())) }
		out.HealthCheck = &types.HealthCheck{Command: []string{"CMD-SHELL", "/health"}, Interval: seconds(h.Interval), Timeout: seconds(h.Timeout),
			Retries: number(h.Retries), StartPeriod: seconds(h.StartPeriod)}
	}
	return out
}

// number is n for the SDK; zero is left out.
func number(n int) *int32 {
	if n == 0 {
		return nil
	}
	return ptr(int32(n))
}

// buildDeployment makes a deployment that came to its end long ago: well, with
// all its tasks running, or without any.
func (p *Plane) buildDeployment(s *service, def *definition, failed bool) {
	d := p.newDeployment(s, def)
	p.newRollout(s, d)
	s.deployments = []*deployment{d}
	if failed {
		p.fail(d, "ECS deployment circuit breaker: tasks failed to start.")
		p.endBuilt(d, types.ServiceDeploymentStatusStopped, "Service deployment stopped because the circuit breaker threshold was exceeded.")
		p.tell(s, "(deployment "+d.id+") deployment failed: tasks failed to start.")
		d.breaker = threshold(&types.DeploymentCircuitBreaker{}, s.desired)
	} else {
		d.state, d.reason = types.DeploymentRolloutStateCompleted, "ECS deployment "+d.id+" completed."
		s.completed = d
		p.resolve(d)
		p.buildTasks(s, d)
		p.endBuilt(d, types.ServiceDeploymentStatusSuccessful, "")
		p.condition(s, "steady", "has reached a steady state.")
		s.steady = true
	}
	d.created, d.updated, d.revision.created = s.created, s.created, s.created
	p.kick(s, timeStep)
}

// endBuilt ends the service deployment of a deployment of long ago.
func (p *Plane) endBuilt(d *deployment, status types.ServiceDeploymentStatus, reason string) {
	r := d.rollout
	if r == nil {
		return
	}
	p.endRollout(r, status, reason)
	start := d.service.created
	r.created, r.started, r.updated, r.finished = start, start.Add(time.Second), start.Add(2*time.Minute), start.Add(2*time.Minute)
}

// resolve finds the digests of a deployment that has been there for long.
func (p *Plane) resolve(d *deployment) {
	for _, c := range d.def.td.ContainerDefinitions {
		digest := ""
		if p.images != nil {
			digest, _, _ = p.images.Resolve(*c.Image)
		}
		d.revision.digests[*c.Name] = or(digest, "sha256:"+p.hexID(64))
	}
}

func (p *Plane) buildTasks(s *service, d *deployment) {
	n := need(d.def, s.constraints)
	n.group = groupOf(s.name)
	if s.daemon() {
		p.buildDaemons(s, d, &n)
		return
	}
	spread := spreadOf(s.cluster, nil)
	for range s.desired {
		i, l := s.cluster.place(&n, spread)
		if l != fits {
			return
		}
		spread.add(i, 1)
		p.buildTask(p.serviceTask(d, i, &n))
	}
}

func (p *Plane) buildDaemons(s *service, d *deployment, n *needs) {
	for _, i := range s.cluster.instances {
		if i.take(n) == fits {
			p.buildTask(p.serviceTask(d, i, n))
		}
	}
	s.desired = len(s.tasks)
}

// buildTask makes a task that has been running for a while.
func (p *Plane) buildTask(t *task) {
	t.beginning, t.ran, t.fit = true, true, true
	t.created = p.now().Add(-taskAge)
	t.pullStart, t.pullStop = t.created.Add(time.Second), t.created.Add(3*time.Second)
	t.started = t.created.Add(4 * time.Second)
	t.last, t.version = "RUNNING", 5
	for _, c := range t.containers {
		c.last, c.digest = "RUNNING", t.deployment.revision.digests[c.name]
		if c.checked {
			c.health = types.HealthStatusHealthy
		}
	}
	for _, g := range t.targets {
		g.state = "healthy"
	}
	p.waiting++
	p.engage(t)
	p.registerTargets(t)
}

func (s *service) String() string { return fmt.Sprintf("%s/%s", s.cluster.name, s.name) }
