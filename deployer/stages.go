package deployer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/awsconfig"
)

// ECS deploys services of the strategies BLUE_GREEN, LINEAR and CANARY in stages: the
// new tasks come up beside the old ones, get test traffic, then production traffic, at
// once or in steps; the old ones stay for the bake time. Such a deployment is
// not judged by its tasks: it has succeeded when ECS says so of the service
// deployment (doc comment of ServiceDeployment.LifecycleStage). The tasks only tell
// that it will not; ECS's circuit breaker looks at BLUE_GREEN alone. Its roll-back is ECS's
// own too: as long as the old tasks are there, it only puts the traffic back.

// rollout reads the service deployment of the goal's; nil if ECS does not show it yet.
func (w *watcher) rollout(ctx context.Context) (*types.ServiceDeployment, error) {
	if w.goal.Rollout == "" {
		var err error
		if w.goal.Rollout, err = w.findRollout(ctx, w.goal); err != nil || w.goal.Rollout == "" {
			return nil, err
		}
	}
	out, err := w.rollouts.DescribeServiceDeployments(ctx, &ecs.DescribeServiceDeploymentsInput{ServiceDeploymentArns: []string{w.goal.Rollout}})
	if err != nil {
		return nil, fmt.Errorf("describe the service deployment of %s: %w", w.goal.ContainerType, awsconfig.Explain(err))
	}
	if len(out.ServiceDeployments) == 0 {
		return nil, nil
	}
	return &out.ServiceDeployments[0], nil
}

// rolloutSlack is how long before its deployment a service deployment may have been created.
const rolloutSlack = 10 * time.Second

// findRollout finds the ARN of a goal's service deployment: the oldest one since the
// goal's deployment began whose target is the goal's task definition. Empty: there
// is none yet.
func (w *watcher) findRollout(ctx context.Context, g Goal) (string, error) {
	list, err := w.rollouts.ListServiceDeployments(ctx, &ecs.ListServiceDeploymentsInput{Cluster: &w.reader.Cluster, Service: &g.ContainerType,
		CreatedAt: &types.CreatedAt{After: aws.Time(g.Since.Add(-rolloutSlack))}})
	if err != nil {
		return "", fmt.Errorf("list the service deployments of %s: %w", g.ContainerType, awsconfig.Explain(err))
	}
	found := ""
	for _, brief := range list.ServiceDeployments { // the newest first
		is, err := w.targets(ctx, aws.ToString(brief.TargetServiceRevisionArn), g.Definition)
		if err != nil {
			return "", err
		}
		if is {
			found = aws.ToString(brief.ServiceDeploymentArn)
		}
	}
	return found, nil
}

// targets reports whether a service revision is of a task definition.
func (w *watcher) targets(ctx context.Context, revision, definition string) (bool, error) {
	if revision == "" {
		return false, nil
	}
	out, err := w.rollouts.DescribeServiceRevisions(ctx, &ecs.DescribeServiceRevisionsInput{ServiceRevisionArns: []string{revision}})
	if err != nil {
		return false, fmt.Errorf("describe a service revision of %s: %w", w.goal.ContainerType, awsconfig.Explain(err))
	}
	return len(out.ServiceRevisions) > 0 && aws.ToString(out.ServiceRevisions[0].TaskDefinition) == definition, nil
}

// readRollouts reads what a deployment in stages will be followed by, of the last
// one, so that nothing is begun that may not be read.
func (d *Deployer) readRollouts(ctx context.Context) error {
	list, err := d.patient.ListServiceDeployments(ctx, &ecs.ListServiceDeploymentsInput{Cluster: &d.cluster, Service: &d.name, MaxResults: aws.Int32(1)})
	if err != nil {
		return fmt.Errorf("list the service deployments of %s: %w", d.name, awsconfig.Explain(err))
	}
	for _, last := range list.ServiceDeployments {
		if _, err := d.patient.DescribeServiceDeployments(ctx, &ecs.DescribeServiceDeploymentsInput{ServiceDeploymentArns: []string{aws.ToString(last.ServiceDeploymentArn)}}); err != nil {
			return fmt.Errorf("describe the last service deployment of %s: %w", d.name, awsconfig.Explain(err))
		}
		if _, err := d.patient.DescribeServiceRevisions(ctx, &ecs.DescribeServiceRevisionsInput{ServiceRevisionArns: []string{aws.ToString(last.TargetServiceRevisionArn)}}); err != nil {
			return fmt.Errorf("describe the last service revision of %s: %w", d.name, awsconfig.Explain(err))
		}
	}
	return nil
}

