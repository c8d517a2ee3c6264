package tunnel

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A record: kind (1 byte), length of what follows the head (2), number (4),
// CRC-32C of all else (4), then that many bytes. Big-endian. The numbers of each
// direction count from zero and wrap.
const (
	recordHead = 11
	// maxRecord is one SSM message: what the agent delivers twice is whole records.
	maxRecord = 16 << 10
	maxBody   = maxRecord - recordHead
)

// The kinds of records.
const (
	kindFrame = 1 // one frame of yamux, head and all
	kindAlive = 2 // nothing: keeps the session from being idle
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// DamagedError is a carrier that delivered something other than what was sent.
type DamagedError struct{ What string }

func (e *DamagedError) Error() string { return "the carrier delivered " + e.What }

// records turns a connection into one that yamux can use: it writes each of its
// frames as a record, and gives out the frames of the records that arrive.
type records struct {
	conn net.Conn
	in   *bufio.Reader
	next uint32 // number of the record to come
	rest []byte // of the body that is being given out
	body []byte

	first atomic.Pointer[error] // what ended it
	began time.Time             // with the monotonic clock: that of the day may be set
	heard atomic.Int64          // when the last record came, in nanoseconds since began

	// leaving is told when the other side takes no more streams.
	leaving func()
	// opens says that it is this side that opens streams, and not the other.
	opens bool
	// unknown is how many bytes of frames may still arrive; anything is no bound.
	unknown atomic.Int64

	mu   sync.Mutex
	out  []byte
	sent uint32 // number of the record to send
	held int    // bytes of the frame's head in out, until its body comes
}

// anything in place of a bound is none.
const anything = math.MaxInt64 / 2

func newRecords(conn net.Conn) *records {
	r := &records{conn: conn, in: bufio.NewReader(conn), body: make([]byte, 0, 2048), out: make([]byte, recordHead, 2048), began: time.Now()}
	r.unknown.Store(anything)
	return r
}

// Read gives out bytes of frames.
func (r *records) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if err := r.receive(); err != nil {
			return 0, r.failed(err)
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// receive reads one record. What came before is dropped: the agent writes a
// message once more when its acknowledgement was lost with the websocket.
func (r *records) receive() error {
	var head [recordHead]byte
	if _, err := io.ReadFull(r.in, head[:]); err != nil {
		return cut(err)
	}
	n := int(binary.BigEndian.Uint16(head[1:]))
	if n > maxBody {
		return &DamagedError{fmt.Sprintf("a record of %d bytes", n)}
	}
	r.body = append(r.body[:0], make([]byte, n)...)
	if _, err := io.ReadFull(r.in, r.body); err != nil {
		return cut(err)
	}
	if checksum(head[:], r.body) != binary.BigEndian.Uint32(head[7:]) {
		return &DamagedError{"a record with a wrong checksum"}
	}
	r.heard.Store(int64(time.Since(r.began)))
	seq := binary.BigEndian.Uint32(head[3:])
	if ahead := int32(seq - r.next); ahead < 0 {
		return nil
	} else if ahead > 0 {
		return &DamagedError{fmt.Sprintf("record %d instead of %d", seq, r.next)}
	}
	r.next++
	return r.accept(head[0])
}

// cut is what a connection's end is called in the middle of a record.
func cut(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return &DamagedError{"half a record"}
	}
	return err
}

func checksum(head, body []byte) uint32 {
	return crc32.Update(crc32.Checksum(head[:7], castagnoli), castagnoli, body)
}

// accept looks at what a record holds.
func (r *records) accept(kind byte) error {
	switch kind {
	case kindAlive:
		return nil
	case kindFrame:
		if err := checkFrame(r.body); err != nil {
			return err
		}
		if r.opens && r.body[3]&flagOpen != 0 {
			return &DamagedError{"a stream that the host opened"}
		}
		if r.unknown.Add(-int64(len(r.body))) < 0 {
			return &DamagedError{"too much before anybody said who he is"}
		}
		if r.body[1] == typeGoAway && r.leaving != nil {
			r.leaving()
		}
		r.rest = r.body
		return nil
	}
	return &DamagedError{fmt.Sprintf("a record of kind %d", kind)}
}

// The head of a frame of yamux: version (1), type (1), flags (2), stream (4), length (4).
const (
	frameHead  = 12
	typeData   = 0
	typeWindow = 1
	typeGoAway = 3
	flagOpen   = 1 // in the second byte of the flags
)

// checkFrame lets nothing reach yamux but what our own ends send. Pings above
// all: it starts a goroutine for each.
func checkFrame(b []byte) error {
	if len(b) < frameHead || b[0] != 0 {
		return &DamagedError{"what is no frame"}
	}
	length := binary.BigEndian.Uint32(b[8:])
	switch b[1] {
	case typeData:
		if int(length) == len(b)-frameHead {
			return nil
		}
	case typeWindow, typeGoAway:
		if len(b) == frameHead {
			return nil
		}
	default:
		return &DamagedError{fmt.Sprintf("a frame of type %d", b[1])}
	}
	return &DamagedError{"a frame of another length than it says"}
}

// Write takes a frame in the way yamux writes it: its head, and then its body in
// one piece.
func (r *records) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held == 0 {
		if len(p) != frameHead {
			return 0, errors.New("tunnel: yamux wrote half a head")
		}
		r.out = append(r.out[:recordHead], p...)
		if p[1] == typeData && binary.BigEndian.Uint32(p[8:]) > 0 {
			r.held = len(p)
			return len(p), nil
		}
		return len(p), r.send(kindFrame)
	}
	r.out = append(r.out, p...)
	r.held = 0
	return len(p), r.send(kindFrame)
}

// alive sends a record that holds nothing, unless others are on their way.
func (r *records) alive() error {
	if !r.mu.TryLock() {
		return nil
	}
	defer r.mu.Unlock()
	if r.held > 0 {
		return nil
	}
	r.out = r.out[:recordHead]
	return r.send(kindAlive)
}

// send writes the record whose body is in out already, in one piece.
func (r *records) send(kind byte) error {
	body := r.out[recordHead:]
	if len(body) > maxBody {
		return fmt.Errorf("tunnel: a frame of %d bytes is too large", len(body))
	}
	r.out[0] = kind
	binary.BigEndian.PutUint16(r.out[1:], uint16(len(body)))
	binary.BigEndian.PutUint32(r.out[3:], r.sent)
	binary.BigEndian.PutUint32(r.out[7:], checksum(r.out, body))
	r.sent++
	_, err := r.conn.Write(r.out)
	return r.failed(err)
}

// ErrClosedThere is a carrier that the other side closed between two records.
var ErrClosedThere = errors.New("the other side closed it")

// failed keeps the first error: those that follow come of it, and yamux does not
// say which was first.
func (r *records) failed(err error) error {
	if err == nil {
		return nil
	}
	if err == io.EOF {
		err = ErrClosedThere
	}
	r.first.CompareAndSwap(nil, &err)
	return err
}

// why is the first error.
func (r *records) why() error {
	if err := r.first.Load(); err != nil {
		return *err
	}
	return net.ErrClosed
}

// Close ends the connection.
func (r *records) Close() error {
	r.failed(net.ErrClosed)
	return r.conn.Close()
}

func (r *records) LocalAddr() net.Addr  { return r.conn.LocalAddr() }
func (r *records) RemoteAddr() net.Addr { return r.conn.RemoteAddr() }
