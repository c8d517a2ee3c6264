package main

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"jumpsuite/internal/caller"
)

// Whoever connects very often makes us start no more than a few processes, and
// keeps nobody else out.
func TestACrowdAtTheDoorIsBounded(t *testing.T) {
	var asks, most atomic.Int32
	hold := make(chan struct{})
	theirs := 1001
	d := newDoor()
	d.uid = func(net.Conn) (int, error) { return theirs, nil }
	d.ofUID = func(_ context.Context, uid int) (*caller.Caller, error) {
		if uid == theirs {
			most.Store(max(most.Load(), asks.Add(1)))
			defer asks.Add(-1)
			<-hold
		}
		return &caller.Caller{UID: uid, Name: "dev"}, nil
	}
	const crowd = 2 * waiting
	var all, refused sync.WaitGroup
	refused.Add(crowd - waiting)
	for range crowd {
		all.Go(func() {
			if _, err := d.identify(t.Context(), nil); errors.Is(err, errCrowd) {
				refused.Done()
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	refused.Wait()
	if leave, err := d.enter(t.Context(), 1002); err != nil {
		t.Errorf("another user: %v", err)
	} else {
		leave()
	}
	close(hold)
	all.Wait()
	if n := most.Load(); n > asking {
		t.Errorf("%d asked the user database at a time, want at most %d", n, asking)
	}
	if len(d.queues) != 0 {
		t.Errorf("%d queues are left", len(d.queues))
	}
}
