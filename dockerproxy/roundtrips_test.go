package dockerproxy

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"jumpsuite/internal/audit"
	"jumpsuite/internal/tunnel"
	"jumpsuite/policy"
)

// roundTrip is how long one takes between the jump server and its hosts here: by a
// clock that runs only while everybody waits for it (testing/synctest). So the time
// that something took is a count, and always the same one.
const roundTrip = 100 * time.Millisecond

// lane is one direction of a wire: what is written arrives later, in order.
type lane struct {
	delay    time.Duration
	mu       sync.Mutex
	heard    *sync.Cond
	coming   []parcel
	closed   bool
	deadline time.Time
}

type parcel struct {
	at    time.Time
	bytes []byte // empty: the end
}

func newLane(delay time.Duration) *lane {
	l := &lane{delay: delay}
	l.heard = sync.NewCond(&l.mu)
	return l
}

func (l *lane) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, net.ErrClosed
	}
	l.put(slices.Clone(p))
	return len(p), nil
}

func (l *lane) put(p []byte) {
	l.coming = append(l.coming, parcel{time.Now().Add(l.delay), p})
	time.AfterFunc(l.delay, l.heard.Broadcast)
	l.heard.Broadcast()
}

func (l *lane) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		l.put(nil)
	}
}

func (l *lane) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		now := time.Now()
		if !l.deadline.IsZero() && !now.Before(l.deadline) {
			return 0, os.ErrDeadlineExceeded
		}
		if len(l.coming) > 0 && !now.Before(l.coming[0].at) {
			break
		}
		l.heard.Wait()
	}
	first := &l.coming[0]
	if len(first.bytes) == 0 {
		return 0, io.EOF
	}
	n := copy(p, first.bytes)
	if first.bytes = first.bytes[n:]; len(first.bytes) == 0 {
		l.coming = l.coming[1:]
	}
	return n, nil
}

func (l *lane) until(t time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deadline = t
	l.heard.Broadcast()
	if !t.IsZero() {
		time.AfterFunc(time.Until(t), l.heard.Broadcast)
	}
}

// wire is one end of a connection between two machines.
type wire struct {
	net.Conn // nil: the addresses and the like, that nobody asks for
	in, out  *lane
}

// newWire is a connection on which all the delay is on the way back: a question
// and its answer take a roundTrip.
func newWire() (near, far *wire) {
	there, back := newLane(0), newLane(roundTrip)
	return &wire{in: back, out: there}, &wire{in: there, out: back}
}

func (w *wire) Read(p []byte) (int, error)         { return w.in.Read(p) }
func (w *wire) Write(p []byte) (int, error)        { return w.out.Write(p) }
func (w *wire) SetReadDeadline(t time.Time) error  { w.in.until(t); return nil }
func (w *wire) SetWriteDeadline(t time.Time) error { return nil }
func (w *wire) SetDeadline(t time.Time) error      { return w.SetReadDeadline(t) }

func (w *wire) Close() error {
	w.out.end()
	w.in.until(time.Now())
	return nil
}

// pipes is a listener in memory.
type pipes struct {
	made chan net.Conn
	over chan struct{}
}

func newPipes() pipes {
	return pipes{make(chan net.Conn), make(chan struct{})}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.made:
		return c, nil
	case <-p.over:
		return nil, net.ErrClosed
	}
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{} }

func (p pipes) dial(context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.made <- theirs:
		return ours, nil
	case <-p.over:
		return nil, net.ErrClosed
	}
}

// distant is a jump server before hosts that are a roundTrip away, each with a gate
// of its own. It is used within one bubble of synctest.
type distant struct {
	t       *testing.T
	ctx     context.Context
	fleet   *Fleet
	log     *auditLog
	hosts   []FarHost
	gates   map[string]*Gate
	logs    map[string]*auditLog
	engines map[string]*distantEngine
	streams int
	ecs     []Spot
	close   func()
	jump    ed25519.PrivateKey
	keys    map[string]ed25519.PrivateKey
	mu      sync.Mutex
	carries func(host string, far net.Conn) net.Conn // in between; nil: nothing
}

// distantEngine is a made-up Engine.
type distantEngine struct {
	fleetEngine
	types map[string]string // container types, by name; none: none
}

