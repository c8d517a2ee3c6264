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
	inside, outside *os.File
}

// openNamespace opens the network namespace of a process.
func openNamespace(pid int) (*namespace, error) {
	inside, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return nil, err
	}
	outside, err := os.Open("/proc/self/ns/net")
	if err != nil {
		inside.Close()
		return nil, err
	}
	return &namespace{inside: inside, outside: outside}, nil
}

func (n *namespace) close() {
	n.inside.Close()
	n.outside.Close()
}

// do runs f in the namespace, on a thread that nothing else uses meanwhile. A
// socket belongs to the namespace that it was made in, so what f opens can be
// used anywhere afterwards.
func (n *namespace) do(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(n.inside.Fd()), unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			result <- fmt.Errorf("enter the network namespace of a Docker Engine: %w", err)
			return
		}
		err := f()
		back := unix.Setns(int(n.outside.Fd()), unix.CLONE_NEWNET)
		if back == nil {
			runtime.UnlockOSThread()
		} // else the thread stays locked, and ends with this goroutine
		result <- errors.Join(err, back)
	}()
	return <-result
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
