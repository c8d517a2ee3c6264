package deployer_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"

	"jumpsuite/deployer"
	"jumpsuite/internal/awsconfig"
	"jumpsuite/internal/cli"
	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/labtest"
	"jumpsuite/internal/lab/world"
)

// theatre is a lab and a deployer that is pointed at it.
type theatre struct {
	t      *testing.T
	lab    *lab.Lab
	cfg    aws.Config
	d      *deployer.Deployer
	events []deployer.Event
}

func play(t *testing.T, text string) *theatre {
	t.Helper()
	return playIn(t, text, 300, true)
}

// playAt is play at so many lab seconds a second, which do not wait for the deployer.
func playAt(t *testing.T, text string, speed float64) *theatre {
	t.Helper()
	return playIn(t, text, speed, false)
}

func playIn(t *testing.T, text string, speed float64, patient bool) *theatre {
	t.Helper()
	w := labtest.World(t, text)
	w.Clock.Speed = speed
	l := labtest.Start(t, lab.Config{World: w, Patient: patient})
	cfg, err := awsconfig.Load(t.Context(), awsconfig.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p := &theatre{t: t, lab: l, cfg: cfg, d: deployer.New(cfg, "prod")}
	p.d.Interval = 20 * time.Millisecond
	p.d.Tell = func(e deployer.Event) { p.events = append(p.events, e) }
	return p
}

func (p *theatre) deploy(ctx context.Context, image string) error {
	p.t.Helper()
	i, err := deployer.ParseImage(image)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.d.Deploy(ctx, deployer.Request{ContainerType: "web", Image: i, Timeout: 24 * time.Hour})
}

func (p *theatre) count(operation string) int {
	n := 0
	for _, c := range p.lab.Calls() {
		if c.Operation == operation {
			n++
		}
	}
	return n
}

// revisions is how many revisions of a family there are.
func (p *theatre) revisions(family string) int {
	out, err := ecs.NewFromConfig(p.cfg).ListTaskDefinitions(p.t.Context(), &ecs.ListTaskDefinitionsInput{FamilyPrefix: &family})
	if err != nil {
		p.t.Fatal(err)
	}
	return len(out.TaskDefinitionArns)
}

func (p *theatre) deployment() string {
	out, err := ecs.NewFromConfig(p.cfg).DescribeServices(p.t.Context(), &ecs.DescribeServicesInput{Cluster: aws.String("prod"), Services: []string{"web"}})
	if err != nil || len(out.Services) != 1 {
		p.t.Fatal(out, err)
	}
	return aws.ToString(out.Services[0].Deployments[0].Id)
}

const idleWorld = `
clusters: [{name: prod, hosts: [{}]}]
images: [{repository: web, tags: ["1", "2"]}]
services: [{name: web, image: "web:1", desired: 0}]
`

const busyWorld = `
clusters: [{name: prod, hosts: [{count: 2}]}]
images: [{repository: web, tags: ["1", "2"]}]
services: [{name: web, image: "web:1", desired: 2, port: 80, load-balancers: [{interval: 5s, healthy: 2}]}]
`

func TestNothingIsChangedThatIsNotAllowed(t *testing.T) {
	p := play(t, idleWorld)
	var asked string
	refusal := errors.New("not allowed")
	p.d.Allow = func(i deployer.Image) error {
		asked = i.String()
		return refusal
	}
	if err := p.deploy(t.Context(), "web:2"); !errors.Is(err, refusal) {
		t.Errorf("deploy: %v, want the refusal", err)
	}
	if want := "123456789012.dkr.ecr.eu-central-1.amazonaws.com/web:2"; asked != want {
		t.Errorf("asked about %q, want %q", asked, want)
	}
	if n := p.count("RegisterTaskDefinition") + p.count("UpdateService"); n != 0 || len(p.events) != 0 {
		t.Errorf("%d changes, events %v", n, p.events)
	}
}

func TestNothingIsChangedThatCannotBeRecorded(t *testing.T) {
	for recorded, want := range []string{"disk full", "disk full", "disk full; the service is unchanged, revision web:2 is registered and not used"} {
		p := play(t, idleWorld)
		steps := 0
		p.d.Record = func(*deployer.Plan, string) error {
			if steps++; steps > recorded {
				return errors.New("disk full")
			}
			return nil
		}
		if err := p.deploy(t.Context(), "web:2"); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		if p.count("TagResource") > 2*recorded || p.count("RegisterTaskDefinition") != max(recorded-1, 0) || p.count("UpdateService") != 0 {
			t.Errorf("registered %d times, updated %d times", p.count("RegisterTaskDefinition"), p.count("UpdateService"))
		}
	}
}

func TestARollBackThatIsDueGoesOnUnrecorded(t *testing.T) {
	p := play(t, strings.Replace(busyWorld, `tags: ["1", "2"]}`, `tags: ["1"]}, {repository: web, tags: ["2"], exit: 1, after: 2s}`, 1))
	var steps []string
	p.d.Record = func(_ *deployer.Plan, step string) error {
		if steps = append(steps, step); len(steps) > 3 {
			return errors.New("disk full")
		}
		return nil
	}
	i, err := deployer.ParseImage("web:2")
	if err != nil {
		t.Fatal(err)
	}
	err = p.d.Deploy(t.Context(), deployer.Request{ContainerType: "web", Image: i, Timeout: 24 * time.Hour, Strategy: deployer.Replacing})
	if cli.ExitCode(err) != cli.ExitRolledBack || len(steps) != 5 || p.count("UpdateService") != 3 {
		t.Errorf("got %v; steps %q", err, steps)
	}
}

// Whatever goes wrong with the two changing calls, and whenever, there is one
// new revision and one new deployment in the end.
func TestChangesThatGoWrongAreNeverDoubled(t *testing.T) {
	for _, operation := range []string{"RegisterTaskDefinition", "UpdateService"} {
		for _, kind := range []string{"server", "unavailable", "cut", "throttle"} {
			t.Run(operation+" "+kind, func(t *testing.T) {
				p := play(t, idleWorld)
				p.once(world.Fault{Operation: operation, Error: kind, Times: 1}, 0, "web:2", 2)
				p.once(world.Fault{Operation: operation, Error: kind, Times: 1}, 8*time.Second, "web:1", 2)
				if kind == "throttle" {
					return // AWS does not throttle what it has done
				}
				p.once(world.Fault{Operation: operation, Error: kind, Times: 1, After: true}, 0, "web:2", 1)
				p.once(world.Fault{Operation: operation, Error: kind, Times: 1, After: true}, 8*time.Second, "web:1", 1)
			})
		}
	}
}

// once deploys with a fault and with reads of an age, and checks that there is
// one new revision, and the deployment that was followed, after so many calls.
func (p *theatre) once(f world.Fault, stale time.Duration, image string, calls int) {
	p.t.Helper()
	before := p.revisions("web")
	p.lab.AddFault(f)
	p.lab.AddFault(world.Fault{Operation: "*", Stale: world.Duration(stale)})
	p.lab.ResetCalls()
	if err := p.deploy(p.t.Context(), image); err != nil {
		p.t.Fatalf("%+v: %v", f, err)
	}
	p.lab.ClearFaults()
	if n := p.revisions("web") - before; n != 1 {
		p.t.Errorf("%+v, reads %s old: %d new revisions, want 1", f, stale, n)
	}
	if n := p.count(f.Operation); n != calls {
		p.t.Errorf("%+v, reads %s old: called %d times, want %d", f, stale, n, calls)
	}
	if got, want := p.deployment(), p.last(deployer.Updated).Deployment; got != want {
		p.t.Errorf("%+v, reads %s old: the deployment is %s, followed was %s", f, stale, got, want)
	}
	// Or the next one would read that this one is still under way.
	if err := p.lab.Clock.Sleep(p.t.Context(), 12*time.Second); err != nil {
		p.t.Fatal(err)
	}
}

func (p *theatre) last(kind deployer.Kind) deployer.Event {
	for i := len(p.events) - 1; i >= 0; i-- {
		if p.events[i].Kind == kind {
			return p.events[i]
		}
	}
	p.t.Fatalf("no event %s", kind)
	return deployer.Event{}
}

// The figure in docs/deploying.md: five calls a look with a load balancer. The
// preflight looks once too.
func TestLookCostsFewCalls(t *testing.T) {
	p := play(t, busyWorld)
	if err := p.deploy(t.Context(), "web:2"); err != nil {
		t.Fatal(err)
	}
	looks := 0
	for _, e := range p.events {
		if e.Kind == deployer.Progressed {
			looks++
		}
	}
	for operation, want := range map[string]int{
		"DescribeServices": looks + 4, "ListTasks": 2*looks + 2, "DescribeTasks": looks + 1,
		"DescribeTargetHealth": looks + 1, "DescribeTaskDefinition": 1, "DescribeImages": 1,
		"RegisterTaskDefinition": 1, "UpdateService": 1,
	} {
		if got := p.count(operation); got != want || looks == 0 {
			t.Errorf("%d looks: %d %s, want %d", looks, got, operation, want)
		}
	}
	// Before the first change, after it, at the end, and once a minute.
	if got := p.count("TagResource"); got < 3 || got > 5 {
		t.Errorf("%d TagResource, want 3 and a few signs of life", got)
	}
	if got := p.count("DescribeInstanceInformation"); got < 1 || got > 2 { // a host may get its first task later
		t.Errorf("%d DescribeInstanceInformation, want one for the hosts that are there", got)
	}
	if got := p.count("DescribeContainerInstances"); got > 3 { // of them one is the preflight's, for room
		t.Errorf("%d DescribeContainerInstances: what does not change is asked for again", got)
	}
}

// The view names hosts as list does; where SSM may not be asked, by instance id.
const loneWorld = `
clusters: [{name: prod, hosts: [{}]}]
images: [{repository: web, tags: ["1", "2"]}]
services: [{name: web, image: "web:1"}]
`

func TestHostsAreCalledByTheirAddressWhereThatIsKnown(t *testing.T) {
	for _, tt := range []struct {
		name, fault, want string
		calls             int
	}{
		{"known", "", "10.0.0.", 1},
		{"denied", "{operation: DescribeInstanceInformation, error: denied}", "i-", 1},
		{"cut once", "{operation: DescribeInstanceInformation, error: cut, times: 1}", "10.0.0.", 2},
		{"cut for ever", "{operation: DescribeInstanceInformation, error: cut}", "i-", 3},
		// The first is the preflight's, and has its tries.
		{"hosts cut twice", "{operation: DescribeContainerInstances, error: cut, skip: 1, times: 2}", "10.0.0.", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := play(t, loneWorld+"faults: ["+tt.fault+"]\n")
			if err := p.deploy(t.Context(), "web:2"); err != nil {
				t.Fatal(err)
			}
			hosts := p.last(deployer.Progressed).Progress.Hosts
			if len(hosts) != 1 || !strings.HasPrefix(hosts[0].Host, tt.want) {
				t.Errorf("hosts %v, want %s…", hosts, tt.want)
			}
			if n := p.count("DescribeInstanceInformation"); n != tt.calls {
				t.Errorf("SSM was asked %d times, want %d", n, tt.calls)
			}
		})
	}
}

