package ecs

import (
	"slices"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// shifted are the fields of a service with a load balancer whose traffic is shifted.
const shifted = "    bake: 60s\n    load-balancers: [{interval: 5s, healthy: 2, delay: 5s}]\n"

func TestStagesComeInOrderAndShiftTheTraffic(t *testing.T) {
	for strategy, want := range map[string]string{
		"BLUE_GREEN": "PRE_PRODUCTION_TRAFFIC_SHIFT PRODUCTION_TRAFFIC_SHIFT=100",
		"LINEAR":     "PRE_PRODUCTION_TRAFFIC_SHIFT PRODUCTION_TRAFFIC_SHIFT=50 PRE_PRODUCTION_TRAFFIC_SHIFT=50 PRODUCTION_TRAFFIC_SHIFT=100",
		"CANARY":     "PRE_PRODUCTION_TRAFFIC_SHIFT PRODUCTION_TRAFFIC_SHIFT=20 PRE_PRODUCTION_TRAFFIC_SHIFT=20 PRODUCTION_TRAFFIC_SHIFT=100",
	} {
		t.Run(strategy, func(t *testing.T) {
			t.Parallel()
			percent := map[string]string{"LINEAR": "    percent: 50\n", "CANARY": "    percent: 20\n"}[strategy]
			r := newRig(t, with("    strategy: "+strategy+"\n    step-bake: 60s\n"+percent+shifted))
			before := r.groupOf(r.service("web").Deployments[0])
			id := r.deploy("web", "web:v2")
			var seen []string
			r.until("the deployment to succeed", func() bool {
				if at := stageText(r.rollout("web")); at != "" && (len(seen) == 0 || seen[len(seen)-1] != at) {
					seen = append(seen, at)
				}
				return r.rollout("web").Status == types.ServiceDeploymentStatusSuccessful
			})
			r.completed("web", id)
			all := "PRE_SCALE_UP SCALE_UP POST_SCALE_UP TEST_TRAFFIC_SHIFT POST_TEST_TRAFFIC_SHIFT " + want + " POST_PRODUCTION_TRAFFIC_SHIFT=100 BAKE_TIME=100 CLEAN_UP=100"
			if !inOrder(seen, strings.Fields(all)) || !slices.Contains(seen, "SCALE_UP") || !slices.Contains(seen, "BAKE_TIME=100") {
				t.Errorf("seen %v, want what was seen of %s", seen, all)
			}
			if after := r.groupOf(r.service("web").Deployments[0]); after == before || after == "" {
				t.Errorf("target group %q, before %q: want the other one", after, before)
			}
		})
	}
}

// stageText is a stage with the percent of the production traffic, if there is any.
func stageText(o types.ServiceDeployment) string {
	at := string(o.LifecycleStage)
	switch *o.TargetServiceRevision.RequestedProductionTrafficWeight {
	case 20:
		at += "=20"
	case 50:
		at += "=50"
	case 100:
		at += "=100"
	}
	return at
}

// inOrder reports whether all that was seen is in want, in that order: who looks
// now and then does not see all.
func inOrder(seen, want []string) bool {
	for _, s := range seen {
		at := slices.Index(want, s)
		if at < 0 {
			return false
		}
		want = want[at+1:]
	}
	return true
}

// groupOf is the target group of a deployment's revision, as it says itself.
func (r *rig) groupOf(d types.Deployment) string {
	r.t.Helper()
	for _, s := range r.service("web").CurrentServiceRevisions {
		out, err := r.DescribeServiceRevisions(r.ctx, &sdk.DescribeServiceRevisionsInput{ServiceRevisionArns: []string{*s.Arn}})
		if err != nil {
			r.t.Fatal(err)
		}
		if *out.ServiceRevisions[0].TaskDefinition == *d.TaskDefinition {
			return *out.ServiceRevisions[0].ResolvedConfiguration.LoadBalancers[0].TargetGroupArn
		}
	}
	return ""
}

func TestWhatRollsAStagedDeploymentBack(t *testing.T) {
	for _, tt := range []struct {
		name, fields string
		during       types.ServiceDeploymentLifecycleStage
		do           func(*rig)
		want         string
	}{
		{"a Lambda hook that fails", "    hooks: [{stages: [POST_TEST_TRAFFIC_SHIFT], result: FAILED, takes: 10s}]\n", "", nil,
			"Service deployment rolled back because POST_TEST_TRAFFIC_SHIFT lifecycle hook(s) failed."},
		{"a PAUSE hook that nobody answers", "    hooks: [{stages: [POST_SCALE_UP], type: PAUSE, timeout: 1m}]\n", "", nil,
			"Service deployment rolled back because POST_SCALE_UP lifecycle hook(s) failed."},
		{"an alarm while it bakes", "    alarms: [errors]\n", types.ServiceDeploymentLifecycleStageBakeTime, func(r *rig) { r.do("alarm", "web", "on") },
			"Service deployment rolled back because of one or more active alarms."},
		{"a person", "", types.ServiceDeploymentLifecycleStageBakeTime, func(r *rig) {
			_, err := r.StopServiceDeployment(r.ctx, &sdk.StopServiceDeploymentInput{ServiceDeploymentArn: r.rollout("web").ServiceDeploymentArn, StopType: types.StopServiceDeploymentStopTypeRollback})
			if err != nil {
				r.t.Fatal(err)
			}
		}, "Service deployment rolled back because it was stopped by the user."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, with("    strategy: BLUE_GREEN\n"+tt.fields+shifted))
			former := *r.service("web").Deployments[0].Id
			r.deploy("web", "web:v2")
			if tt.do != nil {
				r.until("the stage", func() bool { return r.rollout("web").LifecycleStage == tt.during })
				tt.do(r)
			}
			r.until("the roll-back", func() bool {
				return r.rollout("web").Status == types.ServiceDeploymentStatusRollbackSuccessful
			})
			o := r.rollout("web")
			if *o.StatusReason != tt.want || *o.TargetServiceRevision.RequestedProductionTrafficWeight != 0 {
				t.Errorf("reason %q, weight %g", *o.StatusReason, *o.TargetServiceRevision.RequestedProductionTrafficWeight)
			}
			r.completed("web", former)
		})
	}
}

