package dockerproxy

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"jumpsuite/internal/audit"
	"jumpsuite/policy"
)

// notEvil is a jump server's policy that is stricter than the host's about images.
const notEvil = testPolicy + "  - {name: not-evil, effect: deny, principals: [user:dev], actions: [docker.run, docker.create, docker.inspect], environments: [test], images: [docker.io/evil/*]}\n" +
	"  - {name: any-image, effect: allow, principals: [user:dev], actions: [docker.run, docker.create], environments: [test], images: ['*']}\n"

// An id is no name: what it stands for is looked at, however it is written.
func TestAnImagesIDIsNotTakenForAName(t *testing.T) {
	any := strings.Replace(testPolicy, "images: [docker.io/lab/*]", "images: ['*']", 1)
	for _, ref := range []string{imgID, imgID[:19], strings.TrimPrefix(imgID, "sha256:"), "ffff"} {
		h, engine := twoGates(t, "test")
		h.host.SetPolicy(mustPolicy(t, any))
		h.gate.SetPolicy(mustPolicy(t, notEvil))
		a := exchangeRaw(t, h.socket("dev"), post("/v1.51/containers/create", `{"Image":"`+ref+`"}`))
		if a.status < 400 || len(engine.changes()) > 0 {
			t.Errorf("create of %s: got %d %s, and the Engine was asked %q", ref, a.status, a.body, engine.changes())
		}
		a = exchangeRaw(t, h.socket("dev"), get("/v1.51/images/"+ref+"/json"))
		if a.status < 400 {
			t.Errorf("inspect of %s: got %d %s", ref, a.status, a.body)
		}
	}
}

// What says itself is called so in full by nothing else.
func TestOnlyANameSaysItself(t *testing.T) {
	for name, want := range map[string]bool{
		"lab/web:1": true, "web": true, "reg.example:5000/web": true, "cafe/web": true, "cafe:1": true, "docker.io/library/sha256": true,
		"": false, "cafe": false, imgID: false, "sha256:cafe": false, strings.Repeat("a", 64): false,
		"web@" + imgID: false, "web:1@" + imgID: false, "Web": false,
	} {
		if got := saysItself(name); got != want {
			t.Errorf("%q: got %v", name, got)
		}
	}
}

// An outlook that the other end cannot read is not sent: nothing is done then on
// terms, and the container is looked at.
func TestALongOutlookKeepsNobodyFromHisContainer(t *testing.T) {
	for _, n := range []int{10, 2000, 2800, 2900, 3000, 3100, 4000, 5700, 6000, 6300, 9000} {
		starts := 0
		engine := engineThat(t, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("Api-Version", "1.51")
			switch {
			case strings.HasSuffix(r.URL.Path, "/_ping"):
			case strings.HasSuffix(r.URL.Path, "/json"):
				fmt.Fprintf(w, `{"Id":%q,"Name":"/web","Image":%q,"State":{"StartedAt":"2026-01-02T03:04:05Z","Error":%q},"Config":{"Image":"lab/web:1","Labels":{%q:"web"}},"HostConfig":{}}`,
					webID, imgID, strings.Repeat("e", n), ecsFamilyLabel)
			case strings.HasSuffix(r.URL.Path, "/start"):
				starts++
				w.WriteHeader(http.StatusNoContent)
			}
		})
		h := newHarness(t, engine, "test")
		h.behindAnother()
		h.gate.SetPolicy(mustPolicy(t, notDB))
		if a := h.does("start"); a.status != http.StatusNoContent || starts != 1 {
			t.Errorf("an error of %d bytes: got %d %s, started %d times", n, a.status, a.body, starts)
		}
	}
}

// What is refused after a look is refused, on record, for its own reason.
func TestARefusalThatNeedsNoTermsSaysItsOwnReason(t *testing.T) {
	for _, act := range []string{"exec", "exec -d"} {
		h, engine := twoGates(t, "test")
		h.gate.SetPolicy(mustPolicy(t, strings.ReplaceAll(testPolicy, "docker.inspect, docker.exec]", "docker.inspect]")))
		a := h.does(act)
		all := h.log.all()
		last := all[len(all)-1]
		if a.status != http.StatusForbidden || last.Reason != "no rule allows it" || last.Verdict != audit.Deny || len(engine.changes()) > 0 {
			t.Errorf("%s: got %d %s, recorded %+v", act, a.status, a.body, last)
		}
	}
}

