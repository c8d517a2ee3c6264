package main

import (
	"context"
	"errors"
	"net"
	"sync"

	"jumpsuite/dockerproxy"
	"jumpsuite/internal/caller"
	"jumpsuite/policy"
)

// To ask the user database takes three processes, which a caller makes us start
// by connecting alone.
const (
	asking  = 4   // how many ask at a time, for one uid
	waiting = 256 // how many may wait for that, with those who ask
)

// door finds out who connects.
type door struct {
	uid   func(net.Conn) (int, error)
	ofUID func(context.Context, int) (*caller.Caller, error)

	mu     sync.Mutex
	queues map[int]*queue // by uid
}

// queue is of the connections of one uid that are not identified yet.
type queue struct {
	n     int
	slots chan struct{}
}

func newDoor() *door {
	return &door{uid: dockerproxy.PeerUID, ofUID: caller.OfUID, queues: map[int]*queue{}}
}

var errCrowd = errors.New("too many of your connections are waiting to be identified")

// identify resolves who connected, as the user database has them.
func (d *door) identify(ctx context.Context, conn net.Conn) (dockerproxy.Caller, error) {
	uid, err := d.uid(conn)
	if err != nil {
		return dockerproxy.Caller{}, err
	}
	leave, err := d.enter(ctx, uid)
	if err != nil {
		return dockerproxy.Caller{}, err
	}
	defer leave()
	c, err := d.ofUID(ctx, uid)
	if err != nil {
		return dockerproxy.Caller{}, err
	}
	return dockerproxy.Caller{UID: uid, Principal: policy.Principal{User: c.Name, Groups: c.Groups}}, nil
}

// enter waits for a place among those who ask.
func (d *door) enter(ctx context.Context, uid int) (leave func(), err error) {
	q := d.join(uid)
	if q == nil {
		return nil, errCrowd
	}
	select {
	case q.slots <- struct{}{}:
	case <-ctx.Done():
		d.leave(uid, q)
		return nil, context.Cause(ctx)
	}
	return func() {
		<-q.slots
		d.leave(uid, q)
	}, nil
}

func (d *door) join(uid int) *queue {
	d.mu.Lock()
	defer d.mu.Unlock()
	q := d.queues[uid]
	if q == nil {
		q = &queue{slots: make(chan struct{}, asking)}
		d.queues[uid] = q
	}
	if q.n == waiting {
		return nil
	}
	q.n++
	return q
}

func (d *door) leave(uid int, q *queue) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if q.n--; q.n == 0 {
		delete(d.queues, uid)
	}
}
