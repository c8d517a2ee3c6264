package dockerproxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"jumpsuite/internal/audit"
	"jumpsuite/internal/lab/dockerd"
)

// hostEngine is an Engine whose processes are in our PID namespace, as on a
// docker host; its network is its own.
func hostEngine(t *testing.T) string {
	if os.Getenv("R3_TEST_ENGINE") != "" {
		return needEngine(t)
	}
	if testing.Short() {
		t.Skip("a Docker Engine is not started with -short")
	}
	if err := dockerd.Available(); err != nil {
		t.Skipf("no Docker Engine: %v", err)
	}
	dir, err := os.MkdirTemp("", "engine") // short: sockets are below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	cmd := exec.Command("unshare", "-n", "sh", "-c", `ip link set lo up; exec dockerd --data-root "$0/d" --exec-root "$0/e" --pidfile "$0/p" -H "unix://$0/s"`, dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Skipf("no Docker Engine: %v", err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	eventually(t, "the Engine answers", func() bool { return len(rawAsk(socket, get("/_ping"))) > 0 })
	if err := importImages(socket); err != nil {
		t.Fatal(err)
	}
	return socket
}

// execRuns reports whether the newest exec of a container runs.
func execRuns(t *testing.T, h *harness, engine string) bool {
	t.Helper()
	h.gate.mu.Lock()
	var ids []string
	for id := range h.gate.execs {
		ids = append(ids, id)
	}
	h.gate.mu.Unlock()
	for _, id := range ids {
		var s execState
		if json.Unmarshal(rawAsk(engine, get("/v1.41/exec/"+id+"/json")), &s) == nil && s.Running {
			return true
		}
	}
	return false
}

func TestAnExecsProcessEndsWithItsClient(t *testing.T) {
	engine := hostEngine(t)
	for _, tt := range []struct {
		name  string
		exec  string
		start string
		want  string // the signal that ended it
	}{
		{"piped", `{"AttachStdin":true,"AttachStdout":true,"Cmd":["sleep","1000"]}`, `{"Detach":false,"Tty":false}`, "TERM"},
		{"on a terminal", `{"AttachStdin":true,"AttachStdout":true,"Tty":true,"Cmd":["sleep","1000"]}`, `{"Detach":false,"Tty":true}`, "HUP"},
		{"deaf to TERM", `{"AttachStdout":true,"Cmd":["sh","-c","trap '' TERM; echo deaf; sleep 1000; sleep 1000"]}`, `{"Detach":false,"Tty":false}`, "KILL"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHarness(t, engine, "test", func(g *Gate) { g.Processes = true })
			makeContainer(t, engine, "web", sleeper(nil), true)
			conn, br := startExec(t, h, "dev", tt.exec, tt.start)
			eventually(t, "it runs", func() bool { return execRuns(t, h, engine) })
			if tt.want == "KILL" {
				if line, err := br.ReadString('\n'); err != nil || !strings.Contains(line, "deaf") {
					t.Fatalf("got %q, %v; want that the trap is set", line, err)
				}
			}
			conn.Close()
			eventually(t, "it ends", func() bool { return !execRuns(t, h, engine) })
			eventually(t, "the end is on record", func() bool {
				return slices.ContainsFunc(h.atEngineLog().all(), func(e audit.Event) bool {
					return e.Kind == audit.Close && e.Result.Signal == tt.want && e.Result.Error == errClientGone.Error()
				})
			})
		})
	}
}

// A client that ends its input, and waits, is not lost.
func TestAClientThatOnlyEndsItsInputIsNotLost(t *testing.T) {
	engine := hostEngine(t)
	h := newHarness(t, engine, "test", func(g *Gate) { g.Processes = true })
	makeContainer(t, engine, "web", sleeper(nil), true)
	conn, br := startExec(t, h, "dev", `{"AttachStdin":true,"AttachStdout":true,"Cmd":["sh","-c","sleep 1; echo done"]}`, `{"Detach":false,"Tty":false}`)
	conn.CloseWrite()
	line, err := br.ReadString('\n')
	if err != nil || !strings.Contains(line, "done") {
		t.Errorf("got %q, %v; want its output", line, err)
	}
}

// Where the Engine's processes are out of sight, what is left running is said.
func TestAnOrphanIsOnRecord(t *testing.T) {
	engine := needEngine(t) // in a PID namespace of its own
	if os.Getenv("R3_TEST_ENGINE") != "" {
		t.Skip("R3_TEST_ENGINE may be in our PID namespace")
	}
	h := newHarness(t, engine, "test", func(g *Gate) { g.Processes = true })
	makeContainer(t, engine, "web", sleeper(nil), true)
	conn, _ := startExec(t, h, "dev", `{"AttachStdout":true,"Cmd":["sleep","1000"]}`, `{"Detach":false,"Tty":false}`)
	eventually(t, "it runs", func() bool { return execRuns(t, h, engine) })
	conn.Close()
	eventually(t, "the orphan is on record", func() bool {
		return slices.ContainsFunc(h.atEngineLog().all(), func(e audit.Event) bool {
			return e.Kind == audit.Change && strings.HasPrefix(e.Detail, "orphan:")
		})
	})
	if !execRuns(t, h, engine) {
		t.Error("something was signalled that cannot have been it")
	}
}

// The control: without the gate the process stays.
func TestAnExecsProcessOutlivesItsClientWithoutTheGate(t *testing.T) {
	engine := needEngine(t)
	makeContainer(t, engine, "web", sleeper(nil), true)
	a := exchangeRaw(t, engine, post("/v1.41/containers/web/exec", `{"AttachStdout":true,"Cmd":["sleep","1000"]}`))
	var made struct{ ID string }
	if a.status != http.StatusCreated || json.Unmarshal([]byte(a.body), &made) != nil {
		t.Fatal(a)
	}
	conn, _ := dialStream(t, engine, post(fmt.Sprintf("/v1.41/exec/%s/start", made.ID), `{"Detach":false,"Tty":false}`, upgradeTCP, "Content-Type: application/json"), http.StatusSwitchingProtocols)
	conn.Close()
	time.Sleep(300 * time.Millisecond)
	var s execState
	if err := json.Unmarshal(rawAsk(engine, get("/v1.41/exec/"+made.ID+"/json")), &s); err != nil || !s.Running {
		t.Errorf("got %+v, %v: the Engine ended it by itself", s, err)
	}
}
