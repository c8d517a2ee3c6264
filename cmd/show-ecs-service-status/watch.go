package main

import (
	"context"
	"errors"
	"io"
	"os"
	"reflect"
	"syscall"
	"time"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/cli"
)

// watch shows the status now and whenever it changes, until ctx ends, the
// reader of the output goes away, or the status cannot be read.
func watch(ctx context.Context, read func(context.Context) (ecsstatus.Status, error), every time.Duration, d display) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go cli.UntilGone(ctx, d.out, func(error) { cancel(syscall.EPIPE) })
	if err := d.begin(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.end()) }()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		s, err := read(ctx)
		if ctx.Err() != nil {
			return ended(ctx)
		}
		if err != nil {
			return err
		}
		if err := d.show(s); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ended(ctx)
		case <-tick.C:
		}
	}
}

// ended is why a watch that could have gone on did not. Ctrl-C is how people
// end it: that needs no words.
func ended(ctx context.Context) error {
	cause := context.Cause(ctx)
	if _, ok := errors.AsType[*cli.Interrupted](cause); ok {
		return &cli.Error{Code: cli.ExitInterrupted, Err: cli.ErrReported}
	}
	return cause
}

// display shows one status after the other.
type display struct {
	out   io.Writer
	begin func() error
	show  func(ecsstatus.Status) error
	end   func() error
}

// newDisplay redraws on a terminal that can, and writes lines otherwise. It has
// to be made before access.Open, which under sudo clears the environment.
func newDisplay(out io.Writer, every time.Duration) display {
	if _, ok := cli.Terminal(out); ok && os.Getenv("TERM") != "dumb" {
		return newScreen(out, every).display()
	}
	nothing := func() error { return nil }
	return display{out: out, begin: nothing, show: changes(out), end: nothing}
}

// changes writes a line of JSON for each status that differs from the one before.
func changes(out io.Writer) func(ecsstatus.Status) error {
	var last *ecsstatus.Status
	return func(s ecsstatus.Status) error {
		if last != nil && reflect.DeepEqual(*last, s) {
			return nil
		}
		last = &s
		return ecsstatus.WriteJSONLine(out, s)
	}
}
