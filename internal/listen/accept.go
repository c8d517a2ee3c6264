package listen

import (
	"context"
	"errors"
	"net"
	"slices"
	"syscall"
	"time"
)

// shortagePause is how long a shortage is waited out before the next try.
const shortagePause = 50 * time.Millisecond

// shortages are what accept(2) tells that passes: no more file descriptors, here or
// on the whole machine, and no memory. The connection stays in the queue.
var shortages = []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM}

// Accept waits for the next connection, and waits shortages out: a daemon that
// ended for want of a file descriptor would leave everybody outside. When ctx ends
// during a shortage the error is its own; closing l ends Accept otherwise.
func Accept(ctx context.Context, l net.Listener) (net.Conn, error) {
	for {
		conn, err := l.Accept()
		if err == nil || !isShortage(err) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(shortagePause):
		}
	}
}

func isShortage(err error) bool {
	return slices.ContainsFunc(shortages, func(e syscall.Errno) bool { return errors.Is(err, e) })
}
