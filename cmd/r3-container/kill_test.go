package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/deployer"
	"jumpsuite/ecsstatus"
	"jumpsuite/internal/lab"
)

// call is one call of a deployment, as it is told from the others: its
// operation, how many changes came before it, and the how manieth of its kind it
// is since the last one. Of more than two looks in a row, each is like the second.
type call struct {
	operation  string
	changes, n int
}

func (c call) String() string { return fmt.Sprintf("%s-%d-%d", c.operation, c.changes, c.n) }

// changes are the operations that change something: to be killed after one,
// before its answer, is another thing than before it.
var changes = []string{"RegisterTaskDefinition", "UpdateService", "StopServiceDeployment", "TagResource"}

// executioner stands between a process and the lab, and kills the process at a call.
type executioner struct {
	lab   http.Handler
	at    call
	after bool // the call takes effect; its answer is not sent
	// when, if set, decides instead of at: nth counts the calls of an operation.
	when func(operation string, nth int) bool

	mu      sync.Mutex
	process *os.Process
	counted map[call]int
	changes int
	seen    []call
	killed  bool
	all     map[string]int
}

func (e *executioner) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	kill := e.count(operation(r, body))
	if kill && e.after {
		e.lab.ServeHTTP(httptest.NewRecorder(), r)
	}
	if kill {
		e.process.Kill()
		panic(http.ErrAbortHandler)
	}
	e.lab.ServeHTTP(w, r)
}

// operation is that of a call of AWS's JSON protocol, or of its query protocol.
func operation(r *http.Request, body []byte) string {
	if _, name, ok := strings.Cut(r.Header.Get("X-Amz-Target"), "."); ok {
		return name
	}
	_, name, _ := strings.Cut(string(body), "Action=")
	name, _, _ = strings.Cut(name, "&")
	return name
}

// count counts a call, and reports whether the process is to be killed at it.
func (e *executioner) count(operation string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	kind := call{operation: operation, changes: e.changes}
	e.counted[kind]++
	c := call{operation, e.changes, min(e.counted[kind], 2)}
	if !slices.Contains(e.seen, c) {
		e.seen = append(e.seen, c)
	}
	if slices.Contains(changes, operation) {
		e.changes++
	}
	kill := c == e.at
	if e.when != nil {
		e.all[operation]++
		kill = e.when(operation, e.all[operation])
	}
	kill = kill && !e.killed
	e.killed = e.killed || kill
	return kill
}

// scaffold is a lab with many services, on each of which one deployment is killed.
type scaffold struct {
	t      *testing.T
	lab    *lab.Lab
	binary string
	args   []string // of each deployment
}

const places = 120

func newScaffold(t *testing.T, image, strategy string) *scaffold {
	t.Helper()
	text := "clusters: [{name: prod, hosts: [{count: 4, cpu: 65536, memory: 262144}]}]\nimages:\n  - {repository: web, tags: [\"1\", good]}\n  - {repository: web, tags: [broken], exit: 1, after: 2s}\nservices:\n"
	for n := range places {
		text += fmt.Sprintf("  - {name: s%d, image: \"web:1\"}\n", n)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := &scaffold{t: t, lab: labFor(t, text), binary: filepath.Join(t.TempDir(), "r3-container"),
		args: []string{"--interval", "100ms", "--timeout", "24h"}}
	if err := os.Symlink(self, s.binary); err != nil {
		t.Fatal(err)
	}
	s.args = append(s.args, "--image-url", "web:"+image, "--strategy", strategy, "--max-failures", "1")
	return s
}

// run runs a command, on a jump server with a folder for its journals, until it ends or is killed.
func (s *scaffold) run(e *executioner, home string, args ...string) (code int, output string) {
	e.lab, e.counted, e.all = s.lab.Handler(), map[call]int{}, map[string]int{}
	server := httptest.NewServer(e)
	defer server.Close()
	var out bytes.Buffer
	c := exec.Command(s.binary, append(args, "--cluster", "prod")...)
	c.Stdout, c.Stderr = &out, &out
	c.Env = append(s.lab.Env(), "AWS_ENDPOINT_URL="+server.URL, "XDG_STATE_HOME="+home)
	e.mu.Lock()
	if err := c.Start(); err != nil {
		s.t.Error(err)
	}
	e.process = c.Process
	e.mu.Unlock()
	err := c.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), out.String()
	}
	if err != nil {
		s.t.Error(err)
	}
	return 0, out.String()
}

// carried is how often AWS carried out a call about a service, with a text in its parameters.
func (s *scaffold) carried(operation, service, text string) (n int) {
	for _, c := range s.lab.Calls() {
		p := string(c.Parameters)
		if c.Operation == operation && c.Status == http.StatusOK && strings.Contains(p, `"`+service+`"`) && strings.Contains(p, text) {
			n++
		}
	}
	return n
}

