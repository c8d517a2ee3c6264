package dockerproxy

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"jumpsuite/internal/audit"
	"jumpsuite/policy"
)

// twoGates are a jump server's and a host's, with a made-up Engine behind them.
func twoGates(t *testing.T, environment string) (*harness, *fakeEngine) {
	engine := newFakeEngine(t)
	h := newHarness(t, engine.socket, environment)
	h.behindAnother()
	return h, engine
}

// What the package's tests say of one gate holds through two. Those that need an
// Engine are run so by hand: R3_TEST_FAR=1 go test ./dockerproxy.
func TestWhatHoldsOfOneGateHoldsThroughTwo(t *testing.T) {
	if os.Getenv("R3_TEST_FAR") != "" {
		t.Skip("it is what runs")
	}
	cmd := exec.Command("/proc/self/exe", "-test.short", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), "R3_TEST_FAR=1")
	out, err := cmd.CombinedOutput()
	failed := regexp.MustCompile(`(?m)^ *--- FAIL.*\n( {4,}.*\n)*`).FindAllString(string(out), -1)
	if err != nil && failed == nil {
		failed = []string{string(out[max(0, len(out)-4<<10):])}
	}
	if err != nil {
		t.Errorf("%v: %s", err, strings.Join(failed, ""))
	}
	if n := strings.Count(string(out), "\n--- PASS"); n < 100 {
		t.Errorf("%d tests were run; want all that need no Engine", n)
	}
}

