package tunnel

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// handshakeTime bounds the time until it is known who is at the other end.
const handshakeTime = 20 * time.Second

// Client makes a stream (of a Carrier, or whatever leads to one) a secure
// connection to a host's gate, and says hello. It costs one round trip: what the
// host answers comes with the first Read, or Welcome, and until then the caller
// may write already; a host that refuses has looked at none of it. The stream is
// the connection's now, and closed on an error, too.
//
// Errors are *UntrustedError, and those of the stream. Reads may give
// *NotTrustedThereError and *RefusedError.
func Client(ctx context.Context, stream net.Conn, id Identity, hello Hello) (*Conn, error) {
	c, err := client(ctx, stream, id, hello)
	if err != nil {
		stream.Close()
		return nil, fmt.Errorf("open a tunnel to the host: %w", err)
	}
	return c, nil
}

func client(ctx context.Context, stream net.Conn, id Identity, hello Hello) (*Conn, error) {
	if err := hello.check(); err != nil {
		return nil, err
	}
	c, err := meet(ctx, stream, id, protocol)
	if err != nil {
		return nil, err
	}
	return c, c.writeMessage(hello)
}

// meet makes sure whose key the host has, and speaks one of the versions with it.
func meet(ctx context.Context, stream net.Conn, id Identity, versions ...string) (*Conn, error) {
	c := &Conn{raw: stream, frame: frameUp, hearing: true, gone: make(chan struct{})}
	config, err := id.config(&c.other)
	if err != nil {
		return nil, err
	}
	config.NextProtos = versions
	c.ours = IDOf(id.Key.Public().(ed25519.PublicKey))
	c.tls = tls.Client(uncut{stream}, config)
	return c, c.handshake(ctx)
}

// handshake must not outlast ctx; the stream is closed if it would.
func (c *Conn) handshake(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, handshakeTime, errSlow)
	defer cancel()
	// TLS closes the stream then, which ends no Read of a carrier's: the other end may go on.
	defer context.AfterFunc(ctx, func() { c.raw.SetReadDeadline(time.Unix(1, 0)) })()
	err := c.tls.HandshakeContext(ctx)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return c.explain(err)
}

var errSlow = fmt.Errorf("the other end did not say who it is in %v", handshakeTime)

// explain finds the reason of the host's refusal in TLS's words.
func (c *Conn) explain(err error) error {
	var op *net.OpError
	if !c.hearing || !errors.As(err, &op) || op.Op != "remote error" {
		return err
	}
	switch says := op.Err.Error(); {
	case strings.Contains(says, "bad certificate"):
		return &NotTrustedThereError{Key: c.ours}
	case strings.Contains(says, "no application protocol"):
		return &ReleaseError{Text: "it speaks another version within TLS, and not " + protocol}
	}
	return err
}

// Accept is the host's side of Client: it makes sure that the other end has a
// trusted key before it looks at anything else, reads the hello, and lets decide
// answer it. What decide returns as an error is the refusal that the caller gets
// to see, with its hint and exit code. The stream is closed on an error.
func Accept(ctx context.Context, s net.Conn, id Identity, decide func(Hello, KeyID) (Welcome, error)) (*Conn, Hello, error) {
	c := &Conn{raw: s, frame: frameDown, squeeze: true, gone: make(chan struct{})}
	hello, err := c.accept(ctx, id, decide)
	if err != nil {
		c.Close()
		return nil, hello, err
	}
	return c, hello, nil
}

func (c *Conn) accept(ctx context.Context, id Identity, decide func(Hello, KeyID) (Welcome, error)) (hello Hello, err error) {
	config, err := id.config(&c.other)
	if err != nil {
		return hello, err
	}
	c.tls = tls.Server(uncut{c.raw}, config)
	if err := c.handshake(ctx); err != nil {
		return hello, fmt.Errorf("authenticate: %w", err)
	}
	if s, ok := c.raw.(*stream); ok {
		s.accepted(true)
	}
	if hello, err = c.readHello(); err != nil {
		return Hello{}, fmt.Errorf("read the hello of %s: %w", c.other, err)
	}
	welcome, err := decide(hello, c.other)
	a := answer{Welcome: &welcome}
	if err != nil {
		a = answer{Refused: refusal(err)}
	}
	if werr := c.writeMessage(a); err == nil {
		err = werr
	}
	return hello, err
}

func (c *Conn) writeMessage(m any) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return c.writeFrame(kindMessage, b)
}

