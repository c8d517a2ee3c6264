package dockerproxy

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"jumpsuite/internal/audit"
	"jumpsuite/internal/lab/dockerd"
	"jumpsuite/internal/lab/rootfs"
	"jumpsuite/policy"
)

// testPolicy: dev may do everything in test, and in prod what the floor leaves;
// reader may read logs and nothing else; nobody is not in it.
const testPolicy = `
jump-servers:
  - name: all
    keys: ["*"]
    environments: ["*"]
    actions: [docker.version, docker.ps, docker.images, docker.logs, docker.stats, docker.inspect, docker.exec,
      docker.run, docker.create, docker.pull, docker.start, docker.stop, docker.rm]
environments:
  - name: test
    cluster: test
    region: eu-central-1
    production: false
    limits:
      exec: {commands: any, detach: true, users: ["1000"], env: [FOO], workdir: true, escapes: [agent]}
      run: {volumes: ["scratch*"], containers: 20, memory: 64MiB, pids: 32, cpus: 0.5, publish: true}
  - {name: prod, cluster: prod, region: eu-central-1, production: true}
  - name: taped
    cluster: taped
    region: eu-central-1
    production: false
    limits: {exec: {commands: any, detach: true}}
rules:
  - name: all
    effect: allow
    principals: [user:dev, user:other]
    actions: [docker.version, docker.ps, docker.images, docker.logs, docker.stats, docker.inspect, docker.exec]
    environments: [test, prod]
  - name: hands
    effect: allow
    principals: [user:dev, user:other]
    actions: [docker.run, docker.create, docker.pull, docker.start, docker.stop, docker.rm]
    environments: [test]
    images: [docker.io/lab/*]
  - name: taped
    effect: allow
    principals: [user:dev]
    actions: [docker.logs, docker.inspect, docker.exec, docker.run, docker.start]
    environments: [taped]
    images: [docker.io/lab/*]
    record: all
  - name: taped-list
    effect: allow
    principals: [user:dev]
    actions: [docker.ps]
    environments: [taped]
  - name: reader
    effect: allow
    principals: [user:reader]
    actions: [docker.logs]
    environments: [test]
`

func mustPolicy(t testing.TB, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse("policy.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// auditLog keeps events for tests.
type auditLog struct {
	mu     sync.Mutex
	events []audit.Event
	broken error
}

func (l *auditLog) Record(e *audit.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken != nil {
		return l.broken
	}
	l.events = append(l.events, *e)
	return nil
}

func (l *auditLog) all() []audit.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]audit.Event(nil), l.events...)
}

// harness is a gate before an Engine, with a socket for each user.
type harness struct {
	gate *Gate
	log  *auditLog
	dir  string
	ctx  context.Context
	t    testing.TB

	host    *Gate // behind gate, if gate is a jump server's
	hostLog *auditLog
	gates   []*Gate // all of them: a jump server has one for each caller
	policy  string  // that they have

	notify   func(Caller, string)
	recorder func(Session) (Recording, error)
}

// unheard is the recording of a gate that a test does not look at.
type unheard struct{}

func (unheard) Write(b []byte) (int, error)    { return len(b), nil }
func (unheard) Input([]byte) error             { return nil }
func (unheard) Resize(columns, rows int) error { return nil }
func (unheard) Failed() <-chan struct{}        { return nil }
func (unheard) Close() (string, error)         { return "", nil }

func newHarness(t testing.TB, engine, environment string, change ...func(*Gate)) *harness {
	t.Helper()
	h := oneGate(t, engine, environment, change...)
	if os.Getenv("R3_TEST_FAR") != "" {
		h.behindAnother()
	}
	return h
}

// oneGate is for tests of what one gate does by itself: with another before it, its
// callers would be that one's.
func oneGate(t testing.TB, engine, environment string, change ...func(*Gate)) *harness {
	t.Helper()
	dir := t.TempDir()
	leases, err := OpenLeases(filepath.Join(dir, "leases"))
	if err != nil {
		t.Fatal(err)
	}
	h := &harness{log: &auditLog{}, dir: dir, t: t}
	h.gate = &Gate{
		Engine: func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", engine)
		},
		Environment: environment, Hosts: []string{"host1"}, Record: h.log.Record, Leases: leases,
		Watch: -1,
	}
	for _, f := range change {
		f(h.gate)
	}
	h.gates = []*Gate{h.gate}
	h.setPolicy(testPolicy)
	var cancel context.CancelFunc
	h.ctx, cancel = context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return h
}

