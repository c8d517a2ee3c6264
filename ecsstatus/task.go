package ecsstatus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// Desired is what ECS wants of a task, and what tasks are listed by.
type Desired string

const (
	// Running lists the tasks that ECS wants to run, whatever they do now.
	Running Desired = "RUNNING"
	// Stopped lists the tasks that stopped (ECS shows them for at least an
	// hour) and those that are being stopped.
	Stopped Desired = "STOPPED"
)

// Task is a task as it is now.
type Task struct {
	ID             string `json:"id"`
	ARN            string `json:"arn"`
	ContainerType  string `json:"containerType"`  // empty for a task that no service started
	TaskDefinition string `json:"taskDefinition"` // ARN
	StartedBy      string `json:"startedBy"`      // the deployment's ID, ecs-svc/N
	// LastStatus is PROVISIONING, PENDING, ACTIVATING, RUNNING, DEACTIVATING,
	// STOPPING, DEPROVISIONING or STOPPED.
	LastStatus    string `json:"lastStatus"`
	DesiredStatus string `json:"desiredStatus"`
	// HealthStatus is HEALTHY, UNHEALTHY, or UNKNOWN if the task definition has
	// no health check.
	HealthStatus  string      `json:"healthStatus"`
	StopCode      string      `json:"stopCode,omitempty"`
	StoppedReason string      `json:"stoppedReason,omitempty"`
	Created       time.Time   `json:"createdAt,omitzero"`
	Started       time.Time   `json:"startedAt,omitzero"` // zero: it never ran
	Stopping      time.Time   `json:"stoppingAt,omitzero"`
	Stopped       time.Time   `json:"stoppedAt,omitzero"`
	Zone          string      `json:"zone,omitempty"`
	Instance      string      `json:"containerInstance,omitempty"` // ARN; empty until it is placed
	Address       string      `json:"address,omitempty"`           // its own, in network mode awsvpc
	Containers    []Container `json:"containers"`
	Version       int64       `json:"-"` // counts the changes of the task
	// Disconnected is set while ECS does not hear the agent of the task's host:
	// what is known of the task is what was last heard.
	Disconnected bool `json:"-"`
}

// Container is a container of a task.
type Container struct {
	Name         string `json:"name"`
	Image        string `json:"image"`            // as in the task definition
	Digest       string `json:"digest,omitempty"` // of the image it really uses
	LastStatus   string `json:"lastStatus"`
	HealthStatus string `json:"healthStatus,omitempty"`
	ExitCode     *int   `json:"exitCode,omitempty"`
	Reason       string `json:"reason,omitempty"`
	CPU          int    `json:"cpu"`    // reserved CPU units
	Memory       int    `json:"memory"` // reserved MiB: the soft limit where there is one, as ECS counts it
	RuntimeID    string `json:"runtimeId,omitempty"`
	Ports        []Port `json:"ports"`
}

// Port is a port of a container and where it is reached.
type Port struct {
	Container      int    `json:"container,omitempty"`
	Host           int    `json:"host,omitempty"`
	ContainerRange string `json:"containerRange,omitempty"`
	HostRange      string `json:"hostRange,omitempty"`
	Protocol       string `json:"protocol,omitempty"`
	BindIP         string `json:"bindIp,omitempty"`
}

// Container is the container with a name, nil if the task has none.
func (t *Task) Container(name string) *Container {
	for i := range t.Containers {
		if t.Containers[i].Name == name {
			return &t.Containers[i]
		}
	}
	return nil
}

// Tasks reads the tasks of a container type, or all tasks of the cluster if it
// is empty, by the desired status; none given means Running. Tasks of one
// status are in the order that ECS lists them. A task is there once, even if
// it changed from one status to the other while they were listed.
func (r *Reader) Tasks(ctx context.Context, containerType string, desired ...Desired) ([]Task, error) {
	if len(desired) == 0 {
		desired = []Desired{Running}
	}
	return r.tasks(ctx, ecs.ListTasksInput{}, containerType, desired)
}

func (r *Reader) tasks(ctx context.Context, in ecs.ListTasksInput, containerType string, desired []Desired) ([]Task, error) {
	if containerType != "" && !serviceName.MatchString(containerType) {
		return nil, r.noSuchService(ctx, containerType)
	}
	crew := newCrew(ctx)
	parts := make([]*[]Task, len(desired))
	for i, d := range desired {
		in := in
		in.DesiredStatus = types.DesiredStatus(d)
		if containerType != "" {
			in.ServiceName = &containerType
		}
		parts[i] = new([]Task)
		crew.do(func(ctx context.Context) (err error) {
			*parts[i], err = pages(ctx, r.listTasks(in), r.describeTasks)
			return err
		})
	}
	if err := crew.wait(); err != nil {
		return nil, r.tasksError(ctx, err, containerType)
	}
	return newestOfEach(concat(parts)), nil
}

