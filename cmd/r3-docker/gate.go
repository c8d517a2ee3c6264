package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"jumpsuite/dockerproxy"
	"jumpsuite/internal/audit"
	"jumpsuite/internal/caller"
	"jumpsuite/internal/cli"
	"jumpsuite/internal/ecrlogin"
	"jumpsuite/policy"
)

// Where things are on a host.
const (
	enginePath      = "/var/run/docker.sock"
	leasesFolder    = "/var/lib/jumpsuite/leases"
	environmentPath = "/etc/jumpsuite/environment"
)

// lazyGate is the gate, which is made ready while the CLI starts.
type lazyGate struct {
	done   chan struct{} // closed when the gate is ready, or cannot be
	serves server
	leases *dockerproxy.Leases // nil on a jump server
	log    *audit.Log
	err    error

	apply  func(*policy.Policy) // puts another policy into force
	look   func()               // looks whether streams are still what they were; nil: there is nothing to look at
	who    *caller.Caller
	groups []string // names of the caller's

	recording sync.RWMutex // held for writing while this process is stopped
}

// server is the gate of this host, or those of many.
type server interface {
	ServeConn(context.Context, net.Conn, dockerproxy.Caller)
	Recheck(context.Context, time.Duration, dockerproxy.Groups)
}

func newGate(who *caller.Caller) *lazyGate { return &lazyGate{done: make(chan struct{}), who: who} }

// ready waits for the gate.
func (g *lazyGate) ready() (server, error) {
	<-g.done
	return g.serves, g.err
}

// caller is who is served; it is known once the gate is ready.
func (g *lazyGate) caller() dockerproxy.Caller {
	return dockerproxy.Caller{UID: g.who.UID, Principal: policy.Principal{User: g.who.Name, Groups: g.groups}}
}

// open makes the gate ready, and keeps its policy up to date until ctx ends.
func (g *lazyGate) open(ctx context.Context, t *terminal, groups func() ([]string, error)) {
	seen := stamp(policy.Path)
	go groups() // beside the rest
	where, err := g.make(t)
	if err == nil {
		g.groups, err = groups()
	}
	g.err = err
	close(g.done)
	if err == nil {
		go g.serves.Recheck(ctx, recheckTime, caller.NamesOf)
		if gate, ok := g.serves.(*dockerproxy.Gate); ok {
			gate.Warm(ctx)
		}
		g.reload(ctx, where, seen)
	}
}

// recheckTime is how often the caller's groups are looked at while a stream is open.
const recheckTime = 5 * time.Minute

// make makes the gate of this host, or what leads to those of others.
func (g *lazyGate) make(t *terminal) (where place, err error) {
	p, where, err := load()
	if err != nil {
		return where, err
	}
	if g.log, err = audit.OpenLog(audit.Options{}); err != nil {
		return where, err
	}
	gate := &dockerproxy.Gate{
		Record:   g.record,
		Recorder: recorder,
		Notify:   func(_ dockerproxy.Caller, text string) { t.say(text) },
		Log:      slog.New(slog.DiscardHandler),
	}
	if len(where.far) > 0 {
		g.serves = g.fleet(p, where.far, gate)
		return where, nil
	}
	return where, g.host(gate, p, where)
}

// host makes the gate that of this host.
func (g *lazyGate) host(gate *dockerproxy.Gate, p *policy.Policy, where place) (err error) {
	if g.leases, err = dockerproxy.OpenLeases(leasesFolder); err != nil {
		return cli.Errorf(exitOurs, "an administrator mends it: install -d -m 0700 "+leasesFolder, "%w", err)
	}
	gate.Engine, gate.Environment, gate.Hosts, gate.Leases = dialEngine, where.here, hosts(), g.leases
	gate.Credentials = ecrlogin.Asker{}.Credentials
	gate.Processes, gate.Files = true, true
	gate.Begun = new(undertaker).begun
	gate.SetPolicy(p)
	g.serves, g.apply = gate, gate.SetPolicy
	return nil
}

func dialEngine(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", enginePath)
}

