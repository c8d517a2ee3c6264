package tunnel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/yamux"
)

// banner is what the gate says first. It tells nothing that an unauthenticated
// caller may not know.
const (
	bannerName = "jumpsuite tunnel "
	banner     = bannerName + "1\n"
)

// Limits of a carrier.
const (
	// pieceDown bounds a frame from host to jump server: with its record it is one
	// read of the SSM agent (1,024 bytes), so that a stream waits no longer than that
	// for its turn.
	pieceDown = 1024 - recordHead - frameHead
	// pieceUp is for the other direction, where it is messages that are scarce.
	pieceUp = maxBody - frameHead

	// maxStreams in one carrier, those included that one side has not closed yet: a
	// gate ends a carrier with more. Open opens fewer.
	maxStreams = 256
	maxOpen    = 192
	// Streams whose other end has not said who it is, and that are looked at: at
	// first, and once somebody has. The others wait for their turn.
	maxStrangersAtFirst = 8
	maxStrangers        = 64
	// maxUnknown bounds what arrives in a carrier before somebody has said who he
	// is, in bytes: streams that wait, and those that were refused and that the other
	// side does not close, keep it. A handshake takes some 2,000, and there may be 64
	// carriers in which nobody has.
	maxUnknown = 1 << 20
	// strangerTime is how long a carrier may be open in which nobody said who he is.
	strangerTime = time.Minute

	// bannerTime is how long to wait for the gate's first line.
	bannerTime = 10 * time.Second
	// aliveEvery is how often a carrier with streams sends something. A session
	// without streams is left to SSM's idle time-out (20 minutes by default).
	aliveEvery = time.Minute
	// silentTime is how long nothing may come in a carrier with streams: the jump
	// server, or its r3-ssm, is gone then, and AWS has not noticed. A session that
	// cannot be resumed is given up after five minutes.
	silentTime = 10 * time.Minute
)

// NoGateError is a port where nobody said our banner.
type NoGateError struct {
	Got string // what was said instead; may be empty
	Err error
}

func (e *NoGateError) Error() string {
	if e.Got != "" {
		return fmt.Sprintf("no gate answers on the host: something else said %q", e.Got)
	}
	return fmt.Sprintf("no gate answers on the host: %v", e.Err)
}

func (e *NoGateError) Unwrap() error { return e.Err }

// Hint is what to do about it.
func (e *NoGateError) Hint() string {
	return "install jumpsuite on the host, or look there: systemctl status r3-dockerproxy"
}

// ExitCode is 69: the host is out of reach.
func (e *NoGateError) ExitCode() int { return 69 }

// VersionError is a gate that speaks another version.
type VersionError struct{ Gate string }

func (e *VersionError) Error() string {
	return fmt.Sprintf("the host's gate speaks version %s of the tunnel, this is version 1", e.Gate)
}

// Hint is what to do about it.
func (e *VersionError) Hint() string { return "install the same release on jump server and host" }

// ExitCode is 69: the host is out of reach.
func (e *VersionError) ExitCode() int { return 69 }

// ErrLeaving is a carrier whose gate takes no more streams, as it is being
// replaced: a new carrier reaches the new one.
var ErrLeaving = errors.New("the host's gate is being replaced and takes no more streams here")

// ErrFull is a carrier that has as many streams as it can: one more needs another
// carrier.
var ErrFull = errors.New("the session has as many streams as it can")

// Carrier is the jump server's end of a carrier. All methods may be called at
// any time from anywhere.
type Carrier struct {
	mux     *yamux.Session
	rec     *records
	leaving chan struct{}
	once    sync.Once
	opening atomic.Int32 // streams that are being opened
}

