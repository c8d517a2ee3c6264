package dockerproxy

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// fakeEngine answers as an Engine would and keeps what it was asked.
type fakeEngine struct {
	socket string
	mu     sync.Mutex
	asked  []string // METHOD PATH?QUERY BODY
}

const (
	webID  = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	privID = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	stopID = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
	newID  = "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"
	seerID = "5555555555555555555555555555555555555555555555555555555555555555"
	execID = "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"

	sleepID = "5555555555555555555555555555555555555555555555555555555555555555" // of an exec of sleep
)

var imgID = "sha256:" + strings.Repeat("f", 64)

func newFakeEngine(t testing.TB) *fakeEngine {
	t.Helper()
	f := &fakeEngine{socket: filepath.Join(t.TempDir(), "engine.sock")}
	l, err := net.Listen("unix", f.socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: f}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return f
}

func (f *fakeEngine) requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.asked...)
}

// changes are the requests that are more than a look.
func (f *fakeEngine) changes() []string {
	var out []string
	for _, r := range f.requests() {
		if !strings.HasPrefix(r, "GET ") && !strings.HasPrefix(r, "HEAD ") {
			out = append(out, r)
		}
	}
	return out
}

func (f *fakeEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	f.mu.Lock()
	f.asked = append(f.asked, strings.TrimSpace(r.Method+" "+r.RequestURI+" "+string(body)))
	f.mu.Unlock()
	w.Header().Set("Api-Version", "1.51")
	path := strings.TrimPrefix(r.URL.Path, "/v1.51")
	switch {
	case path == "/_ping":
		io.WriteString(w, "OK")
	case path == "/containers/json":
		io.WriteString(w, "[]\n")
	case path == "/images/json":
		io.WriteString(w, "[]\n")
	case path == "/version" || path == "/info":
		io.WriteString(w, "{}\n")
	case path == "/containers/create":
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"Id":%q,"Warnings":[]}`, newID)
	case strings.HasPrefix(path, "/images/") && strings.HasSuffix(path, "/json"):
		f.image(w, strings.TrimSuffix(strings.TrimPrefix(path, "/images/"), "/json"))
	case strings.HasPrefix(path, "/containers/") && strings.HasSuffix(path, "/json"):
		f.container(w, strings.TrimSuffix(strings.TrimPrefix(path, "/containers/"), "/json"))
	case strings.HasSuffix(path, "/exec"):
		w.WriteHeader(http.StatusCreated)
		id := execID
		if strings.Contains(string(body), `"sleep"`) {
			id = sleepID
		}
		fmt.Fprintf(w, `{"Id":%q}`, id)
	case r.Method == http.MethodPost && r.Header.Get("Upgrade") != "":
		f.hijack(w)
	case strings.HasPrefix(path, "/volumes/"):
		http.Error(w, `{"message":"no such volume"}`, http.StatusNotFound)
	case strings.HasPrefix(path, "/exec/"):
		fmt.Fprintf(w, `{"ID":%q,"ContainerID":%q,"Running":false,"ExitCode":0,"Pid":0}`, execID, webID)
	case r.Method == http.MethodPost:
		w.WriteHeader(http.StatusNoContent)
	default:
		w.WriteHeader(http.StatusOK)
	}
}

// hijack answers an upgrade with 101 and echoes what comes.
func (f *fakeEngine) hijack(w http.ResponseWriter) {
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	io.Copy(conn, rw)
}

func (f *fakeEngine) image(w http.ResponseWriter, name string) {
	if !strings.HasPrefix(name, "lab/") && !strings.HasPrefix(name, "evil/") && name != imgID {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, `{"message":"No such image: %s"}`, name)
		return
	}
	tag := name
	if name == imgID {
		tag = "evil/web:1"
	}
	labels := map[string]string{"maintainer": "lab"}
	if name == "lab/forged:1" {
		labels[ecsFamilyLabel], labels[ecsTaskLabel], labels["com.amazonaws.ecs.cluster"], labels["com.docker.compose.project"] = "payment", "arn:aws:ecs:x", "prod", "x"
	}
	json.NewEncoder(w).Encode(map[string]any{"Id": imgID, "RepoTags": []string{tag}, "Config": map[string]any{"Env": []string{"API_TOKEN=x"}, "Labels": labels}})
}

func (f *fakeEngine) container(w http.ResponseWriter, ref string) {
	ids := map[string]string{"web": webID, webID: webID, "priv": privID, privID: privID, "stopped": stopID, stopID: stopID, newID: newID, "seer": seerID, "blind": seerID, seerID: seerID}
	id, ok := ids[ref]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, `{"message":"No such container: %s"}`, ref)
		return
	}
	json.NewEncoder(w).Encode(map[string]any{
		"Id": id, "Name": "/" + ref, "Image": imgID, "Args": []string{"--db-password", "hunter2"},
		"State":      map[string]any{"Status": "running", "Running": id == webID, "StartedAt": "2026-01-02T03:04:05Z"},
		"Config":     map[string]any{"Image": "lab/web:1", "Env": []string{"DB_PASSWORD=hunter2", "PLAIN=seen"}, "Labels": map[string]string{ecsFamilyLabel: "web"}},
		"HostConfig": map[string]any{"Privileged": id == privID, "NetworkMode": "default", "PidMode": map[bool]string{true: "host"}[id == seerID]},
		"Mounts":     []any{},
	})
}
