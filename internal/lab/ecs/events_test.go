package ecs

import (
	"fmt"
	"testing"
	"time"

	"jumpsuite/internal/lab/world"
)

func TestAServiceShowsItsLastHundredEvents(t *testing.T) {
	r := newRig(t, small)
	r.mutate(func() {
		s := r.state.clusters[0].services[0]
		for n := range 150 {
			r.tell(s, fmt.Sprintf("number %d", n))
		}
	})
	events := r.service("web").Events
	if len(events) != 100 || *events[0].Message != "(service web) number 149" {
		t.Fatalf("%d events, the newest is %q", len(events), *events[0].Message)
	}
	for i := 1; i < len(events); i++ {
		if !events[i-1].CreatedAt.After(*events[i].CreatedAt) {
			t.Fatalf("event %d is not newer than the next", i-1)
		}
	}
}

func TestAnEventIsNotRepeatedWhileItsCauseLasts(t *testing.T) {
	w, err := world.Parse([]byte(small), "world")
	if err != nil {
		t.Fatal(err)
	}
	w.Clock.Speed = 100_000
	r := rigOf(t, w)
	tell := func() {
		r.mutate(func() { r.condition(r.state.clusters[0].services[0], "key", "was unable to do it.") })
	}
	count := func() int { return countEvents(r.service("web").Events, "was unable to do it.") }
	start := r.now()
	tell()
	tell()
	if n := count(); n != 1 && r.now().Sub(start) < repeat {
		t.Errorf("told %d times", n)
	}
	r.until("six hours to pass", func() bool { return r.now().Sub(start) > repeat+time.Minute })
	before := count()
	tell()
	if count() != before+1 {
		t.Error("not repeated after six hours")
	}
	r.mutate(func() { r.state.clusters[0].services[0].over("key") })
	before = count()
	tell()
	if count() != before+1 {
		t.Error("not told again after its cause had gone")
	}
}
