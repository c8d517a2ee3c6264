package dockerengine

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"jumpsuite/internal/lab/clock"
	"jumpsuite/internal/lab/engine"
	"jumpsuite/internal/lab/registry"
	"jumpsuite/internal/lab/world"
)

const ecr = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"

// images are those that the tests run, by what they do.
const images = `
images:
- {repository: web, tags: ["1"], log: [hello, world]}
- {repository: web, tags: ["2"]}
- {repository: slow, tags: ["1"], stop: 1m}
- {repository: late, tags: ["1"], http-after: 60s, healthy-after: 60s}
- {repository: sick, tags: ["1"], unhealthy: true, http: 503}
- {repository: deaf, tags: ["1"], http: -1}
- {repository: job, tags: ["1"], exit: 3, after: 10s}
- {repository: fat, tags: ["1"], oom: true}
- {repository: broken, tags: ["1"], start-error: "OCI runtime create failed"}
- {repository: outside, registry: registry.example.com, tags: ["1"]}
- {repository: library/hub, registry: docker.io, tags: ["1"]}
`

// lab is an engine with a registry, on a clock of 20 seconds a second.
type lab struct {
	*Engine
	t        testing.TB
	registry *registry.Registry
}

func start(t *testing.T, c Config) *lab {
	t.Helper()
	if err := Available(); err != nil {
		t.Skip(err)
	}
	t.Parallel()
	return startFor(t, c)
}

func startFor(t testing.TB, c Config) *lab {
	t.Helper()
	r := c.serve(t)
	e, err := Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return &lab{Engine: e, t: t, registry: r}
}

// serve gives a configuration its registry and its clock.
func (c *Config) serve(t testing.TB) *registry.Registry {
	t.Helper()
	w, err := world.Parse([]byte(images), "images")
	if err != nil {
		t.Fatal(err)
	}
	c.Clock = clock.New(20)
	r, err := registry.New(w, c.Clock)
	if err != nil {
		t.Fatal(err)
	}
	c.Images, c.Registry = r, r.Handler()
	c.Registries = []string{ecr, "registry.example.com"}
	return r
}

// launched is a task that was launched, and what was told about it.
type launched struct {
	engine.Task
	t    testing.TB
	told chan engine.Event
}

func (l *lab) launch(containers ...engine.Container) *launched {
	n := &launched{t: l.t, told: make(chan engine.Event, 100)}
	n.Task = engine.Task{
		ID: "0123456789abcdef", ARN: "arn:aws:ecs:eu-central-1:123456789012:task/main/0123456789abcdef",
		Family: "api", Revision: 7, Cluster: "main", Network: "bridge",
		Host:       engine.Host{ID: "i-1", IP: "10.0.0.1"},
		Containers: containers,
		Notify:     func(e engine.Event) { n.told <- e },
	}
	l.Launch(n.Task)
	return n
}

// web is a container of an image in the account's ECR.
func web(image string) engine.Container {
	return engine.Container{
		Name: "web", Image: ecr + "/" + image, Essential: true, CPU: 128, Memory: 64,
		Ports: []engine.Port{{Container: 80, Host: 32768, Protocol: "tcp"}, {Container: 8080, Host: 32769}},
	}
}

func (n *launched) next() engine.Event {
	n.t.Helper()
	select {
	case e := <-n.told:
		return e
	case <-time.After(30 * time.Second):
		n.t.Fatal("nothing more is told of the task")
		return engine.Event{}
	}
}

// expect reads events of these kinds, in this order, and returns the last.
func (n *launched) expect(kinds ...engine.Kind) (last engine.Event) {
	n.t.Helper()
	for i, want := range kinds {
		if last = n.next(); last.Kind != want {
			n.t.Fatalf("event %d is %+v; want kind %d", i, last, want)
		}
	}
	return last
}

func (n *launched) expectRunning() engine.Event {
	n.t.Helper()
	return n.expect(engine.PullStarted, engine.PullStopped, engine.Started)
}

