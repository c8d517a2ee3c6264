package dockerproxy

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"jumpsuite/internal/audit"
	"jumpsuite/policy"
)

// notWeb is a policy whose rules are not for containers of the type web.
const notWeb = testPolicy + "  - {name: not-web, effect: deny, principals: [user:dev], actions: [docker.exec, docker.start, docker.stop, docker.rm], environments: [test], container-types: [web]}\n"

// notDB is one whose rules tell containers apart, and are for those of the type web.
const notDB = testPolicy + "  - {name: not-db, effect: deny, principals: [user:dev], actions: [docker.exec, docker.start, docker.stop, docker.rm], environments: [test], container-types: [db]}\n"

// acts are what is done to a container, as our CLI asks for it.
var acts = map[string]string{
	"exec":    verbed(post("/v1.51/containers/web/exec", someExec)),
	"exec -d": verbed(post("/v1.51/containers/web/exec", execDetached)),
	"start":   post("/v1.51/containers/web/start", ""),
	"stop":    post("/v1.51/containers/web/stop", ""),
	"kill":    post("/v1.51/containers/web/kill?signal=TERM", ""),
	"rm":      strings.Replace(get("/v1.51/containers/web"), "GET", "DELETE", 1),
}

// does makes a request of h's user dev; exec -d is a create with its start.
func (h *harness) does(act string) answered {
	a := exchangeRaw(h.t, h.socket("dev"), acts[act])
	if act == "exec -d" && a.status == http.StatusCreated {
		a = exchangeRaw(h.t, h.socket("dev"), verbed(post("/v1.51/exec/"+madeIn([]byte(a.body))+"/start", `{"Detach":true}`)))
	}
	return a
}

// owned makes web one that dev has made.
func (h *harness) owned() {
	le := newLease(leaseMade, owner{UID: 1001, User: "dev", Key: "jump1"}, audit.NewID(here2026), 1<<40)
	le.Container, le.Image = webID, "lab/web:1"
	if err := h.host.Leases.write(webID, le); err != nil {
		h.t.Fatal(err)
	}
}

// The host does nothing to a container that the jump server's rules are not for, and
// the jump server says, and records, which rule that was.
func TestWhatTheTermsDoNotFitIsNotDone(t *testing.T) {
	for act := range acts {
		t.Run(act, func(t *testing.T) {
			h, engine := twoGates(t, "test")
			h.gate.SetPolicy(mustPolicy(t, notWeb))
			a := h.does(act)
			if a.status != http.StatusForbidden || !strings.Contains(a.body, "rule not-web") {
				t.Errorf("got %d %s", a.status, a.body)
			}
			if got := engine.changes(); len(got) > 0 {
				t.Errorf("the Engine was asked %q", got)
			}
			all := h.log.all()
			if last := all[len(all)-1]; last.Verdict != audit.Deny || last.Rule != "not-web" || last.Resource.Container != webID {
				t.Errorf("recorded last %+v", last)
			}
			if !slices.ContainsFunc(h.hostLog.all(), func(e audit.Event) bool {
				return e.Verdict == audit.Deny && strings.Contains(e.Reason, "the jump server's rules")
			}) {
				t.Errorf("the host's log: %+v", h.hostLog.all())
			}
		})
	}
}

// Of what is nobody's that asks nothing is stopped, on terms or not.
func TestOthersContainersAreOthersOnTermsToo(t *testing.T) {
	for _, act := range []string{"stop", "kill", "rm"} {
		h, engine := twoGates(t, "test")
		h.gate.SetPolicy(mustPolicy(t, notDB))
		if a := h.does(act); a.status != http.StatusForbidden || !strings.Contains(a.body, "that you made or started here") {
			t.Errorf("%s: got %d %s", act, a.status, a.body)
		}
		if got := engine.changes(); len(got) > 0 {
			t.Errorf("%s: the Engine was asked %q", act, got)
		}
	}
}

// The host's own policy counts as ever, and both logs have what was done.
func TestOnTermsBothGatesDecideAndRecord(t *testing.T) {
	without := testPolicy + "  - {name: no-hands, effect: deny, principals: [user:dev], actions: [docker.exec, docker.start, docker.stop, docker.rm, docker.run], environments: [test]}\n"
	for act := range acts {
		t.Run(act, func(t *testing.T) {
			h, engine := twoGates(t, "test")
			h.owned()
			h.gate.SetPolicy(mustPolicy(t, notDB))
			h.host.SetPolicy(mustPolicy(t, without))
			if a := h.does(act); act != "kill" && (a.status != http.StatusForbidden || !strings.Contains(a.body, "host host1 refuses")) {
				t.Errorf("got %d %s", a.status, a.body)
			}
			if got := engine.changes(); len(got) > 0 {
				t.Errorf("the Engine was asked %q", got)
			}
			h.host.SetPolicy(mustPolicy(t, testPolicy))
			if a := h.does(act); a.status >= 400 {
				t.Fatalf("got %d %s", a.status, a.body)
			}
			if got := engine.changes(); len(got) == 0 && act != "start" { // it runs
				t.Error("the Engine was asked nothing")
			}
			for _, there := range h.hostLog.all() {
				if there.Verdict == audit.Allow && !slices.ContainsFunc(h.log.all(), func(here audit.Event) bool { return here.ID == there.Far && here.Verdict == audit.Allow }) {
					t.Errorf("there %+v, and here %+v", there, h.log.all())
				}
			}
		})
	}
}

