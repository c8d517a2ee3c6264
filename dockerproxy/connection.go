package dockerproxy

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"

	"jumpsuite/internal/audit"
)

// headTimeout is how long the head of a request may take to arrive, and its
// body again, from the first byte. Between requests a caller may wait.
const headTimeout = 15 * time.Second

// connection is one of a caller's. Its requests are handled one after another.
type connection struct {
	gate   *Gate
	conn   net.Conn
	br     *bufio.Reader
	caller Caller
	fleet  *Fleet    // nil: gate is the one for all requests
	up     *upstream // to the Engine, kept for the next request; may be nil
	out    []byte    // for answers
	req    request

	madeExec string // id of the exec that the last request has created; empty: it has not
}

// readers are for the heads of requests. A stream gives its own back.
var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, maxLine) }}

func newConnection(g *Gate, conn net.Conn, caller Caller) *connection {
	br := readers.Get().(*bufio.Reader)
	br.Reset(conn)
	return &connection{gate: g, conn: conn, br: br, caller: caller}
}

// freeReader gives back the reader of a connection on which no other request will
// be read.
func (c *connection) freeReader() {
	if c.br != nil {
		c.br.Reset(nil)
		readers.Put(c.br)
		c.br = nil
	}
}

func (c *connection) close() { c.freeReader(); c.restUpstream(); c.dropUpstream() }

func (c *connection) dropUpstream() {
	if c.up != nil {
		c.up.conn.Close()
		c.up = nil
	}
}

// serve handles requests until the connection ends, one is refused, or one
// turns it into a stream.
func (c *connection) serve(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	defer stop()
	for ctx.Err() == nil {
		if _, err := c.br.Peek(1); err != nil {
			return
		}
		if !c.one(ctx) {
			return
		}
	}
}

// one handles one request and reports whether another may follow.
func (c *connection) one(ctx context.Context) (goesOn bool) {
	x := &exchange{gate: c.gate, conn: c, req: &c.req, began: time.Now(), before: c.madeExec}
	c.madeExec = ""
	defer func() {
		if p := recover(); p != nil {
			goesOn = c.panicked(x, p)
		}
	}()
	c.patience(c.br.Buffered() == 0 || !c.wholeHead())
	err := readRequest(c.br, &c.req)
	x.last = c.req.has("connection", "close") // and may wait for it
	if err == nil {
		err = x.run(ctx)
	}
	c.restUpstream()
	if err == nil {
		return !x.last
	}
	return c.fail(x, err)
}

// errPanic is a mistake of the gate's own in one exchange. It ends that one's
// connection, and nothing of the others'.
var errPanic = errors.New("the gate has made a mistake")

// panicked records and answers what ended in a panic.
func (c *connection) panicked(x *exchange, p any) bool {
	c.gate.logPanic(p)
	c.dropUpstream() // whatever is under way there
	x.close(errPanic)
	return c.fail(x, &Refusal{Status: http.StatusInternalServerError, Text: errPanic.Error() + ", and has ended this connection", Hint: "what happened is in its log"})
}

// logPanic logs a panic and where it came from.
func (g *Gate) logPanic(p any) {
	g.log().Error("a panic", "what", fmt.Sprint(p), "stack", string(debug.Stack()))
}

// guarded is a goroutine beside an exchange: a panic in it ends the exchange.
func (x *exchange) guarded(cancel context.CancelCauseFunc, f func()) {
	go func() {
		defer func() {
			if p := recover(); p != nil {
				x.gate.logPanic(p)
				cancel(errPanic)
			}
		}()
		f()
	}()
}

// wholeHead reports whether the head has arrived already, as it nearly always has.
func (c *connection) wholeHead() bool {
	b, _ := c.br.Peek(c.br.Buffered())
	n := len(b)
	return n >= 4 && string(b[n-4:]) == "\r\n\r\n"
}

