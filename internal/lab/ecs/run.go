package ecs

import (
	"context"
	"slices"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// RunTask starts up to ten tasks outside of any service. What finds no place is
// in the failures.
func (p *Plane) RunTask(_ context.Context, in *sdk.RunTaskInput) (*sdk.RunTaskOutput, error) {
	count := 1
	if in.Count != nil {
		count = int(*in.Count)
	}
	if count < 1 || count > 10 {
		return nil, invalid("Count must be between 1 and 10.")
	}
	if in.LaunchType != "" && in.LaunchType != types.LaunchTypeEc2 {
		return nil, refuse("UnsupportedFeatureException", "The lab has no capacity of launch type "+string(in.LaunchType)+".")
	}
	if err := checkTags(in.Tags, "Tags can not be empty."); err != nil {
		return nil, err
	}
	out := &sdk.RunTaskOutput{Tasks: []types.Task{}, Failures: []types.Failure{}}
	err := errClosed
	p.mutate(func() { err = p.run(in, count, out) })
	return answer(out, err)
}

func (p *Plane) run(in *sdk.RunTaskInput, count int, out *sdk.RunTaskOutput) error {
	c, def, err := p.runnable(in.Cluster, in.TaskDefinition, in.NetworkConfiguration)
	if err != nil {
		return err
	}
	if err := checkPlacement(in.PlacementConstraints); err != nil {
		return err
	}
	if token := str(in.ClientToken); token != "" && p.again(c, token, out) {
		return nil
	}
	if len(c.instances) == 0 {
		return invalid("No Container Instances were found in your cluster.")
	}
	n := need(def, in.PlacementConstraints)
	n.group = or(str(in.Group), "family:"+*def.td.Family)
	s := spreadOf(c, nil)
	for range count {
		i, l := c.place(&n, s)
		if l != fits {
			out.Failures = append(out.Failures, types.Failure{Arn: ptr(i.arn), Reason: ptr(l.failure())})
			continue
		}
		s.add(i, 1)
		t := p.loneTask(c, i, def, &n, lone{str(in.StartedBy), in.Overrides, in.Tags, in.EnableExecuteCommand})
		out.Tasks = append(out.Tasks, t.render(true))
		p.remember(str(in.ClientToken), t)
	}
	return nil
}

// remember keeps what a client token stands for.
func (p *Plane) remember(token string, t *task) {
	if token != "" {
		p.tokens["task "+token] += t.id + " "
	}
}

// again answers a request that was made before, with the same client token.
func (p *Plane) again(c *cluster, token string, out *sdk.RunTaskOutput) bool {
	for _, id := range strings.Fields(p.tokens["task "+token]) {
		if t := c.task(id); t != nil {
			out.Tasks = append(out.Tasks, t.render(true))
		}
	}
	return len(out.Tasks) > 0
}

// runnable finds the cluster and the definition of a task that is to run.
func (p *Plane) runnable(clusterName, definitionName *string, network *types.NetworkConfiguration) (*cluster, *definition, error) {
	c, err := p.state.find(clusterName)
	if err != nil {
		return nil, nil, err
	}
	def, err := p.state.use(str(definitionName))
	if err != nil {
		return nil, nil, err
	}
	if def.td.NetworkMode == types.NetworkModeAwsvpc && network == nil {
		return nil, nil, invalid("Network Configuration must be provided when networkMode 'awsvpc' is specified.")
	}
	return c, def, nil
}

// lone is what a caller gives to tasks that belong to no service.
type lone struct {
	startedBy string
	overrides *types.TaskOverride
	tags      []types.Tag
	exec      bool
}

func (p *Plane) loneTask(c *cluster, i *instance, def *definition, n *needs, l lone) *task {
	t := p.newTask(c, i, def, n)
	t.group, t.startedBy, t.overrides, t.tags, t.exec = n.group, l.startedBy, l.overrides, slices.Clone(l.tags), l.exec
	p.begin(t)
	return t
}

// StartTask starts a task on each of up to ten instances that the caller names.
func (p *Plane) StartTask(_ context.Context, in *sdk.StartTaskInput) (*sdk.StartTaskOutput, error) {
	if len(in.ContainerInstances) == 0 || len(in.ContainerInstances) > 10 {
		return nil, invalid("Container instances must have between 1 and 10 elements.")
	}
	if err := checkTags(in.Tags, "Tags can not be empty."); err != nil {
		return nil, err
	}
	out := &sdk.StartTaskOutput{Tasks: []types.Task{}, Failures: []types.Failure{}}
	err := errClosed
	p.mutate(func() { err = p.startOn(in, out) })
	return answer(out, err)
}

func (p *Plane) startOn(in *sdk.StartTaskInput, out *sdk.StartTaskOutput) error {
	c, def, err := p.runnable(in.Cluster, in.TaskDefinition, in.NetworkConfiguration)
	if err != nil {
		return err
	}
	n := need(def, nil)
	n.group = or(str(in.Group), "family:"+*def.td.Family)
	for _, name := range in.ContainerInstances {
		i := c.instance(name)
		if i == nil {
			out.Failures = append(out.Failures, missing(p.instanceARN(c, name)))
			continue
		}
		if l := i.take(&n); l != fits {
			out.Failures = append(out.Failures, types.Failure{Arn: ptr(i.arn), Reason: ptr(l.failure())})
			continue
		}
		t := p.loneTask(c, i, def, &n, lone{str(in.StartedBy), in.Overrides, in.Tags, in.EnableExecuteCommand})
		out.Tasks = append(out.Tasks, t.render(true))
	}
	return nil
}