// Of what was done on terms the jump server's log has what it was done to, and which
// rule that was by.
func TestWhatWasDoneOnTermsIsOnRecordWithItsContainer(t *testing.T) {
	elsewhere := strings.Replace(notDB, "rules:\n", "rules:\n  - {name: of-db, effect: allow, principals: [user:dev], actions: [docker.exec, docker.start, docker.stop, docker.rm], environments: [test], container-types: [db]}\n", 1)
	for _, rules := range []string{testPolicy, elsewhere} {
		for act := range acts {
			h, engine := twoGates(t, "test")
			if act != "start" && act != "exec" && act != "exec -d" {
				h.owned()
			}
			h.gate.SetPolicy(mustPolicy(t, rules))
			if a := h.does(act); a.status >= 400 {
				t.Fatalf("%s: got %d %s", act, a.status, a.body)
			}
			if len(engine.changes()) == 0 && act != "start" {
				t.Errorf("%s: the Engine was asked nothing", act)
			}
			if act == "exec" {
				continue // its start, which is not asked for here, has it
			}
			eventually(t, act+": the log says to what it was done", func() bool {
				return slices.ContainsFunc(h.log.all(), func(e audit.Event) bool {
					return e.Resource.Container == webID && e.Resource.Image == "lab/web:1" && e.Verdict == audit.Allow && e.Rule != "of-db"
				})
			})
		}
	}
}

// A host that says each time that it has done nothing is asked twice, and no more.
func TestAHostThatFitsNothingIsNotAskedForEver(t *testing.T) {
	for _, status := range []int{http.StatusPreconditionFailed, http.StatusNotFound} {
		for act := range acts {
			var mu sync.Mutex
			asked := 0
			lying := engineThat(t, func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				if r.Method == http.MethodGet {
					io.WriteString(w, `{"Id":"`+webID+`","Name":"/web","Type":"web","Yours":true,"Config":{"Image":"lab/web:1"}}`)
					return
				}
				mu.Lock()
				asked++
				mu.Unlock()
				w.WriteHeader(status)
				io.WriteString(w, `{"message":"page not found: /jumpsuite/x"}`)
			})
			h := oneGate(t, lying, "test", func(g *Gate) { g.FarGate = true })
			h.gate.SetPolicy(mustPolicy(t, notDB))
			if a := h.does(act); a.status < 400 {
				t.Errorf("%s: got %d %s", act, a.status, a.body)
			}
			mu.Lock()
			if asked > 4 {
				t.Errorf("%s: asked %d times", act, asked)
			}
			mu.Unlock()
			if all := h.log.all(); len(all) < 2 || len(all) > 6 {
				t.Errorf("%s: recorded %+v", act, all)
			}
		}
	}
}

// guessedRules are some rules about what owners do, made up.
func guessedRules(r *rand.Rand) string {
	one := func(list ...string) string { return list[r.IntN(len(list))] }
	all := testPolicy[:strings.Index(testPolicy, "rules:\n")] + "rules:\n"
	for i := range 1 + r.IntN(6) {
		action := one("docker.start", "docker.run", "docker.stop", "docker.rm", "docker.start, docker.run", "docker.stop, docker.rm, docker.start")
		effect := one("allow", "allow", "deny")
		rule := fmt.Sprintf("  - {name: r%d, effect: %s, principals: [%s], actions: [%s], environments: [test]", i, effect, one("user:dev", "user:dev", "user:other", "group:ops"), action)
		if !strings.Contains(action, "run") && r.IntN(2) == 0 {
			rule += ", container-types: ['" + one("web", "w*", "db", "*") + "']"
		}
		if strings.Contains(action, "run") && effect == "allow" || r.IntN(3) == 0 {
			rule += ", images: ['" + one("*", "docker.io/lab/*", "docker.io/lab/web:1", "docker.io/evil/*") + "']"
		}
		if r.IntN(4) == 0 {
			rule += ", hosts: ['" + one("host1", "h*", "host2") + "']"
		}
		if effect == "allow" && r.IntN(8) == 0 && action != "docker.stop" && action != "docker.rm" {
			rule += ", record: output"
		}
		all += rule + "}\n"
	}
	return all
}

