package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"regexp"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"jumpsuite/dockerproxy"
	"jumpsuite/internal/caller"
	"jumpsuite/internal/cli"
	"jumpsuite/internal/keys"
	"jumpsuite/internal/listen"
)

// Where things are, unless the command line says otherwise.
const (
	socket          = "/run/jumpsuite/docker.sock"
	environmentFile = "/etc/jumpsuite/environment"
)

var environmentForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

// environmentOf reads the environment of this machine: a word in a file of root's.
func environmentOf(path string) (string, error) {
	hint := "give --environment NAME, or write the name into " + path + ": it decides what is allowed here"
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return "", cli.Usage(hint, "no environment is given: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", cli.Usage(hint, "no environment is given: %w", err)
	}
	if st := info.Sys().(*syscall.Stat_t); !info.Mode().IsRegular() || st.Uid != 0 || info.Mode().Perm()&0o022 != 0 {
		return "", cli.Errorf(cli.ExitConfig, "chown 0:0 and chmod 0644 it", "%s could be changed by others than root", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, 1000))
	word := strings.TrimSpace(string(b))
	if err != nil || !environmentForm.MatchString(word) {
		return "", cli.Errorf(cli.ExitConfig, "write one word into it, the name that the policy has", "%s says %q, which is no name of an environment", path, word)
	}
	return word, nil
}

// places are where to listen: one unix socket at most, and loopback addresses.
func places(list []string) (unix string, tcp []string, err error) {
	for _, s := range list {
		u, perr := url.Parse(s)
		switch {
		case perr == nil && u.Scheme == "tcp" && u.Path == "" && isLoopback(u.Host):
			tcp = append(tcp, u.Host)
		case perr == nil && u.Scheme == "tcp":
			return "", nil, cli.Usage("it is written tcp://127.0.0.1:2376: only the SSM agent of this host is to connect", "--listen %q is no address of the loopback", s)
		case unix != "":
			return "", nil, cli.Usage("one is enough", "--listen was given two unix sockets")
		default:
			if unix, err = socketPath("listen", s); err != nil {
				return "", nil, err
			}
		}
	}
	return unix, tcp, nil
}

func isLoopback(address string) bool {
	host, port, err := net.SplitHostPort(address)
	return err == nil && port != "" && net.ParseIP(host).IsLoopback()
}

// listeners are the sockets: those that systemd passed, or our own.
func (o options) listeners() (local []*localListener, far []net.Listener, err error) {
	var all []net.Listener
	if listen.Passed() {
		all, err = listen.All("r3-dockerproxy")
	} else {
		all, err = o.own()
	}
	for _, l := range all {
		switch {
		case l.Addr().Network() == "unix":
			local = append(local, &localListener{Listener: l})
		case isLoopback(l.Addr().String()):
			far = append(far, l)
		default:
			err = errors.Join(err, cli.Errorf(cli.ExitConfig, "write 127.0.0.1:2376 into ListenStream= in r3-dockerproxy.socket", "%s is no address of the loopback", l.Addr()))
		}
	}
	if err != nil {
		for _, l := range all {
			l.Close()
		}
	}
	return local, far, err
}

func (o options) own() (all []net.Listener, err error) {
	if o.unix != "" {
		l, err := listen.Unix("r3-dockerproxy", o.unix, os.FileMode(o.mode))
		if err != nil {
			return all, err
		}
		all = append(all, l)
	}
	for _, address := range o.tcp {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return all, cli.Errorf(cli.ExitUnavailable, "is r3-dockerproxy running already?", "listen for SSM sessions: %w", err)
		}
		all = append(all, l)
	}
	return all, nil
}

// localListener counts its open connections. Once it is stopped it waits with
// the news until the gate ends, which takes them for the end of everything.
type localListener struct {
	net.Listener
	open    atomic.Int32
	stopped <-chan struct{} // no more are taken
	ended   <-chan struct{} // and those that are open were closed
}

// Accept takes a connection.
func (l *localListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.open.Add(1)
		return &localConn{UnixConn: conn.(*net.UnixConn), over: sync.OnceFunc(func() { l.open.Add(-1) })}, nil
	}
	select {
	case <-l.stopped:
		<-l.ended
	default:
	}
	return nil, err
}

type localConn struct {
	*net.UnixConn
	over func()
}

// Close closes the connection.
func (c *localConn) Close() error {
	c.over()
	return c.UnixConn.Close()
}

// recheckTime is how often the groups of callers with open streams are looked at.
const recheckTime = 5 * time.Minute

