package clock

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

// speed makes a millisecond outside a second.
const speed = 1000

func TestTimeStandsStillForWhatIsDue(t *testing.T) {
	c := New(speed)
	start := c.Now()
	type moment struct{ begin, end time.Duration }
	seen := make(chan moment, 3)
	for _, d := range []time.Duration{2 * time.Second, time.Second, 2 * time.Second} {
		c.AfterFunc(d, func() {
			begin := c.Now().Sub(start)
			time.Sleep(5 * time.Millisecond)
			seen <- moment{begin, c.Now().Sub(start)}
		})
	}
	for _, want := range []time.Duration{time.Second, 2 * time.Second, 2 * time.Second} {
		// What passed before AfterFunc counts too: some milliseconds outside.
		if got := <-seen; got.begin < want || got.end != got.begin {
			t.Errorf("what was due after %v was begun at %v and done at %v", want, got.begin, got.end)
		}
	}
}

func TestTimeNeverPassesWhatIsDue(t *testing.T) {
	c := New(speed)
	c.Freeze()
	start := c.Now()
	var order []time.Duration
	done := make(chan bool)
	for _, d := range []time.Duration{3 * time.Second, time.Second, 2 * time.Second, time.Second} {
		c.AfterFunc(d, func() {
			if now := c.Now().Sub(start); now != d {
				t.Errorf("what was due after %v was done at %v", d, now)
			}
			if order = append(order, d); len(order) == 4 {
				close(done)
			}
		})
	}
	c.Thaw()
	<-done
	if !slices.IsSorted(order) {
		t.Errorf("done in the order %v", order)
	}
}

// What waits for a later time itself is not waited for.
func TestWhatIsDueMayWait(t *testing.T) {
	c := New(speed)
	done := make(chan error)
	c.AfterFunc(time.Second, func() { done <- c.Sleep(t.Context(), time.Second) })
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAStoppedTimerIsNotDue(t *testing.T) {
	c := New(speed)
	c.Freeze()
	called := make(chan int, 2)
	first := c.AfterFunc(time.Second, func() { called <- 1 })
	second := c.AfterFunc(time.Second, func() { called <- 2 })
	if !first.Stop() || first.Stop() {
		t.Error("Stop reports the wrong thing")
	}
	if err := c.Pass(t.Context(), 2*time.Second); err != nil {
		t.Fatal(err)
	}
	if n := <-called; n != 2 || len(called) != 0 {
		t.Errorf("called %d, and %d more", n, len(called))
	}
	if second.Stop() {
		t.Error("what is over was stopped")
	}
}

func TestTimeWaitsAtItsLimit(t *testing.T) {
	c := New(speed)
	start := c.Now()
	late := make(chan time.Duration, 1)
	c.Until(10 * time.Second)
	limit := c.Now().Sub(start) + 10*time.Second
	c.AfterFunc(time.Minute, func() { late <- c.Now().Sub(start) })
	time.Sleep(50 * time.Millisecond)
	if now := c.Now().Sub(start); now > limit {
		t.Errorf("it is %v, the limit was %v", now, limit)
	}
	c.Free()
	if at := <-late; at < time.Minute {
		t.Errorf("after the limit, what was due after 1m was done at %v", at)
	}
}

func TestPatienceEnds(t *testing.T) {
	c := New(speed)
	c.Until(time.Second)
	began := time.Now()
	if err := c.Sleep(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if waited := time.Since(began); waited < Patience {
		t.Errorf("it waited for %v, want %v at least", waited, Patience)
	}
}

func TestFrozenTimePassesByWhatItIsTold(t *testing.T) {
	c := New(speed)
	c.Freeze()
	c.Until(time.Hour) // is none of frozen time
	start := c.Now()
	for range 3 {
		if err := c.Pass(t.Context(), 7*time.Second); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if now := c.Now().Sub(start); now != 21*time.Second {
		t.Errorf("it is %v, want 21s", now)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if err := c.Sleep(ctx, time.Second); err == nil || err.Error() != "enough" {
		t.Errorf("got %v, want that it is enough", err)
	}
}
