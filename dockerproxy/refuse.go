package dockerproxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// Refusal is an answer of the gate's own instead of the Engine's.
type Refusal struct {
	Status int    // of HTTP
	Text   string // what is refused and why
	Rule   string // that decided; empty: no rule of the policy did
	Hint   string // what to do instead; may be empty
	Engine bool   // the text is the Engine's own, or stands for it
	Fault  bool   // the host that is meant is not clear, or cannot be reached
	Far    bool   // it is the refusal of a host's gate

	// Recorded is set when the decision is on record already.
	Recorded bool
}

func (r *Refusal) Error() string {
	if r.Engine {
		return r.Text
	}
	s := "jumpsuite: " + r.Text
	if r.Hint != "" {
		s += "\nhint: " + r.Hint
	}
	return s
}

func badRequest(format string, args ...any) *Refusal {
	return &Refusal{Status: http.StatusBadRequest, Text: fmt.Sprintf(format, args...)}
}

func forbidden(hint, format string, args ...any) *Refusal {
	return &Refusal{Status: http.StatusForbidden, Text: fmt.Sprintf(format, args...), Hint: hint}
}

// unavailable is an Engine that does not do its part.
func unavailable(format string, args ...any) *Refusal {
	return &Refusal{Status: http.StatusBadGateway, Text: fmt.Sprintf(format, args...)}
}

// noSuchContainer is what the Engine says of a container that is not there. It
// is also said of one that the caller may not know of.
func noSuchContainer(ref string) *Refusal {
	return &Refusal{Status: http.StatusNotFound, Text: "No such container: " + printable(ref), Engine: true}
}

func noSuch(kind, ref string) *Refusal {
	return &Refusal{Status: http.StatusNotFound, Text: fmt.Sprintf("No such %s: %s", kind, printable(ref)), Engine: true}
}

// body is the refusal as the Engine writes its errors. The docker CLI prints
// the message as it is.
func (r *Refusal) body() []byte {
	// The Engine's words can have others' in them. A struct of one string always marshals.
	b, _ := json.Marshal(struct {
		Message string `json:"message"`
	}{visibleText(r.Error())})
	return append(b, '\n')
}

// printable escapes what could drive a terminal.
func printable(s string) string { return clean(clip(s)) }

func clean(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || drives(c) {
			return '?'
		}
		return c
	}, s)
}