// Nothing is asked of a host that is not on record here.
func TestNothingIsAskedOnTermsUnrecorded(t *testing.T) {
	for act := range acts {
		for _, rules := range []string{testPolicy, notDB} {
			h, engine := twoGates(t, "test")
			h.owned()
			h.gate.SetPolicy(mustPolicy(t, rules))
			h.log.broken = errors.New("disk full")
			if a := h.does(act); a.status != http.StatusServiceUnavailable {
				t.Errorf("%s: got %d %s", act, a.status, a.body)
			}
			if got := engine.changes(); len(got) > 0 || len(h.hostLog.all()) > 0 {
				t.Errorf("%s: the Engine was asked %q, the host recorded %+v", act, got, h.hostLog.all())
			}
		}
	}
}

// A detached exec cannot be ended once it runs: it begins only when its start is on
// record.
func TestADetachedExecBeginsWithItsStart(t *testing.T) {
	h, engine := twoGates(t, "test")
	a := exchangeRaw(t, h.socket("dev"), acts["exec -d"])
	start := verbed(post("/v1.51/exec/"+madeIn([]byte(a.body))+"/start", `{"Detach":true}`))
	if a.status != http.StatusCreated || len(engine.changes()) > 0 {
		t.Fatalf("create: got %d %s, and the Engine was asked %q", a.status, a.body, engine.changes())
	}
	if a := exchangeRaw(t, h.socket("other"), start); a.status != http.StatusNotFound {
		t.Errorf("another's: got %d %s", a.status, a.body)
	}
	attached := strings.Replace(strings.Replace(start, "true", "false", 1), "Host: x", "Host: x\r\n"+upgradeTCP, 1)
	attached = strings.Replace(attached, "Content-Length: 15", "Content-Length: 16", 1)
	if a := exchangeRaw(t, h.socket("dev"), attached); a.status != http.StatusBadRequest {
		t.Errorf("attached: got %d %s", a.status, a.body)
	}
	h.log.mu.Lock()
	h.log.broken = io.ErrShortWrite
	h.log.mu.Unlock()
	if a := exchangeRaw(t, h.socket("dev"), start); a.status != http.StatusServiceUnavailable || len(engine.changes()) > 0 {
		t.Errorf("unrecorded: got %d %s, and the Engine was asked %q", a.status, a.body, engine.changes())
	}
	h.log.mu.Lock()
	h.log.broken = nil
	h.log.mu.Unlock()
	if a := exchangeRaw(t, h.socket("dev"), start); a.status >= 300 || len(engine.changes()) != 2 {
		t.Errorf("start: got %d %s, and the Engine was asked %q", a.status, a.body, engine.changes())
	}
	if a := exchangeRaw(t, h.socket("dev"), start); a.status != http.StatusConflict || len(engine.changes()) != 2 {
		t.Errorf("once more: got %d %s, and the Engine was asked %q", a.status, a.body, engine.changes())
	}
	id := madeIn([]byte(a.body))
	if a := exchangeRaw(t, h.socket("dev"), get("/v1.51/exec/"+id+"/json")); a.status != http.StatusOK || !strings.Contains(a.body, id) || strings.Contains(a.body, execID) {
		t.Errorf("inspect: got %d %s", a.status, a.body)
	}
}

// Where the policy has changed since the create, the start is refused.
func TestADetachedExecIsDecidedAnewAtItsStart(t *testing.T) {
	for name, rules := range map[string]string{
		"nothing is allowed any more": strings.Replace(testPolicy, "docker.stats, docker.inspect, docker.exec]", "docker.stats, docker.inspect]", 1),
		"not in that container":       notWeb,
		"not detached":                strings.Replace(testPolicy, "detach: true, users", "detach: false, users", 1),
	} {
		h, engine := twoGates(t, "test")
		a := exchangeRaw(t, h.socket("dev"), acts["exec -d"])
		h.gate.SetPolicy(mustPolicy(t, rules))
		a = exchangeRaw(t, h.socket("dev"), verbed(post("/v1.51/exec/"+madeIn([]byte(a.body))+"/start", `{"Detach":true}`)))
		if a.status != http.StatusForbidden || len(engine.changes()) > 0 {
			t.Errorf("%s: got %d %s, and the Engine was asked %q", name, a.status, a.body, engine.changes())
		}
	}
}

