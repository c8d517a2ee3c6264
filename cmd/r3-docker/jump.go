package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"jumpsuite/dockerproxy"
	"jumpsuite/internal/audit"
	"jumpsuite/internal/carrier"
	"jumpsuite/internal/cli"
	"jumpsuite/internal/keys"
	"jumpsuite/internal/tunnel"
	"jumpsuite/policy"
)

// On a jump server the containers are elsewhere: r3-docker asks r3-ssm, which
// has AWS credentials and no keys, for streams to the hosts' gates, and brings
// its keys along with each.

// farther are the environments whose hosts are reached through SSM from here. A
// machine that says which environment it is in is a docker host, whatever else
// the policy knows.
func farther(p *policy.Policy) (names []string) {
	if _, err := os.Lstat(environmentPath); !os.IsNotExist(err) {
		return nil
	}
	for _, e := range p.Environments() {
		if e.Reach == policy.ReachSSM {
			names = append(names, e.Name)
		}
	}
	return names
}

// jump is what leads from a jump server to the hosts.
type jump struct {
	carrier carrier.Client
	policy  atomic.Pointer[policy.Policy]
	caller  func() dockerproxy.Caller
	read    func() (*trust, error)
	record  func(*audit.Event) error

	mu      sync.Mutex
	trusted *trust // nil: not read yet
	open    map[*farConn]struct{}
}

// trust is this machine's key, and whose keys it trusts.
type trust struct {
	identity tunnel.Identity
	former   []tunnel.Former // keys of this machine's before that one
	hosts    *keys.Set
}

func (t *trust) trusts(key tunnel.KeyID, host string) bool { return t.hosts.TrustsAs(key, host) }

// readKeys reads them.
func readKeys() (*trust, error) {
	var store keys.Store
	own, err := store.Own()
	if err != nil {
		return nil, err
	}
	hosts, err := store.Load(keys.Hosts)
	if err != nil {
		return nil, err
	}
	former, err := store.Former()
	if err != nil {
		return nil, err
	}
	return &trust{identity: tunnel.Identity{Key: own}, former: former, hosts: hosts}, nil
}

// fleet serves the hosts of all environments that are reached from here.
func (g *lazyGate) fleet(p *policy.Policy, environments []string, front *dockerproxy.Gate) *dockerproxy.Fleet {
	j := &jump{read: readKeys, caller: g.caller, record: g.record}
	j.policy.Store(p)
	f := &dockerproxy.Fleet{Front: front, Environments: environments, Hosts: j.hosts, Where: j.where, Dial: j.dial, Learned: j.learned,
		Version: version, Spoke: spoke}
	g.apply = func(p *policy.Policy) {
		j.policy.Store(p)
		f.SetPolicy(p)
	}
	g.apply(p)
	g.look = j.look
	return f
}

// trust is what was read last; it is looked at again while streams are open.
func (j *jump) trust() (*trust, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.trusted != nil {
		return j.trusted, nil
	}
	t, err := j.read()
	if err != nil {
		return nil, err
	}
	j.trusted = t
	return t, nil
}

// look reads the keys again, and ends the streams to hosts that are not trusted
// any more: to all while the lists cannot be read.
func (j *jump) look() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.open) == 0 {
		j.trusted = nil
		return
	}
	t, err := j.read()
	if j.trusted = t; err != nil {
		j.trusted = nil
	}
	for c := range j.open {
		if j.trusted == nil || !t.trusts(c.Key(), c.host) {
			go c.end(&tunnel.UntrustedError{Key: c.Key()}) // it says goodbye first, which may take a while
		}
	}
}

// enter keeps a stream for look, unless its host is not trusted any more.
func (j *jump) enter(c *farConn) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.trusted != nil && !j.trusted.trusts(c.Key(), c.host) {
		return false
	}
	if j.open == nil {
		j.open = map[*farConn]struct{}{}
	}
	j.open[c] = struct{}{}
	return true
}

func (j *jump) leave(c *farConn) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.open, c)
}

