package ecs

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// ListServiceDeployments lists the deployments of a service that ECS itself
// rolls, newest first.
func (p *Plane) ListServiceDeployments(ctx context.Context, in *sdk.ListServiceDeploymentsInput) (*sdk.ListServiceDeploymentsOutput, error) {
	out := &sdk.ListServiceDeploymentsOutput{ServiceDeployments: []types.ServiceDeploymentBrief{}}
	err := p.read(ctx, func(st *state) error {
		s, err := st.serviceFor(in.Cluster, str(in.Service))
		if err != nil {
			return err
		}
		var items []listed
		byARN := map[string]*rollout{}
		for _, r := range slices.Backward(s.rollouts) {
			if r.matches(in) {
				items = append(items, listed{-r.seq, r.arn})
				byARN[r.arn] = r
			}
		}
		q := page{query: fmt.Sprint("ListServiceDeployments|", s.arn, in.Status, createdText(in.CreatedAt)), token: in.NextToken, max: in.MaxResults, size: 20}
		arns, next, err := q.cutFrom(items, -1<<62)
		for _, arn := range arns {
			out.ServiceDeployments = append(out.ServiceDeployments, byARN[arn].brief())
		}
		out.NextToken = next
		return err
	})
	return answer(out, err)
}

func createdText(c *types.CreatedAt) string {
	if c == nil {
		return ""
	}
	return fmt.Sprint(unix(c.After), unix(c.Before))
}

func unix(t *time.Time) int64 {
	if t == nil {
		return 0
	}
	return t.UnixMilli()
}

func (r *rollout) matches(in *sdk.ListServiceDeploymentsInput) bool {
	if len(in.Status) > 0 && !slices.Contains(in.Status, r.status) {
		return false
	}
	if in.CreatedAt == nil {
		return true
	}
	after, before := in.CreatedAt.After, in.CreatedAt.Before
	return (after == nil || r.created.After(*after)) && (before == nil || r.created.Before(*before))
}

func (r *rollout) brief() types.ServiceDeploymentBrief {
	return types.ServiceDeploymentBrief{
		ServiceDeploymentArn: ptr(r.arn), ServiceArn: ptr(r.service.arn), ClusterArn: ptr(r.service.cluster.arn),
		Status: r.status, StatusReason: orNil(r.reason), CreatedAt: when(r.created), StartedAt: when(r.started), FinishedAt: when(r.finished),
		TargetServiceRevisionArn: ptr(r.target.revision.arn),
	}
}

func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// DescribeServiceDeployments describes up to 20 service deployments by ARN.
func (p *Plane) DescribeServiceDeployments(ctx context.Context, in *sdk.DescribeServiceDeploymentsInput) (*sdk.DescribeServiceDeploymentsOutput, error) {
	if len(in.ServiceDeploymentArns) == 0 || len(in.ServiceDeploymentArns) > 20 {
		return nil, invalid("serviceDeploymentArns must have between 1 and 20 elements.")
	}
	out := &sdk.DescribeServiceDeploymentsOutput{ServiceDeployments: []types.ServiceDeployment{}, Failures: []types.Failure{}}
	err := p.read(ctx, func(st *state) error {
		for _, arn := range in.ServiceDeploymentArns {
			if !isARN(arn, "service-deployment") {
				return invalid("Invalid service deployment ARN: " + arn)
			}
			if r := st.rollouts[arn]; r != nil {
				out.ServiceDeployments = append(out.ServiceDeployments, r.render())
			} else {
				out.Failures = append(out.Failures, missing(arn))
			}
		}
		return nil
	})
	return answer(out, err)
}