func (c *Conn) readHello() (hello Hello, err error) {
	c.tls.SetReadDeadline(time.Now().Add(handshakeTime))
	defer c.tls.SetReadDeadline(time.Time{})
	b, err := c.readMessage()
	if err != nil {
		return hello, unexpected(err)
	}
	if err = decode(b, &hello); err == nil {
		err = hello.check()
	}
	if err != nil {
		_ = c.writeMessage(answer{Refused: refusal(misread(err))}) // or it hears the end alone
	}
	return hello, err
}

// Welcome waits for what the host says of itself. It may be called while others
// read.
func (c *Conn) Welcome() (Welcome, error) {
	c.hear.Lock()
	defer c.hear.Unlock()
	if c.hearing && c.heardErr == nil && c.heard == nil {
		c.heard, c.heardErr = c.readAnswer()
	}
	if c.heardErr != nil {
		return Welcome{}, c.heardErr
	}
	return *c.heard, nil
}

func (c *Conn) readAnswer() (*Welcome, error) {
	b, err := c.readMessage()
	if err == io.EOF {
		return nil, &ReleaseError{Text: "it ended the stream without an answer"}
	}
	if err != nil {
		return nil, c.explain(err)
	}
	var a answer
	if err := decode(b, &a); err != nil {
		return nil, ofAnotherRelease("its answer", err)
	}
	switch {
	case a.Refused != nil:
		return nil, a.Refused
	case a.Welcome == nil:
		return nil, errors.New("the host's answer says nothing")
	}
	return a.Welcome, nil
}

// Conn is a secure connection between a jump server and a host's gate. Each
// direction ends on its own: CloseWrite ends ours, and io.EOF from Read says
// that the other side has ended its own, all of which was read. Where the
// connection ends otherwise, Read returns an error that is not io.EOF.
//
// Close is for both directions; what was written before is delivered, unless a
// Write is under way.
type Conn struct {
	raw   net.Conn
	tls   *tls.Conn
	ours  KeyID
	other KeyID

	// Jump server: the host's answer, which comes first.
	hearing  bool
	hear     sync.Mutex
	heard    *Welcome
	heardErr error

	in  reader
	out writer

	frame   int  // bytes in a frame that we write
	squeeze bool // compress what we write

	exit atomic.Pointer[int] // what the host's gate said before it ended its direction

	watch sync.Once
	gone  chan struct{}
}

// Gone is closed when it is known that the other side listens no more. That it
// is gone before it has ended its own direction shows in Read only.
func (c *Conn) Gone() <-chan struct{} { return c.gone }

// Key is the other end's.
func (c *Conn) Key() KeyID { return c.other }

// Read reads what the other side wrote.
func (c *Conn) Read(p []byte) (int, error) {
	if c.hearing {
		if _, err := c.Welcome(); err != nil {
			return 0, err
		}
	}
	n, err := c.read(p)
	var timeout net.Error
	switch {
	case err == io.EOF:
		c.watch.Do(func() { go c.untilGone() })
	case err != nil && !(errors.As(err, &timeout) && timeout.Timeout()):
		c.raw.Close() // nothing that is written now would be believed
	}
	return n, c.explain(err)
}

// untilGone ends the connection when the other side, which writes no more, stops
// listening, too. A stream is closed for both directions.
func (c *Conn) untilGone() {
	io.Copy(io.Discard, c.raw)
	close(c.gone)
	c.Close()
}

// CloseWrite ends our direction.
func (c *Conn) CloseWrite() error { return c.tls.CloseWrite() }

// Close ends both.
func (c *Conn) Close() error {
	if c.tls == nil {
		return c.raw.Close()
	}
	return c.tls.Close()
}

// LocalAddr is the stream's.
func (c *Conn) LocalAddr() net.Addr { return c.raw.LocalAddr() }

// RemoteAddr is the stream's.
func (c *Conn) RemoteAddr() net.Addr { return c.raw.RemoteAddr() }

// SetDeadline is as net.Conn has it. After a Write that timed out nothing more
// can be written.
func (c *Conn) SetDeadline(t time.Time) error { return c.tls.SetDeadline(t) }

// SetReadDeadline is as net.Conn has it.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.tls.SetReadDeadline(t) }

// SetWriteDeadline is as net.Conn has it. After a Write that timed out nothing
// more can be written.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.tls.SetWriteDeadline(t) }

// uncut is a stream whose end is an error: crypto/tls takes the end of what is
// below for the end of what is above when it comes between two records.
type uncut struct{ net.Conn }

var errCut = fmt.Errorf("the stream was cut: %w", io.ErrUnexpectedEOF)

func (u uncut) Read(p []byte) (int, error) {
	n, err := u.Conn.Read(p)
	if err == io.EOF {
		err = errCut
	}
	return n, err
}