func (o options) listenAndServe(ctx context.Context, g *dockerproxy.Gate, f *far, log *slog.Logger) error {
	local, remote, err := o.listeners()
	if err != nil {
		return err
	}
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	ending, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	hup := make(chan os.Signal, 1)
	signal.Reset(syscall.SIGHUP) // cli.Main takes it for an end
	signal.Notify(hup, syscall.SIGHUP)
	retired := sync.OnceFunc(func() { go retire(ctx, leave, func() int { return openIn(local, f) }, log) })
	go o.reload(ending, hup, g, f, retired, log)
	go f.watchKeys(ending)
	go g.Reap(ending, o.reap)
	go g.Recheck(ending, recheckTime, caller.NamesOf)
	debug.FreeOSMemory() // what reading the policy took

	var serving sync.WaitGroup
	failed := make(chan error, len(local)+len(remote))
	for _, l := range local {
		l.stopped, l.ended = ctx.Done(), ending.Done()
		serving.Go(func() { failed <- g.Serve(ending, l, newDoor().identify) })
	}
	var carrying sync.WaitGroup
	for _, l := range remote {
		carrying.Go(func() { failed <- f.serve(ending, ctx, l) })
	}
	serving.Go(carrying.Wait)
	log.Info("ready", "listen", addresses(local, remote), "engine", o.engine, "environment", o.environment, "key", keys.ID(*f.own.Load()))
	notify(daemon.SdNotifyReady)
	go watchdog(ending)

	select {
	case err = <-failed:
	case <-ctx.Done():
		if context.Cause(ctx) != errReplaced { // what systemd did not ask for, it starts again
			notify(daemon.SdNotifyStopping)
		}
		o.stop(local, remote, f, &carrying, log)
	}
	end()
	for _, l := range remote {
		l.Close()
	}
	serving.Wait()
	var stopped *cli.Interrupted
	if errors.As(context.Cause(ctx), &stopped) {
		log.Info("stopped", "signal", stopped.Signal)
	} else if err == nil {
		log.Info("stopped", "why", context.Cause(ctx))
	}
	return err
}

func addresses(local []*localListener, remote []net.Listener) (list []string) {
	for _, l := range local {
		list = append(list, l.Addr().String())
	}
	for _, l := range remote {
		list = append(list, l.Addr().String())
	}
	return list
}

// What is over is over for good after
const (
	// farewell, how long jump servers have to close their sessions when nothing is
	// open in them any more: what was sent last may still be under way to them,
	// and what came last may not be known yet;
	farewell = 3 * time.Second
	// settled, where there are no such sessions: a connection that was taken at the
	// very end is counted by then.
	settled = 100 * time.Millisecond
)

// stop takes nothing new, and lets what is open end for as long as it may.
func (o options) stop(local []*localListener, remote []net.Listener, f *far, carrying *sync.WaitGroup, log *slog.Logger) {
	for _, l := range local {
		l.Listener.Close()
	}
	for _, l := range remote {
		l.Close()
	}
	var carriers atomic.Bool
	carriers.Store(true)
	go func() { carrying.Wait(); carriers.Store(false) }()
	begin := time.Now()
	for last := begin; ; time.Sleep(settled / 2) {
		n := openIn(local, f)
		if n > 0 {
			last = time.Now()
		}
		quiet := time.Since(last)
		switch {
		case n > 0 && time.Since(begin) > o.drain:
			log.Warn("what is open is ended", "open", n, "after", o.drain)
			return
		case quiet >= min(farewell, o.drain), quiet >= settled && !carriers.Load():
			return
		}
	}
}

// errReplaced is why a process ends that makes room for the next one.
var errReplaced = errors.New("the program was replaced, and nothing is open any more")

// retire ends this process as soon as nothing is open in it: the program was
// replaced, and systemd, which has the sockets, starts the new one. Until then it
// serves old and new connections alike, so that nobody is cut off or has to wait.
func retire(ctx context.Context, end context.CancelCauseFunc, open func() int, log *slog.Logger) {
	log.Info("the program was replaced: the new one is started when nothing is open in this one", "open", open())
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for open() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	end(errReplaced)
}

func openIn(local []*localListener, f *far) int {
	n := 0
	for _, l := range local {
		n += int(l.open.Load())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return n + len(f.open)
}

// notify tells systemd, where there is one. What comes of it nobody can help.
func notify(state string) { daemon.SdNotify(false, state) }

// watchdog tells systemd that this process gets to run, as often as it asks for.
func watchdog(ctx context.Context) {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil || every == 0 {
		return
	}
	tick := time.NewTicker(every / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			notify(daemon.SdNotifyWatchdog)
		}
	}
}

// health asks the gate that is running, and through it the Engine.
func (o options) health(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", o.unix)
	if err != nil {
		return cli.Errorf(cli.ExitUnavailable, "look there: systemctl status r3-dockerproxy", "the gate does not answer: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := io.WriteString(conn, "GET /_ping HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n\r\n"); err != nil {
		return cli.Errorf(cli.ExitUnavailable, "look there: systemctl status r3-dockerproxy", "the gate does not answer: %w", err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return cli.Errorf(cli.ExitUnavailable, "look there: systemctl status r3-dockerproxy", "the gate does not answer: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10))
		return cli.Errorf(cli.ExitUnavailable, "", "the gate answers %s: %s", res.Status, strings.TrimSpace(string(text)))
	}
	return nil
}
