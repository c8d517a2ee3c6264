package ecrlogin

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var ours = Registry{Account: "123456789012", Region: "eu-central-1"}

func TestOnlyTheHostsOfECRAreRegistries(t *testing.T) {
	for _, tt := range []struct {
		image string
		want  Registry
	}{
		{"123456789012.dkr.ecr.eu-central-1.amazonaws.com/web:1", ours},
		{"123456789012.dkr.ecr.eu-central-1.amazonaws.com/team/web@sha256:00", ours},
		{"123456789012.dkr.ecr.us-gov-west-1.amazonaws.com/web", Registry{"123456789012", "us-gov-west-1"}},
		{"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/web", Registry{"123456789012", "cn-north-1"}},
		{"docker.io/library/alpine:latest", Registry{}},
		{"public.ecr.aws/docker/library/alpine", Registry{}},
		{"123456789012.dkr.ecr.eu-central-1.amazonaws.com", Registry{}},
		{"123456789012.dkr.ecr.eu-central-1.amazonaws.com.evil.example/web", Registry{}},
		{"123456789012.dkr.ecr.eu-central-1.amazonaws.com.cn/web", Registry{}},
		{"123456789012.dkr.ecr.cn-north-1.amazonaws.com/web", Registry{}},
		{"123456789012.dkr.ecr.eu-central-1.amazonaws.com:443/web", Registry{}},
		{"123456789012.dkr.ecr.eu-central-1.amazonaws.com./web", Registry{}},
		{"123456789012.DKR.ecr.eu-central-1.amazonaws.com/web", Registry{}},
		{"evil.example/123456789012.dkr.ecr.eu-central-1.amazonaws.com/web", Registry{}},
		{"x.123456789012.dkr.ecr.eu-central-1.amazonaws.com/web", Registry{}},
		{"12345678901.dkr.ecr.eu-central-1.amazonaws.com/web", Registry{}},
		{"123456789012.dkr.ecr.eu.evil.example/web", Registry{}},
		{"123456789012.dkr.ecr.eu-central-1@evil.amazonaws.com/web", Registry{}},
		{"123456789012.dkr.ecr.evil.amazonaws.com/web", Registry{}},
		{"123456789012.dkr.ecr..amazonaws.com/web", Registry{}},
		{"", Registry{}},
	} {
		got, ok := Of(tt.image)
		if got != tt.want || ok != (tt.want != Registry{}) {
			t.Errorf("Of(%q): got %+v, %v; want %+v", tt.image, got, ok, tt.want)
		}
	}
}

func FuzzAHostIsWhatItsRegistrySays(f *testing.F) {
	f.Add("123456789012.dkr.ecr.eu-central-1.amazonaws.com")
	f.Add("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn")
	f.Add("1.dkr.ecr.a-b-1.amazonaws.com")
	f.Fuzz(func(t *testing.T, host string) {
		r, ok := ParseHost(host)
		if ok && (r.Host() != host || !strings.HasSuffix(strings.TrimSuffix(host, ".cn"), ".amazonaws.com")) {
			t.Errorf("%q was taken for %+v", host, r)
		}
	})
}

func TestTheAnswerIsReadStrictly(t *testing.T) {
	for _, tt := range []struct {
		name, line, want string
		reason           string
	}{
		{"a login", "login AWS cGFzcw==", "AWS/cGFzcw==", ""},
		{"none", "none because of that", "/", "because of that"},
		{"none with an escape", "none \x1b[2Jgone", "/", `\u001b[2Jgone`},
		{"no password", "login AWS", "", ""},
		{"an empty password", "login AWS ", "", ""},
		{"a third word", "login AWS pass word", "", ""},
		{"a header in it", "login AWS pass\rX-Evil:1", "", ""},
		{"another word", "LOGIN AWS pass", "", ""},
		{"not ASCII", "login AWS päss", "", ""},
		{"nothing", "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, reason, err := parseAnswer(tt.line)
			if tt.want == "" {
				if !errors.Is(err, errAnswer) || l != (Login{}) {
					t.Errorf("%q: got a login or %v, want %v", tt.line, err, errAnswer)
				}
				return
			}
			if got := l.User + "/" + string(l.Password); got != tt.want || reason != tt.reason || err != nil {
				t.Errorf("%q: got %q, %q, %v; want %q, %q", tt.line, got, reason, err, tt.want, tt.reason)
			}
		})
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add("login AWS cGFzcw==\n")
	f.Add("none no account\n")
	f.Add("login \x00 \n")
	f.Fuzz(func(t *testing.T, sent string) {
		line, err := readLine(strings.NewReader(sent), maxAnswer)
		if err != nil {
			return
		}
		l, reason, err := parseAnswer(line)
		if strings.ContainsAny(reason, "\n\x1b") || len(reason) > maxReason+len("…") {
			t.Errorf("%q: the reason is %q", sent, reason)
		}
		if err != nil || l == (Login{}) {
			return
		}
		again, err := answerLogin(l)
		if err != nil || again != line+"\n" {
			t.Errorf("%q is written again as %q, %v", sent, again, err)
		}
		if h, err := l.header(ours); err != nil || !isWord(h) {
			t.Errorf("%q makes the header %q, %v", sent, h, err)
		}
	})
}

