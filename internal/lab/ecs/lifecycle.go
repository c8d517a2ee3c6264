package ecs

import (
	"maps"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/internal/lab/engine"
	"jumpsuite/internal/lab/world"
)

// How long ECS's own steps take, in lab time. They are of the order that people
// measured; nothing depends on them.
const (
	provisionTime   = 3 * time.Second // to attach a network interface
	dispatchTime    = time.Second     // until the agent knows of a task
	timeStep        = time.Second     // until the scheduler looks at what changed
	deprovisionTime = 2 * time.Second
)

// visible is how long stopped tasks, and inactive services, can be described
// (AWS: "at least one hour").
const visible = 2 * time.Hour

// hostTimeout is when ECS gives up a container instance whose agent is away.
const hostTimeout = 14 * time.Minute

// newTask makes a task and puts it on its instance. Nobody has heard of it yet.
func (p *Plane) newTask(c *cluster, i *instance, d *definition, n *needs) *task {
	id := p.hexID(32)
	t := &task{
		seq: p.nextSeq(), id: id, arn: p.arn("task", c.name, id), cluster: c, def: d, group: "family:" + *d.td.Family,
		last: "PENDING", desired: "RUNNING", created: p.now(), needs: *n,
	}
	for _, cd := range d.td.ContainerDefinitions {
		t.containers = append(t.containers, p.newContainer(cd, d.td.NetworkMode))
	}
	i.occupy(t)
	if n.eni {
		t.eni = p.newENI()
		t.last = "PROVISIONING"
	}
	c.tasks = append(c.tasks, t)
	c.byTask[id] = t
	return t
}

func (p *Plane) newContainer(cd types.ContainerDefinition, mode types.NetworkMode) *container {
	c := &container{
		name: *cd.Name, id: p.uuid(), image: *cd.Image, last: "PENDING", health: types.HealthStatusUnknown,
		checked: cd.HealthCheck != nil, essential: cd.Essential == nil || *cd.Essential,
		cpu: cd.Cpu, memory: int32(value(cd.Memory)), soft: int32(value(cd.MemoryReservation)),
	}
	for _, m := range cd.PortMappings {
		b := portBinding{container: value(m.ContainerPort), host: value(m.HostPort), udp: m.Protocol == types.TransportProtocolUdp}
		b.fixed = b.host != 0 && mode != types.NetworkModeAwsvpc
		c.ports = append(c.ports, b)
	}
	return c
}

func (p *Plane) newENI() *eni {
	ip := ipv4String(p.nextIP)
	p.nextIP++
	mac := p.hexID(10)
	return &eni{
		attachment: p.uuid(), id: "eni-0" + p.hexID(16), ip: ip, subnet: "subnet-0" + p.hexID(16),
		mac: "0a:" + mac[0:2] + ":" + mac[2:4] + ":" + mac[4:6] + ":" + mac[6:8] + ":" + mac[8:10],
	}
}

// begin has a new task launched when it is provisioned and the agent knows of it.
func (p *Plane) begin(t *task) {
	wait := dispatchTime
	if t.eni != nil {
		wait = provisionTime
	}
	p.after(wait, func() {
		// An agent that is away does not hear of it.
		if t.wanted() && t.alive() && !t.engaged && t.instance.connected {
			p.setLast(t, "PENDING")
			p.engage(t)
		}
	})
}

// engage hands a task to the engine.
func (p *Plane) engage(t *task) {
	t.engaged = true
	job := p.job(t)
	p.outbox.send(func() { p.engine.Launch(job) })
}

// job is what the engine must know of a task.
func (p *Plane) job(t *task) engine.Task {
	job := engine.Task{
		ID: t.id, ARN: t.arn, Family: *t.def.td.Family, Revision: int(t.def.td.Revision), Cluster: t.cluster.name,
		Host:    engine.Host{ID: t.instance.ec2, IP: t.instance.ip, Arch: t.instance.arch, Cached: maps.Clone(t.instance.cached)},
		Network: or(string(t.def.td.NetworkMode), "bridge"), Running: t.beginning,
		Notify: func(e engine.Event) { p.mutate(func() { p.heard(t, e) }) },
	}
	if t.eni != nil {
		job.PrivateIP = t.eni.ip
	}
	for i, cd := range t.def.td.ContainerDefinitions {
		job.Containers = append(job.Containers, t.jobContainer(cd, t.containers[i]))
	}
	return job
}

