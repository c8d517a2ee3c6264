package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"jumpsuite/dockerproxy"
	"jumpsuite/internal/audit"
	"jumpsuite/internal/cli"
	"jumpsuite/internal/keys"
	"jumpsuite/internal/listen"
	"jumpsuite/internal/loopback"
	"jumpsuite/internal/tunnel"
	"jumpsuite/internal/witness"
	"jumpsuite/policy"
)

// maxCarriers bounds the connections that bring streams from jump servers: an
// SSM session each.
const maxCarriers = 64

// far serves callers from jump servers.
type far struct {
	gate   *dockerproxy.Gate
	store  keys.Store
	host   string // as it names itself to jump servers
	record func(*audit.Event) error
	log    *slog.Logger

	check    agentCheck
	document string // of sessions that may come, where check is require
	look     func(net.Conn) (witness.Session, error)

	own     atomic.Pointer[ed25519.PrivateKey]
	trusted atomic.Pointer[keys.Set] // nil: nobody

	reloading sync.Mutex
	failed    string // why the lists could not be read the last time

	mu        sync.Mutex
	open      map[*tunnel.Conn][]tunnel.KeyID // with the keys that it is known by
	carriers  []*carried                      // in the order in which they came
	crowdedAt time.Time                       // the log was told that there are too many
	turned    int                             // connections of users of this host, since
	toldAt    time.Time                       // the log was told

	told sync.Once // the log was told that the kernel does not tell
}

// agentCheck is what is done about the SSM session behind a connection.
type agentCheck string

const (
	checkOff     agentCheck = "off"
	checkRecord  agentCheck = "record"  // look, and write it to the audit log
	checkRequire agentCheck = "require" // and refuse what has none, or one of another document
)

// serve takes connections until l is closed. Those that are open go on until
// they end; ending stopping makes them take no more streams, and ending ctx
// closes them.
func (f *far) serve(ctx, stopping context.Context, l net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := listen.Accept(ctx, l)
		if err != nil {
			if stopping.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept connections: %w", err)
		}
		if !f.mayComeIn(conn) {
			conn.Close()
			continue
		}
		c := f.admit(conn)
		if c == nil {
			conn.Close()
			continue
		}
		wg.Go(func() {
			defer f.dismiss(c)
			f.carry(ctx, stopping, c)
		})
	}
}

// carried is a connection that brings streams from a jump server.
type carried struct {
	net.Conn
	known bool // somebody on it has said who he is
	open  int  // streams of those who have
}

// admit gives a connection a place. Where there is none, the oldest on which nobody
// has said who he is has to go: who opens many and says nothing must not keep those
// out who are expected. Then the oldest in which nothing is open: a jump server whose
// r3-ssm was killed leaves those behind until AWS ends its sessions, and one that
// still has its own starts another. Nil: there is no room.
func (f *far) admit(conn net.Conn) *carried {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.carriers) >= maxCarriers {
		f.crowded()
		i := slices.IndexFunc(f.carriers, func(c *carried) bool { return !c.known })
		if i < 0 {
			i = slices.IndexFunc(f.carriers, func(c *carried) bool { return c.open == 0 })
		}
		if i < 0 {
			return nil
		}
		f.carriers[i].Close()
		f.carriers = slices.Delete(f.carriers, i, i+1)
	}
	c := &carried{Conn: conn}
	f.carriers = append(f.carriers, c)
	return c
}

// crowded tells the log that there are too many, and not for each.
func (f *far) crowded() {
	if time.Since(f.crowdedAt) < turnedEvery {
		return
	}
	f.crowdedAt = time.Now()
	f.log.Warn("too many sessions at a time: those in which nobody says who he is, or in which nothing is open, are closed", "most", maxCarriers)
}

func (f *far) dismiss(c *carried) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.carriers = slices.DeleteFunc(f.carriers, func(other *carried) bool { return other == c })
}

// recognize notes that somebody on the connection has said who he is, and has a
// stream open from now on.
func (f *far) recognize(c *carried) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c.known = true
	c.open++
}

// leaves notes that one who was recognized has no stream open any more.
func (f *far) leaves(c *carried) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c.open--
}

