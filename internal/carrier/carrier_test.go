package carrier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"jumpsuite/internal/cli"
)

var prod = Place{Cluster: "prod", Region: "eu-central-1"}

const host = "i-0123456789abcdef0"

// serve starts a server and returns how to ask it.
func serve(t *testing.T, s *Server) Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ssm.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if s.UID == 0 {
		s.UID = os.Geteuid()
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return Client{Socket: path}
}

// echo is a host that sends everything back, and its end when it gets one.
func echo(ended chan<- struct{}) func(context.Context, Place, string) (Stream, error) {
	return func(context.Context, Place, string) (Stream, error) {
		ours, theirs, err := pair()
		if err != nil {
			return nil, err
		}
		go func() {
			io.WriteString(theirs, "banner\n") // a gate speaks first
			io.Copy(theirs, theirs)
			theirs.CloseWrite()
			ended <- struct{}{}
		}()
		return ours, nil
	}
}

func pair() (a, b *net.TCPConn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	d, err := l.Accept()
	return c.(*net.TCPConn), d.(*net.TCPConn), err
}

func TestAStreamKeepsEveryByteAndBothEnds(t *testing.T) {
	ended := make(chan struct{}, 1)
	c := serve(t, &Server{Dial: echo(ended)})
	conn, err := c.Dial(t.Context(), prod, host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sent := strings.Repeat("0123456789\n", 100_000)
	go func() {
		io.WriteString(conn, sent)
		conn.CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	if err != nil || string(got) != "banner\n"+sent {
		t.Errorf("got %d bytes, %v; want %d", len(got), err, len(sent)+7)
	}
	<-ended
}

func TestAClientThatGoesAwayEndsItsStream(t *testing.T) {
	ended := make(chan struct{}, 1)
	c := serve(t, &Server{Dial: echo(ended)})
	conn, err := c.Dial(t.Context(), prod, host)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	<-ended
}

func TestAClientThatGivesUpEndsTheDial(t *testing.T) {
	began, ended := make(chan struct{}), make(chan struct{})
	c := serve(t, &Server{Dial: func(ctx context.Context, _ Place, _ string) (Stream, error) {
		close(began)
		<-ctx.Done()
		close(ended)
		return nil, ctx.Err()
	}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-began; cancel() }()
	if _, err := c.Dial(ctx, prod, host); err == nil {
		t.Error("there is a stream")
	}
	<-ended
}

func TestHostsAndContainersAreFound(t *testing.T) {
	hosts := []Host{{ID: host, Address: "10.0.0.1", Name: "ip-10-0-0-1.eu", Online: true, State: "ACTIVE", Agent: "3.3"}}
	found := []Found{{Host: host, Container: strings.Repeat("4f", 32), Task: "t1", Name: "web"}}
	learnt := ""
	c := serve(t, &Server{
		Hosts: func(_ context.Context, p Place) ([]Host, error) {
			if p != prod {
				t.Errorf("asked for %+v", p)
			}
			return hosts, nil
		},
		Where: func(_ context.Context, _ Place, ref string) ([]Found, error) { return found, nil },
		Learn: func(_ context.Context, _ Place, container, host string) { learnt = container[:4] + " " + host },
	})
	gotHosts, err := c.Hosts(t.Context(), prod)
	if err != nil || len(gotHosts) != 1 || gotHosts[0] != hosts[0] {
		t.Errorf("got %+v, %v", gotHosts, err)
	}
	gotFound, err := c.Where(t.Context(), prod, "4f4f")
	if err != nil || len(gotFound) != 1 || gotFound[0] != found[0] {
		t.Errorf("got %+v, %v", gotFound, err)
	}
	if err := c.Learn(t.Context(), prod, strings.Repeat("4f", 32), host); err != nil || learnt != "4f4f "+host {
		t.Errorf("learnt %q, %v", learnt, err)
	}
}

func TestAnErrorKeepsItsKindAndItsHint(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want Error
		code int
	}{
		{"a known one", &Error{Kind: Offline, Text: "host x is\noffline", Next: "start it"}, Error{Offline, "host x is offline", "start it"}, cli.ExitUnavailable},
		{"one within another", errors.Join(&Error{Kind: NotAllowed, Text: "no ssm:StartSession"}), Error{NotAllowed, "no ssm:StartSession", ""}, cli.ExitUnavailable},
		{"an unknown kind", &Error{Kind: "odd", Text: "odd"}, Error{Failed, "odd", ""}, cli.ExitSoftware},
		{"any other", errors.New("boom \x1b[2J"), Error{Failed, `boom \u001b[2J`, ""}, cli.ExitSoftware},
		{"a long one", errors.New(strings.Repeat("é", 3000)), Error{Failed, strings.Repeat("é", 998) + "…", ""}, cli.ExitSoftware},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := serve(t, &Server{Dial: func(context.Context, Place, string) (Stream, error) { return nil, tt.err }})
			_, err := c.Dial(t.Context(), prod, host)
			var got *Error
			if !errors.As(err, &got) || *got != tt.want || cli.ExitCode(err) != tt.code {
				t.Errorf("got %#v, code %d; want %#v, %d", err, cli.ExitCode(err), tt.want, tt.code)
			}
		})
	}
}

