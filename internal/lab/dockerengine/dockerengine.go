// Package dockerengine runs the lab's tasks as real containers, on a private
// Docker Engine (package dockerd). It does what the ECS agent and the docker
// daemon of a container instance do: pull, create, start, watch, stop and
// clean up, with the agent's labels, names and words.
//
// All hosts of a lab share one engine; a label tells whose a container is.
// Host ports are therefore not published: Check goes to a container's own
// address. Network modes host and awsvpc get an own address likewise.
//
// Two habits of the agent matter to people who start a container of a stopped
// task by hand (amazon-ecs-agent, agent/engine/task_manager.go): the first
// time that a container of a task comes back, the agent stops it, once for the
// task; after that it leaves it alone. And when a task has been stopped for
// ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION, its stopped containers are removed
// and the agent knows it no more.
package dockerengine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"

	"jumpsuite/internal/lab/clock"
	"jumpsuite/internal/lab/dockerd"
	"jumpsuite/internal/lab/engine"
	"jumpsuite/internal/lab/rootfs"
	"jumpsuite/internal/lab/world"
)

// DefaultCleanup is the agent's ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION, if it
// is not set (agent/config/config.go).
const DefaultCleanup = 3 * time.Hour

// MinCleanup is the shortest that the agent takes; the default stands in for a
// shorter one (agent/config/config.go).
const MinCleanup = time.Second

// Config is what an Engine needs.
type Config struct {
	Clock  *clock.Clock  // nil: the time outside
	Images engine.Images // what references mean

	// Registry serves the images over the registry API, with the registry's
	// name as the request's Host.
	Registry http.Handler
	// Registries are the names of the registries that Registry is. Docker Hub
	// is docker.io.
	Registries []string
	// Login is what a registry takes, if it asks. Nil: none asks.
	Login func(registry string) (user, password string)

	// Cleanup is how long the containers of a stopped task are kept, in lab
	// time. Less than MinCleanup means DefaultCleanup.
	Cleanup time.Duration
	// Log is told what a task cannot be told. Nil discards it.
	Log *slog.Logger
}

// Engine is an engine.Engine whose tasks are real containers.
type Engine struct {
	Config
	daemon   *dockerd.Daemon
	docker   *client.Client
	registry *http.Server
	ctx      context.Context // ends with Close: containers outlive the calls that start them
	cancel   context.CancelFunc
	work     sync.WaitGroup

	mu         sync.Mutex
	tasks      map[string]*task       // by task ID
	containers map[string]*contained  // by docker's container ID
	pulls      map[string]*pull       // by reference with digest
	lost       map[string]bool        // tasks whose host is gone, by ID
	seen       map[string]world.Image // behaviour by digest, of images that may be gone

	// tagging is held while a tag must not move: between tagging an image and
	// making a container of that tag.
	tagging sync.Mutex
}

var _ engine.Engine = (*Engine)(nil)

// Available reports, in words, why no Engine can run here; nil if one can.
func Available() error {
	if err := dockerd.Available(); err != nil {
		return err
	}
	return rootfs.Available()
}