// ECS says why a target was unhealthy in an event of the service's, which is read
// before the tasks: here all that happens happens between the two.
func TestATasksOwnTargetIsToldAlsoWhenItsEventComesBetweenTwoReads(t *testing.T) {
	p := play(t, strings.Replace(busyWorld, `tags: ["1", "2"]}`, `tags: ["1"]}, {repository: web, tags: ["2"], http: 503}`, 1))
	p.lab.Clock.Freeze()
	p.lab.Intercept(func(operation string) bool {
		if operation == "DescribeTasks" {
			_ = p.lab.Clock.Pass(t.Context(), 10*time.Second) // where it cannot, the deployment ends otherwise
		}
		return false
	})
	p.d.Tell = func(e deployer.Event) {
		p.events = append(p.events, e)
		if e.Kind == deployer.Broke {
			p.lab.Clock.Thaw() // for the roll-back
		}
	}
	err := p.deploy(t.Context(), "web:2")
	if err == nil || !strings.Contains(err.Error(), "; its target was unhealthy: Health checks failed with these codes: [503]") {
		t.Errorf("error %v, want one that tells of the last task's own target", err)
	}
	stopped := 0
	for _, e := range p.events {
		if e.Kind != deployer.TaskStopped || !strings.Contains(e.Message, "ELB") {
			continue
		}
		if stopped++; !strings.Contains(e.Message, "; its target was unhealthy: ") {
			t.Errorf("%s, want it to tell of the task's own target", e.Message)
		}
	}
	if stopped == 0 {
		t.Error("no task was stopped for its target")
	}
}

