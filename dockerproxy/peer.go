package dockerproxy

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// PeerUID is the user id of the process that connected a unix socket, as the
// kernel noted it then.
func PeerUID(conn net.Conn) (int, error) {
	sc, ok := conn.(syscall.Conn)
	if !ok || conn.LocalAddr().Network() != "unix" {
		return 0, errors.New("only a unix socket says who connected it")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("ask who connected: %w", err)
	}
	var cred *unix.Ucred
	if err2 := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err2 != nil {
		err = err2
	}
	if err != nil {
		return 0, fmt.Errorf("ask who connected: %w", err)
	}
	return int(cred.Uid), nil
}
