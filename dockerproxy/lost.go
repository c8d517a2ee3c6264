package dockerproxy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"jumpsuite/internal/audit"
)

// Docker has no way to end an exec's process: it outlives a client that is gone.
// Where the gate is on the host, it ends it.

const (
	asideTime = 10 * time.Second // for what is still to be done when a caller is gone
	termGrace = 3 * time.Second  // from a request to end to a demand
	exitTries = 20               // to learn an exit code, 25 ms each
)

// aside is an exchange of the gate's own, about the same thing but with a
// connection and a time of its own.
func (x *exchange) aside() (*exchange, func()) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.ctx), asideTime)
	y := &exchange{ctx: ctx, gate: x.gate, conn: &connection{gate: x.gate, caller: x.conn.caller}, op: x.op, req: x.req, event: x.event}
	return y, func() { cancel(); y.conn.close() }
}

// afterExec finds out how an exec ended, and ends what its caller left running.
func (x *exchange) afterExec(e *execution, why error) audit.Result {
	if x.gate.FarGate {
		return x.endFar(e, why)
	}
	y, done := x.aside()
	defer done()
	var r audit.Result
	s, err := y.execEnd(e, why == nil)
	switch {
	case err != nil:
		x.gate.log().Warn("how an exec ended is not known", "exec", e.id, "err", err)
	case !s.Running:
		if s.ExitCode != nil {
			r.Exit = *s.ExitCode
		}
	case why != nil:
		r.Signal = y.endExec(e, s)
	}
	return r
}

// execEnd asks for the exec's state; where it ended by itself, until the Engine
// knows that too; where it runs, until the Engine knows as which process.
func (x *exchange) execEnd(e *execution, over bool) (s execState, err error) {
	for range exitTries {
		s, err = x.execState(e.id)
		if err != nil || !s.Running || !over && s.Pid > 0 {
			return s, err
		}
		select {
		case <-x.ctx.Done():
			return s, x.ctx.Err()
		case <-time.After(25 * time.Millisecond):
		}
	}
	return s, err
}

// endExec ends the process of an exec, or logs it as an orphan. It returns the
// signal that ended it.
func (x *exchange) endExec(e *execution, s execState) string {
	signal, err := x.signalExec(e, s)
	if err == nil {
		return signal
	}
	ev := x.event
	ev.Kind, ev.Time = audit.Change, time.Now()
	ev.Detail = fmt.Sprintf("orphan: process %d of exec %s goes on in the container: %v", s.Pid, e.id[:12], err)
	if err := x.gate.Record(&ev); err != nil {
		x.gate.log().Error("an orphan is not on record", "exec", e.id, "err", err)
	}
	x.gate.log().Warn("an exec's process was left running", "exec", e.id, "pid", s.Pid, "err", err)
	return ""
}

var errElsewhere = errors.New("the gate is not where the Engine's processes are")

// signalExec ends the process. A pidfd is opened first and checked afterwards:
// if the Engine then still says that the exec runs as this process, and the
// process is in the container, it is the right one and stays so.
func (x *exchange) signalExec(e *execution, s execState) (string, error) {
	if !x.gate.Processes || s.Pid <= 1 {
		return "", errElsewhere
	}
	fd, err := unix.PidfdOpen(s.Pid, 0)
	if err != nil {
		return "", fmt.Errorf("open process %d: %w", s.Pid, err)
	}
	defer unix.Close(fd)
	again, err := x.execState(e.id)
	if err != nil {
		return "", err
	}
	if !again.Running {
		return "", nil
	}
	if again.Pid != s.Pid || !inContainer(s.Pid, e.container) {
		return "", errElsewhere
	}
	return endProcess(x.ctx, fd, e.tty)
}

// inContainer reports whether a process is in a container's cgroup.
func inContainer(pid int, id string) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	return err == nil && strings.Contains(string(b), id)
}

// endProcess asks a process to end as its terminal would, and then makes it.
func endProcess(ctx context.Context, pidfd int, terminal bool) (string, error) {
	signals := []struct {
		name string
		sig  unix.Signal
	}{{"TERM", unix.SIGTERM}, {"KILL", unix.SIGKILL}}
	if terminal {
		signals[0].name, signals[0].sig = "HUP", unix.SIGHUP
	}
	for _, s := range signals {
		if err := unix.PidfdSendSignal(pidfd, s.sig, nil, 0); err != nil {
			if err == unix.ESRCH {
				return s.name, nil
			}
			return "", fmt.Errorf("signal the process: %w", err)
		}
		if ends(ctx, pidfd, termGrace) {
			return s.name, nil
		}
	}
	return "", errors.New("the process does not end")
}

// ends reports whether a process ends within d: a pidfd becomes readable then.
func ends(ctx context.Context, pidfd int, d time.Duration) bool {
	const step = 50 * time.Millisecond
	for ; d > 0 && ctx.Err() == nil; d -= step {
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(step.Milliseconds()))
		if n > 0 && err == nil {
			return true
		}
	}
	return false
}
