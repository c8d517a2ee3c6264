// Command show-ecs-service-status prints the status of one ECS service as
// JSON, with the keys that people know from show-ecs-service-status.py (it may
// be called by that name), once or whenever it changes.
package main

import (
	"context"
	"time"

	urfave "github.com/urfave/cli/v2"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/access"
	"jumpsuite/internal/cli"
	"jumpsuite/internal/commandline"
	"jumpsuite/policy"
)

const name = "show-ecs-service-status"

func main() { cli.Main(name, run) }

func run(ctx context.Context, args []string, stdio cli.Stdio) error {
	if err := access.Escalate(args); err != nil {
		return err
	}
	app := &urfave.App{
		Name:  name,
		Usage: "Show the status of an ECS service (a container type) and its deployments as JSON",
		Flags: flags(),
	}
	app.Action = func(c *urfave.Context) error {
		if err := once(args); err != nil {
			return err
		}
		return status(c, stdio)
	}
	return commandline.Run(ctx, app, args, stdio)
}

// leastInterval is the most often that -w looks: all colleagues draw from the
// same 20 calls a second.
const leastInterval = 100 * time.Millisecond

func flags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "service", Aliases: []string{"s"}, Usage: "service `NAME`, which is that of the container type"},
		&urfave.BoolFlag{Name: "watch", Aliases: []string{"w"}, Usage: "follow it, until Ctrl-C; on a pipe one line of JSON per change", DisableDefaultText: true},
		&urfave.DurationFlag{Name: "interval", Usage: "with -w, look every `DURATION`", Value: 5 * time.Second},
		&urfave.StringFlag{Name: "cluster", Aliases: []string{"c"}, Usage: "ECS cluster `NAME`; not needed where there is only one"},
		&urfave.StringFlag{Name: "environment", Aliases: []string{"e"}, Usage: "environment `NAME` of the policy file"},
		&urfave.StringFlag{Name: "region", Usage: "AWS `REGION`; not with sudo"},
		&urfave.StringFlag{Name: "endpoint-url", Usage: "`URL` to reach AWS at; not with sudo"},
	}
}

func once(args []string) error {
	for _, f := range flags() {
		if err := commandline.Once(args, f.Names()...); err != nil {
			return err
		}
	}
	return nil
}

func status(c *urfave.Context, stdio cli.Stdio) error {
	service, err := checked(c)
	if err != nil {
		return err
	}
	show := newDisplay(stdio.Out, c.Duration("interval"))
	a, err := open(c, stdio)
	if err != nil {
		return err
	}
	defer a.Close()
	if err := a.Allow("ecs.status", policy.Resource{ContainerType: service}); err != nil {
		return err
	}
	r := ecsstatus.NewReader(a.Config, a.Cluster)
	r.Suggest = a.Suggests("ecs.status")
	read := func(ctx context.Context) (ecsstatus.Status, error) {
		s, err := r.Service(ctx, service)
		if err != nil {
			return ecsstatus.Status{}, err
		}
		return ecsstatus.StatusOf(s), nil
	}
	if c.Bool("watch") {
		return watch(c.Context, read, c.Duration("interval"), show)
	}
	s, err := read(c.Context)
	if err != nil {
		return err
	}
	return ecsstatus.WriteJSON(stdio.Out, s)
}

// checked is the service, after all options have been looked at.
func checked(c *urfave.Context) (string, error) {
	service := c.String("service")
	if service == "" {
		return "", cli.Usage("for example: "+name+" -s web", "option -s is needed: which service")
	}
	if c.IsSet("interval") && !c.Bool("watch") {
		return "", cli.Usage("add -w to follow the service", "option --interval goes with -w")
	}
	if c.Duration("interval") < leastInterval {
		return "", cli.Usage("for example --interval 5s", "option --interval is %v: %v is the least", c.Duration("interval"), leastInterval)
	}
	return service, nil
}

func open(c *urfave.Context, stdio cli.Stdio) (*access.Access, error) {
	if err := commandline.Filled(c, "cluster", "environment", "region", "endpoint-url"); err != nil {
		return nil, err
	}
	return access.Open(c.Context, access.Options{
		Command:     name,
		Action:      "ecs.status",
		Cluster:     c.String("cluster"),
		Environment: c.String("environment"),
		Region:      c.String("region"),
		Endpoint:    c.String("endpoint-url"),
		Stderr:      stdio.Err,
	})
}
