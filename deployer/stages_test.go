package deployer

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/ecsstatus"
)

// stagedLook is what one look at a deployment in stages finds.
func stagedLook(status types.ServiceDeploymentStatus, change func(*types.ServiceDeployment)) (Goal, Observation) {
	began := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	g := Goal{ContainerType: "web", ID: "ecs-svc/2", Definition: "td/web:2", Since: began, Earlier: map[string]bool{"ecs-svc/1": true}, Stages: "BLUE_GREEN"}
	r := &types.ServiceDeployment{ServiceDeploymentArn: aws.String("arn:rollout"), Status: status, LifecycleStage: types.ServiceDeploymentLifecycleStageScaleUp,
		TargetServiceRevision: &types.ServiceRevisionSummary{RequestedProductionTrafficWeight: aws.Float64(0)}}
	if change != nil {
		change(r)
	}
	s := &ecsstatus.Service{Name: "web", Status: "ACTIVE", Desired: 2, Deployments: []ecsstatus.Deployment{
		{ID: "ecs-svc/2", Status: "PRIMARY", TaskDefinition: "td/web:2", Created: began}, {ID: "ecs-svc/1", Status: "ACTIVE", TaskDefinition: "td/web:1", Created: began.Add(-time.Hour)}}}
	return g, Observation{At: began.Add(time.Minute), Service: s, Rollout: r}
}

func TestADeploymentInStagesEndsAsECSSays(t *testing.T) {
	because := func(r *types.ServiceDeployment) { r.StatusReason = aws.String("Because.") }
	for _, tt := range []struct {
		name   string
		status types.ServiceDeploymentStatus
		change func(*types.ServiceDeployment)
		want   Outcome
		reason string // or what is missing
		back   Outcome
	}{
		{"it has just begun", types.ServiceDeploymentStatusPending, func(r *types.ServiceDeployment) { r.LifecycleStage = "" }, Going, "stage not begun", Going},
		{"it goes through its stages", types.ServiceDeploymentStatusInProgress, nil, Going, "stage SCALE_UP, 0% of the traffic on the new tasks", Going},
		{"a stage that nobody knows yet", types.ServiceDeploymentStatusInProgress, func(r *types.ServiceDeployment) { r.LifecycleStage = "SOME_DAY" }, Going, "stage SOME_DAY, 0% of the traffic on the new tasks", Going},
		{"without a load balancer", types.ServiceDeploymentStatusInProgress, func(r *types.ServiceDeployment) { r.TargetServiceRevision = nil }, Going, "stage SCALE_UP, no traffic is shifted", Going},
		{"a hook runs", types.ServiceDeploymentStatusInProgress, func(r *types.ServiceDeployment) {
			r.LifecycleHookDetails = []types.DeploymentLifecycleHookDetail{{Status: types.DeploymentLifecycleHookStatusInProgress, TargetArn: aws.String("arn:aws:lambda:r:1:function:test")}}
		}, Going, "stage SCALE_UP, 0% of the traffic on the new tasks; hook test runs", Going},
		{"a hook waits for a person", types.ServiceDeploymentStatusInProgress, func(r *types.ServiceDeployment) {
			r.LifecycleHookDetails = []types.DeploymentLifecycleHookDetail{{Status: types.DeploymentLifecycleHookStatusAwaitingAction, HookId: aws.String("h1"), TimeoutAction: types.DeploymentLifecycleHookActionRollback,
				ExpiresAt: aws.Time(time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC))}}
		}, Going, "stage SCALE_UP, 0% of the traffic on the new tasks; waiting for a person, until 12:00:00 UTC, then ROLLBACK: aws ecs continue-service-deployment --service-deployment-arn arn:rollout --hook-id h1 --action CONTINUE (or ROLLBACK)", Going},
		{"it has succeeded", types.ServiceDeploymentStatusSuccessful, nil, Deployed, "", Failed},
		{"someone stopped it", types.ServiceDeploymentStatusStopRequested, because, TakenBack, "ECS rolls it back: Because", Going},
		{"a roll-back was asked for", types.ServiceDeploymentStatusRollbackRequested, nil, TakenBack, "ECS rolls it back", Going},
		{"ECS rolls back", types.ServiceDeploymentStatusRollbackInProgress, because, TakenBack, "ECS rolls it back: Because", Going},
		{"ECS has rolled back", types.ServiceDeploymentStatusRollbackSuccessful, because, TakenBack, "ECS rolled it back: Because", Deployed},
		{"ECS could not roll back", types.ServiceDeploymentStatusRollbackFailed, because, Failed, "ECS could not roll it back: Because", Failed},
		{"it was stopped for good", types.ServiceDeploymentStatusStopped, because, Failed, "ECS stopped it: Because", Failed},
	} {
		g, o := stagedLook(tt.status, tt.change)
		v, _ := judge(g, o, Trail{})
		if got := v.Reason + strings.Join(v.Missing, "; "); v.Outcome != tt.want || got != tt.reason || v.Other != "arn:rollout" {
			t.Errorf("%s: outcome %d, %q, of %q; want %d, %q", tt.name, v.Outcome, got, v.Other, tt.want, tt.reason)
		}
		g.TakesBack = true
		if v, _ := judge(g, o, Trail{}); v.Outcome != tt.back {
			t.Errorf("%s, its roll-back followed: outcome %d (%s), want %d", tt.name, v.Outcome, v.Reason, tt.back)
		}
	}
}

