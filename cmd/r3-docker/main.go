// What a cgroup says of processors is not worth a look at each start:
//
//go:debug containermaxprocs=0

// R3-docker is what sudo docker runs: the privileged half. It finds out who
// calls, starts the docker CLI (r3-docker-cli) as that person, and hands it
// connections to the gate (package dockerproxy), which asks the policy, keeps the
// record and has the Docker Engine's socket. It parses no argument: what is
// asked for is decided on what arrives at the gate.
//
// It reads /etc/jumpsuite/policy.yaml, and, where that knows several
// environments, /etc/jumpsuite/environment: a line with the name of the one that
// this host belongs to.
//
// It ends with the CLI's exit code, with 128 and its number when a signal ended
// the CLI, and with 125 when it cannot do its part.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"jumpsuite/internal/caller"
	"jumpsuite/internal/cli"
)

// exitOurs is docker's code for what goes wrong before a container has a say.
const exitOurs = 125

// lineDescriptor is where those that are started here find their way back.
const lineDescriptor = 3

// It is not cli.Main that starts this command: a second Ctrl-C must not end it
// while the CLI goes on.
func main() {
	if os.Args[0] == undertakerName {
		if undertake(os.NewFile(lineDescriptor, "pipe")) != nil {
			os.Exit(exitOurs) // there is nobody to be told
		}
		return
	}
	code, err := run(os.Args[1:])
	cli.Report(os.Stderr, "docker", err)
	if err != nil {
		code = exitOurs
	}
	os.Exit(code)
}

// run is one sudo docker, from who calls to what it ended with.
func run(args []string) (code int, err error) {
	signals := takeSignals()
	folder, theirs := openFolder(), caller.OwnLimits()
	who, groups, err := verified(args)
	if err != nil {
		return 0, err
	}
	path, err := findCLI()
	if err != nil {
		return 0, err
	}
	ours, end, err := newLine()
	if err != nil {
		return 0, err
	}
	terminal := openTerminal()
	ourMask := unix.Umask(theirs.Umask)
	c, err := start(path, args, who, folder, end)
	unix.Umask(ourMask)
	if err != nil {
		return 0, err
	}
	theirs.Give(c.pid)
	s := &session{caller: who, groups: groups, child: c, line: ours, signals: signals, terminal: terminal}
	return s.run()
}

// verified is the caller, or why nothing is done. The names of the groups take a
// little longer: the CLI starts meanwhile.
func verified(args []string) (who *caller.Caller, groups func() ([]string, error), err error) {
	who, groups, err = caller.EnterEarly()
	if err != nil {
		return nil, nil, err
	}
	if who == nil {
		return nil, nil, cli.Errorf(exitOurs, "type: sudo docker"+shown(args), "only sudo can say who calls, and this was not called through it")
	}
	return who, groups, nil
}

// shown is a command line to be typed again, if it is short.
func shown(args []string) (line string) {
	for _, a := range args {
		line += " " + a
	}
	if len(line) > 60 {
		return " …"
	}
	return line
}

// openFolder keeps the caller's working directory: soon this process is not in
// it any more. Where it cannot be opened, the CLI starts in /.
func openFolder() int {
	fd, err := unix.Open(".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
}

// session is a running CLI and what it is served with.
type session struct {
	caller   *caller.Caller
	groups   func() ([]string, error) // names of the caller's
	child    *child
	line     *line
	signals  <-chan os.Signal
	terminal *terminal
}

// ending is how long the gate may take to end what the CLI left behind.
const ending = 20 * time.Second

// run serves the CLI until it has ended, and then ends what it left.
func (s *session) run() (int, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	g := newGate(s.caller)
	go g.open(ctx, s.terminal, s.groups)
	served := make(chan error, 1)
	go func() { served <- s.line.serve(ctx, g, s.child) }()
	go s.child.relay(s.signals)
	go s.terminal.watch(s.child)
	status := s.child.wait(g.pause)
	cancel(errEnded)
	s.terminal.restore(status)
	select {
	case err := <-served:
		g.close()
		if err != nil {
			return 0, err
		}
	case <-time.After(ending):
		return 0, fmt.Errorf("what the CLI left behind did not end in %s", ending)
	}
	return exitCode(status), nil
}

var errEnded = errors.New("the CLI has ended")

// exitCode is the CLI's, or 128 and the signal that ended it.
func exitCode(s unix.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}
