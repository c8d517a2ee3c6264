package dockerproxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"jumpsuite/internal/audit"
	"jumpsuite/internal/together"
	"jumpsuite/policy"
)

// FarHost is a docker host that is reached from here.
type FarHost struct {
	ID          string   // what it is known by, for good: the EC2 instance id
	Names       []string // what people call it; the first is shown
	Environment string   // where it is
}

func (h FarHost) label() string {
	if len(h.Names) > 0 {
		return h.Names[0]
	}
	return h.ID
}

// is reports whether a person can mean the host by name.
func (h FarHost) is(name string) bool { return name == h.ID || slices.Contains(h.Names, name) }

// Spot is where a container is.
type Spot struct {
	Host      string // FarHost.ID
	Container string // full id
	Label     string // what it is in ECS: task and container
}

// Fleet serves one caller with the containers of many hosts: for each request it
// finds the host that is meant, and hands it to a Gate that leads there. All its
// exported fields but the last three must be set.
//
// A host is meant by its name (docker -H), by the id or the name of a container
// on it, by the id of an exec or an ECS task; else, where there is only one, by
// nothing.
type Fleet struct {
	// Front answers for what is about no host. The hosts' gates record, notify and
	// log as it does.
	Front *Gate
	// Environments are those whose hosts are reached.
	Environments []string
	// Hosts are an environment's.
	Hosts func(ctx context.Context, environment string) ([]FarHost, error)
	// Where finds, in an environment, the containers that ref can mean: the
	// beginning of an id, an ECS task. Not those that ECS does not know.
	Where func(ctx context.Context, environment, ref string) ([]Spot, error)
	// Dial connects to a host's gate, as the caller.
	Dial func(context.Context, FarHost) (net.Conn, error)
	// Learned is told where a container is that Where did not find: all hosts were
	// asked for its id, and this one alone has it. What a host says of a name is no
	// reason to believe that it has a container that others may ask for by its id.
	Learned func(h FarHost, container string)
	// Version and Spoke are those of each host's Gate. Nil: hosts are asked.
	Version func(h FarHost) string
	Spoke   func(h FarHost, version string)

	patience together.Patience // zero: searchPatience

	mu    sync.Mutex
	gates map[string]*Gate // by host
	spots map[string]spot  // by what was asked for, and by full id
}

// spot is where something was found.
type spot struct {
	gate *Gate
	id   string // the container's full id
}

// searchPatience is how long hosts may take to say whether they have a container,
// their sessions included.
var searchPatience = together.Patience{Most: 12 * time.Second, Least: 3 * time.Second, Times: 5}

// ServeConn is Gate.ServeConn.
func (f *Fleet) ServeConn(ctx context.Context, conn net.Conn, caller Caller) {
	f.Front.serveConn(ctx, conn, caller, f)
}

// SetPolicy is Gate.SetPolicy, for all hosts.
func (f *Fleet) SetPolicy(p *policy.Policy) {
	f.mu.Lock()
	f.Front.policy.Store(p) // for those that are made from now on
	f.mu.Unlock()
	for _, g := range f.all() {
		g.SetPolicy(p)
	}
}

// all are the gates that there are by now.
func (f *Fleet) all() []*Gate {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := []*Gate{f.Front}
	for _, g := range f.gates {
		all = append(all, g)
	}
	return all
}

// gate is the one that leads to a host.
func (f *Fleet) gate(h FarHost) *Gate {
	f.mu.Lock()
	defer f.mu.Unlock()
	if g := f.gates[h.ID]; g != nil {
		return g
	}
	front := f.Front
	g := &Gate{
		FarGate: true, Environment: h.Environment, Hosts: slices.Concat(h.Names, []string{h.ID}),
		Engine: func(ctx context.Context) (net.Conn, error) { return f.Dial(ctx, h) },
		Record: front.Record, Recorder: front.Recorder, Notify: front.Notify, Log: front.Log,
	}
	if f.Version != nil && f.Spoke != nil {
		g.Version = func() string { return f.Version(h) }
		g.Spoke = func(version string) { f.Spoke(h, version) }
	}
	g.Learned = func(id string) { f.keep(spot{g, id}, id) }
	g.policy.Store(front.policy.Load())
	if f.gates == nil {
		f.gates = map[string]*Gate{}
	}
	f.gates[h.ID] = g
	return g
}

