package engine

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"jumpsuite/internal/lab/clock"
	"jumpsuite/internal/lab/world"
)

// How long the agent's and docker's steps take in a simulated task, lab time.
const (
	simPull   = 2 * time.Second  // an image that does not say
	simRetry  = 10 * time.Second // until the agent gives up a pull that fails
	simCreate = time.Second      // to create and start the containers
	simStop   = time.Second      // to end after SIGTERM
)

// Sim plays tasks by the clock, as the behaviour of their images says. Nothing runs.
type Sim struct {
	clock  *clock.Clock
	images Images

	mu     sync.Mutex
	tasks  map[string]*simTask
	events []func() // to be told
	some   *sync.Cond
	closed bool
}

// NewSim returns an engine that plays tasks on the given clock.
func NewSim(c *clock.Clock, images Images) *Sim {
	s := &Sim{clock: c, images: images, tasks: map[string]*simTask{}}
	s.some = sync.NewCond(&s.mu)
	go s.tell()
	return s
}

type simTask struct {
	Task
	containers []*simContainer
	stopping   bool
	over       bool // its containers have ended, or its host is lost
	lost       bool
}

type simContainer struct {
	Container
	image   world.Image
	digest  string
	started time.Time
	running bool
	ended   bool
	known   bool // a health check had a result
	healthy bool
	turn    int // of its health check, to know an old timer
	http    *int
	health  *bool
}

// tell calls the Notify functions in order, without the lock.
func (s *Sim) tell() {
	for {
		s.mu.Lock()
		for len(s.events) == 0 && !s.closed {
			s.some.Wait()
		}
		events := s.events
		s.events = nil
		closed := s.closed
		s.mu.Unlock()
		if closed {
			return
		}
		for _, e := range events {
			e()
		}
	}
}

// notify queues an event. The caller holds the lock.
func (s *Sim) notify(t *simTask, e Event) {
	if t.lost || t.Notify == nil {
		return
	}
	f := t.Notify
	s.events = append(s.events, func() { f(e) })
	s.some.Signal()
}

// after runs f with the lock when d of lab time has passed, unless the task is over.
func (s *Sim) after(t *simTask, d time.Duration, f func()) {
	s.clock.AfterFunc(d, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.closed && !t.over {
			f()
		}
	})
}

// Launch pulls the images of a task and starts its containers, one after the
// other's pull.
func (s *Sim) Launch(job Task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &simTask{Task: job}
	for _, c := range job.Containers {
		t.containers = append(t.containers, &simContainer{Container: c})
	}
	s.tasks[job.ID] = t
	s.notify(t, Event{Kind: PullStarted})
	if job.Running {
		s.adopt(t)
		return
	}
	s.pull(t)
}

// adopt starts a task that has been running before the lab: whatever its image
// is now, it was there then.
func (s *Sim) adopt(t *simTask) {
	for _, c := range t.containers {
		c.digest, c.image, _ = s.resolve(t, c)
		c.digest = firstOf(c.digest, c.Digest)
	}
	s.notify(t, Event{Kind: PullStopped})
	for _, c := range t.containers {
		s.start(t, c)
		if c.Health != nil {
			s.setHealth(t, c, true)
		}
	}
}

func firstOf(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

// resolve finds the image of a container: by the digest that ECS gave, else by
// its tag, else in the host's cache (ECS_IMAGE_PULL_BEHAVIOR=default).
func (s *Sim) resolve(t *simTask, c *simContainer) (string, world.Image, error) {
	ref := c.Image
	if c.Digest != "" {
		ref = withDigest(ref, c.Digest)
	}
	digest, image, err := s.images.Resolve(ref)
	if err == nil {
		image, err = image.For(t.Host.Arch)
	}
	if err == nil {
		return digest, image, nil
	}
	if cached, ok := t.Host.Cached[c.Image]; ok {
		return cached, world.Image{}, nil
	}
	return "", world.Image{}, err
}

// withDigest names the repository of a reference by digest.
func withDigest(ref, digest string) string {
	if i := strings.IndexByte(ref, '@'); i >= 0 {
		ref = ref[:i]
	}
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		ref = ref[:i]
	}
	return ref + "@" + digest
}

