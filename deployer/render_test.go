package deployer

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

func progressed(at time.Time, changed bool) Event {
	return Event{Time: at, Kind: Progressed, Message: "1 of 2 new tasks healthy", Progress: &Progress{Desired: 2, Healthy: 1}, Changed: changed}
}

func TestLinesLeaveOutProgressThatIsTheSame(t *testing.T) {
	var b strings.Builder
	l := &Lines{W: &b}
	for _, e := range []Event{
		progressed(noon, true), progressed(noon.Add(30*time.Second), false), progressed(noon.Add(time.Minute), false),
		{Time: noon.Add(2 * time.Minute), Kind: Done, Message: "web runs web:2"},
	} {
		l.Tell(e)
	}
	want := "2026-11-23T12:00:00Z 1 of 2 new tasks healthy\n" +
		"2026-11-23T12:01:00Z 1 of 2 new tasks healthy\n" +
		"2026-11-23T12:02:00Z deployed: web runs web:2\n"
	if b.String() != want {
		t.Errorf("got:\n%swant:\n%s", b.String(), want)
	}
}

func TestLinesShowNoControlCharacters(t *testing.T) {
	var b strings.Builder
	(&Lines{W: &b}).Tell(Event{Time: noon, Kind: ServiceSaid, Message: "\x1b[2Jboo"})
	if want := "2026-11-23T12:00:00Z ECS: \\u001b[2Jboo\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
	b.Reset()
	(&Lines{W: &b}).Tell(Event{Time: noon, Kind: TaskStopped, Message: "no such file\n2026-11-23T12:00:00Z deployed: web"})
	if want := "2026-11-23T12:00:00Z stopped: no such file 2026-11-23T12:00:00Z deployed: web\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestJSONIsOneEventALine(t *testing.T) {
	var b strings.Builder
	j := &JSON{W: &b}
	j.Tell(Event{Time: noon, Kind: Updated, ContainerType: "web", Deployment: "ecs-svc/1", Message: "began\nnow"})
	j.Tell(progressed(noon, true))
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines:\n%s", len(lines), b.String())
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &got); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"time": "2026-11-23T12:00:00Z", "event": "updated", "containerType": "web", "deployment": "ecs-svc/1", "message": "began\nnow"} {
		if got[key] != want {
			t.Errorf("%s is %v, want %s", key, got[key], want)
		}
	}
}

// gone is a reader that went away.
type goneReader struct{ writes int }

func (g *goneReader) Write([]byte) (int, error) {
	g.writes++
	return 0, errors.New("input/output error")
}

func TestRenderersGoOnWithoutAReader(t *testing.T) {
	for name, make := range map[string]func(*goneReader) Renderer{
		"lines": func(g *goneReader) Renderer { return &Lines{W: g} },
		"json":  func(g *goneReader) Renderer { return &JSON{W: g} },
		"live":  func(g *goneReader) Renderer { return &Live{W: g, Columns: func() int { return 80 }} },
	} {
		g := &goneReader{}
		r := make(g)
		r.Tell(progressed(noon, true))
		r.Tell(Event{Time: noon, Kind: Done})
		r.End()
		if g.writes < 2 {
			t.Errorf("%s: %d writes, want it to go on", name, g.writes)
		}
	}
}

func TestLiveLineFitsTheTerminal(t *testing.T) {
	var b strings.Builder
	l := &Live{W: &b, Columns: func() int { return 40 }}
	l.Tell(Event{Time: noon, Kind: Updated, Message: "began"})
	l.Tell(progressed(noon.Add(75*time.Second), true))
	last := b.String()[strings.LastIndex(b.String(), "\x1b[K")+3:]
	if want := "[##########----------] 1m15s  1 of 2 n…"; last != want || len([]rune(last)) > 39 {
		t.Errorf("the line is %q, want %q", last, want)
	}
	l.End()
	if !strings.HasSuffix(b.String(), "\r\x1b[K") {
		t.Errorf("the line stays: %q", b.String())
	}
}
