package dockerproxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"jumpsuite/internal/audit"
)

// patient is how long a test waits for what has to happen.
const patient = 20 * time.Second

// eventually waits for what has to become true.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patient); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if is() {
			return
		}
	}
	t.Fatalf("%s: not so after %v", what, patient)
}

// dialStream sends a request and returns the connection behind its 101 or 200.
func dialStream(t *testing.T, socket, raw string, want int) (*net.UnixConn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patient))
	if _, err := io.WriteString(conn, raw); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(conn)
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != want {
		b, _ := io.ReadAll(res.Body)
		t.Fatalf("got %d %s, want %d", res.StatusCode, b, want)
	}
	if want != http.StatusSwitchingProtocols {
		return conn.(*net.UnixConn), bufio.NewReader(res.Body)
	}
	return conn.(*net.UnixConn), br
}

func startExec(t *testing.T, h *harness, user, exec, start string) (*net.UnixConn, *bufio.Reader) {
	id := newExec(t, h, user, exec)
	return dialStream(t, h.socket(user), post("/v1.41/exec/"+id+"/start", start, upgradeTCP, "Content-Type: application/json"), http.StatusSwitchingProtocols)
}

func TestEachSideOfAStreamMayEndOnItsOwn(t *testing.T) {
	h := newHarness(t, newFakeEngine(t).socket, "test")
	conn, br := startExec(t, h, "dev", `{"AttachStdin":true,"AttachStdout":true,"Cmd":["cat"]}`, `{"Detach":false,"Tty":false}`)
	payload := strings.Repeat("0123456789abcdef", 1<<16)
	go func() {
		io.WriteString(conn, payload)
		conn.CloseWrite()
	}()
	got, err := io.ReadAll(br)
	if err != nil || string(got) != payload {
		t.Errorf("got %d bytes, %v; want the %d that were sent, and then an end", len(got), err, len(payload))
	}
}

func TestBytesSentTogetherWithAnUpgradeAreNotLost(t *testing.T) {
	h := newHarness(t, newFakeEngine(t).socket, "test")
	id := newExec(t, h, "dev", `{"AttachStdin":true,"AttachStdout":true,"Cmd":["cat"]}`)
	raw := post("/v1.41/exec/"+id+"/start", `{"Detach":false,"Tty":false}`, upgradeTCP, "Content-Type: application/json") + "early"
	_, br := dialStream(t, h.socket("dev"), raw, http.StatusSwitchingProtocols)
	got := make([]byte, 5)
	if _, err := io.ReadFull(br, got); err != nil || string(got) != "early" {
		t.Errorf("got %q, %v; want what was sent early", got, err)
	}
}

func TestAnExecIsItsCreatorsAlone(t *testing.T) {
	h := newHarness(t, newFakeEngine(t).socket, "test")
	id := newExec(t, h, "dev", `{"AttachStdout":true,"Cmd":["id"]}`)
	for _, raw := range []string{
		post("/v1.41/exec/"+id+"/start", `{"Detach":false,"Tty":false}`, upgradeTCP, "Content-Type: application/json"),
		post("/v1.41/exec/"+id+"/resize?h=1&w=1", ""),
		get("/v1.41/exec/" + id + "/json"),
	} {
		if a := exchangeRaw(t, h.socket("other"), raw); a.status != http.StatusNotFound {
			t.Errorf("%.40q by another: got %d %s, want 404", raw, a.status, a.body)
		}
	}
	if a := exchangeRaw(t, h.socket("dev"), get("/v1.41/exec/"+id+"/json")); a.status != http.StatusOK {
		t.Errorf("by its creator: got %d %s, want 200", a.status, a.body)
	}
}

func TestAnExecStartsOnceAndAsItWasCreated(t *testing.T) {
	h := newHarness(t, newFakeEngine(t).socket, "test")
	id := newExec(t, h, "dev", `{"AttachStdout":true,"Cmd":["id"],"Tty":true}`)
	start := func(body string, headers ...string) int {
		return exchangeRaw(t, h.socket("dev"), post("/v1.41/exec/"+id+"/start", body, append(headers, "Content-Type: application/json")...)).status
	}
	for _, tt := range []struct {
		name string
		got  int
		want int
	}{
		{"another Tty", start(`{"Detach":false,"Tty":false}`, upgradeTCP), http.StatusBadRequest},
		{"neither detached nor upgraded", start(`{"Detach":false,"Tty":true}`), http.StatusBadRequest},
		{"both", start(`{"Detach":true,"Tty":true}`, upgradeTCP), http.StatusBadRequest},
		{"as created", start(`{"Detach":true,"Tty":true}`), http.StatusOK},
		{"again", start(`{"Detach":true,"Tty":true}`), http.StatusConflict},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, tt.got, tt.want)
		}
	}
}