// Start starts an Engine with its Docker Engine. The caller owes a Close; ctx
// is for the start only.
func Start(ctx context.Context, c Config) (*Engine, error) {
	if err := Available(); err != nil {
		return nil, err
	}
	if c.Clock == nil {
		c.Clock = clock.New(1)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Cleanup < MinCleanup {
		c.Cleanup = DefaultCleanup
	}
	daemon, err := dockerd.Start(ctx, dockerd.Options{Registries: c.Registries})
	if err != nil {
		return nil, err
	}
	e := &Engine{
		Config:     c,
		daemon:     daemon,
		tasks:      map[string]*task{},
		containers: map[string]*contained{},
		pulls:      map[string]*pull{},
		lost:       map[string]bool{},
		seen:       map[string]world.Image{},
	}
	e.ctx, e.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := e.connect(); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

func (e *Engine) connect() (err error) {
	e.docker, err = client.NewClientWithOpts(client.WithHost(e.daemon.Host()), client.WithAPIVersionNegotiation())
	if err != nil {
		return err
	}
	if err := e.serveRegistry(); err != nil {
		return fmt.Errorf("serve images to the Docker Engine: %w", err)
	}
	// Before any container: none of their events may be missed.
	messages, failed := e.docker.Events(e.ctx, events.ListOptions{
		Filters: filters.NewArgs(filters.Arg("type", string(events.ContainerEventType))),
	})
	e.work.Go(func() { e.watch(messages, failed) })
	return nil
}

// Host is the address of the Docker Engine, as DOCKER_HOST takes it.
func (e *Engine) Host() string { return e.daemon.Host() }

// Dial connects to an address in the network of the containers.
func (e *Engine) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return e.daemon.Dial(ctx, network, address)
}

// Close ends all containers and the Docker Engine.
func (e *Engine) Close() error {
	e.cancel()
	if e.registry != nil {
		e.registry.Close()
	}
	err := e.daemon.Close()
	e.work.Wait()
	if e.docker != nil {
		err = errors.Join(err, e.docker.Close())
	}
	return err
}

// Launch implements engine.Engine.
func (e *Engine) Launch(t engine.Task) {
	k := newTask(e, t)
	e.mu.Lock()
	e.tasks[t.ID] = k
	e.mu.Unlock()
	e.work.Go(k.launch)
}

// Stop implements engine.Engine.
func (e *Engine) Stop(taskID string) {
	if k := e.task(taskID); k != nil {
		k.cancel() // of what is still to be pulled and started
		k.inbox.post(k.stop)
	}
}

// Remove implements engine.Engine. Of a task that stopped, a container that
// somebody started again is left alone.
func (e *Engine) Remove(taskID string) {
	if k := e.forget(taskID); k != nil {
		k.cancel()
		k.inbox.post(func() { k.remove(!k.done) })
	}
}

// Lose implements engine.Engine.
func (e *Engine) Lose(hostID string) {
	e.mu.Lock()
	var lost []*task
	for _, k := range e.tasks {
		if k.Host.ID == hostID {
			lost = append(lost, k)
			e.lost[k.ID] = true
			delete(e.tasks, k.ID)
		}
	}
	e.mu.Unlock()
	for _, k := range lost {
		k.cancel()
		k.mute()
		k.inbox.post(func() { k.remove(true) })
	}
}

// Check implements engine.Engine. The port is a container port, or a host port
// that one is mapped to.
func (e *Engine) Check(ctx context.Context, taskID, name string, port int, path string) (int, error) {
	c, err := e.contained(taskID, name)
	if err != nil {
		return 0, err
	}
	c.awaitBegin(e.ctx)
	if ctx.Err() != nil { // the time-out of a check that had to wait for the beginning
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(e.ctx, minCheck)
		defer cancel()
	}
	address := c.Address()
	if address == "" {
		return 0, fmt.Errorf("container %s of task %s does not run", name, taskID)
	}
	url := "http://" + net.JoinHostPort(address, strconv.Itoa(c.port(port))) + "/" + strings.TrimPrefix(path, "/")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	transport := &http.Transport{DialContext: e.daemon.Dial, DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req) // and follow no redirect: a load balancer does not
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// contained finds a container of a task that is on a host.
func (e *Engine) contained(taskID, name string) (*contained, error) {
	k := e.task(taskID)
	if k == nil && e.isLost(taskID) {
		return nil, fmt.Errorf("the host of task %s is gone: %w", taskID, context.DeadlineExceeded)
	}
	if k == nil {
		return nil, fmt.Errorf("no task %s", taskID)
	}
	c := k.contained(name)
	if c == nil {
		return nil, fmt.Errorf("task %s has no container %s", taskID, name)
	}
	return c, nil
}

// Override implements engine.Engine.
func (e *Engine) Override(taskID string, o engine.Override) {
	if k := e.task(taskID); k != nil {
		k.inbox.post(func() { k.override(o) })
	}
}

// Kill implements engine.Engine.
func (e *Engine) Kill(taskID, name string, code int) {
	k := e.task(taskID)
	if k == nil {
		return
	}
	if c := k.contained(name); c != nil {
		k.inbox.post(func() { k.kill(c, code) })
	}
}

func (e *Engine) isLost(id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lost[id]
}

func (e *Engine) task(id string) *task {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.tasks[id]
}

// forget takes a task out of what the engine knows, and returns it.
func (e *Engine) forget(id string) *task {
	e.mu.Lock()
	defer e.mu.Unlock()
	k := e.tasks[id]
	delete(e.tasks, id)
	return k
}

func (e *Engine) register(c *contained) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.containers[c.id] = c
}

func (e *Engine) unregister(c *contained) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.containers, c.id)
}

// watch hands the events of Docker to the tasks they are about.
func (e *Engine) watch(messages <-chan events.Message, failed <-chan error) {
	for {
		select {
		case m := <-messages:
			e.mu.Lock()
			c := e.containers[m.Actor.ID]
			e.mu.Unlock()
			if c != nil {
				c.task.inbox.post(func() { c.task.handle(c, m.Action) })
			}
		case err := <-failed:
			if e.ctx.Err() == nil {
				e.Log.Error("the events of the Docker Engine ended", "err", err, "log", e.daemon.LogTail(1000))
			}
			return
		}
	}
}

// note logs what went wrong with a container and can be told nobody else.
func (e *Engine) note(what string, err error, c *contained) {
	if err != nil && e.ctx.Err() == nil {
		e.Log.Warn(what, "container", c.name, "err", err)
	}
}

// Containers lists the containers of one host, stopped ones too; all hosts' if
// hostID is empty. They are sorted by name.
func (e *Engine) Containers(ctx context.Context, hostID string) ([]container.Summary, error) {
	args := filters.NewArgs()
	if hostID != "" {
		args.Add("label", hostLabel+"="+hostID)
	}
	list, err := e.docker.ContainerList(ctx, container.ListOptions{All: true, Filters: args})
	slices.SortFunc(list, func(a, b container.Summary) int { return cmp.Compare(a.Names[0], b.Names[0]) })
	return list, err
}
