package dockerproxy

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"jumpsuite/internal/audit"
)

func TestLeasesAreKeptWhereOnlyWeCanWrite(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{open, filepath.Join(dir, "link")} {
		if _, err := OpenLeases(bad); err == nil || !strings.Contains(err.Error(), "has to be ours") {
			t.Errorf("%s: got %v, want a refusal", bad, err)
		}
	}
}

func TestALeaseIsFoundByAnotherGate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "leases")
	first, err := OpenLeases(dir)
	if err != nil {
		t.Fatal(err)
	}
	who := owner{UID: 1001, User: "dev"}
	le := newLease(leaseMade, who, "event", time.Hour)
	if err := first.write(le.Number, le); err != nil {
		t.Fatal(err)
	}
	second, err := OpenLeases(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := &inspected{ID: newID}
	c.Config.Labels = map[string]string{leaseLabel: le.Number}
	got, err := second.of(c)
	if err != nil || got == nil || got.Owner != who || got.Container != newID {
		t.Fatalf("got %+v, %v; want dev's, bound to the container", got, err)
	}
	other := &inspected{ID: webID}
	other.Config.Labels = c.Config.Labels // a copied label is no lease
	if got, err := second.of(other); got != nil || err != nil {
		t.Errorf("a second container with the same label: got %+v, %v; want none", got, err)
	}
}

func TestALabelAloneMakesNobodyAnOwner(t *testing.T) {
	engine := needEngine(t)
	h := newHarness(t, engine, "test")
	makeContainer(t, engine, "forged", sleeper(map[string]any{"Labels": map[string]string{
		ownerLabel: "dev", leaseLabel: strings.Repeat("0", 64), ecsFamilyLabel: "web"}}), true)
	for _, raw := range []string{
		post("/v1.41/containers/forged/kill?signal=KILL", ""),
		post("/v1.41/containers/forged/attach?stream=1&stdin=1", "", upgradeTCP),
		post("/v1.41/containers/forged/wait", ""),
		"DELETE /v1.41/containers/forged?force=1 HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		if a := exchangeRaw(t, h.socket("dev"), raw); a.status != http.StatusForbidden {
			t.Errorf("%.60q: got %d %s, want 403", raw, a.status, a.body)
		}
	}
}

// Starting what runs already must not make it one's own.
func TestAStartOfWhatRunsLeasesNothing(t *testing.T) {
	engine := needEngine(t)
	h := newHarness(t, engine, "test")
	makeContainer(t, engine, "busy", sleeper(nil), true)
	if a := exchangeRaw(t, h.socket("dev"), post("/v1.41/containers/busy/start", "")); a.status != http.StatusNotModified {
		t.Errorf("start: got %d %s, want 304", a.status, a.body)
	}
	if a := exchangeRaw(t, h.socket("dev"), post("/v1.41/containers/busy/stop?t=1", "")); a.status != http.StatusForbidden {
		t.Errorf("stop: got %d %s, want 403", a.status, a.body)
	}
}

func TestWhoAttachesToStartKeepsOthersOut(t *testing.T) {
	engine := needEngine(t)
	h := newHarness(t, engine, "test")
	id := makeContainer(t, engine, "shared", sleeper(map[string]any{"OpenStdin": true}), false)
	dialStream(t, h.socket("dev"), post("/v1.41/containers/shared/attach?stream=1&stdout=1", "", upgradeTCP), http.StatusSwitchingProtocols)
	if a := exchangeRaw(t, h.socket("other"), post("/v1.41/containers/shared/start", "")); a.status != http.StatusConflict {
		t.Errorf("another's start: got %d %s, want 409", a.status, a.body)
	}
	if running(engine, id) {
		t.Fatal("it runs")
	}
	if a := exchangeRaw(t, h.socket("dev"), post("/v1.41/containers/shared/start", "")); a.status != http.StatusNoContent {
		t.Errorf("the start of who attached: got %d %s, want 204", a.status, a.body)
	}
}

func TestOneCallerMayHaveOnlySoManyContainers(t *testing.T) {
	engine := needEngine(t)
	h := newHarness(t, engine, "test")
	h.setPolicy(strings.Replace(testPolicy, "containers: 20", "containers: 2", 1))
	makeContainer(t, engine, "ecs1", sleeper(nil), false)
	var made []string
	t.Cleanup(func() {
		for _, id := range made {
			exchangeRaw(t, engine, "DELETE /v1.41/containers/"+id+"?force=1 HTTP/1.1\r\nHost: x\r\n\r\n")
		}
	})
	for range 2 {
		a := exchangeRaw(t, h.socket("dev"), create(`{"Image":"lab/web:1","Cmd":["sleep","1000"]}`))
		var c struct{ ID string }
		if a.status != http.StatusCreated || json.Unmarshal([]byte(a.body), &c) != nil {
			t.Fatalf("create: %d %s", a.status, a.body)
		}
		made = append(made, c.ID)
	}
	for _, raw := range []string{create(`{"Image":"lab/web:1","Cmd":["sleep","1000"]}`), post("/v1.41/containers/ecs1/start", "")} {
		if a := exchangeRaw(t, h.socket("dev"), raw); a.status != http.StatusTooManyRequests || !strings.Contains(a.body, "limits.run.containers") {
			t.Errorf("%.60q: got %d %s, want 429", raw, a.status, a.body)
		}
	}
	exchangeRaw(t, engine, "DELETE /v1.41/containers/"+made[0]+"?force=1 HTTP/1.1\r\nHost: x\r\n\r\n")
	if a := exchangeRaw(t, h.socket("dev"), post("/v1.41/containers/ecs1/start", "")); a.status != http.StatusNoContent {
		t.Errorf("after one is gone: got %d %s, want 204", a.status, a.body)
	}
}

