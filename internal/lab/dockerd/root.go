package dockerd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// rootPrefix begins the names of all directories (and cgroups) of this package.
const rootPrefix = "r3-lab-dockerd-"

// longestBase is what is left of the 107 bytes of a socket's path.
const longestBase = 60

// base is where the directories are made: for temporary files, but not below
// /run, which a Docker Engine of ours sees an empty one of, and not where the
// path of a socket would be too long.
func base() string {
	dir, err := filepath.EvalSymlinks(os.TempDir())
	if err != nil || strings.HasPrefix(dir+"/", "/run/") || len(dir) > longestBase {
		return "/var/tmp"
	}
	return dir
}

// makeRoot makes a directory below base, locked for as long as lock is open,
// and removes those that nobody has locked any more: their engine's starter
// was killed, and so was the engine.
func makeRoot(base string) (dir string, lock *os.File, err error) {
	// One at a time: between mkdir and lock a directory looks left behind.
	turn, err := os.Open(base)
	if err != nil {
		return "", nil, err
	}
	defer turn.Close()
	if err := unix.Flock(int(turn.Fd()), unix.LOCK_EX); err != nil {
		return "", nil, fmt.Errorf("lock %s: %w", base, err)
	}
	if err := reap(base); err != nil {
		return "", nil, err
	}
	if dir, err = os.MkdirTemp(base, rootPrefix); err != nil {
		return "", nil, err
	}
	if lock, err = locked(dir); err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	return dir, lock, nil
}

// locked locks a directory by the file lock in it, unless somebody has. No
// process started from this one keeps the lock: the file is closed on exec.
func locked(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// reap removes the directories below base that are left behind.
func reap(base string) error {
	dirs, err := filepath.Glob(filepath.Join(base, rootPrefix+"*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		if ours(dir) && abandoned(dir) {
			errs = append(errs, removeRoot(dir))
		}
	}
	return errors.Join(errs...)
}

// ours says whether dir is a directory of ours: in /tmp anybody can make one
// of that name.
func ours(dir string) bool {
	var s unix.Stat_t
	return unix.Lstat(dir, &s) == nil && s.Mode&unix.S_IFMT == unix.S_IFDIR && s.Uid == uint32(os.Geteuid())
}

func abandoned(dir string) bool {
	lock, err := locked(dir)
	if err != nil {
		return false
	}
	lock.Close()
	return true
}

// removeRoot removes the directory of an engine that ended, and its cgroups.
func removeRoot(dir string) error {
	name := filepath.Base(dir)
	// cgroup v1 has a tree for each controller, v2 only one.
	v1, err := filepath.Glob(filepath.Join("/sys/fs/cgroup/*", name))
	if err != nil {
		return err
	}
	var errs []error
	for _, cgroup := range append(v1, filepath.Join("/sys/fs/cgroup", name)) {
		errs = append(errs, removeCgroup(cgroup))
	}
	return errors.Join(append(errs, os.RemoveAll(dir))...)
}

// removeCgroup removes a tree of cgroups: its directories, the innermost first.
// The files in them are the kernel's and go with them.
func removeCgroup(path string) error {
	var dirs []string
	err := filepath.WalkDir(path, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, dir := range slices.Backward(dirs) {
		if e := unix.Rmdir(dir); e != nil && e != unix.ENOENT {
			err = errors.Join(err, fmt.Errorf("remove cgroup %s: %w", dir, e))
		}
	}
	return err
}
