package audit

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// The reserve is a file that takes space while there is some. When the disk is
// full, what is under way gets its space a step at a time, and each step is
// allocated to the log at once, so that nobody else takes it. While the reserve
// is not whole, new work is refused.

// reserveStep is how much of the reserve is given up at once, in bytes.
const reserveStep = 256 << 10

// full reports whether err says that there is no room.
func full(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// fillReserve makes the reserve whole, or says that the disk is full.
func (l *Log) fillReserve() error {
	if l.reserve == nil {
		return nil
	}
	var st unix.Stat_t
	fd := int(l.reserve.Fd())
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: l.reserve.Name(), Err: err}
	}
	if st.Size >= l.o.Reserve && st.Blocks*512 >= l.o.Reserve {
		return nil
	}
	err := unix.Fallocate(fd, 0, 0, l.o.Reserve)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		err = fillWithZeros(fd, l.o.Reserve)
	}
	if full(err) {
		return &FullError{Path: l.o.Path}
	}
	return err
}

// fillWithZeros takes space on a file system that cannot allocate ahead.
func fillWithZeros(fd int, size int64) error {
	zeros := make([]byte, 64<<10)
	for at := int64(0); at < size; {
		n, err := unix.Pwrite(fd, zeros[:min(int64(len(zeros)), size-at)], at)
		if err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

// useReserve gives a step of the reserve to the log, and reports whether there
// was one left.
func (l *Log) useReserve() bool {
	if l.reserve == nil {
		return false
	}
	var st, log unix.Stat_t
	fd := int(l.reserve.Fd())
	if unix.Fstat(fd, &st) != nil || st.Size == 0 {
		return false
	}
	if unix.Ftruncate(fd, max(0, st.Size-reserveStep)) != nil {
		return false
	}
	if unix.Fstat(int(l.file.Fd()), &log) == nil {
		// Where this is not possible the space is just free, for anybody.
		unix.Fallocate(int(l.file.Fd()), unix.FALLOC_FL_KEEP_SIZE, log.Size, reserveStep)
	}
	return true
}