// mayComeIn refuses other users of this host, for whom the port is as open as for
// the SSM agent, which is root: each of them could take the places of all sessions.
// Where the kernel cannot tell, the keys do.
func (f *far) mayComeIn(conn net.Conn) bool {
	w, err := loopback.Open(conn)
	if err != nil {
		f.blind(err)
		return true
	}
	defer w.Close()
	peer, err := w.Peer()
	if err != nil && !errors.Is(err, unix.ENOENT) {
		f.blind(err)
	}
	if err != nil || peer.Inode != 0 && (peer.UID == 0 || peer.UID == os.Geteuid()) {
		return true
	}
	f.turnAway(peer.UID)
	return false
}

// blind says, once, what is not done where the kernel does not tell what is at the
// other end of a connection.
func (f *far) blind(err error) {
	f.told.Do(func() {
		f.log.Warn("the kernel does not tell what is at the other end of connections (sock_diag): users of this host are not turned away from the port, and what is typed waits for what is sent in bulk beside it", "err", err)
	})
}

// turnedEvery is how often the log says that users of this host were turned away.
const turnedEvery = 10 * time.Second

func (f *far) turnAway(uid int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turned++
	if time.Since(f.toldAt) < turnedEvery {
		return
	}
	f.log.Warn(fmt.Sprintf("a connection made by uid %d, and not by the SSM agent, was refused", uid), "since the last line", f.turned)
	f.turned, f.toldAt = 0, time.Now()
}

func (f *far) carry(ctx, stopping context.Context, c *carried) {
	conn := c.Conn // the kernel is asked about it
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	s, err := f.session(conn)
	if err != nil && f.check == checkRequire {
		f.log.Warn("a connection without an SSM session was refused", "err", err)
		conn.Close()
		return
	}
	behind := describe(s, err)
	if err := tunnel.Serve(stopping, conn, func(stream net.Conn) { f.stream(ctx, c, stream, behind) }); err != nil {
		f.log.Warn("a session from a jump server ended", "err", err, "behind", behind)
	}
}

// session is the SSM session behind a connection.
func (f *far) session(conn net.Conn) (witness.Session, error) {
	if f.check == checkOff {
		return witness.Session{}, errNotLooked
	}
	s, err := f.look(conn)
	if err == nil && f.check == checkRequire && s.Document != f.document {
		err = fmt.Errorf("session %s was started with the document %s, not %s", s.ID, s.Document, f.document)
	}
	return s, err
}

var errNotLooked = errors.New("not looked for")

// describe is what the audit log says of the session behind a connection.
func describe(s witness.Session, err error) string {
	if err != nil {
		return fmt.Sprintf("ssm session unknown: %v", err)
	}
	return fmt.Sprintf("ssm session %s of %s by %s", s.ID, s.Document, s.Owner)
}

// stream serves one caller's connection.
func (f *far) stream(ctx context.Context, c *carried, s net.Conn, behind string) {
	id := tunnel.Identity{Key: *f.own.Load(), Trusted: func(k tunnel.KeyID) bool { return f.trusted.Load().Trusts(k) }}
	recognized := false
	conn, hello, err := tunnel.Accept(ctx, s, id, func(h tunnel.Hello, k tunnel.KeyID) (tunnel.Welcome, error) {
		f.recognize(c) // before he is told so
		recognized = true
		return f.decide(h, k, behind)
	})
	if recognized {
		defer f.leaves(c)
	}
	if err != nil {
		f.log.Warn("a stream from a jump server was refused", "err", err, "behind", behind)
		return
	}
	defer conn.Close()
	line := tunnel.Line(conn.Key(), hello.Former, f.trusted.Load().Revokes)
	if !f.enter(conn, line) {
		return
	}
	defer f.leave(conn)
	f.gate.ServeConn(ctx, conn, dockerproxy.Caller{
		UID: hello.UID, Far: hello.Audit, Origin: string(line[len(line)-1]),
		Principal: policy.Principal{User: hello.User, Groups: hello.Groups, Key: string(conn.Key()), Former: words(line[1:])},
	})
}

func words(line []tunnel.KeyID) (list []string) {
	for _, id := range line {
		list = append(list, string(id))
	}
	return list
}

