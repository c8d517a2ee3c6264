package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"jumpsuite/internal/lab/sudoer"
)

// A container that has a folder of the host can put a link to elsewhere into it,
// for the next container to be started with, and take it away again: what the
// kernel has mounted counts.
func TestWhatIsMountedIsWhatTheKernelSays(t *testing.T) {
	h := need(t, "test")
	folder := sudoer.Home + "/../shared"
	if err := os.MkdirAll(folder+"/plain", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc", folder+"/turned"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	for name, source := range map[string]string{"mount-plain": "/mnt/shared/plain", "mount-turned": "/mnt/shared/turned"} {
		leave(t, name, map[string]any{"HostConfig": map[string]any{"Binds": []string{source + ":/h"}}})
		if _, err := engine("POST", "/containers/"+name+"/start", nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := engine("POST", "/volumes/create", strings.NewReader(`{"Name":"turned","DriverOpts":{"type":"none","o":"bind","device":"/mnt/shared/turned"}}`)); err != nil {
		t.Fatal(err)
	}
	leave(t, "mount-volume", map[string]any{"HostConfig": map[string]any{"Binds": []string{"turned:/h"}}})
	if _, err := engine("POST", "/containers/mount-volume/start", nil); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(folder + "/turned"); err != nil { // nothing is to be seen of it any more
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		code int
		says string
	}{{"mount-plain", 0, "in it"}, {"mount-turned", 1, "/etc of the host is mounted in it, as /mnt/shared/turned"},
		{"mount-volume", 1, "/etc of the host is mounted in it, as volume turned"},
	} {
		cmd := h.Beside(t.Context(), "exec", tt.name, "echo", "in it")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		_ = cmd.Run() // its code is looked at
		if code := cmd.ProcessState.ExitCode(); code != tt.code || !strings.Contains(out.String(), tt.says) {
			t.Errorf("exec in %s: got %d and %q, want %d and %q", tt.name, code, out.String(), tt.code, tt.says)
		}
	}
}

// A container that others have joined has their files, as /proc/PID/root, and its own
// configuration says nothing of them.
func TestWhoHasJoinedItsProcessesCountsToo(t *testing.T) {
	h := need(t, "test")
	for _, c := range []struct{ name, joins, bind string }{
		{"join-harmless", "", ""}, {"join-harmlessly", "container:join-harmless", "/mnt/joined:/h"},
		{"join-debugged", "", ""}, {"join-debugger", "container:join-debugged", "/etc:/h"},
	} {
		config := map[string]any{"PidMode": c.joins}
		if c.bind != "" {
			config["Binds"] = []string{c.bind}
		}
		leave(t, c.name, map[string]any{"HostConfig": config})
		if _, err := engine("POST", "/containers/"+c.name+"/start", nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name string
		code int
		says string
	}{{"join-harmless", 0, "in it"}, {"join-debugged", 1, "it shares a namespace with join-debugger, which is an escape"}} {
		cmd := h.Beside(t.Context(), "exec", tt.name, "echo", "in it")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		_ = cmd.Run() // its code is looked at
		if code := cmd.ProcessState.ExitCode(); code != tt.code || !strings.Contains(out.String(), tt.says) {
			t.Errorf("exec in %s: got %d and %q, want %d and %q", tt.name, code, out.String(), tt.code, tt.says)
		}
	}
}
