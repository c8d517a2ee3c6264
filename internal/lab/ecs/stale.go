package ecs

import (
	"context"
	"time"

	"jumpsuite/internal/lab/wire"
	"jumpsuite/internal/lab/world"
)

// history keeps copies of the state for reads that are answered with how it was
// some time ago: AWS's eventual consistency, on demand.
type history struct {
	keep    time.Duration // how far back; zero: nothing is kept
	copies  []past        // oldest first
	changed time.Time     // when the state changed last
	// rest is when the next copy may be made, outside: in a large world copying
	// must not take all the time there is. A read may show a little more of the past for it.
	rest time.Time
	cost time.Duration // what a copy takes
}

// leisure is how many times as long as a copy takes no other is made.
const leisure = 10

type past struct {
	at    time.Time
	state *state
}

// longestStale is how far back the reads of a world may look.
func longestStale(w *world.World) time.Duration {
	longest := w.StaleReads
	for _, f := range w.Faults {
		longest = max(longest, f.Stale)
	}
	return time.Duration(longest)
}

// KeepHistory makes the plane remember its state for d, so that reads can be
// answered with it. A world's own StaleReads and faults need no call.
func (p *Plane) KeepHistory(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.history.keep = max(p.history.keep, d)
	p.history.begin(p)
}

// forgetTheVoid forgets the state from before the world was built: a stale read
// shows how things were, and not that there was nothing.
func (p *Plane) forgetTheVoid() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.history.copies = nil
	if p.history.keep > 0 {
		p.history.record(p)
	}
}

// begin remembers the state before the first change.
func (h *history) begin(p *Plane) {
	if h.keep > 0 && len(h.copies) == 0 {
		h.record(p)
	}
}

// record remembers the state, and forgets what no read asks for any more: all
// but one of the copies that are older than keep.
func (h *history) record(p *Plane) {
	if h.keep == 0 {
		return
	}
	h.changed = p.now()
	start := time.Now()
	if len(h.copies) > 0 && start.Before(h.rest) {
		return
	}
	h.copies = append(h.copies, past{h.changed, p.state.clone()})
	h.rest = time.Now().Add(leisure * h.took(time.Since(start)))
	first := 0
	for first+1 < len(h.copies) && h.changed.Sub(h.copies[first+1].at) > h.keep {
		first++
	}
	h.copies = h.copies[first:]
}

// took is what a copy costs, now that the last one has taken d: of a machine that is busy
// elsewhere one copy may take a hundred times as long as the others, and reads
// would show far more of the past for it than they are asked for.
func (h *history) took(d time.Duration) time.Duration {
	if h.cost > 0 {
		d = min(d, 2*h.cost)
	}
	h.cost = d
	return d
}

// at is the state as it was at the time t; now is what it is.
func (h *history) at(t time.Time, now *state) *state {
	if len(h.copies) == 0 || !h.changed.After(t) {
		return now
	}
	found := h.copies[0].state
	for _, c := range h.copies {
		if c.at.After(t) {
			break
		}
		found = c.state
	}
	return found
}

// read runs f with the state that a read is to be answered with.
func (p *Plane) read(ctx context.Context, f func(*state) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	age := max(time.Duration(p.world.StaleReads), wire.Stale(ctx))
	if age <= 0 {
		return f(p.state)
	}
	p.history.keep = max(p.history.keep, age)
	p.history.begin(p)
	return f(p.history.at(p.now().Add(-age), p.state))
}

// clone copies everything that changes in place.
func (s *state) clone() *state {
	c := copier{
		clusters: map[*cluster]*cluster{}, instances: map[*instance]*instance{}, definitions: map[*definition]*definition{},
		services: map[*service]*service{}, deployments: map[*deployment]*deployment{}, revisions: map[*revision]*revision{},
		rollouts: map[*rollout]*rollout{}, tasks: map[*task]*task{},
	}
	n := newState()
	for name, f := range s.families {
		n.families[name] = &family{name: f.name, definitions: each(f.definitions, c.definition)}
	}
	n.clusters = each(s.clusters, c.cluster)
	for arn, r := range s.rollouts {
		n.rollouts[arn] = c.rollout(r)
	}
	for arn, r := range s.revisions {
		n.revisions[arn] = c.revision(r)
	}
	return n
}

// copier copies a graph: each thing once.
type copier struct {
	clusters    map[*cluster]*cluster
	instances   map[*instance]*instance
	definitions map[*definition]*definition
	services    map[*service]*service
	deployments map[*deployment]*deployment
	revisions   map[*revision]*revision
	rollouts    map[*rollout]*rollout
	tasks       map[*task]*task
}

// twin returns the copy of v, and whether it is new and has to be filled.
func twin[T any](known map[*T]*T, v *T) (*T, bool) {
	if v == nil {
		return nil, false
	}
	if n, ok := known[v]; ok {
		return n, false
	}
	n := new(T)
	*n = *v
	known[v] = n
	return n, true
}

func each[T any](list []*T, f func(*T) *T) []*T {
	out := make([]*T, len(list))
	for i, v := range list {
		out[i] = f(v)
	}
	return out
}

func (c copier) cluster(v *cluster) *cluster {
	n, fresh := twin(c.clusters, v)
	if !fresh {
		return n
	}
	n.instances = each(v.instances, c.instance)
	n.services = each(v.services, c.service)
	n.tasks = each(v.tasks, c.task)
	n.byTask = make(map[string]*task, len(v.byTask))
	for id, t := range v.byTask {
		n.byTask[id] = c.task(t)
	}
	return n
}

func (c copier) instance(v *instance) *instance {
	n, fresh := twin(c.instances, v)
	if fresh {
		n.cluster = c.cluster(v.cluster)
		n.tasks = each(v.tasks, c.task)
	}
	return n
}

func (c copier) definition(v *definition) *definition {
	n, _ := twin(c.definitions, v)
	return n
}

func (c copier) service(v *service) *service {
	n, fresh := twin(c.services, v)
	if !fresh {
		return n
	}
	n.cluster = c.cluster(v.cluster)
	n.deployments = each(v.deployments, c.deployment)
	n.completed = c.deployment(v.completed)
	n.rollouts = each(v.rollouts, c.rollout)
	n.revisions = each(v.revisions, c.revision)
	n.tasks = each(v.tasks, c.task)
	return n
}

func (c copier) deployment(v *deployment) *deployment {
	n, fresh := twin(c.deployments, v)
	if fresh {
		n.service = c.service(v.service)
		n.def = c.definition(v.def)
		n.revision = c.revision(v.revision)
		n.rollout = c.rollout(v.rollout)
	}
	return n
}

func (c copier) revision(v *revision) *revision {
	n, fresh := twin(c.revisions, v)
	if fresh {
		n.service = c.service(v.service)
		n.def = c.definition(v.def)
	}
	return n
}

func (c copier) rollout(v *rollout) *rollout {
	n, fresh := twin(c.rollouts, v)
	if fresh {
		n.service = c.service(v.service)
		n.target = c.deployment(v.target)
		n.rollbackTo = c.deployment(v.rollbackTo)
		n.sources = each(v.sources, c.deployment)
	}
	return n
}

func (c copier) task(v *task) *task {
	n, fresh := twin(c.tasks, v)
	if !fresh {
		return n
	}
	n.cluster = c.cluster(v.cluster)
	n.service = c.service(v.service)
	n.deployment = c.deployment(v.deployment)
	n.instance = c.instance(v.instance)
	n.def = c.definition(v.def)
	n.containers = make([]*container, len(v.containers))
	for i, k := range v.containers {
		copied := *k
		n.containers[i] = &copied
	}
	return n
}
