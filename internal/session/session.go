// Package session is the client's end of a Session Manager session of type
// Port: an in-order byte stream to one port of one host, over the service's
// data channel.
//
// A session outlives its websocket. The service closes that about once an hour;
// the session then asks for a new token, dials again and goes on where it was:
// what has not been acknowledged is sent again, what arrived twice is dropped.
//
// One thing it cannot mend: the agent may hand a message to the port twice when
// its own websocket breaks at the wrong moment. What a session carries
// therefore numbers its records (package internal/tunnel), and has its own
// end-of-stream: a session has no half-close, and the tail of a stream that the
// far side closes may be lost. The far side speaks first: the agent takes no
// bytes before it has connected to the port.
//
// The package keeps no keys and decides nothing.
package session

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/aws/smithy-go/middleware"
	"github.com/coder/websocket"
	"golang.org/x/time/rate"

	"jumpsuite/internal/session/frame"
)

const (
	// handshakeTimeout is the agent's own [agent/session/datachannel].
	handshakeTimeout = 15 * time.Second
	// closeTimeout bounds Close; drainTimeout the part of it that waits for acks.
	closeTimeout = 10 * time.Second
	drainTimeout = 2 * time.Second
	// messagesPerSecond, acks included: at 1,000 the service cuts the websocket.
	messagesPerSecond = 900
	messageBurst      = 20
)

// API is the part of the SSM client that a session uses.
type API interface {
	StartSession(context.Context, *ssm.StartSessionInput, ...func(*ssm.Options)) (*ssm.StartSessionOutput, error)
	ResumeSession(context.Context, *ssm.ResumeSessionInput, ...func(*ssm.Options)) (*ssm.ResumeSessionOutput, error)
	TerminateSession(context.Context, *ssm.TerminateSessionInput, ...func(*ssm.Options)) (*ssm.TerminateSessionOutput, error)
}

// Config says which session to start. API and Target must be there.
type Config struct {
	API API
	// Credentials and Region sign the websocket's request. If nil, it is not signed.
	Credentials aws.CredentialsProvider
	Region      string
	// Target is an instance id.
	Target string
	// Document is a Session document of type Port, without a type of its own
	// and without a host. Empty is the account's default, which is a shell and will be refused.
	Document   string
	Parameters map[string][]string
	Reason     string // kept by AWS with the session; may be empty
	// HTTP dials the websocket. Nil means one with the proxy of the environment.
	HTTP *http.Client
	// Log is told of lost websockets and damaged frames. If nil, it is discarded.
	Log *slog.Logger
}

// Session is an open session. It is a net.Conn; Close ends it in any case.
type Session struct {
	config Config
	id     string
	url    string
	token  string        // of the next open message
	skew   time.Duration // of AWS's clock against this machine's
	http   *http.Client
	log    *slog.Logger
	pace   *rate.Limiter

	ctx    context.Context // until the session is over
	cancel context.CancelFunc
	ready  chan struct{} // closed when the handshake is complete
	idle   chan struct{} // closed when run is over
	wake   chan struct{} // the writer has something to look at

	close    sync.Once
	closeErr error
	writing  sync.Mutex // one Write at a time

	mu       sync.Mutex
	readable sync.Cond
	writable sync.Cond
	out      outgoing
	in       incoming
	agent    string      // its version
	gone     *time.Timer // the agent is away, and the port has not spoken; nil: it is not
	closing  bool        // Close has begun: whatever ends the session now, it was that
	err      error       // why the session is over

	readDeadline, writeDeadline deadline
}

// Start starts a session and waits until the host's agent has answered. The
// port itself is not connected to before that: an *Error of kind NotListening comes
// from the first Read. ctx bounds Start only.
func Start(ctx context.Context, c Config) (*Session, error) {
	in := &ssm.StartSessionInput{Target: &c.Target, Parameters: c.Parameters}
	if c.Document != "" {
		in.DocumentName = &c.Document
	}
	if c.Reason != "" {
		in.Reason = &c.Reason
	}
	out, err := c.API.StartSession(ctx, in)
	if err != nil {
		return nil, c.explainStart(err)
	}
	s := newSession(c, out)
	s.tell(out.ResultMetadata)
	conn, err := s.dial(ctx)
	if err != nil {
		return nil, errors.Join(err, s.terminate(ctx))
	}
	go s.run(conn)
	if err := s.await(ctx); err != nil {
		s.end(err)
		<-s.idle
		return nil, errors.Join(err, s.terminate(ctx))
	}
	return s, nil
}

func newSession(c Config, out *ssm.StartSessionOutput) *Session {
	s := &Session{
		config: c, id: aws.ToString(out.SessionId), url: aws.ToString(out.StreamUrl), token: aws.ToString(out.TokenValue),
		http: c.HTTP, log: c.Log,
		pace:  rate.NewLimiter(messagesPerSecond, messageBurst),
		ready: make(chan struct{}), idle: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	if s.http == nil {
		s.http = &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: dialTimeout}}
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.log = s.log.With("session", s.id, "target", c.Target)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.readable.L, s.writable.L = &s.mu, &s.mu
	s.out.rto = firstRTO
	s.in.room = make(signal, 1)
	return s
}

// tell takes from an answer of AWS's how far this machine's clock is off: what is
// signed by a wrong one is refused, and the SDK puts only its own requests right.
func (s *Session) tell(m middleware.Metadata) {
	if skew, ok := awsmiddleware.GetAttemptSkew(m); ok {
		s.skew = skew
	}
}

