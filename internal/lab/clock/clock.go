// Package clock is lab time: it may run faster than the time outside.
package clock

import (
	"context"
	"sync"
	"time"
)

// Clock is a source of lab time. Its zero value runs at the speed of the time
// outside.
type Clock struct {
	speed float64
	once  sync.Once
	start time.Time
}

// New returns a clock on which speed seconds pass in each second outside.
func New(speed float64) *Clock { return &Clock{speed: speed} }

func (c *Clock) begin() {
	c.once.Do(func() {
		c.start = time.Now()
		if c.speed <= 0 {
			c.speed = 1
		}
	})
}

// Now is lab time.
func (c *Clock) Now() time.Time {
	c.begin()
	return c.start.Add(time.Duration(float64(time.Since(c.start)) * c.speed)).UTC()
}

// Outside is how long d of lab time takes outside.
func (c *Clock) Outside(d time.Duration) time.Duration {
	c.begin()
	return time.Duration(float64(d) / c.speed)
}

// AfterFunc calls f, in its own goroutine, when d of lab time has passed.
func (c *Clock) AfterFunc(d time.Duration, f func()) *time.Timer {
	return time.AfterFunc(c.Outside(d), f)
}

// Sleep waits for d of lab time, or until ctx ends.
func (c *Clock) Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(c.Outside(d))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
