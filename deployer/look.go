package deployer

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/awsconfig"
)

// watcher looks at one deployment again and again.
//
// A look is DescribeServices, ListTasks twice, DescribeTasks (one for each 100
// tasks that have not been seen stopped), and DescribeTargetHealth for each
// target group: five calls for a service with a load balancer, every 2 to 10
// seconds, where AWS's buckets refill with 20 a second.
type watcher struct {
	reader   *ecsstatus.Reader
	clock    *serverClock
	goal     Goal
	rollouts ECS                       // for goals with Stages
	stopped  map[string]ecsstatus.Task // by ARN: those that will not change any more
	failed   map[string]bool           // by ARN: those that have failed a load balancer's check, as far as seen
	labels   *labels
}

func (d *Deployer) watch(r *ecsstatus.Reader, g Goal) *watcher {
	return &watcher{reader: r, rollouts: d.ecs, clock: d.clock, goal: g, stopped: map[string]ecsstatus.Task{}, failed: map[string]bool{}, labels: &d.labels}
}

// look reads what judge needs. It decides nothing and tells nobody.
func (w *watcher) look(ctx context.Context) (Observation, error) {
	s, err := w.reader.Service(ctx, w.goal.ContainerType)
	o := Observation{At: w.clock.Now(), Service: s}
	if _, missing := errors.AsType[*ecsstatus.NotFoundError](err); missing {
		return o, nil
	}
	if err != nil || s.Status != "ACTIVE" {
		return o, err
	}
	tasks, err := w.tasks(ctx)
	if err != nil {
		return o, err
	}
	o.Tasks, o.Old = w.sort(tasks)
	if w.unexplained(o) {
		if later, err := w.reader.Service(ctx, w.goal.ContainerType); err == nil {
			s, o.Service = later, later
		}
	}
	if w.goal.Stages != "" {
		if o.Rollout, err = w.rollout(ctx); err != nil {
			return o, err
		}
	}
	alive := living(slices.Concat(o.Tasks, o.Old))
	o.Hosts = w.labels.of(ctx, w.reader, alive)
	o.Targets, err = w.reader.TargetHealth(ctx, s, alive)
	return o, err
}

// tasks reads the tasks of the service. RUNNING is listed before STOPPED, so
// that a task that stops in between is in one list at least.
func (w *watcher) tasks(ctx context.Context) ([]ecsstatus.Task, error) {
	var arns []string
	for _, status := range []types.DesiredStatus{types.DesiredStatusRunning, types.DesiredStatusStopped} {
		more, err := w.list(ctx, status)
		if err != nil {
			return nil, err
		}
		arns = append(arns, more...)
	}
	slices.Sort(arns)
	unknown := slices.DeleteFunc(slices.Compact(arns), func(arn string) bool { _, final := w.stopped[arn]; return final })
	var tasks []ecsstatus.Task
	if len(unknown) > 0 {
		described, err := w.reader.DescribeTasks(ctx, unknown...)
		if err != nil {
			return nil, err
		}
		tasks = described
	}
	for _, t := range tasks {
		if t.LastStatus == "STOPPED" {
			w.stopped[t.ARN] = t
		}
	}
	tasks = slices.DeleteFunc(tasks, func(t ecsstatus.Task) bool { return t.LastStatus == "STOPPED" })
	for _, t := range w.stopped {
		tasks = append(tasks, t)
	}
	slices.SortFunc(tasks, func(a, b ecsstatus.Task) int { return a.Created.Compare(b.Created) })
	return tasks, nil
}

// unexplained reports whether a task is seen to have failed a load balancer's check for
// the first time, and the service, which was read before the tasks, does not say why.
func (w *watcher) unexplained(o Observation) bool {
	found := false
	for _, t := range o.Tasks {
		if !failedCheck(t) || w.failed[t.ARN] {
			continue
		}
		w.failed[t.ARN] = true
		found = found || ownUnwell(o.Service, t) == ""
	}
	return found
}

func (w *watcher) list(ctx context.Context, status types.DesiredStatus) ([]string, error) {
	var arns []string
	in := &ecs.ListTasksInput{Cluster: &w.reader.Cluster, ServiceName: &w.goal.ContainerType, DesiredStatus: status, MaxResults: aws.Int32(100)}
	for {
		out, err := w.reader.ECS.ListTasks(ctx, in)
		if err != nil {
			return nil, fmt.Errorf("list tasks of %s: %w", w.goal.ContainerType, awsconfig.Explain(err))
		}
		arns = append(arns, out.TaskArns...)
		if aws.ToString(out.NextToken) == "" {
			return arns, nil
		}
		in.NextToken = out.NextToken
	}
}

// sort tells the goal's tasks from the older ones. Of the goal's, those that
// stopped before it began are left out: ECS's own roll-back takes up an earlier
// deployment, whose past is none of ours. Of the older, those that have stopped.
func (w *watcher) sort(tasks []ecsstatus.Task) (own, old []ecsstatus.Task) {
	for _, t := range tasks {
		over := t.LastStatus == "STOPPED"
		switch {
		case t.StartedBy == w.goal.ID && !(over && t.Stopped.Before(w.goal.Since)):
			own = append(own, t)
		case t.StartedBy != w.goal.ID && !over:
			old = append(old, t)
		}
	}
	return own, old
}

func living(tasks []ecsstatus.Task) []ecsstatus.Task {
	var out []ecsstatus.Task
	for _, t := range tasks {
		if t.LastStatus != "STOPPED" && t.DesiredStatus != "STOPPED" {
			out = append(out, t)
		}
	}
	return out
}

// goalFor is the goal that a deployment of a service is followed to.
func goalFor(s *ecsstatus.Service, dep *ecsstatus.Deployment, def types.TaskDefinition) Goal {
	g := Goal{ContainerType: s.Name, ID: dep.ID, Definition: dep.TaskDefinition, Since: dep.Created, Earlier: map[string]bool{}, Checked: checked(def), Logs: logged(def), Breaker: breaker(s)}
	for _, other := range s.Deployments {
		if other.ID != dep.ID {
			g.Earlier[other.ID] = true
		}
	}
	if shifts(s) {
		g.Stages = s.Config.Strategy
	}
	for _, l := range s.LoadBalancers {
		if l.TargetGroup != "" {
			g.Groups++
		}
	}
	return g
}

// checked are the essential containers with a health check; others do not
// count for a task's health. ["NONE"] is a health check switched off.
func checked(def types.TaskDefinition) []string {
	var out []string
	for _, c := range def.ContainerDefinitions {
		essential := c.Essential == nil || *c.Essential
		if h := c.HealthCheck; essential && h != nil && len(h.Command) > 0 && h.Command[0] != "NONE" {
			out = append(out, aws.ToString(c.Name))
		}
	}
	return out
}

// logged is how the containers log.
func logged(def types.TaskDefinition) map[string]types.LogConfiguration {
	out := map[string]types.LogConfiguration{}
	for _, c := range def.ContainerDefinitions {
		if c.LogConfiguration != nil {
			out[aws.ToString(c.Name)] = *c.LogConfiguration
		}
	}
	return out
}

func breaker(s *ecsstatus.Service) Breaker {
	c := s.AWS.DeploymentConfiguration
	if c == nil || c.DeploymentCircuitBreaker == nil {
		return Breaker{}
	}
	b := Breaker{Enabled: c.DeploymentCircuitBreaker.Enable, Rollback: c.DeploymentCircuitBreaker.Rollback}
	if t := c.DeploymentCircuitBreaker.ThresholdConfiguration; t != nil {
		b.Type, b.Value = string(t.Type), int(t.Value)
	}
	return b
}
