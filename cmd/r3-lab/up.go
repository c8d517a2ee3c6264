package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"jumpsuite/internal/cli"
	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/dockerengine"
	"jumpsuite/internal/lab/engine"
	"jumpsuite/internal/lab/world"
	"jumpsuite/internal/lab/worlds"
)

//go:embed worlds/default.yaml
var defaultWorld []byte

func upCommand(stdio cli.Stdio) *urfave.Command {
	return &urfave.Command{
		Name:  "up",
		Usage: "start a lab and print the environment to use it with; Ctrl-C ends it",
		Description: `The lab answers ECS, ECR, ELBv2, SSM (inventory, sessions, parameters), CloudWatch Logs and STS on one loopback address.
With the engine docker its tasks are containers on a Docker Engine of its own (root,
dockerd and a static busybox are needed); with sim they are played by the clock.
auto takes docker where it can.`,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "world", Usage: "world `FILE`, or the name of a world that 'r3-lab worlds' lists"},
			&urfave.StringFlag{Name: "engine", Value: "auto", Usage: "`NAME`: sim, docker or auto"},
			&urfave.StringFlag{Name: "listen", Value: "127.0.0.1:0", Usage: "loopback `ADDRESS` to answer on; port 0 is any"},
			&urfave.StringFlag{Name: "certificate", Usage: "`FILE` to write what clients that use https:// have to trust"},
			&urfave.Float64Flag{Name: "speed", Usage: "`SECONDS` of the lab in one outside, whatever the world says"},
		},
		Action: func(c *urfave.Context) error { return up(c, stdio) },
	}
}

func up(c *urfave.Context, stdio cli.Stdio) error {
	w, err := readWorld(c.String("world"))
	if err != nil {
		return err
	}
	if speed := c.Float64("speed"); !(speed >= 0 && speed <= world.MaxSpeed) { // NaN neither
		return cli.Usage("1 is the speed of the time outside, 60 makes a minute a second", "%g is not a speed of up to %d", speed, int(world.MaxSpeed))
	} else if speed > 0 {
		w.Clock.Speed = speed
	}
	name, err := chooseEngine(c.String("engine"), stdio.Err)
	if err != nil {
		return err
	}
	l, err := lab.Start(c.Context, lab.Config{
		World: w, Engine: name, StartDocker: startDocker, Listen: c.String("listen"),
		Log: slog.New(slog.NewTextHandler(stdio.Err, nil)),
	})
	if err != nil {
		return cli.Errorf(cli.ExitUnavailable, "", "start the lab: %w", err)
	}
	if err := errors.Join(certify(l, c.String("certificate")), announce(l, name, stdio)); err != nil {
		l.Close()
		return err
	}
	<-c.Context.Done()
	// A signal is how a lab ends: nothing went wrong.
	return l.Close()
}

// certify writes the lab's certificate to a file, if one is named.
func certify(l *lab.Lab, file string) error {
	if file == "" {
		return nil
	}
	certificate, err := l.Certificate()
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, certificate, 0o644); err != nil {
		return cli.Errorf(cli.ExitUnavailable, "", "write the lab's certificate: %w", err)
	}
	return nil
}

// readWorld reads the world file of that name, or one that we bring along.
func readWorld(name string) (*world.World, error) {
	if name == "" {
		return world.Parse(defaultWorld, "default.yaml")
	}
	w, err := world.Read(name)
	if errors.Is(err, fs.ErrNotExist) {
		if known, none := worlds.Read(name); none == nil {
			return known, nil
		}
		near := cli.Nearest(name, worlds.Names(), 3)
		return nil, cli.Errorf(cli.ExitNotFound, hintNear(near), "there is no world file, and no world of ours, %q", name)
	}
	if err != nil {
		return nil, cli.Errorf(cli.ExitConfig, "", "%w", err)
	}
	return w, nil
}

func hintNear(near []string) string {
	if len(near) == 0 {
		return "'r3-lab worlds' lists those that there are"
	}
	return "did you mean " + strings.Join(near, ", ") + "?"
}

// chooseEngine turns auto into docker or sim, and tells which and why.
func chooseEngine(name string, stderr io.Writer) (string, error) {
	switch name {
	case lab.Sim, lab.Docker:
		return name, nil
	case "auto":
		if err := dockerengine.Available(); err != nil {
			fmt.Fprintf(stderr, "tasks are simulated: %v\n", err)
			return lab.Sim, nil
		}
		return lab.Docker, nil
	}
	return "", cli.Usage("engines: sim, docker, auto", "there is no engine %q", name)
}

func startDocker(ctx context.Context, p lab.Parts) (engine.Engine, error) {
	return dockerengine.Start(ctx, dockerConfig(p))
}

func dockerConfig(p lab.Parts) dockerengine.Config {
	return dockerengine.Config{Clock: p.Clock, Images: p.Images, Registry: p.Registry, Registries: p.Registries, Login: p.Login, Cleanup: time.Duration(p.World.Cleanup), Log: p.Log}
}

// announce prints the environment, as lines for a shell, and what there is.
func announce(l *lab.Lab, engine string, stdio cli.Stdio) error {
	for _, v := range l.Env() {
		if _, err := fmt.Fprintf(stdio.Out, "export %s\n", v); err != nil {
			return err
		}
	}
	hosts := 0
	for _, c := range l.World.Clusters {
		hosts += len(c.Hosts)
	}
	_, err := fmt.Fprintf(stdio.Err, "the lab is up: engine %s, %d clusters, %d hosts, %d services, %g lab seconds a second; Ctrl-C ends it\n",
		engine, len(l.World.Clusters), hosts, len(l.World.Services), l.World.Clock.Speed)
	return err
}