// pull resolves the images; the slowest one says how long it takes.
func (s *Sim) pull(t *simTask) {
	var longest time.Duration
	for _, c := range t.containers {
		var err error
		c.digest, c.image, err = s.resolve(t, c)
		if err != nil {
			s.after(t, simRetry, func() {
				s.fail(t, c, "CannotPullContainerError: Error response from daemon: "+err.Error())
			})
			return
		}
		wait := time.Duration(c.image.Pull)
		if wait == 0 {
			wait = simPull
		}
		longest = max(longest, wait)
	}
	s.after(t, longest, func() {
		s.notify(t, Event{Kind: PullStopped})
		s.after(t, simCreate, func() { s.startAll(t) })
	})
}

// fail ends a task of which a container could not be started.
func (s *Sim) fail(t *simTask, c *simContainer, reason string) {
	c.ended = true
	s.notify(t, Event{Kind: Failed, Container: c.Name, Reason: reason})
	s.stopAll(t)
}

func (s *Sim) startAll(t *simTask) {
	if t.stopping {
		return
	}
	for _, c := range t.containers {
		if c.image.StartError != "" {
			s.fail(t, c, startError(c.image.StartError))
			return
		}
		s.start(t, c)
	}
}

func startError(text string) string {
	if strings.HasPrefix(text, "Cannot") {
		return text
	}
	return "CannotStartContainerError: Error response from daemon: " + text
}

// start runs a container, and plans what its image will do.
func (s *Sim) start(t *simTask, c *simContainer) {
	c.running, c.started = true, s.clock.Now()
	id := sha256.Sum256([]byte(t.ID + "/" + c.Name))
	s.notify(t, Event{Kind: Started, Container: c.Name, Digest: c.digest, RuntimeID: fmt.Sprintf("%x", id)})
	if wrongArch(t.Host.Arch, c.image.Arch) {
		s.after(t, 0, func() { s.exit(t, c, 255, "") })
		return
	}
	if c.image.OOM {
		s.after(t, time.Duration(c.image.After), func() {
			s.exit(t, c, 137, "OutOfMemoryError: Container killed due to memory usage")
		})
	} else if code := c.image.Exit; code != nil {
		s.after(t, time.Duration(c.image.After), func() { s.exit(t, c, *code, "") })
	}
	if c.Health == nil {
		return
	}
	if wait := time.Duration(c.image.HealthyAfter); wait > 0 {
		s.after(t, wait, func() { s.planHealth(t, c) })
	}
	s.planHealth(t, c)
}

// wrongArch reports whether a host cannot run an image: its programs end at
// once with "exec format error".
func wrongArch(host, image string) bool {
	if host == "" {
		host = "x86_64"
	}
	return image == "amd64" && host != "x86_64" || image == "arm64" && host != "arm64"
}

// good is what a health check of the container would say now.
func (c *simContainer) good(now time.Time) bool {
	switch {
	case c.health != nil:
		return *c.health
	case c.image.HealthyAfter > 0:
		return !now.Before(c.started.Add(time.Duration(c.image.HealthyAfter)))
	}
	return !c.image.Unhealthy
}

// planHealth plans the next change of a container's health: docker checks at
// each interval; one good check makes it healthy, and as many bad ones as
// Retries, not counting those in the start period, unhealthy.
func (s *Sim) planHealth(t *simTask, c *simContainer) {
	if c.Health == nil || !c.running {
		return
	}
	c.turn++
	now := s.clock.Now()
	good := c.good(now)
	if c.known && c.healthy == good {
		return
	}
	interval := max(time.Duration(c.Health.Interval), time.Second)
	wait := interval
	if !good {
		wait = time.Duration(max(c.Health.Retries, 1)) * interval
		if end := c.started.Add(time.Duration(c.Health.StartPeriod)); end.After(now) {
			wait += end.Sub(now)
		}
	}
	turn := c.turn
	s.after(t, wait, func() {
		if c.turn == turn && c.running {
			s.setHealth(t, c, good)
		}
	})
}