func TestTasksTellThatADeploymentInStagesFails(t *testing.T) {
	g, o := stagedLook(types.ServiceDeploymentStatusInProgress, nil)
	g.MaxFailures = 1
	o.Tasks = []ecsstatus.Task{{ID: "t1", LastStatus: "STOPPED", StopCode: "EssentialContainerExited", StoppedReason: "Essential container in task exited"}}
	if v, _ := judge(g, o, Trail{}); v.Outcome != Failed || !strings.Contains(v.Reason, "1 task failed") {
		t.Errorf("got %+v", v)
	}
}

func TestADeploymentInStagesThatIsNotShownIsNotJudged(t *testing.T) {
	g, o := stagedLook(types.ServiceDeploymentStatusInProgress, nil)
	o.Rollout = nil
	if v, _ := judge(g, o, Trail{}); v.Outcome != Going {
		t.Errorf("got %+v", v)
	}
	o.Service.Deployments[0] = ecsstatus.Deployment{ID: "ecs-svc/3", Status: "PRIMARY", TaskDefinition: "td/web:3", Created: g.Since.Add(time.Second)}
	if v, _ := judge(g, o, Trail{}); v.Outcome != Superseded || v.Other != "ecs-svc/3" {
		t.Errorf("someone else's: got %+v", v)
	}
}

func TestWaitingThatECSWasToldToDoIsForgiven(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status types.ServiceDeploymentStatus
		stage  types.ServiceDeploymentLifecycleStage
		weight float64
		want   bool
	}{
		{"new tasks come up", types.ServiceDeploymentStatusInProgress, types.ServiceDeploymentLifecycleStageScaleUp, 0, false},
		{"between two steps", types.ServiceDeploymentStatusInProgress, types.ServiceDeploymentLifecycleStageProductionTrafficShift, 10, true},
		{"the last step", types.ServiceDeploymentStatusInProgress, types.ServiceDeploymentLifecycleStageProductionTrafficShift, 100, false},
		{"the bake time", types.ServiceDeploymentStatusInProgress, types.ServiceDeploymentLifecycleStageBakeTime, 100, true},
		{"the clean-up", types.ServiceDeploymentStatusInProgress, types.ServiceDeploymentLifecycleStageCleanUp, 100, false},
		{"a roll-back", types.ServiceDeploymentStatusRollbackInProgress, types.ServiceDeploymentLifecycleStageBakeTime, 0, false},
	} {
		_, o := stagedLook(tt.status, func(r *types.ServiceDeployment) {
			r.LifecycleStage, r.TargetServiceRevision.RequestedProductionTrafficWeight = tt.stage, &tt.weight
		})
		if got := takesItsTime(o.Rollout); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// When the time is over and only the old tasks are to go, nothing is taken back.
func TestTheTimeMayBeOverInTheCleanUp(t *testing.T) {
	for stage, want := range map[types.ServiceDeploymentLifecycleStage]Outcome{types.ServiceDeploymentLifecycleStageCleanUp: Deployed, types.ServiceDeploymentLifecycleStageScaleUp: TimedOut} {
		_, o := stagedLook(types.ServiceDeploymentStatusInProgress, func(r *types.ServiceDeployment) { r.LifecycleStage = stage })
		if v := lateStage(o, Verdict{Missing: []string{"x"}}); v.Outcome != want {
			t.Errorf("%s: outcome %d, want %d", stage, v.Outcome, want)
		}
	}
}

func TestThePlanSaysHowTheTrafficIsShifted(t *testing.T) {
	for _, tt := range []struct {
		in   types.DeploymentConfiguration
		want string
	}{
		{types.DeploymentConfiguration{Strategy: types.DeploymentStrategyBlueGreen, BakeTimeInMinutes: aws.Int32(5), LifecycleHooks: make([]types.DeploymentLifecycleHook, 2)}, "test traffic, production traffic, 5 minutes of bake time, 2 hooks"},
		{types.DeploymentConfiguration{Strategy: types.DeploymentStrategyLinear}, "production traffic in steps of 10%, 6 minutes each"},
		{types.DeploymentConfiguration{Strategy: types.DeploymentStrategyCanary, CanaryConfiguration: &types.CanaryConfiguration{CanaryPercent: aws.Float64(2.5)}}, "production traffic with 2.5% for 10 minutes first"},
	} {
		if tt.in.Strategy == types.DeploymentStrategyLinear {
			tt.in.LinearConfiguration = &types.LinearConfiguration{}
		}
		s := &ecsstatus.Service{Config: ecsstatus.Config{Strategy: string(tt.in.Strategy)}, AWS: types.Service{DeploymentConfiguration: &tt.in}}
		if got := stageSteps(s); !strings.HasSuffix(got, tt.want) {
			t.Errorf("%s: %q, want …%q", tt.in.Strategy, got, tt.want)
		}
	}
}