// Interrupted at any moment, the error says what there is, and it is true.
func TestInterruptedAtAnyMoment(t *testing.T) {
	for _, tt := range []struct {
		at      deployer.Kind
		changes int
		want    string
	}{
		{deployer.Planned, 0, "nothing was changed"},
		{deployer.Registered, 1, "the service is unchanged, revision web:2 is registered and not used"},
		{deployer.Updated, 2, "the deployment goes on in AWS: ecs-svc/"},
		{deployer.Progressed, 2, "the deployment goes on in AWS: ecs-svc/"},
	} {
		t.Run(string(tt.at), func(t *testing.T) {
			p := play(t, busyWorld)
			ctx, cancel := context.WithCancelCause(t.Context())
			p.d.Tell = func(e deployer.Event) {
				if e.Kind == tt.at {
					cancel(errors.New("interrupted"))
				}
			}
			err := p.deploy(ctx, "web:2")
			if err == nil || !strings.Contains(err.Error(), tt.want) || cli.ExitCode(err) != cli.ExitInterrupted {
				t.Errorf("error %v (code %d), want %q and 130", err, cli.ExitCode(err), tt.want)
			}
			if n := p.count("RegisterTaskDefinition") + p.count("UpdateService"); n != tt.changes {
				t.Errorf("%d changes, want %d", n, tt.changes)
			}
		})
	}
}

