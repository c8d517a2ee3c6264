// Package witness finds out which SSM session is behind a connection that the
// SSM agent of this host made to a port: its id, its document, and the IAM
// identity that started it.
//
// It is a second witness: who may speak is decided by keys. What it rests on are
// internals of the agent (a process ssm-session-worker SESSION for each session,
// and a state file that only root can write), which an update may change. Root of
// the host can make it see anything.
package witness

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"jumpsuite/internal/loopback"
)

// Session is an SSM session.
type Session struct {
	ID       string
	Document string // that it was started with
	Owner    string // ARN of who started it
}

// Witness looks. Its zero value looks where the agent of a host is.
type Witness struct {
	Proc  string // empty: /proc
	State string // empty: /var/lib/amazon/ssm
	Owner int    // whose the agent's processes and files are
}

const worker = "ssm-session-worker"

// Look finds the session behind conn. It has to be asked while the connection is
// open.
func (w Witness) Look(conn net.Conn) (Session, error) {
	watch, err := loopback.Open(conn)
	if err != nil {
		return Session{}, err
	}
	defer watch.Close()
	peer, err := watch.Peer()
	if err != nil {
		return Session{}, err
	}
	s, err := w.look(peer)
	if err != nil {
		return Session{}, err
	}
	// The process could have ended meanwhile, and its number be another's.
	if again, err := watch.Peer(); err != nil || again.Inode != peer.Inode {
		return Session{}, errors.New("the connection's other end changed hands")
	}
	return s, nil
}

func (w Witness) look(peer loopback.Peer) (Session, error) {
	if peer.UID != w.Owner {
		return Session{}, fmt.Errorf("the connection was made by uid %d, not by the SSM agent", peer.UID)
	}
	pid, err := w.process(peer.Inode)
	if err != nil {
		return Session{}, err
	}
	id, err := w.session(pid)
	if err != nil {
		return Session{}, err
	}
	return w.state(id, pid)
}

func (w Witness) proc(elem ...string) string {
	if w.Proc != "" {
		return filepath.Join(append([]string{w.Proc}, elem...)...)
	}
	return filepath.Join(append([]string{"/proc"}, elem...)...)
}

// process is the worker that has the socket open.
func (w Witness) process(inode uint64) (pid int, err error) {
	dirs, err := os.ReadDir(w.proc())
	if err != nil {
		return 0, fmt.Errorf("look for the process behind the connection: %w", err)
	}
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err == nil && w.isWorker(pid) && w.hasOpen(pid, inode) {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("no %s has the connection's other end open", worker)
}

func (w Witness) isWorker(pid int) bool {
	exe, err := os.Readlink(w.proc(strconv.Itoa(pid), "exe"))
	return err == nil && filepath.Base(strings.TrimSuffix(exe, " (deleted)")) == worker // an update deletes it
}

func (w Witness) hasOpen(pid int, inode uint64) bool {
	fds := w.proc(strconv.Itoa(pid), "fd")
	list, _ := os.ReadDir(fds)
	for _, fd := range list {
		if to, err := os.Readlink(filepath.Join(fds, fd.Name())); err == nil && to == fmt.Sprintf("socket:[%d]", inode) {
			return true
		}
	}
	return false
}

// session is the id that a worker was started with.
func (w Witness) session(pid int) (string, error) {
	b, err := os.ReadFile(w.proc(strconv.Itoa(pid), "cmdline"))
	if err != nil {
		return "", fmt.Errorf("read what %s was started with: %w", worker, err)
	}
	args := strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
	if len(args) < 2 || !isSession(args[1]) {
		return "", fmt.Errorf("%s was started with %q, which is no session", worker, args)
	}
	return args[1], nil
}

// isSession refuses what is no file's name.
func isSession(s string) bool {
	bad := func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("-_.@+=", c)
	}
	return s != "" && len(s) < 200 && s[0] != '.' && strings.IndexFunc(s, bad) < 0
}

// document is the part of the agent's state file that counts; it may be in there
// at the top, or under DocumentInformation.
type document struct {
	DocumentName string
	SessionOwner string
	ProcInfo     struct{ Pid int }
}

// state reads the agent's file about a session.
func (w Witness) state(id string, pid int) (Session, error) {
	root := w.State
	if root == "" {
		root = "/var/lib/amazon/ssm"
	}
	files, _ := filepath.Glob(filepath.Join(root, "*", "document", "state", "current", id))
	if len(files) != 1 {
		return Session{}, fmt.Errorf("the agent has %d files about session %s", len(files), id)
	}
	b, err := w.read(files[0])
	if err != nil {
		return Session{}, fmt.Errorf("read the agent's file about session %s: %w", id, err)
	}
	var file struct {
		document
		DocumentInformation document
	}
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(&file); err != nil {
		return Session{}, fmt.Errorf("read the agent's file about session %s: %w", id, err)
	}
	d := file.DocumentInformation
	if d.DocumentName == "" {
		d = file.document
	}
	switch {
	case d.DocumentName == "" || d.SessionOwner == "":
		return Session{}, fmt.Errorf("the agent's file about session %s names no document or no owner", id)
	case d.ProcInfo.Pid != pid:
		return Session{}, fmt.Errorf("the agent's file about session %s is about process %d, not %d", id, d.ProcInfo.Pid, pid)
	}
	return Session{ID: id, Document: d.DocumentName, Owner: d.SessionOwner}, nil
}

// read returns a file that only the owner can have written.
func (w Witness) read(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st := info.Sys().(*syscall.Stat_t); !info.Mode().IsRegular() || st.Uid != uint32(w.Owner) || info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("mode %v, uid %d: others could have written it", info.Mode(), st.Uid)
	}
	return io.ReadAll(io.LimitReader(f, 1<<20))
}