func (n *launched) silent() {
	n.t.Helper()
	select {
	case e := <-n.told:
		n.t.Errorf("told %+v; want nothing more", e)
	case <-time.After(200 * time.Millisecond):
	}
}

func (l *lab) inspect(id string) container.InspectResponse {
	l.t.Helper()
	state, err := l.docker.ContainerInspect(l.t.Context(), id)
	if err != nil {
		l.t.Fatal(err)
	}
	return state
}

// eventually waits until what it says is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for range 600 {
		if so() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("never came true: %s", what)
}

func (l *lab) status(n *launched) int {
	l.t.Helper()
	status, err := l.Check(l.t.Context(), n.ID, "web", 80, "/health")
	if err != nil {
		return -1
	}
	return status
}

func TestATaskRunsAsTheAgentMakesIt(t *testing.T) {
	l := start(t, Config{})
	c := web("web:1")
	c.Environment = map[string]string{"STAGE": "test", "A": "it's"}
	c.Command = []string{"serve", "--all"}
	n := l.launch(c)
	started := n.expectRunning()

	state := l.inspect(started.RuntimeID)
	if digest, _, err := l.registry.Resolve(c.Image); err != nil || started.Digest != digest {
		t.Errorf("digest %s; the registry has %s, %v", started.Digest, digest, err)
	}
	if !regexp.MustCompile(`^/ecs-api-7-web-[0-9a-f]{20}$`).MatchString(state.Name) {
		t.Errorf("name %s is not as the agent makes them", state.Name)
	}
	want := map[string]string{
		"com.amazonaws.ecs.cluster":                 "main",
		"com.amazonaws.ecs.container-name":          "web",
		"com.amazonaws.ecs.task-arn":                n.ARN,
		"com.amazonaws.ecs.task-definition-family":  "api",
		"com.amazonaws.ecs.task-definition-version": "7",
		hostLabel: "i-1",
	}
	if got := state.Config.Labels; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("labels %v; want %v", got, want)
	}
	if state.Config.Image != c.Image {
		t.Errorf("image %s; want %s", state.Config.Image, c.Image)
	}
	if env := strings.Join(state.Config.Env, " "); !strings.Contains(env, "A=it's STAGE=test") {
		t.Errorf("environment %s", env)
	}
	if got := strings.Join(state.Config.Cmd, " "); got != "serve --all" {
		t.Errorf("command %s", got)
	}
	if state.HostConfig.Memory != 64<<20 || state.HostConfig.CPUShares != 128 {
		t.Errorf("memory %d, CPU shares %d; want 64 MiB, 128", state.HostConfig.Memory, state.HostConfig.CPUShares)
	}
	for _, port := range []int{80, 8080, 32768, 32769} {
		if status, err := l.Check(t.Context(), n.ID, "web", port, "health?x=1"); err != nil || status != http.StatusOK {
			t.Errorf("a check of port %d as soon as it is told to run: %d, %v", port, status, err)
		}
	}
	eventually(t, "it logs", func() bool { return strings.Contains(l.logs(started.RuntimeID), "hello\nworld\n") })
}

// logs are a container's, without the framing.
func (l *lab) logs(id string) string {
	l.t.Helper()
	r, err := l.docker.ContainerLogs(l.t.Context(), id, container.LogsOptions{ShowStdout: true, ShowStderr: true})
	if err != nil {
		l.t.Fatal(err)
	}
	defer r.Close()
	return demultiplex(l.t, r)
}

func TestImagesComeFromAllRegistries(t *testing.T) {
	l := start(t, Config{})
	digest, _, err := l.registry.Resolve(ecr + "/web:1")
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{
		ecr + "/web@" + digest, ecr + "/web:1@" + digest, "registry.example.com/outside:1", "hub:1", "docker.io/library/hub:1",
	} {
		c := web("web:1")
		c.Image = ref
		n := l.launch(c)
		started := n.expectRunning()
		if want, _, err := l.registry.Resolve(ref); err != nil || started.Digest != want {
			t.Errorf("%s: digest %s; want %s, %v", ref, started.Digest, want, err)
		}
		l.Remove(n.ID)
	}
}

