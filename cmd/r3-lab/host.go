package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"

	"jumpsuite/internal/cli"
	"jumpsuite/internal/ecrlogin"
	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/sudoer"
)

// The part of the demo in which a person without rights types sudo docker on a
// docker host of the lab: package sudoer plays the host, with the lab's Engine.

//go:embed demo-policy.yaml
var demoPolicy string

// exitRefused is docker run's code for what its daemon refuses; of its other
// verbs it is 1.
const exitRefused = 125

// prepareHost finds out whether a docker host can be played, and moves to where
// it can be: a mount namespace of its own. It returns twice: in there.
func (d *demo) prepareHost() error {
	if d.engine != lab.Docker {
		d.noHost = errors.New("there are no real containers here")
		return nil
	}
	if d.noHost = sudoer.Available(); d.noHost != nil {
		return nil
	}
	return sudoer.Enter()
}

// furnishHost plays the docker host that runs api now. What is owed afterwards is owed to close.
func (d *demo) furnishHost(ctx context.Context) (close func(), err error) {
	if d.noHost != nil {
		return func() {}, nil
	}
	if err := d.choose(ctx); err != nil {
		return nil, err
	}
	d.host, err = sudoer.Start(ctx, sudoer.Options{Policy: demoPolicy, Bin: d.bin, Engine: d.engineSocket(d.here)})
	if err != nil {
		return nil, err
	}
	return d.serveLogins(ctx)
}

// serveLogins starts r3-ecr, as systemd does on a docker host.
func (d *demo) serveLogins(ctx context.Context) (close func(), err error) {
	cmd := exec.CommandContext(ctx, d.program("r3-ecr"), "--listen", "unix://"+ecrlogin.Socket, "--account", d.lab.World.Account, "--region", d.lab.World.Region)
	cmd.Env = d.environment()
	if err := os.MkdirAll("/run/jumpsuite", 0o755); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start r3-ecr: %w", err)
	}
	return func() {
		cmd.Process.Kill()
		cmd.Wait()
	}, nil
}

// choose finds the host to be on: one that runs api, and has a container that
// the deployment stopped.
func (d *demo) choose(ctx context.Context) (err error) {
	for _, h := range d.hosts() {
		d.here = h.IP
		if d.runs, err = d.container(ctx, "running", 8); err != nil {
			continue
		}
		if d.stopped, err = d.container(ctx, "exited", 7); err == nil {
			return nil
		}
	}
	return err
}

// hostSteps are what the person does on a host of the production cluster, and
// then on one of the test cluster.
func (d *demo) hostSteps(ctx context.Context) []step {
	if d.noHost != nil {
		return nil
	}
	here := append(d.inProduction(d.runs.name, d.stopped.name), d.inTest(d.stopped.name)...)
	return append(here, d.onJumpServer(ctx, d.runs.id[:12])...)
}

// called is a container by what the Engine calls it.
type called struct{ id, name string }

// container is one of api's on the host where we are, in that state and of that revision.
func (d *demo) container(ctx context.Context, state string, revision int) (c called, err error) {
	filters := fmt.Sprintf(`{"status":[%q],"label":["com.amazonaws.ecs.task-definition-family=api","com.amazonaws.ecs.task-definition-version=%d"]}`, state, revision)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine/containers/json?all=1&filters="+url.QueryEscape(filters), nil)
	if err != nil {
		return c, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", d.engineSocket(d.here))
	}}}
	res, err := client.Do(req)
	if err != nil {
		return c, err
	}
	defer res.Body.Close()
	var found []struct {
		ID    string `json:"Id"`
		Names []string
	}
	if err := json.NewDecoder(res.Body).Decode(&found); err != nil {
		return c, fmt.Errorf("list the Engine's containers: %w", err)
	}
	if len(found) == 0 {
		return c, fmt.Errorf("no container of api:%d on %s is %s", revision, d.here, state)
	}
	return called{found[0].ID, strings.TrimPrefix(found[0].Names[0], "/")}, nil
}

// in makes the host one of an environment.
func (d *demo) in(environment string) func() error {
	return func() error { return d.host.Belong(environment) }
}

