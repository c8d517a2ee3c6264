package policy

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// Path is where the policy of a machine is.
const Path = "/etc/jumpsuite/policy.yaml"

// maxSize of a policy file, in bytes.
const maxSize = 1 << 20

// FileError is a policy file that may not be trusted, or cannot be read.
type FileError struct {
	Path string
	Err  error
	Next string
}

func (e *FileError) Error() string { return fmt.Sprintf("policy %s: %v", e.Path, e.Err) }

// Unwrap is what the system said.
func (e *FileError) Unwrap() error { return e.Err }

// ExitCode is 78: a configuration file is wrong.
func (e *FileError) ExitCode() int { return 78 }

// Hint is what to do about it.
func (e *FileError) Hint() string { return e.Next }

// Load reads a policy file that must be root's: opened once, not through a
// symbolic link, and owner and mode are those of the file that was opened. On
// any error nothing is allowed. The error is a *FileError or Findings.
func Load(path string) (*Policy, error) {
	text, err := read(path, 0)
	if err != nil {
		return nil, err
	}
	return Parse(path, text)
}

// Read parses a policy file without asking whose it is: for a policy that is
// not enforced, only looked at.
func Read(path string) (*Policy, error) {
	text, err := read(path, anyone)
	if err != nil {
		return nil, err
	}
	return Parse(path, text)
}

const anyone = -1

// read returns the text of a file that belongs to owner and that only the owner
// may write.
func read(path string, owner int) ([]byte, error) {
	// Without O_NONBLOCK a FIFO in its place would hold us until someone writes.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, openError(path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, &FileError{Path: path, Err: err}
	}
	if err := trust(path, info, owner); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, &FileError{Path: path, Err: err}
	}
	if len(text) > maxSize {
		return nil, &FileError{Path: path, Err: fmt.Errorf("larger than %d bytes", maxSize), Next: "a policy is a page or two: is this the right file?"}
	}
	return text, nil
}

func trust(path string, info os.FileInfo, owner int) error {
	if !info.Mode().IsRegular() {
		return &FileError{Path: path, Err: errors.New("not a plain file"), Next: "put the file itself there"}
	}
	if owner == anyone {
		return nil
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; uid != uint32(owner) {
		return &FileError{Path: path, Err: fmt.Errorf("belongs to uid %d, not to %d", uid, owner), Next: fmt.Sprintf("chown %d:%d %s", owner, owner, path)}
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return &FileError{Path: path, Err: fmt.Errorf("mode %04o: others may write it", mode), Next: fmt.Sprintf("chmod %04o %s", mode&^0o022, path)}
	}
	return nil
}

func openError(path string, err error) error {
	next := ""
	switch {
	case errors.Is(err, os.ErrNotExist):
		next = "an administrator has to write one: start from policy.example.yaml, and try it with 'r3-admin policy check'"
	case errors.Is(err, syscall.ELOOP):
		next = "put the file itself there, not a symbolic link"
	}
	return &FileError{Path: path, Err: errors.Unwrap(err), Next: next}
}