func (s *scaffold) service(name string) *ecsstatus.Service {
	cluster := "prod"
	out, err := s.lab.ECS.DescribeServices(s.t.Context(), &ecs.DescribeServicesInput{Cluster: &cluster, Services: []string{name}, Include: []types.ServiceField{types.ServiceFieldTags}})
	if err != nil || len(out.Services) != 1 {
		s.t.Errorf("describe %s: %v", name, err)
		return nil
	}
	return ecsstatus.NewService(out.Services[0])
}

// A deployment is killed at every one of its calls in turn, before AWS has
// carried it out and after, and wait or rollback finishes it, on the same jump
// server or on another one. Nothing may be lost, nothing doubled.
func TestWhateverKillsADeploymentTheNextCommandFinishesIt(t *testing.T) {
	for _, image := range []string{"good", "broken"} {
		for _, strategy := range []string{"rolling", "replacing"} {
			t.Run(image+" "+strategy, func(t *testing.T) { killEverywhere(t, image, strategy) })
		}
	}
}

func killEverywhere(t *testing.T, image, strategy string) {
	s := newScaffold(t, image, strategy)
	probe := &executioner{}
	if code, out := s.run(probe, t.TempDir(), append([]string{"deploy", "--container-type", "s0"}, s.args...)...); code != map[string]int{"good": 0, "broken": 75}[image] {
		t.Fatalf("exit code %d\n%s", code, out)
	}
	s.everywhere(probe.seen, 25, func(x execution) {
		x.image = image
		x.carryOut()
	})
}

// The roll-back that picks up a killed deployment is killed at every call, too.
func TestWhateverKillsARollBackTheNextCommandFinishesIt(t *testing.T) {
	s := newScaffold(t, "good", "replacing")
	first := execution{scaffold: s, name: "s0", at: call{"UpdateService", 2, 1}, after: true}
	home := t.TempDir()
	if code, out := first.deploy(&executioner{at: first.at, after: true}, home); code != -1 {
		t.Fatalf("not killed: exit code %d\n%s", code, out)
	}
	probe := &executioner{}
	if code, out := first.follow(probe, home, "rollback", "--yes"); code != 0 {
		t.Fatalf("exit code %d\n%s", code, out)
	}
	s.everywhere(probe.seen, 20, func(x execution) {
		home := t.TempDir()
		x.deploy(&executioner{at: first.at, after: true}, home)
		_, out := x.follow(&executioner{at: x.at, after: x.after}, home, "rollback", "--yes")
		x.image = "good" // wait finishes what the journal says: the deployment, or its roll-back
		if x.carried("TagResource", x.arn(), "rolling-back") > 0 {
			x.image = "broken"
		}
		code, more := x.follow(&executioner{}, home, "wait")
		x.check("wait", code, out+"--- wait\n"+more)
	})
}

// The former definition is deregistered during the deployment, so that the roll-back
// registers it anew, and is killed when it has. What it has registered is found, with
// room for a mark among the definition's tags and without.
func TestWhatAKilledRollBackHasRegisteredIsFoundAgain(t *testing.T) {
	for _, tags := range []int{0, 50} {
		s := newScaffold(t, "broken", "replacing") // else ECS would take the old tasks' deployment up again
		s.lab = labFor(t, tagged("broken", tags))
		home := t.TempDir()
		e := &executioner{after: true, when: func(operation string, nth int) bool {
			if operation == "UpdateService" && nth == 1 {
				if _, err := s.lab.ECS.DeregisterTaskDefinition(t.Context(), &ecs.DeregisterTaskDefinitionInput{TaskDefinition: aws.String("s0:1")}); err != nil {
					t.Error(err)
				}
			}
			return operation == "RegisterTaskDefinition" && nth == 2
		}}
		x := execution{scaffold: s, name: "s0"}
		if code, out := x.deploy(e, home); code != -1 {
			t.Fatalf("%d tags: not killed: exit code %d\n%s", tags, code, out)
		}
		code, out := x.follow(&executioner{}, home, "wait")
		if code != 75 || s.carried("RegisterTaskDefinition", "s0", "") != 2 || s.service("s0").Primary().TaskDefinition != "arn:aws:ecs:eu-central-1:123456789012:task-definition/s0:3" {
			t.Errorf("%d tags: exit code %d, %d revisions registered\n%s", tags, code, s.carried("RegisterTaskDefinition", "s0", ""), out)
		}
	}
}