// guessedTarget is a container as a host's gate knows it.
func guessedTarget(r *rand.Rand, dev owner) *target {
	one := func(list ...string) string { return list[r.IntN(len(list))] }
	t := &target{}
	t.raw, t.State.StartedAt = []byte("{}"), one("now", "then")
	t.ID, t.Name, t.Config.Image = webID, "/web", one("lab/web:1", "lab/web:2", "evil/web", imgID, "")
	t.Config.Labels = map[string]string{}
	if kind := one("web", "db", "other", ""); kind != "" {
		t.Config.Labels[ecsFamilyLabel], t.Config.Labels[ecsTaskLabel] = kind, "arn:x"
	}
	if r.IntN(2) == 0 {
		t.lease = &lease{Kind: leaseKind(one(string(leaseMade), string(leaseStarted))), Container: webID, Image: one("lab/web:1", "evil/web", policy.None), Owner: dev, StartedAt: "now"}
		if r.IntN(4) == 0 {
			t.lease.Owner.User = "other"
		}
	}
	return t
}

// Whatever the rules and the container are: what the host may do on terms is what the
// jump server would have allowed after a look at it, and nothing that is recorded.
func TestTermsOfOwnersAreWhatALookWouldHaveAllowed(t *testing.T) {
	r := rand.New(rand.NewPCG(2026, 23))
	dev := Caller{UID: 1001, Principal: policy.Principal{User: "dev"}}
	fits := map[string]int{}
	for range 1500 {
		rules := guessedRules(r)
		if r.IntN(3) == 0 {
			dev.Groups = []string{"ops"}
		}
		host := &Gate{Environment: "test", Hosts: []string{"host1"}}
		there := &exchange{gate: host, conn: &connection{gate: host, caller: dev}}
		g := &Gate{FarGate: true, Environment: "test", Hosts: []string{"host1"}}
		g.policy.Store(mustPolicy(t, rules))
		x := &exchange{gate: g, conn: &connection{gate: g, caller: dev}}
		mine := func(a policy.Action) *offer {
			rules, d := g.policy.Load().Terms(x.question(a, policy.Resource{}))
			if !d.Allowed() {
				return nil
			}
			return &offer{terms: &terms{Any: []policy.Terms{rules}, Yours: true}, again: func(t *target) policy.Request { return x.question(a, t.resource()) }}
		}
		offers := map[string]*offer{"start": x.ownersTerms(false), "kill": x.ownersTerms(true), "stop": mine(policy.DockerStop), "rm": mine(policy.DockerRm)}
		for _, act := range slices.Sorted(maps.Keys(offers)) {
			o := offers[act]
			if o == nil {
				continue
			}
			read, err := termsIn(o.terms.encoded())
			if err != nil {
				t.Fatalf("%s: %v", o.terms.encoded(), err)
			}
			for range 6 {
				c := guessedTarget(r, dev.owner())
				told := there.outlookOf(c)
				seen := told.target()
				fit := read.fit(&told)
				d := x.decide(o.again(seen))
				want := d.Allowed() && (act == "start" || seen.leasedTo(dev.owner()))
				if fit != want || fit != o.terms.fit(outlookFor(seen)) || fit && act != "stop" && act != "rm" && d.Obligations.Record != policy.RecordNothing {
					t.Fatalf("%s: by\n%s\n%+v fits %v, and the decision is %v by %s, recording %v", act, rules, told, fit, d.Effect(), d.Rule(), d.Obligations.Record)
				}
				if fit {
					fits[act]++
				}
			}
		}
	}
	for _, act := range []string{"start", "kill", "stop", "rm"} {
		if fits[act] < 30 {
			t.Errorf("%s: only %d containers fit: the guesses are bad ones", act, fits[act])
		}
	}
}

