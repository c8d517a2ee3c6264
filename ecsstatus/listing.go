package ecsstatus

import (
	"cmp"
	"context"
	"slices"
	"strings"
)

// Listing is what runs on the hosts of a cluster.
type Listing struct {
	Cluster string     `json:"cluster"` // name
	Hosts   []HostLoad `json:"hosts"`   // sorted by address
	// Unplaced are the tasks that have no host, or not yet, and those on hosts
	// that joined while the listing was made.
	Unplaced []Task `json:"unplaced"`
	// Unknown says why hosts have no address, if so.
	Unknown error `json:"-"`
}

// HostLoad is a host and the tasks that ECS wants to run on it, and where the
// filter asks for them those that it is stopping.
type HostLoad struct {
	Host
	Tasks []Task `json:"tasks"`
}

// Filter narrows a Listing. Its zero value lets everything through.
type Filter struct {
	Host          string // address or EC2 instance id
	ContainerType string
	// Stopping lets the tasks through too that ECS is stopping: they drain, and
	// hold their part of the host until they have stopped.
	Stopping bool
}

func (f Filter) desired() []Desired {
	if f.Stopping {
		return []Desired{Running, Stopped}
	}
	return []Desired{Running}
}

// Listing reads all hosts and their tasks, in as few calls as page sizes allow:
// hosts and tasks at the same time. With a host in the filter, the tasks of
// that host only are read, after the hosts; with a container type, its tasks
// and the hosts that have one.
func (r *Reader) Listing(ctx context.Context, f Filter) (*Listing, error) {
	if f.Host != "" {
		return r.hostListing(ctx, f)
	}
	crew := newCrew(ctx)
	l := &Listing{Cluster: ShortName(r.Cluster)}
	var hosts []Host
	var tasks []Task
	crew.do(func(ctx context.Context) (err error) {
		hosts, l.Unknown, err = r.Hosts(ctx)
		return err
	})
	crew.do(func(ctx context.Context) (err error) {
		tasks, err = r.Tasks(ctx, f.ContainerType, f.desired()...)
		return err
	})
	if err := crew.wait(); err != nil {
		return nil, err
	}
	l.place(hosts, tasks)
	if f.ContainerType != "" {
		l.Hosts = slices.DeleteFunc(l.Hosts, func(h HostLoad) bool { return len(h.Tasks) == 0 })
	}
	return l, nil
}

func (r *Reader) hostListing(ctx context.Context, f Filter) (*Listing, error) {
	hosts, unknown, err := r.Hosts(ctx)
	if err != nil {
		return nil, err
	}
	host, err := findHost(hosts, f.Host, ShortName(r.Cluster), unknown)
	if err != nil {
		return nil, err
	}
	tasks, err := r.tasksOn(ctx, host.Instance, f)
	if err != nil {
		return nil, err
	}
	l := &Listing{Cluster: ShortName(r.Cluster), Unknown: unknown}
	l.place([]Host{host}, tasks)
	return l, nil
}

// findHost finds a host by address, EC2 instance id, or container instance.
// Where addresses are not known, one that is not found may be there after all:
// then the reason is the error.
func findHost(hosts []Host, given, cluster string, unknown error) (Host, error) {
	var names []string
	for _, h := range hosts {
		if given == h.ID || given == h.Address || given == h.Instance || given == ShortName(h.Instance) {
			return h, nil
		}
		names = append(names, h.ID)
		if h.Address != "" {
			names = append(names, h.Address)
		}
	}
	if unknown != nil && !strings.HasPrefix(given, "i-") {
		return Host{}, unknown
	}
	return Host{}, notFound(KindHost, given, cluster, names)
}

// place puts each task on its host, sorted by container type, then by start.
func (l *Listing) place(hosts []Host, tasks []Task) {
	l.Hosts, l.Unplaced = make([]HostLoad, len(hosts)), []Task{}
	at := make(map[string]*HostLoad, len(hosts))
	for i, h := range hosts {
		l.Hosts[i] = HostLoad{Host: h, Tasks: []Task{}}
		at[h.Instance] = &l.Hosts[i]
	}
	tasks = slices.DeleteFunc(tasks, func(t Task) bool { return t.LastStatus == "STOPPED" })
	slices.SortFunc(tasks, byTypeThenStart)
	for _, t := range tasks {
		if h := at[t.Instance]; h != nil {
			h.Tasks = append(h.Tasks, t)
			continue
		}
		l.Unplaced = append(l.Unplaced, t)
	}
}

func byTypeThenStart(a, b Task) int {
	return cmp.Or(strings.Compare(a.ContainerType, b.ContainerType), a.Started.Compare(b.Started), strings.Compare(a.ID, b.ID))
}
