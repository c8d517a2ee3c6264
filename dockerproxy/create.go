package dockerproxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"

	"jumpsuite/internal/audit"
	"jumpsuite/policy"
)

// serveCreate makes a container: what docker run and docker create both begin
// with.
func serveCreate(x *exchange) error {
	var c container.CreateRequest
	if err := unmarshal(x.body, &c); err != nil {
		return err
	}
	if c.Config == nil || c.Image == "" {
		return badRequest("no image is given")
	}
	if err := judge(&c, createVerdicts); err != nil {
		return err
	}
	if c.HostConfig == nil {
		c.HostConfig = &container.HostConfig{}
	}
	asked, err := runAsked(&c)
	if err != nil {
		return err
	}
	image, err := x.imageFor(&c, asked)
	if err != nil {
		return err
	}
	return x.create(&c, asked, image)
}

// imageFor finds the image. A caller who may not run it learns that, and not
// whether it is there.
func (x *exchange) imageFor(c *container.CreateRequest, asked *policy.Run) (*foundImage, error) {
	if x.gate.FarGate && saysItself(c.Image) && isImageName(c.Image) {
		return &foundImage{name: c.Image, names: []string{c.Image}}, nil
	}
	image, err := x.findImage(c.Image)
	var r *Refusal
	if !errors.As(err, &r) || r.Status != http.StatusNotFound {
		return image, err
	}
	q := x.runQuestion(c.Image, asked)
	if d := x.decide(q); !d.Allowed() {
		_, err = x.permitted(q, d, audit.Event{Resource: audit.Resource{Image: c.Image}, Argv: c.Cmd}, audit.Decision)
	}
	return nil, err
}

// runAsked is the part of a create that the policy speaks of.
func runAsked(c *container.CreateRequest) (*policy.Run, error) {
	h := c.HostConfig
	r := &policy.Run{
		User: c.User, Network: string(h.NetworkMode), Privileged: h.Privileged, Memory: h.Memory,
		Publish: len(h.PortBindings) > 0, Digest: pinned(c.Image),
	}
	if h.PidsLimit != nil {
		r.Pids = *h.PidsLimit
	}
	if err := networks(c, r); err != nil {
		return nil, err
	}
	if err := processors(h, r); err != nil {
		return nil, err
	}
	return r, mounts(h, r)
}

// networks: the client repeats the network's name among the endpoints.
func networks(c *container.CreateRequest, r *policy.Run) error {
	if c.NetworkingConfig == nil {
		return nil
	}
	for name := range c.NetworkingConfig.EndpointsConfig {
		if err := networkName(name); err != nil {
			return forbidden("", "%v", err)
		}
		if name != r.Network && !(name == "default" && r.Network == "") {
			return forbidden("", "a container can be in one network only")
		}
	}
	return nil
}

// cpuPeriod is the kernel's default, in microseconds.
const cpuPeriod = 100000

func processors(h *container.HostConfig, r *policy.Run) error {
	r.CPUs = float64(h.NanoCPUs) / 1e9
	if h.CPUQuota == 0 && h.CPUPeriod == 0 {
		return nil
	}
	if h.NanoCPUs != 0 || h.CPUQuota <= 0 {
		return badRequest("--cpus, or --cpu-quota with or without --cpu-period")
	}
	period := h.CPUPeriod
	if period == 0 {
		period = cpuPeriod
	}
	r.CPUs = float64(h.CPUQuota) / float64(period)
	return nil
}

func mounts(h *container.HostConfig, r *policy.Run) error {
	for _, s := range h.Binds {
		b, err := parseBind(s)
		if err != nil {
			return forbidden("", "%v", err)
		}
		mounted(r, b.source, b.readOnly)
	}
	for _, m := range h.Mounts {
		if m.Target == "" {
			return badRequest("a mount has no target")
		}
		hostPath := strings.HasPrefix(m.Source, "/")
		switch {
		case m.Type == mount.TypeTmpfs && m.Source != "", m.Type == mount.TypeVolume && hostPath, m.Type == mount.TypeBind && !hostPath:
			return badRequest("source %q does not go with a mount of type %s", clip(m.Source), m.Type)
		case m.Type != mount.TypeTmpfs && m.Source != "":
			mounted(r, m.Source, m.ReadOnly)
		}
	}
	return nil
}