func TestTheDigestThatECSResolvedWinsOverTheTag(t *testing.T) {
	l := start(t, Config{})
	one, _, err := l.registry.Resolve(ecr + "/web:1")
	if err != nil {
		t.Fatal(err)
	}
	c := web("web:2")
	c.Digest = one
	if started := l.launch(c).expectRunning(); started.Digest != one {
		t.Errorf("digest %s; want %s", started.Digest, one)
	}
}

func TestAStoppedTaskEndsWell(t *testing.T) {
	l := start(t, Config{})
	n := l.launch(web("web:1"))
	n.expectRunning()
	l.Stop(n.ID)
	exited := n.expect(engine.Exited)
	if exited.ExitCode == nil || *exited.ExitCode != 0 || exited.Reason != "" {
		t.Errorf("exited %+v; want code 0 and no reason", exited)
	}
	n.expect(engine.AllStopped)
	if status, err := l.Check(t.Context(), n.ID, "web", 80, "/"); err == nil {
		t.Errorf("a stopped container answers %d", status)
	}
	l.Stop(n.ID)
	n.silent()
}

func TestATaskThatDawdlesIsKilled(t *testing.T) {
	l := start(t, Config{})
	c := web("slow:1")
	c.StopTimeout = 2 * time.Second
	n := l.launch(c)
	n.expectRunning()
	l.Stop(n.ID)
	if exited := n.expect(engine.Exited); *exited.ExitCode != 137 {
		t.Errorf("exit code %d; want 137", *exited.ExitCode)
	}
	n.expect(engine.AllStopped)
}

func TestATaskThatIsStoppedWhileItStartsTellsItsEnd(t *testing.T) {
	l := start(t, Config{})
	n := l.launch(web("web:1"))
	l.Stop(n.ID)
	for n.next().Kind != engine.AllStopped {
	}
	n.silent()
}

func TestContainersEndAsTheirImagesSay(t *testing.T) {
	l := start(t, Config{})
	for _, tt := range []struct {
		image, reason string
		code          int
	}{
		{"job:1", "", 3},
		{"fat:1", "OutOfMemoryError: Container killed due to memory usage", 137},
	} {
		n := l.launch(web(tt.image))
		n.expectRunning()
		exited := n.expect(engine.Exited)
		if *exited.ExitCode != tt.code || exited.Reason != tt.reason {
			t.Errorf("%s: exit code %d, reason %q; want %d, %q", tt.image, *exited.ExitCode, exited.Reason, tt.code, tt.reason)
		}
		n.expect(engine.AllStopped)
	}
}

func TestFailuresAreInTheAgentsWords(t *testing.T) {
	l := start(t, Config{})
	for _, tt := range []struct{ image, reason string }{
		{"web:nosuch", "CannotPullContainerError: Error response from daemon: manifest for " + ecr + "/web:nosuch not found: manifest unknown"},
		{"broken:1", "CannotStartContainerError: Error response from daemon: OCI runtime create failed"},
	} {
		n := l.launch(web(tt.image))
		e := n.expect(engine.PullStarted)
		for e.Kind != engine.Failed {
			e = n.next()
		}
		if !strings.HasPrefix(e.Reason, tt.reason) || e.Container != "web" {
			t.Errorf("%s: %q of container %q; want %q of web", tt.image, e.Reason, e.Container, tt.reason)
		}
		n.expect(engine.AllStopped)
		n.silent()
	}
}

