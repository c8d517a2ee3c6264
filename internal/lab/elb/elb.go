// Package elb is the lab's load balancer: one Application Load Balancer with a
// target group for each that a world's services use. It checks the targets'
// health on the lab's clock and answers the ELBv2 API about it.
//
// The states and reasons of a target, and the texts with them, are AWS's: a
// target is initial until its first good check, or until as many bad ones as
// the group's threshold make it unhealthy; a deregistered one is draining for
// the group's delay, whether it has connections or not, and then unused. A healthy target has no reason.
//
// No byte of a customer's goes through this balancer; only health checks do.
package elb

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"jumpsuite/internal/lab/clock"
	"jumpsuite/internal/lab/world"
)

// The states of a target (ELBv2 API, TargetHealthStateEnum).
const (
	Initial   = "initial"
	Healthy   = "healthy"
	Unhealthy = "unhealthy"
	Draining  = "draining"
	Unused    = "unused"
)

// registration is how long a new target is RegistrationInProgress, in lab time,
// before its first check.
const registration = 2 * time.Second

// patience is the least time, outside, that a check may take: when lab time
// runs fast, the group's time-out would be shorter than a real connection needs.
const patience = 2 * time.Second

// memory is how long a change of state is kept for stale reads, in lab time.
const memory = 10 * time.Minute

// Target is what a target group sends requests to: an instance or an address,
// and a port.
type Target struct {
	ID   string // instance id or IP address, as the group's type says
	Port int
}

// Check makes one health check and returns the HTTP status; an error is no answer.
type Check func(ctx context.Context) (status int, err error)

// Group is a target group.
type Group struct {
	Name string
	Type string // instance or ip; empty means instance
	// Port is the port of targets that are registered without one; zero means 80.
	Port int
	// Settings are the health check and the deregistration delay.
	Settings world.LoadBalancer
}

// Config is what a balancer is made from.
type Config struct {
	Clock   *clock.Clock
	Account string // 12 digits
	Region  string
}

// Balancer is a load balancer and its target groups.
type Balancer struct {
	config  Config
	created time.Time
	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup
	news    news

	mu     sync.Mutex
	groups []*group
}

// New starts a balancer without groups. Close ends it.
func New(c Config) *Balancer {
	b := &Balancer{config: c, created: c.Clock.Now()}
	b.ctx, b.stop = context.WithCancel(context.Background())
	b.news.wake = make(chan struct{}, 1)
	b.running.Add(1)
	go b.tell()
	return b
}

// Close ends all checks, and returns when none runs any more.
func (b *Balancer) Close() {
	b.stop()
	b.running.Wait()
}

type group struct {
	Group
	arn     string
	targets []*target
}

// target is a target that is registered, or was within memory.
type target struct {
	Target
	check   Check
	cancel  context.CancelFunc // of its checks
	history []Status
}

// Status is a target's state since a time.
type Status struct {
	State, Reason, Description string

	at time.Time
}

func unused() Status {
	return Status{State: Unused, Reason: "Target.NotRegistered", Description: "Target is not registered to the target group"}
}

// AddGroup makes a target group and returns its ARN. A second group of the
// same name is the first one.
func (b *Balancer) AddGroup(g Group) (arn string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, have := range b.groups {
		if have.Name == g.Name {
			return have.arn
		}
	}
	if g.Type == "" {
		g.Type = "instance"
	}
	if g.Port == 0 {
		g.Port = 80
	}
	g.Settings.Complete()
	made := &group{Group: g, arn: b.arn("targetgroup/" + g.Name + "/" + suffix(g.Name))}
	b.groups = append(b.groups, made)
	return made.arn
}

func (b *Balancer) arn(resource string) string {
	return "arn:aws:elasticloadbalancing:" + b.config.Region + ":" + b.config.Account + ":" + resource
}

// suffix is the 16 hexadecimal digits that AWS puts after a name.
func suffix(name string) string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(name)))[:16]
}

// HasGroup reports whether there is a target group with that ARN.
func (b *Balancer) HasGroup(arn string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.group(arn) != nil
}

