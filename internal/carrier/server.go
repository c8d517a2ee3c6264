package carrier

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"jumpsuite/internal/listen"
)

// Limits of a conversation.
const (
	askTimeout     = 5 * time.Second // to send a request, and again to take the answer
	maxConnections = 2000            // at a time, streams included; more have to wait
)

// Stream is a way to a host's gate.
type Stream interface {
	io.ReadWriteCloser
	CloseWrite() error // ends what is sent to the host, and nothing else
}

// Server answers requests. Its functions must be set. An error of theirs that is
// an *Error is sent as it is, another one as Failed.
type Server struct {
	Hosts func(context.Context, Place) ([]Host, error)
	Where func(ctx context.Context, p Place, ref string) ([]Found, error)
	Learn func(ctx context.Context, p Place, container, host string)
	Dial  func(ctx context.Context, p Place, host string) (Stream, error)
	// UID is who may ask. Zero is root.
	UID int
	// Idle is after how long without a connection Serve ends by itself. Zero: never.
	Idle time.Duration
	// Replaced reports whether Serve is to end as soon as it has nothing to do,
	// where Idle is not zero. Nil: never.
	Replaced func() bool
	// Log is told who was refused and what did not work. Nil: nobody.
	Log *slog.Logger

	mu   sync.Mutex
	lost map[string]lost // by the stream's name

	open atomic.Int64
	last atomic.Int64 // when a connection began or ended, unix nanoseconds
}

// Serve answers until ctx ends or nobody has asked for long, and closes l and
// what is open.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	s.touch(0)
	if s.Idle > 0 {
		go s.endWhenIdle(ctx, cancel)
	}
	room := make(chan struct{}, maxConnections)
	for {
		conn, err := listen.Accept(ctx, l)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept connections: %w", err)
		}
		room <- struct{}{}
		s.touch(1)
		wg.Go(func() {
			s.converse(ctx, conn)
			s.touch(-1)
			<-room
		})
	}
}

func (s *Server) touch(n int64) {
	s.open.Add(n)
	s.last.Store(time.Now().UnixNano())
}

// endWhenIdle ends the server when it had nothing to do for long, or has nothing
// to do and another one is to take its place. A connection
// that is made at that very moment stays in the socket's queue, which systemd has
// open, too: it starts the next one.
func (s *Server) endWhenIdle(ctx context.Context, end context.CancelFunc) {
	tick := time.NewTicker(min(max(s.Idle/4, time.Millisecond), time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s.open.Load() == 0 && (time.Since(time.Unix(0, s.last.Load())) >= s.Idle || s.Replaced != nil && s.Replaced()) {
			end()
			return
		}
	}
}

// converse answers one request and, if that was a dial, carries the stream.
func (s *Server) converse(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	conn.SetDeadline(time.Now().Add(askTimeout))
	if err := s.mayAsk(conn); err != nil {
		s.log().Warn("somebody who may not ask was refused", "err", err)
		send(conn, answer{Error: &Error{Kind: Refused, Text: err.Error()}})
		return
	}
	br := bufio.NewReaderSize(conn, maxRequest)
	line, err := readLine(br, maxRequest)
	if err != nil {
		s.log().Warn("a request did not come", "err", err)
		return
	}
	r, err := parseRequest(line)
	if err != nil {
		s.log().Warn("a request was not understood", "err", err)
		send(conn, answer{Error: &Error{Kind: Refused, Text: sentence(err.Error())}})
		return
	}
	conn.SetDeadline(time.Time{})
	if r.Op == opDial {
		s.carry(ctx, conn.(*net.UnixConn), br, r)
		return
	}
	send(conn, s.answer(ctx, r))
}

// answer is for what is over with it.
func (s *Server) answer(ctx context.Context, r request) answer {
	var a answer
	var err error
	switch r.Op {
	case opHosts:
		a.Hosts, err = s.Hosts(ctx, r.Place)
	case opWhere:
		a.Found, err = s.Where(ctx, r.Place, r.Ref)
	case opLearn:
		s.Learn(ctx, r.Place, r.Ref, r.Host)
	case opWhy:
		return answer{Error: s.why(r.Ref)}
	}
	if err == nil {
		err = a.plain()
	}
	if err != nil {
		return answer{Error: s.failed(r, err)}
	}
	return a
}

// failed is an error as it is sent.
func (s *Server) failed(r request, err error) *Error {
	s.log().Info("not done", "op", r.Op, "cluster", r.Cluster, "host", r.Host, "ref", r.Ref, "err", err)
	e := &Error{Kind: Failed, Text: err.Error()}
	var known *Error
	if errors.As(err, &known) && known.valid() {
		e = &Error{Kind: known.Kind, Text: err.Error(), Next: known.Next}
	}
	e.Text, e.Next = sentence(e.Text), sentence(e.Next)
	return e
}

// send writes an answer. Who went away does not want it any more.
func send(conn net.Conn, a answer) {
	line, err := json.Marshal(a)
	if err != nil || len(line) >= maxAnswer {
		line = []byte(`{"error":{"kind":"failed","text":"the answer is too long"}}`)
	}
	conn.SetWriteDeadline(time.Now().Add(askTimeout))
	_, _ = conn.Write(append(line, '\n'))
	conn.SetWriteDeadline(time.Time{})
}

// carry opens a stream and carries it until both of its directions have ended.
func (s *Server) carry(ctx context.Context, conn *net.UnixConn, early *bufio.Reader, r request) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	gone := whenGone(conn, cancel) // a caller who gives up while a session starts
	stream, err := s.Dial(ctx, r.Place, r.Host)
	gone()
	if err != nil {
		send(conn, answer{Error: s.failed(r, err)})
		return
	}
	defer stream.Close()
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	defer stop()
	send(conn, answer{})
	splice(conn, early, stream, func(err error) { s.note(conn.RemoteAddr().String(), r, err) })
}

