package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/cli"
)

// reads returns one status after the other, and then ends the watch.
func reads(cancel context.CancelCauseFunc, cause error, statuses ...ecsstatus.Status) func(context.Context) (ecsstatus.Status, error) {
	return func(context.Context) (ecsstatus.Status, error) {
		if len(statuses) == 0 {
			cancel(cause)
			return ecsstatus.Status{}, nil
		}
		s := statuses[0]
		statuses = statuses[1:]
		return s, nil
	}
}

func TestOnAPipeEachChangeIsOneLine(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	one, two := ecsstatus.Status{Status: "ACTIVE", Running: 1}, ecsstatus.Status{Status: "ACTIVE", Running: 2}
	var out strings.Builder
	read := reads(cancel, &cli.Interrupted{Signal: os.Interrupt}, one, one, two, two, one)
	err := watch(ctx, read, time.Millisecond, newDisplay(&out, time.Millisecond))
	const want = `{"status":"ACTIVE","desired":0,"running":1,"pending":0,"deploys":null}
{"status":"ACTIVE","desired":0,"running":2,"pending":0,"deploys":null}
{"status":"ACTIVE","desired":0,"running":1,"pending":0,"deploys":null}
`
	if out.String() != want {
		t.Errorf("output:\n%swant:\n%s", out.String(), want)
	}
	if cli.ExitCode(err) != cli.ExitInterrupted || !errors.Is(err, cli.ErrReported) {
		t.Errorf("error = %v with code %d, want one that needs no words with %d", err, cli.ExitCode(err), cli.ExitInterrupted)
	}
}

func TestAWatchEndsWithWhatCannotBeRead(t *testing.T) {
	var out strings.Builder
	gone := &ecsstatus.NotFoundError{Kind: ecsstatus.KindContainerType, Name: "web"}
	read := func(context.Context) (ecsstatus.Status, error) { return ecsstatus.Status{}, gone }
	if err := watch(t.Context(), read, time.Hour, newDisplay(&out, time.Hour)); !errors.Is(err, gone) {
		t.Errorf("error = %v, want %v", err, gone)
	}
}

func TestAWatchEndsWhenItsReaderGoes(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	read := func(context.Context) (ecsstatus.Status, error) {
		r.Close()
		return ecsstatus.Status{}, nil
	}
	quiet := display{out: w, begin: func() error { return nil }, show: func(ecsstatus.Status) error { return nil }, end: func() error { return nil }}
	if err := watch(t.Context(), read, time.Hour, quiet); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("error = %v, want %v", err, syscall.EPIPE)
	}
}

func TestAScreenIsRedrawnInItsPlace(t *testing.T) {
	var out strings.Builder
	s := newScreen(&out, 5*time.Second)
	for range 2 {
		if err := s.show(ecsstatus.Status{Status: "ACTIVE", Deploys: []ecsstatus.Deploy{}}); err != nil {
			t.Fatal(err)
		}
	}
	// Columns are not known of a Builder: each rune takes a row, so the page is new.
	if first, second, ok := strings.Cut(out.String(), home); !ok || !strings.HasPrefix(first, "{\n") || !strings.HasPrefix(second, "{\n") {
		t.Errorf("output = %q", out.String())
	}
	s.rows = 3
	if got, want := s.back(24), "\x1b[3A\r\x1b[J"; got != want {
		t.Errorf("back over 3 of 24 rows = %q, want %q", got, want)
	}
}

func TestRowsOfATerminal(t *testing.T) {
	for _, tt := range []struct {
		text    string
		columns int
		want    int
	}{
		{"", 80, 0}, {"a\n", 80, 1}, {"\n\n", 80, 2}, {"12345\n", 5, 1}, {"123456\n", 5, 2}, {"äöüäö\n", 5, 1}, {"no end", 3, 2},
	} {
		if got := rowsOf(tt.text, tt.columns); got != tt.want {
			t.Errorf("rows of %q in %d columns = %d, want %d", tt.text, tt.columns, got, tt.want)
		}
	}
}