func (f *Fleet) keep(s spot, refs ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.spots == nil || len(f.spots) > maxExecs {
		f.spots = map[string]spot{}
	}
	for _, ref := range append(refs, s.id) {
		f.spots[ref] = s
	}
}

func (f *Fleet) kept(ref string) (spot, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.spots[ref]
	return s, ok
}

// withExec is the gate through which an exec was created.
func (f *Fleet) withExec(id string) *Gate {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, g := range f.gates {
		g.mu.Lock()
		_, ok := g.execs[id]
		g.mu.Unlock()
		if ok {
			return g
		}
	}
	return nil
}

// place finds the gate that the request is for, and makes sure that this is
// where the caller wanted to be.
func (x *exchange) place() error {
	if f := x.conn.fleet; f != nil {
		g, err := f.place(x)
		if err != nil {
			return err
		}
		x.gate = g
	}
	if err := x.gate.isHere(x.req.value(hostHeader)); err != nil {
		return err
	}
	return x.isIn(x.req.value(environmentHeader))
}

// isIn refuses a request for another environment: a caller can name one to make
// sure, and never to get what it allows.
func (x *exchange) isIn(environment string) error {
	if environment == "" || environment == x.gate.Environment || x.gate.Environment == "" && x.conn.fleet != nil {
		return nil
	}
	return &Refusal{Status: http.StatusNotFound, Text: fmt.Sprintf("this is environment %s, not %s", x.gate.Environment, printable(environment))}
}

// anywhere are the operations that are about no host, or that the front answers.
var anywhere = map[string]bool{"hosts": true, "inspect network": true, "inspect volume": true, "inspect plugin": true}

func (f *Fleet) place(x *exchange) (*Gate, error) {
	name := x.req.value(hostHeader)
	switch {
	case anywhere[x.op.name], x.op.name == "ping" && name == "":
		return f.Front, nil
	case strings.HasPrefix(x.op.pattern, "exec/"):
		if g := f.withExec(x.ref); g != nil {
			return g, nil
		}
		return nil, &Refusal{Status: http.StatusNotFound, Text: "No such exec instance: " + printable(x.ref), Engine: true}
	case name != "":
		return f.named(x, name)
	case strings.HasPrefix(x.op.pattern, "containers/{ref}"):
		return f.holding(x)
	}
	return f.only(x)
}

// within are the environments that the request can be about: those that the
// caller has narrowed it to, and in which he may do such a thing at all.
func (f *Fleet) within(x *exchange, a policy.Action) ([]string, error) {
	asked := x.req.value(environmentHeader)
	if asked != "" && !slices.Contains(f.Environments, asked) {
		return nil, &Refusal{Status: http.StatusNotFound, Fault: true, Text: fmt.Sprintf("there is no environment %s that is reached from here", printable(asked)),
			Hint: "there is: " + orNone(f.Environments)}
	}
	var all []string
	for _, env := range f.Environments {
		q := policy.Request{Principal: x.conn.caller.Principal, Environment: env, Action: a}
		if (asked == "" || asked == env) && (a == 0 || f.Front.policy.Load().Possible(q).Allowed()) {
			all = append(all, env)
		}
	}
	if len(all) == 0 {
		return nil, f.nowhere(x, a, asked)
	}
	return all, nil
}