// place is where an environment's hosts are, by the policy that is in force.
func (j *jump) place(environment string) (carrier.Place, policy.Environment, error) {
	e, ok := j.policy.Load().Environment(environment)
	if !ok || e.Reach != policy.ReachSSM {
		return carrier.Place{}, e, fmt.Errorf("the policy has no environment %s any more that is reached from here", environment)
	}
	return carrier.Place{Cluster: e.Cluster, Region: e.Region, Endpoint: e.Endpoint}, e, nil
}

func (j *jump) hosts(ctx context.Context, environment string) ([]dockerproxy.FarHost, error) {
	place, env, err := j.place(environment)
	if err != nil {
		return nil, err
	}
	list, err := j.carrier.Hosts(ctx, place)
	if err != nil {
		return nil, err
	}
	var out []dockerproxy.FarHost
	for _, h := range list {
		names := namesOf(h)
		if env.HasHost(append(names, h.ID)...) {
			out = append(out, dockerproxy.FarHost{ID: h.ID, Names: names, Environment: environment})
		}
	}
	return out, nil
}

// namesOf are what people call a host: its address, and its name with and
// without the domain.
func namesOf(h carrier.Host) (names []string) {
	if isOthers(h.Name) {
		h.Name = "" // a host says itself what it is called
	}
	short, _, _ := strings.Cut(h.Name, ".")
	for _, n := range []string{h.Address, h.Name, short} {
		if n != h.Address && isOthers(n) {
			continue
		}
		if n != "" && (len(names) == 0 || names[len(names)-1] != n) {
			names = append(names, n)
		}
	}
	return names
}

// isOthers reports whether a name is of a kind that hosts are not called by
// themselves: an address, or an instance id.
func isOthers(name string) bool { return net.ParseIP(name) != nil || carrier.IsInstance(name) }

func (j *jump) where(ctx context.Context, environment, ref string) ([]dockerproxy.Spot, error) {
	place, _, err := j.place(environment)
	if err != nil {
		return nil, err
	}
	found, err := j.carrier.Where(ctx, place, ref)
	var out []dockerproxy.Spot
	for _, f := range found {
		label := f.Name
		if f.Task != "" {
			label = "task " + f.Task + ", " + f.Name
		}
		out = append(out, dockerproxy.Spot{Host: f.Host, Container: f.Container, Label: label})
	}
	return out, err
}

// learned tells r3-ssm. It is for others, later: nothing waits for it, and
// nothing is lost with it.
func (j *jump) learned(h dockerproxy.FarHost, container string) {
	place, _, err := j.place(h.Environment)
	if err != nil {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = j.carrier.Learn(ctx, place, container, h.ID)
	}()
}

// dial opens a secure stream to a host's gate, as the caller.
func (j *jump) dial(ctx context.Context, h dockerproxy.FarHost) (net.Conn, error) {
	place, _, err := j.place(h.Environment)
	if err != nil {
		return nil, err
	}
	t, err := j.trust()
	if err != nil {
		return nil, err
	}
	hello := j.hello(h)
	hello.Former = t.former
	if err := j.opens(hello, h); err != nil {
		return nil, err
	}
	identity := t.identity
	identity.Trusted = func(id tunnel.KeyID) bool { return t.trusts(id, h.ID) }
	stream, err := j.carrier.Dial(ctx, place, h.ID)
	if err != nil {
		return nil, err
	}
	lost := sync.OnceValue(func() *carrier.Error { return j.why(place, stream) })
	conn, err := tunnel.Client(ctx, stream, identity, hello)
	if err != nil {
		return nil, cut(err, lost)
	}
	c := &farConn{Conn: conn, environment: h.Environment, host: h.ID, left: j.leave, lost: lost}
	if !j.enter(c) {
		conn.Close()
		return nil, &tunnel.UntrustedError{Key: conn.Key()}
	}
	return c, nil
}

func (j *jump) hello(h dockerproxy.FarHost) tunnel.Hello {
	who := j.caller()
	return tunnel.Hello{User: who.User, UID: who.UID, Groups: who.Groups, Audit: audit.NewID(time.Now()), Environment: h.Environment}
}

