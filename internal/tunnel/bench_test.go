package tunnel

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"io"
	"math/rand"
	"net"
	"slices"
	"testing"
	"time"
)

// agent is the jump server's end of a session: what the host writes is read as
// the SSM agent does it (1,024 bytes, then a millisecond of sleep), and each
// direction takes half of rtt.
type agent struct {
	net.Conn
	rtt  time.Duration
	down *io.PipeReader
	up   chan late
}

type late struct {
	b  []byte
	at time.Time
}

func newAgent(conn net.Conn, rtt time.Duration) *agent {
	r, w := io.Pipe()
	a := &agent{Conn: conn, rtt: rtt, down: r, up: make(chan late, 1000)}
	down := make(chan late, 1000)
	go func() {
		defer close(down)
		for {
			b := make([]byte, 1024)
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			down <- late{b[:n], time.Now().Add(rtt / 2)}
			time.Sleep(time.Millisecond)
		}
	}()
	go deliver(down, w)
	go deliver(a.up, conn)
	return a
}

func deliver(from <-chan late, to io.WriteCloser) {
	for l := range from {
		time.Sleep(time.Until(l.at))
		if _, err := to.Write(l.b); err != nil {
			break
		}
	}
	to.Close()
	for range from {
	}
}

func (a *agent) Read(p []byte) (int, error) { return a.down.Read(p) }
func (a *agent) Write(p []byte) (int, error) {
	a.up <- late{bytes.Clone(p), time.Now().Add(a.rtt / 2)}
	return len(p), nil
}
func (a *agent) SetReadDeadline(time.Time) error { return nil }
func (a *agent) Close() error {
	a.down.Close()
	return a.Conn.Close()
}

// lines is a log as services write it.
func lines(n int) []byte {
	r := rand.New(rand.NewSource(1))
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "2026-11-23T08:%02d:%02d.%03dZ INFO [http-nio-8080-exec-%d] c.e.shop.OrderController - GET /api/v1/orders/%d took %d ms, status=%d, tenant=customer-%d\n",
			r.Intn(60), r.Intn(60), r.Intn(1000), r.Intn(16), r.Intn(100000), r.Intn(300), []int{200, 200, 200, 304, 404, 500}[r.Intn(6)], r.Intn(40))
	}
	return b.Bytes()[:n]
}

// benchRig serves echo, noise and text by the purpose of the hello.
func benchRig(b *testing.B, rtt time.Duration) (open func(purpose string) *Conn, link *agent) {
	_, jump, _ := ed25519.GenerateKey(nil)
	_, host, _ := ed25519.GenerateKey(nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	near, _ := net.Dial("tcp", l.Addr().String())
	far, _ := l.Accept()
	content := map[string][]byte{"noise": noise(1 << 20), "text": lines(8 << 20)}
	go Serve(b.Context(), far, func(s net.Conn) {
		c, h, err := Accept(b.Context(), s, Identity{Key: host, Trusted: only(jump)}, func(Hello, KeyID) (Welcome, error) { return Welcome{}, nil })
		if err != nil {
			return
		}
		defer c.Close()
		if h.Purpose == "echo" {
			io.Copy(c, c)
			return
		}
		for i := 0; ; i = (i + 32<<10) % len(content[h.Purpose]) {
			if _, err := c.Write(content[h.Purpose][i : i+32<<10]); err != nil {
				return
			}
		}
	})
	link = newAgent(near, rtt)
	carrier, err := Carry(b.Context(), link)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { carrier.Close(); far.Close() })
	return func(purpose string) *Conn {
		s, err := carrier.Open(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		h := hello
		h.Purpose = purpose
		c, err := Client(b.Context(), s, Identity{Key: jump, Trusted: only(host)}, h)
		if err != nil {
			b.Fatal(err)
		}
		return c
	}, link
}

func echo(b *testing.B, c *Conn, n int) (p50, p95 time.Duration) {
	var all []time.Duration
	for range n {
		began := time.Now()
		c.Write([]byte("k"))
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			b.Fatal(err)
		}
		all = append(all, time.Since(began))
		time.Sleep(20 * time.Millisecond)
	}
	slices.Sort(all)
	return all[n/2], all[n*95/100]
}

func rate(b *testing.B, c *Conn, d time.Duration) float64 {
	buf := make([]byte, 64<<10)
	io.CopyN(io.Discard, c, 300<<10) // what waited in the window
	n, began := 0, time.Now()
	for time.Since(began) < d {
		m, err := c.Read(buf)
		if err != nil {
			b.Fatal(err)
		}
		n += m
	}
	return float64(n) / 1e6 / time.Since(began).Seconds()
}

// BenchmarkCarrier prints what one carrier does behind an agent: the rate with
// nothing of ours in between, noise, text, and a keystroke's echo above the round
// trip, alone and beside one and three bulk streams.
func BenchmarkCarrier(b *testing.B) {
	const rtt = 20 * time.Millisecond
	for b.Loop() {
		open, _ := benchRig(b, rtt)
		keys := open("echo")
		alone, _ := echo(b, keys, 50)
		b.ReportMetric(float64((alone-rtt).Microseconds())/1e3, "echo-ms")
		bulk := open("noise")
		var ratios []float64
		for range 5 { // in turns: the machine is not the same for long
			was := bare(b, 500*time.Millisecond)
			ratios = append(ratios, rate(b, bulk, 500*time.Millisecond)/was)
		}
		slices.Sort(ratios)
		b.ReportMetric(ratios[len(ratios)/2], "noise/bare")
		go io.Copy(io.Discard, bulk)
		p50, p95 := echo(b, keys, 100)
		b.ReportMetric(float64((p50-rtt).Microseconds())/1e3, "echo-bulk-ms")
		b.ReportMetric(float64((p95-rtt).Microseconds())/1e3, "echo-bulk-p95-ms")
		for range 2 {
			go io.Copy(io.Discard, open("noise"))
		}
		p50, _ = echo(b, keys, 100)
		b.ReportMetric(float64((p50-rtt).Microseconds())/1e3, "echo-3-bulk-ms")

		open, _ = benchRig(b, rtt)
		b.ReportMetric(rate(b, open("text"), 2*time.Second), "text-MB/s")
		b.ReportMetric(bare(b, time.Second), "bare-MB/s")
	}
}

// bare is what an agent carries at most.
func bare(b *testing.B, d time.Duration) float64 {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	near, _ := net.Dial("tcp", l.Addr().String())
	far, _ := l.Accept()
	defer far.Close()
	go far.Write(noise(8 << 20))
	a := newAgent(near, 0)
	n, began, buf := 0, time.Now(), make([]byte, 64<<10)
	for time.Since(began) < d {
		m, err := a.Read(buf)
		if err != nil {
			b.Fatal(err)
		}
		n += m
	}
	return float64(n) / 1e6 / time.Since(began).Seconds()
}
