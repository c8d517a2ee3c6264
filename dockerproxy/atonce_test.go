package dockerproxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"jumpsuite/internal/audit"
)

const someExec = `{"AttachStdin":true,"AttachStdout":true,"Cmd":["cat"]}`

// typesExec is docker exec, as our CLI does it: input to its end, and the exit code.
// at is called when it has begun, when its output has ended, and when it is over.
func typesExec(t *testing.T, h *harness, user, ref string, at func()) (output, inspected string) {
	t.Helper()
	look, err := net.Dial("unix", h.socket(user))
	if err != nil {
		t.Fatal(err)
	}
	defer look.Close()
	look.SetDeadline(time.Now().Add(patient))
	answers := bufio.NewReader(look)
	io.WriteString(look, verbed(get("/v1.51/containers/"+ref+"/json")))
	if a := readAnswer(answers); a.status != http.StatusOK {
		t.Fatalf("inspect: got %d %s", a.status, a.body)
	}
	io.WriteString(look, verbed(post("/v1.51/containers/"+ref+"/exec", someExec)))
	a := readAnswer(answers)
	if a.status != http.StatusCreated || !strings.Contains(a.body, execID) {
		t.Fatalf("create: got %d %s", a.status, a.body)
	}
	conn, br := startsExec(t, h, user)
	at()
	io.WriteString(conn, "typed")
	conn.CloseWrite()
	b, err := io.ReadAll(br)
	if err != nil {
		t.Fatal(err)
	}
	at()
	inspected = exchangeRaw(t, h.socket(user), verbed(get("/v1.51/exec/"+execID+"/json"))).body
	at()
	return string(b), inspected
}

func startsExec(t *testing.T, h *harness, user string) (interface {
	io.Writer
	CloseWrite() error
}, *bufio.Reader) {
	t.Helper()
	start := post("/v1.51/exec/"+execID+"/start", `{"Detach":false,"Tty":false}`, upgradeTCP, "Content-Type: application/json")
	return dialStream(t, h.socket(user), verbed(start), http.StatusSwitchingProtocols)
}

// A whole docker exec, to its exit code, and what of it is asked of the host.
func TestAnExecTakesTwoRoundTripsUntilItRunsAndNoneForItsEnd(t *testing.T) {
	denies := "  - {name: not-db, effect: deny, principals: [user:dev], actions: [docker.exec], environments: [test], container-types: [db]}\n"
	for _, tt := range []struct {
		name, more string
		want       int
	}{
		{"where the rules are about all containers", "", 2},
		{"where a rule is about some", denies, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, engine := twoGates(t, "test")
			h.gate.SetPolicy(mustPolicy(t, testPolicy+tt.more))
			made := throughTunnel(t, h)
			var trips []int
			output, inspected := typesExec(t, h, "dev", "web", func() {
				n := 0
				for _, c := range made() {
					n += c.count()
				}
				trips = append(trips, n)
			})
			if output != "typed" || !strings.Contains(inspected, `"Running":false,"ExitCode":0`) || !strings.Contains(inspected, webID) {
				t.Errorf("got %q, and then %s", output, inspected)
			}
			if trips[0] != tt.want || trips[2] != trips[1] || len(made()) != 1 {
				t.Errorf("%d streams; it has begun after %d round trips, ended after %d, and its exit code is known after %d; want one with %d, and none for the exit code",
					len(made()), trips[0], trips[1], trips[2], tt.want)
			}
			if got := engine.changes(); len(got) != 2 || !strings.Contains(got[0], "/containers/"+webID+"/exec") || !strings.Contains(got[1], "/exec/"+execID+"/start") {
				t.Errorf("the Engine was asked %q", got)
			}
		})
	}
}

