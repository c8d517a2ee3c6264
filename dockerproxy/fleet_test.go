package dockerproxy

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"jumpsuite/internal/audit"
	"jumpsuite/internal/together"
	"jumpsuite/policy"
)

type (
	ctx  = context.Context
	conn = net.Conn
)

var here2026 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// cluster is a fleet of hosts with made-up Engines, by instance id.
type cluster struct {
	*Fleet
	harness
	engines map[string]*fleetEngine
	hosts   []FarHost
	ecs     []Spot
	ecsErr  error
	mu      sync.Mutex
	notes   []string
	learnt  []string
	dialled []string
	dead    map[string]error

	hostLogs []*auditLog
}

// fleetEngine has containers, by name.
type fleetEngine struct {
	socket string
	names  map[string]string // name → id
	asked  []string
	mu     sync.Mutex
}

func (e *fleetEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	path := strings.TrimPrefix(r.URL.Path, "/v1.51")
	e.mu.Lock()
	e.asked = append(e.asked, r.Method+" "+path)
	e.mu.Unlock()
	w.Header().Set("Api-Version", "1.51")
	ref, ok := strings.CutSuffix(strings.TrimPrefix(path, "/containers/"), "/json")
	switch {
	case path == "/containers/json":
		io.WriteString(w, "[]")
	case path == "/containers/create":
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"Id":%q}`, newID)
	case strings.HasPrefix(path, "/images/"):
		fmt.Fprintf(w, `{"Id":%q,"RepoTags":["lab/web:1"]}`, imgID)
	case strings.HasSuffix(path, "/exec"):
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"Id":%q}`, execID)
	case strings.HasPrefix(path, "/exec/"):
		fmt.Fprintf(w, `{"ID":%q,"ContainerID":%q}`, execID, e.names["web"])
	case !ok && strings.HasSuffix(path, "/logs"):
		io.WriteString(w, "a line of "+strings.Split(path, "/")[2])
	case !ok:
		w.WriteHeader(http.StatusOK)
	default:
		e.container(w, ref)
	}
}

func (e *fleetEngine) container(w http.ResponseWriter, ref string) {
	if ref == newID {
		e.names["made"] = newID
	}
	for name, id := range e.names {
		if ref == name || strings.HasPrefix(id, ref) {
			json.NewEncoder(w).Encode(map[string]any{"Id": id, "Name": "/" + name, "Image": imgID, "Config": map[string]any{"Image": "lab/web:1"}, "HostConfig": map[string]any{}})
			return
		}
	}
	w.WriteHeader(http.StatusNotFound)
	fmt.Fprintf(w, `{"message":"No such container: %s"}`, ref)
}

func (e *fleetEngine) requests() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.asked, "\n")
}

// id is a container's, which begins with two characters.
func id(start string) string { return start + strings.Repeat("0", 64-len(start)) }

// newCluster has three hosts: two in test, one in prod.
func newCluster(t *testing.T) *cluster {
	c := &cluster{engines: map[string]*fleetEngine{}, dead: map[string]error{}}
	c.harness = harness{t: t, dir: t.TempDir(), log: &auditLog{}}
	var cancel context.CancelFunc
	c.ctx, cancel = context.WithCancel(context.Background())
	t.Cleanup(cancel)
	front := &Gate{Record: c.log.Record, Notify: func(_ Caller, s string) { c.note(&c.notes, s) }}
	c.Fleet = &Fleet{
		Front: front, Environments: []string{"test", "prod"},
		Hosts: func(_ context.Context, env string) (list []FarHost, err error) {
			for _, h := range c.hosts {
				if h.Environment == env {
					list = append(list, h)
				}
			}
			return list, c.dead["hosts of "+env]
		},
		Where: func(_ context.Context, env, _ string) (found []Spot, err error) {
			for _, s := range c.ecs {
				if (env == "prod") == (s.Host == "i-3") {
					found = append(found, s)
				}
			}
			return found, c.ecsErr
		},
		Dial:    c.dial,
		Learned: func(h FarHost, container string) { c.note(&c.learnt, h.ID+" "+container[:2]) },
	}
	c.Fleet.SetPolicy(mustPolicy(t, testPolicy))
	c.add("i-1", "10.0.0.1", "test", map[string]string{"web": id("aa"), "only1": id("ab")})
	c.add("i-2", "10.0.0.2", "test", map[string]string{"web": id("ba"), "only2": id("bb")})
	c.add("i-3", "10.0.0.3", "prod", map[string]string{"shop": id("ca")})
	return c
}

