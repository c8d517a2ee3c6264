// Package together asks many for the same thing at the same time, and waits for
// those who are slow for as long as the others make it seem reasonable: one that
// hangs is to hold nobody up.
package together

import (
	"context"
	"fmt"
	"time"
)

// Patience is how long is waited. The zero value waits for ever.
type Patience struct {
	// Most is how long one may take at most. Zero: for ever.
	Most time.Duration
	// Least is how long each may take, however quick the others are: who is asked for
	// the first time has a way to be made ready. Times is how many times as long as
	// the middle one of those that have answered. Both count once half of all have
	// said something, and one of them an answer. Zero: Most alone counts.
	Least time.Duration
	Times int
}

// LateError is one that did not answer in time.
type LateError struct {
	After  time.Duration // as long it was waited for
	Others bool          // because the others have answered
}

func (e *LateError) Error() string {
	text := fmt.Sprintf("no answer within %s", e.After.Round(100*time.Millisecond))
	if e.Others {
		text += ", when others had long answered"
	}
	return text
}

// Ask calls do for each number from 0 to n-1, at the same time, and returns what
// they returned. What is late is told by the end of its context, whose cause is a
// *LateError, and has that for its error; what it still returns is dropped.
func Ask[T any](ctx context.Context, n int, p Patience, do func(ctx context.Context, i int) (T, error)) ([]T, []error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	type said struct {
		i      int
		answer T
		err    error
	}
	heard := make(chan said, n)
	for i := range n {
		go func() {
			answer, err := do(ctx, i)
			heard <- said{i, answer, err}
		}()
	}
	answers, errs := make([]T, n), make([]error, n)
	open := make([]bool, n) // still to come
	for i := range open {
		open[i] = true
	}
	w := newWatch(n, p)
	defer w.timer.Stop()
	for range n {
		select {
		case s := <-heard:
			answers[s.i], errs[s.i], open[s.i] = s.answer, s.err, false
			w.heard(s.err == nil)
			continue
		case <-ctx.Done():
		case <-w.timer.C:
			cancel(w.late)
		}
		for i := range open {
			if open[i] {
				errs[i] = context.Cause(ctx)
			}
		}
		break
	}
	return answers, errs
}

// watch is the time that is left.
type watch struct {
	p     Patience
	all   int
	began time.Time
	timer *time.Timer
	late  *LateError
	said  int             // by how many
	took  []time.Duration // of those that answered
}

// never is longer than anybody waits.
const never = 1000 * time.Hour

func newWatch(n int, p Patience) *watch {
	if p.Most == 0 {
		p.Most = never
	}
	return &watch{p: p, all: n, began: time.Now(), timer: time.NewTimer(p.Most), late: &LateError{After: p.Most}}
}

// heard notes that one more has said something, and whether it was an answer.
func (w *watch) heard(answer bool) {
	w.said++
	if answer {
		w.took = append(w.took, time.Since(w.began))
	}
	if w.p.Times == 0 || 2*w.said < w.all || len(w.took) == 0 {
		return
	}
	// They come in the order of how long they took.
	middle := w.took[len(w.took)/2]
	reasonable := min(max(w.p.Least, time.Duration(w.p.Times)*middle), w.p.Most)
	w.late = &LateError{After: reasonable, Others: reasonable < w.p.Most}
	w.timer.Reset(time.Until(w.began.Add(reasonable)))
}
