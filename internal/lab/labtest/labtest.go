// Package labtest is how Go tests of our programs use the lab: a lab whose
// environment is the test's, and a daemon of ours beside it, run within the test's
// process or as systemd starts it. Scripts have internal/scripttest.
package labtest

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"jumpsuite/internal/cli"
	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/world"
)

// World is the world that a text describes.
func World(t *testing.T, text string) *world.World {
	t.Helper()
	w, err := world.Parse([]byte(text), "world")
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// Start starts a lab that ends with the test, and sets the test's environment so that
// the AWS SDK leads to it.
func Start(t *testing.T, c lab.Config) *lab.Lab {
	t.Helper()
	l, err := lab.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for _, v := range l.Env() {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	return l
}

// Output is what a program says; it may be read while it is written.
type Output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write adds to it.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

// String is all of it so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// patience is how long something may take to come, on a machine that is busy.
const patience = 20 * time.Second

// Await waits until something is so.
func Await(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if so() {
			return
		}
	}
	t.Fatalf("it did not come to this in %v: %s", patience, what)
}

// Run runs a daemon's main until the test ends, and returns when it says that it is
// ready. One that ends before, or ends with an error, has failed the test.
func Run(t *testing.T, main func(context.Context, []string, cli.Stdio) error, args ...string) *Output {
	t.Helper()
	said := &Output{}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	var err error // to be read when it has ended
	go func() {
		defer close(ended)
		err = main(ctx, args, cli.Stdio{In: strings.NewReader(""), Out: said, Err: said})
	}()
	t.Cleanup(func() {
		cancel()
		if <-ended; err != nil {
			t.Errorf("%s ended with %v", args[0], err)
		}
	})
	Await(t, args[0]+" is ready", func() bool {
		select {
		case <-ended:
			t.Fatalf("%s ended before it was ready: %v\n%s", args[0], err, said)
		default:
		}
		return strings.Contains(said.String(), "msg=ready")
	})
	return said
}

// Activate starts the test's own program as systemd starts a service, with a socket
// that is there already; fds is how many the environment says there are. The
// variable asMain makes the program the daemon.
func Activate(t *testing.T, asMain string, socket net.Listener, fds string, args ...string) (*exec.Cmd, *Output) {
	t.Helper()
	f, err := socket.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	said := &Output{}
	cmd := exec.Command("/bin/sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, os.Args[0]}, args...)...)
	cmd.Env = append(os.Environ(), asMain+"=1", "LISTEN_FDS="+fds)
	cmd.ExtraFiles = []*os.File{f}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd, said
}
