package caller

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"jumpsuite/internal/cli"
)

// A control group may belong to the caller: systemd gives each user a part of the
// tree (user@UID.service), and systemd-run --user makes a group in it. Its owner
// can freeze what is in it, root's processes too, and slow them down (cgroups(7)):
// one that holds a lock would hold it for as long as he likes, and everybody else
// would wait. So a process in a group that is not root's goes into one of root's
// above that.

// groupName is what that one is called. It is empty between the calls, and ends
// with the one above.
const groupName = "jumpsuite"

// trees are where the tree of control groups of version 2 may be: alone, or
// beside those of version 1, whose groups belong to root.
var trees = []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}

// leaveGroup leaves a control group of somebody else's.
func leaveGroup() error {
	tree := findTree()
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return fmt.Errorf("find the control group: %w", err)
	}
	own := unifiedGroup(string(text))
	if tree == "" || own == "" {
		return nil
	}
	above, foreign, err := rootsPart(tree, own)
	if err != nil || !foreign {
		return err
	}
	if err := enterGroup(filepath.Join(above, groupName)); err != nil {
		return cli.Errorf(cli.ExitNotAllowed, "call it from a login, and not by systemd-run --user",
			"the control group %s is not root's, and cannot be left: %w", own, err)
	}
	return nil
}

// findTree is where the tree is; empty where there is none.
func findTree() string {
	for _, dir := range trees {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			return dir
		}
	}
	return ""
}

// unifiedGroup is the group of version 2 in /proc/PID/cgroup; empty: none.
func unifiedGroup(text string) string {
	for line := range strings.Lines(text) {
		if group, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSuffix(group, "\n")
		}
	}
	return ""
}

// rootsPart is the part of the way to a group that is root's alone, and whether
// there is more of it. What cannot be seen from here, and the top, which in a
// container can be of somebody outside, is no caller's.
func rootsPart(tree, group string) (above string, foreign bool, err error) {
	above = tree
	for name := range strings.FieldsFuncSeq(group, func(c rune) bool { return c == '/' }) {
		next := filepath.Join(above, name)
		var st unix.Stat_t
		err := unix.Lstat(next, &st)
		switch {
		case errors.Is(err, fs.ErrNotExist) || name == "..":
			return above, false, nil
		case err != nil:
			return above, false, fmt.Errorf("look at the control group %s: %w", next, err)
		case st.Uid != 0 || st.Mode&0o022 != 0:
			return above, true, nil
		}
		above = next
	}
	return above, false, nil
}

// enterGroup makes a group, where it is not there, and goes into it.
func enterGroup(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0) // 0 is who writes
}
