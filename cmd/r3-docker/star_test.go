package main

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"
)

// The star: a container that ECS stopped is started in test and looked into.

// leave makes a container as the ECS agent makes it, and leaves it stopped.
func leave(t *testing.T, name string, more map[string]any) {
	t.Helper()
	config := map[string]any{
		"Image": "lab/web:1", "StopTimeout": 1, "Env": []string{"PATH=/bin"},
		"Cmd": []string{"sh", "-c", "trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done"},
		"Labels": map[string]string{
			"com.amazonaws.ecs.task-definition-family": "web",
			"com.amazonaws.ecs.task-arn":               "arn:aws:ecs:eu-central-1:123456789012:task/test/0123",
		},
	}
	maps.Copy(config, more)
	body, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := engine("POST", "/containers/create?name="+name, strings.NewReader(string(body))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { engine("DELETE", "/containers/"+name+"?force=1", nil) })
}

func runs(t *testing.T, name string) bool {
	t.Helper()
	out, err := engine("GET", "/containers/"+name+"/json", nil)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(out, `"Running":true`)
}

// stopOnce is the ECS agent, which stops a container of its own that comes back.
func stopOnce(t *testing.T, name string) (stopped chan error) {
	stopped = make(chan error, 1)
	go func() {
		for range 600 {
			if out, err := engine("GET", "/containers/"+name+"/json", nil); err == nil && strings.Contains(out, `"Running":true`) {
				_, err := engine("POST", "/containers/"+name+"/stop?t=5", nil)
				stopped <- err
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		stopped <- nil
	}()
	return stopped
}

func TestAContainerThatECSStoppedIsStartedAndLookedInto(t *testing.T) {
	h := need(t, "test")
	leave(t, "ecs-web-left", nil)
	agent := stopOnce(t, "ecs-web-left")
	r := docker(t, h, "", "start", "ecs-web-left")
	if err := <-agent; err != nil {
		t.Fatal(err)
	}
	r.expect(t, "start", 0, "ecs-web-left\n", "ecs-web-left was stopped right after its start, as the ECS agent does once")
	s := on(t, sudoDocker(t, h, "exec", "-it", "ecs-web-left", "sh"), true)
	s.sees("# ", 1)
	s.types("echo in he''re; exit 4\r")
	s.sees("in here", 1)
	s.ends(4)
	docker(t, h, "", "stop", "-t", "1", "ecs-web-left").expect(t, "stop of what was started", 0, "ecs-web-left\n", "")
}

// Who is left alone by the agent is not started twice, and nothing is said.
func TestAStartThatNobodyDisturbsSaysNothing(t *testing.T) {
	h := need(t, "test")
	leave(t, "ecs-web-quiet", nil)
	if r := docker(t, h, "", "start", "ecs-web-quiet"); r.code != 0 || r.err != "" {
		t.Errorf("got %+v, want no word", r)
	}
}

func TestWhatCannotBeStartedSaysWhyAndWhatToDoInstead(t *testing.T) {
	h := need(t, "test")
	leave(t, "ecs-pause", map[string]any{"Cmd": []string{"sleep", "1000"}})
	if _, err := engine("POST", "/containers/ecs-pause/start", nil); err != nil {
		t.Fatal(err)
	}
	leave(t, "ecs-orphan", map[string]any{"HostConfig": map[string]any{"NetworkMode": "container:ecs-pause"}})
	leave(t, "ecs-widow", map[string]any{"HostConfig": map[string]any{"NetworkMode": "container:ecs-pause"}})
	if _, err := engine("POST", "/containers/ecs-pause/stop?t=1", nil); err != nil {
		t.Fatal(err)
	}
	leave(t, "ecs-broken", map[string]any{"Entrypoint": []string{"/no/such/program"}})
	leave(t, "ecs-failing", map[string]any{"Cmd": []string{"sh", "-c", "exit 3"}})
	const instead = "docker run -it --rm --entrypoint sh lab/web:1"
	docker(t, h, "", "start", "ecs-orphan").expect(t, "its pause container has stopped", 1, "", "pause container, which is gone with the task; to look into its image: "+instead)
	if _, err := engine("DELETE", "/containers/ecs-pause", nil); err != nil {
		t.Fatal(err)
	}
	docker(t, h, "", "start", "ecs-widow").expect(t, "its pause container is removed", 1, "", "pause container, which is gone with the task; to look into its image: "+instead)
	docker(t, h, "", "start", "ecs-broken").expect(t, "its entrypoint is broken", 1, "", "its entrypoint cannot be run; to look into its image: "+instead)
	docker(t, h, "", "start", "ecs-failing").expect(t, "it ends by itself", 0, "ecs-failing\n", "started and ended by itself (exit code 3): docker logs ecs-failing says why; to look into its image: "+instead)
	docker(t, h, "echo in the image\n", "run", "-i", "--rm", "--entrypoint", "sh", "lab/web:1").expect(t, "what to do instead", 0, "in the image\n", "")
}

// Where the policy grants it, people clear up what they made or started, and
// nothing else.
func TestWhatOneMadeOrStartedCanBeEndedAndRemoved(t *testing.T) {
	h := need(t, "test")
	container(t, "others", "sleep", "1000")
	leave(t, "ecs-mine", nil)
	docker(t, h, "", "start", "ecs-mine").expect(t, "start", 0, "ecs-mine\n", "")
	docker(t, h, "", "run", "-d", "--name", "mine", "lab/web:1", "sleep", "1000").expect(t, "run -d", 0, "", "")
	t.Cleanup(func() { engine("DELETE", "/containers/mine?force=1", nil) })
	for _, tt := range []struct {
		args     string
		code     int
		out, err string
	}{
		{"kill -s USR1 ecs-mine", 0, "ecs-mine\n", ""},
		{"stop -t 0 ecs-mine", 0, "ecs-mine\n", ""},
		{"kill mine", 0, "mine\n", ""},
		{"rm mine", 0, "mine\n", ""},
		{"kill others", 1, "", "kill is for containers that you made or started here"},
		{"stop others", 1, "", "stop is for containers that you made or started here"},
		{"rm -f others", 1, "", "rm is for containers that you made or started here"},
	} {
		docker(t, h, "", strings.Fields(tt.args)...).expect(t, tt.args, tt.code, tt.out, tt.err)
	}
	if !runs(t, "others") {
		t.Error("the other's container does not run any more")
	}
	if err := h.Belong("prod"); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"stop others", "kill others", "rm -f others"} {
		docker(t, h, "", strings.Fields(args)...).expect(t, args+" in production", 1, "", "(rule floor)")
	}
}
