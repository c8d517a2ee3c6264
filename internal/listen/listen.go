// Package listen makes the unix socket that a daemon of ours answers on, the one
// that systemd has passed or one of its own, and takes connections from it.
package listen

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"jumpsuite/internal/cli"
)

// firstPassed is the first file descriptor that systemd passes (sd_listen_fds(3)).
const firstPassed = 3

// Passed reports whether systemd has passed sockets to this process.
func Passed() bool { return os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) }

// Replaced reports whether another program is where this one was started from, as
// after an upgrade, and systemd has the sockets: a process that ends then, when
// nothing is open in it, keeps nobody waiting, and the next one is the new one.
func Replaced() bool {
	exe, err := os.Readlink("/proc/self/exe")
	return err == nil && Passed() && strings.HasSuffix(exe, " (deleted)") // proc(5)
}

// Unix is the socket that systemd has passed, or else one of our own at path,
// with that mode. name is the command's, for errors.
func Unix(name, path string, mode os.FileMode) (net.Listener, error) {
	if Passed() {
		return passed(name, os.Getenv("LISTEN_FDS"))
	}
	return own(name, path, mode)
}

// All are the sockets that systemd has passed to a command that serves several.
func All(name string) ([]net.Listener, error) {
	count, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || count < 1 || count > 64 {
		return nil, cli.Errorf(cli.ExitConfig, "write ListenStream= into "+name+".socket", "%q sockets were passed", os.Getenv("LISTEN_FDS"))
	}
	var all []net.Listener
	for fd := firstPassed; fd < firstPassed+count; fd++ {
		unix.CloseOnExec(fd)
		f := os.NewFile(uintptr(fd), "passed socket")
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("use the sockets that were passed: %w", err)
		}
		all = append(all, l)
	}
	return all, nil
}

// passed is the socket that was passed. Its owner and mode are what its unit says.
func passed(name, count string) (net.Listener, error) {
	if count != "1" {
		return nil, cli.Errorf(cli.ExitConfig, "write one ListenStream= into "+name+".socket", "%q sockets were passed, not one", count)
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
		return nil, cli.Errorf(cli.ExitConfig, "write a path into ListenStream= in "+name+".socket", "the socket that was passed is no unix socket: %s", l.Addr())
	}
	return l, nil
}

// own makes the socket. The mask makes it ours alone until its mode is set. What
// a former run left is replaced; a socket that somebody serves is not.
func own(name, path string, mode os.FileMode) (net.Listener, error) {
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, cli.Errorf(cli.ExitUnavailable, "is "+name+" running already?", "%s is in use", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == os.ModeSocket {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("replace the socket of a former run: %w", err)
		}
	}
	former := unix.Umask(0o177)
	l, err := net.Listen("unix", path)
	unix.Umask(former)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if err := os.Chmod(path, mode); err != nil {
		l.Close()
		return nil, fmt.Errorf("let others connect: %w", err)
	}
	return l, nil
}