func FuzzQuestion(f *testing.F) {
	f.Add("login 123456789012.dkr.ecr.eu-central-1.amazonaws.com\n")
	f.Add("login x\ny")
	f.Fuzz(func(t *testing.T, sent string) {
		s := &Server{Allowed: []Registry{ours}, Login: func(context.Context, Registry) (Login, error) { return Login{"AWS", "pass"}, nil }}
		line, err := readLine(strings.NewReader(sent), maxQuestion)
		if err != nil {
			return
		}
		answer := s.answer(t.Context(), line)
		if strings.Count(answer, "\n") != 1 || !strings.HasSuffix(answer, "\n") || len(answer) > maxAnswer {
			t.Errorf("%q: the answer is no line: %q", sent, answer)
		}
		if strings.HasPrefix(answer, "login ") != (line+"\n" == question(ours)) {
			t.Errorf("%q: got %q", sent, answer)
		}
	})
}

// listen serves s in a folder that everybody may look into.
func listenAt(t *testing.T, s *Server) Asker {
	t.Helper()
	dir, err := os.MkdirTemp("", "ecrlogin")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(path, 0o666)); err != nil {
		t.Fatal(err)
	}
	serve(t, func(ctx context.Context) error { return s.Serve(ctx, l) })
	return Asker{Socket: path}
}

