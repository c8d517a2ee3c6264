package dockerproxy

import (
	"net/http"
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
