package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"jumpsuite/internal/cli"
	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/dockerengine"
	"jumpsuite/internal/lab/engine"
	"jumpsuite/internal/lab/sudoer"
	"jumpsuite/internal/lab/world"
)

//go:embed demo.yaml
var demoWorld []byte

// step is one command of the demo and what is to be seen.
type step struct {
	say     string   // one sentence, printed before the command
	command []string // a program in the demo's directory, and its arguments
	exit    int
	see     []string // patterns that have to match a line of what it prints
	needs   string   // lab.Docker: only with real containers

	sudo   bool         // through sudo, by a person without rights, on a docker host
	types  string       // typed on a terminal when the prompt is there
	before func() error // done before it
}

// clusterSteps are what is done from a jump server. A line that begins with "$"
// in what the demo prints is one of these, or of hostSteps.
func (d *demo) clusterSteps() []step {
	image := func(tag string) string { return d.lab.World.ECR() + "/api:" + tag }
	return []step{
		{
			say:     "The docker hosts of the cluster, what is free on them, and their containers.",
			command: []string{"r3-container", "list"},
			see: []string{
				`^host: 10\.12\.57\.129 \| CPU \(free/max\): \d+/1024 \| memory \(free/max\): \d+/2000$`,
				`^host: 10\.12\.57\.130 `, `^api .*/api:1\.0 .*RUNNING`, `^worker .*/worker:3\.4 .*RUNNING`,
			},
		},
		{
			say:     "Those of the first host as its Docker Engine sees them: they are real ones, made as the ECS agent makes them.",
			command: d.docker("ps", "--format", `table {{.ID}}\t{{.Names}}\t{{.Status}}`),
			see:     []string{`^[0-9a-f]{12} +ecs-api-7-api-[0-9a-f]+ +Up `},
			needs:   lab.Docker,
		},
		{
			say:     "The service behind container type api: ACTIVE, two tasks wanted, two running, one deployment.",
			command: []string{"show-ecs-service-status", "-s", "api"},
			see:     []string{`"status": "ACTIVE"`, `"desired": 2`, `"running": 2`, `"status": "PRIMARY"`},
		},
		{
			say:     "A new image. Tasks with it start, become healthy in the load balancer, and the old ones go: never fewer than one, never more than three.",
			command: d.deploy(image("1.1")),
			see:     []string{`began$`, `2 of 2 new tasks healthy`, `deployed: api runs .*/api:1\.1 `},
		},
		{
			say:     "Both containers run the new image now.",
			command: []string{"r3-container", "show", "--container-type", "api", "--image"},
			see:     []string{`^api +\S+/api:1\.1 +sha256:[0-9a-f]{64} +2$`},
		},
		{
			say:     "A broken image: its program ends with an error. The deployment sees its tasks fail, and puts the service back to the task definition that it had; exit code 75.",
			command: d.deploy(image("1.2")),
			exit:    cli.ExitRolledBack,
			see:     []string{`stopped: task \w+: .*container api exited with 1 `, `rolled back to api:8`},
		},
		{
			say:     "So the image before is still the one that runs.",
			command: []string{"r3-container", "show", "--container-type", "api", "--image"},
			see:     []string{`^api +\S+/api:1\.1 +sha256:[0-9a-f]{64} +2$`},
		},
		{
			say:     "What ECS says of all that: its events, the newest last.",
			command: []string{"r3-container", "show", "--container-type", "api", "--events"},
			see:     []string{`has started`, `has reached a steady state`},
		},
		{
			say:     "An image that is not there is found out before anything is changed; exit code 66.",
			command: d.deploy(image("9.9")),
			exit:    cli.ExitNotFound,
			see:     []string{`no image api:9\.9 in repository api$`, `^hint: .*\b1\.1\b`},
		},
		{
			say:     "A container type that is not there: the nearest name is told; exit code 66.",
			command: []string{"show-ecs-service-status", "-s", "aip"},
			exit:    cli.ExitNotFound,
			see:     []string{`^hint: .*\bapi\b`},
		},
	}
}

// deploy is the command that deploys an image as container type api. It looks
// often, since the lab's clock is fast.
func (d *demo) deploy(image string) []string {
	return []string{"r3-container", "deploy", "--container-type", "api", "--image-url", image, "--interval", "200ms"}
}