// nowhere is the refusal of what the caller may do in none of the environments:
// the policy's words about one of them.
func (f *Fleet) nowhere(x *exchange, a policy.Action, asked string) error {
	env := asked
	if env == "" && len(f.Environments) > 0 {
		env = f.Environments[0]
	}
	p := f.Front.policy.Load()
	q := policy.Request{Principal: x.conn.caller.Principal, Environment: env, Action: a}
	d := p.Possible(q)
	return &Refusal{Status: http.StatusForbidden, Rule: d.Rule(), Hint: x.hint(q, d),
		Text: fmt.Sprintf("%s is not allowed in %s (rule %s): %s", a, env, d.Rule(), d.Reason())}
}

// action is what the request needs a right to, to be about a host at all.
// Whoever may exec has to look up what there is; where the rights to a container
// are the owner's, it is enough to be able to make or start one.
func (x *exchange) needs() policy.Action {
	if strings.HasPrefix(x.op.pattern, "containers/{ref}") && x.op.action != policy.DockerExec && x.op.action != policy.DockerLogs && x.op.action != policy.DockerStats {
		return 0 // the host's gate decides, with the container before it
	}
	return x.op.action
}

// hosts are those of environments, asked for at the same time. What could not be
// had is in missing, by environment.
func (f *Fleet) hosts(ctx context.Context, environments []string) (all []FarHost, missing map[string]error) {
	lists := make([][]FarHost, len(environments))
	errs := make([]error, len(environments))
	var wg sync.WaitGroup
	for i, env := range environments {
		wg.Go(func() { lists[i], errs[i] = f.Hosts(ctx, env) })
	}
	wg.Wait()
	for i, env := range environments {
		all = append(all, lists[i]...)
		if errs[i] != nil {
			if missing == nil {
				missing = map[string]error{}
			}
			missing[env] = errs[i]
		}
	}
	return all, missing
}

// unlisted is why the hosts of environments are not known.
func unlisted(missing map[string]error) error {
	var envs []string
	for env := range missing {
		envs = append(envs, env)
	}
	if len(envs) == 0 {
		return nil
	}
	sort.Strings(envs)
	r := unreached(missing[envs[0]])
	r.Text = "the hosts of " + strings.Join(envs, ", ") + " are not known: " + r.Text
	return r
}

// named is the host that the caller calls name.
func (f *Fleet) named(x *exchange, name string) (*Gate, error) {
	environments, err := f.within(x, 0)
	if err != nil {
		return nil, err
	}
	all, missing := f.hosts(x.ctx, environments)
	var meant []FarHost
	for _, h := range all {
		if h.ID == name { // whatever others call themselves
			return f.gate(h), nil
		}
		if h.is(name) {
			meant = append(meant, h)
		}
	}
	switch {
	case len(meant) == 1:
		return f.gate(meant[0]), nil
	case len(meant) > 1:
		return nil, &Refusal{Status: http.StatusConflict, Fault: true, Text: fmt.Sprintf("%s is several hosts: %s", printable(name), candidates(meant)),
			Hint: "give the instance id, or --environment"}
	case len(missing) > 0:
		return nil, unlisted(missing)
	}
	return nil, &Refusal{Status: http.StatusNotFound, Fault: true, Text: fmt.Sprintf("there is no host %s in %s", printable(name), strings.Join(environments, ", ")),
		Hint: "give its instance id, private address or name; docker ps shows which there are"}
}

func candidates(hosts []FarHost) string {
	var list []string
	for _, h := range hosts[:min(len(hosts), 10)] {
		list = append(list, fmt.Sprintf("%s (%s in %s)", h.ID, h.label(), h.Environment))
	}
	if len(hosts) > 10 {
		list = append(list, "…")
	}
	return strings.Join(list, ", ")
}

// only is the only host there is, for what does not say which.
func (f *Fleet) only(x *exchange) (*Gate, error) {
	environments, err := f.within(x, x.needs())
	if err != nil {
		return nil, err
	}
	all, missing := f.hosts(x.ctx, environments)
	switch {
	case len(missing) > 0:
		return nil, unlisted(missing)
	case len(all) == 1:
		return f.gate(all[0]), nil
	case len(all) == 0:
		return nil, &Refusal{Status: http.StatusNotFound, Fault: true, Text: "there are no hosts in " + strings.Join(environments, ", ")}
	}
	return nil, badHost(x, all)
}

