package session

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/coder/websocket"

	"jumpsuite/internal/intact"
	"jumpsuite/internal/session/frame"
)

const (
	// dialTimeout bounds the dial of a websocket with its handshakes.
	dialTimeout = 15 * time.Second
	// pingInterval is how often a websocket is tried, pingTimeout how long an
	// answer may take before the websocket counts as lost.
	pingInterval = 30 * time.Second
	pingTimeout  = 20 * time.Second
	// writeTimeout bounds one message's way into the kernel.
	writeTimeout = 30 * time.Second
	// messageLimit bounds a message that is read, in bytes. The agent's have a KiB.
	messageLimit = 1 << 20

	// signingName is the service that the websocket's request is signed for.
	signingName = "ssmmessages"
	// clientVersion is the plugin's version that first signed off on this protocol;
	// it claims none of its later features.
	clientVersion = "1.2.0.0"
)

// dial opens the session's websocket, with the token that is due.
func (s *Session) dial(ctx context.Context) (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	header, err := s.sign(ctx)
	if err != nil {
		return nil, err
	}
	conn, answer, err := intact.Dial(ctx, s.url, websocket.DialOptions{HTTPClient: s.http, HTTPHeader: header})
	if err != nil {
		return nil, s.config.explainDial(answer, err)
	}
	conn.SetReadLimit(messageLimit)
	id := newID()
	open := frame.Open{Schema: frame.OpenSchema, RequestID: newID().String(), Token: s.token, ClientID: id.String(), Version: clientVersion}
	if err := conn.Write(ctx, websocket.MessageText, frame.Encode(open)); err != nil {
		conn.CloseNow()
		return nil, fmt.Errorf("open the data channel of %s: %w", s.id, err)
	}
	return conn, nil
}

// sign makes the headers of a request for the session's URL (Signature Version
// 4), unless the URL is signed already.
func (s *Session) sign(ctx context.Context) (http.Header, error) {
	u, err := url.Parse(s.url)
	if err != nil {
		return nil, fmt.Errorf("the stream address of %s: %w", s.id, err)
	}
	if err := checkAddress(u); err != nil {
		return nil, err
	}
	if s.config.Credentials == nil || presigned(u) {
		return nil, nil
	}
	credentials, err := s.config.Credentials.Retrieve(ctx)
	if err != nil {
		return nil, err
	}
	u.Scheme = strings.Replace(u.Scheme, "ws", "http", 1)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	nothing := sha256.Sum256(nil)
	err = v4.NewSigner().SignHTTP(ctx, credentials, request, hex.EncodeToString(nothing[:]), signingName, s.config.Region, time.Now().Add(s.skew))
	return request.Header, err
}

// checkAddress refuses an address that is not encrypted, but for this machine's own.
func checkAddress(u *url.URL) error {
	ip := net.ParseIP(u.Hostname())
	if u.Scheme == "wss" || u.Scheme == "ws" && ip != nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("the stream address %s://%s is not encrypted", u.Scheme, u.Host)
}

func presigned(u *url.URL) bool {
	for name := range u.Query() {
		if strings.HasPrefix(strings.ToLower(name), "x-amz-") {
			return true
		}
	}
	return false
}

// serve uses a websocket until it is lost, or the session is over.
func (s *Session) serve(conn *websocket.Conn) error {
	ctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	s.mu.Lock()
	s.back() // what was said meanwhile has not come
	s.out.restart()
	s.mu.Unlock()
	s.look()
	parts := []func(context.Context, *websocket.Conn) error{s.readFrames, s.writeFrames, s.ping}
	done := make(chan struct{}, len(parts))
	for _, part := range parts {
		go func() {
			cancel(part(ctx, conn))
			done <- struct{}{}
		}()
	}
	<-ctx.Done()
	conn.CloseNow()
	for range parts {
		<-done
	}
	return context.Cause(ctx)
}

// readFrames reads the websocket, as long as there is room for what it says.
func (s *Session) readFrames(ctx context.Context, conn *websocket.Conn) error {
	buffer := make([]byte, 0, 4<<10)
	for {
		if err := s.roomToRead(ctx); err != nil {
			return err
		}
		kind, r, err := conn.Reader(ctx)
		if err != nil {
			return err
		}
		if buffer, err = readAll(buffer[:0], r); err != nil {
			return err
		}
		if kind == websocket.MessageBinary {
			s.got(buffer)
		}
	}
}

