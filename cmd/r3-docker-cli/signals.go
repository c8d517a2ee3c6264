package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// interrupted is why a command ended before its time.
type interrupted struct{ signal syscall.Signal }

func (e *interrupted) Error() string { return "" }

// proxied are the verbs that pass signals on to a container: for them docker
// itself takes all signals.
var proxied = map[string]bool{"run": true, "start": true}

// interruptible is a context that the first SIGINT or SIGTERM ends, as docker's
// does. Each signal is also told to the privileged half, which gets most of them,
// too, and passes on only those that have not arrived here. Where one ends this
// process at once, leave is called before.
func interruptible(g *gate, verb string, leave func()) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	arrived := make(chan os.Signal, 32)
	signal.Notify(arrived, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH)
	go func() {
		for s := range arrived {
			sig := s.(syscall.Signal)
			g.tell(sig)
			switch {
			case sig == syscall.SIGINT || sig == syscall.SIGTERM:
				cancel(&interrupted{sig})
			case sig != syscall.SIGWINCH && !proxied[verb]:
				leave()
				dieOf(sig)
			}
		}
	}()
	return ctx, func() {
		signal.Stop(arrived)
		cancel(nil)
	}
}

// dieOf does what the signal does to a process that does not take it.
func dieOf(s syscall.Signal) {
	signal.Reset(s)
	_ = syscall.Kill(os.Getpid(), s)
}

// patience is how many SIGINTs and SIGTERMs end a command that does not end by
// the first one; docker's.
const patience = 3

// grace is what stats gets to end by itself: docker's own does not when it was
// given names, and goes on without numbers until the third signal.
const grace = 600 * time.Millisecond

// forceful ends the process when the first signals have not.
func forceful(ctx context.Context, d *docker, verb string) {
	<-ctx.Done()
	var by *interrupted
	if verb == "stats" && errors.As(context.Cause(ctx), &by) {
		time.AfterFunc(grace, func() { os.Exit(128 + int(by.signal)) })
	}
	more := make(chan os.Signal, patience-1)
	signal.Notify(more, syscall.SIGINT, syscall.SIGTERM)
	for range patience - 1 {
		<-more
	}
	d.restoreTerminal()
	fmt.Fprintln(os.Stderr, "\ngot 3 SIGTERM/SIGINTs, forcefully exiting")
	os.Exit(exitByDefault)
}
