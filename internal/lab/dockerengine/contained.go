package dockerengine

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/go-connections/nat"

	"jumpsuite/internal/lab/engine"
	"jumpsuite/internal/lab/rootfs"
	"jumpsuite/internal/lab/world"
)

// hostLabel tells which host of the lab a container is on.
const hostLabel = "jumpsuite.lab.host"

// Real time that real programs need, however fast the lab's clock is.
const (
	infancy     = time.Second            // after its start a program may not listen to signals yet
	readiness   = 10 * time.Second       // from its start to a program that listens
	minStop     = 10 * time.Second       // from SIGTERM to the end of a program that does not dawdle
	minInterval = 100 * time.Millisecond // between two health checks: each is a process
	minCheck    = 5 * time.Second        // for a health check
)

// contained is one container of a task. What the task's inbox runs may use all
// of it; everything else only what says so.
type contained struct {
	task *task            // never changes
	spec engine.Container // never changes

	image   pulled        // set before it is created
	id      string        // docker's, set before it is registered
	begun   chan struct{} // closed when Started is told
	name    string        // as the agent names it; the task definition's until it is created
	address atomic.Value

	born      time.Time // when it was seen to start
	startable bool      // set by launch before it is started: events about it will come
	told      bool      // Started was
	running   bool
	exited    bool
	killer    *time.Timer
}

func newContained(k *task, spec engine.Container) *contained {
	return &contained{task: k, spec: spec, name: spec.Name, begun: make(chan struct{})}
}

// Address is its IP address while it runs, or empty.
func (c *contained) Address() string {
	address, _ := c.address.Load().(string)
	return address
}

func address(state container.InspectResponse) string {
	if state.NetworkSettings == nil {
		return ""
	}
	for _, n := range state.NetworkSettings.Networks {
		if n.IPAddress != "" {
			return n.IPAddress
		}
	}
	return ""
}

// port is the container port that a load balancer's port leads to.
func (c *contained) port(port int) int {
	for _, p := range c.spec.Ports {
		if p.Container == port {
			return port
		}
	}
	for _, p := range c.spec.Ports {
		if p.Host == port {
			return p.Container
		}
	}
	return port
}

// bringUp creates and starts it. An error is in the agent's words.
func (c *contained) bringUp(ctx context.Context) error {
	if err := c.create(ctx); err != nil {
		return &agentError{name: "CannotCreateContainerError", err: err}
	}
	c.task.engine.register(c)
	if reason := c.image.behaviour.StartError; reason != "" {
		return startError(reason)
	}
	c.task.inbox.post(func() { c.startable = true })
	if err := c.task.engine.docker.ContainerStart(ctx, c.id, container.StartOptions{}); err != nil {
		c.task.inbox.post(func() { c.startable = false })
		return &agentError{name: "CannotStartContainerError", err: err}
	}
	return nil
}

// startError is what a world says of a start, which may be in the agent's
// words already.
func startError(reason string) error {
	err := errors.New(reason)
	if strings.HasPrefix(reason, "Cannot") {
		return err
	}
	return &agentError{name: "CannotStartContainerError", err: err}
}

// cachedDigest is the digest of its image, if its host has it already.
func (c *contained) cachedDigest() (string, bool) {
	if digest, ok := c.task.Host.Cached[c.spec.Image]; ok {
		return digest, true
	}
	return c.spec.Digest, c.task.Running
}

// awaitReady waits until it listens on its ports, or has ended, or will not. It
// may be called from anywhere.
func (c *contained) awaitReady(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, readiness)
	defer cancel()
	for _, port := range c.ports() {
		for ctx.Err() == nil && c.Address() != "" && !c.listens(ctx, port) {
			time.Sleep(10 * time.Millisecond) // ctx is looked at often enough
		}
	}
}

