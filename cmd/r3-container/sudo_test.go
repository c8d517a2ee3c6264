package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"jumpsuite/internal/audit"
	"jumpsuite/internal/cli"
	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/world"
)

// jumpServer is this machine with an /etc, a /var/log and a /var/lib of its own, in which
// nobody may call r3-container through sudo.
type jumpServer struct {
	t                     *testing.T
	etc, log, lib, binary string
}

func newJumpServer(t *testing.T, l *lab.Lab) jumpServer {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes an /etc of its own")
	}
	for _, tool := range []string{"sudo", "setpriv", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	if out, err := exec.Command("unshare", "-m", "true").CombinedOutput(); err != nil {
		t.Skipf("needs a mount namespace: %s", out)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	j := jumpServer{t, filepath.Join(dir, "etc"), filepath.Join(dir, "log"), filepath.Join(dir, "lib"), filepath.Join(dir, "r3-container")}
	j.run("chmod", "755", dir, filepath.Dir(dir)) // nobody looks for the program, too
	j.run("cp", "-a", "/etc", j.etc)
	j.run("cp", self, j.binary)
	j.run("mkdir", "-p", "-m", "755", j.log, j.lib, j.etc+"/jumpsuite/aws")
	j.write("sudoers.d/test", fmt.Sprintf("nobody ALL=(root:root) NOPASSWD: %s\n", j.binary), 0o440)
	j.write("jumpsuite/policy.yaml", strings.ReplaceAll(sudoPolicy, "ENDPOINT", l.URL()), 0o644)
	credentials := "[default]\n"
	for _, v := range l.Env() {
		if name, value, _ := strings.Cut(v, "="); name == "AWS_ACCESS_KEY_ID" || name == "AWS_SECRET_ACCESS_KEY" {
			credentials += strings.ToLower(name) + " = " + value + "\n"
		}
	}
	j.write("jumpsuite/aws/credentials", credentials, 0o600)
	return j
}

func (j jumpServer) run(command ...string) {
	j.t.Helper()
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		j.t.Fatalf("%v: %v\n%s", command, err, out)
	}
}

func (j jumpServer) write(name, text string, mode os.FileMode) {
	j.t.Helper()
	path := filepath.Join(j.etc, name)
	if err := errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
		j.t.Fatal(err)
	}
}

// sudo calls r3-container as nobody, and returns its exit code and what it said.
func (j jumpServer) sudo(args ...string) (int, string) {
	return j.nobody(append([]string{"sudo", "-n", j.binary}, args...)...)
}

// nobody runs a command as nobody.
func (j jumpServer) nobody(command ...string) (int, string) {
	j.t.Helper()
	script := `mount --bind "$1" /etc && mount --bind "$2" /var/log && mount --bind "$3" /var/lib && shift 3 && exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"`
	c := exec.Command("unshare", append([]string{"-m", "sh", "-c", script, "sh", j.etc, j.log, j.lib}, command...)...)
	out, err := c.CombinedOutput()
	exit, failed := errors.AsType[*exec.ExitError](err)
	if err != nil && !failed {
		j.t.Fatal(err)
	}
	if failed {
		return exit.ExitCode(), string(out)
	}
	return 0, string(out)
}

// lines are the audit log's lines about people, one word for what each is, and
// the log itself must be intact.
func (j jumpServer) lines() (lines []audit.Event) {
	j.t.Helper()
	path := filepath.Join(j.log, "jumpsuite/audit.log")
	text, err := os.ReadFile(path)
	if err != nil {
		j.t.Fatal(err)
	}
	var v audit.Verifier
	if err := v.Read(path, strings.NewReader(string(text))); err != nil || len(v.Findings()) > 0 {
		j.t.Fatal(err, v.Findings())
	}
	for line := range strings.Lines(string(text)) {
		e, err := audit.ParseLine([]byte(strings.TrimSuffix(line, "\n")))
		if err != nil {
			j.t.Fatal(err)
		}
		if e.Principal.Name != "" {
			lines = append(lines, e)
		}
	}
	return lines
}

