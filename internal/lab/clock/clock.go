// Package clock is lab time: it may run faster than the time outside.
//
// It runs evenly for those who live by it, on a busy machine too. It never passes
// what is due: it stands still until that is done. And it can be made to wait for
// somebody who looks from outside (Until), so that he sees no more happen between two
// looks than on a machine that has time for him.
package clock

import (
	"cmp"
	"container/heap"
	"context"
	"sync"
	"time"
)

const (
	// attention is how long time stands still for one function that is due, outside: one
	// that takes longer waits for something itself.
	attention = 20 * time.Millisecond
	// Patience is how long time waits for somebody, outside.
	Patience = time.Second
)

// Clock is a source of lab time. Its zero value runs at the speed of the time
// outside.
type Clock struct {
	speed float64
	ahead time.Duration
	once  sync.Once
	start time.Time

	mu      sync.Mutex
	passed  time.Duration // lab time since the start, at mark
	mark    time.Time     // outside
	due     queue
	timers  int         // how many there have been
	alarm   *time.Timer // outside, for the first of due
	doing   int         // functions that time stands still for
	limit   time.Duration
	limited *time.Timer // outside, the end of the patience; nil: no limit of Until's
	frozen  bool        // time does not go past limit until Thaw
}

// New returns a clock on which speed seconds pass in each second outside.
func New(speed float64) *Clock { return &Clock{speed: speed} }

// Off returns one that is ahead of the clock outside in the beginning too, or behind.
func Off(speed float64, ahead time.Duration) *Clock { return &Clock{speed: speed, ahead: ahead} }

func (c *Clock) begin() {
	c.once.Do(func() {
		c.mark = time.Now()
		c.start = c.mark.Add(c.ahead)
		if c.speed <= 0 {
			c.speed = 1
		}
		c.alarm = time.AfterFunc(time.Hour, c.ring)
		c.alarm.Stop()
	})
}

// Now is lab time.
func (c *Clock) Now() time.Time {
	c.begin()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	return c.start.Add(c.passed).UTC()
}

// Outside is how long d of lab time takes outside, if nothing holds it up.
func (c *Clock) Outside(d time.Duration) time.Duration {
	c.begin()
	return time.Duration(float64(d) / c.speed)
}

// AfterFunc calls f, in its own goroutine, when d of lab time has passed.
func (c *Clock) AfterFunc(d time.Duration, f func()) *Timer {
	c.begin()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	return c.after(d, f)
}

// after is AfterFunc where time is settled.
func (c *Clock) after(d time.Duration, f func()) *Timer {
	c.timers++
	t := &Timer{clock: c, at: c.passed + max(d, 0), number: c.timers, f: f}
	heap.Push(&c.due, t)
	c.arm()
	return t
}

// Sleep waits for d of lab time, or until ctx ends.
func (c *Clock) Sleep(ctx context.Context, d time.Duration) error {
	over := make(chan struct{})
	return c.AfterFunc(d, func() { close(over) }).wait(ctx, over)
}

// Pass is Sleep, but that frozen time passes too.
func (c *Clock) Pass(ctx context.Context, d time.Duration) error {
	over := make(chan struct{})
	c.begin()
	c.mu.Lock()
	c.settle()
	if c.frozen {
		c.limit = c.passed + d
	}
	t := c.after(d, func() { close(over) })
	c.mu.Unlock()
	return t.wait(ctx, over)
}

// wait waits until t is over, or ctx ends.
func (t *Timer) wait(ctx context.Context, over <-chan struct{}) error {
	defer t.Stop()
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Until lets no more than d of lab time pass until Until is called again, or Free.
// Time that has come to its limit stands still for Patience outside, and then goes on.
func (c *Clock) Until(d time.Duration) {
	wait := c.Outside(d) + Patience
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.frozen {
		return
	}
	c.settle()
	c.limit = c.passed + d
	if c.limited != nil {
		c.limited.Stop()
	}
	var mine *time.Timer
	mine = time.AfterFunc(wait, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.limited == mine {
			c.free()
		}
	})
	c.limited = mine
	c.arm()
}

// Free takes the limit of Until back.
func (c *Clock) Free() {
	c.begin()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.free()
}

func (c *Clock) free() {
	if c.limited == nil {
		return
	}
	c.settle()
	c.limited.Stop()
	c.limited = nil
	c.arm()
}

// Freeze lets time stand still until Thaw, but for what Pass lets pass.
func (c *Clock) Freeze() {
	c.begin()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.free()
	c.settle()
	c.frozen, c.limit = true, c.passed
	c.arm()
}

// Thaw ends Freeze.
func (c *Clock) Thaw() {
	c.begin()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	c.frozen = false
	c.arm()
}

// bounded reports whether time does not go past limit.
func (c *Clock) bounded() bool { return c.frozen || c.limited != nil }

// settle brings passed up to now.
func (c *Clock) settle() {
	now := time.Now()
	p := c.passed
	if c.doing == 0 {
		p += time.Duration(float64(now.Sub(c.mark)) * c.speed)
	}
	if len(c.due) > 0 {
		p = min(p, c.due[0].at)
	}
	if c.bounded() {
		p = min(p, c.limit)
	}
	c.passed, c.mark = max(c.passed, p), now
}

// arm sets the alarm for what is due first. Time is settled.
func (c *Clock) arm() {
	c.alarm.Stop()
	if c.doing > 0 || len(c.due) == 0 || c.bounded() && c.due[0].at > c.limit {
		return
	}
	c.alarm.Reset(c.Outside(c.due[0].at-c.passed) + 1)
}

// ring does what is due.
func (c *Clock) ring() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	for c.doing == 0 && len(c.due) > 0 && c.due[0].at <= c.passed {
		c.doing++
		go c.do(heap.Pop(&c.due).(*Timer).f)
	}
	c.arm()
}

// do calls f. Time stands still until it returns, or for as long as it gets attention.
func (c *Clock) do(f func()) {
	var once sync.Once
	done := func() {
		once.Do(func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.settle()
			c.doing--
			c.arm()
		})
	}
	late := time.AfterFunc(attention, done)
	defer late.Stop()
	defer done()
	f()
}

// Timer is a function that is to be called.
type Timer struct {
	clock  *Clock
	at     time.Duration // lab time since the start
	number int           // of two at the same time the older comes first
	f      func()
	index  int // in the queue; -1: it is not there any more
}

// Stop keeps the function from being called, and reports whether it did.
func (t *Timer) Stop() bool {
	c := t.clock
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.index < 0 {
		return false
	}
	c.settle()
	heap.Remove(&c.due, t.index)
	c.arm()
	return true
}

// queue is a heap of timers, the first to come on top.
type queue []*Timer

func (q queue) Len() int { return len(q) }

func (q queue) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(q[i].at, q[j].at), cmp.Compare(q[i].number, q[j].number)) < 0
}

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *queue) Push(x any) {
	t := x.(*Timer)
	t.index = len(*q)
	*q = append(*q, t)
}

func (q *queue) Pop() any {
	old := *q
	t := old[len(old)-1]
	t.index = -1
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return t
}
