package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/yamux"
)

// A session that was just started gets the streams of all who waited for it.
func TestManyCallersMayComeAtOnce(t *testing.T) {
	const callers = 40
	r := newRig(t, nil)
	came := make(chan error, callers)
	for range callers {
		s := r.open()
		go func() {
			c, err := Client(t.Context(), s, Identity{Key: r.jump, Trusted: only(r.host)}, hello)
			if err == nil {
				defer c.Close()
				_, err = c.Welcome()
			}
			came <- err
		}()
	}
	for range callers {
		if err := <-came; err != nil {
			t.Errorf("one of %d who came at once: got %v", callers, err)
		}
	}
}

// Who stays silent holds up others for a while only.
func TestWhoSaysNothingKeepsNobodyOutForGood(t *testing.T) {
	r := newRig(t, nil)
	silent := r.open()
	for range maxStrangersAtFirst - 1 {
		r.open()
	}
	late := r.open() // waits
	time.AfterFunc(100*time.Millisecond, func() { silent.Close() })
	c, err := Client(t.Context(), late, Identity{Key: r.jump, Trusted: only(r.host)}, hello)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Welcome(); err != nil {
		t.Errorf("got %v", err)
	}
}

// Neither end waits for longer than a handshake may take, whatever the other does:
// the end of a carrier's stream ends no Read of it.
func TestAHandshakeThatDoesNotGoOnIsOver(t *testing.T) {
	ended := make(chan error, 1)
	r := newRigOf(t, nil, func(r *rig, s net.Conn) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, _, err := Accept(ctx, s, r.hostID, r.decide)
		ended <- err
	})
	silent := r.open()
	defer silent.Close()
	for _, what := range []string{"the host's", "the jump server's"} {
		select {
		case err := <-ended:
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: got %v", what, err)
			}
		case <-time.After(patient):
			t.Fatalf("%s goes on", what)
		}
		if what == "the host's" {
			deaf := newRigOf(t, nil, func(*rig, net.Conn) { <-t.Context().Done() })
			s := deaf.open()
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				defer cancel()
				_, err := Client(ctx, s, Identity{Key: r.jump, Trusted: only(r.host)}, hello)
				ended <- err
			}()
		}
	}
}

// A stream that the host closes, as its policy was changed, is over there, whatever
// the jump server does.
func TestAStreamThatTheHostClosesIsNotReadOn(t *testing.T) {
	ended := make(chan error, 1)
	r := newRigOf(t, nil, func(_ *rig, s net.Conn) {
		time.AfterFunc(20*time.Millisecond, func() { s.Close() })
		_, err := s.Read(make([]byte, 1))
		ended <- err
	})
	s := r.open() // and is not closed
	defer s.Close()
	select {
	case err := <-ended:
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
	case <-time.After(patient):
		t.Fatal("its Read goes on")
	}
}

// Before anybody is known nothing makes the gate keep much: not streams that
// were refused already either.
func TestStrangersCannotFillTheGatesMemory(t *testing.T) {
	near, far := tcpPair(t)
	served := make(chan error, 1)
	id := Identity{Key: newKey(t)}
	go func() {
		served <- Serve(t.Context(), far, func(s net.Conn) { Accept(t.Context(), s, id, nil) })
	}()
	if _, err := io.ReadFull(near, make([]byte, len(banner))); err != nil {
		t.Fatal(err)
	}
	mux, err := yamux.Client(newRecords(near), config())
	if err != nil {
		t.Fatal(err)
	}
	defer mux.Close()
	kept := 0
	for range 60 {
		s, err := mux.OpenStream()
		if err != nil {
			break
		}
		for range 15 {
			n, err := s.Write(make([]byte, maxBody-frameHead))
			kept += n
			if err != nil {
				break
			}
		}
	}
	select {
	case err := <-served:
		if err == nil || !strings.Contains(err.Error(), "before anybody said who he is") {
			t.Errorf("got %v", err)
		}
	case <-time.After(patient):
		t.Fatalf("the gate keeps %d bytes of a stranger's", kept)
	}
}

// Only jump servers open streams: r3-ssm would keep those of a host for ever.
func TestAHostOpensNoStreams(t *testing.T) {
	near, far := tcpPair(t)
	go io.WriteString(far, banner)
	c, err := Carry(t.Context(), near)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	mux, err := yamux.Server(newRecords(far), config())
	if err != nil {
		t.Fatal(err)
	}
	defer mux.Close()
	_, opened := mux.OpenStream() // its end, which is wanted, may come before its answer
	select {
	case <-c.Done():
	case <-time.After(patient):
		t.Fatalf("it goes on (%v), with %d streams", opened, c.Streams())
	}
	if err := c.Err(); err == nil || !strings.Contains(err.Error(), "a stream that the host opened") {
		t.Errorf("got %v", err)
	}
}

// A jump server that is gone, and of which AWS has not noticed it, leaves streams
// behind, and what runs in them.
func TestACarrierThatIsNotHeardOfEnds(t *testing.T) {
	near, far := tcpPair(t)
	go io.WriteString(far, banner)
	c, err := Carry(t.Context(), near)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	rec := newRecords(far)
	mux, err := yamux.Server(rec, config())
	if err != nil {
		t.Fatal(err)
	}
	defer mux.Close()
	s := &server{mux: mux, rec: rec}
	later := func() time.Time { return time.Now().Add(silentTime + time.Second) }
	if s.endIfSilent(later()); mux.IsClosed() {
		t.Fatal("a carrier without streams may be silent for as long as SSM lets it")
	}
	stream, err := c.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(stream, "x")
	if _, err := mux.AcceptStream(); err != nil {
		t.Fatal(err)
	}
	if s.endIfSilent(time.Now().Add(silentTime - time.Minute)); mux.IsClosed() {
		t.Fatal("it was heard of, and is over")
	}
	if s.endIfSilent(later()); !mux.IsClosed() || rec.why() != errSilent {
		t.Errorf("it goes on, or does not say why: %v", rec.why())
	}
	if _, err := stream.Read(make([]byte, 1)); err == nil {
		t.Error("its stream goes on")
	}
}

// Who waits for an agent that reads nothing does not keep the processor busy.
func TestAnAgentThatReadsNothingIsLookedAtLessOften(t *testing.T) {
	for looks, want := range map[int]time.Duration{
		0: queueLook, queueLooks - 1: queueLook, queueLooks: 2 * queueLook, queueLooks + 1: 4 * queueLook,
		queueLooks + 20: queueRare, 1 << 40: queueRare,
	} {
		if got := nextLook(looks); got != want {
			t.Errorf("after %d looks: got %v, want %v", looks, got, want)
		}
	}
}

// A gate ends a carrier with too many streams, and so what others do in it.
func TestACarrierThatIsFullTakesNoMore(t *testing.T) {
	r := newRig(t, nil)
	first := r.client()
	got := 1
	var opened []net.Conn
	for ; got < 2*maxStreams; got++ {
		s, err := r.carrier.Open(t.Context())
		if err != nil {
			if !errors.Is(err, ErrFull) || !r.carrier.Full() {
				t.Errorf("stream %d: got %v", got, err)
			}
			break
		}
		opened = append(opened, s)
	}
	if got != maxOpen {
		t.Errorf("got %d streams, want %d", got, maxOpen)
	}
	first.Write([]byte("still here"))
	if _, err := io.ReadFull(first, make([]byte, 10)); err != nil {
		t.Errorf("the first stream: %v", err)
	}
	for _, s := range opened {
		s.Close()
	}
	eventually(t, "there is room again", func() bool { return !r.carrier.Full() })
}