func (e *distantEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	path := strings.TrimPrefix(r.URL.Path, "/v1.51")
	e.mu.Lock()
	e.asked = append(e.asked, strings.TrimSpace(r.Method+" "+path+" "+string(body)))
	e.mu.Unlock()
	w.Header().Set("Api-Version", "1.51")
	switch {
	case r.Header.Get("Upgrade") != "":
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\noutput")
	case path == "/containers/json", path == "/images/json":
		io.WriteString(w, "[]")
	case path == "/version":
		io.WriteString(w, "{}")
	case path == "/containers/create":
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"Id":%q,"Warnings":[]}`, newID)
	case path == "/images/create", strings.HasSuffix(path, "/logs"), strings.HasSuffix(path, "/stats"), strings.HasSuffix(path, "/wait"):
		io.WriteString(w, `{"StatusCode":0}`)
	case strings.HasPrefix(path, "/images/lab/"):
		fmt.Fprintf(w, `{"Id":%q,"RepoTags":["lab/web:1"]}`, imgID)
	case strings.HasPrefix(path, "/images/"), strings.HasPrefix(path, "/volumes/"):
		http.Error(w, `{"message":"no such thing"}`, http.StatusNotFound)
	case strings.HasSuffix(path, "/exec"):
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"Id":%q}`, execID)
	case strings.HasPrefix(path, "/exec/") && r.Method == http.MethodGet:
		id, _, _ := e.find("web")
		fmt.Fprintf(w, `{"ID":%q,"ContainerID":%q,"ExitCode":0}`, execID, id)
	case r.Method != http.MethodGet:
		w.WriteHeader(http.StatusNoContent)
	default:
		e.container(w, strings.TrimSuffix(strings.TrimPrefix(path, "/containers/"), "/json"))
	}
}

func (e *distantEngine) find(ref string) (id, name string, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for name, id := range e.names {
		if ref == name || strings.HasPrefix(id, ref) {
			return id, name, true
		}
	}
	if ref == newID {
		return newID, "made", true
	}
	return "", "", false
}

func (e *distantEngine) container(w http.ResponseWriter, ref string) {
	id, name, ok := e.find(ref)
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, `{"message":"No such container: %s"}`, ref)
		return
	}
	labels := map[string]string{}
	if k := e.types[name]; k != "" {
		labels[ecsFamilyLabel] = k
	}
	json.NewEncoder(w).Encode(map[string]any{"Id": id, "Name": "/" + name, "Image": imgID, "State": map[string]any{"StartedAt": "2026-01-02T03:04:05Z", "Running": name == "web"},
		"Config": map[string]any{"Image": "lab/web:1", "Labels": labels}, "HostConfig": map[string]any{}})
}

// packed makes what packs and unpacks the data of tunnels, once and for all: what a
// bubble has made cannot be used in the next.
var packed = sync.OnceFunc(func() {
	_, key, _ := ed25519.GenerateKey(nil)
	id := tunnel.Identity{Key: key, Trusted: func(tunnel.KeyID) bool { return true }}
	near, far := net.Pipe()
	go func() {
		c, _, err := tunnel.Accept(context.Background(), far, id, func(tunnel.Hello, tunnel.KeyID) (tunnel.Welcome, error) { return tunnel.Welcome{}, nil })
		if err == nil {
			c.Write(make([]byte, 4<<10))
		}
	}()
	c, err := tunnel.Client(context.Background(), near, id, tunnel.Hello{User: "dev", UID: 1001, Audit: audit.NewID(here2026)})
	if err == nil {
		io.ReadFull(c, make([]byte, 4<<10))
		near.Close()
	}
})

// ownID is a container that dev has made.
var ownID = strings.Repeat("9", 64)

