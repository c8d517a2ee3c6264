package ecs

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/internal/lab/engine"
	"jumpsuite/internal/lab/world"
)

// Do makes something happen: one of world.Verbs. When it is due is not looked
// at. What happens to images is the registry's to do.
func (p *Plane) Do(a world.Action) error {
	act, ok := actions[a.Do]
	if !ok {
		return fmt.Errorf("the lab's ECS does not know %q; it knows %s", a.Do, strings.Join(sortedKeys(actions), ", "))
	}
	err := errors.New("the lab is closed")
	p.mutate(func() { err = act(p, a) })
	if err != nil {
		return fmt.Errorf("%s: %w", a.Do, err)
	}
	return nil
}

// actions are the verbs that are about ECS. They are called with the state locked.
var actions = map[string]func(*Plane, world.Action) error{
	"host-lost":         onHost((*Plane).loseHost),
	"host-back":         onHost((*Plane).hostBack),
	"host-drain":        onHost(func(p *Plane, i *instance) { p.setInstanceStatus(i, "DRAINING") }),
	"host-active":       onHost(func(p *Plane, i *instance) { p.setInstanceStatus(i, "ACTIVE") }),
	"desired":           onService((*Plane).actDesired),
	"deploy":            onService((*Plane).actDeploy),
	"service-delete":    onService(func(p *Plane, s *service, _ string) error { p.drainService(s); return nil }),
	"definition-delete": (*Plane).actDeregister,
	"protect":           onService((*Plane).actProtect),
	"kill":              (*Plane).actKill,
	"stop-task":         (*Plane).actStop,
	"target-health":     onService((*Plane).actTargetHealth),
	"container-health":  onService((*Plane).actContainerHealth),
	"alarm":             onService((*Plane).actAlarm),
	"cluster-empty":     (*Plane).actEmpty,
}

func onHost(f func(*Plane, *instance)) func(*Plane, world.Action) error {
	return func(p *Plane, a world.Action) error {
		i := p.host(a.To)
		if i == nil {
			return fmt.Errorf("no host %q", a.To)
		}
		f(p, i)
		return nil
	}
}

func onService(f func(*Plane, *service, string) error) func(*Plane, world.Action) error {
	return func(p *Plane, a world.Action) error {
		s := p.serviceNamed(a.To)
		if s == nil {
			return fmt.Errorf("no service %q", a.To)
		}
		return f(p, s, a.Value)
	}
}

// host finds an instance by IP address, EC2 instance ID, container instance ID or ARN.
func (p *Plane) host(name string) *instance {
	for _, c := range p.state.clusters {
		for _, i := range c.instances {
			if i.ip == name || i.ec2 == name || i.id == lastPart(name) {
				return i
			}
		}
	}
	for _, c := range p.state.clusters {
		for _, i := range c.gone {
			if i.ip == name || i.ec2 == name {
				return i
			}
		}
	}
	return nil
}

// serviceNamed finds an active service by its name, CLUSTER/NAME, or ARN.
func (p *Plane) serviceNamed(name string) *service {
	for _, c := range p.state.clusters {
		bare := name
		if head, tail, ok := strings.Cut(name, "/"); ok && head == c.name {
			bare = tail
		}
		if s := c.service(bare); s != nil && s.status == "ACTIVE" {
			return s
		}
	}
	return nil
}

// tasksNamed finds the live tasks that a task ID, an ARN or a service stands for.
func (p *Plane) tasksNamed(name string) []*task {
	for _, c := range p.state.clusters {
		if t := c.task(name); t != nil && t.alive() {
			return []*task{t}
		}
	}
	s := p.serviceNamed(name)
	if s == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(s.tasks), func(t *task) bool { return !t.wanted() })
}

// loseHost makes a host go away: its agent at once, its tasks when ECS gives it up.
func (p *Plane) loseHost(i *instance) {
	if !i.connected {
		return
	}
	i.connected = false
	i.lost++
	i.version++
	host, lost := i.ec2, i.lost
	p.outbox.send(func() { p.engine.Lose(host) })
	p.after(hostTimeout, func() {
		if !i.connected && i.lost == lost {
			p.forgetHost(i, types.TaskStopCodeTerminationNotice, "Host EC2 (instance "+i.ec2+") terminated.")
		}
	})
	p.kickCluster(i.cluster)
}

// forgetHost ends the tasks of an instance whose containers are gone, and takes
// it out of its cluster.
func (p *Plane) forgetHost(i *instance, code types.TaskStopCode, reason string) {
	for _, t := range slices.Clone(i.tasks) {
		p.deregisterTargets(t)
		if t.wanted() {
			t.desired, t.stopping = "STOPPED", p.now()
		}
		t.orderly = true
		t.stopCode, t.reason = code, reason
		p.dead(t)
	}
	i.status = "INACTIVE"
	i.cluster.instances = without(i.cluster.instances, i)
	i.cluster.gone = append(i.cluster.gone, i)
	p.kickCluster(i.cluster)
}

