// Package engine runs the tasks that the lab's ECS places on hosts. There are
// two: Sim plays them by the clock, and package dockerengine runs real
// containers on a Docker Engine. Both play the behaviour that a world's images
// describe.
//
// An engine knows nothing of services, deployments and load balancers; it is
// what the ECS agent and the docker daemon of a host are to ECS.
package engine

import (
	"context"
	"time"

	"jumpsuite/internal/lab/world"
)

// Engine runs tasks. Its methods may be called from any goroutine, and do not
// block on what they start: what happens to a task is told to its Task.Notify.
type Engine interface {
	// Launch pulls the images of a task and starts its containers.
	Launch(t Task)
	// Stop ends the containers of a task: SIGTERM, and SIGKILL when their stop
	// time-out is over. An unknown task is ignored.
	Stop(taskID string)
	// Remove deletes what is left of a task that stopped.
	Remove(taskID string)
	// Lose ends all containers on a host at once, and tells nobody: the host
	// is gone.
	Lose(hostID string)
	// Check makes one load-balancer check of a container's port and returns
	// the HTTP status. An error is a check that got no answer; its text is
	// not shown.
	Check(ctx context.Context, taskID, container string, port int, path string) (status int, err error)
	// Override changes what a running task's containers answer from now on.
	Override(taskID string, o Override)
	// Kill ends one container with the given exit code, as if by itself.
	Kill(taskID, container string, code int)
	Close() error
}

// Task is what an engine needs to know to run one.
type Task struct {
	ID         string // the last part of its ARN
	ARN        string
	Family     string
	Revision   int
	Cluster    string
	Host       Host
	Network    string // bridge, host, awsvpc
	PrivateIP  string // awsvpc: the address that ECS gave it
	Containers []Container
	// Running tasks are those that a world begins with: they have been running
	// for a while. A simulated one runs, and is healthy, at once.
	Running bool
	// Notify is told what happens, in order, from a goroutine of the engine's.
	Notify func(Event)
}

// Host is where a task is placed.
type Host struct {
	ID     string // EC2 instance id
	IP     string
	Arch   string            // x86_64 or arm64; empty means x86_64
	Cached map[string]string // image reference → digest: what it has although the registry may not
}

// Container is a container of a task.
type Container struct {
	Name        string
	Image       string // whole reference, as in the task definition
	Digest      string // if ECS resolved the tag already: pull this
	Essential   bool
	CPU         int // units
	Memory      int // hard limit, MiB; zero: none
	Ports       []Port
	Health      *world.Health
	StopTimeout time.Duration
	Environment map[string]string
	Command     []string
}

// Port is a port mapping. HostPort is what ECS chose; it is never zero in
// bridge and host mode.
type Port struct {
	Container int
	Host      int
	Protocol  string // tcp, udp
}

// Event is what an engine tells about a task.
type Event struct {
	Kind      Kind
	Container string // empty for what concerns the task as a whole
	// Reason is the agent's text: "CannotPullContainerError: …", "OutOfMemoryError: …".
	Reason string
	// ExitCode is set for Exited, if the container ran.
	ExitCode *int
	// Digest, RuntimeID (docker's container ID) and Address (where Check finds it) are set for Started.
	Digest    string
	RuntimeID string
	Healthy   bool // for Health
}

// Kind says what happened.
type Kind int

const (
	// PullStarted: the agent has the task and pulls.
	PullStarted Kind = iota + 1
	// PullStopped: all images are there.
	PullStopped
	// Started: a container runs.
	Started
	// Health: a container's health check came to a new result.
	Health
	// Exited: a container ended.
	Exited
	// Failed: a container could not be pulled, made or started. Reason says why.
	Failed
	// Reappeared: a container of the task runs again that had stopped, because
	// someone started it (docker start).
	Reappeared
	// AllStopped: no container of the task runs any more. It is always the last,
	// but for Reappeared.
	AllStopped
)

// Override is what a running task answers, whatever its image says. A nil
// field leaves it as it is.
type Override struct {
	HTTP    *int // status; -1: nothing listens
	Healthy *bool
}

// Images tells an engine about images: what a reference means now.
type Images interface {
	// Resolve returns the digest and behaviour of the image that ref names.
	// The error's text is docker's: "manifest for REF not found: manifest unknown".
	Resolve(ref string) (digest string, behaviour world.Image, err error)
}