func (s *Sim) setHealth(t *simTask, c *simContainer, healthy bool) {
	c.known, c.healthy = true, healthy
	s.notify(t, Event{Kind: Health, Container: c.Name, Healthy: healthy})
	s.planHealth(t, c)
}

// exit ends a container. An essential one takes the others along.
func (s *Sim) exit(t *simTask, c *simContainer, code int, reason string) {
	if !c.running {
		return
	}
	c.running, c.ended = false, true
	s.notify(t, Event{Kind: Exited, Container: c.Name, ExitCode: &code, Reason: reason})
	if c.Essential {
		s.stopAll(t)
		return
	}
	s.finish(t)
}

// stopAll sends SIGTERM to what runs, and SIGKILL when its time-out is over.
func (s *Sim) stopAll(t *simTask) {
	if t.stopping {
		s.finish(t)
		return
	}
	t.stopping = true
	for _, c := range t.containers {
		if !c.running {
			c.ended = true
			continue
		}
		wait, code := simStop, 0
		if c.image.Stop > 0 {
			wait = time.Duration(c.image.Stop)
		}
		if limit := c.StopTimeout; limit > 0 && wait > limit {
			wait, code = limit, 137
		}
		s.after(t, wait, func() { s.exit(t, c, code, "") })
	}
	s.finish(t)
}

// finish tells that no container runs any more.
func (s *Sim) finish(t *simTask) {
	for _, c := range t.containers {
		if c.running || !c.ended {
			return
		}
	}
	s.notify(t, Event{Kind: AllStopped})
	t.over = true
}

// Stop ends the containers of a task.
func (s *Sim) Stop(taskID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tasks[taskID]; t != nil && !t.over && !t.stopping {
		s.stopAll(t)
	}
}

// Remove forgets a task.
func (s *Sim) Remove(taskID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tasks, taskID)
}

// Lose ends the tasks of a host without a word.
func (s *Sim) Lose(hostID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tasks {
		if t.Host.ID != hostID || t.over {
			continue
		}
		t.lost, t.over = true, true
		for _, c := range t.containers {
			c.running, c.ended = false, true
		}
	}
}

var (
	errRefused = errors.New("connection refused")
	errGone    = fmt.Errorf("no answer: %w", context.DeadlineExceeded)
)

// Check answers as the container's image says. A lost host does not answer at all.
func (s *Sim) Check(_ context.Context, taskID, container string, port int, _ string) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tasks[taskID]
	if t == nil {
		return 0, errRefused
	}
	if t.lost {
		return 0, errGone
	}
	for _, c := range t.containers {
		if c.Name == container {
			return c.answer(port, s.clock.Now())
		}
	}
	return 0, errRefused
}

func (c *simContainer) answer(port int, now time.Time) (int, error) {
	status := c.image.HTTP
	if c.http != nil {
		status = *c.http
	} else if now.Before(c.started.Add(time.Duration(c.image.HTTPAfter))) {
		return 0, errRefused
	}
	if !c.running || status < 0 || !c.listens(port) {
		return 0, errRefused
	}
	if status == 0 {
		status = 200
	}
	return status, nil
}

func (c *simContainer) listens(port int) bool {
	for _, p := range c.Ports {
		if p.Container == port {
			return true
		}
	}
	return false
}

// Override changes what a task's containers answer.
func (s *Sim) Override(taskID string, o Override) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tasks[taskID]
	if t == nil || t.over {
		return
	}
	for _, c := range t.containers {
		if o.HTTP != nil {
			c.http = o.HTTP
		}
		if o.Healthy != nil {
			c.health = o.Healthy
			s.planHealth(t, c)
		}
	}
}

// Kill ends one container.
func (s *Sim) Kill(taskID, container string, code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tasks[taskID]
	if t == nil || t.over {
		return
	}
	for _, c := range t.containers {
		if c.Name == container {
			s.exit(t, c, code, "")
		}
	}
}

// Close ends everything, silently.
func (s *Sim) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.some.Signal()
	return nil
}
