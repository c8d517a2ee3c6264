package dockerproxy

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"

	"jumpsuite/internal/audit"
	"jumpsuite/policy"
)

// A jump server has a gate for each host, and what that leads to is not the
// Docker Engine but the host's own gate. Both decide, and both record, each by
// its own policy. The jump server's asks for what it has to know beforehand
// (which container is meant, whose it is) in a way that callers cannot use, and
// leaves to the host's what has to be done there: leases, labels and caps,
// escapes, redaction, the ECS agent, what is left running.

// Headers between the two gates. A caller's own are never passed on.
const (
	farHeader     = "x-jumpsuite-far"     // to the CLI: the stream comes from another host, and can be lost on its way
	faultHeader   = "x-jumpsuite-fault"   // to the CLI: it is not the Engine's error, nor the policy's
	eventHeader   = "x-jumpsuite-event"   // to the host: the id of the event at the jump server
	refusedHeader = "x-jumpsuite-refused" // from the host: the rule by which its gate, and not its Engine, refused; "gate" if none did
)

// jumpServersRule refuses because of the jump server, and not of the caller: it
// hides nothing from him to say so.
const jumpServersRule = "jump-servers"

// farVersion is the API version that gates speak with each other: the newest.
// What the Engine is spoken to in is the business of the host's.
const farVersion = "1.51"

// fromFar reports whether the other end is a jump server's gate.
func (c *Caller) fromFar() bool { return c.Key != "" }

// lookers are the actions that need to know of a container, or of an image: whoever
// may do none of them has nothing to look up.
var lookers = struct{ container, image []policy.Action }{
	container: []policy.Action{policy.DockerPs, policy.DockerLogs, policy.DockerStats, policy.DockerInspect, policy.DockerExec,
		policy.DockerRun, policy.DockerCreate, policy.DockerStart, policy.DockerStop, policy.DockerRm},
	image: []policy.Action{policy.DockerImages, policy.DockerInspect, policy.DockerRun, policy.DockerCreate, policy.DockerPull},
}

// mayLookUp refuses a jump server's caller who may do nothing here with what is
// looked up, before the Engine is asked: a key that is trusted opens the door, and
// must not tell what is behind it.
func (x *exchange) mayLookUp() error {
	needs := lookers.container
	switch {
	case !x.conn.caller.fromFar():
		return nil
	case strings.Contains(x.op.pattern, "images/{name}"):
		needs = lookers.image
	case !strings.Contains(x.op.pattern, "containers/{ref}"):
		return nil
	}
	if slices.ContainsFunc(needs, x.possible) {
		return nil
	}
	return x.permitAnywhere(cmp.Or(x.op.action, needs[0]))
}

// outlook is what a jump server's gate has to know of a container, and no more.
type outlook struct {
	outline
	Type  string // container type, as rules have it
	ECS   bool   `json:",omitempty"` // ECS's agent looks after it
	Made  string `json:",omitempty"` // the image that it was made of through the gate; empty: it was not
	Yours bool   `json:",omitempty"` // made or started by the caller
}

// serveOutlook tells a jump server's gate about a container. Neither decided nor
// recorded: it comes before something that will be, and goes to no caller.
func serveOutlook(x *exchange) error {
	if !x.conn.caller.fromFar() {
		return noPage("/" + strings.Join(x.req.path, "/"))
	}
	t, err := x.find()
	if err != nil {
		return asked(err)
	}
	return x.replyJSON(http.StatusOK, x.outlookOf(t))
}

func (x *exchange) outlookOf(t *target) outlook {
	o := outlook{outline: outlineOf(t), Type: t.kind(), ECS: t.byECS(), Yours: t.leasedTo(x.conn.caller.owner())}
	if t.made() {
		o.Made = t.lease.Image
	}
	return o
}

// imageOutlook is the same of an image.
type imageOutlook struct {
	ID          string `json:"Id"`
	RepoTags    []string
	RepoDigests []string
}

func serveImageOutlook(x *exchange) error {
	if !x.conn.caller.fromFar() {
		return noPage("/" + strings.Join(x.req.path, "/"))
	}
	i, err := x.findImage(x.ref)
	if err != nil {
		return asked(err)
	}
	return x.replyJSON(http.StatusOK, imageOutlook{ID: i.ID, RepoTags: i.RepoTags, RepoDigests: i.RepoDigests})
}

// asked keeps a look-up that found nothing out of the log: the jump server's gate
// records what came of it.
func asked(err error) error {
	var r *Refusal
	if errors.As(err, &r) {
		told := *r
		told.Recorded = true
		return &told
	}
	return err
}