func labFor(t *testing.T, text string) *lab.Lab {
	t.Helper()
	w, err := world.Parse([]byte(text), "world")
	if err != nil {
		t.Fatal(err)
	}
	w.Clock.Speed = 300
	l, err := lab.Start(t.Context(), lab.Config{World: w})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func changing(l *lab.Lab) (operations []string) {
	for _, c := range l.Calls() {
		if c.Operation == "RegisterTaskDefinition" || c.Operation == "UpdateService" {
			operations = append(operations, c.Operation)
		}
	}
	return operations
}

const sudoWorld = `
clusters: [{name: prod, hosts: [{count: 2}]}]
images:
  - {repository: web, tags: ["1", "2"]}
  - {repository: web, tags: [crash], exit: 1, after: 2s}
services: [{name: web, image: "web:1"}, {name: hush, image: "web:1"}]
`

const sudoPolicy = `environments:
  - {name: prod, cluster: prod, region: eu-central-1, endpoint: "ENDPOINT"}
rules:
  - {name: shipping, effect: allow, principals: [user:nobody], actions: [ecs.deploy, ecs.show], environments: [prod]}
  - {name: no-nine, effect: deny, principals: [user:nobody], actions: [ecs.deploy], environments: [prod], images: ["123456789012.dkr.ecr.eu-central-1.amazonaws.com/*:9"]}
  - {name: not-hush, effect: deny, principals: [user:nobody], actions: [ecs.show, ecs.deploy], environments: [prod], container-types: [hush]}
`

// line is an audit line as the tests compare it.
func line(e audit.Event) string {
	return fmt.Sprintf("%s %s %s %s", e.Kind, e.Action, e.Verdict, e.Rule)
}

func TestThroughSudoADeploymentIsRecordedBeforeItIsMade(t *testing.T) {
	l := labFor(t, sudoWorld)
	j := newJumpServer(t, l)
	code, out := j.sudo("deploy", "--container-type", "web", "--image-url", "web:crash", "--interval", "100ms", "--max-failures", "1", "--strategy", "replacing", "--reason", "ticket 7")
	if code != cli.ExitRolledBack {
		t.Fatalf("exit code %d\n%s", code, out)
	}
	lines := j.lines()
	// The caller may not read logs: the end of theirs is no part of what a deployment shows.
	if refused := slices.IndexFunc(lines, func(e audit.Event) bool { return line(e) == "decision docker.logs deny default" }); refused < 0 || !strings.Contains(out, "docker.logs is not allowed to nobody in prod (rule default)") {
		t.Errorf("the log was read: %v\n%s", lines, out)
	}
	lines = slices.DeleteFunc(lines, func(e audit.Event) bool { return e.Action == "docker.logs" })
	want := []string{"decision", "open", "change TagResource:", "change RegisterTaskDefinition:", "change UpdateService:", "change UpdateService:", "change UpdateService:", "close rolled-back"}
	var got []string
	for _, e := range lines {
		if e.ID != lines[0].ID || e.Principal.Name != "nobody" || e.Action != "ecs.deploy" || e.Environment != "prod" || e.Reason != "ticket 7" ||
			e.Rule != "shipping" || e.Verdict != audit.Allow && e.Decides() || e.Resource.ContainerType != "web" || !strings.HasSuffix(e.Resource.Image, ".amazonaws.com/web:crash") {
			t.Errorf("line %+v", e)
		}
		first, _, _ := strings.Cut(e.Detail, " ")
		got = append(got, strings.TrimSpace(string(e.Kind)+" "+first))
	}
	if got[1] = "open"; !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q\n%s", got, want, out)
	}
	for n, detail := range map[int]string{1: "strategy replacing, 1 desired, roll-back to web:1", 2: "min=100 max=200", 4: "task-definition/web:2", 5: "web:1, since deployment ecs-svc/", 6: "minimumHealthyPercent 100 and maximumPercent 200", 7: "rolled-back ecs-svc/"} {
		if !strings.Contains(lines[n].Detail, detail) {
			t.Errorf("line %d has %q, want %q in it", n, lines[n].Detail, detail)
		}
	}
	if r := lines[7].Result; r.Exit != cli.ExitRolledBack || !strings.Contains(r.Error, "web:crash failed") {
		t.Errorf("result %+v", r)
	}
}

