package ecs

import (
	"fmt"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// needs is what a task takes of an instance.
type needs struct {
	cpu, memory int
	gpus        int
	ports       []hostPort // that the definition names
	eni         bool
	arch        string   // empty: any
	attributes  []string // besides those that every instance has
	constraints []matcher
	distinct    bool // from the other tasks of its group
	group       string
}

// need computes what tasks of a definition take. A task's size counts before
// the sum of its containers', and a container's soft memory limit before its hard one.
func need(d *definition, constraints []types.PlacementConstraint) needs {
	n := needs{eni: d.td.NetworkMode == types.NetworkModeAwsvpc, arch: architecture(d)}
	for _, c := range d.td.ContainerDefinitions {
		n.cpu += int(c.Cpu)
		n.memory += reserved(c)
		n.gpus += gpus(c)
		n.ports = append(n.ports, namedPorts(c, d.td.NetworkMode)...)
	}
	n.cpu = size(d.td.Cpu, n.cpu)
	n.memory = size(d.td.Memory, n.memory)
	for _, a := range d.td.RequiresAttributes {
		if !capable[str(a.Name)] {
			n.attributes = append(n.attributes, str(a.Name))
		}
	}
	for _, c := range d.td.PlacementConstraints {
		n.constrain(string(c.Type), str(c.Expression))
	}
	for _, c := range constraints {
		n.constrain(string(c.Type), str(c.Expression))
	}
	return n
}

func (n *needs) constrain(kind, expression string) {
	if kind == string(types.PlacementConstraintTypeDistinctInstance) {
		n.distinct = true
		return
	}
	// What does not parse was refused when it was registered.
	if m, err := parseExpression(expression); err == nil {
		n.constraints = append(n.constraints, m)
	}
}

func architecture(d *definition) string {
	if d.td.RuntimePlatform == nil {
		return ""
	}
	switch d.td.RuntimePlatform.CpuArchitecture {
	case types.CPUArchitectureArm64:
		return "arm64"
	case types.CPUArchitectureX8664:
		return "x86_64"
	}
	return ""
}

func reserved(c types.ContainerDefinition) int {
	if c.MemoryReservation != nil {
		return int(*c.MemoryReservation)
	}
	return value(c.Memory)
}

func gpus(c types.ContainerDefinition) int {
	n := 0
	for _, r := range c.ResourceRequirements {
		if r.Type == types.ResourceTypeGpu {
			more, _ := strconv.Atoi(str(r.Value)) // what is no number takes none
			n += more
		}
	}
	return n
}

func size(task *string, sum int) int {
	if n, err := strconv.Atoi(str(task)); err == nil && n > 0 {
		return n
	}
	return sum
}

func namedPorts(c types.ContainerDefinition, mode types.NetworkMode) []hostPort {
	if mode == types.NetworkModeAwsvpc || mode == types.NetworkModeNone {
		return nil
	}
	var ports []hostPort
	for _, m := range c.PortMappings {
		if value(m.HostPort) != 0 {
			ports = append(ports, hostPort{value(m.HostPort), m.Protocol == types.TransportProtocolUdp})
		}
	}
	return ports
}

// lack is why an instance does not take a task.
type lack int

// The reasons in the order of how near an instance came to taking the task:
// the event names the closest one.
const (
	fits lack = iota
	lacksPort
	lacksCPU
	lacksMemory
	lacksGPU
	lacksENI
	lacksDistinct
	lacksAttribute
	lacksAgent
	lacksActive
)

// text is the end of the event that names the instance.
func (l lack) text() string {
	return map[lack]string{
		lacksPort:      "is already using a port required by your task",
		lacksCPU:       "has insufficient CPU units available",
		lacksMemory:    "has insufficient memory available",
		lacksGPU:       `encountered error "RESOURCE:GPU"`,
		lacksENI:       `encountered error "RESOURCE:ENI"`,
		lacksDistinct:  `encountered error "DISTINCTINSTANCE"`,
		lacksAttribute: "is missing an attribute required by your task",
		lacksAgent:     `encountered error "AGENT"`,
		lacksActive:    `encountered error "INACTIVE"`,
	}[l]
}

// failure is the reason in the failures of RunTask.
func (l lack) failure() string {
	return map[lack]string{
		lacksPort: "RESOURCE:PORTS", lacksCPU: "RESOURCE:CPU", lacksMemory: "RESOURCE:MEMORY", lacksGPU: "RESOURCE:GPU", lacksENI: "RESOURCE:ENI",
		lacksDistinct: "MemberOf placement constraint unsatisfied.", lacksAttribute: "ATTRIBUTE", lacksAgent: "AGENT", lacksActive: "INACTIVE",
	}[l]
}

// take says whether the instance takes a task now.
func (i *instance) take(n *needs) lack {
	switch {
	case i.status != "ACTIVE":
		return lacksActive
	case !i.connected:
		return lacksAgent
	case !i.meets(n):
		return lacksAttribute
	case n.distinct && i.hasGroup(n.group):
		return lacksDistinct
	case n.eni && i.usedENIs >= i.enis:
		return lacksENI
	case i.usedGPUs+n.gpus > i.gpus:
		return lacksGPU
	case i.usedMemory+n.memory > i.memory:
		return lacksMemory
	case i.usedCPU+n.cpu > i.cpu:
		return lacksCPU
	case i.occupied(n.ports):
		return lacksPort
	}
	return fits
}

func (i *instance) meets(n *needs) bool {
	if n.arch != "" && n.arch != i.arch {
		return false
	}
	for _, name := range n.attributes {
		if _, ok := i.attribute(name); !ok {
			return false
		}
	}
	for _, m := range n.constraints {
		if !m(i) {
			return false
		}
	}
	return true
}

// capable has what every agent of the lab can do, so that placing many tasks is quick.
var capable = func() map[string]bool {
	m := map[string]bool{}
	for _, name := range capabilities {
		m[name] = true
	}
	return m
}()

func (i *instance) hasGroup(group string) bool {
	for _, t := range i.tasks {
		if t.group == group && t.wanted() {
			return true
		}
	}
	return false
}

func (i *instance) occupied(ports []hostPort) bool {
	for _, port := range ports {
		if i.ports[port] {
			return true
		}
		for _, r := range i.reserved {
			if r == port.port && !port.udp {
				return true
			}
		}
	}
	return false
}

// spread knows how the tasks of one service are spread, to place more of them:
// the number in each zone, and on each instance.
type spread struct {
	zones     []int
	instances []int
}

func spreadOf(c *cluster, tasks []*task) *spread {
	s := &spread{zones: make([]int, len(c.zones)), instances: make([]int, len(c.instances)+len(c.gone))}
	for _, t := range tasks {
		if t.wanted() {
			s.add(t.instance, 1)
		}
	}
	return s
}

func (s *spread) add(i *instance, n int) {
	s.zones[i.inZone] += n
	s.instances[i.index] += n
}

// place chooses the instance for a task: of those that take it, in the zone with
// the fewest tasks of the service, the one with the fewest. Without any it
// returns the one that came closest, and what it lacks.
func (c *cluster) place(n *needs, s *spread) (*instance, lack) {
	var best, closest *instance
	nearest := lacksActive + 1
	for _, i := range c.instances {
		l := i.take(n)
		if l == fits {
			if best == nil || s.better(i, best) {
				best = i
			}
			continue
		}
		if l < nearest {
			closest, nearest = i, l
		}
	}
	if best != nil {
		return best, fits
	}
	return closest, nearest
}

func (s *spread) better(a, b *instance) bool {
	if s.zones[a.inZone] != s.zones[b.inZone] {
		return s.zones[a.inZone] < s.zones[b.inZone]
	}
	if s.instances[a.index] != s.instances[b.index] {
		return s.instances[a.index] < s.instances[b.index]
	}
	return len(a.tasks) < len(b.tasks)
}

const troubleshooting = " For more information, see the Troubleshooting section of the Amazon ECS Developer Guide."

// unplaced is the event for a task that no instance takes. The texts with a
// port, CPU and AGENT are AWS's as people quote them; the others are made alike.
func unplaced(i *instance, l lack) string {
	if i == nil {
		return "was unable to place a task because no container instance met all of its requirements. Reason: No Container Instances were found in your cluster." + troubleshooting
	}
	return fmt.Sprintf("was unable to place a task because no container instance met all of its requirements. The closest matching (container-instance %s) %s.", i.id, l.text()) + troubleshooting
}

// occupy takes what a task needs, and chooses its dynamic ports.
func (i *instance) occupy(t *task) {
	t.instance = i
	i.tasks = append(i.tasks, t)
	i.usedCPU += t.needs.cpu
	i.usedMemory += t.needs.memory
	i.usedGPUs += t.needs.gpus
	if t.needs.eni {
		i.usedENIs++
	}
	for _, c := range t.containers {
		for n := range c.ports {
			i.bind(&c.ports[n], t.def.td.NetworkMode)
		}
	}
	i.version++
}

// bind takes a host port. Docker gives dynamic ones out in turn, from the
// kernel's range (32768–60999).
func (i *instance) bind(b *portBinding, mode types.NetworkMode) {
	if mode == types.NetworkModeAwsvpc {
		return
	}
	for b.host == 0 {
		candidate := i.nextPort
		if i.nextPort++; i.nextPort > 60999 {
			i.nextPort = 32768
		}
		if !i.occupied([]hostPort{{candidate, b.udp}}) {
			b.host = candidate
		}
	}
	i.ports[hostPort{b.host, b.udp}] = true
}

// release gives back what a task had.
func (i *instance) release(t *task) {
	for n, x := range i.tasks {
		if x == t {
			i.tasks = append(i.tasks[:n:n], i.tasks[n+1:]...)
			break
		}
	}
	i.usedCPU -= t.needs.cpu
	i.usedMemory -= t.needs.memory
	i.usedGPUs -= t.needs.gpus
	if t.needs.eni {
		i.usedENIs--
	}
	for _, c := range t.containers {
		for _, b := range c.ports {
			if t.def.td.NetworkMode != types.NetworkModeAwsvpc {
				delete(i.ports, hostPort{b.host, b.udp})
			}
		}
	}
	i.version++
}

// groupOf is the task group of a service's tasks.
func groupOf(service string) string { return "service:" + service }
