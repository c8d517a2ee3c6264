package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/world"
	"jumpsuite/internal/tunnel"
)

// textSize is the log that is read, in bytes.
const textSize = 50_000_000

// far is a host's gate as far as bytes go: what it does on a stream is the
// purpose of the hello.
type far struct {
	identity    tunnel.Identity
	noise, text []byte
}

// newIdentity is a key, of somebody who trusts everybody.
func newIdentity() (tunnel.Identity, error) {
	_, key, err := ed25519.GenerateKey(nil)
	return tunnel.Identity{Key: key, Trusted: func(tunnel.KeyID) bool { return true }}, err
}

func newFar() (*far, error) {
	id, err := newIdentity()
	if err != nil {
		return nil, err
	}
	f := &far{identity: id, noise: make([]byte, 1<<20), text: logText(textSize)}
	rand.NewChaCha8([32]byte{}).Read(f.noise)
	return f, nil
}

// logText is a log as services write it.
func logText(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "2026-11-23T08:%02d:%02d.%03dZ INFO [http-nio-8080-exec-%d] c.e.shop.OrderController - GET /api/v1/orders/%d took %d ms, status=%d, tenant=customer-%d\n",
			r.IntN(60), r.IntN(60), r.IntN(1000), r.IntN(16), r.IntN(100000), r.IntN(300), []int{200, 200, 200, 304, 404, 500}[r.IntN(6)], r.IntN(40))
	}
	return b.Bytes()[:n]
}

// listen serves carriers on a port of the loopback, as the gate does.
func (f *far) listen(ctx context.Context, stream func(*tunnel.Conn, tunnel.Hello)) (address string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	welcome := func(tunnel.Hello, tunnel.KeyID) (tunnel.Welcome, error) {
		return tunnel.Welcome{Environment: "test", Host: host, Version: "1"}, nil
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go tunnel.Serve(ctx, conn, func(s net.Conn) {
				if c, hello, err := tunnel.Accept(ctx, s, f.identity, welcome); err == nil {
					stream(c, hello)
					c.Close()
				}
			})
		}
	}()
	return l.Addr().String(), nil
}

func (f *far) stream(c *tunnel.Conn, hello tunnel.Hello) {
	switch hello.Purpose {
	case "echo":
		io.Copy(c, c)
	case "noise":
		for err := error(nil); err == nil; {
			_, err = c.Write(f.noise)
		}
	case "text":
		for text := f.text; len(text) > 0; text = text[min(len(text), 32<<10):] {
			if _, err := c.Write(text[:min(len(text), 32<<10)]); err != nil {
				return
			}
		}
		c.CloseWrite()
		io.Copy(io.Discard, c)
	case "sink":
		swallow(c)
	}
}

// near is the jump server's end of one session.
type near struct {
	*tunnel.Carrier
	identity tunnel.Identity
}

// reach starts a lab with one host, and a session to it.
func (f *far) reach(ctx context.Context, link string) (*near, func(), error) {
	w, err := world.Parse([]byte("clusters: [{name: prod, hosts: [{instance: "+host+"}]}]\nlink: "+link), "world")
	if err != nil {
		return nil, nil, err
	}
	l, err := lab.Start(ctx, lab.Config{World: w})
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	end := func() { cancel(); l.Close() }
	address, err := f.listen(ctx, f.stream)
	if err == nil {
		err = l.Forward(host, 2376, address)
	}
	if err != nil {
		end()
		return nil, nil, err
	}
	s, err := begin(ctx, l.Env(), "jumpsuite-docker")
	if err != nil {
		end()
		return nil, nil, err
	}
	c, err := tunnel.Carry(ctx, s)
	if err != nil {
		end()
		return nil, nil, err
	}
	return &near{c, f.identity}, func() { c.Close(); end() }, nil
}

