package session_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"jumpsuite/internal/cli"
	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/agent"
	"jumpsuite/internal/lab/realagent"
	"jumpsuite/internal/lab/world"
	"jumpsuite/internal/session"
)

const shell = `{"schemaVersion":"1.0","sessionType":"Standard_Stream","properties":{}}`
const commands = `{"schemaVersion":"1.0","sessionType":"NonInteractiveCommands","properties":{}}`
const muxed = `{"schemaVersion":"1.0","sessionType":"Port","properties":{"portNumber":"2376","type":"LocalPortForwarding"}}`

func TestEachReasonForNoSessionHasItsSentence(t *testing.T) {
	for _, tt := range []struct {
		name, world string
		change      func(*session.Config)
		kind        session.Kind
		want        string
	}{
		{"the agent is offline", "", func(c *session.Config) { c.Target = "i-0offline" }, session.Offline, "i-0offline is not connected to Session Manager"},
		{"no such host", "", func(c *session.Config) { c.Target = "i-0nobody" }, session.Offline, "i-0nobody is not connected to Session Manager"},
		{"no such document", "documents: []", nil, session.NoDocument, `there is no session document "jumpsuite-docker" in this account and region`},
		{"StartSession is denied", "faults: [{operation: StartSession, error: denied}]", nil, session.Denied,
			"the AWS credentials do not allow ssm:StartSession, which a session to " + host + " needs"},
		{"the data channel is denied", "faults: [{operation: OpenDataChannel, error: denied}]", nil, session.Denied,
			"the service refuses the data channel of the session to " + host + " (403)"},
		{"a document with a terminal", "documents: [{name: jumpsuite-docker, content: '" + shell + "'}]", nil, session.HandshakeRefused,
			`the session document "jumpsuite-docker" is not the one that jumpsuite brings along: it begins without a handshake, as one with a terminal does`},
		{"a document with commands", "documents: [{name: jumpsuite-docker, content: '" + commands + "'}]", nil, session.HandshakeRefused,
			`the session document "jumpsuite-docker" is not the one that jumpsuite brings along: it is of type NonInteractiveCommands, not Port`},
		{"a document with several streams in one", "documents: [{name: jumpsuite-docker, content: '" + muxed + "'}]", nil, session.HandshakeRefused,
			`the session document "jumpsuite-docker" is not the one that jumpsuite brings along: its type is "LocalPortForwarding" and its host "", and both have to be empty`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := start(t, tt.world)
			c := config(l)
			if tt.change != nil {
				tt.change(&c)
			}
			_, err := session.Start(t.Context(), c)
			e, ok := errors.AsType[*session.Error](err)
			if !ok || e.Kind != tt.kind || e.Error() != tt.want || e.Hint() == "" {
				t.Errorf("got %v (%+v)\nwant %s", err, e, tt.want)
			}
			if n := l.Sessions(host); n != 0 {
				t.Errorf("%d sessions were left open", n)
			}
		})
	}
}

// ended is the error of the first Read, which has to be of a kind.
func ended(t *testing.T, s *session.Session, kind session.Kind) *session.Error {
	t.Helper()
	s.SetReadDeadline(time.Now().Add(2 * time.Minute))
	_, err := s.Read(make([]byte, 1))
	e, ok := errors.AsType[*session.Error](err)
	if !ok || e.Kind != kind || e.Hint() == "" || cli.ExitCode(err) != cli.ExitUnavailable {
		t.Fatalf("got %v (%+v), want kind %d", err, e, kind)
	}
	if s.Err() != err {
		t.Errorf("Err is %v, and Read said %v", s.Err(), err)
	}
	if _, err := s.Write([]byte("x")); errors.Unwrap(err) != e {
		t.Errorf("Write said %v", err)
	}
	return e
}

