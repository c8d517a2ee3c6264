package elb_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	api "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"jumpsuite/internal/lab/clock"
	"jumpsuite/internal/lab/elb"
	"jumpsuite/internal/lab/wire"
	"jumpsuite/internal/lab/world"
)

// states collects what a balancer tells, "state reason description".
type states struct {
	mu    sync.Mutex
	some  *sync.Cond
	lines []string
}

func watch(b *elb.Balancer) *states {
	s := &states{}
	s.some = sync.NewCond(&s.mu)
	b.Watch(func(_ string, t elb.Target, state, reason, description string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.lines = append(s.lines, fmt.Sprintf("%s:%d %s %s %s", t.ID, t.Port, state, reason, description))
		s.some.Broadcast()
	})
	return s
}

// until waits for a line and returns all up to it.
func (s *states) until(line string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !slices.Contains(s.lines, line) {
		s.some.Wait()
	}
	return s.lines[:slices.Index(s.lines, line)+1]
}

func start(t *testing.T, speed float64) *elb.Balancer {
	b := elb.New(elb.Config{Clock: clock.New(speed), Account: "123456789012", Region: "eu-central-1"})
	t.Cleanup(b.Close)
	return b
}

func delay(d time.Duration) *world.Duration {
	w := world.Duration(d)
	return &w
}

func group(name string) elb.Group {
	return elb.Group{Name: name, Settings: world.LoadBalancer{
		Interval: world.Duration(10 * time.Second), Healthy: 3, Unhealthy: 2, Delay: delay(30 * time.Second)}}
}

func TestTargetsGoThroughTheStatesOfAWS(t *testing.T) {
	b := start(t, 1000)
	told := watch(b)
	arn := b.AddGroup(group("api"))
	target := elb.Target{ID: "i-1", Port: 32768}
	var status atomic.Int64
	status.Store(200)
	b.Register(arn, target, func(context.Context) (int, error) { return int(status.Load()), nil })
	told.until("i-1:32768 healthy  ")
	status.Store(503)
	told.until("i-1:32768 unhealthy Target.ResponseCodeMismatch Health checks failed with these codes: [503]")
	b.Deregister(arn, target)
	got := told.until("i-1:32768 unused Target.NotRegistered Target is not registered to the target group")
	want := []string{
		"i-1:32768 initial Elb.RegistrationInProgress Target registration is in progress",
		"i-1:32768 initial Elb.InitialHealthChecking Initial health checks in progress",
		"i-1:32768 healthy  ",
		"i-1:32768 unhealthy Target.ResponseCodeMismatch Health checks failed with these codes: [503]",
		"i-1:32768 draining Target.DeregistrationInProgress Target deregistration is in progress",
		"i-1:32768 unused Target.NotRegistered Target is not registered to the target group",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}

func TestAnswersThatDoNotComeHaveAReason(t *testing.T) {
	b := start(t, 1000)
	told := watch(b)
	arn := b.AddGroup(group("api"))
	b.Register(arn, elb.Target{ID: "i-1", Port: 1}, func(context.Context) (int, error) { return 0, errors.New("connection refused") })
	b.Register(arn, elb.Target{ID: "i-2", Port: 2}, func(context.Context) (int, error) { return 0, context.DeadlineExceeded })
	b.Register(arn, elb.Target{ID: "i-3", Port: 3}, nil)
	told.until("i-1:1 unhealthy Target.FailedHealthChecks Health checks failed")
	told.until("i-2:2 unhealthy Target.Timeout Request timed out")
	told.until("i-3:3 unhealthy Target.FailedHealthChecks Health checks failed")
}

// While it drains, a target that is registered again starts anew and is not
// taken away when the delay is over.
func TestADrainingTargetCanComeBack(t *testing.T) {
	b := start(t, 1000)
	told := watch(b)
	arn := b.AddGroup(group("api"))
	target := elb.Target{ID: "i-1", Port: 80}
	up := func(context.Context) (int, error) { return 200, nil }
	b.Register(arn, target, up)
	told.until("i-1:80 healthy  ")
	b.Deregister(arn, target)
	b.Register(arn, target, up)
	if state, _, _ := b.Health(arn, target); state != elb.Initial {
		t.Errorf("got %s, want initial", state)
	}
	// A second target that drains for as long is gone; the first is not.
	b.Register(arn, elb.Target{ID: "i-2", Port: 80}, up)
	b.Deregister(arn, elb.Target{ID: "i-2", Port: 80})
	told.until("i-2:80 unused Target.NotRegistered Target is not registered to the target group")
	if state, _, _ := b.Health(arn, target); state == elb.Unused {
		t.Error("the target that was registered again is gone")
	}
}

func TestWhatIsNotRegisteredIsUnused(t *testing.T) {
	b := start(t, 1)
	arn := b.AddGroup(group("api"))
	for _, where := range []string{arn, "arn:aws:elasticloadbalancing:::targetgroup/none/1"} {
		if state, reason, _ := b.Health(where, elb.Target{ID: "i-9"}); state != "unused" || reason != "Target.NotRegistered" {
			t.Errorf("%s: got %s %s", where, state, reason)
		}
	}
	if b.AddGroup(group("api")) != arn || !b.HasGroup(arn) || b.HasGroup("x") {
		t.Error("groups are not known by name and ARN")
	}
}

func code(err error) string {
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return e.Code
	}
	return ""
}

