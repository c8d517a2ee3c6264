package cli

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"
)

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

// People look the codes up in two places.
func TestTheDocsHaveTheSameExitCodesAsTheHelp(t *testing.T) {
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## Exit codes\n")
	table, _, _ := strings.Cut(section, "`sudo docker`")
	got := "EXIT STATUS:\n"
	for _, m := range regexp.MustCompile(`(?m)^\| (\d+) \| (.*) \|$`).FindAllStringSubmatch(table, -1) {
		if m[1] != "1" { // sudo's
			got += fmt.Sprintf("   %-4s %s\n", m[1], m[2])
		}
	}
	if got != ExitHelp {
		t.Errorf("docs/operations.md has\n%s\nand the help\n%s", got, ExitHelp)
	}
}
