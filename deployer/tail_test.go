package deployer_test

import (
	"context"
	"slices"
	"testing"

	"jumpsuite/deployer"
)

const crashWorld = `
clusters: [{name: prod, hosts: [{count: 3}]}]
images:
  - {repository: web, tags: ["1"]}
  - {repository: web, tags: [crash], exit: 1, after: 3s}
services: [{name: web, image: "web:1", desired: 2}]
`

// A log on a host that is slow to reach is told when it is there: the roll-back has
// begun by then.
func TestARollBackDoesNotWaitForALog(t *testing.T) {
	p := play(t, crashWorld)
	back := make(chan struct{})
	p.d.Tell = func(e deployer.Event) {
		p.events = append(p.events, e)
		if e.Kind == deployer.RollingBack {
			close(back)
		}
	}
	p.d.Logs = func(ctx context.Context, _ deployer.Log, _ int) ([]string, error) {
		select {
		case <-back:
			return []string{"panic"}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	_ = p.deploy(t.Context(), "web:crash") // that it fails is on the events
	kind := func(k deployer.Kind) func(deployer.Event) bool {
		return func(e deployer.Event) bool { return e.Kind == k }
	}
	rolling, first := slices.IndexFunc(p.events, kind(deployer.RollingBack)), slices.IndexFunc(p.events, kind(deployer.TaskLog))
	if rolling < 0 || first < rolling {
		t.Fatalf("the roll-back is event %d, the first log event %d", rolling, first)
	}
	logs := slices.DeleteFunc(slices.Clone(p.events), func(e deployer.Event) bool { return e.Kind != deployer.TaskLog })
	if len(logs) != 2 {
		t.Errorf("%d logs are told, want those of 2 tasks", len(logs))
	}
	for _, e := range logs {
		if !slices.Equal(e.Log.Lines, []string{"panic"}) || e.Deployment == p.events[rolling].Deployment {
			t.Errorf("got %+v of deployment %s, want the line, of the deployment that failed", e.Log, e.Deployment)
		}
	}
}

// Who interrupts has his prompt back, whatever is still being read.
func TestAnInterruptionDoesNotWaitForALog(t *testing.T) {
	p := play(t, crashWorld)
	ctx, interrupt := context.WithCancel(t.Context())
	read := make(chan struct{})
	p.d.Logs = func(context.Context, deployer.Log, int) ([]string, error) {
		interrupt()
		<-read
		return nil, nil
	}
	t.Cleanup(func() { close(read) })
	if err := p.deploy(ctx, "web:crash"); err == nil {
		t.Error("an interrupted deployment succeeded")
	}
	if slices.ContainsFunc(p.events, func(e deployer.Event) bool { return e.Kind == deployer.TaskLog }) {
		t.Error("a log is told that was never read")
	}
}
