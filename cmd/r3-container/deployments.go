package main

import (
	"io"

	urfave "github.com/urfave/cli/v2"

	"jumpsuite/deployer"
	"jumpsuite/ecsstatus"
	"jumpsuite/internal/access"
	"jumpsuite/internal/cli"
	"jumpsuite/internal/commandline"
	"jumpsuite/policy"
)

const deploymentsAction = "ecs.deployments"

func deploymentsCommand(stdio cli.Stdio, args []string) *urfave.Command {
	flags := append([]urfave.Flag{
		&urfave.StringFlag{Name: "container-type", Usage: "only those of container type `NAME`"},
		outputFlag(),
	}, commonFlags()...)
	return &urfave.Command{
		Name:  "deployments",
		Usage: "List Deployments, under Way and recent",
		Flags: flags,
		Action: func(c *urfave.Context) error {
			if err := once(args, flags); err != nil {
				return err
			}
			return listDeployments(c, stdio)
		},
	}
}

func listDeployments(c *urfave.Context, stdio cli.Stdio) error {
	format, err := ecsstatus.ParseFormat(c.String("output"))
	if err != nil {
		return err
	}
	if err := commandline.Filled(c, "container-type"); err != nil {
		return err
	}
	way, err := open(c, stdio, deploymentsAction)
	if err != nil {
		return err
	}
	defer way.Close()
	name := c.String("container-type")
	if name != "" {
		if err := way.Allow(deploymentsAction, policy.Resource{ContainerType: name}); err != nil {
			return err
		}
	}
	d, err := newDeployer(c, way)
	if err != nil {
		return err
	}
	d.Suggest = way.Suggests(deploymentsAction)
	look := &looker{way: way}
	list, unknown, err := d.Deployments(c.Context, name, look.may)
	if err == nil {
		err = look.err
	}
	if err != nil {
		return err
	}
	if unknown != nil {
		note(stdio.Err, "earlier deployments of ECS's own history are not shown: "+unknown.Error())
	}
	if len(list) == 0 {
		note(stdio.Err, "no deployment is under way, and no journal tells of an earlier one")
	}
	return ecsstatus.Write(stdio.Out, format, list, func(w io.Writer) error { return deployer.WriteDeployments(w, list) })
}

// looker decides of which container types the deployments are shown where none
// was named: of those that the policy lets the caller see, each on record.
type looker struct {
	way *access.Access
	err error
}

func (l *looker) may(containerType string) bool {
	if l.err != nil || !l.way.Suggests(deploymentsAction)(containerType) {
		return false
	}
	l.err = l.way.Allow(deploymentsAction, policy.Resource{ContainerType: containerType})
	return l.err == nil
}
