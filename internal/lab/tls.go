package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"sync"
	"time"
)

// The lab's address answers with TLS, too, to who begins with it: the official agent
// knows https and wss only.

// certificate is a lab's own, for the loopback; it is made when somebody wants it.
type certificate struct {
	once sync.Once
	pem  []byte
	tls  *tls.Config
	err  error
}

// validity is that of a certificate, around now: the lab's clients may play with their clocks.
const validity = 365 * 24 * time.Hour

func (c *certificate) config() (*tls.Config, error) {
	c.once.Do(func() { c.err = c.make() })
	return c.tls, c.err
}

func (c *certificate) make() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the lab's certificate: %w", err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "r3-lab"},
		NotBefore: time.Now().Add(-validity), NotAfter: time.Now().Add(validity),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, about, about, key.Public(), key)
	if err != nil {
		return fmt.Errorf("make the lab's certificate: %w", err)
	}
	c.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	c.tls = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
	return nil
}

// Certificate is what a client that uses https:// and wss:// at the lab's address has to
// trust, as PEM.
func (l *Lab) Certificate() ([]byte, error) {
	_, err := l.certificate.config()
	return l.certificate.pem, err
}

// eitherListener is a listener whose connections may begin with TLS.
type eitherListener struct {
	net.Listener
	certificate *certificate
}

// Accept returns the next connection.
func (l eitherListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &eitherConn{Conn: conn, certificate: l.certificate}, nil
}

// eitherConn is plain or TLS, as its first byte says. The client speaks first: nothing may
// be written before something was read.
type eitherConn struct {
	net.Conn
	certificate *certificate
	once        sync.Once
	inner       net.Conn
	err         error
}

// handshake is the type of a TLS record that begins a connection (RFC 8446, 5.1).
const handshake = 22

func (c *eitherConn) begin() {
	first := make([]byte, 1)
	if _, c.err = io.ReadFull(c.Conn, first); c.err != nil {
		return
	}
	begun := &begunConn{Conn: c.Conn, first: first}
	c.inner = begun
	if first[0] != handshake {
		return
	}
	var config *tls.Config
	if config, c.err = c.certificate.config(); c.err == nil {
		c.inner = tls.Server(begun, config)
	}
}

// Read reads what the client sent.
func (c *eitherConn) Read(b []byte) (int, error) {
	c.once.Do(c.begin)
	if c.err != nil {
		return 0, c.err
	}
	return c.inner.Read(b)
}

var errUnspoken = errors.New("the client has said nothing yet")

// Write sends to the client.
func (c *eitherConn) Write(b []byte) (int, error) {
	if c.inner == nil {
		return 0, errUnspoken
	}
	return c.inner.Write(b)
}

// CloseWrite ends what is sent: net/http does so before it closes a connection whose
// client may not have read all.
func (c *eitherConn) CloseWrite() error {
	inner := c.inner
	if begun, ok := inner.(*begunConn); ok {
		inner = begun.Conn
	}
	if half, ok := inner.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// begunConn is a connection whose first byte was read already.
type begunConn struct {
	net.Conn
	first []byte
}

// Read reads the first byte, and then the rest.
func (c *begunConn) Read(b []byte) (int, error) {
	if len(c.first) > 0 && len(b) > 0 {
		n := copy(b, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}
