package ecsstatus_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/awsconfig"
	"jumpsuite/internal/cli"
	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/labtest"
	"jumpsuite/internal/lab/world"
)

// start plays a world and returns a reader of one of its clusters, which asks
// the lab with the real SDK.
func start(t *testing.T, text, cluster string) (*lab.Lab, *ecsstatus.Reader) {
	t.Helper()
	l := labtest.Start(t, lab.Config{World: labtest.World(t, text)})
	cfg, err := awsconfig.Load(t.Context(), awsconfig.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return l, ecsstatus.NewReader(cfg, cluster)
}

// calls counts the calls that a lab got, by operation.
func calls(l *lab.Lab) map[string]int {
	n := map[string]int{}
	for _, c := range l.Calls() {
		n[c.Operation]++
	}
	return n
}

func wantCalls(t *testing.T, l *lab.Lab, want map[string]int) {
	t.Helper()
	if got := calls(l); !maps.Equal(got, want) {
		t.Errorf("calls = %v, want %v", got, want)
	}
}

const manyHosts, manyTasks = 200, 4000

// manyWorld has many hosts and tasks, in 20 services.
func manyWorld(hosts, tasks int) string {
	const services = 20
	var w strings.Builder
	fmt.Fprintf(&w, "clusters: [{name: lab, hosts: [{count: %d, cpu: 8192, memory: 16000}]}]\n", hosts)
	w.WriteString("images: [{repository: web, tags: [v1]}]\nservices:\n")
	for i := range services {
		fmt.Fprintf(&w, "  - {name: type-%02d, image: 'web:v1', cpu: 16, memory: 16, desired: %d}\n", i, tasks/services)
	}
	return w.String()
}

func TestAListingOf200HostsMakesTheFewestCallsThatPagesAllow(t *testing.T) {
	l, r := start(t, manyWorld(manyHosts, manyTasks), "lab")
	l.ResetCalls()
	listing, err := r.Listing(t.Context(), ecsstatus.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	wantCalls(t, l, map[string]int{
		"ListContainerInstances":      manyHosts / 100,
		"DescribeContainerInstances":  manyHosts / 100,
		"DescribeInstanceInformation": manyHosts / 50,
		"ListTasks":                   manyTasks / 100,
		"DescribeTasks":               manyTasks / 100,
	})
	seen := map[string]bool{}
	for _, h := range listing.Hosts {
		if net.ParseIP(h.Address) == nil {
			t.Errorf("host %s has the address %q", h.ID, h.Address)
		}
		for _, task := range h.Tasks {
			seen[task.ID] = true
			if task.Instance != h.Instance {
				t.Errorf("task %s of %s is shown on %s", task.ID, task.Instance, h.Instance)
			}
		}
	}
	if len(listing.Hosts) != manyHosts || len(seen) != manyTasks || len(listing.Unplaced) != 0 || listing.Unknown != nil {
		t.Errorf("%d hosts, %d tasks, %d unplaced, unknown %v; want %d, %d, 0, nil",
			len(listing.Hosts), len(seen), len(listing.Unplaced), listing.Unknown, manyHosts, manyTasks)
	}
}

// A page is described while the next one is listed, and hosts are read beside
// tasks: what takes long is the chain of ListTasks, and nothing is added to it.
func TestPagesAreReadAtTheSameTime(t *testing.T) {
	l, r := start(t, manyWorld(200, 2000)+"latency: 5ms\n", "lab")
	l.ResetCalls()
	if _, err := r.Listing(t.Context(), ecsstatus.Filter{}); err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, c := range l.Calls() {
		order = append(order, c.Operation)
	}
	last := len(order) - 1
	for last > 0 && order[last] != "ListTasks" {
		last--
	}
	for _, early := range []string{"DescribeTasks", "DescribeContainerInstances", "DescribeInstanceInformation"} {
		if first := slices.Index(order, early); first < 0 || first > last {
			t.Errorf("the first %s was answered after the last ListTasks: %v", early, order)
		}
	}
}

const twoTypes = `
clock: {speed: 100}
clusters:
  - name: lab
    hosts:
      - {ip: 10.0.0.9, instance: i-0aaaaaaaaaaaaaaa1, zone: a}
      - {ip: 10.0.0.10, instance: i-0bbbbbbbbbbbbbbb2, zone: b}
  - {name: other}
images: [{repository: web, tags: [v1]}]
services:
  - {name: web, cluster: lab, image: "web:v1", cpu: 256, memory: 128, port: 8080, desired: 2, revision: 3}
  - {name: worker, cluster: lab, image: "web:v1"}
`

func TestAServiceIsReadAsItIs(t *testing.T) {
	l, r := start(t, twoTypes, "lab")
	l.ResetCalls()
	s, err := r.Service(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	wantCalls(t, l, map[string]int{"DescribeServices": 1})
	if s.Name != "web" || s.Status != "ACTIVE" || s.Desired != 2 || s.Running != 2 || s.Pending != 0 || !s.Steady() {
		t.Errorf("service = %+v", s)
	}
	if ecsstatus.ShortName(s.TaskDefinition) != "web:3" || s.AWS.ServiceName == nil {
		t.Errorf("task definition %s, raw answer %v", s.TaskDefinition, s.AWS)
	}
	if c := s.Config; c.Controller != "ECS" || c.Scheduling != "REPLICA" || c.Strategy != "ROLLING" || *c.MinimumHealthy != 100 || *c.Maximum != 200 {
		t.Errorf("config = %+v", c)
	}
	if p := s.Primary(); p == nil || p.RolloutState != "COMPLETED" || p.Created.IsZero() || !strings.HasPrefix(p.ID, "ecs-svc/") {
		t.Errorf("primary deployment = %+v", p)
	}
}

func TestATaskIsReadByIDAndByARN(t *testing.T) {
	_, r := start(t, twoTypes, "lab")
	tasks, err := r.Tasks(t.Context(), "web")
	if err != nil || len(tasks) != 2 {
		t.Fatalf("tasks = %v, %v; want 2", tasks, err)
	}
	for _, name := range []string{tasks[0].ID, tasks[0].ARN} {
		got, err := r.Task(t.Context(), name, "web")
		if err != nil || got.ARN != tasks[0].ARN {
			t.Errorf("task %s = %+v, %v", name, got, err)
		}
	}
	c := tasks[0].Container("web")
	if c == nil || c.CPU != 256 || c.Memory != 128 || c.LastStatus != "RUNNING" || !strings.HasPrefix(c.Digest, "sha256:") || c.Ports[0].Container != 8080 || c.Ports[0].Host == 0 {
		t.Errorf("container = %+v", c)
	}
	if tasks[0].Started.IsZero() || tasks[0].ContainerType != "web" || !strings.HasPrefix(tasks[0].StartedBy, "ecs-svc/") {
		t.Errorf("task = %+v", tasks[0])
	}
}

func TestStoppedTasksAreReadWithWhyTheyStopped(t *testing.T) {
	l, r := start(t, twoTypes, "lab")
	if err := l.Do(world.Action{Do: "kill", To: "worker", Value: "3"}); err != nil {
		t.Fatal(err)
	}
	stopped := eventually(t, func() []ecsstatus.Task {
		tasks, err := r.Tasks(t.Context(), "worker", ecsstatus.Stopped)
		if err != nil {
			t.Fatal(err)
		}
		return slices.DeleteFunc(tasks, func(task ecsstatus.Task) bool { return task.LastStatus != "STOPPED" })
	})
	c := stopped[0].Containers[0]
	if stopped[0].StopCode != "EssentialContainerExited" || stopped[0].StoppedReason != "Essential container in task exited" || c.ExitCode == nil || *c.ExitCode != 3 {
		t.Errorf("stopped task = %+v, container %+v", stopped[0], c)
	}
	both, err := r.Tasks(t.Context(), "worker", ecsstatus.Running, ecsstatus.Stopped)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for _, task := range both {
		ids[task.ID] = true
	}
	if len(ids) != len(both) || !ids[stopped[0].ID] {
		t.Errorf("running and stopped tasks = %v; want each once, with %s", both, stopped[0].ID)
	}
}

// eventually asks until there is an answer.
func eventually[T any](t *testing.T, ask func() []T) []T {
	t.Helper()
	for {
		if got := ask(); len(got) > 0 {
			return got
		}
		select {
		case <-t.Context().Done():
			t.Fatal("nothing came")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestWhatIsNotThereIsNotFoundWithTheNearest(t *testing.T) {
	_, r := start(t, twoTypes, "lab")
	tasks, err := r.Tasks(t.Context(), "worker")
	if err != nil {
		t.Fatal(err)
	}
	id := tasks[0].ID
	ctx := t.Context()
	for _, tt := range []struct {
		name string
		read func() error
		kind string
		hint string
	}{
		{"a service", func() error { _, err := r.Service(ctx, "wep"); return err }, ecsstatus.KindContainerType, "did you mean web?"},
		{"the tasks of a service", func() error { _, err := r.Tasks(ctx, "wep"); return err }, ecsstatus.KindContainerType, "did you mean web?"},
		{"a listing of a service", func() error { _, err := r.Listing(ctx, ecsstatus.Filter{ContainerType: "wep"}); return err }, ecsstatus.KindContainerType, "did you mean web?"},
		// A policy that denies web by its name is asked about what was typed.
		{"a service by its ARN", func() error { _, err := r.Service(ctx, serviceARN); return err }, ecsstatus.KindContainerType, "did you mean web?"},
		{"the tasks of a service by its ARN", func() error { _, err := r.Tasks(ctx, serviceARN); return err }, ecsstatus.KindContainerType, "did you mean web?"},
		{"a listing of a service by its ARN", func() error {
			_, err := r.Listing(ctx, ecsstatus.Filter{Host: "10.0.0.10", ContainerType: serviceARN})
			return err
		}, ecsstatus.KindContainerType, "did you mean web?"},
		{"a host", func() error { _, err := r.Listing(ctx, ecsstatus.Filter{Host: "10.0.0.90"}); return err }, ecsstatus.KindHost, "the nearest are 10.0.0.9, 10.0.0.10"},
		{"a task that was cut off", func() error { _, err := r.Task(ctx, id[:12], "worker"); return err }, ecsstatus.KindTask, "did you mean " + id + "?"},
		{"a task with a typo", func() error { _, err := r.Task(ctx, flip(id), "worker"); return err }, ecsstatus.KindTask, "did you mean " + id + "?"},
		{"a task of another service", func() error { _, err := r.Task(ctx, id, "web"); return err }, ecsstatus.KindTask, "the task is of another container type"},
		{"a task of a service that is not there", func() error { _, err := r.Task(ctx, id, "wep"); return err }, ecsstatus.KindContainerType, "did you mean web?"},
		{"a task of another cluster", func() error {
			_, err := r.Task(ctx, strings.Replace(tasks[0].ARN, "/lab/", "/other/", 1), "worker")
			return err
		}, ecsstatus.KindTask, "the ARN names cluster other"},
		{"no ID at all", func() error { _, err := r.Task(ctx, "x", "worker"); return err }, ecsstatus.KindTask, "did you mean " + id + "?"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := errors.AsType[*ecsstatus.NotFoundError](tt.read())
			if !ok || got.Kind != tt.kind || got.Hint() != tt.hint || got.In != "lab" {
				t.Errorf("got %#v, want a %s not found in lab, hint %q", got, tt.kind, tt.hint)
			}
		})
	}
}

const serviceARN = "arn:aws:ecs:eu-central-1:123456789012:service/lab/web"

func flip(id string) string {
	if id[0] == '0' {
		return "1" + id[1:]
	}
	return "0" + id[1:]
}

func TestAnUnknownClusterIsNotFoundWhateverIsRead(t *testing.T) {
	_, r := start(t, twoTypes, "lap")
	ctx := t.Context()
	for name, read := range map[string]func() error{
		"service":         func() error { _, err := r.Service(ctx, "web"); return err },
		"container types": func() error { _, err := r.ContainerTypes(ctx); return err },
		"tasks":           func() error { _, err := r.Tasks(ctx, "web"); return err },
		"tasks by ID":     func() error { _, err := r.DescribeTasks(ctx, strings.Repeat("a", 32)); return err },
		"hosts":           func() error { _, _, err := r.Hosts(ctx); return err },
		"listing":         func() error { _, err := r.Listing(ctx, ecsstatus.Filter{}); return err },
		"view":            func() error { _, err := r.View(ctx, "web", ecsstatus.Ask{}); return err },
	} {
		got, ok := errors.AsType[*ecsstatus.NotFoundError](read())
		if !ok || got.Kind != ecsstatus.KindCluster || got.Name != "lap" || got.Hint() != "did you mean lab?" {
			t.Errorf("%s of cluster lap: %#v", name, got)
		}
	}
}

func TestWhatIsNotThereIsNotFoundAlthoughTheOthersCannotBeListed(t *testing.T) {
	l, r := start(t, twoTypes, "lab")
	l.AddFault(world.Fault{Operation: "ListServices", Error: "denied"})
	_, err := r.Service(t.Context(), "wep")
	got, ok := errors.AsType[*ecsstatus.NotFoundError](err)
	if !ok || got.Name != "wep" || got.Hint() != "" {
		t.Errorf("got %#v, want container type wep not found, without a hint", err)
	}
}

// emptyTokens is an AWS whose last page has a token, an empty one: the SDK's
// own paginators take that for the end too.
type emptyTokens struct{ ecsstatus.ECS }

func (emptyTokens) ListServices(context.Context, *ecs.ListServicesInput, ...func(*ecs.Options)) (*ecs.ListServicesOutput, error) {
	return &ecs.ListServicesOutput{ServiceArns: []string{serviceARN}, NextToken: new(string)}, nil
}

func (emptyTokens) ListTasks(context.Context, *ecs.ListTasksInput, ...func(*ecs.Options)) (*ecs.ListTasksOutput, error) {
	return &ecs.ListTasksOutput{NextToken: new(string)}, nil
}

func TestAnEmptyTokenIsTheEnd(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r := &ecsstatus.Reader{ECS: emptyTokens{}, Cluster: "lab"}
	types, err := r.ContainerTypes(ctx)
	if err != nil || !slices.Equal(types, []string{"web"}) {
		t.Errorf("got container types %v and %v, want web alone", types, err)
	}
	tasks, err := r.Tasks(ctx, "web")
	if err != nil || len(tasks) != 0 {
		t.Errorf("got %d tasks and %v, want none", len(tasks), err)
	}
}

func TestErrorsOfAWSSayWhatWasBeingDone(t *testing.T) {
	l, r := start(t, twoTypes, "lab")
	l.AddFault(world.Fault{Operation: "ListTasks", Error: "denied"})
	_, err := r.Listing(t.Context(), ecsstatus.Filter{})
	if want := "read tasks in cluster lab: the AWS credentials do not allow ecs:ListTasks"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error = %v, want %s…", err, want)
	}
	if cli.ExitCode(err) != cli.ExitUnavailable {
		t.Errorf("exit code = %d, want %d", cli.ExitCode(err), cli.ExitUnavailable)
	}
}

func TestAnInterruptedReadSaysSo(t *testing.T) {
	_, r := start(t, twoTypes+"latency: 10s\n", "lab")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(20*time.Millisecond, func() { cancel(&cli.Interrupted{Signal: os.Interrupt}) })
	_, err := r.Listing(ctx, ecsstatus.Filter{})
	if cli.ExitCode(err) != cli.ExitInterrupted {
		t.Errorf("error = %v, code %d", err, cli.ExitCode(err))
	}
}

func TestHostsGoWithoutAddressesWhenSSMIsDenied(t *testing.T) {
	l, r := start(t, twoTypes, "lab")
	l.AddFault(world.Fault{Operation: "DescribeInstanceInformation", Error: "denied"})
	hosts, unknown, err := r.Hosts(t.Context())
	if err != nil || unknown == nil || !strings.Contains(unknown.Error(), "ssm:DescribeInstanceInformation") {
		t.Fatalf("hosts %v, unknown %v, error %v", hosts, unknown, err)
	}
	if len(hosts) != 2 || hosts[0].Label() != "i-0aaaaaaaaaaaaaaa1" || hosts[1].Label() != "i-0bbbbbbbbbbbbbbb2" {
		t.Errorf("hosts = %+v", hosts)
	}
	if _, err := r.Listing(t.Context(), ecsstatus.Filter{Host: "10.0.0.9"}); err == nil || cli.ExitCode(err) != cli.ExitUnavailable {
		t.Errorf("a host by its address: %v, want an error with code %d", err, cli.ExitUnavailable)
	}
}

func TestHostsAreSortedByAddressAsANumber(t *testing.T) {
	_, r := start(t, twoTypes, "lab")
	hosts, _, err := r.Hosts(t.Context())
	if err != nil || len(hosts) != 2 || hosts[0].Address != "10.0.0.9" || hosts[1].Address != "10.0.0.10" {
		t.Errorf("hosts = %+v, %v", hosts, err)
	}
}

const balanced = `
clock: {speed: 1000}
clusters: [{name: lab, hosts: [{count: 2}]}]
images:
  - {repository: web, tags: [v1]}
  - {repository: side, tags: [v1]}
services:
  - name: %s
    network-mode: %s
    desired: 2
    containers:
      - {name: web, image: "web:v1", cpu: 64, memory: 64, port: 8080}
      - {name: side, image: "side:v1", cpu: 64, memory: 64, port: 9090}
    load-balancers:
      - {target-group: front, container: web, port: 8080, healthy: 2}
      - {target-group: back, container: side, port: 9090, healthy: 2}
`

func TestTargetHealthIsThatOfEachTaskInEachTargetGroup(t *testing.T) {
	for _, mode := range []string{"bridge", "awsvpc"} {
		t.Run(mode, func(t *testing.T) {
			l, r := start(t, fmt.Sprintf(balanced, "web", mode), "lab")
			s, err := r.Service(t.Context(), "web")
			if err != nil {
				t.Fatal(err)
			}
			tasks, err := r.Tasks(t.Context(), "web")
			if err != nil || len(tasks) != 2 {
				t.Fatalf("tasks = %v, %v", tasks, err)
			}
			// The first check comes some seconds after the start.
			if err := l.Clock.Sleep(t.Context(), time.Minute); err != nil {
				t.Fatal(err)
			}
			l.ResetCalls()
			health, err := r.TargetHealth(t.Context(), s, tasks)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]int{"DescribeTargetHealth": 2, "DescribeContainerInstances": 1}
			wantCalls(t, l, want)
			for _, task := range tasks {
				targets := health[task.ID]
				if len(targets) != 2 || !strings.Contains(targets[0].TargetGroup, "/front/") || !strings.Contains(targets[1].TargetGroup, "/back/") {
					t.Fatalf("targets of %s = %+v", task.ID, targets)
				}
				for _, target := range targets {
					if !target.Healthy() || target.Port == 0 || strings.HasPrefix(target.ID, "i-") != (mode == "bridge") {
						t.Errorf("target = %+v", target)
					}
				}
			}
			l.ResetCalls()
			if _, err := r.TargetHealth(t.Context(), s, tasks); err != nil {
				t.Fatal(err)
			}
			wantCalls(t, l, map[string]int{"DescribeTargetHealth": 2})
		})
	}
}

func TestATaskThatIsNotRegisteredIsUnused(t *testing.T) {
	_, r := start(t, fmt.Sprintf(balanced, "web", "bridge"), "lab")
	s, err := r.Service(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	health, err := r.TargetHealth(t.Context(), s, []ecsstatus.Task{{ID: "new", Containers: []ecsstatus.Container{{Name: "web"}}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range health["new"] {
		if target.State != "unused" || target.Reason != "Target.NotRegistered" || target.Healthy() {
			t.Errorf("target = %+v", target)
		}
	}
	if len(health["new"]) != 2 {
		t.Errorf("targets = %+v, want 2", health["new"])
	}
}

func TestAServiceWithoutBalancersAsksForNoTargetHealth(t *testing.T) {
	l, r := start(t, twoTypes, "lab")
	s, err := r.Service(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	l.ResetCalls()
	health, err := r.TargetHealth(t.Context(), s, []ecsstatus.Task{{ID: "a"}})
	if err != nil || len(health) != 0 {
		t.Errorf("health = %v, %v", health, err)
	}
	wantCalls(t, l, map[string]int{})
}

func TestAViewReadsOnlyWhatItIsAskedFor(t *testing.T) {
	l, r := start(t, twoTypes, "lab")
	tasks, err := r.Tasks(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		ask  ecsstatus.Ask
		want map[string]int
	}{
		{"summary", ecsstatus.Ask{}, map[string]int{"DescribeServices": 1, "ListTasks": 1, "DescribeTasks": 1}},
		{"images", ecsstatus.Ask{Images: true}, map[string]int{"ListTasks": 1, "DescribeTasks": 1}},
		{"events and deployments", ecsstatus.Ask{Events: true, Deployments: true}, map[string]int{"DescribeServices": 1}},
		{"lookup", ecsstatus.Ask{Lookup: true}, map[string]int{"ListTasks": 2, "DescribeTasks": 1}},
		{"lookup and images", ecsstatus.Ask{Lookup: true, Images: true}, map[string]int{"ListTasks": 2, "DescribeTasks": 1}},
		{"a task", ecsstatus.Ask{Task: tasks[0].ID}, map[string]int{"DescribeTasks": 1, "DescribeContainerInstances": 1, "DescribeInstanceInformation": 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l.ResetCalls()
			if _, err := r.View(t.Context(), "web", tt.ask); err != nil {
				t.Fatal(err)
			}
			wantCalls(t, l, tt.want)
		})
	}
}
