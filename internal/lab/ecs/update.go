package ecs

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	sdk "github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// UpdateService changes a service. A field that is absent is left as it is. Some
// changes begin a deployment, others do not (doc comments of UpdateServiceInput).
func (p *Plane) UpdateService(_ context.Context, in *sdk.UpdateServiceInput) (*sdk.UpdateServiceOutput, error) {
	if err := p.checkGroups(in.LoadBalancers); err != nil {
		return nil, err
	}
	out := &sdk.UpdateServiceOutput{}
	err := errClosed
	p.mutate(func() {
		var s *service
		if s, err = p.update(in); err == nil {
			out.Service = ptr(s.render(false))
		}
	})
	return answer(out, err)
}

// checkGroups asks the balancer, without the plane's lock.
func (p *Plane) checkGroups(balancers []types.LoadBalancer) error {
	for _, b := range balancers {
		if b.TargetGroupArn != nil && !p.balancer.HasGroup(*b.TargetGroupArn) {
			return invalid(fmt.Sprintf("The target group %s does not exist.", *b.TargetGroupArn))
		}
	}
	return nil
}

// update checks everything before it changes anything.
func (p *Plane) update(in *sdk.UpdateServiceInput) (*service, error) {
	s, err := p.state.serviceFor(in.Cluster, str(in.Service))
	if err != nil {
		return nil, err
	}
	if s.status != "ACTIVE" {
		return nil, notActive()
	}
	if err := s.refuses(in); err != nil {
		return nil, err
	}
	def := s.definition()
	if in.TaskDefinition != nil {
		if def, err = p.state.use(*in.TaskDefinition); err != nil {
			return nil, err
		}
	}
	config := merge(s.config, in.DeploymentConfiguration)
	if err := checkConfig(config, s.scheduling); err != nil {
		return nil, err
	}
	balancers := s.balancers
	if in.LoadBalancers != nil {
		balancers = in.LoadBalancers
	}
	if err := checkBalancers(balancers, def); err != nil {
		return nil, err
	}
	if err := checkShift(config, balancers); err != nil {
		return nil, err
	}
	p.apply(s, in, config, balancers)
	if s.redeploys(in, def) {
		p.deploy(s, def)
	}
	p.kick(s, 2*timeStep)
	return s, nil
}

// refuses tells what the service's controller and scheduling strategy forbid.
func (s *service) refuses(in *sdk.UpdateServiceInput) error {
	changes := in.TaskDefinition != nil || in.NetworkConfiguration != nil || in.PlatformVersion != nil || in.LoadBalancers != nil
	switch {
	case s.controller == types.DeploymentControllerTypeCodeDeploy && (changes || in.ForceNewDeployment):
		return invalid("Unable to update task definition on services with a CODE_DEPLOY deployment controller. Use AWS CodeDeploy to trigger a new deployment.")
	case s.controller == types.DeploymentControllerTypeExternal && (changes || in.ForceNewDeployment):
		return invalid("Unable to update task definition on services with an EXTERNAL deployment controller. Use a task set instead.")
	case s.daemon() && in.DesiredCount != nil:
		return invalid("The daemon scheduling strategy does not support a desired count for services. Remove the desired count and try again.")
	case in.DesiredCount != nil && *in.DesiredCount < 0:
		return invalid("Desired count must not be negative.")
	case in.HealthCheckGracePeriodSeconds != nil && len(s.balancers) == 0 && len(in.LoadBalancers) == 0 && !s.checked():
		return invalid("Health check grace period is only valid for services configured to use load balancers")
	case in.DeploymentController != nil && in.DeploymentController.Type != s.controller && !s.rolls():
		return invalid("The deployment controller of the service cannot be changed.")
	}
	return checkPlacement(in.PlacementConstraints)
}

// definition is the task definition of the PRIMARY deployment; nil: there is no
// deployment, as in the beginning of a service with an external controller.
func (s *service) definition() *definition {
	if d := s.primary(); d != nil {
		return d.def
	}
	return nil
}

// checked reports whether the service's task definition has a container health check.
func (s *service) checked() bool {
	return s.definition() != nil && slices.ContainsFunc(s.primary().def.td.ContainerDefinitions, func(c types.ContainerDefinition) bool { return c.HealthCheck != nil })
}

