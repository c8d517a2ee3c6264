package lab

import (
	"net/http"
	"strings"
	"sync"
	"time"

	"jumpsuite/internal/lab/wire"
	"jumpsuite/internal/lab/world"
)

// faults are the faults of a lab, with how many calls each has met.
type faults struct {
	mu        sync.Mutex
	list      []*fault
	intercept func(operation string) bool
}

type fault struct {
	world.Fault
	met int
}

func (f *faults) add(more ...world.Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range more {
		f.list = append(f.list, &fault{Fault: m})
	}
}

func (f *faults) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = nil
}

// AddFault makes calls go wrong from now on.
func (l *Lab) AddFault(f world.Fault) {
	l.ECS.KeepHistory(time.Duration(f.Stale))
	l.faults.add(f)
}

// ClearFaults ends all faults.
func (l *Lab) ClearFaults() { l.faults.clear() }

// Intercept has f asked about each call before it is answered. Where f says so, the
// call does not take place, and its connection is closed. Nil ends it.
func (l *Lab) Intercept(f func(operation string) bool) {
	l.faults.mu.Lock()
	defer l.faults.mu.Unlock()
	l.faults.intercept = f
}

func (f *faults) intercepts(operation string) bool {
	f.mu.Lock()
	intercept := f.intercept
	f.mu.Unlock()
	return intercept != nil && intercept(operation)
}

// verdict is what the faults do to one call.
type verdict struct {
	err     string // as world.Fault.Error
	after   bool
	latency time.Duration
	stale   time.Duration
}

// meet counts a call of an operation and returns what happens to it: of
// several faults the first error counts, latencies add up, and the oldest state is answered.
func (f *faults) meet(operation string) verdict {
	f.mu.Lock()
	defer f.mu.Unlock()
	var v verdict
	for _, one := range f.list {
		if !one.Affects(operation) || !one.hit() {
			continue
		}
		v.latency += time.Duration(one.Latency)
		v.stale = max(v.stale, time.Duration(one.Stale))
		if v.err == "" && one.Error != "" {
			v.err, v.after = one.Error, one.After
		}
	}
	return v
}

// hit counts a call, and reports whether it is one that the fault affects.
func (f *fault) hit() bool {
	f.met++
	return f.met > f.Skip && (f.Times == 0 || f.met <= f.Skip+f.Times)
}

// failure is the answer to a call that a fault lets fail; nil for none.
func (v verdict) failure(q *wire.Request) error {
	switch v.err {
	case "throttle":
		return q.Throttled()
	case "denied":
		return q.Refusal("User is not authorized to perform: " + q.Service.Name + ":" + q.Operation)
	case "concurrent":
		return &wire.Error{Status: http.StatusBadRequest, Code: "ClientException", Message: "Too many concurrent attempts to create a new revision of the specified family."}
	case "cut":
		return errCut
	case "server":
		return &wire.Error{Status: http.StatusInternalServerError, Code: serverCode(q), Message: "Service Unavailable. Please try again later."}
	case "unavailable":
		return &wire.Error{Status: http.StatusServiceUnavailable, Code: "ServiceUnavailable", Message: "Service Unavailable. Please try again later."}
	}
	return nil
}

func serverCode(q *wire.Request) string {
	if q.Service.Query() {
		return "InternalFailure"
	}
	return "ServerException"
}

// isRead reports whether an operation only reads, so that it can be answered
// with a state that is not the newest.
func isRead(operation string) bool {
	return strings.HasPrefix(operation, "Describe") || strings.HasPrefix(operation, "List")
}
