package dockerproxy

import "errors"

// dechunker takes the framing out of a chunked body, in place, however the
// bytes are cut up into reads. Its zero value is ready.
type dechunker struct {
	state  chunkState
	left   uint64 // of the current chunk, in bytes
	digits int
}

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkExtension
	chunkSizeLF
	chunkData
	chunkDataCR
	chunkDataLF
	chunkTrailer   // at the start of a trailer's line
	chunkTrailerIn // within one
	chunkEndLF
	chunkEnd
)

var errChunk = errors.New("the body is not chunked as it says")

// maxChunkDigits is enough for any chunk that fits into memory.
const maxChunkDigits = 8

// strip moves the payload in b to b's front and returns it. done is set when the
// body is complete.
func (d *dechunker) strip(b []byte) (payload []byte, done bool, err error) {
	out := 0
	for i := 0; i < len(b); {
		if d.state == chunkData {
			n := int(min(d.left, uint64(len(b)-i)))
			if out != i {
				copy(b[out:], b[i:i+n])
			}
			out += n
			i += n
			if d.left -= uint64(n); d.left == 0 {
				d.state = chunkDataCR
			}
			continue
		}
		if err := d.frame(b[i]); err != nil {
			return nil, false, err
		}
		i++
	}
	return b[:out], d.state == chunkEnd, nil
}

// frame takes one byte of the framing.
func (d *dechunker) frame(c byte) error {
	switch d.state {
	case chunkSize:
		return d.size(c)
	case chunkExtension:
		if c == '\n' {
			return errChunk
		}
		if c == '\r' {
			d.state = chunkSizeLF
		}
		return nil
	case chunkSizeLF:
		return d.expect(c, '\n', d.afterSize())
	case chunkDataCR:
		return d.expect(c, '\r', chunkDataLF)
	case chunkDataLF:
		d.digits = 0
		return d.expect(c, '\n', chunkSize)
	case chunkTrailer:
		d.state = chunkTrailerIn
		if c == '\r' {
			d.state = chunkEndLF
		}
		return nil
	case chunkTrailerIn:
		if c == '\n' {
			d.state = chunkTrailer
		}
		return nil
	case chunkEndLF:
		return d.expect(c, '\n', chunkEnd)
	}
	return errChunk
}

func (d *dechunker) size(c byte) error {
	switch {
	case isHex(c) && d.digits < maxChunkDigits:
		d.left = d.left<<4 | uint64(unhex(c))
		d.digits++
		return nil
	case d.digits == 0:
		return errChunk
	case c == '\r':
		d.state = chunkSizeLF
		return nil
	case c == ';' || c == ' ' || c == '\t':
		d.state = chunkExtension
		return nil
	}
	return errChunk
}

func (d *dechunker) afterSize() chunkState {
	if d.left == 0 {
		return chunkTrailer
	}
	return chunkData
}

func (d *dechunker) expect(c, want byte, next chunkState) error {
	if c != want {
		return errChunk
	}
	d.state = next
	return nil
}
