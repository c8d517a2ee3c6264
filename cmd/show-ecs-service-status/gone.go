package main

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// goneTimeout is how long one poll lasts, in milliseconds: how late the end of
// a watch is noticed here, where nothing depends on it.
const goneTimeout = 500

// untilGone ends a watch when the reader of its output has gone: without a
// change there is no write that would fail.
func untilGone(ctx context.Context, out io.Writer, cancel context.CancelCauseFunc) {
	f, ok := out.(*os.File)
	if !ok {
		return
	}
	fds := []unix.PollFd{{Fd: int32(f.Fd())}}
	for ctx.Err() == nil {
		n, err := unix.Poll(fds, goneTimeout)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return
		}
		if n > 0 {
			cancel(syscall.EPIPE)
			return
		}
	}
}
