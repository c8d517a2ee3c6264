package ecs

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// ListContainerInstances lists the container instances of a cluster.
func (p *Plane) ListContainerInstances(ctx context.Context, in *sdk.ListContainerInstancesInput) (*sdk.ListContainerInstancesOutput, error) {
	filter, err := parseExpression(str(in.Filter))
	if err != nil {
		return nil, err
	}
	out := &sdk.ListContainerInstancesOutput{}
	err = p.read(ctx, func(st *state) error {
		c, err := st.find(in.Cluster)
		if err != nil {
			return err
		}
		var items []listed
		for _, i := range c.instances {
			if listsInstance(i, in.Status) && filter(i) {
				items = append(items, listed{i.seq, i.arn})
			}
		}
		query := strings.Join([]string{"ListContainerInstances", c.name, str(in.Filter), string(in.Status)}, "|")
		out.ContainerInstanceArns, out.NextToken, err = page{query: query, token: in.NextToken, max: in.MaxResults, size: 100}.cut(items)
		return err
	})
	return answer(out, err)
}

// listsInstance applies the status filter. Without one AWS lists all but the
// ones that are INACTIVE.
func listsInstance(i *instance, status types.ContainerInstanceStatus) bool {
	return status == "" && i.status != "INACTIVE" || i.status == string(status)
}

// DescribeContainerInstances describes up to 100 container instances by ID or ARN.
func (p *Plane) DescribeContainerInstances(ctx context.Context, in *sdk.DescribeContainerInstancesInput) (*sdk.DescribeContainerInstancesOutput, error) {
	if len(in.ContainerInstances) == 0 {
		return nil, invalid("Container instance identifiers cannot be empty.")
	}
	if len(in.ContainerInstances) > 100 {
		return nil, invalid("Container instance identifiers can have at most 100 elements.")
	}
	out := &sdk.DescribeContainerInstancesOutput{ContainerInstances: []types.ContainerInstance{}, Failures: []types.Failure{}}
	err := p.read(ctx, func(st *state) error {
		c, err := st.find(in.Cluster)
		if err != nil {
			return err
		}
		byID := c.instancesByID()
		for _, name := range in.ContainerInstances {
			if i := byID[lastPart(name)]; i != nil {
				out.ContainerInstances = append(out.ContainerInstances, i.render(in.Include))
			} else {
				out.Failures = append(out.Failures, missing(p.instanceARN(c, name)))
			}
		}
		return nil
	})
	return answer(out, err)
}

func (c *cluster) instancesByID() map[string]*instance {
	m := make(map[string]*instance, len(c.instances))
	for _, i := range c.instances {
		m[i.id] = i
	}
	return m
}

func (c *cluster) instance(name string) *instance {
	for _, i := range c.instances {
		if i.id == lastPart(name) {
			return i
		}
	}
	return nil
}

func (p *Plane) instanceARN(c *cluster, name string) string {
	if isARN(name, "container-instance") {
		return name
	}
	return p.arn("container-instance", c.name, name)
}

// UpdateContainerInstancesState makes up to ten instances ACTIVE or DRAINING.
func (p *Plane) UpdateContainerInstancesState(_ context.Context, in *sdk.UpdateContainerInstancesStateInput) (*sdk.UpdateContainerInstancesStateOutput, error) {
	if len(in.ContainerInstances) == 0 || len(in.ContainerInstances) > 10 {
		return nil, invalid("Container instance identifiers must have between 1 and 10 elements.")
	}
	if in.Status != types.ContainerInstanceStatusActive && in.Status != types.ContainerInstanceStatusDraining {
		return nil, invalid("Container instance status should be one of [DRAINING,ACTIVE]")
	}
	out := &sdk.UpdateContainerInstancesStateOutput{ContainerInstances: []types.ContainerInstance{}, Failures: []types.Failure{}}
	err := errClosed
	p.mutate(func() {
		var c *cluster
		if c, err = p.state.find(in.Cluster); err != nil {
			return
		}
		for _, name := range in.ContainerInstances {
			i := c.instance(name)
			if i == nil {
				out.Failures = append(out.Failures, missing(p.instanceARN(c, name)))
				continue
			}
			p.setInstanceStatus(i, string(in.Status))
			out.ContainerInstances = append(out.ContainerInstances, i.render(nil))
		}
	})
	return answer(out, err)
}

func (p *Plane) setInstanceStatus(i *instance, status string) {
	i.status = status
	i.version++
	p.kickCluster(i.cluster)
}