// knownFor is how long a jump server's gate goes by what it has learnt of a
// container, by its id and by what it was asked for. What it decides by does not
// change in a container's life; the host's gate looks anew each time.
const knownFor = 30 * time.Second

type known struct {
	target *target
	at     time.Time
}

// lookupFar is lookup where what is asked is another gate.
func (x *exchange) lookupFar(ref string) (*target, error) {
	if t := x.gate.recall(ref); t != nil && !(t.onlyMade && x.op.name == "inspect") {
		return t, nil
	}
	if !slices.ContainsFunc(lookers.container, x.possible) {
		return nil, noSuchContainer(ref) // the host's gate would not say more
	}
	raw, _, err := x.fetch(&ask{method: http.MethodGet, path: "/jumpsuite/containers/" + ref})
	if err != nil {
		return nil, farRefusal(err)
	}
	return x.believed(raw, ref)
}

// farRefusal is why a look-up came to nothing.
func farRefusal(err error) error {
	var e *EngineError
	if !errors.As(err, &e) {
		return err
	}
	if e.Status == http.StatusNotFound && strings.HasPrefix(e.Text, "page not found: /jumpsuite/") {
		return &Refusal{Status: http.StatusBadGateway, Text: "the host's gate is older than this one, and cannot be asked", Fault: true, Hint: "install the same release on jump server and host"}
	}
	r := e.refusal()
	r.Recorded = false // nothing is, yet
	return r
}

// target is the container as if it had been looked at here.
func (o *outlook) target() *target {
	t := &target{yours: o.Yours}
	t.ID, t.Name, t.Image = o.ID, o.Name, o.Image
	t.Config.Image, t.Config.Tty, t.Config.OpenStdin = o.Config.Image, o.Config.Tty, o.Config.OpenStdin
	t.HostConfig.AutoRemove = o.HostConfig.AutoRemove
	t.State = o.State
	t.Config.Labels = map[string]string{}
	if o.Type != policy.None {
		t.Config.Labels[ecsFamilyLabel] = o.Type
	}
	if o.ECS {
		t.Config.Labels[ecsTaskLabel] = o.ID
	}
	if o.Made != "" {
		t.lease = &lease{Container: o.ID, Kind: leaseMade, Image: o.Made}
	}
	return t
}

func (g *Gate) recall(ref string) *target {
	g.mu.Lock()
	defer g.mu.Unlock()
	k, ok := g.known[ref]
	if !ok || time.Since(k.at) > knownFor {
		delete(g.known, ref)
		return nil
	}
	return k.target
}

func (g *Gate) note(ref string, t *target) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.known == nil || len(g.known) > maxExecs {
		g.known = map[string]known{}
	}
	k := known{t, time.Now()}
	g.known[ref], g.known[t.ID] = k, k
}

// staysWith reports whether a container is known to be one that the caller of this
// gate has made: such a one is nobody else's as long as it is there.
func (g *Gate) staysWith(ref string) bool {
	t := g.recall(ref)
	return t != nil && t.yours && t.made()
}

// forgetFar forgets what was learnt of a container whose owner may have changed.
func (g *Gate) forgetFar(ref string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	k, ok := g.known[ref]
	if !ok {
		return
	}
	maps.DeleteFunc(g.known, func(_ string, other known) bool { return other.target.ID == k.target.ID })
}

// startFar asks the host's gate to start a container.
func (x *exchange) startFar() error {
	if x.unseen() && x.gate.recall(x.ref) == nil {
		if o := x.ownersTerms(false); o != nil {
			ans, done, err := x.asksOnTerms(&ask{method: http.MethodPost, path: "/containers/" + x.ref + "/start", query: x.query}, o, "")
			if done {
				return x.startedFar(x.event.Resource.Container, ans, err)
			}
		}
	}
	t, err := x.find()
	if err != nil {
		return err
	}
	q := x.questionOn(t)
	d := x.decide(q)
	if d.Allowed() && t.made() {
		if err := x.attachedAsDue(t, d); err != nil {
			return x.hide(x.refuse(q, t.about(), err))
		}
	}
	if _, err := x.permitted(q, d, t.about(), audit.Open); err != nil {
		return x.hide(err)
	}
	_, ans, err := x.fetch(&ask{method: http.MethodPost, path: "/containers/" + t.ID + "/start", query: x.query})
	return x.startedFar(t.ID, ans, err)
}