func (d *demo) inProduction(runs, stopped string) []step {
	image := d.lab.World.ECR() + "/api:1.1"
	refused := func(verb string) []string {
		return []string{`docker\.` + verb + ` is not allowed in prod \(rule floor\)`, `^hint: do it in a non-productive environment`}
	}
	return []step{
		{
			say:    "On a docker host of the production cluster, a person whose only right is one line of sudoers. The containers, by the docker CLI:",
			before: d.in("prod"), sudo: true,
			command: []string{"docker", "ps", "--format", `table {{.Names}}\t{{.Status}}`},
			see:     []string{`^ecs-api-8-api-[0-9a-f]+ +Up `},
		},
		{
			say: "The images.", sudo: true,
			command: []string{"docker", "images", "--format", `table {{.Repository}}\t{{.Tag}}\t{{.Size}}`},
			see:     []string{`/api +1\.1 `},
		},
		{
			say: "What a container has written.", sudo: true,
			command: []string{"docker", "logs", runs},
			see:     []string{`^api 1\.1 is listening on port 8080$`},
		},
		{
			say: "How it is configured. The value of a variable that looks like a secret is not shown.", sudo: true,
			command: []string{"docker", "inspect", "--format", "{{json .Config.Env}}", runs},
			see:     []string{`"DB_PASSWORD=REDACTED"`, `"LOG_LEVEL=info"`},
		},
		{
			say: "What it uses.", sudo: true,
			command: []string{"docker", "stats", "--no-stream", "--format", `table {{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}`, runs},
			see:     []string{`^ecs-api-8-api-`},
		},
		{
			say: "A shell in it, on a terminal. The session is recorded.", sudo: true,
			command: []string{"docker", "exec", "-it", runs, "sh"},
			types:   "hostname; exit 3\r", exit: 3,
			see: []string{`^[0-9a-f]{12}$`},
		},
		{
			say: "The other four verbs are for non-productive environments. The refusal names the rule, and says what to do.", sudo: true,
			command: []string{"docker", "run", "--rm", image, "true"},
			exit:    exitRefused, see: refused("run"),
		},
		{say: "Neither create,", sudo: true, command: []string{"docker", "create", image}, exit: 1, see: refused("create")},
		{say: "nor pull,", sudo: true, command: []string{"docker", "pull", image}, exit: 1, see: refused("pull")},
		{say: "nor start.", sudo: true, command: []string{"docker", "start", stopped}, exit: 1, see: refused("start")},
	}
}

func (d *demo) inTest(stopped string) []step {
	image := d.lab.World.ECR() + "/tools:1"
	return []step{
		{
			say:    "The same host as one of the test cluster. An image is pulled from a registry that asks for a password: the gate has it from r3-ecr, and nobody sees it.",
			before: d.in("test"), sudo: true,
			command: []string{"docker", "pull", image},
			see:     []string{`^Status: Downloaded newer image for .*/tools:1$`},
		},
		{
			say: "A container of the person's own.", sudo: true,
			command: []string{"docker", "run", "--rm", "--entrypoint", "sh", image, "-c", "echo I am $(id -un) in $(hostname)"},
			see:     []string{`^I am root in [0-9a-f]{12}$`},
		},
		{
			say: "But none that leads out of it.", sudo: true,
			command: []string{"docker", "run", "--rm", "--privileged", image, "true"},
			exit:    exitRefused, see: []string{`rule limits\.run\.privileged`},
		},
		{
			say: "And one that is made now and started later.", sudo: true,
			command: []string{"docker", "create", "--name", "later", "--entrypoint", "sh", image, "-c", "echo made before, started now"},
			see:     []string{`^[0-9a-f]{64}$`},
		},
		{say: "Started, with its output.", sudo: true, command: []string{"docker", "start", "-a", "later"}, see: []string{`^made before, started now$`}},
		{
			say: "A container that ECS stopped in the deployment, with its files as they were. It is started to look into it; the ECS agent stops it once more, and the gate starts it again.", sudo: true,
			command: []string{"docker", "start", stopped},
			see:     []string{`^` + stopped + `$`, `it was started again`},
		},
		{
			say: "So there is time to look.", sudo: true,
			command: []string{"docker", "exec", stopped, "sh", "-c", "echo this is $(cat /proc/1/comm), up again"},
			see:     []string{`up again$`},
		},
		{
			say:     "All of that is on record, what was refused, too. Root reads it:",
			command: []string{"r3-admin", "audit", "list"},
			see:     []string{`docker\.exec`, `docker\.run .*deny`, `docker\.start`},
		},
		{
			say:     "And proves that no line was altered or taken away since.",
			command: []string{"r3-admin", "audit", "verify"},
			see:     []string{`intact`},
		},
	}
}

// terminalSize is that of the terminals of the demo.
const terminalRows, terminalColumns = 24, 80

// promptTime is how long a shell may take to say that it is there.
const promptTime = 20 * time.Second

// onTerminal runs a command as a person does: on a terminal, on which something
// is typed when the prompt is there. What is shown goes to out.
func onTerminal(cmd *exec.Cmd, types string, out *screen) error {
	person, programs, err := sudoer.Terminal(terminalRows, terminalColumns)
	if err != nil {
		return err
	}
	defer person.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = programs, programs, programs
	cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
	err = cmd.Start()
	programs.Close()
	if err != nil {
		return err
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(out, person) // until the last program on it has ended, which is an error
	}()
	if !out.waitFor("# ", promptTime) {
		cmd.Process.Kill()
		return errors.Join(cli.Errorf(cli.ExitUnavailable, "", "%s shows no prompt", cmd.Args[0]), cmd.Wait())
	}
	if _, err := person.WriteString(types); err != nil {
		return err
	}
	err = cmd.Wait()
	<-read
	return err
}
