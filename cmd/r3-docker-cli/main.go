// What a cgroup says of processors is not worth a look at each start:
//
//go:debug containermaxprocs=0

// R3-docker-cli is the docker CLI as its caller: the unprivileged half of sudo
// docker. R3-docker starts it with the caller's uid, gid, groups and folder, and
// hands it connections to the gate over the socket it leaves open as file
// descriptor 3. Nothing that decides is in here.
//
// It embeds github.com/docker/cli and has the verbs of that CLI that the gate
// knows, with their options, output and exit codes. What makes the CLI choose a
// daemon, or read a configuration of its caller's (config.json, contexts,
// plugins, credential helpers, variables), is not there.
//
// Like docker it ends with 125 when it cannot do its part; 126 is a verb that is
// not available here.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/containerd/errdefs"
	dockercli "github.com/docker/cli/cli"
)

// Exit codes as docker's own documentation has them.
const (
	exitOurs      = 125
	exitNoSuch    = 126
	exitByDefault = 1
)

// Signals mean here what they mean to docker, which is not what they mean to
// our other commands: so it is not cli.Main that starts this one.
func main() {
	g, err := openGate(gateDescriptor)
	if err != nil {
		fmt.Fprintln(os.Stderr, "docker:", err)
		os.Exit(exitOurs)
	}
	os.Exit(run(g, os.Args[1:]))
}

// run carries out one command line.
func run(g *gate, args []string) int {
	d := newDocker(g)
	ctx, stop := interruptible(g, verbOf(args), d.leaveTerminal)
	defer stop()
	go g.whenGone(func() {
		d.leaveTerminal()
		fmt.Fprintln(os.Stderr, "docker: the gate (r3-docker) is gone")
		os.Exit(exitOurs)
	})
	go forceful(ctx, d, verbOf(args))
	if verbOf(args) == "stats" {
		d.lost = func() { os.Exit(d.cutOff()) }
	}
	return d.report(d.execute(ctx, args))
}

// cutOff ends docker stats when its host is lost: docker's own goes on without
// numbers then, or ends as if all were well. The gate has said what happened.
func (d *docker) cutOff() int {
	d.restoreTerminal()
	fmt.Fprintln(d.Err(), "docker: the numbers of the host have ended before their time")
	return exitByDefault
}

// execute finds out what is asked for, and does it.
func (d *docker) execute(ctx context.Context, args []string) error {
	d.connectUntil(ctx)
	root := newRoot(d)
	rest, err := globals(root, d, args)
	if err != nil {
		return err
	}
	if slices.Equal(rest, []string{versionOption}) {
		fmt.Fprintf(d.Out(), "Docker version %s, build jumpsuite\n", dockerVersion())
		return nil
	}
	if err := add(root, d, rest); err != nil {
		return err
	}
	root.SetArgs(rest)
	return root.ExecuteContext(ctx)
}

// report prints what went wrong, as docker does, and returns the exit code.
func (d *docker) report(err error) int {
	var by *interrupted
	if errors.As(err, &by) {
		return 128 + int(by.signal)
	}
	if err == nil || errdefs.IsCanceled(err) {
		return 0
	}
	if err.Error() != "" {
		fmt.Fprintln(d.Err(), err)
	}
	if d.fault.Load() && !errors.Is(err, errSomeHosts) {
		return exitOurs
	}
	var status dockercli.StatusError
	if errors.As(err, &status) && status.StatusCode != 0 {
		return status.StatusCode
	}
	return exitByDefault
}