// The official agent's worker crashes when the port refuses. That it is gone is seen before the
// agent says so, a minute later.
func TestThatNothingListensIsSeenAtTheFirstRead(t *testing.T) {
	l := start(t, "")
	s := open(t, l)
	e := ended(t, s, session.NotListening)
	if e.What != "nothing on "+host+" listens on the port of jumpsuite-docker (the agent's end of the session has gone)" {
		t.Errorf("got %s", e.What)
	}
	if !strings.Contains(e.Next, "r3-dockerproxy") {
		t.Errorf("got the hint %s", e.Next)
	}
	select {
	case <-s.Done():
	default:
		t.Error("the session is not done")
	}
}

func TestThatTheWorkerHasCrashedIsToldByTheAgent(t *testing.T) {
	if _, err := realagent.Folder(); err == nil {
		t.Skip("the official agent waits for a minute")
	}
	s := open(t, start(t, "link: {crash: 100ms}"))
	e := ended(t, s, session.NotListening)
	if e.What != "nothing on "+host+" listens on the port of jumpsuite-docker ("+agent.CrashText+")" {
		t.Errorf("got %s", e.What)
	}
}

// An agent that is away before the port has spoken may come back.
func TestAPortMayBeSlowToSpeakAndItsAgentLoseItsWebsocket(t *testing.T) {
	l := start(t, "")
	speak := make(chan struct{})
	if err := l.Listen(host, 2376, func(c net.Conn) { <-speak; io.WriteString(c, "hello\n") }); err != nil {
		t.Fatal(err)
	}
	s := open(t, l)
	for range 3 {
		do(t, l, "session-cut", "agent")
		time.Sleep(session.AwayLimit / 2)
	}
	close(speak)
	greeted(t, s)
}

func do(t *testing.T, l *lab.Lab, verb, value string) {
	t.Helper()
	if err := l.Do(world.Action{Do: verb, To: host, Value: value}); err != nil {
		t.Fatal(err)
	}
}

func TestTheServiceSaysWhyItEndsASession(t *testing.T) {
	l := start(t, "")
	listen(t, l, echo)
	s := open(t, l)
	greeted(t, s)
	do(t, l, "session-end", "Maximum session duration reached")
	if e := ended(t, s, session.Ended); !strings.HasSuffix(e.What, "was ended: Maximum session duration reached") {
		t.Errorf("got %s", e.What)
	}
}

func TestAWorkerThatCrashesBeforeThePortSpeaksIsAPortThatRefuses(t *testing.T) {
	const crash = agent.CrashText
	l := start(t, "")
	silent := make(chan struct{})
	defer close(silent)
	if err := l.Listen(host, 2376, func(net.Conn) { <-silent }); err != nil {
		t.Fatal(err)
	}
	s := open(t, l)
	do(t, l, "session-end", crash)
	ended(t, s, session.NotListening)
	s = open(t, l)
	do(t, l, "session-end", "Unable to connect to specified port: dial tcp 127.0.0.1:2376: connect: connection refused")
	ended(t, s, session.NotListening)
	listen(t, l, echo)
	s = open(t, l)
	greeted(t, s)
	do(t, l, "session-end", crash)
	ended(t, s, session.Ended)
}

func TestASessionThatTheServiceForgotIsOver(t *testing.T) {
	l := start(t, "link: {idle: 300ms}\nfaults: [{operation: ResumeSession, latency: 600ms}]")
	listen(t, l, echo)
	s := open(t, l)
	greeted(t, s)
	do(t, l, "session-cut", "client")
	ended(t, s, session.Over)
}

func TestResumingThatIsDeniedIsNotTriedForMinutes(t *testing.T) {
	l := start(t, "faults: [{operation: ResumeSession, error: denied}]")
	listen(t, l, echo)
	s := open(t, l)
	greeted(t, s)
	do(t, l, "session-cut", "client")
	if e := ended(t, s, session.Denied); !strings.Contains(e.What, "ssm:ResumeSession") {
		t.Errorf("got %s", e.What)
	}
}

