//go:build packages

package packaging

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/dockerd"
	"jumpsuite/internal/lab/rootfs"
	"jumpsuite/internal/lab/world"
)

const inside = "JUMPSUITE_PACKAGES"

func TestMain(m *testing.M) {
	if os.Getenv(inside) != "" || os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	runtime.LockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	err := cmd.Run()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		os.Exit(e.ExitCode())
	} else if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// dist is where the packages are.
func dist() string {
	if d := os.Getenv("DIST"); d != "" {
		return d
	}
	return "../dist"
}

// built is the path of a package for this machine.
func built(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dist(), pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%d packages %s in %s: make packages builds them", len(found), pattern, dist())
	}
	path, err := filepath.Abs(found[0])
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// debian is a Debian that was just installed.
type debian struct {
	t    *testing.T
	root string
	pid  int // of its systemd, seen from here; 0 while it is but a folder
}

// install makes a Debian with these packages besides the essential ones. What
// debootstrap makes is kept; a test writes to a layer above it.
func install(t *testing.T, suite string, packages ...string) *debian {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it installs a Debian into a folder")
	}
	if _, err := exec.LookPath("debootstrap"); err != nil {
		t.Skip("needs debootstrap (Debian: apt-get install debootstrap)")
	}
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"))
	d := &debian{t: t, root: filepath.Join(dir, "root")}
	for _, f := range []string{"root", "upper", "work"} {
		must(t, os.Mkdir(filepath.Join(dir, f), 0o755))
	}
	layers := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", base(t, suite), dir, dir)
	must(t, unix.Mount("overlay", d.root, "overlay", 0, layers))
	for _, m := range []string{"/proc", "/sys", "/dev"} {
		must(t, unix.Mount(m, d.root+m, "", unix.MS_BIND|unix.MS_REC, ""))
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	if b, err := os.ReadFile("/etc/resolv.conf"); err == nil {
		d.write("/etc/resolv.conf", string(b), 0o644)
	}
	host, err := os.Hostname()
	must(t, err)
	d.write("/etc/hosts", "127.0.0.1 localhost "+host+"\n", 0o644)
	d.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)
	d.apt(append([]string{"install", "--no-install-recommends"}, packages...)...)
	for _, name := range []string{"dev", "guest"} {
		d.must("useradd", "--create-home", "--shell", "/bin/bash", name)
	}
	return d
}

// base is a Debian as debootstrap makes it, made once.
func base(t *testing.T, suite string) string {
	t.Helper()
	cache := os.Getenv("JUMPSUITE_ROOTS")
	if cache == "" {
		cache = "/var/cache/jumpsuite-test"
	}
	root := filepath.Join(cache, suite)
	if _, err := os.Stat(root + ".done"); err == nil {
		return root
	}
	must(t, os.MkdirAll(cache, 0o755))
	must(t, os.RemoveAll(root))
	if out, err := exec.Command("debootstrap", "--variant=minbase", suite, root).CombinedOutput(); err != nil {
		t.Skipf("debootstrap %s: %v: %s", suite, err, last(string(out)))
	}
	must(t, os.WriteFile(root+".done", nil, 0o644))
	return root
}

func last(s string) string { return s[max(0, len(s)-300):] }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (d *debian) write(path, text string, mode os.FileMode) {
	d.t.Helper()
	must(d.t, os.MkdirAll(filepath.Dir(d.root+path), 0o755))
	must(d.t, os.WriteFile(d.root+path, []byte(text), mode))
	must(d.t, os.Chmod(d.root+path, mode))
}

func (d *debian) read(path string) string {
	d.t.Helper()
	b, err := os.ReadFile(d.root + path)
	must(d.t, err)
	return string(b)
}

func (d *debian) has(path string) bool {
	_, err := os.Lstat(d.root + path)
	return err == nil
}

