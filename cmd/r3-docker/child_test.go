package main

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

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