func mounted(r *policy.Run, source string, readOnly bool) {
	switch {
	case !strings.HasPrefix(source, "/"):
		r.Volumes = append(r.Volumes, source)
	case readOnly:
		r.Binds = append(r.Binds, source+":ro")
	default:
		r.Binds = append(r.Binds, source)
	}
}

func (x *exchange) runQuestion(image string, asked *policy.Run) policy.Request {
	q := x.question(policy.DockerRun, policy.Resource{ContainerType: policy.None, Image: image})
	q.Run = asked
	return q
}

// decideRun asks for docker.run and, where that is not allowed, docker.create: a
// create does not tell for which of them it is, unless our own CLI says so.
func (x *exchange) decideRun(q policy.Request) (policy.Request, policy.Decision) {
	create := q
	create.Action = policy.DockerCreate
	if x.req.value(verbHeader) == "create" {
		return create, x.decide(create)
	}
	d := x.decide(q)
	if !d.Allowed() {
		if other := x.decide(create); other.Allowed() {
			return create, other
		}
	}
	return q, d
}

// decideImage decides about the image that was found. Asked for by its id it is
// allowed if one of its names is.
func (x *exchange) decideImage(image *foundImage, asked *policy.Run) (policy.Request, policy.Decision) {
	names := image.names
	if len(names) == 0 {
		names = []string{policy.None}
	}
	var q policy.Request
	var d policy.Decision
	for _, name := range names {
		q, d = x.decideRun(x.runQuestion(name, asked))
		if d.Allowed() {
			break
		}
	}
	return q, d
}

func (x *exchange) create(c *container.CreateRequest, asked *policy.Run, image *foundImage) error {
	q, d := x.decideImage(image, asked)
	about := audit.Event{Argv: slices.Concat(c.Entrypoint, c.Cmd), Resource: audit.Resource{Image: q.Resource.Image, Name: x.query.Get("name")}}
	if x.gate.FarGate {
		return x.createFar(c, q, d, about)
	}
	unlock, err := x.lockLeases()
	if err != nil {
		return err
	}
	defer unlock()
	if d.Allowed() {
		if err := x.createPossible(asked, d); err != nil {
			return x.refuse(q, about, err)
		}
	}
	if _, err := x.permitted(q, d, about, audit.Open); err != nil {
		return err
	}
	limits := &d.Obligations.Limits.Run
	le := newLease(leaseMade, x.conn.caller.owner(), x.event.ID, lasting(limits.For))
	le.Remove, le.Image = c.HostConfig.AutoRemove, q.Resource.Image
	furnish(c, limits, le, image)
	return x.makeContainer(c, le, image, unlock)
}

// lasting is how long a lease is for: a policy that says nothing means 8 hours.
func lasting(d time.Duration) time.Duration {
	if d <= 0 {
		return 8 * time.Hour
	}
	return d
}

// lockLeases takes the lock; unlock may be called more than once.
func (x *exchange) lockLeases() (unlock func(), err error) {
	if x.gate.Leases == nil {
		return nil, &Refusal{Status: http.StatusServiceUnavailable, Text: "containers cannot be made or started here: there is nowhere to keep whose they are"}
	}
	x.gate.Leases.using.RLock()
	lock, err := x.gate.Leases.lock()
	if err != nil {
		x.gate.Leases.using.RUnlock()
		return nil, unavailable("%v", err)
	}
	return sync.OnceFunc(func() {
		lock.Close()
		x.gate.Leases.using.RUnlock()
	}), nil
}

// createPossible refuses what the policy allows in words and what is not so.
func (x *exchange) createPossible(asked *policy.Run, d policy.Decision) error {
	if err := x.room(d.Obligations.Limits.Run.Containers); err != nil {
		return err
	}
	if err := x.freeName(x.query.Get("name")); err != nil {
		return err
	}
	for _, v := range asked.Volumes {
		if err := x.checkVolume(v); err != nil {
			return err
		}
	}
	for _, b := range asked.Binds {
		if err := checkBind(strings.TrimSuffix(b, ":ro")); err != nil {
			return err
		}
	}
	if d.Obligations.Record == policy.RecordNothing {
		return nil
	}
	return x.recordable(false)
}

// shortID is how many digits of an id docker shows.
const shortID = 12

// isDigits reports whether s can be the beginning of an id.
func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789abcdef") == "" }

