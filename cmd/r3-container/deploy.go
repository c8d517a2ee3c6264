package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	urfave "github.com/urfave/cli/v2"
	"golang.org/x/term"

	"jumpsuite/deployer"
	"jumpsuite/internal/cli"
	"jumpsuite/internal/commandline"
)

// deployAction is what the policy calls a deployment.
const deployAction = "ecs.deploy"

// deployCommand is `deploy`: flags, then one call.
func deployCommand(stdio cli.Stdio, args []string) *urfave.Command {
	flags := append([]urfave.Flag{
		&urfave.StringFlag{Name: "container-type", Usage: "container type (ECS service) to deploy `NAME`"},
		&urfave.StringFlag{Name: "image-url", Usage: "image to deploy `REGISTRY/REPOSITORY:TAG`, or with @sha256:…"},
		&urfave.StringFlag{Name: "container", Usage: "container that gets the image, where there are several `NAME`"},
		&urfave.StringFlag{Name: "strategy", Usage: "`STRATEGY`: rolling, or replacing, which stops the old tasks first", Value: string(deployer.Rolling)},
		&urfave.DurationFlag{Name: "timeout", Usage: "`TIME` that the deployment may take, and its roll-back again", Value: deployer.DefaultTimeout},
		&urfave.IntFlag{Name: "max-failures", Usage: "`NUMBER` of failed tasks with which it has failed", DefaultText: "as ECS's circuit breaker: half of the desired, at least 3"},
		&urfave.BoolFlag{Name: "wait-drained", Usage: "wait until the old tasks have stopped too", DisableDefaultText: true},
		&urfave.StringFlag{Name: "on-interrupt", Usage: "`WHAT` Ctrl-C means for the deployment: leave, it goes on in AWS, or rollback", Value: string(deployer.LeaveGoing)},
		&urfave.StringFlag{Name: "reason", Usage: "`TEXT` for the audit log: why"},
		&urfave.BoolFlag{Name: "dry-run", Usage: "show the plan and the diff of the task definition, and change nothing", DisableDefaultText: true},
		&urfave.BoolFlag{Name: "force", Usage: "deploy although the image runs already", DisableDefaultText: true},
		&urfave.BoolFlag{Name: "supersede", Usage: "deploy although another deployment is running: this image takes over", DisableDefaultText: true},
		&urfave.BoolFlag{Name: "skip-image-check", Usage: "do not ask ECR whether the image is there", DisableDefaultText: true},
		&urfave.BoolFlag{Name: "skip-room-check", Usage: "deploy although the hosts have no room for the new tasks", DisableDefaultText: true},
		&urfave.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "`FORMAT`: text, or json, one event a line", Value: "text"},
		&urfave.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "only how it ended", DisableDefaultText: true},
		&urfave.DurationFlag{Name: "interval", Usage: "`TIME` between two looks at AWS", DefaultText: "2s to 10s, as things change"},
	}, commonFlags()...)
	return &urfave.Command{
		Name:  "deploy",
		Usage: "Deploy Containers to Hosts",
		Description: "Registers the task definition of a container type anew with another image, updates the ECS\n" +
			"service, and follows it until every new task is running and healthy, also in the load\n" +
			"balancer. If it fails, the service goes back to the task definition that it had.",
		Flags: flags,
		Action: func(c *urfave.Context) error {
			if err := once(args, flags); err != nil {
				return err
			}
			return deploy(c, stdio)
		},
	}
}

func deploy(c *urfave.Context, stdio cli.Stdio) error {
	request, err := deployRequest(c)
	if err != nil {
		return err
	}
	ctx, out := cli.Watched(c.Context, stdio.Out)
	renderer, err := deployRenderer(c, stdio, out)
	if err != nil {
		return err
	}
	way, err := open(c, stdio, deployAction)
	if err != nil {
		return interruptedEarly(ctx, err)
	}
	defer way.Close()
	if way.Caller == nil {
		fmt.Fprintln(stdio.Err, "note: not under sudo: your own AWS credentials are used, AWS alone decides what they may, and the audit log does not hear of it")
	}
	d, err := newDeployer(c, way)
	if err != nil {
		return err
	}
	r := &record{way: way, containerType: request.ContainerType, stderr: stdio.Err}
	d.Interval, d.Allow, d.Record, d.Tell = c.Duration("interval"), r.allow, r.step, r.watch(renderer.Tell)
	d.Logs = logs(way)
	d.Suggest = way.Suggests(deployAction)
	err = d.Deploy(ctx, request)
	renderer.End()
	r.end(err)
	return err
}