func TestDockersOwnRefusalIsPassedOn(t *testing.T) {
	l := start(t, Config{})
	c := web("web:1")
	c.Memory = 1 // less than Docker takes
	n := l.launch(c)
	failed := n.expect(engine.PullStarted, engine.PullStopped, engine.Failed)
	want := "CannotCreateContainerError: Error response from daemon: Minimum memory limit"
	if !strings.HasPrefix(failed.Reason, want) {
		t.Errorf("reason %q; want %q", failed.Reason, want)
	}
	n.expect(engine.AllStopped)
}

func TestAnEssentialContainerTakesTheOthersAlong(t *testing.T) {
	l := start(t, Config{})
	side := web("web:2")
	side.Name = "side"
	n := l.launch(web("web:1"), side)
	n.expect(engine.PullStarted, engine.PullStopped, engine.Started, engine.Started)
	l.Kill(n.ID, "web", 1)
	if first, second := n.expect(engine.Exited), n.expect(engine.Exited); first.Container != "web" || second.Container != "side" {
		t.Errorf("%s ended, then %s; want web, then side", first.Container, second.Container)
	}
	n.expect(engine.AllStopped)
}

func TestHealthIsDockersOwn(t *testing.T) {
	l := start(t, Config{})
	for _, tt := range []struct {
		image   string
		healthy bool
	}{{"web:1", true}, {"sick:1", false}, {"late:1", true}} {
		c := web(tt.image)
		c.Health = &world.Health{Interval: world.Duration(10 * time.Second), StartPeriod: world.Duration(2 * time.Minute)}
		if tt.image == "sick:1" {
			c.Health.StartPeriod = 0
		}
		n := l.launch(c)
		n.expectRunning()
		if h := n.expect(engine.Health); h.Healthy != tt.healthy {
			t.Errorf("%s: healthy is %v; want %v", tt.image, h.Healthy, tt.healthy)
		}
		l.Remove(n.ID)
	}
}

func TestAContainerAnswersAsItsImageSays(t *testing.T) {
	l := start(t, Config{})
	for _, tt := range []struct {
		image string
		want  int
	}{{"sick:1", 503}, {"deaf:1", -1}} {
		n := l.launch(web(tt.image))
		n.expectRunning()
		eventually(t, tt.image+" answers as it should", func() bool { return l.status(n) == tt.want })
		l.Remove(n.ID)
	}
}

func TestAnOverrideChangesWhatARunningContainerAnswers(t *testing.T) {
	l := start(t, Config{})
	c := web("web:1")
	c.Health = &world.Health{Interval: world.Duration(10 * time.Second)}
	n := l.launch(c)
	n.expectRunning()
	n.expect(engine.Health)
	unhealthy, teapot, none := false, 418, -1
	l.Override(n.ID, engine.Override{HTTP: &teapot, Healthy: &unhealthy})
	eventually(t, "it answers 418", func() bool { return l.status(n) == 418 })
	if h := n.expect(engine.Health); h.Healthy {
		t.Error("it is healthy; want unhealthy")
	}
	l.Override(n.ID, engine.Override{HTTP: &none})
	eventually(t, "it does not answer", func() bool { return l.status(n) == -1 })
}

func TestKillEndsAContainerWithACode(t *testing.T) {
	l := start(t, Config{})
	n := l.launch(web("web:1"))
	n.expectRunning()
	l.Kill(n.ID, "web", 42)
	if exited := n.expect(engine.Exited); *exited.ExitCode != 42 {
		t.Errorf("exit code %d; want 42", *exited.ExitCode)
	}
	n.expect(engine.AllStopped)
}

func TestALostHostTellsNothing(t *testing.T) {
	l := start(t, Config{})
	n := l.launch(web("web:1"))
	id := n.expectRunning().RuntimeID
	l.Lose("i-other")
	n.silent()
	l.Lose("i-1")
	eventually(t, "its container is gone", func() bool {
		_, err := l.docker.ContainerInspect(t.Context(), id)
		return err != nil
	})
	n.silent()
	if _, err := l.Check(t.Context(), n.ID, "web", 80, "/"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a check of a container on a lost host: %v; want that it gets no answer in time", err)
	}
}

