package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/docker/cli/cli/command"
	"golang.org/x/sys/unix"
)

// fleet is the other half, with hosts behind it.
type fleet struct {
	http.ServeMux
	mu    sync.Mutex
	asked []string // host METHOD path?query
	slow  chan struct{}
	list  string       // of hosts; empty: none, as on a docker host
	news  chan string  // a host's events: what it says; closed: it is lost
	more  bool         // another container runs on i-3
	given atomic.Int32 // connections that were handed over

	follows bool                      // numbers go on
	stats   func(http.ResponseWriter) // how i-3 says them; nil: as the others
	gone    bool                      // i-3 does not answer
}

// newFleet has three hosts. The second has two containers, the third one.
func newFleet(t *testing.T) (*fleet, *gate) {
	f := &fleet{slow: make(chan struct{}), list: `{"Hosts":[{"ID":"i-1","Name":"10.0.0.1","Environment":"test"},{"ID":"i-2","Name":"10.0.0.2","Environment":"test"},{"ID":"i-3","Name":"10.0.0.3","Environment":"test"}]}`}
	g, theirs := other(t)
	l := &handed{conns: make(chan net.Conn, 100), gone: make(chan struct{})}
	s := &http.Server{Handler: f}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	go func() {
		var word [2]byte
		for {
			if n, _ := theirs.Read(word[:]); n == 0 {
				return
			}
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return
			}
			ours := os.NewFile(uintptr(fds[0]), "ours")
			conn, _ := net.FileConn(ours)
			ours.Close()
			l.conns <- conn
			f.given.Add(1)
			theirs.WriteMsgUnix([]byte{askConnection}, unix.UnixRights(fds[1]), nil)
			unix.Close(fds[1])
		}
	}()
	return f, g
}

// handed is a listener of the connections that were handed over.
type handed struct {
	conns chan net.Conn
	gone  chan struct{}
	once  sync.Once
}

func (h *handed) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.gone:
		return nil, net.ErrClosed
	}
}
func (h *handed) Close() error   { h.once.Do(func() { close(h.gone) }); return nil }
func (h *handed) Addr() net.Addr { return &net.UnixAddr{} }

func (f *fleet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host := r.Header.Get(hostHeader)
	path := r.URL.Path
	if i := strings.Index(path[1:], "/"); strings.HasPrefix(path, "/v1.") && i > 0 {
		path = path[1+i:]
	}
	f.mu.Lock()
	f.asked = append(f.asked, strings.TrimSpace(host+" "+r.Method+" "+path+" "+r.URL.RawQuery))
	f.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Api-Version", "1.51")
	switch {
	case path == "/jumpsuite/hosts" && f.list == "":
		http.Error(w, `{"message":"page not found"}`, http.StatusNotFound)
	case path == "/jumpsuite/hosts":
		io.WriteString(w, f.list)
	case path == "/_ping" && host == "i-7":
		<-f.slow
	case path == "/_ping":
	case host == "i-4":
		<-f.slow
	case host == "i-9":
		w.Header().Set(faultHeader, "1")
		w.WriteHeader(http.StatusBadGateway)
		io.WriteString(w, `{"message":"jumpsuite: host 10.0.0.9: i-9 is not connected to Session Manager\nhint: start its agent"}`)
	case host == "i-3" && f.is(&f.gone):
		w.WriteHeader(http.StatusBadGateway)
		io.WriteString(w, `{"message":"jumpsuite: host 10.0.0.3: it is gone"}`)
	case path == "/events":
		f.tell(w, r, host)
	case path == "/containers/json" && host == "i-3" && f.is(&f.more):
		io.WriteString(w, strings.TrimSuffix(containersOf(host), "]")+","+strings.TrimPrefix(containersOf("i-5"), "["))
	case path == "/containers/json":
		fmt.Fprint(w, containersOf(host))
	case path == "/images/json":
		fmt.Fprintf(w, `[{"Id":"sha256:%064d","RepoTags":["web:1","web:latest"],"RepoDigests":[],"Created":1700000000,"Size":1000}]`, len(host))
	case strings.HasSuffix(path, "/stats") && host == "i-3" && f.stats != nil:
		f.stats(w)
	case strings.HasSuffix(path, "/stats") && f.follows:
		io.WriteString(w, `{"name":"/web"}`)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	case strings.HasSuffix(path, "/stats"):
		io.WriteString(w, `{"name":"/web","id":"x","cpu_stats":{"cpu_usage":{"total_usage":200},"system_cpu_usage":2000,"online_cpus":2},"precpu_stats":{"cpu_usage":{"total_usage":100},"system_cpu_usage":1000},
			"memory_stats":{"usage":3145728,"limit":10485760,"stats":{"inactive_file":1048576}},"pids_stats":{"current":7},"networks":{"eth0":{"rx_bytes":1000,"tx_bytes":2000}}}`)
	case path == "/containers/two/logs":
		w.Header().Set(ttyHeader, "false")
		io.WriteString(w, "\x01\x00\x00\x00\x00\x00\x00\x04out\n\x02\x00\x00\x00\x00\x00\x00\x04err\n")
	case path == "/containers/terminal/logs":
		w.Header().Set(ttyHeader, "true")
		io.WriteString(w, "\x01raw\r\n")
	case path == "/containers/silent/logs":
	default:
		w.WriteHeader(http.StatusNotFound)
		io.WriteString(w, `{"message":"no"}`)
	}
}