// newDistant has n hosts in test, the first with web, one that is stopped and one of
// dev's own, the others with what nobody asks for.
func newDistant(t *testing.T, n int) *distant {
	d := &distant{t: t, log: &auditLog{}, gates: map[string]*Gate{}, logs: map[string]*auditLog{}, engines: map[string]*distantEngine{}, keys: map[string]ed25519.PrivateKey{}}
	var cancel context.CancelFunc
	d.ctx, cancel = context.WithCancel(t.Context())
	var all []pipes
	d.close = func() {
		cancel()
		for _, p := range all {
			close(p.over)
		}
	}
	_, d.jump, _ = ed25519.GenerateKey(nil)
	d.fleet = &Fleet{
		Front:        &Gate{Record: d.log.Record},
		Environments: []string{"test"},
		Hosts:        func(context.Context, string) ([]FarHost, error) { return d.hosts, nil },
		Where:        func(context.Context, string, string) ([]Spot, error) { return d.ecs, nil },
		Dial:         d.dial,
	}
	d.fleet.SetPolicy(mustPolicy(t, testPolicy))
	for i := range n {
		id := fmt.Sprintf("i-%d", i+1)
		_, d.keys[id], _ = ed25519.GenerateKey(nil)
		names := map[string]string{"web": webID, "stopped": stopID, "own": ownID}
		if i > 0 {
			names = map[string]string{fmt.Sprintf("only%d", i+1): strings.Repeat(fmt.Sprint(i), 64)}
		}
		e := &distantEngine{fleetEngine: fleetEngine{names: names}, types: map[string]string{"web": "web"}}
		p := newPipes()
		all = append(all, p)
		s := &http.Server{Handler: e}
		go s.Serve(p)
		leases, err := OpenLeases(t.TempDir() + "/leases")
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			le := newLease(leaseMade, owner{UID: 1001, User: "dev", Key: "jump1"}, audit.NewID(here2026), time.Hour)
			le.Container, le.Image = ownID, "lab/web:1"
			if err := leases.write(ownID, le); err != nil {
				t.Fatal(err)
			}
		}
		d.logs[id] = &auditLog{}
		g := &Gate{Engine: p.dial, Environment: "test", Hosts: []string{id}, Record: d.logs[id].Record, Leases: leases, Watch: -1}
		g.SetPolicy(mustPolicy(t, testPolicy))
		g.Warm(d.ctx)
		d.gates[id], d.engines[id] = g, e
		d.hosts = append(d.hosts, FarHost{ID: id, Names: []string{fmt.Sprintf("10.0.0.%d", i+1)}, Environment: "test"})
	}
	return d
}

func (d *distant) dial(ctx context.Context, h FarHost) (net.Conn, error) {
	anybody := func(tunnel.KeyID) bool { return true }
	near, far := newWire()
	d.mu.Lock()
	d.streams++
	var carried net.Conn = far
	if d.carries != nil {
		carried = d.carries(h.ID, far)
	}
	d.mu.Unlock()
	go func() {
		c, hello, err := tunnel.Accept(d.ctx, carried, tunnel.Identity{Key: d.keys[h.ID], Trusted: anybody}, func(tunnel.Hello, tunnel.KeyID) (tunnel.Welcome, error) {
			return tunnel.Welcome{Environment: "test"}, nil
		})
		if err == nil {
			d.gates[h.ID].ServeConn(d.ctx, c, Caller{UID: hello.UID, Principal: policy.Principal{User: hello.User, Key: "jump1"}, Far: hello.Audit})
		}
	}()
	return tunnel.Client(ctx, near, tunnel.Identity{Key: d.jump, Trusted: anybody}, tunnel.Hello{User: "dev", UID: 1001, Audit: audit.NewID(here2026)})
}

// cli is a client's connection to the jump server's gate.
type cli struct {
	net.Conn
	br *bufio.Reader
}

func (d *distant) cli(user string) *cli {
	ours, theirs := net.Pipe()
	go d.fleet.ServeConn(d.ctx, theirs, Caller{UID: uids[user], Principal: policy.Principal{User: user}})
	return &cli{ours, bufio.NewReader(ours)}
}

// head asks, and reads the answer but for the body of a stream.
func (c *cli) head(raw string) (*http.Response, error) {
	if _, err := io.WriteString(c, raw); err != nil {
		return nil, err
	}
	method, _, _ := strings.Cut(raw, " ")
	return http.ReadResponse(c.br, &http.Request{Method: method})
}

// does is a command: its requests one after the other, each when the one before is
// answered. The first connection is used for what is no stream.
func (d *distant) does(user string, requests ...string) (status int, body string) {
	plain := d.cli(user)
	defer plain.Close()
	made := ""
	for _, raw := range requests {
		c, raw := plain, strings.Replace(raw, "MADE", made, 1)
		if strings.Contains(raw, "Upgrade: tcp") || strings.Contains(raw, "/wait") {
			c = d.cli(user)
			defer c.Close()
		}
		res, err := c.head(raw)
		if err != nil {
			d.t.Errorf("%q: %v", raw, err)
			return 0, ""
		}
		status = res.StatusCode
		if c == plain {
			b, _ := io.ReadAll(res.Body)
			body = string(b)
			made = madeIn(b)
		}
		if status >= 400 {
			return status, body
		}
	}
	return status, body
}

