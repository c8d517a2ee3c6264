package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/command/formatter"
)

// screen is what is written, to be read meanwhile.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// shown is the last frame.
func (s *screen) shown() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.b.String()
	return all[strings.LastIndex(all, "\033[H")+1:]
}

// followed is a table that follows, until stop.
func followed(t *testing.T, g *gate) (out *screen, said *bytes.Buffer, stop func() error) {
	t.Helper()
	out, said = &screen{}, &bytes.Buffer{}
	streams, err := command.NewDockerCli(command.WithInputStream(io.NopCloser(strings.NewReader(""))), command.WithOutputStream(out), command.WithErrorStream(said))
	if err != nil {
		t.Fatal(err)
	}
	d := newDocker(g)
	d.DockerCli = streams
	list, err := d.hosts(t.Context(), "stats")
	if err != nil {
		t.Fatal(err)
	}
	tab, err := newTable(statsHeaders, formatter.Format("table {{.ID}}"), "", false)
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{meters: &meters{docker: d, list: list, rows: map[string]row{}}, table: tab, lost: map[int]error{}, pause: 10 * time.Millisecond}
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.follow(ctx) }()
	return out, said, func() error {
		cancel(errStopped)
		return <-ended
	}
}

var errStopped = errors.New("stopped")

func shows(t *testing.T, out *screen, what string, want bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); strings.Contains(out.shown(), what) != want; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%q is shown: %v; the frame is\n%s", what, !want, out.shown())
		}
	}
}

func TestContainersThatBeginAreShown(t *testing.T) {
	f, g := newFleet(t)
	f.news, f.follows = make(chan string), true
	out, said, stop := followed(t, g)
	shows(t, out, strings.Repeat("c", 12), true)
	f.set(&f.more, true)
	f.news <- `{"Type":"container","Action":"start"}`
	shows(t, out, strings.Repeat("d", 12), true)
	if err := stop(); err != errStopped || said.String() != "" {
		t.Errorf("got %v, %q", err, said)
	}
}

func TestAHostThatIsLostIsNamedAndAskedAgain(t *testing.T) {
	for _, tt := range []struct {
		name  string
		again bool
		err   error
		named int
	}{
		{"it comes back", true, errStopped, 0},
		{"it does not", false, errSomeHosts, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, g := newFleet(t)
			f.news, f.follows = make(chan string), true
			out, said, stop := followed(t, g)
			shows(t, out, strings.Repeat("c", 12), true)
			f.set(&f.gone, true)
			f.news <- "" // nothing, so that it is listening
			f.lose()
			shows(t, out, "no answer from: 10.0.0.3", true)
			shows(t, out, strings.Repeat("c", 12), false)
			shows(t, out, strings.Repeat("a", 12), true) // those of the others stay
			if tt.again {
				f.set(&f.gone, false)
				shows(t, out, strings.Repeat("c", 12), true)
				shows(t, out, "no answer", false)
			}
			if err := stop(); err != tt.err || strings.Count(said.String(), "docker: host 10.0.0.3: it is gone") != tt.named {
				t.Errorf("got %v, %q", err, said)
			}
		})
	}
}

// A stream to a host is one of few: what is asked of it again and again is asked on
// the same ones.
func TestWhatIsAskedAgainTakesNoMoreConnections(t *testing.T) {
	const look, attempt = "i-3 GET /containers/json", "i-3 GET /events"
	const few = 10 // one that is not given back yet when the next is wanted is no leak
	f, g := newFleet(t)
	f.news, f.follows = make(chan string), true
	out, _, stop := followed(t, g)
	shows(t, out, strings.Repeat("c", 12), true)
	before := f.given.Load()
	for range 20 {
		n := f.times(look)
		f.news <- `{"Type":"container","Action":"create"}`
		f.until(t, look, n+1)
	}
	if more := f.given.Load() - before; more > few {
		t.Errorf("20 looks at a host took %d connections more, want %d at most", more, few)
	}
	f.set(&f.gone, true)
	f.lose()
	before = f.given.Load()
	f.until(t, attempt, f.times(attempt)+20)
	if more := f.given.Load() - before; more > few {
		t.Errorf("20 attempts at a host that is lost took %d connections more, want %d at most", more, few)
	}
	if err := stop(); err != errSomeHosts {
		t.Errorf("got %v, want that a host is missing", err)
	}
}
