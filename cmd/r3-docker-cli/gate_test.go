package main

import (
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// other is the other half's end of a gate.
func other(t *testing.T) (*gate, *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[1]), "other")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	g, err := openGate(fds[0])
	if err != nil {
		t.Fatal(err)
	}
	return g, c.(*net.UnixConn)
}

func TestAConnectionIsHandedOver(t *testing.T) {
	g, theirs := other(t)
	go func() {
		var word [2]byte
		theirs.Read(word[:])
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil || word[0] != askConnection {
			theirs.Close()
			return
		}
		theirs.WriteMsgUnix([]byte{askConnection}, unix.UnixRights(fds[1]), nil)
		unix.Write(fds[0], []byte("hello"))
		unix.Close(fds[0])
		unix.Close(fds[1])
	}()
	c, err := g.dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if b, err := io.ReadAll(c); string(b) != "hello" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestWithoutTheOtherHalfThereIsNoConnection(t *testing.T) {
	g, theirs := other(t)
	done := make(chan struct{})
	go g.whenGone(func() { close(done) })
	theirs.Close()
	<-done
	if _, err := g.dial(t.Context(), "", ""); err != errGateGone {
		t.Errorf("got %v, want %v", err, errGateGone)
	}
	g.tell(syscall.SIGINT) // nobody to tell is no reason to end
}

func TestAnAnswerWithoutAConnectionIsAnError(t *testing.T) {
	g, theirs := other(t)
	go func() {
		var word [2]byte
		theirs.Read(word[:])
		theirs.Write([]byte{askConnection})
	}()
	if _, err := g.dial(t.Context(), "", ""); err == nil || !strings.Contains(err.Error(), "no connection to give") {
		t.Errorf("got %v", err)
	}
}

func TestOnlyTheSocketOfTheOtherHalfIsTaken(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	for name, fd := range map[string]int{"a stream": fds[0], "nothing": 1 << 20, "standard input": 0} {
		if _, err := openGate(fd); err != errNotStarted {
			t.Errorf("%s: got %v, want %v", name, err, errNotStarted)
		}
	}
}