// What is not done on terms is on record at the host with the container that it was
// not done to.
func TestTheHostRecordsToWhatItWasNotDone(t *testing.T) {
	for act := range acts {
		h, _ := twoGates(t, "test")
		h.gate.SetPolicy(mustPolicy(t, notWeb))
		h.does(act)
		n := 0
		for _, e := range h.hostLog.all() {
			if e.Verdict == audit.Deny && strings.Contains(e.Reason, "the jump server's rules") {
				n++
				if e.Resource.Container != webID || e.Resource.ContainerType != "web" || e.Far == "" || e.Principal.Name != "dev" {
					t.Errorf("%s: recorded %+v", act, e)
				}
			}
		}
		if n != 1 {
			t.Errorf("%s: %d times in %+v", act, n, h.hostLog.all())
		}
	}
}

// A host that is lost when it was asked to do something, or answers nothing that can be
// understood, is on record with the event that allowed it; and it is asked once.
func TestAHostThatIsLostMeanwhileIsOnRecord(t *testing.T) {
	for name, answer := range map[string]string{
		"lost":                       "",
		"no HTTP":                    "what?\r\n\r\n",
		"a line that never ends":     "HTTP/1.1 200 OK\r\nX-Jumpsuite-Outlook: " + strings.Repeat("A", 64<<10) + "\r\n\r\n",
		"fields that never end":      "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 1000) + "\r\n",
		"an outlook that is none":    "HTTP/1.1 201 Created\r\nX-Jumpsuite-Outlook: !!\r\nContent-Length: 2\r\n\r\n{}",
		"an outlook of nothing":      "HTTP/1.1 201 Created\r\nX-Jumpsuite-Outlook: e30=\r\nContent-Length: 2\r\n\r\n{}",
		"a body that ends too early": "HTTP/1.1 201 Created\r\nContent-Length: 99\r\n\r\n{",
	} {
		for _, rules := range []string{testPolicy, notDB} {
			for act := range acts {
				var mu sync.Mutex
				asked := 0
				losing := engineThat(t, func(w http.ResponseWriter, r *http.Request) {
					io.Copy(io.Discard, r.Body)
					if r.Method == http.MethodGet {
						io.WriteString(w, `{"Id":"`+webID+`","Name":"/web","Type":"web","Yours":true,"Config":{"Image":"lab/web:1"}}`)
						return
					}
					mu.Lock()
					asked++
					mu.Unlock()
					conn, _, err := w.(http.Hijacker).Hijack()
					if err == nil {
						io.WriteString(conn, answer)
						conn.Close()
					}
				})
				h := oneGate(t, losing, "test", func(g *Gate) { g.FarGate = true })
				h.gate.SetPolicy(mustPolicy(t, rules))
				a := h.does(act)
				mu.Lock()
				n := asked
				mu.Unlock()
				if a.status < 400 || n != 1 {
					t.Errorf("%s, %s: got %d %s, and the host was asked %d times", act, name, a.status, a.body, n)
				}
				eventually(t, act+", "+name+": what came of it is on record", func() bool {
					return slices.ContainsFunc(h.log.all(), func(e audit.Event) bool {
						return e.Kind == audit.Close && e.Result.Error != "" || e.Kind == audit.Change && strings.Contains(e.Detail, "not known to be done")
					})
				})
			}
		}
	}
}

// However often a detached exec is started at the same moment, it begins once.
func TestADetachedExecBeginsOnce(t *testing.T) {
	for _, rules := range []string{testPolicy, notDB} {
		h, engine := twoGates(t, "test")
		h.gate.SetPolicy(mustPolicy(t, rules))
		a := exchangeRaw(t, h.socket("dev"), acts["exec -d"])
		start := verbed(post("/v1.51/exec/"+madeIn([]byte(a.body))+"/start", `{"Detach":true}`))
		socket := h.socket("dev")
		var well atomic.Int32
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				if a := exchangeRaw(t, socket, start); a.status < 300 {
					well.Add(1)
				}
			})
		}
		all.Wait()
		if well.Load() != 1 || len(engine.changes()) != 2 {
			t.Errorf("%d were told that it began, and the Engine was asked %q", well.Load(), engine.changes())
		}
	}
}