// madeIn is the id of what was made, by the answer of that.
func madeIn(b []byte) string {
	var made struct {
		ID string `json:"Id"`
	}
	_ = json.Unmarshal(b, &made)
	return made.ID
}

// counted is how many round trips a command takes until the last of its requests
// is answered.
func (d *distant) counted(user string, requests ...string) (n, status int, body string) {
	began := time.Now()
	status, body = d.does(user, requests...)
	return int(time.Since(began) / roundTrip), status, body
}

// asVerb says which word was typed, and on which host; empty: none.
func asVerb(verb, host string, requests ...string) (all []string) {
	for _, r := range requests {
		if host != "" {
			r = on(r, "X-Jumpsuite-Host: "+host)
		}
		all = append(all, on(r, "X-Jumpsuite-Verb: "+verb))
	}
	return all
}

const (
	execHere     = `{"AttachStdout":true,"Cmd":["id"]}`
	execDetached = `{"Cmd":["id"]}`
)

// commands are what docker's verbs ask, as our CLI does it, to the first byte of
// what they are for, and how many round trips that takes: where the host is named
// (or the container by an id that ECS knows), where all three are to be asked, and
// where the host is named and a rule of the jump server's tells containers apart.
// Zero: it is only for one host.
//
// The first round trip is TLS's. docs/hosts.md has the table, and why.
var commands = []struct {
	name, verb        string
	named, any, apart int
	requests          []string
}{
	{"ps", "ps", 2, 0, 2, []string{get("/v1.51/containers/json")}},
	{"images", "images", 2, 0, 2, []string{get("/v1.51/images/json")}},
	{"inspect", "inspect", 2, 2, 2, []string{get("/v1.51/containers/web/json")}},
	{"logs", "logs", 2, 2, 2, []string{get("/v1.51/containers/web/logs?stdout=1")}},
	{"stats", "stats", 2, 2, 2, []string{get("/v1.51/containers/web/stats?stream=0")}},
	{"exec", "exec", 2, 3, 2, []string{
		get("/v1.51/containers/web/json"),
		post("/v1.51/containers/web/exec", execHere),
		post("/v1.51/exec/MADE/start", `{"Detach":false,"Tty":false}`, upgradeTCP, "Content-Type: application/json"),
	}},
	{"exec -d", "exec", 2, 3, 2, []string{
		get("/v1.51/containers/web/json"),
		post("/v1.51/containers/web/exec", execDetached),
		post("/v1.51/exec/MADE/start", `{"Detach":true,"Tty":false}`),
	}},
	{"start", "start", 2, 3, 2, []string{post("/v1.51/containers/stopped/start", "")}},
	{"start -a", "start", 5, 5, 5, []string{
		get("/v1.51/containers/stopped/json"),
		post("/v1.51/containers/"+stopID+"/attach?stream=1&stdout=1", "", upgradeTCP),
		post("/v1.51/containers/"+stopID+"/wait?condition=next-exit", ""),
		post("/v1.51/containers/"+stopID+"/start", ""),
	}},
	{"stop", "stop", 2, 3, 2, []string{post("/v1.51/containers/own/stop", "")}},
	{"kill", "kill", 2, 3, 2, []string{post("/v1.51/containers/own/kill?signal=TERM", "")}},
	{"rm", "rm", 2, 3, 2, []string{strings.Replace(get("/v1.51/containers/own?force=1"), "GET", "DELETE", 1)}},
	{"inspect of an image", "inspect", 2, 0, 2, []string{get("/v1.51/images/lab/web:1/json")}},
	{"version", "version", 2, 0, 2, []string{get("/v1.51/version")}},
	{"pull", "pull", 2, 0, 2, []string{post("/v1.51/images/create?fromImage=docker.io%2Flab%2Fweb&tag=1", "")}},
	{"create", "create", 2, 0, 2, []string{post("/v1.51/containers/create", `{"Image":"lab/web:1"}`)}},
	{"run -d", "run", 4, 0, 4, []string{
		post("/v1.51/containers/create", `{"Image":"lab/web:1"}`),
		post("/v1.51/containers/MADE/wait?condition=next-exit", ""),
		post("/v1.51/containers/MADE/start", ""),
	}},
	{"run", "run", 5, 0, 5, []string{
		post("/v1.51/containers/create", `{"Image":"lab/web:1"}`),
		post("/v1.51/containers/MADE/attach?stream=1&stdout=1", "", upgradeTCP),
		post("/v1.51/containers/MADE/wait?condition=next-exit", ""),
		post("/v1.51/containers/MADE/start", ""),
	}},
}

