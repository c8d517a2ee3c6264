package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// position is where a log ends: its newest line, and the file that holds it.
type position struct {
	seq   uint64
	hash  string
	inode uint64
	size  int64
}

// headFormat is the content of the head file: version, number, hash, inode,
// size, always of one length.
const headFormat = "%d %020d %s %020d %020d\n"

// readHead reads what the last writer noted. A file that is empty or torn is
// not known: then the log itself is read.
func readHead(f *os.File) (p position, known bool) {
	b := make([]byte, 256)
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return position{}, false
	}
	words := strings.Fields(string(b[:n]))
	if len(words) != 5 || words[0] != strconv.Itoa(Version) || len(words[2]) != hashLen {
		return position{}, false
	}
	p.hash = words[2]
	var errs [3]error
	p.seq, errs[0] = strconv.ParseUint(words[1], 10, 64)
	p.inode, errs[1] = strconv.ParseUint(words[3], 10, 64)
	p.size, errs[2] = strconv.ParseInt(words[4], 10, 64)
	return p, errors.Join(errs[:]...) == nil
}

// writeHead notes where the log ends. If that fails, the next writer reads the
// end of the log instead.
func writeHead(f *os.File, p position) {
	f.WriteAt(fmt.Appendf(make([]byte, 0, 160), headFormat, Version, p.seq, p.hash, p.inode, p.size), 0)
}

// fileEnd is how a file ends: its last line that is whole and true, and what
// stands after it.
type fileEnd struct {
	seq     uint64
	hash    string
	rubbish *repair // nil when nothing does
	broken  bool    // the rubbish has no newline at its end
}

// maxRubbish is how far from its end a file is searched for a true line.
const maxRubbish = 1 << 20

// readEnd reads the end of a file of size bytes.
func readEnd(f io.ReaderAt, size int64) (fileEnd, error) {
	for window := int64(2 * MaxLine); ; window *= 4 {
		window = min(window, size)
		b := make([]byte, window)
		if _, err := f.ReadAt(b, size-window); err != nil && err != io.EOF {
			return fileEnd{}, fmt.Errorf("read the end of the log: %w", err)
		}
		if end, ok := lastLine(b); ok {
			return end, nil
		}
		if window == size && size <= maxRubbish {
			return rubbishEnd(b, 0), nil
		}
		if window >= min(size, maxRubbish) {
			return fileEnd{}, fmt.Errorf("the log has no true line within %d bytes of its end", window)
		}
	}
}

// lastLine finds the last line of b that is whole and true.
func lastLine(b []byte) (fileEnd, bool) {
	for end := bytes.LastIndexByte(b, '\n'); end >= 0; {
		start := bytes.LastIndexByte(b[:end], '\n') + 1
		if e, err := ParseLine(b[start:end]); err == nil {
			found := rubbishEnd(b, end+1)
			found.seq, found.hash = e.Seq, e.Hash
			return found, true
		}
		end = start - 1
	}
	return fileEnd{}, false
}

// rubbishEnd describes b[from:], which holds no true line.
func rubbishEnd(b []byte, from int) fileEnd {
	rest := b[from:]
	if len(rest) == 0 {
		return fileEnd{}
	}
	sum := sha256.Sum256(rest)
	return fileEnd{
		rubbish: &repair{Bytes: int64(len(rest)), Sum: hex.EncodeToString(sum[:])},
		broken:  rest[len(rest)-1] != '\n',
	}
}