// judgeStages decides about a deployment in stages. It is pure. Other of its
// verdict is the service deployment, unless someone else's deployment took over.
func judgeStages(g Goal, o Observation, t Trail) (Verdict, Trail) {
	if o.Rollout == nil {
		return unseenRollout(g, o, t)
	}
	t.missing = time.Time{}
	v := judgeRollout(g, o, *o.Rollout)
	if v.Outcome != Superseded {
		v.Other = aws.ToString(o.Rollout.ServiceDeploymentArn)
	}
	return v, t
}

// unseenRollout decides while ECS does not show the service deployment: it may do
// so some seconds late.
func unseenRollout(g Goal, o Observation, t Trail) (Verdict, Trail) {
	if p := o.Service.Primary(); g.supersededBy(p) {
		return superseded(p), t
	}
	if t.missing.IsZero() {
		t.missing = o.At
	}
	return Verdict{Missing: []string{"ECS does not show the deployment yet"}}, t
}

func judgeRollout(g Goal, o Observation, r types.ServiceDeployment) Verdict {
	reason := aws.ToString(r.StatusReason)
	switch r.Status {
	case types.ServiceDeploymentStatusSuccessful:
		if g.TakesBack {
			return Verdict{Outcome: Failed, Reason: "ECS had completed the deployment before it rolled it back"}
		}
		return Verdict{Outcome: Deployed}
	case types.ServiceDeploymentStatusRollbackFailed:
		return Verdict{Outcome: Failed, Reason: sayWhy("ECS could not roll it back", reason)}
	case types.ServiceDeploymentStatusStopped:
		if p := o.Service.Primary(); g.supersededBy(p) {
			return superseded(p)
		}
		return Verdict{Outcome: Failed, Reason: sayWhy("ECS stopped it", reason)}
	case types.ServiceDeploymentStatusRollbackSuccessful:
		if g.TakesBack {
			return Verdict{Outcome: Deployed}
		}
		return Verdict{Outcome: TakenBack, Reason: sayWhy("ECS rolled it back", reason)}
	case types.ServiceDeploymentStatusStopRequested, types.ServiceDeploymentStatusRollbackRequested, types.ServiceDeploymentStatusRollbackInProgress:
		if g.TakesBack {
			return Verdict{Missing: []string{"ECS rolls back, " + trafficText(r)}}
		}
		return Verdict{Outcome: TakenBack, Reason: sayWhy("ECS rolls it back", reason)}
	}
	return judgeStage(g, o, r)
}

// judgeStage decides about one that is under way.
func judgeStage(g Goal, o Observation, r types.ServiceDeployment) Verdict {
	if p := o.Service.Primary(); g.supersededBy(p) {
		return superseded(p)
	}
	if g.TakesBack {
		return Verdict{Missing: []string{"ECS has not begun to roll back"}}
	}
	if why := failure(g, o); why != "" {
		return Verdict{Outcome: Failed, Reason: why}
	}
	missing := []string{stageText(r)}
	for _, h := range r.LifecycleHookDetails {
		if text := hookText(r, h); text != "" {
			missing = append(missing, text)
		}
	}
	return Verdict{Missing: missing}
}

func sayWhy(what, reason string) string {
	if reason == "" {
		return what
	}
	return what + ": " + strings.TrimSuffix(reason, ".")
}

