package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/cli"
)

// Terminal control (ECMA-48).
const (
	hideCursor = "\x1b[?25l"
	showCursor = "\x1b[?25h"
	clearBelow = "\x1b[J"
	home       = "\x1b[H\x1b[2J"
)

// screen redraws a status in place on a terminal.
type screen struct {
	out   io.Writer
	every time.Duration
	rows  int // that the last status took
}

func newScreen(out io.Writer, every time.Duration) *screen { return &screen{out: out, every: every} }

func (s *screen) display() display {
	say := func(text string) func() error {
		return func() error {
			_, err := io.WriteString(s.out, text)
			return err
		}
	}
	return display{out: s.out, begin: say(hideCursor), show: s.show, end: say(showCursor)}
}

// show writes everything at once, so that nobody sees half of it.
func (s *screen) show(status ecsstatus.Status) error {
	var text strings.Builder
	if err := ecsstatus.WriteJSON(&text, status); err != nil {
		return err
	}
	fmt.Fprintf(&text, "%s, every %v, Ctrl-C ends\n", time.Now().UTC().Format(time.RFC3339), s.every)
	columns, height := size(s.out)
	_, err := io.WriteString(s.out, s.back(height)+text.String())
	s.rows = rowsOf(text.String(), columns)
	return err
}

// back leads to where the last status began, and clears from there. What is
// higher than the terminal has scrolled out of reach: then the page is new.
func (s *screen) back(height int) string {
	switch {
	case s.rows == 0:
		return ""
	case s.rows >= height:
		return home
	}
	return fmt.Sprintf("\x1b[%dA\r", s.rows) + clearBelow
}

// rowsOf is how many rows of a terminal text takes, long lines wrapped.
func rowsOf(text string, columns int) int {
	rows := 0
	for l := range strings.Lines(text) {
		n := utf8.RuneCountInString(strings.TrimSuffix(l, "\n"))
		rows += max(1, (n+columns-1)/columns)
	}
	return rows
}

// size is a terminal's; where the height is not known it is taken for 24.
func size(w io.Writer) (columns, height int) {
	columns, _ = cli.Terminal(w)
	height = 24
	if f, ok := w.(*os.File); ok {
		if _, h, err := term.GetSize(int(f.Fd())); err == nil && h > 0 {
			height = h
		}
	}
	return max(1, columns), height
}