// record writes an event, and not while the process is being stopped: everybody
// else would wait for the log.
func (g *lazyGate) record(e *audit.Event) error {
	g.recording.RLock()
	defer g.recording.RUnlock()
	return g.log.Record(e)
}

// pause waits until nothing is held that others wait for, and keeps it so.
func (g *lazyGate) pause() (resume func()) {
	<-g.done
	g.recording.Lock()
	if g.leases == nil {
		return g.recording.Unlock
	}
	again := g.leases.Pause()
	return func() {
		again()
		g.recording.Unlock()
	}
}

func (g *lazyGate) close() {
	<-g.done
	if g.log != nil {
		g.log.Close()
	}
}

func recorder(s dockerproxy.Session) (dockerproxy.Recording, error) {
	return audit.StartRecording(audit.RecordingOptions{
		Folder: audit.DefaultFolder, ID: s.ID, Columns: s.Columns, Rows: s.Rows,
		Terminal: s.Terminal, Input: s.Input, Title: s.Caller.User + " " + s.Action,
	})
}

// hosts are the names by which -H may call this host.
func hosts() []string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return nil
	}
	short, _, _ := strings.Cut(name, ".")
	return slices.Compact([]string{name, short})
}

// place is where we are: in an environment, or where others are reached from.
type place struct {
	here string
	far  []string
}

// load reads the policy, and finds out where this is in it.
func load() (*policy.Policy, place, error) {
	var where place
	p, err := policy.Load(policy.Path)
	if err != nil {
		return nil, where, err
	}
	if where.far = farther(p); len(where.far) == 0 {
		where.here, err = environmentOf(p)
	}
	if err != nil {
		return nil, where, err
	}
	for _, g := range p.DeniedGroups() {
		if err := caller.GroupExists(context.Background(), g); err != nil {
			return nil, where, cli.Errorf(exitOurs, "nothing is allowed until it can: an administrator corrects the rule, or the directory service",
				"the policy denies something to group %s, which cannot be resolved: %w", g, err)
		}
	}
	return p, where, nil
}

// environmentOf is the environment that this host belongs to: the one that the
// host's file names, or the policy's only one.
func environmentOf(p *policy.Policy) (string, error) {
	all := p.Environments()
	name, err := readName(environmentPath)
	if os.IsNotExist(err) && len(all) == 1 {
		return all[0].Name, nil
	}
	hint := "an administrator writes the name of this host's environment into " + environmentPath
	if err != nil {
		return "", cli.Errorf(exitOurs, hint, "which environment this host belongs to is not known: %w", err)
	}
	if _, ok := p.Environment(name); !ok {
		return "", cli.Errorf(exitOurs, hint, "the policy has no environment %q, which %s names", name, environmentPath)
	}
	return name, nil
}

// maxName is the length of the longest file with a name in it, in bytes.
const maxName = 256

// readName reads a file of root's that holds one word.
func readName(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Uid != 0 || st.Mode&0o022 != 0 {
		return "", fmt.Errorf("%s has to be a plain file that only root may write", path)
	}
	b := make([]byte, maxName)
	n, err := f.Read(b)
	if err != nil || n == maxName {
		return "", fmt.Errorf("%s does not hold one name", path)
	}
	return strings.TrimSpace(string(b[:n])), nil
}

// looking is how often it is looked whether the policy has changed. A look
// costs microseconds.
const looking = 3 * time.Second

// reload puts a policy that has changed into force. While it cannot be read,
// nothing is allowed, and what runs is ended.
func (g *lazyGate) reload(ctx context.Context, where place, seen fileStamp) {
	tick := time.NewTicker(looking)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if g.look != nil {
			g.look()
		}
		now := stamp(policy.Path)
		if now == seen {
			continue
		}
		seen = now
		p, there, err := load()
		if err != nil || there.here != where.here || !slices.Equal(there.far, where.far) {
			p = nil
		}
		g.apply(p)
	}
}

// fileStamp changes when a file does.
type fileStamp struct {
	dev, ino uint64
	size     int64
	changed  unix.Timespec
}

func stamp(path string) fileStamp {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fileStamp{}
	}
	return fileStamp{dev: uint64(st.Dev), ino: st.Ino, size: st.Size, changed: st.Ctim}
}