// What acts is asked of no host while it can be meant on several, and goes by an id
// then.
func TestNothingIsDoneToANameThatSeveralHostsHave(t *testing.T) {
	for act, request := range acts {
		for _, lies := range []bool{false, true} {
			c := newCluster(t)
			c.Fleet.SetPolicy(mustPolicy(t, notDB))
			if lies { // i-2 has what only i-1 has, it says
				request = strings.Replace(request, "/web", "/only1", 1)
				c.engines["i-2"].names["only1"] = id("be")
			}
			if a := c.ask("dev", request); a.status != http.StatusConflict || !strings.Contains(a.body, "can be several containers") {
				t.Errorf("%s: got %d %s", act, a.status, a.body)
			}
			for host, e := range c.engines {
				for line := range strings.SplitSeq(e.requests(), "\n") {
					if line != "" && !strings.HasPrefix(line, "GET ") {
						t.Errorf("%s: %s was asked %q", act, host, line)
					}
				}
			}
			if all := c.log.all(); len(all) != 1 || all[0].Verdict != audit.Deny {
				t.Errorf("%s: recorded %+v", act, all)
			}
		}
	}
}

// However often it is asked for what is dropped, or made ready and not used: nothing
// is left of it but a few streams to each host.
func TestNothingIsLeftOfWhatWasAskedForInVain(t *testing.T) {
	packed()
	for _, tt := range []struct {
		name, rules string
		requests    []string
	}{
		{"answers of several", "", asVerb("logs", "", get("/v1.51/containers/web/logs?stdout=1"))},
		{"an answer that is refused", "  - {name: no-logs, effect: deny, principals: [user:dev], actions: [docker.logs], environments: [test], container-types: [web]}\n", asVerb("logs", "i-1", get("/v1.51/containers/web/logs?stdout=1"))},
		{"streams for a run", "", asVerb("run", "i-1", post("/v1.51/containers/create", `{"Image":"lab/web:1"}`))},
		{"streams for a start", "", asVerb("start", "i-1", get("/v1.51/containers/stopped/json"))},
		{"an exec that is not started", "", asVerb("exec", "i-1", post("/v1.51/containers/web/exec", execHere))},
		{"a detached exec that is not started", "", asVerb("exec", "i-1", post("/v1.51/containers/web/exec", execDetached))},
		{"an exec that does not fit", strings.ReplaceAll(apart, "db", "web"), asVerb("exec", "i-1", post("/v1.51/containers/web/exec", execHere))},
		{"a start that does not fit", strings.ReplaceAll(apart, "db", "web"), asVerb("start", "i-1", post("/v1.51/containers/web/start", ""))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDistant(t, 3)
				defer d.close()
				d.engines["i-2"].names["web"] = strings.Repeat("8", 64)
				d.fleet.SetPolicy(mustPolicy(t, testPolicy+tt.rules))
				after := func(n int) int {
					for range n {
						d.does("dev", tt.requests...)
					}
					time.Sleep(begunTime + time.Minute)
					synctest.Wait()
					return runtime.NumGoroutine()
				}
				few, many := after(12), after(48)
				if many > few+maxIdle { // how many streams are kept depends on who was first
					t.Errorf("%d goroutines after a few times, %d after many", few, many)
				}
			})
		})
	}
}