func checkPlacement(constraints []types.PlacementConstraint) error {
	for _, c := range constraints {
		if c.Type != types.PlacementConstraintTypeMemberOf {
			continue
		}
		if _, err := parseExpression(str(c.Expression)); err != nil {
			return err
		}
	}
	return nil
}

// checkBalancers refuses a load balancer whose container or port is not in the definition.
func checkBalancers(balancers []types.LoadBalancer, d *definition) error {
	if d == nil {
		return nil
	}
	for _, b := range balancers {
		i := slices.IndexFunc(d.td.ContainerDefinitions, func(c types.ContainerDefinition) bool { return *c.Name == str(b.ContainerName) })
		if i < 0 {
			return invalid(fmt.Sprintf("The container %s does not exist in the task definition.", str(b.ContainerName)))
		}
		maps := func(m types.PortMapping) bool { return value(m.ContainerPort) == value(b.ContainerPort) }
		if !slices.ContainsFunc(d.td.ContainerDefinitions[i].PortMappings, maps) {
			return invalid(fmt.Sprintf("The container %s did not have a container port %d defined.", str(b.ContainerName), value(b.ContainerPort)))
		}
	}
	return nil
}

// merge lays a deployment configuration over another: absent members are kept,
// those of the circuit breaker that are optional too.
func merge(old types.DeploymentConfiguration, in *types.DeploymentConfiguration) types.DeploymentConfiguration {
	if in == nil {
		return old
	}
	out := old
	keep := func(to, from any) {
		if v := reflect.ValueOf(from); !v.IsZero() {
			reflect.ValueOf(to).Elem().Set(v)
		}
	}
	keep(&out.MinimumHealthyPercent, in.MinimumHealthyPercent)
	keep(&out.MaximumPercent, in.MaximumPercent)
	keep(&out.Strategy, in.Strategy)
	keep(&out.BakeTimeInMinutes, in.BakeTimeInMinutes)
	keep(&out.LinearConfiguration, in.LinearConfiguration)
	keep(&out.CanaryConfiguration, in.CanaryConfiguration)
	keep(&out.EarlySuccessCriteria, in.EarlySuccessCriteria)
	keep(&out.Alarms, in.Alarms)
	if in.LifecycleHooks != nil {
		out.LifecycleHooks = in.LifecycleHooks
	}
	if in.DeploymentCircuitBreaker != nil {
		b := *in.DeploymentCircuitBreaker
		if o := old.DeploymentCircuitBreaker; o != nil {
			b.ResetOnHealthyTask = first(b.ResetOnHealthyTask, o.ResetOnHealthyTask)
			b.ThresholdConfiguration = first(b.ThresholdConfiguration, o.ThresholdConfiguration)
		}
		out.DeploymentCircuitBreaker = &b
	}
	return out
}

func first[T any](a, b *T) *T {
	if a != nil {
		return a
	}
	return b
}

func checkConfig(c types.DeploymentConfiguration, scheduling types.SchedulingStrategy) error {
	low, high := value(c.MinimumHealthyPercent), value(c.MaximumPercent)
	switch {
	case low < 0 || high < 0:
		return invalid("Both maximumPercent and minimumHealthyPercent must not be negative.")
	case scheduling == types.SchedulingStrategyDaemon && high != 100:
		return invalid("The daemon scheduling strategy does not support values for maximumPercent other than 100.")
	case scheduling == types.SchedulingStrategyDaemon && low > 100:
		return invalid("minimumHealthyPercent must be between 0 and 100.")
	case scheduling != types.SchedulingStrategyDaemon && high < 100:
		return invalid("maximumPercent must be at least 100.")
	case high <= 0 || low > high:
		return invalid("minimumHealthyPercent must be less than or equal to maximumPercent.")
	case low == 100 && high == 100 && scheduling == types.SchedulingStrategyDaemon:
		return invalid("Both maximumPercent and minimumHealthyPercent cannot be 100 as this will block deployments.")
	}
	return checkStrategy(c)
}

