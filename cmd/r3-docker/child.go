package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"jumpsuite/internal/caller"
	"jumpsuite/internal/cli"
	"jumpsuite/internal/installed"
)

// cliName is the unprivileged half, which lies beside this one.
const cliName = "r3-docker-cli"

// findCLI is the path of the CLI, which nobody but root may be able to change.
func findCLI() (string, error) {
	path, err := installed.Beside(cliName)
	if err != nil {
		return "", cli.Errorf(exitOurs, "an administrator installs it: the package does", "%w", err)
	}
	return path, nil
}

// child is the running CLI.
type child struct {
	pid    int
	parent int // this process's, at the start: sudo

	mu     sync.Mutex
	ended  bool                      // its number may be another's
	direct map[syscall.Signal]moment // when signals arrived at it by themselves
}

type moment = time.Time

// start starts the CLI as the caller. Whatever cannot be taken from it is an
// error: Go's own order is groups, gid, uid, working directory, and the first
// that fails ends the attempt.
func start(path string, args []string, who *caller.Caller, folder int, theirs *os.File) (*child, error) {
	defer theirs.Close()
	// The CLI is told to go on when the thread that started it ends: it has to be
	// one that stays.
	runtime.LockOSThread()
	// What the CLI starts gets no more rights than it has. The flag belongs to a
	// thread and goes to its children; nothing in this process needs another.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("start the CLI: no_new_privs: %w", err)
	}
	attr := &syscall.ProcAttr{
		Env:   environment(),
		Files: []uintptr{0, 1, 2, theirs.Fd()},
		Sys: &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: uint32(who.UID), Gid: uint32(who.GID), Groups: numbers(who.GIDs)},
			// It sees its socket end, and ends; what is stopped has to go on to see it.
			Pdeathsig: syscall.SIGCONT,
		},
	}
	argv := append([]string{"docker"}, args...)
	pid, err := startIn(path, argv, attr, folder)
	if err != nil {
		return nil, fmt.Errorf("start the CLI as %s: %w", who.Name, err)
	}
	// A write to the terminal's settings from the background is not to stop us.
	// Only now: what is ignored stays ignored in what is started.
	ignore(syscall.SIGTTOU)
	return &child{pid: pid, parent: unix.Getppid(), direct: map[syscall.Signal]moment{}}, nil
}

// startIn starts in the folder that is open as fd, which the new process enters
// as the caller. Where the caller may not, it starts in /, as with no folder.
func startIn(path string, argv []string, attr *syscall.ProcAttr, folder int) (pid int, err error) {
	attr.Dir = "/"
	if folder >= 0 {
		defer unix.Close(folder)
		attr.Dir = fmt.Sprintf("/proc/self/fd/%d", folder)
	}
	pid, err = syscall.ForkExec(path, argv, attr)
	if err == nil || attr.Dir == "/" {
		return pid, err
	}
	attr.Dir = "/"
	if pid, err = syscall.ForkExec(path, argv, attr); err == nil {
		fmt.Fprintln(os.Stderr, "docker: this folder cannot be entered: relative paths are of /")
	}
	return pid, err
}

// memory is what the CLI may use before it collects garbage: most commands are
// over before that would pay.
const memory = "GOMEMLIMIT=48MiB"

// environment is the CLI's: what is left of the caller's, a PATH, and how it
// treats its memory.
func environment() []string { return append(os.Environ(), "GOGC=off", memory) }

func numbers(gids []int) (out []uint32) {
	for _, g := range gids {
		out = append(out, uint32(g))
	}
	return out
}

// wait waits for the CLI to end. When it is stopped (Ctrl-Z, or reading from the
// terminal in the background), so is this process, because it is the one that
// sudo and the shell know; pause keeps it from stopping while others wait for
// something that it holds.
func (c *child) wait(pause func() (resume func())) unix.WaitStatus {
	for {
		err := unix.Waitid(unix.P_PID, c.pid, nil, unix.WEXITED|unix.WSTOPPED|unix.WNOWAIT, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		s, err := c.reap()
		switch {
		case err != nil: // nobody else waits for it
			return unix.WaitStatus(exitOurs << 8)
		case s.Stopped():
			c.stopped(pause)
		case s.Exited() || s.Signaled():
			return s
		}
	}
}

// reap takes the news of the CLI. Once that is its end, its number may become
// another process's.
func (c *child) reap() (s unix.WaitStatus, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := unix.Wait4(c.pid, &s, unix.WUNTRACED|unix.WNOHANG, nil)
	if n == 0 && err == nil {
		return unix.WaitStatus(0xffff), nil // it was continued meanwhile: no news
	}
	c.ended = err != nil || s.Exited() || s.Signaled()
	return s, err
}

func (c *child) stopped(pause func() (resume func())) {
	resume := pause()
	// When sudo dies nobody would tell us to go on: the kernel does then.
	_ = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGCONT), 0, 0, 0)
	if unix.Getppid() == c.parent {
		// To this very thread: it must not get further before all have stopped.
		_ = unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGSTOP)
	}
	resume()
	if unix.Getppid() != c.parent {
		c.kill(syscall.SIGHUP)
	}
	// It goes on with us, also when only we have been told to.
	c.kill(syscall.SIGCONT)
}

// kill sends the CLI a signal, if it still runs.
func (c *child) kill(s syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		_ = unix.Kill(c.pid, s)
	}
}
