package tunnel

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Jump servers and hosts are upgraded one by one, so the two ends of a tunnel can be
// of different releases. What may differ is said at three places:
//
//   - the banner has the version of what is outside TLS: records and streams;
//   - TLS agrees on the version of what is inside, of those that both ends offer;
//   - within one version a message may get new members. Those that the other end may
//     leave unread are in "also". Each other one has to be understood: an end that
//     does not know it does nothing, and says so.
//
// So nothing that a release adds to bound what callers may do is passed over by one
// that has not heard of it.

// additions are what later releases say besides, and others may leave unread.
type additions struct {
	Also map[string]json.RawMessage `json:"also,omitempty"`
}

// unknownError is a member of a message that this release does not know.
type unknownError struct{ name string } // in quotes

func (e *unknownError) Error() string { return e.name + " is not known here" }

// ReleaseError is a host's gate that is of another release than this jump server,
// and with which it cannot go on.
type ReleaseError struct{ Text string }

func (e *ReleaseError) Error() string { return "the host's gate is of another release: " + e.Text }

// Hint is what to do about it.
func (e *ReleaseError) Hint() string {
	return "install the same release on jump server and host; in an upgrade hosts first"
}

// ExitCode is 69: the host is out of reach.
func (e *ReleaseError) ExitCode() int { return 69 }

// ofAnotherRelease is why a message of the host's cannot be read.
func ofAnotherRelease(message string, err error) error {
	var unknown *unknownError
	if errors.As(err, &unknown) {
		return &ReleaseError{Text: message + " has " + unknown.name + ", which is not known here"}
	}
	return fmt.Errorf("the host's gate: %s cannot be read: %w", message, err)
}

// newerError is what a jump server is told whose hello has more in it than the gate
// knows.
type newerError struct{ name string }

func (e *newerError) Error() string {
	return "the jump server says " + e.name + ", which this host's gate does not know: it is older"
}

// Hint is what to do about it.
func (e *newerError) Hint() string {
	return "install the jump server's release on the host; in an upgrade hosts first"
}

// ExitCode is 69: the host is out of reach.
func (e *newerError) ExitCode() int { return 69 }

// misread is what a jump server is told whose hello cannot be read.
func misread(err error) error {
	var unknown *unknownError
	if errors.As(err, &unknown) {
		return &newerError{unknown.name}
	}
	return fmt.Errorf("the jump server's hello cannot be read: %w", err)
}