func (c *cluster) note(list *[]string, s string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*list = append(*list, s)
}

func (c *cluster) add(host, address, env string, names map[string]string) {
	e := &fleetEngine{names: names}
	e.socket = engineThat(c.t.(*testing.T), e.ServeHTTP)
	c.engines[host] = e
	c.hosts = append(c.hosts, FarHost{ID: host, Names: []string{address, "ip-" + strings.ReplaceAll(address, ".", "-")}, Environment: env})
}

// dial is a host with its gate.
func (c *cluster) dial(ctx context.Context, h FarHost) (net.Conn, error) {
	c.note(&c.dialled, h.ID)
	if err := c.dead[h.ID]; err != nil {
		return nil, err
	}
	host := newHarness(c.t, c.engines[h.ID].socket, h.Environment)
	if host.host != nil {
		host.gate = host.host
	}
	c.mu.Lock()
	c.hostLogs = append(c.hostLogs, host.atEngineLog())
	c.mu.Unlock()
	ours, theirs := net.Pipe()
	go host.gate.ServeConn(c.ctx, theirs, Caller{UID: 1001, Principal: policy.Principal{User: "dev", Key: "jump1"}})
	return ours, nil
}

func (c *cluster) ask(user, raw string) answered {
	client, server := net.Pipe()
	go c.Fleet.ServeConn(c.ctx, server, Caller{UID: uids[user], Principal: policy.Principal{User: user}})
	defer client.Close()
	go io.WriteString(client, raw)
	method, _, _ := strings.Cut(raw, " ")
	return readAnswerTo(method, bufio.NewReader(client))
}

// on adds headers to a request.
func on(raw string, headers ...string) string {
	return strings.Replace(raw, "Host: x\r\n", "Host: x\r\n"+strings.Join(headers, "\r\n")+"\r\n", 1)
}

func TestAHostIsCalledByItsNames(t *testing.T) {
	for _, name := range []string{"i-2", "10.0.0.2", "ip-10-0-0-2"} {
		c := newCluster(t)
		a := c.ask("dev", on(get("/v1.51/containers/json"), "X-Jumpsuite-Host: "+name))
		if a.status != http.StatusOK || strings.Join(c.dialled, " ") != "i-2" {
			t.Errorf("%s: got %d %s, dialled %v", name, a.status, a.body, c.dialled)
		}
		if e := c.log.all()[0]; e.Environment != "test" || e.Resource.Host != "10.0.0.2" {
			t.Errorf("%s: recorded %+v", name, e)
		}
	}
}