func TestThroughSudoARefusalIsRecordedAndChangesNothing(t *testing.T) {
	l := labFor(t, sudoWorld)
	j := newJumpServer(t, l)
	for _, args := range [][]string{
		{"deploy", "--container-type", "web", "--image-url", "web:9"},
		{"deploy", "--container-type", "web", "--image-url", "web:2", "--environment", "nosuch"},
		{"list"},
	} {
		if code, out := j.sudo(args...); code != cli.ExitNotAllowed {
			t.Errorf("%q: exit code %d\n%s", args, code, out)
		}
	}
	if code, out := j.sudo("show", "--container-type", "web"); code != 0 {
		t.Errorf("show: exit code %d\n%s", code, out)
	}
	if code, out := j.sudo("deploy", "--container-type", "web", "--image-url", "web:2", "--dry-run"); code != 0 {
		t.Errorf("dry run: exit code %d\n%s", code, out)
	}
	if code, out := j.sudo("show", "--container-type", "hus"); code != cli.ExitNotFound || strings.Contains(out, "hush") {
		t.Errorf("a name like one that is denied: exit code %d, and what is denied is suggested: %s", code, out)
	}
	var got []string
	for _, e := range j.lines() {
		got = append(got, line(e))
	}
	want := []string{"decision ecs.deploy deny no-nine", "decision ecs.deploy deny default", "decision ecs.list deny default", "decision ecs.show allow shipping", "decision ecs.deploy allow shipping", "decision ecs.show allow shipping"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if c := changing(l); len(c) > 0 {
		t.Errorf("called %q", c)
	}
}

func TestThroughSudoNothingIsDoneThatCannotBeRecorded(t *testing.T) {
	l := labFor(t, sudoWorld)
	j := newJumpServer(t, l)
	j.run("mkdir", j.log+"/jumpsuite")
	j.run("chmod", "777", j.log+"/jumpsuite")
	l.ResetCalls()
	code, out := j.sudo("deploy", "--container-type", "web", "--image-url", "web:2")
	if code != cli.ExitAudit || !strings.Contains(out, "write the audit log /var/log/jumpsuite/audit.log") {
		t.Errorf("exit code %d\n%s", code, out)
	}
	if c := l.Calls(); len(c) > 0 {
		t.Errorf("called %v", c)
	}
}

// Without a terminal sudo tells nobody that the reader has gone, and with a minute
// between two looks nothing is written that would find out.
func TestThroughSudoAReaderThatGoesAwayIsNoticed(t *testing.T) {
	l := labFor(t, strings.ReplaceAll(sudoWorld, `tags: ["1", "2"]`, `tags: ["1"]}
  - {repository: web, tags: [slow], pull: 600m`))
	j := newJumpServer(t, l)
	script := `{ sudo -n "$@"; echo "ended with $?" >&2; } | sed '/of 1 new tasks healthy/q'`
	_, out := j.nobody("timeout", "45", "sh", "-c", script, "sh", j.binary,
		"deploy", "--container-type", "web", "--image-url", "web:slow", "--interval", "1m", "--timeout", "100h")
	if !strings.Contains(out, "the reader of the output is gone; the deployment goes on in AWS: ecs-svc/") || !strings.Contains(out, "ended with 130\n") {
		t.Errorf("it says %s", out)
	}
}

func TestWithoutSudoItGoesThroughSudoWhereCredentialsAreRoots(t *testing.T) {
	l := labFor(t, sudoWorld)
	j := newJumpServer(t, l)
	j.write("jumpsuite/policy.yaml", strings.ReplaceAll("credentials: root\n"+sudoPolicy, "ENDPOINT", l.URL()), 0o644)
	if code, out := j.nobody(j.binary, "show", "--container-type", "web"); code != 0 || !strings.Contains(out, "web") {
		t.Errorf("show: exit code %d\n%s", code, out)
	}
	if code, out := j.nobody(j.binary, "list"); code != cli.ExitNotAllowed || !strings.Contains(out, "ecs.list") {
		t.Errorf("list, which the policy denies: exit code %d\n%s", code, out)
	}
	j.run("ln", "-s", j.binary, filepath.Join(filepath.Dir(j.binary), "r3"))
	r3 := filepath.Join(filepath.Dir(j.binary), "r3")
	j.write("sudoers.d/test", fmt.Sprintf("nobody ALL=(root:root) NOPASSWD: %s\n", r3), 0o440)
	if code, out := j.nobody(r3, "container", "show", "--container-type", "web"); code != 0 || !strings.Contains(out, "web") {
		t.Errorf("as r3: exit code %d\n%s", code, out)
	}
	if n := len(j.lines()); n != 3 {
		t.Errorf("%d lines in the log, want 3", n)
	}
}

func TestWithoutSudoItDoesNotGoRoundInCircles(t *testing.T) {
	j := newJumpServer(t, labFor(t, sudoWorld))
	j.write("jumpsuite/policy.yaml", "credentials: root\nenvironments: [{name: prod, cluster: prod, region: eu-central-1}]\nrules: []\n", 0o644)
	// This sudo runs everything as somebody who is not root either.
	j.write("sudoers.d/test", fmt.Sprintf("nobody ALL=(ALL:ALL) NOPASSWD: %s\nDefaults:nobody runas_default=daemon\n", j.binary), 0o440)
	code, out := j.nobody(j.binary, "list")
	if code != cli.ExitConfig || !strings.Contains(out, "credentials are root's") {
		t.Errorf("exit code %d\n%s", code, out)
	}
	if code, out := j.nobody(j.binary, "--help"); code != 0 || !strings.Contains(out, "usage: r3-container") {
		t.Errorf("help: exit code %d\n%s", code, out)
	}
}

const pickupPolicy = `environments:
  - {name: prod, cluster: prod, region: eu-central-1, endpoint: "ENDPOINT"}
rules:
  - {name: shipping, effect: allow, principals: [user:nobody], actions: [ecs.deploy], environments: [prod]}
  - {name: looking, effect: allow, principals: [user:nobody], actions: [ecs.wait, ecs.deployments], environments: [prod], container-types: [web]}
  - {name: returning, effect: allow, principals: [user:nobody], actions: [ecs.rollback], environments: [prod], container-types: [RETURNING]}
`

// To finish what another process has begun takes more than to follow it.
func TestThroughSudoAWaitFinishesOnlyWhatItMayRollBack(t *testing.T) {
	l := labFor(t, strings.Replace(sudoWorld, "services: [", "services: [{name: other, image: \"web:1\"}, ", 1)+"faults: [{operation: ListTasks, error: unavailable, skip: 2}]\n")
	j := newJumpServer(t, l)
	j.write("jumpsuite/policy.yaml", strings.NewReplacer("ENDPOINT", l.URL(), "RETURNING", "other").Replace(pickupPolicy), 0o644)
	if code, out := j.sudo("deploy", "--container-type", "web", "--image-url", "web:2", "--interval", "100ms", "--timeout", "2m", "--reason", "ticket 7"); code != cli.ExitUnavailable {
		t.Fatalf("exit code %d, want that it lost sight\n%s", code, out)
	}
	l.ClearFaults()
	code, out := j.sudo("deployments")
	if code != 0 || !strings.Contains(out, "nobody") || !strings.Contains(out, "ended") || !strings.Contains(out, "ticket 7") {
		t.Errorf("deployments: exit code %d\n%s", code, out)
	}
	before := len(changing(l))
	if code, out := j.sudo("wait", "--container-type", "web", "--interval", "100ms"); code != 0 && code != cli.ExitNotAllowed || len(changing(l)) != before {
		t.Errorf("wait without ecs.rollback: exit code %d, changed %q\n%s", code, changing(l)[before:], out)
	}
	j.write("jumpsuite/policy.yaml", "limits: {reason: required}\n"+strings.NewReplacer("ENDPOINT", l.URL(), "RETURNING", "web").Replace(pickupPolicy), 0o644)
	if code, out := j.sudo("wait", "--container-type", "web", "--interval", "100ms"); code != 0 || !strings.Contains(out, "picking up the deployment") {
		t.Errorf("wait: exit code %d\n%s", code, out)
	}
	before = len(changing(l))
	for _, no := range [][]string{nil, {"--reason", " "}, {"--dry-run"}} {
		if code, out := j.sudo(append([]string{"rollback", "--container-type", "web", "--yes", "--interval", "100ms"}, no...)...); code != cli.ExitNotAllowed || !strings.Contains(out, "(rule limits.reason): no reason is given: give --reason") || len(changing(l)) != before {
			t.Errorf("rollback %q without a reason: exit code %d\n%s", no, code, out)
		}
	}
	if code, out := j.sudo("rollback", "--container-type", "web", "--yes", "--interval", "100ms", "--reason", "ticket 8"); code != 0 {
		t.Errorf("rollback: exit code %d\n%s", code, out)
	}
	if code, out := j.sudo("rollback", "--container-type", "other", "--yes"); code != cli.ExitNotAllowed {
		t.Errorf("rollback of other: exit code %d\n%s", code, out)
	}
	var got []string
	for _, e := range j.lines() {
		if e.Action != "ecs.deploy" {
			first, _, _ := strings.Cut(e.Detail, ":")
			got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", e.Kind, e.Action, e.Rule, strings.Fields(first + " -")[0])))
		}
	}
	want := []string{
		"decision ecs.deployments looking -",
		"decision ecs.wait looking -", "decision ecs.rollback default -",
		"decision ecs.wait looking -", "decision ecs.rollback returning -", "open ecs.rollback returning cluster", "change ecs.rollback returning TagResource", "close ecs.rollback returning deployed",
		"decision ecs.rollback limits.reason -", "decision ecs.rollback limits.reason -", "decision ecs.rollback limits.reason -",
		"decision ecs.rollback returning -", "open ecs.rollback returning cluster", "change ecs.rollback returning TagResource", "change ecs.rollback returning UpdateService", "close ecs.rollback returning rolled-back",
		"decision ecs.rollback default -",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if _, err := os.Stat(filepath.Join(j.lib, "jumpsuite/deployments/123456789012.eu-central-1.prod/web")); err != nil {
		t.Errorf("root's copies of the journals: %v", err)
	}
}
