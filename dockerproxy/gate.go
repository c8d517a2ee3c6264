package dockerproxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"jumpsuite/internal/audit"
	"jumpsuite/internal/listen"
	"jumpsuite/policy"
)

// Caller is who is at the other end of a connection. The principal has the id of
// the jump server's key, if he is not on this host.
type Caller struct {
	policy.Principal
	UID int
	// Origin is the key under which what a jump server's callers make is filed: the
	// first that it had before its present one. Empty: the present one.
	Origin string
	Far    string // id of the event at the jump server, where a request does not say it
}

// owner is the caller as leases and exec ids know him. Names can be given to
// somebody else one day, so the number counts as well.
func (c *Caller) owner() owner {
	return owner{UID: c.UID, User: c.User, Key: cmp.Or(c.Origin, c.Key)}
}

// owner is whose something is.
type owner struct {
	UID  int    `json:"uid"`
	User string `json:"user"`
	Key  string `json:"key,omitempty"`
}

// Recording is a session that is being recorded; *audit.Recording is one. When
// it fails, the session ends.
type Recording interface {
	io.Writer             // output
	Input(b []byte) error // what was typed: called only where the policy asks for it
	Resize(columns, rows int) error
	Failed() <-chan struct{}        // closed when it has failed
	Close() (sum string, err error) // sum is the SHA-256 of what was recorded, in hex
}

// Session is what a recorder is told when a session begins.
type Session struct {
	ID            string // of the event
	Caller        Caller
	Environment   string
	Action        string
	Container     string // full id
	Argv          []string
	Terminal      bool
	Columns, Rows int  // zero: not known
	Input         bool // what is typed is to be recorded, too
}

// Gate serves the Engine API to callers, as the policy allows.
//
// Engine, Record and Policy have to be set; without a policy, or where Record
// fails, nothing is allowed.
type Gate struct {
	// Engine connects to the Docker Engine.
	Engine func(ctx context.Context) (net.Conn, error)
	// FarGate says that what Engine leads to is the gate of another host, which
	// knows the caller as this one does. This gate then is one caller's, too.
	FarGate bool
	// Version, if set, is which API version a far gate's Engine spoke lately, and Spoke
	// is told of it: a ping is answered without asking then. What is spoken with
	// the Engine is decided there; this is what clients are told.
	Version func() string
	Spoke   func(version string)
	// Learned is told of containers that are made through a gate with FarGate. Nil:
	// nobody is.
	Learned func(container string)
	// Environment is the one that this host belongs to. Empty: production.
	Environment string
	// Hosts are the names of this host, as the policy and a caller's -H may know
	// it; the first is the one that rules are asked about. Empty: policy.None.
	Hosts []string
	// Record writes an event to the audit log before it is acted on.
	Record func(*audit.Event) error
	// Recorder begins the recording of a session. Nil: what has to be recorded
	// is refused.
	Recorder func(Session) (Recording, error)
	// Leases is where it is kept what was made and started here. Nil: nothing
	// may be made or started.
	Leases *Leases
	// Credentials are for a registry, as X-Registry-Auth wants them; empty: it
	// needs none. On an error the pull goes on without, and what it says is told
	// when the registry refuses. Nil: none.
	Credentials func(ctx context.Context, image string) (string, error)
	// Notify tells a caller something that no answer has room for. Nil: it goes
	// to the log only.
	Notify func(c Caller, text string)
	// Log is for what is no audit event. Nil: nowhere.
	Log *slog.Logger
	// Watch is how long a container that ECS made is watched after a start, since
	// the ECS agent stops it once more when it sees it come back. Zero: 6 s;
	// negative: not at all.
	Watch time.Duration
	// Processes says that the Engine's processes can be seen and signalled from
	// here: same PID namespace, and root.
	Processes bool
	// Files says that the host's files are those that are seen from here: what a
	// container has mounted is judged by what it really is.
	Files bool
	// Begun is told of each attached exec before it begins, and calls over when it
	// has ended and nothing is left of it. Nil: nobody is told. See EndExec.
	Begun func(Running) (over func())
	// Connections bounds what one caller may have open. Zero: 300.
	Connections int
	// AllConnections bounds what all callers together may have open. Zero: 3000.
	AllConnections int

	policy   atomic.Pointer[policy.Policy]
	pinned   atomic.Pointer[string]
	mu       sync.Mutex
	open     map[*stream]struct{}
	execs    map[string]*execution
	callers  map[owner]int
	inside   int // connections of all callers
	turned   crowd
	sessions map[sessionKey]*session
	known    map[string]known // of a far gate's containers, by id and by what they were asked for
	idle     []*upstream      // to a far gate
	coming   []chan *upstream // to a far gate, being made ready
	hangups  *hangups
}

const (
	defaultWatch       = 6 * time.Second
	defaultConnections = 300
	defaultAll         = 3000
)

