package caller

import (
	"os"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// allRanks are those of all threads of this process.
func allRanks() (list []rank) {
	threads, _ := os.ReadDir("/proc/self/task")
	for _, d := range threads {
		if tid, err := strconv.Atoi(d.Name()); err == nil {
			r, _ := rankOf(tid)
			list = append(list, r)
		}
	}
	return list
}

// A process that gets the processor only when nobody else wants it, and holds a lock,
// holds it for as long as somebody keeps the processor busy.
func TestUnderRealSudoTheCallersRankDoesNotHold(t *testing.T) {
	for _, tt := range []struct{ name, before string }{
		{"nice", "renice -n 19 -p $$ >&2"},
		{"idle", "chrt -i -p 0 $$ >&2"},
		{"batch", "chrt -b -p 0 $$ >&2"},
		{"disks when nobody else wants them", "ionice -c 3 -p $$ >&2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := underSudo(t, "nobody", tt.before)
			if got.Caller == nil && mayRank(t) {
				t.Fatalf("got %q, want a caller", got.Err)
			}
			// Some kernels have a number of their own for the usual class of disks.
			if got.Caller != nil && slices.ContainsFunc(got.Ranks, func(r rank) bool { return r.Policy != 0 || r.Nice != 0 || r.Disk>>13 == 3 }) {
				t.Errorf("got %+v, want the usual one for each thread", got.Ranks)
			}
		})
	}
}

// mayRank reports whether root may set ranks here; in many containers it may not.
func mayRank(t *testing.T) bool { return capable(t, unix.CAP_SYS_NICE) }
