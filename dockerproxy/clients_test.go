package dockerproxy

import (
	"net/http"
	"os/exec"
	"strings"
	"testing"
)

// What other clients than docker's own send. Docker's library for Python
// (5.0.3) was run through the gate; this is what it sends that the CLI does not.
func TestOtherClientsAreUnderstood(t *testing.T) {
	fake := newFakeEngine(t)
	h := newHarness(t, fake.socket, "test")
	if a := exchangeRaw(t, h.socket("dev"), create(`{"Image":"lab/web:1","Cmd":["true"]}`)); a.status != http.StatusCreated {
		t.Fatalf("create: %d %s", a.status, a.body)
	}
	for _, tt := range []struct {
		raw  string
		want int
		asks string // of the Engine
	}{
		{get("/v1.41/containers/json?limit=-1&all=0&size=0&trunc_cmd=0"), 200, "GET /v1.51/containers/json?all=0&limit=-1&size=0"},
		{get("/v1.41/images/json?only_ids=0&all=0"), 200, "GET /v1.51/images/json"},
		{get("/v1.41/images/json?only_ids=1"), 400, ""},
		{post("/v1.41/containers/web/exec", `{"Container":"web","User":"","Privileged":false,"Tty":false,"AttachStdin":false,"AttachStdout":true,"AttachStderr":true,"Cmd":["id"]}`), 201, `POST /v1.51/containers/` + webID + `/exec {"User":"",`},
		{"DELETE /v1.41/containers/" + newID + "?v=False&link=False&force=True HTTP/1.1\r\nHost: x\r\n\r\n", 200, "DELETE /v1.51/containers/" + newID + "?force=1&v=0"},
		{"DELETE /v1.41/containers/" + newID + "?link=True HTTP/1.1\r\nHost: x\r\n\r\n", 400, ""},
	} {
		before := len(fake.requests())
		a := exchangeRaw(t, h.socket("dev"), tt.raw)
		asked := strings.Join(fake.requests()[before:], "\n")
		if a.status != tt.want || !strings.Contains(asked, tt.asks) || strings.Contains(asked, `"Container"`) {
			t.Errorf("%.70q: got %d %s, the Engine was asked %s; want %d, %q", tt.raw, a.status, a.body, asked, tt.want, tt.asks)
		}
	}
}

// Why an upgrade is refused is in the body of the answer. Docker's CLI reads no more
// than its status (docker/client, hijack.go); its library for Python shows it all.
func TestWhyAnUpgradeIsRefusedIsThereForWhoReadsIt(t *testing.T) {
	h := newHarness(t, newFakeEngine(t).socket, "test")
	const why = "attach is for containers that you made or started here"
	t.Run("a socket", func(t *testing.T) {
		a := exchangeRaw(t, h.socket("dev"), post("/v1.41/containers/web/attach?stream=1&stdout=1", "", upgradeTCP))
		if a.status != http.StatusForbidden || !strings.Contains(a.body, why) || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("got %d %v %q, want 403, JSON and the reason", a.status, a.header, a.body)
		}
	})
	t.Run("docker", func(t *testing.T) {
		for _, cli := range dockerCLIs(t) {
			d := docker{t: t, path: cli, socket: h.socket("dev"), home: t.TempDir()}
			d.expect("", "unable to upgrade to tcp, received 403", 1, "attach", "--no-stdin", "web")
		}
	})
	t.Run("Python", func(t *testing.T) {
		if err := exec.Command("python3", "-c", "import docker").Run(); err != nil {
			t.Skip("no library of docker's for Python (python3-docker)")
		}
		script := `import docker, sys
docker.APIClient(base_url="unix://" + sys.argv[1], version="1.41").attach_socket("web")`
		out, err := exec.CommandContext(t.Context(), "python3", "-c", script, h.socket("dev")).CombinedOutput()
		if err == nil || !strings.Contains(string(out), why) {
			t.Errorf("got %v, %s, want the reason", err, out)
		}
	})
}
