package dockerproxy

import (
	"context"
	"crypto/ed25519"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"jumpsuite/internal/audit"
	"jumpsuite/internal/tunnel"
	"jumpsuite/policy"
)

// trips counts the round trips on a connection: how often something is read after
// something was written.
type trips struct {
	net.Conn
	mu    sync.Mutex
	n     int
	wrote bool
}

func (c *trips) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.wrote = true
	c.mu.Unlock()
	return c.Conn.Write(p)
}

func (c *trips) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wrote && n > 0 {
		c.n++
		c.wrote = false
	}
	return n, err
}

func (c *trips) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// throughTunnel puts the tunnel between both gates of h, as it is between two
// machines, and returns the connections that are made through it.
func throughTunnel(t *testing.T, h *harness) func() []*trips {
	t.Helper()
	_, jump, err := ed25519.GenerateKey(nil)
	_, host, err2 := ed25519.GenerateKey(nil)
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	anybody := func(tunnel.KeyID) bool { return true }
	var mu sync.Mutex
	var all []*trips
	h.gate.Engine = func(ctx context.Context) (net.Conn, error) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		near, far := &trips{Conn: asConn(fds[0])}, asConn(fds[1])
		go func() {
			c, hello, err := tunnel.Accept(h.ctx, far, tunnel.Identity{Key: host, Trusted: anybody}, func(tunnel.Hello, tunnel.KeyID) (tunnel.Welcome, error) {
				return tunnel.Welcome{Environment: "test"}, nil
			})
			if err == nil {
				h.host.ServeConn(h.ctx, c, Caller{UID: hello.UID, Principal: policy.Principal{User: hello.User, Key: "jump1"}, Far: hello.Audit})
			}
		}()
		mu.Lock()
		all = append(all, near)
		mu.Unlock()
		return tunnel.Client(ctx, near, tunnel.Identity{Key: jump, Trusted: anybody}, tunnel.Hello{User: "dev", UID: 1001, Audit: audit.NewID(here2026)})
	}
	return func() []*trips {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

// verbed is a request of docker exec's.
func verbed(raw string) string {
	return strings.Replace(raw, "Host: x", "Host: x\r\nX-Jumpsuite-Verb: exec", 1)
}

// What a command costs between two machines: the first round trip is TLS's, and
// what has to be known before it can be decided is no other.
func TestACommandTakesAsManyRoundTripsAsItHasQuestions(t *testing.T) {
	exec := func(path, body string) string { return verbed(post(path, body)) }
	for _, tt := range []struct {
		name     string
		requests []string
		want     int
	}{
		{"ps", []string{get("/v1.51/containers/json")}, 2},
		{"inspect", []string{get("/v1.51/containers/web/json")}, 2},
		{"inspect by id", []string{get("/v1.51/containers/" + webID + "/json")}, 2},
		{"logs", []string{get("/v1.51/containers/web/logs?stdout=1")}, 2},
		{"stats", []string{get("/v1.51/containers/web/stats?stream=0")}, 2},
		{"no such container", []string{get("/v1.51/containers/nosuch/logs?stdout=1")}, 2},
		{"a client's own exec: look-up, create, start", []string{
			get("/v1.51/containers/web/json"),
			post("/v1.51/containers/web/exec", `{"AttachStdout":true,"Cmd":["id"]}`),
			post("/v1.51/exec/"+execID+"/start", `{"Detach":true}`),
		}, 4},
		{"a detached exec", []string{
			verbed(get("/v1.51/containers/web/json")),
			exec("/v1.51/containers/web/exec", `{"Cmd":["id"]}`),
			exec("/v1.51/exec/MADE/start", `{"Detach":true}`),
		}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, _ := twoGates(t, "test")
			made := throughTunnel(t, h)
			last := ""
			for i, r := range tt.requests {
				a := exchangeRaw(t, h.socket("dev"), strings.Replace(r, "MADE", last, 1))
				last = madeIn([]byte(a.body))
				if a.status >= 400 && a.status != http.StatusNotFound {
					t.Fatalf("request %d: got %d %s", i, a.status, a.body)
				}
				eventually(t, "the stream is given back, or over", func() bool {
					h.gate.mu.Lock()
					defer h.gate.mu.Unlock()
					return h.gate.inside == 0
				})
			}
			all := made()
			if len(all) != 1 || all[0].count() != tt.want {
				t.Errorf("%d streams, %d round trips on the first; want one with %d", len(all), all[0].count(), tt.want)
			}
		})
	}
}

