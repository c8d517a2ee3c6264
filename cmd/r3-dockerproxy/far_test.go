package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"jumpsuite/internal/audit"
	"jumpsuite/internal/keys"
	"jumpsuite/internal/tunnel"
	"jumpsuite/internal/witness"
)

// jump is a jump server.
type jump struct {
	t    *testing.T
	key  ed25519.PrivateKey
	gate *proxy
}

// newJump is a jump server whose key the gate trusts.
func newJump(t *testing.T, p *proxy) *jump {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	j := &jump{t: t, key: key, gate: p}
	if err := p.store.Trust(keys.Entry{Key: keys.ID(key), Name: "jump"}); err != nil {
		t.Fatal(err)
	}
	p.reload()
	return j
}

// reload makes the gate read everything again, and waits until it has.
func (p *proxy) reload() {
	p.t.Helper()
	p.mu.Lock()
	p.log.Reset()
	p.mu.Unlock()
	p.cmd.Process.Signal(syscall.SIGHUP)
	eventually(p.t, "the policy was read again", func() bool { return p.said("was read again") })
	time.Sleep(50 * time.Millisecond) // the keys come after the policy
}

var tcpAddress = regexp.MustCompile(`127\.0\.0\.1:\d+`)

func startFar(t *testing.T, more ...string) (p *proxy, address string) {
	t.Helper()
	p = start(t, "unix:///nonexistent", append([]string{"--listen", "tcp://127.0.0.1:0"}, more...)...)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p, tcpAddress.FindString(p.log.String())
}

func (j *jump) carry(address string) (*tunnel.Carrier, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	c, err := tunnel.Carry(j.t.Context(), conn)
	if err == nil {
		j.t.Cleanup(func() { c.Close() })
	}
	return c, err
}

func (j *jump) open(c *tunnel.Carrier, h tunnel.Hello) (*tunnel.Conn, error) {
	j.t.Helper()
	s, err := c.Open(j.t.Context())
	if err != nil {
		return nil, err
	}
	conn, err := tunnel.Client(j.t.Context(), s, tunnel.Identity{Key: j.key, Trusted: func(k tunnel.KeyID) bool {
		own, err := j.gate.store.Public()
		return err == nil && k == own[0]
	}}, h)
	if err != nil {
		return nil, err
	}
	j.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patient))
	_, err = conn.Welcome()
	return conn, err
}

var devHello = tunnel.Hello{User: "dev1", UID: 1001, Groups: []string{"dev"}, Audit: "0198c0de", Environment: "test"}

func ask(t *testing.T, conn net.Conn, path string) string {
	t.Helper()
	conn.Write([]byte("GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n"))
	b := make([]byte, 64<<10)
	n, err := conn.Read(b)
	if err != nil {
		return err.Error()
	}
	return string(b[:n])
}

const devPolicy = testPolicy + `
  - name: dev-looks
    effect: allow
    principals: [user:dev1]
    actions: [docker.version, docker.ps]
    environments: [test]
`

func TestAJumpServersCallersComeInByItsKey(t *testing.T) {
	needRoot(t)
	p, address := startFar(t)
	p.write(devPolicy)
	j := newJump(t, p)
	c, err := j.carry(address)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := j.open(c, devHello)
	if err != nil {
		t.Fatal(err)
	}
	if got := ask(t, conn, "/v1.41/version"); !strings.Contains(got, "502") || !strings.Contains(got, "cannot be reached") {
		t.Errorf("what is allowed: got %q", got)
	}
	conn, err = j.open(c, devHello)
	if err != nil {
		t.Fatal(err)
	}
	if got := ask(t, conn, "/v1.41/containers/json"); !strings.Contains(got, "403") || !strings.Contains(got, "rule jump-servers") {
		t.Errorf("what the jump server may not vouch for: got %q", got)
	}
	checkFarLog(t, filepath.Join(p.dir, "audit", "audit.log"), keys.ID(j.key))
}

// checkFarLog reads the log of the test above.
func checkFarLog(t *testing.T, path string, key tunnel.KeyID) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	came := 0
	for line := range bytes.Lines(b) {
		e, err := audit.ParseLine(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil {
			t.Fatal(err)
		}
		if e.Action != "tunnel.open" {
			continue
		}
		came++
		if e.Principal.Name != "dev1" || e.Principal.Key != string(key) || e.Far != "0198c0de" || !strings.Contains(e.Detail, "ssm session unknown") {
			t.Errorf("got %+v", e)
		}
	}
	if came != 2 {
		t.Errorf("got %d events of who came, want 2", came)
	}
}