func badHost(x *exchange, all []FarHost) *Refusal {
	r := badRequest("on which host? %s is for one, and there are %d: %s", x.op.name, len(all), candidates(all))
	r.Fault = true
	r.Hint = "name it: sudo docker -H " + all[0].label() + " …"
	return r
}

// holding is the host with the container that the request is about. From then on
// the container goes by its full id.
func (f *Fleet) holding(x *exchange) (*Gate, error) {
	if !isRef(x.ref) {
		return nil, noSuchContainer(x.ref)
	}
	if s, ok := f.kept(x.ref); ok {
		x.ref = s.id
		return s.gate, nil
	}
	environments, err := f.within(x, x.needs())
	if err != nil {
		return nil, err
	}
	all, missing := f.hosts(x.ctx, environments)
	s, err := f.byECS(x, environments, all)
	if s.gate == nil && err == nil && len(all) == 1 && len(missing) == 0 {
		return f.gate(all[0]), nil // it says whether it has it
	}
	if s.gate == nil && err == nil {
		s, err = f.search(x, all, missing)
	}
	if err != nil {
		return nil, err
	}
	f.keep(s, x.ref)
	x.ref = s.id
	return s.gate, nil
}

// tellsApart reports whether ref can be nothing but an id: ECS is asked first
// about those. What is shorter, or a word, is what docker on the hosts says it is.
func tellsApart(ref string) bool {
	return len(ref) >= 12 && strings.Trim(ref, "0123456789abcdef-") == ""
}

// byECS asks ECS where a container is. No error and no gate: it does not know.
func (f *Fleet) byECS(x *exchange, environments []string, hosts []FarHost) (spot, error) {
	if !tellsApart(x.ref) {
		return spot{}, nil
	}
	found := make([][]Spot, len(environments))
	var wg sync.WaitGroup
	for i, env := range environments {
		wg.Go(func() {
			// What ECS cannot say, the hosts may.
			found[i], _ = f.Where(x.ctx, env, x.ref)
		})
	}
	wg.Wait()
	at := map[string]FarHost{}
	for _, h := range hosts {
		at[h.ID] = h
	}
	all := slices.DeleteFunc(slices.Concat(found...), func(s Spot) bool { return at[s.Host].ID == "" || !isID(s.Container) })
	if len(all) == 0 {
		return spot{}, nil
	}
	all = unlessHidden(all, func(s Spot) bool { return !f.mayKnow(x, at[s.Host].Environment) })
	if len(all) == 0 {
		return spot{}, noSuchContainer(x.ref)
	}
	if len(all) > 1 {
		var list []string
		for _, s := range all {
			list = append(list, fmt.Sprintf("%s (%s on %s)", s.Container[:12], s.Label, at[s.Host].label()))
		}
		return spot{}, ambiguous(x.ref, list)
	}
	return spot{f.gate(at[all[0].Host]), all[0].Container}, nil
}

// knowing are the rights by which somebody may learn what an environment's
// containers are called: who has none of them is not told.
var knowing = []policy.Action{policy.DockerPs, policy.DockerLogs, policy.DockerExec, policy.DockerStats, policy.DockerInspect,
	policy.DockerRun, policy.DockerCreate, policy.DockerStart}

func (f *Fleet) mayKnow(x *exchange, environment string) bool {
	p := f.Front.policy.Load()
	return slices.ContainsFunc(knowing, func(a policy.Action) bool {
		return p.Possible(policy.Request{Principal: x.conn.caller.Principal, Environment: environment, Action: a}).Allowed()
	})
}