// Within 100 and 100 ECS can neither stop nor start the only task. Interrupted before it has
// stopped the old one, the percents must not be put back before it has, or nothing would
// move any more.
func TestAnInterruptedReplacementGoesOnWithinThePercentsThatArePutBack(t *testing.T) {
	p := playAt(t, `
clusters: [{name: prod, hosts: [{}]}]
images: [{repository: web, tags: ["1", "2"]}]
services: [{name: web, image: "web:1", desired: 1, min: 100, max: 100}]
`, 5)
	ctx, cancel := context.WithCancelCause(t.Context())
	p.d.Tell = func(e deployer.Event) {
		if e.Kind == deployer.Updated {
			cancel(errors.New("interrupted"))
		}
	}
	image, err := deployer.ParseImage("web:2")
	if err != nil {
		t.Fatal(err)
	}
	err = p.d.Deploy(ctx, deployer.Request{ContainerType: "web", Image: image, Strategy: deployer.Replacing})
	if cli.ExitCode(err) != cli.ExitInterrupted {
		t.Fatalf("got %v, want 130", err)
	}
	api := ecs.NewFromConfig(p.cfg)
	for range 200 {
		out, err := api.DescribeServices(t.Context(), &ecs.DescribeServicesInput{Cluster: aws.String("prod"), Services: []string{"web"}})
		if err != nil {
			t.Fatal(err)
		}
		s := out.Services[0]
		if c := s.DeploymentConfiguration; *c.MinimumHealthyPercent != 100 || *c.MaximumPercent != 100 {
			t.Fatalf("the percents are %d and %d", *c.MinimumHealthyPercent, *c.MaximumPercent)
		}
		if s.Deployments[0].RunningCount == 1 {
			return
		}
		if err := p.lab.Clock.Sleep(t.Context(), time.Second); err != nil {
			t.Fatal(err)
		}
	}
	t.Error("the new task does not come up")
}

const brokenWorld = `
clusters: [{name: prod, hosts: [{count: 3}]}]
images:
  - {repository: web, tags: ["1", "3"]}
  - {repository: web, tags: ["2"], start-error: "no such file or directory"}
services: [{name: web, image: "web:1", desired: 2, circuit-breaker: {enable: true, rollback: true}}]
`

