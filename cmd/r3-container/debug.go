package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	urfave "github.com/urfave/cli/v2"
	"golang.org/x/term"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/access"
	"jumpsuite/internal/awsconfig"
	"jumpsuite/internal/caller"
	"jumpsuite/internal/cli"
	"jumpsuite/internal/commandline"
	"jumpsuite/internal/taskcopy"
	"jumpsuite/policy"
)

// debugAction is what the policy calls it.
const debugAction = "ecs.debug"

func debugCommand(stdio cli.Stdio, args []string) *urfave.Command {
	flags := append([]urfave.Flag{
		&urfave.StringFlag{Name: "container-type", Usage: "the newest task of container type `NAME`, running or stopped, if no task is named"},
		&urfave.StringFlag{Name: "container", Usage: "container of the task, where there are several `NAME`"},
		&urfave.StringFlag{Name: "shell", Usage: "`PROGRAM` of the image to run in place of the entrypoint", Value: taskcopy.DefaultShell},
		&urfave.StringFlag{Name: "reason", Usage: "`TEXT` for the audit log: why"},
	}, commonFlags()...)
	return &urfave.Command{
		Name:      "debug",
		Usage:     "Open a Shell in a Copy of a Container",
		ArgsUsage: "[TASK]",
		Description: "Runs a container of a task once more, on the same docker host, with the image that the task\n" +
			"ran and its environment, and with a shell in place of the entrypoint: for a container whose\n" +
			"entrypoint is what is broken. It is a container of yours, capped as those of sudo docker run,\n" +
			"and is removed when you leave it. Not in production. What it cannot have of the task is said.",
		Flags: flags,
		Args:  true,
		Action: func(c *urfave.Context) error {
			if tail := c.Args().Tail(); len(tail) > 0 && strings.HasPrefix(tail[0], "-") {
				// Options behind the task: the same once more, with the task behind them.
				return run(c.Context, slices.Concat(args[:len(args)-c.NArg()], tail, []string{c.Args().First()}), stdio)
			}
			if err := once(args, flags); err != nil {
				return err
			}
			return debug(c, stdio)
		},
	}
}

// debug asks, reads, says what the copy is, and becomes sudo docker run.
func debug(c *urfave.Context, stdio cli.Stdio) error {
	theirs := caller.OwnLimits()
	if err := errors.Join(oneTask(c), commandline.Filled(c, "container-type", "container", "shell", "reason")); err != nil {
		return err
	}
	way, err := open(c, stdio, debugAction)
	if err != nil {
		return err
	}
	defer way.Close()
	if way.Caller == nil {
		_, err := findDocker(way) // says why there is none
		return err
	}
	// Who may not run anything is told before anything is looked up.
	if err := way.Possible("docker.run"); err != nil {
		return err
	}
	s, err := findSubject(c, way)
	if err != nil {
		return err
	}
	if err := s.allow(way); err != nil {
		return err
	}
	docker, err := findDocker(way)
	if err != nil {
		return s.byHand(err)
	}
	s.tell(stdio.Err, c.String("shell"))
	return s.enter(way, docker, theirs, c.String("shell"))
}

// oneTask makes sure that one thing is named.
func oneTask(c *urfave.Context) error {
	switch n := c.NArg(); {
	case n > 1:
		return cli.Usage("one task at a time", "unexpected argument %q", c.Args().Get(1))
	case n == 0 && c.String("container-type") == "":
		return cli.Usage("'r3-container show --container-type web --container-status lookup' lists tasks", "name a task, or a container type with --container-type")
	case n == 1 && c.Args().First() == "":
		return cli.Usage("leave it out, with --container-type", "the task is empty")
	}
	return nil
}

// subject is what is copied.
type subject struct {
	task      ecsstatus.Task
	container ecsstatus.Container
	host      ecsstatus.Host
	copy      taskcopy.Copy
}

// findSubject finds the task, asks whether it may be copied, and reads the rest.
func findSubject(c *urfave.Context, way *access.Access) (*subject, error) {
	r := ecsstatus.NewReader(way.Config, way.Cluster)
	r.Suggest = way.Suggests(debugAction)
	id, name := c.Args().First(), c.String("container-type")
	if id == "" {
		var err error
		if id, err = newest(c.Context, way, r, name); err != nil {
			return nil, err
		}
	}
	v, err := r.View(c.Context, name, ecsstatus.Ask{Task: id})
	if err != nil {
		return nil, err
	}
	s := &subject{task: v.Task.Task}
	if c.Args().Present() {
		if err := mayDebug(way, s.task.ContainerType); err != nil {
			return nil, err
		}
	}
	if v.Task.Host == nil {
		return nil, cli.Errorf(cli.ExitNotFound, "take a task whose host is there: r3-container show --container-type NAME --container-status lookup",
			"task %s has no host, or none any more", s.task.ID)
	}
	s.host = *v.Task.Host
	if s.container, err = choose(s.task, c.String("container")); err != nil {
		return nil, err
	}
	def, err := definition(c.Context, way, s.task.TaskDefinition)
	if err != nil {
		return nil, err
	}
	s.copy, err = taskcopy.Of(def, s.container)
	return s, err
}

