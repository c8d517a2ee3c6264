package access

import (
	"errors"

	"jumpsuite/internal/audit"
	"jumpsuite/internal/cli"
)

// DeniedError is a request that the policy does not allow.
type DeniedError struct {
	Environment string // empty if none was found
	Rule        string // that decided
	Text        string
	Next        string // the hint
}

func (e *DeniedError) Error() string { return e.Text }

// ExitCode is cli.ExitNotAllowed.
func (e *DeniedError) ExitCode() int { return cli.ExitNotAllowed }

// Hint is whom to ask, or what to leave out.
func (e *DeniedError) Hint() string { return e.Next }

// event is a decision about the caller.
func (a *Access) event(env, action, rule string, allowed bool) audit.Event {
	return audit.Event{
		Kind:        audit.Decision,
		Principal:   audit.Principal{UID: a.Caller.UID, Name: a.Caller.Name, Groups: a.Caller.Groups},
		Environment: env, Action: action, Verdict: audit.Verdict(allowed), Rule: rule, Reason: a.reason,
	}
}

// record writes a decision and returns it as an error: nil if it allows and is
// on record. A refusal stays one, recorded or not.
func (a *Access) record(e *audit.Event, refusal error) error {
	if err := a.Log.Record(e); err != nil {
		return errors.Join(refusal, err)
	}
	return refusal
}

// refuse records a refusal from before it was known what exactly is asked for.
// Other errors are no decision of the policy's.
func (a *Access) refuse(action string, err error) error {
	denied, ok := errors.AsType[*DeniedError](err)
	if !ok {
		return err
	}
	e := a.event(denied.Environment, action, denied.Rule, false)
	e.Detail = denied.Text
	return a.record(&e, err)
}