// freeName refuses a name by which people already call another container: the
// Engine takes a name for a name first, and then for the beginning of an id. One
// as long as ids are shown can be that of a container on another host.
func (x *exchange) freeName(name string) error {
	if !isDigits(name) {
		return nil
	}
	if len(name) >= shortID {
		return &Refusal{Status: http.StatusConflict, Text: fmt.Sprintf("the name %s looks like a container's id", name), Hint: "choose another name"}
	}
	t, err := x.lookup(name, nil)
	var r *Refusal
	switch {
	case isNotFound(err), err == nil && t.shortName() == name: // the Engine says itself that a name is taken
		return nil
	case err != nil && (!errors.As(err, &r) || !r.Engine):
		return err
	}
	return &Refusal{Status: http.StatusConflict, Text: fmt.Sprintf("the name %s is how another container's id begins", name), Hint: "choose another name"}
}

// room refuses a container more than the caller may have made or started at a
// time. The lock on the leases is held.
func (x *exchange) room(most int) error {
	all, err := x.gate.Leases.all()
	if err != nil {
		return unavailable("%v", err)
	}
	n := 0
	for key, le := range all {
		if le.Owner == x.conn.caller.owner() && x.stands(key, le) {
			n++
		}
	}
	if most > 0 && n >= most {
		return &Refusal{Status: http.StatusTooManyRequests, Rule: "limits.run.containers",
			Text: fmt.Sprintf("you have %d containers here that you made or started, and that is as many as you may (rule limits.run.containers)", n),
			Hint: "end some of them; what is left behind is removed when its time is over"}
	}
	return nil
}

// stands reports whether there still is what a lease is for. Leases of what is
// gone are removed.
func (x *exchange) stands(key string, le *lease) bool {
	if le.Container == "" {
		return time.Since(le.Since) < unboundTime
	}
	t, err := x.lookup(le.Container, nil)
	var r *Refusal
	if errors.As(err, &r) && r.Status == http.StatusNotFound {
		x.gate.Leases.remove(key)
		return false
	}
	if err == nil && le.Kind == leaseStarted && le.StartedAt != "" && le.StartedAt != t.State.StartedAt {
		return false
	}
	return err != nil || le.Kind == leaseMade || t.State.Running
}

// checkVolume refuses a volume whose driver mounts something of its own choice.
func (x *exchange) checkVolume(name string) error {
	v, err := x.volume(name)
	if isNotFound(err) {
		return nil // it will be made, as a plain one
	}
	if err != nil {
		return err
	}
	if v.Driver != "local" || len(v.Options) > 0 {
		return forbidden("", "volume %s is no plain volume: its driver has options", name)
	}
	return nil
}

// furnish sets what is the gate's to set: caps, confinement, labels. What the
// caller asked for is within the caps already.
func furnish(c *container.CreateRequest, l *policy.RunLimits, le *lease, image *foundImage) {
	h := c.HostConfig
	h.ContainerIDFile = ""
	for i := range h.ConsoleSize {
		h.ConsoleSize[i] = min(h.ConsoleSize[i], maxConsole)
	}
	cap64(&h.Memory, l.Memory)
	h.MemorySwap = h.Memory
	if h.Memory > 0 {
		h.MemoryReservation = min(h.MemoryReservation, h.Memory)
		h.ShmSize = min(h.ShmSize, h.Memory)
	}
	if h.CPUQuota == 0 && h.NanoCPUs == 0 && l.CPUs > 0 {
		// As a quota: for --cpus the Engine refuses more than the host has.
		h.CPUPeriod = cpuPeriod
		h.CPUQuota = int64(math.Round(l.CPUs * cpuPeriod))
	}
	pids := l.Pids
	if h.PidsLimit != nil && *h.PidsLimit > 0 {
		pids = min(*h.PidsLimit, or(l.Pids, *h.PidsLimit))
	}
	if pids > 0 {
		h.PidsLimit = &pids
	}
	h.SecurityOpt = []string{"no-new-privileges"}
	h.CapDrop = withDropped(h.CapDrop)
	tmpfsAnew(h)
	portsAnew(h)
	markAsOurs(c.Config, le, image)
}

// cap64 is the smaller of what was asked for and the cap; zero is unlimited.
func cap64(v *int64, most int64) {
	if most > 0 && (*v <= 0 || *v > most) {
		*v = most
	}
}

