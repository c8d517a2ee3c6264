package session

import (
	"sync"
	"time"
)

// deadline is when waiting on a condition is no longer worth it.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

// set changes the deadline and makes those who wait look at it; c.L must be held.
func (d *deadline) set(at time.Time, c *sync.Cond) {
	if d.timer != nil {
		d.timer.Stop()
	}
	d.at, d.timer = at, nil
	if !at.IsZero() {
		d.timer = time.AfterFunc(time.Until(at), func() {
			c.L.Lock()
			defer c.L.Unlock()
			c.Broadcast()
		})
	}
	c.Broadcast()
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

// SetDeadline sets both deadlines.
func (s *Session) SetDeadline(t time.Time) error {
	if err := s.SetReadDeadline(t); err != nil {
		return err
	}
	return s.SetWriteDeadline(t)
}

// SetReadDeadline sets when Read gives up; zero is never.
func (s *Session) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readDeadline.set(t, &s.readable)
	return nil
}

// SetWriteDeadline sets when Write gives up waiting for room; zero is never.
func (s *Session) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writeDeadline.set(t, &s.writable)
	return nil
}
