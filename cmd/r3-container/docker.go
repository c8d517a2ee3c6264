package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"jumpsuite/internal/access"
	"jumpsuite/internal/caller"
	"jumpsuite/internal/cli"
	"jumpsuite/internal/installed"
)

// Hosts are reached through sudo docker, and in no other way: this program starts
// what sudo starts when the caller types it, with arguments of its own and as
// the same caller. So the policy, both gates, the log, caps, leases and the reaper
// are what they are for him, and nothing here is trusted with more.

// sudoDocker is sudo docker, as a caller.
type sudoDocker struct {
	path   string
	caller *caller.Caller
}

// findDocker finds it for an environment whose hosts are reached from here. Its
// error says why there is none.
func findDocker(way *access.Access) (*sudoDocker, error) {
	if way.Caller == nil {
		return nil, cli.Errorf(cli.ExitNotAllowed, "call it through sudo", "docker hosts are reached through sudo only, and this was not called through it")
	}
	if !way.ReachesHosts() {
		return nil, cli.Errorf(cli.ExitConfig, "", "the hosts of %s are not reached from here: the policy does not say reach: ssm of it", way.Environment)
	}
	path, err := installed.Find("r3-docker")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, cli.Errorf(cli.ExitConfig, "", "sudo docker (r3-docker) is not installed here")
	}
	if err != nil {
		return nil, cli.Errorf(cli.ExitConfig, "an administrator installs it: the package does", "sudo docker is not run: %w", err)
	}
	return &sudoDocker{path: path, caller: way.Caller}, nil
}

// environment is what sudo would leave there: who calls. Anything else of the
// caller's was taken away when this process began.
func (d *sudoDocker) environment() []string {
	return append(os.Environ(), "SUDO_UID="+strconv.Itoa(d.caller.UID), "SUDO_GID="+strconv.Itoa(d.caller.GID), "SUDO_USER="+d.caller.Name)
}

// patience is how long a command that was told to end may take to do so.
const patience = 2 * time.Second

// say runs a command that takes no input, and returns the end of what it says:
// no more than the last bytes of so many. If it fails, that is the error.
func (d *sudoDocker) say(ctx context.Context, most int, args ...string) (string, error) {
	said := &ending{most: most}
	cmd := exec.CommandContext(ctx, d.path, args...)
	cmd.Args[0], cmd.Dir, cmd.Env = "docker", "/", d.environment()
	cmd.Stdout, cmd.Stderr = said, said // one pipe: the lines stay in order
	// A Ctrl-C at the terminal is about what goes on here, and not about this.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = patience
	err := cmd.Run()
	if ctx.Err() != nil {
		return "", errors.New("sudo docker does not answer in time")
	}
	if err != nil {
		return "", errors.New(lastWords(said.String(), err))
	}
	return said.String(), nil
}

// lastWords is what a command said when it failed, as one line; if nothing, how it
// ended.
func lastWords(said string, err error) string {
	words := strings.Join(strings.FieldsFunc(said, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	if words == "" {
		return fmt.Sprintf("sudo docker: %v", err)
	}
	return words
}

// ending keeps the last bytes that are written to it.
type ending struct {
	most int
	mu   sync.Mutex
	kept []byte
}

// Write keeps what may be among the last bytes.
func (e *ending) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.kept = append(e.kept, p...)
	if over := len(e.kept) - 2*e.most; over > 0 {
		e.kept = append([]byte(nil), e.kept[len(e.kept)-e.most:]...)
	}
	return len(p), nil
}

// String is the last bytes.
func (e *ending) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return string(e.kept[max(0, len(e.kept)-e.most):])
}