// Through two gates, whatever the jump server's rules are: what reaches the Engine is
// what that one's policy allows for the container that it is, and is being recorded
// where that obliges to it. And what it allows is done.
func TestWhatReachesTheEngineIsWhatTheJumpServerAllowsForTheContainer(t *testing.T) {
	r := rand.New(rand.NewPCG(2026, 1123))
	done, refused, taped := map[string]int{}, map[string]int{}, 0
	for range 80 {
		rules := guessedRules(r)
		for _, a := range []string{"docker.run", "docker.stop", "docker.rm"} { // of some rules that say it
			if r.IntN(2) == 0 && !strings.Contains(rules, "images: ['*']") {
				rules = strings.ReplaceAll(rules, "["+a+"]", "[docker.exec]")
			}
		}
		lines := strings.Split(rules, "\n")
		for i, l := range lines {
			if strings.Contains(l, "effect: allow") && strings.Contains(l, "[docker.exec]") && !strings.Contains(l, "record:") && r.IntN(4) == 0 {
				lines[i] = strings.TrimSuffix(l, "}") + ", record: output}"
			}
		}
		rules = strings.Join(lines, "\n")
		for _, act := range slices.Sorted(maps.Keys(acts)) {
			var mu sync.Mutex
			recorded := 0
			h, engine := tapedGates(t, "test", func(s Session) {
				if s.Caller.Key == "" {
					mu.Lock()
					recorded++
					mu.Unlock()
				}
			})
			web := &target{}
			web.ID, web.Name, web.Config.Image, web.Config.Labels = webID, "/web", "lab/web:1", map[string]string{ecsFamilyLabel: "web"}
			if r.IntN(2) == 0 {
				h.owned()
				web.yours, web.lease = true, &lease{Kind: leaseMade, Container: webID, Image: "lab/web:1"}
			}
			h.gate.SetPolicy(mustPolicy(t, rules))
			x := &exchange{gate: h.gate, conn: &connection{gate: h.gate, caller: callerCalled("dev")}}
			q, able := x.questionOn(web), act == "start" || web.yours
			switch act {
			case "exec", "exec -d":
				q, able = x.question(policy.DockerExec, web.resource()), true
				q.Exec = &policy.Exec{Argv: []string{"cat"}, Detach: act == "exec -d"}
			case "stop":
				q = x.question(policy.DockerStop, web.resource())
			case "rm":
				q = x.question(policy.DockerRm, web.resource())
			}
			d := x.decide(q)
			record := d.Obligations.Record != policy.RecordNothing
			want := d.Allowed() && able && !(record && (act == "exec -d" || act == "start" && web.made()))
			a := h.does(act)
			if got := len(engine.changes()) > 0; got && !want || (a.status < 400) != want {
				t.Fatalf("%s of one that is the caller's: %v, by\n%s\ngot %d %s, the Engine was asked %q; the decision is %v by %s, recording %v", act, web.yours, rules, a.status, a.body, engine.changes(), d.Effect(), d.Rule(), record)
			}
			mu.Lock()
			if want && record && act == "exec" && recorded != 1 {
				t.Fatalf("%s, by\n%s\nis to be recorded, and was %d times", act, rules, recorded)
			}
			taped += recorded
			mu.Unlock()
			if want {
				done[act]++
			} else {
				refused[act]++
			}
		}
	}
	if taped < 2 {
		t.Errorf("%d were recorded: the guesses are bad ones", taped)
	}
	for act := range acts {
		if done[act] < 2 || refused[act] < 2 {
			t.Errorf("%s: %d were done and %d refused: the guesses are bad ones", act, done[act], refused[act])
		}
	}
}

// Terms are not lost on the way through a gate that leads to another one.
func TestTermsHoldThroughAGateInBetween(t *testing.T) {
	for act, request := range acts {
		h, engine := twoGates(t, "test")
		h.owned()
		jump := Caller{UID: 1001, Principal: principal("dev", "jump2")}
		between := h.serveAs("between", jump)
		request = strings.Replace(on(request, "X-Jumpsuite-Outlook: 1", "X-Jumpsuite-Terms: "+(&terms{}).encoded()), "/v1.51/", "/v1.51/jumpsuite/", 1)
		if a := exchangeRaw(t, between, request); a.status != http.StatusPreconditionFailed || len(engine.changes()) > 0 {
			t.Errorf("%s: got %d %s, and the Engine was asked %q", act, a.status, a.body, engine.changes())
		}
	}
}

// Terms of any length are held: what no header can have is looked at instead.
func TestLongTermsAreHeld(t *testing.T) {
	for n := 200; n < 216; n++ { // some 208 fit
		var types strings.Builder
		for i := range n {
			fmt.Fprintf(&types, "db-%08d, ", i)
		}
		for kind, want := range map[string]int{"db": http.StatusNotModified, "web": http.StatusForbidden} {
			h, _ := twoGates(t, "test")
			h.gate.SetPolicy(mustPolicy(t, strings.Replace(notDB, "[db]", "["+types.String()+kind+"]", 1)))
			if a := h.does("start"); a.status != want {
				t.Errorf("%d and %s: got %d %s", n, kind, a.status, a.body)
			}
		}
	}
}
