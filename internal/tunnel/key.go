package tunnel

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// KeyID is the public half of a jump server's or a host's key, which is what it
// is known by: "ed25519:" and 43 characters of URL-safe base64.
type KeyID string

// keyPrefix says which kind of key it is: there is one.
const keyPrefix = "ed25519:"

// IDOf is the id of a public key.
func IDOf(k ed25519.PublicKey) KeyID {
	return KeyID(keyPrefix + base64.RawURLEncoding.EncodeToString(k))
}

// ParseKeyID checks an id that somebody wrote down. There is one way to write each.
func ParseKeyID(s string) (KeyID, error) {
	text, ok := strings.CutPrefix(s, keyPrefix)
	if !ok {
		return "", fmt.Errorf("key %q: it starts with %q", s, keyPrefix)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != ed25519.PublicKeySize || IDOf(b) != KeyID(s) {
		return "", fmt.Errorf("key %q: after %q there are 43 letters, digits, - and _", s, keyPrefix)
	}
	return KeyID(s), nil
}

// Identity is who one end is and whom it takes the other end to be.
type Identity struct {
	Key ed25519.PrivateKey
	// Trusted reports whether the other end may have this key. Nil: none.
	Trusted func(KeyID) bool
}

// protocol is agreed on within TLS: what is of another version is refused there.
const protocol = "jumpsuite/1"

// config is TLS with both ends pinned. The certificates say nothing but the
// key: TLS proves that the other end has its private half, and Trusted decides.
func (i Identity) config(other *KeyID) (*tls.Config, error) {
	cert, err := certificate(i.Key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		Certificates:                []tls.Certificate{cert},
		ClientAuth:                  tls.RequireAnyClientCert,
		InsecureSkipVerify:          true, // VerifyConnection does it
		VerifyConnection:            func(s tls.ConnectionState) error { return i.verify(s, other) },
		NextProtos:                  []string{protocol},
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
		Time:                        func() time.Time { return certificateTime },
	}, nil
}

var certificateTime = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// certificate makes the certificate that TLS wants around a key. It is the same
// each time but for its signature, and nobody reads it.
func certificate(key ed25519.PrivateKey) (tls.Certificate, error) {
	if len(key) != ed25519.PrivateKeySize {
		return tls.Certificate{}, errors.New("there is no key")
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    certificateTime,
		NotAfter:     certificateTime.AddDate(1000, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

func (i Identity) verify(s tls.ConnectionState, other *KeyID) error {
	if s.NegotiatedProtocol != protocol {
		return fmt.Errorf("the other end speaks %q, not %q", s.NegotiatedProtocol, protocol)
	}
	if len(s.PeerCertificates) != 1 {
		return fmt.Errorf("the other end sent %d certificates, not one", len(s.PeerCertificates))
	}
	key, ok := s.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !ok {
		return errors.New("the other end's key is not of ed25519")
	}
	id := IDOf(key)
	if i.Trusted == nil || !i.Trusted(id) {
		return &UntrustedError{Key: id}
	}
	*other = id
	return nil
}

// UntrustedError is the other end's key, which is not among those that are
// trusted here.
type UntrustedError struct{ Key KeyID }

func (e *UntrustedError) Error() string { return fmt.Sprintf("the key %s is not trusted here", e.Key) }

// Hint is what to do about it.
func (e *UntrustedError) Hint() string {
	return "if it is right, an administrator runs: r3-admin keys trust " + string(e.Key)
}

// ExitCode is 77: not allowed.
func (e *UntrustedError) ExitCode() int { return 77 }

// NotTrustedThereError is this end's key, which the host does not trust.
type NotTrustedThereError struct{ Key KeyID }

func (e *NotTrustedThereError) Error() string {
	return fmt.Sprintf("the host does not trust this jump server's key %s", e.Key)
}

// Hint is what to do about it.
func (e *NotTrustedThereError) Hint() string {
	return "an administrator of the host runs: r3-admin keys trust " + string(e.Key)
}

// ExitCode is 77: not allowed.
func (e *NotTrustedThereError) ExitCode() int { return 77 }