// behindAnother puts a jump server's gate in front of the gate, which becomes the
// host's, if there is none yet: what the tests say has to hold there, too. With
// R3_TEST_FAR=1 all of them are run so.
func (h *harness) behindAnother() {
	if h.host != nil {
		return
	}
	h.host, h.hostLog, h.log = h.gate, h.log, &auditLog{}
	h.notify, h.host.Notify = h.host.Notify, nil // the caller is at the other one
	h.recorder = h.host.Recorder
	if h.recorder != nil { // each has its own
		h.host.Recorder = func(Session) (Recording, error) { return unheard{}, nil }
	}
	h.gate = h.farGate(callerCalled("dev"))
}

// atEngine is the gate that has the Engine.
func (h *harness) atEngine() *Gate { return cmp.Or(h.host, h.gate) }

// atEngineLog is that gate's.
func (h *harness) atEngineLog() *auditLog { return cmp.Or(h.hostLog, h.log) }

// setPolicy gives all gates the same policy, a jump server's before the host's.
func (h *harness) setPolicy(text string) {
	h.t.Helper()
	h.policy = text
	for _, g := range slices.Backward(h.gates) {
		g.SetPolicy(mustPolicy(h.t, text))
	}
}

func callerCalled(user string) Caller {
	return Caller{UID: uids[user], Principal: policy.Principal{User: user}}
}

// farGate leads to the harness's gate as to another host's, for one caller.
func (h *harness) farGate(from Caller) *Gate {
	host := h.host
	from.Key = "jump1"
	g := &Gate{
		FarGate: true, Environment: host.Environment, Hosts: host.Hosts, Record: h.log.Record, Recorder: h.recorder, Notify: h.notify,
		Engine: func(context.Context) (net.Conn, error) {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return nil, err
			}
			go host.ServeConn(h.ctx, asConn(fds[0]), from)
			return asConn(fds[1]), nil
		},
	}
	g.SetPolicy(mustPolicy(h.t, h.policy))
	h.gates = append(h.gates, g)
	return g
}

func asConn(fd int) net.Conn {
	f := os.NewFile(uintptr(fd), "pair")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		panic(err)
	}
	return c
}

var uids = map[string]int{"dev": 1001, "other": 1002, "reader": 1003, "nobody": 65534}

// socket serves the gate to a user and returns the socket's path.
func (h *harness) socket(user string) string {
	path := filepath.Join(h.dir, user+".sock")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	return h.serveAs(user, callerCalled(user))
}

// serveAs serves the gate to somebody on a socket of that name.
func (h *harness) serveAs(name string, who Caller) string {
	path := filepath.Join(h.dir, name+".sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		h.t.Fatal(err)
	}
	gate := h.gate
	if h.host != nil && name != "dev" { // it is one caller's
		gate = h.farGate(who)
	}
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(h.ctx)
	go func() {
		defer close(done)
		if err := gate.Serve(ctx, l, func(context.Context, net.Conn) (Caller, error) { return who, nil }); err != nil {
			h.t.Errorf("serve: %v", err)
		}
	}()
	h.t.Cleanup(func() {
		cancel()
		<-done
	})
	return path
}

// answered is an answer as it came.
type answered struct {
	status int
	header http.Header
	body   string
	last   bool // the connection ends with it
	err    error
}

// exchangeRaw sends bytes and reads one answer.
func exchangeRaw(t testing.TB, socket, raw string) answered {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	go io.WriteString(conn, raw)
	method, _, _ := strings.Cut(raw, " ")
	return readAnswerTo(method, bufio.NewReader(conn))
}

func readAnswer(br *bufio.Reader) answered { return readAnswerTo(http.MethodGet, br) }

func readAnswerTo(method string, br *bufio.Reader) answered {
	res, err := http.ReadResponse(br, &http.Request{Method: method})
	if err != nil {
		return answered{err: err}
	}
	a := answered{status: res.StatusCode, header: res.Header, last: res.Close}
	if res.StatusCode != http.StatusSwitchingProtocols {
		b, _ := io.ReadAll(res.Body)
		a.body = string(b)
	}
	return a
}

