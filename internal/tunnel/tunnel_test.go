package tunnel

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const patient = 20 * time.Second

func newKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func only(keys ...ed25519.PrivateKey) func(KeyID) bool {
	return func(id KeyID) bool {
		return slices.ContainsFunc(keys, func(k ed25519.PrivateKey) bool { return id == IDOf(k.Public().(ed25519.PublicKey)) })
	}
}

func idOf(k ed25519.PrivateKey) KeyID { return IDOf(k.Public().(ed25519.PublicKey)) }

// rig is a jump server and a host with a connection between them.
type rig struct {
	t           *testing.T
	jump, host  ed25519.PrivateKey
	carrier     *Carrier
	hostID      Identity
	decide      func(Hello, KeyID) (Welcome, error)
	serve       func(*Conn, Hello)
	drain       context.CancelFunc
	served      chan error
	mu          sync.Mutex
	acceptError []error
}

var hello = Hello{User: "dev1", UID: 1001, Groups: []string{"dev"}, Audit: "a1", Environment: "test", Purpose: "docker ps"}

// newRig connects both over what link makes of a TCP connection; nil: as it is.
func newRig(t *testing.T, link func(jump net.Conn) net.Conn) *rig {
	t.Helper()
	return newRigOf(t, link, (*rig).handle)
}

// newRigOf is newRig with a host that does with each stream what handle does.
func newRigOf(t *testing.T, link func(jump net.Conn) net.Conn, handle func(*rig, net.Conn)) *rig {
	t.Helper()
	r := &rig{t: t, jump: newKey(t), host: newKey(t), served: make(chan error, 1)}
	r.hostID = Identity{Key: r.host, Trusted: only(r.jump)}
	r.decide = func(Hello, KeyID) (Welcome, error) {
		return Welcome{Environment: "test", Host: "i-1", Version: "1.0"}, nil
	}
	r.serve = func(c *Conn, _ Hello) { io.Copy(c, c); c.CloseWrite() }
	near, far := tcpPair(t)
	if link != nil {
		near = link(near)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r.drain = cancel
	go func() { r.served <- Serve(ctx, far, func(s net.Conn) { handle(r, s) }) }()
	var err error
	if r.carrier, err = Carry(t.Context(), near); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.carrier.Close()
		far.Close()
	})
	return r
}

func tcpPair(t *testing.T) (near, far net.Conn) {
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

func (r *rig) handle(s net.Conn) {
	c, h, err := Accept(r.t.Context(), s, r.hostID, r.decide)
	if err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.acceptError = append(r.acceptError, err)
		return
	}
	defer c.Close()
	r.serve(c, h)
}

func (r *rig) open() net.Conn {
	r.t.Helper()
	s, err := r.carrier.Open(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *rig) client() *Conn {
	r.t.Helper()
	c, err := Client(r.t.Context(), r.open(), Identity{Key: r.jump, Trusted: only(r.host)}, hello)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patient))
	return c
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patient); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if is() {
			return
		}
	}
	t.Fatalf("%s: not so after %v", what, patient)
}

func noise(n int) []byte {
	b := make([]byte, n)
	rand.New(rand.NewSource(int64(n))).Read(b)
	return b
}

func TestBothSidesKnowEachOther(t *testing.T) {
	r := newRig(t, nil)
	heard := make(chan Hello, 1)
	r.decide = func(h Hello, k KeyID) (Welcome, error) {
		if k != idOf(r.jump) {
			t.Errorf("the host sees key %s, want %s", k, idOf(r.jump))
		}
		heard <- h
		return Welcome{Environment: "test", Host: "i-1", Version: "1.0"}, nil
	}
	c := r.client()
	if c.Key() != idOf(r.host) {
		t.Errorf("the jump server sees key %s, want %s", c.Key(), idOf(r.host))
	}
	if got, err := c.Welcome(); err != nil || got != (Welcome{Environment: "test", Host: "i-1", Version: "1.0"}) {
		t.Errorf("got %+v, %v", got, err)
	}
	if got := <-heard; got.User != "dev1" || got.UID != 1001 || got.Audit != "a1" || !slices.Equal(got.Groups, hello.Groups) {
		t.Errorf("the host heard %+v", got)
	}
}