func TestAStartIsDecidedAnew(t *testing.T) {
	h := newHarness(t, newFakeEngine(t).socket, "test")
	id := newExec(t, h, "dev", `{"AttachStdout":true,"Cmd":["id"]}`)
	h.setPolicy(strings.Replace(testPolicy, "docker.inspect, docker.exec]\n    environments: [test, prod]", "docker.inspect]\n    environments: [test, prod]", 1))
	a := exchangeRaw(t, h.socket("dev"), post("/v1.41/exec/"+id+"/start", `{"Detach":true}`))
	if a.status != http.StatusForbidden {
		t.Errorf("got %d %s, want 403 after the right was taken away", a.status, a.body)
	}
}

func TestStreamsThatThePolicyNoLongerAllowsAreClosed(t *testing.T) {
	told := make(chan string, 1)
	h := newHarness(t, newFakeEngine(t).socket, "test", func(g *Gate) {
		g.Notify = func(c Caller, text string) { told <- c.User + ": " + text }
	})
	_, gone := startExec(t, h, "dev", `{"AttachStdin":true,"AttachStdout":true,"Cmd":["cat"]}`, `{"Detach":false,"Tty":false}`)
	otherConn, stays := startExec(t, h, "other", `{"AttachStdin":true,"AttachStdout":true,"Cmd":["cat"]}`, `{"Detach":false,"Tty":false}`)
	h.setPolicy(strings.ReplaceAll(testPolicy, "[user:dev, user:other]", "[user:other]"))
	if _, err := io.ReadAll(gone); err != nil {
		t.Errorf("the stream that is not allowed: got %v, want an end", err)
	}
	if got, want := <-told, "dev: "+errPolicyChanged.Error(); got != want {
		t.Errorf("its caller is told %q, want %q", got, want)
	}
	io.WriteString(otherConn, "x")
	if b, err := stays.ReadByte(); err != nil || b != 'x' {
		t.Errorf("the stream that is: got %q, %v, want its echo", b, err)
	}
	eventually(t, "the close says why", func() bool {
		return slices.ContainsFunc(h.log.all(), func(e audit.Event) bool {
			return e.Kind == audit.Close && e.Result.Error == errPolicyChanged.Error()
		})
	})
}

func TestWhatCannotBeRecordedIsNotDone(t *testing.T) {
	engine := newFakeEngine(t)
	h := newHarness(t, engine.socket, "test")
	h.log.broken = errors.New("disk full")
	for _, raw := range []string{
		get("/v1.41/containers/json"), get("/v1.41/containers/web/logs?stdout=1"), create(`{"Image":"lab/web:1","Cmd":["true"]}`),
		post("/v1.41/containers/web/exec", `{"AttachStdout":true,"Cmd":["id"]}`), post("/v1.41/containers/stopped/start", ""),
		post("/v1.41/images/create?fromImage=lab/web&tag=1", ""),
	} {
		if a := exchangeRaw(t, h.socket("dev"), raw); a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, "disk full") {
			t.Errorf("%.50q: got %d %s, want 503 and why", raw, a.status, a.body)
		}
	}
	if done := engine.changes(); len(done) > 0 {
		t.Errorf("the Engine was asked %q", done)
	}
}

// tape is a recording in memory.
type tape struct {
	mu      sync.Mutex
	out, in strings.Builder
	size    string
	after   int // it fails after so many bytes of output; zero: never
	failed  chan struct{}
	closed  bool
}

func (r *tape) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.out.Write(p)
	if r.after > 0 && r.out.Len() >= r.after {
		return 0, errors.New("disk full")
	}
	return len(p), nil
}

func (r *tape) Input(p []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.in.Write(p)
	return nil
}

func (r *tape) Resize(columns, rows int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.size = fmt.Sprint(columns, "x", rows)
	return nil
}

func (r *tape) Failed() <-chan struct{} { return r.failed }

func (r *tape) Close() (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	return "sum", nil
}

