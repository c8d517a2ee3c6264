// Package commandline parses the flags of our commands with urfave/cli, and closes
// its gaps. It is apart from internal/cli for those commands that parse none: what
// urfave/cli links costs half a millisecond at each start.
package commandline

import (
	"context"
	"errors"
	"fmt"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"jumpsuite/internal/cli"
)

// Run parses args with app and runs the command that they name.
//
// It closes urfave/cli's gaps: a usage error goes to stderr with exit code 64
// and one hint instead of a page of help on stdout with exit code 1; arguments
// that are not flags are refused (urfave ignores every flag after one), unless
// the command has set Args; an unknown command is an error that names the
// nearest one.
func Run(ctx context.Context, app *urfave.App, args []string, stdio cli.Stdio) error {
	app.Reader, app.Writer, app.ErrWriter = stdio.In, stdio.Out, stdio.Err
	app.Version = cli.Version()
	app.HideHelpCommand = true
	app.Suggest = false
	app.ExitErrHandler = func(*urfave.Context, error) {}
	app.OnUsageError = usageError
	if app.CustomAppHelpTemplate == "" {
		app.CustomAppHelpTemplate = urfave.AppHelpTemplate + "\n" + cli.ExitHelp
	}
	if len(app.Commands) > 0 {
		app.Action = needCommand(app.Name, app.Commands)
	} else if app.Action != nil {
		app.Action = onlyFlags(app.Action)
	}
	prepare(app.Commands)
	return app.RunContext(ctx, args)
}

func prepare(commands []*urfave.Command) {
	for _, c := range commands {
		c.OnUsageError = usageError
		c.HideHelpCommand = true
		if c.CustomHelpTemplate == "" && len(c.Subcommands) == 0 {
			c.CustomHelpTemplate = urfave.CommandHelpTemplate + "\n" + cli.ExitHelp
		}
		if len(c.Subcommands) > 0 {
			c.Action = needCommand(c.Name, c.Subcommands)
		} else if c.Action != nil && !c.Args {
			c.Action = onlyFlags(c.Action)
		}
		prepare(c.Subcommands)
	}
}

func usageError(c *urfave.Context, err error, _ bool) error {
	what := err.Error()
	if flag, ok := strings.CutPrefix(what, "flag provided but not defined: "); ok {
		return cli.Usage(nearestFlag(c, strings.TrimLeft(flag, "-")), "unknown option %s", flag)
	}
	help := fmt.Sprintf("see '%s --help'", c.Command.HelpName)
	if flag, ok := strings.CutPrefix(what, "flag needs an argument: -"); ok {
		return cli.Usage(help, "option %s needs a value", dashed(flag))
	}
	return cli.Usage(help, "%s", what)
}

func nearestFlag(c *urfave.Context, given string) string {
	var names []string
	for _, f := range c.Command.Flags {
		names = append(names, f.Names()...)
	}
	if c.Command.Name == "" || len(names) == 0 {
		for _, f := range c.App.Flags {
			names = append(names, f.Names()...)
		}
	}
	near := cli.Nearest(given, names, 1)
	if len(near) == 0 {
		return fmt.Sprintf("see '%s --help'", c.Command.HelpName)
	}
	if len(near[0]) == 1 {
		return fmt.Sprintf("did you mean -%s?", near[0])
	}
	return fmt.Sprintf("did you mean --%s?", near[0])
}

func onlyFlags(action urfave.ActionFunc) urfave.ActionFunc {
	return func(c *urfave.Context) error {
		if c.NArg() > 0 {
			return cli.Usage(fmt.Sprintf("every value goes with an option: see '%s --help'", c.Command.HelpName),
				"unexpected argument %q", c.Args().First())
		}
		return action(c)
	}
}

func needCommand(name string, commands []*urfave.Command) urfave.ActionFunc {
	return func(c *urfave.Context) error {
		var names []string
		for _, sub := range commands {
			if !sub.Hidden {
				names = append(names, sub.Name)
			}
		}
		have := "commands: " + strings.Join(names, ", ")
		if c.NArg() == 0 {
			return cli.Usage(have, "%s needs a command", name)
		}
		if near := cli.Nearest(c.Args().First(), names, 1); len(near) > 0 {
			have = fmt.Sprintf("did you mean %s?", near[0])
		}
		if sub := parent(c.Args().First(), commands); sub != "" {
			have = fmt.Sprintf("did you mean '%s %s %s'?", name, sub, c.Args().First())
		}
		return cli.Usage(have, "unknown command %q", c.Args().First())
	}
}

// parent is the command that has given below it: people leave it out.
func parent(given string, commands []*urfave.Command) string {
	for _, c := range commands {
		for _, sub := range c.Subcommands {
			if sub.Name == given {
				return c.Name
			}
		}
	}
	return ""
}

// Once reports a usage error for a flag that was given more than once: urfave
// takes the last without a word. args are the arguments as typed.
func Once(args []string, flags ...string) error {
	var errs []error
	for _, flag := range flags {
		n := 0
		for _, a := range args {
			if a == "--" {
				break
			}
			name, _, _ := strings.Cut(a, "=")
			if name == "--"+flag || name == "-"+flag {
				n++
			}
		}
		if n > 1 {
			errs = append(errs, cli.Usage("give it once", "option %s is given %d times", dashed(flag), n))
		}
	}
	return errors.Join(errs...)
}

// Filled reports a usage error for each of the flags that was given with an
// empty value, as by a shell variable that is not set: it is not the same as
// one that was left out.
func Filled(c *urfave.Context, flags ...string) error {
	var errs []error
	for _, flag := range flags {
		if c.IsSet(flag) && c.String(flag) == "" {
			errs = append(errs, cli.Usage("leave it out, or give it a value", "option %s is empty", dashed(flag)))
		}
	}
	return errors.Join(errs...)
}

// dashed is a flag's name as people type it: -s, --service.
func dashed(flag string) string {
	if len(flag) == 1 {
		return "-" + flag
	}
	return "--" + flag
}
