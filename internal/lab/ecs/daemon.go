package ecs

import "slices"

// daemonCount is how many tasks a DAEMON service should have: one for each
// instance that meets its needs, whether there is room or not.
func (p *Plane) daemonCount(s *service) int {
	n := need(s.primary().def, s.constraints)
	count := 0
	for _, i := range s.cluster.instances {
		if i.daemonTarget(&n) {
			count++
		}
	}
	return count
}

func (i *instance) daemonTarget(n *needs) bool {
	return i.status == "ACTIVE" && i.connected && i.meets(n)
}

// daemon is the scheduler of DAEMON services: one task on each instance. The
// old one is stopped first: the maximum is 100 percent.
func (r *round) daemon() {
	r.clearDraining()
	on := map[*instance][]*task{}
	for _, t := range r.s.tasks {
		on[t.instance] = append(on[t.instance], t)
	}
	r.daemonStops()
	if r.stalled() {
		return
	}
	primary := r.groups[0]
	n := need(primary.d.def, r.s.constraints)
	n.group = groupOf(r.s.name)
	primary.needs = &n
	for _, i := range r.s.cluster.instances {
		if r.s.status == "ACTIVE" && len(on[i]) == 0 && i.daemonTarget(&n) {
			r.daemonStart(primary, i)
		}
	}
}

func (r *round) daemonStart(g *group, i *instance) {
	if g.d.notUntil.After(r.now) {
		r.wakeAt(g.d.notUntil)
		return
	}
	if l := i.take(g.needs); l != fits {
		r.unplaced(g, i, l)
		return
	}
	r.placed()
	t := r.serviceTask(g.d, i, g.needs)
	r.begin(t)
	g.pending = append(g.pending, t)
	r.starts = append(r.starts, t)
	r.alive++
}

// daemonStops stops tasks of old deployments within the minimum, unhealthy ones,
// and those on instances that take none any more.
func (r *round) daemonStops() {
	for _, g := range r.groups {
		for _, t := range slices.Clone(g.bad) {
			r.stopBad(g, t)
		}
		for _, t := range g.all() {
			if t.instance.status != "ACTIVE" || r.s.status != "ACTIVE" {
				r.stop(g, t, "")
			}
		}
	}
	if !r.stalled() {
		r.retire(r.groups[1:])
	}
}
