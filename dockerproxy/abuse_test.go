package dockerproxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/events"

	"jumpsuite/internal/audit"
	"jumpsuite/policy"
)

// What a caller with rights can try to get more of them, or to keep others from
// theirs.

// engineThat serves what an Engine is to say.
func engineThat(t *testing.T, f http.HandlerFunc) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "engine.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: f}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return path
}

// asksFor reports whether an Engine is asked for a container, by whichever of its names.
func asksFor(r *http.Request, names ...string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(r.URL.Path, "/containers/"+n+"/json") })
}

// A folder of the host can be mounted under the name of a volume.
func TestAVolumeOfTheHostsFoldersIsAnEscape(t *testing.T) {
	engine := needEngine(t)
	h := newHarness(t, engine, "test")
	makeVolume(t, engine, "abused-root", map[string]string{"type": "none", "o": "bind", "device": "/"})
	makeVolume(t, engine, "abused-plain", nil)
	with := func(volume string) map[string]any {
		return sleeper(map[string]any{"HostConfig": map[string]any{"Binds": []string{volume + ":/h"}}})
	}
	makeContainer(t, engine, "abused-out", with("abused-root"), true)
	makeContainer(t, engine, "abused-stopped", with("abused-root"), false)
	makeContainer(t, engine, "abused-in", with("abused-plain"), true)
	exec := `{"AttachStdout":true,"Cmd":["ls","/h"]}`
	for _, raw := range []string{post("/v1.41/containers/abused-out/exec", exec), post("/v1.41/containers/abused-stopped/start", "")} {
		if a := exchangeRaw(t, h.socket("dev"), raw); a.status != http.StatusForbidden || !strings.Contains(a.body, "volume abused-root") {
			t.Errorf("%.60q: got %d %s, want 403 and which volume", raw, a.status, a.body)
		}
	}
	if a := exchangeRaw(t, h.socket("dev"), post("/v1.41/containers/abused-in/exec", exec)); a.status != http.StatusCreated {
		t.Errorf("a plain volume: got %d %s, want 201", a.status, a.body)
	}
}

func makeVolume(t *testing.T, engine, name string, options map[string]string) {
	t.Helper()
	body, err := json.Marshal(map[string]any{"Name": name, "Driver": "local", "DriverOpts": options})
	if err != nil {
		t.Fatal(err)
	}
	if a := exchangeRaw(t, engine, post("/v1.41/volumes/create", string(body))); a.status != http.StatusCreated {
		t.Fatalf("make volume %s: %d %s", name, a.status, a.body)
	}
	t.Cleanup(func() {
		exchangeRaw(t, engine, "DELETE /v1.41/volumes/"+name+"?force=1 HTTP/1.1\r\nHost: x\r\n\r\n")
	})
}

