package ecs

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// ListTasks lists the tasks of a cluster whose desired status is RUNNING, or
// what is asked for.
func (p *Plane) ListTasks(ctx context.Context, in *sdk.ListTasksInput) (*sdk.ListTasksOutput, error) {
	if err := checkTaskFilters(in); err != nil {
		return nil, err
	}
	out := &sdk.ListTasksOutput{}
	err := p.read(ctx, func(st *state) error {
		c, err := st.find(in.Cluster)
		if err != nil {
			return err
		}
		match, err := c.taskFilter(in)
		if err != nil {
			return err
		}
		var items []listed
		for _, t := range c.tasks {
			if match(t) {
				items = append(items, listed{t.seq, t.arn})
			}
		}
		query := strings.Join([]string{"ListTasks", c.name, str(in.ContainerInstance), str(in.Family), str(in.ServiceName), str(in.StartedBy), string(in.DesiredStatus), string(in.LaunchType)}, "|")
		out.TaskArns, out.NextToken, err = page{query: query, token: in.NextToken, max: in.MaxResults, size: 100}.cut(items)
		return err
	})
	return answer(out, err)
}

func checkTaskFilters(in *sdk.ListTasksInput) error {
	if in.StartedBy != nil && (in.ServiceName != nil || in.Family != nil || in.ContainerInstance != nil || in.DesiredStatus != "" || in.LaunchType != "") {
		return invalid("cannot specify startedBy with other arguments")
	}
	if in.ServiceName != nil && in.Family != nil {
		return invalid("cannot specify serviceName with other arguments")
	}
	return nil
}

// taskFilter is what the filters of a request let through. An unknown service
// or instance is an error, as on AWS; an unknown family is not.
func (c *cluster) taskFilter(in *sdk.ListTasksInput) (func(*task) bool, error) {
	var s *service
	if in.ServiceName != nil {
		if s = c.service(*in.ServiceName); s == nil {
			return nil, noService()
		}
	}
	var i *instance
	if in.ContainerInstance != nil {
		if i = c.instance(*in.ContainerInstance); i == nil {
			return nil, invalid("Container instance not found.")
		}
	}
	desired := or(string(in.DesiredStatus), "RUNNING")
	return func(t *task) bool {
		return t.desired == desired &&
			(s == nil || t.service == s) && (i == nil || t.instance == i) &&
			(in.Family == nil || *t.def.td.Family == *in.Family) &&
			(in.StartedBy == nil || t.startedBy == *in.StartedBy) &&
			(in.LaunchType == "" || in.LaunchType == types.LaunchTypeEc2)
	}, nil
}

// DescribeTasks describes up to 100 tasks by ID or ARN. Stopped ones are known
// for a while.
func (p *Plane) DescribeTasks(ctx context.Context, in *sdk.DescribeTasksInput) (*sdk.DescribeTasksOutput, error) {
	if len(in.Tasks) == 0 {
		return nil, invalid("Tasks cannot be empty.")
	}
	if len(in.Tasks) > 100 {
		return nil, invalid("Tasks can have at most 100 elements.")
	}
	out := &sdk.DescribeTasksOutput{Tasks: []types.Task{}, Failures: []types.Failure{}}
	err := p.read(ctx, func(st *state) error {
		c, err := st.find(in.Cluster)
		if err != nil {
			return err
		}
		for _, name := range in.Tasks {
			if t := c.task(name); t != nil {
				out.Tasks = append(out.Tasks, t.render(slices.Contains(in.Include, types.TaskFieldTags)))
			} else {
				out.Failures = append(out.Failures, missing(p.taskARN(c, name)))
			}
		}
		return nil
	})
	return answer(out, err)
}

func (p *Plane) taskARN(c *cluster, name string) string {
	if isARN(name, "task") {
		return name
	}
	return p.arn("task", c.name, name)
}

// task finds a task by its ID or ARN; an ARN of another cluster is none.
func (c *cluster) task(name string) *task {
	t := c.byTask[lastPart(name)]
	if t == nil || strings.Contains(name, "/") && t.arn != name {
		return nil
	}
	return t
}