func TestAStoppedContainerThatComesBackIsStoppedOnce(t *testing.T) {
	l := start(t, Config{})
	n := l.launch(web("web:1"))
	id := n.expectRunning().RuntimeID
	l.Stop(n.ID)
	n.expect(engine.Exited, engine.AllStopped)

	startByHand := func() {
		t.Helper()
		if err := l.docker.ContainerStart(t.Context(), id, container.StartOptions{}); err != nil {
			t.Fatal(err)
		}
		n.expect(engine.Reappeared)
	}
	startByHand()
	eventually(t, "the agent stops it", func() bool { return !l.inspect(id).State.Running })
	startByHand()
	n.silent()
	if !l.inspect(id).State.Running {
		t.Error("the agent stopped it a second time")
	}
}

func TestStoppedContainersAreCleanedUpAfterAWhile(t *testing.T) {
	l := start(t, Config{Cleanup: time.Minute})
	n := l.launch(web("web:1"))
	id := n.expectRunning().RuntimeID
	l.Stop(n.ID)
	n.expect(engine.Exited, engine.AllStopped)
	if l.inspect(id).State.Running {
		t.Error("a stopped container runs")
	}
	eventually(t, "the agent removes it", func() bool {
		_, err := l.docker.ContainerInspect(t.Context(), id)
		return err != nil
	})
	n.silent()
}

func TestAHostStartsACachedImageThatTheRegistryLost(t *testing.T) {
	l := start(t, Config{})
	task := engine.Task{
		ID: "cached", Family: "api", Revision: 1, Host: engine.Host{ID: "i-1", Cached: map[string]string{ecr + "/gone:1": "sha256:abc"}},
		Containers: []engine.Container{web("gone:1")},
	}
	n := &launched{t: t, told: make(chan engine.Event, 10), Task: task}
	task.Notify = func(e engine.Event) { n.told <- e }
	l.Launch(task)
	if started := n.expectRunning(); started.Digest != "sha256:abc" {
		t.Errorf("digest %s; want the cached one", started.Digest)
	}
	eventually(t, "it answers", func() bool { return l.status(n) == 200 })
}

func TestTheContainersOfAHostAreToldApart(t *testing.T) {
	l := start(t, Config{})
	n := l.launch(web("web:1"))
	n.expectRunning()
	for host, want := range map[string]int{"i-1": 1, "i-2": 0, "": 1} {
		list, err := l.Containers(context.Background(), host)
		if err != nil || len(list) != want {
			t.Errorf("host %q has %d containers, %v; want %d", host, len(list), err, want)
		}
	}
}

func BenchmarkLaunchAndRemove(b *testing.B) {
	if err := Available(); err != nil {
		b.Skip(err)
	}
	l := startFor(b, Config{})
	for b.Loop() {
		n := l.launch(web("web:1"))
		n.expectRunning()
		l.Remove(n.ID)
	}
}

func TestATaskThatTheWorldBeginsWithIsHealthyFromTheStart(t *testing.T) {
	l := start(t, Config{})
	c := web("web:1")
	c.Health = &world.Health{Interval: world.Duration(time.Hour)}
	n := &launched{t: t, told: make(chan engine.Event, 10), Task: engine.Task{
		ID: "old", Family: "api", Revision: 1, Host: engine.Host{ID: "i-1"}, Containers: []engine.Container{c}, Running: true,
	}}
	n.Notify = func(e engine.Event) { n.told <- e }
	l.Launch(n.Task)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if status, err := l.Check(ctx, n.ID, "web", 80, "/"); err != nil || status != http.StatusOK {
		t.Errorf("its first check: %d, %v; want 200, however early", status, err)
	}
	n.expectRunning()
	if h := n.expect(engine.Health); !h.Healthy {
		t.Error("it is unhealthy; want healthy")
	}
}