// DeregisterContainerInstance takes an instance out of its cluster. One with
// tasks must be forced: they are stopped, and services place them elsewhere.
func (p *Plane) DeregisterContainerInstance(_ context.Context, in *sdk.DeregisterContainerInstanceInput) (*sdk.DeregisterContainerInstanceOutput, error) {
	out := &sdk.DeregisterContainerInstanceOutput{}
	err := errClosed
	p.mutate(func() {
		var i *instance
		if i, err = p.deregisterInstance(in); err == nil {
			out.ContainerInstance = ptr(i.render(nil))
		}
	})
	return answer(out, err)
}

func (p *Plane) deregisterInstance(in *sdk.DeregisterContainerInstanceInput) (*instance, error) {
	c, err := p.state.find(in.Cluster)
	if err != nil {
		return nil, err
	}
	i := c.instance(str(in.ContainerInstance))
	if i == nil {
		return nil, invalid("The referenced container instance was not found.")
	}
	if len(i.tasks) > 0 && (in.Force == nil || !*in.Force) {
		return nil, invalid("Found running tasks on the instance.")
	}
	i.connected = false
	host := i.ec2
	p.outbox.send(func() { p.engine.Lose(host) })
	p.forgetHost(i, types.TaskStopCodeUserInitiated, "Container instance deregistration forced by user")
	return i, nil
}

// ListAttributes lists the attributes of container instances.
func (p *Plane) ListAttributes(ctx context.Context, in *sdk.ListAttributesInput) (*sdk.ListAttributesOutput, error) {
	out := &sdk.ListAttributesOutput{Attributes: []types.Attribute{}}
	err := p.read(ctx, func(st *state) error {
		c, err := st.find(in.Cluster)
		if err != nil {
			return err
		}
		found := c.attributesLike(str(in.AttributeName), str(in.AttributeValue))
		keys := make([]string, len(found))
		for i := range found {
			keys[i] = strconv.Itoa(i)
		}
		query := strings.Join([]string{"ListAttributes", c.name, str(in.AttributeName), str(in.AttributeValue)}, "|")
		cut, next, err := page{query: query, token: in.NextToken, max: in.MaxResults, size: 100}.cut(numbered(keys))
		for _, key := range cut {
			n, _ := strconv.Atoi(key)
			out.Attributes = append(out.Attributes, found[n])
		}
		out.NextToken = next
		return err
	})
	return answer(out, err)
}

func (c *cluster) attributesLike(name, value string) []types.Attribute {
	var found []types.Attribute
	for _, i := range c.instances {
		for _, a := range i.allAttributes() {
			if (name == "" || str(a.Name) == name) && (value == "" || str(a.Value) == value) {
				a.TargetId = ptr(i.arn)
				found = append(found, a)
			}
		}
	}
	return found
}

// capabilities are what the ECS agent of an Amazon Linux 2023 host registers.
var capabilities = []string{
	"com.amazonaws.ecs.capability.docker-remote-api.1.17", "com.amazonaws.ecs.capability.docker-remote-api.1.18",
	"com.amazonaws.ecs.capability.docker-remote-api.1.19", "com.amazonaws.ecs.capability.docker-remote-api.1.21",
	"com.amazonaws.ecs.capability.docker-remote-api.1.24", "com.amazonaws.ecs.capability.docker-remote-api.1.29",
	"com.amazonaws.ecs.capability.docker-remote-api.1.32",
	"com.amazonaws.ecs.capability.ecr-auth", "com.amazonaws.ecs.capability.task-iam-role",
	"com.amazonaws.ecs.capability.task-iam-role-network-host", "com.amazonaws.ecs.capability.logging-driver.json-file",
	"com.amazonaws.ecs.capability.logging-driver.syslog", "com.amazonaws.ecs.capability.logging-driver.journald",
	"com.amazonaws.ecs.capability.logging-driver.awslogs", "com.amazonaws.ecs.capability.logging-driver.none",
	"com.amazonaws.ecs.capability.privileged-container",
	"ecs.capability.execution-role-ecr-pull", "ecs.capability.execution-role-awslogs", "ecs.capability.container-health-check",
	"ecs.capability.task-eni", "ecs.capability.container-ordering", "ecs.capability.secrets.ssm.environment-variables",
	"ecs.capability.secrets.asm.environment-variables", "ecs.capability.full-sync", "ecs.capability.env-files.s3",
	"ecs.capability.docker-plugin.local", "ecs.capability.efs", "ecs.capability.pid-ipc-namespace-sharing",
}