// group finds a group; nil is none. The caller holds the lock.
func (b *Balancer) group(arn string) *group {
	i := slices.IndexFunc(b.groups, func(g *group) bool { return g.arn == arn })
	if i < 0 {
		return nil
	}
	return b.groups[i]
}

func (g *group) find(t Target) *target {
	i := slices.IndexFunc(g.targets, func(have *target) bool { return have.Target == t })
	if i < 0 {
		return nil
	}
	return g.targets[i]
}

// Register adds a target to a group and begins to check it. With a nil check
// nothing answers there. One that is draining starts anew; one that is
// registered keeps its state. An unknown group is ignored.
func (b *Balancer) Register(arn string, t Target, check func(ctx context.Context) (status int, err error)) {
	if check == nil {
		check = func(context.Context) (int, error) { return 0, errors.New("nothing listens there") }
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	g := b.group(arn)
	if g == nil || b.ctx.Err() != nil {
		return
	}
	have := g.find(t)
	if have == nil {
		have = &target{Target: t}
		g.targets = append(g.targets, have)
	} else if s := have.now().State; s != Draining && s != Unused {
		have.check = check
		return
	}
	have.check = check
	b.change(g, have, Status{State: Initial, Reason: "Elb.RegistrationInProgress", Description: "Target registration is in progress"})
	b.start(have, func(ctx context.Context) { b.watchHealth(ctx, g, have) })
}

// Deregister lets a target drain for the group's delay; then it is gone. An
// unknown group or target is ignored.
func (b *Balancer) Deregister(arn string, t Target) {
	b.mu.Lock()
	defer b.mu.Unlock()
	g := b.group(arn)
	if g == nil {
		return
	}
	have := g.find(t)
	if have == nil || have.now().State == Draining || have.now().State == Unused {
		return
	}
	b.change(g, have, Status{State: Draining, Reason: "Target.DeregistrationInProgress", Description: "Target deregistration is in progress"})
	b.start(have, func(ctx context.Context) { b.drain(ctx, g, have) })
}

// start runs f as the only thing that is going on with a target. The caller
// holds the lock.
func (b *Balancer) start(t *target, f func(context.Context)) {
	if t.cancel != nil {
		t.cancel()
	}
	ctx, cancel := context.WithCancel(b.ctx)
	t.cancel = cancel
	b.running.Add(1)
	go func() {
		defer b.running.Done()
		defer cancel()
		f(ctx)
	}()
}

func (b *Balancer) drain(ctx context.Context, g *group, t *target) {
	if b.config.Clock.Sleep(ctx, time.Duration(*g.Settings.Delay)) != nil {
		return
	}
	b.set(ctx, g, t, unused())
}

// set changes a target's state, unless something else has begun with it.
func (b *Balancer) set(ctx context.Context, g *group, t *target, s Status) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if ctx.Err() == nil {
		b.change(g, t, s)
	}
}

// change records a target's new state. The caller holds the lock.
func (b *Balancer) change(g *group, t *target, s Status) {
	s.at = b.config.Clock.Now()
	t.history = append(trim(t.history, s.at.Add(-memory)), s)
	b.news.add(change{g.arn, t.Target, s})
	g.targets = slices.DeleteFunc(g.targets, func(old *target) bool {
		return old != t && old.now().State == Unused && old.now().at.Before(s.at.Add(-memory))
	})
}

// trim drops what was over before a time.
func trim(history []Status, before time.Time) []Status {
	for len(history) > 1 && history[1].at.Before(before) {
		history = history[1:]
	}
	return history
}

func (t *target) now() Status { return t.history[len(t.history)-1] }

// at is a target's state at a time.
func (t *target) at(when time.Time) Status {
	for _, s := range slices.Backward(t.history) {
		if !s.at.After(when) {
			return s
		}
	}
	return unused()
}

// Health is the state of a target. One that is not registered is unused.
func (b *Balancer) Health(arn string, t Target) (state, reason, description string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := unused()
	if g := b.group(arn); g != nil {
		if have := g.find(t); have != nil {
			s = have.now()
		}
	}
	return s.State, s.Reason, s.Description
}