// newest is the newest task of a container type that has a host.
func newest(ctx context.Context, way *access.Access, r *ecsstatus.Reader, name string) (string, error) {
	if err := mayDebug(way, name); err != nil {
		return "", err
	}
	if _, err := r.Service(ctx, name); err != nil {
		return "", err
	}
	tasks, err := r.Tasks(ctx, name, ecsstatus.Running, ecsstatus.Stopped)
	if err != nil {
		return "", err
	}
	ecsstatus.NewestFirst(tasks)
	if i := slices.IndexFunc(tasks, func(t ecsstatus.Task) bool { return t.Instance != "" }); i >= 0 {
		return tasks[i].ID, nil
	}
	return "", cli.Errorf(cli.ExitNotFound, "ECS shows a task for an hour after it has stopped", "container type %s has no task that was on a host", name)
}

// mayDebug asks the policy. A task that no service started has no container type.
func mayDebug(way *access.Access, containerType string) error {
	if containerType == "" {
		containerType = policy.None
	}
	return way.Allow(debugAction, policy.Resource{ContainerType: containerType})
}

// choose is the container that is meant.
func choose(t ecsstatus.Task, name string) (ecsstatus.Container, error) {
	var names []string
	for _, c := range t.Containers {
		if c.Name == name || name == "" && len(t.Containers) == 1 {
			return c, nil
		}
		names = append(names, c.Name)
	}
	have := "containers: " + strings.Join(names, ", ")
	if name == "" {
		return ecsstatus.Container{}, cli.Usage(have, "task %s has %d containers: say which, with --container", t.ID, len(names))
	}
	return ecsstatus.Container{}, cli.Errorf(cli.ExitNotFound, have, "task %s has no container %q", t.ID, name)
}

func definition(ctx context.Context, way *access.Access, arn string) (types.TaskDefinition, error) {
	out, err := ecs.NewFromConfig(way.Config).DescribeTaskDefinition(ctx, &ecs.DescribeTaskDefinitionInput{TaskDefinition: aws.String(arn)})
	if err != nil {
		return types.TaskDefinition{}, fmt.Errorf("describe task definition %s: %w", ecsstatus.ShortName(arn), awsconfig.Explain(err))
	}
	return *out.TaskDefinition, nil
}

// allow asks the policy for the docker run that it will be. The gates ask again.
func (s *subject) allow(way *access.Access) error {
	return way.AllowRun(onHost(policy.Resource{Image: s.copy.Image}, &s.host), &policy.Run{Network: s.copy.Network, Digest: s.copy.Pinned})
}

// byHand is why there is no copy, and the command that makes one like it.
func (s *subject) byHand(why error) error {
	return cli.Errorf(cli.ExitCode(why), fmt.Sprintf("on %s: sudo docker run -it --rm --entrypoint %s %s", s.host.Label(), taskcopy.DefaultShell, s.copy.Image), "%w", why)
}

// tell says what the copy is, and what it is not.
func (s *subject) tell(w io.Writer, shell string) {
	say := func(format string, args ...any) { fmt.Fprintln(w, cli.Printable(fmt.Sprintf(format, args...))) }
	say("a copy of container %s of task %s (%s, %s) on host %s, with %s in place of its entrypoint; it is removed when you leave it",
		s.container.Name, s.task.ID, ecsstatus.ShortName(s.task.TaskDefinition), s.task.LastStatus, s.host.Label(), shell)
	say("image: %s", s.copy.Image)
	for _, d := range s.copy.Differs {
		say("note: %s", d)
	}
	if id := s.container.RuntimeID; id != "" {
		say("what the container itself runs: sudo docker inspect --format '{{.Path}} {{.Args}}' %s", id[:min(len(id), 12)])
	}
}

// enter becomes sudo docker run. The log has all that this command decides by now.
func (s *subject) enter(way *access.Access, docker *sudoDocker, theirs *caller.Limits, shell string) error {
	file, err := environmentFile(s.copy.Env)
	if err != nil {
		return err
	}
	way.Close() // what it becomes does not
	args := append(at(way.Environment, &s.host), s.copy.Run(shell, file, term.IsTerminal(int(os.Stdin.Fd())))...)
	return docker.become(theirs, args...)
}