// tell is the events of a host: of i-3 those that are in news.
func (f *fleet) tell(w http.ResponseWriter, r *http.Request, host string) {
	w.(http.Flusher).Flush()
	if host != "i-3" {
		<-r.Context().Done()
		return
	}
	f.mu.Lock()
	news := f.news
	f.mu.Unlock()
	for {
		select {
		case <-r.Context().Done():
			return
		case s, ok := <-news:
			if !ok {
				panic(http.ErrAbortHandler)
			}
			io.WriteString(w, s)
			w.(http.Flusher).Flush()
		}
	}
}

// lose ends i-3's events.
func (f *fleet) lose() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.news)
	f.news = make(chan string)
}

// times is how often something was asked.
func (f *fleet) times(what string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.asked {
		if a == what || strings.HasPrefix(a, what+" ") {
			n++
		}
	}
	return n
}

// until waits until something was asked n times.
func (f *fleet) until(t *testing.T, what string, n int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); f.times(what) < n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s was asked %d times, want %d", what, f.times(what), n)
		}
	}
}

func (f *fleet) is(what *bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return *what
}

func (f *fleet) set(what *bool, to bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	*what = to
}

func containersOf(host string) string {
	one := func(id, name string, created int) string {
		return fmt.Sprintf(`{"Id":"%s","Names":["/%s"],"Image":"web:1","Command":"sleep","Created":%d,"State":"running","Status":"Up 1 hour","Labels":{"team":"blue","x":"y"}}`, strings.Repeat(id, 64), name, created)
	}
	switch host {
	case "i-2":
		return "[" + one("a", "web", 1700000300) + "," + one("b", "log", 1700000100) + "]"
	case "i-5":
		return "[" + one("d", "new", 1700000400) + "]"
	case "i-3":
		return "[" + one("c", "api", 1700000200) + "]"
	}
	return "[]"
}

// ran is what a command line came to.
type ran struct {
	code     int
	out, err string
}

// typed runs a command line against a gate.
func typed(t *testing.T, g *gate, args ...string) ran {
	t.Helper()
	return typedBy(t, g, func(*docker) {}, args...)
}

// typedBy is typed with a CLI that is a little different.
func typedBy(t *testing.T, g *gate, change func(*docker), args ...string) ran {
	t.Helper()
	var out, errOut bytes.Buffer
	streams, err := command.NewDockerCli(command.WithInputStream(io.NopCloser(strings.NewReader(""))), command.WithOutputStream(&out), command.WithErrorStream(&errOut))
	if err != nil {
		t.Fatal(err)
	}
	d := newDocker(g)
	d.DockerCli = streams
	change(d)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	code := d.report(d.execute(ctx, args))
	return ran{code, out.String(), errOut.String()}
}

