// Package sudoer plays a docker host on which a person has no right but one line
// of sudoers: a real sudo, a real Docker Engine, the commands as they are
// installed, and a policy.
//
// It plays in a mount namespace of its own, in which /etc, /opt, /run, /var/lib
// and /var/log are covered with overlays. So the user, the sudoers line, the
// policy, the log and the leases are where they are on a real host, and nothing
// of them is left on this machine, however it ends: they end with the namespace.
package sudoer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"jumpsuite/internal/lab/dockerd"
	"jumpsuite/internal/lab/rootfs"
)

// The person, and a group that they are in. The names are nobody's, on any machine.
const (
	User  = "r3sudoer"
	UID   = 54242
	Group = "r3developers"
	Home  = scratch + "/home"
)

// Where things are on the host that is played.
const (
	Bin        = "/opt/jumpsuite"
	Engine     = "/run/docker.sock"
	Policy     = "/etc/jumpsuite/policy.yaml"
	scratch    = "/mnt"
	sudo       = "/usr/bin/sudo"
	inside     = "JUMPSUITE_SUDOER"
	moduleFile = "go.mod"
)

// Available reports, in words, why it cannot be played here; nil if it can.
func Available() error {
	if err := dockerd.Available(); err != nil {
		return err
	}
	if err := rootfs.Available(); err != nil {
		return err
	}
	if _, err := os.Stat(sudo); err != nil {
		return errors.New("sudo is not installed (Debian: apt-get install sudo)")
	}
	return nil
}

// Enter runs this program once more, with the same arguments, in a mount
// namespace of its own, and exits with its code; in there it returns. It is for
// the start of main, or TestMain.
func Enter() error {
	if os.Getenv(inside) != "" {
		return nil
	}
	// The inner one is told to end with the thread that started it.
	runtime.LockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("enter a mount namespace: %w", err)
	}
	relay(cmd.Process)
	_ = cmd.Wait() // its status says all
	os.Exit(cmd.ProcessState.ExitCode())
	return nil
}

// relay passes on what is sent to this process alone. A terminal's Ctrl-C
// reaches the inner one by itself.
func relay(inner *os.Process) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		for s := range signals {
			if s != syscall.SIGINT {
				_ = inner.Signal(s) // it may have ended just now
			}
		}
	}()
}

// Host is the host that is played.
type Host struct {
	Docker *dockerd.Daemon // nil: the Engine is another's, Options.Engine
	also   []string
}

// Options say what is on it.
type Options struct {
	Policy     string   // the text of its policy
	Registries []string // see dockerd.Options
	Also       []string // paths of other commands that sudo allows the person, to compare with
	Bin        string   // folder with r3-docker and r3-docker-cli; empty: they are built
	Engine     string   // socket of an Engine that runs already; empty: one is started
}

// Start furnishes the namespace and starts the Engine. Enter must have been
// called. The caller owes a Close.
func Start(ctx context.Context, o Options) (*Host, error) {
	if os.Getenv(inside) == "" {
		return nil, errors.New("play a docker host: Enter was not called")
	}
	h := &Host{also: o.Also}
	policy := func() error { return write(Policy, o.Policy, 0o644) }
	for _, step := range []func() error{cover, h.person, o.install, policy, func() error { return h.engine(ctx, &o) }} {
		if err := step(); err != nil {
			return nil, errors.Join(fmt.Errorf("play a docker host: %w", err), h.Close())
		}
	}
	return h, nil
}

// engine puts the Engine's socket to where it is on a host.
func (h *Host) engine(ctx context.Context, o *Options) (err error) {
	socket := o.Engine
	if socket == "" {
		if h.Docker, err = dockerd.Start(ctx, dockerd.Options{Registries: o.Registries}); err != nil {
			return err
		}
		socket = strings.TrimPrefix(h.Docker.Host(), "unix://")
	}
	_ = os.Remove(Engine) // this machine's own, seen through the overlay
	return os.Symlink(socket, Engine)
}

// Close ends the Engine, if it is the host's own. The rest ends with the
// namespace.
func (h *Host) Close() error {
	if h.Docker == nil {
		return nil
	}
	return h.Docker.Close()
}

// cover puts overlays over what will be changed.
func cover() error {
	if err := unix.Mount("sudoer", scratch, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount a tmpfs: %w", err)
	}
	for _, dir := range []string{"/etc", "/opt", "/run", "/var/lib", "/var/log"} {
		name := strings.ReplaceAll(dir[1:], "/", "-")
		upper, work := filepath.Join(scratch, name), filepath.Join(scratch, name+".work")
		if err := errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755)); err != nil {
			return err
		}
		data := "lowerdir=" + dir + ",upperdir=" + upper + ",workdir=" + work
		if err := unix.Mount("overlay", dir, "overlay", 0, data); err != nil {
			return fmt.Errorf("cover %s: %w", dir, err)
		}
	}
	return nil
}