// The circuit breaker is for rolling and for blue/green deployments: one in steps that never
// gets up stays in SCALE_UP.
func TestTheCircuitBreakerLooksAtBlueGreenDeploymentsToo(t *testing.T) {
	r := newRig(t, with("    strategy: BLUE_GREEN\n    circuit-breaker: {enable: true, rollback: true}\n"))
	former := *r.service("web").Deployments[0].Id
	r.deploy("web", "web:broken")
	r.until("the roll-back", func() bool { return r.rollout("web").Status == types.ServiceDeploymentStatusRollbackSuccessful })
	r.event("web", "deployment failed: Service deployment rolled back because the circuit breaker threshold was exceeded.")
	r.completed("web", former)
}

func TestTheCircuitBreakerLeavesLinearDeploymentsAlone(t *testing.T) {
	r := newRig(t, with("    strategy: LINEAR\n    circuit-breaker: {enable: true, rollback: true}\n"))
	r.deploy("web", "web:broken")
	r.until("six failed starts", func() bool { return len(r.tasks("web", types.DesiredStatusStopped)) > 5 })
	if o := r.rollout("web"); o.Status != types.ServiceDeploymentStatusInProgress || o.LifecycleStage != types.ServiceDeploymentLifecycleStageScaleUp {
		t.Errorf("it is %s at %s", o.Status, o.LifecycleStage)
	}
}

func TestAShiftNeedsTwoTargetGroups(t *testing.T) {
	r := newRig(t, with("    load-balancers: [{}]\n"))
	_, err := r.UpdateService(r.ctx, &sdk.UpdateServiceInput{Service: ptr("web"), Cluster: ptr("lab"),
		DeploymentConfiguration: &types.DeploymentConfiguration{Strategy: types.DeploymentStrategyBlueGreen}})
	if err == nil || !strings.Contains(err.Error(), "advancedConfiguration") {
		t.Errorf("got %v", err)
	}
}

func TestAPauseHookWaitsForAnAnswer(t *testing.T) {
	r := newRig(t, with("    strategy: BLUE_GREEN\n"))
	in := &sdk.UpdateServiceInput{Service: ptr("web"), Cluster: ptr("lab"), TaskDefinition: ptr(r.register("web", "web:v2")),
		DeploymentConfiguration: &types.DeploymentConfiguration{LifecycleHooks: []types.DeploymentLifecycleHook{{
			TargetType: types.DeploymentLifecycleHookTargetTypePause, LifecycleStages: []types.DeploymentLifecycleHookStage{types.DeploymentLifecycleHookStagePreScaleUp}}}}}
	id := r.update(in)
	var hook types.DeploymentLifecycleHookDetail
	r.until("the hook", func() bool {
		hooks := r.rollout("web").LifecycleHookDetails
		if len(hooks) > 0 {
			hook = hooks[0]
		}
		return len(hooks) > 0
	})
	if hook.Status != types.DeploymentLifecycleHookStatusAwaitingAction {
		t.Errorf("hook is %s", hook.Status)
	}
	if _, err := r.ContinueServiceDeployment(r.ctx, &sdk.ContinueServiceDeploymentInput{ServiceDeploymentArn: r.rollout("web").ServiceDeploymentArn, HookId: hook.HookId}); err != nil {
		t.Fatal(err)
	}
	r.completed("web", id)
}
