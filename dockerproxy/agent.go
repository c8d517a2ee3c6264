package dockerproxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/docker/docker/api/types/events"

	"jumpsuite/internal/audit"
)

// The ECS agent stops a container of a task that it still knows once more when
// it sees it come back. It does so with docker stop: a kill, up to the container's
// stop time-out later a die. The watch waits for that, and starts it once more.

// stopTime is the longest that the agent's stop takes: its time-out, 30 s by
// default, and then some.
const stopTime = 45 * time.Second

// agentWatch listens to the events of one container, from before its start.
type agentWatch struct {
	up     *upstream
	events chan events.Message
	cancel context.CancelFunc
}

func (g *Gate) watchTime() time.Duration {
	if g.Watch == 0 {
		return defaultWatch
	}
	return g.Watch
}

// watchAgent begins to listen. Where that does not work, nothing is heard.
func (g *Gate) watchAgent(ctx context.Context, id string) *agentWatch {
	ctx, cancel := context.WithCancel(ctx)
	w := &agentWatch{events: make(chan events.Message, 16), cancel: cancel}
	up, err := g.dial(ctx)
	if err != nil {
		return w
	}
	w.up = up
	version, err := g.version(ctx, up)
	if err != nil {
		return w
	}
	ans, err := up.send(version, &ask{method: http.MethodGet, path: "/events", query: url.Values{
		"filters": {formatFilters(map[string][]string{"container": {id}, "type": {"container"}})},
	}})
	if err != nil || ans.status != http.StatusOK {
		return w
	}
	go w.read(ctx, g, ans)
	return w
}

func (w *agentWatch) read(ctx context.Context, g *Gate, ans *answer) {
	defer g.survive()
	dec := json.NewDecoder(newPayload(ans))
	for {
		var m events.Message
		if dec.Decode(&m) != nil {
			return
		}
		select {
		case w.events <- m:
		case <-ctx.Done():
			return
		}
	}
}

func (w *agentWatch) close() {
	w.cancel()
	if w.up != nil {
		w.up.conn.Close()
	}
}

// end is how a container ended while it was watched.
type end struct {
	ended  bool
	killed bool // somebody sent it a signal
	code   string
}

// wait waits for the container's end: for a while, and longer once somebody is
// stopping it.
func (w *agentWatch) wait(ctx context.Context, d time.Duration) end {
	over := time.NewTimer(d)
	defer over.Stop()
	var e end
	for {
		select {
		case <-ctx.Done():
			return e
		case <-over.C:
			return e
		case m := <-w.events:
			switch {
			case m.Action == events.ActionKill:
				e.killed = true
				over.Reset(stopTime)
			case m.Action == events.ActionDie:
				e.ended, e.code = true, m.Actor.Attributes["exitCode"]
				return e
			}
		}
	}
}

// afterStart watches a container that ECS made, starts it once more if it was
// stopped, and returns what there is to say.
func (x *exchange) afterStart(t *target, le *lease, w *agentWatch) string {
	e := w.wait(x.ctx, x.gate.watchTime())
	switch {
	case !e.ended:
		return ""
	case !e.killed:
		return endedByItself(t, e.code)
	}
	if err := x.startAgain(t, le); err != nil {
		return fmt.Sprintf("%s was stopped right after its start, by the ECS agent most likely, and does not start again: %v", t.shortName(), err)
	}
	if e := w.wait(x.ctx, time.Second); e.ended && !e.killed {
		return endedByItself(t, e.code)
	}
	return fmt.Sprintf("%s was stopped right after its start, as the ECS agent does once with a container of its own that comes back; it was started again", t.shortName())
}

// startAgain starts a container once more, unless somebody else has attached to it
// meanwhile, in order to start it himself, or has done so.
func (x *exchange) startAgain(t *target, le *lease) error {
	unlock, err := x.lockLeases()
	if err != nil {
		return err
	}
	defer unlock()
	now, err := x.gate.Leases.read(t.ID)
	if err != nil {
		return err
	}
	if now == nil || now.Number != le.Number {
		return errors.New("somebody else uses it by now")
	}
	if err := x.recordAgain(); err != nil {
		return err
	}
	return x.startNow(t, le)
}

// recordAgain notes the second start. What cannot be recorded is not done.
func (x *exchange) recordAgain() error {
	e := x.event
	e.Kind, e.Time, e.Detail = audit.Change, time.Now(), "started again, after somebody stopped it at once"
	if err := x.gate.Record(&e); err != nil {
		return fmt.Errorf("it cannot be recorded: %w", err)
	}
	return nil
}

func endedByItself(t *target, code string) string {
	return fmt.Sprintf("%s started and ended by itself (exit code %s): docker logs %s says why; %s",
		t.shortName(), code, t.shortName(), insteadOfStart(t))
}

// insteadOfStart is what helps where a container cannot be started.
func insteadOfStart(t *target) string {
	return "to look into its image: docker run -it --rm --entrypoint sh " + t.Config.Image
}

// startRefusal explains why the Engine does not start a container.
func startRefusal(t *target, err error) error {
	var e *EngineError
	if !errors.As(err, &e) {
		return err
	}
	r := &Refusal{Status: e.Status, Text: e.Text, Engine: true, Recorded: true}
	switch {
	case strings.Contains(e.Text, "cannot join network") && strings.Contains(e.Text, "of a non running container"), strings.Contains(e.Text, "No such container") && strings.HasPrefix(string(t.HostConfig.NetworkMode), "container:"):
		r.Text += "\nhint: it uses the network of its task's pause container, which is gone with the task; " + insteadOfStart(t)
	case strings.Contains(e.Text, "OCI runtime"), strings.Contains(e.Text, "executable file not found"), strings.Contains(e.Text, "no such file or directory"):
		r.Text += "\nhint: its entrypoint cannot be run; " + insteadOfStart(t)
	}
	return r
}