func (n *near) open(ctx context.Context, purpose string) (*tunnel.Conn, error) {
	s, err := n.Open(ctx)
	if err != nil {
		return nil, err
	}
	c, err := tunnel.Client(ctx, s, n.identity, tunnel.Hello{User: "dev1", UID: 1001, Groups: []string{"dev"}, Audit: "a", Purpose: purpose})
	if err != nil {
		return nil, err
	}
	_, err = c.Welcome()
	return c, err
}

// through measures the same in streams of one session's tunnel.
func through(ctx context.Context, long, delay time.Duration) error {
	f, err := newFar()
	if err != nil {
		return err
	}
	for _, measure := range []func() error{
		func() error { return f.up(ctx, long) },
		func() error { return f.down(ctx, long) },
		func() error { return f.log(ctx) },
		func() error { return f.keys(ctx, long, delay) },
	} {
		if err := measure(); err != nil {
			return fmt.Errorf("through a tunnel: %w", err)
		}
	}
	return nil
}

func (f *far) up(ctx context.Context, long time.Duration) error {
	n, end, err := f.reach(ctx, "{}")
	if err != nil {
		return err
	}
	defer end()
	c, err := n.open(ctx, "sink")
	if err != nil {
		return err
	}
	go func() {
		for err := error(nil); err == nil; {
			_, err = c.Write(f.noise)
		}
	}()
	began, arrived := time.Now(), 0
	for time.Since(began) < long {
		k, err := c.Read(make([]byte, 64))
		if err != nil {
			return err
		}
		arrived += k << 20
	}
	fmt.Printf("tunnel: up               %6.2f MB/s\n", float64(arrived)/mb/time.Since(began).Seconds())
	return nil
}

// turns is how often the tunnel and the loop alone are measured in turns: the
// machine is not the same for long.
const turns = 5

// down compares with the agent's loop that is measured right before: both want a
// processor, and beside each other each would slow the other down.
func (f *far) down(ctx context.Context, long time.Duration) error {
	n, end, err := f.reach(ctx, "{}")
	if err != nil {
		return err
	}
	defer end()
	c, err := n.open(ctx, "noise")
	if err != nil {
		return err
	}
	var rates, shares []float64
	for range turns {
		stop := make(chan float64, 1)
		go func() { stop <- sleeps(long / turns) }()
		got, began, b := 0, time.Now(), make([]byte, 64<<10)
		for time.Since(began) < long/turns {
			k, err := c.Read(b)
			if err != nil {
				return err
			}
			got += k
		}
		rate := float64(got) / mb / time.Since(began).Seconds()
		rates, shares = append(rates, rate), append(shares, rate/(<-stop*1024/mb))
	}
	slices.Sort(rates)
	slices.Sort(shares)
	fmt.Printf("tunnel: down, noise      %6.2f MB/s, %.2f of what the agent's loop can carry (medians of %d)\n", rates[turns/2], shares[turns/2], turns)
	return nil
}

func (f *far) log(ctx context.Context) error {
	n, end, err := f.reach(ctx, "{}")
	if err != nil {
		return err
	}
	defer end()
	began := time.Now()
	c, err := n.open(ctx, "text")
	if err != nil {
		return err
	}
	got, err := io.Copy(io.Discard, c)
	if err != nil || got != textSize {
		return fmt.Errorf("%d bytes of the log came: %w", got, err)
	}
	rate := textSize / mb / time.Since(began).Seconds()
	fmt.Printf("tunnel: down, 50 MB log  %6.2f MB/s, %.1f times the official plugin's 0.7\n", rate, rate/0.7)
	return nil
}

func (f *far) keys(ctx context.Context, long, delay time.Duration) error {
	n, end, err := f.reach(ctx, "{delay: "+delay.String()+"}")
	if err != nil {
		return err
	}
	defer end()
	c, err := n.open(ctx, "echo")
	if err != nil {
		return err
	}
	if err := keystrokes(c, "tunnel: echo", long, delay); err != nil {
		return err
	}
	bulk, err := n.open(ctx, "noise")
	if err != nil {
		return err
	}
	go io.Copy(io.Discard, bulk)
	return keystrokes(c, "  beside a download in it", long, delay)
}
