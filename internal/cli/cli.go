// Package cli is what every jumpsuite command shares: how it starts, what its
// exit codes mean and how an error reaches the person at the terminal. Flags are
// parsed by internal/commandline.
//
// A command is
//
//	func main() { cli.Main("r3-container", run) }
//	func run(ctx context.Context, args []string, stdio cli.Stdio) error
//
// and nothing below it calls os.Exit, reads os.Args or prints to os.Stdout.
// Data goes to Stdio.Out, everything said to a person goes to Stdio.Err.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"unicode/utf8"

	"golang.org/x/term"
)

// Stdio is a command's standard input, output and error.
type Stdio struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
}

// Terminal reports whether w is a terminal, and its width in columns.
func Terminal(w io.Writer) (columns int, ok bool) {
	f, isFile := w.(*os.File)
	if !isFile || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	columns, _, err := term.GetSize(int(f.Fd()))
	if err != nil || columns <= 0 {
		columns = 80
	}
	return columns, true
}

// Color reports whether w may be sent colours: it is a terminal that can show
// them, and the person has not asked for none (https://no-color.org).
func Color(w io.Writer) bool {
	_, ok := Terminal(w)
	return ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// Interrupted is the cause of a context that a signal cancelled.
type Interrupted struct{ Signal os.Signal }

func (e *Interrupted) Error() string { return "interrupted by " + e.Signal.String() }

// ExitCode is ExitInterrupted.
func (e *Interrupted) ExitCode() int { return ExitInterrupted }

// Gone is the cause of a context that ended because nobody reads the output:
// the reader of a pipe went away, or the terminal was closed. Under sudo there
// may be no SIGHUP for that: writing is what tells.
type Gone struct{ Err error }

func (e *Gone) Error() string {
	if errors.Is(e.Err, syscall.EIO) {
		return "the terminal is gone"
	}
	return "the reader of the output is gone"
}

// ExitCode is ExitInterrupted.
func (e *Gone) ExitCode() int { return ExitInterrupted }

// Unwatched reports whether err is an interruption by which nobody means
// anything: the terminal or the reader went away.
func Unwatched(err error) bool {
	if _, gone := errors.AsType[*Gone](err); gone {
		return true
	}
	i, ok := errors.AsType[*Interrupted](err)
	return ok && i.Signal == syscall.SIGHUP
}

// Watched returns a context that ends, with a *Gone as its cause, when nobody reads
// what the writer writes to: a pipe without a reader, a terminal that was closed.
// A write finds out (EPIPE, EIO); where w is a file, it is noticed without one.
func Watched(ctx context.Context, w io.Writer) (context.Context, io.Writer) {
	ctx, cancel := context.WithCancelCause(ctx)
	go UntilGone(ctx, w, func(err error) { cancel(&Gone{Err: err}) })
	return ctx, &watched{w, cancel}
}

type watched struct {
	w      io.Writer
	cancel context.CancelCauseFunc
}

// Write writes to the writer that is watched.
func (w *watched) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.EIO) {
		w.cancel(&Gone{Err: err})
	}
	return n, err
}

// Main runs a command and exits with the code of its error.
//
// The first of SIGINT, SIGTERM and SIGHUP cancels ctx with an *Interrupted as
// its cause; the second ends the process at once, if somebody means it: of a terminal that
// is closed there is a SIGHUP by the shell, and one more by the kernel when the shell
// ends (bash 5.2, 0.2 ms later). SIGPIPE is taken, so that a reader that went away shows
// as EPIPE on a write and kills nothing.
func Main(name string, run func(ctx context.Context, args []string, stdio Stdio) error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	go func() {
		cancel(&Interrupted{Signal: <-signals})
		for <-signals == syscall.SIGHUP {
		}
		os.Exit(ExitInterrupted)
	}()
	err := run(ctx, os.Args, Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	Report(os.Stderr, name, err)
	os.Exit(ExitCode(err))
}

// Report prints err as "name: what, to what, why" and its hints, a line each.
// It prints nothing for nil, and for a reader that went away.
func Report(w io.Writer, name string, err error) {
	if err == nil || errors.Is(err, syscall.EPIPE) || errors.Is(err, ErrReported) {
		return
	}
	fmt.Fprintf(w, "%s: %s\n", name, Printable(err.Error()))
	for _, hint := range hints(err) {
		fmt.Fprintf(w, "hint: %s\n", Printable(hint))
	}
}

// ErrReported marks an error that the person has already seen: its exit code
// counts, its text is not printed again.
var ErrReported = errors.New("already reported")

// Printable makes s safe to show: control characters (C0, C1, DEL) and the
// marks that change the direction of text are escaped, but for tab and newline.
// So are bytes that are no UTF-8: some terminals take 0x9b for what ESC [ is.
func Printable(s string) string {
	if utf8.ValidString(s) && strings.IndexFunc(s, hostile) < 0 {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, "\\x%02x", s[0])
		case hostile(r):
			fmt.Fprintf(&b, "\\u%04x", r)
		default:
			b.WriteRune(r)
		}
		s = s[size:]
	}
	return b.String()
}

func hostile(r rune) bool {
	switch {
	case r == '\n' || r == '\t':
		return false
	case r < 0x20 || r >= 0x7f && r <= 0x9f:
		return true
	case r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0x200e || r == 0x200f || r == 0x061c:
		return true
	}
	return false
}
