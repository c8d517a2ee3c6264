// Package dockerd starts a private Docker Engine: a dockerd with its own
// containerd in its own pid, mount and network namespaces, with its data on a
// tmpfs that only it can see.
//
// So it disturbs no other engine on the machine (no docker0, no iptables rule,
// no /run/docker.sock of theirs is touched), and it leaves nothing behind: when
// the first process of its pid namespace is killed, the kernel kills everything
// in it, containers included, and their mounts end with the mount namespace.
// The kernel does that also when the process that started it is killed. Two
// things outlive that: empty cgroups and a small directory with a socket and a
// log. Close removes them, and where Close never ran, the next Start does.
//
// Needed: root, and dockerd, containerd and runc (Debian: docker.io). Measured
// with Debian's 20.10.24 on two cores: 0.2 s from Start to the first answer, and
// Close takes no longer however many containers there are. So each lab has its own.
package dockerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// startTimeout is how long Start waits for the first answer; dockerd needs a
// fraction of it, a machine under load may not.
const startTimeout = 60 * time.Second

// first is what runs as process 1 of the namespaces, with a file to be seen as
// /etc/hosts and dockerd's command line as its arguments.
//
// The tmpfs over /run takes the engine's data and the sockets that containerd's
// shims leave there, and hides the machine's containerd, which dockerd would
// use if it saw its socket. The shell stays, because it reaps the orphans that
// dockerd does not.
const first = `
set -e
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
[ ! -e "$1" ] || mount --bind "$1" /etc/hosts
shift
if ! grep -q ' cgroup2\? ' /proc/self/mounts; then
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
	# Nobody outside sees these, to remove them. One in use stays.
	find /sys/fs/cgroup -depth -type d -path '*/r3-lab-dockerd-*' -exec rmdir {} \; 2>/dev/null || true
fi
"$@" &
wait $!
`

// Available reports, in words, why Start cannot work here; nil if it can.
func Available() error { return available() }

var available = sync.OnceValue(func() error {
	if os.Geteuid() != 0 {
		return errors.New("a private Docker Engine needs root")
	}
	for _, program := range []string{"dockerd", "containerd", "runc"} {
		if _, err := find(program); err != nil {
			return fmt.Errorf("%s is not installed (Debian: apt-get install docker.io)", program)
		}
	}
	return namespaces()
})

// namespaces tries what Start does, with a program that ends at once.
func namespaces() error {
	out, err := command("", "true").CombinedOutput()
	if err == nil {
		return nil
	}
	return fmt.Errorf("this machine does not let root make pid, mount and network namespaces: %w: %s",
		err, strings.TrimSpace(string(out)))
}

// find looks a program up in PATH, and where Debian keeps root's programs: PATH
// may be a user's.
func find(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin"} {
		if path, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return path, nil
		}
	}
	return "", err
}

// command is args as a child of process 1 of new namespaces.
func command(hosts string, args ...string) *exec.Cmd {
	cmd := exec.Command("/bin/sh", append([]string{"-c", first, "r3-lab", hosts}, args...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID,
		// Go makes every mount private when it unshares them, so that none of
		// ours is seen outside.
		Unshareflags: syscall.CLONE_NEWNS,
		Setsid:       true, // the terminal's Ctrl-C is for the lab, not for its engine
		Pdeathsig:    syscall.SIGKILL,
	}
	return cmd
}

// Options are how a Docker Engine is started. The zero value is ready.
type Options struct {
	// Registries are host names of registries that are played at 127.0.0.1:80
	// in the engine's network: see Listen. It finds no other, but for Docker
	// Hub, which is played there too.
	Registries []string
}

// hub is what a Docker Engine calls to pull from docker.io.
const hub = "registry-1.docker.io"

// Daemon is a running private Docker Engine.
type Daemon struct {
	options Options
	dir     string
	lock    *os.File
	cmd     *exec.Cmd
	inside  *namespace
	exited  chan struct{} // closed when process 1 ended
	once    sync.Once
	err     error
}

// Start starts a Docker Engine and waits until it answers. It first removes
// what engines left behind whose starter was killed. The caller owes a Close.
func Start(ctx context.Context, o Options) (*Daemon, error) {
	if err := Available(); err != nil {
		return nil, err
	}
	dir, lock, err := makeRoot(base())
	if err != nil {
		return nil, fmt.Errorf("make a directory for a Docker Engine: %w", err)
	}
	d := &Daemon{options: o, dir: dir, lock: lock, exited: make(chan struct{})}
	if err := d.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start a Docker Engine: %w", err), d.Close())
	}
	return d, nil
}