func checkStrategy(c types.DeploymentConfiguration) error {
	if b := c.DeploymentCircuitBreaker; b != nil && b.Rollback && !b.Enable {
		return invalid("Deployment circuit breaker rollback cannot be enabled without enabling the circuit breaker.")
	}
	if e := c.EarlySuccessCriteria; e != nil && e.Enable {
		if stagedStrategy(c.Strategy) {
			return invalid("Early success criteria are only supported for the ROLLING deployment strategy.")
		}
		if value(e.HealthyPercent) < value(c.MinimumHealthyPercent) {
			return invalid("healthyPercent must be greater than or equal to minimumHealthyPercent.")
		}
	}
	if err := checkSteps(c); err != nil {
		return err
	}
	for _, h := range c.LifecycleHooks {
		if h.TargetType != types.DeploymentLifecycleHookTargetTypePause && (str(h.HookTargetArn) == "" || str(h.RoleArn) == "") {
			return invalid("hookTargetArn and roleArn are required for AWS_LAMBDA lifecycle hooks.")
		}
		if h.TargetType == types.DeploymentLifecycleHookTargetTypePause && shiftsTraffic(h.LifecycleStages) {
			return invalid("PAUSE hooks are not supported at TEST_TRAFFIC_SHIFT and PRODUCTION_TRAFFIC_SHIFT.")
		}
	}
	return nil
}

// checkSteps checks what LINEAR and CANARY have of their own (doc comments of
// LinearConfiguration and CanaryConfiguration).
func checkSteps(c types.DeploymentConfiguration) error {
	outside := func(percent *float64, least float64, bake *int32) bool {
		return percent != nil && (*percent < least || *percent > 100) || value(bake) < 0 || value(bake) > 1440
	}
	switch l, k := c.LinearConfiguration, c.CanaryConfiguration; {
	case l != nil && c.Strategy != types.DeploymentStrategyLinear:
		return invalid("linearConfiguration is only valid for the LINEAR deployment strategy.")
	case k != nil && c.Strategy != types.DeploymentStrategyCanary:
		return invalid("canaryConfiguration is only valid for the CANARY deployment strategy.")
	case l != nil && outside(l.StepPercent, 3, l.StepBakeTimeInMinutes), k != nil && outside(k.CanaryPercent, 0.1, k.CanaryBakeTimeInMinutes):
		return invalid("The percent or the bake time of the deployment strategy is out of range.")
	}
	return nil
}

// checkShift refuses a strategy that shifts traffic where a load balancer has no
// second target group, or no listener rule, to shift it with.
func checkShift(c types.DeploymentConfiguration, balancers []types.LoadBalancer) error {
	for _, b := range balancers {
		a := b.AdvancedConfiguration
		if stagedStrategy(c.Strategy) && (b.TargetGroupArn == nil || a == nil || str(a.AlternateTargetGroupArn) == "" || str(a.ProductionListenerRule) == "" || str(a.RoleArn) == "") {
			return invalid("advancedConfiguration with alternateTargetGroupArn, productionListenerRule and roleArn is required for load balancers with the " + string(c.Strategy) + " deployment strategy.")
		}
	}
	return nil
}

func shiftsTraffic(stages []types.DeploymentLifecycleHookStage) bool {
	return slices.Contains(stages, types.DeploymentLifecycleHookStageTestTrafficShift) || slices.Contains(stages, types.DeploymentLifecycleHookStageProductionTrafficShift)
}

// redeploys reports whether an update begins a deployment.
func (s *service) redeploys(in *sdk.UpdateServiceInput, def *definition) bool {
	if !s.rolls() {
		return false
	}
	return in.ForceNewDeployment || in.LoadBalancers != nil || in.NetworkConfiguration != nil || in.PlatformVersion != nil ||
		in.ServiceConnectConfiguration != nil || in.ServiceRegistries != nil || in.VpcLatticeConfigurations != nil ||
		in.VolumeConfigurations != nil || in.TaskDefinition != nil && def != s.definition()
}

