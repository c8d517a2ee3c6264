package dockerproxy

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

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
		action := one("docker.start", "docker.run", "docker.stop", "docker.rm", "docker.start, docker.run")
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
		for act, o := range map[string]*offer{"start": x.ownersTerms(false), "kill": x.ownersTerms(true), "stop": mine(policy.DockerStop), "rm": mine(policy.DockerRm)} {
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
