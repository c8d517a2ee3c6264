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
	done chan struct{} // closed when the gate is ready, or cannot be
	gate *dockerproxy.Gate
	log  *audit.Log
	err  error

	groups []string // names of the caller's

	recording sync.RWMutex // held for writing while this process is stopped
}

func newGate() *lazyGate { return &lazyGate{done: make(chan struct{})} }

// ready waits for the gate.
func (g *lazyGate) ready() (*dockerproxy.Gate, error) {
	<-g.done
	return g.gate, g.err
}

// open makes the gate ready, and keeps its policy up to date until ctx ends.
func (g *lazyGate) open(ctx context.Context, t *terminal, groups func() ([]string, error)) {
	seen := stamp(policy.Path)
	go groups() // beside the rest
	g.gate, g.err = g.make(t)
	if g.err == nil {
		g.groups, g.err = groups()
	}
	close(g.done)
	if g.err == nil {
		g.gate.Warm(ctx)
		reload(ctx, g.gate, seen)
	}
}

func (g *lazyGate) make(t *terminal) (*dockerproxy.Gate, error) {
	p, env, err := load()
	if err != nil {
		return nil, err
	}
	if g.log, err = audit.OpenLog(audit.Options{}); err != nil {
		return nil, err
	}
	leases, err := dockerproxy.OpenLeases(leasesFolder)
	if err != nil {
		return nil, cli.Errorf(exitOurs, "an administrator mends it: install -d -m 0700 "+leasesFolder, "%w", err)
	}
	gate := &dockerproxy.Gate{
		Engine:      dialEngine,
		Environment: env,
		Hosts:       hosts(),
		Record:      g.record,
		Recorder:    recorder,
		Leases:      leases,
		Credentials: ecrlogin.Asker{}.Credentials,
		Notify:      func(_ dockerproxy.Caller, text string) { t.say(text) },
		Log:         slog.New(slog.DiscardHandler),
		Processes:   true,
		Files:       true,
		Begun:       new(undertaker).begun,
	}
	gate.SetPolicy(p)
	return gate, nil
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
	gate, err := g.ready()
	g.recording.Lock()
	if err != nil {
		return g.recording.Unlock
	}
	again := gate.Leases.Pause()
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

// load reads the policy, and finds out which of its environments this is.
func load() (*policy.Policy, string, error) {
	p, err := policy.Load(policy.Path)
	if err != nil {
		return nil, "", err
	}
	env, err := environmentOf(p)
	if err != nil {
		return nil, "", err
	}
	for _, g := range p.DeniedGroups() {
		if err := caller.GroupExists(context.Background(), g); err != nil {
			return nil, "", cli.Errorf(exitOurs, "nothing is allowed until it can: an administrator corrects the rule, or the directory service",
				"the policy denies something to group %s, which cannot be resolved: %w", g, err)
		}
	}
	return p, env, nil
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
func reload(ctx context.Context, g *dockerproxy.Gate, seen fileStamp) {
	tick := time.NewTicker(looking)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := stamp(policy.Path)
		if now == seen {
			continue
		}
		seen = now
		p, env, err := load()
		if err != nil || env != g.Environment {
			p = nil
		}
		g.SetPolicy(p)
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
