package main

import (
	"bufio"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"jumpsuite/internal/audit"
	"jumpsuite/internal/lab/sudoer"
)

// Where the policy says so, sessions are recorded: through sudo, of a real
// Engine.

// tapes are the recordings that there are, by path, with the output in them.
func tapes(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(filepath.Join(audit.DefaultFolder, "recordings"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".cast") {
			all[path] = output(t, path)
		}
		if os.IsNotExist(err) {
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// output is what an asciicast v2 shows; it fails the test if it has input.
func output(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	var shown strings.Builder
	for n := 0; lines.Scan(); n++ {
		var head struct{ Version int }
		var event []any
		if n == 0 && (json.Unmarshal(lines.Bytes(), &head) != nil || head.Version != 2) {
			t.Errorf("%s begins with %s", path, lines.Text())
		}
		if n == 0 || json.Unmarshal(lines.Bytes(), &event) != nil || len(event) != 3 {
			continue
		}
		switch event[1] {
		case "o":
			shown.WriteString(event[2].(string))
		case "i":
			t.Errorf("%s has input: %s", path, lines.Text())
		}
	}
	return shown.String()
}

// isTaped makes sure that a session left one recording with a text in it, named
// by an event whose close has its sum.
func isTaped(t *testing.T, what, text string, before map[string]string) {
	t.Helper()
	var found string
	for path, shown := range tapes(t) {
		if _, old := before[path]; !old && strings.Contains(shown, text) {
			found = path
		}
	}
	if found == "" {
		t.Errorf("%s: no recording has %q in it", what, text)
		return
	}
	id := strings.TrimSuffix(filepath.Base(found), ".cast")
	b, err := os.ReadFile(audit.DefaultPath)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, id) && strings.Contains(line, `"kind":"close"`) && strings.Contains(line, `"recording":"`) {
			return
		}
	}
	t.Errorf("%s: no close of %s names its recording", what, id)
}

func TestSessionsAreRecordedThroughSudo(t *testing.T) {
	h := need(t, "taped")
	container(t, "taped", "sleep", "1000")
	leave(t, "taped-left", map[string]any{"Cmd": []string{"echo", "from what was left"}})
	docker(t, h, "", "create", "--name", "taped-made", "lab/web:1", "echo", "from what was made").expect(t, "create", 0, "", "")
	t.Cleanup(func() { engine("DELETE", "/containers/taped-made?force=1", nil) })
	for _, tt := range []struct{ name, stdin, args, shows string }{
		{"exec", "", "exec taped echo from~exec", "from exec"},
		{"exec with a pipe", "echo from the pipe\n", "exec -i taped sh", "from the pipe"},
		{"run", "", "run --rm lab/web:1 echo from~run", "from run"},
		{"run with a pipe", "from stdin", "run -i --rm lab/web:1 cat", "from stdin"},
		{"start of what was made", "", "start -a taped-made", "from what was made"},
		{"start of what was left", "", "start -a taped-left", "from what was left"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := tapes(t)
			args := strings.Fields(tt.args)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "~", " ")
			}
			docker(t, h, tt.stdin, args...).expect(t, tt.args, 0, tt.shows, "")
			isTaped(t, tt.args, tt.shows, before)
		})
	}
	for name, args := range map[string][]string{
		"exec on a terminal": {"exec", "-it", "taped", "sh"}, "run on a terminal": {"run", "-it", "--rm", "lab/web:1", "sh"},
	} {
		t.Run(name, func(t *testing.T) {
			before := tapes(t)
			s := on(t, sudoDocker(t, h, args...), true)
			s.sees("# ", 1)
			s.types("echo se''cret\rexit 6\r")
			s.ends(6)
			isTaped(t, name, "secret", before)
		})
	}
	for _, args := range []string{"exec -d taped sleep 1", "run -d lab/web:1 sleep 1", "start taped-made"} {
		r := docker(t, h, "", strings.Fields(args)...)
		if r.code == 0 || !strings.Contains(r.err, "sessions are recorded here, and one that is detached cannot be") {
			t.Errorf("docker %s: got %+v, want a refusal", args, r)
		}
	}
}

// What cannot be recorded any more ends: here, because others need what is left
// of the disk.
func TestARecorderThatFailsEndsTheSessionThroughSudo(t *testing.T) {
	h := need(t, "taped")
	container(t, "endless", "sleep", "1000")
	s := on(t, sudoDocker(t, h, "exec", "endless", "sh", "-c", "while :; do echo on and on; sleep 0.1; done"), true)
	s.sees("on and on", 2)
	shrink(t)
	select {
	case <-s.done:
	case <-time.After(30 * time.Second):
		t.Fatal("the session goes on without being recorded")
	}
	r := docker(t, h, "", "exec", "endless", "echo", "once more")
	if r.code == 0 || strings.Contains(r.out, "once more") || !strings.Contains(r.err, "cannot be recorded") {
		t.Errorf("a new session: got %+v, want a refusal", r)
	}
}

// shrink makes the file system of the log nearly full until the test ends.
func shrink(t *testing.T) {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(audit.DefaultFolder, &st); err != nil {
		t.Fatal(err)
	}
	used := (int64(st.Blocks) - int64(st.Bfree)) * st.Bsize
	if err := sudoer.Shrink(used + 32<<20); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sudoer.Shrink(int64(st.Blocks) * st.Bsize); err != nil {
			t.Error(err)
		}
	})
}