func TestBothGatesRecordOneRequestTogether(t *testing.T) {
	h, _ := twoGates(t, "test")
	if a := exchangeRaw(t, h.socket("dev"), get("/v1.51/containers/web/logs?stdout=1")); a.status != http.StatusOK {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	eventually(t, "both are closed", func() bool { return len(h.log.all()) == 2 && len(h.hostLog.all()) == 2 })
	here, there := h.log.all()[0], h.hostLog.all()[0]
	if here.Kind != audit.Open || there.Kind != audit.Open || there.Far != here.ID || there.ID == here.ID || here.Far != "" {
		t.Errorf("here %s %s far %q, there %s %s far %q", here.Kind, here.ID, here.Far, there.Kind, there.ID, there.Far)
	}
	if here.Principal.Key != "" || there.Principal.Key != "jump1" || there.Principal.Name != "dev" {
		t.Errorf("here %+v, there %+v", here.Principal, there.Principal)
	}
}

// A caller cannot say which event his request belongs to, nor ask as a gate does.
func TestWhatGatesSayToEachOtherIsNotForCallers(t *testing.T) {
	h, engine := twoGates(t, "test")
	forged := audit.NewID(here2026)
	a := exchangeRaw(t, h.socket("dev"), "GET /v1.51/containers/json HTTP/1.1\r\nHost: x\r\nX-Jumpsuite-Event: "+forged+"\r\n\r\n")
	if a.status != http.StatusOK || h.hostLog.all()[0].Far == forged || h.log.all()[0].Far != "" {
		t.Errorf("got %d, recorded %+v and %+v", a.status, h.log.all()[0], h.hostLog.all()[0])
	}
	local := newHarness(t, engine.socket, "test")
	for _, path := range []string{"/jumpsuite/containers/web", "/v1.51/jumpsuite/containers/web", "/jumpsuite/images/lab/web:1/json", "/jumpsuite/hosts"} {
		for name, h := range map[string]*harness{"the jump server's": h, "a host's": local} {
			before := len(engine.requests())
			a := exchangeRaw(t, h.socket("dev"), get(path))
			if a.status != http.StatusNotFound || !strings.Contains(a.body, "page not found") || len(engine.requests()) != before {
				t.Errorf("%s at %s: got %d %s", path, name, a.status, a.body)
			}
		}
	}
}

func TestALookUpNeedsNoRightAndShowsNothing(t *testing.T) {
	h, _ := twoGates(t, "test")
	// reader may read logs: the jump server's gate has to find the container first.
	if a := exchangeRaw(t, h.socket("reader"), get("/v1.51/containers/web/logs?stdout=1")); a.status != http.StatusOK {
		t.Errorf("logs: got %d %s", a.status, a.body)
	}
	a := exchangeRaw(t, h.socket("reader"), get("/v1.51/containers/web/json"))
	if a.status != http.StatusOK || strings.Contains(a.body, "hunter2") || strings.Contains(a.body, "Labels") {
		t.Errorf("inspect: got %d %s, want an outline", a.status, a.body)
	}
	if a := exchangeRaw(t, h.socket("nobody"), get("/v1.51/containers/web/logs?stdout=1")); a.status != http.StatusNotFound || !strings.Contains(a.body, "No such container: web") {
		t.Errorf("nobody: got %d %s", a.status, a.body)
	}
	for _, e := range h.hostLog.all() {
		if e.Principal.Name == "nobody" {
			t.Errorf("what was refused at the jump server has reached the host: %+v", e)
		}
	}
}

// A key that is trusted opens the door. What is behind it is for who may do
// something there: not even whether it is there is told to others.
func TestWhoMayDoNothingLooksNothingUp(t *testing.T) {
	for name, text := range map[string]string{
		"a key of which the policy says nothing":     strings.Replace(testPolicy, `keys: ["*"]`, `keys: ["ed25519:`+strings.Repeat("A", 43)+`"]`, 1),
		"a key that may be used in another one only": strings.Replace(testPolicy, `environments: ["*"]`, `environments: [prod]`, 1),
		"a caller of whom no rule says anything":     strings.ReplaceAll(testPolicy, "user:dev", "user:somebody"),
		"nobody but who may ask for the version":     strings.ReplaceAll(strings.ReplaceAll(testPolicy, "user:dev", "user:somebody"), "rules:", "rules:\n  - {name: v, effect: allow, principals: [user:dev], actions: [docker.version], environments: [test]}"),
	} {
		t.Run(name, func(t *testing.T) {
			engine := newFakeEngine(t)
			h := oneGate(t, engine.socket, "test")
			h.setPolicy(text)
			socket := h.serveAs("far", Caller{UID: 1001, Principal: principal("dev", "jump1")})
			for _, what := range []string{
				get("/v1.51/jumpsuite/containers/%s"), get("/v1.51/jumpsuite/images/lab/%s/json"), get("/v1.51/containers/%s/json"),
				strings.Replace(get("/v1.51/containers/%s/logs?stdout=1"), "Host: x", "Host: x\r\nX-Jumpsuite-Outlook: 1", 1),
				post("/v1.51/containers/%s/exec", someExec), post("/v1.51/containers/%s/start", ""), get("/v1.51/images/lab/%s/json"),
			} {
				var told []string
				for _, ref := range []string{"web", "nosuch"} {
					a := exchangeRaw(t, socket, strings.ReplaceAll(what, "%s", ref))
					if a.status != http.StatusForbidden || a.header.Get(outlookHeader) != "" {
						t.Errorf("%q of %s: got %d %s", what, ref, a.status, a.body)
					}
					told = append(told, a.body)
				}
				if told[0] != told[1] {
					t.Errorf("what is there and what is not are told apart: %q", told)
				}
			}
			if got := slices.DeleteFunc(engine.requests(), func(r string) bool { return strings.Contains(r, "_ping") }); len(got) > 0 {
				t.Errorf("the Engine was asked %q", got)
			}
			if events := h.log.all(); len(events) != 14 || slices.ContainsFunc(events, func(e audit.Event) bool { return e.Verdict != audit.Deny }) {
				t.Errorf("on record are %d: %+v", len(events), events)
			}
		})
	}
}

func principal(user, key string) policy.Principal { return policy.Principal{User: user, Key: key} }

func TestTheHostsRefusalIsTold(t *testing.T) {
	h, engine := twoGates(t, "test")
	h.host.SetPolicy(mustPolicy(t, strings.Replace(testPolicy, "docker.stats, docker.inspect, docker.exec]", "docker.stats, docker.inspect]", 1)))
	a := exchangeRaw(t, h.socket("dev"), post("/v1.51/containers/web/exec", `{"AttachStdout":true,"Cmd":["id"]}`))
	want := "jumpsuite: host host1 refuses: docker.exec is not allowed in test (rule default): no rule allows it"
	if a.status != http.StatusForbidden || !strings.Contains(a.body, want) {
		t.Errorf("got %d %s, want %q", a.status, a.body, want)
	}
	if len(engine.changes()) > 0 {
		t.Errorf("the Engine was asked: %q", engine.changes())
	}
	events := h.log.all()
	last := events[len(events)-1]
	if last.Kind != audit.Change || last.Detail != "the host's gate refused, rule default" || last.ID != events[len(events)-2].ID {
		t.Errorf("got %+v", last)
	}
}

func TestAContainerIsMadeAndStartedThroughTwoGates(t *testing.T) {
	h, engine := twoGates(t, "test")
	dev := h.socket("dev")
	if a := exchangeRaw(t, dev, post("/v1.51/containers/create?name=x", `{"Image":"lab/web:1","Cmd":["sleep"]}`, "X-Jumpsuite-Verb: create")); a.status != http.StatusCreated {
		t.Fatalf("create: got %d %s", a.status, a.body)
	}
	made := engine.changes()[0]
	for _, want := range []string{`"jumpsuite.owner":"dev"`, `"Memory":67108864`, `"no-new-privileges"`} {
		if !strings.Contains(made, want) {
			t.Errorf("the Engine was asked %s, without %s", made, want)
		}
	}
	for i, log := range []*auditLog{h.log, h.hostLog} {
		if got := log.all()[0].Action; got != "docker.create" {
			t.Errorf("log %d: got %s, want docker.create", i, got)
		}
	}
	for _, path := range []string{"/start", "/kill?signal=TERM"} {
		if a := exchangeRaw(t, dev, post("/v1.51/containers/"+newID+path, "")); a.status != http.StatusNoContent {
			t.Errorf("%s by its owner: got %d %s", path, a.status, a.body)
		}
		if a := exchangeRaw(t, h.socket("other"), post("/v1.51/containers/"+newID+path, "")); a.status != http.StatusForbidden {
			t.Errorf("%s by another: got %d %s", path, a.status, a.body)
		}
	}
}

func TestAnEscapeIsTheHostsToRefuse(t *testing.T) {
	h, engine := twoGates(t, "test")
	a := exchangeRaw(t, h.socket("dev"), post("/v1.51/containers/priv/exec", `{"AttachStdout":true,"Cmd":["id"]}`))
	if a.status != http.StatusForbidden || !strings.Contains(a.body, "host host1 refuses") || !strings.Contains(a.body, "privileged") || len(engine.changes()) > 0 {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

func TestAStreamEndsWhenEitherPolicyForbidsIt(t *testing.T) {
	without := strings.Replace(testPolicy, "docker.stats, docker.inspect, docker.exec]", "docker.stats, docker.inspect]", 1)
	for name, gate := range map[string]func(*harness) *Gate{
		"the jump server's": func(h *harness) *Gate { return h.gate },
		"the host's":        func(h *harness) *Gate { return h.host },
	} {
		h, _ := twoGates(t, "test")
		_, br := startExec(t, h, "dev", `{"AttachStdin":true,"AttachStdout":true,"Cmd":["cat"]}`, `{"Detach":false,"Tty":false}`)
		gate(h).SetPolicy(mustPolicy(t, without))
		eventually(t, name+" ends both", func() bool {
			closed := func(e audit.Event) bool { return e.Kind == audit.Close && e.Action == "docker.exec" }
			return slices.ContainsFunc(h.log.all(), closed) && slices.ContainsFunc(h.hostLog.all(), closed)
		})
		for _, err := br.ReadByte(); err == nil; _, err = br.ReadByte() {
		}
	}
}

// A policy that is narrowed on the host while two streams of one caller run ends the
// one that it does not allow any more, says why, and leaves the other alone.
func TestANarrowerPolicyEndsJustWhatItForbids(t *testing.T) {
	h, _ := twoGates(t, "test")
	throughTunnel(t, h)
	var mu sync.Mutex
	var told []string
	h.gate.Notify = func(_ Caller, text string) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, text)
	}
	conns := map[string]*bufio.Reader{}
	for id, cmd := range map[string]string{execID: "cat", sleepID: "sleep"} {
		if a := exchangeRaw(t, h.socket("dev"), post("/v1.51/containers/web/exec", `{"AttachStdin":true,"AttachStdout":true,"Cmd":["`+cmd+`"]}`)); a.status != http.StatusCreated {
			t.Fatalf("got %d %s", a.status, a.body)
		}
		conn, br := dialStream(t, h.socket("dev"), post("/v1.51/exec/"+id+"/start", `{"Detach":false,"Tty":false}`, upgradeTCP, "Content-Type: application/json"), http.StatusSwitchingProtocols)
		io.WriteString(conn, "a")
		if b, err := br.ReadByte(); b != 'a' || err != nil {
			t.Fatalf("got %q, %v", b, err)
		}
		if cmd == "cat" {
			defer func() {
				io.WriteString(conn, "b")
				if b, err := conns[execID].ReadByte(); b != 'b' || err != nil {
					t.Errorf("the other one: got %q, %v", b, err)
				}
			}()
		}
		conns[id] = br
	}
	h.host.SetPolicy(mustPolicy(t, strings.Replace(testPolicy, "commands: any, detach: true, users", "commands: [[cat]], detach: true, users", 1)))
	if b, err := conns[sleepID].ReadByte(); err == nil {
		t.Errorf("what is not allowed any more goes on: %q", b)
	}
	eventually(t, "it is said why", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(told) == 1 && strings.Contains(told[0], "host host1: the host's gate ended it: the policy was changed and does not allow it any more")
	})
}

