package dockerproxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"jumpsuite/internal/audit"
)

// logged keeps what a gate logs.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logged) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func keepLog(g *Gate) *logged {
	l := new(logged)
	g.Log = slog.New(slog.NewTextHandler(l, nil))
	return l
}

// A mistake of ours in one exchange ends that exchange: the others go on, no
// lock stays taken, and it is on record.
func TestAPanicEndsItsConnectionAlone(t *testing.T) {
	var broken atomic.Bool
	var said *logged
	fake := newFakeEngine(t)
	h := newHarness(t, fake.socket, "test", func(g *Gate) {
		said = keepLog(g)
		dial := g.Engine
		g.Engine = func(ctx context.Context) (net.Conn, error) {
			if broken.Load() {
				panic("a mistake in the dialer")
			}
			return dial(ctx)
		}
	})
	stream, br := startExec(t, h, "other", `{"AttachStdin":true,"AttachStdout":true,"Cmd":["cat"]}`, `{"Detach":false,"Tty":false}`)
	broken.Store(true)
	for _, raw := range []string{post("/v1.41/containers/stopped/start", ""), get("/v1.41/containers/json")} {
		a := exchangeRaw(t, h.socket("dev"), raw)
		if a.status != http.StatusInternalServerError || !a.last || !strings.Contains(a.body, "mistake") {
			t.Errorf("%.30q: got %d %s, the last %v; want 500 and the end of the connection", raw, a.status, a.body, a.last)
		}
	}
	broken.Store(false)
	if a := exchangeRaw(t, h.socket("dev"), post("/v1.41/containers/stopped/start", "")); a.status != http.StatusNoContent {
		t.Errorf("afterwards: got %d %s, want 204", a.status, a.body)
	}
	io.WriteString(stream, "still here")
	got := make([]byte, len("still here"))
	if _, err := io.ReadFull(br, got); err != nil || string(got) != "still here" {
		t.Errorf("the other's stream: got %q, %v", got, err)
	}
	if !strings.Contains(said.text(), "a mistake in the dialer") || !strings.Contains(said.text(), "panic_test.go") {
		t.Errorf("the log does not say what happened, and where: %s", said.text())
	}
	says := func(e audit.Event) bool {
		return strings.Contains(e.Reason, errPanic.Error()) || e.Result != nil && strings.Contains(e.Result.Error, errPanic.Error())
	}
	if !slices.ContainsFunc(h.log.all(), says) {
		t.Errorf("it is not on record: %+v", h.log.all())
	}
}

// clumsy is a recording with mistakes in it.
type clumsy struct {
	tape
	input, output bool
}

func (c *clumsy) Write(b []byte) (int, error) {
	if c.output {
		panic("a mistake in the recorder")
	}
	return c.tape.Write(b)
}

func (c *clumsy) Input(b []byte) error {
	if c.input {
		panic("a mistake in the recorder")
	}
	return c.tape.Input(b)
}

func TestAPanicInAStreamEndsItOnRecord(t *testing.T) {
	for name, rec := range map[string]*clumsy{"of its input": {input: true}, "of its output": {output: true}} {
		t.Run(name, func(t *testing.T) {
			rec.failed = make(chan struct{})
			h := newHarness(t, newFakeEngine(t).socket, "taped", func(g *Gate) { g.Recorder = func(Session) (Recording, error) { return rec, nil } })
			conn, br := startExec(t, h, "dev", `{"AttachStdin":true,"AttachStdout":true,"Tty":true,"Cmd":["cat"]}`, `{"Detach":false,"Tty":true}`)
			io.WriteString(conn, "x")
			if b, _ := io.ReadAll(br); len(b) > 0 {
				t.Errorf("got %q, want nothing", b)
			}
			eventually(t, "its close is on record", func() bool {
				return slices.ContainsFunc(h.log.all(), func(e audit.Event) bool {
					return e.Kind == audit.Close && e.Result.Error == errPanic.Error()
				})
			})
			eventually(t, "the recording is closed", func() bool { return rec.closed })
			eventually(t, "nothing is left open", func() bool {
				h.gate.mu.Lock()
				defer h.gate.mu.Unlock()
				return len(h.gate.open) == 0 && h.gate.inside == 0
			})
		})
	}
}

func TestAllCallersTogetherCannotTakeMoreThanThereIs(t *testing.T) {
	h := oneGate(t, newFakeEngine(t).socket, "test", func(g *Gate) { g.AllConnections = 2 })
	for _, user := range []string{"dev", "other"} {
		conn, err := net.Dial("unix", h.socket(user))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	eventually(t, "two are open", func() bool {
		h.gate.mu.Lock()
		defer h.gate.mu.Unlock()
		return h.gate.inside == 2
	})
	if a := exchangeRaw(t, h.socket("reader"), get("/_ping")); a.status != http.StatusServiceUnavailable {
		t.Errorf("the third: got %d, want 503", a.status)
	}
}

// A flood of connections that nobody is behind fills no log.
func TestConnectionsThatAreTurnedAwayAreLoggedTogether(t *testing.T) {
	g := &Gate{}
	said := keepLog(g)
	for range 1000 {
		ours, theirs := net.Pipe()
		go func() {
			io.WriteString(ours, "HEAD ")
			io.Copy(io.Discard, ours)
		}()
		g.welcome(t.Context(), theirs, func(context.Context, net.Conn) (Caller, error) { return Caller{}, errors.New("nobody") })
		ours.Close()
	}
	if n := strings.Count(said.text(), "turned away"); n != 1 {
		t.Errorf("got %d lines, want 1", n)
	}
	g.turned.since = g.turned.since.Add(-2 * crowdTime)
	g.turnAway("one more")
	if !strings.Contains(said.text(), "connections=1000") {
		t.Errorf("the next line does not say how many: %s", said.text())
	}
}
