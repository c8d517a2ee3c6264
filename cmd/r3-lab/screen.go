package main

import (
	"io"
	"strings"
	"sync"
	"time"
)

// screen shows what a command prints and keeps it, to be looked at.
type screen struct {
	to io.Writer

	mu   sync.Mutex
	seen strings.Builder
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	s.seen.Write(b)
	s.mu.Unlock()
	return s.to.Write(b)
}

// text is what was printed, with a terminal's ends of lines made plain.
func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.ReplaceAll(s.seen.String(), "\r\n", "\n")
}

// waitFor waits for a text, and reports whether it came.
func (s *screen) waitFor(text string, d time.Duration) bool {
	over := time.After(d)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(s.text(), text) {
		select {
		case <-over:
			return false
		case <-tick.C:
		}
	}
	return true
}