func TestWhereSessionsAreRecorded(t *testing.T) {
	exec, start := `{"AttachStdin":true,"AttachStdout":true,"Tty":true,"Cmd":["cat"]}`, `{"Detach":false,"Tty":true}`
	t.Run("both directions are on the recording", func(t *testing.T) {
		rec := &tape{failed: make(chan struct{})}
		var told Session
		h := newHarness(t, newFakeEngine(t).socket, "taped", func(g *Gate) {
			g.Recorder = func(s Session) (Recording, error) { told = s; return rec, nil }
		})
		conn, br := startExec(t, h, "dev", exec, start)
		io.WriteString(conn, "typed")
		conn.CloseWrite()
		if b, err := io.ReadAll(br); string(b) != "typed" {
			t.Errorf("got %q, %v", b, err)
		}
		eventually(t, "the close names the recording", func() bool {
			e := h.log.all()
			last := e[len(e)-1]
			return last.Kind == audit.Close && last.Result.Recording == "sum" && last.ID == told.ID
		})
		rec.mu.Lock()
		defer rec.mu.Unlock()
		if rec.out.String() != "typed" || rec.in.String() != "typed" || !rec.closed {
			t.Errorf("recorded %q and %q, closed %v", rec.out.String(), rec.in.String(), rec.closed)
		}
	})
	t.Run("a recorder that fails ends the stream", func(t *testing.T) {
		rec := &tape{failed: make(chan struct{}), after: 1}
		h := newHarness(t, newFakeEngine(t).socket, "taped", func(g *Gate) { g.Recorder = func(Session) (Recording, error) { return rec, nil } })
		conn, br := startExec(t, h, "dev", exec, start)
		io.WriteString(conn, "x")
		if b, _ := io.ReadAll(br); len(b) > 0 {
			t.Errorf("got %q, want nothing that is not on record", b)
		}
	})
	t.Run("one that fails in silence, too", func(t *testing.T) {
		rec := &tape{failed: make(chan struct{})}
		h := newHarness(t, newFakeEngine(t).socket, "taped", func(g *Gate) { g.Recorder = func(Session) (Recording, error) { return rec, nil } })
		_, br := startExec(t, h, "dev", exec, start)
		close(rec.failed)
		if b, err := io.ReadAll(br); len(b) > 0 {
			t.Errorf("got %q, %v, want an end", b, err)
		}
	})
	for _, tt := range []struct {
		name     string
		body     string
		recorder bool
		want     int
	}{
		{"no recorder, no session", exec, false, http.StatusServiceUnavailable},
		{"a detached exec is refused", `{"Cmd":["sleep","1"]}`, true, http.StatusForbidden},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHarness(t, newFakeEngine(t).socket, "taped", func(g *Gate) {
				if tt.recorder {
					g.Recorder = func(Session) (Recording, error) { return &tape{}, nil }
				}
			})
			if a := exchangeRaw(t, h.socket("dev"), post("/v1.41/containers/web/exec", tt.body)); a.status != tt.want {
				t.Errorf("got %d %s, want %d", a.status, a.body, tt.want)
			}
		})
	}
	t.Run("a container that was made does not start without its stream", func(t *testing.T) {
		engine := newFakeEngine(t)
		h := newHarness(t, engine.socket, "taped", func(g *Gate) { g.Recorder = func(Session) (Recording, error) { return &tape{}, nil } })
		if a := exchangeRaw(t, h.socket("dev"), create(`{"Image":"lab/web:1","Cmd":["true"]}`)); a.status != http.StatusCreated {
			t.Fatalf("create: %d %s", a.status, a.body)
		}
		a := exchangeRaw(t, h.socket("dev"), post("/v1.41/containers/"+newID+"/start", ""))
		if a.status != http.StatusForbidden || !strings.Contains(a.body, "detached") {
			t.Errorf("got %d %s, want a refusal", a.status, a.body)
		}
	})
}

func TestTheContentOfMultiplexedStreamsIsRecorded(t *testing.T) {
	frame := func(s string) string { return string([]byte{1, 0, 0, 0, 0, 0, 0, byte(len(s))}) + s }
	all := frame("one ") + frame("") + frame("two ") + frame(strings.Repeat("x", 200))
	want := "one two " + strings.Repeat("x", 200)
	for size := 1; size < 40; size++ {
		var got strings.Builder
		f := &frames{content: func(b []byte) error { got.Write(b); return nil }}
		for part := range slices.Chunk([]byte(all), size) {
			if err := f.take(part); err != nil {
				t.Fatal(err)
			}
		}
		if got.String() != want {
			t.Errorf("in pieces of %d: got %q, want %q", size, got.String(), want)
		}
	}
}

// silentEngine answers logs with one line and then says nothing.
func silentEngine(t *testing.T) (socket string, gone <-chan struct{}) {
	f := newFakeEngine(t)
	l, err := net.Listen("unix", t.TempDir()+"/silent.sock")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	var once sync.Once
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "/logs") {
			f.ServeHTTP(w, r)
			return
		}
		io.WriteString(w, "a lone line\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		once.Do(func() { close(ended) })
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return l.Addr().String(), ended
}

