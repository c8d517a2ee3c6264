//go:build packages

package packaging

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// unshared are the namespaces of a machine. Its cgroups are its own, too: see first.
const unshared = unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC

// first becomes process 1 of a machine: it goes into the cgroup whose folder is $1,
// so that it is the root of all that the machine sees, and goes on as second.
const first = `
set -e
echo 0 >"$1/cgroup.procs"
exec unshare --cgroup /bin/sh -c "$2" boot "$3"
`

// second makes the folder $1 the root, with what a container manager gives to a
// systemd in it: https://systemd.io/CONTAINER_INTERFACE
const second = `
set -e
cd "$1"
umount -l proc sys dev
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm
for d in null zero full random urandom tty; do
	touch dev/$d
	mount --bind /dev/$d dev/$d
done
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ip link set lo up
ip address add 169.254.169.254/32 dev lo
mount --rbind . .
cd "$1"
pivot_root . mnt
umount -l /mnt
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --show-status=no
`

// bootable says why no Debian can be booted here; nil if one can.
var bootable = sync.OnceValue(func() error {
	for _, program := range []string{"unshare", "nsenter", "pivot_root", "ip"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("needs %s (Debian: util-linux, iproute2)", program)
		}
	}
	dir, err := os.MkdirTemp("", "r3-boot-")
	if err != nil {
		return err
	}
	defer os.Remove(dir)
	group, err := makeGroup(dir)
	if err != nil {
		return err
	}
	defer removeGroup(dir, group)
	cmd := exec.Command("/bin/sh", "-c", first, "first", group, "umount -l \"$1\" && mount -t cgroup2 cgroup2 \"$1\" && mount -t proc proc \"$1\" && ip link set lo up", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unshared, Unshareflags: unix.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("this machine does not let root make namespaces for a systemd: %w: %s", err, out)
	}
	return nil
})

// makeGroup makes a cgroup of version 2, below a mount of its own at dir.
func makeGroup(dir string) (string, error) {
	if err := unix.Mount("cgroup2", dir, "cgroup2", 0, ""); err != nil {
		return "", fmt.Errorf("mount cgroups of version 2: %w", err)
	}
	group, err := os.MkdirTemp(dir, "r3-boot-")
	if err != nil {
		return "", errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH))
	}
	return group, nil
}

// removeGroup removes what is empty of a cgroup, from below: its processes have
// ended, and what the kernel has yet to notice goes with the machine.
func removeGroup(dir, group string) {
	_ = exec.Command("find", group, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";").Run()
	_ = unix.Unmount(dir, unix.MNT_DETACH)
}

// boot starts the Debian as a machine of its own: with systemd as process 1, a
// loopback and no other network. Debian's mirror is reached by a proxy.
func (d *debian) boot() {
	d.t.Helper()
	if err := bootable(); err != nil {
		d.t.Skip(err)
	}
	must(d.t, os.RemoveAll(d.root+"/usr/sbin/policy-rc.d"))
	groups := filepath.Join(filepath.Dir(d.root), "cgroup")
	must(d.t, os.Mkdir(groups, 0o755))
	group, err := makeGroup(groups)
	must(d.t, err)
	cmd := exec.Command("/bin/sh", "-c", first, "first", group, second, d.root)
	log, err := os.Create(filepath.Join(filepath.Dir(d.root), "boot.log"))
	must(d.t, err)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unshared, Unshareflags: unix.CLONE_NEWNS, Setsid: true, Pdeathsig: unix.SIGKILL}
	ended := make(chan error, 1)
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // the signal comes when the thread ends that started it
		started <- cmd.Start()
		ended <- cmd.Wait()
	}()
	must(d.t, <-started)
	d.t.Cleanup(func() {
		_ = cmd.Process.Kill() // and the kernel kills everything in it
		<-ended
		removeGroup(groups, group)
		log.Close()
	})
	d.pid = cmd.Process.Pid
	d.waits(log.Name(), ended)
	d.listen("127.0.0.1:3128", serve(&httputil.ReverseProxy{Rewrite: func(*httputil.ProxyRequest) {}}))
	d.write("/etc/apt/apt.conf.d/90proxy", "Acquire::http::Proxy \"http://127.0.0.1:3128\";\n", 0o644)
}

// waits until systemd has started everything.
func (d *debian) waits(log string, ended chan error) {
	d.t.Helper()
	state := ""
	for range 600 {
		select {
		case err := <-ended:
			ended <- err
			b, _ := os.ReadFile(log)
			d.t.Fatalf("systemd ended: %v\n%s", err, b)
		case <-time.After(100 * time.Millisecond):
		}
		out, _ := d.run("systemctl", "is-system-running")
		switch state = strings.TrimSpace(out); state {
		case "running":
			return
		case "degraded":
			d.t.Logf("systemd started, but not all of:\n%s", d.must("systemctl", "list-units", "--failed", "--no-pager"))
			return
		}
	}
	b, _ := os.ReadFile(log)
	d.t.Fatalf("systemd is not up after a minute: %s\n%s", state, b)
}

// network runs f in the machine's network. What it opens can be used anywhere.
func (d *debian) network(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with this goroutine
		fd, err := os.Open("/proc/" + strconv.Itoa(d.pid) + "/ns/net")
		if err == nil {
			err = unix.Setns(int(fd.Fd()), unix.CLONE_NEWNET)
			fd.Close()
		}
		if err == nil {
			err = f()
		}
		result <- err
	}()
	return <-result
}

// listen answers on an address of the machine's loopback.
func (d *debian) listen(address string, handle func(net.Listener)) {
	d.t.Helper()
	var l net.Listener
	must(d.t, d.network(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	}))
	d.t.Cleanup(func() { l.Close() })
	go handle(l)
}

// serve answers HTTP.
func serve(h http.Handler) func(net.Listener) {
	return func(l net.Listener) {
		s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
		_ = s.Serve(l) // until it is closed
	}
}

// lead hands connections on to what dial gives.
func lead(dial func() (net.Conn, error)) func(net.Listener) {
	return func(l net.Listener) {
		for {
			near, err := l.Accept()
			if err != nil {
				return // closed
			}
			go join(near, dial)
		}
	}
}

// join copies both ways, and each way's end.
func join(near net.Conn, dial func() (net.Conn, error)) {
	defer near.Close()
	far, err := dial()
	if err != nil {
		return
	}
	defer far.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(far, near)
		_ = far.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(near, far)
	_ = near.(*net.TCPConn).CloseWrite()
	<-done
}

// dial connects to an address of the machine's loopback.
func (d *debian) dial(address string) (conn net.Conn, err error) {
	err = d.network(func() error {
		conn, err = net.Dial("tcp", address)
		return err
	})
	return conn, err
}

// eventually waits until what a command says has a part, and returns it.
func (d *debian) eventually(want string, command ...string) string {
	d.t.Helper()
	out := ""
	for range 300 {
		if out, _ = d.run(command...); strings.Contains(out, want) {
			return out
		}
		time.Sleep(200 * time.Millisecond)
	}
	d.t.Fatalf("%q does not say %q:\n%s", command, want, last(out))
	return ""
}
