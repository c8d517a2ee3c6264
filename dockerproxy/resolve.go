package dockerproxy

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"

	"jumpsuite/internal/audit"
	"jumpsuite/policy"
)

// ECS's labels on the containers that its agent makes.
const (
	ecsFamilyLabel = "com.amazonaws.ecs.task-definition-family"
	ecsTaskLabel   = "com.amazonaws.ecs.task-arn"
)

// inspected is what the gate has to know of a container. The fields are the
// Engine's.
type inspected struct {
	ID      string `json:"Id"`
	Name    string
	Created string
	Image   string // the image's id
	State   containerState
	Config  struct {
		Image     string
		User      string
		Tty       bool
		OpenStdin bool
		Labels    map[string]string
	}
	HostConfig container.HostConfig
	Mounts     []mountPoint
}

// mountPoint is what is mounted in a container.
type mountPoint struct {
	Type        mount.Type
	Name        string
	Source      string
	Destination string
	RW          bool
}

// containerState is what a container is doing.
type containerState struct {
	Status     string
	Running    bool
	Paused     bool
	Restarting bool
	Pid        int
	ExitCode   int
	Error      string
	StartedAt  string
	FinishedAt string
}

// target is a container that was found: what is decided and what is done are
// both about this one.
type target struct {
	inspected
	raw   []byte // the Engine's answer; nil: a far gate said what is known
	lease *lease // nil: neither made nor started here
	yours bool   // a far gate says that it is the caller's

	onlyMade bool // it was made through a far gate just now, which has said no more of it

	excused bool // its type is listed: it may be an escape
}

// find resolves what the path calls a container to the one it means now.
func (x *exchange) find() (*target, error) {
	if x.seen != nil {
		return x.seen.target, x.agreed(x.seen.target)
	}
	t, err := x.lookup(x.ref, nil)
	if err = x.found(t, err); err == nil {
		err = x.agreed(t)
	}
	return t, err
}

func (x *exchange) lookup(ref string, query url.Values) (*target, error) {
	if !isRef(ref) {
		return nil, noSuchContainer(ref)
	}
	if x.gate.FarGate {
		return x.lookupFar(ref)
	}
	raw, _, err := x.fetch(&ask{method: http.MethodGet, path: "/containers/" + ref + "/json", query: query})
	var e *EngineError
	if errors.As(err, &e) {
		return nil, &Refusal{Status: e.Status, Text: e.Text, Engine: true}
	}
	if err != nil {
		return nil, err
	}
	t := &target{raw: raw}
	if err := json.Unmarshal(raw, &t.inspected); err != nil || !isID(t.ID) {
		return nil, unavailable("the Docker Engine's answer about container %s is not understood", printable(ref))
	}
	if x.gate.Leases != nil {
		if t.lease, err = x.gate.Leases.of(&t.inspected); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// isID reports whether s is a full container id.
func isID(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// made reports whether the container was made through the gate. Its labels are
// not asked: an image can bring any label.
func (t *target) made() bool { return t.lease != nil && t.lease.Kind == leaseMade }

// kind is the container type as rules have it.
func (t *target) kind() string {
	if family := t.Config.Labels[ecsFamilyLabel]; family != "" && !t.made() {
		return family
	}
	return policy.None
}

// byECS reports whether the ECS agent looks after the container.
func (t *target) byECS() bool { return t.Config.Labels[ecsTaskLabel] != "" && !t.made() }

func (t *target) resource() policy.Resource {
	return policy.Resource{ContainerType: t.kind(), Image: t.Config.Image}
}

func (t *target) shortName() string { return strings.TrimPrefix(t.Name, "/") }

// about is the container in an event.
func (t *target) about() audit.Event {
	e := audit.Event{Resource: audit.Resource{Container: t.ID, Name: t.shortName(), Image: t.Config.Image}}
	if k := t.kind(); k != policy.None {
		e.Resource.ContainerType = k
	}
	return e
}

// hide turns a refusal into "no such container" for callers who may not even
// list containers: whether one is there is nothing they should learn.
func (x *exchange) hide(err error) error {
	var r *Refusal
	if errors.As(err, &r) && r.Status == http.StatusForbidden && r.Rule != jumpServersRule && !x.possible(policy.DockerPs) {
		hidden := noSuchContainer(x.ref)
		hidden.Recorded = r.Recorded
		return hidden
	}
	return err
}

// permitFound decides about a container that was found. After that everything
// goes by its full id.
func (x *exchange) permitFound(t *target, a policy.Action, kind audit.Kind) (policy.Decision, error) {
	q := x.question(a, t.resource())
	d, err := x.permitted(q, x.decide(q), t.about(), kind)
	if err != nil {
		return d, x.hide(err)
	}
	return d, nil
}

// idsOf are the ids of a list of containers.
func idsOf(body []byte) ([]string, error) {
	var list []struct {
		ID string `json:"Id"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, errOpaque
	}
	var ids []string
	for _, c := range list {
		if isID(c.ID) {
			ids = append(ids, c.ID)
		}
	}
	return ids, nil
}