// unlessHidden leaves out of several what the caller may not know of. One alone
// stays: its gate says that it is not there.
func unlessHidden[T any](all []T, hidden func(T) bool) []T {
	if len(all) < 2 {
		return all
	}
	return slices.DeleteFunc(all, hidden)
}

func ambiguous(ref string, list []string) *Refusal {
	if len(list) > 10 {
		list = append(list[:10:10], "…")
	}
	return &Refusal{Status: http.StatusConflict, Fault: true, Text: fmt.Sprintf("%s can be several containers: %s", printable(ref), strings.Join(list, ", ")),
		Hint: "give the container's id, or the host with -H"}
}

// sighting is what a host says about a container, and what was asked for of it
// where that has come with it.
type sighting struct {
	host   FarHost
	target *target
	answer *answer // nil: it is to be asked for
}

// search asks all hosts at the same time. What only reads the container is asked for
// with it: one round trip less. Of what they answer nothing is used until it is clear
// which of them is meant.
func (f *Fleet) search(x *exchange, hosts []FarHost, missing map[string]error) (spot, error) {
	id := audit.NewID(time.Now())
	op, ref, query, caller := x.op, x.ref, x.query, x.conn.caller
	x.next = id
	var answers answers
	defer answers.drop()
	a, what := x.reads() // now: who is late may ask when the next request is read already
	seen, errs := together.Ask(x.ctx, len(hosts), cmp.Or(f.patience, searchPatience), func(ctx context.Context, i int) (*sighting, error) {
		g := f.gate(hosts[i])
		y := &exchange{ctx: ctx, gate: g, conn: &connection{gate: g, caller: caller}, op: op, ref: ref, query: query, next: id}
		return y.sight(hosts[i], a, what, &answers)
	})
	var silent []string
	var why error
	var found []sighting
	for i, s := range seen {
		if errs[i] != nil {
			silent, why = append(silent, hosts[i].label()), errs[i]
		} else if s != nil {
			found = append(found, *s)
		}
	}
	several := len(found) > 1
	found = likeDocker(x.ref, unlessHidden(found, func(s sighting) bool { return !f.mayKnow(x, s.host.Environment) }))
	if why == nil {
		why = unlisted(missing)
	}
	switch {
	case several && len(found) == 0:
		return spot{}, noSuchContainer(x.ref)
	case len(found) == 1:
		x.seen = &found[0]
		x.conn.up = answers.take(found[0].answer)
		return f.found(x, found[0], silent, why == nil), nil
	case len(found) > 1:
		var list []string
		for _, s := range found {
			list = append(list, fmt.Sprintf("%s (%s on %s)", s.target.ID[:12], s.target.shortName(), s.host.label()))
		}
		return spot{}, ambiguous(x.ref, list)
	case why == nil:
		return spot{}, noSuchContainer(x.ref)
	}
	return spot{}, unfound(x.ref, silent, why)
}

// likeDocker takes a name for a name first, and then for the beginning of an id,
// but for one of digits of an id alone: so somebody could have called his own
// container, on a host where no other is in the way, that others mean.
func likeDocker(ref string, found []sighting) []sighting {
	if isDigits(ref) {
		return found
	}
	var named []sighting
	for _, s := range found {
		if s.target.shortName() == ref {
			named = append(named, s)
		}
	}
	if len(named) > 0 {
		return named
	}
	return found
}

func (f *Fleet) found(x *exchange, s sighting, silent []string, sure bool) spot {
	if len(silent) > 0 {
		f.Front.tell(x.conn.caller, "not asked for "+printable(x.ref)+", as they do not answer: "+strings.Join(silent, ", "))
	}
	if f.Learned != nil && sure && tellsApart(x.ref) && strings.HasPrefix(s.target.ID, x.ref) {
		f.Learned(s.host, s.target.ID)
	}
	return spot{f.gate(s.host), s.target.ID}
}