// run runs a command in there, as root.
func (d *debian) run(command ...string) (string, int) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 5*time.Minute)
	defer cancel()
	cmd := d.command(ctx, command...)
	out, err := cmd.CombinedOutput()
	if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed {
		d.t.Fatalf("%q: %v", command, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func (d *debian) command(ctx context.Context, command ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/usr/sbin/chroot", append([]string{d.root}, command...)...)
	if d.pid != 0 {
		cmd = exec.CommandContext(ctx, "nsenter", append([]string{"--all", "--target", strconv.Itoa(d.pid)}, command...)...)
	}
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"}
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); d.pid == 0 && strings.HasSuffix(strings.ToLower(name), "_proxy") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	return cmd
}

func (d *debian) must(command ...string) string {
	d.t.Helper()
	out, code := d.run(command...)
	if code != 0 {
		d.t.Fatalf("%q: exit code %d\n%s", command, code, last(out))
	}
	return out
}

func (d *debian) apt(args ...string) {
	d.t.Helper()
	if !d.has("/var/lib/apt/lists/lock") {
		d.must("apt-get", "update", "-qq")
	}
	d.must(append([]string{"apt-get", "-qq", "-y", "-o", "Dpkg::Use-Pty=0", "-o", "Dpkg::Options::=--force-confold"}, args...)...)
}

// add installs one of our packages by apt.
func (d *debian) add(path string) {
	d.t.Helper()
	b, err := os.ReadFile(path)
	must(d.t, err)
	d.write("/root/"+filepath.Base(path), string(b), 0o644)
	d.apt("install", "--no-install-recommends", "/root/"+filepath.Base(path))
}

// as runs a line of shell as a person who has logged in.
func (d *debian) as(person, line string) (string, int) {
	d.t.Helper()
	return d.run("su", "-", person, "-c", line)
}

// wants runs a line as a person, and compares its exit code and a part of what
// it says.
func (d *debian) wants(person, line string, code int, say string) {
	d.t.Helper()
	out, got := d.as(person, line)
	if got != code || !strings.Contains(out, say) {
		d.t.Errorf("%s: %s\nexit code %d, want %d, and %q in:\n%s", person, line, got, code, say, last(out))
	}
}

// engine starts a Docker Engine with busybox, at its usual place.
func (d *debian) engine() {
	d.t.Helper()
	if err := errors.Join(dockerd.Available(), rootfs.Available()); err != nil {
		d.t.Skip(err)
	}
	e, err := dockerd.Start(d.t.Context(), dockerd.Options{})
	must(d.t, err)
	d.t.Cleanup(func() { e.Close() })
	socket := strings.TrimPrefix(e.Host(), "unix://")
	must(d.t, load(d.t, socket))
	d.write("/run/docker.sock", "", 0o600)
	must(d.t, unix.Mount(socket, d.root+"/run/docker.sock", "", unix.MS_BIND, ""))
}

// load gives the Engine an image that is called busybox: what the lab's images
// have inside.
func load(t *testing.T, socket string) error {
	t.Helper()
	base, err := rootfs.Base()
	if err != nil {
		return err
	}
	var unpacked io.Reader = bytes.NewReader(base)
	if z, err := gzip.NewReader(bytes.NewReader(base)); err == nil {
		unpacked = z
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", socket)
	}}}
	answer, err := client.Post("http://docker/images/create?fromSrc=-&repo=busybox&tag=latest", "application/x-tar", unpacked)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if answer.StatusCode != http.StatusOK || strings.Contains(string(text), `"error"`) {
		return fmt.Errorf("load busybox: %s: %s (%w)", answer.Status, text, err)
	}
	return err
}

// sudoRS makes sudo-rs the sudo of this Debian, as an administrator has to: the
// package brings neither the name nor an /etc/sudoers.
func (d *debian) sudoRS(sudo string) {
	d.t.Helper()
	if sudo != "sudo-rs" {
		return
	}
	d.must("ln", "-s", "/usr/bin/sudo-rs", "/usr/bin/sudo")
	d.write("/etc/sudoers", "root ALL=(ALL:ALL) ALL\n@includedir /etc/sudoers.d\n", 0o440)
}

// suites are the Debians that it is tried on, and their sudo.
var suites = []struct{ name, sudo string }{{"bookworm", "sudo"}, {"trixie", "sudo-rs"}, {"trixie", "sudo"}}

