package deployer

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/cli"
)

// Live shows events on a terminal: lines that scroll, and below them a view of the
// deployment that is drawn anew with each look.
type Live struct {
	W io.Writer
	// Size is how large the terminal is now.
	Size func() (columns, rows int)
	Diff bool
	// Color is whether the view may have colours.
	Color bool

	mu    sync.Mutex
	from  string // the definition that it has
	to    string // the one that is followed
	began time.Time
	usual time.Duration
	last  Event // progress
	wrong string
	drawn []string // the view as it is on the terminal
}

// leastRows is how many rows a terminal must have for more than one line of view.
const leastRows = 10

// Tell shows e.
func (l *Live) Tell(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch e.Kind {
	case Progressed:
		l.last = e
		l.draw("")
		return
	case Planned:
		l.from = e.TaskDefinition
	case Updated, RollingBack:
		if e.Kind == RollingBack {
			l.from = l.to
		}
		l.began, l.usual, l.wrong, l.last = e.Time, e.Usual(), "", Event{}
		l.to = ecsstatus.ShortName(e.TaskDefinition)
	case TaskStopped:
		if e.Task != nil && failed(*e.Task) {
			l.wrong = e.Message
		}
	}
	l.draw(lines(e, l.Diff))
}

// Resized draws the view for another size.
func (l *Live) Resized() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.draw("")
}

// End takes the view away.
func (l *Live) End() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = Event{}
	l.draw("")
}

// draw writes text above the view: it goes to where the view began, clears from
// there, writes, and draws the view again. A terminal that has become narrower
// has broken the lines of the old view: each takes as many rows as it needs now.
func (l *Live) draw(text string) {
	columns, rows := l.Size()
	up := -1
	for _, line := range l.drawn {
		up += max(1, (utf8.RuneCountInString(line)+columns-1)/max(columns, 1))
	}
	home := "\r"
	if up > 0 {
		home = fmt.Sprintf("\r\x1b[%dA", up)
	}
	l.drawn = l.view(columns-1, rows)
	shown := make([]string, len(l.drawn))
	for i, line := range l.drawn {
		shown[i] = l.paint(line)
	}
	io.WriteString(l.W, home+"\x1b[J"+text+strings.Join(shown, "\n"))
}

// paint gives a line its colour: what fails is red, a whole bar green.
func (l *Live) paint(line string) string {
	p := l.last.Progress
	switch {
	case !l.Color || p == nil:
		return line
	case strings.HasPrefix(line, "failing "):
		return "\x1b[31m" + line + "\x1b[0m"
	case strings.HasPrefix(line, "[") && p.Healthy >= p.Desired:
		return "\x1b[32m" + line + "\x1b[0m"
	}
	return line
}

// view is the view, line by line, each no wider than it may be. Where there are
// few rows it is the bar alone.
func (l *Live) view(width, rows int) []string {
	p := l.last.Progress
	if p == nil {
		return nil
	}
	bar := cut(l.bar(width), width)
	if rows > 0 && rows < leastRows {
		return []string{bar}
	}
	out := []string{cut(l.title(), width), bar}
	for _, line := range []string{hostsLine(p.Hosts), l.missing(), l.failing()} {
		if line != "" {
			out = append(out, cut(oneLine(line), width))
		}
	}
	return out
}

// title is "web  web:1 -> web:2  2m10s, usually 3m20s".
func (l *Live) title() string {
	title := l.last.ContainerType + "  " + l.to
	if l.from != "" {
		title = l.last.ContainerType + "  " + l.from + " -> " + l.to
	}
	title += "  " + l.last.Time.Sub(l.began).Truncate(time.Second).String()
	if l.usual > 0 {
		title += ", usually " + l.usual.Round(time.Second).String()
	}
	return oneLine(title)
}

const barWidth = 20

func (l *Live) bar(width int) string {
	p := l.last.Progress
	size := max(min(barWidth, width/3), 1)
	full := size
	if p.Desired > 0 {
		full = min(size*p.Healthy/p.Desired, size)
	}
	running := size
	if p.Desired > 0 {
		running = min(size*p.Running/p.Desired, size)
	}
	running = max(running, full)
	line := fmt.Sprintf("[%s%s%s] %d healthy, %d running of %d", strings.Repeat("#", full), strings.Repeat("=", running-full), strings.Repeat("-", size-running), p.Healthy, p.Running, p.Desired)
	if p.Old+p.Draining > 0 {
		line += fmt.Sprintf("; old: %d, %d draining", p.Old, p.Draining)
	}
	if p.Stage != "" {
		line += "; " + p.Stage
	}
	return oneLine(line)
}

func hostsLine(hosts []HostTasks) string {
	var parts []string
	for _, h := range hosts {
		parts = append(parts, fmt.Sprintf("%s %d new, %d old", h.Host, h.New, h.Old))
	}
	if len(parts) == 0 {
		return ""
	}
	return "hosts: " + strings.Join(parts, "; ")
}

func (l *Live) missing() string {
	if len(l.last.Progress.Missing) == 0 {
		return ""
	}
	return "missing: " + strings.Join(l.last.Progress.Missing, ", ")
}

func (l *Live) failing() string {
	if l.last.Progress.Failed == 0 {
		return ""
	}
	return fmt.Sprintf("failing (%d): %s", l.last.Progress.Failed, cmp.Or(l.wrong, "see above"))
}

// oneLine makes a text safe for a line of the view: no control characters, no tabs.
func oneLine(s string) string {
	return strings.NewReplacer("\t", " ", "\n", " ").Replace(cli.Printable(s))
}

// cut shortens s to n columns.
func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	if n < 1 {
		return ""
	}
	return string([]rune(s)[:n-1]) + "…"
}
