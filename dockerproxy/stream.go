package dockerproxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"jumpsuite/policy"
)

// errClientGone is a caller that went away while something was running.
var errClientGone = errors.New("the client went away")

// lingering is how long a caller may take to close a connection that is over.
const lingering = time.Second

// allowed reports whether a policy allows somebody what a stream is for: its
// caller, with the groups that he has by then.
type allowed func(*policy.Policy, policy.Principal) bool

// still is the question, to be asked again when the policy changes.
func still(q policy.Request) allowed {
	return func(p *policy.Policy, who policy.Principal) bool { return p.Decide(as(q, who)).Allowed() }
}

// stillSo is still for what may have to be recorded: what would have to be by now
// and is not, is not allowed any more.
func stillSo(q policy.Request, d policy.Decision) allowed {
	return func(p *policy.Policy, who policy.Principal) bool {
		now := p.Decide(as(q, who))
		return now.Allowed() && now.Obligations.Record <= d.Obligations.Record
	}
}

// as is a question asked by somebody.
func as(q policy.Request, who policy.Principal) policy.Request {
	q.Principal = who
	return q
}

// begin makes the exchange one that stays open: it ends when the gate does, when
// the policy does not allow it any more, and on cancel. Whatever ends it closes
// the connections, which ends the copying.
func (x *exchange) begin(still allowed, conns ...net.Conn) (ctx context.Context, cancel context.CancelCauseFunc, end func()) {
	ctx, cancel = context.WithCancelCause(x.ctx)
	s := &stream{cancel: cancel, allowed: still, caller: x.conn.caller}
	x.gate.track(s)
	stop := context.AfterFunc(ctx, func() {
		for _, c := range conns {
			if c != x.conn.conn || !x.closeBecause(context.Cause(ctx)) {
				c.Close()
			}
		}
	})
	// The policy may have changed between the decision and now.
	if !s.allowed(x.gate.policy.Load(), x.conn.caller.Principal) {
		cancel(errPolicyChanged)
	}
	return ctx, cancel, func() {
		x.gate.untrack(s)
		stop()
		x.sayWhy(context.Cause(ctx))
		cancel(nil)
	}
}

// sayWhy tells the caller why a stream of his was ended, if the gate ended it: all
// that his client sees is an end.
func (x *exchange) sayWhy(cause error) {
	for _, why := range ours {
		if errors.Is(cause, why) {
			x.gate.tell(x.conn.caller, why.Error())
		}
	}
}

// ours are the reasons for which a gate ends streams by itself.
var ours = []error{errPolicyChanged, errGroupsChanged, errUnresolved, errNotRecorded}

// closeBecause closes the caller's connection, and tells why, where the other end
// is a jump server's gate and it was this gate that ended the stream.
func (x *exchange) closeBecause(why error) bool {
	c, ok := x.conn.conn.(interface{ CloseBecause(error) error })
	if !ok || !slices.ContainsFunc(ours, func(e error) bool { return errors.Is(why, e) }) {
		return false
	}
	c.CloseBecause(why)
	return true
}

// lostError is a stream that was lost on the way from a host.
type lostError struct{ text string }

func (e *lostError) Error() string { return e.text }

// orLost is err, or for a stream that was lost on the way from the host, and not
// ended there, that. The caller is told: all that his client sees is an end.
func (x *exchange) orLost(ctx context.Context, src *source, err error) error {
	if !x.gate.FarGate || src.err == nil || src.err == io.EOF || context.Cause(ctx) != nil {
		return err
	}
	why := x.gate.unreached(src.err)
	x.gate.tell(x.conn.caller, why.Error())
	return &lostError{why.Text}
}

// own takes the connection to the Engine away from the connection, for a stream
// of its own. fresh asks for a new one, for what cannot be sent twice.
func (x *exchange) own(fresh bool) (*upstream, string, error) {
	if fresh && !x.gate.FarGate {
		x.conn.dropUpstream()
	} else {
		x.conn.freshen()
	}
	up, version, err := x.engine()
	x.conn.up = nil
	return up, version, err
}

// stream asks for something and passes on what comes for as long as it comes.
// tap, if not nil, sees the payload first.
func (x *exchange) stream(a *ask, still allowed, tap func([]byte) error) error {
	return x.streamAs(a, still, func(src *source, f framing) (int64, error) {
		return copyChunked(x.conn.conn, src, f, tap)
	})
}