func TestADockerHost(t *testing.T) {
	deb := built(t, "jumpsuite-host_*_"+runtime.GOARCH+".deb")
	for _, s := range suites {
		t.Run(s.name+" with "+s.sudo, func(t *testing.T) {
			d := install(t, s.name, s.sudo)
			d.sudoRS(s.sudo)
			before := d.tree()
			d.add(deb)
			d.goodRules()
			d.must("usermod", "-aG", "jumpsuite", "dev")
			d.engine()
			d.wants("dev", "sudo -n docker ps", 125, "policy")
			d.policy("jumpsuite-host", "test")
			d.everything()
			d.nothing()
			d.policy("jumpsuite-host", "prod")
			d.six()
			d.upgrade("jumpsuite-host")
			d.away("jumpsuite-host", before)
		})
	}
}

// goodRules asks each visudo there is: sudo's and sudo-rs's.
func (d *debian) goodRules() {
	d.t.Helper()
	out := d.must("sh", "-ec", "for v in visudo visudo-rs; do if command -v $v; then $v -cf /etc/sudoers.d/jumpsuite; echo checked; fi; done")
	if !strings.Contains(out, "checked") {
		d.t.Errorf("there is no visudo: %s", out)
	}
}

// policy puts the example in place, as operations.md says, for a host of env.
func (d *debian) policy(pkg, env string) {
	d.t.Helper()
	example := d.read("/usr/share/" + pkg + "/policy.example.yaml")
	d.write("/etc/jumpsuite/policy.yaml", strings.ReplaceAll(groups(example), "developers", "jumpsuite"), 0o644)
	d.write("/etc/jumpsuite/environment", env+"\n", 0o644)
}

// groups leaves the rules out that are about groups that this machine has not.
func groups(policy string) string {
	return strings.ReplaceAll(policy, "group:contractors", "user:nobody")
}

// typed is a line, the exit code that it ends with, and a part of what it says.
type typed struct {
	line string
	code int
	say  string
}

// verbs are all ten, in test: they leave a container that is called web.
var verbs = []typed{
	{"sudo -n docker version --format '{{.Server.Os}}'", 0, "linux"},
	{"sudo -n docker images", 0, "busybox"},
	{"sudo -n docker run -d --name web --pull never busybox:latest sh -c 'echo ready; sleep 3600'", 0, ""},
	{"sudo -n docker ps", 0, "web"},
	{"echo 'echo $((6*7))' | sudo -n docker exec -i web sh", 0, "42"},
	{"sudo -n docker logs web", 0, "ready"},
	{"sudo -n docker stats --no-stream web", 0, "web"},
	{"sudo -n docker inspect -f '{{.State.Running}}' web", 0, "true"},
	{"sudo -n docker create --name once --pull never busybox:latest echo hello", 0, ""},
	{"sudo -n docker start -a once", 0, "hello"},
	{"sudo -n docker pull evil.example/busybox:latest", 1, "docker.pull is not allowed"},
}

// everything is what dev may type, and some of what is not there.
func (d *debian) everything() {
	d.t.Helper()
	for _, tt := range slices.Concat(verbs, []typed{
		{"sudo -n docker pull busybox:nosuch", 1, "Error response from daemon"},
		{"sudo -n docker build .", 126, "not available"},
		{"docker ps", 127, ""},
	}) {
		d.wants("dev", tt.line, tt.code, tt.say)
	}
}

// nothing is what a person who is not in the group may do.
func (d *debian) nothing() {
	d.t.Helper()
	d.wants("guest", "sudo -n docker ps", 1, "")
	d.wants("guest", "sudo -n /usr/libexec/jumpsuite/sbin/docker ps", 1, "")
	d.wants("guest", "/usr/libexec/jumpsuite/r3-docker ps", 125, "sudo")
	d.write("/usr/bin/docker", "#!/bin/sh\necho the other docker\n", 0o755)
	d.wants("dev", "sudo -n /usr/bin/docker ps", 1, "")
	d.wants("dev", "sudo -n docker ps", 0, "web")
	d.wants("dev", "sudo -n bash", 1, "")
}

// six is what is allowed in production.
func (d *debian) six() {
	d.t.Helper()
	for _, line := range []string{"ps", "images", "logs web", "stats --no-stream web", "inspect web"} {
		d.wants("dev", "sudo -n docker "+line, 0, "")
	}
	for _, line := range []string{"run busybox true", "create busybox true", "start once", "pull busybox"} {
		out, code := d.as("dev", "sudo -n docker "+line)
		if code == 0 || !strings.Contains(out, "rule floor") {
			d.t.Errorf("docker %s in production: exit code %d\n%s", line, code, out)
		}
	}
}