// What a killed deployment has registered without a mark is told to be left over.
func TestWhatAKilledDeploymentHasRegisteredIsTold(t *testing.T) {
	for _, tags := range []int{0, 50} {
		s := newScaffold(t, "good", "rolling")
		s.lab = labFor(t, tagged("good", tags))
		home := t.TempDir()
		x := execution{scaffold: s, name: "s0"}
		e := &executioner{after: true, when: func(operation string, _ int) bool { return operation == "RegisterTaskDefinition" }}
		if code, out := x.deploy(e, home); code != -1 {
			t.Fatalf("%d tags: not killed: exit code %d\n%s", tags, code, out)
		}
		code, out := x.follow(&executioner{}, home, "wait")
		if code != 75 || !strings.Contains(out, "revision s0:2 is registered and not used") {
			t.Errorf("%d tags: exit code %d\n%s", tags, code, out)
		}
	}
}

// tagged is a world whose service s0 has a task definition with so many tags.
func tagged(image string, tags int) string {
	var list []string
	for n := range tags {
		list = append(list, fmt.Sprintf("t%d: a", n))
	}
	how := map[string]string{"broken": ", exit: 1, after: 2s"}[image]
	return `
clusters: [{name: prod, hosts: [{}]}]
images: [{repository: web, tags: ["1"]}, {repository: web, tags: [` + image + "]" + how + `}]
services: [{name: s0, image: "web:1", tags: {` + strings.Join(list, ", ") + "}}]\n"
}

// everywhere has something killed at each of some calls, each on a service of its own.
func (s *scaffold) everywhere(calls []call, least int, kill func(execution)) {
	n := 1
	var wg sync.WaitGroup
	room := make(chan struct{}, 4) // the processes sleep most of the time
	for _, at := range calls {
		for _, after := range []bool{false, true} {
			if after && !slices.Contains(changes, at.operation) {
				continue // to be killed after a read is to be killed before the next call
			}
			if n == places {
				s.t.Fatalf("%d calls to be killed at are more than there are places", len(calls))
			}
			x := execution{scaffold: s, at: at, after: after, n: n, name: fmt.Sprintf("s%d", n)}
			n++
			room <- struct{}{}
			wg.Go(func() {
				defer func() { <-room }()
				kill(x)
			})
		}
	}
	wg.Wait()
	s.t.Logf("killed %d times at %d calls", n-1, len(calls))
	if n <= least {
		s.t.Errorf("killed %d times only", n-1)
	}
}

// execution is one deployment, killed at a call.
type execution struct {
	*scaffold
	at    call
	after bool
	n     int
	name  string
	image string
}

func (x execution) deploy(e *executioner, home string) (code int, output string) {
	return x.run(e, home, append([]string{"deploy", "--container-type", x.name}, x.args...)...)
}

func (x execution) follow(e *executioner, home string, command ...string) (code int, output string) {
	return x.run(e, home, append(command, "--container-type", x.name, "--interval", "100ms", "--timeout", "24h")...)
}

func (x execution) arn() string {
	return "arn:aws:ecs:eu-central-1:123456789012:service/prod/" + x.name
}

func (x execution) carryOut() {
	home := x.t.TempDir()
	e := &executioner{at: x.at, after: x.after}
	code, out := x.deploy(e, home)
	if !e.killed {
		x.t.Logf("%s: %s did not come this time (exit code %d)", x.name, x.at, code)
	} else if code != -1 {
		x.fail("not killed: exit code %d\n%s", code, out)
		return
	}
	command := []string{"wait"}
	if x.n%2 == 1 {
		command = []string{"rollback", "--yes"}
	}
	if x.n%5 == 4 { // on another jump server, which has no lock to go by
		home = x.t.TempDir()
		if x.n%2 == 1 {
			command = append(command, "--supersede")
		}
	}
	code, more := x.follow(&executioner{}, home, command...)
	x.check(command[0], code, out+"--- "+strings.Join(command, " ")+"\n"+more)
}

func (x execution) fail(format string, args ...any) {
	x.t.Helper()
	x.t.Errorf("%s killed at %s (after: %v): %s", x.name, x.at, x.after, fmt.Sprintf(format, args...))
}

// check compares what there is with what there should be.
func (x execution) check(command string, code int, out string) {
	journaled := x.carried("TagResource", x.arn(), "") > 0
	updated := x.carried("UpdateService", x.name, "task-definition/"+x.name+":2") > 0
	want, definition := 0, x.name+":1"
	switch {
	case command == "rollback" && !journaled:
		want = 64 // nothing is known of a deployment
	case command == "rollback", !journaled:
	case !updated, x.image == "broken":
		want = 75
	default:
		definition = x.name + ":2"
	}
	s := x.service(x.name)
	if s == nil {
		return
	}
	p := s.Primary()
	if code != want {
		x.fail("exit code %d, want %d\n%s", code, want, out)
	}
	if got := ecsstatus.ShortName(p.TaskDefinition); got != definition {
		x.fail("the service has %s, want %s\n%s", got, definition, out)
	}
	if low, high := *s.Config.MinimumHealthy, *s.Config.Maximum; low != 100 || high != 200 || s.Desired != 1 {
		x.fail("minimum %d, maximum %d, desired %d\n%s", low, high, s.Desired, out)
	}
	for _, c := range [][2]string{{"RegisterTaskDefinition", ""}, {"UpdateService", "task-definition/" + x.name + ":1\""}, {"UpdateService", "task-definition/" + x.name + ":2\""}} {
		if n := x.carried(c[0], x.name, c[1]); n > 1 {
			x.fail("%s %s was carried out %d times\n%s", c[0], c[1], n, out)
		}
	}
	if j, ok := deployer.JournalOf(s); ok && !j.State.Ended() {
		x.fail("the journal says %s\n%s", j.State, out)
	}
}

