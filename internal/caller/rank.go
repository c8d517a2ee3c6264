package caller

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"jumpsuite/internal/cli"
)

// What nice, chrt and ionice do to a process stays with what it starts, by sudo too.
// One that gets a processor only when nobody else wants it, and that holds a lock,
// would hold it for as long as its caller keeps the processors busy.

// rank is how a thread stands among others. The zero value is the usual one.
type rank struct {
	Policy uint32 // sched(7)
	Nice   int32  // more is less
	Disk   int    // ioprio_set(2): class and level
}

// thread is what the number that ioprio_get and ioprio_set are given is of.
const thread = 1 // IOPRIO_WHO_PROCESS

// rankOf is that of a thread; 0 is this one.
func rankOf(tid int) (rank, error) {
	a, err := unix.SchedGetAttr(tid, 0)
	if err != nil {
		return rank{}, fmt.Errorf("sched_getattr: %w", err)
	}
	disk, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, thread, uintptr(tid), 0)
	if errno != 0 {
		return rank{}, fmt.Errorf("ioprio_get: %w", errno)
	}
	return rank{Policy: a.Policy, Nice: a.Nice, Disk: int(disk)}, nil
}

// give gives a thread a rank.
func (r rank) give(tid int) error {
	a := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: r.Policy, Nice: r.Nice}
	if err := unix.SchedSetAttr(tid, &a, 0); err != nil {
		return fmt.Errorf("sched_setattr: %w", err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, thread, uintptr(tid), uintptr(r.Disk)); errno != 0 {
		return fmt.Errorf("ioprio_set: %w", errno)
	}
	return nil
}

// takeRank gives all threads the usual rank, where this process has another. It fails
// where it cannot: root without CAP_SYS_NICE would stand as the caller chose.
func takeRank() error {
	now, err := rankOf(0)
	if errors.Is(err, unix.ENOSYS) { // where there are none, nobody can have chosen one
		return nil
	}
	if err != nil || now == (rank{}) {
		return err
	}
	done := map[int]bool{}
	for more := true; more; { // one that is begun meanwhile has the rank of whoever began it
		if more, err = rankOthers(done); err != nil {
			return cli.Errorf(cli.ExitNotAllowed, "call it without nice, chrt and ionice; root here lacks CAP_SYS_NICE, and cannot undo them",
				"the rank that the caller chose cannot be taken from this process: %w", err)
		}
	}
	return nil
}

// rankOthers gives the usual rank to the threads that are not done yet, and reports
// whether there were any.
func rankOthers(done map[int]bool) (more bool, err error) {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return false, err
	}
	for _, d := range threads {
		tid, err := strconv.Atoi(d.Name())
		if err != nil || done[tid] {
			continue
		}
		if err := (rank{}).give(tid); err != nil && !errors.Is(err, unix.ESRCH) { // it has ended
			return false, err
		}
		done[tid], more = true, true
	}
	return more, nil
}
