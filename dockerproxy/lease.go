package dockerproxy

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Labels that the gate sets on what it makes. They are for people and for
// finding things again; what counts is the lease on the disk, whose secret
// number no image and no caller can know beforehand.
const (
	labelPrefix = "jumpsuite."
	ownerLabel  = labelPrefix + "owner"
	leaseLabel  = labelPrefix + "lease"
	untilLabel  = labelPrefix + "until"
)

// Leases keeps, in a folder that is root's alone, what was made and started
// through the gates of this host. Several processes may use it at a time.
type Leases struct {
	dir   string
	using sync.RWMutex // held for reading with the lock
}

// Pause waits until this process does not hold the lock, and keeps it from
// taking it until resume is called: a process that is stopped with it would stop
// all others.
func (l *Leases) Pause() (resume func()) {
	l.using.Lock()
	return l.using.Unlock
}

// leaseKind is how a container came to be leased.
type leaseKind string

const (
	leaseMade    leaseKind = "made"
	leaseStarted leaseKind = "started"
)

// lease says that a container is a caller's for a while.
type lease struct {
	Number    string    `json:"number"`              // secret until the container has it as a label
	Container string    `json:"container,omitempty"` // full id; empty: not made yet
	Image     string    `json:"image,omitempty"`     // of what was made: the name that was decided on
	Kind      leaseKind `json:"kind"`
	Owner     owner     `json:"owner"`
	Event     string    `json:"event"`               // id in the audit log
	Since     time.Time `json:"since"`               // of the lease
	StartedAt string    `json:"startedAt,omitempty"` // of the container, as the Engine says it; empty: not started yet
	Until     time.Time `json:"until"`
	Remove    bool      `json:"remove,omitempty"` // it was to be removed when it ends
}

// OpenLeases opens the folder of leases, and makes it where it is not there.
func OpenLeases(dir string) (*Leases, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the leases: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return nil, fmt.Errorf("open the leases: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return nil, fmt.Errorf("open the leases in %s: %w", dir, err)
	}
	if !info.IsDir() || int(st.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("open the leases in %s: the folder has to be ours, and nobody else's to write", dir)
	}
	return &Leases{dir: dir}, nil
}

// lock keeps other gates from making and starting until the lock is closed, so
// that caps hold.
func (l *Leases) lock() (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(l.dir, "lock"), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the leases: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the leases: %w", err)
	}
	return f, nil
}

// of finds the lease of a container. Nil: there is none.
func (l *Leases) of(c *inspected) (*lease, error) {
	le, err := l.read(c.ID)
	if err != nil || le != nil {
		return le, err
	}
	return l.unbound(c)
}

// unbound finds the lease of a container that was made, but of whose making
// nobody was left to write down the id.
func (l *Leases) unbound(c *inspected) (*lease, error) {
	number := c.Config.Labels[leaseLabel]
	if !isID(number) {
		return nil, nil
	}
	le, err := l.read(number)
	if err != nil || le == nil || le.Container != "" {
		return nil, err
	}
	le.Container = c.ID
	return le, l.bind(le)
}

// bind moves a lease from its number to its container's id.
func (l *Leases) bind(le *lease) error {
	if err := l.write(le.Container, le); err != nil {
		return err
	}
	return l.remove(le.Number)
}

// newLease is a lease that is not written yet.
func newLease(kind leaseKind, o owner, event string, lasts time.Duration) *lease {
	var b [32]byte
	rand.Read(b[:]) // never fails
	now := time.Now().UTC()
	return &lease{Number: fmt.Sprintf("%x", b), Kind: kind, Owner: o, Event: event, Since: now, Until: now.Add(lasts)}
}

func (l *Leases) path(key string) string { return filepath.Join(l.dir, key+".json") }

func (l *Leases) read(key string) (*lease, error) {
	b, err := os.ReadFile(l.path(key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read a lease: %w", err)
	}
	le := new(lease)
	if err := json.Unmarshal(b, le); err != nil {
		return nil, fmt.Errorf("read the lease %s: %w", key, err)
	}
	return le, nil
}

// write puts a lease on the disk before it returns.
func (l *Leases) write(key string, le *lease) error {
	b, err := json.Marshal(le)
	if err == nil {
		err = writeDurably(l.dir, l.path(key), b)
	}
	if err != nil {
		return fmt.Errorf("write the lease of container %s: %w", key, err)
	}
	return nil
}

func writeDurably(dir, path string, b []byte) error {
	f, err := os.CreateTemp(dir, "new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails after the rename, as it should
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (l *Leases) remove(key string) error {
	err := os.Remove(l.path(key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// all are the leases by what they are filed under: a container's id, or the
// number of one that is being made.
func (l *Leases) all() (map[string]*lease, error) {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, fmt.Errorf("list the leases: %w", err)
	}
	out := map[string]*lease{}
	for _, e := range entries {
		key, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || !isID(key) {
			continue
		}
		le, err := l.read(key)
		if err != nil {
			return nil, err
		}
		if le != nil {
			out[key] = le
		}
	}
	return out, nil
}

// leasedTo reports whether a lease makes the container o's now. One that was
// started since by somebody else is not.
func (t *target) leasedTo(o owner) bool {
	le := t.lease
	switch {
	case t.raw == nil:
		return t.yours
	case le == nil || le.Owner != o:
		return false
	case le.Kind == leaseMade:
		return true
	case le.StartedAt == "":
		return !t.State.Running // attached to, or just about to be started
	}
	return le.StartedAt == t.State.StartedAt
}
