package dockerproxy

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func files(g *Gate) { g.Files = true }

// A path that is called something harmless can lead anywhere.
func TestAPathOfTheHostIsJudgedByWhatItIs(t *testing.T) {
	engine := needEngine(t)
	h := newHarness(t, engine, "test", files)
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "plain"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"etc": "/etc", "far": "etc", "dangling": "/nonexistent/x", "loop": "loop"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	makeVolume(t, engine, "linked-volume", map[string]string{"type": "none", "o": "bind", "device": dir + "/far"})
	for _, tt := range []struct {
		name, bind string
		want       int
		says       string
	}{
		{"plain", dir + "/plain:/h", 201, ""},
		{"made", dir + "/new/folder:/h", 201, ""}, // the Engine makes it
		{"link", dir + "/etc:/h", 403, "/etc of the host is mounted in it, as " + dir + "/etc"},
		{"chain", dir + "/far:/h", 403, "/etc of the host"},
		{"below", dir + "/far/ssl/../ssh:/h", 403, "/etc"},
		{"volume", "linked-volume:/h", 403, "/etc of the host is mounted in it, as volume linked-volume"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			makeContainer(t, engine, "linked-"+tt.name, sleeper(map[string]any{"HostConfig": map[string]any{"Binds": []string{tt.bind}}}), true)
			a := exchangeRaw(t, h.socket("dev"), post("/v1.41/containers/linked-"+tt.name+"/exec", `{"AttachStdout":true,"Cmd":["ls","/h"]}`))
			if a.status != tt.want || !strings.Contains(a.body, tt.says) {
				t.Errorf("got %d %s, want %d and %q", a.status, a.body, tt.want, tt.says)
			}
		})
	}
	t.Run("start", func(t *testing.T) {
		makeContainer(t, engine, "linked-start", sleeper(map[string]any{"HostConfig": map[string]any{"Binds": []string{dir + "/far:/h"}}}), false)
		if a := exchangeRaw(t, h.socket("dev"), post("/v1.41/containers/linked-start/start", "")); a.status != http.StatusForbidden {
			t.Errorf("got %d %s, want 403", a.status, a.body)
		}
	})
}

func TestPathsAreResolvedOrRefused(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"run": "/run", "dangling": "/nonexistent/x", "loop": "loop"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		in, want string
		fails    bool
	}{
		{dir, dir, false}, {dir + "/no/such", dir + "/no/such", false}, {dir + "/run", "/run", false}, {dir + "/run/no/such", "/run/no/such", false},
		{"/dev/log", "/dev/log", false}, {dir + "/dangling", "", true}, {dir + "/dangling/below", "", true}, {dir + "/loop", "", true},
	} {
		got, err := realPath(tt.in)
		if (err != nil) != tt.fails || err == nil && got != tt.want {
			t.Errorf("%s: got %s, %v; want %s, failing %v", tt.in, got, err, tt.want, tt.fails)
		}
	}
}

func TestTheKernelsTableTellsWhatIsMounted(t *testing.T) {
	host, err := parseMounts([]byte("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 0:25 / /run rw shared:1 - tmpfs tmpfs rw\n31 22 8:1 /home/data /srv/a\\040b rw - ext4 /dev/sda1 rw\n40 22 8:2 / /data rw - xfs /dev/sdb rw\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		line string
		want []string
	}{
		{"700 699 8:1 /etc /h rw - ext4 /dev/sda1 rw", []string{"/etc"}},
		{"700 699 8:1 /srv/conf//deleted /h rw - ext4 /dev/sda1 rw", []string{"/srv/conf"}},
		{"700 699 8:1 /home/data/x /h rw - ext4 /dev/sda1 rw", []string{"/home/data/x", "/srv/a b/x"}},
		{"700 699 0:25 /docker.sock /s rw - tmpfs tmpfs rw", []string{"/run/docker.sock"}},
		{"700 699 8:2 /app /h rw - xfs /dev/sdb rw", []string{"/data/app"}},
		{"700 699 0:99 / /h rw - tmpfs tmpfs rw", nil},
	} {
		in, err := parseMounts([]byte(tt.line))
		if err != nil || len(in) != 1 {
			t.Fatalf("%s: %v, %v", tt.line, in, err)
		}
		if got := in[0].on(host); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.line, got, tt.want)
		}
	}
	if _, err := parseMounts([]byte("nonsense\n")); err == nil {
		t.Error("a line that is not understood was taken")
	}
}

// What cannot be seen is not taken for harmless.
func TestAProcessThatIsNotTheContainersHidesNoEscape(t *testing.T) {
	x := &exchange{gate: &Gate{Files: true, Processes: true}}
	c := &target{}
	c.ID, c.State.Running, c.State.Pid = webID, true, os.Getpid()
	c.Mounts = []mountPoint{{Type: "bind", Source: "/srv/data", Destination: "/h"}}
	if _, err := x.mountedPaths(c, c.Mounts); err == nil || !strings.Contains(err.Error(), "cannot be found out") {
		t.Errorf("got %v, want a refusal", err)
	}
}