// patience bounds how long the rest of a request may take.
func (c *connection) patience(bounded bool) {
	if bounded {
		c.conn.SetReadDeadline(time.Now().Add(headTimeout))
	}
	c.req.bounded = bounded
}

// patienceForBody is patience for a body that is not there yet.
func (c *connection) patienceForBody() {
	if !c.req.bounded && (c.req.chunked || int64(c.br.Buffered()) < c.req.length) {
		c.patience(true)
	}
}

func (c *connection) relax() {
	if c.req.bounded {
		c.conn.SetReadDeadline(time.Time{})
		c.req.bounded = false
	}
}

// fail answers what went wrong. After most of it the connection ends: what
// follows on it was written by someone who expected another answer.
func (c *connection) fail(x *exchange, err error) bool {
	var r *Refusal
	if !errors.As(err, &r) {
		if isGone(err) {
			return false
		}
		r = unavailable("%v", err)
	}
	if x.answered {
		return false
	}
	switch {
	case !r.Recorded && x.event.ID == "":
		x.recordRefusal(r)
	case r.Far && x.event.Kind == audit.Decision:
		x.recordFarRefusal(r)
	}
	if x.req.upgrade { // docker says no more of the answer than its status
		c.gate.tell(c.caller, r.Error())
	}
	goesOn := r.Status == http.StatusNotFound && x.op != nil && !x.last
	// Docker's CLI 20.10 takes an answer to an upgrade that announces the connection's
	// end for the stream, whatever its status is.
	if c.refuse(r, x.header, !goesOn && !x.req.upgrade) != nil {
		return false
	}
	if !goesOn {
		drain(c.conn)
	}
	return goesOn
}

// drain reads a little of what a refused caller is still sending, so that the
// answer is not lost to a reset.
func drain(conn net.Conn) {
	closeWrite(conn)
	conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	io.CopyN(io.Discard, conn, 256<<10)
}

// isGone reports whether the other side simply went away.
func isGone(err error) bool {
	return errors.Is(err, errNoRequest) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// sendAway refuses a connection, whatever is asked on it. All that counts of that
// is whether the answer may have a body.
func sendAway(conn net.Conn, r *Refusal) {
	const head = http.MethodHead + " "
	b := make([]byte, len(head))
	conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	n, _ := io.ReadFull(conn, b)
	writeRefusal(conn, r, "", true, string(b[:n]) == head)
}

// refuse writes a refusal. A jump server's gate is told that it is one of the
// gate's, and by which rule.
func (c *connection) refuse(r *Refusal, more string, last bool) error {
	bare := c.req.method == http.MethodHead // the answer to a HEAD ends with its head
	if r.Fault {
		return writeRefusal(c.conn, r, more+faultHeader+": 1\r\n", last, bare)
	}
	if r.Engine || !c.caller.fromFar() {
		return writeRefusal(c.conn, r, more, last, bare)
	}
	return writeRefusal(c.conn, r, more+refusedHeader+": "+cmp.Or(r.Rule, "gate")+"\r\n", last, bare)
}

// writeRefusal writes a refusal; bare is one without its body.
func writeRefusal(w io.Writer, r *Refusal, header string, last, bare bool) error {
	body := r.body()
	b := appendHead(nil, r.Status, "application/json", int64(len(body)), last)
	b = append(append(b, header...), "\r\n"...)
	if !bare {
		b = append(b, body...)
	}
	_, err := w.Write(b)
	return err
}

// appendHead writes an answer's head but for the empty line that ends it. A
// length of -1 is a chunked body, -2 none.
func appendHead(b []byte, status int, contentType string, length int64, last bool) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(append(b, ' '), http.StatusText(status)...)
	b = append(b, "\r\n"...)
	if contentType != "" {
		b = append(append(append(b, "Content-Type: "...), contentType...), "\r\n"...)
	}
	switch {
	case length >= 0:
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, length, 10)
		b = append(b, "\r\n"...)
	case length == -1:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	if last {
		b = append(b, "Connection: close\r\n"...)
	}
	return b
}
