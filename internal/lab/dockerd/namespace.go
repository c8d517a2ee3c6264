package dockerd

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace that code can be run in.
type namespace struct {
	file *os.File
}

// openNamespace opens the network namespace of a process.
func openNamespace(pid int) (*namespace, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return nil, err
	}
	return &namespace{file: f}, nil
}

func (n *namespace) close() { n.file.Close() }

// do runs f in the namespace, on a thread that nothing else uses meanwhile. A
// socket belongs to the namespace that it was made in, so what f opens can be
// used anywhere afterwards.
func (n *namespace) do(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread is the one that /proc/self and /proc/PID speak of.
			// It waits; another one does it.
			defer runtime.UnlockOSThread()
			result <- n.do(f)
			return
		}
		back, err := n.enter()
		if err != nil {
			runtime.UnlockOSThread()
			result <- err
			return
		}
		err = f()
		outside := back()
		if outside == nil {
			runtime.UnlockOSThread()
		} // else the thread stays locked, and ends with this goroutine
		result <- errors.Join(err, outside)
	}()
	return <-result
}

// enter moves this thread into the namespace, and back to where it was: which
// only the thread itself can say, /proc/self is another one.
func (n *namespace) enter() (back func() error, err error) {
	outside, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		outside.Close()
		return nil, fmt.Errorf("enter the network namespace of a Docker Engine: %w", err)
	}
	return func() error {
		defer outside.Close()
		return unix.Setns(int(outside.Fd()), unix.CLONE_NEWNET)
	}, nil
}

// loopbackUp switches lo on: a new namespace has it, down.
func (n *namespace) loopbackUp() error {
	return n.do(func() error {
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(s)
		lo, err := unix.NewIfreq("lo")
		if err != nil {
			return err
		}
		if err := unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, lo); err != nil {
			return fmt.Errorf("read the flags of lo: %w", err)
		}
		lo.SetUint16(lo.Uint16() | unix.IFF_UP)
		if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo); err != nil {
			return fmt.Errorf("switch lo on: %w", err)
		}
		return nil
	})
}