// opens records that a stream is opened: the host's log names the event, with what
// it knows of the session that the stream comes in by. What is asked for on the
// stream has events of its own.
func (j *jump) opens(hello tunnel.Hello, h dockerproxy.FarHost) error {
	e := audit.Event{
		Time: time.Now(), ID: hello.Audit, Kind: audit.Decision, Action: "tunnel.open", Verdict: audit.Allow, Rule: "keys", Follows: true,
		Principal:   audit.Principal{UID: hello.UID, Name: hello.User, Groups: hello.Groups},
		Environment: h.Environment, Resource: audit.Resource{Host: h.ID},
	}
	if err := j.record(&e); err != nil {
		return fmt.Errorf("it cannot be recorded, and so is not done: %w", err)
	}
	return nil
}

// farConn is a stream to a host that says itself in which environment it is. The
// host's word comes with the first that is read, and costs no round trip.
type farConn struct {
	*tunnel.Conn
	environment, host string
	left              func(*farConn)
	lost              func() *carrier.Error // asks why it was
	once              sync.Once
	err               error
	why               atomic.Pointer[error] // for which it was ended here
}

// end closes it for a reason.
func (c *farConn) end(why error) {
	c.why.CompareAndSwap(nil, &why)
	c.Close()
}

// Close closes it.
func (c *farConn) Close() error {
	c.left(c)
	return c.Conn.Close()
}

// Read reads nothing of a host that is elsewhere.
func (c *farConn) Read(p []byte) (int, error) {
	c.once.Do(c.check)
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.Conn.Read(p)
	return n, c.explain(err)
}

// Write writes to the host.
func (c *farConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		err = &lostError{err: err, why: c.lost()}
	}
	return n, err
}

// explain is why nothing more can be read.
func (c *farConn) explain(err error) error {
	why := c.why.Load()
	switch {
	case err != nil && why != nil:
		return *why
	}
	return cut(err, c.lost)
}

// cut is err, or for a stream that was cut on the way what r3-ssm says of that.
func cut(err error, lost func() *carrier.Error) error {
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return &lostError{err: err, why: lost()}
}

// whyTime is how long r3-ssm has to say why a stream was lost.
const whyTime = 2 * time.Second

// why asks r3-ssm why a stream was lost. It knows nothing of what an r3-ssm before
// it has done.
func (j *jump) why(p carrier.Place, stream *net.UnixConn) *carrier.Error {
	ctx, cancel := context.WithTimeout(context.Background(), whyTime)
	defer cancel()
	return j.carrier.Why(ctx, p, stream)
}

// lostError is a stream that was cut on the way.
type lostError struct {
	err error
	why *carrier.Error // nil: nobody knows
}

func (e *lostError) Error() string {
	if e.why != nil {
		return "the way to the host was lost: " + e.why.Text
	}
	return "the way to the host was lost: r3-ssm, or the session to the host, has ended"
}

func (e *lostError) Unwrap() error { return e.err }

// Hint is what to do about it.
func (e *lostError) Hint() string {
	if e.why != nil && e.why.Next != "" {
		return e.why.Next
	}
	return "try again; if it happens again: journalctl -u r3-ssm, and r3-dockerproxy on the host"
}

func (c *farConn) check() {
	w, err := c.Welcome()
	err = cut(err, c.lost)
	if err == nil && w.Environment != c.environment {
		err = &elsewhereError{host: c.host, says: w.Environment, here: c.environment}
	}
	if c.err = err; err != nil {
		c.Close()
	}
}

// elsewhereError is a host that takes itself to be in another environment than
// the one whose cluster it is in.
type elsewhereError struct{ host, says, here string }

func (e *elsewhereError) Error() string {
	return fmt.Sprintf("%s says that it is in environment %q, and ECS has it in that of %s", e.host, cli.Printable(e.says), e.here)
}

// Hint is what to do about it.
func (e *elsewhereError) Hint() string {
	return "an administrator corrects --environment of r3-dockerproxy on the host, or the cluster in the policy here"
}
