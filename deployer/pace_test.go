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
	"jumpsuite/internal/awsconfig"
	"jumpsuite/internal/lab/worlds"
)

// inLabTime makes a deployer keep its pace by the lab's clock, the one of AWS's buckets too.
func (p *theatre) inLabTime() {
	cfg, err := awsconfig.Load(p.t.Context(), awsconfig.Options{Speed: p.lab.World.Clock.Speed})
	if err != nil {
		p.t.Fatal(err)
	}
	tell := p.d.Tell
	p.d = deployer.New(cfg, "prod")
	p.d.Tell, p.d.Sleep = tell, p.lab.Clock.Sleep
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
		if later[operation]*2 > n+2 && n > 4 && operation != "DescribeServices" { // it glances
			t.Errorf("%s: %d calls a minute when nothing changes, %d in the beginning: it does not slow down", operation, later[operation], n)
		}
	}
	if n := later["DescribeServices"]; n > 35 { // every two seconds
		t.Errorf("DescribeServices: %d calls a minute when nothing changes, want 35 at most", n)
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
	world  string
	seen   string // in the reason that we give
	played string // instead of the lab's world of that name
}

// Nothing changes for two minutes, so that the looks have come apart; then all tasks
// fail together.
const suddenWorld = `
clusters: [{name: prod, hosts: [{count: 3}]}]
images: [{repository: web, tags: ["1"]}, {repository: web, tags: ["2"], http-after: 20m, exit: 1, after: 2m30s}]
services: [{name: web, image: "web:1", desired: 6, port: 80, grace: 30m, load-balancers: [{interval: 5s, healthy: 2}], circuit-breaker: {enable: true, rollback: true}}]
`

var detections = []detection{
	{world: "crash-loop", seen: "Essential container in task exited"},
	{world: "breaker-rolls-back", seen: "CannotStartContainerError"},
	{world: "container-unhealthy", seen: "Task failed container health checks"},
	{world: "target-unhealthy", seen: "target was unhealthy"},
	{world: "image-missing", seen: "is not there to be pulled"},
	{world: "no-room-cpu", seen: "nothing moves"},
	{world: "all at once", seen: "Essential container in task exited", played: suddenWorld},
}

// The table in docs/deploying.md: how long it takes until a failure is known, to us,
// to ECS's circuit breaker, and to 'aws ecs wait services-stable' (40 looks 15 seconds
// apart, one deployment and runningCount equal to the desired count).
func TestFailuresAreKnownNoLaterThanToTheCircuitBreaker(t *testing.T) {
	if testing.Short() {
		t.Skip("plays ten minutes of each world")
	}
	t.Logf("%-22s %-10s %-16s %-16s %s", "world", "we", "ours tripped", "circuit breaker", "services-stable")
	for _, d := range detections {
		ours, looks := d.ours(t)
		breaker, stable := d.theirs(t)
		t.Logf("%-22s %-10s %-16s %-16s %s", d.world, ours, looks.at, breaker, stable)
		if looks.tripped.IsZero() { // it never did, as we had taken the deployment back
			if limit, err := time.ParseDuration(breaker); err == nil && ours > limit {
				t.Errorf("%s: we know after %s, the circuit breaker after %s", d.world, ours, breaker)
			}
			continue
		}
		looks.check(t, d.world)
	}
}

// looks is what a deployer does on AWS when the circuit breaker of its own deployment trips.
type looks struct {
	tripped time.Time     // zero: never
	at      time.Duration // since the deployment began; zero: never
	pause   time.Duration // between two calls, when it tripped
	after   int           // how often the service was read from then until the failure was told
}

// check checks that the circuit breaker's trip was seen at once: it was no longer than a
// quick look's pause until the service was read, and it was told when its tasks had been too.
func (l looks) check(t *testing.T, world string) {
	t.Helper()
	if l.pause > 2*time.Second {
		t.Errorf("%s: %s between two calls when the circuit breaker tripped, want 2s at most", world, l.pause)
	}
	if l.after > 2 { // a glance and a look, or a look alone
		t.Errorf("%s: the service was read %d times from the circuit breaker's trip until it was told, want twice at most", world, l.after)
	}
}

const detectionSpeed = 100

func (d detection) text(t *testing.T) string {
	if d.played != "" {
		return d.played
	}
	text, err := worlds.Text(d.world)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(text), "api", "web")
}

// ours is when a deployer knows, and what it was doing when the circuit breaker did.
func (d detection) ours(t *testing.T) (known time.Duration, l looks) {
	p := playAt(t, d.text(t), detectionSpeed)
	p.inLabTime()
	type rest struct {
		from time.Time
		long time.Duration
	}
	var rests []rest
	p.d.Sleep = func(ctx context.Context, long time.Duration) error {
		rests = append(rests, rest{p.lab.Clock.Now(), long})
		return p.lab.Clock.Sleep(ctx, long)
	}
	var began, told time.Time
	p.d.Tell = func(e deployer.Event) {
		switch e.Kind {
		case deployer.Updated:
			began = p.lab.Clock.Now()
		case deployer.Broke:
			told = p.lab.Clock.Now()
		}
	}
	i, err := deployer.ParseImage(p.lab.World.Reference("web:2"))
	if err != nil {
		t.Fatal(err)
	}
	err = p.d.Deploy(t.Context(), deployer.Request{ContainerType: "web", Image: i, Timeout: time.Hour, SkipImageCheck: true, SkipRoomCheck: true})
	if err == nil || !strings.Contains(err.Error(), d.seen) {
		t.Errorf("%s: %v, want a failure with %q", d.world, err, d.seen)
	}
	l.tripped = p.tripped(began, told)
	if !l.tripped.IsZero() {
		l.at = l.tripped.Sub(began).Round(time.Second)
	}
	for _, r := range rests {
		if !r.from.After(l.tripped) {
			l.pause = r.long
		}
	}
	for _, c := range p.lab.Calls() {
		if c.Operation == "DescribeServices" && c.Time.After(l.tripped) && c.Time.Before(told) {
			l.after++
		}
	}
	return told.Sub(began).Round(time.Second), l
}

// tripped is when ECS's circuit breaker gave a deployment up, in a span of lab time; zero: never.
func (p *theatre) tripped(from, to time.Time) time.Time {
	for _, e := range p.lab.Events(p.t.Context()) {
		if strings.Contains(e.Text, "deployment failed") && e.Time.After(from) && !e.Time.After(to) {
			return e.Time
		}
	}
	return time.Time{}
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
		DeploymentConfiguration: &types.DeploymentConfiguration{DeploymentCircuitBreaker: &types.DeploymentCircuitBreaker{Enable: true, Rollback: true}}}); err != nil {
		t.Fatal(err)
	}
	began := p.lab.Clock.Now()
	stable = p.servicesStable(api, began)
	if at := p.tripped(began, p.lab.Clock.Now()); !at.IsZero() {
		return at.Sub(began).Round(time.Second).String(), stable
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
