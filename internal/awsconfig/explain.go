package awsconfig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"regexp"
	"strings"
	"syscall"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"jumpsuite/internal/cli"
)

// Kind is why a call to AWS came to nothing.
type Kind int

// The kinds of Error.
const (
	Unreachable   Kind = iota // no answer: name, connection, time-out
	NoCredentials             // nothing to sign with
	Expired                   // signed with credentials that are over
	Refused                   // signed with credentials that AWS does not know
	Denied                    // IAM says no
	Throttled                 // too many calls, by us or by colleagues
	Faulty                    // AWS answered with an error of its own (5xx)
)

// Error is a call to AWS that came to nothing for a reason that has nothing to
// do with what was asked for. Errors about the thing itself (no such cluster,
// a parameter that is wrong) stay what the SDK made of them.
type Error struct {
	Kind Kind
	What string // what happened, in a sentence's second half
	Next string // what to check
	Err  error  // the SDK's error
}

func (e *Error) Error() string { return e.What }

// Unwrap is the SDK's error.
func (e *Error) Unwrap() error { return e.Err }

// ExitCode is cli.ExitUnavailable.
func (e *Error) ExitCode() int { return cli.ExitUnavailable }

// Hint is what to check.
func (e *Error) Hint() string { return e.Next }

// Explain is err as an *Error, if it is of one of its kinds, and err itself if
// not. Clients made from a Config of Load explain their errors already; for
// those it takes away the SDK's "operation error ECS: ListTasks, " in front.
func Explain(err error) error {
	if op, ok := err.(*smithy.OperationError); ok {
		if ours, ok := op.Err.(*Error); ok {
			return ours
		}
		return explainCall(err, op.Service(), op.Operation())
	}
	if _, ok := errors.AsType[*Error](err); ok {
		return err
	}
	return explainCall(err, "", "")
}

// explain is Explain as a middleware, outermost.
func explain(stack *middleware.Stack) error {
	return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("jumpsuite:explain", func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
		out, metadata, err := next.HandleInitialize(ctx, in)
		if err == nil || ctx.Err() != nil {
			return out, metadata, err
		}
		err = explainCall(err, middleware.GetServiceID(ctx), middleware.GetOperationName(ctx))
		return out, metadata, tried(err, metadata)
	}), middleware.Before)
}

// tried says of an endpoint that does not answer how often it was asked.
func tried(err error, metadata middleware.Metadata) error {
	ours, ok := errors.AsType[*Error](err)
	results, counted := retry.GetAttemptResults(metadata)
	if ok && counted && isTimeout(ours.Err) && len(results.Results) > 1 {
		ours.What += fmt.Sprintf(" (%d tries)", len(results.Results))
	}
	return err
}

// explainCall makes an *Error of err where it is of a known kind.
func explainCall(err error, service, operation string) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	call := strings.ToLower(strings.ReplaceAll(service, " ", "")) + ":" + operation
	if _, ok := errors.AsType[*credentialsError](err); ok {
		return noCredentials(err)
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return explainAnswer(err, api, call)
	}
	return explainSilence(err)
}

func noCredentials(err error) error {
	return &Error{Kind: NoCredentials, Err: err, What: "no AWS credentials: " + innermost(err),
		Next: "check what 'aws sts get-caller-identity' says; with sudo it is the instance's role, or " + Dir + "/credentials"}
}

