package dockerproxy

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"jumpsuite/internal/audit"
	"jumpsuite/policy"
)

// engineHeaders are what a ping tells a client about the Engine.
var engineHeaders = []struct{ key, name string }{
	{"ostype", "Ostype"},
	{"docker-experimental", "Docker-Experimental"},
	{"builder-version", "Builder-Version"},
}

// servePing is not recorded: clients ask before everything they do. The version
// in it makes them speak the one that the gate speaks.
func servePing(x *exchange) error {
	if x.conn.fleet != nil && !x.gate.FarGate {
		return servePingHere(x, farVersion)
	}
	if x.gate.FarGate && x.gate.Version != nil {
		if v, err := pin(x.gate.Version()); err == nil {
			return servePingHere(x, v)
		}
	}
	ans, err := x.send(&ask{method: x.req.method, path: "/_ping"})
	if err != nil {
		return err
	}
	body, err := ans.all(maxAnswer)
	ans.up.finished()
	if err != nil || !ans.lasts() {
		x.conn.dropUpstream()
	}
	if err != nil {
		return x.gate.gone(err)
	}
	version := x.gate.pinned.Load()
	if x.gate.FarGate { // the host's gate has said which it speaks with its Engine
		v, err := pin(ans.value("api-version"))
		if err != nil {
			return err
		}
		version = &v
		if x.gate.Spoke != nil {
			x.gate.Spoke(v)
		}
	}
	if version == nil { // another connection has just found the Engine gone
		return unavailable("the Docker Engine cannot be reached")
	}
	x.answered = true
	b := appendHead(x.conn.out[:0], ans.status, "text/plain; charset=utf-8", int64(len(body)), x.last)
	b = append(append(append(b, "Api-Version: "...), *version...), "\r\n"...)
	for _, h := range engineHeaders {
		if v := ans.value(h.key); v != "" {
			b = append(append(append(append(b, h.name...), ": "...), v...), "\r\n"...)
		}
	}
	b = append(append(b, "Swarm: inactive\r\nCache-Control: no-cache, no-store, must-revalidate\r\n\r\n"...), body...)
	x.conn.out = b[:0]
	_, err = x.conn.conn.Write(b)
	return err
}

// pass asks the Engine and answers with what it says.
func (x *exchange) pass(a *ask) error {
	body, ans, err := x.fetch(a)
	if err != nil {
		return engineRefusal(err)
	}
	return x.reply(ans.status, "application/json", visible(body))
}

func serveVersion(x *exchange) error {
	if _, err := x.permit(x.question(policy.DockerVersion, policy.Resource{}), audit.Event{}); err != nil {
		return err
	}
	return x.pass(&ask{method: http.MethodGet, path: "/version"})
}

// engineInfo is what is left of the Engine's info: docker inspect wants to know
// whether there is a swarm, and people which Engine it is. The rest (proxies,
// registries, labels, plugins) is the host's.
type engineInfo struct {
	ID                string
	Name              string
	ServerVersion     string
	OperatingSystem   string
	OSType            string
	Architecture      string
	KernelVersion     string
	CgroupVersion     string `json:",omitempty"`
	NCPU              int
	MemTotal          int64
	Containers        int
	ContainersRunning int
	ContainersPaused  int
	ContainersStopped int
	Images            int
	Swarm             struct{ LocalNodeState string }
}

func serveInfo(x *exchange) error {
	action := policy.DockerVersion
	if x.possible(policy.DockerInspect) {
		action = policy.DockerInspect
	}
	if err := x.permitAnywhere(action); err != nil {
		return err
	}
	body, _, err := x.fetch(&ask{method: http.MethodGet, path: "/info"})
	if err != nil {
		return engineRefusal(err)
	}
	var info engineInfo
	if err := json.Unmarshal(body, &info); err != nil {
		return unavailable("the Docker Engine's info is not understood")
	}
	info.ID, info.Swarm.LocalNodeState = "", "inactive"
	return x.replyJSON(http.StatusOK, info)
}

// permitAnywhere decides what is about no one thing.
func (x *exchange) permitAnywhere(a policy.Action) error {
	q := x.question(a, policy.Resource{})
	_, err := x.permitted(q, x.gate.policy.Load().Possible(q), audit.Event{}, audit.Decision)
	return err
}

func serveImages(x *exchange) error {
	if err := x.noGuess(); err != nil {
		return err
	}
	if _, err := x.permit(x.question(policy.DockerImages, policy.Resource{}), audit.Event{}); err != nil {
		return err
	}
	body, _, err := x.fetch(&ask{method: http.MethodGet, path: "/images/json", query: x.query})
	if err != nil {
		return engineRefusal(err)
	}
	shown, err := x.redactor().images(body)
	if err != nil {
		return err
	}
	return x.show(shown)
}

func servePs(x *exchange) error {
	if err := x.noGuess(); err != nil {
		return err
	}
	if _, err := x.permit(x.question(policy.DockerPs, policy.Resource{}), audit.Event{}); err != nil {
		return err
	}
	body, _, err := x.fetch(&ask{method: http.MethodGet, path: "/containers/json", query: x.query})
	if err != nil {
		return engineRefusal(err)
	}
	shown, err := x.redactor().list(body)
	if err != nil {
		return err
	}
	return x.show(shown)
}

// show answers with what others than the caller have written, in part.
func (x *exchange) show(body []byte) error {
	return x.reply(http.StatusOK, "application/json", visible(body))
}