// Carry waits for the gate's banner on conn, and makes a carrier of it. It owns
// conn, and closes it on an error, too. Errors are *NoGateError, *VersionError
// and those of the connection.
//
// Each record is one Write, of 16 KiB at most. A connection that can deliver
// something twice has to do so with whole records, as SSM sessions do that make
// a message of one or more whole Writes.
func Carry(ctx context.Context, conn net.Conn) (*Carrier, error) {
	if err := readBanner(ctx, conn); err != nil {
		conn.Close()
		return nil, err
	}
	c := &Carrier{rec: newRecords(conn), leaving: make(chan struct{})}
	c.rec.opens = true
	c.rec.leaving = func() { c.once.Do(func() { close(c.leaving) }) }
	mux, err := yamux.Client(c.rec, config())
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("tunnel: %w", err)
	}
	c.mux = mux
	go c.stayAlive()
	return c, nil
}

// config is yamux's. A stream that one side has closed waits for the other
// however long that takes: it may have a slow reader. What is lost is for the
// session below to notice, so there are no pings.
func config() *yamux.Config {
	c := yamux.DefaultConfig()
	c.EnableKeepAlive = false
	c.ConnectionWriteTimeout = 10 * time.Minute
	c.StreamOpenTimeout = 0
	c.StreamCloseTimeout = 0
	c.LogOutput = io.Discard
	return c
}

func readBanner(ctx context.Context, conn net.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, bannerTime)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	var line []byte
	var err error
	for b := []byte{0}; err == nil && len(line) < 64 && !bytes.HasSuffix(line, []byte("\n")); {
		if _, err = io.ReadFull(conn, b); err == nil {
			line = append(line, b...)
		}
		if !bytes.HasPrefix([]byte(bannerName), line) && !bytes.HasPrefix(line, []byte(bannerName)) {
			return &NoGateError{Got: string(line)}
		}
	}
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	switch version, found := bytes.CutPrefix(line, []byte(bannerName)); {
	case err == nil && string(line) == banner:
		return nil
	case err == nil && found:
		return &VersionError{Gate: string(bytes.TrimSpace(version))}
	case errors.Is(context.Cause(ctx), context.Canceled):
		return context.Cause(ctx)
	case ctx.Err() != nil:
		return &NoGateError{Err: fmt.Errorf("it said nothing in %v", bannerTime)}
	default:
		return &NoGateError{Err: err}
	}
}

// Open opens a stream. It costs no round trip: what is wrong shows with the
// first read. ErrLeaving, ErrFull: make a new carrier.
func (c *Carrier) Open(ctx context.Context) (net.Conn, error) {
	if int(c.opening.Add(1))+c.Streams() > maxOpen {
		c.opening.Add(-1)
		return nil, ErrFull
	}
	type opened struct {
		s   *yamux.Stream
		err error
	}
	ch := make(chan opened, 1)
	go func() {
		s, err := c.mux.OpenStream()
		c.opening.Add(-1)
		ch <- opened{s, err}
	}()
	select {
	case o := <-ch:
		if o.err != nil {
			return nil, c.explain(o.err)
		}
		return newStream(o.s, pieceUp, c.rec, nil), nil
	case <-ctx.Done():
		go func() {
			if o := <-ch; o.err == nil {
				o.s.Close()
			}
		}()
		return nil, context.Cause(ctx)
	}
}

func (c *Carrier) explain(err error) error {
	if errors.Is(err, yamux.ErrRemoteGoAway) {
		return ErrLeaving
	}
	if cause := c.Err(); cause != nil {
		return cause
	}
	return err
}

// Streams is how many streams are open.
func (c *Carrier) Streams() int { return c.mux.NumStreams() }

// Full reports whether Open would give ErrFull now. Those that are just being
// opened may count twice.
func (c *Carrier) Full() bool { return int(c.opening.Load())+c.Streams() >= maxOpen }

// Leaving is closed when the gate takes no more streams here. Those that are
// open go on; whoever keeps the carrier closes it when they have ended.
func (c *Carrier) Leaving() <-chan struct{} { return c.leaving }

// Done is closed when the carrier has ended.
func (c *Carrier) Done() <-chan struct{} { return c.mux.CloseChan() }

