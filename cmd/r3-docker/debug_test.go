package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/dockerengine"
	labengine "jumpsuite/internal/lab/engine"
	"jumpsuite/internal/lab/sudoer"
)

// Where ECS and Docker meet: r3-container, called by the person, goes through this
// package's sudo docker to the hosts. The tasks are real containers here.

// sudoContainer is where sudo finds r3-container.
const sudoContainer = sudoer.Bin + "/sbin/r3-container"

const meetingWorld = `
clock: {speed: 60}
clusters:
  - {name: test, hosts: [{instance: ` + testHost + `, ip: 10.0.0.9}]}
  - {name: prod, hosts: [{instance: ` + prodHost + `, ip: 10.0.1.9}]}
images:
  - {repository: app, registry: registry.test, tags: ["1"]}
  - {repository: app, registry: registry.test, tags: [broken], exit: 3, after: 2s, log: [starting, "panic: no \e[31mconfiguration"]}
services:
  - name: web
    cluster: test
    containers: [{name: app, image: "registry.test/app:1", environment: {GREETING: "good day", DB_PASSWORD: "hunter2 & more"}}]
  - {name: web, cluster: prod, image: "registry.test/app:1"}
`

const meetingRules = `
  - {name: ship, effect: allow, principals: [group:r3developers], actions: [ecs.deploy, ecs.debug], environments: ["*"]}
`

// meeting is a jump server, hosts and their Engine, and the person's r3-container.
func meeting(t *testing.T) *far {
	t.Helper()
	f := jumpServerIn(t, meetingWorld, lab.Config{Engine: lab.Docker, StartDocker: func(ctx context.Context, p lab.Parts) (labengine.Engine, error) {
		return dockerengine.Start(ctx, dockerengine.Config{Clock: p.Clock, Images: p.Images, Registry: p.Registry, Registries: p.Registries, Login: p.Login, Log: p.Log})
	}})
	if err := os.Symlink("../r3-container", sudoContainer); err != nil && !os.IsExist(err) {
		t.Fatal(err)
	}
	credentials := "[default]\n"
	for _, v := range f.lab.Env() {
		if name, value, _ := strings.Cut(v, "="); name == "AWS_ACCESS_KEY_ID" || name == "AWS_SECRET_ACCESS_KEY" {
			credentials += strings.ToLower(name) + " = " + value + "\n"
		}
	}
	const file = "/etc/jumpsuite/aws/credentials"
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(credentials), 0o600); err != nil {
		t.Fatal(err)
	}
	f.allow(t, "", "")
	return f
}

// allow puts the policy into force with the rules of the meeting, and with something in
// it replaced.
func (f *far) allow(t *testing.T, old, new string) {
	t.Helper()
	f.policy(t)
	b, err := os.ReadFile(sudoer.Policy)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.SetPolicy(strings.ReplaceAll(string(b)+meetingRules, old, new)); err != nil {
		t.Fatal(err)
	}
}

func (f *far) container(ctx context.Context, args ...string) *exec.Cmd {
	return f.Command(ctx, append([]string{"/usr/bin/sudo", "-n", "r3-container"}, args...)...)
}

// r3 is sudo r3-container, without a terminal.
func (f *far) r3(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := f.container(ctx, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// containers are the names of all that the hosts' Engine has and ECS did not make.
func (f *far) containers(t *testing.T) (names []string) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", f.engine)
	}}}
	res, err := c.Get("http://engine/v1.41/containers/json?all=1")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var list []struct {
		Names  []string
		Labels map[string]string
	}
	if err := json.NewDecoder(res.Body).Decode(&list); err != nil {
		t.Fatal(err)
	}
	for _, c := range list {
		if c.Labels["com.amazonaws.ecs.task-arn"] == "" {
			names = append(names, c.Names...)
		}
	}
	return names
}

var failedTask = regexp.MustCompile(`log: task (\w+), container app, the last lines\n  \| starting\n  \| panic: no \\u001b\[31mconfiguration\n`)

func TestADeploymentThatFailsShowsTheLogThatIsOnTheHost(t *testing.T) {
	f := meeting(t)
	r := f.r3(t, "", "deploy", "--environment", "test", "--container-type", "web", "--image-url", "registry.test/app:broken", "--max-failures", "1", "--interval", "100ms")
	r.expect(t, "deploy", 75, "rolled back", "")
	found := failedTask.FindStringSubmatch(r.out)
	if found == nil {
		t.Fatalf("the log of the failed container is not shown:\n%s", r.out)
	}
	f.bothLogged(t)

	// Its entrypoint is what is broken: a copy of it has a shell, and the rest.
	r = f.r3(t, "echo $GREETING, $DB_PASSWORD; exit 4\n", "debug", found[1], "--environment", "test")
	r.expect(t, "debug of a task that has stopped", 4, "good day, hunter2 & more\n", "a copy of container app of task "+found[1]+" (web:2, STOPPED) on host 10.0.0.9, with sh in place of its entrypoint")
	if !strings.Contains(r.err, "image: registry.test/app@sha256:") || strings.Contains(r.err, "hunter2") {
		t.Errorf("said: %s", r.err)
	}
}

