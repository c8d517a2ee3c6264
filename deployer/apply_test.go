package deployer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/awsconfig"
)

func answered(status int, err error) error {
	return &awshttp.ResponseError{ResponseError: &smithyhttp.ResponseError{
		Response: &smithyhttp.Response{Response: &http.Response{StatusCode: status}}, Err: err}}
}

func said(code, message string, fault smithy.ErrorFault) error {
	return &smithy.GenericAPIError{Code: code, Message: message, Fault: fault}
}

func TestFateOfAChange(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want fate
	}{
		{"throttled", answered(400, said("ThrottlingException", "Rate exceeded", smithy.FaultClient)), notMade},
		{"two register at a time", answered(400, said("ClientException", "Too many concurrent attempts to create a new revision of the specified family.", smithy.FaultClient)), notMade},
		{"server error", answered(500, &types.ServerException{}), unknown},
		{"bad gateway without a body", answered(502, errors.New("no body")), unknown},
		{"connection cut", &smithyhttp.RequestSendError{Err: io.ErrUnexpectedEOF}, unknown},
		{"answer cut", io.ErrUnexpectedEOF, unknown},
		{"time-out", context.DeadlineExceeded, unknown},
		{"a parameter is wrong", answered(400, &types.InvalidParameterException{}), rejected},
		{"inactive", answered(400, &types.ClientException{}), rejected},
		{"denied", answered(400, said("AccessDeniedException", "no", smithy.FaultClient)), rejected},
		{"expired", answered(400, said("ExpiredTokenException", "old", smithy.FaultClient)), rejected},
		{"quota", answered(400, said("LimitExceededException", "too many", smithy.FaultClient)), rejected},
		{"not even sent", &smithy.InvalidParamsError{Context: "x"}, rejected},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for what, err := range map[string]error{"bare": tt.err, "wrapped": fmt.Errorf("operation error ECS: %w", tt.err), "explained": awsconfig.Explain(tt.err)} {
				if got := fateOf(err); got != tt.want {
					t.Errorf("%s: fate %d, want %d (%v)", what, got, tt.want, err)
				}
			}
		})
	}
}

// script is what a change's call answers, time after time, and whether AWS made
// it nevertheless.
type script struct {
	answers []error
	lost    int // the call (from 1) that AWS made though its answer is an error
	hidden  int // how many reads do not show it yet
	sent    int
	reads   int
}

func (s *script) send(context.Context) error {
	s.sent++
	return s.answers[min(s.sent, len(s.answers))-1]
}

func (s *script) made(d *Deployer) func(context.Context) (bool, error) {
	return func(context.Context) (bool, error) {
		s.reads++
		d.clock.hear(d.clock.Now().Add(settledAfter / 3))
		return s.lost > 0 && s.sent >= s.lost && s.reads > s.hidden, nil
	}
}

func TestChangesAreMadeOnceWhateverTheAnswers(t *testing.T) {
	broken, throttled, wrong := answered(500, &types.ServerException{}), said("ThrottlingException", "Rate exceeded", smithy.FaultClient), answered(400, &types.InvalidParameterException{})
	for _, tt := range []struct {
		name   string
		script script
		sent   int
		err    bool
	}{
		{"it just works", script{answers: []error{nil}}, 1, false},
		{"throttled twice", script{answers: []error{throttled, throttled, nil}}, 3, false},
		{"500 and not made", script{answers: []error{broken, nil}}, 2, false},
		{"500 and made", script{answers: []error{broken, wrong}, lost: 1}, 1, false},
		{"500 and made, and the reads are stale", script{answers: []error{broken, wrong}, lost: 1, hidden: 2}, 1, false},
		{"500, not made, then 500 and made", script{answers: []error{broken, broken, wrong}, lost: 2}, 2, false},
		{"refused", script{answers: []error{wrong}}, 1, true},
		{"refused after a throttle", script{answers: []error{throttled, wrong}}, 2, true},
		{"500 for ever", script{answers: []error{broken}}, changeTries, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := &Deployer{Interval: time.Microsecond, clock: &serverClock{}}
			d.clock.hear(noon)
			s := tt.script
			err := d.change(t.Context(), "change", s.send, s.made(d))
			if s.sent != tt.sent || (err != nil) != tt.err {
				t.Errorf("sent %d times, %v; want %d times, an error: %v", s.sent, err, tt.sent, tt.err)
			}
		})
	}
}

func TestChangeIsFinishedThoughInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	d := &Deployer{Interval: time.Microsecond, clock: &serverClock{}}
	sent := 0
	err := d.change(ctx, "change", func(ctx context.Context) error {
		cancel()
		sent++
		if sent == 1 {
			return said("ThrottlingException", "Rate exceeded", smithy.FaultClient)
		}
		return ctx.Err()
	}, nil)
	if err != nil || sent != 2 {
		t.Errorf("sent %d times: %v, want 2 times and no error", sent, err)
	}
}

func TestDeploymentThatAServiceShowsIsRecognised(t *testing.T) {
	dep := func(id, status, definition string) ecsstatus.Deployment {
		return ecsstatus.Deployment{ID: id, Status: status, TaskDefinition: definition}
	}
	earlier := map[string]bool{"1": true}
	for _, tt := range []struct {
		name string
		in   []ecsstatus.Deployment
		want bool
	}{
		{"not yet", []ecsstatus.Deployment{dep("1", "PRIMARY", "web:1")}, false},
		{"there", []ecsstatus.Deployment{dep("2", "PRIMARY", "web:2"), dep("1", "ACTIVE", "web:1")}, true},
		{"there, and superseded already", []ecsstatus.Deployment{dep("3", "PRIMARY", "web:3"), dep("2", "ACTIVE", "web:2")}, true},
		{"an earlier one of the same definition that is not PRIMARY", []ecsstatus.Deployment{dep("3", "PRIMARY", "web:3"), dep("1", "ACTIVE", "web:2")}, false},
		{"an earlier one of the same definition that is PRIMARY again", []ecsstatus.Deployment{dep("1", "PRIMARY", "web:2")}, true},
	} {
		if got := begun(&ecsstatus.Service{Deployments: tt.in}, "web:2", earlier); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
