package ecs

import (
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// The stages of a BLUE_GREEN, LINEAR or CANARY deployment, in order. The new
// revision is scaled up beside the old one, in the other target group of each
// load balancer; it gets test traffic, then production traffic, at once or in
// steps; the old one is kept for the bake time and then cleaned up. Before that,
// a roll-back only puts the traffic back (doc comment of
// ServiceDeployment.LifecycleStage, which has one stage more than the enum).
var lifecycleStages = []types.ServiceDeploymentLifecycleStage{
	types.ServiceDeploymentLifecycleStageReconcileService,
	types.ServiceDeploymentLifecycleStagePreScaleUp,
	types.ServiceDeploymentLifecycleStageScaleUp,
	types.ServiceDeploymentLifecycleStagePostScaleUp,
	types.ServiceDeploymentLifecycleStageTestTrafficShift,
	types.ServiceDeploymentLifecycleStagePostTestTrafficShift,
	stagePreProduction,
	types.ServiceDeploymentLifecycleStageProductionTrafficShift,
	types.ServiceDeploymentLifecycleStagePostProductionTrafficShift,
	types.ServiceDeploymentLifecycleStageBakeTime,
	types.ServiceDeploymentLifecycleStageCleanUp,
}

// stagePreProduction comes before each step of the production traffic's shift.
const stagePreProduction types.ServiceDeploymentLifecycleStage = "PRE_PRODUCTION_TRAFFIC_SHIFT"

// stageTime is how long a stage takes in which nothing has to be waited for.
const stageTime = 5 * time.Second

// hookTimeout is how long a PAUSE hook waits for someone to continue.
const hookTimeout = 24 * time.Hour

// stage is where a staged deployment is.
type stage struct {
	at    int       // in lifecycleStages
	since time.Time // zero: has not begun
	step  int       // of the production traffic's shift
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

// mayScaleUp reports whether new tasks may be started: not before SCALE_UP.
func (r *round) mayScaleUp() bool {
	return !r.staged() || r.s.primary().stage.at >= slices.Index(lifecycleStages, types.ServiceDeploymentLifecycleStageScaleUp)
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
		d.stage = d.rollout.firstStage(r.now)
	}
	for r.stageOver(d) {
		d.stage = d.nextStage(r.now)
		d.rollout.updated = r.now
		r.wakeAt(r.now.Add(time.Millisecond))
	}
	if r.staged() { // no hook has failed
		d.rollout.lifecycle = lifecycleStages[d.stage.at]
	}
}

// firstStage leaves RECONCILE_SERVICE out unless several revisions are to be
// replaced.
func (r *rollout) firstStage(now time.Time) stage {
	if len(r.sources) > 1 {
		return stage{since: now}
	}
	return stage{at: 1, since: now}
}

// nextStage is the one after d's. While production traffic is still to be
// shifted, that is the one before the shift's next step.
func (d *deployment) nextStage(now time.Time) stage {
	if lifecycleStages[d.stage.at] == types.ServiceDeploymentLifecycleStageProductionTrafficShift && d.rollout.weight < 100 {
		return stage{at: d.stage.at - 1, since: now, step: d.stage.step + 1}
	}
	return stage{at: d.stage.at + 1, since: now, step: d.stage.step}
}

// stageOver reports whether the deployment may enter the next stage.
func (r *round) stageOver(d *deployment) bool {
	if d.stage.at == len(lifecycleStages)-1 || !r.hooksDone(d) {
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

// shift moves production traffic: all at once, in equal steps, or a little
// first. A step that is not the last lasts as long as it bakes.
func (r *round) shift(d *deployment) bool {
	percent, bake := r.s.steps()
	d.rollout.weight = min(percent*float64(d.stage.step+1), 100)
	if r.s.config.Strategy == types.DeploymentStrategyCanary && d.stage.step > 0 {
		d.rollout.weight = 100
	}
	if d.rollout.weight >= 100 {
		bake = stageTime
	}
	return r.passed(d, bake)
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
	if s.stepBake > 0 {
		bake = s.stepBake
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
// PAUSE hooks wait for ContinueServiceDeployment; a Lambda hook ends as the world
// says, well if it does not.
func (r *round) hooksDone(d *deployment) bool {
	if !d.stage.asked {
		d.stage.asked = true
		r.startHooks(d)
	}
	open := false
	for i, h := range d.rollout.hooks {
		if !unanswered(h) {
			continue
		}
		end := d.rollout.hookEnds[*h.HookId]
		if r.now.Before(end) {
			r.wakeAt(end)
			open = true
			continue
		}
		if r.hookEnded(d, i) {
			return false
		}
	}
	return !open
}

func unanswered(h types.DeploymentLifecycleHookDetail) bool {
	return h.Status == types.DeploymentLifecycleHookStatusAwaitingAction || h.Status == types.DeploymentLifecycleHookStatusInProgress
}

func (r *round) startHooks(d *deployment) {
	at := types.DeploymentLifecycleHookStage(lifecycleStages[d.stage.at])
	for _, h := range r.s.config.LifecycleHooks {
		if slices.Contains(h.LifecycleStages, at) {
			r.startHook(d.rollout, h)
		}
	}
}

func (r *round) startHook(o *rollout, h types.DeploymentLifecycleHook) {
	wait, action := hookTimeout, types.DeploymentLifecycleHookActionRollback
	if c := h.TimeoutConfiguration; c != nil {
		wait = orMinutes(c.TimeoutInMinutes, wait)
		action = types.DeploymentLifecycleHookAction(or(string(c.Action), string(action)))
	}
	detail := types.DeploymentLifecycleHookDetail{HookId: ptr(r.uuid()), TargetType: h.TargetType, TargetArn: h.HookTargetArn,
		ExpiresAt: when(r.now.Add(wait)), TimeoutAction: action, Status: types.DeploymentLifecycleHookStatusAwaitingAction}
	if h.TargetType != types.DeploymentLifecycleHookTargetTypePause {
		detail.Status = types.DeploymentLifecycleHookStatusInProgress
		wait = min(wait, time.Duration(r.lambdas[str(h.HookTargetArn)].Takes))
	}
	if o.hookEnds == nil {
		o.hookEnds = map[string]time.Time{}
	}
	o.hookEnds[*detail.HookId] = r.now.Add(wait)
	o.hooks = append(slices.Clone(o.hooks), detail)
}

// hookEnded takes the end of a hook that nobody answered, and reports whether
// that ends the deployment.
func (r *round) hookEnded(d *deployment, i int) (rolledBack bool) {
	h := d.rollout.hooks[i]
	status, bad := types.DeploymentLifecycleHookStatusSucceeded, false
	switch {
	case !r.now.Before(*h.ExpiresAt):
		status, bad = types.DeploymentLifecycleHookStatusTimedOut, h.TimeoutAction == types.DeploymentLifecycleHookActionRollback
	case r.lambdas[str(h.TargetArn)].Result == "FAILED":
		status, bad = types.DeploymentLifecycleHookStatusFailed, true
	}
	r.setHook(d.rollout, i, status)
	if bad {
		r.abandon(d, string(lifecycleStages[d.stage.at])+" lifecycle hook(s) failed.")
	}
	return bad
}

func (p *Plane) setHook(r *rollout, i int, status types.DeploymentLifecycleHookStatus) {
	hooks := slices.Clone(r.hooks)
	hooks[i].Status = status
	r.hooks = hooks
	r.updated = p.now()
}

// abandon rolls a staged deployment back, of which the event has the whole reason: people
// have shown "deployment failed: Service deployment rolled back because PRE_SCALE_UP
// lifecycle hook(s) failed. …".
func (p *Plane) abandon(d *deployment, why string) {
	reason := "Service deployment rolled back because " + why
	p.tell(d.service, "(deployment "+d.id+") deployment failed: "+reason)
	p.rollBackOrStop(d, reason)
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
