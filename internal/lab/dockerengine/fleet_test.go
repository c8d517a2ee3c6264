package dockerengine

import (
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"

	"jumpsuite/internal/lab/engine"
)

// launchOn launches a task on a host of a fleet.
func launchOn(t *testing.T, f *Fleet, id, address string) *launched {
	n := &launched{t: t, told: make(chan engine.Event, 100)}
	n.Task = engine.Task{
		ID: id, ARN: "arn:aws:ecs:eu-central-1:123456789012:task/main/" + id, Family: "api", Revision: 7, Cluster: "main", Network: "bridge",
		Host: engine.Host{ID: "i-" + address, IP: address}, Containers: []engine.Container{web("web:1")}, Notify: func(e engine.Event) { n.told <- e },
	}
	f.Launch(n.Task)
	return n
}

func TestHostsOfAFleetHaveTheirOwnContainers(t *testing.T) {
	if err := Available(); err != nil {
		t.Skip(err)
	}
	t.Parallel()
	var c Config
	c.serve(t)
	f, err := StartFleet(t.Context(), c, []string{"10.0.0.1", "10.0.0.2"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	one, two := launchOn(t, f, "a1", "10.0.0.1"), launchOn(t, f, "b2", "10.0.0.2")
	ids := map[string]string{"10.0.0.1": one.expectRunning().RuntimeID, "10.0.0.2": two.expectRunning().RuntimeID}
	for address, id := range ids {
		list, err := f.On(address).docker.ContainerList(t.Context(), container.ListOptions{All: true})
		if err != nil || len(list) != 1 || list[0].ID != id {
			t.Errorf("on %s: %+v, %v; want %s alone", address, list, err, id)
		}
	}
	eventually(t, "both answer", func() bool {
		for _, n := range []*launched{one, two} {
			if status, err := f.Check(t.Context(), n.ID, "web", 80, "/"); err != nil || status != 200 {
				return false
			}
		}
		return true
	})
	f.Kill(one.ID, "web", 4)
	if e := one.expect(engine.Exited); *e.ExitCode != 4 {
		t.Errorf("killed: %+v", e)
	}
	one.expect(engine.AllStopped)
	f.Lose("i-10.0.0.2")
	two.silent()
	if _, err := f.Check(t.Context(), two.ID, "web", 80, "/"); err == nil || !strings.Contains(err.Error(), "the host of task b2 is gone") {
		t.Errorf("of a host that is gone: %v", err)
	}
	if on := f.On("10.0.0.3"); on != nil {
		t.Errorf("a host of nobody's has %v", on)
	}
	late := launchOn(t, f, "c3", "10.0.0.3")
	if e := late.expect(engine.Failed); !strings.Contains(e.Reason, "no Docker Engine for host 10.0.0.3") {
		t.Errorf("on a host that came later: %+v", e)
	}
	late.expect(engine.AllStopped)
}