// copyAll passes everything on as it is.
func (x *exchange) copyAll(src *source, f framing) (int64, error) {
	return copyChunked(x.conn.conn, src, f, nil)
}

func (x *exchange) streamAs(a *ask, still allowed, copy func(*source, framing) (int64, error)) error {
	return x.streamFrom(a, nil, still, copy)
}

// streamFrom is streamAs where the answer may be there already.
func (x *exchange) streamFrom(a *ask, ans *answer, still allowed, copy func(*source, framing) (int64, error)) error {
	up, version, err := x.own(a.method != http.MethodGet)
	if err != nil {
		return err
	}
	defer up.conn.Close()
	ctx, cancel, end := x.begin(still, up.conn, x.conn.conn)
	defer end()
	x.last = true
	defer x.watchClient(cancel)()
	if ans == nil {
		ans, err = up.send(version, x.forFar(a))
	}
	if err != nil {
		return ended(ctx, x.gate.gone(err))
	}
	if ans.status >= 300 {
		return x.engineSaysNo(ans)
	}
	x.answered = true
	if x.gate.FarGate {
		x.header += farHeader + ": 1\r\n"
	}
	head := appendHead(x.conn.out[:0], ans.status, streamType(ans), -1, true)
	if _, err := x.conn.conn.Write(append(append(head, x.header...), "\r\n"...)); err != nil {
		return errClientGone
	}
	x.conn.out = nil // a stream needs it no more
	src := newSource(up.conn, up.br)
	x.out, err = copy(src, ans.framing)
	return ended(ctx, x.orLost(ctx, src, err))
}

// ended prefers the reason for which a stream was ended to the error that this
// led to, and to an end that came at the same moment: where both gates end it, the
// other's may be there first. Only who went away may have done so after the end.
func ended(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && (err != nil || cause != errClientGone) {
		return cause
	}
	if err != nil && isGone(err) {
		return errClientGone
	}
	return err
}

// engineSaysNo passes the Engine's error on.
func (x *exchange) engineSaysNo(ans *answer) error {
	body, err := ans.all(maxAnswer)
	if err != nil {
		return x.gate.gone(err)
	}
	return x.engineError(ans, body).refusal()
}

// streamTypes are the content types that a client is told.
var streamTypes = []string{"application/json", "application/vnd.docker.raw-stream", "application/vnd.docker.multiplexed-stream", "application/octet-stream"}

func streamType(ans *answer) string {
	given := ans.value("content-type")
	for _, t := range streamTypes {
		if given == t {
			return t
		}
	}
	return "application/octet-stream"
}

// watchClient ends the exchange when the client goes away, or ends what it sends:
// that belongs to no request, and a socket is not even read for it. A goroutine
// for each of two hundred silent log streams would be as much again.
func (x *exchange) watchClient(cancel context.CancelCauseFunc) (stop func()) {
	x.conn.freeReader()
	stop, ok := x.gate.watchSocket(x.conn.conn, unix.EPOLLRDHUP, func() { cancel(errClientGone) })
	if !ok {
		x.guarded(cancel, func() { x.awaitEnd(cancel) })
		return func() {}
	}
	return stop
}

// awaitEnd reads what the client sends to its end, and drops it.
func (x *exchange) awaitEnd(cancel context.CancelCauseFunc) {
	src := newSource(x.conn.conn, nil)
	for {
		_, err := src.next()
		src.release()
		if err != nil {
			cancel(errClientGone)
			return
		}
	}
}

// taps are the two directions of a raw stream, as a recording sees them, and a
// channel that is closed when the recording fails while nothing is said. Nil is
// not recorded.
type taps struct {
	in, out func([]byte) error
	failed  <-chan struct{}
	begun   func(context.Context) // called with what the stream's end is the cause of; may be nil
	over    func(*upstream)       // called when all output was passed on, before the caller is told that it has ended; may be nil
}

var errNotRecorded = errors.New("the session cannot be recorded any more")

// watch ends the exchange when the recording fails.
func (t taps) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	if t.failed == nil {
		return
	}
	go func() {
		select {
		case <-t.failed:
			cancel(errNotRecorded)
		case <-ctx.Done():
		}
	}()
}

