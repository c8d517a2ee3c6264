package ecs

import (
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// breakerOf is a deployment configuration's circuit breaker; nil: none is enabled.
func breakerOf(c types.DeploymentConfiguration) *types.DeploymentCircuitBreaker {
	if c.DeploymentCircuitBreaker == nil || !c.DeploymentCircuitBreaker.Enable {
		return nil
	}
	return c.DeploymentCircuitBreaker
}

// threshold is the number of failures that trips a circuit breaker: half the
// desired count, but at least 3 and at most 200, unless configured otherwise
// (developer guide, "Deployment circuit breaker").
func threshold(b *types.DeploymentCircuitBreaker, desired int) int {
	kind, percent := types.ThresholdTypeBoundedPercent, 50
	if t := b.ThresholdConfiguration; t != nil {
		kind, percent = t.Type, int(t.Value)
	}
	n := (desired*percent + 99) / 100
	switch kind {
	case types.ThresholdTypeCount:
		return percent
	case types.ThresholdTypeUnboundedPercent:
		return max(n, 1)
	}
	return min(max(n, 3), 200)
}

// resets reports whether a healthy task sets the circuit breaker's count back.
func (d *deployment) resets() bool {
	b := breakerOf(d.service.config)
	return b == nil || b.ResetOnHealthyTask == nil || *b.ResetOnHealthyTask
}

// monitored reports whether the circuit breaker looks at the deployment: at those of
// rolling updates and of blue/green (developer guide, "Amazon ECS deployment failure
// detection"; the SDK's comment of DeploymentConfiguration still says rolling alone).
func (d *deployment) monitored() bool {
	return d.status == "PRIMARY" && d.state == types.DeploymentRolloutStateInProgress && breakerOf(d.service.config) != nil && d.service.rolls() &&
		(!stagedStrategy(d.service.config.Strategy) || d.service.config.Strategy == types.DeploymentStrategyBlueGreen)
}

// anyRunning tells the circuit breaker's second stage, in which a task of the
// deployment runs, from its first.
func (d *deployment) anyRunning() bool {
	for _, t := range d.service.tasks {
		if t.deployment == d && t.running() && t.wanted() {
			return true
		}
	}
	return false
}

// countFailure takes the end of a task that nobody asked for. One that never
// ran counts for the throttle, and in the first stage for the circuit breaker.
// One that ran counts only if a health check was still to be passed: without
// health checks the circuit breaker does not see crash loops.
func (p *Plane) countFailure(t *task) {
	d := t.deployment
	if t.orderly {
		return
	}
	if !t.ran {
		d.failed++
		p.throttle(d)
		if !d.anyRunning() {
			p.count(d)
		}
		return
	}
	if t.anyCheck() && !t.fit && !t.replaced {
		t.replaced = true
		d.failed++
		p.count(d)
	}
}

// countUnfit takes a task that is replaced because of its health.
func (p *Plane) countUnfit(t *task) {
	if t.replaced {
		return
	}
	t.replaced = true
	t.deployment.failed++
	p.count(t.deployment)
}

// countUnplaced takes a task that found no place. With the circuit breaker on,
// that is a failure too (roadmap #1273 asks for it not to be).
func (r *round) countUnplaced(d *deployment) {
	if !d.monitored() || d.anyRunning() || r.now.Before(d.nextUnplaced) {
		return
	}
	d.nextUnplaced = r.now.Add(retry)
	d.failed++
	r.count(d)
}

// count adds a failure, and fails the deployment when there are enough.
func (p *Plane) count(d *deployment) {
	if !d.monitored() {
		return
	}
	d.breaker++
	if d.breaker >= threshold(breakerOf(d.service.config), d.service.desired) {
		p.trip(d)
	}
}

// trip fails a deployment, and rolls back where that is configured and possible.
func (p *Plane) trip(d *deployment) {
	s := d.service
	if r := d.rollout; r != nil {
		r.breakerStatus = types.ServiceDeploymentRollbackMonitorsStatusTriggered
		r.failures = d.breaker
	}
	if stagedStrategy(s.config.Strategy) && breakerOf(s.config).Rollback {
		p.abandon(d, "the circuit breaker threshold was exceeded.")
		return
	}
	p.fail(d, "ECS deployment circuit breaker: tasks failed to start.")
	p.tell(s, "(deployment "+d.id+") deployment failed: tasks failed to start.")
	if breakerOf(s.config).Rollback && s.completed != nil && s.completed != d {
		p.rollBack(d, "Service deployment rolled back because the circuit breaker threshold was exceeded.")
		return
	}
	p.giveUp(d, "Service deployment stopped because the circuit breaker threshold was exceeded.")
}

func (p *Plane) fail(d *deployment, reason string) {
	d.state, d.reason, d.updated = types.DeploymentRolloutStateFailed, reason, p.now()
}

// Launch throttle (developer guide, "Service throttle logic"): when tasks of a
// service do not get as far as RUNNING, it waits longer and longer before it
// starts the next ones, at most 27 minutes. Only a new task definition ends it.
const (
	throttleStep = 10 * time.Second
	throttleMost = 27 * time.Minute
	// throttleTold is the failure in a row with which ECS says so.
	throttleTold = 3
)

func (p *Plane) throttle(d *deployment) {
	d.starts++
	rounds := (d.starts + max(d.service.desired, 1) - 1) / max(d.service.desired, 1)
	wait := throttleMost
	if rounds < 9 {
		wait = min(throttleStep<<(rounds-1), throttleMost)
	}
	d.notUntil = p.now().Add(wait)
	if rounds >= throttleTold {
		p.condition(d.service, "throttle", "is unable to consistently start tasks successfully."+troubleshooting)
	}
}
