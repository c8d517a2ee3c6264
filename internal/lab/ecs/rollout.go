package ecs

import (
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// deploy begins a deployment of a service: it becomes PRIMARY, the former one
// ACTIVE.
func (p *Plane) deploy(s *service, d *definition) *deployment {
	n := p.newDeployment(s, d)
	p.newRollout(s, n)
	if former := s.primary(); former != nil {
		former.status = "ACTIVE"
		former.want = former.liveTasks()
		former.updated = p.now()
	}
	s.deployments = append([]*deployment{n}, s.deployments...)
	s.steady = false
	for _, key := range []string{"place", "stuck", "throttle", "protection"} {
		s.over(key)
	}
	p.kick(s, 2*time.Second)
	return n
}

// newDeployment makes a deployment with its revision; it is not listed yet.
func (p *Plane) newDeployment(s *service, def *definition) *deployment {
	now := p.now()
	r := &revision{
		seq: p.nextSeq(), arn: p.arn("service-revision", s.cluster.name, s.name, p.number()), service: s, def: def,
		balancers: s.balancers, groups: s.groupsFor(), network: s.network, created: now, digests: map[string]string{},
	}
	p.state.revisions[r.arn] = r
	s.revisions = append(s.revisions, r)
	d := &deployment{id: "ecs-svc/" + p.number(), service: s, status: "PRIMARY", def: def, revision: r, created: now, updated: now, network: s.network}
	d.progress()
	return d
}

// groupsFor are the target groups that a new revision gets: where a balancer has
// two, the one that the revision in production does not have.
func (s *service) groupsFor() []string {
	groups := make([]string, len(s.balancers))
	for i, b := range s.balancers {
		groups[i] = str(b.TargetGroupArn)
		p := s.primary()
		if a := b.AdvancedConfiguration; a != nil && stagedStrategy(s.config.Strategy) && p != nil && slices.Contains(s.production().revision.groups, groups[i]) {
			groups[i] = str(a.AlternateTargetGroupArn)
		}
	}
	return groups
}

// production is the deployment that has the production traffic: the last one
// that completed, or the PRIMARY one where none has.
func (s *service) production() *deployment {
	if s.completed != nil {
		return s.completed
	}
	return s.primary()
}

func (d *deployment) progress() {
	d.state = types.DeploymentRolloutStateInProgress
	d.reason = "ECS deployment " + d.id + " in progress."
}

// touch says that something about a deployment changed.
func (d *deployment) touch(now time.Time) {
	d.updated = now
	if d.rollout != nil {
		d.rollout.updated = now
	}
}

func (d *deployment) liveTasks() int {
	n := 0
	for _, t := range d.service.tasks {
		if t.deployment == d && t.wanted() {
			n++
		}
	}
	return n
}

// newRollout makes the service deployment of a deployment. One that is under way is over.
func (p *Plane) newRollout(s *service, d *deployment) {
	if !s.rolls() {
		return
	}
	for _, r := range s.rollouts {
		if !r.over {
			p.endRollout(r, types.ServiceDeploymentStatusStopped, "Service deployment stopped because a new service deployment was started.")
		}
	}
	now := p.now()
	r := &rollout{
		seq: p.nextSeq(), arn: p.arn("service-deployment", s.cluster.name, s.name, p.rolloutID()), service: s, target: d,
		status: types.ServiceDeploymentStatusPending, created: now, updated: now, config: s.config, deaf: s.alarm,
	}
	for _, x := range s.deployments {
		if x.liveTasks() > 0 || x == s.completed {
			r.sources = append(r.sources, x)
		}
	}
	r.breakerStatus = types.ServiceDeploymentRollbackMonitorsStatusDisabled
	if b := breakerOf(s.config); b != nil {
		r.breakerStatus, r.threshold = types.ServiceDeploymentRollbackMonitorsStatusMonitoring, threshold(b, s.desired)
	}
	d.rollout = r
	s.rollouts = append(s.rollouts, r)
	p.state.rollouts[r.arn] = r
}

// endRollout ends a service deployment.
func (p *Plane) endRollout(r *rollout, status types.ServiceDeploymentStatus, reason string) {
	now := p.now()
	r.requested, r.running, _ = r.target.counts()
	r.status, r.reason, r.updated, r.finished, r.over = status, reason, now, now, true
	if status == types.ServiceDeploymentStatusStopped {
		r.stopped = now
	}
	if r.breakerStatus == types.ServiceDeploymentRollbackMonitorsStatusMonitoring {
		r.breakerStatus = types.ServiceDeploymentRollbackMonitorsStatusMonitoringComplete
		r.failures = r.target.breaker
	}
	r.target.rollout = nil
}

// counts are the tasks that a deployment wants, runs and starts.
func (d *deployment) counts() (want, running, pending int) {
	for _, t := range d.service.tasks {
		switch {
		case t.deployment != d:
		case t.running():
			running++
		case t.pending() && t.wanted():
			pending++
		}
	}
	want = d.want
	if d.status == "PRIMARY" {
		want = d.service.desired
	}
	return want, running, pending
}

// rollBack makes the most recent COMPLETED deployment PRIMARY again. It is no
// target for another roll-back until it is COMPLETED again.
func (p *Plane) rollBack(d *deployment, reason string) {
	s := d.service
	to := s.completed
	s.completed = nil
	p.tell(s, "rolling back to deployment "+to.id+".")
	d.status, d.want = "ACTIVE", 0
	s.deployments = append([]*deployment{to}, without(s.deployments, to)...)
	to.status, to.updated = "PRIMARY", p.now()
	to.failed, to.breaker, to.starts, to.notUntil = 0, 0, 0, time.Time{}
	to.progress()
	if r := d.rollout; r != nil {
		now := p.now()
		r.status, r.updated = types.ServiceDeploymentStatusRollbackInProgress, now
		r.reason, r.rollbackTo = reason, to
		r.rollback = &types.Rollback{Reason: ptr(reason), StartedAt: when(now), ServiceRevisionArn: ptr(to.revision.arn)}
		r.weight, r.testWeight = 0, 0
		to.rollout, d.rollout = r, nil
	}
	p.kick(s, time.Second)
}

// giveUp ends a failed deployment that is not rolled back.
func (p *Plane) giveUp(d *deployment, reason string) {
	r := d.rollout
	if r == nil {
		return
	}
	if r.rollbackTo != nil {
		p.endRollout(r, types.ServiceDeploymentStatusRollbackFailed, reason)
		d.rollout = nil
		return
	}
	p.endRollout(r, types.ServiceDeploymentStatusStopped, reason)
}

// finish writes down what a look at a service found to be complete.
func (r *round) finish() {
	s := r.s
	r.dropOld()
	r.startRollout()
	r.alarms()
	r.stages()
	if s.status != "ACTIVE" {
		r.closeService()
		return
	}
	primary := s.primary()
	if primary.state == types.DeploymentRolloutStateInProgress && r.succeeded() {
		r.complete(primary)
	}
	r.steady()
}

// dropOld takes deployments off the list that have no tasks any more.
func (r *round) dropOld() {
	has := map[*deployment]bool{}
	for _, t := range r.s.tasks {
		has[t.deployment] = true
	}
	keep := r.s.deployments[:1:1]
	for _, d := range r.s.deployments[1:] {
		// An old deployment that lost its tasks, beside one that failed, still wants them.
		if has[d] || d.want > 0 && !r.succeeding() {
			keep = append(keep, d)
			continue
		}
		d.status = "INACTIVE"
	}
	r.s.deployments = keep
}

// succeeding reports whether the PRIMARY deployment has all its tasks.
func (r *round) succeeding() bool { return !r.stalled() && r.primaryHealthy() }

func (r *round) startRollout() {
	o := r.s.primary().rollout
	if o == nil || o.status != types.ServiceDeploymentStatusPending {
		return
	}
	o.status, o.started, o.updated = types.ServiceDeploymentStatusInProgress, r.now, r.now
}

// closeService makes a deleted service INACTIVE when its last task is gone.
func (r *round) closeService() {
	if len(r.s.tasks) > 0 {
		return
	}
	r.retireService(r.s)
}

// retireService makes a service INACTIVE; some time later nobody knows it any more.
func (p *Plane) retireService(s *service) {
	s.status, s.inactive = "INACTIVE", p.now()
	s.desired = 0
	s.deployments, s.starved = nil, false
	for _, r := range s.rollouts {
		if !r.over {
			p.endRollout(r, types.ServiceDeploymentStatusStopped, "Service deployment stopped because the service was deleted.")
		}
	}
	p.after(visible, func() { s.cluster.services = without(s.cluster.services, s) })
}

// succeeded reports whether the PRIMARY deployment is done: all its tasks are
// healthy and those of the others are gone (types.go,
// DeploymentEarlySuccessCriteria), unless the service wants it said earlier.
func (r *round) succeeded() bool {
	g := r.groups[0]
	if r.staged() {
		return r.stagesDone()
	}
	others := r.alive - g.live()
	if e := r.s.config.EarlySuccessCriteria; e != nil && e.Enable {
		enough := (r.s.desired*value(e.HealthyPercent) + 99) / 100
		return len(g.healthy) >= enough && (e.SourceServiceRevisionCleanup == types.ServiceRevisionCleanupDeferred || others == 0)
	}
	return others == 0 && len(g.healthy) == r.s.desired && g.live() == r.s.desired && !r.alarmBake(g)
}

// alarms fails a deployment during which an alarm of the service goes off. One
// that was there before is not looked at (developer guide, "How CloudWatch alarms
// detect deployment failures"). The event's text is AWS's; the reason is made alike.
func (r *round) alarms() {
	d, a := r.s.primary(), r.s.config.Alarms
	o := d.rollout
	if a == nil || !a.Enable || !r.s.alarm || o == nil || o.deaf || o.rollbackTo != nil || d.state != types.DeploymentRolloutStateInProgress {
		return
	}
	o.alarmed = true
	r.tell(r.s, "(deployment "+d.id+") deployment failed: alarm detected.")
	if a.Rollback {
		r.rollBackOrStop(d, "Service deployment rolled back because of one or more active alarms.")
		return
	}
	r.fail(d, "ECS deployment failed: alarm detected.")
	r.giveUp(d, "Service deployment stopped because of one or more active alarms.")
}

// alarmBake reports whether a deployment with alarms still has to be watched.
func (r *round) alarmBake(g *group) bool {
	a := r.s.config.Alarms
	if a == nil || !a.Enable {
		return false
	}
	if g.d.done.IsZero() {
		g.d.done = r.now
	}
	until := g.d.done.Add(r.s.bakeTime())
	r.wakeAt(until)
	return r.now.Before(until)
}

// complete ends the PRIMARY deployment, or the roll-back to it, well.
func (r *round) complete(d *deployment) {
	d.state, d.reason, d.updated = types.DeploymentRolloutStateCompleted, "ECS deployment "+d.id+" completed.", r.now
	d.done = time.Time{}
	r.s.completed = d
	if o := d.rollout; o != nil {
		status, reason := types.ServiceDeploymentStatusSuccessful, ""
		if o.rollbackTo != nil {
			status, reason = types.ServiceDeploymentStatusRollbackSuccessful, o.reason
		}
		r.endRollout(o, status, reason)
		d.rollout = nil
	}
	r.tell(r.s, "(deployment "+d.id+") deployment completed.")
}

// steady tells when the service has reached a steady state, and every six hours
// while it stays in it.
func (r *round) steady() {
	g := r.groups[0]
	if len(r.s.deployments) > 1 || r.alive != r.s.desired || len(g.healthy) != r.s.desired || !r.settled() {
		r.s.steady = false
		r.s.over("steady")
		return
	}
	r.s.steady = true
	r.condition(r.s, "steady", "has reached a steady state.")
	r.wakeAt(r.s.conditions["steady"].at.Add(repeat))
}

func (r *round) settled() bool {
	return r.s.classic() || r.s.primary().state == types.DeploymentRolloutStateCompleted || !r.s.rolls()
}

// reportProtection tells when tasks that should go are protected.
func (r *round) reportProtection() {
	for i, g := range r.groups {
		shielded := 0
		for _, t := range g.all() {
			if t.shielded(r.now) {
				shielded++
			}
		}
		surplus := g.good() > r.s.desired
		if i > 0 {
			surplus = !r.stalled() && r.primaryHealthy() && r.mayRetire()
		}
		if shielded == 0 || !surplus {
			continue
		}
		r.condition(r.s, "protection", fmt.Sprintf("was unable to reach steady state because (taskSet %s) was unable to scale in due to (reason %d tasks under protection)", g.d.id, shielded))
		return
	}
	r.s.over("protection")
}

// lastRollout is the newest service deployment; nil: there was none.
func (s *service) lastRollout() *rollout {
	if len(s.rollouts) == 0 {
		return nil
	}
	return s.rollouts[len(s.rollouts)-1]
}