func TestVolumesThatAreEscapesAreRecognised(t *testing.T) {
	for _, tt := range []struct {
		name string
		v    volume
		want string
	}{
		{"a plain one", volume{Driver: "local"}, ""},
		{"one with a quota", volume{Driver: "local", Options: map[string]string{"size": "1G"}}, ""},
		{"a share", volume{Driver: "local", Options: map[string]string{"type": "nfs4", "o": "addr=fs.example,nfsvers=4.1", "device": ":/"}}, ""},
		{"another driver's", volume{Driver: "rexray/ebs", Options: map[string]string{"size": "5"}}, ""},
		{"data of the host", volume{Driver: "local", Options: map[string]string{"type": "none", "o": "bind", "device": "/srv/data"}}, ""},
		{"the host", volume{Driver: "local", Options: map[string]string{"type": "none", "o": "bind", "device": "/"}}, "/ of the host"},
		{"the host as a share", volume{Driver: "local", Options: map[string]string{"type": "nfs", "o": "ro,rbind", "device": "/etc/x/.."}}, "/etc of the host"},
		{"without a type", volume{Driver: "local", Options: map[string]string{"o": "bind", "device": "/root"}}, "/root"},
		{"an overlay", volume{Driver: "local", Options: map[string]string{"type": "overlay", "o": "lowerdir=/etc:/tmp", "device": "x"}}, "overlay"},
		{"a disk", volume{Driver: "local", Options: map[string]string{"type": "ext4", "device": "/dev/sda1"}}, "ext4"},
	} {
		if got := tt.v.escape(); (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestAChainOfSharedNamespacesIsFollowed(t *testing.T) {
	engine := needEngine(t)
	h := newHarness(t, engine, "test")
	in := func(mode string) map[string]any {
		return sleeper(map[string]any{"HostConfig": map[string]any{"PidMode": mode}})
	}
	makeContainer(t, engine, "abused-first", in("host"), true)
	makeContainer(t, engine, "abused-second", in("container:abused-first"), true)
	makeContainer(t, engine, "abused-third", in("container:abused-second"), true)
	a := exchangeRaw(t, h.socket("dev"), post("/v1.41/containers/abused-third/exec", `{"AttachStdout":true,"Cmd":["id"]}`))
	if a.status != http.StatusForbidden || !strings.Contains(a.body, "shares a namespace") {
		t.Errorf("got %d %s, want 403", a.status, a.body)
	}
}

// In one namespace of processes each has the files of all others, as /proc/PID/root.
func TestWhatOthersInItsNamespaceHaveCountsToo(t *testing.T) {
	engine := needEngine(t)
	h := newHarness(t, engine, "test", files)
	dir := t.TempDir()
	if err := os.Symlink("/etc", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	makeVolume(t, engine, "abused-peers", map[string]string{"type": "none", "o": "bind", "device": "/etc"})
	in := func(mode string, binds ...string) map[string]any {
		return sleeper(map[string]any{"HostConfig": map[string]any{"PidMode": mode, "Binds": binds}})
	}
	makeContainer(t, engine, "abused-plain", in(""), true)
	makeContainer(t, engine, "abused-pause", in(""), true)
	makeContainer(t, engine, "abused-volume", in("", "abused-peers:/h"), true)
	makeContainer(t, engine, "abused-link", in("", dir+"/link:/h"), true)
	makeContainer(t, engine, "abused-joined", in("container:abused-pause"), true)
	makeContainer(t, engine, "abused-beside", in("container:abused-joined", "/etc:/h"), true)
	for _, tt := range []struct {
		name, joins string
		want        int
		says        string
	}{
		{"nothing", "abused-plain", http.StatusCreated, ""},
		{"a volume of the one that it joins", "abused-volume", http.StatusForbidden, "it shares a namespace with abused-volume, which is an escape"},
		{"a link of the one that it joins", "abused-link", http.StatusForbidden, "it shares a namespace with abused-link, which is an escape"},
		{"a path of another that is led to the same", "abused-pause", http.StatusForbidden, "it shares a namespace with abused-beside, which is an escape"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id := makeContainer(t, engine, "", in("container:"+tt.joins), true)
			a := exchangeRaw(t, h.socket("dev"), post("/v1.41/containers/"+id+"/exec", `{"AttachStdout":true,"Cmd":["id"]}`))
			if a.status != tt.want || !strings.Contains(a.body, tt.says) {
				t.Errorf("got %d %s, want %d and %q", a.status, a.body, tt.want, tt.says)
			}
		})
	}
	a := exchangeRaw(t, h.socket("dev"), post("/v1.41/containers/abused-pause/exec", `{"AttachStdout":true,"Cmd":["id"]}`))
	if want := "it shares a namespace with abused-beside, which is an escape"; a.status != http.StatusForbidden || !strings.Contains(a.body, want) {
		t.Errorf("the one that the others have joined: got %d %s, want 403 and %q", a.status, a.body, want)
	}
}

// What is not known about a container that shares its namespaces is not taken
// for harmless.
func TestAnEngineThatFailsHidesNoEscape(t *testing.T) {
	h := newHarness(t, engineThat(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.51")
		switch {
		case asksFor(r, "web", webID):
			fmt.Fprintf(w, `{"Id":%q,"Name":"/web","State":{"Running":true},"HostConfig":{"NetworkMode":"container:%s"}}`, webID, privID)
		case strings.HasSuffix(r.URL.Path, "/exec"):
			t.Error("an exec was made")
		case strings.Contains(r.URL.Path, privID):
			http.Error(w, `{"message":"not now"}`, http.StatusInternalServerError)
		}
	}), "test")
	a := exchangeRaw(t, h.socket("dev"), post("/v1.41/containers/web/exec", `{"AttachStdout":true,"Cmd":["id"]}`))
	if a.status != http.StatusInternalServerError {
		t.Errorf("got %d %s, want 500", a.status, a.body)
	}
}

// A name comes before the beginning of an id: others would end up in it.
func TestANameThatIsAnothersIDIsRefused(t *testing.T) {
	engine := needEngine(t)
	h := newHarness(t, engine, "test")
	id := makeContainer(t, engine, "abused-known", sleeper(nil), false)
	for name, want := range map[string]string{
		id[:6]:             "another container's id",
		id[:12]:            "looks like a container's id",
		id:                 "looks like a container's id",
		"4f1c9d2e8a77":     "looks like a container's id", // it may be there on another host
		"4f1c9d2e8a77b0b0": "looks like a container's id",
	} {
		a := exchangeRaw(t, h.socket("dev"), post("/v1.41/containers/create?name="+name, `{"Image":"lab/web:1","Cmd":["true"]}`))
		if a.status != http.StatusConflict || !strings.Contains(a.body, want) {
			t.Errorf("%s: got %d %s, want 409 and %q", name, a.status, a.body, want)
		}
	}
	a := exchangeRaw(t, h.socket("dev"), post("/v1.41/containers/create?name=cafe", `{"Image":"lab/web:1","Cmd":["true"]}`))
	if a.status != http.StatusCreated {
		t.Errorf("a name that is nobody's: got %d %s, want 201", a.status, a.body)
	}
	exchangeRaw(t, engine, "DELETE /v1.41/containers/cafe?force=1 HTTP/1.1\r\nHost: x\r\n\r\n")
}

// A caller who does not read his answer must not keep the others waiting.
func TestAnAnswerThatNobodyReadsHoldsNoLock(t *testing.T) {
	for _, unread := range []string{create(`{"Image":"lab/web:1","Cmd":["true"]}`), post("/v1.41/containers/web/start", "")} {
		h := newHarness(t, newFakeEngine(t).socket, "test")
		ours, theirs := net.Pipe() // it holds no bytes: who writes waits for who reads
		go h.gate.ServeConn(h.ctx, theirs, Caller{UID: 1001, Principal: policy.Principal{User: "dev"}})
		t.Cleanup(func() { ours.Close() })
		if _, err := io.WriteString(ours, unread); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the request is on record", func() bool { return len(h.log.all()) > 0 })
		a := exchangeRaw(t, h.socket("other"), post("/v1.41/containers/web/start", ""))
		if a.status != http.StatusNotModified {
			t.Errorf("another's start: got %d %s %v, want 304", a.status, a.body, a.err)
		}
	}
}

func TestAPingSurvivesAnEngineThatIsGone(t *testing.T) {
	var h *harness
	h = newHarness(t, engineThat(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.51")
		h.atEngine().pinned.Store(nil) // as another connection does that finds the Engine gone
	}), "test")
	if a := exchangeRaw(t, h.socket("dev"), get("/_ping")); a.status != http.StatusBadGateway && a.status != http.StatusOK {
		t.Errorf("the first: got %d %v", a.status, a.err)
	}
	v := "1.51"
	h.atEngine().pinned.Store(&v)
	if a := exchangeRaw(t, h.socket("dev"), get("/_ping")); a.status != http.StatusBadGateway {
		t.Errorf("got %d %v, want 502", a.status, a.err)
	}
}

// Somebody is reading the connection already: no other request may follow.
func TestAStreamThatDoesNotBeginEndsTheConnection(t *testing.T) {
	h := newHarness(t, engineThat(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.51")
		if strings.HasSuffix(r.URL.Path, "/images/create") {
			http.Error(w, `{"message":"no such image"}`, http.StatusNotFound)
		}
	}), "test")
	a := exchangeRaw(t, h.socket("dev"), post("/v1.41/images/create?fromImage=lab/none&tag=1", ""))
	if a.status != http.StatusNotFound || !a.last {
		t.Errorf("got %d, the last %v, want 404 and the end", a.status, a.last)
	}
}

