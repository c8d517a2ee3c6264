package deployer

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"jumpsuite/internal/cli"
)

// Renderer shows events. It has no errors: a reader that went away, or a
// terminal that was closed, must not stop a deployment from being followed or
// rolled back.
type Renderer interface {
	Tell(Event)
	// End is called when nothing more will be told.
	End()
}

// heartbeat is after how much of AWS's time a progress that has not changed is
// shown again, so that nobody takes waiting for hanging.
const heartbeat = time.Minute

// JSON writes each event as one line of JSON.
type JSON struct {
	W io.Writer

	shown time.Time
}

// Tell writes e, but for progress that is the same as before.
func (j *JSON) Tell(e Event) {
	if stale(e, &j.shown) {
		return
	}
	encoder := json.NewEncoder(j.W)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(e) // see Renderer
}

// End does nothing.
func (j *JSON) End() {}

// stale reports whether e is progress that need not be shown.
func stale(e Event, shown *time.Time) bool {
	if e.Kind != Progressed {
		return false
	}
	if !e.Changed && e.Time.Sub(*shown) < heartbeat {
		return true
	}
	*shown = e.Time
	return false
}

// Lines writes each event as a line with AWS's time in front.
type Lines struct {
	W io.Writer
	// Diff is whether a plan is shown with its diff.
	Diff bool

	shown time.Time
}

// Tell writes e, but for progress that is the same as before.
func (l *Lines) Tell(e Event) {
	if stale(e, &l.shown) {
		return
	}
	io.WriteString(l.W, lines(e, l.Diff))
}

// End does nothing.
func (l *Lines) End() {}

func lines(e Event, diff bool) string {
	text := cli.Printable(sentence(e))
	if e.Kind == Planned && e.Plan != nil {
		text += cli.Printable(planText(e.Plan, diff))
	}
	if e.Log != nil {
		text += logText(e.Log.Lines)
	}
	return e.Time.Format("2006-01-02T15:04:05Z") + " " + text + "\n"
}

// sentence is one line: what comes from Docker may have several, and none of
// them may look like one of ours.
func sentence(e Event) string {
	e.Message = strings.ReplaceAll(e.Message, "\n", " ")
	switch e.Kind {
	case Planned:
		return "plan: " + e.Message
	case ServiceSaid:
		return "ECS: " + e.Message
	case TaskStopped:
		return "stopped: " + e.Message
	case TaskLog:
		return "log: " + e.Message
	case Done:
		return "deployed: " + e.Message
	case NothingToDo:
		return "nothing to do: " + e.Message
	case Broke:
		return "failed: " + e.Message
	case NotRolledBack:
		return "not rolled back: " + e.Message
	case Overtaken:
		return "superseded: " + e.Message
	}
	return e.Message
}

// logText are lines of a log, marked so that none looks like one of ours.
func logText(lines []string) string {
	var b strings.Builder
	for _, line := range lines {
		b.WriteString("\n  | " + strings.ReplaceAll(cli.Printable(line), "\n", " "))
	}
	return b.String()
}

func planText(p *Plan, diff bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n  container type %s in cluster %s, container %s, %s", p.ContainerType, p.Cluster, p.Container, p.Base)
	if p.Digest != "" {
		fmt.Fprintf(&b, "\n  the image is %s", p.Digest)
	}
	for i, step := range p.Steps {
		fmt.Fprintf(&b, "\n  %d. %s", i+1, step)
	}
	if p.Back != "" {
		fmt.Fprintf(&b, "\n  if that fails: roll back to %s", p.Back)
	}
	for _, note := range p.Notes {
		fmt.Fprintf(&b, "\n  note: %s", note)
	}
	if diff {
		b.WriteString("\n" + strings.TrimRight(p.Diff, "\n"))
	}
	return b.String()
}

// Quiet tells only how it ended, and what a dry run would do.
type Quiet struct{ Renderer }

// Tell tells e if it is an end.
func (q Quiet) Tell(e Event) {
	switch e.Kind {
	case NothingToDo, Done, Broke, RolledBack, NotRolledBack, Overtaken, Interrupted:
		q.Renderer.Tell(e)
	case Planned:
		if e.Plan != nil && e.Plan.dry {
			q.Renderer.Tell(e)
		}
	}
}
