package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"jumpsuite/dockerproxy"
)

// The words of the two halves, a byte each at the start of a packet. The
// unprivileged half has the same.
const (
	askConnection = 'c' // answered by the same, with a connection; without one: none can be had
	tellSignal    = 's' // followed by the number of a signal that arrived there
)

// line is the socket to the CLI. It has no name that anybody else could find.
type line struct{ conn *net.UnixConn }

// newLine makes both ends.
func newLine() (ours *line, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket to the CLI: %w", err)
	}
	conn, err := connOf(fds[0])
	if err != nil {
		unix.Close(fds[1])
		return nil, nil, err
	}
	return &line{conn}, os.NewFile(uintptr(fds[1]), "line"), nil
}

// connOf takes a socket over as a connection.
func connOf(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("take over a socket: %w", err)
	}
	return c.(*net.UnixConn), nil // it was made as one
}

// serve does what the CLI asks for until it ends, and returns when all its
// connections have. If the gate cannot be opened, the first connection that is
// asked for ends the CLI; who asks for none, as the help, does not need it.
func (l *line) serve(ctx context.Context, g *lazyGate, c *child) error {
	defer l.conn.Close()
	var open sync.WaitGroup
	defer open.Wait()
	var word [2]byte
	for {
		n, _, _, _, err := l.conn.ReadMsgUnix(word[:], nil)
		if err != nil || n == 0 {
			return nil // the CLI has ended
		}
		switch {
		case word[0] == tellSignal && n == 2:
			c.heard(syscall.Signal(word[1]))
		case word[0] == askConnection:
			gate, err := g.ready()
			if err != nil {
				c.kill(syscall.SIGKILL)
				return err
			}
			l.connect(ctx, g.caller(), gate, &open)
		}
	}
}

// connect makes a connection, serves one end and hands over the other.
func (l *line) connect(ctx context.Context, who dockerproxy.Caller, gate server, open *sync.WaitGroup) {
	ours, theirs, err := pair()
	if err != nil {
		_, _ = l.conn.Write([]byte{askConnection}) // none: the CLI says so
		return
	}
	_, _, err = l.conn.WriteMsgUnix([]byte{askConnection}, unix.UnixRights(theirs), nil)
	unix.Close(theirs)
	if err != nil {
		ours.Close()
		return
	}
	open.Go(func() { gate.ServeConn(ctx, ours, who) })
}

func pair() (ours *net.UnixConn, theirs int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, fmt.Errorf("make a connection: %w", err)
	}
	ours, err = connOf(fds[0])
	if err != nil {
		err = errors.Join(err, unix.Close(fds[1]))
	}
	return ours, fds[1], err
}
