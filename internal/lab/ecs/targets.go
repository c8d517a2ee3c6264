package ecs

import (
	"context"

	"jumpsuite/internal/lab/elb"
)

// attach makes the targets of a task, as its service's revision says. They are
// registered when it runs.
func (p *Plane) attach(t *task) {
	if t.deployment == nil || t.deployment.revision == nil {
		return
	}
	for i, b := range t.deployment.revision.balancers {
		arn := t.deployment.revision.groups[i]
		if arn == "" {
			continue
		}
		g := &target{arn: arn, container: str(b.ContainerName), inside: value(b.ContainerPort), path: p.path(arn), state: "initial"}
		if t.eni != nil {
			g.id, g.port = t.eni.ip, g.inside
		} else {
			g.id, g.port = t.instance.ec2, t.hostPort(g.container, g.inside)
		}
		t.targets = append(t.targets, g)
	}
}

// hostPort is where a container's port is on the host.
func (t *task) hostPort(name string, inside int) int {
	if c := t.container(name); c != nil {
		for _, b := range c.ports {
			if b.container == inside {
				return b.host
			}
		}
	}
	return inside
}

func (p *Plane) registerTargets(t *task) {
	for _, g := range t.targets {
		p.targets[g.key()] = t
		check := func(ctx context.Context) (int, error) {
			return p.engine.Check(ctx, t.id, g.container, g.inside, g.path)
		}
		arn, at := g.arn, elb.Target{ID: g.id, Port: g.port}
		p.outbox.send(func() { p.balancer.Register(arn, at, check) })
		if !t.beginning {
			noteTarget(&t.service.notes.registered, g.arn)
		}
	}
}

// deregisterTargets begins the draining of a task's targets, once: a task that
// has drained stops later, and is not told of again.
func (p *Plane) deregisterTargets(t *task) {
	for _, g := range t.targets {
		if p.targets[g.key()] != t || g.state == "draining" || g.state == "unused" {
			continue
		}
		g.state, g.reason, g.why = "draining", "Target.DeregistrationInProgress", ""
		arn, at := g.arn, elb.Target{ID: g.id, Port: g.port}
		p.outbox.send(func() { p.balancer.Deregister(arn, at) })
		noteTarget(&t.service.notes.deregistered, g.arn)
	}
}

// forgetTargets ends the interest in a task's targets.
func (p *Plane) forgetTargets(t *task) {
	for _, g := range t.targets {
		if p.targets[g.key()] == t {
			delete(p.targets, g.key())
		}
	}
}

// targetChanged is told of each change by the balancer.
func (p *Plane) targetChanged(arn string, at elb.Target, state, reason, description string) {
	p.mutate(func() {
		t := p.targets[targetKey{arn, at.ID, at.Port}]
		if t == nil {
			return
		}
		for _, g := range t.targets {
			if g.arn == arn && g.id == at.ID && g.port == at.Port {
				p.setTarget(t, g, state, reason, description)
			}
		}
	})
}

func (p *Plane) setTarget(t *task, g *target, state, reason, description string) {
	if state == "initial" && (t.beginning && g.state == "healthy" || g.state == "draining") {
		// The world begins with it healthy; and a registration may be told late.
		return
	}
	g.state, g.reason, g.why = state, reason, description
	t.version++
	if t.last == "DEACTIVATING" && t.drained() {
		p.terminate(t)
		return
	}
	p.kick(t.service, 0)
}

func (t *task) drained() bool {
	for _, g := range t.targets {
		if g.state != "unused" {
			return false
		}
	}
	return true
}
