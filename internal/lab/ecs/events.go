package ecs

import (
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// maxEvents is how many events a service shows.
const maxEvents = 100

// repeat is when an event is told again whose cause has not gone.
const repeat = 6 * time.Hour

// tell adds an event: the text follows "(service NAME) ".
func (p *Plane) tell(s *service, text string) {
	at := p.now().Truncate(time.Millisecond)
	if len(s.events) > 0 && !at.After(*s.events[0].CreatedAt) {
		// As on AWS, each event is a millisecond after the one before.
		at = s.events[0].CreatedAt.Add(time.Millisecond)
	}
	e := types.ServiceEvent{Id: ptr(p.uuid()), CreatedAt: when(at), Message: ptr("(service " + s.name + ") " + text)}
	events := make([]types.ServiceEvent, 0, min(len(s.events)+1, maxEvents))
	events = append(events, e)
	s.events = append(events, s.events[:min(len(s.events), maxEvents-1)]...)
}

// condition tells of something that lasts: once for as long as it lasts, and
// again after six hours. Only the place in key is looked at, so that a text that
// changes does not repeat it.
func (p *Plane) condition(s *service, key, text string) {
	last, ok := s.conditions[key]
	if ok && last.text == text && p.now().Sub(last.at) < repeat {
		return
	}
	s.conditions = withCondition(s.conditions, key, condition{text, p.now()})
	p.tell(s, text)
}

func withCondition(m map[string]condition, key string, c condition) map[string]condition {
	if m == nil {
		m = map[string]condition{}
	}
	m[key] = c
	return m
}

// over says that the cause of an event has gone.
func (s *service) over(key string) { delete(s.conditions, key) }

// writeNotes makes events of the targets that came and went.
func (p *Plane) writeNotes(s *service) {
	for _, arn := range sortedKeys(s.notes.registered) {
		p.tell(s, fmt.Sprintf("registered %d targets in (target-group %s)", s.notes.registered[arn], arn))
	}
	for _, arn := range sortedKeys(s.notes.deregistered) {
		p.tell(s, fmt.Sprintf("deregistered %d targets in (target-group %s)", s.notes.deregistered[arn], arn))
	}
	s.notes = notes{}
}

// noteTarget remembers that a target was registered or deregistered.
func noteTarget(m *map[string]int, arn string) {
	if *m == nil {
		*m = map[string]int{}
	}
	(*m)[arn]++
}

// tasksText lists tasks as events do: "(task ID) (task ID)".
func tasksText(tasks []*task) string {
	parts := make([]string, len(tasks))
	for i, t := range tasks {
		parts[i] = "(task " + t.id + ")"
	}
	return strings.Join(parts, " ")
}

// startedText is the event for tasks that were started, replaced of them
// because others were unhealthy.
func startedText(tasks []*task, replaced int) string {
	text := fmt.Sprintf("has started %d tasks: %s.", len(tasks), tasksText(tasks))
	if replaced > 0 {
		text += fmt.Sprintf(" Amazon ECS replaced %d tasks due to an unhealthy status.", replaced)
	}
	return text
}

// tellStops makes events of tasks that the scheduler stops.
func (p *Plane) tellStops(s *service, stops []stopped) {
	var running []*task
	pending, draining := 0, 0
	for _, x := range stops {
		if x.pending {
			pending++
			continue
		}
		running = append(running, x.task)
		if len(x.task.targets) > 0 {
			draining++
		}
	}
	if pending > 0 {
		p.tell(s, fmt.Sprintf("stopped %d pending tasks.", pending))
	}
	if draining > 0 {
		p.tell(s, fmt.Sprintf("has begun draining connections on %d tasks.", draining))
	}
	if len(running) > 0 {
		p.tell(s, fmt.Sprintf("has stopped %d running tasks: %s.", len(running), tasksText(running)))
	}
}

// stopped is a task that the scheduler stops, and whether it was pending.
type stopped struct {
	task    *task
	pending bool
}