func (p *Plane) apply(s *service, in *sdk.UpdateServiceInput, config types.DeploymentConfiguration, balancers []types.LoadBalancer) {
	s.config, s.balancers = config, balancers
	if in.DesiredCount != nil {
		p.setDesired(s, int(*in.DesiredCount))
	}
	if in.HealthCheckGracePeriodSeconds != nil {
		s.grace = in.HealthCheckGracePeriodSeconds
	}
	if in.NetworkConfiguration != nil {
		s.network = in.NetworkConfiguration
	}
	if in.PlacementConstraints != nil {
		s.constraints = in.PlacementConstraints
	}
	if in.PlacementStrategy != nil {
		s.strategy = in.PlacementStrategy
	}
	if in.ServiceRegistries != nil {
		s.registries = in.ServiceRegistries
	}
	if in.CapacityProviderStrategy != nil {
		s.capacity = in.CapacityProviderStrategy
	}
	s.applySwitches(in)
}

func (s *service) applySwitches(in *sdk.UpdateServiceInput) {
	if in.EnableExecuteCommand != nil {
		s.exec = *in.EnableExecuteCommand
	}
	if in.EnableECSManagedTags != nil {
		s.managedTags = *in.EnableECSManagedTags
	}
	if in.PropagateTags != "" {
		s.propagate = in.PropagateTags
	}
	if in.AvailabilityZoneRebalancing != "" {
		s.balancing = in.AvailabilityZoneRebalancing
	}
}

// setDesired changes a desired count, and with it the limits and thresholds of
// a deployment that is under way.
func (p *Plane) setDesired(s *service, n int) {
	if s.desired == n {
		return
	}
	s.desired = n
	s.steady = false
	s.over("steady")
	if d := s.primary(); d != nil {
		d.updated = p.now()
		if b := breakerOf(s.config); b != nil && d.rollout != nil {
			d.rollout.threshold = threshold(b, n)
		}
	}
	p.kick(s, timeStep)
}

// CreateService makes a service and begins its first deployment.
func (p *Plane) CreateService(_ context.Context, in *sdk.CreateServiceInput) (*sdk.CreateServiceOutput, error) {
	if err := p.checkGroups(in.LoadBalancers); err != nil {
		return nil, err
	}
	if err := checkTags(in.Tags, "Tags can not be empty."); err != nil {
		return nil, err
	}
	out := &sdk.CreateServiceOutput{}
	err := errClosed
	p.mutate(func() {
		var s *service
		if s, err = p.create(in); err == nil {
			out.Service = ptr(s.render(true))
		}
	})
	return answer(out, err)
}

func (p *Plane) create(in *sdk.CreateServiceInput) (*service, error) {
	c, err := p.state.find(in.Cluster)
	if err != nil {
		return nil, err
	}
	if !familyPattern.MatchString(str(in.ServiceName)) {
		return nil, invalid("Invalid service name: up to 255 letters, numbers, hyphens, and underscores are allowed.")
	}
	if old := c.service(*in.ServiceName); old != nil && old.status != "INACTIVE" {
		if token := str(in.ClientToken); token != "" && p.tokens["service "+token] == old.arn {
			return old, nil
		}
		if old.status == "DRAINING" {
			return nil, invalid("Unable to Start a service that is still Draining.")
		}
		return nil, invalid("Creation of service was not idempotent.")
	}
	s := p.newService(c, in)
	def, err := p.checkCreate(s, in)
	if err != nil {
		return nil, err
	}
	c.services = append(c.services, s)
	if token := str(in.ClientToken); token != "" {
		p.tokens["service "+token] = s.arn
	}
	if def != nil {
		p.deploy(s, def)
	}
	return s, nil
}