// mark is a number that no other command line has: the session is found by it.
const mark = "471147"

// upgrade puts a newer package over it, while a session is open.
func (d *debian) upgrade(pkg string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
	defer cancel()
	var said bytes.Buffer
	session := d.command(ctx, "su", "-", "dev", "-c", "sudo -n docker logs -f --tail "+mark+" web")
	session.WaitDelay = 5 * time.Second
	session.Stdout, session.Stderr = &said, &said
	must(d.t, session.Start())
	time.Sleep(time.Second)
	d.write("/etc/sudoers.d/jumpsuite", d.read("/etc/sudoers.d/jumpsuite")+"# ours\n", 0o440)
	old := d.version(pkg)
	deb := newer(d.t, pkg+"_*_"+runtime.GOARCH+".deb")
	d.add(deb)
	if now := d.version(pkg); now == old {
		d.t.Fatalf("%s is still %s", pkg, old)
	}
	if !strings.Contains(d.read("/etc/sudoers.d/jumpsuite"), "# ours") {
		d.t.Error("the upgrade took a change of the sudoers file away")
	}
	d.wants("dev", "sudo -n docker ps", 0, "web")
	if out, err := exec.Command("pkill", "-f", "logs -f --tail "+mark).CombinedOutput(); err != nil {
		d.t.Errorf("the session of before the upgrade is not there any more: %v %s\n%s", err, out, said.String())
	}
	cancel()
	_ = session.Wait() // it was killed
	d.brokenRules(deb)
}

// version is what dpkg says, and the programs.
func (d *debian) version(pkg string) string {
	d.t.Helper()
	version := d.must("dpkg-query", "-W", "-f", "${Version}", pkg)
	upstream, _, _ := strings.Cut(version, "-")
	if out := d.must("r3-admin", "--version"); !strings.Contains(out, upstream) {
		d.t.Errorf("%s is %s, and r3-admin says %s", pkg, version, out)
	}
	return version
}

// brokenRules is an upgrade where the sudoers file is one that sudo cannot read.
func (d *debian) brokenRules(deb string) {
	d.t.Helper()
	good := d.read("/etc/sudoers.d/jumpsuite")
	d.write("/etc/sudoers.d/jumpsuite", "%jumpsuite ALL=(root NOPASSWD: oops\n", 0o440)
	out, code := d.run("dpkg", "--force-confold", "-i", "/root/"+filepath.Base(deb))
	if code == 0 || !strings.Contains(out, "sudo does not understand") {
		d.t.Errorf("with a broken sudoers file: exit code %d\n%s", code, last(out))
	}
	if d.has("/etc/sudoers.d/jumpsuite") || !d.has("/etc/sudoers.d/jumpsuite.refused") {
		d.t.Error("the broken sudoers file is still in force")
	}
	d.write("/etc/sudoers.d/jumpsuite", good, 0o440)
	d.must("rm", "/etc/sudoers.d/jumpsuite.refused")
	d.must("dpkg", "--configure", "-a")
	d.wants("dev", "sudo -n docker ps", 0, "web")
}

// newer is the same package of the next version, which was built to be upgraded to.
func newer(t *testing.T, pattern string) string {
	t.Helper()
	return built(t, filepath.Join("next", pattern))
}

// away removes the package, and then what it left: nothing is there then that was
// not before, but for what operations.md names.
func (d *debian) away(pkg string, before map[string]string) {
	d.t.Helper()
	d.must("dpkg", "-r", pkg)
	for path, stays := range map[string]bool{
		"/etc/sudoers.d/jumpsuite": true, "/etc/jumpsuite/policy.yaml": true, "/usr/libexec/jumpsuite": false, "/usr/sbin/r3-admin": false,
	} {
		if d.has(path) != stays {
			d.t.Errorf("removed: %s there: %v, want %v", path, !stays, stays)
		}
	}
	d.wants("dev", "sudo -n docker ps", 1, "")
	d.must("dpkg", "-P", pkg)
	if !d.has("/var/log/jumpsuite/audit.log") {
		d.t.Error("purged: the audit log is gone")
	}
	after := d.tree()
	for path, is := range after {
		switch was := before[path]; {
		case strings.HasPrefix(path, "/var/log/jumpsuite"), is == was:
		case path == "/etc/sudoers.d/.keep" && !d.has("/etc/sudoers.d/README"): // sudo-rs wants the folder, and dpkg would take it
		case was == "":
			d.t.Errorf("purged: %s is left", path)
		default:
			d.t.Errorf("purged: %s was %s, and is %s", path, was, is)
		}
	}
	for path := range before {
		if after[path] == "" {
			d.t.Errorf("purged: %s is gone", path)
		}
	}
}

