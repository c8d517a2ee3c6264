package session_test

import (
	"bufio"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"jumpsuite/internal/awsconfig"
	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/world"
	"jumpsuite/internal/session"
)

const host = "i-0123456789abcdef0"

// start starts a lab with one host, and what stands in more.
func start(t testing.TB, more string) *lab.Lab {
	t.Helper()
	w, err := world.Parse([]byte("clusters: [{name: prod, hosts: [{instance: "+host+"}, {instance: i-0offline, offline: true}]}]\n"+more), "world")
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.Start(t.Context(), lab.Config{World: w})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	official(t, l)
	return l
}

// config is how a session to the lab's host is started.
func config(l *lab.Lab) session.Config {
	env := map[string]string{}
	for _, v := range l.Env() {
		name, value, _ := strings.Cut(v, "=")
		env[name] = value
	}
	url := l.URL()
	keys := credentials.NewStaticCredentialsProvider(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], "")
	c := aws.Config{Region: env["AWS_REGION"], APIOptions: awsconfig.PlainBodies(), BaseEndpoint: &url, RetryMaxAttempts: 1, Credentials: keys}
	return session.Config{API: ssm.NewFromConfig(c), Credentials: keys, Region: c.Region, Target: host, Document: "jumpsuite-docker"}
}

// open starts a session.
func open(t testing.TB, l *lab.Lab) *session.Session {
	t.Helper()
	s, err := session.Start(t.Context(), config(l))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// listen makes the host's port reach handle, after a banner: the far side speaks first.
func listen(t testing.TB, l *lab.Lab, handle func(net.Conn)) {
	t.Helper()
	err := l.Listen(host, 2376, func(c net.Conn) {
		defer c.Close()
		if _, err := io.WriteString(c, "hello\n"); err == nil {
			handle(c)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

func echo(c net.Conn) { io.Copy(c, c) }

// greeted reads the banner.
func greeted(t testing.TB, s io.Reader) {
	t.Helper()
	got := make([]byte, 6)
	if _, err := io.ReadFull(s, got); err != nil || string(got) != "hello\n" {
		t.Fatalf("got the banner %q, %v", got, err)
	}
}

func TestASessionCarriesBytesBothWays(t *testing.T) {
	l := start(t, "")
	listen(t, l, echo)
	s := open(t, l)
	greeted(t, s)
	if _, err := io.WriteString(s, "one\ntwo\n"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(s)
	for _, want := range []string{"one\n", "two\n"} {
		if got, err := r.ReadString('\n'); got != want {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	calls := ""
	for _, c := range l.Calls() {
		calls += c.Operation + " "
		if c.Operation == "OpenDataChannel" && !strings.Contains(string(c.Parameters), `"Signed":true`) {
			t.Errorf("the websocket's request is not signed: %s", c.Parameters)
		}
	}
	if calls != "StartSession OpenDataChannel TerminateSession " {
		t.Errorf("got calls %s", calls)
	}
	if n := l.Sessions(host); n != 0 {
		t.Errorf("%d sessions are open after Close", n)
	}
}

func TestASessionThatIsFullBothWaysStaysBelowTheServicesLimit(t *testing.T) {
	t.Parallel()
	l := start(t, "") // 1,000 messages a second, or the websocket is cut
	listen(t, l, func(c net.Conn) {
		go io.Copy(io.Discard, c)
		io.Copy(c, rand.NewChaCha8([32]byte{}))
	})
	s := open(t, l)
	s.SetDeadline(time.Now().Add(3 * time.Second))
	up := make(chan int64, 1)
	go func() {
		n, _ := io.Copy(s, rand.NewChaCha8([32]byte{}))
		up <- n
	}()
	down, _ := io.Copy(io.Discard, s)
	if n := <-up; n < 1<<20 || down < 100_000 {
		t.Errorf("%d bytes up and %d down in three seconds", n, down)
	}
	for _, c := range l.Calls() {
		if c.Operation == "ResumeSession" {
			t.Fatal("the service cut the websocket")
		}
	}
}
