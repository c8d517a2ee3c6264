package ecs

import (
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// retry is when the scheduler tries again to place a task that no instance took.
// It looks sooner when something on the cluster changes.
const retry = 30 * time.Second

// kick has the scheduler look at a service in d of lab time, or sooner if that
// was asked for already.
func (p *Plane) kick(s *service, d time.Duration) {
	at := p.now().Add(d)
	if !s.wake.IsZero() && !at.Before(s.wake) {
		return
	}
	s.wake = at
	s.wakeTurn++
	turn := s.wakeTurn
	p.after(d, func() {
		if s.wakeTurn == turn {
			s.wake = time.Time{}
			p.tick(s)
		}
	})
}

// kickCluster has the scheduler look at all services of a cluster.
func (p *Plane) kickCluster(c *cluster) {
	for _, s := range c.services {
		p.kick(s, time.Second)
	}
}

// kickStarved has the scheduler look at services that wait for room.
func (p *Plane) kickStarved(c *cluster) {
	for _, s := range c.services {
		if s.starved {
			p.kick(s, time.Second)
		}
	}
}

// tick is one look of the scheduler at a service: it judges the tasks, starts
// and stops what minimumHealthyPercent and maximumPercent allow, and writes down
// what came to an end.
func (p *Plane) tick(s *service) {
	if s.held || len(s.deployments) == 0 {
		return
	}
	p.writeNotes(s)
	r := p.look(s)
	r.judge()
	if s.daemon() {
		r.daemon()
	} else {
		r.replica()
	}
	r.report()
	r.finish()
	if !r.again.IsZero() {
		p.kick(s, max(r.again.Sub(r.now), 0)+time.Millisecond)
	}
}

// round is what one look at a service sees and does.
type round struct {
	*Plane
	s       *service
	now     time.Time
	bounds  bounds
	groups  []*group // as s.deployments: PRIMARY first
	alive   int      // tasks that are not STOPPED
	healthy int      // tasks that count against the minimum
	ending  int      // alive, but their end was asked for
	again   time.Time
	spread  *spread
	starts  []*task
	fresh   int // of starts: in place of unhealthy ones
	stops   []stopped
}

// group is the tasks of one deployment.
type group struct {
	d         *deployment
	pending   []*task
	undecided []*task // RUNNING, not yet known to be healthy
	healthy   []*task
	bad       []*task // unhealthy
	displaced []*task // not unhealthy, but on a draining instance
	needs     *needs
}

// good is the number of tasks that the deployment has and keeps.
func (g *group) good() int { return len(g.pending) + len(g.undecided) + len(g.healthy) }

// live is the number of tasks whose end has not been asked for.
func (g *group) live() int { return g.good() + len(g.bad) + len(g.displaced) }

func (g *group) all() []*task {
	return slices.Concat(g.pending, g.bad, g.undecided, g.displaced, g.healthy)
}

// bounds are what min and max percent make of a desired count (API reference,
// DeploymentConfiguration): low is rounded up, high down.
type bounds struct{ desired, low, high int }

func boundsOf(desired int, c types.DeploymentConfiguration) bounds {
	return bounds{
		desired: desired,
		low:     (desired*value(c.MinimumHealthyPercent) + 99) / 100,
		high:    desired * value(c.MaximumPercent) / 100,
	}
}

// stuck reports whether no task can be stopped first and none started first.
func (b bounds) stuck() bool { return b.desired > 0 && b.low >= b.desired && b.high <= b.desired }

// look sorts the tasks of a service.
func (p *Plane) look(s *service) *round {
	r := &round{Plane: p, s: s, now: p.now(), spread: spreadOf(s.cluster, s.tasks)}
	if s.daemon() {
		s.desired = p.daemonCount(s)
	}
	if s.status != "ACTIVE" {
		s.desired = 0
	}
	r.bounds = boundsOf(s.desired, s.config)
	if s.config.Strategy != types.DeploymentStrategyRolling && s.config.Strategy != "" {
		// The new revision stands beside the old one, at full strength.
		r.bounds.high = max(r.bounds.high, 2*s.desired)
	}
	byDeployment := map[*deployment]*group{}
	for _, d := range s.deployments {
		g := &group{d: d}
		byDeployment[d] = g
		r.groups = append(r.groups, g)
	}
	for _, t := range s.tasks {
		r.sort(t, byDeployment[t.deployment])
	}
	return r
}

func (r *round) sort(t *task, g *group) {
	r.alive++
	if !t.wanted() || g == nil {
		r.ending++
		return
	}
	if t.pending() {
		g.pending = append(g.pending, t)
		return
	}
	v, _, again := t.judge(r.now)
	r.wakeAt(again)
	switch {
	case v == unhealthy:
		g.bad = append(g.bad, t)
		return
	case t.instance.status == "DRAINING":
		g.displaced = append(g.displaced, t)
	case v == healthy:
		g.healthy = append(g.healthy, t)
	default:
		g.undecided = append(g.undecided, t)
	}
	if v == healthy {
		r.healthy++
	}
}

// wakeAt asks for another look at a time; zero asks for none.
func (r *round) wakeAt(at time.Time) {
	if !at.IsZero() && (r.again.IsZero() || at.Before(r.again)) {
		r.again = at
	}
}

// judge tells of tasks that became unhealthy or healthy.
func (r *round) judge() {
	for _, g := range r.groups {
		for _, t := range g.bad {
			if t.unfit {
				continue
			}
			t.unfit = true
			_, why, _ := t.judge(r.now)
			r.tell(r.s, why)
		}
		for _, t := range slices.Concat(g.healthy, g.displaced) {
			if v, _, _ := t.judge(r.now); v == healthy {
				r.becameHealthy(t)
			}
		}
	}
}

func (r *round) becameHealthy(t *task) {
	t.unfit = false
	if t.fit {
		return
	}
	t.fit = true
	if t.deployment.resets() {
		t.deployment.breaker = 0
	}
}

// replica is the rolling scheduler of REPLICA services.
func (r *round) replica() {
	primary, olds := r.groups[0], r.groups[1:]
	r.clearDraining()
	if r.stalled() {
		r.s.over("stuck")
	} else if r.mayScaleUp() {
		r.fill(primary, r.s.desired)
	}
	for _, g := range olds {
		r.fill(g, g.d.want)
	}
	for _, g := range r.groups {
		r.replaceBad(g)
		r.moveDisplaced(g)
	}
	if !r.stalled() && r.mayRetire() {
		r.retire(olds)
	}
	r.scaleIn(primary)
}

// stalled reports whether the PRIMARY deployment failed and there was nothing
// to roll back to: then nothing is started for it, and the old tasks stay, for
// as long as the service wants any.
func (r *round) stalled() bool {
	return r.s.primary().state == types.DeploymentRolloutStateFailed && r.s.desired > 0
}

// clearDraining stops pending tasks on instances that drain, at once.
func (r *round) clearDraining() {
	for _, g := range r.groups {
		for _, t := range slices.Clone(g.pending) {
			if t.instance.status == "DRAINING" {
				r.stop(g, t, "")
			}
		}
	}
}

// fill starts the tasks that a deployment lacks, as far as the maximum allows.
func (r *round) fill(g *group, want int) {
	lacks := want - g.good()
	if lacks <= 0 {
		return
	}
	if g.d.notUntil.After(r.now) {
		r.wakeAt(g.d.notUntil)
		return
	}
	n := min(lacks, r.bounds.high-r.alive)
	replaced := min(r.start(g, n), len(g.bad)+g.d.owed)
	r.fresh += replaced
	g.d.owed = max(g.d.owed-replaced, 0)
	if short := lacks - max(n, 0) - r.ending; short > 0 {
		r.makeRoom(g, short)
	}
}

// start starts up to n tasks and returns how many found a place.
func (r *round) start(g *group, n int) int {
	for i := range n {
		t, l, closest := r.launch(g)
		if t == nil {
			r.unplaced(g, closest, l)
			return i
		}
		r.placed()
		g.pending = append(g.pending, t)
		r.starts = append(r.starts, t)
		r.alive++
	}
	return max(n, 0)
}

func (r *round) launch(g *group) (*task, lack, *instance) {
	if g.needs == nil {
		n := need(g.d.def, r.s.constraints)
		n.group = groupOf(r.s.name)
		g.needs = &n
	}
	i, l := r.s.cluster.place(g.needs, r.spread)
	if l != fits {
		return nil, l, i
	}
	r.spread.add(i, 1)
	t := r.serviceTask(g.d, i, g.needs)
	r.begin(t)
	return t, fits, i
}

// serviceTask makes a task of a deployment.
func (p *Plane) serviceTask(d *deployment, i *instance, n *needs) *task {
	s := d.service
	t := p.newTask(s.cluster, i, d.def, n)
	t.service, t.deployment = s, d
	t.group, t.startedBy = groupOf(s.name), d.id
	t.exec, t.protected = s.exec, s.protect
	if s.propagate == types.PropagateTagsService {
		t.tags = slices.Clone(s.tags)
	}
	if s.propagate == types.PropagateTagsTaskDefinition {
		t.tags = slices.Clone(d.def.tags)
	}
	p.attach(t)
	s.tasks = append(s.tasks, t)
	return t
}

// unplaced tells why no instance took a task, and looks again later.
func (r *round) unplaced(g *group, i *instance, l lack) {
	r.s.starved = true
	r.condition(r.s, "place", unplaced(i, l))
	r.wakeAt(r.now.Add(retry))
	r.countUnplaced(g.d)
}

func (r *round) placed() {
	r.s.starved = false
	r.s.over("place")
}

// makeRoom stops what stands in the way of a deployment that lacks n tasks when
// the maximum is reached: a task of its own that is unhealthy, one at a time.
// Without any, the deployment may be stuck.
func (r *round) makeRoom(g *group, n int) {
	if len(g.bad) > 0 {
		g.d.owed++
		r.stopBad(g, g.bad[0])
		return
	}
	if r.bounds.stuck() && len(r.groups) > 1 && r.weakOlds() == 0 && n > 0 {
		r.condition(r.s, "stuck", "was unable to stop or start tasks during a deployment because of the service deployment configuration. "+
			"Update the minimumHealthyPercent or maximumPercent value and try again.")
	}
}

// weakOlds is how many tasks of old deployments can be stopped whatever the minimum.
func (r *round) weakOlds() int {
	n := 0
	for _, g := range r.groups[1:] {
		n += len(r.weak(g))
	}
	return n
}

// replaceBad stops unhealthy tasks for which there is a replacement: one that
// is healthy, or that turned out unhealthy itself (API reference, UpdateService).
func (r *round) replaceBad(g *group) {
	want := g.d.want
	if g.d.status == "PRIMARY" {
		want = r.s.desired
		if r.stalled() {
			return
		}
	}
	for len(g.bad) > 0 && len(g.healthy)+len(g.bad) > want {
		r.stopBad(g, g.bad[0])
	}
}

func (r *round) stopBad(g *group, t *task) {
	reason := t.unfitReason()
	r.countUnfit(t)
	r.stop(g, t, reason)
}

// moveDisplaced stops tasks on draining instances, as far as the minimum allows.
func (r *round) moveDisplaced(g *group) {
	for _, t := range slices.Clone(g.displaced) {
		v, _, _ := t.judge(r.now)
		if v == healthy && r.healthy <= r.bounds.low {
			continue
		}
		r.stop(g, t, "")
	}
}

// weak are the tasks of an old deployment that do nothing for the minimum and
// stand in the way: those of one that failed, or of which nothing is healthy, or
// all such when the new one is complete.
func (r *round) weak(g *group) []*task {
	if r.primaryHealthy() {
		return slices.Concat(g.pending, g.bad, g.undecided)
	}
	if g.d.state == types.DeploymentRolloutStateFailed || len(g.healthy)+len(g.displaced) == 0 || r.bounds.low == 0 {
		return slices.Concat(g.pending, g.bad)
	}
	return nil
}

// primaryHealthy reports whether the PRIMARY deployment has all its tasks, healthy.
func (r *round) primaryHealthy() bool {
	g := r.groups[0]
	return len(g.healthy) >= r.s.desired && g.live() == len(g.healthy)
}

// retire stops tasks of old deployments: as many healthy ones as there are above the minimum.
func (r *round) retire(olds []*group) {
	for _, g := range olds {
		for _, t := range r.weak(g) {
			if !t.shielded(r.now) {
				r.retireOne(g, t)
			}
		}
	}
	for {
		g, t := r.victim(olds)
		if t == nil || r.bounds.low > 0 && r.healthy <= r.bounds.low {
			return
		}
		r.retireOne(g, t)
	}
}

func (r *round) retireOne(g *group, t *task) {
	g.d.want = max(g.d.want-1, 0)
	r.stop(g, t, "")
}

// victim is the task to be stopped next: a pending one, an unhealthy one, else
// one in the zone, and on the instance, with the most.
func (r *round) victim(groups []*group) (*group, *task) {
	for _, kind := range []func(*group) []*task{
		func(g *group) []*task { return g.pending },
		func(g *group) []*task { return g.bad },
		func(g *group) []*task { return slices.Concat(g.undecided, g.displaced, g.healthy) },
	} {
		for _, g := range groups {
			if t := r.crowded(kind(g)); t != nil {
				return g, t
			}
		}
	}
	return nil, nil
}

// crowded is the task in the zone, and on the instance, with the most tasks. A
// task that is protected from scale-in is none.
func (r *round) crowded(tasks []*task) *task {
	var best *task
	for _, t := range tasks {
		if t.shielded(r.now) {
			continue
		}
		if best == nil || r.spread.better(best.instance, t.instance) {
			best = t
		}
	}
	return best
}

// scaleIn stops tasks that are more than desired.
func (r *round) scaleIn(g *group) {
	for g.good() > r.s.desired {
		_, t := r.victim([]*group{g})
		if t == nil {
			return
		}
		r.stop(g, t, "")
	}
}

// stop asks for the end of a task; without a reason it is scaled in.
func (r *round) stop(g *group, t *task, reason string) {
	if reason == "" {
		reason = "Scaling activity initiated by (deployment " + r.s.primary().id + ")"
	}
	r.stops = append(r.stops, stopped{t, t.pending()})
	if v, _, _ := t.judge(r.now); v == healthy {
		r.healthy--
	}
	g.remove(t)
	r.spread.add(t.instance, -1)
	r.ending++
	r.Plane.stop(t, types.TaskStopCodeServiceSchedulerInitiated, reason)
}

func (g *group) remove(t *task) {
	g.pending, g.undecided = without(g.pending, t), without(g.undecided, t)
	g.healthy, g.bad, g.displaced = without(g.healthy, t), without(g.bad, t), without(g.displaced, t)
}

// report writes the events of what was started and stopped, and of what could
// not be.
func (r *round) report() {
	r.tellStops(r.s, r.stops)
	if len(r.starts) > 0 {
		r.tell(r.s, startedText(r.starts, r.fresh))
	}
	if len(r.stops) > 0 || len(r.starts) > 0 {
		r.s.primary().touch(r.now)
		r.s.over("stuck")
	}
	r.reportProtection()
}
