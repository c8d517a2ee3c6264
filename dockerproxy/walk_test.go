package dockerproxy

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A path leads where openat2(2) with RESOLVE_IN_ROOT leads, where the kernel has that.
func TestAPathLeadsWhereItLeadsInTheContainer(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a/b/c", "etc", "deep/er"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(dir+"/a/file", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{
		"abs": "/a/b", "rel": "a/b", "up": "../../../etc", "a/up": "../deep", "chain": "abs/../b/c", "loop": "loop",
		"out": "/../../../etc/passwd", "dangling": "/nosuch", "a/b/top": "/", "proc": "/proc/self/root", "slashes": "//a//b/",
	} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	for _, p := range []string{
		"/", ".", "a", "/a/b/c", "abs", "abs/c", "rel/c", "rel/../file", "up", "a/up", "a/up/er", "chain", "loop", "loop/x", "out", "dangling",
		"../../..", "/../a", "a/file", "a/file/x", "a/file/..", "a/file/.", "a/file/", "a/b/top/etc", "a/b/top/..", "nosuch", "a/nosuch/..", "proc", "slashes", "a/./b//c/",
	} {
		want, wantErr := unix.Openat2(root, p, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
		if errors.Is(wantErr, unix.ENOSYS) {
			t.Skip("the kernel has no openat2")
		}
		got, err := openWithin(root, p)
		if (err == nil) != (wantErr == nil) {
			t.Errorf("%s: got %v, want %v", p, err, wantErr)
			continue
		}
		if err != nil {
			continue
		}
		var a, b unix.Stat_t
		if err := errors.Join(unix.Fstat(got, &a), unix.Fstat(want, &b)); err != nil || a.Dev != b.Dev || a.Ino != b.Ino {
			t.Errorf("%s: got another file than the kernel (%v)", p, err)
		}
		unix.Close(got)
		unix.Close(want)
	}
}

// A link of /proc leads where a process is, not where it says.
func TestALinkOfProcIsRefused(t *testing.T) {
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	for _, p := range []string{"/proc/self/root/etc", "/proc/self/fd/0", "/proc/thread-self/cwd"} {
		if fd, err := openWithin(root, p); !errors.Is(err, unix.ELOOP) {
			t.Errorf("%s: got %d, %v, want %v", p, fd, err, unix.ELOOP)
		}
	}
	fd, err := openWithin(root, "/proc/1/status")
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
}

// A container's links can make a way as long as they like: what it takes of the gate
// is bounded.
func TestAWayIsNotWalkedDownForEver(t *testing.T) {
	dir := t.TempDir()
	deep := strings.Repeat("x/", 300)
	if err := os.MkdirAll(filepath.Join(dir, deep), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"out": ".", "in": deep[:len(deep)/3]} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	if fd, err := openWithin(root, "out/in/x"); err != nil {
		t.Error(err)
	} else {
		unix.Close(fd)
	}
	if fd, err := openWithin(root, "in/"+deep[:len(deep)*2/3]); !errors.Is(err, unix.ENAMETOOLONG) {
		unix.Close(fd)
		t.Errorf("got %v, want %v", err, unix.ENAMETOOLONG)
	}
}
