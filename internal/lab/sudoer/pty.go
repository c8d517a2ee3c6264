package sudoer

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Terminal makes a pseudo-terminal that belongs to the person: the end of who
// sits before it, and that of programs.
func Terminal(rows, columns int) (person, programs *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a terminal: %w", err)
	}
	person = os.NewFile(uintptr(fd), "terminal")
	programs, err = otherEnd(fd)
	if err == nil {
		err = Resize(person, rows, columns)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make a terminal: %w", err), person.Close())
	}
	return person, programs, nil
}

func otherEnd(fd int) (*os.File, error) {
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	return f, f.Chown(UID, -1)
}

// Resize makes a terminal another size, as dragging its window does.
func Resize(terminal *os.File, rows, columns int) error {
	raw, err := terminal.SyscallConn()
	if err != nil {
		return err
	}
	size := &unix.Winsize{Row: uint16(rows), Col: uint16(columns)}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size) }); err != nil {
		return err
	}
	return failed
}
