package cli

import (
	"errors"
	"fmt"
	"syscall"
)

// Exit codes are API: they are listed in every help text and manual page, and
// do not change. They follow sysexits.h where it has a word for the case; 1 is
// left to sudo, which uses it to say no. docs/operations.md has the same table.
const (
	ExitOK            = 0
	ExitUsage         = 64  // the command line is wrong
	ExitDamaged       = 65  // a log or a recording is not what was written
	ExitNotFound      = 66  // no such cluster, host, service, task, image, recording
	ExitUnavailable   = 69  // AWS or a host cannot be reached, no credentials, or IAM says no
	ExitSoftware      = 70  // a fault of ours
	ExitBusy          = 73  // another deployment runs
	ExitAudit         = 74  // it cannot be recorded, so nothing was done
	ExitRolledBack    = 75  // the deployment failed and was rolled back
	ExitNotRolledBack = 76  // the deployment failed and was not rolled back
	ExitNotAllowed    = 77  // the policy does not allow it, or who calls is not known
	ExitConfig        = 78  // a configuration file is wrong, or something is not set up
	ExitInterrupted   = 130 // interrupted; what was begun in AWS goes on
	ExitBrokenPipe    = 141 // the reader of our output went away
)

// ExitHelp lists the exit codes for help texts.
const ExitHelp = `EXIT STATUS:
   0    done
   64   usage: the command line is wrong
   65   the audit log, or a recording, is not as it was written
   66   no such cluster, host, container type, task, image or recording
   69   AWS or a host cannot be reached, or AWS does not allow it
   70   a fault of the program
   73   another deployment of this container type is running
   74   the audit log or the journal cannot be written, so nothing was done
   75   the deployment failed and was rolled back
   76   the deployment failed and was not rolled back
   77   the policy, or this machine, does not allow it
   78   a configuration file is wrong, or something is not set up
   130  interrupted; a deployment that was begun goes on
   141  the reader of the output went away
`

// Error is an error with an exit code and the next step to take.
type Error struct {
	Code int
	Err  error
	Next string // the hint; may be empty
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// ExitCode is the code the process ends with.
func (e *Error) ExitCode() int { return e.Code }

// Hint is what the person can do next.
func (e *Error) Hint() string { return e.Next }

// Usage is an error in the command line.
func Usage(hint, format string, args ...any) error {
	return &Error{Code: ExitUsage, Err: fmt.Errorf(format, args...), Next: hint}
}

// Errorf is an error with an exit code and a hint.
func Errorf(code int, hint, format string, args ...any) error {
	return &Error{Code: code, Err: fmt.Errorf(format, args...), Next: hint}
}

// ExitCode is the code for err: what the error says of itself (an
// `ExitCode() int` anywhere in its tree), or ExitSoftware.
func ExitCode(err error) int {
	if err == nil {
		return ExitOK
	}
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		return coded.ExitCode()
	}
	if errors.Is(err, syscall.EPIPE) {
		return ExitBrokenPipe
	}
	return ExitSoftware
}

// hints collects what the errors in err's tree suggest, the outermost first.
func hints(err error) []string {
	var out []string
	seen := map[string]bool{}
	var walk func(error)
	walk = func(err error) {
		if err == nil {
			return
		}
		if h, ok := err.(interface{ Hint() string }); ok && h.Hint() != "" && !seen[h.Hint()] {
			seen[h.Hint()] = true
			out = append(out, h.Hint())
		}
		switch u := err.(type) {
		case interface{ Unwrap() error }:
			walk(u.Unwrap())
		case interface{ Unwrap() []error }:
			for _, e := range u.Unwrap() {
				walk(e)
			}
		}
	}
	walk(err)
	return out
}
