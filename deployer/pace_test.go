package deployer_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/deployer"
	"jumpsuite/internal/lab/worlds"
)

// inLabTime makes a deployer keep its pace by the lab's clock.
func (p *theatre) inLabTime() {
	p.d.Interval, p.d.Sleep = 0, p.lab.Clock.Sleep
}

const slowWorld = `
clusters: [{name: prod, hosts: [{count: 2}]}]
images: [{repository: web, tags: ["1"]}, {repository: web, tags: ["2"], http-after: 20m}]
services: [{name: web, image: "web:1", desired: 2, port: 80, grace: 30m, load-balancers: [{interval: 5s, healthy: 2}]}]
`

// The figures in docs/deploying.md: calls a minute, on AWS's clock, while a
// deployment is followed of which nothing changes for long.
func TestFollowingStaysWithinAWSsBuckets(t *testing.T) {
	p := playAt(t, slowWorld, 60)
	p.inLabTime()
	ctx, cancel := context.WithCancelCause(t.Context())
	var began time.Time
	p.d.Tell = func(e deployer.Event) {
		if e.Kind == deployer.Updated {
			began = e.Time
			p.lab.ResetCalls()
		}
		if !began.IsZero() && e.Time.Sub(began) > 5*time.Minute {
			cancel(errors.New("seen enough"))
		}
	}
	if err := p.deploy(ctx, "web:2"); err == nil {
		t.Fatal("it came to an end")
	}
	first, later := p.perMinute(began, 0, time.Minute), p.perMinute(began, 2*time.Minute, 3*time.Minute)
	t.Logf("calls in the first minute: %v; in each later one: %v", first, later)
	// DescribeServices; ListTasks and DescribeTasks; DescribeTargetHealth: a refill of 20
	// a second for each category (ecs.md 3.2) is 1200 a minute for all who work in the account.
	for operation, n := range first {
		if n > 60 {
			t.Errorf("%s: %d calls in the first minute, want 60 at most", operation, n)
		}
		if later[operation]*2 > n+2 && n > 4 {
			t.Errorf("%s: %d calls a minute when nothing changes, %d in the beginning: it does not slow down", operation, later[operation], n)
		}
	}
	if len(first) == 0 || later["DescribeServices"] == 0 {
		t.Errorf("nothing was counted: %v, %v", first, later)
	}
}

// perMinute counts the calls from one time after a beginning, for so long.
func (p *theatre) perMinute(began time.Time, from, long time.Duration) map[string]int {
	out := map[string]int{}
	for _, c := range p.lab.Calls() {
		if at := c.Time.Sub(began) - from; at >= 0 && at < long {
			out[c.Operation]++
		}
	}
	for operation := range maps.Clone(out) {
		out[operation] = (out[operation]*int(time.Minute) + int(long)/2) / int(long)
	}
	return out
}

// detection is what is measured on one world, in lab time since the update.
type detection struct {
	world   string
	breaker *types.DeploymentCircuitBreaker // switched on for those who rely on it
	seen    string                          // in the reason that we give
}

var detections = []detection{
	{"crash-loop", &types.DeploymentCircuitBreaker{Enable: true, Rollback: true}, "Essential container in task exited"},
	{"breaker-rolls-back", &types.DeploymentCircuitBreaker{Enable: true, Rollback: true}, "CannotStartContainerError"},
	{"container-unhealthy", &types.DeploymentCircuitBreaker{Enable: true, Rollback: true}, "Task failed container health checks"},
	{"target-unhealthy", &types.DeploymentCircuitBreaker{Enable: true, Rollback: true}, "target was unhealthy"},
	{"image-missing", &types.DeploymentCircuitBreaker{Enable: true, Rollback: true}, "is not there to be pulled"},
	{"no-room-cpu", &types.DeploymentCircuitBreaker{Enable: true, Rollback: true}, "nothing moves"},
}

