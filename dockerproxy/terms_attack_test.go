package dockerproxy

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"jumpsuite/internal/audit"
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
			var asked []string
			lying := engineThat(t, func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				path := strings.TrimPrefix(r.URL.Path, "/v1.51")
				if r.Method == http.MethodGet {
					io.WriteString(w, `{"Id":"`+webID+`","Name":"/web","Type":"web","Yours":true,"Config":{"Image":"lab/web:1"}}`)
					return
				}
				asked = append(asked, r.Method+" "+path)
				w.WriteHeader(status)
				io.WriteString(w, `{"message":"page not found: /jumpsuite/x"}`)
			})
			h := oneGate(t, lying, "test", func(g *Gate) { g.FarGate = true })
			h.gate.SetPolicy(mustPolicy(t, notDB))
			if a := h.does(act); a.status < 400 || len(asked) > 4 {
				t.Errorf("%s: got %d %s after %q", act, a.status, a.body, asked)
			}
			if all := h.log.all(); len(all) < 2 || len(all) > 6 {
				t.Errorf("%s: recorded %+v", act, all)
			}
		}
	}
}
