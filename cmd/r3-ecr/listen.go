package main

import (
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"jumpsuite/internal/cli"
)

// firstPassed is the first file descriptor that systemd passes (sd_listen_fds(3)).
const firstPassed = 3

// listener is the socket that systemd has passed, or else one of our own.
func (o options) listener() (net.Listener, error) {
	if os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) {
		return passed(os.Getenv("LISTEN_FDS"))
	}
	return o.own()
}

// passed is the socket that was passed. Its owner and mode are what its unit says.
func passed(count string) (net.Listener, error) {
	if count != "1" {
		return nil, cli.Errorf(cli.ExitConfig, "write one ListenStream= into r3-ecr.socket", "%q sockets were passed, not one", count)
	}
	unix.CloseOnExec(firstPassed)
	f := os.NewFile(firstPassed, "passed socket")
	defer f.Close() // the listener has a descriptor of its own
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("use the socket that was passed: %w", err)
	}
	if _, ok := l.(*net.UnixListener); !ok {
		l.Close()
		return nil, cli.Errorf(cli.ExitConfig, "write a path into ListenStream= in r3-ecr.socket", "the socket that was passed is no unix socket: %s", l.Addr())
	}
	return l, nil
}

// own makes the socket. The mask makes it ours alone until its mode is set. What
// a former run left is replaced; a socket that somebody serves is not.
func (o options) own() (net.Listener, error) {
	if conn, err := net.Dial("unix", o.listen); err == nil {
		conn.Close()
		return nil, cli.Errorf(cli.ExitUnavailable, "is r3-ecr running already?", "%s is in use", o.listen)
	}
	if info, err := os.Lstat(o.listen); err == nil && info.Mode().Type() == os.ModeSocket {
		if err := os.Remove(o.listen); err != nil {
			return nil, fmt.Errorf("replace the socket of a former run: %w", err)
		}
	}
	former := unix.Umask(0o177)
	l, err := net.Listen("unix", o.listen)
	unix.Umask(former)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if err := os.Chmod(o.listen, o.mode); err != nil {
		l.Close()
		return nil, fmt.Errorf("let others connect: %w", err)
	}
	return l, nil
}
