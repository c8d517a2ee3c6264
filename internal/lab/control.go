package lab

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	ecsapi "github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/internal/lab/clock"
	"jumpsuite/internal/lab/world"
)

// Do makes an action happen now; its At and On do not count.
func (l *Lab) Do(a world.Action) error {
	if err := a.Check(); err != nil {
		return err
	}
	var err error
	switch a.Do {
	case "image-push":
		err = l.push(a)
	case "image-delete":
		err = l.Registry.Delete(a.To)
	case "forward":
		err = l.forward(a)
	case "session-cut":
		err = l.inventory.Cut(a.To, a.Value)
	case "session-end":
		err = l.inventory.End(a.To, a.Value)
	default:
		if err = l.ECS.Do(a); err == nil {
			l.inventoryToo(a)
		}
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", a.Do, a.To, err)
	}
	l.actions.note(l.Clock.Now(), a)
	return nil
}

// push pushes the image that an action describes.
func (l *Lab) push(a world.Action) error {
	img, err := world.ParseImage(a.Value)
	if err != nil {
		return err
	}
	repository, tag, tagged := strings.Cut(strings.TrimPrefix(a.To, l.World.ECR()+"/"), ":")
	if strings.Contains(tag, "/") {
		return fmt.Errorf("%q: images are pushed to the account's ECR, as REPOSITORY:TAG", a.To)
	}
	img.Repository = cmp.Or(img.Repository, repository)
	if tagged && !slices.Contains(img.Tags, tag) {
		img.Tags = append(img.Tags, tag)
	}
	return l.Registry.Push(img)
}

// inventoryToo makes what happened to hosts known to SSM.
func (l *Lab) inventoryToo(a world.Action) {
	switch a.Do {
	case "host-lost", "cluster-empty":
		l.inventory.Lose(a.To)
	case "host-back":
		l.inventory.Back(a.To)
	}
}

// schedule holds the actions that wait for a call, the timers of the others,
// and what has happened.
type schedule struct {
	mu      sync.Mutex
	waiting []world.Action // for a first call
	timers  []*clock.Timer
	stopped bool
	events  []Event
}

// Event is something that happened in the lab.
type Event struct {
	Time time.Time `json:"time"` // lab time
	Text string    `json:"text"`
}

func (s *schedule) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	for _, t := range s.timers {
		t.Stop()
	}
}

func (s *schedule) add(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

func (s *schedule) note(at time.Time, a world.Action) {
	s.add(Event{at, strings.TrimSpace(fmt.Sprintf("lab: %s %s %s", a.Do, a.To, a.Value))})
}

// begin lets the world's actions take their course.
func (l *Lab) begin() {
	for _, a := range l.World.Actions {
		if a.On != "" {
			l.actions.mu.Lock()
			l.actions.waiting = append(l.actions.waiting, a)
			l.actions.mu.Unlock()
			continue
		}
		l.later(a, time.Duration(a.At)-l.Clock.Now().Sub(l.started))
	}
}

// later does an action when d of lab time has passed.
func (l *Lab) later(a world.Action, d time.Duration) {
	l.actions.mu.Lock()
	defer l.actions.mu.Unlock()
	if l.actions.stopped {
		return
	}
	l.actions.timers = append(l.actions.timers, l.Clock.AfterFunc(max(d, 0), func() {
		if err := l.Do(a); err != nil {
			l.log.Error("an action of the world went wrong", "error", err)
			l.actions.add(Event{l.Clock.Now(), "lab: " + err.Error()})
		}
	}))
}

// triggered starts the actions that wait for the first call of an operation.
func (l *Lab) triggered(operation string) {
	l.actions.mu.Lock()
	var now []world.Action
	l.actions.waiting = slices.DeleteFunc(l.actions.waiting, func(a world.Action) bool {
		if a.On == operation {
			now = append(now, a)
		}
		return a.On == operation
	})
	l.actions.mu.Unlock()
	for _, a := range now {
		l.later(a, time.Duration(a.At))
	}
}

// Events are the lab's own events and those of all services, by time.
func (l *Lab) Events(ctx context.Context) []Event {
	l.actions.mu.Lock()
	events := slices.Clone(l.actions.events)
	l.actions.mu.Unlock()
	for _, c := range l.World.Clusters {
		// AWS lists the newest first, and several in one millisecond.
		for _, s := range slices.Backward(l.serviceEvents(ctx, c.Name)) {
			events = append(events, Event{*s.CreatedAt, *s.Message})
		}
	}
	slices.SortStableFunc(events, func(a, b Event) int { return a.Time.Compare(b.Time) })
	return events
}

func (l *Lab) serviceEvents(ctx context.Context, cluster string) []types.ServiceEvent {
	var events []types.ServiceEvent
	for _, s := range l.World.Services {
		if s.Cluster != cluster {
			continue
		}
		out, err := l.ECS.DescribeServices(ctx, &ecsapi.DescribeServicesInput{Cluster: &cluster, Services: []string{s.Name}})
		if err != nil || len(out.Services) == 0 {
			continue
		}
		events = append(events, out.Services[0].Events...)
	}
	return events
}

// controlDo takes an action as JSON: {"do": VERB, "to": WHOM, "value": VALUE}.
func (l *Lab) controlDo(r *http.Request) (any, error) {
	var a struct{ Do, To, Value string }
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&a); err != nil {
		return nil, fmt.Errorf("an action is {\"do\": VERB, \"to\": WHOM, \"value\": VALUE}: %w", err)
	}
	return nil, l.Do(world.Action{Do: a.Do, To: a.To, Value: a.Value})
}

// controlFault takes a fault as YAML, as in a world file.
func (l *Lab) controlFault(r *http.Request) (any, error) {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	f, err := world.ParseFault(text, "fault")
	if err != nil {
		return nil, err
	}
	l.AddFault(f)
	return nil, nil
}

// writeJSON writes v; nil is an empty object.
func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if v == nil {
		v = struct{}{}
	}
	if err := json.NewEncoder(w).Encode(v); err != nil {
		// The status is out already; the caller sees a short answer.
		return
	}
}
