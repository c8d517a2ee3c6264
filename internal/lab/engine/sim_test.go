package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"jumpsuite/internal/lab/clock"
	"jumpsuite/internal/lab/world"
)

// shelf is images by reference.
type shelf map[string]world.Image

func (s shelf) Resolve(ref string) (string, world.Image, error) {
	if i, ok := s[ref]; ok {
		return "sha256:" + ref, i, nil
	}
	return "", world.Image{}, fmt.Errorf("manifest for %s not found: manifest unknown", ref)
}

// told is what an engine told of a task.
type told struct {
	mu     sync.Mutex
	events []Event
}

func (t *told) add(e Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.events = append(t.events, e)
}

// text is the events in short.
func (t *told) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	names := map[Kind]string{PullStarted: "pull", PullStopped: "pulled", Started: "started", Health: "health", Exited: "exited", Failed: "failed", AllStopped: "over"}
	var parts []string
	for _, e := range t.events {
		s := names[e.Kind]
		switch {
		case e.Kind == Health:
			s += fmt.Sprintf("=%t", e.Healthy)
		case e.ExitCode != nil:
			s += fmt.Sprintf("=%d", *e.ExitCode)
		}
		if e.Reason != "" {
			s += " (" + e.Reason + ")"
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, ", ")
}

func (t *told) wait(tt *testing.T, want string) {
	tt.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for t.text() != want {
		if time.Now().After(deadline) {
			tt.Fatalf("told %q, want %q", t.text(), want)
		}
		time.Sleep(time.Millisecond)
	}
}

func newSim(t *testing.T, images shelf) *Sim {
	t.Helper()
	s := NewSim(clock.New(500), images)
	t.Cleanup(func() { s.Close() })
	return s
}

// one is a task with one container of an image.
func one(image string, events *told) Task {
	return Task{ID: "t", Host: Host{ID: "i-1"}, Notify: events.add,
		Containers: []Container{{Name: "c", Image: image, Essential: true, Ports: []Port{{Container: 80, Host: 32768}}, StopTimeout: 30 * time.Second}}}
}

func TestSimPlaysWhatAnImageDoes(t *testing.T) {
	three := 3
	images := shelf{
		"exits":  {Exit: &three, After: world.Duration(time.Second)},
		"oom":    {OOM: true},
		"broken": {StartError: "exec: not found"},
		"arm":    {Arch: "arm64"},
		"arms":   {Platforms: []string{"arm64"}},
		"both":   {Platforms: []string{"arm64", "amd64"}, Exit: &three},
		"sick":   {Unhealthy: true},
		"late":   {HealthyAfter: world.Duration(time.Minute)},
	}
	check := &world.Health{Interval: world.Duration(5 * time.Second), Retries: 2}
	for _, tt := range []struct {
		name, image string
		health      *world.Health
		want        string
	}{
		{"an end", "exits", nil, "pull, pulled, started, exited=3, over"},
		{"out of memory", "oom", nil, "pull, pulled, started, exited=137 (OutOfMemoryError: Container killed due to memory usage), over"},
		{"no start", "broken", nil, "pull, pulled, failed (CannotStartContainerError: Error response from daemon: exec: not found), over"},
		{"no image", "none", nil, "pull, failed (CannotPullContainerError: Error response from daemon: manifest for none not found: manifest unknown), over"},
		{"another architecture", "arm", nil, "pull, pulled, started, exited=255, over"},
		{"several architectures", "both", nil, "pull, pulled, started, exited=3, over"},
		{"several architectures, not the host's", "arms", nil, "pull, failed (CannotPullContainerError: Error response from daemon: no matching manifest for linux/amd64 in the manifest list entries), over"},
		{"bad health", "sick", check, "pull, pulled, started, health=false"},
		{"health that comes late", "late", check, "pull, pulled, started, health=false, health=true"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var events told
			job := one(tt.image, &events)
			job.Containers[0].Health = tt.health
			newSim(t, images).Launch(job)
			events.wait(t, tt.want)
		})
	}
}

func TestSimStopsAndKills(t *testing.T) {
	images := shelf{"quick": {}, "stubborn": {Stop: world.Duration(time.Hour)}}
	for _, tt := range []struct{ image, want string }{
		{"quick", "pull, pulled, started, exited=0, over"},
		{"stubborn", "pull, pulled, started, exited=137, over"},
	} {
		t.Run(tt.image, func(t *testing.T) {
			var events told
			s := newSim(t, images)
			s.Launch(one(tt.image, &events))
			events.wait(t, "pull, pulled, started")
			s.Stop("t")
			events.wait(t, tt.want)
		})
	}
}

func TestSimUsesTheHostsCache(t *testing.T) {
	var events told
	s := newSim(t, shelf{})
	job := one("gone", &events)
	job.Host.Cached = map[string]string{"gone": "sha256:old"}
	s.Launch(job)
	events.wait(t, "pull, pulled, started")
	if got := events.events[2].Digest; got != "sha256:old" {
		t.Errorf("digest %q", got)
	}
}

func TestSimPullsByDigestWhenItIsGiven(t *testing.T) {
	var events told
	s := newSim(t, shelf{"host:5000/a@sha256:x": {}})
	job := one("host:5000/a:tag", &events)
	job.Containers[0].Digest = "sha256:x"
	s.Launch(job)
	events.wait(t, "pull, pulled, started")
}

func TestSimEndsTheOthersWithAnEssentialContainer(t *testing.T) {
	var events told
	s := newSim(t, shelf{"a": {}})
	job := one("a", &events)
	job.Containers = append(job.Containers, Container{Name: "side", Image: "a"})
	s.Launch(job)
	events.wait(t, "pull, pulled, started, started")
	s.Kill("t", "c", 9)
	events.wait(t, "pull, pulled, started, started, exited=9, exited=0, over")
}

func TestSimAnswersChecks(t *testing.T) {
	var events told
	s := newSim(t, shelf{"a": {HTTP: 404}})
	s.Launch(one("a", &events))
	if _, err := s.Check(context.Background(), "t", "c", 80, "/"); err == nil {
		t.Error("a container that is pulled answers")
	}
	events.wait(t, "pull, pulled, started")
	if status, err := s.Check(context.Background(), "t", "c", 80, "/"); status != 404 || err != nil {
		t.Errorf("status %d, %v", status, err)
	}
	if _, err := s.Check(context.Background(), "t", "c", 81, "/"); err == nil {
		t.Error("another port answers")
	}
	status := 200
	s.Override("t", Override{HTTP: &status})
	if got, _ := s.Check(context.Background(), "t", "c", 80, "/"); got != 200 {
		t.Errorf("overridden status is %d", got)
	}
	s.Lose("i-1")
	if _, err := s.Check(context.Background(), "t", "c", 80, "/"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a lost host's error is %v", err)
	}
}

func TestSimAdoptsWhatHasBeenRunning(t *testing.T) {
	var events told
	s := newSim(t, shelf{"a": {}})
	job := one("a", &events)
	job.Running = true
	job.Containers[0].Health = &world.Health{Interval: world.Duration(time.Hour), Retries: 3}
	s.Launch(job)
	events.wait(t, "pull, pulled, started, health=true")
}