// docker is a docker command for the Docker Engine of the first host.
func (d *demo) docker(args ...string) []string {
	return append([]string{"docker", "--host", "unix://" + d.engineSocket(d.hosts()[0].IP)}, args...)
}

// hosts are those of the only cluster.
func (d *demo) hosts() []world.Host { return d.lab.World.Clusters[0].Hosts }

// engineSocket is where the Docker Engine of a host is; with simulated tasks it has none.
func (d *demo) engineSocket(address string) string {
	fleet, ok := d.lab.Engine.(*dockerengine.Fleet)
	if !ok {
		return ""
	}
	return strings.TrimPrefix(fleet.On(address).Host(), "unix://")
}

func demoCommand(stdio cli.Stdio) *urfave.Command {
	return &urfave.Command{
		Name:  "demo",
		Usage: "Show what the commands do, in a lab, and check it; a minute, no questions",
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "engine", Value: "auto", Usage: "`NAME`: sim, docker or auto"},
			&urfave.StringFlag{Name: "bin", Usage: "`DIRECTORY` with the commands (default: where r3-lab is)"},
		},
		Action: func(c *urfave.Context) error {
			d := &demo{stdio: stdio, bin: c.String("bin"), engine: c.String("engine")}
			return d.run(c.Context)
		},
	}
}

// demo is a demo that runs.
type demo struct {
	stdio  cli.Stdio
	bin    string
	engine string
	lab    *lab.Lab
	host   *sudoer.Host
	noHost error // why no docker host is played
	// The host that is played, by its private address, and two of its containers.
	here          string
	runs, stopped called
	state         string   // folder: the deployer's state is this demo's own
	behind        []func() // end what was started for the jump server
	done          int      // steps
}

func (d *demo) run(ctx context.Context) (err error) {
	if err := d.findBin(); err != nil {
		return err
	}
	if d.engine, err = chooseEngine(d.engine, d.stdio.Out); err != nil {
		return err
	}
	if err := d.prepareHost(); err != nil {
		return err
	}
	if d.state, err = os.MkdirTemp("", "r3-lab-state-"); err != nil {
		return err
	}
	defer os.RemoveAll(d.state)
	began := time.Now()
	if err := d.start(ctx); err != nil {
		return fmt.Errorf("start the lab: %w", err)
	}
	defer d.lab.Close()
	fmt.Fprintf(d.stdio.Out, "A lab plays AWS at %s, %s; its time is %v times as fast as ours.\n",
		d.lab.URL(), d.engineSays(), d.lab.World.Clock.Speed)
	if err := d.show(ctx); err != nil {
		return err
	}
	fmt.Fprintf(d.stdio.Out, "\n%d commands did what they should, in %v.\n", d.done, time.Since(began).Round(100*time.Millisecond))
	if d.noHost != nil {
		fmt.Fprintf(d.stdio.Out, "Left out: sudo docker on a docker host, because %v.\n", d.noHost)
	}
	return d.lab.Close()
}

// show goes through the steps.
func (d *demo) show(ctx context.Context) error {
	if err := d.steps(ctx, d.clusterSteps()); err != nil {
		return err
	}
	closeHost, err := d.furnishHost(ctx)
	if err != nil {
		return err
	}
	defer closeHost()
	defer d.endBehind()
	return d.steps(ctx, d.hostSteps(ctx))
}

func (d *demo) steps(ctx context.Context, list []step) error {
	for _, s := range list {
		if !d.can(s) {
			continue
		}
		d.done++
		if err := d.step(ctx, d.done, s); err != nil {
			return err
		}
	}
	return nil
}

// findBin finds the directory with the other commands: they are built together.
func (d *demo) findBin() error {
	if d.bin == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		d.bin = filepath.Dir(self)
	}
	for _, name := range []string{"r3-container", "show-ecs-service-status", "r3-docker", "r3-docker-cli", "r3-ecr", "r3-admin", "r3-ssm", "r3-dockerproxy"} {
		if _, err := os.Stat(filepath.Join(d.bin, name)); err != nil {
			return cli.Errorf(cli.ExitConfig, "build them: make build", "the demo needs the other commands: %w", err)
		}
	}
	return nil
}