func TestWhichHostIsMeantHasToBeClear(t *testing.T) {
	list := get("/v1.51/containers/json")
	for _, tt := range []struct {
		name, raw string
		change    func(*cluster)
		status    int
		want      string
	}{
		{"no such host", on(list, "X-Jumpsuite-Host: nosuch"), nil, 404, "there is no host nosuch in test, prod"},
		{"no host is given", list, nil, 400, "on which host? ps is for one, and there are 3"},
		{"to make one", post("/v1.51/containers/create", `{"Image":"lab/web:1"}`), nil, 400, "on which host? create is for one, and there are 2: i-1 (10.0.0.1 in test), i-2"},
		{"in another environment", on(list, "X-Jumpsuite-Host: i-1", "X-Jumpsuite-Environment: prod"), nil, 404, "there is no host i-1 in prod"},
		{"in no environment", on(list, "X-Jumpsuite-Host: i-1", "X-Jumpsuite-Environment: nosuch"), nil, 404, "there is no environment nosuch that is reached from here"},
		{"one address twice", on(list, "X-Jumpsuite-Host: 10.0.0.1"), func(c *cluster) { c.add("i-4", "10.0.0.1", "prod", nil) }, 409, "10.0.0.1 is several hosts: i-1 (10.0.0.1 in test), i-4 (10.0.0.1 in prod)"},
		{"the hosts are not known", on(list, "X-Jumpsuite-Host: i-9"), func(c *cluster) { c.dead["hosts of prod"] = hinted{errors.New("no ecs:ListContainerInstances")} }, 502, "the hosts of prod are not known: no ecs:ListContainerInstances"},
		{"the host cannot be reached", on(list, "X-Jumpsuite-Host: i-1"), func(c *cluster) { c.dead["i-1"] = hinted{errors.New("its agent is offline")} }, 502, "host 10.0.0.1: its agent is offline\\nhint: start it"},
		{"no exec of ours", get("/v1.51/exec/" + execID + "/json"), nil, 404, "No such exec instance"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t)
			if tt.change != nil {
				tt.change(c)
			}
			if a := c.ask("dev", tt.raw); a.status != tt.status || !strings.Contains(a.body, tt.want) {
				t.Errorf("got %d %s, want %d %q", a.status, a.body, tt.status, tt.want)
			}
		})
	}
}

func TestAHostThatIsCalledAsAnotherDoesNotTakeItsPlace(t *testing.T) {
	c := newCluster(t)
	c.hosts[0].Names = append(c.hosts[0].Names, "i-2")
	a := c.ask("dev", on(get("/v1.51/containers/json"), "X-Jumpsuite-Host: i-2"))
	if a.status != http.StatusOK || strings.Join(c.dialled, " ") != "i-2" {
		t.Errorf("got %d %s, dialled %v", a.status, a.body, c.dialled)
	}
}

func TestTheOnlyHostNeedsNoName(t *testing.T) {
	c := newCluster(t)
	a := c.ask("dev", on(get("/v1.51/containers/json"), "X-Jumpsuite-Environment: prod"))
	if a.status != http.StatusOK || strings.Join(c.dialled, " ") != "i-3" {
		t.Errorf("got %d %s, dialled %v", a.status, a.body, c.dialled)
	}
}

