package dockerproxy

import (
	"context"
	"errors"
	"slices"
	"time"
)

// A caller's groups are those that he has when he connects. A stream can outlive
// that by hours: so they are looked at again while it is open.

// errGroupsChanged is why a stream ends whose caller has left a group.
var errGroupsChanged = errors.New("you are not in a group any more that this is allowed to")

// errUnresolved is why the streams end of a caller whom the user database does not
// know any more, or as another.
var errUnresolved = errors.New("the user database does not say any more who you are")

// Recheck looks, in intervals until ctx ends, which groups the callers have that
// have a stream open, and ends the streams that are not allowed with them. Those of
// a caller who cannot be resolved any more all end: whether he is in a group that
// is denied something is not known. Callers of other machines are looked at there.
func (g *Gate) Recheck(ctx context.Context, every time.Duration, groups Groups) {
	repeat(ctx, every, func() { g.recheck(ctx, groups) })
}

// Recheck is Gate.Recheck, for all hosts.
func (f *Fleet) Recheck(ctx context.Context, every time.Duration, groups Groups) {
	repeat(ctx, every, func() {
		for _, g := range f.all() {
			g.recheck(ctx, groups)
		}
	})
}

// Groups asks the user database who has a uid, and which groups he is in.
type Groups func(ctx context.Context, uid int) (user string, names []string, err error)

func repeat(ctx context.Context, every time.Duration, f func()) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f()
		}
	}
}

func (g *Gate) recheck(ctx context.Context, groups Groups) {
	for o, streams := range g.streamsHere() {
		user, names, err := groups(ctx, o.UID)
		if ctx.Err() != nil {
			return
		}
		if err != nil || user != o.User {
			g.log().Warn("a caller cannot be resolved any more", "user", o.User, "err", err)
			endAll(streams)
			continue
		}
		g.regroup(streams, names)
	}
}

func endAll(streams []*stream) {
	for _, s := range streams {
		s.cancel(errUnresolved)
	}
}

// streamsHere are the open streams by whose they are.
func (g *Gate) streamsHere() map[owner][]*stream {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := map[owner][]*stream{}
	for s := range g.open {
		if s.caller.Key == "" {
			all[s.caller.owner()] = append(all[s.caller.owner()], s)
		}
	}
	return all
}

// regroup gives the caller of streams other groups, and ends what is not allowed
// with them.
func (g *Gate) regroup(streams []*stream, groups []string) {
	p := g.policy.Load()
	for _, s := range streams {
		g.mu.Lock()
		changed := !slices.Equal(s.caller.Groups, groups)
		s.caller.Groups = groups
		who := s.caller.Principal
		g.mu.Unlock()
		if changed && !s.allowed(p, who) {
			s.cancel(errGroupsChanged)
		}
	}
}
