// Package intact opens websockets whose messages arrive whole or not at all.
//
// github.com/coder/websocket (v1.8.15, msgReader.Read) takes a connection that ends
// within a message for the end of that message, if what had come by then filled
// the reader's buffer exactly: io.EOF is its sign for both. What is cut reads like what is
// complete then. Here the end of a connection is io.ErrUnexpectedEOF, which is an
// error to it at any byte. A websocket ends by its closing handshake (RFC 6455, 7.1.4), so
// that nobody misses the other.
package intact

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"

	"github.com/coder/websocket"
)

// Dial is websocket.Dial. Options must not ask for compression: a message that is
// cut would be one that is complete again.
func Dial(ctx context.Context, url string, o websocket.DialOptions) (*websocket.Conn, *http.Response, error) {
	client := *cmp.Or(o.HTTPClient, http.DefaultClient)
	client.Transport = transport{cmp.Or(client.Transport, http.DefaultTransport)}
	o.HTTPClient, o.CompressionMode = &client, websocket.CompressionDisabled
	return websocket.Dial(ctx, url, &o)
}

// Accept is websocket.Accept.
func Accept(w http.ResponseWriter, r *http.Request) (*websocket.Conn, error) {
	return websocket.Accept(hijacker{w}, r, nil)
}

// unexpected is an error of Read, in which no end is a good one.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// transport gives connections that were upgraded an end that is an error.
type transport struct{ http.RoundTripper }

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := t.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if upgraded, ok := answer.Body.(io.ReadWriteCloser); ok && answer.StatusCode == http.StatusSwitchingProtocols {
		answer.Body = body{upgraded}
	}
	return answer, nil
}

// body is a connection as http.Transport gives it out.
type body struct{ io.ReadWriteCloser }

func (b body) Read(p []byte) (int, error) {
	n, err := b.ReadWriteCloser.Read(p)
	return n, unexpected(err)
}

// hijacker gives a connection away whose end is an error.
type hijacker struct{ http.ResponseWriter }

func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	return conn{c}, rw, nil
}

type conn struct{ net.Conn }

func (c conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	return n, unexpected(err)
}
