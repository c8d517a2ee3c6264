package ecrlogin

import (
	"context"
	"sync"
	"time"
)

// fetchTimeout is how long AWS may take to give a login. It is less than what
// an Asker waits, so that the reason gets through.
const fetchTimeout = 25 * time.Second

// early is the part of its life before whose end a login is renewed: of 12
// hours the last half hour. A pull that begins with it can end with it.
const early = 24

// Fetch gets a login from AWS, and how long it is good for.
type Fetch func(context.Context, Registry) (l Login, life time.Duration, err error)

// Cache keeps logins, in memory only, until shortly before they end. Whoever
// wants the same one at the same time shares one call to AWS.
type Cache struct {
	Fetch Fetch
	// Now is the time. Nil: time.Now.
	Now func() time.Time

	mu   sync.Mutex
	kept map[Registry]kept
	open map[Registry]*call
}

// kept is a login, when to renew it, and when it ends.
type kept struct {
	login       Login
	renew, ends time.Time
}

// call is a Fetch that is under way. Err is set when done is closed.
type call struct {
	done chan struct{}
	err  error
}

// Login is the login for a registry. When it cannot be renewed, the former one
// is good for as long as it lasts.
func (c *Cache) Login(ctx context.Context, r Registry) (Login, error) {
	k, pending := c.look(ctx, r)
	if pending == nil {
		return k.login, nil
	}
	select {
	case <-pending.done:
	case <-ctx.Done():
		return Login{}, context.Cause(ctx)
	}
	c.mu.Lock()
	k = c.kept[r]
	c.mu.Unlock()
	if pending.err != nil && !c.now().Before(k.ends) {
		return Login{}, pending.err
	}
	return k.login, nil
}

// look returns what is kept, or else the call to wait for.
func (c *Cache) look(ctx context.Context, r Registry) (kept, *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.kept[r]; c.now().Before(k.renew) {
		return k, nil
	}
	if pending := c.open[r]; pending != nil {
		return kept{}, pending
	}
	if c.open == nil {
		c.open, c.kept = map[Registry]*call{}, map[Registry]kept{}
	}
	pending := &call{done: make(chan struct{})}
	c.open[r] = pending
	// It is for all who wait, not only for the one who came first.
	go c.fetch(context.WithoutCancel(ctx), r, pending)
	return kept{}, pending
}

func (c *Cache) fetch(ctx context.Context, r Registry, pending *call) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	began := c.now()
	l, life, err := c.Fetch(ctx, r)
	c.mu.Lock()
	defer c.mu.Unlock()
	defer close(pending.done)
	delete(c.open, r)
	pending.err = err
	if err == nil {
		c.kept[r] = kept{login: l, renew: began.Add(life - life/early), ends: began.Add(life)}
	}
}

func (c *Cache) now() time.Time {
	if c.Now == nil {
		return time.Now()
	}
	return c.Now()
}
