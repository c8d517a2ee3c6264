package listen

import (
	"context"
	"errors"
	"net"
	"slices"
	"syscall"
	"time"
)

// pause is how long what passes is waited out before the next try.
const pause = 50 * time.Millisecond

// passing are what accept(2) tells that passes: no more file descriptors, here or
// on the whole machine, no memory, and what the network has done to one connection
// that was waiting.
var passing = []syscall.Errno{
	syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
	syscall.ENETDOWN, syscall.EPROTO, syscall.ENOPROTOOPT, syscall.EHOSTDOWN, syscall.ENONET,
	syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EPERM,
}

// Accept waits for the next connection, and waits out what passes: a daemon that
// ended for want of a file descriptor would leave everybody outside. When ctx ends
// meanwhile the error is its own; closing l ends Accept otherwise.
func Accept(ctx context.Context, l net.Listener) (net.Conn, error) {
	for {
		conn, err := l.Accept()
		if err == nil || !passes(err) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

func passes(err error) bool {
	return slices.ContainsFunc(passing, func(e syscall.Errno) bool { return errors.Is(err, e) })
}