func stageText(r types.ServiceDeployment) string {
	if r.LifecycleStage == "" {
		return "stage not begun"
	}
	return "stage " + string(r.LifecycleStage) + ", " + trafficText(r)
}

// trafficText is how the traffic is shared. A service without load balancer has
// none to share.
func trafficText(r types.ServiceDeployment) string {
	n := traffic(r)
	if n == nil {
		return "no traffic is shifted"
	}
	return fmt.Sprintf("%g%% of the traffic on the new tasks", *n)
}

func traffic(r types.ServiceDeployment) *float64 {
	if r.TargetServiceRevision == nil {
		return nil
	}
	return r.TargetServiceRevision.RequestedProductionTrafficWeight
}

// hookText says what a hook waits for, and how to answer one that waits for a person.
func hookText(r types.ServiceDeployment, h types.DeploymentLifecycleHookDetail) string {
	switch h.Status {
	case types.DeploymentLifecycleHookStatusInProgress:
		function := aws.ToString(h.TargetArn) // arn:aws:lambda:REGION:ACCOUNT:function:NAME
		return "hook " + function[strings.LastIndexByte(function, ':')+1:] + " runs"
	case types.DeploymentLifecycleHookStatusAwaitingAction:
		return fmt.Sprintf("waiting for a person, until %s, then %s: aws ecs continue-service-deployment --service-deployment-arn %s --hook-id %s --action CONTINUE (or ROLLBACK)",
			clock(aws.ToTime(h.ExpiresAt)), h.TimeoutAction, aws.ToString(r.ServiceDeploymentArn), aws.ToString(h.HookId))
	}
	return ""
}

// takesItsTime reports whether ECS waits as it was told to: for the bake time, between
// two steps of the traffic's shift, or for a hook. That does not count for the time-out.
func takesItsTime(r *types.ServiceDeployment) bool {
	if r == nil || r.Status != types.ServiceDeploymentStatusInProgress {
		return false
	}
	for _, h := range r.LifecycleHookDetails {
		if h.Status == types.DeploymentLifecycleHookStatusAwaitingAction || h.Status == types.DeploymentLifecycleHookStatusInProgress {
			return true
		}
	}
	n := traffic(*r)
	partly := r.LifecycleStage == types.ServiceDeploymentLifecycleStageProductionTrafficShift && n != nil && *n < 100
	return partly || r.LifecycleStage == types.ServiceDeploymentLifecycleStageBakeTime
}

// lateStage is the verdict when the time is over. When only the old tasks are
// still to go, nothing is to be taken back.
func lateStage(o Observation, v Verdict) Verdict {
	if o.Rollout != nil && o.Rollout.LifecycleStage == types.ServiceDeploymentLifecycleStageCleanUp {
		return Verdict{Outcome: Deployed, Reason: leftOver(oldTasks(o)), Other: v.Other}
	}
	return Verdict{Outcome: TimedOut, Reason: "the time is over; still missing: " + strings.Join(v.Missing, ", "), Missing: v.Missing, Other: v.Other}
}

// stopStaged has ECS roll a deployment in stages back, and follows that to its end.
// If ECS will not, the result is that there is nothing to follow.
func (a *attempt) stopStaged(ctx context.Context, why Verdict) (following bool, err error) {
	arn, err := a.rolloutARN(ctx, why)
	if err != nil || arn == "" {
		return false, nil
	}
	changing, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeTime)
	defer cancel()
	_ = a.record("StopServiceDeployment: %s back to %s, since deployment %s failed: %s", arn, a.back, a.goal.ID, why.Reason)
	a.d.keeper.note(changing, func(j *Journal) { j.State, j.Back, j.Why = StateRollingBack, ecsstatus.ShortName(a.back), why.Reason })
	err = a.d.change(changing, "have ECS roll back", func(ctx context.Context) error {
		_, err := a.d.ecs.StopServiceDeployment(ctx, &ecs.StopServiceDeploymentInput{ServiceDeploymentArn: &arn, StopType: types.StopServiceDeploymentStopTypeRollback})
		return err
	}, func(ctx context.Context) (bool, error) { return a.d.isTakenBack(ctx, arn) })
	if err != nil {
		if _, open := errors.AsType[*UncertainError](err); open {
			return true, a.notRolledBack(why, err.Error(), a.byHand())
		}
		return false, nil
	}
	why.Other = arn
	return true, a.followStaged(ctx, why, "rolled back to ")
}