// interruptedEarly says what an interruption before anything was read means.
func interruptedEarly(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return cli.Errorf(cli.ExitInterrupted, "", "%v; nothing was changed", context.Cause(ctx))
}

// deployRequest parses the options, and finds all that is wrong with them.
func deployRequest(c *urfave.Context) (deployer.Request, error) {
	name, err1 := required(c, "container-type", "web")
	url, err2 := required(c, "image-url", "123456789012.dkr.ecr.eu-central-1.amazonaws.com/web:1.2")
	var image deployer.Image
	var err3 error
	if err2 == nil {
		image, err3 = deployer.ParseImage(url)
	}
	strategy, err4 := deployer.ParseStrategy(c.String("strategy"))
	interrupt, err5 := deployer.ParseOnInterrupt(c.String("on-interrupt"))
	request := deployer.Request{
		ContainerType: name, Image: image, Container: c.String("container"), Strategy: strategy,
		Timeout: c.Duration("timeout"), MaxFailures: c.Int("max-failures"),
		Force: c.Bool("force"), Supersede: c.Bool("supersede"), SkipImageCheck: c.Bool("skip-image-check"), SkipRoomCheck: c.Bool("skip-room-check"), DryRun: c.Bool("dry-run"),
		Reason:      c.String("reason"),
		WaitDrained: c.Bool("wait-drained"), OnInterrupt: interrupt,
	}
	return request, errors.Join(err1, err2, err3, err4, err5, commandline.Filled(c, "container", "strategy", "output", "reason", "on-interrupt"), limits(c))
}

func limits(c *urfave.Context) error {
	var errs []error
	if t := c.Duration("timeout"); t <= 0 && c.IsSet("timeout") {
		errs = append(errs, cli.Usage("for example --timeout 20m", "--timeout %s is no time to deploy in", t))
	}
	if c.IsSet("interval") && c.Duration("interval") < deployer.MinInterval {
		errs = append(errs, cli.Usage("AWS would throttle everybody's calls", "--interval %s is less than %s", c.Duration("interval"), deployer.MinInterval))
	}
	if c.Duration("interval") > deployer.MaxInterval {
		errs = append(errs, cli.Usage("leave it out: it adapts", "--interval %s is more than %s", c.Duration("interval"), deployer.MaxInterval))
	}
	if c.IsSet("max-failures") && c.Int("max-failures") < 1 {
		errs = append(errs, cli.Usage("1 fails with the first task", "--max-failures %d is less than 1", c.Int("max-failures")))
	}
	return errors.Join(errs...)
}

// deployRenderer shows a deployment as --output says: text is live on a
// terminal, and plain lines elsewhere.
func deployRenderer(c *urfave.Context, stdio cli.Stdio, out io.Writer) (deployer.Renderer, error) {
	r, err := loudRenderer(c, stdio, out)
	if err == nil && c.Bool("quiet") {
		r = deployer.Quiet{Renderer: r}
	}
	return r, err
}

func loudRenderer(c *urfave.Context, stdio cli.Stdio, out io.Writer) (deployer.Renderer, error) {
	switch format := strings.ToLower(c.String("output")); format {
	case "json":
		return &deployer.JSON{W: out}, nil
	case "text":
		return textRenderer(c.Bool("dry-run"), stdio, out), nil
	default:
		return nil, cli.Usage("the formats are text and json", "unknown output format %q", format)
	}
}

func textRenderer(diff bool, stdio cli.Stdio, out io.Writer) deployer.Renderer {
	if _, ok := cli.Terminal(stdio.Out); !ok || os.Getenv("TERM") == "dumb" {
		return &deployer.Lines{W: out, Diff: diff}
	}
	live := &deployer.Live{W: out, Diff: diff, Color: cli.Color(stdio.Out), Size: func() (int, int) { return size(stdio.Out) }}
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	go func() {
		for range resized {
			live.Resized()
		}
	}()
	return live
}

// size is how large a terminal is now.
func size(w io.Writer) (columns, rows int) {
	if f, ok := w.(*os.File); ok {
		if columns, rows, err := term.GetSize(int(f.Fd())); err == nil && columns > 0 {
			return columns, rows
		}
	}
	return 80, 24
}
