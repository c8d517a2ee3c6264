package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"jumpsuite/internal/caller"
	"jumpsuite/internal/cli"
)

// become makes this process the command, on the terminal and with the limits that
// the caller had. It returns only if that cannot be.
func (d *sudoDocker) become(theirs *caller.Limits, args ...string) error {
	if err := theirs.Restore(); err != nil {
		return fmt.Errorf("run sudo docker: %w", err)
	}
	err := syscall.Exec(d.path, append([]string{"docker"}, args...), d.environment())
	return cli.Errorf(cli.ExitConfig, "", "run %s: %w", d.path, err)
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