// The table in docs/deploying.md: how long it takes until a failure is known, to us,
// to ECS's circuit breaker, and to 'aws ecs wait services-stable' (40 looks 15 seconds
// apart, one deployment and runningCount equal to the desired count).
func TestFailuresAreKnownNoLaterThanToTheCircuitBreaker(t *testing.T) {
	if testing.Short() {
		t.Skip("plays ten minutes of each world")
	}
	t.Logf("%-22s %-10s %-16s %s", "world", "we", "circuit breaker", "services-stable")
	for _, d := range detections {
		ours := d.ours(t)
		breaker, stable := d.theirs(t)
		t.Logf("%-22s %-10s %-16s %s", d.world, ours, breaker, stable)
		if strings.HasPrefix(breaker, "never") {
			continue
		}
		limit, err := time.ParseDuration(breaker)
		got, err2 := time.ParseDuration(ours)
		// A short look, and what the machine's other work makes of one at this speed.
		if err != nil || err2 != nil || got > limit+30*time.Second {
			t.Errorf("%s: we know after %s, the circuit breaker after %s", d.world, ours, breaker)
		}
	}
}

const detectionSpeed = 100

func (d detection) text(t *testing.T) string {
	text, err := worlds.Text(d.world)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(text), "api", "web")
}

// ours is when a deployer knows.
func (d detection) ours(t *testing.T) string {
	p := playAt(t, d.text(t), detectionSpeed)
	p.inLabTime()
	i, err := deployer.ParseImage(p.lab.World.Reference("web:2"))
	if err != nil {
		t.Fatal(err)
	}
	err = p.d.Deploy(t.Context(), deployer.Request{ContainerType: "web", Image: i, Timeout: time.Hour, SkipImageCheck: true, SkipRoomCheck: true})
	if err == nil || !strings.Contains(err.Error(), d.seen) {
		t.Errorf("%s: %v, want a failure with %q", d.world, err, d.seen)
		return "not at all"
	}
	return p.last(deployer.Broke).Time.Sub(p.last(deployer.Updated).Time).Round(time.Second).String()
}

// theirs is when the circuit breaker trips, and what services-stable says when, of an
// UpdateService that nobody looks after.
func (d detection) theirs(t *testing.T) (breaker, stable string) {
	p := playAt(t, d.text(t), detectionSpeed)
	api := ecs.NewFromConfig(p.cfg)
	definition, err := api.DescribeTaskDefinition(t.Context(), &ecs.DescribeTaskDefinitionInput{TaskDefinition: aws.String("web:1")})
	if err != nil {
		t.Fatal(err)
	}
	containers := slices.Clone(definition.TaskDefinition.ContainerDefinitions)
	containers[0].Image = aws.String(p.lab.World.Reference("web:2"))
	if _, err := api.RegisterTaskDefinition(t.Context(), &ecs.RegisterTaskDefinitionInput{Family: aws.String("web"), ContainerDefinitions: containers}); err != nil {
		t.Fatal(err)
	}
	if _, err := api.UpdateService(t.Context(), &ecs.UpdateServiceInput{Cluster: aws.String("prod"), Service: aws.String("web"), TaskDefinition: aws.String("web:2"),
		DeploymentConfiguration: &types.DeploymentConfiguration{DeploymentCircuitBreaker: d.breaker}}); err != nil {
		t.Fatal(err)
	}
	began := p.lab.Clock.Now()
	stable = p.servicesStable(api, began)
	for _, e := range p.lab.Events(t.Context()) {
		if strings.Contains(e.Text, "deployment failed") && e.Time.After(began) {
			return e.Time.Sub(began).Round(time.Second).String(), stable
		}
	}
	return "never in " + p.lab.Clock.Now().Sub(began).Round(time.Minute).String(), stable
}

// servicesStable does what 'aws ecs wait services-stable' does.
func (p *theatre) servicesStable(api *ecs.Client, began time.Time) string {
	for range 40 {
		out, err := api.DescribeServices(p.t.Context(), &ecs.DescribeServicesInput{Cluster: aws.String("prod"), Services: []string{"web"}})
		if err != nil {
			p.t.Fatal(err)
		}
		if s := out.Services[0]; len(s.Deployments) == 1 && s.RunningCount == s.DesiredCount {
			return fmt.Sprintf("%q after %s", "stable", p.lab.Clock.Now().Sub(began).Round(time.Second))
		}
		if err := p.lab.Clock.Sleep(p.t.Context(), 15*time.Second); err != nil {
			p.t.Fatal(err)
		}
	}
	return "gives up after 10m"
}
