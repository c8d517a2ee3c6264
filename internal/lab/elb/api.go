package elb

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	api "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"jumpsuite/internal/lab/wire"
)

// balancerName is the name of the one load balancer.
const balancerName = "lab"

// pageSize is the default and largest page of the Describe calls (ELBv2 API: PageSize 1–400).
const pageSize = 400

func groupNotFound(arn string) error {
	if !strings.HasPrefix(arn, "arn:") {
		return wire.Errorf("ValidationError", "'%s' is not a valid target group ARN", arn)
	}
	return wire.Errorf("TargetGroupNotFound", "Target groups '%s' not found", arn)
}

// DescribeTargetHealth answers for all targets of a group that are registered
// or draining, or for those asked for, registered or not.
func (b *Balancer) DescribeTargetHealth(ctx context.Context, in *api.DescribeTargetHealthInput) (*api.DescribeTargetHealthOutput, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	g := b.group(*in.TargetGroupArn)
	if g == nil {
		return nil, groupNotFound(*in.TargetGroupArn)
	}
	when := b.config.Clock.Now().Add(-wire.Stale(ctx))
	out := &api.DescribeTargetHealthOutput{}
	if len(in.Targets) > 0 {
		for _, t := range in.Targets {
			out.TargetHealthDescriptions = append(out.TargetHealthDescriptions, g.health(g.named(t), when))
		}
		return out, nil
	}
	for _, t := range g.targets {
		if t.at(when).State != Unused {
			out.TargetHealthDescriptions = append(out.TargetHealthDescriptions, g.health(t.Target, when))
		}
	}
	return out, nil
}

// named is the target that a caller means; one without a port has the group's.
func (g *group) named(t types.TargetDescription) Target {
	port := g.Port
	if t.Port != nil {
		port = int(*t.Port)
	}
	return Target{ID: *t.Id, Port: port}
}

func (g *group) health(t Target, when time.Time) types.TargetHealthDescription {
	s := unused()
	if have := g.find(t); have != nil {
		s = have.at(when)
	}
	h := &types.TargetHealth{State: types.TargetHealthStateEnum(s.State), Reason: types.TargetHealthReasonEnum(s.Reason)}
	if s.Description != "" {
		h.Description = &s.Description
	}
	return types.TargetHealthDescription{
		Target:          &types.TargetDescription{Id: &t.ID, Port: int32p(t.Port)},
		HealthCheckPort: stringp(strconv.Itoa(t.Port)),
		TargetHealth:    h,
	}
}

// RegisterTargets adds targets behind which nothing listens: the lab does not
// know what they are.
func (b *Balancer) RegisterTargets(_ context.Context, in *api.RegisterTargetsInput) (*api.RegisterTargetsOutput, error) {
	targets, err := b.targets(*in.TargetGroupArn, in.Targets)
	if err != nil {
		return nil, err
	}
	for _, t := range targets {
		b.Register(*in.TargetGroupArn, t, nil)
	}
	return &api.RegisterTargetsOutput{}, nil
}

// DeregisterTargets lets targets drain.
func (b *Balancer) DeregisterTargets(_ context.Context, in *api.DeregisterTargetsInput) (*api.DeregisterTargetsOutput, error) {
	targets, err := b.targets(*in.TargetGroupArn, in.Targets)
	if err != nil {
		return nil, err
	}
	for _, t := range targets {
		b.Deregister(*in.TargetGroupArn, t)
	}
	return &api.DeregisterTargetsOutput{}, nil
}

// targets are what a caller names in a group.
func (b *Balancer) targets(arn string, named []types.TargetDescription) ([]Target, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	g := b.group(arn)
	if g == nil {
		return nil, groupNotFound(arn)
	}
	var targets []Target
	for _, t := range named {
		if g.Type == "instance" && !strings.HasPrefix(*t.Id, "i-") {
			return nil, wire.Errorf("InvalidTarget", "Instance ID '%s' is not valid", *t.Id)
		}
		targets = append(targets, g.named(t))
	}
	return targets, nil
}

// DescribeTargetGroups answers for groups by ARN, by name, by load balancer, or for all.
func (b *Balancer) DescribeTargetGroups(_ context.Context, in *api.DescribeTargetGroupsInput) (*api.DescribeTargetGroupsOutput, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(in.Names) > 0 && len(in.TargetGroupArns) > 0 {
		return nil, wire.Errorf("ValidationError", "Target group names and target group ARNs cannot be specified at the same time")
	}
	if in.LoadBalancerArn != nil && *in.LoadBalancerArn != b.balancerARN() {
		return nil, balancerNotFound(*in.LoadBalancerArn)
	}
	chosen, err := b.choose(in.TargetGroupArns, in.Names)
	if err != nil {
		return nil, err
	}
	page, next, err := paged(chosen, in.Marker, in.PageSize)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeTargetGroupsOutput{NextMarker: next}
	for _, g := range page {
		out.TargetGroups = append(out.TargetGroups, b.describe(g))
	}
	return out, nil
}