func TestDescribeTargetHealth(t *testing.T) {
	b := start(t, 1000)
	told := watch(b)
	arn := b.AddGroup(group("api"))
	b.Register(arn, elb.Target{ID: "i-1", Port: 80}, func(context.Context) (int, error) { return 200, nil })
	told.until("i-1:80 healthy  ")
	out, err := b.DescribeTargetHealth(t.Context(), &api.DescribeTargetHealthInput{TargetGroupArn: &arn})
	if err != nil || len(out.TargetHealthDescriptions) != 1 {
		t.Fatalf("got %+v, %v", out, err)
	}
	if h := out.TargetHealthDescriptions[0].TargetHealth; h.State != types.TargetHealthStateEnumHealthy || h.Reason != "" || h.Description != nil {
		t.Errorf("got %+v; a healthy target has a state only", h)
	}
	out, err = b.DescribeTargetHealth(t.Context(), &api.DescribeTargetHealthInput{TargetGroupArn: &arn, Targets: []types.TargetDescription{{Id: aws.String("i-1")}, {Id: aws.String("i-1"), Port: aws.Int32(81)}}})
	if err != nil || out.TargetHealthDescriptions[0].TargetHealth.State != "healthy" || out.TargetHealthDescriptions[1].TargetHealth.Reason != "Target.NotRegistered" {
		t.Errorf("got %+v, %v", out, err)
	}
	// What was before it was registered.
	out, err = b.DescribeTargetHealth(wire.WithStale(t.Context(), time.Hour), &api.DescribeTargetHealthInput{TargetGroupArn: &arn})
	if err != nil || len(out.TargetHealthDescriptions) != 0 {
		t.Errorf("an hour ago: got %+v, %v", out, err)
	}
	_, err = b.DescribeTargetHealth(t.Context(), &api.DescribeTargetHealthInput{TargetGroupArn: aws.String("arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/none/0")})
	if code(err) != "TargetGroupNotFound" {
		t.Errorf("got %v", err)
	}
}

func TestGroupsListenersAndRules(t *testing.T) {
	b := start(t, 1)
	for i := range 5 {
		b.AddGroup(group(fmt.Sprintf("g%d", i)))
	}
	ctx := t.Context()
	var names []string
	in := &api.DescribeTargetGroupsInput{PageSize: aws.Int32(2)}
	for {
		out, err := b.DescribeTargetGroups(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range out.TargetGroups {
			names = append(names, *g.TargetGroupName)
		}
		if in.Marker = out.NextMarker; in.Marker == nil {
			break
		}
	}
	if want := []string{"g0", "g1", "g2", "g3", "g4"}; !reflect.DeepEqual(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
	if _, err := b.DescribeTargetGroups(ctx, &api.DescribeTargetGroupsInput{PageSize: aws.Int32(401)}); code(err) != "ValidationError" {
		t.Errorf("a page of 401: got %v", err)
	}
	if _, err := b.DescribeTargetGroups(ctx, &api.DescribeTargetGroupsInput{Names: []string{"none"}}); code(err) != "TargetGroupNotFound" {
		t.Errorf("got %v", err)
	}
	balancers, err := b.DescribeLoadBalancers(ctx, &api.DescribeLoadBalancersInput{})
	if err != nil {
		t.Fatal(err)
	}
	listeners, err := b.DescribeListeners(ctx, &api.DescribeListenersInput{LoadBalancerArn: balancers.LoadBalancers[0].LoadBalancerArn})
	if err != nil {
		t.Fatal(err)
	}
	rules, err := b.DescribeRules(ctx, &api.DescribeRulesInput{ListenerArn: listeners.Listeners[0].ListenerArn})
	if err != nil || len(rules.Rules) != 6 || !*rules.Rules[5].IsDefault {
		t.Errorf("got %+v, %v", rules, err)
	}
	arn := b.AddGroup(group("g0"))
	attributes, err := b.DescribeTargetGroupAttributes(ctx, &api.DescribeTargetGroupAttributesInput{TargetGroupArn: &arn})
	if err != nil || *attributes.Attributes[0].Value != "30" {
		t.Errorf("got %+v, %v", attributes, err)
	}
	tags, err := b.DescribeTags(ctx, &api.DescribeTagsInput{ResourceArns: []string{arn}})
	if err != nil || len(tags.TagDescriptions) != 1 {
		t.Errorf("got %+v, %v", tags, err)
	}
}

func TestTargetsAreRegisteredThroughTheAPI(t *testing.T) {
	b := start(t, 1)
	arn := b.AddGroup(group("api"))
	targets := []types.TargetDescription{{Id: aws.String("i-1"), Port: aws.Int32(81)}}
	if _, err := b.RegisterTargets(t.Context(), &api.RegisterTargetsInput{TargetGroupArn: &arn, Targets: targets}); err != nil {
		t.Fatal(err)
	}
	if state, _, _ := b.Health(arn, elb.Target{ID: "i-1", Port: 81}); state != elb.Initial {
		t.Errorf("got %s, want initial", state)
	}
	if _, err := b.DeregisterTargets(t.Context(), &api.DeregisterTargetsInput{TargetGroupArn: &arn, Targets: targets}); err != nil {
		t.Fatal(err)
	}
	if state, _, _ := b.Health(arn, elb.Target{ID: "i-1", Port: 81}); state != elb.Draining {
		t.Errorf("got %s, want draining", state)
	}
	bad := []types.TargetDescription{{Id: aws.String("10.0.0.1")}}
	if _, err := b.RegisterTargets(t.Context(), &api.RegisterTargetsInput{TargetGroupArn: &arn, Targets: bad}); code(err) != "InvalidTarget" {
		t.Errorf("got %v", err)
	}
}