// The ECS agent's stop takes a while, and others use the host meanwhile.
func TestASecondStartIsNotDoneWhereTheFirstWouldNotBe(t *testing.T) {
	for _, tt := range []struct {
		name   string
		leased string // number of the lease that there is by then
		record error
		want   string
	}{
		{"it cannot be recorded", "ours", errors.New("disk full"), "disk full"},
		{"somebody else has attached to it, to start it", "another's", nil, "somebody else"},
		{"its lease has ended", "", nil, "somebody else"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			leases, err := OpenLeases(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			if tt.leased != "" {
				if err := leases.write(webID, &lease{Number: tt.leased, Container: webID}); err != nil {
					t.Fatal(err)
				}
			}
			x := &exchange{ctx: t.Context(), gate: &Gate{
				Leases: leases,
				Record: func(*audit.Event) error { return tt.record },
				Engine: func(context.Context) (net.Conn, error) {
					t.Error("the Engine was asked")
					return nil, net.ErrClosed
				},
			}, conn: &connection{}}
			x.conn.gate = x.gate
			w := &agentWatch{events: make(chan events.Message, 2)}
			w.events <- events.Message{Action: events.ActionKill}
			w.events <- events.Message{Action: events.ActionDie}
			c := &target{}
			c.ID = webID
			if says := x.afterStart(c, &lease{Number: "ours"}, w); !strings.Contains(says, tt.want) {
				t.Errorf("got %q, want that it is not started again, and %q", says, tt.want)
			}
		})
	}
}

