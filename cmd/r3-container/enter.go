package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"jumpsuite/internal/cli"
)

// become makes this process the command, on the terminal and with the limits that
// the caller had. It returns only if that cannot be.
func (d *sudoDocker) become(theirs *ulimits, args ...string) error {
	if err := theirs.restore(); err != nil {
		return fmt.Errorf("run sudo docker: %w", err)
	}
	err := syscall.Exec(d.path, append([]string{"docker"}, args...), d.environment())
	return cli.Errorf(cli.ExitConfig, "", "run %s: %w", d.path, err)
}

// ulimits are what sudo docker leaves to the CLI of the caller's own.
type ulimits struct {
	umask     int
	resources map[int]unix.Rlimit
}

// ownLimits notes them, before this process gives itself others.
func ownLimits() *ulimits {
	l := &ulimits{umask: unix.Umask(0), resources: map[int]unix.Rlimit{}}
	unix.Umask(l.umask)
	for _, r := range []int{unix.RLIMIT_FSIZE, unix.RLIMIT_CPU, unix.RLIMIT_NOFILE} {
		var v unix.Rlimit
		if unix.Getrlimit(r, &v) == nil {
			l.resources[r] = v
		}
	}
	return l
}

func (l *ulimits) restore() error {
	unix.Umask(l.umask)
	for r, v := range l.resources {
		if err := unix.Setrlimit(r, &v); err != nil {
			return fmt.Errorf("restore limit %d: %w", r, err)
		}
	}
	return nil
}

// environmentFile is where the caller's docker CLI reads the environment: a file in
// memory that it inherits. On a command line everybody on this machine could read it,
// and on a disk it would stay. Without variables there is none.
func environmentFile(list []string) (path string, err error) {
	if len(list) == 0 {
		return "", nil
	}
	fd, err := unix.MemfdCreate("environment", unix.MFD_CLOEXEC)
	if err != nil {
		return "", fmt.Errorf("hand the environment over: %w", err)
	}
	f := os.NewFile(uintptr(fd), "environment")
	defer f.Close()
	if _, err := io.WriteString(f, strings.Join(list, "\n")+"\n"); err != nil {
		return "", fmt.Errorf("hand the environment over: %w", err)
	}
	// Without close-on-exec, and where neither half of sudo docker puts a file of its own.
	kept, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD, inherited)
	if err != nil {
		return "", fmt.Errorf("hand the environment over: %w", err)
	}
	return fmt.Sprintf("/proc/self/fd/%d", kept), nil
}

// inherited is the least number of the descriptor that the CLI inherits: it has its
// three streams and a socket below.
const inherited = 10
