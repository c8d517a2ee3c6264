package dockerproxy

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
)

// escapes says what in a container's configuration makes whoever gets into it root
// of the host; empty: nothing that is known.
func (t *target) escapes() []string {
	h := &t.HostConfig
	var why []string
	add := func(is bool, what string) {
		if is {
			why = append(why, what)
		}
	}
	add(h.Privileged, "it is privileged")
	add(h.PidMode.IsHost(), "it shares the host's process namespace")
	add(h.NetworkMode.IsHost(), "it shares the host's network")
	add(h.IpcMode.IsHost(), "it shares the host's IPC namespace")
	add(h.UTSMode.IsHost(), "it shares the host's UTS namespace")
	add(h.UsernsMode.IsHost(), "it is outside the user namespace of the others")
	add(len(h.Devices) > 0 || len(h.DeviceCgroupRules) > 0, "it has devices of the host")
	add(h.MaskedPaths != nil && len(h.MaskedPaths) == 0, "/proc is not masked in it")
	why = append(why, capabilities(h.CapAdd)...)
	why = append(why, confinement(h.SecurityOpt)...)
	for _, m := range h.Mounts {
		add(m.VolumeOptions != nil && m.VolumeOptions.DriverConfig != nil && len(m.VolumeOptions.DriverConfig.Options) > 0,
			"a volume of it has options of the driver")
	}
	for _, s := range t.sources() {
		add(s.sensitive(), s.path+" of the host is mounted in it")
	}
	slices.Sort(why)
	return slices.Compact(why)
}

// hostPath is a path of the host that is mounted.
type hostPath struct {
	path     string
	writable bool
}

// sources are the host's paths that are mounted: as it was asked for, and as it is.
func (t *target) sources() []hostPath {
	var out []hostPath
	for _, b := range t.HostConfig.Binds {
		f := strings.SplitN(b, ":", 3)
		if len(f) < 2 || !strings.HasPrefix(f[0], "/") {
			continue
		}
		readOnly := len(f) == 3 && slices.Contains(strings.Split(f[2], ","), "ro")
		out = append(out, hostPath{path.Clean(f[0]), !readOnly})
	}
	for _, m := range t.Mounts {
		if m.Type == mount.TypeBind {
			out = append(out, hostPath{path.Clean(m.Source), m.RW})
		}
	}
	return out
}

// Paths of the host that lead to root, or to what is on record of others: to have
// one, one below it, or one above it. What is mounted may be read-only: sockets do
// not care.
var sensitivePaths = []string{
	"/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/root", "/run", "/sbin", "/sys", "/usr",
	"/opt/amazon", "/opt/aws", "/opt/cni", "/opt/containerd", "/var/run", "/var/lib/amazon", "/var/lib/docker", "/var/lib/containerd",
	"/var/lib/ecs", "/var/lib/cloud", "/var/lib/dpkg", "/var/lib/jumpsuite", "/var/lib/kubelet", "/var/lib/rpm", "/var/log/jumpsuite",
	"/var/spool/at", "/var/spool/cron",
}

// harmlessPaths stand below sensitive ones; readPaths do no harm to be read, but
// root runs what is in them, or trusts it.
var (
	harmlessPaths = []string{
		"/etc/localtime", "/etc/timezone", "/etc/ecs-exec", "/usr/share/zoneinfo", "/dev/shm", "/dev/log", "/var/lib/docker/volumes",
	}
	readPaths = []string{"/etc/ssl", "/etc/pki", "/usr/share", "/var/lib/ecs/deps/execute-command"}
)

func (h hostPath) sensitive() bool {
	below := func(dir string) bool { return within(h.path, dir) }
	if slices.ContainsFunc(harmlessPaths, below) || !h.writable && slices.ContainsFunc(readPaths, below) {
		return false
	}
	return slices.ContainsFunc(sensitivePaths, func(s string) bool { return within(h.path, s) || within(s, h.path) }) ||
		strings.HasSuffix(h.path, ".sock")
}

// sensitive is that of a path that can be written to.
func sensitive(p string) bool { return hostPath{p, true}.sensitive() }

// within reports whether p is dir or below it.
func within(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}

// rootCapabilities are those with which root in a container is root outside.
var rootCapabilities = []string{
	"ALL", "BPF", "DAC_READ_SEARCH", "MAC_ADMIN", "MAC_OVERRIDE", "PERFMON", "SYS_ADMIN", "SYS_BOOT",
	"SYS_MODULE", "SYS_PTRACE", "SYS_RAWIO", "SYSLOG",
}

func capabilities(added []string) []string {
	var why []string
	for _, c := range added {
		name := strings.TrimPrefix(strings.ToUpper(c), "CAP_")
		if slices.Contains(rootCapabilities, name) {
			why = append(why, "it has the capability "+name)
		}
	}
	return why
}

