package dockerproxy

import (
	"strings"
	"testing"

	"jumpsuite/internal/audit"
)

// Whatever is allowed leaves a line, pings aside: an operation that is added and
// leaves none is found here.
func TestEveryAllowedRequestIsOnRecord(t *testing.T) {
	h := newHarness(t, newFakeEngine(t).socket, "test")
	send := func(raw string) {
		t.Helper()
		if a := exchangeRaw(t, h.socket("dev"), raw); a.status >= 400 {
			t.Errorf("%.60q: got %d %s", raw, a.status, a.body)
		}
	}
	const made = "/v1.41/containers/" + newID
	for _, raw := range []string{
		get("/v1.41/version"), get("/v1.41/info"), get("/v1.41/events"), get("/v1.41/containers/json"), get("/v1.41/containers/web/json"),
		get("/v1.41/containers/web/logs?stdout=1"), get("/v1.41/containers/web/stats?stream=0"), get("/v1.41/images/json"), get("/v1.41/images/lab/web:1/json"),
		post("/v1.41/images/create?fromImage=lab/web&tag=1", ""), create(`{"Image":"lab/web:1","Cmd":["true"]}`),
		post(made+"/attach?stream=1&stdout=1", "", upgradeTCP), post(made+"/wait?condition=next-exit", ""), post(made+"/start", ""),
		post(made+"/resize?h=10&w=20", ""), post(made+"/kill?signal=TERM", ""), post(made+"/stop", ""),
		"DELETE " + made + " HTTP/1.1\r\nHost: x\r\n\r\n",
		post("/v1.41/containers/web/exec", `{"AttachStdout":true,"Cmd":["id"]}`),
		post("/v1.41/exec/"+execID+"/start", `{"Detach":false,"Tty":false}`, upgradeTCP, "Content-Type: application/json"),
		post("/v1.41/exec/"+execID+"/resize?h=10&w=20", ""), get("/v1.41/exec/" + execID + "/json"),
	} {
		send(raw)
	}
	seen := map[string]audit.Event{}
	for _, e := range h.log.all() {
		if e.Decides() && bool(e.Verdict) {
			name, _, _ := strings.Cut(e.Detail, " 20x10")
			seen[strings.TrimSuffix(name, " TERM")] = e
		}
	}
	for _, op := range operations {
		switch {
		case op.name == "ping", op.name == "inspect network", op.name == "inspect volume", op.name == "inspect plugin":
			continue // nothing is decided
		case strings.HasPrefix(op.pattern, "jumpsuite/"):
			continue // what gates ask each other before they decide
		}
		if _, ok := seen[op.name]; !ok {
			t.Errorf("%s was allowed and is not on record; there is: %v", op.name, keysIn(seen))
		}
	}
	for _, name := range []string{"wait", "resize", "exec resize", "exec inspect"} {
		if !seen[name].Follows {
			t.Errorf("%s would wait for the disk", name)
		}
	}
}

func keysIn(m map[string]audit.Event) (names []string) {
	for k := range m {
		names = append(names, k)
	}
	return names
}

func TestAWaitsCloseHasTheContainersExitCode(t *testing.T) {
	engine := needEngine(t)
	h := newHarness(t, engine, "test")
	for _, cli := range dockerCLIs(t)[:1] {
		d := docker{t, cli, h.socket("dev"), t.TempDir()}
		d.expect("", "", 7, "run", "--rm", "lab/web:1", "sh", "-c", "exit 7")
	}
	eventually(t, "the code is on record", func() bool {
		for _, e := range h.log.all() {
			if e.Kind == audit.Close && e.Detail == "wait" && e.Result.Exit == 7 && e.Result.Error == "" {
				return true
			}
		}
		return false
	})
}
