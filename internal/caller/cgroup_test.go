package caller

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Whoever owns a control group can freeze the processes in it, root's too, while
// they hold a lock that everybody else waits for.
func TestACallerCannotFreezeWhatRunsAsRoot(t *testing.T) {
	tree := unifiedTree(t)
	for _, tt := range []struct {
		name   string
		owners []int // of the groups, one in the other
		want   string
	}{
		{"root's group", []int{0}, "a"},
		{"a group of the caller's", []int{0, 65534}, "a/jumpsuite"},
		{"one in a group of the caller's", []int{0, 65534, 65534}, "a/jumpsuite"},
		{"root's group in one of the caller's", []int{0, 65534, 0}, "a/jumpsuite"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			base, group := makeGroups(t, tree, tt.owners)
			got := underSudoIn(t, group, "nobody", "true")
			if got.Caller == nil {
				t.Fatalf("got %q, want a caller", got.Err)
			}
			if want := "/" + filepath.Base(base) + strings.TrimPrefix(tt.want, "a"); got.Group != want {
				t.Errorf("runs in %s, want %s", got.Group, want)
			}
			for dir := filepath.Join(tree, got.Group); dir != tree; dir = filepath.Dir(dir) {
				var st unix.Stat_t
				if err := unix.Stat(dir, &st); err != nil || st.Uid != 0 {
					t.Errorf("%s belongs to %d, %v: want root", dir, st.Uid, err)
				}
			}
		})
	}
}

func TestGroupsAreReadAsTheKernelWritesThem(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"unified", "0::/user.slice/user-1001.slice/session-3.scope\n", "/user.slice/user-1001.slice/session-3.scope"},
		{"beside others", "3:cpuset:/x\n1:name=systemd:/y\n0::/a b\n", "/a b"},
		{"with a colon", "0::/a:b\n", "/a:b"},
		{"the root", "0::/\n", "/"},
		{"none", "3:cpuset:/x\n", ""},
	} {
		if got := unifiedGroup(tt.text); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestTheTopOfTheTreeIsNoCallers(t *testing.T) {
	tree := t.TempDir()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it gives folders away")
	}
	if err := os.MkdirAll(filepath.Join(tree, "roots", "callers", "roots"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"", "roots/callers"} {
		if err := os.Chown(filepath.Join(tree, dir), 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		group, above string
		foreign      bool
	}{
		{"/", "", false}, {"/roots", "roots", false}, {"/roots/callers", "roots", true}, {"/roots/callers/roots", "roots", true},
		{"/elsewhere/x", "", false}, {"/../x", "", false},
	} {
		above, foreign, err := rootsPart(tree, tt.group)
		if err != nil || above != filepath.Join(tree, tt.above) || foreign != tt.foreign {
			t.Errorf("%s: got %s, %v, %v; want %s, %v", tt.group, above, foreign, err, tt.above, tt.foreign)
		}
	}
}

// unifiedTree is where this machine's control groups are, if a test may make some.
func unifiedTree(t *testing.T) string {
	t.Helper()
	tree := findTree()
	if os.Geteuid() != 0 || tree == "" {
		t.Skip("needs root, and control groups of version 2")
	}
	dir, err := os.MkdirTemp(tree, "jumpsuite-test-")
	if err != nil {
		t.Skipf("needs control groups that can be made: %v", err)
	}
	os.Remove(dir)
	return tree
}

// makeGroups makes groups in each other, and removes them and what else is there.
func makeGroups(t *testing.T, tree string, owners []int) (base, last string) {
	t.Helper()
	base, err := os.MkdirTemp(tree, "jumpsuite-test-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	last = base
	for i, owner := range owners {
		if i > 0 {
			last = filepath.Join(last, "in")
			if err := os.Mkdir(last, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chown(last, owner, owner); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for dir := last; dir != tree; dir = filepath.Dir(dir) {
			os.Remove(filepath.Join(dir, groupName))
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		}
	})
	return base, last
}

// startIn makes a command start in a control group.
func startIn(t *testing.T, group string) *syscall.SysProcAttr {
	t.Helper()
	fd, err := unix.Open(group, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
}