// What is asked for at once is decided, and on record, as if it were asked for
// one after the other.
func TestWhatIsAskedAtOnceIsOnRecordTwice(t *testing.T) {
	h, _ := twoGates(t, "test")
	throughTunnel(t, h)
	typesExec(t, h, "dev", "web", func() {})
	of := func(l *auditLog, kind audit.Kind, detail string) audit.Event {
		for _, e := range l.all() {
			if e.Kind == kind && e.Detail == detail {
				return e
			}
		}
		t.Fatalf("no %s of %q in %+v", kind, detail, l.all())
		return audit.Event{}
	}
	eventually(t, "both are closed", func() bool {
		closed := func(e audit.Event) bool { return e.Kind == audit.Close }
		return slices.ContainsFunc(h.log.all(), closed) && slices.ContainsFunc(h.hostLog.all(), closed)
	})
	for _, tt := range []struct {
		kind   audit.Kind
		detail string
	}{{audit.Decision, "exec"}, {audit.Open, "exec start"}} {
		here, there := of(h.log, tt.kind, tt.detail), of(h.hostLog, tt.kind, tt.detail)
		if there.Far != here.ID || there.Resource.Container != webID || !slices.Equal(here.Argv, []string{"cat"}) || here.Verdict != audit.Allow {
			t.Errorf("%s: here %+v, there %+v", tt.detail, here, there)
		}
	}
	// It is on record before it is known what goes by the name.
	open, over := of(h.log, audit.Open, "exec start"), of(h.log, audit.Close, "exec start")
	if open.Resource.Name != "web" || over.ID != open.ID || over.Resource.Container != webID || over.Resource.ContainerType != "web" {
		t.Errorf("it does not say in which container: %+v, %+v", open, over)
	}
}

// What cannot be recorded is not done, and not begun either.
func TestAnExecAtOnceRunsOnlyWhenItIsOnRecord(t *testing.T) {
	for _, tt := range []struct {
		name, environment string
		breaks            func(h *harness)
		status            int
		says              string
	}{
		{"the log is full after the create", "test", func(h *harness) {
			record := h.gate.Record
			h.gate.Record = func(e *audit.Event) error {
				if e.Kind == audit.Open {
					return io.ErrShortWrite
				}
				return record(e)
			}
		}, http.StatusServiceUnavailable, "it cannot be recorded"},
		{"the recorder fails", "taped", func(h *harness) {
			h.gate.Recorder = func(Session) (Recording, error) { return nil, io.ErrShortWrite }
		}, http.StatusBadGateway, "the session cannot be recorded"},
		{"there is no recorder", "taped", func(h *harness) { h.gate.Recorder = nil }, http.StatusServiceUnavailable, "there is no recorder"},
		{"the caller has as many execs as he may", "test", func(h *harness) {
			for i := range maxExecsEach {
				h.gate.remember(&execution{id: fmt.Sprint(i), owner: owner{UID: 1001, User: "dev"}, created: time.Now()})
			}
		}, http.StatusTooManyRequests, "too many execs"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, engine := tapedGates(t, tt.environment, nil)
			tt.breaks(h)
			a := exchangeRaw(t, h.socket("dev"), verbed(post("/v1.51/containers/web/exec", someExec)))
			if a.status != tt.status || !strings.Contains(a.body, tt.says) {
				t.Errorf("got %d %s, want %d and %q", a.status, a.body, tt.status, tt.says)
			}
			if got := engine.changes(); len(got) > 0 || slices.ContainsFunc(h.hostLog.all(), isExec) {
				t.Errorf("the host was asked: %q, %+v", got, h.hostLog.all())
			}
			for _, e := range h.log.all() {
				if e.Kind == audit.Open && !slices.ContainsFunc(h.log.all(), func(c audit.Event) bool { return c.Kind == audit.Close && c.ID == e.ID && c.Result.Error != "" }) {
					t.Errorf("on record as begun, and not as over: %+v", h.log.all())
				}
			}
		})
	}
}

func isExec(e audit.Event) bool { return e.Action == "docker.exec" }

// tapedGates are two gates with a tunnel between them, where sessions are recorded in
// taped. begins is told when a recording does.
func tapedGates(t *testing.T, environment string, begins func(Session)) (*harness, *fakeEngine) {
	engine := newFakeEngine(t)
	h := newHarness(t, engine.socket, environment, func(g *Gate) {
		g.Recorder = func(s Session) (Recording, error) {
			if begins != nil {
				begins(s)
			}
			return unheard{}, nil
		}
	})
	h.behindAnother()
	throughTunnel(t, h)
	return h, engine
}

// Its first milliseconds are on the recording, too.
func TestARecordingBeginsBeforeWhatIsRecorded(t *testing.T) {
	var h *harness
	var engine *fakeEngine
	var begun []Session
	h, engine = tapedGates(t, "taped", func(s Session) {
		if h == nil || s.Caller.Key != "" {
			return // the host's own
		}
		if got := engine.changes(); len(got) > 0 || slices.ContainsFunc(h.hostLog.all(), isExec) {
			t.Errorf("the host was asked before: %q, %+v", got, h.hostLog.all())
		}
		if all := h.log.all(); all[len(all)-1].Kind != audit.Open || all[len(all)-1].ID != s.ID {
			t.Errorf("it is not on record that it begins: %+v", all)
		}
		begun = append(begun, s)
	})
	if a := exchangeRaw(t, h.socket("dev"), verbed(post("/v1.51/containers/web/exec", someExec))); a.status != http.StatusCreated {
		t.Fatalf("create: got %d %s", a.status, a.body)
	}
	if len(begun) != 1 || !slices.Equal(begun[0].Argv, []string{"cat"}) {
		t.Fatalf("got %+v", begun)
	}
	conn, br := startsExec(t, h, "dev")
	io.WriteString(conn, "typed")
	conn.CloseWrite()
	if b, err := io.ReadAll(br); string(b) != "typed" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	eventually(t, "it is over, once", func() bool {
		n := 0
		for _, e := range h.log.all() {
			if e.Kind == audit.Close && e.ID == begun[0].ID {
				n++
			}
		}
		return n == 1 && len(begun) == 1
	})
}

