package tunnel

import (
	"bytes"
	"errors"
	"io"
	"math/rand"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/yamux"

	"jumpsuite/internal/loopback"
)

// twice delivers some of what is written a second time, as the SSM agent does
// with a message whose acknowledgement it could not send: the message's records
// again, and then those that follow.
type twice struct {
	net.Conn
	random *rand.Rand
	again  int
}

func (c *twice) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err == nil && c.random.Intn(3) == 0 {
		c.again++
		_, err = c.Conn.Write(p)
	}
	return n, err
}

func TestWhatArrivesTwiceIsDropped(t *testing.T) {
	var link *twice
	r := newRig(t, func(jump net.Conn) net.Conn {
		link = &twice{Conn: jump, random: rand.New(rand.NewSource(7))}
		return link
	})
	c := r.client()
	want := noise(300 << 10)
	go func() {
		for rest := want; len(rest) > 0; {
			n := min(len(rest), 1+len(rest)%5000)
			c.Write(rest[:n])
			rest = rest[n:]
		}
		c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, %v, want %d", len(got), err, len(want))
	}
	if link.again == 0 {
		t.Error("nothing came twice")
	}
}

// damage changes the write with a number.
type damage struct {
	net.Conn
	at     int
	change func([]byte) [][]byte
}

func (c *damage) Write(p []byte) (int, error) {
	if c.at--; c.at != 0 {
		return c.Conn.Write(p)
	}
	for _, b := range c.change(bytes.Clone(p)) {
		if _, err := c.Conn.Write(b); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// What is neither the next nor one that was there ends the carrier with a reason.
func TestDamageEndsTheCarrier(t *testing.T) {
	flip := func(at int) func([]byte) [][]byte {
		return func(b []byte) [][]byte {
			b[at%len(b)] ^= 1
			return [][]byte{b}
		}
	}
	for _, tt := range []struct {
		name   string
		change func([]byte) [][]byte
		says   string
	}{
		{"a record is lost", func([]byte) [][]byte { return nil }, "the carrier delivered record 4 instead of 3"},
		{"a bit of the body", flip(recordHead + 20), "the carrier delivered a record with a wrong checksum"},
		{"a bit of the kind", flip(0), "the carrier delivered a record with a wrong checksum"},
		{"a bit of the number", flip(6), "the carrier delivered a record with a wrong checksum"},
		{"half of it twice", func(b []byte) [][]byte { return [][]byte{b, b[len(b)/2:]} }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, func(jump net.Conn) net.Conn { return &damage{Conn: jump, at: 4, change: tt.change} })
			s := r.open()
			for range 10 {
				s.Write(noise(100))
			}
			var damaged *DamagedError
			if err := <-r.served; !errors.As(err, &damaged) || tt.says != "" && err.Error() != tt.says {
				t.Errorf("got %v, want %q", err, tt.says)
			}
		})
	}
}

func TestOnlyOurFramesReachYamux(t *testing.T) {
	frame := func(version, kind byte, length uint32, body int) []byte {
		b := make([]byte, frameHead+body)
		b[0], b[1] = version, kind
		b[8], b[9], b[10], b[11] = byte(length>>24), byte(length>>16), byte(length>>8), byte(length)
		return b
	}
	for _, tt := range []struct {
		name string
		b    []byte
		want string
	}{
		{"data", frame(0, typeData, 5, 5), ""},
		{"a window", frame(0, typeWindow, 1<<18, 0), ""},
		{"a farewell", frame(0, typeGoAway, 0, 0), ""},
		{"a ping", frame(0, 2, 7, 0), "a frame of type 2"},
		{"another version", frame(1, typeData, 0, 0), "what is no frame"},
		{"less than a head", make([]byte, 11), "what is no frame"},
		{"more data than said", frame(0, typeData, 5, 6), "a frame of another length than it says"},
		{"less data than said", frame(0, typeData, 1<<31, 6), "a frame of another length than it says"},
		{"a window with data", frame(0, typeWindow, 4, 4), "a frame of another length than it says"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := checkFrame(tt.b)
			if got := ""; err != nil {
				got = err.(*DamagedError).What
				if got != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
			} else if tt.want != "" {
				t.Errorf("got nothing, want %q", tt.want)
			}
		})
	}
}

// FuzzRecords feeds a carrier's outer side with anything: it must end or wait,
// and hold no more than a record.
func FuzzRecords(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte{1, 0, 12, 0, 0, 0, 0, 1, 2, 3, 4, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		near, far := net.Pipe()
		defer near.Close()
		go func() {
			near.Write(b)
			near.Close()
		}()
		r := newRecords(far)
		var buf [4096]byte
		for {
			if _, err := r.Read(buf[:]); err != nil {
				break
			}
		}
		if cap(r.body) > 2*maxRecord {
			t.Errorf("it holds %d bytes", cap(r.body))
		}
	})
}

// A bulk stream leaves no more in the agent's socket than it takes to keep it
// busy, so that an echo does not wait. Here nobody reads at all.
func TestABulkStreamLeavesNoQueue(t *testing.T) {
	near, far := tcpPair(t)
	defer near.Close()
	defer far.Close()
	room := roomIn(far)
	if room == nil {
		t.Skip("the kernel does not tell what is unread")
	}
	defer room.close()
	rec := newRecords(far)
	mux, err := yamux.Server(rec, config())
	if err != nil {
		t.Fatal(err)
	}
	defer mux.Close()
	var streams []*yamux.Stream
	for range 3 {
		y, err := mux.OpenStream()
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, y)
	}
	for _, y := range streams {
		go newStream(y, pieceDown, rec, &server{mux: mux, room: room}).Write(noise(1 << 20))
	}
	w, err := loopback.Open(far)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	unread := func() int {
		p, err := w.Peer()
		if err != nil {
			t.Fatal(err)
		}
		return p.Unread
	}
	eventually(t, "there is enough for the agent", func() bool { return unread() > queueLeast })
	for range 100 {
		if n := unread(); n > queueMost+1024 {
			t.Fatalf("%d bytes are in the agent's socket", n)
		}
		time.Sleep(time.Millisecond)
	}
}