// hostBack connects a host's agent again. Its containers are gone, and the agent
// says so; an instance that ECS had given up registers anew.
func (p *Plane) hostBack(i *instance) {
	if i.connected {
		return
	}
	i.connected = true
	i.version++
	if slices.Contains(i.cluster.gone, i) {
		i.cluster.gone = without(i.cluster.gone, i)
		i.cluster.instances = append(i.cluster.instances, i)
		i.seq, i.status, i.registered = p.nextSeq(), "ACTIVE", p.now()
		i.id = p.hexID(32)
		i.arn = p.arn("container-instance", i.cluster.name, i.id)
	}
	for _, t := range slices.Clone(i.tasks) {
		if t.engaged {
			p.ended(t)
		} else {
			p.begin(t)
		}
	}
	p.kickCluster(i.cluster)
}

func (p *Plane) actEmpty(a world.Action) error {
	c := p.state.cluster(a.To)
	if c == nil {
		return fmt.Errorf("no cluster %q", a.To)
	}
	for _, i := range slices.Clone(c.instances) {
		p.loseHost(i)
	}
	return nil
}

func (p *Plane) actDesired(s *service, value string) error {
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 {
		return fmt.Errorf("%q is not a desired count", value)
	}
	p.setDesired(s, n)
	return nil
}

// actDeploy is a deployment of somebody else's: a new revision with another image.
func (p *Plane) actDeploy(s *service, image string) error {
	if image == "" {
		return errors.New("which image?")
	}
	if s.definition() == nil {
		return errors.New("the service has no task definition yet")
	}
	old := s.definition().td
	containers := slices.Clone(old.ContainerDefinitions)
	containers[0].Image = ptr(p.world.Reference(image))
	in := &sdk.RegisterTaskDefinitionInput{
		Family: old.Family, ContainerDefinitions: containers, NetworkMode: old.NetworkMode, Cpu: old.Cpu, Memory: old.Memory, Volumes: old.Volumes,
		RequiresCompatibilities: old.RequiresCompatibilities, RuntimePlatform: old.RuntimePlatform, PlacementConstraints: old.PlacementConstraints,
		TaskRoleArn: old.TaskRoleArn, ExecutionRoleArn: old.ExecutionRoleArn, Tags: tagged(s.definition().tags),
	}
	if err := checkDefinition(in); err != nil {
		return err
	}
	p.deploy(s, p.register(in))
	return nil
}

// tagged is nil for no tags: RegisterTaskDefinition refuses an empty list.
func tagged(tags []types.Tag) []types.Tag {
	if len(tags) == 0 {
		return nil
	}
	return tags
}

func (p *Plane) actDeregister(a world.Action) error {
	_, err := p.deregister(a.To)
	return err
}

func (p *Plane) actAlarm(s *service, value string) error {
	on, err := onOff(value)
	if err != nil {
		return err
	}
	if on && s.config.Alarms == nil {
		return errors.New("the service has no alarms")
	}
	s.alarm = on
	p.kick(s, 0)
	return nil
}

func (p *Plane) actProtect(s *service, value string) error {
	on, err := onOff(value)
	if err != nil {
		return err
	}
	s.protect = on
	for _, t := range s.tasks {
		p.protect(t, on, time.Time{})
	}
	return nil
}

func onOff(value string) (bool, error) {
	switch value {
	case "on", "":
		return true, nil
	case "off":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither on nor off", value)
}

// actKill ends the first essential container of one task.
func (p *Plane) actKill(a world.Action) error {
	tasks := p.tasksNamed(a.To)
	i := slices.IndexFunc(tasks, (*task).running)
	if i < 0 {
		return fmt.Errorf("no running task of %q", a.To)
	}
	code := 1
	if a.Value != "" {
		var err error
		if code, err = strconv.Atoi(a.Value); err != nil {
			return fmt.Errorf("%q is not an exit code", a.Value)
		}
	}
	t := tasks[i]
	n := slices.IndexFunc(t.containers, func(c *container) bool { return c.essential })
	id, name := t.id, t.containers[n].name
	p.outbox.send(func() { p.engine.Kill(id, name, code) })
	return nil
}

func (p *Plane) actStop(a world.Action) error {
	tasks := p.tasksNamed(a.To)
	if len(tasks) == 0 {
		return fmt.Errorf("no task of %q", a.To)
	}
	for _, t := range tasks {
		p.stopByUser(t, "Task stopped by user")
	}
	return nil
}

func (p *Plane) actTargetHealth(s *service, value string) error {
	status := -1
	if value != "none" {
		var err error
		if status, err = strconv.Atoi(value); err != nil || status < 100 || status > 599 {
			return fmt.Errorf("%q is neither an HTTP status nor none", value)
		}
	}
	p.overrideAll(s, engine.Override{HTTP: &status})
	return nil
}

func (p *Plane) actContainerHealth(s *service, value string) error {
	if value != "healthy" && value != "unhealthy" {
		return fmt.Errorf("%q is neither healthy nor unhealthy", value)
	}
	p.overrideAll(s, engine.Override{Healthy: ptr(value == "healthy")})
	return nil
}

func (p *Plane) overrideAll(s *service, o engine.Override) {
	for _, t := range s.tasks {
		if t.running() {
			id := t.id
			p.outbox.send(func() { p.engine.Override(id, o) })
		}
	}
}
