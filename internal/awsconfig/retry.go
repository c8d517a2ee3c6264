package awsconfig

import (
	"errors"
	"math/rand/v2"
	"net"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
)

const (
	maxAttempts  = 8 // of a throttled call
	otherTries   = 3 // of a call that failed otherwise
	connectTries = 2 // of a connection that could not be made
	silentTries  = 2 // of a call that got no answer in time

	firstBackoff = 200 * time.Millisecond // between the first attempt and the second
	maxBackoff   = 5 * time.Second        // between any two
)

// retryer is the SDK's standard one, with more patience for throttling (it
// passes) than for an endpoint that does not answer (it rarely does).
type retryer struct {
	*retry.Standard
	throttle retry.IsErrorThrottle
}

func newRetryer() aws.Retryer {
	return &retryer{
		Standard: retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts = maxAttempts
			o.MaxBackoff = maxBackoff
			o.Backoff = retry.BackoffDelayerFunc(backoff)
		}),
		throttle: retry.IsErrorThrottles(retry.DefaultThrottles),
	}
}

// backoff doubles from a fifth of a second: AWS's buckets refill by 20 tokens a
// second, so the SDK's own first wait, up to two seconds, is longer than it takes.
// Half of each wait is chance, so that parallel calls do not come back together.
func backoff(attempt int, _ error) (time.Duration, error) {
	d := min(firstBackoff<<min(attempt-1, 10), maxBackoff)
	return d/2 + rand.N(d/2), nil
}

// IsErrorRetryable is the SDK's view, but for LimitExceededException: the SDK
// takes it for throttling, while ECS and ECR mean a quota by it, which no
// patience lifts (RegisterTaskDefinition: revisions per family). And an answer that
// broke off is asked for again, which the SDK does after a reset only.
func (r *retryer) IsErrorRetryable(err error) bool {
	if code(err) == "LimitExceededException" {
		return false
	}
	return brokenOff(err) || r.Standard.IsErrorRetryable(err)
}

// RetryDelay is how long to wait before the next attempt, or err itself when
// there have been enough: the SDK has one number of attempts for all errors.
func (r *retryer) RetryDelay(attempt int, err error) (time.Duration, error) {
	if attempt >= r.tries(err) {
		return 0, err
	}
	return r.Standard.RetryDelay(attempt, err)
}

func (r *retryer) tries(err error) int {
	if r.throttle.IsErrorThrottle(err).Bool() {
		return maxAttempts
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return connectTries
	}
	if isTimeout(err) {
		return silentTries
	}
	return otherTries
}

// code is the error code that AWS gave, or "".
func code(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return ""
}
