package dockerd

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// starter makes this test binary a process that starts an engine, says where
// it is, and waits to be killed.
const starter = "R3_LAB_TEST_STARTER"

func TestMain(m *testing.M) {
	if os.Getenv(starter) == "" {
		os.Exit(m.Run())
	}
	d, err := Start(context.Background(), Options{})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(d.dir, d.Pid())
	select {}
}

func needEngine(t *testing.T) {
	t.Helper()
	if err := Available(); err != nil {
		t.Skip(err)
	}
}

func TestAnEngineStartsAndLeavesNothing(t *testing.T) {
	needEngine(t)
	begin := time.Now()
	d, err := Start(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("started in %v", time.Since(begin).Round(time.Millisecond))
	if !strings.Contains(d.LogTail(1<<20), "API listen on") {
		t.Errorf("its log does not say where it listens:\n%s", d.LogTail(1<<20))
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", d.Pid())); err != nil {
		t.Errorf("process 1 of a running engine: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
	checkGone(t, d.dir, d.Pid())
}

func TestTheEngineOfAKilledProcessEndsAndIsRemovedAtTheNextStart(t *testing.T) {
	needEngine(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), starter+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var dir string
	var pid int
	if _, err := fmt.Sscan(line, &dir, &pid); err != nil {
		t.Fatalf("the starter says %q: %v", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("a killed process ended well")
	}
	eventually(t, "the engine ends with its starter", func() bool { return !alive(pid) })
	if err := reap(base()); err != nil {
		t.Fatal(err)
	}
	checkGone(t, dir, pid)
}

func TestADirectoryInUseIsNotRemoved(t *testing.T) {
	base := t.TempDir()
	dir, lock, err := makeRoot(base)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := reap(base); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("after reaping: %v", err)
	}
	lock.Close()
	if err := reap(base); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("nobody has locked %s, and it is still there: %v", dir, err)
	}
}

func TestASymlinkOfOurNameIsNotFollowed(t *testing.T) {
	base, victim := t.TempDir(), t.TempDir()
	kept := filepath.Join(victim, "kept")
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(base, rootPrefix+"1")); err != nil {
		t.Fatal(err)
	}
	if err := reap(base); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
}

func TestItsNetworkIsItsOwn(t *testing.T) {
	needEngine(t)
	d, err := Start(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	l, err := d.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "inside")
	})}
	go server.Serve(l)
	defer server.Close()

	if conn, err := net.Dial("tcp", l.Addr().String()); err == nil {
		conn.Close()
		t.Errorf("what listens on %s inside can be reached from outside", l.Addr())
	}
	inside := &http.Client{Transport: &http.Transport{DialContext: d.Dial}}
	defer inside.CloseIdleConnections()
	resp, err := inside.Get("http://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "inside" {
		t.Errorf("answer %q, %v; want %q", body, err, "inside")
	}
}

// checkGone reports what is left of an engine.
func checkGone(t *testing.T, dir string, pid int) {
	t.Helper()
	if alive(pid) {
		t.Errorf("process %d is still there", pid)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("directory %s is still there: %v", dir, err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), filepath.Base(dir)) {
		t.Errorf("mounts of %s are left:\n%s", dir, mounts)
	}
	cgroups, err := filepath.Glob("/sys/fs/cgroup/*/" + filepath.Base(dir))
	if err != nil || len(cgroups) > 0 {
		t.Errorf("cgroups left: %v, %v", cgroups, err)
	}
}

// alive says whether a process runs: a zombie does not.
func alive(pid int) bool {
	if unix.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func eventually(t *testing.T, what string, true func() bool) {
	t.Helper()
	for range 1000 {
		if true() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("never came true: %s", what)
}