// splice copies both ways. An end is passed on as an end of that direction only;
// when one cannot be written to any more, everything ends: whoever is at the
// other side has to see that it was no proper end, and TLS tells them. What ended
// the stream, if it was not its end, is told to lost before that.
func splice(conn *net.UnixConn, early *bufio.Reader, stream Stream, lost func(error)) {
	var wg sync.WaitGroup
	end := func(err error) {
		if err != nil {
			lost(err)
		}
		stream.Close()
		conn.Close()
	}
	wg.Go(func() {
		switch read, written := passOn(stream, early); {
		case read == nil && written == nil:
			stream.CloseWrite()
		default:
			end(written)
		}
	})
	switch read, written := passOn(conn, stream); {
	case read == nil && written == nil:
		conn.CloseWrite()
	default:
		end(read)
	}
	wg.Wait()
}

// passOn copies until the source ends, or one of the two fails.
func passOn(dst io.Writer, src io.Reader) (read, written error) {
	b := buffers.Get().(*[]byte)
	defer buffers.Put(b)
	for {
		n, err := src.Read(*b)
		if n > 0 {
			if _, err := dst.Write((*b)[:n]); err != nil {
				return nil, err
			}
		}
		if err == io.EOF {
			return nil, nil
		}
		if err != nil {
			return err, nil
		}
	}
}

// What is known of streams that were lost: for so long, and of so many.
const (
	lostFor  = time.Minute
	lostMost = 4096
)

// lost is why a stream was.
type lost struct {
	at  time.Time
	why *Error
}

// note keeps why a stream was lost, for its caller to ask. What was closed here, he
// or we have closed.
func (s *Server) note(stream string, r request, err error) {
	if !isStreamName(stream) || errors.Is(err, net.ErrClosed) {
		return
	}
	e := s.failed(r, err)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost == nil || len(s.lost) >= lostMost {
		s.lost = map[string]lost{}
	}
	if _, known := s.lost[stream]; !known { // what came first led to what follows
		s.lost[stream] = lost{time.Now(), e}
	}
}

// why is why a stream was lost; nil: it is not known. It is told once.
func (s *Server) why(stream string) *Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.lost, func(_ string, l lost) bool { return time.Since(l.at) > lostFor })
	l := s.lost[stream]
	delete(s.lost, stream)
	return l.why
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// whenGone calls f if the peer closes the connection altogether, until stop.
func whenGone(conn *net.UnixConn, f func()) (stop func()) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				if hungUp(raw) {
					f()
					return
				}
			}
		}
	}()
	return sync.OnceFunc(func() { close(done) })
}

func hungUp(raw syscall.RawConn) (up bool) {
	err := raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd)}} // hanging up is always reported
		n, err := unix.Poll(fds, 0)
		up = err == nil && n > 0 && fds[0].Revents&unix.POLLHUP != 0
	})
	return up || err != nil
}

// mayAsk asks the kernel who connected.
func (s *Server) mayAsk(conn net.Conn) error {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return errors.New("only a unix socket says who connected")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return fmt.Errorf("it is not known who asks: %w", err)
	}
	var cred *unix.Ucred
	control := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(control, err); err != nil {
		return fmt.Errorf("it is not known who asks: %w", err)
	}
	if int(cred.Uid) != s.UID {
		return fmt.Errorf("uid %d may not ask r3-ssm for anything", cred.Uid)
	}
	return nil
}

func (s *Server) log() *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}
