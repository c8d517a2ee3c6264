package ecs

import (
	"context"
	"slices"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// ListServices lists the services of a cluster, ten a page unless asked for more.
func (p *Plane) ListServices(ctx context.Context, in *sdk.ListServicesInput) (*sdk.ListServicesOutput, error) {
	out := &sdk.ListServicesOutput{}
	err := p.read(ctx, func(st *state) error {
		c, err := st.find(in.Cluster)
		if err != nil {
			return err
		}
		var items []listed
		for _, s := range c.services {
			if s.status != "INACTIVE" && s.matches(in) {
				items = append(items, listed{s.seq, s.arn})
			}
		}
		query := strings.Join([]string{"ListServices", c.name, string(in.LaunchType), string(in.SchedulingStrategy)}, "|")
		out.ServiceArns, out.NextToken, err = page{query: query, token: in.NextToken, max: in.MaxResults, size: 10}.cut(items)
		return err
	})
	return answer(out, err)
}

func (s *service) matches(in *sdk.ListServicesInput) bool {
	return (in.LaunchType == "" || in.LaunchType == s.launchType) &&
		(in.SchedulingStrategy == "" || in.SchedulingStrategy == s.scheduling) &&
		(in.ResourceManagementType == "" || in.ResourceManagementType == types.ResourceManagementTypeCustomer)
}

// ListServicesByNamespace lists none: the lab has no Cloud Map namespaces.
func (p *Plane) ListServicesByNamespace(_ context.Context, in *sdk.ListServicesByNamespaceInput) (*sdk.ListServicesByNamespaceOutput, error) {
	return nil, refuse("NamespaceNotFoundException", "The specified namespace was not found: "+str(in.Namespace))
}

// DescribeServices describes up to ten services by name or ARN.
func (p *Plane) DescribeServices(ctx context.Context, in *sdk.DescribeServicesInput) (*sdk.DescribeServicesOutput, error) {
	if len(in.Services) == 0 {
		return nil, invalid("Services cannot be empty.")
	}
	if len(in.Services) > 10 {
		return nil, invalid("Services can have at most 10 elements.")
	}
	out := &sdk.DescribeServicesOutput{Services: []types.Service{}, Failures: []types.Failure{}}
	err := p.read(ctx, func(st *state) error {
		c, err := st.find(in.Cluster)
		if err != nil {
			return err
		}
		for _, name := range in.Services {
			if s := c.service(name); s != nil {
				out.Services = append(out.Services, s.render(slices.Contains(in.Include, types.ServiceFieldTags)))
			} else {
				out.Failures = append(out.Failures, missing(p.serviceARN(c, name)))
			}
		}
		return nil
	})
	return answer(out, err)
}

func (p *Plane) serviceARN(c *cluster, name string) string {
	if isARN(name, "service") {
		return name
	}
	return p.arn("service", c.name, name)
}

// serviceFor finds the service that a request names, by name or ARN; the ARN's
// cluster must be the one that is asked for.
func (st *state) serviceFor(clusterName *string, name string) (*service, error) {
	c, err := st.find(clusterName)
	if clusterName == nil && isARN(name, "service") {
		c, err = st.clusterOf(name)
	}
	if err != nil {
		return nil, err
	}
	s := c.service(name)
	if s == nil {
		return nil, noService()
	}
	return s, nil
}

// clusterOf is the cluster in a long ARN; without one, the default cluster.
func (st *state) clusterOf(arn string) (*cluster, error) {
	parts := strings.Split(arn, "/")
	if len(parts) == 3 {
		return st.find(&parts[1])
	}
	return st.find(nil)
}

func (s *service) render(tags bool) types.Service {
	out := types.Service{
		ServiceArn: ptr(s.arn), ServiceName: ptr(s.name), ClusterArn: ptr(s.cluster.arn), Status: ptr(s.status),
		DesiredCount: int32(s.desired), LaunchType: s.launchType, CapacityProviderStrategy: s.capacity,
		DeploymentConfiguration: ptr(s.config), DeploymentController: &types.DeploymentController{Type: s.controller},
		Deployments: []types.Deployment{}, TaskSets: []types.TaskSet{}, Events: slices.Clone(orEmpty(s.events)),
		LoadBalancers: orEmpty(s.balancers), ServiceRegistries: orEmpty(s.registries), NetworkConfiguration: s.network,
		PlacementConstraints: orEmpty(s.constraints), PlacementStrategy: orEmpty(s.strategy), HealthCheckGracePeriodSeconds: s.grace,
		SchedulingStrategy: s.scheduling, CreatedAt: when(s.created), CreatedBy: ptr("arn:aws:iam::" + accountOf(s.arn) + ":user/lab"),
		EnableECSManagedTags: s.managedTags, EnableExecuteCommand: s.exec, PropagateTags: s.propagate, AvailabilityZoneRebalancing: s.balancing,
		RoleArn: orNil(s.role),
	}
	for _, t := range s.tasks {
		if t.running() {
			out.RunningCount++
		} else if t.pending() && t.wanted() {
			out.PendingCount++
		}
	}
	if tags {
		out.Tags = slices.Clone(s.tags)
	}
	s.renderDeployments(&out)
	return out
}

func accountOf(arn string) string { return strings.Split(arn, ":")[4] }

func (s *service) renderDeployments(out *types.Service) {
	if d := s.primary(); d != nil {
		out.TaskDefinition = d.def.td.TaskDefinitionArn
	}
	if !s.rolls() {
		out.TaskSets = s.taskSets()
		return
	}
	for _, d := range s.deployments {
		out.Deployments = append(out.Deployments, d.render())
		want, running, pending := d.counts()
		out.CurrentServiceRevisions = append(out.CurrentServiceRevisions, types.ServiceCurrentRevisionSummary{
			Arn: ptr(d.revision.arn), RequestedTaskCount: int32(want), RunningTaskCount: int32(running), PendingTaskCount: int32(pending)})
	}
	if r := s.lastRollout(); r != nil {
		out.CurrentServiceDeployment = ptr(r.arn)
	}
}

func (d *deployment) render() types.Deployment {
	want, running, pending := d.counts()
	out := types.Deployment{
		Id: ptr(d.id), Status: ptr(d.status), TaskDefinition: d.def.td.TaskDefinitionArn, DesiredCount: int32(want),
		RunningCount: int32(running), PendingCount: int32(pending), FailedTasks: int32(d.failed), LaunchType: d.service.launchType,
		CapacityProviderStrategy: d.service.capacity, NetworkConfiguration: d.network, CreatedAt: when(d.created), UpdatedAt: when(d.updated),
	}
	if !d.service.classic() {
		out.RolloutState, out.RolloutStateReason = d.state, ptr(d.reason)
	}
	return out
}

// taskSets shows the deployments of a service that ECS does not roll itself.
func (s *service) taskSets() []types.TaskSet {
	sets := []types.TaskSet{}
	for _, d := range s.deployments {
		want, running, pending := d.counts()
		stable := types.StabilityStatusStabilizing
		if running == want && pending == 0 {
			stable = types.StabilityStatusSteadyState
		}
		sets = append(sets, types.TaskSet{
			Id: ptr(d.id), TaskSetArn: ptr(strings.Replace(s.arn, ":service/", ":task-set/", 1) + "/" + lastPart(d.id)),
			ServiceArn: ptr(s.arn), ClusterArn: ptr(s.cluster.arn), Status: ptr(d.status), TaskDefinition: d.def.td.TaskDefinitionArn,
			ComputedDesiredCount: int32(want), RunningCount: int32(running), PendingCount: int32(pending), LaunchType: s.launchType,
			Scale: &types.Scale{Unit: types.ScaleUnitPercent, Value: 100}, StabilityStatus: stable, StabilityStatusAt: when(d.updated),
			CreatedAt: when(d.created), UpdatedAt: when(d.updated), StartedBy: ptr(string(s.controller)), LoadBalancers: orEmpty(s.balancers),
			NetworkConfiguration: d.network,
		})
	}
	return sets
}