func TestResumingThatFailsIsTriedAgain(t *testing.T) {
	l := start(t, "faults: [{operation: ResumeSession, error: throttle, times: 2}, {operation: ResumeSession, error: cut, times: 3, skip: 2}]")
	listen(t, l, echo)
	s := open(t, l)
	greeted(t, s)
	do(t, l, "session-cut", "client")
	if _, err := io.WriteString(s, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

func TestThePortThatClosesIsTheEndOfTheStream(t *testing.T) {
	l := start(t, "")
	listen(t, l, func(c net.Conn) { io.WriteString(c, "bye") })
	s := open(t, l)
	if got, err := io.ReadAll(s); err != nil || string(got) != "hello\nbye" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestDeadlinesEndWaiting(t *testing.T) {
	l := start(t, "")
	listen(t, l, func(c net.Conn) { time.Sleep(time.Hour) })
	s := open(t, l)
	greeted(t, s)
	s.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read: got %v", err)
	}
	// Nobody reads at the far side: at some point the window is full.
	much := make([]byte, 64<<20)
	s.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	n, err := s.Write(much)
	if n == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Write: got %d, %v", n, err)
	}
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("%v is no time-out of the net package's", err)
	}
	s.SetReadDeadline(time.Time{})
	go func() {
		time.Sleep(20 * time.Millisecond)
		s.SetReadDeadline(time.Unix(1, 0)) // wakes one who waits
	}()
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read: got %v", err)
	}
}

func TestCloseEndsReadersWritersAndTheSession(t *testing.T) {
	l := start(t, "")
	listen(t, l, func(c net.Conn) { time.Sleep(time.Hour) })
	s := open(t, l)
	greeted(t, s)
	errs := make(chan error, 2)
	go func() { _, err := s.Read(make([]byte, 1)); errs <- err }()
	go func() { _, err := s.Write(make([]byte, 64<<20)); errs <- err }()
	time.Sleep(50 * time.Millisecond)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-errs; !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
	}
	if err := s.Close(); err != nil || !errors.Is(s.Err(), net.ErrClosed) {
		t.Errorf("got %v, %v", err, s.Err())
	}
	if n := l.Sessions(host); n != 0 {
		t.Errorf("%d sessions are open", n)
	}
}

func TestWhatWasWrittenBeforeCloseArrives(t *testing.T) {
	l := start(t, "link: {delay: 20ms}")
	got := make(chan int, 1)
	listen(t, l, func(c net.Conn) {
		n, _ := io.Copy(io.Discard, c)
		got <- int(n)
	})
	s := open(t, l)
	greeted(t, s)
	if _, err := s.Write(make([]byte, 300_000)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if n := <-got; n != 300_000 {
		t.Errorf("%d bytes arrived", n)
	}
}

func TestStartGivesUpWithItsContextAndLeavesNothing(t *testing.T) {
	l := start(t, "link: {lose: 1}")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := session.Start(ctx, config(l)); !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(err.Error(), "wait for the agent of "+host) {
		t.Errorf("got %v", err)
	}
	if n := l.Sessions(host); n != 0 {
		t.Errorf("%d sessions are open", n)
	}
}

func TestWebsocketsThatTheServiceClosesEachHourGoUnnoticed(t *testing.T) {
	l := start(t, "clock: {speed: 20000}\nlink: {close: 1h}") // every 180 ms
	listen(t, l, echo)
	s := open(t, l)
	greeted(t, s)
	s.SetDeadline(time.Now().Add(time.Minute))
	for range 20 {
		time.Sleep(40 * time.Millisecond)
		if _, err := io.WriteString(s, "tick"); err != nil {
			t.Fatal(err)
		}
		if err := readTick(s); err != nil {
			t.Fatal(err)
		}
	}
	resumed := 0
	for _, c := range l.Calls() {
		if c.Operation == "ResumeSession" {
			resumed++
		}
	}
	if resumed == 0 {
		t.Error("no websocket was closed")
	}
}

func readTick(s io.Reader) error {
	b := make([]byte, 4)
	_, err := io.ReadFull(s, b)
	if err == nil && string(b) != "tick" {
		return errors.New("got " + string(b))
	}
	return err
}
