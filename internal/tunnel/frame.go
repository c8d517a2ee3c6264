package tunnel

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Within TLS there are frames: kind (1 byte), length (3, big-endian), payload.
const (
	dataHead = 4

	kindMessage  = 1 // JSON: the hello, and the answer to it
	kindPlain    = 2 // data as it is
	kindSqueezed = 3 // data as one zstd frame of its own, of maxPlain bytes at most when unpacked

	// TLS 1.3 adds to each of its records a head, a type and a tag.
	tlsExtra = 5 + 1 + 16
	// frameUp is one TLS record, one frame of yamux, one message of SSM.
	frameUp = pieceUp - tlsExtra - dataHead
	// frameDown is eight reads of the SSM agent.
	frameDown = 8*pieceDown - tlsExtra - dataHead

	maxPlain = 64 << 10
	// Less than minSqueeze is sent as it is: what is typed and what answers it.
	minSqueeze = 512
	// After a piece that did not shrink so many more are not tried.
	pause = 8
)

// reader is the side of a connection that reads frames. It can stop at any byte,
// for a deadline, and go on.
type reader struct {
	head  [dataHead]byte
	have  int    // bytes of head
	kind  byte   // of the frame that is being read; zero: none is
	left  int    // bytes of its payload that have not come
	body  []byte // of a squeezed frame or a message, as far as it has come
	plain []byte // unpacked, to be given out
}

// frame reads until a frame has begun.
func (c *Conn) begin() error {
	in := &c.in
	for in.have < dataHead {
		n, err := c.tls.Read(in.head[in.have:])
		in.have += n
		if err != nil {
			if err == io.EOF && in.have > 0 {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	kind, n := in.head[0], int(in.head[1])<<16|int(in.head[2])<<8|int(in.head[3])
	if kind < kindMessage || kind > kindSqueezed || n > maxPlain && kind != kindPlain {
		return fmt.Errorf("the other end sent a frame of kind %d with %d bytes", kind, n)
	}
	in.kind, in.left, in.have, in.body = kind, n, 0, in.body[:0]
	return nil
}

// whole reads the rest of a frame that has to be there as a whole.
func (c *Conn) whole() ([]byte, error) {
	in := &c.in
	if in.left > 0 && cap(in.body) < len(in.body)+in.left {
		in.body = append(make([]byte, 0, len(in.body)+in.left), in.body...)
	}
	for in.left > 0 {
		n, err := c.tls.Read(in.body[len(in.body) : len(in.body)+in.left])
		in.body, in.left = in.body[:len(in.body)+n], in.left-n
		if err != nil && in.left > 0 {
			return nil, unexpected(err)
		}
	}
	in.kind = 0
	return in.body, nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// readMessage reads a message. io.EOF: the other end has said that it writes no more.
func (c *Conn) readMessage() ([]byte, error) {
	if c.in.kind == 0 {
		if err := c.begin(); err != nil {
			return nil, err
		}
	}
	if c.in.kind != kindMessage {
		return nil, errors.New("data came where a message belongs")
	}
	return c.whole()
}

// read reads data.
func (c *Conn) read(p []byte) (int, error) {
	in := &c.in
	for len(in.plain) == 0 {
		if in.kind == 0 {
			if err := c.begin(); err != nil {
				return 0, err
			}
		}
		switch in.kind {
		case kindPlain:
			return c.readPlain(p)
		case kindSqueezed:
			if err := c.unpack(); err != nil {
				return 0, err
			}
		default:
			if err := c.readLast(); err != nil {
				return 0, err
			}
		}
	}
	n := copy(p, in.plain)
	in.plain = in.plain[n:]
	return n, nil
}

func (c *Conn) readPlain(p []byte) (n int, err error) {
	in := &c.in
	if in.left > 0 {
		n, err = c.tls.Read(p[:min(len(p), in.left)])
		in.left -= n
	}
	if in.left == 0 {
		in.kind = 0
		return n, nil
	}
	return n, unexpected(err)
}

func (c *Conn) unpack() error {
	body, err := c.whole()
	if err != nil {
		return err
	}
	c.in.plain, err = decoder().DecodeAll(body, c.in.plain[:0])
	if err != nil {
		return fmt.Errorf("unpack what the other end sent: %w", err)
	}
	return nil
}

// Each piece is packed on its own, with nothing kept in between: what is in one
// piece does not show in the length of another.
var (
	encoder = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2),
			zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(maxPlain), zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true))
		if err != nil {
			panic(err) // the options are constants
		}
		return e
	})
	decoder = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxPlain))
		if err != nil {
			panic(err)
		}
		return d
	})
)

// writer is the side of a connection that writes frames.
type writer struct {
	mu   sync.Mutex
	buf  []byte
	skip int // pieces that are not tried to pack
}

// Write writes data, in frames.
func (c *Conn) Write(p []byte) (total int, err error) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	for len(p) > 0 && err == nil {
		var n int
		n, err = c.writeSome(p)
		total, p = total+n, p[n:]
	}
	return total, err
}

func (c *Conn) writeSome(p []byte) (n int, err error) {
	if c.squeeze && len(p) >= minSqueeze {
		if n, err := c.writeSqueezed(p[:min(len(p), maxPlain)]); n > 0 || err != nil {
			return n, err
		}
	}
	n = min(len(p), c.frame)
	c.out.buf = append(append(c.out.buf[:0], 0, 0, 0, 0), p[:n]...)
	if err := c.flush(kindPlain); err != nil {
		return 0, err
	}
	return n, nil
}

// writeSqueezed writes p packed, or not at all where that does not pay.
func (c *Conn) writeSqueezed(p []byte) (n int, err error) {
	o := &c.out
	if o.skip > 0 {
		o.skip -= 1
		return 0, nil
	}
	o.buf = encoder().EncodeAll(p, append(o.buf[:0], 0, 0, 0, 0))
	if len(o.buf)-dataHead > len(p)-len(p)/16 {
		o.skip = pause * maxPlain / max(len(p), c.frame)
		return 0, nil
	}
	if err := c.flush(kindSqueezed); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c *Conn) writeFrame(kind byte, payload []byte) error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if len(payload) > maxMessage {
		return fmt.Errorf("a message of %d bytes is too long", len(payload))
	}
	c.out.buf = append(append(c.out.buf[:0], 0, 0, 0, 0), payload...)
	return c.flush(kind)
}

// flush writes the frame whose payload is in buf already. Large buffers are not
// kept: most connections are silent most of the time.
func (c *Conn) flush(kind byte) error {
	o := &c.out
	n := len(o.buf) - dataHead
	o.buf[0], o.buf[1], o.buf[2], o.buf[3] = kind, byte(n>>16), byte(n>>8), byte(n)
	_, err := c.tls.Write(o.buf)
	if cap(o.buf) > frameUp+dataHead {
		o.buf = nil
	}
	return err
}