// The host answers before the jump server has decided: what that refuses is not
// for the caller, and both logs tell of it by one id.
func TestWhatComesAheadIsNotPassedOnBeforeItIsAllowed(t *testing.T) {
	rule := `  - {name: not-web, effect: deny, principals: [user:dev], actions: [docker.logs, docker.inspect], environments: [test], container-types: [web]}
`
	for _, tt := range []struct {
		path    string
		status  int
		verdict audit.Verdict
		says    string
	}{
		{"/logs?stdout=1", http.StatusForbidden, audit.Deny, "rule not-web"},
		{"/json", http.StatusOK, audit.Allow, `"Tty":false`}, // an outline: he may exec
	} {
		h, _ := twoGates(t, "test")
		h.gate.SetPolicy(mustPolicy(t, testPolicy+rule))
		a := exchangeRaw(t, h.socket("dev"), get("/v1.51/containers/web"+tt.path))
		if a.status != tt.status || !strings.Contains(a.body, tt.says) || strings.Contains(a.body, "PLAIN") {
			t.Errorf("%s: got %d %s", tt.path, a.status, a.body)
		}
		here := h.log.all()
		if len(here) != 1 || here[0].Verdict != tt.verdict || here[0].Resource.Container != webID {
			t.Fatalf("%s: here %+v", tt.path, here)
		}
		if !slices.ContainsFunc(h.hostLog.all(), func(e audit.Event) bool { return e.Far == here[0].ID && e.Verdict == audit.Allow }) {
			t.Errorf("%s: the host's log does not have %s: %+v", tt.path, here[0].ID, h.hostLog.all())
		}
	}
}

// Nothing is passed on that is not on record here.
func TestWhatComesAheadIsNotPassedOnUnrecorded(t *testing.T) {
	h, _ := twoGates(t, "test")
	h.log.broken = errors.New("disk full")
	a := exchangeRaw(t, h.socket("dev"), get("/v1.51/containers/web/json"))
	if a.status != http.StatusServiceUnavailable || strings.Contains(a.body, "PLAIN") {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

// A caller's client must not see what gates tell each other, nor get it by asking.
func TestTheOutlookIsForGates(t *testing.T) {
	h, engine := twoGates(t, "test")
	local := newHarness(t, engine.socket, "test")
	for name, h := range map[string]*harness{"the jump server's": h, "a host's": local} {
		a := exchangeRaw(t, h.socket("dev"), strings.Replace(get("/v1.51/containers/web/json"), "Host: x", "Host: x\r\nX-Jumpsuite-Outlook: 1", 1))
		if a.status != http.StatusOK || a.header.Get(outlookHeader) != "" {
			t.Errorf("%s: got %d %s", name, a.status, a.header)
		}
	}
}

// Where the answer does not say which container it is about, it is asked again.
func TestAGateThatKnowsNoOutlookIsAskedTwice(t *testing.T) {
	asked := []string{}
	old := engineThat(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path)
		if strings.HasPrefix(r.URL.Path, "/v1.51/jumpsuite/") {
			w.Write([]byte(`{"Id":"` + webID + `","Name":"/web","Type":"web"}`))
			return
		}
		w.Write([]byte(`{"Id":"` + webID + `","Name":"/web"}`))
	})
	h := newHarness(t, old, "test", func(g *Gate) { g.FarGate = true })
	a := exchangeRaw(t, h.socket("dev"), get("/v1.51/containers/web/json"))
	want := []string{"/v1.51/containers/web/json", "/v1.51/jumpsuite/containers/web", "/v1.51/containers/" + webID + "/json"}
	if a.status != http.StatusOK || !slices.Equal(asked, want) {
		t.Errorf("got %d %s after %q, want %q", a.status, a.body, asked, want)
	}
}
