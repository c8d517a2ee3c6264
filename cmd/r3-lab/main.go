// Command r3-lab is an ECS cluster on one machine: a control plane that behaves
// like AWS's, for tests, demonstrations and learning. It needs no AWS account
// and touches none.
package main

import (
	"context"

	urfave "github.com/urfave/cli/v2"

	"jumpsuite/internal/cli"
	"jumpsuite/internal/commandline"
)

func main() { cli.Main("r3-lab", run) }

func run(ctx context.Context, args []string, stdio cli.Stdio) error {
	app := &urfave.App{
		Name:  "r3-lab",
		Usage: "an ECS cluster on one machine, without AWS",
		Description: `In one terminal:
   r3-lab up
and in another, with the lines that it prints:
   export AWS_ENDPOINT_URL=http://127.0.0.1:PORT …
   r3-container list
   aws ecs list-services --cluster prod
   r3-lab do host-lost 10.0.0.10`,
		Commands: []*urfave.Command{
			upCommand(stdio),
			demoCommand(stdio),
			doCommand(),
			faultCommand(),
			callsCommand(stdio),
			eventsCommand(stdio),
			worldsCommand(stdio),
		},
	}
	return commandline.Run(ctx, app, args, stdio)
}
