// Package rootfs is what the lab's images have inside: busybox, and a program
// that behaves as a world.Image says. So a container of one is a real one: it
// can be entered, killed, looked at and logged from.
//
// A root file system has three layers. Base is the same in all images. Layer
// is an image's own and holds its behaviour, in the time outside. Task is added
// to a container by the engine that runs it for ECS: the same behaviour in lab
// time, and the ports of the task definition.
package rootfs

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"jumpsuite/internal/lab/engine"
	"jumpsuite/internal/lab/world"
)

// Entrypoint is the program of every image.
const Entrypoint = "/bin/app"

// HealthCheck is the program that says whether a container is healthy.
const HealthCheck = "/bin/healthy"

var (
	//go:embed app.sh
	app string
	//go:embed answer.sh
	answer string
	//go:embed healthy.sh
	healthy string
	//go:embed settings.sh
	settings string
)

// applets are the names that busybox has in the images: what the programs
// need, and what a person in the container looks for.
const applets = `[ ash awk base64 basename cat chmod chown clear cp cut date dd df dirname
	du echo env expr false find grep gunzip gzip head hexdump hostname id ifconfig ip kill killall less ln
	ls md5sum mkdir mkfifo mktemp more mount mv nc netstat nohup nproc nslookup od pidof ping printf ps pwd
	readlink realpath reset rm rmdir route sed seq sh sha256sum sleep sort stat stty sync tail tar tee
	telnet test time timeout top touch tr traceroute true tty uname uniq uptime vi watch wc wget which
	who whoami xargs yes`

// bash is for those who type bash, as the documentation of the platform does.
const bash = "#!/bin/sh\nexec /bin/sh \"$@\"\n"

// Available reports, in words, why Base cannot be made here; nil if it can.
func Available() error {
	_, err := busybox()
	return err
}

// busybox finds a busybox that needs no libraries and returns its bytes.
var busybox = sync.OnceValues(func() ([]byte, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return nil, errors.New("busybox is not installed (Debian: apt-get install busybox-static)")
	}
	if err := static(path); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})

func static(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s needs shared libraries (Debian: apt-get install busybox-static)", path)
		}
	}
	return nil
}

// Base is the layer that all images have, as a tar archive. It is the same
// bytes each time.
func Base() ([]byte, error) { return base() }

var base = sync.OnceValues(func() ([]byte, error) {
	program, err := busybox()
	if err != nil {
		return nil, err
	}
	var a archive
	for _, dir := range []string{"bin", "etc", "etc/lab", "root", "run", "usr", "var", "var/log"} {
		a.dir(dir, 0o755)
	}
	a.dir("tmp", 0o1777)
	a.file("bin/busybox", 0o755, program)
	for _, name := range strings.Fields(applets) {
		a.link("bin/"+name, "busybox")
	}
	a.text("bin/bash", 0o755, bash)
	a.text("bin/app", 0o755, app)
	a.text("bin/answer", 0o755, answer)
	a.text("bin/healthy", 0o755, healthy)
	a.text("etc/lab/settings", 0o644, settings)
	a.text("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/tmp:/bin/sh\n")
	a.text("etc/group", 0o644, "root:x:0:\napp:x:1000:\n")
	return a.bytes()
})

// Layer is the image's own layer, as a tar archive.
func Layer(img world.Image) ([]byte, error) {
	asIs := func(d time.Duration) time.Duration { return d }
	s := behaviour(img, asIs)
	s.set("IMAGE", name(img))
	s.set("PORTS", "80")
	var a archive
	a.text("etc/lab/image", 0o644, s.String())
	if len(img.Log) > 0 {
		a.text("etc/lab/log", 0o644, strings.Join(img.Log, "\n")+"\n")
	}
	return a.bytes()
}

func name(img world.Image) string {
	if len(img.Tags) == 0 {
		return img.Repository
	}
	return img.Repository + ":" + img.Tags[0]
}

