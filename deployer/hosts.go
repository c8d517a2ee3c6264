package deployer

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/internal/awsconfig"
)

// need is what a task takes of its host: what ECS's scheduler reckons with when
// it places one (developer guide, "Amazon ECS task placement").
type need struct {
	cpu, memory, gpus int      // CPU units, MiB
	ports             []string // host ports that the definition names, as in 8080/tcp
	attributes        []types.Attribute
	platform          platform // that the definition asks for; empty parts: any
	distinct          bool     // no two on one host
	expressions       []string // of placement constraints
	interfaces        bool     // a network interface for each
}

// needOf is what tasks of a definition take, of a service with constraints.
func needOf(in *ecs.RegisterTaskDefinitionInput, attributes []types.Attribute, service types.Service) need {
	n := need{attributes: attributes, interfaces: in.NetworkMode == types.NetworkModeAwsvpc}
	for _, c := range in.ContainerDefinitions {
		n.cpu += int(c.Cpu)
		n.memory += reserved(c)
		n.gpus += gpus(c)
		if in.NetworkMode != types.NetworkModeAwsvpc && in.NetworkMode != types.NetworkModeNone {
			n.ports = append(n.ports, hostPorts(c)...)
		}
	}
	n.cpu, n.memory = size(in.Cpu, n.cpu), size(in.Memory, n.memory)
	if p := in.RuntimePlatform; p != nil {
		n.platform = platform{osOf(string(p.OperatingSystemFamily)), archOf(string(p.CpuArchitecture))}
	}
	for _, c := range in.PlacementConstraints {
		n.constrain(string(c.Type), aws.ToString(c.Expression))
	}
	for _, c := range service.PlacementConstraints {
		n.constrain(string(c.Type), aws.ToString(c.Expression))
	}
	return n
}

func (n *need) constrain(kind, expression string) {
	switch kind {
	case string(types.PlacementConstraintTypeDistinctInstance):
		n.distinct = true
	case string(types.PlacementConstraintTypeMemberOf):
		n.expressions = append(n.expressions, expression)
	}
}

// reserved is the memory that a container takes: its soft limit counts before
// its hard one (doc comment of ContainerDefinition.Memory).
func reserved(c types.ContainerDefinition) int {
	if c.MemoryReservation != nil {
		return int(*c.MemoryReservation)
	}
	return int(aws.ToInt32(c.Memory))
}

func gpus(c types.ContainerDefinition) int {
	total := 0
	for _, r := range c.ResourceRequirements {
		if r.Type == types.ResourceTypeGpu {
			total += whole(aws.ToString(r.Value))
		}
	}
	return total
}

// size is a task's own size, which counts before the sum of its containers'.
func size(task *string, sum int) int {
	if n := whole(aws.ToString(task)); n > 0 {
		return n
	}
	return sum
}

func hostPorts(c types.ContainerDefinition) []string {
	var out []string
	for _, m := range c.PortMappings {
		if port := aws.ToInt32(m.HostPort); port != 0 {
			out = append(out, portName(int(port), string(m.Protocol)))
		}
	}
	return out
}

func portName(port int, protocol string) string {
	if protocol == "" {
		protocol = "tcp"
	}
	return fmt.Sprintf("%d/%s", port, protocol)
}

// osOf and archOf are Docker's words for ECS's: LINUX, WINDOWS_SERVER_2022_CORE;
// x86_64, X86_64, arm64, ARM64.
func osOf(family string) string {
	name, _, _ := strings.Cut(strings.ToLower(family), "_")
	return name
}

func archOf(name string) string {
	if name = strings.ToLower(name); name == "x86_64" {
		return "amd64"
	}
	return name
}

// host is a container instance, as far as it matters for placing a task.
type host struct {
	name, arn         string // EC2 instance id
	status            string // ACTIVE, DRAINING, …
	connected         bool
	cpu, memory, gpus int             // free
	ports             map[string]bool // taken
	attributes        map[string]string
	excluded          bool // by a placement constraint
	has               int  // tasks of the service
}

