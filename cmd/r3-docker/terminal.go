package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"jumpsuite/internal/cli"
)

// terminal is the terminal that the CLI was started on, if it was.
type terminal struct {
	fd    int         // -1: none of the three streams is one
	state *term.State // at the start
	said  sync.Map    // what it was told already
}

// openTerminal finds the terminal among the three streams and keeps it, with
// its state: the CLI changes that, and may die before it changes it back.
func openTerminal() *terminal {
	for fd := range 3 {
		if !term.IsTerminal(fd) {
			continue
		}
		kept, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			continue
		}
		state, err := term.GetState(kept)
		if err != nil {
			state = nil
		}
		return &terminal{fd: kept, state: state}
	}
	return &terminal{fd: -1}
}

// hangup is how long a CLI may take to end once its terminal is gone.
const hangup = 5 * time.Second

// watch ends the CLI when the terminal vanishes. It would get no signal where
// the terminal does not control it, and notice nothing while it has nothing to
// print.
func (t *terminal) watch(c *child) {
	if t.fd < 0 {
		return
	}
	fds := []unix.PollFd{{Fd: int32(t.fd)}} // POLLHUP is reported unasked
	for {
		n, err := unix.Poll(fds, -1)
		if err == unix.EINTR || err == nil && n == 0 {
			continue
		}
		break
	}
	c.kill(syscall.SIGHUP)
	c.kill(syscall.SIGCONT)
	time.AfterFunc(hangup, func() { c.kill(syscall.SIGKILL) })
}

// restore puts the terminal back into the state that it had, if a signal ended
// the CLI: else the CLI has. In the background it is somebody else's by now.
func (t *terminal) restore(s unix.WaitStatus) {
	if t.state == nil || !s.Signaled() {
		return
	}
	front, err := unix.IoctlGetInt(t.fd, unix.TIOCGPGRP)
	if err == nil && front == unix.Getpgrp() {
		_ = term.Restore(t.fd, t.state)
	}
}

// say tells the person something beside the CLI's output, once: what ends a command
// may end all of its streams. In raw mode a line has to be ended by hand.
func (t *terminal) say(text string) {
	if _, already := t.said.LoadOrStore(text, true); already {
		return
	}
	end := "\n"
	if t.fd >= 0 {
		end = "\r\n"
	}
	fmt.Fprint(os.Stderr, "docker: "+strings.ReplaceAll(cli.Printable(text), "\n", end)+end)
}
