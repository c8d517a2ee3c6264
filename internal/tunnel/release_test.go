package tunnel

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// says opens a stream on which the jump server's hello is the text.
func (r *rig) says(hello string) *Conn {
	r.t.Helper()
	c, err := meet(r.t.Context(), r.open(), Identity{Key: r.jump, Trusted: only(r.host)}, protocol)
	if err == nil {
		err = c.writeFrame(kindMessage, []byte(hello))
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patient))
	return c
}

// A jump server may be older than the gate, or newer: what it says that the gate may
// leave unread is left, and what it says besides is refused, in words.
func TestAHelloOfAnotherRelease(t *testing.T) {
	for _, tt := range []struct{ name, hello, refused string }{
		{"of before rotations were told of", `{"user":"dev1","uid":1001,"groups":["dev"],"audit":"a1","environment":"test"}`, ""},
		{"with what may be left unread", `{"user":"dev1","uid":1001,"groups":[],"audit":"a1","also":{"locale":"de","deep":{"er":[1]}}}`, ""},
		{"with what has to be understood", `{"user":"dev1","uid":1001,"groups":[],"audit":"a1","only":"reading"}`, `"only"`},
		{"with that in a part of it", `{"user":"dev1","uid":1001,"groups":[],"audit":"a1","former":[{"key":"k","signature":"s","until":1}]}`, `"until"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, nil)
			r.decide = func(Hello, KeyID) (Welcome, error) {
				if tt.refused != "" {
					t.Error("it was decided about")
				}
				return Welcome{Environment: "test"}, nil
			}
			_, err := r.says(tt.hello).Welcome()
			if tt.refused == "" {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			var refused *RefusedError
			if !errors.As(err, &refused) || !strings.Contains(refused.Text, tt.refused+", which this host's gate does not know: it is older") ||
				refused.ExitCode() != 69 || !strings.Contains(refused.Hint(), "hosts first") {
				t.Errorf("got %#v", err)
			}
		})
	}
}

func TestAHelloThatCannotBeReadIsAnswered(t *testing.T) {
	for _, hello := range []string{`{"user":`, `[]`, `{"user":"","uid":1,"groups":[],"audit":"a1"}`} {
		r := newRig(t, nil)
		r.decide = func(Hello, KeyID) (Welcome, error) {
			t.Error("it was decided about")
			return Welcome{}, nil
		}
		var refused *RefusedError
		if _, err := r.says(hello).Welcome(); !errors.As(err, &refused) || refused.ExitCode() != 77 {
			t.Errorf("%s: got %v", hello, err)
		}
	}
}

// gateOf is a gate of another release: it answers each hello by itself, and ends the
// stream.
func gateOf(t *testing.T, answers func(*Conn)) *rig {
	t.Helper()
	return newRigOf(t, nil, func(r *rig, s net.Conn) {
		c := &Conn{raw: s, frame: frameDown, gone: make(chan struct{})}
		defer c.Close()
		config, err := r.hostID.config(&c.other)
		if err != nil {
			t.Error(err)
			return
		}
		c.tls = tls.Server(uncut{s}, config)
		if _, err := c.readMessage(); err != nil {
			t.Error(err)
		}
		answers(c)
	})
}

func TestAnAnswerOfAnotherRelease(t *testing.T) {
	say := func(s string) func(*Conn) { return func(c *Conn) { c.writeMessage(json.RawMessage(s)) } }
	for _, tt := range []struct {
		name    string
		answers func(*Conn)
		want    string
	}{
		{"with what may be left unread", say(`{"welcome":{"environment":"test","host":"i-1","version":"9"},"also":{"load":1}}`), ""},
		{"with what has to be understood", say(`{"welcome":{"environment":"test","host":"i-1","version":"9","reads":"only"}}`), `the host's gate is of another release: its answer has "reads", which is not known here`},
		{"that is none of both", say(`{"later":{}}`), `the host's gate is of another release: its answer has "later", which is not known here`},
		{"that ends without one", func(*Conn) {}, "the host's gate is of another release: it ended the stream without an answer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := gateOf(t, tt.answers)
			c := r.client()
			_, err := c.Welcome()
			if tt.want == "" {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			isOfAnotherRelease(t, err, tt.want)
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("it goes on")
			}
		})
	}
	t.Run("a cut is no answer, and no release", func(t *testing.T) {
		r := gateOf(t, func(c *Conn) { c.raw.Close() })
		var other *ReleaseError
		if _, err := r.client().Welcome(); !errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &other) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a last message that is not known", func(t *testing.T) {
		r := newRig(t, nil)
		r.serve = func(c *Conn, _ Hello) { c.writeMessage(json.RawMessage(`{"exit":0,"cost":3}`)) }
		c := r.client()
		_, err := io.ReadAll(c)
		isOfAnotherRelease(t, err, `its last message has "cost", which is not known here`)
		if _, said := c.Exit(); said {
			t.Error("its exit code is believed")
		}
	})
	t.Run("a last message with what may be left unread", func(t *testing.T) {
		r := newRig(t, nil)
		r.serve = func(c *Conn, _ Hello) {
			c.writeMessage(json.RawMessage(`{"exit":3,"also":{"cost":3}}`))
			c.CloseWrite()
		}
		c := r.client()
		_, err := io.ReadAll(c)
		if code, said := c.Exit(); err != nil || !said || code != 3 {
			t.Errorf("got %d, %v, %v", code, said, err)
		}
	})
}