func or(a, b int64) int64 {
	if a != 0 {
		return a
	}
	return b
}

// alwaysDropped are capabilities of Docker's defaults that nobody needs who
// looks into something: raw packets can pretend to be the host's other
// containers, device nodes can be those of the host's disks.
var alwaysDropped = []string{"MKNOD", "NET_RAW"}

func withDropped(asked []string) []string {
	out := slices.Clone(asked)
	for _, c := range asked {
		if strings.EqualFold(c, "ALL") {
			return out
		}
	}
	return append(out, alwaysDropped...)
}

func tmpfsAnew(h *container.HostConfig) {
	for target, options := range h.Tmpfs {
		size, _ := tmpfsSize(options) // judged already
		h.Tmpfs[target] = "rw,noexec,nosuid,nodev,size=" + strconv.FormatInt(size, 10)
	}
	for i := range h.Mounts {
		if h.Mounts[i].Type == mount.TypeTmpfs {
			o := h.Mounts[i].TmpfsOptions
			if o == nil {
				o = &mount.TmpfsOptions{}
			}
			o.SizeBytes = or(o.SizeBytes, maxShm)
			h.Mounts[i].TmpfsOptions = o
		}
	}
}

func portsAnew(h *container.HostConfig) {
	if len(h.PortBindings) == 0 {
		h.PortBindings = nil
	}
}

// markAsOurs sets the gate's labels. A container has those of its image, too: where
// they are reserved they are emptied, so that nobody takes it for one of ECS's.
func markAsOurs(c *container.Config, le *lease, image *foundImage) {
	labels := map[string]string{}
	for k := range image.Config.Labels {
		if reserved(k) != "" {
			labels[k] = ""
		}
	}
	for k, v := range c.Labels {
		labels[k] = v
	}
	labels[ownerLabel] = le.Owner.User
	labels[leaseLabel] = le.Number
	labels[untilLabel] = le.Until.Format(time.RFC3339)
	c.Labels = labels
}

// makeContainer writes the lease, then makes the container, then files the lease
// under the container's id: whatever happens in between, it is known whose it is.
// Only the first needs the lock: the lease counts from then on. The Engine may take
// long, if it has to copy what an image has where a volume goes, and a caller may
// never read the answer.
func (x *exchange) makeContainer(c *container.CreateRequest, le *lease, image *foundImage, unlock func()) error {
	leases := x.gate.Leases
	if err := leases.write(le.Number, le); err != nil {
		return unavailable("%v", err)
	}
	unlock()
	query := url.Values{}
	if name := x.query.Get("name"); name != "" {
		query.Set("name", name)
	}
	body, ans, err := x.fetch(&ask{method: http.MethodPost, path: "/containers/create", query: query, body: c})
	if err != nil {
		var e *EngineError
		if errors.As(err, &e) {
			leases.remove(le.Number) // the Engine said no: there is nothing
		}
		return engineRefusal(err)
	}
	var made container.CreateResponse
	if err := json.Unmarshal(body, &made); err != nil || !isID(made.ID) {
		return unavailable("the Docker Engine's answer to create is not understood")
	}
	le.Container = made.ID
	if err := leases.bind(le); err != nil {
		return x.unmake(le, unavailable("%v", err))
	}
	if err := x.sameImage(made.ID, image); err != nil {
		return x.unmake(le, err)
	}
	x.event.Resource.Container = made.ID
	return x.replyJSON(ans.status, made)
}

// sameImage makes sure that the container is of the image that was decided on,
// and not of another that got its name in between.
func (x *exchange) sameImage(id string, image *foundImage) error {
	t, err := x.lookup(id, nil)
	if err != nil {
		return err
	}
	if t.Image != image.ID {
		return &Refusal{Status: http.StatusConflict, Recorded: true, Text: "the image's name was given to another image meanwhile", Hint: "call it again"}
	}
	return nil
}

// unmake removes a container that must not stay, and returns why.
func (x *exchange) unmake(le *lease, why error) error {
	_, _, err := x.fetch(&ask{method: http.MethodDelete, path: "/containers/" + le.Container, query: url.Values{"force": {"1"}, "v": {"1"}}})
	if err == nil {
		err = x.gate.Leases.remove(le.Container)
	}
	if err != nil {
		x.gate.log().Error("a container that was refused is left", "container", le.Container, "err", err)
	}
	return why
}