func TestAContainerIsFoundOnItsHost(t *testing.T) {
	for _, tt := range []struct {
		name, ref string
		ecs       []Spot
		change    func(*cluster)
		status    int
		want      string // in the answer
		host      string // that was asked for its logs
		dialled   int
	}{
		{"by a name that is there once", "only2", nil, nil, 200, "", "i-2", 3},
		{"by the beginning of an id", "ab", nil, nil, 200, "", "i-1", 3},
		{"by an id that ECS knows", id("ba")[:12], []Spot{{"i-2", id("ba"), "task t, web"}}, nil, 200, "", "i-2", 1},
		{"by an ECS task", "0123456789abcdef0123456789abcdef", []Spot{{"i-1", id("aa"), "task t, web"}}, nil, 200, "", "i-1", 1},
		{"by a whole id that ECS does not know", id("bb"), nil, nil, 200, "", "i-2", 3},
		{"when ECS cannot be asked", id("bb"), nil, func(c *cluster) { c.ecsErr = errors.New("throttled") }, 200, "", "i-2", 3},
		{"a name that is there twice", "web", nil, nil, 409, "web can be several containers: aa0000000000 (web on 10.0.0.1), ba0000000000 (web on 10.0.0.2)", "", 3},
		{"the beginning of an id by which somebody has called his own", id("ca")[:12], nil, named("i-1", id("ca")[:12]), 409,
			"ca0000000000 can be several containers: dd0000000000 (ca0000000000 on 10.0.0.1), ca0000000000 (shop on 10.0.0.3)", "", 3},
		{"a few digits of one", "ca", nil, named("i-1", "ca"), 409, "ca can be several containers: dd0000000000 (ca on 10.0.0.1), ca0000000000 (shop on 10.0.0.3)", "", 3},
		{"a task of two containers", "0123456789abcdef0123456789abcdef", []Spot{{"i-1", id("aa"), "task t, web"}, {"i-1", id("ab"), "task t, log"}}, nil, 409,
			"can be several containers: aa0000000000 (task t, web on 10.0.0.1), ab0000000000 (task t, log on 10.0.0.1)", "", 0},
		{"nowhere", "nosuch", nil, nil, 404, "No such container: nosuch", "", 3},
		{"although a host does not answer", "only1", nil, func(c *cluster) { c.dead["i-2"] = errors.New("offline") }, 200, "", "i-1", 3},
		{"perhaps on a host that does not answer", "only2", nil, func(c *cluster) { c.dead["i-2"] = errors.New("offline") }, 502, "only2 is on none of the hosts that answer; 10.0.0.2 did not: host 10.0.0.2: offline", "", 3},
		{"perhaps on a host that is not known", "nosuch", nil, func(c *cluster) { c.dead["hosts of prod"] = errors.New("no rights") }, 502, "the hosts of prod are not known: no rights", "", 3},
		{"a name of two, on hosts of which one is foreign", "shop", nil, nil, 200, "", "i-3", 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t)
			c.ecs = tt.ecs
			if tt.change != nil {
				tt.change(c)
			}
			a := c.ask("dev", get("/v1.51/containers/"+tt.ref+"/logs?stdout=1"))
			if a.status != tt.status || !strings.Contains(a.body, tt.want) {
				t.Errorf("got %d %s, want %d %q", a.status, a.body, tt.status, tt.want)
			}
			for host, e := range c.engines {
				// Where several have it each begins to answer; the caller hears nothing of that.
				if tt.status != http.StatusConflict && strings.Contains(e.requests(), "/logs") != (host == tt.host) {
					t.Errorf("host %s was asked:\n%s", host, e.requests())
				}
			}
			if strings.Contains(a.body, "a line of") != (tt.host != "") {
				t.Errorf("got %s", a.body)
			}
			if len(c.dialled) != tt.dialled {
				t.Errorf("dialled %v, want %d hosts", c.dialled, tt.dialled)
			}
		})
	}
}

// named is a container on a host that somebody has called so.
func named(host, name string) func(*cluster) {
	return func(c *cluster) { c.engines[host].names[name] = id("dd") }
}

func TestAFleetTellsNoExistenceToWhoMayNotList(t *testing.T) {
	for _, tt := range []struct{ name, user, method, what string }{
		{"who may do nothing", "nobody", "GET", "json"},
		{"who may do nothing, to start one", "nobody", "POST", "start"},
		{"who may do something elsewhere", "elsewhere", "GET", "json"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, ref := range []string{"web", "0123456789abcdef0123456789abcdef"} {
				c := newCluster(t)
				if ref != "web" {
					c.ecs = []Spot{{"i-1", id("aa"), "task t, web"}, {"i-1", id("ab"), "task t, log"}}
				}
				c.Fleet.SetPolicy(mustPolicy(t, testPolicy+"  - {name: elsewhere, effect: allow, principals: [user:elsewhere], actions: [docker.ps], environments: [prod]}\n"))
				raw := tt.method + " /v1.51/containers/" + ref + "/" + tt.what + " HTTP/1.1\r\nHost: x\r\n\r\n"
				there := c.ask(tt.user, raw)
				absent := c.ask(tt.user, strings.Replace(raw, ref, "nosuch", 1))
				if there.status != http.StatusNotFound || strings.Replace(there.body, ref, "nosuch", 1) != absent.body {
					t.Errorf("%s: got %d %s and %d %s, want the same", ref, there.status, there.body, absent.status, absent.body)
				}
			}
		})
	}
}

