package ecs

import (
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// settle is how long a task without any health check must run to count as
// healthy (API reference, DeploymentConfiguration.minimumHealthyPercent).
const settle = 40 * time.Second

// verdict is what the scheduler makes of a running task.
type verdict int

const (
	undecided verdict = iota
	healthy
	unhealthy
)

// judge says whether a task counts as healthy, and why it does not. Health
// checks that fail count when the grace period is over. again is when time
// alone may change the verdict; zero: never.
func (t *task) judge(now time.Time) (v verdict, why string, again time.Time) {
	if !t.running() || !t.wanted() {
		return undecided, "", time.Time{}
	}
	if !t.anyCheck() {
		if at := t.started.Add(settle); now.Before(at) {
			return undecided, "", at
		}
		return healthy, "", time.Time{}
	}
	v, why = t.checks()
	if over := t.started.Add(t.service.gracePeriod()); v == unhealthy && now.Before(over) {
		return undecided, "", over
	}
	return v, why, time.Time{}
}

func (t *task) anyCheck() bool {
	if len(t.targets) > 0 {
		return true
	}
	for _, c := range t.containers {
		if c.checked && c.essential {
			return true
		}
	}
	return false
}

// checks is the worst of a task's container health checks and targets.
func (t *task) checks() (verdict, string) {
	v, why := healthy, ""
	for _, c := range t.containers {
		switch {
		case !c.checked || !c.essential || c.health == types.HealthStatusHealthy:
		case c.health == types.HealthStatusUnhealthy:
			return unhealthy, "(task " + t.id + ") failed container health checks."
		default:
			v = undecided
		}
	}
	for _, g := range t.targets {
		switch g.state {
		case "healthy":
		case "unhealthy":
			return unhealthy, t.targetText(g)
		default:
			v = undecided
		}
	}
	return v, why
}

// targetText is the event for a target that fails its checks.
func (t *task) targetText(g *target) string {
	where := "(task " + t.id + ") "
	if t.eni == nil && t.instance != nil {
		where += "(instance " + t.instance.ec2 + ") "
	}
	return fmt.Sprintf("%s(port %d) is unhealthy in (target-group %s) due to (reason %s)", where, g.port, g.arn, g.why)
}

// unfitReason is the stoppedReason of a task that is stopped for its health.
func (t *task) unfitReason() string {
	for _, g := range t.targets {
		if g.state == "unhealthy" {
			return "Task failed ELB health checks in (target-group " + g.arn + ")"
		}
	}
	return "Task failed container health checks"
}

func (s *service) gracePeriod() time.Duration {
	if s == nil {
		return 0
	}
	return time.Duration(value(s.grace)) * time.Second
}

// healthStatus is the worst of the essential containers' health; UNKNOWN when
// the task definition has no health check.
func (t *task) healthStatus() types.HealthStatus {
	status := types.HealthStatusHealthy
	checked := false
	for _, c := range t.containers {
		if !c.checked || !c.essential {
			continue
		}
		checked = true
		if c.health == types.HealthStatusUnhealthy {
			return types.HealthStatusUnhealthy
		}
		if c.health != types.HealthStatusHealthy {
			status = types.HealthStatusUnknown
		}
	}
	if !checked {
		return types.HealthStatusUnknown
	}
	return status
}