func (c *contained) listens(ctx context.Context, port int) bool {
	conn, err := c.task.engine.Dial(ctx, "tcp", net.JoinHostPort(c.Address(), strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return conn.Close() == nil
}

// awaitBegin waits until one that has been running since before the lab, as its
// world says, really runs. It takes no heed of a time-out in lab time.
func (c *contained) awaitBegin(ctx context.Context) {
	if !c.task.Running {
		return
	}
	select {
	case <-c.begun:
	case <-ctx.Done():
	case <-time.After(readiness):
	}
}

// starts says whether it was started and the event of it is still to come.
func (c *contained) starts() bool { return c.startable && !c.running && !c.exited }

// create makes the container from the tag, which must be the wanted image
// meanwhile, and puts its behaviour in.
func (c *contained) create(ctx context.Context) error {
	e := c.task.engine
	e.tagging.Lock()
	defer e.tagging.Unlock()
	if err := c.image.tag(ctx, e.docker); err != nil {
		return err
	}
	name := containerName(c.task.Family, c.task.Revision, c.spec.Name)
	made, err := e.docker.ContainerCreate(ctx, c.config(), c.hostConfig(), nil, nil, name)
	if err != nil {
		return err
	}
	c.id, c.name = made.ID, name
	return c.furnish(ctx)
}

// furnish puts the behaviour in lab time in.
func (c *contained) furnish(ctx context.Context) error {
	archive, err := rootfs.Task(c.behaviour(), c.ports(), c.stopsIn(), c.task.engine.Clock.Outside)
	if err != nil {
		return err
	}
	return c.copyIn(ctx, archive)
}

// behaviour is the image's, unless the host cannot run it: then it ends at
// once, as with "exec format error".
func (c *contained) behaviour() world.Image {
	img, code := c.image.behaviour, 255
	arm := c.task.Host.Arch == "arm64"
	if arm && img.Arch == "amd64" || !arm && img.Arch == "arm64" {
		return world.Image{Exit: &code, HTTP: -1}
	}
	return img
}

func (c *contained) copyIn(ctx context.Context, archive []byte) error {
	return c.task.engine.docker.CopyToContainer(ctx, c.id, "/", bytes.NewReader(archive), container.CopyToContainerOptions{})
}

// containerName is a name as the agent makes them: ecs-FAMILY-REVISION-NAME-HEX.
func containerName(family string, revision int, name string) string {
	random := make([]byte, 10)
	_, _ = rand.Read(random) // it never fails
	return strings.Join([]string{"ecs", clean(family), strconv.Itoa(revision), clean(name), hex.EncodeToString(random)}, "-")
}

// clean leaves out what Docker does not take in a name.
func clean(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return -1
	}, name)
}

func (c *contained) config() *container.Config {
	return &container.Config{
		Image:        c.image.name(),
		Entrypoint:   []string{rootfs.Entrypoint},
		Cmd:          c.spec.Command,
		Env:          c.environment(),
		Labels:       c.labels(),
		ExposedPorts: c.exposed(),
		Healthcheck:  c.health(),
	}
}

// labels are the agent's, and one of ours.
func (c *contained) labels() map[string]string {
	k := c.task
	return map[string]string{
		"com.amazonaws.ecs.cluster":                 k.Cluster,
		"com.amazonaws.ecs.container-name":          c.spec.Name,
		"com.amazonaws.ecs.task-arn":                k.ARN,
		"com.amazonaws.ecs.task-definition-family":  k.Family,
		"com.amazonaws.ecs.task-definition-version": strconv.Itoa(k.Revision),
		hostLabel: k.Host.ID,
	}
}

func (c *contained) environment() []string {
	env := []string{"AWS_EXECUTION_ENV=AWS_ECS_EC2"}
	for _, name := range slices.Sorted(maps.Keys(c.spec.Environment)) {
		env = append(env, name+"="+c.spec.Environment[name])
	}
	return env
}

func (c *contained) exposed() nat.PortSet {
	set := nat.PortSet{}
	for _, p := range c.spec.Ports {
		protocol := p.Protocol
		if protocol == "" {
			protocol = "tcp"
		}
		set[nat.Port(fmt.Sprintf("%d/%s", p.Container, protocol))] = struct{}{}
	}
	return set
}

// ports are the TCP ports that it answers on.
func (c *contained) ports() []int {
	var ports []int
	for _, p := range c.spec.Ports {
		if p.Protocol != "udp" && !slices.Contains(ports, p.Container) {
			ports = append(ports, p.Container)
		}
	}
	return ports
}

