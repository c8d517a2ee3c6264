package dockerengine

import (
	"bytes"
	"io"
	"testing"

	"github.com/docker/docker/pkg/stdcopy"
)

// demultiplex is what is in a stream of Docker's, standard output and error.
func demultiplex(t testing.TB, r io.Reader) string {
	t.Helper()
	var b bytes.Buffer
	if _, err := stdcopy.StdCopy(&b, &b, r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