func (t *task) jobContainer(cd types.ContainerDefinition, c *container) engine.Container {
	job := engine.Container{
		Name: c.name, Image: c.image, Essential: c.essential, CPU: int(c.cpu), Memory: int(c.memory),
		Command: cd.Command, Environment: map[string]string{}, StopTimeout: stopTimeout(cd), Health: checkOf(cd.HealthCheck),
	}
	if t.deployment != nil && t.deployment.revision != nil {
		job.Digest = t.deployment.revision.digests[c.name]
	}
	for _, e := range cd.Environment {
		job.Environment[str(e.Name)] = str(e.Value)
	}
	for _, b := range c.ports {
		job.Ports = append(job.Ports, engine.Port{Container: b.container, Host: b.host, Protocol: b.protocol()})
	}
	t.override(&job)
	return job
}

// override applies what RunTask changes in a container.
func (t *task) override(job *engine.Container) {
	if t.overrides == nil {
		return
	}
	for _, o := range t.overrides.ContainerOverrides {
		if str(o.Name) != job.Name {
			continue
		}
		if o.Command != nil {
			job.Command = o.Command
		}
		for _, e := range o.Environment {
			job.Environment[str(e.Name)] = str(e.Value)
		}
	}
}

func (b portBinding) protocol() string {
	if b.udp {
		return "udp"
	}
	return "tcp"
}

// stopTimeout is a container's; without one ECS_CONTAINER_STOP_TIMEOUT's default counts.
func stopTimeout(cd types.ContainerDefinition) time.Duration {
	if cd.StopTimeout == nil {
		return 30 * time.Second
	}
	return time.Duration(*cd.StopTimeout) * time.Second
}

func checkOf(h *types.HealthCheck) *world.Health {
	if h == nil {
		return nil
	}
	seconds := func(n *int32) world.Duration { return world.Duration(time.Duration(value(n)) * time.Second) }
	return &world.Health{Interval: seconds(h.Interval), Timeout: seconds(h.Timeout), Retries: value(h.Retries), StartPeriod: seconds(h.StartPeriod)}
}

func (p *Plane) setLast(t *task, status string) {
	t.last = status
	t.version++
}

// heard takes what the engine tells of a task.
func (p *Plane) heard(t *task, e engine.Event) {
	if !t.alive() || !t.instance.connected {
		return
	}
	t.version++
	switch e.Kind {
	case engine.PullStarted:
		t.setOnce(&t.pullStart, p.now())
	case engine.PullStopped:
		t.setOnce(&t.pullStop, p.now())
		if t.last == "PENDING" {
			t.last = "ACTIVATING"
		}
	case engine.Started:
		p.containerStarted(t, e)
	case engine.Health:
		p.containerHealth(t, e)
	case engine.Exited, engine.Failed:
		p.containerEnded(t, e)
	case engine.AllStopped:
		p.ended(t)
	}
}

// setOnce sets a time that is not set: a task that the world begins with has
// been there for longer than the engine knows.
func (t *task) setOnce(at *time.Time, now time.Time) {
	if at.IsZero() {
		*at = now
	}
}

func (p *Plane) containerStarted(t *task, e engine.Event) {
	c := t.container(e.Container)
	if c == nil {
		return
	}
	c.runtime, c.digest = e.RuntimeID, or(e.Digest, c.digest)
	c.last = "RUNNING"
	p.reported(t)
	if d := t.deployment; d != nil && c.digest != "" && d.revision.digests[c.name] == "" {
		// The first task of a deployment resolves the tags for all of them.
		digests := maps.Clone(d.revision.digests)
		digests[c.name] = c.digest
		d.revision.digests = digests
	}
	if t.wanted() && t.pending() && t.allStarted() {
		p.taskRuns(t)
	}
}

// reported counts the tasks of the beginning whose containers the engine has started.
func (p *Plane) reported(t *task) {
	if !t.beginning || t.known || !t.allStarted() {
		return
	}
	t.known = true
	if p.waiting--; p.waiting == 0 {
		close(p.steady)
	}
}

func (t *task) allStarted() bool {
	for _, c := range t.containers {
		if c.runtime == "" {
			return false
		}
	}
	return true
}

func (p *Plane) taskRuns(t *task) {
	t.last, t.ran = "RUNNING", true
	t.started = p.now()
	if t.service == nil {
		return
	}
	t.deployment.touch(t.started)
	t.deployment.failed, t.deployment.starts = 0, 0
	t.service.over("throttle")
	p.registerTargets(t)
	p.kick(t.service, time.Second)
}

