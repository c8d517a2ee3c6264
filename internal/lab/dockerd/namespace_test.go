package dockerd

import (
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// What is started while engines come and go has the network of this process: the
// main thread, which /proc/self speaks of, is never seen in another namespace, and
// each thread that was in one comes back.
func TestAProcessStartedWhileNamespacesAreEnteredHasThisNetwork(t *testing.T) {
	if err := Available(); err != nil {
		t.Skip(err)
	}
	ours, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { enterOften(t) })
	}
	for range 100 {
		out, err := exec.Command("readlink", "/proc/self/ns/net").Output()
		if theirs := strings.TrimSpace(string(out)); err != nil || theirs != ours {
			t.Errorf("a process was started in %s, not in %s: %v", theirs, ours, err)
		}
		if theirs, err := os.Readlink("/proc/self/ns/net"); err != nil || theirs != ours {
			t.Errorf("the main thread is in %s, not in %s: %v", theirs, ours, err)
		}
	}
	all.Wait()
}

// enterOften opens and enters the namespace of a process of its own, over and over.
func enterOften(t *testing.T) {
	cmd := command("", "sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	for range 30 {
		n, err := openNamespace(cmd.Process.Pid)
		if err != nil {
			t.Error(err)
			return
		}
		err = n.do(func() error {
			time.Sleep(time.Millisecond) // as a dial waits
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		n.close()
	}
}
