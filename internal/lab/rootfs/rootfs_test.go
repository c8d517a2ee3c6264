package rootfs

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"jumpsuite/internal/lab/engine"
	"jumpsuite/internal/lab/world"
)

// files are the regular files in an archive.
func files(t *testing.T, archive []byte, err error) map[string]string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		all[h.Name] = string(content)
	}
}

// shellSays runs the settings and prints variables, with busybox.
func shellSays(t *testing.T, settings, expression string) string {
	t.Helper()
	if err := Available(); err != nil {
		t.Skip(err)
	}
	path := filepath.Join(t.TempDir(), "settings")
	if err := os.WriteFile(path, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("busybox", "sh", "-euc", ". "+path+"; echo \""+expression+"\"").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSuffix(string(out), "\n")
}

func TestTheBaseLayerIsTheSameEachTimeAndHasItsPrograms(t *testing.T) {
	if err := Available(); err != nil {
		t.Skip(err)
	}
	first, err := Base()
	again, err2 := Base()
	if err != nil || err2 != nil || !bytes.Equal(first, again) {
		t.Fatalf("two base layers differ, or: %v, %v", err, err2)
	}
	all := files(t, first, nil)
	for _, name := range []string{"bin/busybox", "bin/app", "bin/answer", "bin/healthy", "bin/bash", "bin/sh", "etc/lab/settings", "etc/passwd"} {
		if _, ok := all[name]; !ok {
			t.Errorf("%s is not in it", name)
		}
	}
	for _, script := range []string{"bin/app", "bin/answer", "bin/healthy"} {
		cmd := exec.Command("busybox", "sh", "-n", "-c", all[script])
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s is no shell script: %v: %s", script, err, out)
		}
	}
}

func TestEveryAppletThatTheProgramsNeedIsThere(t *testing.T) {
	names := strings.Fields(applets)
	for _, need := range []string{"sh", "cat", "sleep", "nc", "tail", "hostname", "printf"} {
		found := false
		for _, name := range names {
			found = found || name == need
		}
		if !found {
			t.Errorf("%s is not among the applets", need)
		}
	}
}

func TestALayerHoldsTheBehaviour(t *testing.T) {
	three := 3
	img := world.Image{
		Repository: "web", Tags: []string{"it's"}, Exit: &three, After: world.Duration(1500 * time.Millisecond),
		HTTP: 503, Unhealthy: true, Stop: world.Duration(time.Second), Log: []string{"one", "two"},
	}
	layer, err := Layer(img)
	all := files(t, layer, err)
	if got := all["etc/lab/log"]; got != "one\ntwo\n" {
		t.Errorf("log %q", got)
	}
	got := shellSays(t, all["etc/lab/image"], "$IMAGE $EXIT $AFTER $HTTP $HEALTHY_AFTER $STOP $PORTS")
	if want := "web:it's 3 1500 503 -1 1000 80"; got != want {
		t.Errorf("behaviour %q; want %q", got, want)
	}
}

func TestATaskIsInLabTime(t *testing.T) {
	outside := func(d time.Duration) time.Duration { return d / 10 }
	img := world.Image{HTTPAfter: world.Duration(time.Minute), HealthyAfter: world.Duration(20 * time.Second)}
	task, err := Task(img, []int{80, 8080}, -1, outside)
	got := shellSays(t, files(t, task, err)["etc/lab/task"], "$TASK $HTTP $HTTP_AFTER $HEALTHY_AFTER $STOP $PORTS")
	if want := "yes 200 6000 2000 86400000 80 8080"; got != want {
		t.Errorf("task %q; want %q", got, want)
	}
}

func TestAnOverrideSaysOnlyWhatItChanges(t *testing.T) {
	none, yes, no := -1, true, false
	for _, tt := range []struct {
		name string
		in   engine.Override
		want string
	}{
		{"nothing", engine.Override{}, ""},
		{"status", engine.Override{HTTP: &none}, "HTTP='-1'\nHTTP_AFTER='0'\n"},
		{"healthy", engine.Override{Healthy: &yes}, "HEALTHY='yes'\n"},
		{"unhealthy", engine.Override{Healthy: &no}, "HEALTHY='no'\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			archive, err := Override(tt.in)
			if got := files(t, archive, err)["etc/lab/now"]; got != tt.want {
				t.Errorf("%q; want %q", got, tt.want)
			}
		})
	}
}

func TestABusyboxThatNeedsLibrariesIsRefused(t *testing.T) {
	dynamic, err := exec.LookPath("ls")
	if err != nil {
		t.Fatal(err)
	}
	err = static(dynamic)
	if err == nil || !strings.Contains(err.Error(), "needs shared libraries") {
		t.Errorf("%s: %v; want that it needs shared libraries", dynamic, err)
	}
}
