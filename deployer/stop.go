package deployer

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/ecsstatus"
)

// ECS can be asked to roll a deployment back itself (StopServiceDeployment): it
// takes the earlier deployment up again, and the tasks of that which still run
// need not be started anew. Where all of them do, that takes as long as one
// look; a roll-forward would replace each of them by its like.

// intact reports whether there is an earlier deployment that ECS would take up again: of
// the definition to go back to, with all its tasks still running.
func intact(g Goal, s *ecsstatus.Service, back string) bool {
	own := s.Deployment(g.ID)
	if own == nil || own.Status != "PRIMARY" || own.RolloutState != "IN_PROGRESS" {
		return false
	}
	for _, d := range s.Deployments {
		if d.ID != g.ID && d.TaskDefinition == back && d.Running >= desired(s) && desired(s) > 0 {
			return true
		}
	}
	return false
}

// askECS asks ECS to roll back, where that is quicker. The result is whether it
// does; if not, for whatever reason, it is ours to roll forward.
func (a *attempt) askECS(ctx context.Context, why Verdict, now *ecsstatus.Service) bool {
	if !intact(a.goal, now, a.back) || a.replaced || now.Config.Strategy != "ROLLING" {
		return false
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteTime)
	defer cancel()
	arn, err := a.stoppable(ctx)
	if err != nil || arn == "" {
		return false
	}
	a.asked = arn
	_ = a.record("StopServiceDeployment: %s back to %s, since deployment %s failed: %s", a.d.name, a.back, a.goal.ID, why.Reason)
	a.d.keeper.note(ctx, func(j *Journal) { j.State, j.Back, j.Why = StateRollingBack, ecsstatus.ShortName(a.back), why.Reason })
	_, err = a.d.ecs.StopServiceDeployment(ctx, &ecs.StopServiceDeploymentInput{ServiceDeploymentArn: &arn, StopType: types.StopServiceDeploymentStopTypeRollback})
	return err == nil || fateOf(err) == unknown // what follows looks for what became of it
}

// stoppable is the service deployment of the goal's, if ECS would take it back to
// where we want to go; empty if not.
func (a *attempt) stoppable(ctx context.Context) (string, error) {
	d := a.d
	list, err := d.ecs.ListServiceDeployments(ctx, &ecs.ListServiceDeploymentsInput{Cluster: &d.cluster, Service: &d.name,
		Status: []types.ServiceDeploymentStatus{types.ServiceDeploymentStatusInProgress}})
	if err != nil || len(list.ServiceDeployments) != 1 {
		return "", err
	}
	arn := aws.ToString(list.ServiceDeployments[0].ServiceDeploymentArn)
	out, err := d.ecs.DescribeServiceDeployments(ctx, &ecs.DescribeServiceDeploymentsInput{ServiceDeploymentArns: []string{arn}})
	if err != nil || len(out.ServiceDeployments) != 1 {
		return "", err
	}
	it := out.ServiceDeployments[0]
	if it.TargetServiceRevision == nil || len(it.SourceServiceRevisions) != 1 {
		return "", nil
	}
	to, from := aws.ToString(it.TargetServiceRevision.Arn), aws.ToString(it.SourceServiceRevisions[0].Arn)
	definitions, err := d.revisions(ctx, to, from)
	if err != nil || definitions[to] != a.goal.Definition || definitions[from] != a.back {
		return "", err
	}
	return arn, nil
}

// revisions are the task definitions of service revisions, by ARN.
func (d *Deployer) revisions(ctx context.Context, arns ...string) (map[string]string, error) {
	out, err := d.ecs.DescribeServiceRevisions(ctx, &ecs.DescribeServiceRevisionsInput{ServiceRevisionArns: arns})
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for _, r := range out.ServiceRevisions {
		found[aws.ToString(r.ServiceRevisionArn)] = aws.ToString(r.TaskDefinition)
	}
	return found, nil
}

// followAsked follows the roll-back that ECS was asked for. If ECS does not begin
// it, the result is that there is nothing to follow.
func (a *attempt) followAsked(ctx context.Context, why Verdict) (following bool, err error) {
	s, err := a.takenUp(ctx)
	if err != nil {
		a.d.tell(Event{Kind: Asked, Deployment: a.goal.ID, Message: fmt.Sprintf("ECS was asked to roll back, and has not begun (%v): rolling forward to %s", err, ecsstatus.ShortName(a.back))})
		return false, nil
	}
	return true, a.followTakenUp(ctx, why, s, s.Primary(), "rolled back to ")
}

// takenUp waits until ECS has a deployment of the definition to go back to as its
// PRIMARY one: for as long as ECS says that it rolls back. Its error says that it has
// not, or that nobody knows.
func (a *attempt) takenUp(ctx context.Context) (s *ecsstatus.Service, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeTime)
	defer cancel()
	there := func(ctx context.Context) (bool, error) {
		if s, err = a.d.reader.Service(ctx, a.d.name); err != nil {
			return false, err
		}
		p := s.Primary()
		return s.Status != "ACTIVE" || p != nil && p.ID != a.goal.ID && (p.TaskDefinition == a.back || a.goal.supersededBy(p)), nil
	}
	done, err := a.d.settle(ctx, there)
	for err == nil && !done && a.rollsBack(ctx) {
		done, err = a.d.settle(ctx, there)
	}
	switch {
	case err != nil:
	case !done:
		err = errors.New("the deployment is still there")
	case s.Status != "ACTIVE" || s.Primary().TaskDefinition != a.back:
		err = errors.New("something else has happened to the service")
	}
	return s, err
}

// rollsBack reports whether ECS says that it rolls back as it was asked to, or has
// done so: it may take longer for that than a change takes to be seen.
func (a *attempt) rollsBack(ctx context.Context) bool {
	out, err := a.d.ecs.DescribeServiceDeployments(ctx, &ecs.DescribeServiceDeploymentsInput{ServiceDeploymentArns: []string{a.asked}})
	if err != nil || len(out.ServiceDeployments) == 0 {
		return false
	}
	switch out.ServiceDeployments[0].Status {
	case types.ServiceDeploymentStatusRollbackRequested, types.ServiceDeploymentStatusRollbackInProgress, types.ServiceDeploymentStatusRollbackSuccessful:
		return true
	}
	return false
}