func (b *Balancer) choose(arns, names []string) ([]*group, error) {
	if len(arns)+len(names) == 0 {
		return slices.SortedFunc(slices.Values(b.groups), func(x, y *group) int { return cmp.Compare(x.Name, y.Name) }), nil
	}
	var chosen []*group
	for _, wanted := range append(slices.Clone(arns), names...) {
		i := slices.IndexFunc(b.groups, func(g *group) bool { return g.arn == wanted || g.Name == wanted })
		if i < 0 {
			return nil, wire.Errorf("TargetGroupNotFound", "One or more target groups not found")
		}
		chosen = append(chosen, b.groups[i])
	}
	return chosen, nil
}

// paged is one page of all, and the marker of the next.
func paged[T any](all []T, marker *string, size *int32) (page []T, next *string, err error) {
	n := pageSize
	if size != nil {
		n = int(*size)
	}
	if n < 1 || n > pageSize {
		return nil, nil, wire.Errorf("ValidationError", "1 validation error detected: Value '%d' at 'pageSize' failed to satisfy constraint: Member must have value between 1 and %d", n, pageSize)
	}
	from := 0
	if marker != nil {
		from, err = strconv.Atoi(*marker)
		if err != nil || from < 1 || from >= len(all) {
			return nil, nil, wire.Errorf("ValidationError", "Invalid marker '%s'", *marker)
		}
	}
	to := min(from+n, len(all))
	if to < len(all) {
		next = stringp(strconv.Itoa(to))
	}
	return all[from:to], next, nil
}

func (b *Balancer) describe(g *group) types.TargetGroup {
	s := g.Settings
	return types.TargetGroup{
		TargetGroupArn: &g.arn, TargetGroupName: &g.Name, TargetType: types.TargetTypeEnum(g.Type),
		Protocol: types.ProtocolEnumHttp, ProtocolVersion: stringp("HTTP1"), Port: int32p(g.Port), IpAddressType: types.TargetGroupIpAddressTypeEnumIpv4,
		HealthCheckEnabled: boolp(true), HealthCheckProtocol: types.ProtocolEnumHttp, HealthCheckPort: stringp("traffic-port"), HealthCheckPath: &s.Path,
		HealthCheckIntervalSeconds: seconds(time.Duration(s.Interval)), HealthCheckTimeoutSeconds: seconds(time.Duration(s.Timeout)),
		HealthyThresholdCount: int32p(s.Healthy), UnhealthyThresholdCount: int32p(s.Unhealthy), Matcher: &types.Matcher{HttpCode: stringp("200")},
		LoadBalancerArns: []string{b.balancerARN()}, VpcId: stringp("vpc-0lab"),
	}
}

// DescribeTargetGroupAttributes tells the deregistration delay and the defaults of the rest.
func (b *Balancer) DescribeTargetGroupAttributes(_ context.Context, in *api.DescribeTargetGroupAttributesInput) (*api.DescribeTargetGroupAttributesOutput, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	g := b.group(*in.TargetGroupArn)
	if g == nil {
		return nil, groupNotFound(*in.TargetGroupArn)
	}
	delay := strconv.Itoa(int(time.Duration(*g.Settings.Delay).Seconds()))
	out := &api.DescribeTargetGroupAttributesOutput{}
	for _, a := range [][2]string{
		{"deregistration_delay.timeout_seconds", delay},
		{"stickiness.enabled", "false"},
		{"load_balancing.algorithm.type", "round_robin"},
		{"slow_start.duration_seconds", "0"},
	} {
		out.Attributes = append(out.Attributes, types.TargetGroupAttribute{Key: &a[0], Value: &a[1]})
	}
	return out, nil
}

func (b *Balancer) balancerARN() string {
	return b.arn("loadbalancer/app/" + balancerName + "/" + suffix(balancerName))
}

func (b *Balancer) listenerARN() string {
	return b.arn("listener/app/" + balancerName + "/" + suffix(balancerName) + "/" + suffix("listener"))
}

func balancerNotFound(arn string) error {
	return wire.Errorf("LoadBalancerNotFound", "Load balancers '[%s]' not found", arn)
}

// DescribeLoadBalancers answers for the one there is.
func (b *Balancer) DescribeLoadBalancers(_ context.Context, in *api.DescribeLoadBalancersInput) (*api.DescribeLoadBalancersOutput, error) {
	arn := b.balancerARN()
	for _, wanted := range append(slices.Clone(in.LoadBalancerArns), in.Names...) {
		if wanted != arn && wanted != balancerName {
			return nil, balancerNotFound(wanted)
		}
	}
	return &api.DescribeLoadBalancersOutput{LoadBalancers: []types.LoadBalancer{{
		LoadBalancerArn: &arn, LoadBalancerName: stringp(balancerName), CreatedTime: &b.created,
		DNSName: stringp(balancerName + "-" + b.config.Account + "." + b.config.Region + ".elb.amazonaws.com"),
		Scheme:  types.LoadBalancerSchemeEnumInternal, Type: types.LoadBalancerTypeEnumApplication,
		IpAddressType: types.IpAddressTypeIpv4, VpcId: stringp("vpc-0lab"),
		State: &types.LoadBalancerState{Code: types.LoadBalancerStateEnumActive},
	}}}, nil
}

