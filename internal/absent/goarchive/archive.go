// Package archive stands where docker's CLI expects what docker build and docker
// cp make and unpack archives with. Sudo docker has neither verb: whatever is
// asked for here fails. See docs/architecture.md, "What is left out of docker's CLI".
package archive

import (
	"archive/tar"
	"io"

	"github.com/moby/go-archive/compression"
)

// Gzip is named by docker build.
const Gzip = compression.Gzip

// ChownOpts are of no consequence.
type ChownOpts struct{ UID, GID int }

// TarOptions are of no consequence.
type TarOptions struct {
	ExcludePatterns []string
	ChownOpts       *ChownOpts
}

// TarModifierFunc is never called.
type TarModifierFunc func(path string, header *tar.Header, content io.Reader) (*tar.Header, []byte, error)

// CopyInfo is what docker cp knows of a path.
type CopyInfo struct {
	Path       string
	Exists     bool
	IsDir      bool
	RebaseName string
}

// failing is an archive that cannot be read.
type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, compression.ErrAbsent }

func (failing) Close() error { return nil }

// Tar always fails.
func Tar(string, compression.Compression) (io.ReadCloser, error) { return nil, compression.ErrAbsent }

// TarWithOptions always fails.
func TarWithOptions(string, *TarOptions) (io.ReadCloser, error) { return nil, compression.ErrAbsent }

// TarResource always fails.
func TarResource(CopyInfo) (io.ReadCloser, error) { return nil, compression.ErrAbsent }

// CopyInfoSourcePath always fails.
func CopyInfoSourcePath(string, bool) (CopyInfo, error) { return CopyInfo{}, compression.ErrAbsent }

// CopyTo always fails.
func CopyTo(io.Reader, CopyInfo, string) error { return compression.ErrAbsent }

// PrepareArchiveCopy always fails.
func PrepareArchiveCopy(io.Reader, CopyInfo, CopyInfo) (string, io.ReadCloser, error) {
	return "", nil, compression.ErrAbsent
}

// ReplaceFileTarWrapper is an archive that cannot be read.
func ReplaceFileTarWrapper(io.ReadCloser, map[string]TarModifierFunc) io.ReadCloser { return failing{} }

// RebaseArchiveEntries is an archive that cannot be read.
func RebaseArchiveEntries(io.Reader, string, string) io.ReadCloser { return failing{} }

// PreserveTrailingDotOrSeparator leaves a path as it is.
func PreserveTrailingDotOrSeparator(path, _ string) string { return path }

// SplitPathDirEntry splits nothing.
func SplitPathDirEntry(path string) (dir, base string) { return path, "" }

// GetRebaseName leaves a path as it is.
func GetRebaseName(path, _ string) (string, string) { return path, "" }
