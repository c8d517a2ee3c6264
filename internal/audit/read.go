package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// Line is one line of a file.
type Line struct {
	Number int    // from 1
	Raw    []byte // with its newline, if it has one; valid until the next line
	Event  Event  // when Err is nil
	Err    error  // why the line is not to be trusted
}

// Whole reports whether the line ends in a newline.
func (l *Line) Whole() bool { return len(l.Raw) > 0 && l.Raw[len(l.Raw)-1] == '\n' }

// errLong is a line that is longer than any that the log writes.
var errLong = fmt.Errorf("the line is longer than %d bytes", maxRubbish)

// ReadLines calls f for each line of r until f returns an error, which
// it returns. Of a line longer than 1 MiB, Raw holds the beginning.
func ReadLines(r io.Reader, f func(Line) error) error {
	b := bufio.NewReaderSize(r, 64<<10)
	for n := 1; ; n++ {
		raw, long, err := readRaw(b)
		if len(raw) > 0 {
			if err := f(parse(n, raw, long)); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func parse(n int, raw []byte, long bool) Line {
	l := Line{Number: n, Raw: raw}
	switch {
	case long:
		l.Err = errLong
	case !l.Whole():
		l.Err = errors.New("the line has no end")
	default:
		l.Event, l.Err = ParseLine(raw[:len(raw)-1])
	}
	return l
}

func readRaw(b *bufio.Reader) (raw []byte, long bool, err error) {
	raw, err = b.ReadSlice('\n')
	if err != bufio.ErrBufferFull {
		return raw, false, err
	}
	raw = append([]byte(nil), raw...)
	for err == bufio.ErrBufferFull {
		var more []byte
		more, err = b.ReadSlice('\n')
		if len(raw)+len(more) > maxRubbish {
			long = true
			continue
		}
		raw = append(raw, more...)
	}
	return raw, long, err
}