// What is sent before one direction is closed arrives, and so does the answer
// that is sent after.
func TestHalfCloseKeepsWhatIsUnderWay(t *testing.T) {
	text := bytes.Repeat([]byte("2026-11-23T08:00:00Z INFO a line of a log\n"), 20000)
	for _, tt := range []struct {
		name string
		data []byte
	}{{"nothing", nil}, {"a byte", []byte("x")}, {"a lone line feed", []byte("\n")}, {"text", text}, {"noise", noise(1 << 20)}} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, nil)
			r.serve = func(c *Conn, _ Hello) {
				b, err := io.ReadAll(c)
				if err != nil {
					t.Errorf("the host read: %v", err)
				}
				sum := sha256.Sum256(b)
				c.Write(sum[:])
				c.Write(b)
			}
			c := r.client()
			go func() {
				c.Write(tt.data)
				c.CloseWrite()
			}()
			got, err := io.ReadAll(c)
			want := sha256.Sum256(tt.data)
			if err != nil || !bytes.Equal(got, append(want[:], tt.data...)) {
				t.Errorf("got %d bytes, %v, want %d", len(got), err, len(tt.data)+len(want))
			}
			c.Close()
			eventually(t, "no stream is left", func() bool { return r.carrier.Streams() == 0 })
		})
	}
}

// A slow reader gets it all, although the host has closed long since.
func TestNoTailIsLostToASlowReader(t *testing.T) {
	r := newRig(t, nil)
	closed := make(chan struct{})
	want := noise(200 << 10)
	r.serve = func(c *Conn, _ Hello) {
		c.Write(want)
		c.Close()
		close(closed)
	}
	c := r.client()
	<-closed
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, %v, want %d", len(got), err, len(want))
	}
}

func TestACutStreamIsNoEnd(t *testing.T) {
	r := newRig(t, nil)
	r.serve = func(c *Conn, _ Hello) {
		c.Write([]byte("half of it"))
		c.raw.Close()
	}
	c := r.client()
	if got, err := io.ReadAll(c); !errors.Is(err, io.ErrUnexpectedEOF) || string(got) != "half of it" {
		t.Errorf("a stream that ends without its close: got %q, %v", got, err)
	}
	r.serve = func(c *Conn, _ Hello) {
		c.Write([]byte("x"))
		c.raw.(*stream).server.mux.Close()
	}
	c, err := Client(t.Context(), r.open(), Identity{Key: r.jump, Trusted: only(r.host)}, hello)
	if err == nil {
		_, err = io.ReadAll(c)
	}
	if err == nil || !strings.Contains(err.Error(), "the carrier has ended") {
		t.Errorf("a carrier that ends: got %v", err)
	}
}

// A far end that has nothing to write notices, too.
func TestWhoListensNoMoreIsGone(t *testing.T) {
	r := newRig(t, nil)
	over := make(chan bool, 1)
	r.serve = func(c *Conn, _ Hello) {
		io.Copy(io.Discard, c)
		select {
		case <-c.Gone():
			t.Error("it is gone before it is")
		default:
		}
		c.Write([]byte("still"))
		select {
		case <-c.Gone():
			over <- true
		case <-time.After(patient):
			over <- false
		}
	}
	c := r.client()
	c.CloseWrite()
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	c.raw.Close()
	if !<-over {
		t.Error("it is not noticed")
	}
}

// The far end notices that the near one is gone, even when that had said before
// that it would write no more.
func TestWhoIsGoneIsNoticed(t *testing.T) {
	for _, tt := range []struct {
		name  string
		first func(*Conn)
	}{{"at once", func(*Conn) {}}, {"after half-close", func(c *Conn) { c.CloseWrite() }}} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, nil)
			failed := make(chan error, 1)
			r.serve = func(c *Conn, _ Hello) {
				go io.Copy(io.Discard, c)
				var err error
				for err == nil {
					_, err = c.Write([]byte("tick"))
					time.Sleep(time.Millisecond)
				}
				failed <- err
			}
			c := r.client()
			tt.first(c)
			if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
			c.raw.Close()
			select {
			case <-failed:
			case <-time.After(patient):
				t.Fatal("the host writes on")
			}
		})
	}
}