func serve(t *testing.T, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A restart, as after an upgrade, takes nobody's pull its login.
func TestWhoAskedBeforeTheEndIsAnswered(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	s := &Server{Allowed: []Registry{ours}, UIDs: []int{os.Geteuid()}, Login: func(asked context.Context, _ Registry) (Login, error) {
		end()
		for l.Close() == nil { // until it takes no more
			time.Sleep(time.Millisecond)
		}
		return Login{"AWS", "secret"}, asked.Err()
	}}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	if auth, err := (Asker{Socket: l.Addr().String()}).Credentials(t.Context(), ours.Host()+"/web:1"); err != nil || auth == "" {
		t.Errorf("got %q, %v", auth, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestCredentialsAreWhatTheEngineWants(t *testing.T) {
	a := listenAt(t, &Server{Allowed: []Registry{ours}, UIDs: []int{os.Geteuid()}, Login: func(_ context.Context, r Registry) (Login, error) {
		return Login{"AWS", Secret("for+" + r.Account + "/==")}, nil
	}})
	auth, err := a.Credentials(t.Context(), ours.Host()+"/web:1")
	if err != nil {
		t.Fatal(err)
	}
	text, err := base64.URLEncoding.DecodeString(auth)
	if err != nil {
		t.Fatalf("%q: %v", auth, err)
	}
	var got map[string]string
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if got["username"] != "AWS" || got["password"] != "for+123456789012/==" || got["serveraddress"] != ours.Host() {
		t.Errorf("got %s", text)
	}
}

func TestWhereThereIsNoLoginTheReasonIsTold(t *testing.T) {
	s := &Server{Allowed: []Registry{ours, {"123456789012", "eu-west-1"}}, UIDs: []int{os.Geteuid()}, Login: func(_ context.Context, r Registry) (Login, error) {
		if r == ours {
			return Login{"AWS", "two words"}, nil
		}
		return Login{}, errors.New("the AWS credentials do not allow\x1b[2J\necr:GetAuthorizationToken")
	}}
	a := listenAt(t, s)
	for _, tt := range []struct{ name, image, want string }{
		{"another account", "999999999999.dkr.ecr.eu-central-1.amazonaws.com/web", "there is no login for 999999999999.dkr.ecr.eu-central-1.amazonaws.com: r3-ecr is not configured for account 999999999999 in eu-central-1"},
		{"AWS says no", "123456789012.dkr.ecr.eu-west-1.amazonaws.com/web", `there is no login for 123456789012.dkr.ecr.eu-west-1.amazonaws.com: the AWS credentials do not allow\u001b[2J ecr:GetAuthorizationToken`},
		{"a login that is none", ours.Host() + "/web", "there is no login for " + ours.Host() + ": the login has characters that no login has"},
		{"a public image", "docker.io/library/alpine:3", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			auth, err := a.Credentials(t.Context(), tt.image)
			if auth != "" || tt.want == "" && err != nil || tt.want != "" && fmt.Sprint(err) != tt.want {
				t.Errorf("got %q, %v; want none and %q", auth, err, tt.want)
			}
		})
	}
}

func TestAServerThatIsNotThereIsNamed(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "s")
	_, err := Asker{Socket: gone}.Credentials(t.Context(), ours.Host()+"/web")
	m, ok := errors.AsType[*MissingError](err)
	if !ok || m.Err.Error() != "r3-ecr is not running ("+gone+")" || !strings.Contains(m.Hint(), "systemctl enable --now r3-ecr.socket") {
		t.Errorf("got %v, want that it is not running, and how to start it", err)
	}
}

// play is an r3-ecr that says the same to everybody, and then nothing.
func play(t *testing.T, says string, leaves bool) Asker {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, says)
			if leaves {
				conn.Close()
			}
		}
	}()
	return Asker{Socket: path, Timeout: 200 * time.Millisecond}
}

func TestABrokenServerDoesNotHoldThePull(t *testing.T) {
	for _, tt := range []struct {
		name, says string
		leaves     bool
		want       string
	}{
		{"it is silent", "", false, "r3-ecr did not answer within 200ms"},
		{"it stops in the middle", "login AWS abc", false, "r3-ecr did not answer within 200ms"},
		{"it goes away", "login AWS abc", true, ""},
		{"it says too much", "login AWS abc\nlogin AWS abc\n", true, "more than one line"},
		{"it says another thing", "hunter2\n", true, errAnswer.Error()},
		{"it does not say why", "none\n", true, "r3-ecr does not say why"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			auth, err := play(t, tt.says, tt.leaves).Credentials(t.Context(), ours.Host()+"/web")
			if auth != "" || err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "abc") {
				t.Errorf("got %q, %v; want an error with %q", auth, err, tt.want)
			}
		})
	}
}

func TestALineHasALimit(t *testing.T) {
	for _, n := range []int{maxQuestion - 1, maxQuestion} {
		line, err := readLine(io.MultiReader(strings.NewReader(strings.Repeat("a", n)), strings.NewReader("\n")), maxQuestion)
		if (err == nil) != (n == maxQuestion-1) || err == nil && len(line) != n {
			t.Errorf("a line of %d: got %d bytes, %v", n, len(line), err)
		}
	}
}

// dialAs connects as another user. The kernel knows users per thread: this one
// ends with its goroutine.
func dialAs(path string, uid int) (net.Conn, error) {
	type dialed struct {
		conn net.Conn
		err  error
	}
	out := make(chan dialed)
	go func() {
		runtime.LockOSThread()
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); e != 0 {
			out <- dialed{nil, e}
			return
		}
		conn, err := net.Dial("unix", path)
		out <- dialed{conn, err}
	}()
	d := <-out
	return d.conn, d.err
}