// bothLogged looks for the reading of the log in the jump server's log, by r3-container and
// by sudo docker, and in the host's.
func (f *far) bothLogged(t *testing.T) {
	t.Helper()
	count := func(path string) (n int) {
		for _, e := range events(t, path) {
			if e.Action == "docker.logs" && e.Kind != "close" {
				n++
			}
		}
		return n
	}
	if here, there := count("/var/log/jumpsuite/audit.log"), count(filepath.Join(f.audits[testHost], "audit.log")); here < 2 || there == 0 {
		t.Errorf("docker.logs is on record %d times at the jump server and %d times on the host", here, there)
	}
}

func TestAShellInACopyOfAContainer(t *testing.T) {
	f := meeting(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	s := on(t, f.Command(ctx, "sh", "-c", "ulimit -n 2000; exec sudo -n r3-container debug --environment test --container-type web"), true)
	s.sees("# ", 1)
	s.types("echo $GREETING and ${#DB_PASSWORD}; stty size\r")
	s.sees("good day and 14", 1)
	s.sees("24 80", 1)
	if n := len(f.containers(t)); n != 1 {
		t.Errorf("%d containers are there that ECS did not make, want the copy", n)
	}
	for process, line := range commandLines(t) {
		if strings.Contains(line, "hunter2") {
			t.Errorf("everybody sees the environment in a command line: %q", line)
		}
		// Where root may not raise limits, nobody has.
		if files := openFiles(process); isCLI(t, process, line) && files != "2000" {
			t.Errorf("the caller's process may open %s files, want his 2000", files)
		}
	}
	s.types("exit 7\r")
	s.ends(7)
	if s.raw() {
		t.Error("the terminal is left raw")
	}
	if left := f.containers(t); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
	found := 0
	for _, e := range events(t, "/var/log/jumpsuite/audit.log") {
		if e.Action == "ecs.debug" {
			found++
		}
	}
	if found == 0 {
		t.Error("ecs.debug is not on record")
	}
}

// commandLines are those of all processes, by their folders in /proc, as anybody can
// read them.
func commandLines(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	lines, clis := map[string]string{}, 0
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		process := filepath.Dir(file)
		lines[process] = string(b)
		if isCLI(t, process, string(b)) {
			clis++
		}
	}
	if clis != 1 {
		t.Errorf("%d processes are the docker CLI of the person, want 1: the test shows nothing", clis)
	}
	return lines
}

// isCLI reports whether a process is the person's docker CLI.
func isCLI(t *testing.T, process, line string) bool {
	t.Helper()
	info, err := os.Stat(process)
	if err != nil || !strings.HasPrefix(line, "docker\x00") || !sameFile(process+"/exe", sudoer.Bin+"/r3-docker-cli") {
		return false
	}
	return info.Sys().(*syscall.Stat_t).Uid == sudoer.UID
}

// openFiles is how many files a process may open.
func openFiles(process string) string {
	b, err := os.ReadFile(filepath.Join(process, "limits"))
	if err != nil {
		return "" // it has ended
	}
	_, after, _ := strings.Cut(string(b), "Max open files")
	return strings.Fields(after + " -")[0]
}

func TestACopyIsRefusedBeforeAnythingIsLookedUp(t *testing.T) {
	f := meeting(t)
	for _, tt := range []struct {
		name, old, new string // in the policy
		args           string
		code           int
		err            string
		calls          bool
	}{
		{"in production", "", "", "--environment prod --container-type web", 77, "docker.run is not allowed to r3sudoer in prod (rule floor)", false},
		{"without docker.run", "[docker.run, docker.create, docker.pull]", "[docker.create]", "--environment test --container-type web", 77, "docker.run is not allowed to r3sudoer in test (rule default)", false},
		{"without ecs.debug", "ecs.debug", "ecs.show", "--environment test --container-type web", 77, "ecs.debug is not allowed to r3sudoer in test (rule default)", false},
		{"an image that may not be run", "registry.test/*", "registry.test/other", "--environment test --container-type web", 77, "docker.run is not allowed to r3sudoer in test (rule default)", true},
		{"hosts that are not reached", ", reach: ssm", "", "--environment test --container-type web", 78, "hint: on 10.0.0.9: sudo docker run -it --rm --entrypoint sh registry.test/app@sha256:", true},
		{"no such container", "", "", "--environment test --container-type web --container nosuch", 66, `has no container "nosuch"`, true},
		{"no such task", "", "", "--environment test 0123456789abcdef0123456789abcdef", 66, "no task", true},
		{"no such program", "", "", "--environment test --container-type web --shell /no/such", 127, "/no/such", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.allow(t, tt.old, tt.new)
			f.lab.ResetCalls()
			f.r3(t, "", append([]string{"debug"}, strings.Fields(tt.args)...)...).expect(t, tt.args, tt.code, "", tt.err)
			if called := len(f.lab.Calls()) > 0; called != tt.calls {
				t.Errorf("AWS was called: %v, want %v", called, tt.calls)
			}
		})
	}
	if left := f.containers(t); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
}