func (t *task) render(tags bool) types.Task {
	out := types.Task{
		TaskArn: ptr(t.arn), ClusterArn: ptr(t.cluster.arn), TaskDefinitionArn: t.def.td.TaskDefinitionArn, ContainerInstanceArn: ptr(t.instance.arn),
		Group: ptr(t.group), StartedBy: orNil(t.startedBy), LastStatus: ptr(t.last), DesiredStatus: ptr(t.desired), HealthStatus: t.healthStatus(),
		LaunchType: types.LaunchTypeEc2, AvailabilityZone: ptr(t.instance.zone), Cpu: ptr(strconv.Itoa(t.needs.cpu)), Memory: ptr(strconv.Itoa(t.needs.memory)),
		CreatedAt: when(t.created), PullStartedAt: when(t.pullStart), PullStoppedAt: when(t.pullStop), StartedAt: when(t.started),
		StoppingAt: when(t.stopping), ExecutionStoppedAt: when(t.ended), StoppedAt: when(t.stopped), StopCode: t.stopCode, StoppedReason: orNil(t.reason),
		Connectivity: types.ConnectivityConnected, ConnectivityAt: when(t.created), EnableExecuteCommand: t.exec, Version: t.version,
		Attributes: []types.Attribute{{Name: ptr("ecs.cpu-architecture"), Value: ptr(t.instance.arch)}}, Attachments: []types.Attachment{},
		Containers: []types.Container{}, Overrides: t.renderOverrides(), Tags: []types.Tag{},
	}
	if t.alive() && !t.instance.connected {
		out.Connectivity = types.ConnectivityDisconnected
	}
	if t.eni != nil {
		out.Attachments = append(out.Attachments, t.attachment())
	}
	for _, c := range t.containers {
		out.Containers = append(out.Containers, t.renderContainer(c))
	}
	if tags {
		out.Tags = slices.Clone(orEmpty(t.tags))
	}
	return out
}

// attachment is a task's network interface.
func (t *task) attachment() types.Attachment {
	status := "ATTACHED"
	switch {
	case t.last == "PROVISIONING":
		status = "PRECREATED"
	case !t.alive():
		status = "DELETED"
	}
	details := []types.KeyValuePair{{Name: ptr("subnetId"), Value: ptr(t.eni.subnet)}}
	if status != "PRECREATED" {
		for _, d := range [][2]string{
			{"networkInterfaceId", t.eni.id}, {"macAddress", t.eni.mac},
			{"privateDnsName", "ip-" + strings.ReplaceAll(t.eni.ip, ".", "-") + "." + strings.Split(t.arn, ":")[3] + ".compute.internal"}, {"privateIPv4Address", t.eni.ip},
		} {
			details = append(details, types.KeyValuePair{Name: ptr(d[0]), Value: ptr(d[1])})
		}
	}
	return types.Attachment{Id: ptr(t.eni.attachment), Type: ptr("ElasticNetworkInterface"), Status: ptr(status), Details: details}
}

func (t *task) renderOverrides() *types.TaskOverride {
	if t.overrides != nil {
		return t.overrides
	}
	out := &types.TaskOverride{ContainerOverrides: []types.ContainerOverride{}}
	for _, c := range t.containers {
		out.ContainerOverrides = append(out.ContainerOverrides, types.ContainerOverride{Name: ptr(c.name)})
	}
	return out
}

func (t *task) renderContainer(c *container) types.Container {
	out := types.Container{
		ContainerArn: ptr(strings.Replace(t.arn, ":task/", ":container/", 1) + "/" + c.id), TaskArn: ptr(t.arn), Name: ptr(c.name),
		Image: ptr(c.image), ImageDigest: orNil(c.digest), RuntimeId: orNil(c.runtime), LastStatus: ptr(c.last), ExitCode: c.exit,
		Reason: orNil(c.reason), HealthStatus: c.health, Cpu: ptr(fmt.Sprint(c.cpu)),
		NetworkBindings: []types.NetworkBinding{}, NetworkInterfaces: []types.NetworkInterface{},
	}
	if c.memory > 0 {
		out.Memory = ptr(fmt.Sprint(c.memory))
	}
	if c.soft > 0 {
		out.MemoryReservation = ptr(fmt.Sprint(c.soft))
	}
	if t.eni != nil {
		out.NetworkInterfaces = []types.NetworkInterface{{AttachmentId: ptr(t.eni.attachment), PrivateIpv4Address: ptr(t.eni.ip)}}
		return out
	}
	if c.runtime == "" {
		return out
	}
	for _, b := range c.ports {
		out.NetworkBindings = append(out.NetworkBindings, types.NetworkBinding{BindIP: ptr("0.0.0.0"),
			ContainerPort: ptr(int32(b.container)), HostPort: ptr(int32(b.host)), Protocol: types.TransportProtocol(b.protocol())})
	}
	return out
}

// StopTask stops a task; its service starts another one.
func (p *Plane) StopTask(_ context.Context, in *sdk.StopTaskInput) (*sdk.StopTaskOutput, error) {
	out := &sdk.StopTaskOutput{}
	err := errClosed
	p.mutate(func() {
		var c *cluster
		if c, err = p.state.find(in.Cluster); err != nil {
			return
		}
		t := c.task(str(in.Task))
		if t == nil {
			err = invalid("The referenced task was not found.")
			return
		}
		p.stopByUser(t, or(str(in.Reason), "Task stopped by user"))
		out.Task = ptr(t.render(false))
	})
	return answer(out, err)
}

func (p *Plane) stopByUser(t *task, reason string) {
	p.stop(t, types.TaskStopCodeUserInitiated, reason)
	if t.service != nil {
		p.kick(t.service, timeStep)
	}
}