func TestOnlyRootAndTheConfiguredMayAsk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can connect as somebody else")
	}
	a := listenAt(t, &Server{Allowed: []Registry{ours}, UIDs: []int{54243}, Login: func(context.Context, Registry) (Login, error) {
		return Login{"AWS", "pass"}, nil
	}})
	for uid, want := range map[int]string{
		0:     "login AWS pass\n",
		54243: "login AWS pass\n",
		54244: "none uid 54244 may not ask for logins\n",
	} {
		conn, err := dialAs(a.Socket, uid)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, question(ours))
		got, _ := io.ReadAll(conn)
		conn.Close()
		if string(got) != want {
			t.Errorf("uid %d: got %q, want %q", uid, got, want)
		}
	}
}

func TestFormattingDoesNotShowAPassword(t *testing.T) {
	l := Login{"AWS", "hunter2"}
	var b bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&b, verb, l)
		fmt.Fprintf(&b, verb, &l)
		fmt.Fprintf(&b, verb, l.Password)
	}
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "login", l, "password", l.Password)
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "login", l, "password", l.Password)
	json.NewEncoder(&b).Encode(l)
	if strings.Contains(b.String(), "hunter2") || strings.Contains(b.String(), fmt.Sprintf("%x", "hunter2")) || !strings.Contains(b.String(), hidden) {
		t.Errorf("got %s", b.String())
	}
}

// source is an AWS that numbers its logins.
type source struct {
	mu    sync.Mutex
	calls int
	fails error
	gate  chan struct{} // if not nil, calls wait for it
}

func (s *source) fetch(_ context.Context, r Registry) (Login, time.Duration, error) {
	s.mu.Lock()
	s.calls++
	n, err, gate := s.calls, s.fails, s.gate
	s.mu.Unlock()
	if gate != nil {
		<-gate
	}
	return Login{"AWS", Secret(fmt.Sprint(r.Region, n))}, 12 * time.Hour, err
}

func TestLoginsAreKeptUntilShortlyBeforeTheyEnd(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s := &source{}
	c := &Cache{Fetch: s.fetch, Now: func() time.Time { return now }}
	down := errors.New("AWS is out of reach")
	for _, tt := range []struct {
		name   string
		after  time.Duration
		fails  error
		region string
		want   string
		calls  int
	}{
		{"the first", 0, nil, "eu-central-1", "eu-central-11", 1},
		{"again", time.Hour, nil, "eu-central-1", "eu-central-11", 1},
		{"another region", 0, nil, "eu-west-1", "eu-west-12", 2},
		{"just before its renewal", 10*time.Hour + 29*time.Minute, nil, "eu-central-1", "eu-central-11", 2},
		{"renewed half an hour before its end", 2 * time.Minute, nil, "eu-central-1", "eu-central-13", 3},
		{"renewal fails, the old one lasts", 11*time.Hour + 40*time.Minute, down, "eu-central-1", "eu-central-13", 4},
		{"renewal is tried again", time.Minute, down, "eu-central-1", "eu-central-13", 5},
		{"the old one has ended", 20 * time.Minute, down, "eu-central-1", "", 6},
		{"AWS is back", 0, nil, "eu-central-1", "eu-central-17", 7},
	} {
		now = now.Add(tt.after)
		s.fails = tt.fails
		l, err := c.Login(t.Context(), Registry{"123456789012", tt.region})
		if string(l.Password) != tt.want || s.calls != tt.calls || (tt.want == "") != errors.Is(err, down) {
			t.Errorf("%s: got %q, %v after %d calls; want %q after %d", tt.name, string(l.Password), err, s.calls, tt.want, tt.calls)
		}
	}
}

func TestWhoAsksAtTheSameTimeSharesOneCall(t *testing.T) {
	s := &source{gate: make(chan struct{})}
	c := &Cache{Fetch: s.fetch}
	first, leave := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := c.Login(first, ours)
		gone <- err
	}()
	for pending := false; !pending; {
		c.mu.Lock()
		pending = c.open[ours] != nil
		c.mu.Unlock()
		time.Sleep(time.Millisecond)
	}
	leave() // the call goes on for the others
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("who left got %v", err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if l, err := c.Login(t.Context(), ours); err != nil || string(l.Password) != "eu-central-11" {
				t.Errorf("got %q, %v", string(l.Password), err)
			}
		})
	}
	time.Sleep(10 * time.Millisecond)
	close(s.gate)
	wg.Wait()
	if s.calls != 1 {
		t.Errorf("%d calls, want 1", s.calls)
	}
}