// A container has its image's labels, too, and those of ECS say what it is.
func TestAnImageCannotPassAContainerOffAsECSs(t *testing.T) {
	f := newFakeEngine(t)
	h := newHarness(t, f.socket, "test")
	exchangeRaw(t, h.socket("dev"), create(`{"Image":"lab/forged:1","Labels":{"team":"blue"}}`))
	_, body, _ := strings.Cut(strings.Join(f.changes(), "\n"), "/containers/create ")
	var sent struct{ Labels map[string]string }
	if err := json.NewDecoder(strings.NewReader(body)).Decode(&sent); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	for label, want := range map[string]string{ecsFamilyLabel: "", ecsTaskLabel: "", "com.amazonaws.ecs.cluster": "", "com.docker.compose.project": "", "team": "blue"} {
		if got, there := sent.Labels[label]; got != want || !there {
			t.Errorf("%s: got %q, given %v, want %q", label, got, there, want)
		}
	}
	if _, there := sent.Labels["maintainer"]; there {
		t.Error("a label of the image that is not reserved was set")
	}
}

// An image can make the Engine copy for minutes, and whoever may run images can
// make such a one.
func TestACreateThatTakesLongKeepsNobodyWaiting(t *testing.T) {
	f := newFakeEngine(t)
	begun, end := make(chan bool), make(chan bool)
	h := newHarness(t, engineThat(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		if bytes.Contains(body, []byte("lab/slow:1")) {
			close(begun)
			<-end
		}
		f.ServeHTTP(w, r)
	}), "test")
	h.setPolicy(strings.Replace(testPolicy, "containers: 20", "containers: 1", 1))
	dev, other := h.socket("dev"), h.socket("other")
	slow, quick := make(chan answered, 1), make(chan answered, 1)
	go func() { slow <- exchangeRaw(t, dev, create(`{"Image":"lab/slow:1"}`)) }()
	<-begun
	go func() { quick <- exchangeRaw(t, other, create(`{"Image":"lab/web:1"}`)) }()
	select {
	case a := <-quick:
		if a.status != http.StatusCreated {
			t.Errorf("another's: got %d %s, want 201", a.status, a.body)
		}
	case <-time.After(20 * time.Second):
		t.Error("another's create waits for it")
	}
	if a := exchangeRaw(t, dev, create(`{"Image":"lab/web:1"}`)); a.status != http.StatusTooManyRequests {
		t.Errorf("one more of the same caller: got %d %s, want 429", a.status, a.body)
	}
	close(end)
	if a := <-slow; a.status != http.StatusCreated {
		t.Errorf("got %d %s, want 201", a.status, a.body)
	}
}

func TestOneCallersExecsKeepNobodyFromTheirs(t *testing.T) {
	g := &Gate{}
	add := func(i int, uid int) *execution {
		e := &execution{id: fmt.Sprint(uid, "-", i), owner: owner{UID: uid}, created: time.Now()}
		if !g.remember(e) {
			return nil
		}
		return e
	}
	n := 0
	for ; add(n, 1) != nil; n++ {
	}
	if n != maxExecsEach {
		t.Errorf("one caller had %d execs waiting, want %d", n, maxExecsEach)
	}
	for i := range 2 * maxExecs {
		e := add(i, 2)
		if e == nil {
			t.Fatalf("another's exec %d was refused, although the others are over", i)
		}
		e.end()
	}
}

// A session of many hours is asked for its size and its end as one of a minute is.
func TestAnExecThatRunsIsNotForgotten(t *testing.T) {
	long, over, never := new(execution), new(execution), new(execution)
	for _, e := range []*execution{long, over, never} {
		e.created = time.Now().Add(-2 * execKept)
	}
	long.started.Store(true)
	over.started.Store(true)
	over.end()
	if long.stale() || over.stale() || !never.stale() {
		t.Errorf("stale: one that runs %v, one that has just ended %v, one that never began %v; want only the last", long.stale(), over.stale(), never.stale())
	}
	over.ended.Store(time.Now().Add(-2 * execKept).UnixNano())
	if !over.stale() {
		t.Error("one that ended long ago is still kept")
	}
}