// unfound is a container that is on none of the hosts that answered.
func unfound(ref string, silent []string, why error) error {
	r := unreached(why)
	var known *Refusal
	if errors.As(why, &known) {
		r.Text, r.Hint = known.Text, known.Hint
	}
	if len(silent) > 0 {
		r.Text = fmt.Sprintf("%s is on none of the hosts that answer; %s did not: %s", printable(ref), strings.Join(silent, ", "), r.Text)
	}
	return r
}

// sight asks one host for a container, and for what is to be read of it. Nil: it has
// none.
func (x *exchange) sight(h FarHost, a policy.Action, what string, answers *answers) (*sighting, error) {
	defer x.conn.close()
	ans, t, err := x.lookOrRead(a, what)
	if isNotFound(err) {
		return nil, nil
	}
	if err != nil {
		if x.ctx.Err() != nil {
			err = context.Cause(x.ctx)
		}
		return nil, err
	}
	if ans != nil {
		answers.keep(ans)
		x.conn.up = nil
	}
	return &sighting{h, t, ans}, nil
}

func (x *exchange) lookOrRead(a policy.Action, what string) (ans *answer, t *target, err error) {
	if what != "" {
		ans, t, err = x.ahead(a, what)
	}
	if err == nil && t == nil {
		t, err = x.find()
	}
	return ans, t, err
}

// answers are those of several hosts, of which one will be used. They are read no
// further until then.
type answers struct {
	mu   sync.Mutex
	all  []*answer
	over bool
}

func (a *answers) keep(ans *answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over { // it came too late
		ans.up.conn.Close()
		return
	}
	a.all = append(a.all, ans)
}

// take is the connection on which an answer comes, which drop leaves alone then.
// Nil is none.
func (a *answers) take(ans *answer) *upstream {
	if ans == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = slices.DeleteFunc(a.all, func(other *answer) bool { return other == ans })
	return ans.up
}

// drop ends all that was not taken.
func (a *answers) drop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
	for _, ans := range a.all {
		ans.up.conn.Close()
	}
}

// hostList is what the CLI is told of the hosts, to make one table of many.
type hostList struct {
	Hosts   []listedHost
	Missing []missingHosts `json:",omitempty"`
}

type listedHost struct{ ID, Name, Environment string }

type missingHosts struct{ Environment, Error string }

// serveHosts tells the CLI which hosts there are for a table. Each of them is
// asked on its own then, and decided and recorded on its own.
func serveHosts(x *exchange) error {
	f := x.conn.fleet
	if f == nil {
		r := noPage("/" + strings.Join(x.req.path, "/"))
		r.Recorded = true // the CLI asks before it knows where it is
		return r
	}
	a := map[string]policy.Action{"images": policy.DockerImages, "stats": policy.DockerStats}[x.query.Get("for")]
	if a == 0 {
		a = policy.DockerPs
	}
	environments, err := f.within(x, a)
	if err != nil {
		return err
	}
	all, missing := f.hosts(x.ctx, environments)
	list := hostList{Hosts: []listedHost{}}
	for _, h := range all {
		list.Hosts = append(list.Hosts, listedHost{h.ID, h.label(), h.Environment})
	}
	for _, env := range environments {
		if err := missing[env]; err != nil {
			list.Missing = append(list.Missing, missingHosts{env, unreached(err).Error()})
		}
	}
	return x.replyJSON(http.StatusOK, list)
}

// servePingHere answers without asking a host: where none is meant, with what all
// gates speak.
func servePingHere(x *exchange, version string) error {
	x.answered = true
	body := "OK"
	if x.req.method == http.MethodHead {
		body = ""
	}
	b := appendHead(x.conn.out[:0], http.StatusOK, "text/plain; charset=utf-8", int64(len(body)), x.last)
	b = append(b, "Api-Version: "+version+"\r\nOstype: linux\r\nSwarm: inactive\r\nCache-Control: no-cache, no-store, must-revalidate\r\n\r\n"+body...)
	_, err := x.conn.conn.Write(b)
	return err
}