// Shrink gives what covers the host's folders another size, in bytes: so its
// disk can be full.
func Shrink(size int64) error {
	return unix.Mount("sudoer", scratch, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("mode=755,size=%d", size))
}

// person makes the user and the line of sudoers.
func (h *Host) person() error {
	for _, line := range []struct{ file, text string }{
		{"/etc/passwd", fmt.Sprintf("%s:x:%d:%d::%s:/bin/sh\n", User, UID, UID, Home)},
		{"/etc/group", fmt.Sprintf("%s:x:%d:\n%s:x:%d:%s\n", User, UID, Group, UID+1, User)},
		{"/etc/shadow", User + ":*:20000:0:99999:7:::\n"},
	} {
		if err := appendTo(line.file, line.text); err != nil {
			return err
		}
	}
	if err := h.sudoers("use_pty"); err != nil {
		return err
	}
	if err := os.Mkdir(Home, 0o755); err != nil {
		return err
	}
	return os.Chown(Home, UID, UID)
}

// sudoers writes the line, with a setting of sudo's that is the person's alone.
func (h *Host) sudoers(setting string) error {
	commands := strings.Join(append([]string{Bin + "/sbin/docker"}, h.also...), ", ")
	return write("/etc/sudoers.d/jumpsuite-test", "Defaults:"+User+" "+setting+`, secure_path="`+Bin+`/sbin:/usr/sbin:/usr/bin:/sbin:/bin"`+"\n"+
		User+" ALL=(root:root) NOPASSWD: "+commands+"\n", 0o440)
}

// UsePTY says whether sudo gives what it runs a terminal of its own, as newer
// ones do, or leaves it on the person's.
func (h *Host) UsePTY(yes bool) error {
	if yes {
		return h.sudoers("use_pty")
	}
	return h.sudoers("!use_pty")
}

// halves are what sudo docker consists of.
var halves = []string{"r3-docker", "r3-docker-cli"}

// install puts the two halves to where they will be run.
func (o *Options) install() error {
	if err := os.MkdirAll(Bin+"/sbin", 0o755); err != nil {
		return err
	}
	if err := o.build(); err != nil {
		return err
	}
	return os.Symlink("../r3-docker", Bin+"/sbin/docker")
}

func (o *Options) build() error {
	if o.Bin != "" {
		return o.copy()
	}
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", Bin+"/", "./cmd/r3-docker", "./cmd/r3-docker-cli")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the commands: %w: %s", err, out)
	}
	return nil
}

func (o *Options) copy() error {
	for _, name := range halves {
		b, err := os.ReadFile(filepath.Join(o.Bin, name))
		if err == nil {
			err = write(filepath.Join(Bin, name), string(b), 0o755)
		}
		if err != nil {
			return fmt.Errorf("install the commands: %w", err)
		}
	}
	return nil
}

func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, moduleFile)); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("no " + moduleFile + " above the working directory")
}

// Belong makes the host one of an environment of the policy.
func (h *Host) Belong(environment string) error {
	return write("/etc/jumpsuite/environment", environment+"\n", 0o644)
}

// SetPolicy replaces the policy, as an administrator's tool does: in one step.
func (h *Host) SetPolicy(text string) error {
	if err := write(Policy+".new", text, 0o644); err != nil {
		return err
	}
	return os.Rename(Policy+".new", Policy)
}

// Command is a command of the person's, in his home and with little in the
// environment.
func (h *Host) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = Home
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + Home, "USER=" + User, "LOGNAME=" + User, "TERM=xterm", "LANG=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: UID, Gid: UID, Groups: []uint32{UID, UID + 1}}}
	return cmd
}

// Sudo is sudo docker, called by the person.
func (h *Host) Sudo(ctx context.Context, args ...string) *exec.Cmd {
	return h.Command(ctx, append([]string{sudo, "-n", "docker"}, args...)...)
}

// besideEngine mounts the proc of the pid namespace that it is in, and becomes
// the person.
const besideEngine = `mount -t proc proc /proc && uid=$1 group=$2 && shift 2 &&
	exec setpriv --reuid "$uid" --regid "$uid" --groups "$uid,$group" --inh-caps=-all "$@"`

// Beside is Sudo in the pid namespace of the Engine: there its processes can be
// seen, as on a real host.
func (h *Host) Beside(ctx context.Context, args ...string) *exec.Cmd {
	uid, group := strconv.Itoa(UID), strconv.Itoa(UID+1)
	command := []string{"nsenter", "-t", strconv.Itoa(h.Docker.Pid()), "-p", "unshare", "-m", "sh", "-c", besideEngine, "sh", uid, group, sudo, "-n", "docker"}
	cmd := h.Command(ctx, append(command, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	return cmd
}

func write(path, text string, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