func TestAllHostsAreOneTable(t *testing.T) {
	a, b, c := strings.Repeat("a", 12), strings.Repeat("b", 12), strings.Repeat("c", 12)
	for _, tt := range []struct{ name, line, want string }{
		{"ids only", "ps -q", a + "\n" + b + "\n" + c + "\n"},
		{"whole ids", "ps -q --no-trunc", strings.Repeat("a", 64) + "\n" + strings.Repeat("b", 64) + "\n" + strings.Repeat("c", 64) + "\n"},
		{"a format", "ps --format {{.Host}}:{{.Names}}:{{.Label}}", "template"},
		{"a format with the host", "ps --format {{.Host}}/{{.Environment}}:{{.Names}}", "10.0.0.2/test:web\n10.0.0.2/test:log\n10.0.0.3/test:api\n"},
		{"labels", `ps --format {{.Names}}={{.Label_"team"}}`, "web=blue\nlog=blue\napi=blue\n"},
		{"a table of one's own", `ps --format table_{{.Host}}\t{{.Names}}`, "HOST       NAMES\n10.0.0.2   web\n10.0.0.2   log\n10.0.0.3   api\n"},
		{"the newest", "ps -n 2 --format {{.Names}}", "web\napi\n"},
		{"the last", "ps -l --format {{.Names}}", "web\n"},
		{"a column that there is none of", "ps --format {{.Hots}}", `map has no entry for key "Hots"`},
		{"images", "images --format {{.Host}}:{{.Repository}}:{{.Tag}}", "10.0.0.1:web:1\n10.0.0.1:web:latest\n10.0.0.2:web:1\n10.0.0.2:web:latest\n10.0.0.3:web:1\n10.0.0.3:web:latest\n"},
		{"numbers", "stats --no-stream --format {{.Host}}_{{.Name}}_{{.CPUPerc}}_{{.MemUsage}}_{{.MemPerc}}_{{.NetIO}}_{{.PIDs}}",
			"10.0.0.2 web 20.00% 2MiB / 10MiB 20.00% 1kB / 2kB 7\n10.0.0.2 web 20.00% 2MiB / 10MiB 20.00% 1kB / 2kB 7\n10.0.0.3 web 20.00% 2MiB / 10MiB 20.00% 1kB / 2kB 7\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, g := newFleet(t)
			var args []string
			for _, a := range strings.Fields(tt.line) {
				args = append(args, strings.ReplaceAll(a, "_", " "))
			}
			got := typed(t, g, args...)
			if got.out != tt.want && !strings.Contains(got.err, tt.want) {
				t.Errorf("got %d\n%q\n%q\nwant\n%q", got.code, got.out, got.err, tt.want)
			}
			if (got.code == 0) != (got.out == tt.want) {
				t.Errorf("it ended with %d", got.code)
			}
		})
	}
}

// An environment whose hosts are not known is named, and the exit code says that the
// table is not all there is; those of the others are shown.
func TestAnEnvironmentWhoseHostsAreNotKnownIsNamed(t *testing.T) {
	for _, line := range []string{"ps --format {{.Names}}", "images --format {{.Tag}}", "stats --no-stream --format {{.Name}}"} {
		f, g := newFleet(t)
		f.list = strings.TrimSuffix(f.list, "}") + `,"Missing":[{"Environment":"prod","Error":"jumpsuite: r3-ssm is not running\nhint: start it"}]}`
		got := typed(t, g, strings.Fields(line)...)
		if got.code != 1 || got.out == "" || got.err != "docker: the hosts of prod are missing: r3-ssm is not running\nhint: start it\n" {
			t.Errorf("%s: got %d, %q, %q", line, got.code, got.out, got.err)
		}
	}
}

