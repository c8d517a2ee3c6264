package main

import (
	urfave "github.com/urfave/cli/v2"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/cli"
	"jumpsuite/policy"
)

// lookup is the value of --container-status that asks for all tasks.
const lookup = "lookup"

func showCommand(stdio cli.Stdio, args []string) *urfave.Command {
	flags := append([]urfave.Flag{
		&urfave.StringFlag{Name: "container-type", Usage: "container type `NAME` to show"},
		&urfave.BoolFlag{Name: "image", Usage: "the images that its running containers really use", DisableDefaultText: true},
		&urfave.BoolFlag{Name: "events", Usage: "what ECS did for it, the newest last", DisableDefaultText: true},
		&urfave.StringFlag{Name: "container-status", Usage: "with `TASK` lookup its tasks, with a task's ID or ARN that task"},
		&urfave.BoolFlag{Name: "deployments", Usage: "the deployments under way, and the last one", DisableDefaultText: true},
		outputFlag(),
	}, commonFlags()...)
	return &urfave.Command{
		Name:  "show",
		Usage: "Show detailed Information",
		Flags: flags,
		Action: func(c *urfave.Context) error {
			if err := once(args, flags); err != nil {
				return err
			}
			return show(c, stdio)
		},
	}
}

func show(c *urfave.Context, stdio cli.Stdio) error {
	containerType, err := required(c, "container-type", "web")
	if err != nil {
		return err
	}
	format, err := ecsstatus.ParseFormat(c.String("output"))
	if err != nil {
		return err
	}
	ask, err := showAsk(c)
	if err != nil {
		return err
	}
	a, err := open(c, stdio, "ecs.show")
	if err != nil {
		return err
	}
	defer a.Close()
	if err := a.Allow("ecs.show", policy.Resource{ContainerType: containerType}); err != nil {
		return err
	}
	r := ecsstatus.NewReader(a.Config, a.Cluster)
	r.Suggest = a.Suggests("ecs.show")
	v, err := r.View(c.Context, containerType, ask)
	if err != nil {
		return err
	}
	noteAddresses(stdio.Err, v.Unknown)
	return ecsstatus.Write(stdio.Out, format, v, v.WriteTable)
}

func showAsk(c *urfave.Context) (ecsstatus.Ask, error) {
	ask := ecsstatus.Ask{Images: c.Bool("image"), Events: c.Bool("events"), Deployments: c.Bool("deployments")}
	switch status := c.String("container-status"); {
	case status == lookup:
		ask.Lookup = true
	case status != "":
		ask.Task = status
	case c.IsSet("container-status"):
		return ask, cli.Usage("--container-status lookup lists the tasks", "option --container-status is empty")
	}
	return ask, nil
}
