package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
)

// retry is how long after a host was lost it is asked again.
const retry = 5 * time.Second

// follower keeps a table of all hosts' numbers up to date: each host says which
// containers begin, as docker's own stats wants to know it of its one Engine.
type follower struct {
	*meters
	table table
	pause time.Duration // before a lost host is asked again

	mu   sync.Mutex
	lost map[int]error // hosts that are not seen now
}

// follow shows the numbers again and again, until it is interrupted. Hosts that are
// lost are named below the table and, where they are by then, at the end.
func (f *follower) follow(ctx context.Context) error {
	for i, h := range f.list.Hosts {
		go f.keep(ctx, i, h)
	}
	show := time.NewTicker(frame)
	defer show.Stop()
	for {
		select {
		case <-ctx.Done():
			if err := f.docker.told(f.list, f.missing()); err != nil {
				return err
			}
			return context.Cause(ctx)
		case <-show.C:
			if err := f.draw(); err != nil {
				return err
			}
		}
	}
}

// keep watches a host for as long as the table is shown.
func (f *follower) keep(ctx context.Context, i int, h farHost) {
	o := f.docker.on(h, io.Discard, io.Discard) // one: it keeps its connections, to ask on them again
	for ctx.Err() == nil {
		err := f.watch(ctx, o, i, h)
		if ctx.Err() != nil {
			return
		}
		f.see(i, err)
		select {
		case <-ctx.Done():
		case <-time.After(f.pause):
		}
	}
}

// watch reads the numbers of a host's containers, also of those that begin later,
// until the host is lost. It listens first, and looks then: nothing begins unseen.
func (f *follower) watch(ctx context.Context, o *docker, i int, h farHost) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil) // and with it all streams of the host
	late := time.AfterFunc(hostTime, func() { cancel(fmt.Errorf("no answer within %s", hostTime)) })
	defer late.Stop()
	began := filters.NewArgs(filters.Arg("type", "container"), filters.Arg("event", "create"), filters.Arg("event", "start"))
	news, ended := o.Client().Events(ctx, events.ListOptions{Filters: began})
	for {
		if err := f.read(ctx, o, i, h, true); err != nil {
			return cause(ctx, err)
		}
		late.Stop()
		f.see(i, nil)
		select {
		case <-news:
		case err := <-ended:
			return cause(ctx, err)
		}
	}
}

// cause is why something ended: what ended it, if that is known.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err == nil || err == io.EOF {
		return fmt.Errorf("it has ended the connection")
	}
	return err
}

// see notes whether a host is seen.
func (f *follower) see(i int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		delete(f.lost, i)
		return
	}
	f.lost[i] = err
}

// missing is why hosts are not seen, by their place in the list.
func (f *follower) missing() []error {
	f.mu.Lock()
	defer f.mu.Unlock()
	errs := make([]error, len(f.list.Hosts))
	for i, err := range f.lost {
		errs[i] = err
	}
	return errs
}

// draw shows a frame in the place of the one before.
func (f *follower) draw() error {
	var b strings.Builder
	if err := f.table.write(&b, f.snapshot()); err != nil {
		return err
	}
	if f.table.isTable() {
		b.WriteString(f.below())
	}
	text := "\033[H" + strings.ReplaceAll(b.String(), "\n", "\033[K\n") + "\033[J"
	_, err := io.WriteString(f.docker.Out(), text)
	return err
}

// below names the hosts whose containers are not in the table.
func (f *follower) below() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.lost) == 0 {
		return ""
	}
	var names []string
	for _, i := range slices.Sorted(maps.Keys(f.lost)) {
		names = append(names, f.list.Hosts[i].Name)
	}
	return "no answer from: " + strings.Join(names, ", ") + "\n"
}

// isTable reports whether the rows are shown as a table, and not one by one in a
// format of the caller's.
func (t table) isTable() bool { return strings.HasPrefix(string(t.format), formatter.TableFormatKey) }