func isOfAnotherRelease(t *testing.T, err error, says string) {
	t.Helper()
	var other *ReleaseError
	if !errors.As(err, &other) || !strings.Contains(err.Error(), says) || other.ExitCode() != 69 || !strings.Contains(other.Hint(), "hosts first") {
		t.Errorf("got %v, want %q", err, says)
	}
}

// Of what is within TLS there may be another version one day: both sides say so, and
// neither goes down to one that it does not offer.
func TestAnotherVersionWithinTLSIsRefused(t *testing.T) {
	for _, tt := range []struct {
		name string
		jump []string
	}{{"a later one", []string{"jumpsuite/2"}}, {"another protocol", []string{"h2"}}, {"none", nil}} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, nil)
			r.decide = func(Hello, KeyID) (Welcome, error) {
				t.Error("its hello was read")
				return Welcome{}, nil
			}
			c, err := meet(t.Context(), r.open(), Identity{Key: r.jump, Trusted: only(r.host)}, tt.jump...)
			if err == nil {
				c.SetDeadline(time.Now().Add(patient))
				_, err = c.Welcome()
			}
			if err == nil {
				t.Fatal("it came in")
			}
			if tt.jump != nil {
				isOfAnotherRelease(t, err, "it speaks another version within TLS")
			}
			eventually(t, "the gate has refused it", func() bool {
				r.mu.Lock()
				defer r.mu.Unlock()
				return len(r.acceptError) == 1
			})
		})
	}
	t.Run("of several the one that both have", func(t *testing.T) {
		r := newRig(t, nil)
		c, err := meet(t.Context(), r.open(), Identity{Key: r.jump, Trusted: only(r.host)}, "jumpsuite/2", protocol)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got := c.tls.ConnectionState().NegotiatedProtocol; got != protocol {
			t.Errorf("got %q", got)
		}
	})
}

// Who repeats what a jump server sent, without its key, is nobody: TLS takes its
// hello for no one's a second time.
func TestWhatAJumpServerSentIsWorthNothingASecondTime(t *testing.T) {
	var line *tap
	r := newRig(t, func(c net.Conn) net.Conn { line = &tap{Conn: c}; return line })
	came := 0
	r.decide = func(Hello, KeyID) (Welcome, error) { came++; return Welcome{}, nil }
	c := r.client()
	if _, err := c.Welcome(); err != nil {
		t.Fatal(err)
	}
	c.Close()
	r.carrier.Close()
	<-r.served

	near, far := tcpPair(t)
	defer near.Close()
	served := make(chan error, 1)
	go func() { served <- Serve(t.Context(), far, r.handle) }()
	go io.Copy(io.Discard, near)
	line.mu.Lock()
	defer line.mu.Unlock()
	if _, err := near.Write(line.sent.Bytes()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the gate has refused it", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.acceptError) > 0
	})
	near.Close()
	<-served
	if came != 1 {
		t.Errorf("%d hellos were decided about, want the first alone", came)
	}
}

// tap keeps what is written.
type tap struct {
	net.Conn
	mu   sync.Mutex
	sent bytes.Buffer
}

func (t *tap) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent.Write(p)
	return t.Conn.Write(p)
}