// Neither gate's refusal costs less: nothing is made on the host.
func TestAnExecAtOnceIsRefusedByEither(t *testing.T) {
	without := strings.Replace(testPolicy, "docker.stats, docker.inspect, docker.exec]", "docker.stats, docker.inspect]", 1)
	denied := testPolicy + "  - {name: not-web, effect: deny, principals: [user:dev], actions: [docker.exec], environments: [test], container-types: [web]}\n"
	for _, tt := range []struct {
		name, here, there, ref, body string
		status                       int
		says                         string
	}{
		{"here", without, testPolicy, "web", someExec, http.StatusForbidden, "docker.exec is not allowed in test (rule default)"},
		{"here, by the container's type", denied, testPolicy, "web", someExec, http.StatusForbidden, "rule not-web"},
		{"here, by its limits", testPolicy, testPolicy, "web", `{"AttachStdout":true,"Cmd":["id"],"User":"0"}`, http.StatusForbidden, "limits.exec.users"},
		{"there", testPolicy, without, "web", someExec, http.StatusForbidden, "host host1 refuses: docker.exec is not allowed in test (rule default)"},
		{"there, by the container's type", testPolicy, denied, "web", someExec, http.StatusForbidden, "host host1 refuses: docker.exec is not allowed in test (rule not-web)"},
		{"there, as an escape", testPolicy, testPolicy, "priv", someExec, http.StatusForbidden, "privileged"},
		{"no such container", testPolicy, testPolicy, "nosuch", someExec, http.StatusNotFound, "No such container: nosuch"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, engine := twoGates(t, "test")
			throughTunnel(t, h)
			h.gate.SetPolicy(mustPolicy(t, tt.here))
			h.host.SetPolicy(mustPolicy(t, tt.there))
			a := exchangeRaw(t, h.socket("dev"), verbed(post("/v1.51/containers/"+tt.ref+"/exec", tt.body)))
			if a.status != tt.status || !strings.Contains(a.body, tt.says) {
				t.Errorf("got %d %s, want %d and %q", a.status, a.body, tt.status, tt.says)
			}
			if got := engine.changes(); len(got) > 0 {
				t.Errorf("the Engine was asked %q", got)
			}
			if len(h.log.all()) == 0 {
				t.Error("nothing is on record")
			}
		})
	}
}

// Nothing of an exec goes to its caller that is not on record, or not being recorded.
func TestAnExecThatIsUnderWayEndsWhereItsStartIsRefused(t *testing.T) {
	const plain = `{"Detach":false,"Tty":false}`
	for _, tt := range []struct {
		name, start string
		breaks      func(h *harness)
		says        string
	}{
		{"the policy was changed", plain, func(h *harness) {
			h.gate.SetPolicy(mustPolicy(t, strings.Replace(testPolicy, "docker.stats, docker.inspect, docker.exec]", "docker.stats, docker.inspect]", 1)))
		}, "docker.exec is not allowed"},
		{"it would have to be recorded by now", plain, func(h *harness) {
			h.gate.SetPolicy(mustPolicy(t, strings.Replace(testPolicy, "    environments: [test, prod]\n", "    environments: [test, prod]\n    record: output\n", 1)))
		}, "the policy was changed"},
		{"it is another terminal's", `{"Detach":false,"Tty":true}`, func(*harness) {}, "created with Tty false"},
		{"it is to be detached", `{"Detach":true,"Tty":false}`, func(*harness) {}, "either detached or upgraded"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, _ := tapedGates(t, "test", nil)
			if a := exchangeRaw(t, h.socket("dev"), verbed(post("/v1.51/containers/web/exec", someExec))); a.status != http.StatusCreated {
				t.Fatalf("create: got %d %s", a.status, a.body)
			}
			tt.breaks(h)
			start := post("/v1.51/exec/"+execID+"/start", tt.start, upgradeTCP, "Content-Type: application/json")
			if a := exchangeRaw(t, h.socket("dev"), verbed(start)); a.status < 400 || !strings.Contains(a.body, tt.says) {
				t.Errorf("start: got %d %s, want %q", a.status, a.body, tt.says)
			}
			eventually(t, "the host ends it", func() bool {
				return slices.ContainsFunc(h.hostLog.all(), func(e audit.Event) bool { return e.Kind == audit.Close && e.Action == "docker.exec" })
			})
			if !slices.ContainsFunc(h.log.all(), func(e audit.Event) bool {
				return e.Kind == audit.Close && e.Action == "docker.exec" && strings.Contains(e.Result.Error, tt.says)
			}) {
				t.Errorf("its end is not on record: %+v", h.log.all())
			}
		})
	}
}

