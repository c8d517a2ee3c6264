package main

import (
	"context"
	"errors"

	urfave "github.com/urfave/cli/v2"

	"jumpsuite/deployer"
	"jumpsuite/internal/cli"
	"jumpsuite/internal/commandline"
	"jumpsuite/policy"
)

// What the policy calls following a deployment, and changing one back.
const (
	waitAction     = "ecs.wait"
	rollbackAction = "ecs.rollback"
)

// followFlags are those of whoever follows a deployment.
func followFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "reason", Usage: "`TEXT` for the audit log: why"},
		&urfave.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "`FORMAT`: text, or json, one event a line", Value: "text"},
		&urfave.DurationFlag{Name: "interval", Usage: "`TIME` between two looks at AWS", DefaultText: "2s to 10s, as things change"},
	}
}

func waitCommand(stdio cli.Stdio, args []string) *urfave.Command {
	flags := append([]urfave.Flag{
		&urfave.StringFlag{Name: "container-type", Usage: "container type (ECS service) `NAME`"},
		&urfave.DurationFlag{Name: "timeout", Usage: "`TIME` to follow from now on, and a roll-back again", DefaultText: "as the deployment was begun with, else 30m0s"},
		&urfave.BoolFlag{Name: "wait-drained", Usage: "wait until the old tasks have stopped too", DefaultText: "as the deployment was begun with"},
		&urfave.StringFlag{Name: "on-interrupt", Usage: "`WHAT` Ctrl-C means for what was taken over: leave or rollback", DefaultText: "as the deployment was begun with"},
	}, append(followFlags(), commonFlags()...)...)
	return &urfave.Command{
		Name:  "wait",
		Usage: "Follow a Deployment to its End",
		Description: "Follows the deployment of a container type that is under way, and ends as `deploy` would\n" +
			"have ended. One whose process has ended is taken over: rolled back if it fails, and what\n" +
			"is left to be put back is.",
		Flags: flags,
		Action: func(c *urfave.Context) error {
			if err := once(args, flags); err != nil {
				return err
			}
			return waitFor(c, stdio)
		},
	}
}

func waitFor(c *urfave.Context, stdio cli.Stdio) error {
	p, err := pickup(c)
	if err := errors.Join(err, commandline.Filled(c, "output", "reason", "on-interrupt"), limits(c)); err != nil {
		return err
	}
	name := p.ContainerType
	return follow(c, stdio, waitAction, name, func(ctx context.Context, d *deployer.Deployer, r *record) error {
		if err := r.decide(waitAction, name); err != nil {
			return err
		}
		d.MayFinish = r.finish
		return d.Wait(ctx, p)
	})
}

// pickup is what the options ask for; what they do not say, the journal does.
func pickup(c *urfave.Context) (deployer.Pickup, error) {
	name, err := required(c, "container-type", "web")
	p := deployer.Pickup{ContainerType: name, Timeout: c.Duration("timeout")}
	if drained := c.Bool("wait-drained"); c.IsSet("wait-drained") {
		p.WaitDrained = &drained
	}
	if !c.IsSet("on-interrupt") {
		return p, err
	}
	var err2 error
	p.OnInterrupt, err2 = deployer.ParseOnInterrupt(c.String("on-interrupt"))
	return p, errors.Join(err, err2)
}

// follow opens a way to AWS and has something done with a deployer that shows
// and records what it does.
func follow(c *urfave.Context, stdio cli.Stdio, action, name string, do func(context.Context, *deployer.Deployer, *record) error) error {
	ctx, out := cli.Watched(c.Context, stdio.Out)
	renderer, err := deployRenderer(c, stdio, out)
	if err != nil {
		return err
	}
	way, err := open(c, stdio, action)
	if err != nil {
		return interruptedEarly(ctx, err)
	}
	defer way.Close()
	d, err := newDeployer(c, way)
	if err != nil {
		return err
	}
	r := &record{way: way, containerType: name, stderr: stdio.Err}
	d.Interval, d.Record, d.Tell, d.Suggest = c.Duration("interval"), r.step, r.watch(renderer.Tell), way.Suggests(action)
	d.Logs = logs(way)
	err = do(ctx, d, r)
	renderer.End()
	r.end(err)
	return err
}

// decide asks the policy for an action on the container type.
func (r *record) decide(action, containerType string) (err error) {
	r.decided, err = r.way.Decide(action, policy.Resource{ContainerType: containerType})
	return err
}

// finish asks whether the caller may finish what another has begun: to roll back
// is what it may come to. Its reason is that of what was begun.
func (r *record) finish(j deployer.Journal) (err error) {
	r.decided, err = r.way.DecideBegun(rollbackAction, policy.Resource{ContainerType: j.ContainerType})
	return err
}
