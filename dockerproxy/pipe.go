package dockerproxy

import (
	"bufio"
	"io"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// A buffer has room for a chunk's size before its payload and a line's end
// after it, so that a chunk is one write.
const (
	chunkHead = len("ffffffff\r\n")
	chunkTail = len("\r\n")
	payload   = 256 << 10
	bufSize   = chunkHead + payload + chunkTail
)

var buffers = sync.Pool{New: func() any { return new([bufSize]byte) }}

// source reads a connection with a borrowed buffer. While it waits it holds
// none: two hundred silent log streams cost two hundred goroutines and no more.
type source struct {
	rest []byte // what was read ahead with the head
	conn net.Conn
	raw  syscall.RawConn // nil where conn is no socket

	buf   *[bufSize]byte
	n     int
	errno error
	err   error // of the last read
	try   func(fd uintptr) bool
}

// newSource goes on where br, a reader of conn, stands. Nil: nothing was read ahead.
func newSource(conn net.Conn, br *bufio.Reader) *source {
	s := &source{conn: conn}
	if br != nil && br.Buffered() > 0 {
		s.rest = make([]byte, br.Buffered())
		io.ReadFull(br, s.rest) // buffered: cannot fail
	}
	if sc, ok := conn.(syscall.Conn); ok {
		s.raw, _ = sc.SyscallConn()
	}
	s.try = s.tryRead
	return s
}

// next waits for bytes. The slice is into a buffer that stays borrowed until
// release; it starts at chunkHead and has chunkTail of room behind it.
func (s *source) next() (b []byte, err error) {
	b, err = s.read()
	s.err = err
	return b, err
}

func (s *source) read() ([]byte, error) {
	if len(s.rest) > 0 {
		s.borrow()
		n := copy(s.buf[chunkHead:chunkHead+payload], s.rest)
		s.rest = s.rest[n:]
		return s.buf[chunkHead : chunkHead+n], nil
	}
	if s.raw == nil {
		s.borrow()
		n, err := s.conn.Read(s.buf[chunkHead : chunkHead+payload])
		return s.buf[chunkHead : chunkHead+n], err
	}
	return s.wait()
}

func (s *source) wait() ([]byte, error) {
	if err := s.raw.Read(s.try); err != nil {
		return nil, err
	}
	switch {
	case s.errno != nil:
		return nil, s.errno
	case s.n == 0:
		return nil, io.EOF
	}
	return s.buf[chunkHead : chunkHead+s.n], nil
}

// tryRead reads what is there, and keeps no buffer if there is nothing.
func (s *source) tryRead(fd uintptr) bool {
	s.borrow()
	for {
		s.n, s.errno = syscall.Read(int(fd), s.buf[chunkHead:chunkHead+payload])
		if s.errno != syscall.EINTR {
			break
		}
	}
	if s.errno == syscall.EAGAIN {
		s.release()
		return false
	}
	return true
}

func (s *source) borrow() {
	if s.buf == nil {
		s.buf = buffers.Get().(*[bufSize]byte)
	}
}

func (s *source) release() {
	if s.buf != nil {
		buffers.Put(s.buf)
		s.buf = nil
	}
}

// meter decides when a stream of small pieces is worth waiting for: dockerd
// sends each log line on its own, and passing each on would cost two system
// calls and a wake-up a line. A lone line is never held; one in a burst is, for
// no longer than gather.
type meter struct {
	last  time.Time
	quick int           // pieces that came one right after the other
	pause time.Duration // of a bulk stream; zero: gather
}

const (
	burst  = 8                      // quick pieces are a burst,
	lull   = 200 * time.Microsecond // unless this long nothing comes;
	gather = 500 * time.Microsecond // then more is waited for, after each

	// Lines of a few kilobytes come to this many bytes within gather. Of short ones the
	// Engine's socket holds less, since the kernel counts what each takes of it, and
	// waiting longer would hold the Engine up.
	longLines = 16 << 10

	// On a stream that others converse on only large pieces count. They take the
	// Engine longer: on a busy host a millisecond goes by between two.
	bulkPiece = 4 << 10 // bytes
	bulkLull  = 2 * time.Millisecond

	// They are waited for as long as it takes for about this many bytes to come:
	// more would fill the socket, and hold the Engine up.
	bulkLeast, bulkMost   = 48 << 10, 120 << 10
	shortPause, longPause = 250 * time.Microsecond, 2 * time.Millisecond
)

// passed notes a piece of n bytes that was passed on, and waits in a burst: as long as
// for bulk where lines are long.
func (m *meter) passed(n int) {
	switch {
	case !m.worthIt(n, time.Now(), lull):
	case n < longLines:
		m.wait(gather)
	default:
		m.wait(m.adapt(n))
	}
}

// bulk is passed for a stream that others converse on: only what comes in large
// pieces is worth waiting for, and nobody waits for its answer.
func (m *meter) bulk(n int) {
	if n < bulkPiece {
		m.quick = 0
		return
	}
	if m.worthIt(n, time.Now(), bulkLull) {
		m.wait(m.adapt(n))
	}
}

// worthIt reports whether more is worth waiting for after a piece that was
// passed on at now.
func (m *meter) worthIt(n int, now time.Time, lull time.Duration) bool {
	if now.Sub(m.last) > lull {
		m.quick = 0
	}
	m.last = now
	m.quick++
	return m.quick >= burst && n < payload/2
}

func (m *meter) wait(d time.Duration) {
	time.Sleep(d)
	m.last = time.Now()
}

// adapt is how long to wait when the last time led to n bytes.
func (m *meter) adapt(n int) time.Duration {
	switch {
	case m.pause == 0:
		m.pause = gather
	case n < bulkLeast:
		m.pause = min(2*m.pause, longPause)
	case n > bulkMost:
		m.pause = max(m.pause/2, shortPause)
	}
	return m.pause
}

// copyChunked passes an answer's body on as chunks of what is there at a time.
// tap, if not nil, sees the payload first.
func copyChunked(dst io.Writer, src *source, in framing, tap func([]byte) error) (sent int64, err error) {
	var d dechunker
	var m meter
	left := in.length
	for done := in.length == 0 && !in.chunked; !done; {
		b, err := src.next()
		if err == io.EOF && in.length < 0 {
			break
		}
		if err != nil {
			src.release()
			return sent, unexpected(err)
		}
		if b, done, err = unframe(b, in, &d, &left); err == nil && len(b) > 0 {
			err = passChunk(dst, src, b, tap)
		}
		sent += int64(len(b))
		n := len(b)
		src.release()
		if err != nil {
			return sent, err
		}
		m.passed(n)
	}
	_, err = io.WriteString(dst, "0\r\n\r\n")
	return sent, err
}

func unframe(b []byte, in framing, d *dechunker, left *int64) (payload []byte, done bool, err error) {
	switch {
	case in.chunked:
		return d.strip(b)
	case in.length < 0:
		return b, false, nil
	}
	if int64(len(b)) > *left {
		return nil, false, errChunk
	}
	*left -= int64(len(b))
	return b, *left == 0, nil
}

// passChunk writes b, which starts at chunkHead of the source's buffer.
func passChunk(dst io.Writer, src *source, b []byte, tap func([]byte) error) error {
	if tap != nil {
		if err := tap(b); err != nil {
			return err
		}
	}
	var size [chunkHead]byte
	digits := append(strconv.AppendInt(size[:0], int64(len(b)), 16), '\r', '\n')
	start := chunkHead - len(digits)
	copy(src.buf[start:], digits)
	copy(src.buf[chunkHead+len(b):], "\r\n")
	_, err := dst.Write(src.buf[start : chunkHead+len(b)+chunkTail])
	return err
}

// copyRaw passes bytes on until the source ends. tap, if not nil, sees them first.
func copyRaw(dst io.Writer, src *source, tap func([]byte) error) (sent int64, err error) {
	defer src.release()
	var m meter
	for {
		b, err := src.next()
		n := len(b)
		if n > 0 {
			if err := pass(dst, b, tap); err != nil {
				return sent, err
			}
			sent += int64(n)
		}
		src.release()
		if err == io.EOF {
			return sent, nil
		}
		if err != nil {
			return sent, err
		}
		m.bulk(n)
	}
}

func pass(dst io.Writer, b []byte, tap func([]byte) error) error {
	if tap != nil {
		if err := tap(b); err != nil {
			return err
		}
	}
	_, err := dst.Write(b)
	return err
}

// halfCloser is a connection of which one direction can be ended.
type halfCloser interface{ CloseWrite() error }

func closeWrite(c net.Conn) error {
	if h, ok := c.(halfCloser); ok {
		return h.CloseWrite()
	}
	return c.Close()
}