// readAll reads r to its end, into b and as much more as it takes.
func readAll(b []byte, r io.Reader) ([]byte, error) {
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if errors.Is(err, io.EOF) {
			return b, nil
		}
		if err != nil {
			return b, err
		}
	}
}

// roomToRead waits until there is room, and slows down while many messages are early.
func (s *Session) roomToRead(ctx context.Context) error {
	for {
		s.mu.Lock()
		crowded, pause := s.in.crowded(), s.in.pause()
		s.mu.Unlock()
		if !crowded && pause == 0 {
			return nil
		}
		if !crowded {
			return sleep(ctx, pause)
		}
		select {
		case <-s.in.room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// got takes one frame. A damaged one is as if it had not come: it will come again.
func (s *Session) got(b []byte) {
	f, err := frame.Parse(b)
	if err != nil {
		s.log.Warn("a damaged frame", "error", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch f.Type {
	case frame.Output:
		s.back()
		s.in.receive(f, s.deliver)
		s.look()
	case frame.Ack:
		s.back()
		s.acknowledged(f)
	case frame.Start:
		s.back()
	case frame.Pause:
		s.away()
	case frame.Closed:
		s.closedByService(f)
	}
}

// writeFrames sends what is due, at the pace that the service takes.
func (s *Session) writeFrames(ctx context.Context, conn *websocket.Conn) error {
	var buffer []byte
	for turn := 0; ; turn++ {
		if err := s.waitDue(ctx); err != nil {
			return err
		}
		if err := s.pace.Wait(ctx); err != nil {
			return err
		}
		f, ok := s.pick(turn)
		if !ok {
			continue
		}
		buffer = f.Append(buffer[:0])
		if err := write(ctx, conn, buffer); err != nil {
			return err
		}
	}
}

func write(ctx context.Context, conn *websocket.Conn, b []byte) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	return conn.Write(ctx, websocket.MessageBinary, b)
}

// waitDue waits until there is something to send.
func (s *Session) waitDue(ctx context.Context) error {
	for {
		wait, stalled := s.nextDue(time.Now())
		switch {
		case stalled:
			s.end(s.config.stalled())
			return s.Err()
		case wait == 0:
			return nil
		}
		if err := s.waitLook(ctx, wait); err != nil {
			return err
		}
	}
}

// nextDue is how long it is until something may have to be sent.
func (s *Session) nextDue(now time.Time) (wait time.Duration, stalled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out.stalled(now) {
		return 0, true
	}
	if len(s.in.acks) > 0 {
		return 0, false
	}
	return s.out.wait(now), false
}

func (s *Session) waitLook(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-s.wake:
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// acksInTurn of each so many frames are acks, when there are both: without acks
// the agent repeats itself, and without data nothing goes up.
const acksInTurn = 4

// pick takes what is to be sent next. With both acks and data due, data get one turn in four.
func (s *Session) pick(turn int) (frame.Frame, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.in.acks) > 0 && turn%acksInTurn != 0 {
		return s.pickAck(), true
	}
	if m := s.out.take(time.Now()); m != nil {
		return m.frame(), true
	}
	if len(s.in.acks) > 0 {
		return s.pickAck(), true
	}
	return frame.Frame{}, false
}

func (s *Session) pickAck() frame.Frame {
	of := s.in.acks[0]
	s.in.acks = s.in.acks[1:]
	if !s.in.crowded() {
		s.in.room.signal()
	}
	return frame.Frame{Type: frame.Ack, Created: time.Now(), Flags: frame.AckFlags, ID: newID(), Payload: of.Acknowledge()}
}

// ping tries the websocket now and then. A peer whose answer we do not read,
// because Read is slow, is not tried.
func (s *Session) ping(ctx context.Context, conn *websocket.Conn) error {
	for {
		if err := sleep(ctx, pingInterval); err != nil {
			return err
		}
		if err := pingOnce(ctx, conn); err != nil && !s.slowReader() {
			return fmt.Errorf("no answer to a ping: %w", err)
		}
	}
}

func pingOnce(ctx context.Context, conn *websocket.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	return conn.Ping(ctx)
}

func (s *Session) slowReader() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.in.crowded()
}