// failing is a host whose session ends after a word.
type failing struct {
	net.Conn
	err error
}

func (f failing) Read(b []byte) (int, error) {
	n, err := f.Conn.Read(b)
	if err == io.EOF {
		err = f.err
	}
	return n, err
}

func (f failing) CloseWrite() error { return nil }

func TestWhyAStreamWasLostIsToldToWhoHadIt(t *testing.T) {
	long := strings.Repeat("x", 3000)
	for _, tt := range []struct {
		name string
		err  error
		want *Error
	}{
		{"the service ended it", &Error{Kind: Failed, Text: "the session was ended: timed\nout \x1b[2J", Next: "try\x07again"},
			&Error{Failed, `the session was ended: timed out \u001b[2J`, `try\u0007again`}},
		{"at length", errors.New(long), &Error{Failed, long[:1997] + "…", ""}},
		{"it was closed here", net.ErrClosed, nil},
		{"it came to its end", io.EOF, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := serve(t, &Server{Dial: func(context.Context, Place, string) (Stream, error) {
				near, far := net.Pipe()
				go func() {
					io.WriteString(far, "word")
					far.Close()
				}()
				return failing{near, tt.err}, nil
			}})
			conn, err := c.Dial(t.Context(), prod, host)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if got, err := io.ReadAll(conn); string(got) != "word" || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
			got := c.Why(t.Context(), prod, conn)
			if (got == nil) != (tt.want == nil) || got != nil && *got != *tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if again := c.Why(t.Context(), prod, conn); again != nil {
				t.Errorf("told once more: %+v", again)
			}
		})
	}
}

