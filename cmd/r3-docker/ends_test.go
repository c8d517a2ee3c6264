package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"jumpsuite/internal/lab/sudoer"
)

// both is the two processes of a sudo docker.
type both struct{ root, cli int }

// halves finds both halves of the sudo docker that runs a verb.
func halves(t *testing.T, verb string) both {
	t.Helper()
	var found both
	eventually(t, "both halves of docker "+verb+" run", func() bool {
		found = both{root: processOf("r3-docker", verb), cli: processOf("r3-docker-cli", verb)}
		return found.root > 0 && found.cli > 0
	})
	return found
}

// processOf is the pid of a process by the file that it runs and its first
// argument, if it has to have one; 0 if there is none.
func processOf(file, verb string) int {
	all, _ := filepath.Glob("/proc/[0-9]*/exe") // the pattern is a good one
	for _, exe := range all {
		if !sameFile(exe, sudoer.Bin+"/"+file) {
			continue
		}
		line, err := os.ReadFile(filepath.Join(filepath.Dir(exe), "cmdline"))
		if args := bytes.Split(line, []byte{0}); err != nil || verb != "" && (len(args) < 2 || string(args[1]) != verb) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(exe)))
		if err == nil {
			return pid
		}
	}
	return 0
}

// sameFile knows a program by what it is, not by its path: another run of these tests,
// beside this one, has files of its own there.
func sameFile(exe, path string) bool {
	its, err := os.Stat(exe)
	ours, err2 := os.Stat(path)
	return err == nil && err2 == nil && os.SameFile(its, ours)
}

// eventually waits until something is so, for at most half a minute.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for range 600 {
		if so() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("not so: %s", what)
}

// inside reports whether a process of that command line runs in a container.
func inside(t *testing.T, container, command string) bool {
	t.Helper()
	out, err := engine("GET", "/containers/"+container+"/top?ps_args=-eo+pid,args", nil)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(out, command)
}

func gone(pid int) bool {
	_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	return err != nil
}
