package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	urfave "github.com/urfave/cli/v2"
	"golang.org/x/term"

	"jumpsuite/deployer"
	"jumpsuite/internal/cli"
	"jumpsuite/internal/commandline"
)

func rollbackCommand(stdio cli.Stdio, args []string) *urfave.Command {
	flags := append([]urfave.Flag{
		&urfave.StringFlag{Name: "container-type", Usage: "container type (ECS service) to roll back `NAME`"},
		&urfave.StringFlag{Name: "to", Usage: "`REVISION` of its task definition to go back to", DefaultText: "what its journal says was before"},
		&urfave.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask", DisableDefaultText: true},
		&urfave.BoolFlag{Name: "dry-run", Usage: "say what would be done, and change nothing", DisableDefaultText: true},
		&urfave.BoolFlag{Name: "supersede", Usage: "roll back although a process is deploying it: that one gives way", DisableDefaultText: true},
		&urfave.DurationFlag{Name: "timeout", Usage: "`TIME` that the roll-back may take", Value: deployer.DefaultTimeout},
		&urfave.IntFlag{Name: "max-failures", Usage: "`NUMBER` of failed tasks with which it has failed", DefaultText: "as ECS's circuit breaker: half of the desired, at least 3"},
	}, append(followFlags(), commonFlags()...)...)
	return &urfave.Command{
		Name:  "rollback",
		Usage: "Bring Containers back to what was before",
		Description: "Brings the service of a container type back to the task definition that it had before\n" +
			"the last deployment, as its journal says, and follows that to its end. It works after a\n" +
			"kill, a reboot, and from another jump server, and may be called again.",
		Flags: flags,
		Action: func(c *urfave.Context) error {
			if err := once(args, flags); err != nil {
				return err
			}
			return rollBack(c, stdio)
		},
	}
}

func rollBack(c *urfave.Context, stdio cli.Stdio) error {
	name, err := required(c, "container-type", "web")
	if err := errors.Join(err, commandline.Filled(c, "to", "output", "reason"), limits(c), askable(c, stdio)); err != nil {
		return err
	}
	return follow(c, stdio, rollbackAction, name, func(ctx context.Context, d *deployer.Deployer, r *record) error {
		if err := r.decide(rollbackAction, name); err != nil {
			return err
		}
		return d.RollBack(ctx, deployer.BackRequest{
			ContainerType: name, To: c.String("to"), Reason: c.String("reason"), Timeout: c.Duration("timeout"), MaxFailures: c.Int("max-failures"),
			Supersede: c.Bool("supersede"), DryRun: c.Bool("dry-run"), Confirm: confirm(c, stdio),
		})
	})
}

// askable refuses a roll-back that nobody can be asked about.
func askable(c *urfave.Context, stdio cli.Stdio) error {
	if in, ok := stdio.In.(*os.File); ok && term.IsTerminal(int(in.Fd())) || c.Bool("yes") || c.Bool("dry-run") {
		return nil
	}
	return cli.Usage("give --yes, or see what it would do with --dry-run", "there is no terminal to ask on whether to roll back")
}

// confirm asks the person on the terminal.
func confirm(c *urfave.Context, stdio cli.Stdio) func(context.Context, *deployer.Plan) error {
	if c.Bool("yes") {
		return nil
	}
	return func(ctx context.Context, p *deployer.Plan) error {
		fmt.Fprintf(stdio.Err, "Roll %s in cluster %s back from %s to %s? [y/N] ", p.ContainerType, p.Cluster, p.From, p.To)
		yes, err := answer(ctx, stdio)
		if err != nil {
			return err
		}
		if !yes {
			return cli.Usage("", "not confirmed; nothing was changed")
		}
		return nil
	}
}

// answer reads one line. An interrupted question is answered by no.
func answer(ctx context.Context, stdio cli.Stdio) (yes bool, err error) {
	lines := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(stdio.In).ReadString('\n')
		lines <- line
	}()
	select {
	case line := <-lines:
		word := strings.ToLower(strings.TrimSpace(line))
		return word == "y" || word == "yes", nil
	case <-ctx.Done():
		return false, cli.Errorf(cli.ExitInterrupted, "", "%v; nothing was changed", context.Cause(ctx))
	}
}