// health is the task definition's health check with ECS's defaults; that of an
// image is switched off, as ECS does not report it.
func (c *contained) health() *container.HealthConfig {
	h := c.spec.Health
	if h == nil {
		return &container.HealthConfig{Test: []string{"NONE"}}
	}
	outside := func(d world.Duration, zero, floor time.Duration) time.Duration {
		return max(floor, c.task.engine.Clock.Outside(orDuration(time.Duration(d), zero)))
	}
	return &container.HealthConfig{
		Test:        []string{"CMD", rootfs.HealthCheck},
		Interval:    outside(h.Interval, 30*time.Second, minInterval),
		Timeout:     outside(h.Timeout, 5*time.Second, minCheck),
		StartPeriod: outside(h.StartPeriod, 0, 0),
		Retries:     orInt(h.Retries, 3),
	}
}

func orDuration(d, zero time.Duration) time.Duration {
	if d == 0 {
		return zero
	}
	return d
}

func orInt(n, zero int) int {
	if n == 0 {
		return zero
	}
	return n
}

func (c *contained) hostConfig() *container.HostConfig {
	h := &container.HostConfig{
		NetworkMode: "bridge",
		Resources: container.Resources{
			CPUShares: max(2, int64(c.spec.CPU)), // as the agent: fewer than 2 would mean the default
			Memory:    int64(c.spec.Memory) << 20,
		},
	}
	if c.image.behaviour.OOM {
		// Without a limit it would be the machine that runs out of memory.
		h.Memory = max(h.Memory, 16<<20)
		h.MemorySwap = h.Memory
	}
	return h
}

// stopsInTime says whether it ends within its stop time-out, in lab time: real
// programs need real time, and must not be killed for that.
func (c *contained) stopsInTime() bool {
	return time.Duration(c.image.behaviour.Stop) <= c.labStopTimeout()
}

// stopsIn is how long it takes to end; negative: it never does.
func (c *contained) stopsIn() time.Duration {
	if !c.stopsInTime() {
		return -1
	}
	return c.task.engine.Clock.Outside(time.Duration(c.image.behaviour.Stop))
}

// labStopTimeout is its stop time-out, or the agent's
// ECS_CONTAINER_STOP_TIMEOUT.
func (c *contained) labStopTimeout() time.Duration {
	return orDuration(c.spec.StopTimeout, 30*time.Second)
}

// stopTimeout is the real time from SIGTERM to SIGKILL.
func (c *contained) stopTimeout() time.Duration {
	outside := c.task.engine.Clock.Outside(c.labStopTimeout())
	if c.stopsInTime() {
		return max(outside, minStop)
	}
	return outside
}

func (c *contained) inspect() (container.InspectResponse, error) {
	return c.task.engine.docker.ContainerInspect(c.task.engine.ctx, c.id)
}

func (c *contained) kill(signal string) error {
	return c.task.engine.docker.ContainerKill(c.task.engine.ctx, c.id, signal)
}

// terminate sends SIGTERM, and to one that has just started once more: process
// 1 of a container misses a signal that it does not listen to yet.
func (c *contained) terminate() error {
	if time.Since(c.born) < infancy {
		time.AfterFunc(infancy, c.thisTime(func() {
			c.task.engine.note("stop a container", c.kill("SIGTERM"), c)
		}))
	}
	return c.kill("SIGTERM")
}

// thisTime makes f run in the inbox, unless it has ended by then, even if it
// was started again.
func (c *contained) thisTime(f func()) func() {
	born := c.born
	return func() {
		c.task.inbox.post(func() {
			if c.running && c.born.Equal(born) {
				f()
			}
		})
	}
}

// ended is told that nobody needs to kill it.
func (c *contained) ended() {
	if c.killer != nil {
		c.killer.Stop()
		c.killer = nil
	}
}

// exec runs a command in it and does not wait for its end.
func (c *contained) exec(command []string) error {
	e := c.task.engine
	made, err := e.docker.ContainerExecCreate(e.ctx, c.id, container.ExecOptions{Cmd: command})
	if err != nil {
		return err
	}
	return e.docker.ContainerExecStart(e.ctx, made.ID, container.ExecStartOptions{Detach: true})
}

func (c *contained) override(o engine.Override) error {
	archive, err := rootfs.Override(o)
	if err != nil {
		return err
	}
	return c.copyIn(c.task.engine.ctx, archive)
}

func (c *contained) remove(force bool) error {
	if c.id == "" || c.running && !force {
		return nil
	}
	c.ended()
	c.task.engine.unregister(c)
	return c.task.engine.docker.ContainerRemove(c.task.engine.ctx, c.id,
		container.RemoveOptions{Force: force, RemoveVolumes: true})
}
