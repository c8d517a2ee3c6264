package deployer

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lock is an attempt's lock on its container type, on this machine. The kernel
// lets go of it when the process ends, however it ends.
type lock struct{ file *os.File }

// heldError says that another process of this machine is at the container type.
type heldError struct{ who string }

func (e *heldError) Error() string { return "another process is at it: " + e.who }

// doorWait is how long to wait for other processes that look at the locks: they
// take milliseconds, and one that is stopped must not hang everybody.
const doorWait = 5 * time.Second

// take takes the lock of an attempt for a process, its holder. Unless over is
// set, it is refused with a *heldError while another attempt's is held, and
// always while this one's is. Locks whose process has died are removed.
func (s shelf) take(ctx context.Context, attempt, holder, who string, over bool) (*lock, error) {
	if err := s.prepare(); err != nil {
		return nil, err
	}
	door, err := s.door(ctx)
	if err != nil {
		return nil, err
	}
	defer door.Close()
	if err := s.others(attempt); err != nil && !over {
		return nil, err
	}
	if err := s.held(attempt); err != nil {
		return nil, err
	}
	f, err := flocked(s.lock(attempt))
	if err != nil {
		return nil, err
	}
	if err := write(f, holder+" "+who); err != nil {
		f.Close()
		return nil, err
	}
	return &lock{f}, nil
}

// door is the lock that whoever looks at the others holds for a moment.
func (s shelf) door(ctx context.Context) (*os.File, error) {
	for end := time.Now().Add(doorWait); ; {
		f, err := flocked(filepath.Join(s.path, "door"))
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(end) {
			return f, err
		}
		if err := sleep(ctx, doorWait/1000); err != nil {
			return nil, err
		}
	}
}

func write(f *os.File, text string) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

// others finds an attempt besides this one whose process lives.
func (s shelf) others(own string) error {
	for _, attempt := range s.attempts() {
		if attempt == own {
			continue
		}
		if err := s.held(attempt); err != nil {
			return err
		}
		os.Remove(s.lock(attempt))
	}
	return nil
}

// held is a *heldError if the process of an attempt lives. The door must be held.
func (s shelf) held(attempt string) error {
	f, err := os.Open(s.lock(attempt))
	if err != nil {
		return nil
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		return nil
	}
	_, who := s.holder(attempt)
	return &heldError{who}
}

// holder is the process that has, or had, the lock of an attempt on this
// machine, and who it is in words; empty if none had.
func (s shelf) holder(attempt string) (id, who string) {
	text, err := os.ReadFile(s.lock(attempt))
	if err != nil {
		return "", ""
	}
	id, who, _ = strings.Cut(string(text), " ")
	return id, who
}

// lives reports whether the process that holds an attempt lives, as far as this
// machine can tell: known is false if it never had the lock here.
func (s shelf) lives(ctx context.Context, attempt, holder string) (alive, known bool) {
	if id, _ := s.holder(attempt); id == "" || id != holder {
		return false, false
	}
	door, err := s.door(ctx)
	if err != nil {
		return false, false
	}
	defer door.Close()
	return s.held(attempt) != nil, true
}

// release lets go of the lock. Its file stays where the attempt has not ended:
// by it this machine knows that the process has.
func (l *lock) release(ended bool) {
	if l == nil {
		return
	}
	if ended {
		os.Remove(l.file.Name())
	}
	l.file.Close()
}

// flocked opens a file and locks it; unix.EWOULDBLOCK if another process has.
func flocked(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, &os.PathError{Op: "lock", Path: path, Err: err}
	}
	return f, nil
}