// Reads of ECS may be older than those before: that one does not show ECS's own
// roll-back does not mean that it is gone.
func TestAnOldReadIsNotTheEndOfECSsRollBack(t *testing.T) {
	// The past is kept from the beginning only where the world has a stale read.
	p := play(t, brokenWorld+"faults: [{operation: StopTask, stale: 2m}]\n")
	p.d.Tell = func(e deployer.Event) {
		if e.Kind == deployer.Broke {
			p.lab.AddFault(world.Fault{Operation: "DescribeServices", Stale: world.Duration(40 * time.Second), Times: 1})
		}
	}
	err := p.deployPatiently("web:2")
	if cli.ExitCode(err) != cli.ExitRolledBack || p.count("UpdateService") != 1 {
		t.Errorf("%d updates, %v; want ECS's own roll-back followed", p.count("UpdateService"), err)
	}
}

// What ECS says of a roll-back comes after the line that tells of it, whoever began it.
func TestWhatECSSaysIsToldInTheOrderOfItsTimes(t *testing.T) {
	for name, text := range map[string]string{"ECS's own": brokenWorld, "ours": strings.ReplaceAll(brokenWorld, ", circuit-breaker: {enable: true, rollback: true}", "")} {
		text = strings.ReplaceAll(text, "desired: 2", "desired: 2, min: 50, max: 100") // the roll-back has tasks to start
		p, deploy := play(t, text), (*theatre).deployPatiently
		if name == "ours" {
			deploy = func(p *theatre, image string) error { return p.deploy(t.Context(), image) }
		}
		if err := deploy(p, "web:2"); cli.ExitCode(err) != cli.ExitRolledBack {
			t.Fatalf("%s: %v", name, err)
		}
		back := p.last(deployer.RollingBack)
		after, said := false, 0
		for _, e := range p.events {
			after = after || e.Kind == deployer.RollingBack
			if e.Kind == deployer.ServiceSaid && after {
				said++
				if e.Time.Before(back.Time) {
					t.Errorf("%s: rolling back since %s, and after that line %q of %s", name, back.Time, e.Message, e.Time)
				}
			}
		}
		if said == 0 {
			t.Errorf("%s: ECS says nothing of the roll-back", name)
		}
	}
}

func TestWhoDeploysAfterECSsRollBackIsLeftAlone(t *testing.T) {
	p := play(t, brokenWorld)
	second := deployer.New(p.cfg, "prod")
	second.Interval = p.d.Interval
	image, err := deployer.ParseImage("web:3")
	if err != nil {
		t.Fatal(err)
	}
	var other error
	p.d.Tell = func(e deployer.Event) {
		if e.Kind == deployer.Broke {
			other = second.Deploy(t.Context(), deployer.Request{ContainerType: "web", Image: image, Supersede: true})
		}
	}
	err = p.deployPatiently("web:2")
	if cli.ExitCode(err) != cli.ExitBusy || other != nil || p.count("UpdateService") != 2 {
		t.Errorf("the first ended with %v, want code 73; the second with %v", err, other)
	}
}

// deployPatiently leaves it to ECS to give up.
func (p *theatre) deployPatiently(image string) error {
	p.t.Helper()
	i, err := deployer.ParseImage(image)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.d.Deploy(p.t.Context(), deployer.Request{ContainerType: "web", Image: i, Timeout: 24 * time.Hour, MaxFailures: 100})
}

// Two people, one service: who came second wins, who came first is told, and
// rolls nothing back.
func TestOneWhoIsSupersededLeavesTheOtherAlone(t *testing.T) {
	p := play(t, strings.Replace(busyWorld, `["1", "2"]`, `["1", "2", "3"]`, 1))
	second := deployer.New(p.cfg, "prod")
	second.Interval = p.d.Interval
	image, err := deployer.ParseImage("web:3")
	if err != nil {
		t.Fatal(err)
	}
	var other error
	p.d.Tell = func(e deployer.Event) {
		if e.Kind == deployer.Updated {
			other = second.Deploy(t.Context(), deployer.Request{ContainerType: "web", Image: image, Supersede: true})
		}
	}
	err = p.deploy(t.Context(), "web:2")
	if cli.ExitCode(err) != cli.ExitBusy || !strings.Contains(err.Error(), "was superseded: deployment ecs-svc/") {
		t.Errorf("the first ended with %v, want code 73", err)
	}
	if other != nil {
		t.Errorf("the second ended with %v", other)
	}
	if n := p.count("UpdateService"); n != 2 {
		t.Errorf("%d UpdateService, want 2: one each", n)
	}
}

