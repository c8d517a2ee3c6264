package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"jumpsuite/internal/cli"
	"jumpsuite/internal/lab/sudoer"
)

// A terminal that is no controlling terminal, as sudo without one of its own may leave
// it: no HUP comes when it is closed, and writing to it fails with EIO. Before that it
// is made narrower, and the view follows.
func TestAClosedTerminalWithoutAHangupIsAnInterruption(t *testing.T) {
	person, programs, err := sudoer.Terminal(24, 100)
	if err != nil {
		t.Skip(err)
	}
	l := labFor(t, strings.ReplaceAll(sudoWorld, `tags: ["1", "2"]`, `tags: ["1"]}
  - {repository: web, tags: [slow], pull: 600m`))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(t.TempDir(), "r3-container")
	if err := os.Symlink(self, binary); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	c := exec.Command(binary, "deploy", "--container-type", "web", "--image-url", "web:slow", "--interval", "100ms", "--timeout", "100h")
	c.Env, c.Stdout, c.Stderr = append(l.Env(), "TERM=xterm", "NO_COLOR=1", "HOME="+t.TempDir()), programs, &stderr
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		if t.Failed() {
			t.Log(stderr.String())
		}
	})
	programs.Close()
	reader := &terminalReader{person: person}
	reader.until(t, "missing: 1 ")
	reader.until(t, "\x1b[J") // drawn anew
	if err := errors.Join(sudoer.Resize(person, 8, 40), c.Process.Signal(syscall.SIGWINCH)); err != nil {
		t.Fatal(err)
	}
	reader.until(t, "\x1b[J[----")
	person.Close()
	err = c.Wait()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != cli.ExitInterrupted || !strings.Contains(stderr.String(), "the terminal is gone; the deployment goes on in AWS: ecs-svc/") {
		t.Errorf("ended with %v and %s", err, stderr.String())
	}
	if got := changing(l); len(got) != 2 {
		t.Errorf("called %q", got)
	}
}

// terminalReader is who sits before the terminal.
type terminalReader struct {
	person *os.File
	text   string
}

// until reads until a text has come, and forgets what came before.
func (r *terminalReader) until(t *testing.T, want string) {
	t.Helper()
	if err := r.person.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 4096)
	for !strings.Contains(r.text, want) {
		n, err := r.person.Read(buffer)
		r.text += string(buffer[:n])
		if err != nil {
			t.Fatalf("%v before %q came:\n%q", err, want, r.text)
		}
	}
	_, r.text, _ = strings.Cut(r.text, want)
}