// startedFar passes on what came of a start.
func (x *exchange) startedFar(id string, ans *answer, err error) error {
	if err != nil {
		return engineRefusal(err)
	}
	x.gate.forgetFar(id)
	if ans.status == http.StatusNotModified {
		return x.notModified()
	}
	return x.started(ans.value(noticeKey))
}

// noticeKey is noticeHeader as a head has it.
var noticeKey = strings.ToLower(noticeHeader)

// createFar asks the host's gate to make a container: as it was asked for, and not
// as it will be. Its caps and labels are the host's to set.
func (x *exchange) createFar(body *container.CreateRequest, q policy.Request, d policy.Decision, about audit.Event) error {
	if d.Allowed() && d.Obligations.Record != policy.RecordNothing {
		if err := x.recordable(false); err != nil {
			return x.refuse(q, about, err)
		}
	}
	if _, err := x.permitted(q, d, about, audit.Open); err != nil {
		return err
	}
	if x.req.value(verbHeader) == "run" {
		x.gate.spare(x.ctx, streamsOfRun)
	}
	raw, ans, err := x.fetch(&ask{method: http.MethodPost, path: "/containers/create", query: x.query, body: body, verb: x.req.value(verbHeader)})
	if err != nil {
		return engineRefusal(err)
	}
	var made struct {
		ID string `json:"Id"`
	}
	if err := json.Unmarshal(raw, &made); err != nil || !isID(made.ID) {
		return unavailable("the answer of the host's gate to create is not understood")
	}
	x.event.Resource.Container = made.ID
	x.gate.learned(made.ID)
	x.gate.note(made.ID, madeFar(made.ID, body, q.Resource.Image))
	return x.reply(ans.status, "application/json", visible(raw))
}

// streamsOfRun are those of docker run and docker start -a: one is for attach, one for
// wait, and one for start.
const streamsOfRun = 3

// madeFar is a container that was made just now: whose it is, and of which image, will
// not change. What it does is not known.
func madeFar(id string, c *container.CreateRequest, image string) *target {
	t := &target{yours: true, onlyMade: true, lease: &lease{Container: id, Kind: leaseMade, Image: image}}
	t.ID, t.Config.Image, t.Config.Tty, t.Config.OpenStdin = id, c.Image, c.Tty, c.OpenStdin
	return t
}

// spare sees to it that there are n streams to the host, made ready beside each other:
// for what is asked for now, and what will come next.
func (g *Gate) spare(ctx context.Context, n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for range n - len(g.idle) - len(g.coming) {
		c := make(chan *upstream, 1)
		g.coming = append(g.coming, c)
		go g.makeSpare(ctx, c)
	}
}

func (g *Gate) makeSpare(ctx context.Context, c chan *upstream) {
	up, err := g.dial(ctx)
	if err != nil {
		up = nil // whoever needs one is told
	} else {
		up.at = time.Now()
	}
	g.mu.Lock()
	n := len(g.coming)
	g.coming = slices.DeleteFunc(g.coming, func(other chan *upstream) bool { return other == c })
	wanted := len(g.coming) == n // somebody waits for this one
	g.mu.Unlock()
	switch {
	case wanted:
		c <- up
	case up != nil && (ctx.Err() != nil || !g.keepUpstream(up)):
		up.conn.Close()
	}
}

// nextSpare waits for a stream that is being made ready; nil: none is, or it cannot be.
func (g *Gate) nextSpare(ctx context.Context) *upstream {
	g.mu.Lock()
	if len(g.coming) == 0 {
		g.mu.Unlock()
		return nil
	}
	c := g.coming[0]
	g.coming = g.coming[1:]
	g.mu.Unlock()
	select {
	case up := <-c:
		return up
	case <-ctx.Done():
		go func() { // it is made with the same context, or its parent's: not for long
			if up := <-c; up != nil {
				up.conn.Close()
			}
		}()
		return nil
	}
}

// learned tells who is interested that a container is here.
func (g *Gate) learned(id string) {
	if g.Learned != nil {
		g.Learned(id)
	}
}

// endFar is what a jump server's gate does at the end of an exec: it asks for the
// exit code where that is known. What is left running is ended by the host's
// gate, which sees the stream end, too.
func (x *exchange) endFar(e *execution, why error) (r audit.Result) {
	if code := e.exit.Load(); code != nil {
		r.Exit = *code
	}
	if why != nil || e.exit.Load() != nil {
		return r
	}
	y, done := x.aside()
	defer done()
	s, err := y.execState(e.id)
	if err == nil && !s.Running && s.ExitCode != nil {
		r.Exit = *s.ExitCode
	}
	return r
}

