// Package ecs is the lab's Amazon ECS: clusters of EC2 container instances,
// task definitions, services and the scheduler that moves their tasks.
//
// A Plane is what the real SDK talks to. Its exported methods that take a
// context and an SDK input are the operations; they check what AWS checks, with
// AWS's texts. Behind them runs the rolling scheduler: it keeps
// minimumHealthyPercent and maximumPercent, places tasks on instances, follows
// them through their states, listens to health checks and load balancers, and
// trips the circuit breaker.
//
// A Plane runs nothing itself: it tells an engine.Engine to launch and stop
// tasks and an elb.Balancer to check targets, and believes what they report.
// All times are lab time.
package ecs

import (
	"math/rand/v2"
	"sync"
	"time"

	"jumpsuite/internal/lab/clock"
	"jumpsuite/internal/lab/elb"
	"jumpsuite/internal/lab/engine"
	"jumpsuite/internal/lab/world"
)

// Config says what a Plane is made of. All fields but Images must be set.
type Config struct {
	World    *world.World
	Clock    *clock.Clock
	Engine   engine.Engine
	Balancer *elb.Balancer
	// Images tells the digests of what runs in the beginning. If nil, they are made up.
	Images engine.Images
}

// Plane is an account's ECS in one region.
type Plane struct {
	world    *world.World
	account  string
	region   string
	clock    *clock.Clock
	engine   engine.Engine
	balancer *elb.Balancer
	images   engine.Images
	outbox   *outbox

	mu      sync.Mutex
	state   *state // what is, now
	rand    *rand.Rand
	seq     int64 // of the last thing made; things are listed in this order
	targets map[targetKey]*task
	groups  map[string]world.LoadBalancer // settings of target groups, by ARN
	lambdas map[string]world.Hook         // what the Lambda functions of hooks say, by ARN
	tokens  map[string]string             // client tokens of CreateService and RunTask, with what they made
	history history
	nextIP  uint32 // of task ENIs
	waiting int    // tasks of the beginning whose containers have not been reported yet
	steady  chan struct{}
	closed  bool
}

// New builds the clusters, task definitions and services of a world, and starts
// its scheduler. Services are steady with all their tasks running, as far as
// there is room for them.
func New(c Config) *Plane {
	p := &Plane{
		world: c.World, clock: c.Clock, engine: c.Engine, balancer: c.Balancer, images: c.Images,
		account: or(c.World.Account, "123456789012"),
		region:  or(c.World.Region, "eu-central-1"),
		outbox:  newOutbox(),
		state:   newState(),
		rand:    rand.New(rand.NewPCG(uint64(c.World.Seed), 0x6563735f6c6162)),
		targets: map[targetKey]*task{},
		groups:  map[string]world.LoadBalancer{},
		lambdas: map[string]world.Hook{},
		tokens:  map[string]string{},
		nextIP:  ipv4("10.0.128.1"),
		steady:  make(chan struct{}),
	}
	p.history.keep = longestStale(c.World)
	p.balancer.Watch(p.targetChanged)
	p.mutate(p.build)
	p.forgetTheVoid()
	return p
}

// Close stops the scheduler. The engine and the balancer are the caller's to close.
func (p *Plane) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.outbox.close()
}

// Steady is closed when the engine has reported the containers of all tasks
// that the world begins with.
func (p *Plane) Steady() <-chan struct{} { return p.steady }

// mutate runs f with the state locked, and remembers what it made of it where
// stale reads are asked for.
func (p *Plane) mutate(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.history.begin(p)
	f()
	p.history.record(p)
}

// after runs f with the state locked when d of lab time has passed.
func (p *Plane) after(d time.Duration, f func()) {
	p.clock.AfterFunc(d, func() { p.mutate(f) })
}

func (p *Plane) now() time.Time { return p.clock.Now() }

func (p *Plane) nextSeq() int64 {
	p.seq++
	return p.seq
}

// outbox runs calls of the engine and the balancer in order, in a goroutine of
// its own: they may call back, and must not meet the plane's lock.
type outbox struct {
	mu     sync.Mutex
	some   *sync.Cond
	calls  []func()
	closed bool
}

func newOutbox() *outbox {
	o := &outbox{}
	o.some = sync.NewCond(&o.mu)
	go o.run()
	return o
}

// send appends a call.
func (o *outbox) send(call func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.calls = append(o.calls, call)
	o.some.Signal()
}

func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.some.Signal()
}

func (o *outbox) run() {
	for {
		calls := o.take()
		if calls == nil {
			return
		}
		for _, call := range calls {
			call()
		}
	}
}

// take waits for calls and returns them, or nil when the outbox is closed.
func (o *outbox) take() []func() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.calls) == 0 && !o.closed {
		o.some.Wait()
	}
	if o.closed {
		return nil
	}
	calls := o.calls
	o.calls = nil
	return calls
}
