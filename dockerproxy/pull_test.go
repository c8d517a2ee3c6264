package dockerproxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// hinted is an error with a hint, as a source of credentials may have one.
type hinted struct{ error }

func (hinted) Hint() string { return "start it" }

// pullEngine is an Engine whose registry wants the credentials "good".
func pullEngine(t *testing.T) (socket string, seen *[]string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "engine.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	seen = new([]string)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.51")
		if !strings.HasSuffix(r.URL.Path, "/images/create") {
			return
		}
		auth := r.Header.Get("X-Registry-Auth")
		*seen = append(*seen, auth)
		if auth != "good" {
			w.WriteHeader(http.StatusInternalServerError)
			io.WriteString(w, `{"message":"no basic auth credentials"}`)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"status":"pulled"}`+"\n")
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return socket, seen
}

func TestAPullTakesTheGatesCredentialsAndNotTheCallers(t *testing.T) {
	const plain = `{"message":"no basic auth credentials"}` + "\n"
	for _, tt := range []struct {
		name        string
		credentials func(context.Context, string) (string, error)
		auth        string // that the Engine gets
		status      int
		body        string
	}{
		{"none are configured", nil, "", 500, plain},
		{"there are some", func(_ context.Context, image string) (string, error) {
			if image != "docker.io/lab/web:1" {
				return "", errors.New("asked about " + image)
			}
			return "good", nil
		}, "good", 200, `{"status":"pulled"}` + "\n"},
		{"the registry needs none", func(context.Context, string) (string, error) { return "", nil }, "", 500, plain},
		{"there should be some", func(context.Context, string) (string, error) { return "", hinted{errors.New("there is no login")} }, "", 500,
			`{"message":"no basic auth credentials\nhint: there is no login\nhint: start it"}` + "\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			engine, seen := pullEngine(t)
			h := newHarness(t, engine, "test", func(g *Gate) { g.Credentials = tt.credentials })
			a := exchangeRaw(t, h.socket("dev"), post("/v1.41/images/create?fromImage=lab/web&tag=1", "", "X-Registry-Auth: good"))
			if len(*seen) != 1 || (*seen)[0] != tt.auth || a.status != tt.status || a.body != tt.body {
				t.Errorf("the Engine got %q; the caller got %d %q; want %q, %d %q", *seen, a.status, a.body, tt.auth, tt.status, tt.body)
			}
		})
	}
}

func TestWhatMayNotBePulledNeedsNoCredentials(t *testing.T) {
	engine, seen := pullEngine(t)
	h := newHarness(t, engine, "test", func(g *Gate) {
		g.Credentials = func(context.Context, string) (string, error) {
			t.Error("credentials were asked for")
			return "good", nil
		}
	})
	a := exchangeRaw(t, h.socket("dev"), post("/v1.41/images/create?fromImage=evil/web&tag=1", ""))
	if a.status != http.StatusForbidden || len(*seen) != 0 {
		t.Errorf("got %d %s, and the Engine was asked %d times", a.status, a.body, len(*seen))
	}
}

// What a registry says reaches the Engine's messages, also cut up between two reads.
func TestARegistrysWordsDriveNoTerminal(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "engine.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.51")
		if !strings.HasSuffix(r.URL.Path, "/images/create") {
			return
		}
		w.Header().Set("Content-Type", "application/json")
		for _, part := range []string{"{\"status\":\"a\\u00", "1b]0;owned\\u0007 \\u", "003e\"}\r\n{\"errorDetail\":{\"message\":\"\xc2", "\x9b2J gone\"},\"error\":\"x\"}\n"} {
			io.WriteString(w, part)
			w.(http.Flusher).Flush()
			time.Sleep(10 * time.Millisecond)
		}
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	h := newHarness(t, socket, "test")
	a := exchangeRaw(t, h.socket("dev"), post("/v1.41/images/create?fromImage=lab/web&tag=1", ""))
	want := `{"status":"a?]0;owned? \u003e"}` + "\n" + `{"errorDetail":{"message":"?2J gone"},"error":"x"}` + "\n"
	if a.status != http.StatusOK || a.body != want {
		t.Errorf("got %d %q, want %q", a.status, a.body, want)
	}
}
