package commandline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	urfave "github.com/urfave/cli/v2"

	"jumpsuite/internal/cli"
)

// runApp runs a small app the way a command does, and returns its exit code
// and what it printed.
func runApp(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	stdio := cli.Stdio{In: strings.NewReader(""), Out: &out, Err: &errs}
	app := &urfave.App{Name: "tool", Usage: "test", Commands: []*urfave.Command{{
		Name:  "show",
		Flags: []urfave.Flag{&urfave.StringFlag{Name: "container-type"}, &urfave.BoolFlag{Name: "image"}},
		Action: func(c *urfave.Context) error {
			fmt.Fprintf(&out, "type=%s image=%v", c.String("container-type"), c.Bool("image"))
			return errors.Join(Once(args, "container-type"), Filled(c, "container-type"))
		},
	}, {Name: "list", Action: func(*urfave.Context) error { return nil }},
		{Name: "policy", Subcommands: []*urfave.Command{{Name: "check"}}}}}
	err := Run(context.Background(), app, append([]string{"tool"}, args...), stdio)
	cli.Report(&errs, "tool", err)
	return cli.ExitCode(err), out.String(), errs.String()
}

func TestCommandLineMistakesAreOnStderrWithCode64(t *testing.T) {
	for _, tt := range []struct {
		name   string
		args   []string
		code   int
		stderr string
	}{
		{"flags in any order", []string{"show", "--image", "--container-type", "web"}, 0, ""},
		{"value with equals sign", []string{"show", "--container-type=web", "--image"}, 0, ""},
		{"a positional hides no flag", []string{"show", "web", "--image"}, 64, `unexpected argument "web"`},
		{"unknown flag", []string{"show", "--container-typ", "web"}, 64, "hint: did you mean --container-type?"},
		{"unknown command", []string{"shwo"}, 64, "hint: did you mean show?"},
		{"command whose parent was left out", []string{"check"}, 64, "unknown command \"check\"\nhint: did you mean 'tool policy check'?"},
		{"no command", nil, 64, "hint: commands: show, list, policy"},
		{"missing value", []string{"show", "--container-type"}, 64, "option --container-type needs a value\nhint: see 'tool show --help'"},
		{"empty value", []string{"show", "--container-type="}, 64, "option --container-type is empty"},
		{"given twice", []string{"show", "--container-type", "a", "--container-type=b"}, 64, "option --container-type is given 2 times"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := runApp(tt.args...)
			if code != tt.code || !strings.Contains(stderr, tt.stderr) {
				t.Errorf("%q: got code %d, stderr %q; want %d, %q", tt.args, code, stderr, tt.code, tt.stderr)
			}
			if code == 64 && strings.Contains(stdout, "USAGE") {
				t.Errorf("%q: help on stdout: %q", tt.args, stdout)
			}
		})
	}
}

func TestHelpListsTheExitCodes(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"show", "--help"}} {
		code, stdout, _ := runApp(args...)
		if code != 0 || !strings.Contains(stdout, "EXIT STATUS") {
			t.Errorf("%q: got code %d and %q", args, code, stdout)
		}
	}
}