// Err is why the carrier has ended; nil while it has not.
func (c *Carrier) Err() error {
	if !c.mux.IsClosed() {
		return nil
	}
	return c.rec.why()
}

// Close ends the carrier, and all its streams.
func (c *Carrier) Close() error { return c.mux.Close() }

func (c *Carrier) stayAlive() {
	tick := time.NewTicker(aliveEvery)
	defer tick.Stop()
	for {
		select {
		case <-c.Done():
			return
		case <-tick.C:
		}
		if c.Streams() > 0 && c.rec.alive() != nil {
			c.Close()
		}
	}
}

// Serve is the host's end of a carrier: it says the banner and hands each stream
// to handle, in a goroutine of its own, which closes it. When ctx ends, no more
// streams are taken and those that are open go on; closing conn ends them all.
// Serve returns when the carrier has ended and all of handle's calls have, and
// closes conn. It is the jump server that closes a carrier: it knows that
// nothing is under way to it.
//
// A stream counts as a stranger's until Accept has accepted it.
func Serve(ctx context.Context, conn net.Conn, handle func(stream net.Conn)) error {
	defer conn.Close()
	conn.SetWriteDeadline(time.Now().Add(bannerTime))
	if _, err := io.WriteString(conn, banner); err != nil {
		return fmt.Errorf("say the banner: %w", err)
	}
	conn.SetWriteDeadline(time.Time{})
	rec := newRecords(conn)
	room := roomIn(conn)
	defer room.close()
	mux, err := yamux.Server(rec, config())
	if err != nil {
		return fmt.Errorf("tunnel: %w", err)
	}
	defer mux.Close()
	s := &server{mux: mux, rec: rec, room: room, turn: make(chan struct{}, 1)}
	rec.unknown.Store(maxUnknown)
	defer context.AfterFunc(ctx, func() { mux.GoAway() })()
	defer time.AfterFunc(strangerTime, s.endIfStrange).Stop()
	go s.listen()
	return s.serve(handle)
}

// server is the host's end of a carrier.
type server struct {
	mux       *yamux.Session
	rec       *records
	room      *room
	strangers atomic.Int32
	known     atomic.Bool   // somebody said who he is
	turn      chan struct{} // there may be room for one more stranger
}

func (s *server) serve(handle func(net.Conn)) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		y, err := s.mux.AcceptStream()
		if err != nil {
			return s.why(err)
		}
		if s.mux.NumStreams() > maxStreams {
			s.mux.Close()
			return fmt.Errorf("more than %d streams in one carrier", maxStreams)
		}
		st := newStream(y, pieceDown, s.rec, s)
		s.enter()
		wg.Go(func() {
			defer st.accepted(false)
			handle(st)
		})
	}
}

// why is the error that Serve returns: none where somebody closed it.
func (s *server) why(err error) error {
	if s.mux.IsClosed() {
		err = s.rec.why()
	}
	if errors.Is(err, ErrClosedThere) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// enter waits until one more stranger may be looked at, or the carrier is over.
func (s *server) enter() {
	for {
		most := int32(maxStrangersAtFirst)
		if s.known.Load() {
			most = maxStrangers
		}
		if s.strangers.Load() < most {
			s.strangers.Add(1)
			return
		}
		select {
		case <-s.turn:
		case <-s.mux.CloseChan():
			s.strangers.Add(1)
			return
		}
	}
}

// left is told that one is no stranger any more.
func (s *server) left(known bool) {
	s.strangers.Add(-1)
	if known {
		s.known.Store(true)
		s.rec.unknown.Store(anything)
	}
	select {
	case s.turn <- struct{}{}:
	default:
	}
}

// listen ends the carrier when nothing has come for long, although streams are
// open: who was at the other end would have said that he is there.
func (s *server) listen() {
	tick := time.NewTicker(aliveEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.mux.CloseChan():
			return
		case <-tick.C:
			s.endIfSilent(time.Now())
		}
	}
}

