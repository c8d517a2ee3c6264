package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// systemd starts the command as it does: with sockets that were made before, and
// one to tell it how things are.
func systemd(t *testing.T, dir string) (p *proxy, far net.Listener, said func(string) bool) {
	t.Helper()
	local, err := net.Listen("unix", filepath.Join(dir, "gate.sock"))
	if err != nil {
		t.Fatal(err)
	}
	local.(*net.UnixListener).SetUnlinkOnClose(false)
	far, err = net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	notified, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { local.Close(); far.Close(); notified.Close() })
	told := &proxy{}
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := notified.Read(b)
			if err != nil {
				return
			}
			told.Write(append(b[:n], '\n'))
		}
	}()
	p = &proxy{t: t, dir: dir, socket: local.Addr().String(), policy: filepath.Join(dir, "policy.yaml"), done: make(chan struct{})}
	p.write(testPolicy)
	as := command(dir, "unix:///nonexistent")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd = exec.Command("/bin/sh", append([]string{"-c", `export LISTEN_PID=$$ WATCHDOG_PID=$$; exec "$0" "$@"`, self}, as.Args[1:]...)...)
	p.cmd.Env = append(as.Env, "LISTEN_FDS=2", "WATCHDOG_USEC=100000", "NOTIFY_SOCKET="+filepath.Join(dir, "notify"))
	p.cmd.Stderr = p
	for _, l := range []interface{ File() (*os.File, error) }{local.(*net.UnixListener), far.(*net.TCPListener)} {
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
	return p, far, told.said
}

func TestSystemdStartsItAndIsToldHowThingsAre(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	p, far, said := systemd(t, dir)
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
