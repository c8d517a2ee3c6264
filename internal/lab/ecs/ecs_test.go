package ecs

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/internal/lab/clock"
	"jumpsuite/internal/lab/elb"
	"jumpsuite/internal/lab/engine"
	"jumpsuite/internal/lab/registry"
	"jumpsuite/internal/lab/world"
)

// rig is a plane with simulated tasks, on a clock that runs fast.
type rig struct {
	*Plane
	t        *testing.T
	ctx      context.Context
	world    *world.World
	registry *registry.Registry
	sim      *engine.Sim
}

// speed is lab seconds per second in these tests.
const speed = 300

func newRig(t *testing.T, text string) *rig {
	t.Helper()
	w, err := world.Parse([]byte(text), "world")
	if err != nil {
		t.Fatal(err)
	}
	return rigOf(t, w)
}

func rigOf(t *testing.T, w *world.World) *rig {
	t.Helper()
	if w.Clock.Speed <= 1 {
		w.Clock.Speed = speed
	}
	c := clock.New(w.Clock.Speed)
	images, err := registry.New(w, c)
	if err != nil {
		t.Fatal(err)
	}
	sim := engine.NewSim(c, images)
	balancer := elb.New(elb.Config{Clock: c, Account: w.Account, Region: w.Region})
	p := New(Config{World: w, Clock: c, Engine: sim, Balancer: balancer, Images: images})
	t.Cleanup(func() {
		p.Close()
		balancer.Close()
		sim.Close()
	})
	return &rig{Plane: p, t: t, ctx: context.Background(), world: w, registry: images, sim: sim}
}

// until waits for something to become true; a lab that never gets there fails the test.
func (r *rig) until(what string, f func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			r.t.Fatalf("waited in vain for %s\n%s", what, r.dump())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (r *rig) dump() string {
	var b strings.Builder
	for _, w := range r.world.Services {
		s := r.service(w.Name)
		fmt.Fprintf(&b, "%s %s desired %d running %d pending %d\n", w.Name, *s.Status, s.DesiredCount, s.RunningCount, s.PendingCount)
		for _, d := range s.Deployments {
			fmt.Fprintf(&b, "  %s %s %s desired %d running %d pending %d failed %d %s\n", *d.Id, *d.Status, lastPart(*d.TaskDefinition), d.DesiredCount, d.RunningCount, d.PendingCount, d.FailedTasks, d.RolloutState)
		}
		for _, e := range s.Events {
			fmt.Fprintf(&b, "  %s %s\n", e.CreatedAt.Format("15:04:05"), *e.Message)
		}
		for _, task := range r.tasks(w.Name, "STOPPED") {
			fmt.Fprintf(&b, "  %s %s %s %s\n", lastPart(*task.TaskArn)[:8], *task.LastStatus, task.StopCode, str(task.StoppedReason))
		}
	}
	return b.String()
}

// in is the cluster of a service in the world.
func (r *rig) in(service string) *string {
	for _, w := range r.world.Services {
		if w.Name == service {
			return &w.Cluster
		}
	}
	return &r.world.Clusters[0].Name
}

func (r *rig) service(name string) types.Service {
	r.t.Helper()
	out, err := r.DescribeServices(r.ctx, &sdk.DescribeServicesInput{Cluster: r.in(name), Services: []string{name}})
	if err != nil || len(out.Services) != 1 {
		r.t.Fatalf("describe %s: %v %+v", name, err, out)
	}
	return out.Services[0]
}

func (r *rig) tasks(service string, desired types.DesiredStatus) []types.Task {
	r.t.Helper()
	list, err := r.ListTasks(r.ctx, &sdk.ListTasksInput{Cluster: r.in(service), ServiceName: &service, DesiredStatus: desired})
	if err != nil {
		r.t.Fatal(err)
	}
	if len(list.TaskArns) == 0 {
		return nil
	}
	out, err := r.DescribeTasks(r.ctx, &sdk.DescribeTasksInput{Cluster: r.in(service), Tasks: list.TaskArns})
	if err != nil {
		r.t.Fatal(err)
	}
	return out.Tasks
}

// register makes a revision of a service's family with another image.
func (r *rig) register(service, image string) string {
	r.t.Helper()
	old, err := r.DescribeTaskDefinition(r.ctx, &sdk.DescribeTaskDefinitionInput{TaskDefinition: r.service(service).TaskDefinition})
	if err != nil {
		r.t.Fatal(err)
	}
	td := old.TaskDefinition
	containers := append([]types.ContainerDefinition{}, td.ContainerDefinitions...)
	containers[0].Image = ptr(r.world.Reference(image))
	out, err := r.RegisterTaskDefinition(r.ctx, &sdk.RegisterTaskDefinitionInput{Family: td.Family, ContainerDefinitions: containers, NetworkMode: td.NetworkMode})
	if err != nil {
		r.t.Fatal(err)
	}
	return *out.TaskDefinition.TaskDefinitionArn
}

// deploy updates a service to another image and returns the deployment's id.
func (r *rig) deploy(service, image string) string {
	r.t.Helper()
	return r.update(&sdk.UpdateServiceInput{Service: &service, Cluster: r.in(service), TaskDefinition: ptr(r.register(service, image))})
}

func (r *rig) update(in *sdk.UpdateServiceInput) string {
	r.t.Helper()
	out, err := r.UpdateService(r.ctx, in)
	if err != nil {
		r.t.Fatal(err)
	}
	return *out.Service.Deployments[0].Id
}

// deployment finds a deployment of a service; an empty one: it is not listed.
func (r *rig) deployment(service, id string) types.Deployment {
	for _, d := range r.service(service).Deployments {
		if *d.Id == id {
			return d
		}
	}
	return types.Deployment{}
}

func (r *rig) rollout(service string) types.ServiceDeployment {
	r.t.Helper()
	list, err := r.ListServiceDeployments(r.ctx, &sdk.ListServiceDeploymentsInput{Cluster: r.in(service), Service: &service})
	if err != nil || len(list.ServiceDeployments) == 0 {
		r.t.Fatalf("list service deployments: %v %+v", err, list)
	}
	out, err := r.DescribeServiceDeployments(r.ctx, &sdk.DescribeServiceDeploymentsInput{ServiceDeploymentArns: []string{*list.ServiceDeployments[0].ServiceDeploymentArn}})
	if err != nil || len(out.ServiceDeployments) != 1 {
		r.t.Fatalf("describe service deployments: %v %+v", err, out)
	}
	return out.ServiceDeployments[0]
}

func (r *rig) completed(service, id string) {
	r.t.Helper()
	r.until("deployment "+id+" of "+service+" to complete", func() bool {
		d := r.deployment(service, id)
		return d.RolloutState == types.DeploymentRolloutStateCompleted
	})
}

// event waits for an event whose text, after the service's name, has all parts in it.
func (r *rig) event(service string, parts ...string) string {
	r.t.Helper()
	var found string
	r.until(fmt.Sprintf("an event of %s with %q", service, parts), func() bool {
		found = findEvent(r.service(service).Events, parts)
		return found != ""
	})
	return found
}

func findEvent(events []types.ServiceEvent, parts []string) string {
	for _, e := range events {
		rest := *e.Message
		for _, part := range parts {
			_, after, ok := strings.Cut(rest, part)
			if !ok {
				rest = ""
				break
			}
			rest = after + " "
		}
		if rest != "" {
			return *e.Message
		}
	}
	return ""
}

func (r *rig) do(verb, to, value string) {
	r.t.Helper()
	if err := r.Do(world.Action{Do: verb, To: to, Value: value}); err != nil {
		r.t.Fatal(err)
	}
}