// Task is what is added to a container that runs for ECS, as a tar archive:
// img's behaviour with outside applied to its durations, the container ports
// that it answers on, and how long it takes to stop (which depends on its stop
// time-out; negative means that it never does).
func Task(img world.Image, ports []int, stop time.Duration, outside func(time.Duration) time.Duration) ([]byte, error) {
	s := behaviour(img, outside)
	s.set("TASK", "yes")
	s.set("STOP", milliseconds(stop))
	var list []string
	for _, p := range ports {
		list = append(list, strconv.Itoa(p))
	}
	s.set("PORTS", strings.Join(list, " "))
	var a archive
	a.text("etc/lab/task", 0o644, s.String())
	return a.bytes()
}

// Override is what changes a running container's answers, as a tar archive.
// It replaces the override before it.
func Override(o engine.Override) ([]byte, error) {
	var s shell
	if o.HTTP != nil {
		s.set("HTTP", strconv.Itoa(*o.HTTP))
		s.set("HTTP_AFTER", "0")
	}
	if o.Healthy != nil && *o.Healthy {
		s.set("HEALTHY", "yes")
	} else if o.Healthy != nil {
		s.set("HEALTHY", "no")
	}
	var a archive
	a.text("etc/lab/now", 0o644, s.String())
	return a.bytes()
}

// Exit is the command that makes a container's program end with a code as if
// by itself, when it has begun.
func Exit(code int) []string {
	script := fmt.Sprintf("until [ -e /run/started ]; do sleep 0.05; done; echo %d >/run/code; kill -USR1 1", code)
	return []string{"/bin/sh", "-c", script}
}

func behaviour(img world.Image, outside func(time.Duration) time.Duration) *shell {
	ms := func(d world.Duration) string { return milliseconds(outside(time.Duration(d))) }
	s := new(shell)
	s.set("STOP", ms(img.Stop))
	s.set("STOP_CODE", "0")
	s.set("AFTER", ms(img.After))
	if img.Exit != nil {
		s.set("EXIT", strconv.Itoa(*img.Exit))
	}
	if img.OOM {
		s.set("OOM", "yes")
	}
	if img.HTTP == 0 {
		s.set("HTTP", "200")
	} else {
		s.set("HTTP", strconv.Itoa(img.HTTP))
	}
	s.set("HTTP_AFTER", ms(img.HTTPAfter))
	if img.Unhealthy && img.HealthyAfter == 0 {
		s.set("HEALTHY_AFTER", "-1")
	} else {
		s.set("HEALTHY_AFTER", ms(img.HealthyAfter))
	}
	return s
}

// milliseconds of d; a day for what never ends.
func milliseconds(d time.Duration) string {
	if d < 0 {
		d = 24 * time.Hour
	}
	return strconv.FormatInt(d.Milliseconds(), 10)
}

// shell is a list of assignments that a shell can read.
type shell struct{ strings.Builder }

func (s *shell) set(name, value string) {
	fmt.Fprintf(s, "%s='%s'\n", name, strings.ReplaceAll(value, "'", `'\''`))
}

// archive is a tar archive in the making. All times in it are zero, so that
// the same content is the same bytes.
type archive struct {
	buf bytes.Buffer
	w   *tar.Writer
	err error
}

func (a *archive) add(h *tar.Header, content []byte) {
	if a.w == nil {
		a.w = tar.NewWriter(&a.buf)
	}
	if a.err != nil {
		return
	}
	h.Format, h.ModTime, h.Size = tar.FormatUSTAR, time.Unix(0, 0), int64(len(content))
	if a.err = a.w.WriteHeader(h); a.err == nil {
		_, a.err = a.w.Write(content)
	}
}

func (a *archive) dir(name string, mode int64) {
	a.add(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}, nil)
}

func (a *archive) link(name, to string) {
	a.add(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}, nil)
}

func (a *archive) file(name string, mode int64, content []byte) {
	a.add(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, content)
}

func (a *archive) text(name string, mode int64, content string) {
	a.file(name, mode, []byte(content))
}

func (a *archive) bytes() ([]byte, error) {
	if a.err != nil {
		return nil, a.err
	}
	if err := a.w.Close(); err != nil {
		return nil, err
	}
	return a.buf.Bytes(), nil
}