func (r *rollout) render() types.ServiceDeployment {
	out := types.ServiceDeployment{
		ServiceDeploymentArn: ptr(r.arn), ServiceArn: ptr(r.service.arn), ClusterArn: ptr(r.service.cluster.arn),
		Status: r.status, StatusReason: orNil(r.reason), CreatedAt: when(r.created), StartedAt: when(r.started),
		UpdatedAt: when(r.updated), FinishedAt: when(r.finished), StoppedAt: when(r.stopped),
		DeploymentConfiguration: ptr(r.config), Rollback: r.rollback, LifecycleStage: r.lifecycle, LifecycleHookDetails: r.hooks,
		DeploymentCircuitBreaker: &types.ServiceDeploymentCircuitBreaker{Status: r.breakerStatus, FailureCount: int32(r.failureCount()), Threshold: int32(r.threshold)},
		Alarms:                   &types.ServiceDeploymentAlarms{Status: types.ServiceDeploymentRollbackMonitorsStatusDisabled, AlarmNames: []string{}, TriggeredAlarmNames: []string{}},
		TargetServiceRevision:    ptr(r.summary(r.target)),
		SourceServiceRevisions:   []types.ServiceRevisionSummary{},
	}
	if a := r.config.Alarms; a != nil && a.Enable {
		out.Alarms.AlarmNames, out.Alarms.Status = a.AlarmNames, types.ServiceDeploymentRollbackMonitorsStatusMonitoring
		if r.over {
			out.Alarms.Status = types.ServiceDeploymentRollbackMonitorsStatusMonitoringComplete
		}
		if r.alarmed {
			out.Alarms.Status, out.Alarms.TriggeredAlarmNames = types.ServiceDeploymentRollbackMonitorsStatusTriggered, a.AlarmNames
		}
	}
	for _, d := range r.sources {
		out.SourceServiceRevisions = append(out.SourceServiceRevisions, r.summary(d))
	}
	return out
}

// failureCount is live while the circuit breaker watches.
func (r *rollout) failureCount() int {
	if r.over || r.rollbackTo != nil {
		return r.failures
	}
	return r.target.breaker
}

func (r *rollout) summary(d *deployment) types.ServiceRevisionSummary {
	want, running, pending := d.counts()
	if d == r.target && r.over {
		want, running, pending = r.requested, r.running, 0
	}
	out := types.ServiceRevisionSummary{Arn: ptr(d.revision.arn), RequestedTaskCount: int32(want), RunningTaskCount: int32(running), PendingTaskCount: int32(pending)}
	if stagedStrategy(r.config.Strategy) {
		weight, test := r.weight, r.testWeight
		if d != r.target {
			weight, test = 100-weight, 0
		}
		out.RequestedProductionTrafficWeight, out.RequestedTestTrafficWeight = ptr(weight), ptr(test)
	}
	return out
}

// DescribeServiceRevisions describes up to 20 service revisions by ARN.
func (p *Plane) DescribeServiceRevisions(ctx context.Context, in *sdk.DescribeServiceRevisionsInput) (*sdk.DescribeServiceRevisionsOutput, error) {
	if len(in.ServiceRevisionArns) == 0 || len(in.ServiceRevisionArns) > 20 {
		return nil, invalid("serviceRevisionArns must have between 1 and 20 elements.")
	}
	out := &sdk.DescribeServiceRevisionsOutput{ServiceRevisions: []types.ServiceRevision{}, Failures: []types.Failure{}}
	err := p.read(ctx, func(st *state) error {
		for _, arn := range in.ServiceRevisionArns {
			if !isARN(arn, "service-revision") {
				return invalid("Invalid service revision ARN: " + arn)
			}
			if r := st.revisions[arn]; r != nil {
				out.ServiceRevisions = append(out.ServiceRevisions, r.render())
			} else {
				out.Failures = append(out.Failures, missing(arn))
			}
		}
		return nil
	})
	return answer(out, err)
}

func (r *revision) render() types.ServiceRevision {
	out := types.ServiceRevision{
		ServiceRevisionArn: ptr(r.arn), ServiceArn: ptr(r.service.arn), ClusterArn: ptr(r.service.cluster.arn),
		TaskDefinition: r.def.td.TaskDefinitionArn, CreatedAt: when(r.created), LaunchType: r.service.launchType,
		LoadBalancers: r.balancers, NetworkConfiguration: r.network, ContainerImages: []types.ContainerImage{},
	}
	for i, b := range r.balancers {
		if a := b.AdvancedConfiguration; a != nil {
			out.ResolvedConfiguration = first(out.ResolvedConfiguration, &types.ResolvedConfiguration{})
			out.ResolvedConfiguration.LoadBalancers = append(out.ResolvedConfiguration.LoadBalancers,
				types.ServiceRevisionLoadBalancer{TargetGroupArn: ptr(r.groups[i]), ProductionListenerRule: a.ProductionListenerRule})
		}
	}
	for _, c := range r.def.td.ContainerDefinitions {
		out.ContainerImages = append(out.ContainerImages, types.ContainerImage{ContainerName: c.Name, Image: c.Image, ImageDigest: orNil(r.digests[*c.Name])})
	}
	return out
}