func TestALoneLineIsNotHeldBackAndALostClientIsNoticed(t *testing.T) {
	engine, gone := silentEngine(t)
	h := newHarness(t, engine, "test")
	conn, br := dialStream(t, h.socket("dev"), get("/v1.41/containers/web/logs?stdout=1&follow=1"), http.StatusOK)
	if line, err := br.ReadString('\n'); line != "a lone line\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	conn.Close()
	select {
	case <-gone:
	case <-time.After(patient):
		t.Fatal("the Engine was not told that nobody listens")
	}
	eventually(t, "the end is on record", func() bool {
		e := h.log.all()
		last := e[len(e)-1]
		return last.Kind == audit.Close && last.Result.Error == errClientGone.Error() && last.Result.Out > 0
	})
}

func TestWhatWasEndedIsNotOnRecordAsIfItHadEnded(t *testing.T) {
	for _, tt := range []struct {
		name             string
		cause, err, want error
	}{
		{"the policy was changed", errPolicyChanged, nil, errPolicyChanged},
		{"and the copy failed of it", errPolicyChanged, net.ErrClosed, errPolicyChanged},
		{"its caller went away while it went on", errClientGone, net.ErrClosed, errClientGone},
		{"its caller went away after its end", errClientGone, nil, nil},
		{"it went on to its end", nil, nil, nil},
		{"nobody takes it", nil, net.ErrClosed, errClientGone},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		if tt.cause != nil {
			cancel(tt.cause)
		}
		if got := ended(ctx, tt.err); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
		cancel(nil)
	}
}

func TestOpenStreamsDoNotKeepTheGateFromEnding(t *testing.T) {
	engine, _ := silentEngine(t)
	h := newHarness(t, engine, "test")
	ctx, cancel := context.WithCancel(context.Background())
	l, err := net.Listen("unix", t.TempDir()+"/gate.sock")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- h.gate.Serve(ctx, l, func(context.Context, net.Conn) (Caller, error) {
			c := Caller{UID: 1001}
			c.User = "dev"
			return c, nil
		})
	}()
	dialStream(t, l.Addr().String(), get("/v1.41/containers/web/logs?stdout=1&follow=1"), http.StatusOK)
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("got %v, want a clean end", err)
		}
	case <-time.After(patient):
		t.Fatal("Serve does not return")
	}
}

func TestOneCallerCannotTakeAllConnections(t *testing.T) {
	h := oneGate(t, newFakeEngine(t).socket, "test", func(g *Gate) { g.Connections = 2 })
	for range 2 {
		conn, err := net.Dial("unix", h.socket("dev"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	eventually(t, "two are open", func() bool {
		h.gate.mu.Lock()
		defer h.gate.mu.Unlock()
		return h.gate.callers[owner{UID: 1001, User: "dev"}] == 2
	})
	if a := exchangeRaw(t, h.socket("dev"), get("/_ping")); a.status != http.StatusTooManyRequests {
		t.Errorf("the third: got %d, want 429", a.status)
	}
	if a := exchangeRaw(t, h.socket("other"), get("/_ping")); a.status != http.StatusOK {
		t.Errorf("another caller: got %d, want 200", a.status)
	}
}

// Docker asks with HEAD first. A body behind the answer would be taken for an
// answer that nobody asked for, and docker says so.
func TestTheAnswerToAHeadHasNoBody(t *testing.T) {
	h := oneGate(t, newFakeEngine(t).socket, "test", func(g *Gate) { g.Connections = 2 })
	const elsewhere = "HEAD /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Jumpsuite-Host: elsewhere\r\n\r\n"
	socket := h.socket("dev")
	for name, raw := range map[string]string{"refused": elsewhere, "no operation": "HEAD /v1.41/info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"} {
		if all := everything(t, socket, raw); !strings.HasPrefix(all, "HTTP/1.1 4") || !strings.HasSuffix(all, "\r\n\r\n") || strings.Contains(all, "jumpsuite:") {
			t.Errorf("%s: got %q, want a head and no more", name, all)
		}
	}
	for range 2 {
		c := connect(t, socket)
		io.WriteString(c, get("/_ping"))
		readAnswer(bufio.NewReader(c))
	}
	if all := everything(t, socket, elsewhere); !strings.HasPrefix(all, "HTTP/1.1 429") || !strings.HasSuffix(all, "\r\n\r\n") {
		t.Errorf("one connection too many: got %q, want a head and no more", all)
	}
	if all := everything(t, socket, get("/_ping")); !strings.Contains(all, "too many connections") {
		t.Errorf("one connection too many, with GET: got %q", all)
	}
}

func connect(t *testing.T, socket string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// everything is all that comes on a connection for a request, until it ends.
func everything(t *testing.T, socket, raw string) string {
	t.Helper()
	c := connect(t, socket)
	io.WriteString(c, raw)
	all, _ := io.ReadAll(c)
	return string(all)
}