func TestABodyThatIsNotThereHasATime(t *testing.T) {
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close() })
	c := newConnection(&Gate{}, theirs, Caller{})
	for _, tt := range []struct {
		framing framing
		want    bool
	}{{framing{length: 1}, true}, {framing{chunked: true}, true}, {framing{}, false}} {
		c.req = request{framing: tt.framing}
		c.patienceForBody()
		if c.req.bounded != tt.want {
			t.Errorf("%+v: bounded %v, want %v", tt.framing, c.req.bounded, tt.want)
		}
	}
}

func TestSecretsWithinTextsAreHidden(t *testing.T) {
	p := mustPolicy(t, testPolicy)
	r := redactor{secret: func(v string) bool { return p.Redacted("test", v) }}
	for _, tt := range []struct{ text, want string }{
		{`mysql --password hunter2 -h db`, `mysql --password REDACTED -h db`},
		{`a && mysql --db-password  'hun ter' --user x`, `a && mysql --db-password REDACTED --user x`},
		{`curl "http://h/?user=x&password=y"`, `curl "http://h/?user=x&password=REDACTED"`},
		{`addr=h,username=u,password=p`, `addr=h,username=u,password=REDACTED`},
		{`--password --verbose x`, `--password --verbose x`},
		{`ls -la --color always`, `ls -la --color always`},
	} {
		if got := r.text(tt.text); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.text, got, tt.want)
		}
	}
	shown, err := r.hostConfig(json.RawMessage(`{"Mounts":[{"Target":"/x","VolumeOptions":{"DriverConfig":{"Options":{"o":"addr=h,password=p"}}}}]}`))
	if err != nil || strings.Contains(string(shown), "=p") {
		t.Errorf("a driver's options: got %s, %v", shown, err)
	}
}

// What an open stream was allowed with has to stay so, too.
func TestStreamsEndWhenMoreIsAskedOfThem(t *testing.T) {
	listed := strings.Replace(testPolicy, "escapes: [agent]", "escapes: [agent, web]", 1)
	for name, after := range map[string]string{
		"its type is not listed any more": testPolicy,
		"it would have to be recorded":    strings.Replace(listed, "    environments: [test, prod]\n", "    environments: [test, prod]\n    record: output\n", 1),
	} {
		h := newHarness(t, newFakeEngine(t).socket, "test")
		h.setPolicy(listed)
		_, gone := startExec(t, h, "dev", `{"AttachStdin":true,"AttachStdout":true,"Cmd":["cat"]}`, `{"Detach":false,"Tty":false}`)
		h.setPolicy(after)
		eventually(t, "the stream ends when "+name, func() bool {
			return slices.ContainsFunc(h.log.all(), func(e audit.Event) bool {
				return e.Kind == audit.Close && e.Result.Error == errPolicyChanged.Error()
			})
		})
		if _, err := io.ReadAll(gone); err != nil {
			t.Errorf("%s: got %v, want an end", name, err)
		}
	}
}

// Nothing that costs the Engine is done for who may not ask for it.
func TestASizeIsCountedForWhoMayInspect(t *testing.T) {
	engine := newFakeEngine(t)
	h := newHarness(t, engine.socket, "test")
	for user, want := range map[string]bool{"nobody": false, "reader": false, "dev": true} {
		before := len(engine.requests())
		exchangeRaw(t, h.socket(user), get("/v1.41/containers/web/json?size=1"))
		got := strings.Contains(strings.Join(engine.requests()[before:], " "), "size=1")
		if got != want {
			t.Errorf("%s: counted %v, want %v", user, got, want)
		}
	}
}

// Who has outlived the one whose namespace it shares is still in it.
func TestANamespaceOutlivesTheContainerThatBroughtIt(t *testing.T) {
	engine := needEngine(t)
	h := newHarness(t, engine, "test")
	in := func(mode string) map[string]any {
		return sleeper(map[string]any{"HostConfig": map[string]any{"NetworkMode": mode}})
	}
	makeContainer(t, engine, "abused-host", in("host"), true)
	makeContainer(t, engine, "abused-heir", in("container:abused-host"), true)
	exchangeRaw(t, engine, "DELETE /containers/abused-host?force=1 HTTP/1.1\r\nHost: x\r\n\r\n")
	exec := post("/v1.41/containers/abused-heir/exec", `{"AttachStdout":true,"Cmd":["id"]}`)
	if a := exchangeRaw(t, h.socket("dev"), exec); a.status != http.StatusForbidden || !strings.Contains(a.body, "may be the host's") {
		t.Errorf("got %d %s, want 403", a.status, a.body)
	}
	if a := exchangeRaw(t, engine, exec); a.status != http.StatusCreated {
		t.Errorf("the Engine itself: got %d %s, want 201", a.status, a.body)
	}
}