// DescribeListeners answers for the one listener, on port 80.
func (b *Balancer) DescribeListeners(_ context.Context, in *api.DescribeListenersInput) (*api.DescribeListenersOutput, error) {
	if in.LoadBalancerArn == nil && len(in.ListenerArns) == 0 {
		return nil, wire.Errorf("ValidationError", "You must specify either listener ARNs or a load balancer ARN")
	}
	if in.LoadBalancerArn != nil && *in.LoadBalancerArn != b.balancerARN() {
		return nil, balancerNotFound(*in.LoadBalancerArn)
	}
	if err := b.hasListeners(in.ListenerArns); err != nil {
		return nil, err
	}
	return &api.DescribeListenersOutput{Listeners: []types.Listener{{
		ListenerArn: stringp(b.listenerARN()), LoadBalancerArn: stringp(b.balancerARN()),
		Port: int32p(80), Protocol: types.ProtocolEnumHttp, DefaultActions: []types.Action{nobody()},
	}}}, nil
}

func (b *Balancer) hasListeners(arns []string) error {
	for _, arn := range arns {
		if arn != b.listenerARN() {
			return wire.Errorf("ListenerNotFound", "One or more listeners not found")
		}
	}
	return nil
}

// nobody is the listener's answer to what no rule takes.
func nobody() types.Action {
	return types.Action{Type: types.ActionTypeEnumFixedResponse, Order: int32p(1),
		FixedResponseConfig: &types.FixedResponseActionConfig{StatusCode: stringp("404"), ContentType: stringp("text/plain")}}
}

// DescribeRules answers with a rule for each target group, by host name, and the default.
func (b *Balancer) DescribeRules(_ context.Context, in *api.DescribeRulesInput) (*api.DescribeRulesOutput, error) {
	if in.ListenerArn == nil && len(in.RuleArns) == 0 {
		return nil, wire.Errorf("ValidationError", "You must specify either listener rule ARNs or a listener ARN")
	}
	if in.ListenerArn != nil {
		if err := b.hasListeners([]string{*in.ListenerArn}); err != nil {
			return nil, err
		}
	}
	rules := b.rules()
	if len(in.RuleArns) > 0 {
		rules = slices.DeleteFunc(rules, func(r types.Rule) bool { return !slices.Contains(in.RuleArns, *r.RuleArn) })
		if len(rules) != len(in.RuleArns) {
			return nil, wire.Errorf("RuleNotFound", "One or more rules not found")
		}
	}
	page, next, err := paged(rules, in.Marker, in.PageSize)
	if err != nil {
		return nil, err
	}
	return &api.DescribeRulesOutput{Rules: page, NextMarker: next}, nil
}

func (b *Balancer) rules() []types.Rule {
	b.mu.Lock()
	defer b.mu.Unlock()
	prefix := strings.Replace(b.listenerARN(), ":listener/", ":listener-rule/", 1) + "/"
	var rules []types.Rule
	for i, g := range b.groups {
		rules = append(rules, types.Rule{
			RuleArn: stringp(prefix + suffix("rule "+g.Name)), Priority: stringp(strconv.Itoa(i + 1)), IsDefault: boolp(false),
			Conditions: []types.RuleCondition{{Field: stringp("host-header"), Values: []string{g.Name + ".example.com"}}},
			Actions:    []types.Action{{Type: types.ActionTypeEnumForward, TargetGroupArn: &g.arn, Order: int32p(1)}},
		})
	}
	return append(rules, types.Rule{RuleArn: stringp(prefix + suffix("rule")), Priority: stringp("default"), IsDefault: boolp(true), Actions: []types.Action{nobody()}})
}

// DescribeTags answers with the one tag that the lab gives to what it makes.
func (b *Balancer) DescribeTags(_ context.Context, in *api.DescribeTagsInput) (*api.DescribeTagsOutput, error) {
	out := &api.DescribeTagsOutput{}
	for _, arn := range in.ResourceArns {
		if arn != b.balancerARN() && arn != b.listenerARN() && !b.HasGroup(arn) {
			return nil, groupNotFound(arn)
		}
		out.TagDescriptions = append(out.TagDescriptions, types.TagDescription{
			ResourceArn: &arn, Tags: []types.Tag{{Key: stringp("made-by"), Value: stringp("lab")}}})
	}
	return out, nil
}

func stringp(s string) *string { return &s }

func boolp(b bool) *bool { return &b }

func int32p(n int) *int32 {
	m := int32(n)
	return &m
}

func seconds(d time.Duration) *int32 { return int32p(int(d.Seconds())) }
