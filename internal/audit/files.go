package audit

import (
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Files finds the files of the log at path, rotated ones too (path.1, path.2.gz,
// path-20260131, …), the oldest first, judged by the number of their first line;
// files without one come last, in the order of their names.
func Files(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), filepath.Base(path))
		if ok && e.Type().IsRegular() && (rest == "" || rest[0] == '.' || rest[0] == '-') {
			paths = append(paths, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	SortFiles(paths)
	return paths, nil
}

// SortFiles puts the files of one log into their order, as Files does.
func SortFiles(paths []string) {
	first := map[string]uint64{}
	for _, p := range paths {
		first[p] = firstSeq(p)
	}
	slices.SortStableFunc(paths, func(a, b string) int {
		return cmp.Or(cmp.Compare(first[a], first[b]), strings.Compare(a, b))
	})
}

// Hold keeps writers of the log at path from writing until release is called,
// so that it can be opened as a whole. Who may not lock the log, or gets no lock
// within a second, reads it as it is: release is never nil.
func Hold(path string) (release func()) {
	f, err := os.Open(filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".head"))
	if err != nil {
		return func() {}
	}
	for range 100 {
		if unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return func() { f.Close() }
}

// OpenNow opens a file of a log as it is now: what is written to it later is
// not read.
func OpenNow(path string) (io.ReadCloser, error) {
	f, err := OpenFile(path)
	plain, ok := f.(*os.File)
	if err != nil || !ok {
		return f, err
	}
	st, err := plain.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(plain, st.Size()), plain}, nil
}

// firstSeq is the number of a file's first line that can be read.
func firstSeq(path string) uint64 {
	const none = ^uint64(0)
	f, err := OpenFile(path)
	if err != nil {
		return none
	}
	defer f.Close()
	first, passed := none, 0
	stop := errors.New("found")
	ReadLines(f, func(l Line) error {
		if l.Err == nil {
			first = l.Event.Seq - min(l.Event.Seq, uint64(passed))
			return stop
		}
		passed++
		return nil
	})
	return first
}

// OpenFile opens a file of a log for reading, and unpacks it when its name ends
// in .gz.
func OpenFile(path string) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if err != nil || !strings.HasSuffix(path, ".gz") {
		return f, err
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("unpack %s: %w", path, err)
	}
	return &packed{z, f}, nil
}

type packed struct {
	*gzip.Reader
	file *os.File
}

func (p *packed) Close() error { return errors.Join(p.Reader.Close(), p.file.Close()) }

// giveToReaders gives f, which was just made, to the group adm, where there is
// one, and the mode that its umask may have narrowed.
func giveToReaders(f *os.File, mode os.FileMode) {
	g, err := user.LookupGroup("adm")
	if err != nil {
		return
	}
	if gid, err := strconv.Atoi(g.Gid); err == nil && f.Chown(-1, gid) == nil {
		f.Chmod(mode)
	}
}