// tasksOn reads the tasks on one host that a filter lets through.
func (r *Reader) tasksOn(ctx context.Context, instance string, f Filter) ([]Task, error) {
	return r.tasks(ctx, ecs.ListTasksInput{ContainerInstance: &instance}, f.ContainerType, f.desired())
}

func (r *Reader) tasksError(ctx context.Context, err error, containerType string) error {
	if _, ok := errors.AsType[*types.ServiceNotFoundException](err); ok {
		return r.noSuchService(ctx, containerType)
	}
	return r.noSuchCluster(ctx, err, "read tasks")
}

// newestOfEach keeps one of each task, as it was last.
func newestOfEach(tasks []Task) []Task {
	at := map[string]int{}
	kept := tasks[:0]
	for _, t := range tasks {
		i, twice := at[t.ARN]
		switch {
		case !twice:
			at[t.ARN] = len(kept)
			kept = append(kept, t)
		case t.Version > kept[i].Version:
			kept[i] = t
		}
	}
	return kept
}

func (r *Reader) listTasks(in ecs.ListTasksInput) lister {
	in.Cluster, in.MaxResults = &r.Cluster, pointer(int32(pageSize))
	return func(ctx context.Context, token *string) ([]string, *string, error) {
		page := in
		page.NextToken = token
		out, err := r.ECS.ListTasks(ctx, &page)
		if err != nil {
			return nil, nil, err
		}
		return out.TaskArns, out.NextToken, nil
	}
}

func (r *Reader) describeTasks(ctx context.Context, arns []string) ([]Task, error) {
	out, err := r.ECS.DescribeTasks(ctx, &ecs.DescribeTasksInput{Cluster: &r.Cluster, Tasks: arns})
	if err != nil {
		return nil, err
	}
	tasks := make([]Task, 0, len(out.Tasks))
	for _, t := range out.Tasks {
		tasks = append(tasks, newTask(t))
	}
	return tasks, nil
}

// DescribeTasks reads tasks by ID or ARN, in batches at the same time. Those
// that ECS does not know are left out.
func (r *Reader) DescribeTasks(ctx context.Context, ids ...string) ([]Task, error) {
	tasks, err := pages(ctx, batches(ids, batchSize), r.describeTasks)
	if err != nil {
		return nil, r.noSuchCluster(ctx, err, "describe tasks")
	}
	return tasks, nil
}

// batches is a lister of what is known already.
func batches(ids []string, size int) lister {
	return func(_ context.Context, token *string) ([]string, *string, error) {
		n := min(size, len(ids))
		batch := ids[:n]
		ids = ids[n:]
		if len(ids) == 0 {
			return batch, nil, nil
		}
		return batch, pointer("more"), nil
	}
}

// taskID is what ECS takes for one: hex digits, with dashes in old ones.
var taskID = regexp.MustCompile(`^[0-9a-fA-F-]{8,36}$`)

// Task reads one task by its ID or whole ARN. If a container type is given,
// a task of another one is not found.
func (r *Reader) Task(ctx context.Context, idOrARN, containerType string) (*Task, error) {
	if other := otherCluster(idOrARN, r.Cluster); other != "" {
		e := notFound(KindTask, idOrARN, ShortName(r.Cluster), nil)
		e.Note = fmt.Sprintf("the ARN names cluster %s", other)
		return nil, e
	}
	id := ShortName(idOrARN)
	if !taskID.MatchString(id) {
		return nil, r.noSuchTask(ctx, idOrARN, containerType)
	}
	tasks, err := r.DescribeTasks(ctx, id)
	if err != nil {
		return nil, err
	}
	if len(tasks) == 0 {
		return nil, r.noSuchTask(ctx, idOrARN, containerType)
	}
	t := &tasks[0]
	if containerType != "" && t.ContainerType != containerType {
		return nil, r.foreignTask(ctx, idOrARN, containerType)
	}
	return t, nil
}

// foreignTask is about a task that is there, but not of the container type,
// which may be the one that is wrong. It does not say whose task it is: the
// caller may not know of all.
func (r *Reader) foreignTask(ctx context.Context, given, containerType string) error {
	if _, err := r.Service(ctx, containerType); err != nil {
		return err
	}
	e := notFound(KindTask, given, ShortName(r.Cluster), nil)
	e.Note = "the task is of another container type"
	return e
}