// SetPolicy puts a policy into force. Requests that begin from now on are
// decided by it; streams that it does not allow are closed.
func (g *Gate) SetPolicy(p *policy.Policy) {
	g.policy.Store(p)
	g.mu.Lock()
	var ended []*stream
	for s := range g.open {
		if !s.allowed(p, s.caller.Principal) {
			ended = append(ended, s)
		}
	}
	g.mu.Unlock()
	for _, s := range ended {
		s.cancel(errPolicyChanged)
	}
}

var errPolicyChanged = errors.New("the policy was changed and does not allow it any more")

// errShutdown is why streams end when the gate does.
var errShutdown = errors.New("the gate is shutting down")

// Serve serves the connections of l until ctx ends. identify finds out who is
// at the other end of one; whom it refuses is not served. When Serve returns,
// all its connections are closed.
func (g *Gate) Serve(ctx context.Context, l net.Listener, identify func(context.Context, net.Conn) (Caller, error)) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(errShutdown)
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		conn, err := listen.Accept(ctx, l)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept connections: %w", err)
		}
		wg.Go(func() { g.welcome(ctx, conn, identify) })
	}
}

func (g *Gate) welcome(ctx context.Context, conn net.Conn, identify func(context.Context, net.Conn) (Caller, error)) {
	defer conn.Close()
	defer g.survive()
	caller, err := identify(ctx, conn)
	if err != nil {
		g.turnAway("caller not identified", "err", err)
		r := forbidden("", "it is not known who you are: %v", err)
		sendAway(conn, r)
		return
	}
	g.ServeConn(ctx, conn, caller)
}

// ServeConn serves one connection of a caller until it ends or ctx does, and
// closes it.
func (g *Gate) ServeConn(ctx context.Context, conn net.Conn, caller Caller) {
	g.serveConn(ctx, conn, caller, nil)
}

func (g *Gate) serveConn(ctx context.Context, conn net.Conn, caller Caller, fleet *Fleet) {
	defer conn.Close()
	defer g.survive()
	if r := g.enter(caller.owner()); r != nil {
		g.turnAway(r.Text, "user", caller.User, "uid", caller.UID)
		sendAway(conn, r)
		return
	}
	defer g.leave(caller.owner())
	c := newConnection(g, conn, caller)
	c.fleet = fleet
	defer c.close()
	c.serve(ctx)
}

// survive keeps a panic of one connection from ending those of all.
func (g *Gate) survive() {
	if p := recover(); p != nil {
		g.logPanic(p)
	}
}

// enter counts a connection, or refuses it.
func (g *Gate) enter(o owner) *Refusal {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.callers == nil {
		g.callers = map[owner]int{}
	}
	switch {
	case g.callers[o] >= cmp.Or(g.Connections, defaultConnections):
		return &Refusal{Status: http.StatusTooManyRequests, Text: "too many connections at a time", Hint: "end some of what is running"}
	case g.inside >= cmp.Or(g.AllConnections, defaultAll):
		return &Refusal{Status: http.StatusServiceUnavailable, Text: "too many connections of all callers at a time", Hint: "try again in a while"}
	}
	g.callers[o]++
	g.inside++
	return nil
}

func (g *Gate) leave(o owner) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.callers[o]--; g.callers[o] == 0 {
		delete(g.callers, o)
	}
}

// crowd counts connections that were turned away, of which a line each would
// fill the log.
type crowd struct {
	mu    sync.Mutex
	since time.Time // of the last line
	n     int       // turned away since
}

// crowdTime is how often a line says that connections were turned away.
const crowdTime = 10 * time.Second

// turnAway logs that a connection was turned away, and the ones that were not
// logged since the last line.
func (g *Gate) turnAway(why string, args ...any) {
	c := &g.turned
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	if time.Since(c.since) < crowdTime {
		return
	}
	g.log().Warn("connection turned away: "+why, append(args, "connections", c.n)...)
	c.since, c.n = time.Now(), 0
}

func (g *Gate) log() *slog.Logger {
	if g.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return g.Log
}

// host is the name that rules about hosts are asked about.
func (g *Gate) host() string {
	if len(g.Hosts) == 0 {
		return policy.None
	}
	return g.Hosts[0]
}

// tell says something to a caller beside the answer.
func (g *Gate) tell(c Caller, text string) {
	text = visibleText(text) // a host's words may be in it
	g.log().Info(text, "user", c.User)
	if g.Notify != nil {
		g.Notify(c, text)
	}
}

// stream is an exchange that stays open: it has to remain allowed.
type stream struct {
	allowed allowed
	caller  Caller // as he was when he connected, or when his groups were last looked at
	cancel  context.CancelCauseFunc
}

func (g *Gate) track(s *stream) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open == nil {
		g.open = map[*stream]struct{}{}
	}
	g.open[s] = struct{}{}
}

func (g *Gate) untrack(s *stream) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.open, s)
}