func TestOfTwoTheOneIsMeantThatTheCallerMayKnowOf(t *testing.T) {
	c := newCluster(t)
	c.engines["i-3"].names["only1"] = id("cb")
	c.Fleet.SetPolicy(mustPolicy(t, testPolicy+"  - {name: only-test, effect: allow, principals: [user:nobody], actions: [docker.ps, docker.inspect], environments: [test]}\n"))
	if a := c.ask("nobody", get("/v1.51/containers/only1/json")); !strings.Contains(a.body, id("ab")) || strings.Contains(a.body, "cb0000") {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

func TestWhatWasFoundIsRemembered(t *testing.T) {
	c := newCluster(t)
	c.dead["i-3"] = errors.New("offline")
	for range 2 {
		if a := c.ask("dev", get("/v1.51/containers/only1/logs?stdout=1")); a.status != http.StatusOK {
			t.Fatalf("got %d %s", a.status, a.body)
		}
	}
	if len(c.dialled) != 4 { // three to find it; its stream is used for the logs, and ends with them
		t.Errorf("dialled %v", c.dialled)
	}
	if len(c.learnt) > 0 || len(c.notes) != 1 || !strings.Contains(c.notes[0], "not asked for only1, as they do not answer: 10.0.0.3") {
		t.Errorf("learnt %q, told %q", c.learnt, c.notes)
	}
}

// Where several have it, what they were asked for is in their logs under the id of the
// refusal here, and nobody has heard it.
func TestWhatSeveralBeganToAnswerIsOnRecordAsRefused(t *testing.T) {
	c := newCluster(t)
	if a := c.ask("dev", get("/v1.51/containers/web/logs?stdout=1")); a.status != http.StatusConflict || strings.Contains(a.body, "a line of") {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	here := c.log.all()
	if len(here) != 1 || here[0].Verdict != audit.Deny || here[0].Action != "docker.logs" {
		t.Fatalf("recorded %+v", here)
	}
	there := 0
	for _, l := range c.hostLogs {
		for _, e := range l.all() {
			if e.Kind == audit.Open {
				there++
			}
			if e.Far != here[0].ID {
				t.Errorf("a host recorded %+v, want it to name %s", e, here[0].ID)
			}
		}
	}
	if there != 2 {
		t.Errorf("%d hosts have it on record, want those that have a web", there)
	}
}

// What a host answers when nobody waits for it any more is dropped.
func TestAnAnswerThatComesTooLateIsDropped(t *testing.T) {
	var a answers
	early, earlyEnd := net.Pipe()
	late, lateEnd := net.Pipe()
	taken, takenEnd := net.Pipe()
	one, other, third := &answer{up: &upstream{conn: early}}, &answer{up: &upstream{conn: late}}, &answer{up: &upstream{conn: taken}}
	a.keep(one)
	a.keep(third)
	if a.take(third) != third.up || a.take(nil) != nil {
		t.Error("what is taken is not what was kept")
	}
	a.drop()
	a.keep(other)
	for name, end := range map[string]net.Conn{"an early one": earlyEnd, "a late one": lateEnd} {
		end.SetReadDeadline(time.Now().Add(patient))
		if _, err := end.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%s: got %v, want its end", name, err)
		}
	}
	go taken.Write([]byte{1})
	if _, err := takenEnd.Read(make([]byte, 1)); err != nil {
		t.Errorf("the one that was taken: %v", err)
	}
}

// A host that hangs keeps nobody from a container that another one has.
func TestASearchDoesNotWaitForAHostThatHangs(t *testing.T) {
	c := newCluster(t)
	c.patience = together.Patience{Most: time.Hour, Least: 50 * time.Millisecond, Times: 5}
	dial, hung := c.Dial, c.hosts[2].ID
	c.Dial = func(ctx ctx, h FarHost) (conn, error) {
		if h.ID == hung {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return dial(ctx, h)
	}
	if a := c.ask("dev", get("/v1.51/containers/only1/logs?stdout=1")); a.status != http.StatusOK {
		t.Errorf("got %d %s", a.status, a.body)
	}
	if len(c.notes) != 1 || !strings.Contains(c.notes[0], "not asked for only1, as they do not answer: ") {
		t.Errorf("it says %q", c.notes)
	}
	a := c.ask("dev", get("/v1.51/containers/nosuch/logs?stdout=1"))
	if a.status != http.StatusBadGateway || !strings.Contains(a.body, "nosuch is on none of the hosts that answer") || !strings.Contains(a.body, "no answer within") {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

func TestOthersLearnWhereAnIDIsThatAllHostsWereAskedFor(t *testing.T) {
	for _, tt := range []struct {
		name, ref string
		dead      string
		want      string
	}{
		{"a whole id", id("ab"), "", "i-1 ab"},
		{"a short id", id("ab")[:12], "", "i-1 ab"},
		{"a name", "only1", "", ""},
		{"an id, and a host that says nothing", id("ab"), "i-3", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t)
			if tt.dead != "" {
				c.dead[tt.dead] = errors.New("offline")
			}
			if a := c.ask("dev", get("/v1.51/containers/"+tt.ref+"/logs?stdout=1")); a.status != http.StatusOK {
				t.Fatalf("got %d %s", a.status, a.body)
			}
			if got := strings.Join(c.learnt, ","); got != tt.want {
				t.Errorf("learnt %q, want %q", got, tt.want)
			}
		})
	}
}

// A host whose root is not a friend answers for the containers of others, to see
// what is typed into them.
func TestAHostCannotTakeOthersContainers(t *testing.T) {
	for _, tt := range []struct {
		name, ref string
		claims    outline
		status    int
		want      string
	}{
		{"by a whole id", id("bb"), outline{ID: id("bb"), Name: "/only2"}, 409, "can be several containers"},
		{"by a name", "only2", outline{ID: id("dd"), Name: "/only2"}, 409, "can be several containers"},
		{"whatever was asked for", "nosuch", outline{ID: id("dd"), Name: "/other"}, 502, "asked for container nosuch, its gate answers with dd0000000000, called other"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t)
			honest := c.Dial
			c.Dial = func(ctx context.Context, h FarHost) (net.Conn, error) {
				if h.ID != "i-1" {
					return honest(ctx, h)
				}
				ours, theirs := net.Pipe()
				go claim(theirs, tt.claims)
				return ours, nil
			}
			a := c.ask("dev", get("/v1.51/containers/"+tt.ref+"/logs?stdout=1"))
			if a.status != tt.status || !strings.Contains(a.body, tt.want) {
				t.Errorf("got %d %s, want %d %q", a.status, a.body, tt.status, tt.want)
			}
		})
	}
}

// claim answers each request of a connection with the same container.
func claim(conn net.Conn, o outline) {
	br := bufio.NewReader(conn)
	body, _ := json.Marshal(outlook{outline: o, Type: "web"})
	for {
		if _, err := http.ReadRequest(br); err != nil {
			return
		}
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}
}

func TestAnExecAndWhatIsMadeStayOnTheirHost(t *testing.T) {
	c := newCluster(t)
	if a := c.ask("dev", post("/v1.51/containers/only2/exec", `{"AttachStdout":true,"Cmd":["id"]}`)); a.status != http.StatusCreated {
		t.Fatalf("exec: got %d %s", a.status, a.body)
	}
	if a := c.ask("dev", post("/v1.51/exec/"+execID+"/resize?h=1&w=1", "")); a.status >= 300 || !strings.Contains(c.engines["i-2"].requests(), "resize") {
		t.Errorf("resize: got %d %s", a.status, a.body)
	}
	if a := c.ask("dev", on(post("/v1.51/containers/create", `{"Image":"lab/web:1"}`), "X-Jumpsuite-Host: i-1")); a.status != http.StatusCreated {
		t.Fatalf("create: got %d %s", a.status, a.body)
	}
	if s, ok := c.kept(newID); !ok || s.gate.Hosts[0] != "10.0.0.1" {
		t.Errorf("where the container is is not known: %+v", s)
	}
}

func TestNobodyIsAskedForWhoMayDoNothing(t *testing.T) {
	c := newCluster(t)
	for _, raw := range []string{get("/v1.51/containers/only1/logs"), get("/v1.51/containers/json"), get("/jumpsuite/hosts?for=ps"), get("/v1.51/version")} {
		a := c.ask("nobody", raw)
		if a.status != http.StatusForbidden || len(c.dialled) > 0 {
			t.Errorf("%s: got %d %s, dialled %v", raw, a.status, a.body, c.dialled)
		}
	}
	if len(c.log.all()) != 4 {
		t.Errorf("got %d events, want each refusal on record", len(c.log.all()))
	}
}

func TestTheCLILearnsWhichHostsThereAre(t *testing.T) {
	c := newCluster(t)
	c.dead["hosts of prod"] = errors.New("no rights")
	a := c.ask("dev", get("/jumpsuite/hosts?for=ps"))
	want := `{"Hosts":[{"ID":"i-1","Name":"10.0.0.1","Environment":"test"},{"ID":"i-2","Name":"10.0.0.2","Environment":"test"},{"ID":"i-3","Name":"10.0.0.3","Environment":"prod"}],"Missing":[{"Environment":"prod","Error":"jumpsuite: no rights"}]}`
	if a.status != http.StatusOK || strings.TrimSpace(a.body) != want {
		t.Errorf("got %d %s, want %s", a.status, a.body, want)
	}
	if len(c.dialled) > 0 || len(c.log.all()) > 0 {
		t.Errorf("dialled %v, recorded %+v", c.dialled, c.log.all())
	}
}

func TestAPingNeedsNoHost(t *testing.T) {
	c := newCluster(t)
	a := c.ask("nobody", "HEAD /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
	if a.status != http.StatusOK || a.header.Get("Api-Version") != "1.51" || len(c.dialled) > 0 {
		t.Errorf("got %d %v, dialled %v", a.status, a.header, c.dialled)
	}
}

func TestACallerCanNameTheEnvironmentOfAHostOnlyToMakeSure(t *testing.T) {
	h := newHarness(t, newFakeEngine(t).socket, "test")
	for env, want := range map[string]int{"test": 200, "prod": 404} {
		if a := exchangeRaw(t, h.socket("dev"), on(get("/v1.51/containers/json"), "X-Jumpsuite-Environment: "+env)); a.status != want {
			t.Errorf("%s: got %d %s, want %d", env, a.status, a.body, want)
		}
	}
}

func TestAFleetsPolicyHoldsForAllItsHosts(t *testing.T) {
	c := newCluster(t)
	c.ask("dev", on(get("/v1.51/containers/json"), "X-Jumpsuite-Host: i-1"))
	c.Fleet.SetPolicy(nil)
	for _, host := range []string{"i-1", "i-2"} {
		a := c.ask("dev", on(get("/v1.51/containers/json"), "X-Jumpsuite-Host: "+host))
		if a.status != http.StatusForbidden {
			t.Errorf("%s: got %d %s, want a refusal", host, a.status, a.body)
		}
	}
}

func TestAPingIsAnsweredWithWhatTheHostSpokeLately(t *testing.T) {
	c := newCluster(t)
	known := map[string]string{"i-2": "1.43", "i-3": "nonsense"}
	c.Fleet.Version = func(h FarHost) string { return known[h.ID] }
	c.Fleet.Spoke = func(h FarHost, version string) { known[h.ID] = version }
	for _, tt := range []struct{ host, want, dialled string }{
		{"i-2", "1.43", ""},
		{"i-3", "1.51", "i-3"},
		{"i-3", "1.51", "i-3"},
	} {
		a := c.ask("dev", on("HEAD /_ping HTTP/1.1\r\nHost: x\r\n\r\n", "X-Jumpsuite-Host: "+tt.host))
		if got := a.header.Get("Api-Version"); got != tt.want || strings.Join(c.dialled, " ") != tt.dialled {
			t.Errorf("%s: got %q, dialled %v; want %q, %q", tt.host, got, c.dialled, tt.want, tt.dialled)
		}
	}
}

// A host whose root is not a friend writes what could drive the terminal of whom
// it answers. What a container prints is as it is, as with docker.
func TestAHostDrivesNoTerminal(t *testing.T) {
	const evil = `evil\u001b]0;x\u0007`
	object := `{"Id":"` + id("aa") + `","ID":"` + id("aa") + `","Name":"/` + evil + `","name":"/` + evil + `","Names":["/` + evil + `"],"Image":"` + imgID + `","Command":"` + evil +
		`","Warnings":["` + evil + `"],"Status":"` + evil + `","Type":"container","Action":"` + evil + `","Actor":{"ID":"` + id("aa") + `","Attributes":{"name":"` + evil + `"}},"Version":"` + evil + `","Config":{"Image":"` + evil + `"},"RepoTags":["` + evil + `"],"status":"` + evil + `","message":"` + evil + `"}`
	for _, tt := range []struct{ name, raw, body, error string }{
		{"ps", get("/v1.51/containers/json"), "[" + object + "]", ""},
		{"images", get("/v1.51/images/json"), "[" + object + "]", ""},
		{"inspect", get("/v1.51/containers/" + id("aa") + "/json"), object, ""},
		{"stats", get("/v1.51/containers/" + id("aa") + "/stats?stream=0"), object, ""},
		{"stats that go on", get("/v1.51/containers/" + id("aa") + "/stats?stream=1"), object, ""},
		{"version", get("/v1.51/version"), object, ""},
		{"create", post("/v1.51/containers/create", `{"Image":"lab/web:1"}`), object, ""},
		{"an error", get("/v1.51/containers/json"), object, "500 Internal Server Error"},
		{"a notice", post("/v1.51/containers/"+id("aa")+"/start", ""), object, "204 No Content\r\nX-Jumpsuite-Notice: evil \xc2\x9b0m"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t)
			c.Dial = func(context.Context, FarHost) (net.Conn, error) {
				ours, theirs := net.Pipe()
				go answerAll(theirs, tt.body, tt.error)
				return ours, nil
			}
			a := c.ask("dev", on(tt.raw, "X-Jumpsuite-Host: i-1"))
			said := a.body + strings.Join(c.notes, " ") + strings.Join(a.header["X-Jumpsuite-Notice"], "")
			if !strings.Contains(said, "evil") {
				t.Fatalf("got %d %s", a.status, said)
			}
			for _, bad := range []string{"\\u001b", "\\u0007", "\x1b", "\u009b"} {
				if strings.Contains(said, bad) {
					t.Errorf("got %d %q", a.status, said)
					break
				}
			}
		})
	}
}