// A gate that knows no terms does nothing on them; what it is asked then it is asked
// when the container is known.
func TestAGateThatKnowsNoTermsIsAskedTheLongWay(t *testing.T) {
	var asked []string
	old := engineThat(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		path := strings.TrimPrefix(r.URL.Path, "/v1.51")
		asked = append(asked, r.Method+" "+path)
		switch {
		case r.Method == http.MethodPost && strings.HasPrefix(path, "/jumpsuite/"):
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"message":"page not found: `+path+`"}`)
		case strings.HasPrefix(path, "/jumpsuite/"):
			io.WriteString(w, `{"Id":"`+webID+`","Name":"/web","Type":"web","Config":{"Image":"lab/web:1"}}`)
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	})
	h := oneGate(t, old, "test", func(g *Gate) { g.FarGate = true })
	h.gate.SetPolicy(mustPolicy(t, notDB))
	a := exchangeRaw(t, h.socket("dev"), acts["start"])
	want := []string{"POST /jumpsuite/containers/web/start", "GET /jumpsuite/containers/web", "POST /containers/" + webID + "/start"}
	if a.status != http.StatusNoContent || !slices.Equal(asked, want) {
		t.Errorf("got %d %s after %q, want %q", a.status, a.body, asked, want)
	}
}

// A host that says it has done it to a container that the rules are not for is not
// believed to have done well, and its words do not go to the caller.
func TestAHostThatBreaksTheTermsIsToldOf(t *testing.T) {
	for name, o := range map[string]*outlook{
		"to one of another type": {outline: outline{ID: webID, Name: "/web"}, Type: "db"},
		"to another one":         {outline: outline{ID: stopID, Name: "/other"}, Type: "web"},
		"and does not say":       nil,
	} {
		broken := engineThat(t, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			if o != nil {
				told := *o
				told.Config.Image = "lab/web:1"
				b, _ := json.Marshal(told)
				w.Header().Set(outlookHeader, base64.StdEncoding.EncodeToString(b))
			}
			w.WriteHeader(http.StatusCreated)
			io.WriteString(w, `{"Id":"`+execID+`"}`)
		})
		for _, act := range []string{"exec", "exec -d", "start"} {
			h := oneGate(t, broken, "test", func(g *Gate) { g.FarGate = true })
			h.gate.SetPolicy(mustPolicy(t, notDB))
			if a := h.does(act); a.status != http.StatusBadGateway {
				t.Errorf("%s, %s: got %d %s", act, name, a.status, a.body)
			}
			h.gate.mu.Lock()
			if len(h.gate.open) > 0 {
				t.Errorf("%s, %s: a stream is open", act, name)
			}
			h.gate.mu.Unlock()
		}
	}
}

// Terms are what gates tell each other, and what is no terms is not taken for any.
func TestTermsAreForGates(t *testing.T) {
	engine := newFakeEngine(t)
	h := oneGate(t, engine.socket, "test")
	far := h.serveAs("far", Caller{UID: 1001, Principal: principal("dev", "jump1")})
	any, _ := mustPolicy(t, testPolicy).Terms(policy.Request{Principal: policy.Principal{User: "dev"}, Environment: "test", Action: policy.DockerStart})
	good := (&terms{Any: []policy.Terms{any}}).encoded()
	raw := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, tt := range []struct {
		name, socket, terms string
		status              int
	}{
		{"a caller's", h.socket("dev"), good, http.StatusNotFound},
		{"a gate's", far, good, http.StatusNotModified},
		{"none", far, "", http.StatusBadRequest},
		{"no base64", far, "!", http.StatusBadRequest},
		{"nothing that would do", far, raw(`{"Any":[]}`), http.StatusPreconditionFailed},
		{"rules for nothing", far, raw(`{"Any":[[]]}`), http.StatusPreconditionFailed},
		{"what comes after them", far, raw(`{"Any":[[{"Effect":"allow"}]]}{"Yours":true}`), http.StatusBadRequest},
		{"an effect that there is not", far, raw(`{"Any":[[{"Effect":"audit"}]]}`), http.StatusBadRequest},
		{"a member that there is not", far, raw(`{"Any":[[{"Effect":"allow"}]],"Unless":1}`), http.StatusBadRequest},
		{"a rule with a member that there is not", far, raw(`{"Any":[[{"Effect":"allow","Hosts":["x"]}]]}`), http.StatusBadRequest},
		{"a pattern that is none", far, raw(`{"Any":[[{"Effect":"allow"},{"Effect":"deny","Types":["[a]"]}]]}`), http.StatusBadRequest},
		{"a denial of nothing", far, raw(`{"Any":[[{"Effect":"allow"},{"Effect":"deny","Types":[]}]]}`), http.StatusBadRequest},
		{"a denial", far, raw(`{"Any":[[{"Effect":"allow"},{"Effect":"deny","Types":["we?"]}]]}`), http.StatusPreconditionFailed},
		{"what is the caller's", far, raw(`{"Any":[[{"Effect":"allow"}]],"Yours":true}`), http.StatusPreconditionFailed},
	} {
		request := post("/v1.51/jumpsuite/containers/web/start", "", "X-Jumpsuite-Outlook: 1", "X-Jumpsuite-Terms: "+tt.terms)
		if a := exchangeRaw(t, tt.socket, request); a.status != tt.status {
			t.Errorf("%s: got %d %s, want %d", tt.name, a.status, a.body, tt.status)
		}
	}
	if got := engine.changes(); len(got) > 0 {
		t.Errorf("the Engine was asked %q", got)
	}
}
