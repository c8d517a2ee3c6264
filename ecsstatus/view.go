package ecsstatus

import (
	"cmp"
	"context"
	"slices"
	"strings"
)

// Ask is what to show of a container type. The zero value asks for a Summary.
type Ask struct {
	Images      bool
	Events      bool
	Deployments bool
	Lookup      bool   // all tasks, running and stopped
	Task        string // one task: ID or ARN
}

// summary reports whether nothing in particular is asked for.
func (a Ask) summary() bool { return a == Ask{} }

// View is what was asked for of a container type; the rest is nil.
type View struct {
	Cluster       string        `json:"cluster"` // name
	ContainerType string        `json:"containerType"`
	Service       *Service      `json:"service,omitempty"`
	Images        *[]ImageUse   `json:"images,omitempty"`
	Deployments   *[]Deployment `json:"deployments,omitempty"`
	Events        *[]Event      `json:"events,omitempty"`
	Tasks         *[]Task       `json:"tasks,omitempty"` // the newest first
	Task          *HostedTask   `json:"task,omitempty"`
	// Unknown says why a host has no address, if so.
	Unknown error `json:"-"`
}

// HostedTask is a task and its host.
type HostedTask struct {
	Task
	// Host is nil for a task without one, and for one whose host is gone.
	Host *Host `json:"host,omitempty"`
}

// ImageUse is an image that running containers use.
type ImageUse struct {
	Container string `json:"container"`
	Image     string `json:"image"`            // as in the task definition
	Digest    string `json:"digest,omitempty"` // what it is
	Tasks     int    `json:"tasks"`            // how many run it
}

// View reads what is asked for, everything at the same time.
func (r *Reader) View(ctx context.Context, containerType string, a Ask) (*View, error) {
	v := &View{Cluster: ShortName(r.Cluster), ContainerType: containerType}
	crew := newCrew(ctx)
	if a.Events || a.Deployments || a.summary() {
		crew.do(func(ctx context.Context) error { return r.viewService(ctx, v, a) })
	}
	if a.Images || a.Lookup || a.summary() {
		crew.do(func(ctx context.Context) error { return r.viewTasks(ctx, v, a) })
	}
	if a.Task != "" {
		crew.do(func(ctx context.Context) error { return r.viewTask(ctx, v, a.Task) })
	}
	if err := crew.wait(); err != nil {
		return nil, err
	}
	return v, nil
}

func (r *Reader) viewService(ctx context.Context, v *View, a Ask) error {
	s, err := r.Service(ctx, v.ContainerType)
	if err != nil {
		return err
	}
	if a.summary() {
		v.Service = s
	}
	if a.Events {
		v.Events = &s.Events
	}
	if a.Deployments {
		v.Deployments = &s.Deployments
	}
	return nil
}

func (r *Reader) viewTasks(ctx context.Context, v *View, a Ask) error {
	desired := []Desired{Running}
	if a.Lookup {
		desired = []Desired{Running, Stopped}
	}
	tasks, err := r.Tasks(ctx, v.ContainerType, desired...)
	if err != nil {
		return err
	}
	if a.Images || a.summary() {
		v.Images = pointer(imagesOf(tasks))
	}
	if a.Lookup {
		NewestFirst(tasks)
		v.Tasks = &tasks
	}
	return nil
}

func (r *Reader) viewTask(ctx context.Context, v *View, id string) error {
	t, err := r.Task(ctx, id, v.ContainerType)
	if err != nil {
		return err
	}
	v.Task = &HostedTask{Task: *t}
	if t.Instance == "" {
		return nil
	}
	hosts, err := r.describeInstances(ctx, []string{t.Instance})
	if err != nil {
		return r.noSuchCluster(ctx, err, "describe the host of task "+t.ID)
	}
	v.Unknown = r.Address(ctx, hosts)
	if len(hosts) > 0 {
		v.Task.Host = &hosts[0]
	}
	return nil
}

// imagesOf counts the tasks in which a container of an image runs, whatever is
// desired of them; sorted by container, the most used first.
func imagesOf(tasks []Task) []ImageUse {
	count := map[ImageUse]int{}
	for _, t := range tasks {
		for _, c := range t.Containers {
			if c.LastStatus == "RUNNING" {
				count[ImageUse{Container: c.Name, Image: c.Image, Digest: c.Digest}]++
			}
		}
	}
	uses := make([]ImageUse, 0, len(count))
	for u, n := range count {
		u.Tasks = n
		uses = append(uses, u)
	}
	slices.SortFunc(uses, func(a, b ImageUse) int {
		return cmp.Or(strings.Compare(a.Container, b.Container), b.Tasks-a.Tasks, strings.Compare(a.Image, b.Image), strings.Compare(a.Digest, b.Digest))
	})
	return uses
}
