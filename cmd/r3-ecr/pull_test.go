package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"jumpsuite/internal/ecrlogin"
	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/dockerengine"
	"jumpsuite/internal/lab/labtest"
	"jumpsuite/internal/lab/world"
	"jumpsuite/internal/scripttest"
)

// A pull as it is on a docker host: a caller without any login, the gate, a
// real Engine, r3-ecr as a user of its own, and a registry that asks.

// The users. The person has to be one that the system knows.
const (
	person = 65534 // nobody
	ecrUID = 54245
)

const pullWorld = `
registry-login: true
clusters: [{name: test, hosts: [{}]}]
images:
  - {repository: web, tags: ["1"]}
  - {repository: web, tags: ["2"]}
  - {repository: job, tags: ["1"], exit: 0}
  - {repository: secret, tags: ["1"]}
  - {repository: task, tags: ["1"]}
  - {repository: app, registry: registry.test, tags: ["1"]}
services: [{name: task, image: "task:1", fresh: true, desired: 1}]
`

const pullPolicy = `
environments:
  - {name: test, cluster: test, region: eu-central-1, account: "123456789012", production: false}
rules:
  - name: look
    effect: allow
    principals: [user:nobody]
    actions: [docker.version, docker.ps, docker.images, docker.inspect, docker.logs]
    environments: [test]
  - name: hands
    effect: allow
    principals: [user:nobody]
    actions: [docker.pull, docker.run, docker.create]
    environments: [test]
    images:
      - 123456789012.dkr.ecr.eu-central-1.amazonaws.com/web:*
      - 123456789012.dkr.ecr.eu-central-1.amazonaws.com/job:*
      - 999999999999.dkr.ecr.eu-central-1.amazonaws.com/web:*
      - registry.test/*
`

// host is a docker host that is played.
type host struct {
	t      *testing.T
	lab    *lab.Lab
	engine string // socket
	dir    string
	bin    string
	said   *labtest.Output // by the gate, by r3-ecr and by every docker
}

func newHost(t *testing.T) *host {
	t.Helper()
	if testing.Short() {
		t.Skip("no Docker Engine is started with -short")
	}
	if err := scripttest.DockerAvailable(); err != nil {
		t.Skipf("no Docker Engine: %v", err)
	}
	w, err := world.Parse([]byte(pullWorld), "world")
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.Start(t.Context(), lab.Config{World: w, Engine: lab.Docker, StartDocker: scripttest.StartDocker})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &host{t: t, lab: l, engine: strings.TrimPrefix(l.Engine.(*dockerengine.Engine).Host(), "unix://"), said: &labtest.Output{}}
}

// furnish makes the folders, as their owners need them, and the commands.
func (h *host) furnish() {
	h.t.Helper()
	dir, err := os.MkdirTemp("", "r3-ecr")
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { os.RemoveAll(dir) })
	h.dir, h.bin = dir, filepath.Join(dir, "bin")
	err = errors.Join(
		os.Chmod(dir, 0o755),
		os.WriteFile(h.path("policy.yaml"), []byte(pullPolicy), 0o644),
		os.Mkdir(h.path("leases"), 0o700), os.Mkdir(h.path("audit"), 0o700),
		os.Mkdir(h.path("ecr"), 0o755), os.Chown(h.path("ecr"), ecrUID, ecrUID),
		os.Mkdir(h.path("home"), 0o755), os.Chown(h.path("home"), person, person),
	)
	if err != nil {
		h.t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", h.bin+"/", "../r3-dockerproxy", ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		h.t.Fatalf("build: %v\n%s", err, out)
	}
}

func (h *host) path(name string) string { return filepath.Join(h.dir, name) }

func (h *host) asker() ecrlogin.Asker { return ecrlogin.Asker{Socket: h.path("ecr/s")} }

// run starts a command until the test ends, and waits until it is ready.
func (h *host) run(uid int, env []string, name string, args ...string) {
	h.t.Helper()
	ready := strings.Count(h.said.String(), "msg=ready")
	cmd := exec.Command(filepath.Join(h.bin, name), args...)
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, env...)
	cmd.Stdout, cmd.Stderr = h.said, h.said
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { cmd.Process.Signal(syscall.SIGTERM); cmd.Wait() })
	labtest.Await(h.t, name+" is ready, and not: "+h.said.String(), func() bool { return strings.Count(h.said.String(), "msg=ready") > ready })
}

func (h *host) runGate() {
	h.run(0, nil, "r3-dockerproxy", "--policy", h.path("policy.yaml"), "--environment", "test", "--listen", "unix://"+h.path("docker.sock"),
		"--engine", "unix://"+h.engine, "--leases", h.path("leases"), "--audit", h.path("audit"), "--ecr", "unix://"+h.path("ecr/s"))
}

func (h *host) runECR() {
	h.run(ecrUID, h.lab.Env(), "r3-ecr", "--policy", h.path("policy.yaml"), "--listen", "unix://"+h.path("ecr/s"))
}

// docker runs a docker CLI as the person, through the gate.
func (h *host) docker(cli string, code int, want string, args ...string) string {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, cli, args...)
	cmd.Env = []string{"DOCKER_HOST=unix://" + h.path("docker.sock"), "HOME=" + h.path("home"), "DOCKER_CONFIG=" + h.path("home"), "PATH=/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: person, Gid: person}}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		h.t.Fatalf("docker %s: %v", strings.Join(args, " "), err)
	}
	h.said.Write(out.Bytes())
	if got := cmd.ProcessState.ExitCode(); got != code || !strings.Contains(out.String(), want) {
		h.t.Errorf("docker %s: got exit %d and %q, want %d and %q", strings.Join(args, " "), got, out.String(), code, want)
	}
	return out.String()
}

