package dockerproxy

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Controls of attacks that are no single request: what an Engine does without the gate.

// answersTo are the answers to what is sent in one piece, as long as they come.
func answersTo(t *testing.T, socket, raw string, most int) (all []answered) {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(conn, raw)
	br := bufio.NewReader(conn)
	for len(all) < most {
		a := readAnswer(br)
		if a.err != nil {
			break
		}
		all = append(all, a)
	}
	return all
}

// See TestARequestBehindAnUpgradeReachesNoEngine.
func TestARequestBehindAnUpgradeIsServedWithoutTheGate(t *testing.T) {
	engine := needEngine(t)
	makeContainer(t, engine, "smuggled", sleeper(nil), true)
	a := exchangeRaw(t, engine, post("/v1.41/containers/smuggled/exec", `{"Cmd":["true"]}`))
	var made struct{ ID string }
	if err := json.Unmarshal([]byte(a.body), &made); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	got := answersTo(t, engine, post("/v1.41/exec/"+made.ID+"/start", `{"Detach":true}`, upgradeTCP, "Content-Type: application/json")+get("/version"), 2)
	if len(got) != 2 || got[0].status != http.StatusOK || !strings.Contains(got[1].body, "ApiVersion") {
		t.Errorf("got %+v, want 200 and the Engine's version: is this no attack on this Engine?", got)
	}
}

// See TestEachPipelinedRequestIsJudged.
func TestWhatIsPipelinedIsServedWithoutTheGate(t *testing.T) {
	got := answersTo(t, needEngine(t), get("/_ping")+get("/v1.41/containers/nosuch/export")+get("/v1.41/containers/json"), 3)
	if len(got) != 3 || got[2].status != http.StatusOK {
		t.Errorf("got %+v, want three answers, the last 200", got)
	}
}

// See TestAnExecIsItsCreatorsAlone: an exec's id names no container and no creator.
func TestAnExecIsAnybodysWithoutTheGate(t *testing.T) {
	engine := needEngine(t)
	makeContainer(t, engine, "foreign", sleeper(nil), true)
	a := exchangeRaw(t, engine, post("/v1.41/containers/foreign/exec", `{"AttachStdout":true,"Cmd":["id"]}`))
	var made struct{ ID string }
	if err := json.Unmarshal([]byte(a.body), &made); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	if a := exchangeRaw(t, engine, post("/v1.41/exec/"+made.ID+"/start", `{"Detach":false}`)); a.status != http.StatusOK {
		t.Errorf("start on another connection: got %d %s, want 200", a.status, a.body)
	}
}

// rootsFolder makes a folder that is root's alone, as everything above it.
func rootsFolder(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root, whose folders this is about")
	}
	dir, err := os.MkdirTemp("/var/lib", "jumpsuite-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A path that the policy lists may be a link, or be made one.
func TestAListedPathIsWhatItLooksLike(t *testing.T) {
	dir := rootsFolder(t)
	for name, make := range map[string]func(path string) error{
		"plain":    func(p string) error { return os.MkdirAll(p+"/data", 0o755) },
		"link":     func(p string) error { return os.Symlink("/etc", p) },
		"writable": func(p string) error { return os.Mkdir(p, 0o777) },
		"another":  func(p string) error { return os.Mkdir(p, 0o755) },
	} {
		if err := make(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir+"/writable", 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir+"/another", 1001, 1001); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir+"/writable/data", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir+"/another/data", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, path, want string }{
		{"a folder of root's", "plain/data", ""},
		{"a link", "link", "too many levels of symbolic links"},
		{"through a link", "link/ssl", "too many levels of symbolic links"},
		{"in a folder that all may write to", "writable/data", "writable is not root's alone to change"},
		{"in a folder of another's", "another/data", "another is not root's alone to change"},
		{"nothing", "nosuch", "no such file or directory"},
	} {
		got := ""
		if err := checkBind(filepath.Join(dir, tt.path)); err != nil {
			got = err.Error()
		}
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// The control: an Engine follows links.
func TestALinkIsFollowedWithoutTheGate(t *testing.T) {
	engine, dir := needEngine(t), rootsFolder(t)
	if err := os.Symlink("/etc", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	config := sleeper(map[string]any{"HostConfig": map[string]any{"Binds": []string{dir + "/link:/h:ro"}}})
	makeContainer(t, engine, "linked", config, true)
	if a := exchangeRaw(t, engine, "HEAD /v1.41/containers/linked/archive?path=/h/passwd HTTP/1.1\r\nHost: x\r\n\r\n"); a.status != http.StatusOK {
		t.Errorf("the host's /etc is not in the container: %d: is this no attack on this Engine?", a.status)
	}
}
