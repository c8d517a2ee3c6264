package witness

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const session = "dev-0a1b2c3d4e5f67890"

// agent is a host with an SSM agent that has made a connection to a port.
type agent struct {
	t    *testing.T
	w    Witness
	conn net.Conn // the port's end
}

// newAgent makes what the agent leaves in /proc and in its folder: the socket is
// a real one.
func newAgent(t *testing.T) *agent {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	there, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	here, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { here.Close(); there.Close() })
	a := &agent{t: t, conn: here, w: Witness{Proc: t.TempDir(), State: t.TempDir(), Owner: os.Geteuid()}}
	a.process(17, "/usr/bin/amazon-ssm-agent", "amazon-ssm-agent", 1)
	a.process(4711, "/usr/bin/ssm-session-worker", worker+"\x00"+session+"\x00", inode(t, there))
	a.state(session, `{"DocumentInformation":{"DocumentName":"jumpsuite-docker","SessionOwner":"arn:aws:sts::1:assumed-role/jump/i-1","ProcInfo":{"Pid":4711}}}`)
	return a
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

func (a *agent) process(pid int, exe, cmdline string, inode uint64) {
	dir := filepath.Join(a.w.Proc, fmt.Sprint(pid))
	os.MkdirAll(filepath.Join(dir, "fd"), 0o700)
	os.Symlink(exe, filepath.Join(dir, "exe"))
	os.WriteFile(filepath.Join(dir, "cmdline"), []byte(cmdline), 0o600)
	os.Symlink("/dev/null", filepath.Join(dir, "fd", "0"))
	os.Symlink(fmt.Sprintf("socket:[%d]", inode), filepath.Join(dir, "fd", "7"))
}

func (a *agent) file() string {
	return filepath.Join(a.w.State, "i-1", "document", "state", "current", session)
}

func (a *agent) state(id, text string) {
	path := filepath.Join(filepath.Dir(a.file()), id)
	os.MkdirAll(filepath.Dir(path), 0o700)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

func TestTheSessionBehindAConnectionIsFound(t *testing.T) {
	a := newAgent(t)
	want := Session{ID: session, Document: "jumpsuite-docker", Owner: "arn:aws:sts::1:assumed-role/jump/i-1"}
	if got, err := a.w.Look(a.conn); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	a.state(session, `{"DocumentName":"jumpsuite-docker","SessionOwner":"arn:aws:sts::1:assumed-role/jump/i-1","ProcInfo":{"Pid":4711}}`)
	if got, err := a.w.Look(a.conn); err != nil || got != want {
		t.Errorf("without DocumentInformation: got %+v, %v, want %+v", got, err, want)
	}
}

func TestWhatDoesNotFitIsNoSession(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*agent)
		says   string
	}{
		{"another user's connection", func(a *agent) { a.w.Owner++ }, "was made by uid"},
		{"a process that is no worker", func(a *agent) {
			exe := filepath.Join(a.w.Proc, "4711", "exe")
			os.Remove(exe)
			os.Symlink("/usr/bin/nc", exe)
		}, "no ssm-session-worker has"},
		{"a worker without the socket", func(a *agent) { os.Remove(filepath.Join(a.w.Proc, "4711", "fd", "7")) }, "no ssm-session-worker has"},
		{"a session that is a path", func(a *agent) {
			os.WriteFile(filepath.Join(a.w.Proc, "4711", "cmdline"), []byte(worker+"\x00../../x\x00"), 0o600)
		}, "is no session"},
		{"no file", func(a *agent) { os.Remove(a.file()) }, "0 files"},
		{"a file that others can write", func(a *agent) { os.Chmod(a.file(), 0o622) }, "others could have written it"},
		{"a link", func(a *agent) {
			os.Rename(a.file(), a.file()+"x")
			os.Symlink(a.file()+"x", a.file())
		}, "too many levels"},
		{"a file about another process", func(a *agent) {
			a.state(session, `{"DocumentName":"d","SessionOwner":"o","ProcInfo":{"Pid":1}}`)
		}, "is about process 1, not 4711"},
		{"a file without an owner", func(a *agent) { a.state(session, `{"DocumentName":"d","ProcInfo":{"Pid":4711}}`) }, "names no document or no owner"},
		{"a file that is none", func(a *agent) { a.state(session, `x`) }, "invalid character"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newAgent(t)
			tt.change(a)
			if got, err := a.w.Look(a.conn); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %+v, %v, want %q", got, err, tt.says)
			}
		})
	}
}