func (s *server) endIfSilent(now time.Time) {
	if s.mux.NumStreams() > 0 && now.Sub(s.rec.began)-time.Duration(s.rec.heard.Load()) > silentTime {
		s.rec.failed(errSilent)
		s.mux.Close()
	}
}

var errSilent = fmt.Errorf("the jump server has said nothing for %v, with streams open", silentTime)

func (s *server) endIfStrange() {
	if !s.known.Load() {
		s.mux.Close()
	}
}

// stream is one stream of a carrier. Close says that this side is done with it,
// in both directions: what the other side still sends is not read.
type stream struct {
	*yamux.Stream
	piece    int
	rec      *records
	server   *server // nil on the jump server
	patience patience

	accept, close sync.Once
}

func newStream(y *yamux.Stream, piece int, rec *records, s *server) *stream {
	return &stream{Stream: y, piece: piece, rec: rec, server: s, patience: patience{closed: make(chan struct{}), over: y.Session().CloseChan()}}
}

// accepted says that the stream is no stranger's any more: it is known whose it
// is, or over.
func (s *stream) accepted(known bool) {
	if s.server == nil {
		return
	}
	s.accept.Do(func() { s.server.left(known) })
}

// Read reads what the other side wrote. The end of the carrier is not the end of
// the stream: it is an error.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	return n, s.explain(err)
}

func (s *stream) explain(err error) error {
	if err == nil {
		return nil
	}
	if s.Session().IsClosed() {
		return fmt.Errorf("the carrier has ended: %w", s.rec.why())
	}
	switch {
	case errors.Is(err, yamux.ErrTimeout) && s.server != nil && s.closed():
		return net.ErrClosed
	case errors.Is(err, yamux.ErrTimeout):
		return os.ErrDeadlineExceeded // which TLS takes for what it is: one may try again
	case errors.Is(err, yamux.ErrConnectionReset):
		return ErrLeaving // a gate resets what it does not take, and nothing else
	case errors.Is(err, yamux.ErrStreamClosed):
		return net.ErrClosed
	}
	return err
}

// Write writes in pieces, so that other streams get their turn in between.
func (s *stream) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		var m int
		m, err = s.writePiece(p[:min(len(p), s.piece)])
		n, p = n+m, p[m:]
	}
	return n, s.explain(err)
}

func (s *stream) writePiece(p []byte) (n int, err error) {
	var r *room
	if s.server != nil {
		r = s.server.room
	}
	err = r.write(&s.patience, len(p), func() (err error) {
		n, err = s.Stream.Write(p)
		return err
	})
	return n, err
}

// SetWriteDeadline is as net.Conn has it.
func (s *stream) SetWriteDeadline(t time.Time) error {
	s.patience.deadline.Store(unixNano(t))
	return s.Stream.SetWriteDeadline(t)
}

// SetDeadline is as net.Conn has it.
func (s *stream) SetDeadline(t time.Time) error {
	s.patience.deadline.Store(unixNano(t))
	return s.Stream.SetDeadline(t)
}

func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// Close closes both directions. On the host nothing is read any more; on the jump
// server, what the host still sends is.
func (s *stream) Close() error {
	s.close.Do(func() { close(s.patience.closed) })
	err := s.Stream.Close()
	if s.server != nil {
		s.Stream.SetReadDeadline(time.Unix(1, 0)) // who does not close his end keeps no Read waiting
	}
	return err
}

// closed reports whether Close was called.
func (s *stream) closed() bool {
	select {
	case <-s.patience.closed:
		return true
	default:
		return false
	}
}

// ReadFrom copies in pieces of just the size that fits a record.
func (s *stream) ReadFrom(r io.Reader) (total int64, err error) {
	buf := make([]byte, s.piece)
	for {
		n, err := r.Read(buf)
		m, werr := s.Write(buf[:n])
		total += int64(m)
		if werr != nil {
			return total, werr
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}
