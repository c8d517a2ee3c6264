package main

import (
	"os"
	"path/filepath"
	"time"

	"jumpsuite/dockerproxy"
)

// versionsFolder has a file for each host: which API version its Engine spoke
// lately. docker asks for it before anything else, and that would be a third of
// the round trips of a short command. It is in /run, where only root writes, and
// a wrong one only makes docker offer an option that the Engine ignores.
const versionsFolder = "/run/jumpsuite/versions"

// versionKept is how long what was spoken is believed.
const versionKept = 10 * time.Minute

func versionFile(h dockerproxy.FarHost) string { return filepath.Join(versionsFolder, h.ID) }

// version is what a host's Engine spoke lately; empty: it is not known.
func version(h dockerproxy.FarHost) string {
	info, err := os.Lstat(versionFile(h))
	if err != nil || !info.Mode().IsRegular() || info.Size() > 16 || time.Since(info.ModTime()) > versionKept {
		return ""
	}
	b, err := os.ReadFile(versionFile(h))
	if err != nil {
		return ""
	}
	return string(b)
}

// spoke notes it. Where it cannot be noted, it is asked for again.
func spoke(h dockerproxy.FarHost, version string) {
	if os.MkdirAll(versionsFolder, 0o700) != nil {
		return
	}
	f, err := os.CreateTemp(versionsFolder, ".new-*")
	if err != nil {
		return
	}
	defer os.Remove(f.Name()) // fails after the rename, as it should
	_, err = f.WriteString(version)
	if f.Close() == nil && err == nil {
		_ = os.Rename(f.Name(), versionFile(h))
	}
}