// ECS may take longer to roll back as asked than a change takes to be seen: as long as it
// says that it does, no second roll-back is begun.
func TestARollBackThatECSTakesItsTimeForIsNotBegunTwice(t *testing.T) {
	p := play(t, strings.Replace(brokenWorld, ", circuit-breaker: {enable: true, rollback: true}", "", 1)+"faults: [{operation: StopTask, stale: 2m}]\n")
	p.d.Tell = func(e deployer.Event) {
		if e.Kind == deployer.Broke {
			// So that what is shown is the deployment, and not what was before it.
			if err := p.lab.Clock.Sleep(t.Context(), 22*time.Second); err != nil {
				t.Error(err)
			}
			p.lab.AddFault(world.Fault{Operation: "DescribeServices", Stale: world.Duration(22 * time.Second)})
		}
	}
	err := p.deploy(t.Context(), "web:2")
	if cli.ExitCode(err) != cli.ExitRolledBack || p.count("UpdateService") != 1 || p.count("StopServiceDeployment") != 1 {
		t.Errorf("%d updates, %d stops, %v; want ECS's own roll-back followed", p.count("UpdateService"), p.count("StopServiceDeployment"), err)
	}
}

// strict lets nobody in whose signature is more than five minutes off AWS's time, as AWS
// does, and counts whom it did not.
type strict struct {
	lab     http.Handler
	now     func() time.Time
	refused atomic.Int32
}

func (s *strict) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := s.now()
	signed, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err == nil && now.Sub(signed).Abs() <= 5*time.Minute {
		s.lab.ServeHTTP(w, r)
		return
	}
	s.refused.Add(1)
	w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
	w.Header().Set("X-Amzn-Requestid", "refused")
	if r.Header.Get("X-Amz-Target") == "" { // the query protocol
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `<ErrorResponse><Error><Type>Sender</Type><Code>SignatureDoesNotMatch</Code><Message>Signature not yet current</Message></Error><RequestId>refused</RequestId></ErrorResponse>`)
		return
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(http.StatusBadRequest)
	fmt.Fprint(w, `{"__type":"InvalidSignatureException","message":"Signature not yet current"}`)
}

// An hour ahead of AWS or behind: what is judged by time is judged by AWS's, and what was
// refused for its signature is sent once more and no more.
func TestAClockThatIsAnHourOffChangesNothing(t *testing.T) {
	const speed = 30 // five minutes are ten seconds
	for _, tt := range []struct {
		off, image string
		want       int
	}{{"ahead", "2", cli.ExitOK}, {"behind", "crash", cli.ExitRolledBack}} {
		t.Run(tt.off, func(t *testing.T) {
			p := playAt(t, "clock: {"+tt.off+": 1h}"+strings.Replace(busyWorld, `["1", "2"]}`, `["1", "2"]}, {repository: web, tags: [crash], exit: 1, after: 2s}`, 1), speed)
			front := &strict{lab: p.lab.Handler(), now: p.lab.Clock.Now}
			server := httptest.NewServer(front)
			defer server.Close()
			cfg, err := awsconfig.Load(t.Context(), awsconfig.Options{Endpoint: server.URL, Speed: speed})
			if err != nil {
				t.Fatal(err)
			}
			p.d, p.cfg = deployer.New(cfg, "prod"), cfg
			p.d.Interval, p.d.Tell = 100*time.Millisecond, func(e deployer.Event) { p.events = append(p.events, e) }
			began := p.lab.Clock.Now()
			if err := p.deploy(t.Context(), "web:"+tt.image); cli.ExitCode(err) != tt.want {
				t.Errorf("%v, want %d", err, tt.want)
			}
			if n := p.count("RegisterTaskDefinition"); n != 1 || p.revisions("web") != 2 {
				t.Errorf("registered %d times", n)
			}
			if front.refused.Load() == 0 {
				t.Error("no signature was refused: the test tests nothing")
			}
			for _, e := range p.events {
				if e.Time.Before(began.Add(-time.Minute)) || e.Time.After(p.lab.Clock.Now().Add(time.Minute)) {
					t.Errorf("%s at %s, and it is %s", e.Kind, e.Time, p.lab.Clock.Now())
				}
			}
		})
	}
}