func TestADeadlineDoesNotBreakTheConnection(t *testing.T) {
	r := newRig(t, nil)
	c := r.client()
	if _, err := c.Welcome(); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(time.Millisecond))
	var n net.Error
	if _, err := c.Read(make([]byte, 1)); !errors.As(err, &n) || !n.Timeout() {
		t.Fatalf("got %v, want a time-out", err)
	}
	c.SetReadDeadline(time.Now().Add(patient))
	c.Write([]byte("still there"))
	got := make([]byte, 11)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "still there" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestWhoIsNotTrustedGetsNowhere(t *testing.T) {
	other := newKey(t)
	t.Run("a jump server", func(t *testing.T) {
		r := newRig(t, nil)
		r.decide = func(Hello, KeyID) (Welcome, error) {
			t.Error("its hello was read")
			return Welcome{}, nil
		}
		c, err := Client(t.Context(), r.open(), Identity{Key: other, Trusted: only(r.host)}, hello)
		if err == nil {
			_, err = c.Welcome()
		}
		var not *NotTrustedThereError
		if !errors.As(err, &not) || not.Key != idOf(other) {
			t.Errorf("got %v, want that the host does not trust %s", err, idOf(other))
		}
	})
	t.Run("a host", func(t *testing.T) {
		r := newRig(t, nil)
		_, err := Client(t.Context(), r.open(), Identity{Key: r.jump, Trusted: only(other)}, hello)
		var not *UntrustedError
		if !errors.As(err, &not) || not.Key != idOf(r.host) {
			t.Errorf("got %v, want that %s is not trusted", err, idOf(r.host))
		}
	})
	t.Run("nobody is trusted by nobody", func(t *testing.T) {
		r := newRig(t, nil)
		if _, err := Client(t.Context(), r.open(), Identity{Key: r.jump}, hello); err == nil {
			t.Error("a jump server that trusts no key connected")
		}
		if _, err := Client(t.Context(), r.open(), Identity{Trusted: only(r.host)}, hello); err == nil {
			t.Error("one without a key connected")
		}
	})
}

type policyError struct{}

func (policyError) Error() string { return "docker.run is not allowed in test (rule default)" }
func (policyError) Hint() string  { return "ask for it" }
func (policyError) ExitCode() int { return 66 }

func TestARefusalArrivesInTheHostsWords(t *testing.T) {
	r := newRig(t, nil)
	r.decide = func(Hello, KeyID) (Welcome, error) { return Welcome{}, policyError{} }
	c := r.client()
	c.Write([]byte("GET / HTTP/1.1\r\n\r\n")) // before the answer is there
	_, err := c.Read(make([]byte, 1))
	var refused *RefusedError
	if !errors.As(err, &refused) || refused.Text != policyError.Error(policyError{}) || refused.Hint() != "ask for it" || refused.ExitCode() != 66 {
		t.Errorf("got %#v", err)
	}
}

func TestAHelloThatIsWrongIsRefused(t *testing.T) {
	for _, tt := range []struct{ name, hello, says string }{
		{"no user", `{"user":"","uid":1,"groups":[],"audit":"a"}`, "name"},
		{"no audit id", `{"user":"dev1","uid":1,"groups":[]}`, "name"},
		{"a key that is unknown", `{"user":"dev1","uid":1,"groups":[],"audit":"a","root":true}`, `"root" is not known here`},
		{"two", `{"user":"dev1","uid":1,"groups":[],"audit":"a"}{}`, "follows"},
		{"a negative uid", `{"user":"dev1","uid":-1,"groups":[],"audit":"a"}`, "too much"},
		{"a group without a name", `{"user":"dev1","uid":1,"groups":[""],"audit":"a"}`, "name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var h Hello
			err := decode([]byte(tt.hello), &h)
			if err == nil {
				err = h.check()
			}
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
		})
	}
}

func TestTheGateSpeaksFirst(t *testing.T) {
	for _, tt := range []struct{ name, says, want string }{
		{"another protocol", "HTTP/1.1 400 Bad Request\r\n", "no gate answers on the host: something else said"},
		{"a later gate", "jumpsuite tunnel 2\n", "speaks version 2"},
		{"a port that is closed", "", "no gate answers on the host: EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			near, far := tcpPair(t)
			io.WriteString(far, tt.says)
			far.Close()
			_, err := Carry(t.Context(), near)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	near, far := tcpPair(t)
	defer far.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := Carry(ctx, near); err == nil || !strings.Contains(err.Error(), "said nothing") {
		t.Errorf("a port that is silent: got %v", err)
	}
	far.SetReadDeadline(time.Now().Add(patient))
	if n, err := far.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("it wrote before the gate spoke: %d, %v", n, err)
	}
}

// A gate that is being replaced takes no more streams, and ends none.
func TestDrainingEndsNoStream(t *testing.T) {
	r := newRig(t, nil)
	c := r.client()
	if _, err := c.Welcome(); err != nil {
		t.Fatal(err)
	}
	r.drain()
	select {
	case <-r.carrier.Leaving():
	case <-time.After(patient):
		t.Fatal("the jump server does not learn of it")
	}
	if _, err := r.carrier.Open(t.Context()); !errors.Is(err, ErrLeaving) {
		t.Errorf("a new stream: got %v, want %v", err, ErrLeaving)
	}
	c.Write([]byte("goes on"))
	c.CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "goes on" {
		t.Errorf("the open stream: got %q, %v", got, err)
	}
	c.Close()
	r.carrier.Close()
	if err := <-r.served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}