// past asks the Engine past the gate.
func (h *host) past(args ...string) string {
	h.t.Helper()
	out, err := exec.Command("docker", append([]string{"-H", "unix://" + h.engine}, args...)...).CombinedOutput()
	if err != nil {
		h.t.Errorf("docker %s past the gate: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func dockerCLIs(t *testing.T) (found []string) {
	for _, path := range []string{"/usr/bin/docker", "/usr/local/bin/docker"} {
		if _, err := os.Stat(path); err == nil {
			found = append(found, path)
		}
	}
	if len(found) == 0 {
		t.Skip("no docker CLI is installed")
	}
	return found
}

func TestAPullWithoutALoginOfTheCallers(t *testing.T) {
	clis := dockerCLIs(t)
	h := newHost(t)
	h.furnish()
	h.runGate()
	const foreign = "999999999999.dkr.ecr.eu-central-1.amazonaws.com"
	web := ours.Host() + "/web:"
	for _, cli := range clis {
		out := h.docker(cli, 1, "no basic auth credentials", "pull", web+"1")
		for _, hint := range []string{
			"hint: there is no login for " + ours.Host() + ": r3-ecr is not running (" + h.path("ecr/s") + ")",
			"hint: an administrator starts it: systemctl enable --now r3-ecr.socket",
		} {
			if strings.Count(out, hint) != 1 {
				t.Errorf("without r3-ecr: got %q, want once %q", out, hint)
			}
		}
		h.docker(cli, 0, "registry.test/app:1", "pull", "registry.test/app:1")
	}
	if out := h.past("images"); strings.Contains(out, "/web") {
		t.Errorf("control, without a login: something was pulled: %s", out)
	}
	h.runECR()
	for i, cli := range clis {
		h.docker(cli, 0, web+"1", "-D", "pull", web+"1")
		h.docker(cli, 0, "", "-D", "run", "--rm", ours.Host()+"/job:1")
		id := strings.Fields(h.docker(cli, 0, "", "-D", "create", "--name", fmt.Sprint("made", i), web+"2"))
		h.docker(cli, 0, web+"2", "-D", "inspect", id[len(id)-1])
		h.docker(cli, 0, ours.Host()+"/web", "inspect", web+"1")
		h.docker(cli, 1, "docker.pull is not allowed in test (rule default)", "pull", ours.Host()+"/secret:1")
		h.docker(cli, 125, "is not allowed in test", "run", ours.Host()+"/secret:1")
		h.docker(cli, 1, "r3-ecr is not configured for account 999999999999", "pull", foreign+"/web:1")
		h.docker(cli, 0, "registry.test/app:1", "pull", "registry.test/app:1")
		h.past("rm", "-f", fmt.Sprint("made", i))
		if i < len(clis)-1 { // so that the next one has to pull as well
			h.past("rmi", "-f", web+"1", web+"2", ours.Host()+"/job:1")
		}
	}
	if out := h.past("images"); strings.Contains(out, "/secret") || !strings.Contains(out, "/web") {
		t.Errorf("the Engine has: %s", out)
	}
	h.checkSecrecy()
}

// checkSecrecy looks for the login wherever somebody could look.
func (h *host) checkSecrecy() {
	h.t.Helper()
	l, err := h.asker().Login(h.t.Context(), ours)
	if err != nil {
		h.t.Fatal(err)
	}
	auth, err := h.asker().Credentials(h.t.Context(), ours.Host()+"/web:1")
	if err != nil {
		h.t.Fatal(err)
	}
	if n := calls(h.lab); n != 1 {
		h.t.Errorf("AWS was asked %d times, so that this login is not the one that was used", n)
	}
	places := map[string]string{
		"what the commands said": h.said.String(),
		"images past the gate":   h.past("inspect", ours.Host()+"/web:1", ours.Host()+"/web:2"),
		"info past the gate":     h.past("info"),
	}
	h.addFiles(places)
	basic := base64.StdEncoding.EncodeToString([]byte(l.User + ":" + string(l.Password)))
	for where, text := range places {
		for _, secret := range []string{string(l.Password), auth, basic, string(l.Password)[8:40], auth[40:80]} {
			if strings.Contains(text, secret) {
				h.t.Errorf("%s: the login is in it", where)
			}
		}
	}
	if log := places["audit/audit.log"]; strings.Count(log, `"docker.pull"`) < 6 || !strings.Contains(log, "/web:1") {
		h.t.Errorf("control, the audit log has no pulls: %s", log)
	}
}

// addFiles adds the files of the host, but for the commands.
func (h *host) addFiles(places map[string]string) {
	h.t.Helper()
	err := filepath.WalkDir(h.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || filepath.Dir(path) == h.bin {
			return err
		}
		text, err := os.ReadFile(path)
		name, _ := filepath.Rel(h.dir, path)
		places[name] = string(text)
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// The lab's ECS agent has a login, too.
func TestTheLabsOwnTasksArePulledFromARegistryThatAsks(t *testing.T) {
	dockerCLIs(t)
	h := newHost(t)
	labtest.Await(t, "the task runs", func() bool { return strings.Contains(h.past("ps"), "/task") })
	if out := h.past("images", "--digests"); !strings.Contains(out, ours.Host()+"/task") {
		t.Errorf("its image was not pulled: %s", out)
	}
}