// Who names containers is shown these, and no others: the gate finds out where they
// are, or says that they are nowhere.
func TestNumbersAreOfTheContainersThatWereNamed(t *testing.T) {
	f, g := newFleet(t)
	got := typed(t, g, "stats", "--no-stream", "--format", "{{.Container}} {{.Name}}", "web", "log")
	if got.code != 0 || got.out != "web web\nlog web\n" {
		t.Errorf("got %d, %q, %q", got.code, got.out, got.err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.asked {
		if strings.Contains(a, "/containers/json") || strings.HasPrefix(a, "i-") {
			t.Errorf("all hosts were asked: %s", a)
		}
	}
}

// A stream of numbers ends with the way to its host, and the host may be there
// again later. Looks that are late come at the same time.
func TestNumbersThatEndedAreFollowedAgain(t *testing.T) {
	f, g := newFleet(t)
	d := newDocker(g)
	m := &meters{docker: d, rows: map[string]row{}}
	h := farHost{ID: "i-2", Name: "10.0.0.2", Environment: "test"}
	o := d.on(h, io.Discard, io.Discard)
	followed := func() (n int) {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, a := range f.asked {
			if strings.Contains(a, "/stats") {
				n++
			}
		}
		return n
	}
	for look := 1; look <= 3; look++ {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if err := m.read(t.Context(), o, 0, h, true); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for end := time.Now().Add(20 * time.Second); (followed() < 2*look || len(m.snapshot()) > 0) && time.Now().Before(end); {
			time.Sleep(5 * time.Millisecond)
		}
		if followed() < 2*look || len(m.snapshot()) > 0 {
			t.Fatalf("look %d: %d streams in all, %d rows left", look, followed(), len(m.snapshot()))
		}
	}
}

func TestTheTableNamesTheHost(t *testing.T) {
	_, g := newFleet(t)
	lines := strings.Split(typed(t, g, "ps").out, "\n")
	if len(lines) != 5 || !strings.HasPrefix(lines[0], "HOST       CONTAINER ID   IMAGE     COMMAND") || !strings.HasPrefix(lines[1], "10.0.0.2   aaaaaaaaaaaa   web:1") {
		t.Errorf("got %q", lines)
	}
}

func TestSeveralEnvironmentsAreAColumn(t *testing.T) {
	f, g := newFleet(t)
	f.list = strings.Replace(f.list, `"10.0.0.3","Environment":"test"`, `"10.0.0.3","Environment":"prod"`, 1)
	if out := typed(t, g, "ps").out; !strings.HasPrefix(out, "ENVIRONMENT   HOST       CONTAINER ID") || !strings.Contains(out, "prod          10.0.0.3") {
		t.Errorf("got %q", out)
	}
}

func TestAHostThatDoesNotAnswerIsNamed(t *testing.T) {
	f, g := newFleet(t)
	f.list = `{"Hosts":[{"ID":"i-9","Name":"10.0.0.9","Environment":"test"},{"ID":"i-3","Name":"10.0.0.3","Environment":"test"}],"Missing":[{"Environment":"prod","Error":"jumpsuite: no rights"}]}`
	got := typed(t, g, "ps", "--format", "{{.Names}}")
	want := "docker: the hosts of prod are missing: no rights\ndocker: host 10.0.0.9: i-9 is not connected to Session Manager\nhint: start its agent\n"
	if got.code != 1 || got.out != "api\n" || got.err != want {
		t.Errorf("got %+v, want exit 1, api and %q", got, want)
	}
}

// A table without the numbers of a host is not whole; one container's may be missing.
func TestNumbersThatBreakOffAreNamed(t *testing.T) {
	const dashes = "10.0.0.3 api --\n"
	no := func(status int, text string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.WriteHeader(status)
			io.WriteString(w, `{"message":"`+text+`"}`)
		}
	}
	for _, tt := range []struct {
		name  string
		stats func(http.ResponseWriter)
		code  int
		err   string
	}{
		{"the container is gone", no(http.StatusNotFound, "No such container"), 0, ""},
		{"the policy does not show them", no(http.StatusForbidden, "jumpsuite: docker.stats is not allowed"), 0, ""},
		{"the host is gone", no(http.StatusBadGateway, "jumpsuite: host 10.0.0.3: it is gone"), 1, "docker: host 10.0.0.3: it is gone\n"},
		{"they break off", func(w http.ResponseWriter) {
			io.WriteString(w, `{"name":"/api"`)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, 1, "docker: host 10.0.0.3: the numbers of cccccccccccc have ended before their time: unexpected EOF\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, g := newFleet(t)
			f.stats = tt.stats
			got := typed(t, g, "stats", "--no-stream", "--format", "{{.Host}} {{.Name}} {{.CPUPerc}}")
			if got.code != tt.code || got.err != tt.err || !strings.HasSuffix(got.out, dashes) || strings.Count(got.out, "20.00%") != 2 {
				t.Errorf("got %+v, want exit %d, %q, and dashes for 10.0.0.3", got, tt.code, tt.err)
			}
		})
	}
}

// Those who answer are shown when they have, and not when the time of those who do
// not is over: that is in the text of what is said about them.
func TestAHostThatIsSlowHoldsNobodyUp(t *testing.T) {
	for _, tt := range []struct{ line, out string }{
		{"ps --format {{.Names}}", "web\nlog\napi\n"},
		{"images -q", strings.Repeat(strings.Repeat("0", 12)+"\n", 4)},
		{"stats --no-stream --format {{.Host}}", "10.0.0.2\n10.0.0.2\n10.0.0.3\n"},
	} {
		t.Run(tt.line, func(t *testing.T) {
			f, g := newFleet(t)
			defer close(f.slow)
			f.list = `{"Hosts":[{"ID":"i-4","Name":"10.0.0.4","Environment":"test"},{"ID":"i-2","Name":"10.0.0.2","Environment":"test"},{"ID":"i-3","Name":"10.0.0.3","Environment":"test"}]}`
			got := typedBy(t, g, func(d *docker) { d.patience.Most, d.patience.Least = time.Hour, 50*time.Millisecond }, strings.Fields(tt.line)...)
			if got.code != 1 || got.out != tt.out {
				t.Errorf("got %+v, want exit 1 and %q", got, tt.out)
			}
			if !strings.HasPrefix(got.err, "docker: host 10.0.0.4: no answer within ") || !strings.HasSuffix(got.err, "when others had long answered\n") {
				t.Errorf("it says %q", got.err)
			}
		})
	}
}

func TestWithAHostItIsDockersOwn(t *testing.T) {
	f, g := newFleet(t)
	got := typed(t, g, "-H", "i-3", "ps")
	if got.code != 0 || !strings.HasPrefix(got.out, "CONTAINER ID   IMAGE") {
		t.Errorf("got %+v", got)
	}
	for _, a := range f.asked {
		if strings.Contains(a, "jumpsuite/hosts") {
			t.Errorf("asked %q", f.asked)
		}
	}
}

func TestOnADockerHostItIsDockersOwn(t *testing.T) {
	f, g := newFleet(t)
	f.list = ""
	for verb, header := range map[string]string{"ps": "CONTAINER ID   IMAGE ", "images": "REPOSITORY   TAG "} {
		if got := typed(t, g, verb); got.code != 0 || !strings.HasPrefix(got.out, header) {
			t.Errorf("%s: got %+v", verb, got)
		}
	}
}

func TestWhatIsTheGatesFaultEndsWithDockersOwnCode(t *testing.T) {
	_, g := newFleet(t)
	if got := typed(t, g, "-H", "i-9", "ps"); got.code != exitOurs || !strings.Contains(got.err, "not connected to Session Manager") {
		t.Errorf("got %+v, want exit %d", got, exitOurs)
	}
}

// The first question, which docker asks before all else, is one to the host.
func TestAHostThatHangsIsInterruptedAtOnce(t *testing.T) {
	f, g := newFleet(t)
	defer close(f.slow)
	d := newDocker(g)
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan int, 1)
	go func() { ended <- d.report(d.execute(ctx, []string{"-H", "i-7", "ps"})) }()
	f.until(t, "i-7 HEAD /_ping", 1)
	cancel(&interrupted{syscall.SIGINT})
	select {
	case code := <-ended:
		if code != 130 {
			t.Errorf("it ended with %d, want 130", code)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it goes on")
	}
}

func TestTheEnvironmentIsPassedOn(t *testing.T) {
	for arg, want := range map[string]string{"test": "test", "a b": ""} {
		d := newDocker(nil)
		_, err := globals(newRoot(d), d, []string{"--environment", arg, "ps"})
		if got := d.headers[environmentHeader]; got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v", arg, got, err)
		}
	}
}