// hijack asks for a raw stream and, once the Engine has said 101, copies bytes
// in both directions until the Engine's side ends. Each side may end its own
// direction early.
func (x *exchange) hijack(a *ask, still allowed, t taps) error {
	return x.hijackFrom(a, nil, still, t)
}

// hijackFrom is hijack where the stream may have been asked for already.
func (x *exchange) hijackFrom(a *ask, b *begun, still allowed, t taps) (err error) {
	var up *upstream
	version := ""
	if b != nil {
		b.stop()
		up = b.up
	} else if up, version, err = x.own(true); err != nil {
		return err
	}
	defer up.conn.Close()
	ctx, cancel, end := x.begin(still, up.conn, x.conn.conn)
	defer end()
	if t.begun != nil {
		t.begun(ctx)
	}
	x.last = true
	a.upgrade = true
	if b == nil {
		err = up.write(version, x.forFar(a))
	}
	var ans *answer
	if err == nil {
		ans, err = up.read(a.method)
	}
	if err != nil {
		return ended(ctx, x.gate.gone(err))
	}
	if ans.status != http.StatusSwitchingProtocols {
		return x.notSwitched(ans)
	}
	x.answered = true
	head := "HTTP/1.1 101 UPGRADED\r\nContent-Type: " + streamType(ans) + "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
	if _, err := io.WriteString(x.conn.conn, head); err != nil {
		return errClientGone
	}
	t.watch(ctx, cancel)
	return ended(ctx, x.splice(ctx, cancel, up, t))
}

// notSwitched is an Engine that answers an upgrade with something else: that is
// an answer, and no stream.
func (x *exchange) notSwitched(ans *answer) error {
	if ans.status >= 300 {
		return x.engineSaysNo(ans)
	}
	return unavailable("the Docker Engine did not switch to a stream (status %d)", ans.status)
}

func (x *exchange) splice(ctx context.Context, cancel context.CancelCauseFunc, up *upstream, t taps) error {
	input := make(chan struct{})
	var inputEnded atomic.Bool
	from := newSource(x.conn.conn, x.conn.br)
	x.conn.freeReader()
	x.guarded(cancel, func() {
		defer close(input)
		if err := x.sendInput(ctx, cancel, from, up, t.in, &inputEnded); err != nil {
			cancel(err)
		}
	})
	src := newSource(up.conn, up.br)
	n, err := copyRaw(x.conn.conn, src, t.out)
	x.out = n
	err = x.orLost(ctx, src, err)
	if err == nil && inputEnded.Load() && hungUp(x.conn.conn) {
		// On a terminal the Engine ends its side when the input ends: it was the
		// client that went away first. One that detached is there until then.
		err = errClientGone
	}
	if err != nil {
		cancel(ended(ctx, err))
	} else if t.over != nil {
		t.over(up)
	}
	if context.Cause(ctx) == nil { // what was ended before its time does not look as if it had ended
		closeWrite(x.conn.conn)
	}
	over := time.AfterFunc(lingering, func() { x.conn.conn.Close() })
	defer over.Stop()
	up.conn.Close()
	<-input
	return err
}

// sendInput copies what the caller sends. When he ends that direction the
// Engine's input ends, and he is watched from then on by other means: reading
// does not tell any more whether he is there.
func (x *exchange) sendInput(ctx context.Context, cancel context.CancelCauseFunc, from *source, up *upstream, tap func([]byte) error, over *atomic.Bool) error {
	n, err := copyRaw(up.conn, from, tap)
	x.in = n
	var tapped *tapError
	switch {
	case err == nil:
		over.Store(true)
		closeWrite(up.conn)
		stop := x.gate.watchHangup(x.conn.conn, func() { cancel(errClientGone) })
		context.AfterFunc(ctx, stop)
		return nil
	case errors.As(err, &tapped):
		return err
	case errors.Is(err, net.ErrClosed) || isEngineSide(err):
		return nil // the other direction is over, and says so
	}
	return errClientGone
}

// isEngineSide reports whether a copy to the Engine ended on the Engine's side.
func isEngineSide(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "write"
}

// tapError is a recording that does not work.
type tapError struct{ err error }

func (e *tapError) Error() string { return "the session cannot be recorded: " + e.err.Error() }

func (e *tapError) Unwrap() error { return e.err }

func setQuery(q url.Values, key, value string) url.Values {
	if q == nil {
		q = url.Values{}
	}
	q.Set(key, value)
	return q
}
