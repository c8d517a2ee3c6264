package dockerproxy

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/mount"
	"golang.org/x/sys/unix"
)

// A path of the host that is mounted into a container can be something else than
// it is called: links lead elsewhere, also such as a container has made that has
// a folder above it mounted. So it is judged three times: by what it is called,
// by what it is on the host now, and, in a container that runs, by what the
// kernel says is mounted there.

// boundPaths says which of a container's paths of the host are another's than
// they are called, and sensitive.
func (x *exchange) boundPaths(t *target) ([]string, error) {
	if !x.gate.Files {
		return nil, nil
	}
	var why []string
	for _, s := range t.sources() {
		real, err := realPath(s.path)
		if err != nil {
			return nil, forbidden("", "what %s of the host is, which is mounted in container %s, cannot be found out: %v", s.path, t.shortName(), err)
		}
		if real != s.path && (hostPath{real, s.writable}).sensitive() || isSocket(real) {
			why = append(why, real+" of the host is mounted in it, as "+s.path)
		}
	}
	mounted, err := x.mountedPaths(t, binds(t.Mounts))
	return append(why, mounted...), err
}

// realPath resolves the links in a path. What is not there is not made yet: the
// Engine makes it, as a folder. A link to nothing is an error.
func realPath(p string) (string, error) {
	if slices.Contains(harmlessPaths, p) {
		return p, nil // root's, such as /dev/log and /etc/localtime, and links on many hosts
	}
	real, err := filepath.EvalSymlinks(p)
	if !errors.Is(err, fs.ErrNotExist) {
		return real, err
	}
	if _, there := os.Lstat(p); there == nil {
		return "", err
	}
	above, err := realPath(path.Dir(p))
	return path.Join(above, path.Base(p)), err
}

// isSocket reports whether a path is a socket whose other end is on the host.
func isSocket(p string) bool {
	info, err := os.Lstat(p)
	return err == nil && info.Mode().Type() == fs.ModeSocket
}

// mountedPaths says which of some mounts of a container that runs are, as the kernel
// has it, something sensitive of the host.
func (x *exchange) mountedPaths(t *target, mounts []mountPoint) ([]string, error) {
	if !x.gate.Processes || !t.State.Running || len(mounts) == 0 {
		return nil, nil
	}
	inside, err := enter(t.State.Pid, t.ID)
	if err != nil {
		return nil, forbidden("", "what is mounted in container %s cannot be found out: %v", t.shortName(), err)
	}
	defer inside.close()
	var why []string
	for _, m := range mounts {
		paths, err := inside.hostPaths(m.Destination)
		if err != nil {
			return nil, forbidden("", "what is mounted at %s in container %s cannot be found out: %v", m.Destination, t.shortName(), err)
		}
		for _, p := range paths {
			if (hostPath{p, m.RW}).sensitive() {
				why = append(why, p+" of the host is mounted in it, as "+m.Source)
			}
		}
	}
	return why, nil
}

// binds are those that are paths of the host.
func binds(all []mountPoint) (list []mountPoint) {
	for _, m := range all {
		if m.Type == mount.TypeBind {
			list = append(list, m)
		}
	}
	return list
}

// interior is a container that runs, seen from the host.
type interior struct {
	root       int // descriptor of its /
	mine, ours []mountLine
}

// mountLine is a line of /proc/PID/mountinfo (proc(5)).
type mountLine struct {
	id    int
	dev   string // major:minor
	root  string // what of the file system is mounted
	point string // where
}

// enter opens a container by its first process, and makes sure that this is what
// it is.
func enter(pid int, id string) (*interior, error) {
	if pid <= 1 || !inContainer(pid, id) {
		return nil, errElsewhere
	}
	ours, err := mountTable("self")
	if err != nil {
		return nil, err
	}
	proc := strconv.Itoa(pid)
	root, err := unix.Open("/proc/"+proc+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	mine, err := mountTable(proc)
	if err == nil && !inContainer(pid, id) { // its number may have been given to another meanwhile
		err = errElsewhere
	}
	if err != nil {
		unix.Close(root)
		return nil, err
	}
	return &interior{root: root, mine: mine, ours: ours}, nil
}

func (i *interior) close() { unix.Close(i.root) }

// hostPaths are the paths by which the host has what is mounted at a path in the
// container.
func (i *interior) hostPaths(destination string) ([]string, error) {
	fd, err := openWithin(i.root, destination)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	id, err := mountID(fd)
	if err != nil {
		return nil, err
	}
	n := slices.IndexFunc(i.mine, func(m mountLine) bool { return m.id == id })
	if n < 0 || i.mine[n].point == "/" {
		return nil, errors.New("nothing is mounted there any more")
	}
	return i.mine[n].on(i.ours), nil
}

// mountID is the number of the mount that an open file is on.
func mountID(fd int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			return strconv.Atoi(strings.TrimSpace(v))
		}
	}
	return 0, errors.New("the kernel does not say")
}

func mountTable(proc string) ([]mountLine, error) {
	b, err := os.ReadFile("/proc/" + proc + "/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMounts(b)
}

func parseMounts(b []byte) ([]mountLine, error) {
	var all []mountLine
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) < 6 {
			return nil, fmt.Errorf("mountinfo is not understood: %q", line)
		}
		id, err := strconv.Atoi(f[0])
		if err != nil {
			return nil, fmt.Errorf("mountinfo is not understood: %q", line)
		}
		all = append(all, mountLine{id: id, dev: f[2], root: strings.TrimSuffix(unoctal(f[3]), "//deleted"), point: unoctal(f[4])})
	}
	return all, nil
}

// unoctal resolves the escapes of mountinfo: \040 is a space.
func unoctal(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// on are the paths by which what is mounted is seen in another namespace.
func (m mountLine) on(others []mountLine) (paths []string) {
	for _, o := range others {
		if o.dev == m.dev && within(m.root, o.root) {
			paths = append(paths, path.Join(o.point, strings.TrimPrefix(m.root, o.root)))
		}
	}
	return paths
}

// recheck looks at a container once more that was just started: whoever could
// exchange a folder between the look and the start is found out, and the container
// is killed before anybody is let into it.
func (x *exchange) recheck(t *target) error {
	why, err := x.leadsOut(t)
	if err == nil && len(why) == 0 {
		return nil
	}
	if err == nil {
		err = forbidden("", "container %s leads out of it: %s", t.shortName(), strings.Join(why, "; "))
	}
	if _, _, killed := x.fetch(&ask{method: http.MethodPost, path: "/containers/" + t.ID + "/kill", query: url.Values{"signal": {"KILL"}}}); killed != nil {
		x.gate.log().Error("a container that is an escape is left running", "container", t.ID, "err", killed)
	}
	return err
}