// decide answers a hello. That somebody came is on record before anything is
// done for him; what he does has events of its own, with the same id.
func (f *far) decide(h tunnel.Hello, k tunnel.KeyID, behind string) (tunnel.Welcome, error) {
	refused := f.refuse(h)
	now := time.Now()
	e := audit.Event{
		Time: now, ID: audit.NewID(now), Kind: audit.Decision, Action: "tunnel.open", Verdict: audit.Allow, Rule: "keys",
		Principal:   audit.Principal{UID: h.UID, Name: h.User, Groups: h.Groups, Key: string(k)},
		Environment: f.gate.Environment, Resource: audit.Resource{Host: f.host}, Detail: behind, Far: h.Audit, Follows: true,
	}
	if refused != nil {
		e.Verdict, e.Rule, e.Reason = audit.Deny, "gate", refused.Error()
	}
	if strings.HasPrefix(h.User, "system:") {
		e.Principal.Name = "not " + h.User // the log's own are called so
	}
	if err := f.record(&e); err != nil {
		return tunnel.Welcome{}, cli.Errorf(cli.ExitAudit, "an administrator of the host looks why", "it cannot be recorded, and so is not done: %w", err)
	}
	return tunnel.Welcome{Environment: f.gate.Environment, Host: f.host, Version: cli.Version()}, refused
}

// refuse says why a hello cannot be accepted.
func (f *far) refuse(h tunnel.Hello) error {
	strange := func(s string) bool {
		return strings.ContainsRune(s, ':') || strings.IndexFunc(s, func(c rune) bool { return !unicode.IsPrint(c) }) >= 0
	}
	switch {
	case h.Environment != "" && h.Environment != f.gate.Environment:
		return cli.Errorf(cli.ExitNotAllowed, "leave --environment out, or name another host", "%s is in the environment %s, not in %s", f.host, f.gate.Environment, h.Environment)
	case strange(h.User):
		return cli.Errorf(cli.ExitNotAllowed, "", "%q is no name of a user", h.User)
	}
	for _, g := range h.Groups {
		if strange(g) {
			return cli.Errorf(cli.ExitNotAllowed, "", "%q is no name of a group", g)
		}
	}
	return nil
}

// enter keeps a connection, for the day on which its key is not trusted any
// more; that may have been while it was being accepted.
func (f *far) enter(conn *tunnel.Conn, line []tunnel.KeyID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, is := lost(f.trusted.Load(), line); is {
		return false
	}
	if f.open == nil {
		f.open = map[*tunnel.Conn][]tunnel.KeyID{}
	}
	f.open[conn] = line
	return true
}

// lost is the key for which a machine that is known by line may not go on: the one in
// use is not trusted, or one that led to it, and to what its callers have, is revoked.
func lost(set *keys.Set, line []tunnel.KeyID) (key tunnel.KeyID, is bool) {
	if !set.Trusts(line[0]) {
		return line[0], true
	}
	i := slices.IndexFunc(line, set.Revokes)
	if i < 0 {
		return "", false
	}
	return line[i], true
}

func (f *far) leave(conn *tunnel.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.open, conn)
}

// trust puts a set of keys into force: connections whose key is not in it end.
func (f *far) trust(set *keys.Set) {
	f.mu.Lock()
	f.trusted.Store(set)
	ended := map[*tunnel.Conn]tunnel.KeyID{}
	for conn, line := range f.open {
		if key, is := lost(set, line); is {
			ended[conn] = key
		}
	}
	f.mu.Unlock()
	for conn, key := range ended {
		f.log.Warn("the key of an open connection is not trusted any more", "key", key)
		go conn.CloseBecause(f.distrusts(key)) // the other end hears it first, which may take a while
	}
}

// distrusts is why a jump server that was trusted is cut off.
func (f *far) distrusts(key tunnel.KeyID) error {
	return cli.Errorf(cli.ExitNotAllowed, "an administrator of the host looks there: r3-admin keys show", "%s does not trust this jump server's key %s any more", f.host, key)
}

// reload reads the keys again. While the lists cannot be read nobody is trusted;
// while this host's own key cannot, it keeps the one that it has.
func (f *far) reload() {
	f.reloading.Lock()
	defer f.reloading.Unlock()
	if own, err := f.store.Own(); err != nil {
		f.log.Error("this host's key cannot be read again", "err", err)
	} else {
		f.own.Store(&own)
	}
	set, err := f.store.Load(keys.JumpServers)
	if err != nil && err.Error() != f.failed {
		f.log.Error("no jump server is trusted until the lists of keys can be read", "err", err)
	}
	f.failed = ""
	if err != nil {
		f.failed = err.Error()
	}
	f.trust(set)
}

// keysEvery is how soon it is noticed that a list of keys was changed: fetching
// them is others' business, and they do not tell.
const keysEvery = 10 * time.Second

func (f *far) watchKeys(ctx context.Context) {
	tick := time.NewTicker(keysEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f.reload()
		}
	}
}
