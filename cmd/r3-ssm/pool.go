package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"jumpsuite/internal/carrier"
	"jumpsuite/internal/tunnel"
)

// starts is how many sessions may be started at a time: a table of all hosts
// starts one to each, and AWS counts the calls of the whole account.
const starts = 32

// way is where a session leads.
type way struct {
	place carrier.Place
	host  string // instance id
}

// pool keeps the sessions to hosts, one for each way, for as long as they are
// used and a little longer.
type pool struct {
	// open starts a session and waits until the host's gate has answered.
	open func(context.Context, way) (*tunnel.Carrier, error)
	idle time.Duration // how long a session without streams is kept
	log  *slog.Logger

	starting chan struct{} // has room for those that may be started at a time
	down     chan struct{} // closed when all sessions have to end

	mu   sync.Mutex
	ways map[way]*kept
	all  sync.WaitGroup
}

func newPool(open func(context.Context, way) (*tunnel.Carrier, error), idle time.Duration, log *slog.Logger) *pool {
	return &pool{open: open, idle: idle, log: log, starting: make(chan struct{}, starts), down: make(chan struct{}), ways: map[way]*kept{}}
}

// kept is a session that is there, or on its way.
type kept struct {
	ready   chan struct{} // closed when it is there, or cannot be had
	carrier *tunnel.Carrier
	err     error
	give    context.CancelFunc // gives up what is on its way
	users   int                // who waits for it, or is opening a stream
	last    time.Time          // when it was used
}

// dial opens a stream to a host. Who asks for the same way at the same time
// shares its session.
func (p *pool) dial(ctx context.Context, w way) (net.Conn, error) {
	for again := true; ; again = false {
		k := p.join(w)
		conn, err := k.dial(ctx)
		p.leave(w, k, errors.Is(err, tunnel.ErrLeaving) || k.over())
		if errors.Is(err, tunnel.ErrFull) {
			again = true // others were faster; there is a new one for some of them
			continue
		}
		if err != nil && again && k.wasThere() && ctx.Err() == nil {
			continue // it ended before anybody had noticed; a new one may do
		}
		return conn, err
	}
}

func (k *kept) dial(ctx context.Context) (net.Conn, error) {
	select {
	case <-k.ready:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if k.err != nil {
		return nil, k.err
	}
	return k.carrier.Open(ctx)
}

// wasThere reports whether there was a session.
func (k *kept) wasThere() bool {
	select {
	case <-k.ready:
		return k.err == nil
	default:
		return false
	}
}

// over reports whether no new stream can be had from it.
func (k *kept) over() bool {
	select {
	case <-k.ready:
	default:
		return false
	}
	if k.err != nil {
		return true
	}
	select {
	case <-k.carrier.Done():
	case <-k.carrier.Leaving():
	default:
		return false
	}
	return true
}

// full reports whether the session has all the streams that it can have.
func (k *kept) full() bool { return k.wasThere() && k.carrier.Full() }

// join finds the session of a way, or begins one. One that is full goes on beside
// it, until its streams have ended.
func (p *pool) join(w way) *kept {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.ways[w]
	if k == nil || k.over() || k.full() {
		ctx, cancel := context.WithCancel(context.Background())
		k = &kept{ready: make(chan struct{}), give: cancel}
		p.ways[w] = k
		p.all.Go(func() { p.keep(ctx, w, k) })
	}
	k.users++
	return k
}

// leave ends what join began. What nobody waits for any more is given up; what
// takes no streams any more is forgotten, and ends with those that it has.
func (p *pool) leave(w way, k *kept, over bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k.users--
	k.last = time.Now()
	if over && p.ways[w] == k {
		delete(p.ways, w)
	}
	select {
	case <-k.ready:
	default:
		if k.users == 0 {
			delete(p.ways, w)
			k.give()
		}
	}
}

// keep starts a session and ends it when it has not been used for a while.
func (p *pool) keep(ctx context.Context, w way, k *kept) {
	defer k.give()
	go func() {
		select {
		case <-p.down:
			k.give()
		case <-ctx.Done():
		}
	}()
	k.carrier, k.err = p.start(ctx, w)
	close(k.ready)
	if k.err != nil {
		p.forget(w, k)
		return
	}
	p.log.Info("session", "host", w.host, "cluster", w.place.Cluster)
	tick := time.NewTicker(max(p.idle/8, 5*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
		case <-k.carrier.Done():
		case <-tick.C:
			if !p.unused(w, k) {
				continue
			}
		}
		p.forget(w, k)
		k.carrier.Close()
		p.log.Info("session ended", "host", w.host, "cluster", w.place.Cluster, "why", k.carrier.Err())
		return
	}
}

func (p *pool) start(ctx context.Context, w way) (*tunnel.Carrier, error) {
	select {
	case p.starting <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-p.starting }()
	return p.open(ctx, w)
}

// unused reports whether a session has no streams and has had none for long. It
// is forgotten at the same moment, so that nobody joins it any more.
func (p *pool) unused(w way, k *kept) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k.carrier.Streams() > 0 || k.users > 0 {
		k.last = time.Now()
		return false
	}
	gone := p.ways[w] != k // it takes no streams any more, and has none
	if !gone && time.Since(k.last) < p.idle {
		return false
	}
	if !gone {
		delete(p.ways, w)
	}
	return true
}

func (p *pool) forget(w way, k *kept) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ways[w] == k {
		delete(p.ways, w)
	}
}

// close ends all sessions, and waits until AWS has been told.
func (p *pool) close() {
	close(p.down)
	p.all.Wait()
}