func TestWhoIsRefusedAtTheDoor(t *testing.T) {
	needRoot(t)
	p, address := startFar(t)
	j := newJump(t, p)
	stranger := &jump{t: t, gate: p}
	_, stranger.key, _ = ed25519.GenerateKey(nil)
	c, err := j.carry(address)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, system, escape := devHello, devHello, devHello
	elsewhere.Environment, system.User, escape.Groups = "prod", "system:reaper", []string{"dev\x1b[2J"}
	for _, tt := range []struct {
		name  string
		by    *jump
		hello tunnel.Hello
		says  string
	}{
		{"a key that is not trusted", stranger, devHello, "does not trust this jump server's key"},
		{"another environment", j, elsewhere, "is in the environment test, not in prod"},
		{"a name of the log's own", j, system, "is no name of a user"},
		{"a group that is none", j, escape, "is no name of a group"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := tt.by.open(c, tt.hello); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
		})
	}
}

func TestARevokedKeysConnectionsEnd(t *testing.T) {
	needRoot(t)
	p, address := startFar(t)
	j, other := newJump(t, p), newJump(t, p)
	var conns []*tunnel.Conn
	for _, who := range []*jump{j, other} {
		c, err := who.carry(address)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := who.open(c, devHello)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	if err := p.store.Revoke(keys.Entry{Key: keys.ID(j.key), Name: "jump"}); err != nil {
		t.Fatal(err)
	}
	p.reload()
	var ended *tunnel.EndedError
	if _, err := conns[0].Read(make([]byte, 1)); !errors.As(err, &ended) || !strings.Contains(err.Error(), string(keys.ID(j.key))) {
		t.Errorf("the revoked key's: got %v, want that the gate ended it", err)
	}
	if got := ask(t, conns[1], "/_ping"); !strings.Contains(got, "502") {
		t.Errorf("the other's: got %q", got)
	}
}

// A policy that names a jump server's key need not be changed when that is rotated:
// the former key's signature is what counts, and only as long as it is not revoked.
func TestAKeyThatThePolicyNamesHandsItsRightsOn(t *testing.T) {
	needRoot(t)
	p, address := startFar(t)
	old, j := newJump(t, p), newJump(t, p)
	p.write(strings.Replace(devPolicy, `keys: ["*"]`, `keys: ["`+string(keys.ID(old.key))+`"]`, 1))
	p.reload()
	c, err := j.carry(address)
	if err != nil {
		t.Fatal(err)
	}
	opened := func(former ...tunnel.Former) *tunnel.Conn {
		t.Helper()
		hello := devHello
		hello.Former = former
		conn, err := j.open(c, hello)
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	asks := func(former ...tunnel.Former) string { return ask(t, opened(former...), "/v1.41/version") }
	if got := asks(); !strings.Contains(got, "403") || !strings.Contains(got, "rule jump-servers") || !strings.Contains(got, "hint: an administrator of the host looks at jump-servers in its policy") {
		t.Errorf("without the former key's word: got %q", got)
	}
	signed := tunnel.Succeed(old.key, keys.ID(j.key))
	forged := tunnel.Former{Key: signed.Key, Signature: tunnel.Succeed(j.key, keys.ID(j.key)).Signature}
	if got := asks(forged); !strings.Contains(got, "403") {
		t.Errorf("with a word of its own: got %q", got)
	}
	if got := asks(signed); !strings.Contains(got, "502") {
		t.Errorf("with the former key's word: got %q, want the Engine asked for", got)
	}
	conn := opened(signed)
	if err := p.store.Revoke(keys.Entry{Key: keys.ID(old.key), Name: "jump"}); err != nil {
		t.Fatal(err)
	}
	p.reload()
	var ended *tunnel.EndedError
	if _, err := conn.Read(make([]byte, 1)); !errors.As(err, &ended) || !strings.Contains(err.Error(), string(keys.ID(old.key))) {
		t.Errorf("when the former key is revoked: got %v", err)
	}
	if got := asks(signed); !strings.Contains(got, "rule jump-servers") {
		t.Errorf("after that: got %q", got)
	}
}

// A host's new key is used for new connections, and ends no old one.
func TestTheHostsKeyChangesUnderOpenConnections(t *testing.T) {
	needRoot(t)
	p, address := startFar(t)
	j := newJump(t, p)
	c, err := j.carry(address)
	if err != nil {
		t.Fatal(err)
	}
	old, err := j.open(c, devHello)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := p.store.Rotate(time.Now(), 0); err != nil {
			t.Fatal(err)
		}
	}
	p.reload()
	fresh, err := j.open(c, devHello)
	if err != nil {
		t.Fatal(err)
	}
	if fresh.Key() == old.Key() {
		t.Error("the key is the old one")
	}
	for _, conn := range []*tunnel.Conn{old, fresh} {
		if got := ask(t, conn, "/_ping"); !strings.Contains(got, "502") {
			t.Errorf("got %q", got)
		}
	}
}

// A gate that is stopped takes no more, and lets what is open end.
func TestItDrains(t *testing.T) {
	needRoot(t)
	p, address := startFar(t)
	j := newJump(t, p)
	c, err := j.carry(address)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := j.open(c, devHello)
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.Leaving():
	case <-time.After(patient):
		t.Fatal("the jump server does not learn of it")
	}
	eventually(t, "it takes no other session", func() bool {
		c, err := j.carry(address)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	if got := ask(t, conn, "/_ping"); !strings.Contains(got, "502") {
		t.Errorf("what was open: got %q", got)
	}
	select {
	case <-p.done:
		t.Error("it did not wait")
	default:
	}
	conn.Close()
	eventually(t, "no stream is open", func() bool { return c.Streams() == 0 })
	c.Close()
	select {
	case <-p.done:
	case <-time.After(patient):
		t.Fatal("it does not stop")
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("got exit %d, want 0", code)
	}
}

func TestWhereASessionIsRequiredNoOtherConnectionIsServed(t *testing.T) {
	needRoot(t)
	p, address := startFar(t, "--agent-check", "require")
	j := newJump(t, p)
	var none *tunnel.NoGateError
	if _, err := j.carry(address); !errors.As(err, &none) {
		t.Errorf("got %v, want that no gate answers", err)
	}
	eventually(t, "the log says why", func() bool { return p.said("without an SSM session was refused") })
}

// Who may open sessions with another document, for something else, gets none to the
// gate where its own is required; where it is only looked for, that is on record.
func TestASessionOfAnotherDocumentIsRefusedWhereOneIsRequired(t *testing.T) {
	session := witness.Session{ID: "ann-0123", Document: "AWS-StartPortForwardingSession", Owner: "arn:aws:iam::123456789012:user/ann"}
	lost := errors.New("no process has it open")
	for _, tt := range []struct {
		check    agentCheck
		document string
		fails    error
		want     string // of the error; empty: none
	}{
		{checkRequire, "jumpsuite-docker", nil, ""},
		{checkRequire, "AWS-StartPortForwardingSession", nil, "session ann-0123 was started with the document AWS-StartPortForwardingSession, not jumpsuite-docker"},
		{checkRequire, "", nil, "session ann-0123 was started with the document , not jumpsuite-docker"},
		{checkRequire, "jumpsuite-docker", lost, lost.Error()},
		{checkRecord, "AWS-StartPortForwardingSession", nil, ""},
		{checkRecord, "jumpsuite-docker", lost, lost.Error()},
		{checkOff, "AWS-StartPortForwardingSession", nil, "not looked for"},
	} {
		s := session
		s.Document = tt.document
		f := &far{check: tt.check, document: "jumpsuite-docker", look: func(net.Conn) (witness.Session, error) { return s, tt.fails }}
		got, err := f.session(nil)
		if tt.want == "" && (err != nil || got != s) || tt.want != "" && (err == nil || err.Error() != tt.want) {
			t.Errorf("%s, %q, %v: got %v, %v", tt.check, tt.document, tt.fails, got, err)
		}
		if said := describe(got, err); tt.want == "" && said != "ssm session ann-0123 of "+tt.document+" by "+s.Owner {
			t.Errorf("on record: %s", said)
		}
	}
}

func TestHealth(t *testing.T) {
	needRoot(t)
	p := start(t, "unix:///nonexistent")
	o := options{unix: p.socket}
	if err := o.health(context.Background()); err == nil || !strings.Contains(err.Error(), "the gate answers 502") {
		t.Errorf("without an Engine: got %v", err)
	}
	o.unix += "x"
	if err := o.health(context.Background()); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("without a gate: got %v", err)
	}
}

// asNobody runs a command of sh as a user with no rights, with fd 3 a connection
// to the address.
func asNobody(t *testing.T, address, script string) *exec.Cmd {
	t.Helper()
	host, port, _ := net.SplitHostPort(address)
	cmd := exec.Command("bash", "-c", "exec 3<>/dev/tcp/"+host+"/"+port+"; "+script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	return cmd
}

// A port of the loopback is open to everybody on the host. Only the SSM agent,
// which is root, has business there: others would take the sessions' places.
func TestAUserOfTheHostTakesNoPlaceOfASession(t *testing.T) {
	needRoot(t)
	p, address := startFar(t)
	j := newJump(t, p)
	said, err := asNobody(t, address, "head -c 1 <&3").CombinedOutput()
	if err != nil || len(said) > 0 {
		t.Errorf("somebody who is not the agent: got %q, %v; want nothing", said, err)
	}
	crowd := asNobody(t, address, "for i in $(seq 4 100); do eval \"exec $i<>/dev/tcp/${0%:*}/${0##*:}\"; done; echo there; sleep 100")
	crowd.Args = append(crowd.Args, address)
	out, err := crowd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := crowd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { crowd.Process.Kill(); crowd.Wait() }()
	out.Read(make([]byte, 6))
	c, err := j.carry(address)
	if err != nil {
		t.Fatalf("with %d connections of others: %v", 97, err)
	}
	if _, err := j.open(c, devHello); err != nil {
		t.Error(err)
	}
	eventually(t, "the log names who it was", func() bool { return p.said("by uid 65534") })
}

func TestItIsSaidOnceWhereTheKernelDoesNotTellWhoConnects(t *testing.T) {
	var log bytes.Buffer
	f := &far{log: slog.New(slog.NewTextHandler(&log, nil))}
	one, other := net.Pipe() // no socket, so that the kernel cannot be asked about it
	defer one.Close()
	defer other.Close()
	for range 2 {
		if !f.mayComeIn(one) {
			t.Error("turned away; want the keys to decide")
		}
	}
	if n := strings.Count(log.String(), "the kernel does not tell"); n != 1 {
		t.Errorf("said %d times, want once: %s", n, log.String())
	}
}

// Whoever may open sessions to the port, for something else, could open as many as
// there are places, and say nothing, or one byte in a while: they make room for
// those who say who they are. These stay.
func TestHalfOpenSessionsKeepNobodyOut(t *testing.T) {
	needRoot(t)
	p, address := startFar(t)
	j := newJump(t, p)
	first, err := j.carry(address)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := j.open(first, devHello)
	if err != nil {
		t.Fatal(err)
	}
	var silent []net.Conn
	for i := range 3 * maxCarriers {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i%2 == 0 {
			c.Write([]byte{1}) // the beginning of a record
		}
		silent = append(silent, c)
	}
	for range 3 {
		c, err := j.carry(address)
		if err != nil {
			t.Fatalf("with %d sessions in which nobody speaks: %v", len(silent), err)
		}
		if _, err := j.open(c, devHello); err != nil {
			t.Error(err)
		}
	}
	if got := ask(t, conn, "/_ping"); !strings.Contains(got, "HTTP/1.1") {
		t.Errorf("the first was closed: %s", got)
	}
	eventually(t, "the log says so", func() bool { return p.said("too many sessions at a time") })
}

// An r3-ssm that is killed leaves its sessions behind until AWS ends them. They make
// room, as long as nothing is open in them.
func TestSessionsInWhichNothingIsOpenMakeRoom(t *testing.T) {
	needRoot(t)
	p, address := startFar(t)
	j := newJump(t, p)
	busy, err := j.carry(address)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := j.open(busy, devHello)
	if err != nil {
		t.Fatal(err)
	}
	var left []*tunnel.Carrier
	for range maxCarriers + 5 {
		c, err := j.carry(address)
		if err != nil {
			t.Fatalf("with %d sessions in which nothing is open: %v", len(left), err)
		}
		s, err := j.open(c, devHello)
		if err != nil {
			t.Fatalf("with %d sessions in which nothing is open: %v", len(left), err)
		}
		s.Close()
		eventually(t, "it is closed at the host, too", func() bool { return c.Streams() == 0 })
		left = append(left, c)
	}
	<-left[0].Done()
	if got := ask(t, conn, "/_ping"); !strings.Contains(got, "HTTP/1.1") {
		t.Errorf("the first, in which a stream is open, was closed: %s", got)
	}
}

// Two thousand at once, of one user of the host, on the socket for local callers:
// he is served as many as he may have, and others as well as ever.
func TestTwoThousandConnectionsAtOnce(t *testing.T) {
	needRoot(t)
	p := start(t, "unix:///nonexistent", "--mode", "0666")
	for _, dir := range []string{p.dir, filepath.Dir(p.dir)} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const many = 2000
	answered := make(chan string, many)
	for range many {
		go func() { answered <- pings(t, p.socket) }()
	}
	// While they are there.
	other := make(chan string)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 65534, ^uintptr(0)); errno != 0 {
			other <- errno.Error()
			return
		}
		other <- pings(t, p.socket)
	}()
	if got := <-other; !strings.Contains(got, " 502 ") {
		t.Errorf("somebody else's: got %q, want the gate's answer", got)
	}
	count := map[bool]int{}
	for range many {
		count[strings.Contains(<-answered, " 502 ")]++
	}
	if count[true] == 0 || count[false] == 0 {
		t.Errorf("%d were served, and %d were not", count[true], count[false])
	}
	eventually(t, "the log says so", func() bool { return p.said("turned away") })
}

// pings asks for what needs no right, and returns the beginning of the answer. The
// connection stays open.
func pings(t *testing.T, socket string) string {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return err.Error()
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patient))
	io.WriteString(c, "GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
	b := make([]byte, 64)
	n, _ := io.ReadFull(c, b)
	return string(b[:n])
}
