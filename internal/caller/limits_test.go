package caller

import (
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// filesOf is how many files a process may have open; 0 is this one.
func filesOf(t *testing.T, pid int) uint64 {
	t.Helper()
	var l unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &l); err != nil {
		t.Fatal(err)
	}
	return l.Cur
}

// lower sets this process's umask and how many files it may have open, and puts
// them back when the test ends.
func lower(t *testing.T, umask int, files uint64) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	mask := unix.Umask(umask)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: files, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Umask(mask)
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &before)
	})
}

func TestLimitsThatWereNotedCanBeHadAgain(t *testing.T) {
	lower(t, 0o027, 700)
	l := OwnLimits()
	lower(t, 0o077, 800)
	other := exec.Command("sleep", "60")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Process.Kill(); other.Wait() })
	l.Give(other.Process.Pid)
	if got := filesOf(t, other.Process.Pid); got != 700 {
		t.Errorf("another process was given 700 files, and has %d", got)
	}
	if err := l.Restore(); err != nil {
		t.Fatal(err)
	}
	mask := unix.Umask(0o077)
	if got := filesOf(t, 0); got != 700 || mask != 0o027 {
		t.Errorf("restored to %d files and umask %03o, want 700 and 027", got, mask)
	}
}