// Its exec may run on: an exit code of an exec that does is 0 to docker.
func TestAnExecWhoseStreamIsLostHasNotEnded(t *testing.T) {
	h, _ := twoGates(t, "test")
	conns := throughTunnel(t, h)
	_, br := startExec(t, h, "dev", `{"AttachStdin":true,"AttachStdout":true,"Cmd":["cat"]}`, `{"Detach":false,"Tty":false}`)
	for _, c := range conns() {
		c.Conn.Close()
	}
	io.Copy(io.Discard, br)
	eventually(t, "its close says so", func() bool {
		return slices.ContainsFunc(h.log.all(), func(e audit.Event) bool {
			return e.Kind == audit.Close && strings.HasPrefix(e.Result.Error, "host host1: ")
		})
	})
	a := exchangeRaw(t, h.socket("dev"), get("/v1.51/exec/"+execID+"/json"))
	if a.status != http.StatusBadGateway || !strings.Contains(a.body, "how the exec ended is not known") {
		t.Errorf("how it ended: got %d %s", a.status, a.body)
	}
}

func TestStreamsToAHostAreUsedAgain(t *testing.T) {
	h, _ := twoGates(t, "test")
	dial, dials := h.gate.Engine, 0
	h.gate.Engine = func(ctx ctx) (conn, error) { dials++; return dial(ctx) }
	dev := h.socket("dev")
	for range 5 {
		if a := exchangeRaw(t, dev, get("/v1.51/containers/web/json")); a.status != http.StatusOK {
			t.Fatalf("got %d %s", a.status, a.body)
		}
		eventually(t, "the stream is given back", func() bool {
			h.gate.mu.Lock()
			defer h.gate.mu.Unlock()
			return len(h.gate.idle) == 1
		})
	}
	if dials != 1 {
		t.Errorf("%d streams for five connections, one after another; want 1", dials)
	}
}

func TestAnOlderGateIsNamed(t *testing.T) {
	old := engineThat(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Jumpsuite-Refused", "gate")
		w.WriteHeader(http.StatusNotFound)
		w.Write([]byte(`{"message":"page not found: /jumpsuite/containers/web"}`))
	})
	h := newHarness(t, old, "test", func(g *Gate) { g.FarGate = true })
	a := exchangeRaw(t, h.socket("dev"), get("/v1.51/containers/web/logs"))
	if a.status != http.StatusBadGateway || !strings.Contains(a.body, "the host's gate is older than this one") || !strings.Contains(a.body, "install the same release") {
		t.Errorf("got %d %s", a.status, a.body)
	}
}
