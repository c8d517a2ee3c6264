package dockerproxy

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
)

var testRedactor = redactor{secret: func(v string) bool {
	return strings.Contains(v, "PASSW") || strings.Contains(v, "SECRET") || strings.Contains(v, "TOKEN")
}}

const inspectedJSON = `{"Id":"x","Path":"app","Args":["--db-password","hunter2","--token=hunter3","-v","SECRET=hunter4 plain"],"State":{"Running":true},
"Surprise":{"Env":["DB_PASSWORD=hunter5"]},"GraphDriver":{"Name":"overlay2","Data":{"UpperDir":"/var/lib/docker/x"}},
"HostConfig":{"LogConfig":{"Type":"splunk","Config":{"splunk-token":"hunter6","splunk-url":"https://x"}},"Memory":5},
"Config":{"Env":["DB_PASSWORD=hunter7","PLAIN=seen","EMPTY","A_SECRET="],"Cmd":["sh","-c","run --password hunter8; PASSWORD='hunter9 x' go"],
"Entrypoint":null,"Labels":{"app.secret":"hunter10","team":"blue"},"Healthcheck":{"Test":["CMD-SHELL","curl -H TOKEN=hunter11 x"]},"Odd":"hunter12"},"Mounts":[]}`

func TestSecretsAreHiddenWhereverInspectShowsThem(t *testing.T) {
	out, err := testRedactor.container([]byte(inspectedJSON))
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(out) {
		t.Fatalf("no JSON: %s", out)
	}
	for _, secret := range []string{"2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"} {
		if strings.Contains(string(out), "hunter"+secret+`"`) || strings.Contains(string(out), "hunter"+secret+" ") || strings.Contains(string(out), "hunter"+secret+";") {
			t.Errorf("hunter%s is shown: %s", secret, out)
		}
	}
	for _, kept := range []string{"PLAIN=seen", `"EMPTY"`, "blue", "https://x", `"Memory":5`, "plain", `"Running":true`} {
		if !strings.Contains(string(out), kept) {
			t.Errorf("%s is not shown: %s", kept, out)
		}
	}
	if strings.Contains(string(out), "Surprise") || strings.Contains(string(out), "UpperDir") {
		t.Errorf("what is not known is shown: %s", out)
	}
}

func TestWhatIsNotUnderstoodIsNotShown(t *testing.T) {
	for name, raw := range map[string]string{
		"no JSON":            `hunter2`,
		"a list":             `["DB_PASSWORD=hunter2"]`,
		"a key twice":        `{"Config":{},"Config":{"Env":["DB_PASSWORD=hunter2"]}}`,
		"Env as a map":       `{"Config":{"Env":{"DB_PASSWORD":"hunter2"}}}`,
		"Env as a string":    `{"Config":{"Env":"DB_PASSWORD=hunter2"}}`,
		"labels as a list":   `{"Config":{"Labels":["a"]}}`,
		"a Config as a list": `{"Config":[]}`,
	} {
		if out, err := testRedactor.container([]byte(raw)); err == nil {
			t.Errorf("%s: got %s, want nothing", name, out)
		}
	}
}

func TestWhatHoldsNoSecretIsPassedOnByteForByte(t *testing.T) {
	raw := `{"Id":"x","Created":"2026-01-02T03:04:05.123456789Z","Args":[ "a" ,"b"],"SizeRw":12345678901234567890,"Config":{"Env":["A=<b>&"],"Labels":{"z":"1","a":"2"}}}`
	out, err := testRedactor.container([]byte(raw))
	if err != nil || strings.TrimSpace(string(out)) != raw {
		t.Errorf("got %s, %v; want %s", out, err, raw)
	}
}

