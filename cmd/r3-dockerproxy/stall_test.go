package main

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"jumpsuite/internal/tunnel"
)

// What stalls is waited out for as long as it takes, a quarter of an hour together:
//
//	R3_TEST_STALLS=1 go test -timeout 30m -v -run Stall ./cmd/r3-dockerproxy

// tap is a connection that sends what is written to it in drops.
type tap struct {
	net.Conn
	drop  int
	every time.Duration
}

func (c *tap) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = c.Conn.Write(b[n:min(len(b), n+c.drop)])
		n += m
		time.Sleep(c.every)
	}
	return n, err
}

// over waits until the other end has closed a connection, reading what it sends.
func over(conn net.Conn) time.Duration {
	began := time.Now()
	io.Copy(io.Discard, conn)
	return time.Since(began)
}

// stallEngine answers everything at once, and logs without an end.
func stallEngine(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "engine.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	id := strings.Repeat("a", 64)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		w.Header().Set("Content-Type", "application/json")
		switch {
		case strings.HasSuffix(r.URL.Path, "/logs"):
			w.Header().Set("Content-Type", "application/vnd.docker.raw-stream")
			line := append([]byte{1, 0, 0, 0, 0, 0, 4, 0}, make([]byte, 1024)...)
			for r.Context().Err() == nil {
				if _, err := w.Write(line); err != nil {
					return
				}
			}
		case strings.Contains(r.URL.Path, "/containers/"+id[:4]), strings.HasSuffix(r.URL.Path, "/containers/web/json"):
			fmt.Fprintf(w, `{"Id":%q,"Name":"/web","State":{"Running":true},"Config":{"Labels":{}},"HostConfig":{"NetworkMode":"none"}}`, id)
		case strings.HasSuffix(r.URL.Path, "/containers/json"):
			io.WriteString(w, "[]")
		default:
			io.WriteString(w, `{"ApiVersion":"1.41","Version":"20.10.24"}`)
		}
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return "unix://" + path
}

const stallPolicy = `
jump-servers:
  - {name: all, keys: ["*"], environments: [test], actions: [docker.version, docker.ps, docker.logs]}
environments:
  - {name: test, cluster: test, region: eu-central-1, production: false}
rules:
  - name: looks
    effect: allow
    principals: [user:root, user:dev1]
    actions: [docker.version, docker.ps, docker.logs]
    environments: [test]
`

// use is what a process uses.
type use struct {
	files, memory int // kB
	cpu           time.Duration
}

func (p *proxy) use() (u use) {
	proc := fmt.Sprintf("/proc/%d/", p.cmd.Process.Pid)
	files, _ := os.ReadDir(proc + "fd")
	u.files = len(files)
	status, _ := os.ReadFile(proc + "status")
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			u.memory, _ = strconv.Atoi(strings.Fields(rest)[0])
		}
	}
	stat, _ := os.ReadFile(proc + "stat")
	if f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:])); len(f) > 12 {
		user, _ := strconv.Atoi(f[11])
		system, _ := strconv.Atoi(f[12])
		u.cpu = time.Duration(user+system) * 10 * time.Millisecond
	}
	return u
}

// stallRig is a gate with an Engine that answers, and a jump server that it trusts.
type stallRig struct {
	*jump
	address string

	mu       sync.Mutex
	carriers []*tunnel.Carrier
}

// carrier is a new one, to be closed by settles.
func (r *stallRig) carrier(t *testing.T) *tunnel.Carrier {
	t.Helper()
	c, err := r.carry(r.address)
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.carriers = append(r.carriers, c)
	return c
}

func newStallRig(t *testing.T) *stallRig {
	needRoot(t)
	p := start(t, stallEngine(t), "--listen", "tcp://127.0.0.1:0")
	p.mu.Lock()
	address := tcpAddress.FindString(p.log.String())
	p.mu.Unlock()
	p.write(stallPolicy)
	return &stallRig{jump: newJump(t, p), address: address}
}

// raw is a connection to the port whose banner was read.
func (r *stallRig) raw(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", r.address)
	if err == nil {
		_, err = io.ReadFull(conn, make([]byte, len("jumpsuite tunnel 1\n")))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// stream is one of a carrier of its own.
func (r *stallRig) stream(t *testing.T) net.Conn {
	t.Helper()
	s, err := r.carrier(t).Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// known is a connection of a caller whom the gate knows.
func (r *stallRig) known(t *testing.T) *tunnel.Conn {
	t.Helper()
	conn, err := r.open(r.carrier(t), devHello)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Time{})
	return conn
}

// tls is the jump server's end of TLS, without what follows it.
func (r *stallRig) tls(t *testing.T, s net.Conn) *tls.Conn {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, r.key.Public(), r.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Client(s, &tls.Config{
		InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: []string{"jumpsuite/1"},
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: r.key}},
	})
}