// rolloutARN is the service deployment that a verdict is about.
func (a *attempt) rolloutARN(ctx context.Context, v Verdict) (arn string, err error) {
	if strings.HasPrefix(v.Other, "arn:") {
		return v.Other, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeTime)
	defer cancel()
	w := a.d.watch(a.d.reader, a.goal)
	_, err = a.d.once(ctx, func(ctx context.Context) (bool, error) {
		arn, err = w.findRollout(ctx, a.goal)
		return true, err
	})
	return arn, err
}

// isTakenBack reports whether ECS rolls a service deployment back, or has done so.
func (d *Deployer) isTakenBack(ctx context.Context, arn string) (bool, error) {
	out, err := d.ecs.DescribeServiceDeployments(ctx, &ecs.DescribeServiceDeploymentsInput{ServiceDeploymentArns: []string{arn}})
	if err != nil || len(out.ServiceDeployments) == 0 {
		return false, err
	}
	switch out.ServiceDeployments[0].Status {
	case types.ServiceDeploymentStatusPending, types.ServiceDeploymentStatusInProgress:
		return false, nil
	}
	return true, nil
}

// followStaged follows ECS's roll-back of a deployment in stages.
func (a *attempt) followStaged(ctx context.Context, why Verdict, done string) error {
	arn, err := a.rolloutARN(ctx, why)
	if err != nil {
		return a.notRolledBack(why, "ECS has begun to roll back, and then "+err.Error(), a.byHand())
	}
	g := a.goal
	g.TakesBack, g.Rollout, g.Undoes = true, arn, g.Since
	if former := a.now.Service.Primary(); former != nil && former.TaskDefinition == a.back {
		g.ID = former.ID
	}
	if a.back != "" {
		g.Definition = a.back
	}
	return a.seeBack(ctx, why, g, done+ecsstatus.ShortName(g.Definition))
}

// stageSteps says in the plan how ECS goes about it.
func stageSteps(s *ecsstatus.Service) string {
	c := s.AWS.DeploymentConfiguration
	text := "follow ECS's stages (" + s.Config.Strategy + "): new tasks beside the old ones, test traffic, production traffic"
	if c == nil {
		return text
	}
	if l := c.LinearConfiguration; l != nil && c.Strategy == types.DeploymentStrategyLinear {
		text += fmt.Sprintf(" in steps of %g%%, %s each", orPercent(l.StepPercent, 10), minutes(l.StepBakeTimeInMinutes, 6))
	}
	if k := c.CanaryConfiguration; k != nil && c.Strategy == types.DeploymentStrategyCanary {
		text += fmt.Sprintf(" with %g%% for %s first", orPercent(k.CanaryPercent, 5), minutes(k.CanaryBakeTimeInMinutes, 10))
	}
	if c.BakeTimeInMinutes != nil {
		text += ", " + minutes(c.BakeTimeInMinutes, 0) + " of bake time"
	}
	if n := len(c.LifecycleHooks); n > 0 {
		text += ", " + countOf(n, "hook", "hooks")
	}
	return text
}

// orPercent and minutes give AWS's defaults for what is not told (doc comments
// of LinearConfiguration and CanaryConfiguration).
func orPercent(n *float64, fallback float64) float64 {
	if n == nil {
		return fallback
	}
	return *n
}

func minutes(n *int32, fallback int32) string {
	if n != nil {
		fallback = *n
	}
	return countOf(int(fallback), "minute", "minutes")
}
