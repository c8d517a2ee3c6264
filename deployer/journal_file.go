package deployer

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"jumpsuite/internal/cli"
)

// Folder is where root keeps the local copies of journals.
const Folder = "/var/lib/jumpsuite/deployments"

// kept is how many journals of ended deployments a container type's folder keeps.
const kept = 20

// UserFolder is where a user with AWS credentials of his own keeps the local
// copies of journals: below XDG_STATE_HOME (XDG Base Directory Specification),
// which is ~/.local/state where it is not set, or no absolute path.
func UserFolder(getenv func(string) string) (string, error) {
	state := getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(state) {
		home := getenv("HOME")
		if !filepath.IsAbs(home) {
			return "", cli.Errorf(cli.ExitAudit, "set XDG_STATE_HOME or HOME", "there is no folder to keep the journal of a deployment in")
		}
		state = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(state, "jumpsuite", "deployments"), nil
}

// shelf is the folder with the journals and locks of one container type on this
// machine. Each attempt has two files: ATTEMPT.json, its journal, and
// ATTEMPT.lock, which its process holds locked as long as it lives.
type shelf struct{ path string }

// UnwritableError says that a journal cannot be written: nothing was done.
type UnwritableError struct{ Err error }

func (e *UnwritableError) Error() string {
	return fmt.Sprintf("keep the journal of the deployment: %v", e.Err)
}

// Unwrap is the file system's error.
func (e *UnwritableError) Unwrap() error { return e.Err }

// ExitCode is cli.ExitAudit: what cannot be written down is not done.
func (e *UnwritableError) ExitCode() int { return cli.ExitAudit }

// Hint is what to look at.
func (e *UnwritableError) Hint() string {
	return "make room, or make the folder writable for its owner: what cannot be written down is not begun"
}

// prepare makes the folder, for its owner only.
func (s shelf) prepare() error {
	if err := os.MkdirAll(s.path, 0o700); err != nil {
		return err
	}
	st, err := os.Lstat(s.path)
	if err == nil && (!st.IsDir() || st.Mode().Perm()&0o022 != 0) {
		err = fmt.Errorf("%s is no folder that only its owner may write (%s)", s.path, st.Mode())
	}
	return err
}

func (s shelf) journal(attempt string) string { return filepath.Join(s.path, attempt+".json") }
func (s shelf) lock(attempt string) string    { return filepath.Join(s.path, attempt+".lock") }

// save writes a journal so that a crash or a lost power leaves the one before or this one.
func (s shelf) save(j Journal) error {
	text, err := json.MarshalIndent(j, "", "  ")
	if err != nil {
		return err
	}
	path := s.journal(j.Attempt)
	if err := replace(path, append(text, '\n')); err != nil {
		os.Remove(path + ".new")
		return err
	}
	return nil
}

func replace(path string, data []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

func syncFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// journals are the container type's journals on this machine, the newest first.
// One that cannot be read is left out: its tags have it too.
func (s shelf) journals() []Journal {
	paths, _ := filepath.Glob(filepath.Join(s.path, "*.json")) // the pattern is well formed
	var out []Journal
	for _, path := range paths {
		var j Journal
		text, err := os.ReadFile(path)
		if err == nil && json.Unmarshal(text, &j) == nil && s.journal(j.Attempt) == path {
			out = append(out, j)
		}
	}
	slices.SortFunc(out, func(a, b Journal) int { return b.Began.Compare(a.Began) })
	return out
}

// prune removes the oldest journals of what has ended.
func (s shelf) prune() {
	if s.path == "" {
		return
	}
	ended := slices.DeleteFunc(s.journals(), func(j Journal) bool { return !j.State.Ended() })
	for _, j := range ended[min(kept, len(ended)):] {
		os.Remove(s.journal(j.Attempt))
	}
}

// attempts are the attempts that have a lock file here.
func (s shelf) attempts() []string {
	entries, err := os.ReadDir(s.path)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".lock"); ok {
			out = append(out, name)
		}
	}
	return out
}
