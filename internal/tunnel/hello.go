package tunnel

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Hello is what a jump server says to a host's gate first: who calls, which it
// vouches for, and what about.
type Hello struct {
	User   string   `json:"user"`
	UID    int      `json:"uid"`
	Groups []string `json:"groups"`
	// Audit is the id that both gates' audit events have.
	Audit string `json:"audit"`
	// Environment is the one that is wanted; the host refuses where it is in
	// another. Empty: the host's, whichever that is.
	Environment string `json:"environment,omitempty"`
	// Purpose is what people typed, for the audit log.
	Purpose string `json:"purpose,omitempty"`
	// Former are the keys that the jump server had before, newest first.
	Former []Former `json:"former,omitempty"`

	additions
}

// Welcome is what a host's gate says to that.
type Welcome struct {
	Environment string `json:"environment"`
	Host        string `json:"host"`
	Version     string `json:"version"` // of the gate's release
}

// RefusedError is the host's refusal, in its words.
type RefusedError struct {
	Text string `json:"text"`
	Next string `json:"hint,omitempty"`
	Code int    `json:"code"` // exit code
}

func (e *RefusedError) Error() string { return "the host's gate refused: " + e.Text }

// Hint is what the host says to do about it.
func (e *RefusedError) Hint() string { return e.Next }

// ExitCode is the one that the host says; 77 where it says none that can be.
func (e *RefusedError) ExitCode() int {
	if e.Code < 64 || e.Code > 78 {
		return 77
	}
	return e.Code
}

// refusal is how an error travels.
func refusal(err error) *RefusedError {
	r := &RefusedError{Text: err.Error(), Code: 77}
	var hint interface{ Hint() string }
	if errors.As(err, &hint) {
		r.Next = hint.Hint()
	}
	var code interface{ ExitCode() int }
	if errors.As(err, &code) {
		r.Code = code.ExitCode()
	}
	return r
}

// answer is the host's first message: one of the two.
type answer struct {
	Welcome *Welcome      `json:"welcome,omitempty"`
	Refused *RefusedError `json:"refused,omitempty"`
	additions
}

// Bounds of messages and of what is in them.
const (
	maxMessage = 64 << 10
	maxName    = 256
	maxGroups  = 2000
	maxPurpose = 4 << 10
)

func (h *Hello) check() error {
	names := append([]string{h.User, h.Audit}, h.Groups...)
	for _, s := range names {
		if s == "" || len(s) > maxName || !utf8.ValidString(s) {
			return fmt.Errorf("the hello has the name %.40q", s)
		}
	}
	if len(h.Groups) > maxGroups || len(h.Former) > maxFormer || len(h.Purpose) > maxPurpose || len(h.Environment) > maxName || h.UID < 0 {
		return errors.New("the hello has too much in it")
	}
	return nil
}

// decode is strict: what it does not know is refused, as an *unknownError.
func decode(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
			return &unknownError{name}
		}
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the message")
	}
	return nil
}