func TestStallsAreOverInTheirTime(t *testing.T) {
	if os.Getenv("R3_TEST_STALLS") == "" {
		t.Skip("it takes a quarter of an hour: R3_TEST_STALLS=1")
	}
	head := "GET /v1.41/containers/json HTTP/1.1\r\nHost: x\r\n\r\n"
	body := "POST /v1.41/containers/web/exec HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
	chunked := "POST /v1.41/containers/web/exec HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n{"
	slowly := func(conn net.Conn, text string) time.Duration {
		go (&tap{conn, 1, time.Second}).Write([]byte(text + strings.Repeat(" ", 1000)))
		return over(conn)
	}
	local := func(t *testing.T, r *stallRig) net.Conn {
		conn, err := net.Dial("unix", r.gate.socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	rig := newStallRig(t)
	before := rig.gate.use()
	var all sync.WaitGroup
	for _, tt := range []struct {
		name string
		most time.Duration
		run  func(t *testing.T, r *stallRig) time.Duration
	}{
		{"port: nothing is said", time.Minute, func(t *testing.T, r *stallRig) time.Duration { return over(r.raw(t)) }},
		{"port: a record comes byte by byte", time.Minute, func(t *testing.T, r *stallRig) time.Duration {
			conn := r.raw(t)
			go (&tap{conn, 1, 5 * time.Second}).Write([]byte{1, 0x3f, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7})
			return over(conn)
		}},
		{"port: this direction is ended, and nothing was said", time.Second, func(t *testing.T, r *stallRig) time.Duration {
			conn := r.raw(t)
			conn.(*net.TCPConn).CloseWrite()
			return over(conn)
		}},
		{"port: nothing is read, and 200 streams are opened", time.Minute, func(t *testing.T, r *stallRig) time.Duration {
			began := time.Now()
			c, err := tunnel.Carry(t.Context(), dialTCP(t, r.address))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			for range 190 {
				s, err := c.Open(t.Context())
				if err != nil {
					break
				}
				s.Write(make([]byte, 4<<10))
			}
			<-c.Done()
			return time.Since(began)
		}},
		{"stream: nothing is said", 20 * time.Second, func(t *testing.T, r *stallRig) time.Duration { return over(r.stream(t)) }},
		{"stream: TLS comes byte by byte", 20 * time.Second, func(t *testing.T, r *stallRig) time.Duration {
			s := r.stream(t)
			go r.tls(t, &tap{s, 1, time.Second}).Handshake()
			return over(s)
		}},
		{"stream: no hello follows TLS", 20 * time.Second, func(t *testing.T, r *stallRig) time.Duration {
			c := r.tls(t, r.stream(t))
			if err := c.Handshake(); err != nil {
				t.Fatal(err)
			}
			return over(c)
		}},
		{"stream: the hello comes byte by byte", 20 * time.Second, func(t *testing.T, r *stallRig) time.Duration {
			c := r.tls(t, r.stream(t))
			if err := c.Handshake(); err != nil {
				t.Fatal(err)
			}
			go (&tap{c, 1, time.Second}).Write([]byte("\x01\x00\x01\x00" + `{"user":"dev1"`))
			return over(c)
		}},
		{"stream: a head comes byte by byte", 15 * time.Second, func(t *testing.T, r *stallRig) time.Duration { return slowly(r.known(t), head[:40]) }},
		{"stream: a body comes byte by byte", 15 * time.Second, func(t *testing.T, r *stallRig) time.Duration {
			c := r.known(t)
			c.Write([]byte(body))
			return slowly(c, "")
		}},
		{"stream: a body in chunks comes byte by byte", 15 * time.Second, func(t *testing.T, r *stallRig) time.Duration {
			c := r.known(t)
			c.Write([]byte(chunked))
			return slowly(c, "")
		}},
		{"socket: a head comes byte by byte", 15 * time.Second, func(t *testing.T, r *stallRig) time.Duration { return slowly(local(t, r), head[:40]) }},
		{"socket: a body comes byte by byte", 15 * time.Second, func(t *testing.T, r *stallRig) time.Duration {
			c := local(t, r)
			c.Write([]byte(body))
			return slowly(c, "")
		}},
		{"socket: a body in chunks comes byte by byte", 15 * time.Second, func(t *testing.T, r *stallRig) time.Duration {
			c := local(t, r)
			c.Write([]byte(chunked))
			return slowly(c, "")
		}},
	} {
		all.Add(1)
		go func() {
			defer all.Done()
			took := tt.run(t, rig)
			t.Logf("%-55s over after %6.1f s, of %v", tt.name, took.Seconds(), tt.most)
			if took > 2*tt.most+5*time.Second {
				t.Errorf("%s: it took %v, want %v", tt.name, took, tt.most)
			}
		}()
	}
	all.Wait()
	settles(t, rig, before)
}

// settles waits until the gate uses what it did, or nearly so.
func settles(t *testing.T, r *stallRig, before use) {
	t.Helper()
	for _, c := range r.carriers {
		c.Close()
	}
	eventually(t, "the files are closed", func() bool { return r.gate.use().files <= before.files+2 })
	after := r.gate.use()
	t.Logf("before: %+v; after: %+v", before, after)
}

func dialTCP(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// What is read by nobody for long costs nobody else anything: the streams beside it
// go on, and the processor has nothing to do. A carrier that is not heard of while
// streams are open is over after ten minutes.
func TestStallsOfReadersCostNobodyAnything(t *testing.T) {
	if os.Getenv("R3_TEST_STALLS") == "" {
		t.Skip("it takes a quarter of an hour: R3_TEST_STALLS=1")
	}
	const logs = "GET /v1.41/containers/web/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: x\r\n\r\n"
	rig := newStallRig(t)
	before := rig.gate.use()

	// One stream of a carrier is not read, the others are.
	c := rig.carrier(t)
	for range 20 {
		conn, err := rig.open(c, devHello)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Time{})
		io.WriteString(conn, logs)
	}
	time.Sleep(5 * time.Second)
	quick, err := rig.open(c, devHello)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if got := ask(t, quick, "/v1.41/containers/json"); !strings.Contains(got, "200 OK") {
		t.Errorf("beside 20 that nobody reads: got %q", got)
	}
	t.Logf("beside 20 streams that nobody reads an answer took %v", time.Since(began))
	rig.costs(t, "20 streams that nobody reads", 20*time.Second)

	// The connection itself is not read: the SSM agent hangs, or its websocket does.
	stuck := &deaf{Conn: dialTCP(t, rig.address), hears: make(chan struct{})}
	d, err := tunnel.Carry(t.Context(), stuck)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	for range 50 {
		conn, err := rig.open(d, devHello)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Time{})
		io.WriteString(conn, logs)
		if _, err := conn.Read(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
	stuck.stop()
	time.Sleep(5 * time.Second)
	rig.costs(t, "50 streams of a carrier that nobody reads", 20*time.Second)
	again, err := rig.open(c, devHello)
	if err != nil {
		t.Fatal(err)
	}
	if got := ask(t, again, "/v1.41/containers/json"); !strings.Contains(got, "200 OK") {
		t.Errorf("beside a carrier that nobody reads: got %q", got)
	}
	c.Close()

	// Nobody closes that one: its jump server is gone.
	began = time.Now()
	for time.Since(began) < 25*time.Minute && rig.gate.use().files > before.files+3 {
		time.Sleep(time.Second)
	}
	t.Logf("a carrier that is not heard of was over after %v", time.Since(began))
	settles(t, rig, before)
}

// costs prints what the gate's processor time is meanwhile.
func (r *stallRig) costs(t *testing.T, what string, d time.Duration) {
	t.Helper()
	a := r.gate.use()
	time.Sleep(d)
	b := r.gate.use()
	share := float64(b.cpu-a.cpu) / float64(d)
	t.Logf("%s: %.1f %% of a processor, %d kB, %d files", what, 100*share, b.memory, b.files)
	if share > 0.1 {
		t.Errorf("%s: %.0f %% of a processor", what, 100*share)
	}
}

// deaf is a connection that can stop to be read, and to be written.
type deaf struct {
	net.Conn
	mu    sync.Mutex
	ended bool
	hears chan struct{}
}

func (c *deaf) stop() {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
}

func (c *deaf) stopped() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

func (c *deaf) Read(b []byte) (int, error) {
	if c.stopped() {
		<-c.hears
	}
	return c.Conn.Read(b)
}

func (c *deaf) Write(b []byte) (int, error) {
	if c.stopped() {
		<-c.hears
	}
	return c.Conn.Write(b)
}

func (c *deaf) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.hears:
	default:
		close(c.hears)
	}
	return c.Conn.Close()
}

// As many sessions as there may be, each with as much in it as may arrive before
// anybody has said who he is.
func TestStallsOfStrangersTakeNoMoreMemoryThanThereIs(t *testing.T) {
	if os.Getenv("R3_TEST_STALLS") == "" {
		t.Skip("it takes minutes: R3_TEST_STALLS=1")
	}
	rig := newStallRig(t)
	before := rig.gate.use()
	for range maxCarriers {
		c := rig.carrier(t)
		for i := range 12 {
			s, err := c.Open(t.Context())
			if err != nil {
				break
			}
			if i >= 8 { // those before are looked at, and these wait
				go s.Write(make([]byte, 240<<10))
			}
		}
	}
	most := before
	for range 100 {
		time.Sleep(100 * time.Millisecond)
		if u := rig.gate.use(); u.memory > most.memory {
			most = u
		}
	}
	t.Logf("before: %+v; at most: %+v", before, most)
	if most.memory > 200<<10 {
		t.Errorf("%d kB for those who have not said who they are", most.memory)
	}
	time.Sleep(70 * time.Second)
	settles(t, rig, before)
	time.Sleep(3 * time.Minute)
	t.Logf("three minutes later: %+v", rig.gate.use())
}
