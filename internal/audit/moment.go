package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"jumpsuite/internal/cli"
)

// DamagedError is a recording, or a log, that is not what was written.
type DamagedError struct {
	What string
	Err  error
}

func (e *DamagedError) Error() string { return e.What + ": " + e.Err.Error() }

func (e *DamagedError) Unwrap() error { return e.Err }

// ExitCode is cli.ExitDamaged.
func (e *DamagedError) ExitCode() int { return cli.ExitDamaged }

func readMoment(n int, raw []byte, long bool, header func(RecordingHeader) error, each func(Moment) error) error {
	what := fmt.Sprintf("line %d of the recording", n)
	if long {
		return &DamagedError{What: what, Err: errLong}
	}
	if n == 1 {
		var h RecordingHeader
		if err := json.Unmarshal(raw, &h); err != nil {
			return &DamagedError{What: what, Err: err}
		}
		if h.Version != 2 {
			return &DamagedError{What: what, Err: fmt.Errorf("version %d; this reads version 2", h.Version)}
		}
		return header(h)
	}
	m, err := decodeMoment(raw)
	if err != nil {
		return &DamagedError{What: what, Err: err}
	}
	return each(m)
}

func decodeMoment(raw []byte) (m Moment, err error) {
	var seconds float64
	parts := []any{&seconds, &m.Code, &m.Data}
	if err := json.Unmarshal(raw, &parts); err != nil {
		return m, err
	}
	if len(parts) != 3 || slices.Contains(parts, nil) || math.IsNaN(seconds) || seconds < 0 || seconds > 1e9 {
		return m, errors.New("not a time, a code and text")
	}
	m.At = time.Duration(seconds * float64(time.Second))
	return m, nil
}
