package main

import (
	"crypto/ed25519"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"jumpsuite/internal/tunnel"
)

// joined are the two ends of a connection that keeps what nobody has read yet, as a
// stream does.
func joined(t *testing.T) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return near, far
}

// A host's gate that takes a stream for one environment, and says itself that it is in
// another, is believed in neither: nothing of what it answers is read.
func TestAHostThatSaysThatItIsElsewhereIsNotRead(t *testing.T) {
	for says, want := range map[string]string{"test": "", "prod": `says that it is in environment "prod", and ECS has it in that of test`, "": `environment ""`, "te\x1b[2Jst": "and ECS has it in that of test"} {
		key := func() ed25519.PrivateKey {
			_, k, err := ed25519.GenerateKey(nil)
			if err != nil {
				t.Fatal(err)
			}
			return k
		}
		anyone := func(tunnel.KeyID) bool { return true }
		near, far := joined(t)
		go func() {
			c, _, err := tunnel.Accept(t.Context(), far, tunnel.Identity{Key: key(), Trusted: anyone}, func(tunnel.Hello, tunnel.KeyID) (tunnel.Welcome, error) {
				return tunnel.Welcome{Environment: says, Host: "h"}, nil
			})
			if err == nil {
				io.WriteString(c, "an answer")
				c.Close()
			}
		}()
		conn, err := tunnel.Client(t.Context(), near, tunnel.Identity{Key: key(), Trusted: anyone}, tunnel.Hello{User: "dev", Groups: []string{"dev"}, Audit: "a", Environment: "test"})
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		left := 0
		c := &farConn{Conn: conn, environment: "test", host: "i-1", left: func(*farConn) { left++ }}
		got, err := io.ReadAll(c)
		if want == "" {
			if err != nil || string(got) != "an answer" {
				t.Errorf("where they agree: got %q, %v", got, err)
			}
			c.Close()
			continue
		}
		var elsewhere *elsewhereError
		if !errors.As(err, &elsewhere) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\x1b") || len(got) > 0 || left == 0 {
			t.Errorf("%q: got %q, %v, want %q", says, got, err, want)
		}
	}
}
