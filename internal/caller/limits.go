package caller

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Limits are the umask and the resource limits that a program of the caller's keeps,
// although the process that starts it has taken others.
type Limits struct {
	Umask     int
	resources map[int]unix.Rlimit
}

// OwnLimits are those of this process. They are the caller's only before Enter.
func OwnLimits() *Limits {
	l := &Limits{Umask: unix.Umask(0), resources: map[int]unix.Rlimit{}}
	unix.Umask(l.Umask)
	for _, r := range []int{unix.RLIMIT_FSIZE, unix.RLIMIT_CPU, unix.RLIMIT_NOFILE} {
		var v unix.Rlimit
		if unix.Getrlimit(r, &v) == nil {
			l.resources[r] = v
		}
	}
	return l
}

// Restore makes them this process's, for the program that it is about to become.
func (l *Limits) Restore() error {
	unix.Umask(l.Umask)
	for r, v := range l.resources {
		if err := unix.Setrlimit(r, &v); err != nil {
			return fmt.Errorf("restore resource limit %d: %w", r, err)
		}
	}
	return nil
}

// Give makes the resource limits those of another process, which may have ended.
func (l *Limits) Give(pid int) {
	for r, v := range l.resources {
		_ = unix.Prlimit(pid, r, &v, nil)
	}
}
