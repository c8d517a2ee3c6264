package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"jumpsuite/internal/keys"
)

// unit is what systemd has of the command: sockets that were made before it is
// started, and one on which it is told how things are.
type unit struct {
	t     *testing.T
	dir   string
	local *net.UnixListener
	far   *net.TCPListener
	told  *proxy
}

func newUnit(t *testing.T) *unit {
	t.Helper()
	u := &unit{t: t, dir: t.TempDir(), told: &proxy{}}
	local, err := net.Listen("unix", filepath.Join(u.dir, "gate.sock"))
	if err != nil {
		t.Fatal(err)
	}
	u.local = local.(*net.UnixListener)
	u.local.SetUnlinkOnClose(false)
	far, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u.far = far.(*net.TCPListener)
	notified, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(u.dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { local.Close(); far.Close(); notified.Close() })
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := notified.Read(b)
			if err != nil {
				return
			}
			u.told.Write(append(b[:n], '\n'))
		}
	}()
	return u
}

// start starts the command from the file program, as systemd does.
func (u *unit) start(program, policy, engine string) *proxy {
	t := u.t
	t.Helper()
	p := &proxy{t: t, dir: u.dir, socket: u.local.Addr().String(), policy: filepath.Join(u.dir, "policy.yaml"), done: make(chan struct{})}
	p.store = keys.Store{Dir: filepath.Join(u.dir, "keys"), Admin: filepath.Join(u.dir, "trusted"), Owner: os.Geteuid()}
	p.write(policy)
	as := command(u.dir, engine)
	p.cmd = exec.Command("/bin/sh", append([]string{"-c", `export LISTEN_PID=$$ WATCHDOG_PID=$$; exec "$0" "$@"`, program}, as.Args[1:]...)...)
	p.cmd.Env = append(as.Env, "LISTEN_FDS=2", "WATCHDOG_USEC=100000", "NOTIFY_SOCKET="+filepath.Join(u.dir, "notify"))
	p.cmd.Stderr = p
	for _, l := range []interface{ File() (*os.File, error) }{u.local, u.far} {
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		p.cmd.ExtraFiles = append(p.cmd.ExtraFiles, f)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(p.done); p.cmd.Wait() }()
	t.Cleanup(func() { p.cmd.Process.Kill(); <-p.done })
	return p
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// install puts the command at path, as a package does: a file of its own takes
// the place of the one that was there.
func install(t *testing.T, path string) {
	t.Helper()
	from, err := os.Open(self(t))
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(to, from)
	if err := errors.Join(err, to.Close(), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

func TestSystemdStartsItAndIsToldHowThingsAre(t *testing.T) {
	needRoot(t)
	u := newUnit(t)
	p, far, said := u.start(self(t), testPolicy, "unix:///nonexistent"), u.far, u.told.said
	eventually(t, "it is ready", func() bool { return said("READY=1") })
	eventually(t, "it says that it lives", func() bool { return said("WATCHDOG=1") })
	if got := p.get("/_ping"); !strings.Contains(got, "502") {
		t.Errorf("on the socket that was passed: got %q", got)
	}
	conn, err := net.Dial("tcp", far.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b := make([]byte, 64)
	if n, err := conn.Read(b); err != nil || string(b[:n]) != "jumpsuite tunnel 1\n" {
		t.Errorf("on the port that was passed: got %q, %v", b[:n], err)
	}
	p.cmd.Process.Signal(syscall.SIGHUP)
	eventually(t, "it reloads", func() bool { return said("RELOADING=1\nMONOTONIC_USEC=") })
	p.cmd.Process.Signal(syscall.SIGTERM)
	eventually(t, "it stops", func() bool { return said("STOPPING=1") })
	<-p.done
	// Whoever connects now waits for the next one: systemd has the sockets still.
	if conn, err := net.Dial("unix", p.socket); err != nil {
		t.Errorf("between two runs: %v", err)
	} else {
		conn.Close()
	}
}

// eventsEngine answers what a gate asks of an Engine for events, and sends one
// for each word.
func eventsEngine(t *testing.T) (address string, words chan string) {
	t.Helper()
	words = make(chan string)
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "engine.sock"))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		w.Header().Set("Content-Type", "application/json")
		if !strings.HasSuffix(r.URL.Path, "/events") {
			io.WriteString(w, `{"ApiVersion":"1.41","Version":"20.10.24"}`)
			return
		}
		for word := range words {
			fmt.Fprintf(w, `{"Type":"container","Action":"start","Actor":{"ID":"1","Attributes":{"name":%q}}}`, word)
			w.(http.Flusher).Flush()
		}
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return "unix://" + l.Addr().String(), words
}

// An upgrade cuts nobody off, and keeps nobody waiting: the process goes on with
// what is open, and takes what comes, until nothing is open any more.
func TestAProgramThatWasReplacedRetiresWhenNothingIsOpen(t *testing.T) {
	needRoot(t)
	u := newUnit(t)
	program := filepath.Join(u.dir, "r3-dockerproxy")
	install(t, program)
	engine, words := eventsEngine(t)
	looks := strings.Replace(testPolicy, "docker.ps", "docker.stats", 1)
	p := u.start(program, looks, engine)
	eventually(t, "it is ready", func() bool { return u.told.said("READY=1") })
	stream, err := net.Dial("unix", p.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	stream.SetDeadline(time.Now().Add(patient))
	io.WriteString(stream, "GET /v1.41/events HTTP/1.1\r\nHost: x\r\n\r\n")
	words <- "before"
	answers := bufio.NewReader(stream)
	untilRead(t, answers, "before")

	p.reload()
	if p.said("was replaced") {
		t.Error("it takes itself for replaced")
	}
	install(t, program)
	p.reload()
	eventually(t, "it sees that it was replaced", func() bool { return p.said("the program was replaced") })
	time.Sleep(2500 * time.Millisecond) // it looks each second
	if got := p.get("/v1.41/version"); !strings.Contains(got, "200 OK") {
		t.Errorf("a new connection while a stream is open: got %q", got)
	}
	words <- "after"
	untilRead(t, answers, "after")
	stream.Close()
	close(words)

	select {
	case <-p.done:
	case <-time.After(patient):
		t.Fatal("it does not end")
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 || u.told.said("STOPPING=1") {
		t.Errorf("got exit %d: %s", code, p.log.String())
	}
	waiting := make(chan string, 1)
	go func() { waiting <- p.get("/v1.41/version") }()
	u.start(program, looks, engine)
	if got := <-waiting; !strings.Contains(got, "200 OK") {
		t.Errorf("who connected between the two got %q", got)
	}
}

func untilRead(t *testing.T, r *bufio.Reader, text string) {
	t.Helper()
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("%q did not come: %v", text, err)
		}
		if strings.Contains(line, text) {
			return
		}
	}
}

func TestTheEnvironmentIsAWordInAFileOfRoots(t *testing.T) {
	needRoot(t)
	for _, tt := range []struct {
		name, text string
		mode       os.FileMode
		want, says string
	}{
		{"a word", "test\n", 0o644, "test", ""},
		{"two words", "test prod\n", 0o644, "", "is no name of an environment"},
		{"nothing", "\n", 0o644, "", "is no name of an environment"},
		{"a file that others may write", "test\n", 0o664, "", "could be changed by others than root"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "environment")
			if err := os.WriteFile(path, []byte(tt.text), tt.mode); err != nil {
				t.Fatal(err)
			}
			os.Chmod(path, tt.mode)
			got, err := environmentOf(path)
			if got != tt.want || (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %q, %v, want %q and %q", got, err, tt.want, tt.says)
			}
		})
	}
	if _, err := environmentOf(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "no environment is given") {
		t.Errorf("without the file: got %v", err)
	}
}
