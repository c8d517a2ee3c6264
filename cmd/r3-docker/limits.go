package main

import "golang.org/x/sys/unix"

// limits is what of the caller's the CLI keeps, although this process does not.
type limits struct {
	umask     int
	resources map[int]unix.Rlimit
}

// ownLimits notes them, before this process gives itself others.
func ownLimits() *limits {
	l := &limits{umask: unix.Umask(0), resources: map[int]unix.Rlimit{}}
	unix.Umask(l.umask)
	for _, r := range []int{unix.RLIMIT_FSIZE, unix.RLIMIT_CPU, unix.RLIMIT_NOFILE} {
		var v unix.Rlimit
		if unix.Getrlimit(r, &v) == nil {
			l.resources[r] = v
		}
	}
	return l
}

// give makes them the limits of a process.
func (l *limits) give(pid int) {
	for r, v := range l.resources {
		_ = unix.Prlimit(pid, r, &v, nil) // it may have ended
	}
}