func (i *instance) allAttributes() []types.Attribute {
	out := make([]types.Attribute, 0, len(capabilities)+8)
	for _, name := range capabilities {
		out = append(out, types.Attribute{Name: ptr(name)})
	}
	add := func(name, value string) {
		out = append(out, types.Attribute{Name: ptr(name), Value: ptr(value)})
	}
	add("ecs.availability-zone", i.zone)
	add("ecs.instance-type", i.instanceType())
	add("ecs.cpu-architecture", i.arch)
	add("ecs.os-type", "linux")
	add("ecs.os-family", "LINUX")
	add("ecs.ami-id", "ami-0123456789abcdef0")
	return append(out, i.attributes...)
}

// attribute is the value of an attribute, and whether the instance has it.
func (i *instance) attribute(name string) (string, bool) {
	switch name {
	case "ecs.availability-zone":
		return i.zone, true
	case "ecs.cpu-architecture":
		return i.arch, true
	}
	for _, a := range i.allAttributes() {
		if str(a.Name) == name {
			return str(a.Value), true
		}
	}
	return "", false
}

func (i *instance) instanceType() string {
	if i.arch == "arm64" {
		return "t4g.medium"
	}
	return "t3.medium"
}

func (i *instance) render(include []types.ContainerInstanceField) types.ContainerInstance {
	out := types.ContainerInstance{
		ContainerInstanceArn: ptr(i.arn), Ec2InstanceId: ptr(i.ec2), Status: ptr(i.status), AgentConnected: i.connected,
		RegisteredAt: when(i.registered), Version: i.version,
		VersionInfo:         &types.VersionInfo{AgentVersion: ptr("1.86.3"), AgentHash: ptr("1a2b3c4d"), DockerVersion: ptr("DockerVersion: 25.0.8")},
		RegisteredResources: append(resources(i.cpu, i.memory, i.reserved, nil), gpuResource(i.gpus)...),
		RemainingResources: append(resources(i.cpu-i.usedCPU, i.memory-i.usedMemory, slices.Concat(i.reserved, i.fixedPorts(false)), i.fixedPorts(true)),
			gpuResource(i.gpus-i.usedGPUs)...),
		Attributes: i.allAttributes(), Attachments: []types.Attachment{}, Tags: []types.Tag{},
	}
	for _, t := range i.tasks {
		if t.running() {
			out.RunningTasksCount++
		} else if t.pending() {
			out.PendingTasksCount++
		}
	}
	if slices.Contains(include, types.ContainerInstanceFieldTags) {
		out.Tags = slices.Clone(i.tags)
	}
	if slices.Contains(include, types.ContainerInstanceFieldContainerInstanceHealth) {
		out.HealthStatus = &types.ContainerInstanceHealthStatus{OverallStatus: types.InstanceHealthCheckStateOk}
	}
	return out
}

// fixedPorts are the host ports, TCP's or UDP's, that tasks have because their
// definitions name them. Ports that docker chose are not among them: the
// scheduler learns of them too late to reckon with them.
func (i *instance) fixedPorts(udp bool) []int {
	var ports []int
	for _, t := range i.tasks {
		for _, c := range t.containers {
			for _, b := range c.ports {
				if b.fixed && b.udp == udp {
					ports = append(ports, b.host)
				}
			}
		}
	}
	return ports
}

// resources are the four of an EC2 instance. PORTS are the ones that are taken,
// in the registered ones as in the remaining ones.
func resources(cpu, memory int, ports, udp []int) []types.Resource {
	taken := func(ports []int) []string {
		out := make([]string, len(ports))
		for n, port := range ports {
			out[n] = strconv.Itoa(port)
		}
		return out
	}
	return []types.Resource{
		{Name: ptr("CPU"), Type: ptr("INTEGER"), IntegerValue: int32(cpu)},
		{Name: ptr("MEMORY"), Type: ptr("INTEGER"), IntegerValue: int32(memory)},
		{Name: ptr("PORTS"), Type: ptr("STRINGSET"), StringSetValue: taken(ports)},
		{Name: ptr("PORTS_UDP"), Type: ptr("STRINGSET"), StringSetValue: taken(udp)},
	}
}

// gpuResource is the fifth one, which instances with GPUs have: their ids, of
// those that are free in the remaining ones.
func gpuResource(n int) []types.Resource {
	if n == 0 {
		return nil
	}
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("GPU-%08d", i)
	}
	return []types.Resource{{Name: ptr("GPU"), Type: ptr("STRINGSET"), StringSetValue: ids}}
}

// when is a time for an answer; the zero time is left out.
func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.Truncate(time.Millisecond)
	return &t
}

func (i *instance) String() string { return fmt.Sprintf("%s (%s)", i.id, i.ec2) }