// noGuess refuses to look for a value that is not shown: whether something is
// found would tell whether it was guessed.
func (x *exchange) noGuess() error {
	set, err := parseFilters(cmp.Or(x.query.Get("filters"), "{}"))
	if err != nil {
		return err
	}
	r := x.redactor()
	for _, f := range set["label"] {
		if key, value, ok := strings.Cut(f, "="); ok && r.label(key, value) != value {
			return forbidden("leave out the value", "a filter by the value of label %s is not available, since that is not shown", printable(key))
		}
	}
	return nil
}

// serveInspect shows a container. Callers who may read its logs or enter it,
// but not inspect it, get the little that their clients need for that.
func serveInspect(x *exchange) error {
	if _, _, _, enough := x.unlooked(nil); enough { // docker exec looks whether it is there, and is told by create, too
		return x.replyJSON(http.StatusOK, struct{}{})
	}
	if x.glance() && x.req.value(verbHeader) == "start" && (x.possible(policy.DockerStart) || x.possible(policy.DockerRun)) {
		x.gate.spare(x.ctx, streamsOfRun) // it is to be attached to
	}
	var ans *answer
	var t *target
	var err error
	if !x.glance() {
		ans, t, err = x.ahead(policy.DockerInspect, "json")
	}
	if err == nil && t == nil {
		t, err = x.find()
	}
	if err != nil {
		return err
	}
	q := x.question(policy.DockerInspect, t.resource())
	d := x.decide(q)
	if (!d.Allowed() || x.glance()) && x.maySee(t) {
		x.unread(ans)
		return x.serveOutline(t)
	}
	if _, err := x.permitted(q, d, t.about(), audit.Decision); err != nil {
		x.unread(ans)
		return x.hide(err)
	}
	raw, err := x.wholeOf(t, ans)
	if err != nil {
		return engineRefusal(err)
	}
	shown, err := x.redactor().container(raw)
	if err != nil {
		return err
	}
	return x.show(shown)
}

// wholeOf is what inspect says of a container, of which the answer may be there.
func (x *exchange) wholeOf(t *target, ans *answer) (raw []byte, err error) {
	switch {
	case ans != nil:
		raw, _, err = x.take(ans)
	case len(x.query) > 0 || t.raw == nil: // to count a container's size takes the Engine time
		raw, _, err = x.fetch(&ask{method: http.MethodGet, path: "/containers/" + t.ID + "/json", query: x.query})
	default:
		raw = t.raw
	}
	return raw, err
}

func (x *exchange) maySee(t *target) bool {
	if t.leasedTo(x.conn.caller.owner()) {
		return true
	}
	for _, a := range []policy.Action{policy.DockerLogs, policy.DockerStats, policy.DockerStart} {
		if x.decide(x.question(a, t.resource())).Allowed() {
			return true
		}
	}
	return x.possible(policy.DockerExec)
}

// outline is a container without its configuration.
type outline struct {
	ID     string `json:"Id"`
	Name   string
	Image  string
	State  containerState
	Config struct {
		Image     string
		Tty       bool
		OpenStdin bool
	}
	HostConfig struct{ AutoRemove bool }
}

func (x *exchange) serveOutline(t *target) error {
	e := t.about()
	e.Action, e.Kind, e.Verdict, e.Rule = policy.DockerInspect.String(), audit.Decision, audit.Allow, "gate"
	e.Detail = "outline, for logs, stats, exec or start"
	if err := x.record(e); err != nil {
		return err
	}
	b, err := encode(outlineOf(t))
	if err != nil {
		return fmt.Errorf("encode what is known of a container: %w", err)
	}
	return x.show(b) // a host may have written it
}

func outlineOf(t *target) outline {
	o := outline{ID: t.ID, Name: t.Name, Image: t.Image, State: t.State}
	o.Config.Image, o.Config.Tty, o.Config.OpenStdin = t.Config.Image, t.Config.Tty, t.Config.OpenStdin
	o.HostConfig.AutoRemove = t.HostConfig.AutoRemove
	return o
}

func serveInspectImage(x *exchange) error {
	found, err := x.imageToShow()
	if err != nil {
		return err
	}
	q := x.question(policy.DockerInspect, policy.Resource{ContainerType: policy.None, Image: found.name})
	if _, err := x.permit(q, audit.Event{Resource: audit.Resource{Image: found.name}}); err != nil {
		return err
	}
	raw := found.raw
	if len(x.query) > 0 || x.gate.FarGate {
		raw, _, err = x.fetch(&ask{method: http.MethodGet, path: "/images/" + cmp.Or(found.ID, found.name) + "/json", query: x.query})
		if err != nil {
			return engineRefusal(err)
		}
	}
	shown, err := x.redactor().image(raw)
	if err != nil {
		return err
	}
	return x.show(shown)
}

// imageToShow is the image that is asked for. On another host it is not looked at
// where the name says all that the rules are asked about, and they allow it.
func (x *exchange) imageToShow() (*foundImage, error) {
	if x.gate.FarGate && saysItself(x.ref) && isImageName(x.ref) &&
		x.decide(x.question(policy.DockerInspect, policy.Resource{ContainerType: policy.None, Image: x.ref})).Allowed() {
		return &foundImage{name: x.ref}, nil
	}
	return x.findImage(x.ref)
}

// serveNone answers for objects that nobody sees through the gate.
func serveNone(kind string) func(*exchange) error {
	return func(x *exchange) error {
		r := noSuch(kind, x.ref)
		r.Recorded = true // there is nothing to decide
		return r
	}
}

func serveLogs(x *exchange) error { return x.streamOf(policy.DockerLogs, "logs", x.copyAll) }

func serveStats(x *exchange) error {
	return x.streamOf(policy.DockerStats, "stats", x.copyMessages)
}
