package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"jumpsuite/internal/caller"
)

// played is a sudo docker that a shell script plays.
func played(t *testing.T, script string) *sudoDocker {
	t.Helper()
	path := filepath.Join(t.TempDir(), "r3-docker")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return &sudoDocker{path: path, caller: &caller.Caller{UID: 1001, GID: 1002, Name: "dev1"}}
}

func TestSudoDockerIsToldWhoCalls(t *testing.T) {
	said, err := played(t, `echo $SUDO_USER $SUDO_UID $SUDO_GID $PWD "$@"; cat; echo to stderr >&2; echo over`).say(t.Context(), 1000, "logs", "x")
	if want := "dev1 1001 1002 / logs x\nto stderr\nover\n"; said != want || err != nil {
		t.Errorf("got %q, %v; want %q", said, err, want)
	}
}

func TestOfMuchTheEndIsKept(t *testing.T) {
	said, err := played(t, `i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done`).say(t.Context(), 100)
	if err != nil || len(said) != 100 || !strings.HasSuffix(said, "line 4998\nline 4999\n") {
		t.Errorf("got %d bytes, %v: %q", len(said), err, said)
	}
}

func TestWhatSudoDockerSaysWhenItFailsIsTheError(t *testing.T) {
	for script, want := range map[string]string{
		`echo "docker: no such host" >&2; echo "hint: look" >&2; exit 125`: "docker: no such host; hint: look",
		"exit 3": "sudo docker: exit status 3",
	} {
		if said, err := played(t, script).say(t.Context(), 1000); said != "" || err == nil || err.Error() != want {
			t.Errorf("%s: got %q, %v; want %q", script, said, err, want)
		}
	}
}

// One that does not even end when it is told to is not waited for.
func TestASudoDockerThatHangsIsGivenUp(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := played(t, "trap '' TERM; while :; do sleep 1; done").say(ctx, 1000)
	if err == nil || err.Error() != "sudo docker does not answer in time" {
		t.Errorf("got %v", err)
	}
}