func (d *Daemon) start(ctx context.Context) error {
	if err := d.run(); err != nil {
		return err
	}
	var err error
	if d.inside, err = openNamespace(d.cmd.Process.Pid); err != nil {
		return err
	}
	if err := d.inside.loopbackUp(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, errors.New("no answer in "+startTimeout.String()))
	defer cancel()
	if err := d.answers(ctx); err != nil {
		return fmt.Errorf("%w; its log ends:\n%s", err, d.LogTail(2000))
	}
	return nil
}

// run starts the processes. The thread that does it stays for as long as they
// run: it is that thread's death that the kernel takes for the parent's.
func (d *Daemon) run() error {
	if err := d.furnish(); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(d.dir, "log"))
	if err != nil {
		return err
	}
	program, err := find("dockerd")
	if err != nil {
		return err
	}
	d.cmd = command(d.hosts(), append([]string{program}, d.flags()...)...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer log.Close()
		defer close(d.exited)
		err := d.cmd.Start()
		started <- err
		if err == nil {
			_ = d.cmd.Wait() // it is killed: its status says nothing
		}
	}()
	return <-started
}

// furnish writes the files that dockerd reads.
func (d *Daemon) furnish() error {
	var hosts strings.Builder
	for _, name := range append([]string{"localhost", hub}, d.options.Registries...) {
		fmt.Fprintln(&hosts, "127.0.0.1", name)
	}
	if err := os.WriteFile(d.hosts(), []byte(hosts.String()), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(d.dir, "daemon.json"), []byte("{}\n"), 0o600)
}

func (d *Daemon) hosts() string { return filepath.Join(d.dir, "hosts") }

// flags are dockerd's. Nothing is published or routed, so it needs no iptables.
func (d *Daemon) flags() []string {
	return []string{
		"--config-file", filepath.Join(d.dir, "daemon.json"), // not the machine's
		"--data-root", "/run/r3-lab/data",
		"--exec-root", "/run/r3-lab/exec",
		"--pidfile", "/run/r3-lab/pid",
		"--host", d.Host(),
		"--cgroup-parent", "/" + filepath.Base(d.dir),
		"--exec-opt", "native.cgroupdriver=cgroupfs",
		"--registry-mirror", "http://127.0.0.1", // of docker.io, which it would insist on reaching by TLS
		"--iptables=false", "--ip6tables=false", "--ip-masq=false", "--userland-proxy=false",
	}
}

// answers waits until the engine answers, or has ended.
func (d *Daemon) answers(ctx context.Context) error {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", d.socket())
	}}
	defer transport.CloseIdleConnections()
	for {
		if ping(ctx, transport) {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-d.exited:
			return errors.New("dockerd ended")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func ping(ctx context.Context, transport *http.Transport) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine/_ping", nil)
	if err != nil {
		return false
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func (d *Daemon) socket() string { return filepath.Join(d.dir, "docker.sock") }

// Host is the engine's address as DOCKER_HOST takes it.
func (d *Daemon) Host() string { return "unix://" + d.socket() }

// Pid is the process, seen from outside, that is number 1 inside: its
// namespaces are the engine's (nsenter -t PID -a).
func (d *Daemon) Pid() int { return d.cmd.Process.Pid }

// Exited is closed when the engine has ended, whatever ended it.
func (d *Daemon) Exited() <-chan struct{} { return d.exited }

// LogTail is the end of the engine's log, at most n bytes of whole lines.
func (d *Daemon) LogTail(n int64) string {
	f, err := os.Open(filepath.Join(d.dir, "log"))
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err.Error()
	}
	from := max(0, size-n)
	b, err := io.ReadAll(io.NewSectionReader(f, from, size-from))
	if err != nil {
		return err.Error()
	}
	if _, whole, ok := strings.Cut(string(b), "\n"); ok && from > 0 {
		return whole
	}
	return string(b)
}

// Dial connects to an address in the engine's network: that of a container.
// The address has to be an IP address and a port.
func (d *Daemon) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := d.inside.do(func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Listen listens in the engine's network. What listens on 127.0.0.1:80 there is
// asked, without TLS, for what the engine pulls from Options.Registries; the
// Host of the request tells which. For docker.io it is 127.0.0.1.
func (d *Daemon) Listen(network, address string) (net.Listener, error) {
	var l net.Listener
	err := d.inside.do(func() (err error) {
		l, err = net.Listen(network, address)
		return err
	})
	return l, err
}

// Close ends the engine with all its containers and removes what it left. It
// may be called more than once.
func (d *Daemon) Close() error {
	d.once.Do(func() { d.err = d.close() })
	return d.err
}

func (d *Daemon) close() error {
	if d.cmd != nil && d.cmd.Process != nil {
		if err := d.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("end a Docker Engine: %w", err)
		}
		// The kernel ends process 1 after everything else in its namespace.
		<-d.exited
	}
	if d.inside != nil {
		d.inside.close()
	}
	err := removeRoot(d.dir)
	d.lock.Close()
	return err
}
