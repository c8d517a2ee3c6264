package listen

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
)

// listener tells errors, one after the other, and then has a connection.
type listener struct {
	net.Listener
	errors []error
}

func (l *listener) Accept() (net.Conn, error) {
	if len(l.errors) == 0 {
		conn, other := net.Pipe()
		other.Close()
		return conn, nil
	}
	err := l.errors[0]
	l.errors = l.errors[1:]
	return nil, err
}

func failed(err error) error {
	return &net.OpError{Op: "accept", Net: "unix", Err: os.NewSyscallError("accept4", err)}
}

func TestWhatPassesIsWaitedOut(t *testing.T) {
	for _, shortage := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EHOSTUNREACH, syscall.EPERM} {
		conn, err := Accept(t.Context(), &listener{errors: []error{failed(shortage), failed(shortage)}})
		if err != nil {
			t.Errorf("after %v: %v", shortage, err)
			continue
		}
		conn.Close()
	}
}

func TestWhatStaysIsTold(t *testing.T) {
	for _, want := range []error{net.ErrClosed, syscall.EINVAL, syscall.EBADF, syscall.EOPNOTSUPP} {
		if conn, err := Accept(t.Context(), &listener{errors: []error{failed(want)}}); !errors.Is(err, want) || conn != nil {
			t.Errorf("got %v, %v, want %v", conn, err, want)
		}
	}
}

func TestAShortageIsNotWaitedOutForEver(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Accept(ctx, &listener{errors: []error{failed(syscall.EMFILE)}}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
