package dockerproxy

import (
	"fmt"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Paths are walked a name at a time: what openat2(2) does at once, kernels before 5.6
// do not have, and hosts with 4.14 are in the field.

// maxLinks is how many links a path may have, as the kernel's own bound (path_resolution(7)).
const maxLinks = 40

// maxFolders is how many folders a path may lead down: each is an open descriptor, and
// who makes links in a container could have all that this process may have.
const maxFolders = 256

// openWithin opens, for its place alone, what a path is in a container of which root
// is the / (a descriptor). Links lead where they lead in there, and never out of it;
// those of /proc, which lead anywhere, are refused.
func openWithin(root int, p string) (fd int, err error) {
	w := walk{}
	defer w.close()
	if err := w.down(root, "."); err != nil {
		return -1, err
	}
	links := 0
	for names := strings.Split(p, "/"); len(names) > 0; {
		var name string
		name, names = names[0], names[1:]
		if name == "" || name == "." || name == ".." {
			if err := w.stay(name == ".."); err != nil {
				return -1, err
			}
			continue
		}
		if err := w.down(w.last(), name); err != nil {
			return -1, err
		}
		to, err := linkOf(w.last())
		if err != nil {
			return -1, err
		}
		if to == "" {
			continue
		}
		if links++; links > maxLinks {
			return -1, unix.ELOOP
		}
		w.cut(len(w) - 1)
		if path.IsAbs(to) {
			w.cut(1)
		}
		names = append(strings.Split(to, "/"), names...)
	}
	return unix.FcntlInt(uintptr(w.last()), unix.F_DUPFD_CLOEXEC, 0)
}

// walk is the way from a root to where one is, as open descriptors: up again is where
// one came from, whatever has been moved meanwhile.
type walk []int

func (w walk) last() int { return w[len(w)-1] }

// down opens what is called name in dir, and no link's end for it.
func (w *walk) down(dir int, name string) error {
	if len(*w) > maxFolders {
		return unix.ENAMETOOLONG
	}
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == nil {
		*w = append(*w, fd)
	}
	return err
}

// stay goes nowhere, or up: both only a folder has.
func (w *walk) stay(up bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(w.last(), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return unix.ENOTDIR
	}
	if up {
		w.cut(max(1, len(*w)-1))
	}
	return nil
}

// cut goes back until n are left.
func (w *walk) cut(n int) {
	for _, fd := range (*w)[n:] {
		unix.Close(fd)
	}
	*w = (*w)[:n]
}

func (w *walk) close() { w.cut(0) }

// linkOf is where an open link leads; empty: it is none.
func linkOf(fd int) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", err
	}
	var on unix.Statfs_t
	if err := unix.Fstatfs(fd, &on); err != nil {
		return "", err
	}
	if on.Type == unix.PROC_SUPER_MAGIC {
		return "", unix.ELOOP
	}
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", b)
	if err == nil && n == 0 {
		err = unix.ENOENT
	}
	return string(b[:max(n, 0)]), err
}

// checkBind makes sure that a listed path is what it looks like: no link on the
// way, and nothing above it that somebody but root can exchange. The Engine
// resolves it once more, which is safe only if that holds.
func checkBind(source string) error {
	cannot := func(err error) error { return forbidden("", "the host's path %s cannot be mounted: %v", source, err) }
	w := walk{}
	defer w.close()
	if err := w.down(unix.AT_FDCWD, "/"); err != nil {
		return cannot(err)
	}
	above := "/"
	for _, name := range strings.FieldsFunc(source, func(c rune) bool { return c == '/' }) {
		if err := rootsAlone(w.last(), above); err != nil {
			return cannot(err)
		}
		if name == ".." {
			return cannot(fs.ErrInvalid)
		}
		if err := w.down(w.last(), name); err != nil {
			return cannot(err)
		}
		above = path.Join(above, name)
		to, err := linkOf(w.last())
		if err == nil && to != "" {
			err = unix.ELOOP
		}
		if err != nil {
			return cannot(err)
		}
	}
	return nil
}

// rootsAlone makes sure that nobody but root can change what is in a folder.
func rootsAlone(fd int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Uid != 0 || fs.FileMode(st.Mode)&0o022 != 0 {
		return fmt.Errorf("%s is not root's alone to change", name)
	}
	return nil
}
