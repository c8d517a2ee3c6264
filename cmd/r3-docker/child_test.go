package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestWhatOthersMayChangeIsNotRun(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("files of root's cannot be made without root")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "r3-docker-cli")
	for _, tt := range []struct {
		name string
		make func() error
		want string // empty: it is run
	}{
		{"root's own", func() error { return os.WriteFile(path, nil, 0o755) }, ""},
		{"writable by others", func() error { return os.Chmod(path, 0o757) }, "others than root may write it"},
		{"another's", func() error { return chownAndMode(path, 1000, 0o755) }, "owner 1000"},
		{"in another's folder", func() error { return chownAndMode(dir, 1000, 0o755) }, "others than root may change what is in it"},
		{"in a folder that others may write", func() error { return chownAndMode(dir, 0, 0o777) }, "others than root may change what is in it"},
		{"in a folder like /tmp", func() error { return chownAndMode(dir, 0, 0o777|os.ModeSticky) }, ""},
		{"a link", func() error { return link(path) }, "is not a plain file"},
		{"nothing", func() error { return os.Remove(path) }, "no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := chownAndMode(dir, 0, 0o755); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(path); err == nil {
				if err := chownAndMode(path, 0, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := tt.make(); err != nil {
				t.Fatal(err)
			}
			err := trusted(path)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func chownAndMode(path string, uid int, mode os.FileMode) error {
	if err := os.Chown(path, uid, 0); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

func link(path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return os.Symlink("/bin/true", path)
}

func TestTheExitCodeIsTheCLIsOr128AndTheSignal(t *testing.T) {
	for _, tt := range []struct {
		status unix.WaitStatus
		want   int
	}{{0, 0}, {7 << 8, 7}, {125 << 8, 125}, {9, 137}, {15, 143}, {11 | 0x80, 139}} {
		if got := exitCode(tt.status); got != tt.want {
			t.Errorf("%#x: got %d, want %d", int(tt.status), got, tt.want)
		}
	}
}

func TestASignalThatHasArrivedIsNotPassedOn(t *testing.T) {
	for _, heard := range []bool{true, false} {
		pid, err := syscall.ForkExec("/bin/sleep", []string{"sleep", "60"}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2}})
		if err != nil {
			t.Fatal(err)
		}
		c := &child{pid: pid, direct: map[syscall.Signal]moment{}}
		signals := make(chan os.Signal, 1)
		go c.relay(signals)
		signals <- syscall.SIGTERM
		if heard {
			c.heard(syscall.SIGTERM)
			time.AfterFunc(4*direct, func() { c.kill(syscall.SIGKILL) })
		}
		want := map[bool]syscall.Signal{true: syscall.SIGKILL, false: syscall.SIGTERM}[heard]
		if s := c.wait(func() func() { return func() {} }); s.Signal() != want {
			t.Errorf("heard %v: ended by %v, want %v", heard, s.Signal(), want)
		}
		c.kill(syscall.SIGKILL) // whose number that is by now is not known: nobody is hit
		close(signals)
	}
}

func TestTheCommandLineThatIsShownIsShort(t *testing.T) {
	if got := shown([]string{"ps", "-a"}); got != " ps -a" {
		t.Errorf("got %q", got)
	}
	if got := shown([]string{strings.Repeat("x", 100)}); got != " …" {
		t.Errorf("got %q", got)
	}
}

func TestANoteThatWasCutOffEndsTheNotes(t *testing.T) {
	// Nothing is left: nothing is opened, and nobody asked.
	if err := undertake(strings.NewReader(`{"Begun":{"Exec":"a"}}` + "\n" + `{"Over":"a"}` + "\n" + `{"Begun":{"Ex`)); err != nil {
		t.Error(err)
	}
}
