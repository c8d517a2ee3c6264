package audit

import (
	"fmt"
	"time"

	"jumpsuite/internal/cli"
)

// WriteError is an event that could not be written, so that what it tells must
// not be done.
type WriteError struct {
	Path string
	Err  error
}

func (e *WriteError) Error() string { return fmt.Sprintf("write the audit log %s: %v", e.Path, e.Err) }

func (e *WriteError) Unwrap() error { return e.Err }

// ExitCode is cli.ExitAudit.
func (e *WriteError) ExitCode() int { return cli.ExitAudit }

// Hint tells what follows from it.
func (e *WriteError) Hint() string {
	return "nothing is done that cannot be recorded; ask an administrator to look at " + e.Path
}

// FullError is new work refused because there is no room to record it.
type FullError struct{ Path string }

func (e *FullError) Error() string {
	return fmt.Sprintf("write the audit log %s: the disk is full", e.Path)
}

// ExitCode is cli.ExitAudit.
func (e *FullError) ExitCode() int { return cli.ExitAudit }

// Hint tells what goes on and what does not.
func (e *FullError) Hint() string {
	return "new work is refused until an administrator has made room; what is under way goes on"
}

// RateError is new work refused because its caller wrote too much to the log.
type RateError struct {
	Name string
	Wait time.Duration // until they may go on
}

func (e *RateError) Error() string {
	return fmt.Sprintf("%s has filled the audit log too fast", e.Name)
}

// ExitCode is cli.ExitNotAllowed.
func (e *RateError) ExitCode() int { return cli.ExitNotAllowed }

// Hint tells when to try again.
func (e *RateError) Hint() string { return fmt.Sprintf("try again in %v", e.Wait) }