func TestSecretsAreHiddenBesideTheUsualPlaces(t *testing.T) {
	for name, raw := range map[string]string{
		"an entrypoint":         `{"Path":"DB_PASSWORD=hunter2"}`,
		"why it did not start":  `{"State":{"Error":"exec: \"DB_PASSWORD=hunter2\": executable file not found"}}`,
		"an annotation":         `{"HostConfig":{"Annotations":{"app.db-password":"hunter2"}}}`,
		"a variable with a URL": `{"Config":{"Env":["DATABASE_URL=postgres://app:hunter2@db:5432/app?x=y"]}}`,
		"a URL without a user":  `{"Config":{"Env":["REDIS_URL=redis://:hunter2@cache/0"]}}`,
		"an argument with one":  `{"Args":["-c","run amqps://app:hunter2@mq/"]}`,
		"a label with one":      `{"Config":{"Labels":{"note":"https://bot:hunter2@git.example/x"}}}`,

		"a variable with options":       `{"Config":{"Env":["JAVA_OPTS=-Xmx1g -Ddb.password=hunter2"]}}`,
		"a connection string":           `{"Config":{"Env":["DB=Server=db;User=app;Password=hunter2;"]}}`,
		"a variable with JSON":          `{"Config":{"Env":["CONFIG={\"user\":\"app\",\"password\":\"hunter2\"}"]}}`,
		"JSON with spaces before it":    `{"Config":{"Env":["CONFIG= {\"password\":\"hunter2\"}"]}}`,
		"JSON, deep":                    `{"Config":{"Env":["CONFIG={\"a\":[1,{\"b\":{\"dbPassword\":\"hunter2\"}}]}"]}}`,
		"JSON, a secret that is a list": `{"Config":{"Env":["CONFIG={\"tokens\":[\"hunter2\"]}"]}}`,
		"JSON, an escaped name":         `{"Config":{"Env":["CONFIG={\"pass\\u0077ord\":\"hunter2\"}"]}}`,
		"JSON, a name twice":            `{"Config":{"Env":["CONFIG={\"password\":\"hunter2\",\"password\":\"\"}"]}}`,
		"JSON, a list of variables":     `{"Config":{"Env":["CONFIG=[{\"name\":\"DB_PASSWORD\",\"value\":\"hunter2\"}]"]}}`,
		"JSON in JSON":                  `{"Config":{"Env":["CONFIG={\"a\":\"{\\\"password\\\":\\\"hunter2\\\"}\"}"]}}`,
		"JSON with a URL":               `{"Config":{"Env":["CONFIG={\"db\":\"postgres://app:hunter2@db\"}"]}}`,
		"JSON that was cut off":         `{"Config":{"Env":["CONFIG={\"password\":\"hunter2"]}}`,
		"JSON within a value":           `{"Config":{"Env":["ARGS=run {\"password\": \"hunter2\"}"]}}`,
		"JSON in a label":               `{"Config":{"Labels":{"config":"{\"password\":\"hunter2\"}"}}}`,
		"JSON as an argument":           `{"Args":["--config={\"password\":\"hunter2\"}"]}`,
		"JSON in a shell's line":        `{"Args":["-c","app --config '{\"password\": \"hunter2\"}' x"]}`,
		"JSON, quoted once more":        `{"Args":["-c","app \"{\\\"password\\\":\\\"hunter2\\\"}\""]}`,
		"JSON, a quote in the value":    `{"Args":["-c","app '{\"password\":\"a\\\"hunter2\"}'"]}`,
		"JSON, a number":                `{"Args":["-c","app '{\"password\":1234, \"token\":hunter2}'"]}`,
		"JSON, an object in a line":     `{"Args":["-c","app '{\"secrets\":{\"db\":\"hunter2\"}}'"]}`,
		"a dictionary of Python":        `{"Config":{"Env":["CONFIG={'password': 'hunter2'}"]}}`,
		"YAML":                          `{"Config":{"Env":["CONFIG=user: app\npassword: hunter2\n"]}}`,
		"YAML, on lines below":          `{"Config":{"Env":["CONFIG=password: |\n  hunter2\n"]}}`,
		"YAML, an object below":         `{"Config":{"Env":["CONFIG=secrets:\n  db:\n    a: hunter2\n"]}}`,
		"a header":                      `{"Config":{"Healthcheck":{"Test":["CMD-SHELL","curl -H 'X-Token: Bearer hunter2' x"]}}}`,
	} {
		out, err := testRedactor.container([]byte(raw))
		if err != nil || strings.Contains(string(out), "hunter2") || !strings.Contains(string(out), hidden) {
			t.Errorf("%s: got %s, %v", name, out, err)
		}
	}
	plain := `{"Config":{"Env":["A=http://web:8080/a@b","B=https://me@web/","C=see http://a: b@c","D={\"user\": \"app\", \"list\": [1, null]}",` +
		`"E=registry/token-service:1.2","F=[not json","G=note: x","H={\"a\":","PATH=/bin:/sbin"]}}`
	if out, err := testRedactor.container([]byte(plain)); err != nil || strings.TrimSpace(string(out)) != plain {
		t.Errorf("got %s, %v; want %s", out, err, plain)
	}
}