func (p *Plane) newService(c *cluster, in *sdk.CreateServiceInput) *service {
	s := &service{
		seq: p.nextSeq(), name: *in.ServiceName, arn: p.arn("service", c.name, *in.ServiceName), cluster: c, status: "ACTIVE",
		desired: value(in.DesiredCount), controller: types.DeploymentControllerTypeEcs,
		scheduling: types.SchedulingStrategy(or(string(in.SchedulingStrategy), string(types.SchedulingStrategyReplica))),
		launchType: types.LaunchType(or(string(in.LaunchType), string(types.LaunchTypeEc2))), capacity: in.CapacityProviderStrategy,
		balancers: in.LoadBalancers, network: in.NetworkConfiguration, registries: in.ServiceRegistries, constraints: in.PlacementConstraints,
		strategy: in.PlacementStrategy, grace: in.HealthCheckGracePeriodSeconds, exec: in.EnableExecuteCommand, managedTags: in.EnableECSManagedTags,
		propagate: types.PropagateTags(or(string(in.PropagateTags), string(types.PropagateTagsNone))), created: p.now(), tags: slices.Clone(in.Tags),
		balancing: types.AvailabilityZoneRebalancing(or(string(in.AvailabilityZoneRebalancing), string(types.AvailabilityZoneRebalancingEnabled))),
		role:      str(in.Role),
	}
	if in.DeploymentController != nil {
		s.controller = in.DeploymentController.Type
	}
	s.config = merge(defaultConfig(s.scheduling), in.DeploymentConfiguration)
	return s
}

// defaultConfig is a deployment configuration as AWS gives it to who says nothing.
func defaultConfig(scheduling types.SchedulingStrategy) types.DeploymentConfiguration {
	low, high := int32(100), int32(200)
	if scheduling == types.SchedulingStrategyDaemon {
		low, high = 0, 100
	}
	return types.DeploymentConfiguration{
		MinimumHealthyPercent: &low, MaximumPercent: &high, Strategy: types.DeploymentStrategyRolling, BakeTimeInMinutes: ptr(int32(0)),
		DeploymentCircuitBreaker: &types.DeploymentCircuitBreaker{},
	}
}

func (p *Plane) checkCreate(s *service, in *sdk.CreateServiceInput) (*definition, error) {
	if s.daemon() && in.DesiredCount != nil {
		return nil, invalid("The daemon scheduling strategy does not support a desired count for services. Remove the desired count and try again.")
	}
	if s.launchType != types.LaunchTypeEc2 {
		return nil, refuse("UnsupportedFeatureException", "The lab has no capacity of launch type "+string(s.launchType)+".")
	}
	if err := checkConfig(s.config, s.scheduling); err != nil {
		return nil, err
	}
	if err := checkPlacement(s.constraints); err != nil {
		return nil, err
	}
	if in.TaskDefinition == nil {
		if s.controller == types.DeploymentControllerTypeExternal {
			return nil, nil
		}
		return nil, invalid("TaskDefinition cannot be empty.")
	}
	def, err := p.state.use(*in.TaskDefinition)
	if err != nil {
		return nil, err
	}
	if def.td.NetworkMode == types.NetworkModeAwsvpc && s.network == nil {
		return nil, invalid("Network Configuration must be provided when networkMode 'awsvpc' is specified.")
	}
	if err := checkShift(s.config, s.balancers); err != nil {
		return nil, err
	}
	return def, checkBalancers(s.balancers, def)
}

// DeleteService drains a service. One that still wants tasks must be forced.
func (p *Plane) DeleteService(_ context.Context, in *sdk.DeleteServiceInput) (*sdk.DeleteServiceOutput, error) {
	out := &sdk.DeleteServiceOutput{}
	err := errClosed
	p.mutate(func() {
		var s *service
		if s, err = p.delete(in); err == nil {
			out.Service = ptr(s.render(false))
		}
	})
	return answer(out, err)
}

func (p *Plane) delete(in *sdk.DeleteServiceInput) (*service, error) {
	s, err := p.state.serviceFor(in.Cluster, str(in.Service))
	if err != nil {
		return nil, err
	}
	if s.status == "INACTIVE" {
		return nil, noService()
	}
	force := in.Force != nil && *in.Force
	if !force && !s.daemon() && s.desired > 0 && s.rolls() {
		return nil, invalid("The service cannot be stopped while it is scaled above 0.")
	}
	if !force && !s.rolls() && len(s.deployments) > 0 {
		return nil, invalid("The service cannot be stopped while deployments are active.")
	}
	p.drainService(s)
	return s, nil
}

func (p *Plane) drainService(s *service) {
	s.status, s.desired = "DRAINING", 0
	if len(s.deployments) == 0 {
		p.retireService(s)
		return
	}
	p.kick(s, timeStep)
}
