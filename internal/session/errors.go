package session

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/aws/smithy-go"

	"jumpsuite/internal/cli"
)

// Kind is why a session came to nothing.
type Kind int

// The kinds of Error.
const (
	Offline          Kind = iota // the target's agent is not connected to the service
	NoDocument                   // the session document is not there
	Denied                       // IAM says no
	NotListening                 // nothing listens on the port
	Ended                        // the service ended the session, and says why
	Over                         // the service knows the session no more
	HandshakeRefused             // the document is another than we need
	Silent                       // the agent does not answer
	Lost                         // the service cannot be reached any more
)

// Error is a session that could not be started, or is over, for a reason that
// somebody can do something about.
type Error struct {
	Kind Kind
	What string // what happened
	Next string // what to check
	Err  error  // what it was made from; may be nil
}

func (e *Error) Error() string { return e.What }

// Unwrap is what it was made from.
func (e *Error) Unwrap() error { return e.Err }

// Hint is what to check.
func (e *Error) Hint() string { return e.Next }

// ExitCode is cli.ExitConfig for what an administrator has to set up, and
// cli.ExitUnavailable for the rest.
func (e *Error) ExitCode() int {
	if e.Kind == NoDocument || e.Kind == HandshakeRefused {
		return cli.ExitConfig
	}
	return cli.ExitUnavailable
}

// asError is err if it is an *Error, and nil if not.
func asError(err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return nil
}

// deniedText is how IAM words a refusal.
var deniedText = regexp.MustCompile(`not authorized to perform: ([A-Za-z0-9:*-]+)(?: on resource: (\S+))?`)

// isDenied is whether err is IAM's refusal, and what it says.
func isDenied(err error) (message string, ok bool) {
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok || api.ErrorCode() != "AccessDeniedException" && api.ErrorCode() != "AccessDenied" {
		return "", false
	}
	return api.ErrorMessage(), true
}

// denied is IAM's refusal of a call about a target.
func (c Config) denied(call, message string, err error) error {
	action, resource := call, ""
	if m := deniedText.FindStringSubmatch(message); m != nil {
		action, resource = m[1], m[2]
	}
	what := fmt.Sprintf("the AWS credentials do not allow %s", action)
	if resource != "" && resource != "*" {
		what += " on " + resource
	}
	return &Error{Kind: Denied, Err: err, What: what + ", which a session to " + c.Target + " needs",
		Next: "an administrator has to add " + action + " to the role's IAM policy, for the hosts and for the document " + c.Document}
}

// explainStart says why there is no session.
func (c Config) explainStart(err error) error {
	if message, ok := isDenied(err); ok {
		return c.denied("ssm:StartSession", message, err)
	}
	switch code := codeOf(err); code {
	case "TargetNotConnected":
		return &Error{Kind: Offline, Err: err, What: c.Target + " is not connected to Session Manager",
			Next: "check that the host runs, that its amazon-ssm-agent does, and that its role and network let it reach ssmmessages"}
	case "InvalidDocument", "InvalidDocumentVersion":
		return &Error{Kind: NoDocument, Err: err, What: fmt.Sprintf("there is no session document %q in this account and region", c.Document),
			Next: "an administrator has to create the document that jumpsuite brings along"}
	}
	return fmt.Errorf("start a session on %s: %w", c.Target, err)
}

func codeOf(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return ""
}

// explainDial says why there is no websocket.
func (c Config) explainDial(answer *http.Response, err error) error {
	if answer != nil && answer.StatusCode == http.StatusForbidden {
		return &Error{Kind: Denied, Err: err, What: "the service refuses the data channel of the session to " + c.Target + " (403)",
			Next: "check ssmmessages:OpenDataChannel in the role's IAM policy, and the clock of this machine"}
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	return &Error{Kind: Lost, Err: err, What: fmt.Sprintf("open the data channel of the session to %s: %v", c.Target, err),
		Next: "check that this machine can reach ssmmessages." + c.Region + ".amazonaws.com, or the VPC endpoint of it"}
}

// portText is how the agent says that it cannot connect to the port, and
// crashText how its parent says it where the worker crashes over that: those of 3.3 do,
// for a port without a type (BasicPortSession.Stop closes a connection that there is not).
const (
	portText  = "Unable to connect to specified port"
	crashText = "document process failed unexpectedly"
)

func (c Config) notListening(output string) error {
	what := "nothing on " + c.Target + " listens on the port of " + c.Document
	if output != "" {
		what += " (" + output + ")"
	}
	return &Error{Kind: NotListening, What: what, Next: "check that jumpsuite's r3-dockerproxy is installed there, and runs: systemctl status r3-dockerproxy"}
}

// maxWords bounds what is shown of the service's words, in bytes.
const maxWords = 300

// ended is a session that the service ended, and said why: what it says comes from
// its idle time-out ("Your session timed out due to inactivity and has been
// terminated."), from who ended it, or from the host's agent.
func (c Config) ended(output string) error {
	words := strings.Join(strings.Fields(cli.Printable(output)), " ")
	if len(words) > maxWords {
		words = strings.ToValidUTF8(words[:maxWords], "") + "…"
	}
	return &Error{Kind: Ended, What: "the session to " + c.Target + " was ended: " + words,
		Next: "try again; how long a session may be idle, and last, is in the preferences of Session Manager, who ended it in CloudTrail (TerminateSession), and the rest in the log of the host's amazon-ssm-agent"}
}

func (c Config) forgotten(err error) error {
	return &Error{Kind: Over, Err: err, What: "the session to " + c.Target + " is over", Next: "it was idle for too long, or somebody ended it: try again"}
}

func (c Config) lost(err error) error {
	return &Error{Kind: Lost, Err: err, What: fmt.Sprintf("the session to %s was lost, and cannot be resumed: %v", c.Target, err), Next: "check the network, and try again"}
}

func (c Config) refused(why string) error {
	return &Error{Kind: HandshakeRefused, What: fmt.Sprintf("the session document %q is not the one that jumpsuite brings along: %s", c.Document, why),
		Next: "an administrator has to create the document from jumpsuite's own file"}
}

func (c Config) silent() error {
	return &Error{Kind: Silent, What: fmt.Sprintf("the agent of %s does not answer within %s", c.Target, handshakeTimeout),
		Next: "check amazon-ssm-agent on the host, and that its role allows ssmmessages:OpenDataChannel"}
}

func (c Config) stalled() error {
	return &Error{Kind: Silent, What: fmt.Sprintf("the agent of %s has confirmed nothing for %s", c.Target, stallLimit), Next: "check amazon-ssm-agent on the host, and try again"}
}