// apart has rules that are about some containers and images only.
const apart = "  - {name: not-db, effect: deny, principals: [user:dev], actions: [docker.logs, docker.inspect, docker.stats, docker.exec, docker.start, docker.stop, docker.rm], environments: [test], container-types: [db]}\n"

// What a command costs, host by host. A count that has become smaller is to be
// written down here; one that has become larger is a mistake.
func TestAVerbTakesSoManyRoundTrips(t *testing.T) {
	packed()
	for _, c := range commands {
		for _, in := range []struct {
			where, host, rules string
			ecs                bool
			want               int
		}{
			{"on a host that is named", "i-1", "", false, c.named},
			{"by an id that ECS knows", "", "", true, c.named},
			{"by a name, with several hosts", "", "", false, c.any},
			{"on a host that is named, with rules about some containers", "i-1", apart, false, c.apart},
		} {
			if in.want == 0 || in.ecs && c.any == 0 {
				continue
			}
			t.Run(c.name+" "+in.where, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					d := newDistant(t, 3)
					defer d.close()
					d.fleet.SetPolicy(mustPolicy(t, testPolicy+in.rules))
					requests := asVerb(c.verb, in.host, c.requests...)
					if in.ecs {
						requests = byID(requests)
						d.ecs = []Spot{{Host: "i-1", Container: meantBy(c.requests[0])}}
					}
					n, status, body := d.counted("dev", requests...)
					if n != in.want || status >= 400 {
						t.Errorf("%d round trips, want %d; got %d %s", n, in.want, status, body)
					}
				})
			})
		}
	}
}

// meantBy is the id of the container that a request calls by its name.
func meantBy(request string) string {
	return map[string]string{"web": webID, "stopped": stopID, "own": ownID}[strings.FieldsFunc(strings.Split(request, "/")[3], func(c rune) bool { return c == '?' })[0]]
}

// byID are requests that call containers by an id.
func byID(requests []string) (all []string) {
	for _, r := range requests {
		all = append(all, strings.NewReplacer("/web/", "/"+webID[:12]+"/", "/stopped/", "/"+stopID[:12]+"/", "/own/", "/"+ownID[:12]+"/", "/own?", "/"+ownID[:12]+"?").Replace(r))
	}
	return all
}

// The table of docs/hosts.md is what is counted here.
func TestTheTableOfRoundTripsIsTrue(t *testing.T) {
	b, err := os.ReadFile("../docs/hosts.md")
	if err != nil {
		t.Fatal(err)
	}
	cell := func(n int) string {
		if n == 0 {
			return " "
		}
		return fmt.Sprintf(" %d ", n)
	}
	for _, c := range commands {
		name := "`" + c.name + "`"
		if verb, of, ok := strings.Cut(c.name, " of "); ok {
			name = "`" + verb + "` of " + of
		}
		row := "| " + name + " |" + cell(c.named) + "|" + cell(c.any) + "|" + cell(c.apart) + "|"
		if !strings.Contains(string(b), row) {
			t.Errorf("docs/hosts.md has no row %q", row)
		}
	}
}

// What could be an image's id, or name another than it says, is looked at before the
// jump server decides.
func TestAnImageThatSaysItselfNeedsNoLook(t *testing.T) {
	hex := strings.Repeat("0123456789ab", 4)
	for name, want := range map[string]bool{
		"lab/web:1": true, "web": true, "web:1": true, "reg.example:5000/lab/web": true, "lab/abcdef": true, "abcdef:1": true, "web:abc123": true,
		"abcdef": false, "3f4c": false, hex: false, "sha256:" + hex: false, "web@sha256:" + strings.Repeat("a", 64): false,
		"web:" + hex[:12]: false, "lab/web:" + hex[:40]: false, "": false, "Web": false, "web:": false,
	} {
		if got := saysItself(name); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}