// await waits for the end of the handshake.
func (s *Session) await(ctx context.Context) error {
	late := time.NewTimer(handshakeTimeout)
	defer late.Stop()
	select {
	case <-s.ready:
		return nil
	case <-s.ctx.Done():
		return s.Err()
	case <-late.C:
		return s.config.silent()
	case <-ctx.Done():
		return fmt.Errorf("wait for the agent of %s: %w", s.config.Target, context.Cause(ctx))
	}
}

// run keeps the session on a websocket until it is over.
func (s *Session) run(conn *websocket.Conn) {
	defer close(s.idle)
	for {
		err := s.serve(conn)
		if s.ctx.Err() != nil {
			return
		}
		s.log.Debug("the websocket was lost", "error", err)
		if conn, err = s.resume(); err != nil {
			s.end(err)
			return
		}
	}
}

// end makes the session over, for the first reason that is given.
func (s *Session) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over(err)
}

// over is end for those who hold s.mu.
func (s *Session) over(err error) {
	if s.err != nil {
		return
	}
	if s.closing {
		err = net.ErrClosed
	}
	s.err = err
	s.back()
	s.cancel()
	s.readable.Broadcast()
	s.writable.Broadcast()
}

// ID is the session's id, which the host and CloudTrail know too.
func (s *Session) ID() string { return s.id }

// AgentVersion is what the agent says of itself.
func (s *Session) AgentVersion() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.agent
}

// Done is closed when the session is over, for whatever reason.
func (s *Session) Done() <-chan struct{} { return s.ctx.Done() }

// Err is why the session is over: io.EOF when the port closed the connection,
// net.ErrClosed after Close, else an *Error. Nil while it is open.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Read reads what the port wrote. When the session is over, what has arrived
// in order is read first.
func (s *Session) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case len(p) == 0:
			return 0, nil
		case s.readDeadline.passed():
			return 0, os.ErrDeadlineExceeded
		case s.in.inbox.Len() > 0 && !errors.Is(s.err, net.ErrClosed):
			return s.take(p)
		case s.err != nil:
			return 0, s.err
		}
		s.readable.Wait()
	}
}

// take reads from the inbox, and lets the websocket's reader go on.
func (s *Session) take(p []byte) (int, error) {
	n, err := s.in.inbox.Read(p)
	if s.in.inbox.Len() == 0 && s.in.inbox.Cap() > 2*inboxLimit {
		s.in.inbox = bytes.Buffer{} // a burst of early messages has gone through it
	}
	if s.in.inbox.Len() < inboxLimit {
		s.in.room.signal()
	}
	return n, err
}

// Write sends p to the port. It returns when p is in the window of what is
// unacknowledged, not when it has arrived. What one Write wrote is in one message
// whole, if it is of 16 KiB at most.
func (s *Session) Write(p []byte) (n int, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(p) > 0 {
		switch {
		case s.err != nil:
			return n, s.writeErr()
		case s.writeDeadline.passed():
			return n, os.ErrDeadlineExceeded
		case s.out.full(len(p)):
			s.writable.Wait()
			continue
		}
		k := s.out.add(p)
		n, p = n+k, p[k:]
		s.look()
	}
	return n, nil
}

// writeErr is the reason for which nothing can be written any more.
func (s *Session) writeErr() error {
	if errors.Is(s.err, net.ErrClosed) {
		return s.err
	}
	return fmt.Errorf("write to session %s: %w", s.id, cmp.Or(asError(s.err), net.ErrClosed))
}

// look makes the writer look for something to send.
func (s *Session) look() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Close ends the session: what was written gets two seconds to arrive, then the
// agent and the service are told, and nothing is read any more. It may take ten
// seconds when the network is bad; a session that the service could not be told about
// is ended by it when it has been idle for a while.
func (s *Session) Close() error {
	s.close.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		s.drain(ctx)
		s.end(net.ErrClosed)
		<-s.idle
		s.closed()
		s.closeErr = s.terminate(ctx)
	})
	return s.closeErr
}

// closed forgets what was received, so that a Read after Close reads nothing.
func (s *Session) closed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = net.ErrClosed
	s.in.drop()
	s.out.drop()
	s.readable.Broadcast()
}

// drain sends the flag that ends the agent's side, and waits until it and all
// before it have been acknowledged.
func (s *Session) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	if s.err != nil {
		return
	}
	s.out.push(frame.Flag, frame.FlagPayload(frame.TerminateSession))
	s.look()
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.writable.Broadcast()
	})
	defer stop()
	for s.err == nil && len(s.out.queue) > 0 && ctx.Err() == nil {
		s.writable.Wait()
	}
}

// terminate tells the service. It goes on although ctx has ended, for a while.
func (s *Session) terminate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	_, err := s.config.API.TerminateSession(ctx, &ssm.TerminateSessionInput{SessionId: &s.id})
	if _, gone := errors.AsType[*types.DoesNotExistException](err); err == nil || gone {
		return nil
	}
	return fmt.Errorf("terminate session %s on %s: %w", s.id, s.config.Target, err)
}

// addr is an end of a session.
type addr string

func (addr) Network() string  { return "ssm" }
func (a addr) String() string { return string(a) }

// LocalAddr is the session's id.
func (s *Session) LocalAddr() net.Addr { return addr(s.id) }

// RemoteAddr is the target.
func (s *Session) RemoteAddr() net.Addr { return addr(strings.TrimSpace(s.config.Target)) }
