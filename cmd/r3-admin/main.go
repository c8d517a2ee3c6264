// Command r3-admin is for the administrators of a jump server or docker host:
// it checks a policy file before it is put in force, says what it allows, reads the
// audit log, and keeps the list of keys that are trusted.
package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"jumpsuite/internal/cli"
	"jumpsuite/internal/commandline"
	"jumpsuite/policy"
)

func main() { cli.Main("r3-admin", run) }

func run(ctx context.Context, args []string, stdio cli.Stdio) error {
	app := &urfave.App{
		Name:  "r3-admin",
		Usage: "check and explain what people may do",
		Commands: []*urfave.Command{{
			Name:  "policy",
			Usage: "the policy file: check it, ask it",
			Subcommands: []*urfave.Command{
				checkCommand(stdio),
				explainCommand(stdio),
			},
		}, auditCommand(stdio), keysCommand(stdio)},
	}
	return commandline.Run(ctx, app, args, stdio)
}

func checkCommand(stdio cli.Stdio) *urfave.Command {
	return &urfave.Command{
		Name:      "check",
		Usage:     "find all mistakes in a policy file, and run its tests",
		ArgsUsage: "FILE",
		Args:      true,
		Action: func(c *urfave.Context) error {
			if c.NArg() != 1 {
				return cli.Usage("r3-admin policy check "+policy.Path, "policy check needs one file")
			}
			return check(c.Context, stdio, c.Args().First())
		},
	}
}

// check reads, parses and tests a file. Whether its names are known on this
// machine is told, and no error: it may be written for another one.
func check(ctx context.Context, stdio cli.Stdio, file string) error {
	p, err := policy.Read(file)
	if err != nil {
		return report(stdio.Err, err)
	}
	failed, total := p.Test(file)
	if len(failed) > 0 {
		return report(stdio.Err, failed)
	}
	warn(ctx, stdio.Err, p)
	open(stdio.Err, p)
	if _, err := policy.Load(file); err != nil {
		fmt.Fprintf(stdio.Err, "note: %s\n", cli.Printable(err.Error()))
	}
	_, err = fmt.Fprintf(stdio.Out, "%s: %s, %s, %s passed\n", file,
		count(len(p.Environments()), "environment"), count(p.Rules(), "rule"), count(total, "test"))
	return err
}

// report prints findings as compilers do, a line each without the command's name.
func report(w io.Writer, err error) error {
	findings, ok := err.(policy.Findings)
	if !ok {
		return err
	}
	for _, f := range findings {
		fmt.Fprintln(w, cli.Printable(f.String()))
	}
	return &cli.Error{Code: cli.ExitConfig, Err: fmt.Errorf("%s in the policy", count(len(findings), "mistake"))}
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

func explainCommand(stdio cli.Stdio) *urfave.Command {
	return &urfave.Command{
		Name:      "explain",
		Usage:     "say whether someone may do something, and which rule decides",
		ArgsUsage: "VERB ARGS…",
		Description: "VERB ARGS… is what is typed: docker run alpine, ecs deploy --container-type web.\n" +
			"Options of explain stand before it. Without --group, the user's groups are those the system says.",
		Args: true,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "user", Usage: "who asks, by `NAME`"},
			&urfave.StringSliceFlag{Name: "group", Usage: "a `GROUP` the user is in; may be given several times"},
			&urfave.StringFlag{Name: "env", Usage: "the environment's `NAME`"},
			&urfave.StringFlag{Name: "container-type", Usage: "`NAME` of that of the container that a docker command is about"},
			&urfave.StringFlag{Name: "image", Usage: "`IMAGE` of that container"},
			&urfave.StringFlag{Name: "host", Usage: "`NAME` of the host that the container is on"},
			&urfave.StringFlag{Name: "policy", Usage: "policy `FILE`", Value: policy.Path},
		},
		Action: func(c *urfave.Context) error { return explain(c, stdio) },
	}
}

func explain(c *urfave.Context, stdio cli.Stdio) error {
	request, err := ask(c)
	if err != nil {
		return err
	}
	p, err := policy.Read(c.String("policy"))
	if err != nil {
		return report(stdio.Err, err)
	}
	if _, ok := p.Environment(request.Environment); !ok {
		fmt.Fprintf(stdio.Err, "note: the policy has no environment %q: it counts as production\n", cli.Printable(request.Environment))
	}
	if byType, _, _ := request.Action.Has(); byType && request.Resource.ContainerType == "" {
		fmt.Fprintln(stdio.Err, "note: no --container-type is given: rules that deny some take it for one of theirs (--container-type - means none)")
	}
	return render(stdio.Out, request, p.Explain(request))
}

const example = "example: r3-admin policy explain --user dev1 --env prod docker exec -it web bash"

// ask makes the request that the command line describes.
func ask(c *urfave.Context) (policy.Request, error) {
	r, err := policy.ParseCommand(c.Args().Slice())
	if err != nil {
		return r, cli.Usage(example, "%w", err)
	}
	for _, flag := range []string{"user", "env"} {
		if c.String(flag) == "" {
			return r, cli.Usage(example, "option --%s is missing", flag)
		}
	}
	r.Environment = c.String("env")
	r.Principal = policy.Principal{User: c.String("user"), Groups: c.StringSlice("group")}
	if !c.IsSet("group") {
		if r.Principal.Groups, err = groupsOf(c.Context, r.Principal.User); err != nil {
			return r, err
		}
	}
	for flag, field := range map[string]*string{
		"container-type": &r.Resource.ContainerType, "image": &r.Resource.Image, "host": &r.Resource.Host,
	} {
		if c.IsSet(flag) {
			*field = c.String(flag)
		}
	}
	return r, nil
}

// render prints the verdict, what decided, what comes with it, and the rules.
func render(w io.Writer, r policy.Request, e policy.Explanation) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s by %s in %s\n", e.Effect(), r.Action, r.Principal.User, r.Environment)
	fmt.Fprintf(&b, "rule %s: %s\n", e.Rule(), e.Reason())
	fmt.Fprintf(&b, "groups: %s\n", strings.Join(r.Principal.Groups, ", "))
	if e.Allowed() && e.Obligations.Record != policy.RecordNothing {
		fmt.Fprintf(&b, "recorded: %s\n", e.Obligations.Record)
	}
	if len(e.Considered) > 0 {
		b.WriteString("rules considered:\n")
	}
	for _, c := range e.Considered {
		why := c.Why
		if c.Matched {
			why = "matches"
		}
		fmt.Fprintf(&b, "  line %d: %s (%s): %s\n", c.Line, c.Rule, c.Effect, why)
	}
	_, err := io.WriteString(w, cli.Printable(b.String()))
	return err
}