func get(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n" }

func post(path, body string, headers ...string) string {
	h := "POST " + path + " HTTP/1.1\r\nHost: x\r\n"
	if body != "" && !strings.Contains(strings.Join(headers, " "), "Content-Type") {
		h += "Content-Type: application/json\r\n"
	}
	for _, x := range headers {
		h += x + "\r\n"
	}
	return h + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
}

const upgradeTCP = "Connection: Upgrade\r\nUpgrade: tcp"

// realEngine is a private Docker Engine for all tests of the package.
var realEngine = sync.OnceValues(func() (*dockerd.Daemon, error) {
	if err := dockerd.Available(); err != nil {
		return nil, err
	}
	if err := rootfs.Available(); err != nil {
		return nil, err
	}
	d, err := dockerd.Start(context.Background(), dockerd.Options{})
	if err != nil {
		return nil, err
	}
	return d, importImages(strings.TrimPrefix(d.Host(), "unix://"))
})

// importImages gives the Engine lab/web:1, and the same as evil/web:1.
func importImages(engine string) error {
	base, err := rootfs.Base()
	if err != nil {
		return err
	}
	for _, repo := range []string{"lab/web", "evil/web"} {
		req, err := http.NewRequest(http.MethodPost, "http://docker/images/create?fromSrc=-&tag=1&changes=ENV+APP_SECRET%3Dimagesecret&changes=CMD+true&repo="+repo, bytes.NewReader(base))
		if err != nil {
			return err
		}
		res, err := engineClient(engine).Do(req)
		if err != nil {
			return err
		}
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusOK || bytes.Contains(b, []byte("error")) {
			return fmt.Errorf("import an image: %s: %s", res.Status, b)
		}
	}
	return nil
}

func engineClient(engine string) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", engine)
	}}}
}

// needEngine is the socket of a real Engine, or a skip that says why. R3_TEST_ENGINE
// names the socket of one that runs already, in our PID namespace, to test
// against another version.
func needEngine(t testing.TB) string {
	t.Helper()
	if socket := os.Getenv("R3_TEST_ENGINE"); socket != "" {
		if err := importImages(socket); err != nil {
			t.Fatal(err)
		}
		return socket
	}
	if testing.Short() {
		t.Skip("a Docker Engine is not started with -short")
	}
	d, err := realEngine()
	if err != nil {
		t.Skipf("no Docker Engine: %v", err)
	}
	return strings.TrimPrefix(d.Host(), "unix://")
}

// TestMain ends the Engine, if one was started.
func TestMain(m *testing.M) {
	code := m.Run()
	if os.Getenv("R3_TEST_ENGINE") != "" {
		os.Exit(code)
	}
	if d, err := realEngine(); err == nil && !testing.Short() {
		d.Close()
	}
	os.Exit(code)
}

// makeContainer makes one on a real Engine, past the gate. Without a name the Engine
// gives it one that nothing else has.
func makeContainer(t testing.TB, engine, name string, config map[string]any, start bool) string {
	t.Helper()
	body, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	path := "/v1.41/containers/create"
	if name != "" {
		path += "?name=" + name
	}
	a := exchangeRaw(t, engine, post(path, string(body)))
	var made struct{ ID string }
	if a.status != http.StatusCreated || json.Unmarshal([]byte(a.body), &made) != nil {
		t.Fatalf("create %s: %d %s", name, a.status, a.body)
	}
	t.Cleanup(func() {
		exchangeRaw(t, engine, "DELETE /containers/"+made.ID+"?force=1&v=1 HTTP/1.1\r\nHost: x\r\n\r\n")
	})
	if start {
		if a := exchangeRaw(t, engine, post("/v1.41/containers/"+made.ID+"/start", "")); a.status != http.StatusNoContent {
			t.Fatalf("start %s: %d %s", name, a.status, a.body)
		}
	}
	return made.ID
}

func sleeper(more map[string]any) map[string]any {
	c := map[string]any{"Image": "lab/web:1", "Cmd": []string{"sleep", "1000"}, "Env": []string{"DB_PASSWORD=hunter2", "PLAIN=seen"},
		"Labels": map[string]string{ecsFamilyLabel: "web"}, "StopTimeout": 1}
	for k, v := range more {
		c[k] = v
	}
	return c
}
