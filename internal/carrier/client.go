package carrier

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// patience is how long an answer may take: StartSession, the data channel's
// handshake, and AWS's own retries are behind it.
const patience = 45 * time.Second

// Client asks r3-ssm. The zero value is ready. Its errors are *Error.
type Client struct {
	Socket  string        // empty: the package's
	Timeout time.Duration // of an answer; zero: 45 s
}

// Hosts are the docker hosts of a place.
func (c Client) Hosts(ctx context.Context, p Place) ([]Host, error) {
	a, err := c.ask(ctx, request{Op: opHosts, Place: p})
	return a.Hosts, err
}

// Where finds the containers that a person can mean by ref: a container's id or
// the beginning of it, or an ECS task's id. ECS is asked, so none is found of
// those that it does not know.
func (c Client) Where(ctx context.Context, p Place, ref string) ([]Found, error) {
	a, err := c.ask(ctx, request{Op: opWhere, Place: p, Ref: ref})
	return a.Found, err
}

// Learn tells r3-ssm where a container is that ECS does not know, for the next
// time that somebody asks. It is a hint: it may be forgotten.
func (c Client) Learn(ctx context.Context, p Place, container, host string) error {
	_, err := c.ask(ctx, request{Op: opLearn, Place: p, Ref: container, Host: host})
	return err
}

// Dial opens a stream to what listens for sessions on a host, by its instance
// id.
func (c Client) Dial(ctx context.Context, p Place, host string) (*net.UnixConn, error) {
	conn, a, err := c.exchange(ctx, request{Op: opDial, Place: p, Host: host}, unbuffered)
	if err != nil {
		return nil, err
	}
	if a.Error != nil {
		conn.Close()
		return nil, a.Error
	}
	return conn, nil
}

// Why is why a stream that Dial opened was lost, where r3-ssm knows it: the words
// of AWS or of the host's agent among them. Nil: it does not.
func (c Client) Why(ctx context.Context, p Place, stream *net.UnixConn) *Error {
	name := stream.LocalAddr().String()
	if !isStreamName(name) {
		return nil
	}
	_, err := c.ask(ctx, request{Op: opWhy, Place: p, Ref: name})
	if e, ok := errors.AsType[*Error](err); ok && e.Kind != NotRunning && e.Kind != Refused {
		return e
	}
	return nil
}

// ask is for what is over with its answer.
func (c Client) ask(ctx context.Context, r request) (answer, error) {
	conn, a, err := c.exchange(ctx, r, func(conn net.Conn) io.Reader { return bufio.NewReader(conn) })
	if err != nil {
		return answer{}, err
	}
	conn.Close()
	if a.Error != nil {
		return answer{}, a.Error
	}
	return a, nil
}

// unbuffered leaves what comes after the answer where it is.
func unbuffered(conn net.Conn) io.Reader { return conn }

// exchange sends a request and reads the answer. Where r3-ssm ends without one it
// asks once more: it ends by itself when nothing is left to do, which may be
// at this very moment, and systemd starts the next.
func (c Client) exchange(ctx context.Context, r request, reader func(net.Conn) io.Reader) (conn *net.UnixConn, a answer, err error) {
	for again := true; ; again = false {
		if conn, err = c.send(ctx, r); err != nil {
			return nil, a, err
		}
		ended := false
		if a, ended, err = c.read(ctx, conn, reader(conn)); err == nil {
			return conn, a, nil
		}
		conn.Close()
		if !ended || !again {
			return nil, a, err
		}
	}
}

// send connects and writes the request.
func (c Client) send(ctx context.Context, r request) (*net.UnixConn, error) {
	if err := r.check(); err != nil {
		return nil, &Error{Kind: Refused, Text: err.Error()}
	}
	line, err := json.Marshal(r)
	if err != nil {
		return nil, &Error{Kind: Failed, Text: err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout())
	defer cancel()
	conn, err := (&net.Dialer{LocalAddr: nameFor(r.Op)}).DialContext(ctx, "unix", c.socket())
	if err != nil {
		return nil, c.unreached(err)
	}
	// Whom r3-ssm does not listen to, it answers without waiting for the request:
	// a connection that is dead shows when it is read.
	_, _ = conn.Write(append(line, '\n'))
	return conn.(*net.UnixConn), nil
}

// streamName is what the names of streams begin with: abstract ones (unix(7)), in no
// folder.
const streamName = "@jumpsuite-stream-"

// nameFor is the address of this end of a connection. That of a stream is its name:
// so it needs no place in what is said.
func nameFor(op string) net.Addr {
	if op != opDial {
		return nil
	}
	var id [16]byte
	rand.Read(id[:])
	return &net.UnixAddr{Net: "unix", Name: streamName + fmt.Sprintf("%x", id)}
}

// read reads the answer from r, which is conn, however buffered, and reports whether
// r3-ssm ended before it.
func (c Client) read(ctx context.Context, conn *net.UnixConn, r io.Reader) (a answer, ended bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout(), fmt.Errorf("r3-ssm did not answer within %s", c.timeout()))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	line, err := readLine(r, maxAnswer)
	if !stop() && err == nil {
		err = context.Cause(ctx) // the deadline is set, or about to be
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		if ended = errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET); ended {
			err = errors.New("it ended before it had answered")
		}
		return answer{}, ended, &Error{Kind: NotRunning, Text: "r3-ssm does not answer: " + err.Error(), Next: lookAt}
	}
	err = decode(line, &a)
	if err == nil {
		err = a.plain()
	}
	if err != nil {
		return answer{}, false, &Error{Kind: Failed, Text: "the answer of r3-ssm is not understood: " + err.Error(), Next: "r3-ssm and r3-docker have to be of one version"}
	}
	return a, false, nil
}

func (c Client) timeout() time.Duration {
	if c.Timeout == 0 {
		return patience
	}
	return c.Timeout
}

func (c Client) socket() string {
	if c.Socket == "" {
		return Socket
	}
	return c.Socket
}

const lookAt = "an administrator looks at: journalctl -u r3-ssm"

// unreached says why there is nobody to ask.
func (c Client) unreached(err error) *Error {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return &Error{Kind: NotRunning, Text: fmt.Sprintf("r3-ssm is not running (%s)", c.socket()),
			Next: "an administrator starts it: systemctl enable --now r3-ssm.socket"}
	}
	return &Error{Kind: NotRunning, Text: "ask r3-ssm: " + err.Error(), Next: lookAt}
}