// elsewhere are folders and files that change with every installation, of whatever
// package, and the user database: who has the numbers of users may own evidence.
var elsewhere = regexp.MustCompile(`^/(proc|sys|dev|root|home|tmp|run/(docker\.sock|sudo)|usr/bin/docker|var/(cache|lib/(dpkg|apt)|log/(apt|dpkg\.log|lastlog|faillog))|etc/((passwd|group|g?shadow|subuid|subgid)-?|\.pwd\.lock))(/|$)`)

// tree is each path, with its mode, owner and content.
func (d *debian) tree() map[string]string {
	d.t.Helper()
	all := map[string]string{}
	must(d.t, filepath.WalkDir(d.root, func(path string, entry fs.DirEntry, err error) error {
		name := strings.TrimPrefix(path, d.root)
		if err == nil && elsewhere.MatchString(name) {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		stat := info.Sys().(*syscall.Stat_t)
		is := fmt.Sprintf("%v of %d:%d", info.Mode(), stat.Uid, stat.Gid)
		if info.Mode().IsRegular() {
			is += fmt.Sprintf(", %d bytes of %v", info.Size(), info.ModTime())
		}
		all[name] = is
		return nil
	}))
	return all
}

// An empty Debian and the page are enough: its commands, and nothing else, lead to
// sudo docker ps for a member of the group. Where nothing can be booted, a folder has
// to do, in which units are enabled, and nothing is started.
func TestTheCommandsOfOperationsAreAllThatIsNeeded(t *testing.T) {
	if bootable() == nil {
		t.Skip("TestUnderSystemd follows them, on machines that were booted")
	}
	t.Run("a docker host", func(t *testing.T) {
		d := install(t, "bookworm")
		d.engine()
		d.page("A docker host", built(t, "jumpsuite-host_*_"+runtime.GOARCH+".deb"))
		d.wants("dev", "sudo -n docker ps", 0, "CONTAINER ID")
		d.wants("dev", "sudo -n docker run --rm --pull never busybox:latest echo hello", 0, "hello")
		d.wants("guest", "sudo -n docker ps", 1, "")
		d.enabled("sockets.target.wants/r3-dockerproxy.socket", "multi-user.target.wants/r3-dockerproxy.service",
			"sockets.target.wants/r3-ecr.socket", "timers.target.wants/jumpsuite-enrol.timer")
	})
	t.Run("a jump server", func(t *testing.T) {
		d := install(t, "bookworm", "sudo")
		d.page("A jump server", built(t, "jumpsuite_*_"+runtime.GOARCH+".deb"))
		d.wants("dev", "sudo -n docker ps", 1, "r3-ssm is not running")
		d.wants("guest", "sudo -n docker ps", 1, "")
		d.enabled("sockets.target.wants/r3-ssm.socket", "timers.target.wants/jumpsuite-enrol.timer")
	})
}

// page runs the commands of a section of operations.md, in the folder with a package.
func (d *debian) page(section, deb string) {
	d.t.Helper()
	d.write("/usr/local/sbin/systemctl", enableOnly, 0o755)
	d.follow(commandsOf(d.t, section), deb)
}

// follow runs commands in the folder with a package, until one fails.
func (d *debian) follow(commands, deb string) {
	d.t.Helper()
	b, err := os.ReadFile(deb)
	must(d.t, err)
	d.write("/root/packages/"+filepath.Base(deb), string(b), 0o644)
	d.write("/root/commands", "cd /root/packages\n"+commands, 0o644)
	out, code := d.run("sh", "-exc", ". /root/commands")
	if code != 0 {
		d.t.Fatalf("the page's commands end with exit code %d\n%s", code, last(out))
	}
}

// enableOnly is systemctl without --now: to start units takes a systemd that runs.
const enableOnly = `#!/bin/sh
if [ "$1 $2" = "enable --now" ]; then shift 2; set -- enable "$@"; fi
exec /bin/systemctl "$@"
`

func (d *debian) pageText() string {
	d.t.Helper()
	b, err := os.ReadFile("../docs/operations.md")
	must(d.t, err)
	return string(b)
}

// commandsOf are the blocks of shell in a section of the page.
func commandsOf(t *testing.T, section string) string {
	t.Helper()
	b, err := os.ReadFile("../docs/operations.md")
	must(t, err)
	_, rest, ok := strings.Cut(string(b), "\n## "+section+"\n")
	if !ok {
		t.Fatalf("operations.md has no section %q", section)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	commands := ""
	for i, part := range strings.Split(rest, "```") {
		if i%2 == 1 {
			commands += strings.TrimPrefix(part, "sh\n")
		}
	}
	if strings.Count(commands, "\n") < 5 {
		t.Fatalf("the section %q has no commands: %q", section, commands)
	}
	return commands
}

// enabled are units that systemd starts.
func (d *debian) enabled(links ...string) {
	d.t.Helper()
	for _, l := range links {
		if !d.has("/etc/systemd/system/" + l) {
			d.t.Errorf("not enabled: %s", l)
		}
	}
}

const labWorld = `
clusters: [{name: test, hosts: [{count: 2}]}]
images: [{repository: web, tags: ["1", "2"]}]
services: [{name: web, image: "web:1"}]
`

func TestAJumpServer(t *testing.T) {
	deb := built(t, "jumpsuite_*_"+runtime.GOARCH+".deb")
	for _, s := range suites[:2] {
		t.Run(s.name+" with "+s.sudo, func(t *testing.T) {
			w, err := world.Parse([]byte(labWorld), "world")
			must(t, err)
			w.Clock.Speed = 300
			l, err := lab.Start(t.Context(), lab.Config{World: w})
			must(t, err)
			t.Cleanup(func() { l.Close() })
			d := install(t, s.name, s.sudo)
			d.sudoRS(s.sudo)
			before := d.tree()
			d.add(deb)
			d.goodRules()
			d.must("usermod", "-aG", "jumpsuite", "dev")
			d.credentials(l)
			d.write("/etc/jumpsuite/policy.yaml", fmt.Sprintf(labPolicy, l.URL()), 0o644)
			for _, tt := range []struct{ line, say string }{
				{"sudo -n show-ecs-service-status.py -s web", `"ACTIVE"`},
				{"sudo -n show-ecs-service-status -s web", `"ACTIVE"`},
				{"sudo -n r3 container list", "web"},
				{"sudo -n r3-container list --container-types", "web"},
				{"r3 container list", "web"},
				{"r3 container deploy --container-type web --image-url web:2 --interval 200ms", "web:2"},
				{"r3-container show --container-type web --image", "web:2"},
				{"man --version >/dev/null 2>&1; zcat /usr/share/man/man1/r3-container.1.gz", "container-type"},
			} {
				d.wants("dev", tt.line, 0, tt.say)
			}
			d.wants("guest", "r3 container list", 1, "")
			d.wants("guest", "sudo -n show-ecs-service-status -s web", 1, "")
			if out := d.must("r3-admin", "audit", "list"); !strings.Contains(out, "ecs.deploy") || !strings.Contains(out, "dev") {
				t.Errorf("the log does not say who deployed:\n%s", out)
			}
			d.must("r3-admin", "audit", "verify")
			d.must("/usr/sbin/r3-ssm", "--help")
			d.away("jumpsuite", before)
		})
	}
}

// credentials are the lab's, as an administrator puts them where there is no
// role of the instance.
func (d *debian) credentials(l *lab.Lab) {
	text := "[default]\n"
	for _, v := range l.Env() {
		if name, value, _ := strings.Cut(v, "="); name == "AWS_ACCESS_KEY_ID" || name == "AWS_SECRET_ACCESS_KEY" {
			text += strings.ToLower(name) + " = " + value + "\n"
		}
	}
	d.write("/etc/jumpsuite/aws/credentials", text, 0o600)
}

const labPolicy = `credentials: root
environments:
  - {name: test, cluster: test, region: eu-central-1, production: false, endpoint: %q}
rules:
  - {name: all, effect: allow, principals: [group:jumpsuite], actions: [ecs.list, ecs.show, ecs.status, ecs.deploy], environments: [test]}
`