// gate holds the calls of an operation back until as many processes as it waits for have
// made theirs: they are at the same place then.
type gate struct {
	operation string
	mu        sync.Mutex
	waiting   int
	open      chan struct{}
}

// pass waits for the others, at the first call of each of two processes.
func (g *gate) pass(operation string, nth int) {
	if operation != g.operation || nth > 1 {
		return
	}
	g.count()
	<-g.open
}

// count counts a process that has come, or that has ended and will not.
func (g *gate) count() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiting++; g.waiting == 2 {
		close(g.open)
	}
}

// Two jump servers deploy at the same moment, and each has seen nothing of the other when
// it updates the service: ECS's order decides. The one whose deployment was superseded
// leaves the other's alone and says so; of the other one everything is as if it had been
// alone, and the definition to go back to is what was there before both.
func TestOfTwoJumpServersThatUpdateTogetherECSsOrderDecides(t *testing.T) {
	for _, at := range []string{"TagResource", "RegisterTaskDefinition", "UpdateService"} {
		for _, second := range []string{"good", "broken"} {
			t.Run(at+" "+second, func(t *testing.T) { together(t, at, second) })
		}
	}
}

func together(t *testing.T, at, second string) {
	s := newScaffold(t, "good", "rolling")
	s.lab = labFor(t, `
clusters: [{name: prod, hosts: [{count: 4}]}]
images:
  - {repository: web, tags: ["1", good]}
  - {repository: web, tags: [broken], exit: 1, after: 2s}
services: [{name: s0, image: "web:1", desired: 2}]
`)
	g := &gate{operation: at, open: make(chan struct{})}
	type end struct {
		image string
		code  int
		out   string
	}
	ends := make([]end, 2)
	var wg sync.WaitGroup
	for n, image := range []string{"good", second} {
		wg.Go(func() {
			e := &executioner{when: func(operation string, nth int) bool { g.pass(operation, nth); return false }}
			ends[n].image = image
			ends[n].code, ends[n].out = s.run(e, t.TempDir(), "deploy", "--container-type", "s0", "--interval", "100ms", "--timeout", "24h", "--image-url", "web:"+image, "--max-failures", "1")
			g.count()
		})
	}
	wg.Wait()
	updates := s.carried("UpdateService", "s0", "task-definition")
	won := 0
	for n, e := range ends {
		other := ends[1-n]
		switch { // who has not updated the service has found the other before
		case e.code == 73 && (strings.Contains(e.out, "superseded") || strings.Contains(e.out, "another deployment of s0 ")):
		case e.code == map[string]int{"good": 0, "broken": 75}[e.image] && other.code == 73:
			won++
		default:
			t.Errorf("exit code %d with %s, the other %d\n%s--- the other\n%s", e.code, e.image, other.code, e.out, other.out)
		}
	}
	now := s.service("s0")
	j, ok := deployer.JournalOf(now)
	if !ok || !j.State.Ended() || j.Back != "s0:1" && j.Before.Definition != "s0:1" {
		t.Errorf("the journal says %+v\n%s---\n%s", j, ends[0].out, ends[1].out)
	}
	if won == 0 && updates > 0 {
		t.Errorf("%d updates, and nobody's deployment came to an end\n%s---\n%s", updates, ends[0].out, ends[1].out)
	}
	t.Logf("%d updates; %s: %d, %s: %d; the journal: %s", updates, ends[0].image, ends[0].code, ends[1].image, ends[1].code, j.State)
	// The next command knows what was before both.
	code, out := s.run(&executioner{}, t.TempDir(), "rollback", "--container-type", "s0", "--yes", "--interval", "100ms")
	if got := ecsstatus.ShortName(s.service("s0").Primary().TaskDefinition); code != 0 || got != "s0:1" {
		t.Errorf("rollback: exit code %d, the service has %s, want s0:1\n%s--- before\n%s---\n%s", code, got, out, ends[0].out, ends[1].out)
	}
}
