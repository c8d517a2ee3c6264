package lab

import (
	"encoding/json"
	"slices"
	"sync"
	"time"
)

// keptCalls bounds what a lab that runs for days remembers.
const keptCalls = 100_000

// Call is one API call that the lab got.
type Call struct {
	Number    int64     `json:"number"`
	Time      time.Time `json:"time"` // lab time
	Service   string    `json:"service"`
	Operation string    `json:"operation"`
	// Parameters are the input, as JSON.
	Parameters json.RawMessage `json:"parameters,omitempty"`
	// Status is the HTTP status, 0 for an answer that was cut. Code is the
	// error's; empty is success.
	Status    int    `json:"status"`
	Code      string `json:"code,omitempty"`
	UserAgent string `json:"userAgent"`
}

// recorder keeps the last calls.
type recorder struct {
	mu     sync.Mutex
	number int64
	calls  []Call
}

// next is the number of a call that begins.
func (r *recorder) next() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.number++
	return r.number
}

func (r *recorder) add(c Call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.calls) >= keptCalls {
		r.calls = slices.Clone(r.calls[keptCalls/2:])
	}
	r.calls = append(r.calls, c)
}

// Calls are the calls since the start or the last ResetCalls, in the order of their answers.
func (l *Lab) Calls() []Call {
	l.calls.mu.Lock()
	defer l.calls.mu.Unlock()
	return slices.Clone(l.calls.calls)
}

// ResetCalls forgets the calls so far.
func (l *Lab) ResetCalls() {
	l.calls.mu.Lock()
	defer l.calls.mu.Unlock()
	l.calls.calls = nil
}