// recordFarRefusal adds to a decision of ours that the host's gate took another.
func (x *exchange) recordFarRefusal(r *Refusal) { x.change("the host's gate refused, rule " + r.Rule) }

// failed adds to a decision of ours that nobody knows what came of it. What the host
// has answered properly is not that.
func (x *exchange) failed(err error) {
	var r *Refusal
	if !errors.As(err, &r) || !r.Engine {
		x.change("it is not known to be done as it was decided: " + err.Error())
	}
}

// change adds to a decision of ours what came of it.
func (x *exchange) change(detail string) {
	e := x.event
	e.Kind, e.Time, e.Detail = audit.Change, time.Now(), detail
	if err := x.gate.Record(&e); err != nil {
		x.gate.log().Error("what came of a decision is not on record", "id", e.ID, "detail", detail, "err", err)
	}
}

// was has, in what is recorded from now on, the container that something was done to,
// and the rule that allows q, which is about it.
func (x *exchange) was(q policy.Request, about audit.Event) {
	host := x.event.Resource.Host
	x.event.Resource = about.Resource
	x.event.Resource.Host = host
	if d := x.decide(q); d.Allowed() { // else the policy has changed since
		x.event.Rule = d.Rule()
	}
}

// farEvent is the id of the event at the jump server.
func (x *exchange) farEvent() string {
	if x.req != nil {
		if id := x.req.value(eventHeader); id != "" {
			if _, err := audit.ParseID(id); err == nil {
				return id
			}
		}
	}
	return x.conn.caller.Far
}

// forFar adds to what is asked what a host's gate wants to know.
func (x *exchange) forFar(a *ask) *ask {
	if x.gate.FarGate {
		a.event = cmp.Or(x.event.ID, x.next)
	}
	return a
}

// engineError is what the Engine, or the host's gate, says instead of doing it.
func (x *exchange) engineError(ans *answer, body []byte) *EngineError {
	e := &EngineError{Status: ans.status, Text: message(body)}
	if x.gate.FarGate {
		e.Rule, e.Host = ans.value(refusedHeader), x.gate.host()
	}
	return e
}

// refusal passes the error on: the Engine's as it is, a gate's with the host that
// it is of.
func (e *EngineError) refusal() *Refusal {
	r := &Refusal{Status: e.Status, Text: e.Text, Engine: true, Recorded: true}
	if e.Rule != "" {
		r.Rule, r.Far = e.Rule, true
		verb := " refuses: "
		if e.Status >= http.StatusInternalServerError {
			verb = ": " // it would, if it could
		}
		r.Text = "jumpsuite: host " + e.Host + verb + strings.TrimPrefix(e.Text, "jumpsuite: ")
	}
	return r
}

// farDialTimeout is how long it may take to reach a host's gate: a session has to
// be started.
const farDialTimeout = 45 * time.Second

// unreached is why the host's gate cannot be reached.
func (g *Gate) unreached(err error) *Refusal {
	r := unreached(err)
	r.Text = "host " + g.host() + ": " + r.Text
	return r
}

// unreached is why something far away cannot be reached. The error knows best,
// and may know what to do.
func unreached(err error) *Refusal {
	r := unavailable("%v", err)
	r.Fault = true
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		r.Hint = h.Hint()
	}
	return r
}

// Streams to a host's gate are kept by its gate here, for all connections of the
// caller: each costs a handshake. freshFor is how old one may be for what cannot
// be sent twice.
const (
	maxIdle  = 8
	freshFor = 30 * time.Second
)

// finished says that the answer was read to its end.
func (u *upstream) finished() { u.done, u.at = true, time.Now() }

// restUpstream gives the stream to a host's gate back, when no answer is under
// way on it.
func (c *connection) restUpstream() {
	if c.up == nil || !c.up.gate.FarGate {
		return
	}
	up := c.up
	c.up = nil
	if !up.done || !up.gate.keepUpstream(up) {
		up.conn.Close()
	}
}

func (g *Gate) keepUpstream(up *upstream) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.idle) >= maxIdle {
		return false
	}
	g.idle = append(g.idle, up)
	return true
}

// idleUpstream is a stream to the host's gate that nobody uses, the freshest; nil
// if there is none.
func (g *Gate) idleUpstream() *upstream {
	if !g.FarGate {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	n := len(g.idle)
	if n == 0 {
		return nil
	}
	up := g.idle[n-1]
	g.idle = g.idle[:n-1]
	if time.Since(up.at) < freshFor {
		return up
	}
	for _, old := range append(g.idle, up) {
		go old.conn.Close()
	}
	g.idle = nil
	return nil
}
