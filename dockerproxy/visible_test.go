package dockerproxy

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func TestWhatDrivesATerminalIsTakenOut(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"plain", `{"a":"b c"}`, `{"a":"b c"}`},
		{"escape", `{"a":"\u001b[2J\u001B]0;x\u0007"}`, `{"a":"?[2J?]0;x?"}`},
		{"short escapes", `{"a":"1\b2\f3\r4"}`, `{"a":"1?2?3?4"}`},
		{"lines and tabs", `{"a":"1\n2\t3\r\n4\u000a5"}`, `{"a":"1\n2\t3\r\n4\u000a5"}`},
		{"quotes and backslashes", `{"a":"\\u001b \"\\\\\u001b"}`, `{"a":"\\u001b \"\\\\?"}`},
		{"DEL and C1", "{\"a\":\"\u007f\u009b2J\\u009b\"}", `{"a":"??2J?"}`},
		{"marks of direction", "{\"a\":\"\u202egnp\u2066.exe\\u200f\"}", `{"a":"?gnp?.exe?"}`},
		{"letters", `{"a":"Größe “x” € 中 \u00e9"}`, `{"a":"Größe “x” € 中 \u00e9"}`},
		{"an end that is cut", `"\u00`, `"\u00`},
	} {
		if got := string(visible([]byte(tt.in))); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

func FuzzVisible(f *testing.F) {
	f.Add(`a\u001b"`)
	f.Add("\u202e\x7f\\")
	f.Fuzz(func(t *testing.T, s string) {
		in, err := json.Marshal(map[string]string{"k": s})
		if err != nil {
			t.Skip()
		}
		var out map[string]string
		if err := json.Unmarshal(visible(in), &out); err != nil {
			t.Fatalf("%q became no JSON: %v", s, err)
		}
		if strings.ContainsFunc(strings.ReplaceAll(out["k"], "\r\n", ""), drives) {
			t.Errorf("%q became %q", s, out["k"])
		}
	})
}

// On a real Engine: what others have put into labels and variables reaches no
// terminal, and what is not shown cannot be guessed.
func TestLabelsDriveNoTerminalAndTellNoSecret(t *testing.T) {
	engine := needEngine(t)
	h := newHarness(t, engine, "test")
	makeContainer(t, engine, "odd", sleeper(map[string]any{
		"Labels": map[string]string{ecsFamilyLabel: "web", "note": "\x1b]0;owned\x07", "db_password": "hunter2", "dsn.note": "password=hunter2"},
		"Env":    []string{"NOTE=\x1b[2J\u009b2J"},
		"Cmd":    []string{"sh", "-c", "sleep 1000 # \x1b[2J"},
	}), true)
	for _, path := range []string{"/v1.41/containers/json", "/v1.41/containers/odd/json"} {
		a := exchangeRaw(t, h.socket("dev"), get(path))
		if a.status != http.StatusOK || !strings.Contains(a.body, "owned") || strings.Contains(strings.ToLower(a.body), `\u001b`) || strings.Contains(a.body, "\u009b") || strings.Contains(a.body, "hunter2") {
			t.Errorf("%s: got %d %s", path, a.status, a.body)
		}
		if direct := exchangeRaw(t, engine, get(path)); !strings.Contains(strings.ToLower(direct.body), `\u001b`) {
			t.Errorf("%s: the Engine itself takes it out: %s", path, direct.body)
		}
	}
	for _, tt := range []struct {
		path, filter string
		want         int
	}{
		{"containers", "db_password=hunter2", 403}, {"containers", "db_password=wrong", 403}, {"containers", "dsn.note=password=hunter2", 403},
		{"containers", "db_password", 200}, {"containers", "note=x", 200}, {"images", "api_token=x", 403}, {"images", "maintainer=x", 200},
	} {
		path := "/v1.41/" + tt.path + "/json?filters=" + url.QueryEscape(`{"label":{"`+tt.filter+`":true}}`)
		if a := exchangeRaw(t, h.socket("dev"), get(path)); a.status != tt.want {
			t.Errorf("%s: got %d %s, want %d", tt.filter, a.status, a.body, tt.want)
		}
	}
}