// A host cannot fill the memory of a gate with one answer that has no end.
func TestAnObjectHasAnEnd(t *testing.T) {
	c := newCluster(t)
	c.Dial = func(context.Context, FarHost) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go answerAll(theirs, `{"name":"`+strings.Repeat("x", 2*maxObject)+`"}`, "")
		return ours, nil
	}
	a := c.ask("dev", on(get("/v1.51/containers/"+id("aa")+"/stats?stream=1"), "X-Jumpsuite-Host: i-1"))
	all := c.log.all()
	if last := all[len(all)-1]; last.Result == nil || !strings.Contains(last.Result.Error, "an object of more than") || len(a.body) > 100 {
		t.Errorf("got %d bytes, recorded %+v", len(a.body), last)
	}
}

// answerAll answers look-ups with a container or an image, and all else with body.
func answerAll(conn net.Conn, body, status string) {
	br := bufio.NewReader(conn)
	for {
		r, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		io.Copy(io.Discard, r.Body)
		b, s := body, status
		if s == "" {
			s = "200 OK"
		}
		switch {
		case strings.HasPrefix(r.URL.Path, "/v1.51/jumpsuite/images"):
			b, s = fmt.Sprintf(`{"Id":%q,"RepoTags":["lab/web:1"]}`, imgID), "200 OK"
		case strings.HasPrefix(r.URL.Path, "/v1.51/jumpsuite/"):
			o := outlook{outline: outline{ID: id("aa"), Name: "/web"}, Type: "web"}
			o.Config.Image = "lab/web:1"
			known, _ := json.Marshal(o)
			if r.Method == http.MethodPost {
				s += "\r\nX-Jumpsuite-Outlook: " + base64.StdEncoding.EncodeToString(known)
			} else {
				b, s = string(known), "200 OK"
			}
		}
		if strings.HasPrefix(s, "204") {
			fmt.Fprintf(conn, "HTTP/1.1 %s\r\n\r\n", s)
			continue
		}
		fmt.Fprintf(conn, "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", s, len(b), b)
	}
}
