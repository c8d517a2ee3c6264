package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"jumpsuite/dockerproxy"
	"jumpsuite/internal/audit"
)

// Docker has no way to end an exec's process. The gate in here does it, when the
// CLI is gone; but when this process is killed itself (kill -9, out of memory),
// nobody would. So the first exec starts an undertaker: this binary once more,
// in a session of its own, at the other end of a pipe. It is told of each exec
// that begins and ends, and ends what is left when the pipe does.

// undertakerName is what it is called, in argv[0]; sudo lets nobody choose that.
const undertakerName = "r3-docker-undertaker"

// note is a line in the pipe.
type note struct {
	Begun *dockerproxy.Running `json:",omitempty"`
	Over  string               `json:",omitempty"` // the exec's id
}

// undertaker is the pipe to it.
type undertaker struct {
	mu   sync.Mutex
	pipe *os.File
}

// begun tells it of an exec. Where it cannot be had, the exec goes on without.
func (u *undertaker) begun(r dockerproxy.Running) (over func()) {
	if err := u.tell(note{Begun: &r}); err != nil {
		return func() {}
	}
	return func() { _ = u.tell(note{Over: r.Exec}) }
}

func (u *undertaker) tell(n note) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.pipe == nil {
		pipe, err := startUndertaker()
		if err != nil {
			return err
		}
		u.pipe = pipe
	}
	return json.NewEncoder(u.pipe).Encode(n)
}

func startUndertaker() (*os.File, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		write.Close()
		return nil, err
	}
	defer null.Close()
	_, err = syscall.ForkExec("/proc/self/exe", []string{undertakerName}, &syscall.ProcAttr{
		Dir:   "/",
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), read.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true}, // out of reach of what the terminal sends
	})
	if err != nil {
		write.Close()
		return nil, fmt.Errorf("start the undertaker: %w", err)
	}
	return write, nil
}

// undertake is the undertaker's life: it waits until the pipe ends, and then
// ends what is left.
func undertake(pipe io.Reader) error {
	left := map[string]dockerproxy.Running{}
	lines := json.NewDecoder(bufio.NewReader(pipe))
	for {
		var n note
		if lines.Decode(&n) != nil {
			break // it ends, or was cut off in the middle of a line
		}
		delete(left, n.Over)
		if n.Begun != nil {
			left[n.Begun.Exec] = *n.Begun
		}
	}
	if len(left) == 0 {
		return nil
	}
	return bury(left)
}

func bury(left map[string]dockerproxy.Running) error {
	log, err := audit.OpenLog(audit.Options{})
	if err != nil {
		return err
	}
	defer log.Close()
	gate := &dockerproxy.Gate{Engine: dialEngine, Record: log.Record, Processes: true}
	var each sync.WaitGroup
	for _, r := range left {
		each.Go(func() { gate.EndExec(context.Background(), r) })
	}
	each.Wait()
	return nil
}