// platform is the host's own. Where it does not say, it is Linux's.
func (h host) platform() platform {
	p := platform{strings.ToLower(h.attributes["ecs.os-type"]), archOf(h.attributes["ecs.cpu-architecture"])}
	if p.OS == "" {
		p.OS = "linux"
	}
	return p
}

// mostHosts is how many hosts are looked at: reading them takes from the same
// bucket of AWS's as the following does.
const mostHosts = 1000

// hosts reads a cluster's hosts. More is whether there are more than it read.
func (d *Deployer) hosts(ctx context.Context, expressions []string) (found []host, more bool, err error) {
	arns, more, err := d.listHosts(ctx, "")
	if err != nil {
		return nil, false, err
	}
	for rest := arns; len(rest) > 0; {
		n := min(len(rest), 100)
		out, err := d.patient.DescribeContainerInstances(ctx, &ecs.DescribeContainerInstancesInput{Cluster: &d.cluster, ContainerInstances: rest[:n]})
		if err != nil {
			return nil, false, fmt.Errorf("describe hosts: %w", awsconfig.Explain(err))
		}
		for _, c := range out.ContainerInstances {
			found = append(found, newHost(c))
		}
		rest = rest[n:]
	}
	for _, e := range expressions {
		if err := d.exclude(ctx, found, e); err != nil {
			return nil, false, err
		}
	}
	return found, more, nil
}

// listHosts lists up to mostHosts hosts, those that an expression of ECS's query
// language matches, if there is one.
func (d *Deployer) listHosts(ctx context.Context, expression string) (arns []string, more bool, err error) {
	in := &ecs.ListContainerInstancesInput{Cluster: &d.cluster, MaxResults: aws.Int32(100)}
	if expression != "" {
		in.Filter = &expression
	}
	for {
		out, err := d.patient.ListContainerInstances(ctx, in)
		if err != nil {
			return nil, false, fmt.Errorf("list hosts: %w", awsconfig.Explain(err))
		}
		arns = append(arns, out.ContainerInstanceArns...)
		in.NextToken = out.NextToken
		if end := aws.ToString(out.NextToken) == ""; end || len(arns) >= mostHosts {
			return arns, !end, nil
		}
	}
}

// exclude marks the hosts that an expression does not match. ECS itself is
// asked: its query language is its own.
func (d *Deployer) exclude(ctx context.Context, hosts []host, expression string) error {
	arns, _, err := d.listHosts(ctx, expression)
	if err != nil {
		return err
	}
	matches := map[string]bool{}
	for _, arn := range arns {
		matches[arn] = true
	}
	for i := range hosts {
		hosts[i].excluded = hosts[i].excluded || !matches[hosts[i].arn]
	}
	return nil
}

func newHost(c types.ContainerInstance) host {
	h := host{name: aws.ToString(c.Ec2InstanceId), arn: aws.ToString(c.ContainerInstanceArn), status: aws.ToString(c.Status), connected: c.AgentConnected,
		ports: map[string]bool{}, attributes: map[string]string{}}
	for _, r := range c.RemainingResources {
		h.take(r)
	}
	for _, a := range c.Attributes {
		h.attributes[aws.ToString(a.Name)] = aws.ToString(a.Value)
	}
	return h
}

// take notes what is left of a resource. Of ports ECS tells those that are taken.
func (h *host) take(r types.Resource) {
	switch aws.ToString(r.Name) {
	case "CPU":
		h.cpu = int(r.IntegerValue)
	case "MEMORY":
		h.memory = int(r.IntegerValue)
	case "GPU":
		h.gpus = len(r.StringSetValue)
	case "PORTS":
		h.occupy(r.StringSetValue, "tcp")
	case "PORTS_UDP":
		h.occupy(r.StringSetValue, "udp")
	}
}

func (h *host) occupy(ports []string, protocol string) {
	for _, p := range ports {
		if n, err := strconv.Atoi(p); err == nil {
			h.ports[portName(n, protocol)] = true
		}
	}
}
