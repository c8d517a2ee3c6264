package main

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/carrier"
)

// How long an answer of AWS's is good for. Hosts come and go by the minute,
// tasks by the second; what is asked for and not found is asked for again.
const (
	hostsKept = 15 * time.Second
	tasksKept = 5 * time.Second
	// again is how soon after an answer AWS is asked once more for what was not in it.
	again = time.Second
	// mostLearnt bounds what is remembered of containers that ECS does not know.
	mostLearnt = 10_000
)

// finder knows what is where in one place.
type finder struct {
	reader *ecsstatus.Reader
	seen   *inventory

	hosts once[[]host]
	tasks once[[]ecsstatus.Task]

	mu     sync.Mutex
	learnt map[string]string // container id → instance id
}

// host is a host as both ECS and SSM know it.
type host struct {
	ecsstatus.Host
	info ssmtypes.InstanceInformation // zero: SSM does not know it
}

// newFinder reads with the clients of reader, whose inventory it listens to.
func newFinder(reader *ecsstatus.Reader) *finder {
	seen := &inventory{api: reader.Inventory, hosts: map[string]ssmtypes.InstanceInformation{}}
	reader.Inventory = seen
	f := &finder{reader: reader, seen: seen, learnt: map[string]string{}}
	f.hosts.fetch, f.tasks.fetch = f.readHosts, f.readTasks
	return f
}

// inventory keeps what SSM says of hosts, on its way to the reader, which only
// wants to know their addresses.
type inventory struct {
	api   ecsstatus.Inventory
	mu    sync.Mutex
	hosts map[string]ssmtypes.InstanceInformation
}

// DescribeInstanceInformation asks SSM.
func (i *inventory) DescribeInstanceInformation(ctx context.Context, in *ssm.DescribeInstanceInformationInput, o ...func(*ssm.Options)) (*ssm.DescribeInstanceInformationOutput, error) {
	out, err := i.api.DescribeInstanceInformation(ctx, in, o...)
	if err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, h := range out.InstanceInformationList {
		if h.InstanceId != nil {
			i.hosts[*h.InstanceId] = h
		}
	}
	return out, nil
}

// take empties it.
func (i *inventory) take() map[string]ssmtypes.InstanceInformation {
	i.mu.Lock()
	defer i.mu.Unlock()
	hosts := i.hosts
	i.hosts = map[string]ssmtypes.InstanceInformation{}
	return hosts
}

// readHosts asks ECS for the cluster's hosts and SSM for what it knows of them.
func (f *finder) readHosts(ctx context.Context) ([]host, error) {
	hosts, unknown, err := f.reader.Hosts(ctx)
	if err == nil {
		err = unknown // without the inventory it is not known who can be reached
	}
	if err != nil {
		return nil, err
	}
	known := f.seen.take()
	all := make([]host, 0, len(hosts))
	for _, h := range hosts {
		all = append(all, host{h, known[h.ID]})
	}
	return all, nil
}

func (f *finder) readTasks(ctx context.Context) ([]ecsstatus.Task, error) {
	return f.reader.Tasks(ctx, "", ecsstatus.Running, ecsstatus.Stopped)
}

// list are the hosts of the place.
func (f *finder) list(ctx context.Context) ([]carrier.Host, error) {
	hosts, _, err := f.hosts.get(ctx, hostsKept)
	if err != nil {
		return nil, err
	}
	var out []carrier.Host
	for _, h := range hosts {
		if carrier.IsInstance(h.ID) {
			out = append(out, h.outline())
		}
	}
	return out, nil
}

func (h *host) outline() carrier.Host {
	text := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	return carrier.Host{
		ID: h.ID, Address: h.Address, State: h.Status,
		Name:   text(h.info.ComputerName),
		Agent:  text(h.info.AgentVersion),
		Online: h.info.PingStatus == ssmtypes.PingStatusOnline,
	}
}