// expire ends the time of a container's lease.
func expire(t *testing.T, l *Leases, id string) {
	t.Helper()
	le, err := l.read(id)
	if err != nil || le == nil {
		t.Fatalf("lease of %s: %+v, %v", id, le, err)
	}
	le.Until = time.Now().Add(-time.Minute)
	if err := l.write(id, le); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsLeftBehindIsReaped(t *testing.T) {
	engine := needEngine(t)
	h := newHarness(t, engine, "test")
	exists := func(id string) bool {
		return exchangeRaw(t, engine, get("/v1.41/containers/"+id+"/json")).status == http.StatusOK
	}
	createOne := func() string {
		a := exchangeRaw(t, h.socket("dev"), create(`{"Image":"lab/web:1","Cmd":["sleep","1000"]}`))
		var c struct{ ID string }
		if a.status != http.StatusCreated || json.Unmarshal([]byte(a.body), &c) != nil {
			t.Fatalf("create: %d %s", a.status, a.body)
		}
		t.Cleanup(func() {
			exchangeRaw(t, engine, "DELETE /v1.41/containers/"+c.ID+"?force=1 HTTP/1.1\r\nHost: x\r\n\r\n")
		})
		return c.ID
	}
	start := func(id string) {
		if a := exchangeRaw(t, h.socket("dev"), post("/v1.41/containers/"+id+"/start", "")); a.status != http.StatusNoContent {
			t.Fatalf("start: %d %s", a.status, a.body)
		}
	}
	madeOver, madeStill := createOne(), createOne()
	start(madeOver)
	startedOver := makeContainer(t, engine, "over", sleeper(nil), false)
	startedStill := makeContainer(t, engine, "still", sleeper(nil), false)
	restarted := makeContainer(t, engine, "restarted", sleeper(nil), false)
	for _, id := range []string{startedOver, startedStill, restarted} {
		start(id)
	}
	rawPost(engine, "/v1.41/containers/"+restarted+"/restart?t=0") // by somebody else
	for _, id := range []string{madeOver, startedOver, restarted} {
		expire(t, h.atEngine().Leases, id)
	}
	if err := h.atEngine().ReapOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		what      string
		got, want bool
	}{
		{"made, time over: there", exists(madeOver), false},
		{"made, time left: there", exists(madeStill), true},
		{"started, time over: there", exists(startedOver), true},
		{"started, time over: running", running(engine, startedOver), false},
		{"started, time left: running", running(engine, startedStill), true},
		{"started again by another: running", running(engine, restarted), true},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.what, tt.got, tt.want)
		}
	}
	reaped := 0
	for _, e := range h.atEngineLog().all() {
		if e.Principal.Name == reaper && e.Kind == audit.Close {
			reaped++
		}
	}
	if reaped != 2 {
		t.Errorf("got %d closed events of the reaper, want 2", reaped)
	}
	left, err := h.atEngine().Leases.all()
	if err != nil || len(left) != 2 {
		t.Errorf("got %d leases, %v; want the two with time left", len(left), err)
	}
}

// A gate that was killed between asking for a container and writing its id down
// leaves a lease under its number, and a container that nobody knows.
func TestAContainerWhoseMakingWasInterruptedIsReaped(t *testing.T) {
	engine := needEngine(t)
	h := newHarness(t, engine, "test")
	le := newLease(leaseMade, owner{UID: 1001, User: "dev"}, "event", time.Hour)
	le.Since, le.Until = time.Now().Add(-time.Hour), time.Now().Add(-time.Minute)
	if err := h.atEngine().Leases.write(le.Number, le); err != nil {
		t.Fatal(err)
	}
	id := makeContainer(t, engine, "orphan", sleeper(map[string]any{"Labels": map[string]string{leaseLabel: le.Number}}), true)
	for range 2 { // found the first time, removed the second
		if err := h.atEngine().ReapOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if a := exchangeRaw(t, engine, get("/v1.41/containers/"+id+"/json")); a.status != http.StatusNotFound {
		t.Errorf("got %d, want it gone", a.status)
	}
}
