package ecs

import (
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// The stages of a BLUE_GREEN, LINEAR or CANARY deployment, in order. The new
// revision is scaled up beside the old one, gets test traffic, then production
// traffic, at once or in steps; the old one is kept for the bake time and then
// cleaned up. Before that, a roll-back only puts the traffic back.
var lifecycleStages = []types.ServiceDeploymentLifecycleStage{
	types.ServiceDeploymentLifecycleStageReconcileService,
	types.ServiceDeploymentLifecycleStagePreScaleUp,
	types.ServiceDeploymentLifecycleStageScaleUp,
	types.ServiceDeploymentLifecycleStagePostScaleUp,
	types.ServiceDeploymentLifecycleStageTestTrafficShift,
	types.ServiceDeploymentLifecycleStagePostTestTrafficShift,
	types.ServiceDeploymentLifecycleStageProductionTrafficShift,
	types.ServiceDeploymentLifecycleStagePostProductionTrafficShift,
	types.ServiceDeploymentLifecycleStageBakeTime,
	types.ServiceDeploymentLifecycleStageCleanUp,
}

// stageTime is how long a stage takes in which nothing has to be waited for.
const stageTime = 5 * time.Second

// hookTimeout is how long a PAUSE hook waits for someone to continue.
const hookTimeout = 24 * time.Hour

// stage is where a staged deployment is.
type stage struct {
	at    int       // in lifecycleStages
	since time.Time // zero: has not begun
	step  int       // of the traffic shift
	asked bool      // the stage's hooks have been started
}

// staged reports whether the PRIMARY deployment goes through stages. A roll-back
// does not.
func (r *round) staged() bool {
	d := r.s.primary()
	return stagedStrategy(r.s.config.Strategy) && d.rollout != nil && d.rollout.rollbackTo == nil && len(d.rollout.sources) > 0
}

func stagedStrategy(s types.DeploymentStrategy) bool {
	return s == types.DeploymentStrategyBlueGreen || s == types.DeploymentStrategyLinear || s == types.DeploymentStrategyCanary
}

// mayRetire reports whether old tasks may be stopped: in the last stage only.
func (r *round) mayRetire() bool {
	return !r.staged() || r.s.primary().stage.at == len(lifecycleStages)-1
}

func (r *round) stagesDone() bool {
	g := r.groups[0]
	return r.mayRetire() && r.alive == g.live() && len(g.healthy) == r.s.desired
}

// stages moves a staged deployment on.
func (r *round) stages() {
	if !r.staged() || r.stalled() || r.s.status != "ACTIVE" {
		return
	}
	d := r.s.primary()
	if d.stage.since.IsZero() {
		d.stage.since = r.now
	}
	for r.stageOver(d) {
		d.stage = stage{at: d.stage.at + 1, since: r.now}
		d.rollout.updated = r.now
		r.wakeAt(r.now.Add(time.Millisecond))
	}
	d.rollout.lifecycle = lifecycleStages[d.stage.at]
}

// stageOver reports whether the deployment may enter the next stage.
func (r *round) stageOver(d *deployment) bool {
	if d.stage.at == len(lifecycleStages)-1 {
		return false
	}
	if !r.hooksDone(d) {
		return false
	}
	switch lifecycleStages[d.stage.at] {
	case types.ServiceDeploymentLifecycleStageScaleUp:
		return r.primaryHealthy()
	case types.ServiceDeploymentLifecycleStageTestTrafficShift:
		d.rollout.testWeight = 100
	case types.ServiceDeploymentLifecycleStageProductionTrafficShift:
		return r.shift(d)
	case types.ServiceDeploymentLifecycleStageBakeTime:
		return r.passed(d, r.s.bakeTime())
	}
	return r.passed(d, stageTime)
}

// passed reports whether the stage has lasted for a time, and looks again then.
func (r *round) passed(d *deployment, wait time.Duration) bool {
	end := d.stage.since.Add(wait)
	if r.now.Before(end) {
		r.wakeAt(end)
		return false
	}
	return true
}

// shift moves production traffic: all at once, in equal steps, or a little first.
func (r *round) shift(d *deployment) bool {
	percent, bake := r.s.steps()
	weight := min(percent*float64(d.stage.step+1), 100)
	if r.s.config.Strategy == types.DeploymentStrategyCanary && d.stage.step > 0 {
		weight = 100
	}
	d.rollout.weight = weight
	if weight >= 100 {
		return r.passed(d, time.Duration(d.stage.step)*bake+stageTime)
	}
	if r.passed(d, time.Duration(d.stage.step+1)*bake) {
		d.stage.step++
		r.wakeAt(r.now.Add(time.Millisecond))
	}
	return false
}

// steps are the percent of a step of the traffic shift, and how long it lasts.
func (s *service) steps() (percent float64, bake time.Duration) {
	switch s.config.Strategy {
	case types.DeploymentStrategyLinear:
		percent, bake = 10, 6*time.Minute
		if l := s.config.LinearConfiguration; l != nil {
			percent, bake = orFloat(l.StepPercent, percent), orMinutes(l.StepBakeTimeInMinutes, bake)
		}
	case types.DeploymentStrategyCanary:
		percent, bake = 5, 10*time.Minute
		if c := s.config.CanaryConfiguration; c != nil {
			percent, bake = orFloat(c.CanaryPercent, percent), orMinutes(c.CanaryBakeTimeInMinutes, bake)
		}
	default:
		return 100, 0
	}
	return percent, bake
}

func orFloat(f *float64, fallback float64) float64 {
	if f == nil {
		return fallback
	}
	return *f
}

func orMinutes(n *int32, fallback time.Duration) time.Duration {
	if n == nil {
		return fallback
	}
	return time.Duration(*n) * time.Minute
}

// bakeTime is how long both revisions stay after the traffic was shifted. A
// world may give seconds, which the API's minutes cannot say.
func (s *service) bakeTime() time.Duration {
	if s.bake > 0 {
		return s.bake
	}
	return orMinutes(s.config.BakeTimeInMinutes, 0)
}

// hooksDone starts the hooks of a stage, and reports whether they are through.
// PAUSE hooks wait for ContinueServiceDeployment; a Lambda hook succeeds.
func (r *round) hooksDone(d *deployment) bool {
	if !d.stage.asked {
		d.stage.asked = true
		r.startHooks(d)
	}
	open := false
	for i, h := range d.rollout.hooks {
		if h.Status != types.DeploymentLifecycleHookStatusAwaitingAction {
			continue
		}
		if !r.now.Before(*h.ExpiresAt) {
			r.hookTimedOut(d, i)
			return false
		}
		r.wakeAt(*h.ExpiresAt)
		open = true
	}
	return !open
}

func (r *round) startHooks(d *deployment) {
	at := types.DeploymentLifecycleHookStage(lifecycleStages[d.stage.at])
	for _, h := range r.s.config.LifecycleHooks {
		if !slices.Contains(h.LifecycleStages, at) {
			continue
		}
		detail := types.DeploymentLifecycleHookDetail{HookId: ptr(r.uuid()), TargetType: h.TargetType, TargetArn: h.HookTargetArn, Status: types.DeploymentLifecycleHookStatusSucceeded}
		if h.TargetType == types.DeploymentLifecycleHookTargetTypePause {
			wait, action := hookTimeout, types.DeploymentLifecycleHookActionRollback
			if c := h.TimeoutConfiguration; c != nil {
				wait = orMinutes(c.TimeoutInMinutes, wait)
				action = types.DeploymentLifecycleHookAction(or(string(c.Action), string(action)))
			}
			detail.Status, detail.TimeoutAction = types.DeploymentLifecycleHookStatusAwaitingAction, action
			detail.ExpiresAt = when(r.now.Add(wait))
		}
		d.rollout.hooks = append(slices.Clone(d.rollout.hooks), detail)
	}
}

func (r *round) hookTimedOut(d *deployment, i int) {
	action := d.rollout.hooks[i].TimeoutAction
	r.setHook(d.rollout, i, types.DeploymentLifecycleHookStatusTimedOut)
	if action == types.DeploymentLifecycleHookActionRollback {
		r.abandon(d, string(lifecycleStages[d.stage.at]))
	}
}

func (p *Plane) setHook(r *rollout, i int, status types.DeploymentLifecycleHookStatus) {
	hooks := slices.Clone(r.hooks)
	hooks[i].Status = status
	r.hooks = hooks
	r.updated = p.now()
}

// abandon rolls a staged deployment back because a hook of a stage said so.
func (p *Plane) abandon(d *deployment, at string) {
	p.rollBackOrStop(d, "Service deployment rolled back because "+at+" lifecycle hook(s) failed.")
}

// rollBackOrStop rolls a deployment back; where there is nothing to roll back
// to, it has failed.
func (p *Plane) rollBackOrStop(d *deployment, reason string) {
	p.fail(d, reason)
	if d.service.completed == nil || d.service.completed == d {
		p.giveUp(d, reason)
		return
	}
	p.rollBack(d, reason)
}