// otherCluster is the cluster that a task's ARN names
// (arn:aws:ecs:REGION:ACCOUNT:task/CLUSTER/ID), if it is not the given one.
func otherCluster(arn, cluster string) string {
	parts := strings.Split(arn, "/")
	if !strings.HasPrefix(arn, "arn:") || len(parts) != 3 || parts[1] == ShortName(cluster) {
		return ""
	}
	return parts[1]
}

// noSuchTask suggests tasks of the container type, the most recent first where
// none is like it.
func (r *Reader) noSuchTask(ctx context.Context, given, containerType string) error {
	tasks, err := r.Tasks(ctx, containerType, Running, Stopped)
	if err != nil {
		return err
	}
	NewestFirst(tasks)
	var ids []string
	for _, t := range tasks {
		ids = append(ids, t.ID)
	}
	e := notFound(KindTask, given, ShortName(r.Cluster), ids)
	e.Near = taskIDsLike(ShortName(given), ids, e.Near)
	return e
}

// taskIDsLike prefers IDs that begin as the given one: people cut them off.
func taskIDsLike(given string, ids, near []string) []string {
	var like []string
	for _, id := range ids {
		if given != "" && strings.HasPrefix(id, given) {
			like = append(like, id)
		}
	}
	for _, id := range slices.Concat(near, ids) {
		if !slices.Contains(like, id) {
			like = append(like, id)
		}
	}
	return like[:min(nearest, len(like))]
}

// NewestFirst sorts tasks by when they were created, then by ID.
func NewestFirst(tasks []Task) {
	slices.SortFunc(tasks, func(a, b Task) int {
		return cmp.Or(b.Created.Compare(a.Created), strings.Compare(a.ID, b.ID))
	})
}

func newTask(t types.Task) Task {
	service, _ := strings.CutPrefix(text(t.Group), "service:")
	if service == text(t.Group) {
		service = ""
	}
	out := Task{
		ID:             ShortName(text(t.TaskArn)),
		ARN:            text(t.TaskArn),
		ContainerType:  service,
		TaskDefinition: text(t.TaskDefinitionArn),
		StartedBy:      text(t.StartedBy),
		LastStatus:     text(t.LastStatus),
		DesiredStatus:  text(t.DesiredStatus),
		HealthStatus:   string(t.HealthStatus),
		StopCode:       string(t.StopCode),
		StoppedReason:  text(t.StoppedReason),
		Created:        moment(t.CreatedAt),
		Started:        moment(t.StartedAt),
		Stopping:       moment(t.StoppingAt),
		Stopped:        moment(t.StoppedAt),
		Zone:           text(t.AvailabilityZone),
		Instance:       text(t.ContainerInstanceArn),
		Address:        ownAddress(t),
		Containers:     []Container{},
		Version:        t.Version,
		Disconnected:   t.Connectivity == types.ConnectivityDisconnected,
	}
	for _, c := range t.Containers {
		out.Containers = append(out.Containers, newContainer(c))
	}
	slices.SortStableFunc(out.Containers, func(a, b Container) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// ownAddress is the private address of a task's own network interface: the
// detail privateIPv4Address of its attachment.
func ownAddress(t types.Task) string {
	for _, a := range t.Attachments {
		for _, d := range a.Details {
			if text(d.Name) == "privateIPv4Address" {
				return text(d.Value)
			}
		}
	}
	for _, c := range t.Containers {
		for _, n := range c.NetworkInterfaces {
			if address := text(n.PrivateIpv4Address); address != "" {
				return address
			}
		}
	}
	return ""
}

func newContainer(c types.Container) Container {
	out := Container{
		Name:         text(c.Name),
		Image:        text(c.Image),
		Digest:       text(c.ImageDigest),
		LastStatus:   text(c.LastStatus),
		HealthStatus: string(c.HealthStatus),
		ExitCode:     number(c.ExitCode),
		Reason:       text(c.Reason),
		CPU:          units(c.Cpu),
		Memory:       cmp.Or(units(c.MemoryReservation), units(c.Memory)),
		RuntimeID:    text(c.RuntimeId),
		Ports:        []Port{},
	}
	for _, b := range c.NetworkBindings {
		out.Ports = append(out.Ports, newPort(b))
	}
	return out
}

func newPort(b types.NetworkBinding) Port {
	p := Port{
		ContainerRange: text(b.ContainerPortRange),
		HostRange:      text(b.HostPortRange),
		Protocol:       string(b.Protocol),
		BindIP:         text(b.BindIP),
	}
	if b.ContainerPort != nil {
		p.Container = int(*b.ContainerPort)
	}
	if b.HostPort != nil {
		p.Host = int(*b.HostPort)
	}
	return p
}

// units reads a number that the API has as a string: "256", "0", or absent.
func units(s *string) int {
	n, err := strconv.Atoi(text(s))
	if err != nil {
		return 0
	}
	return n
}