// An r3-ssm that has just begun does not know the streams of the one before.
func TestWhyIsNotKnownToAnother(t *testing.T) {
	c := serve(t, &Server{Dial: echo(make(chan struct{}, 1))})
	conn, err := c.Dial(t.Context(), prod, host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for name, other := range map[string]Client{
		"one that has just begun":   serve(t, &Server{}),
		"none":                      {Socket: filepath.Join(t.TempDir(), "none")},
		"one that may not be asked": serve(t, &Server{UID: os.Geteuid() + 1}),
	} {
		if got := other.Why(t.Context(), prod, conn); got != nil {
			t.Errorf("%s: got %+v, want nothing", name, got)
		}
	}
}

func TestWhatIsKnownOfLostStreamsIsBounded(t *testing.T) {
	var s Server
	for i := range 3 * lostMost {
		s.note(fmt.Sprintf("%s%032x", streamName, i), request{Op: opDial}, io.ErrUnexpectedEOF)
	}
	if n := len(s.lost); n == 0 || n > lostMost {
		t.Errorf("got %d, want %d at most", n, lostMost)
	}
	for name, l := range s.lost {
		l.at = l.at.Add(-2 * lostFor)
		s.lost[name] = l
		if got := s.why(name); got != nil {
			t.Errorf("after %v: got %+v", 2*lostFor, got)
		}
		break
	}
}

func TestOnlyWhoMayIsAnswered(t *testing.T) {
	c := serve(t, &Server{UID: os.Geteuid() + 1})
	_, err := c.Hosts(t.Context(), prod)
	var got *Error
	if !errors.As(err, &got) || got.Kind != Refused || !strings.Contains(got.Text, "may not ask r3-ssm") {
		t.Errorf("got %#v", err)
	}
}

func TestWithoutR3SSMTheHintSaysHowToStartIt(t *testing.T) {
	_, err := Client{Socket: filepath.Join(t.TempDir(), "none")}.Hosts(t.Context(), prod)
	var got *Error
	if !errors.As(err, &got) || got.Kind != NotRunning || !strings.Contains(got.Next, "r3-ssm.socket") {
		t.Errorf("got %#v", err)
	}
}

func TestAnAnswerThatDoesNotComeIsNotWaitedForForEver(t *testing.T) {
	c := serve(t, &Server{Hosts: func(ctx context.Context, _ Place) ([]Host, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	c.Timeout = 20 * time.Millisecond
	_, err := c.Hosts(t.Context(), prod)
	if err == nil || err.Error() != "r3-ssm does not answer: r3-ssm did not answer within 20ms" {
		t.Errorf("got %v", err)
	}
}

// flaky is a listener whose first connections are closed before anything is answered.
type flaky struct {
	net.Listener
	left int
}

func (l *flaky) Accept() (net.Conn, error) {
	for ; l.left > 0; l.left-- {
		if c, err := l.Listener.Accept(); err == nil {
			c.Close()
		}
	}
	return l.Listener.Accept()
}

func TestWhoAsksInTheMomentInWhichItEndsIsAnsweredByTheNext(t *testing.T) {
	for _, tt := range []struct {
		ends int
		want string
	}{{0, ""}, {1, ""}, {2, "r3-ssm does not answer: it ended before it had answered"}} {
		for _, op := range []string{"hosts", "dial"} {
			t.Run(fmt.Sprintf("%s, %d", op, tt.ends), func(t *testing.T) {
				l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
				if err != nil {
					t.Fatal(err)
				}
				s := &Server{UID: os.Geteuid(), Dial: echo(make(chan struct{}, 1)), Hosts: func(context.Context, Place) ([]Host, error) { return nil, nil }}
				go s.Serve(t.Context(), &flaky{l, tt.ends})
				c, got := Client{Socket: l.Addr().String()}, ""
				if op == "hosts" {
					_, err = c.Hosts(t.Context(), prod)
				} else if conn, failed := c.Dial(t.Context(), prod, host); failed == nil {
					defer conn.Close()
				} else {
					err = failed
				}
				if err != nil {
					got = err.Error()
				}
				if got != tt.want {
					t.Errorf("got %q; want %q", got, tt.want)
				}
			})
		}
	}
}

func TestTheServerEndsWhenNobodyAsks(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Idle: 10 * time.Millisecond}
	if err := s.Serve(t.Context(), l); err != nil {
		t.Error(err)
	}
}

func TestAServerThatWasReplacedEndsWhenNobodyIsThere(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	there, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	asked := make(chan struct{}, 2)
	s := &Server{UID: os.Geteuid(), Idle: time.Hour, Replaced: func() bool {
		asked <- struct{}{}
		return true
	}}
	done := make(chan error, 1)
	go func() { done <- s.Serve(t.Context(), l) }()
	select {
	case <-done:
		t.Fatal("it ended while somebody was there")
	case <-time.After(1500 * time.Millisecond): // it looks each second
	}
	there.Close()
	if err := <-done; err != nil || len(asked) != 1 {
		t.Errorf("got %v, after it asked %d times", err, len(asked))
	}
}

func TestWhatDoesNotLookLikeAWSsIsRefused(t *testing.T) {
	for _, tt := range []struct{ name, line, want string }{
		{"no JSON", `hosts`, "not understood"},
		{"an unknown key", `{"op":"hosts","cluster":"c","x":1}`, `unknown field "x"`},
		{"two values", `{"op":"hosts","cluster":"c"}{}`, "more than one value"},
		{"an unknown operation", `{"op":"drop","cluster":"c"}`, "no operation"},
		{"no cluster", `{"op":"hosts"}`, "no name of a cluster"},
		{"a cluster with a slash", `{"op":"hosts","cluster":"a/b"}`, "no name of a cluster"},
		{"a region that is a host", `{"op":"hosts","cluster":"c","region":"x.evil.example"}`, "no region"},
		{"an endpoint that is a file", `{"op":"hosts","cluster":"c","endpoint":"file:///etc"}`, "no address of AWS"},
		{"an endpoint with a path", `{"op":"hosts","cluster":"c","endpoint":"http://a/b"}`, "no address of AWS"},
		{"a host by name", `{"op":"dial","cluster":"c","host":"web-1"}`, "no instance id"},
		{"a ref with a space", `{"op":"where","cluster":"c","ref":"a b"}`, "is no ref"},
		{"no stream's name", `{"op":"why","cluster":"c","ref":"@jumpsuite-stream-1"}`, "is no name of a stream"},
		{"no container", `{"op":"learn","cluster":"c","ref":"4f","host":"i-01234567"}`, "no container"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := parseRequest([]byte(tt.line)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: got %v, want %q", tt.line, err, tt.want)
			}
		})
	}
}

func TestWhatAHostSaysOfItselfCannotDriveATerminal(t *testing.T) {
	a := answer{Hosts: []Host{{ID: host, Name: "x\x1b[2J", Address: "10.0.0.1"}}}
	if err := a.plain(); err != nil || a.Hosts[0].Name != "" || a.Hosts[0].Address != "10.0.0.1" {
		t.Errorf("got %+v, %v", a, err)
	}
	a = answer{Error: &Error{Kind: Failed, Text: "x\x1b[2J", Next: "y\r"}}
	if err := a.plain(); err != nil || *a.Error != (Error{Failed, `x\u001b[2J`, `y\u000d`}) {
		t.Errorf("got %+v, %v", a.Error, err)
	}
	if err := (&answer{Found: []Found{{Host: host, Container: "../x"}}}).plain(); err == nil {
		t.Error("a path is a container")
	}
}

func FuzzRequestsThatParseAreSafe(f *testing.F) {
	f.Add([]byte(`{"op":"dial","cluster":"prod","region":"eu-central-1","host":"i-01234567"}`))
	f.Add([]byte(`{"op":"where","cluster":"prod","endpoint":"http://127.0.0.1:1","ref":"4f1c"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := parseRequest(line)
		if err != nil {
			return
		}
		for _, s := range []string{r.Cluster, r.Region, r.Endpoint, r.Ref, r.Host} {
			if strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' }) {
				t.Errorf("%q has %q", line, s)
			}
		}
	})
}