func (d *demo) start(ctx context.Context) (err error) {
	w, err := world.Parse(demoWorld, "demo.yaml")
	if err != nil {
		return err
	}
	d.lab, err = lab.Start(ctx, lab.Config{World: w, Engine: d.engine, StartDocker: startFleet, Log: slog.New(slog.NewTextHandler(d.stdio.Err, nil))})
	return err
}

// startFleet starts a Docker Engine for each host.
func startFleet(ctx context.Context, p lab.Parts) (engine.Engine, error) {
	var addresses []string
	for _, h := range p.World.Clusters[0].Hosts {
		addresses = append(addresses, h.IP)
	}
	return dockerengine.StartFleet(ctx, dockerConfig(p), addresses)
}

func (d *demo) engineSays() string {
	if d.engine == lab.Docker {
		return "with real containers on a private Docker Engine for each host"
	}
	return "with simulated tasks"
}

// can says whether a step can be made here.
func (d *demo) can(s step) bool {
	if s.needs == "" {
		return true
	}
	_, err := exec.LookPath(s.command[0])
	return s.needs == d.engine && err == nil
}

// step says what comes, runs it, and checks what came.
func (d *demo) step(ctx context.Context, n int, s step) error {
	if s.before != nil {
		if err := s.before(); err != nil {
			return err
		}
	}
	fmt.Fprintf(d.stdio.Out, "\n%d. %s\n$ %s\n", n, s.say, strings.Join(quote(s.typed()), " "))
	out := &screen{to: d.stdio.Out}
	cmd := d.command(ctx, s)
	err := s.run(cmd, out)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		return err
	}
	if s.exit != 0 {
		fmt.Fprintf(d.stdio.Out, "(exit code %d)\n", cmd.ProcessState.ExitCode())
	}
	if err := s.check(cmd.ProcessState.ExitCode(), out.text()); err != nil {
		return fmt.Errorf("step %d of the demo did not do what it should: %w", n, err)
	}
	return nil
}

// typed is the command as a person types it.
func (s step) typed() []string {
	if s.sudo {
		return append([]string{"sudo"}, s.command...)
	}
	return s.command
}

func (d *demo) command(ctx context.Context, s step) *exec.Cmd {
	if s.sudo {
		return d.host.Sudo(ctx, s.command[1:]...)
	}
	cmd := exec.CommandContext(ctx, d.program(s.command[0]), s.command[1:]...)
	cmd.Env = d.environment()
	return cmd
}

func (s step) run(cmd *exec.Cmd, out *screen) error {
	if s.types != "" {
		return onTerminal(cmd, s.types, out)
	}
	cmd.Stdout, cmd.Stderr = out, out // one pipe, so that the order is kept
	return cmd.Run()
}

// program is the path of a command: ours are in the demo's directory.
func (d *demo) program(name string) string {
	path := filepath.Join(d.bin, name)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	return name
}

// environment is the lab's, and nothing of ours: AWS settings and what sudo
// says of a caller would lead elsewhere.
func (d *demo) environment() []string {
	env := append(d.lab.Env(), "PATH="+os.Getenv("PATH"), "HOME=/nonexistent", "LC_ALL=C.UTF-8", "XDG_STATE_HOME="+d.state)
	if term, ok := os.LookupEnv("TERM"); ok {
		env = append(env, "TERM="+term)
	}
	return env
}

// check compares what a command did with what it should have done.
func (s step) check(exit int, seen string) error {
	if exit != s.exit {
		return fmt.Errorf("%s: exit code %d; want %d", s.command[0], exit, s.exit)
	}
	var missing []error
	for _, pattern := range s.see {
		if !regexp.MustCompile("(?m)" + pattern).MatchString(seen) {
			missing = append(missing, fmt.Errorf("%s: no line matches %q", s.command[0], pattern))
		}
	}
	return errors.Join(missing...)
}

var plain = regexp.MustCompile(`^[\w@%+=:,./-]+$`)

// quote is a command as a shell takes it.
func quote(command []string) []string {
	var out []string
	for _, word := range command {
		if !plain.MatchString(word) {
			word = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
		out = append(out, word)
	}
	return out
}