// find is the host that a person calls name: its id, address or name.
func (f *finder) find(ctx context.Context, name string) ([]carrier.Host, error) {
	hosts, err := f.list(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(hosts, func(h carrier.Host) bool { return !h.Is(name) }), nil
}

// where finds containers by ref, in what ECS says and in what was learnt.
func (f *finder) where(ctx context.Context, ref string) ([]carrier.Found, error) {
	ref = ecsstatus.ShortName(ref) // an ARN's last part is the task's id
	if host, id := f.recall(ref); host != "" {
		return []carrier.Found{{Host: host, Container: id}}, nil
	}
	for keep := tasksKept; ; keep = again {
		tasks, fresh, err := f.tasks.get(ctx, keep)
		if err != nil {
			return nil, err
		}
		found, err := f.among(ctx, tasks, ref)
		if err != nil || len(found) > 0 || fresh || keep == again {
			return found, err
		}
	}
}

// among finds ref among tasks: the beginning of a container's id, a task's id or
// the beginning of one.
func (f *finder) among(ctx context.Context, tasks []ecsstatus.Task, ref string) ([]carrier.Found, error) {
	var mean []ecsstatus.Task
	var found []carrier.Found
	for _, t := range tasks {
		whole := t.ID == ref || len(ref) >= shortest && strings.HasPrefix(t.ID, ref)
		for _, c := range t.Containers {
			if len(c.RuntimeID) == 64 && (whole || strings.HasPrefix(c.RuntimeID, ref)) {
				mean = append(mean, t)
				found = append(found, carrier.Found{Container: c.RuntimeID, Name: c.Name, Task: t.ID})
			}
		}
	}
	if len(found) == 0 {
		return nil, nil
	}
	hosts, err := f.reader.TaskHosts(ctx, mean)
	if err != nil {
		return nil, err
	}
	for i := range found {
		found[i].Host = hosts[mean[i].Instance].ID
	}
	found = slices.DeleteFunc(found, func(c carrier.Found) bool { return !carrier.IsInstance(c.Host) })
	slices.SortFunc(found, func(a, b carrier.Found) int {
		return cmp.Or(strings.Compare(a.Task, b.Task), strings.Compare(a.Name, b.Name))
	})
	return found, nil
}

// shortest is how much of a task's id has to be given.
const shortest = 8

// learn remembers where a container is.
func (f *finder) learn(container, host string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.learnt) >= mostLearnt {
		clear(f.learnt)
	}
	f.learnt[container] = host
}

// recall finds the one learnt container whose id begins as ref does.
func (f *finder) recall(ref string) (host, container string) {
	if len(ref) < 12 { // docker's short ids; what is shorter can be several things
		return "", ""
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if h := f.learnt[ref]; h != "" {
		return h, ref
	}
	for id, h := range f.learnt {
		if strings.HasPrefix(id, ref) {
			return h, id
		}
	}
	return "", ""
}

// once fetches something for all who ask at the same time, and keeps it.
type once[T any] struct {
	fetch func(context.Context) (T, error)

	mu    sync.Mutex
	at    time.Time
	value T
	now   *fetching[T]
}

type fetching[T any] struct {
	done  chan struct{}
	value T
	err   error
}

// get returns what is not older than keep, and whether it was fetched for this call.
func (o *once[T]) get(ctx context.Context, keep time.Duration) (value T, fresh bool, err error) {
	o.mu.Lock()
	if !o.at.IsZero() && time.Since(o.at) < keep {
		defer o.mu.Unlock()
		return o.value, false, nil
	}
	f := o.now
	if f == nil {
		f = &fetching[T]{done: make(chan struct{})}
		o.now = f
		// One who gives up does not take it from the others.
		go o.run(context.WithoutCancel(ctx), f)
	}
	o.mu.Unlock()
	select {
	case <-f.done:
		return f.value, true, f.err
	case <-ctx.Done():
		return value, false, context.Cause(ctx)
	}
}

// longest is how long AWS may take for an answer, pages and repetitions included.
const longest = 40 * time.Second

func (o *once[T]) run(ctx context.Context, f *fetching[T]) {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	began := time.Now()
	f.value, f.err = o.fetch(ctx)
	o.mu.Lock()
	if f.err == nil {
		o.value, o.at = f.value, began
	}
	o.now = nil
	o.mu.Unlock()
	close(f.done)
}