// An exec whose client never starts it, as it was killed in between, is not left
// running.
func TestAnExecThatNobodyTakesEnds(t *testing.T) {
	h, _ := twoGates(t, "test")
	throughTunnel(t, h)
	if a := exchangeRaw(t, h.socket("dev"), verbed(post("/v1.51/containers/web/exec", someExec))); a.status != http.StatusCreated {
		t.Fatalf("create: got %d %s", a.status, a.body)
	}
	h.gate.mu.Lock()
	e := h.gate.execs[execID]
	h.gate.mu.Unlock()
	e.untaken() // as after begunTime
	eventually(t, "the host ends it", func() bool {
		return slices.ContainsFunc(h.hostLog.all(), func(e audit.Event) bool { return e.Kind == audit.Close && e.Action == "docker.exec" })
	})
	if !slices.ContainsFunc(h.log.all(), func(e audit.Event) bool { return e.Kind == audit.Close && e.Result.Error == errUntaken.Error() }) {
		t.Errorf("that it was not taken is not on record: %+v", h.log.all())
	}
	start := post("/v1.51/exec/"+execID+"/start", `{"Detach":false,"Tty":false}`, upgradeTCP, "Content-Type: application/json")
	if a := exchangeRaw(t, h.socket("dev"), verbed(start)); a.status != http.StatusConflict {
		t.Errorf("start: got %d %s", a.status, a.body)
	}
}

// The word for the exec before is for jump servers' gates.
func TestTheLastExecIsForGates(t *testing.T) {
	h := newHarness(t, newFakeEngine(t).socket, "test")
	conn, err := net.Dial("unix", h.socket("dev"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patient))
	fmt.Fprint(conn, post("/v1.51/containers/web/exec", someExec)+post("/v1.51/exec/last/start", `{"Detach":false,"Tty":false}`, upgradeTCP, "Content-Type: application/json"))
	br := bufio.NewReader(conn)
	if a := readAnswer(br); a.status != http.StatusCreated {
		t.Fatalf("create: got %d %s", a.status, a.body)
	}
	if a := readAnswer(br); a.status != http.StatusNotFound || !strings.Contains(a.body, "No such exec instance: last") {
		t.Errorf("start: got %d %s", a.status, a.body)
	}
}

// What was created on the connection before is not what a create that is refused
// was to be.
func TestACreateThatIsRefusedStartsNoExecOfBefore(t *testing.T) {
	h, engine := twoGates(t, "test")
	made := throughTunnel(t, h)
	if a := exchangeRaw(t, h.socket("dev"), post("/v1.51/containers/web/exec", someExec)); a.status != http.StatusCreated {
		t.Fatalf("create: got %d %s", a.status, a.body)
	}
	eventually(t, "the stream to the host is free again", func() bool {
		h.gate.mu.Lock()
		defer h.gate.mu.Unlock()
		return len(h.gate.idle) == 1
	})
	if a := exchangeRaw(t, h.socket("dev"), verbed(post("/v1.51/containers/nosuch/exec", someExec))); a.status != http.StatusNotFound {
		t.Fatalf("create: got %d %s", a.status, a.body)
	}
	var start audit.Event
	eventually(t, "the host has decided about the start", func() bool {
		all := h.hostLog.all()
		i := slices.IndexFunc(all, func(e audit.Event) bool { return e.Detail == "exec start" })
		if i >= 0 {
			start = all[i]
		}
		return i >= 0
	})
	if start.Verdict != audit.Deny || len(made()) != 1 {
		t.Errorf("over %d streams: %+v", len(made()), start)
	}
	if got := engine.changes(); len(got) != 1 {
		t.Errorf("the Engine was asked %q", got)
	}
}
