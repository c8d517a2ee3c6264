package ecsstatus

import (
	"context"
	"errors"

	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
)

// Target is what a load balancer thinks of a task.
type Target struct {
	TargetGroup string `json:"targetGroup"` // ARN
	ID          string `json:"id"`          // instance id or address; empty if the task has none yet
	Port        int    `json:"port"`
	// State is initial, healthy, unhealthy, unhealthy.draining, unused,
	// draining or unavailable.
	State       string `json:"state"`
	Reason      string `json:"reason,omitempty"`      // Target.ResponseCodeMismatch, …; empty when healthy
	Description string `json:"description,omitempty"` // of the reason
}

// Healthy reports whether the load balancer sends requests to the target.
func (t Target) Healthy() bool { return t.State == string(elbtypes.TargetHealthStateEnumHealthy) }

// ErrNoBalancers is returned by TargetHealth of a Reader without Balancers.
var ErrNoBalancers = errors.New("load balancers are not read")

// endpoint is what a target group calls a target.
type endpoint struct {
	id   string
	port int
}

// TargetHealth reads what the load balancers of a container type think of its
// tasks: by task ID, a Target for each target group of the service, in the
// service's order. A task that is not registered, not yet or no longer, has a
// Target with state unused. Classic Load Balancers are left out. Of two target
// groups between which traffic is shifted the one counts that the task is in.
//
// It makes one call for each target group, and one for the tasks' hosts where
// they are not known yet.
func (r *Reader) TargetHealth(ctx context.Context, s *Service, tasks []Task) (map[string][]Target, error) {
	groups := targetGroups(s)
	if len(groups) == 0 {
		return map[string][]Target{}, nil
	}
	if r.Balancers == nil {
		return nil, ErrNoBalancers
	}
	crew := newCrew(ctx)
	var hosts map[string]Host
	crew.do(func(ctx context.Context) (err error) {
		hosts, err = r.TaskHosts(ctx, tasks)
		return err
	})
	health := make([]pair, len(groups))
	for i, g := range groups {
		crew.do(func(ctx context.Context) (err error) {
			health[i].first, err = r.groupHealth(ctx, g.TargetGroup)
			return err
		})
		if g.Alternate == "" {
			continue
		}
		crew.do(func(ctx context.Context) (err error) {
			health[i].second, err = r.groupHealth(ctx, g.Alternate)
			return err
		})
	}
	if err := crew.wait(); err != nil {
		return nil, err
	}
	return joinTargets(groups, tasks, hosts, health), nil
}

// pair is the health of the targets of a load balancer's target group, and of
// its alternate one.
type pair struct {
	first, second map[endpoint]elbtypes.TargetHealth
}

func targetGroups(s *Service) []LoadBalancer {
	var groups []LoadBalancer
	for _, l := range s.LoadBalancers {
		if l.TargetGroup != "" {
			groups = append(groups, l)
		}
	}
	return groups
}

func (r *Reader) groupHealth(ctx context.Context, arn string) (map[endpoint]elbtypes.TargetHealth, error) {
	out, err := r.Balancers.DescribeTargetHealth(ctx, &elb.DescribeTargetHealthInput{TargetGroupArn: &arn})
	if err != nil {
		return nil, failed(ctx, err, "describe target health of "+arn)
	}
	health := map[endpoint]elbtypes.TargetHealth{}
	for _, d := range out.TargetHealthDescriptions {
		if d.Target == nil || d.TargetHealth == nil {
			continue
		}
		at := endpoint{id: text(d.Target.Id)}
		if d.Target.Port != nil {
			at.port = int(*d.Target.Port)
		}
		health[at] = *d.TargetHealth
	}
	return health, nil
}

func joinTargets(groups []LoadBalancer, tasks []Task, hosts map[string]Host, health []pair) map[string][]Target {
	targets := make(map[string][]Target, len(tasks))
	for i := range tasks {
		t := &tasks[i]
		for g, group := range groups {
			at := endpointOf(t, group, hosts[t.Instance])
			in, known := group.TargetGroup, health[g].first
			if _, registered := health[g].second[at]; registered {
				in, known = group.Alternate, health[g].second
			}
			targets[t.ID] = append(targets[t.ID], newTarget(in, at, known))
		}
	}
	return targets
}

// endpointOf is where a load balancer finds a task (ECS registers it so): in
// network mode awsvpc its own address and the container's port, else its
// host's instance id and the host port that the container's port is bound to.
// The host port is 0, and nothing has it, as long as it is not bound.
func endpointOf(t *Task, l LoadBalancer, h Host) endpoint {
	if t.Address != "" {
		return endpoint{t.Address, l.Port}
	}
	c := t.Container(l.Container)
	if c == nil {
		return endpoint{id: h.ID}
	}
	for _, p := range c.Ports {
		if p.Container == l.Port {
			return endpoint{h.ID, p.Host}
		}
	}
	return endpoint{id: h.ID}
}

func newTarget(group string, at endpoint, health map[endpoint]elbtypes.TargetHealth) Target {
	t := Target{TargetGroup: group, ID: at.id, Port: at.port}
	h, registered := health[at]
	if !registered {
		t.State = string(elbtypes.TargetHealthStateEnumUnused)
		t.Reason = string(elbtypes.TargetHealthReasonEnumNotRegistered)
		t.Description = "Target is not registered to the target group"
		return t
	}
	t.State, t.Reason, t.Description = string(h.State), string(h.Reason), text(h.Description)
	return t
}
