package deployer

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"jumpsuite/ecsstatus"
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
		"live":  func(g *goneReader) Renderer { return &Live{W: g, Size: func() (int, int) { return 80, 24 }} },
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

// screen is what a terminal of some width shows after what was written to it: it
// knows what Live uses, and breaks lines.
type screen struct {
	columns int
	rows    [][]rune
	x, y    int
}

func (s *screen) Write(p []byte) (int, error) {
	text := string(p)
	for text != "" {
		switch {
		case strings.HasPrefix(text, "\x1b["):
			end := strings.IndexAny(text[2:], "AJm") + 2
			s.control(text[2:end], text[end])
			text = text[end+1:]
			continue
		case text[0] == '\r':
			s.x = 0
		case text[0] == '\n':
			s.x, s.y = 0, s.y+1
		default:
			r, n := utf8.DecodeRuneInString(text)
			s.put(r)
			text = text[n:]
			continue
		}
		text = text[1:]
	}
	return len(p), nil
}

func (s *screen) control(arg string, what byte) {
	switch what {
	case 'A':
		n, _ := strconv.Atoi(arg)
		s.y -= n
	case 'J':
		s.rows = s.rows[:min(len(s.rows), s.y+1)]
		if s.y < len(s.rows) {
			s.rows[s.y] = s.rows[s.y][:min(len(s.rows[s.y]), s.x)]
		}
	}
}

func (s *screen) put(r rune) {
	if s.x == s.columns {
		s.x, s.y = 0, s.y+1
	}
	for len(s.rows) <= s.y {
		s.rows = append(s.rows, nil)
	}
	s.rows[s.y] = append(s.rows[s.y][:s.x], r)
	s.x++
}

func (s *screen) String() string {
	var b strings.Builder
	for _, row := range s.rows {
		b.WriteString(strings.TrimRight(string(row), " ") + "\n")
	}
	return b.String()
}

func liveEvents() []Event {
	p := Progress{Desired: 4, Started: 3, Running: 2, Healthy: 1, Failed: 1, Old: 3, Draining: 1, Missing: []string{"1 pending\tnow"}, Hosts: []HostTasks{{"10.0.0.10", 2, 1}, {"10.0.0.11", 1, 2}}}
	stopped := ecsstatus.Task{ID: "4f", StopCode: "EssentialContainerExited"}
	return []Event{
		{Time: noon, Kind: Planned, TaskDefinition: "web:1", Message: "web:1 to web:2"},
		{Time: noon, Kind: Updated, TaskDefinition: "arn:aws:ecs:eu-central-1:1:task-definition/web:2", Message: "began", UsualSeconds: 200},
		{Time: noon.Add(5 * time.Second), Kind: Progressed, ContainerType: "web", Progress: &Progress{Desired: 4, Missing: []string{"4 not started"}}},
		{Time: noon.Add(70 * time.Second), Kind: TaskStopped, Message: "task 4f: exited with \x1b[31m1", Task: &stopped},
		{Time: noon.Add(75 * time.Second), Kind: Progressed, ContainerType: "web", Progress: &p},
	}
}

const scrolled = "2026-11-23T12:00:00Z plan: web:1 to web:2\n2026-11-23T12:00:00Z began\n2026-11-23T12:01:10Z stopped: task 4f: exited with \\u001b[31m1\n"

func TestLiveDrawsTheViewBelowWhatScrolls(t *testing.T) {
	s := &screen{columns: 100}
	l := &Live{W: s, Size: func() (int, int) { return s.columns, 24 }, Color: true}
	for _, e := range liveEvents() {
		l.Tell(e)
	}
	want := scrolled +
		"web  web:1 -> web:2  1m15s, usually 3m20s\n" +
		"[#####=====----------] 1 healthy, 2 running of 4; old: 3, 1 draining\n" +
		"hosts: 10.0.0.10 2 new, 1 old; 10.0.0.11 1 new, 2 old\n" +
		"missing: 1 pending now\n" +
		"failing (1): task 4f: exited with \\u001b[31m1\n"
	if s.String() != want {
		t.Errorf("got\n%s\nwant\n%s", s, want)
	}
	l.End()
	if got := strings.TrimRight(s.String(), "\n") + "\n"; got != scrolled {
		t.Errorf("in the end\n%s\nwant\n%s", got, scrolled)
	}
}

// Narrow, low, and made narrower while it runs: the terminal breaks the lines that
// are there, and nothing of the old view stays.
func TestLiveFitsTheTerminal(t *testing.T) {
	for _, tt := range []struct {
		columns, rows int
		want          string
	}{
		{30, 24, "web  web:1 -> web:2  1m15s, …"},
		{30, 5, "[##==-----] 1 healthy, 2 run…"},
		{9, 24, "web  we…"},
		{20, 24, "web  web:1 -> web:…"},
		{20, 1, "[#==---] 1 healthy…"},
	} {
		s := &screen{columns: tt.columns}
		l := &Live{W: s, Size: func() (int, int) { return tt.columns, tt.rows }}
		for _, e := range liveEvents() {
			l.Tell(e)
		}
		for _, line := range l.drawn {
			if utf8.RuneCountInString(line) > tt.columns-1 {
				t.Errorf("%dx%d: %q is too wide", tt.columns, tt.rows, line)
			}
		}
		if !strings.Contains(s.String(), "\n"+tt.want[:len(tt.want)-len("…")]) || strings.Count(s.String(), "web  ") > 1 {
			t.Errorf("%dx%d: got\n%s\nwant one line %q", tt.columns, tt.rows, s, tt.want)
		}
	}
}

func TestLiveFindsItsViewAfterTheTerminalBrokeIt(t *testing.T) {
	columns := 100
	s := &screen{columns: columns}
	l := &Live{W: s, Size: func() (int, int) { return columns, 24 }}
	for _, e := range liveEvents() {
		l.Tell(e)
	}
	// The terminal becomes 40 wide, and breaks what is there.
	narrow := &screen{columns: 40}
	narrow.Write([]byte(strings.TrimRight(s.String(), "\n")))
	columns, l.W = 40, narrow
	l.Resized()
	if got := narrow.String(); strings.Count(got, "healthy") != 1 || strings.Count(got, "hosts:") != 1 || !strings.Contains(got, "began\n") {
		t.Errorf("got\n%s", got)
	}
}

func TestQuietTellsTheEndAlone(t *testing.T) {
	var b strings.Builder
	q := Quiet{&Lines{W: &b}}
	for _, e := range append(liveEvents(), Event{Time: noon, Kind: Done, Message: "web runs web:2"}) {
		q.Tell(e)
	}
	q.Tell(Event{Time: noon, Kind: Planned, Message: "dry", Plan: &Plan{dry: true}})
	if got := b.String(); !strings.HasPrefix(got, "2026-11-23T12:00:00Z deployed: web runs web:2\n2026-11-23T12:00:00Z plan: dry") {
		t.Errorf("got %q", got)
	}
}
