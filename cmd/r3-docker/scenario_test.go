package main

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"jumpsuite/internal/lab/sudoer"
)

// The whole of it in one scenario: a person whose only right is one line of
// sudoers, on a terminal, with a real sudo and a real Engine, uses all ten verbs
// in test, six in production, and is refused the other four there.

// typed is one command of the person's, on a terminal of its own.
type typed struct {
	args  []string
	keys  string // typed when the prompt is there
	code  int
	shows string
}

func (c typed) run(t *testing.T, h *sudoer.Host) {
	t.Helper()
	s := on(t, sudoDocker(t, h, c.args...), true)
	if c.keys != "" {
		s.sees("# ", 1)
		s.types(c.keys)
	}
	s.ends(c.code)
	eventually(t, "docker "+strings.Join(c.args, " ")+" shows "+c.shows, func() bool { return strings.Contains(s.text(), c.shows) })
	if s.raw() {
		t.Errorf("docker %s left the terminal raw", strings.Join(c.args, " "))
	}
}

// hasNoOtherRight makes sure that the person is nobody, but for that line.
func hasNoOtherRight(t *testing.T, h *sudoer.Host) {
	t.Helper()
	for _, tt := range []struct {
		name string
		args []string
		says string
	}{
		{"the Engine's socket", []string{"/usr/bin/env", "bash", "-c", "exec 3<>/dev/tcp/localhost/2375 || cat " + sudoer.Engine}, "ermission denied"},
		{"the docker CLI", []string{"docker", "-H", "unix://" + sudoer.Engine, "ps"}, "permission denied"},
		{"a shell by sudo", []string{"sudo", "-n", "sh"}, "password is required"},
		{"another docker by sudo", []string{"sudo", "-n", "/usr/bin/docker", "ps"}, "password is required"},
		{"the log", []string{"cat", "/var/log/jumpsuite/audit.log"}, "ermission denied"},
		{"the leases", []string{"ls", "/var/lib/jumpsuite/leases"}, "ermission denied"},
	} {
		if _, err := exec.LookPath(tt.args[0]); err != nil {
			continue
		}
		out, err := h.Command(t.Context(), tt.args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), tt.says) {
			t.Errorf("%s: got %v and %q, want %q", tt.name, err, out, tt.says)
		}
	}
	rights, err := h.Command(t.Context(), "sudo", "-n", "-l").Output()
	if n := bytes.Count(rights, []byte("NOPASSWD:")); err != nil || n != 1 || !bytes.Contains(rights, []byte(sudoer.Bin+"/sbin/docker")) {
		t.Errorf("sudo -l: %v, %d rights in\n%s\nwant one line", err, n, rights)
	}
}

func TestAPersonWithOneLineOfSudoers(t *testing.T) {
	h := need(t, "test")
	if err := h.UsePTY(true); err != nil {
		t.Fatal(err)
	}
	container(t, "scene", "sh", "-c", "echo from the log; exec sleep 1000")
	leave(t, "scene-left", nil)
	docker(t, h, "", "version").expect(t, "version", 0, "Server", "") // there is a log from now on
	hasNoOtherRight(t, h)

	for _, c := range []typed{ // all ten in test
		{args: []string{"ps"}, shows: "scene"},
		{args: []string{"images"}, shows: "lab/web"},
		{args: []string{"logs", "scene"}, shows: "from the log"},
		{args: []string{"exec", "-it", "scene", "sh"}, keys: "stty size; exit 9\r", code: 9, shows: "24 80"},
		{args: []string{"stats", "--no-stream", "scene"}, shows: "scene"},
		{args: []string{"inspect", "scene"}, shows: `"Name": "/scene"`},
		{args: []string{"run", "-it", "--rm", "lab/web:1", "sh"}, keys: "echo $((6*7)); exit 5\r", code: 5, shows: "42"},
		{args: []string{"pull", "registry.test/app:1"}, shows: "Status: "},
		{args: []string{"create", "-it", "--name", "scene-made", "lab/web:1", "sh"}},
		{args: []string{"start", "-ai", "scene-made"}, keys: "echo $((6*7)); exit 4\r", code: 4, shows: "42"},
		{args: []string{"start", "scene-left"}, shows: "scene-left"},
		{args: []string{"exec", "-it", "scene-left", "sh"}, keys: "exit\r"},
	} {
		c.run(t, h)
	}
	t.Cleanup(func() { engine("DELETE", "/containers/scene-made?force=1", nil) })

	if err := h.Belong("prod"); err != nil {
		t.Fatal(err)
	}
	floor := func(verb string) string { return "docker." + verb + " is not allowed in prod (rule floor)" }
	for _, c := range []typed{
		{args: []string{"ps"}, shows: "scene"}, // six in production
		{args: []string{"images"}, shows: "lab/web"},
		{args: []string{"logs", "scene"}, shows: "from the log"},
		{args: []string{"exec", "-it", "scene", "sh"}, keys: "stty size; exit 9\r", code: 9, shows: "24 80"},
		{args: []string{"stats", "--no-stream", "scene"}, shows: "scene"},
		{args: []string{"inspect", "scene"}, shows: `"Name": "/scene"`},
		{args: []string{"run", "-it", "--rm", "lab/web:1", "sh"}, code: 125, shows: floor("run")}, // and not the other four
		{args: []string{"pull", "registry.test/app:1"}, code: 1, shows: floor("pull")},
		{args: []string{"create", "lab/web:1"}, code: 1, shows: floor("create")},
		{args: []string{"start", "scene-made"}, code: 1, shows: floor("start")},
		{args: []string{"start", "-ai", "scene-made"}, code: 1, shows: floor("start")},
	} {
		c.run(t, h)
	}
	if runs(t, "scene-made") {
		t.Error("a container was started in production")
	}
}