func TestPsHidesSecretsOfCommandsAndLabels(t *testing.T) {
	out, err := testRedactor.list([]byte(`[{"Id":"x","Command":"app --password=hunter2 TOKEN=hunter3","Labels":{"db.password":"hunter4","a":"b"},"Extra":"hunter5"}]`))
	if err != nil || strings.Contains(string(out), "hunter") || !strings.Contains(string(out), `"a":"b"`) {
		t.Errorf("got %s, %v", out, err)
	}
}

func FuzzRedactedInspectShowsNoSecret(f *testing.F) {
	f.Add(inspectedJSON)
	f.Add(`{"Config":{"Env":["DB_PASSWORD=canary-canary"]}}`)
	f.Add(`{"Config":{"Env":["CONFIG={\"a\":{\"password\":\"x\"}}"]}}`)
	f.Fuzz(func(t *testing.T, raw string) {
		out, err := testRedactor.container([]byte(raw))
		if err != nil {
			return
		}
		var shown struct{ Config container.Config }
		if json.Unmarshal(out, &shown) != nil {
			return
		}
		for _, v := range shown.Config.Env {
			if name, value, ok := strings.Cut(v, "="); ok && testRedactor.secret(name) && value != hidden {
				t.Errorf("%q: %q is shown", raw, v)
			}
		}
	})
}

