package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// goneTimeout is how long one poll lasts, in milliseconds: how late the end of a
// context is noticed by UntilGone, where nothing depends on it.
const goneTimeout = 500

// UntilGone waits until nobody reads what is written to w any more, and calls gone
// with what a write would meet: EPIPE of a pipe, EIO of a terminal. It writes
// nothing. It returns without a call when ctx ends, or when w is no file that
// could tell.
func UntilGone(ctx context.Context, w io.Writer, gone func(error)) {
	f, ok := w.(*os.File)
	if !ok {
		return
	}
	fds := []unix.PollFd{{Fd: int32(f.Fd())}} // POLLERR and POLLHUP are always told (poll(2))
	for ctx.Err() == nil {
		n, err := unix.Poll(fds, goneTimeout)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if n > 0 {
			found(fds[0].Revents, gone)
			return
		}
	}
}

// found calls gone for what poll has found: a pipe without a reader is an error
// (POLLERR), a terminal without a person is hung up (POLLHUP too), and a
// descriptor that is not open (POLLNVAL) tells nothing.
func found(events int16, gone func(error)) {
	switch {
	case events&unix.POLLNVAL != 0:
	case events&unix.POLLHUP != 0:
		gone(syscall.EIO)
	default:
		gone(syscall.EPIPE)
	}
}
