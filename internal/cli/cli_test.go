package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	urfave "github.com/urfave/cli/v2"
)

// runApp runs a small app the way a command does, and returns its exit code
// and what it printed.
func runApp(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	stdio := Stdio{In: strings.NewReader(""), Out: &out, Err: &errs}
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
	Report(&errs, "tool", err)
	return ExitCode(err), out.String(), errs.String()
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

func TestExitCodeIsWhatTheErrorSays(t *testing.T) {
	coded := Errorf(ExitNotFound, "look again", "no such thing")
	for _, tt := range []struct {
		name string
		err  error
		want int
	}{
		{"nothing", nil, 0},
		{"plain error", errors.New("x"), ExitSoftware},
		{"coded", coded, ExitNotFound},
		{"wrapped", fmt.Errorf("describe: %w", coded), ExitNotFound},
		{"joined", errors.Join(errors.New("x"), coded), ExitNotFound},
		{"interrupted", &Interrupted{Signal: syscall.SIGHUP}, ExitInterrupted},
		{"reader gone", fmt.Errorf("write: %w", syscall.EPIPE), ExitBrokenPipe},
	} {
		if got := ExitCode(tt.err); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestReportPrintsEachHintOnceAndNoControlCharacters(t *testing.T) {
	var b bytes.Buffer
	inner := Errorf(ExitNotFound, "look\x1b[2J again", "no service %q\x07", "web")
	Report(&b, "tool", errors.Join(inner, fmt.Errorf("again: %w", inner)))
	want := "tool: no service \"web\"\\u0007\nagain: no service \"web\"\\u0007\nhint: look\\u001b[2J again\n"
	if b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestReportIsSilentWhenTheReaderIsGoneOrHasBeenTold(t *testing.T) {
	var b bytes.Buffer
	Report(&b, "tool", fmt.Errorf("write: %w", syscall.EPIPE))
	Report(&b, "tool", &Error{Code: 75, Err: ErrReported})
	if b.Len() > 0 {
		t.Errorf("got %q, want nothing", b.String())
	}
}

func TestNearestNamesComeNearestFirst(t *testing.T) {
	names := []string{"web", "webapp", "worker", "api", "container-type-a", "container-type-b"}
	for _, tt := range []struct{ given, want string }{
		{"wbe", "web"},
		{"webap", "webapp"},
		{"container-type-c", "container-type-a"},
		{"workers", "worker"},
		{"zzzzzz", ""},
	} {
		got := strings.Join(Nearest(tt.given, names, 1), ",")
		if got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.given, got, tt.want)
		}
	}
}

func FuzzPrintableLeavesNothingHostile(f *testing.F) {
	f.Add("plain\ttext\n")
	f.Add("\x1b]0;title\x07\u202e\u0085")
	f.Add("\x9b31m\xff and \ufffd")
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(Printable(s)) {
			t.Errorf("%q: bytes left that are no UTF-8", Printable(s))
		}
		if i := strings.IndexFunc(Printable(s), hostile); i >= 0 {
			t.Errorf("%q: hostile rune left at %d", Printable(s), i)
		}
	})
}