func explainAnswer(err error, api smithy.APIError, call string) error {
	switch c := api.ErrorCode(); {
	case oneOf(c, "ExpiredToken", "ExpiredTokenException", "RequestExpired"):
		return &Error{Kind: Expired, Err: err, What: "the AWS credentials have expired (" + c + ")",
			Next: "get new credentials (aws sso login, or a new session token), and check the clock of this machine"}
	case oneOf(c, "UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException", "SignatureDoesNotMatch", "InvalidAccessKeyId", "AuthFailure", "IncompleteSignature", "MissingAuthenticationToken", "MissingAuthenticationTokenException"):
		return &Error{Kind: Refused, Err: err, What: "AWS does not accept the credentials (" + c + "): " + api.ErrorMessage(),
			Next: "check the access key, its region and partition, and the clock of this machine"}
	case oneOf(c, "AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "NotAuthorized"):
		return denied(err, api, call)
	case throttles.IsErrorThrottle(err).Bool() && c != "LimitExceededException":
		return &Error{Kind: Throttled, Err: err, What: "AWS is throttling " + call + " (" + c + ")",
			Next: "others in this account are calling the same API: try again in a minute"}
	}
	if status := status(err); status >= 500 {
		return &Error{Kind: Faulty, Err: err, What: fmt.Sprintf("AWS answered %s with an error of its own: %d %s", call, status, api.ErrorCode()),
			Next: "try again in a minute; see https://health.aws.amazon.com"}
	}
	// The SDK's word for an answer without a code. AWS's have one.
	if api.ErrorCode() == "UnknownError" {
		return somebodyElse(err)
	}
	return err
}

// somebodyElse is about an answer that AWS would not give: a proxy's, a login
// page's, that of another service on the address.
func somebodyElse(err error) error {
	return &Error{Kind: Unreachable, Err: err, Next: checkNetwork,
		What: fmt.Sprintf("AWS is out of reach: what answers at %s is not AWS (status %d)", address(err), status(err))}
}

const checkNetwork = "check the network, the proxy and the region; the address comes from --endpoint-url, AWS_ENDPOINT_URL or the policy's endpoint"

var throttles = retry.IsErrorThrottles(retry.DefaultThrottles)

// deniedText is how IAM words a refusal.
var deniedText = regexp.MustCompile(`not authorized to perform: ([A-Za-z0-9:*-]+)(?: on resource: (\S+))?`)

func denied(err error, api smithy.APIError, call string) error {
	action, resource := call, ""
	if m := deniedText.FindStringSubmatch(api.ErrorMessage()); m != nil {
		action, resource = m[1], m[2]
	}
	what := "the AWS credentials do not allow " + action
	if resource != "" {
		what += " on " + resource
	}
	return &Error{Kind: Denied, Err: err, What: what, Next: "an administrator has to add " + action + " to the role's IAM policy"}
}

// explainSilence is about calls that got no answer that could be read as one.
func explainSilence(err error) error {
	where := address(err)
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return &Error{Kind: Unreachable, Err: err, What: "AWS is out of reach: no address for " + dns.Name, Next: checkNetwork}
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return &Error{Kind: Unreachable, Err: err, What: "AWS is out of reach: " + where + " refuses connections", Next: checkNetwork}
	}
	if isTimeout(err) {
		return &Error{Kind: Unreachable, Err: err, What: "AWS is out of reach: " + where + " does not answer in time", Next: checkNetwork}
	}
	if s := status(err); s >= 500 {
		return &Error{Kind: Faulty, Err: err, What: fmt.Sprintf("AWS answered with an error of its own: status %d", s), Next: "try again in a minute; see https://health.aws.amazon.com"}
	}
	if _, ok := errors.AsType[*smithyhttp.RequestSendError](err); ok {
		return &Error{Kind: Unreachable, Err: err, What: "AWS is out of reach: " + where + ": " + innermost(err), Next: checkNetwork}
	}
	if brokenOff(err) {
		return &Error{Kind: Unreachable, Err: err, What: "AWS is out of reach: " + where + " broke off its answer: " + innermost(err), Next: checkNetwork}
	}
	if _, ok := errors.AsType[*smithy.DeserializationError](err); ok {
		return somebodyElse(err)
	}
	return err
}

// brokenOff reports whether an answer ended in the middle, with its connection.
func brokenOff(err error) bool {
	if _, reading := errors.AsType[*smithy.DeserializationError](err); !reading {
		return false
	}
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) ||
		strings.Contains(err.Error(), "unexpected EOF") || strings.Contains(err.Error(), "use of closed network connection") // the SDK does not always wrap
}

func isTimeout(err error) bool {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	n, ok := errors.AsType[net.Error](err)
	return ok && n.Timeout()
}

// address is whom the failed call was for.
func address(err error) string {
	if u, ok := errors.AsType[*url.Error](err); ok {
		if parsed, err := url.Parse(u.URL); err == nil && parsed.Host != "" {
			return parsed.Host
		}
	}
	if r, ok := errors.AsType[*smithyhttp.ResponseError](err); ok && r.Response != nil && r.Response.Request != nil {
		return r.Response.Request.URL.Host
	}
	return "the endpoint"
}

func status(err error) int {
	if r, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		return r.HTTPStatusCode()
	}
	return 0
}

// innermost is the text of the cause that has no cause.
func innermost(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err.Error()
		}
		err = next
	}
}

func oneOf(s string, list ...string) bool {
	for _, l := range list {
		if s == l {
			return true
		}
	}
	return false
}

// provider marks the errors of the credentials chain: the SDK has no type for them.
type provider struct{ aws.CredentialsProvider }

// Retrieve is the chain's.
func (p *provider) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c, err := p.CredentialsProvider.Retrieve(ctx)
	if err != nil && ctx.Err() == nil {
		return c, &credentialsError{err}
	}
	return c, err
}

type credentialsError struct{ error }

func (e *credentialsError) Unwrap() error { return e.error }