// Wherever a document stands, and whatever stands beside the secret in it.
func FuzzNoMemberOfADocumentIsShown(f *testing.F) {
	f.Add("a", "b", "user")
	f.Add(`x\`, `"`, "app.db-")
	f.Fuzz(func(t *testing.T, before, after, name string) {
		const secret = "canary-canary"
		doc, err := json.Marshal(map[string]any{before: after, "list": []any{map[string]string{name + "password": secret}}})
		if err != nil {
			t.Skip()
		}
		for _, text := range []string{string(doc), "app '" + string(doc) + "' x", "--config=" + string(doc)} {
			if got := testRedactor.text(text); strings.Contains(got, secret) && !strings.Contains(before+after+name, secret) {
				t.Errorf("%q is shown as %q", text, got)
			}
		}
	})
}

// A caller who may read logs only gets what docker logs needs of an inspect.
func TestAnOutlineIsAllThatLogsNeed(t *testing.T) {
	h := newHarness(t, newFakeEngine(t).socket, "test")
	a := exchangeRaw(t, h.socket("reader"), get("/v1.41/containers/web/json"))
	if a.status != http.StatusOK || !strings.Contains(a.body, webID) || strings.Contains(a.body, "Env") || strings.Contains(a.body, "Args") {
		t.Errorf("got %d %s, want id, state and no configuration", a.status, a.body)
	}
	if a := exchangeRaw(t, h.socket("reader"), get("/v1.41/containers/web/logs?stdout=1")); a.status != http.StatusOK {
		t.Errorf("logs: got %d %s", a.status, a.body)
	}
}

// Who may not list containers does not learn which there are.
func TestExistenceIsNotToldToWhoMayNotList(t *testing.T) {
	h := newHarness(t, newFakeEngine(t).socket, "test")
	for _, path := range []string{"/v1.41/containers/REF/stats", "/v1.41/containers/REF/logs?stdout=1", "/v1.41/containers/REF/json"} {
		there := exchangeRaw(t, h.socket("nobody"), get(strings.Replace(path, "REF", "web", 1)))
		absent := exchangeRaw(t, h.socket("nobody"), get(strings.Replace(path, "REF", "wbe", 1)))
		if there.status != http.StatusNotFound || strings.Replace(there.body, "web", "wbe", 1) != absent.body {
			t.Errorf("%s: got %d %s and %d %s, want the same", path, there.status, there.body, absent.status, absent.body)
		}
	}
}

func TestEscapesAreRecognised(t *testing.T) {
	for _, tt := range []struct{ name, hostConfig, mounts, want string }{
		{"a plain one", `{}`, `[]`, ""},
		{"data of the host", `{"Binds":["/srv/data:/data"]}`, `[{"Type":"bind","Source":"/srv/data"}]`, ""},
		{"the host's time", `{"Binds":["/etc/localtime:/etc/localtime:ro"]}`, `[]`, ""},
		{"privileged", `{"Privileged":true}`, `[]`, "privileged"},
		{"processes", `{"PidMode":"host"}`, `[]`, "process namespace"},
		{"network", `{"NetworkMode":"host"}`, `[]`, "network"},
		{"the socket", `{"Binds":["/var/run/docker.sock:/s:ro"]}`, `[]`, "docker.sock"},
		{"its folder", `{}`, `[{"Type":"bind","Source":"/var/run"}]`, "/var/run"},
		{"above its folder", `{}`, `[{"Type":"bind","Source":"/var"}]`, "/var"},
		{"everything", `{"Binds":["/:/host"]}`, `[]`, "/ of the host"},
		{"our keys and leases", `{"Binds":["/var/lib/jumpsuite:/h:ro"]}`, `[]`, "/var/lib/jumpsuite"},
		{"what is on record of others", `{"Binds":["/var/log:/h:ro"]}`, `[]`, "/var/log"},
		{"a log of the host", `{"Binds":["/var/log/nginx:/h:ro"]}`, `[]`, ""},
		{"the SSM agent's state", `{"Binds":["/var/lib/amazon/ssm:/h"]}`, `[]`, "/var/lib/amazon/ssm"},
		{"what root runs with the next upgrade", `{"Binds":["/var/lib/dpkg/info:/h"]}`, `[]`, "/var/lib/dpkg/info"},
		{"what root runs, to be changed", `{"Binds":["/usr/share:/h"]}`, `[]`, "/usr/share"},
		{"what root runs, to be read", `{"Binds":["/usr/share:/h:ro,rslave"]}`, `[{"Type":"bind","Source":"/usr/share","RW":false}]`, ""},
		{"what every TLS library reads, to be changed", `{}`, `[{"Type":"bind","Source":"/etc/ssl","RW":true}]`, "/etc/ssl"},
		{"whom the host trusts, to be changed", `{}`, `[{"Type":"bind","Source":"/etc/pki/rpm-gpg","RW":true}]`, "/etc/pki/rpm-gpg"},
		{"what the host's time is a link to", `{}`, `[{"Type":"bind","Source":"/usr/share/zoneinfo/Europe/Berlin","RW":true}]`, ""},
		{"the host's authorities, to be changed", `{"Binds":["/etc/ssl/certs:/etc/ssl/certs"]}`, `[]`, "/etc/ssl/certs"},
		{"the same elsewhere", `{}`, `[{"Type":"bind","Source":"/etc/pki/ca-trust/extracted","RW":true}]`, "/etc/pki/ca-trust"},
		{"what ECS puts into others' containers, to be changed", `{}`, `[{"Type":"bind","Source":"/var/lib/ecs/deps/execute-command/bin","RW":true}]`, "/execute-command"},
		{"the same as ECS has it", `{}`, `[{"Type":"bind","Source":"/var/lib/ecs/deps/execute-command/bin/3.1.1732.0/amazon-ssm-agent","RW":false}]`, ""},
		{"certificates", `{"Binds":["/etc/ssl/certs:/etc/ssl/certs:ro"]}`, `[{"Type":"bind","Source":"/etc/ssl/certs","RW":false}]`, ""},
		{"with dots", `{"Binds":["/srv/../etc:/host"]}`, `[]`, "/etc"},
		{"a capability", `{"CapAdd":["cap_sys_admin"]}`, `[]`, "SYS_ADMIN"},
		{"no seccomp", `{"SecurityOpt":["seccomp:unconfined"]}`, `[]`, "confinement"},
		{"a device", `{"Devices":[{"PathOnHost":"/dev/sda"}]}`, `[]`, "devices"},
		{"unmasked", `{"MaskedPaths":[]}`, `[]`, "masked"},
		{"a driver's options", `{"Mounts":[{"Type":"volume","VolumeOptions":{"DriverConfig":{"Options":{"o":"bind"}}}}]}`, `[]`, "options of the driver"},
	} {
		var c target
		if err := json.Unmarshal([]byte(`{"HostConfig":`+tt.hostConfig+`,"Mounts":`+tt.mounts+`}`), &c.inspected); err != nil {
			t.Fatal(err)
		}
		got := strings.Join(c.escapes(), "; ")
		if (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestWhoeverSharesAnEscapesNamespaceIsOne(t *testing.T) {
	for _, mode := range []string{"NetworkMode", "PidMode", "IpcMode"} {
		h := newHarness(t, engineThat(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Api-Version", "1.51")
			switch {
			case strings.HasSuffix(r.URL.Path, "/exec"):
				t.Error("an exec was made")
			case asksFor(r, "web", webID):
				fmt.Fprintf(w, `{"Id":%q,"Name":"/web","State":{"Running":true},"HostConfig":{%q:"container:%s"}}`, webID, mode, privID)
			case strings.Contains(r.URL.Path, privID):
				fmt.Fprintf(w, `{"Id":%q,"Name":"/priv","State":{"Running":true},"HostConfig":{"NetworkMode":"host"}}`, privID)
			case strings.HasSuffix(r.URL.Path, "/containers/json"):
				io.WriteString(w, "[]")
			}
		}), "test")
		a := exchangeRaw(t, h.socket("dev"), post("/v1.41/containers/web/exec", `{"AttachStdout":true,"Cmd":["id"]}`))
		if a.status != http.StatusForbidden || !strings.Contains(a.body, "it shares a namespace with priv, which is an escape") {
			t.Errorf("%s: got %d %s, want 403", mode, a.status, a.body)
		}
	}
}

// Who writes the arguments of a container does not decide how long it takes to look at them.
func TestEachPartOfATextIsLookedAtOnce(t *testing.T) {
	const n = 500
	for _, part := range []string{"a:b=", "a=b:", "a=", "--a=b,", "'a=b' "} {
		looks := 0
		r := redactor{secret: func(v string) bool { looks++; return testRedactor.secret(v) }}
		text := strings.Repeat(part, n)
		if got := r.text(text + "PASSWORD=x"); got != text+"PASSWORD="+hidden {
			t.Errorf("%q: got %.100q", part, got)
		}
		if looks > 3*n {
			t.Errorf("%d times %q: looked at %d names", n, part, looks)
		}
	}
}