func (p *Plane) containerHealth(t *task, e engine.Event) {
	c := t.container(e.Container)
	if c == nil || !c.checked {
		return
	}
	c.health = types.HealthStatusUnhealthy
	if e.Healthy {
		c.health = types.HealthStatusHealthy
	}
	if t.service != nil {
		p.kick(t.service, 0)
	}
}

// containerEnded takes the end of a container, or that it could not be started.
func (p *Plane) containerEnded(t *task, e engine.Event) {
	c := t.container(e.Container)
	if c == nil {
		return
	}
	c.last, c.reason = "STOPPED", shorten(e.Reason)
	if e.ExitCode != nil {
		c.exit = ptr(int32(*e.ExitCode))
	}
	failed := e.Kind == engine.Failed
	if !t.wanted() || !failed && !c.essential {
		return
	}
	t.desired, t.stopping = "STOPPED", p.now()
	t.stopCode, t.reason = types.TaskStopCodeEssentialContainerExited, "Essential container in task exited"
	if failed {
		t.stopCode, t.reason = types.TaskStopCodeTaskFailedToStart, "Task failed to start"
	}
	p.deregisterTargets(t)
	id := t.id
	p.outbox.send(func() { p.engine.Stop(id) })
	if t.service != nil {
		p.kick(t.service, time.Second)
	}
}

// shorten cuts a reason to the 1024 characters (now; 255 in older docs) that ECS keeps.
func shorten(reason string) string {
	if r := []rune(reason); len(r) > 1024 {
		return string(r[:1024])
	}
	return reason
}

// ended takes the end of a task's last container.
func (p *Plane) ended(t *task) {
	t.ended = p.now()
	if t.wanted() {
		t.desired, t.stopping = "STOPPED", p.now()
		t.stopCode, t.reason = types.TaskStopCodeEssentialContainerExited, "Essential container in task exited"
	}
	p.deregisterTargets(t)
	if t.eni == nil {
		p.dead(t)
		return
	}
	p.setLast(t, "DEPROVISIONING")
	p.after(deprovisionTime, func() { p.dead(t) })
}

// stop asks for the end of a task. Its targets drain first.
func (p *Plane) stop(t *task, code types.TaskStopCode, reason string) {
	if !t.wanted() {
		return
	}
	t.desired, t.orderly, t.stopping = "STOPPED", true, p.now()
	t.stopCode, t.reason = code, reason
	t.version++
	wasRunning := t.running()
	p.deregisterTargets(t)
	switch {
	case !t.instance.connected:
		// Its agent cannot be told: the task stays as it is until the host is given up.
	case !t.engaged:
		p.setLast(t, "DEPROVISIONING")
		p.after(dispatchTime, func() { p.dead(t) })
	case wasRunning && len(t.targets) > 0:
		p.setLast(t, "DEACTIVATING")
	default:
		p.terminate(t)
	}
}

// terminate has the engine stop the containers.
func (p *Plane) terminate(t *task) {
	p.setLast(t, "STOPPING")
	id := t.id
	p.outbox.send(func() { p.engine.Stop(id) })
}

// dead is the end of a task: it gives back what it had.
func (p *Plane) dead(t *task) {
	if !t.alive() {
		return
	}
	p.setLast(t, "STOPPED")
	t.stopped = p.now()
	t.setOnce(&t.ended, t.stopped)
	for _, c := range t.containers {
		c.last = "STOPPED"
	}
	t.instance.release(t)
	p.forgetTargets(t)
	if t.beginning && !t.known {
		t.known = true
		if p.waiting--; p.waiting == 0 {
			close(p.steady)
		}
	}
	p.bury(t)
	p.kickStarved(t.cluster)
	if t.service == nil {
		return
	}
	t.service.tasks = without(t.service.tasks, t)
	p.countFailure(t)
	p.kick(t.service, time.Second)
}

// bury takes a stopped task away when it has been visible for long enough, and
// its containers when the agent would (ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION).
func (p *Plane) bury(t *task) {
	p.after(visible, func() {
		t.cluster.tasks = without(t.cluster.tasks, t)
		delete(t.cluster.byTask, t.id)
	})
	id := t.id
	p.after(p.cleanup(), func() { p.outbox.send(func() { p.engine.Remove(id) }) })
}

func (p *Plane) cleanup() time.Duration {
	if p.world.Cleanup > 0 {
		return time.Duration(p.world.Cleanup)
	}
	return 3 * time.Hour
}

func without[T comparable](list []T, v T) []T {
	for i, x := range list {
		if x == v {
			return append(list[:i:i], list[i+1:]...)
		}
	}
	return list
}