// StopServiceDeployment rolls a service deployment back that is under way.
func (p *Plane) StopServiceDeployment(_ context.Context, in *sdk.StopServiceDeploymentInput) (*sdk.StopServiceDeploymentOutput, error) {
	if in.StopType == types.StopServiceDeploymentStopTypeAbort {
		return nil, invalid("The stop type ABORT is not supported. ROLLBACK is the only valid value.")
	}
	arn := str(in.ServiceDeploymentArn)
	if !isARN(arn, "service-deployment") {
		return nil, invalid("Invalid service deployment ARN: " + arn)
	}
	err := errClosed
	p.mutate(func() { err = p.stopRollout(p.state.rollouts[arn]) })
	return answer(&sdk.StopServiceDeploymentOutput{ServiceDeploymentArn: ptr(arn)}, err)
}

func (p *Plane) stopRollout(r *rollout) error {
	if r == nil {
		return refuse("ServiceDeploymentNotFoundException", "The service deployment doesn't exist.")
	}
	switch r.status {
	case types.ServiceDeploymentStatusStopRequested, types.ServiceDeploymentStatusRollbackRequested, types.ServiceDeploymentStatusRollbackInProgress:
		return nil
	case types.ServiceDeploymentStatusPending, types.ServiceDeploymentStatusInProgress:
	default:
		return refuse("ConflictException", fmt.Sprintf("The service deployment is in the %s state and cannot be stopped.", r.status))
	}
	if r.service.completed == nil {
		return refuse("ConflictException", "There is no completed service deployment to roll back to.")
	}
	r.status, r.updated, r.stopped = types.ServiceDeploymentStatusRollbackRequested, p.now(), p.now()
	p.after(2*time.Second, func() {
		if !r.over && r.rollbackTo == nil {
			p.rollBackOrStop(r.target, "Service deployment rolled back because it was stopped by the user.")
		}
	})
	return nil
}

// ContinueServiceDeployment answers a PAUSE hook.
func (p *Plane) ContinueServiceDeployment(_ context.Context, in *sdk.ContinueServiceDeploymentInput) (*sdk.ContinueServiceDeploymentOutput, error) {
	arn := str(in.ServiceDeploymentArn)
	err := errClosed
	p.mutate(func() { err = p.answerHook(p.state.rollouts[arn], str(in.HookId), in.Action) })
	return answer(&sdk.ContinueServiceDeploymentOutput{ServiceDeploymentArn: ptr(arn)}, err)
}

func (p *Plane) answerHook(r *rollout, id string, action types.DeploymentLifecycleHookAction) error {
	if r == nil {
		return refuse("ServiceDeploymentNotFoundException", "The service deployment doesn't exist.")
	}
	i := slices.IndexFunc(r.hooks, func(h types.DeploymentLifecycleHookDetail) bool { return str(h.HookId) == id })
	if i < 0 {
		return invalid("The lifecycle hook does not exist: " + id)
	}
	if r.hooks[i].Status != types.DeploymentLifecycleHookStatusAwaitingAction {
		return refuse("ConflictException", "The lifecycle hook is not awaiting an action.")
	}
	if action == types.DeploymentLifecycleHookActionRollback {
		p.setHook(r, i, types.DeploymentLifecycleHookStatusFailed)
		p.abandon(r.target, string(r.lifecycle))
		return nil
	}
	p.setHook(r, i, types.DeploymentLifecycleHookStatusSucceeded)
	p.kick(r.service, 0)
	return nil
}

// DescribeTaskSets describes the task sets of a service with an external or
// CodeDeploy controller.
func (p *Plane) DescribeTaskSets(ctx context.Context, in *sdk.DescribeTaskSetsInput) (*sdk.DescribeTaskSetsOutput, error) {
	out := &sdk.DescribeTaskSetsOutput{TaskSets: []types.TaskSet{}, Failures: []types.Failure{}}
	err := p.read(ctx, func(st *state) error {
		s, err := st.serviceFor(in.Cluster, str(in.Service))
		if err != nil {
			return err
		}
		if s.rolls() {
			return invalid("Task sets are not supported for services with the ECS deployment controller.")
		}
		known := map[string]bool{}
		for _, set := range s.taskSets() {
			id := *set.Id
			if len(in.TaskSets) == 0 || slices.ContainsFunc(in.TaskSets, func(name string) bool { return strings.HasSuffix(name, id) }) {
				out.TaskSets = append(out.TaskSets, set)
				known[id] = true
			}
		}
		for _, name := range in.TaskSets {
			if !known[name] && !known["ecs-svc/"+lastPart(name)] {
				out.Failures = append(out.Failures, missing(name))
			}
		}
		return nil
	})
	return answer(out, err)
}
