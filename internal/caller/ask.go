package caller

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// question is one of the system's tools that was started, and has not answered
// yet. Every command pays for two or three: os/exec would find out first what the
// kernel can do, with a process of its own, and start goroutines for each.
type question struct {
	err error // why it was not started
	out *os.File

	mu    sync.Mutex
	pid   int
	ended bool // its number may be another's
}

// ask starts a tool, with nothing of ours in its environment. Its answer has to be
// fetched.
func ask(path string, args ...string) *question {
	out, theirs, err := os.Pipe()
	if err != nil {
		return &question{err: err}
	}
	defer theirs.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		out.Close()
		return &question{err: err}
	}
	defer null.Close()
	pid, err := syscall.ForkExec(path, append([]string{path}, args...), &syscall.ProcAttr{
		Dir: "/", Env: []string{}, Files: []uintptr{null.Fd(), theirs.Fd(), null.Fd()},
	})
	if err != nil {
		out.Close()
		return &question{err: err}
	}
	return &question{out: out, pid: pid}
}

// maxAnswer of a tool, in bytes: a user in thousands of groups fits.
const maxAnswer = 1 << 20

var (
	errTooLong = errors.New("answer too long")
	errTooLate = errors.New("no answer in time")
)

// exitStatus is a tool that ended with another code than 0.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// answer is what the tool says, once it has ended well. It is called once. When ctx
// ends before that, so does the tool.
func (q *question) answer(ctx context.Context) (string, error) {
	if q.err != nil {
		return "", q.err
	}
	defer q.out.Close()
	defer context.AfterFunc(ctx, func() {
		q.kill()
		q.out.SetReadDeadline(time.Unix(1, 0)) // another process may have its output
	})()
	text, err := io.ReadAll(io.LimitReader(q.out, maxAnswer+1))
	if err != nil || len(text) > maxAnswer {
		q.kill()
	}
	status, waitErr := q.wait()
	switch {
	case len(text) > maxAnswer:
		return "", errTooLong
	case ctx.Err() != nil:
		return "", errTooLate
	case err != nil || waitErr != nil:
		return "", errors.Join(err, waitErr)
	case status.Signaled():
		return "", fmt.Errorf("ended by signal %d", status.Signal())
	case status.ExitStatus() != 0:
		return "", exitStatus(status.ExitStatus())
	}
	return string(text), nil
}

// wait waits for the tool's end. Its number is its own until it is reaped.
func (q *question) wait() (status unix.WaitStatus, err error) {
	for {
		err = unix.Waitid(unix.P_PID, q.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			break
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	if err == nil {
		_, err = unix.Wait4(q.pid, &status, 0, nil)
	}
	return status, err
}

func (q *question) kill() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.ended {
		_ = unix.Kill(q.pid, unix.SIGKILL)
	}
}