func confinement(opts []string) []string {
	var why []string
	for _, o := range opts {
		switch strings.ReplaceAll(o, ":", "=") {
		case "seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined", "label=disable", "disable":
			why = append(why, "its confinement is off ("+o+")")
		}
	}
	return why
}

// joins are the containers whose namespaces a container uses.
func joins(h *container.HostConfig) []string {
	var ids []string
	for _, mode := range []string{string(h.NetworkMode), string(h.PidMode), string(h.IpcMode), string(h.UTSMode)} {
		if id, ok := strings.CutPrefix(mode, "container:"); ok {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// guard refuses a container that is an escape, unless its type is listed.
func (x *exchange) guard(t *target, listed []string) error {
	if t.excused = slices.Contains(listed, t.kind()); t.excused {
		return nil
	}
	why, err := x.leadsOut(t)
	if err != nil {
		return err
	}
	others, err := x.company(t)
	if err != nil {
		return err
	}
	for _, o := range others {
		theirs, err := x.leadsOut(o)
		if err != nil {
			return err
		}
		if len(theirs) > 0 {
			why = append(why, "it shares a namespace with "+o.shortName()+", which is an escape")
		}
	}
	if len(why) > 0 {
		return forbidden("an administrator can list its container type under escapes, knowing what that means",
			"container %s leads out of it: %s", t.shortName(), strings.Join(why, "; "))
	}
	return nil
}

// leadsOut says what of a container itself leads out of it.
func (x *exchange) leadsOut(t *target) ([]string, error) {
	volumes, err := x.volumeEscapes(t)
	if err != nil {
		return nil, err
	}
	bound, err := x.boundPaths(t)
	return slices.Concat(t.escapes(), volumes, bound), err
}

// company are the containers with which a container shares namespaces.
func (x *exchange) company(t *target) ([]*target, error) {
	all, err := x.joined(t)
	if err != nil || !t.HostConfig.PidMode.IsContainer() && !x.gate.joinedByOthers(t) {
		return all, err
	}
	beside, err := x.beside(t, all)
	return append(all, beside...), err
}

// joinedByOthers reports whether processes of other containers can be in the
// namespace of one that runs. To ask the Engine of each container whom it has joined
// takes long, and hardly ever has one: so the kernel is asked first.
func (g *Gate) joinedByOthers(t *target) bool {
	if !t.State.Running {
		return false
	}
	if !g.Processes {
		return true
	}
	proc, err := os.ReadDir("/proc")
	own := namespaceOf(strconv.Itoa(t.State.Pid))
	if err != nil || own == "" || !inContainer(t.State.Pid, t.ID) {
		return true // the Engine knows
	}
	for _, p := range proc {
		if pid, err := strconv.Atoi(p.Name()); err == nil && namespaceOf(p.Name()) == own && !inContainer(pid, t.ID) {
			return true
		}
	}
	return false
}

// namespaceOf is the namespace of a process in which it has its number; empty: it
// has ended.
func namespaceOf(pid string) string {
	name, _ := os.Readlink("/proc/" + pid + "/ns/pid")
	return name
}

// beside are the containers that run and whose processes are in one namespace with
// t's, as those of an ECS task may be: each joins the task's pause container. t can
// see the files of each as /proc/PID/root. joined are those that t knows of.
func (x *exchange) beside(t *target, joined []*target) ([]*target, error) {
	body, _, err := x.fetch(&ask{method: http.MethodGet, path: "/containers/json"})
	if err != nil {
		return nil, engineRefusal(err)
	}
	ids, err := idsOf(body)
	if err != nil {
		return nil, err
	}
	first, err := x.processesOf(t)
	if err != nil {
		return nil, err
	}
	var found []*target
	for _, id := range ids {
		o, err := x.lookup(id, nil)
		if isNotFound(err) || err == nil && (o.ID == t.ID || !o.HostConfig.PidMode.IsContainer() || slices.ContainsFunc(joined, o.is)) {
			continue
		}
		if err != nil {
			return nil, err
		}
		theirs, err := x.processesOf(o)
		if err != nil {
			return nil, err
		}
		if theirs == first {
			found = append(found, o)
		}
	}
	return found, nil
}

func (t *target) is(o *target) bool { return t.ID == o.ID }

// processesOf is the container in whose namespace of processes t is: its id, or
// where it is gone what it was called.
func (x *exchange) processesOf(t *target) (string, error) {
	for range maxJoined {
		ref := strings.TrimPrefix(t.HostConfig.PidMode.Container(), "/")
		if ref == "" {
			return t.ID, nil
		}
		next, err := x.lookup(ref, nil)
		if isNotFound(err) {
			return ref, nil
		}
		if err != nil {
			return "", err
		}
		t = next
	}
	return "", forbidden("", "with whom container %s shares its namespaces is not understood", t.shortName())
}

// maxJoined bounds a chain of containers that share namespaces.
const maxJoined = 16

// joined are the containers whose namespaces a container shares, and those whose
// namespaces they share in turn: the last of a chain may be the host's.
func (x *exchange) joined(t *target) ([]*target, error) {
	var found []*target
	seen := map[string]bool{t.ID: true}
	for next := []*target{t}; len(next) > 0; next = next[1:] {
		for _, id := range joins(&next[0].HostConfig) {
			id = strings.TrimPrefix(id, "/")
			if seen[id] {
				continue
			}
			if len(seen) > maxJoined || !isRef(id) {
				return nil, forbidden("", "with whom container %s shares its namespaces is not understood", t.shortName())
			}
			seen[id] = true
			j, err := x.peer(next[0], id)
			if err != nil {
				return nil, err
			}
			if j != nil {
				found, next = append(found, j), append(next, j)
			}
		}
	}
	return found, nil
}

// peer finds a container whose namespace t shares. Where it is gone, a container
// that does not run cannot enter its namespace any more, which is harmless; one
// that runs is still in it, and nobody can say any more whether it was the host's.
func (x *exchange) peer(t *target, id string) (*target, error) {
	j, err := x.lookup(id, nil)
	if !isNotFound(err) {
		return j, err
	}
	if t.State.Running {
		return nil, forbidden("an administrator makes the container anew", "container %s shares a namespace with one that is gone: it may be the host's", t.shortName())
	}
	return nil, nil
}

// volumeEscapes says which of a container's volumes is a part of the host: a
// volume that was made with options for its driver can be any folder of it. Those
// that are one are looked at as paths of the host are, in what runs.
func (x *exchange) volumeEscapes(t *target) ([]string, error) {
	var why []string
	var folders []mountPoint
	for _, m := range t.Mounts {
		if m.Type != mount.TypeVolume {
			continue
		}
		v, err := x.volume(m.Name)
		if isNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		is := v.escape()
		if is == "" && x.gate.Files {
			is = v.escapeByLinks()
		}
		if is != "" {
			why = append(why, is)
		} else if v.isFolder() {
			m.Source = "volume " + m.Name
			folders = append(folders, m)
		}
	}
	mounted, err := x.mountedPaths(t, folders)
	return append(why, mounted...), err
}

// volume is what the gate has to know of one. The fields are the Engine's.
type volume struct {
	Name    string
	Driver  string
	Options map[string]string
}

// volume finds a volume by its name.
func (x *exchange) volume(name string) (*volume, error) {
	if !isRef(name) {
		return nil, forbidden("", "%q is no volume's name", printable(name))
	}
	body, _, err := x.fetch(&ask{method: http.MethodGet, path: "/volumes/" + name})
	if err != nil {
		return nil, engineRefusal(err)
	}
	v := new(volume)
	if json.Unmarshal(body, v) != nil {
		return nil, unavailable("the Docker Engine's answer about volume %s is not understood", name)
	}
	return v, nil
}

// remoteTypes are file systems that the local driver mounts and that are not of
// the host's disks.
var remoteTypes = []string{"nfs", "nfs4", "cifs", "tmpfs"}

// escape says how a volume of the local driver leads out; empty: it does not.
// Other drivers are storage of their own.
func (v *volume) escape() string {
	kind, device := v.Options["type"], v.Options["device"]
	switch {
	case v.Driver != "local" || kind == "" && device == "" && v.Options["o"] == "":
		return ""
	case v.bound():
		if device = path.Clean(device); sensitive(device) {
			return device + " of the host is mounted in it, as volume " + v.Name
		}
		return ""
	case slices.Contains(remoteTypes, kind):
		return ""
	}
	return "volume " + v.Name + " of it mounts a file system of type " + printable(kind)
}

// escapeByLinks says how a folder of the host leads out that is another than it
// is called.
func (v *volume) escapeByLinks() string {
	device := path.Clean(v.Options["device"])
	if v.Driver != "local" || !v.bound() || !strings.HasPrefix(device, "/") {
		return ""
	}
	real, err := realPath(device)
	switch {
	case err != nil:
		return "what " + device + " of the host is cannot be found out, which is mounted in it as volume " + v.Name
	case sensitive(real):
		return real + " of the host is mounted in it, as volume " + v.Name
	}
	return ""
}

// isFolder reports whether a volume is a folder of the host that it was made for.
func (v *volume) isFolder() bool {
	return v.Driver == "local" && v.bound() && v.Options["device"] != ""
}

// bound reports whether a volume is a folder of the host.
func (v *volume) bound() bool {
	for o := range strings.SplitSeq(v.Options["o"], ",") {
		if o = strings.TrimSpace(o); o == "bind" || o == "rbind" {
			return true
		}
	}
	return slices.Contains([]string{"", "none", "bind"}, v.Options["type"])
}

// isNotFound reports whether there is no such thing.
func isNotFound(err error) bool {
	var r *Refusal
	return errors.As(err, &r) && r.Status == http.StatusNotFound
}
