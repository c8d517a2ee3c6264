package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"jumpsuite/internal/audit"
	"jumpsuite/internal/lab/sudoer"
)

// stock is docker's own CLI; it is skipped where there is none of version 28.
func stock(t *testing.T) string {
	for _, path := range []string{"/usr/local/bin/docker", "/usr/bin/docker"} {
		out, err := exec.Command(path, "--version").Output()
		if err == nil && strings.HasPrefix(string(out), "Docker version 28.") {
			return path
		}
	}
	t.Skip("no docker CLI of version 28 is installed to compare with")
	return ""
}

func stockDocker(t *testing.T, path, stdin string, args ...string) result {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = []string{"DOCKER_HOST=unix://" + sudoer.Engine, "HOME=/nonexistent", "PATH=/usr/bin:/bin", "TERM=xterm", "LANG=C.UTF-8"}
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	if _, ended := errors.AsType[*exec.ExitError](cmd.Run()); !ended && cmd.ProcessState == nil {
		t.Fatalf("%s %v does not run", path, args)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

func TestOutputAndCodesAreDockersOwn(t *testing.T) {
	h := need(t, "test")
	path := stock(t)
	container(t, "same", "sh", "-c", "echo out; echo err >&2; exec sleep 1000")
	container(t, "failed", "sh", "-c", "exit 3")
	if _, err := engine("POST", "/containers/failed/wait", nil); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"ps", "-a", "--no-trunc"}, {"ps", "--format", "json"}, {"ps", "-q", "--filter", "name=same"}, {"start", "--checkpoint", "x", "same"},
		{"images"}, {"images", "--digests"}, {"images", "-q", "nosuch"},
		{"logs", "same"}, {"logs", "-t", "same"}, {"logs", "--tail", "1", "same"}, {"logs", "nosuch"}, {"logs"},
		{"exec", "same", "echo", "x"}, {"exec", "same", "sh", "-c", "exit 42"}, {"exec", "failed", "true"}, {"exec", "nosuch", "true"}, {"exec", "same"}, {"exec", "same", "nosuch"},
		{"exec", "-it", "same", "sh"},
		{"inspect", "same", "--format", "{{.Id}} {{.State.Status}} {{json .Config.Cmd}} {{.HostConfig.NetworkMode}}"}, {"inspect", "nosuch"}, {"inspect", "same", "nosuch", "--format", "{{.Name}}"},
		{"inspect", "--type", "image", "lab/web:1", "-f", "{{.Id}}"}, {"inspect", "--type", "container", "lab/web:1"}, {"inspect", "same", "--format", "{{.Nonsense}}"}, {"inspect"},
		{"run", "--rm", "lab/web:1", "sh", "-c", "kill -9 $$"}, {"run", "--pull", "nonsense", "lab/web:1"}, {"run"},
		{"start", "nosuch"}, {"start", "-a", "nosuch"}, {"create", "-x"},
		{"version", "--format", "{{json .Server}}"}, {"stats", "--no-stream", "nosuch"}, {"-l", "nonsense", "ps"},
	} {
		want, got := stockDocker(t, path, "", args...), docker(t, h, "", args...)
		for range 5 { // both say how many seconds ago something was
			if got == want {
				break
			}
			want, got = stockDocker(t, path, "", args...), docker(t, h, "", args...)
		}
		if got != want {
			t.Errorf("docker %s: got %d\n%s%s\nwant %d\n%s%s", strings.Join(args, " "), got.code, got.out, got.err, want.code, want.out, want.err)
		}
	}
	for _, word := range []string{"ps", "images", "logs", "exec", "stats", "pull", "start", "stop", "kill", "rm", "version", "run", "create"} {
		want, got := stockDocker(t, path, "", word, "--help"), docker(t, h, "", word, "--help")
		if got.code != want.code || got.out != want.out {
			t.Errorf("docker %s --help: got\n%.300s\nwant\n%.300s", word, got.out, want.out)
		}
	}
}

func TestWhatWasDoneIsOnRecord(t *testing.T) {
	h := need(t, "test")
	container(t, "recorded", "sleep", "1000")
	docker(t, h, "", "exec", "recorded", "sh", "-c", "exit 6").expect(t, "exec", 6, "", "")
	docker(t, h, "", "run", "evil/web:1").expect(t, "run", 125, "", "not allowed")
	b, err := os.ReadFile(audit.DefaultPath)
	if err != nil {
		t.Fatal(err)
	}
	var opened, closed, refused bool
	for line := range strings.Lines(string(b)) {
		if !strings.Contains(line, `"`+sudoer.User+`"`) {
			continue
		}
		opened = opened || strings.Contains(line, `"kind":"open"`) && strings.Contains(line, `exit 6`)
		closed = closed || strings.Contains(line, `"kind":"close"`) && strings.Contains(line, `"exit":6`)
		refused = refused || strings.Contains(line, `"verdict":"deny"`) && strings.Contains(line, "evil/web")
	}
	if !opened || !closed || !refused {
		t.Errorf("opened %v, closed %v, refused %v in\n%s", opened, closed, refused, b)
	}
}

func TestAChangedPolicyEndsWhatItDoesNotAllow(t *testing.T) {
	h := need(t, "test")
	text, err := policyText()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.SetPolicy(text) })
	container(t, "revoked", "sleep", "1000")
	s := on(t, sudoDocker(t, h, "logs", "-f", "revoked"), true)
	halves(t, "logs")
	time.Sleep(200 * time.Millisecond) // until it follows
	if err := h.SetPolicy(strings.ReplaceAll(text, "docker.logs, ", "")); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.done:
	case <-time.After(30 * time.Second):
		t.Fatal("the log is still followed")
	}
	docker(t, h, "", "logs", "revoked").expect(t, "logs", 1, "", "docker.logs is not allowed in test")
	if err := h.SetPolicy(text + "nonsense: 1\n"); err != nil {
		t.Fatal(err)
	}
	docker(t, h, "", "ps").expect(t, "ps without a policy", 125, "", "policy.yaml:")
	docker(t, h, "", "ps", "--help").expect(t, "the help without a policy", 0, "docker ps [OPTIONS]", "")
}
