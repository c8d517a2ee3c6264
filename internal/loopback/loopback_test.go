package loopback

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
)

func pair(t *testing.T, address string) (here, there net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Skipf("listen on %s: %v", address, err)
	}
	defer l.Close()
	there, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	here, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { here.Close(); there.Close() })
	return here, there
}

func inode(t *testing.T, conn net.Conn) (ino uint64) {
	t.Helper()
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var st syscall.Stat_t
	raw.Control(func(fd uintptr) { err = syscall.Fstat(int(fd), &st) })
	if err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func TestTheOtherEndIsKnown(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(address, func(t *testing.T) {
			here, there := pair(t, address)
			w, err := Open(here)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			here.Write(make([]byte, 3000))
			got, err := w.Peer()
			if want := (Peer{UID: os.Geteuid(), Inode: inode(t, there), Unread: 3000}); err != nil || got != want {
				t.Fatalf("got %+v, %v, want %+v", got, err, want)
			}
			there.Read(make([]byte, 1000))
			if got, err = w.Peer(); err != nil || got.Unread != 2000 {
				t.Errorf("after 1000 were read: got %+v, %v", got, err)
			}
			there.(*net.TCPConn).SetLinger(0)
			there.Close()
			if got, err = w.Peer(); !errors.Is(err, syscall.ENOENT) {
				t.Errorf("after it was closed: got %+v, %v, want %v", got, err, syscall.ENOENT)
			}
		})
	}
}

func TestOnlyTCPWithinTheMachineIsAskedAbout(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if _, err := Open(a); !errors.Is(err, ErrNotLocal) {
		t.Errorf("got %v, want %v", err, ErrNotLocal)
	}
}
