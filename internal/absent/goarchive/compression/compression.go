// Package compression stands where docker's CLI expects what docker build reads
// and writes compressed archives with. Sudo docker builds nothing: here is none.
// See docs/architecture.md, "What is left out of docker's CLI".
package compression

import (
	"errors"
	"io"
)

// Compression is how an archive is compressed.
type Compression int

// The ones that are named where nothing is compressed.
const (
	None Compression = iota
	Gzip
)

// ErrAbsent is what everything here ends with.
var ErrAbsent = errors.New("archives are not available here")

// Detect knows none.
func Detect([]byte) Compression { return None }

// CompressStream always fails.
func CompressStream(io.Writer, Compression) (io.WriteCloser, error) { return nil, ErrAbsent }
