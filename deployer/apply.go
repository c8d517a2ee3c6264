package deployer

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/smithy-go"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/awsconfig"
	"jumpsuite/internal/cli"
)

const (
	// changeTries is how often a change is sent before it is given up.
	changeTries = 8
	// changeTime is how long one change may take with everything that it
	// takes to be sure of it, on our clock.
	changeTime = 5 * time.Minute
	// settledAfter is how far AWS's clock must have run, since a change whose
	// answer was lost, before not seeing it means that it was not made.
	settledAfter = 15 * time.Second
)

// fate is what is known of a change after an error.
type fate int

const (
	unknown  fate = iota // it may have been made
	notMade              // it was not made, and may be tried again
	rejected             // it was not made, and will not be
)

// fateOf says what an error of a changing call means. What it cannot tell is
// unknown.
func fateOf(err error) fate {
	if e, ok := errors.AsType[*awsconfig.Error](awsconfig.Explain(err)); ok {
		switch e.Kind {
		case awsconfig.Throttled:
			return notMade
		case awsconfig.NoCredentials, awsconfig.Expired, awsconfig.Refused, awsconfig.Denied:
			return rejected
		}
		return unknown
	}
	if _, ok := errors.AsType[*smithy.InvalidParamsError](err); ok {
		return rejected
	}
	api, ok := errors.AsType[smithy.APIError](err)
	switch {
	case !ok || api.ErrorFault() == smithy.FaultServer:
		return unknown
	case strings.Contains(api.ErrorMessage(), "Too many concurrent attempts"):
		return notMade
	}
	return rejected
}

// UncertainError says that a change was sent to AWS and that nobody knows
// whether it was made.
type UncertainError struct {
	What string
	Err  error
	Look string // how to find out
}

func (e *UncertainError) Error() string {
	return fmt.Sprintf("%s: it is not known whether AWS has done it: %v", e.What, e.Err)
}

// Unwrap is the error of the last try.
func (e *UncertainError) Unwrap() error { return e.Err }

// ExitCode is cli.ExitUnavailable: AWS did not answer.
func (e *UncertainError) ExitCode() int { return cli.ExitUnavailable }

// Hint is how to find out.
func (e *UncertainError) Hint() string { return e.Look }

// change makes a change to AWS once and no more. send makes it. When its answer
// is lost, made looks for it: it returns whether the change is there now.
// Only when AWS's clock has run on for a while without it, it is sent again.
//
// It does not end when ctx is cancelled: a change half made is the one thing
// that an interrupted person could not be told about.
func (d *Deployer) change(ctx context.Context, what string, send func(context.Context) error, made func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeTime)
	defer cancel()
	var last error
	for try := 1; try <= changeTries; try++ {
		if last = send(ctx); last == nil {
			return nil
		}
		switch fateOf(last) {
		case rejected:
			return fmt.Errorf("%s: %w", what, awsconfig.Explain(last))
		case unknown:
			if done, err := d.settle(ctx, made); err != nil || done {
				return uncertain(what, last, err, d.lookAt())
			}
		}
		if err := sleep(ctx, d.backoff(try)); err != nil {
			break
		}
	}
	return fmt.Errorf("%s: %w", what, awsconfig.Explain(last))
}

func uncertain(what string, last, err error, look string) error {
	if err == nil {
		return nil
	}
	return &UncertainError{What: what, Err: last, Look: look}
}

// settle looks for a change until it is there, or AWS's clock has run long
// enough, since the first look, to believe that it is not. An error means that
// nobody answered.
func (d *Deployer) settle(ctx context.Context, made func(context.Context) (bool, error)) (bool, error) {
	var since time.Time
	for try := 1; ; try++ {
		done, err := made(ctx)
		now := d.clock.Now()
		if err == nil && since.IsZero() {
			since = now
		}
		if err == nil && (done || now.Sub(since) >= settledAfter) {
			return done, nil
		}
		if waitErr := sleep(ctx, d.backoff(min(try, 3))); waitErr != nil {
			return false, errors.Join(waitErr, err)
		}
	}
}

// lookAt is how a person sees what AWS has done.
func (d *Deployer) lookAt() string {
	return "look with: " + d.command("show") + " --deployments"
}

// mark is the random name of an attempt.
func mark() string {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// register registers a revision with a mark and returns its ARN. A revision
// whose answer was lost is found by its mark, or by its content where there was no
// room for one; there never is a second.
func (d *Deployer) register(ctx context.Context, in *ecs.RegisterTaskDefinitionInput, id string) (string, error) {
	known := sign{mark: id}
	if !markable(in) {
		known.content, known.since = content(in), d.clock.Now().Add(-registerSlack)
	}
	in = marked(in, id, d.keeper.j)
	var arn string
	send := func(ctx context.Context) error {
		out, err := d.ecs.RegisterTaskDefinition(ctx, in)
		if err == nil {
			arn = aws.ToString(out.TaskDefinition.TaskDefinitionArn)
		}
		return err
	}
	made := func(ctx context.Context) (done bool, err error) {
		arn, err = d.findRevision(ctx, aws.ToString(in.Family), known)
		return arn != "", err
	}
	err := d.change(ctx, "register a revision of "+aws.ToString(in.Family), send, made)
	return arn, err
}

// registerSlack is how far our idea of AWS's clock may be ahead: the Date header
// has whole seconds.
const registerSlack = 2 * time.Second

// sign is how a revision is known that an attempt has registered: by its mark, or,
// where content is set, by that, if it was registered since a time.
type sign struct {
	mark    string
	content string
	since   time.Time // AWS's clock
	but     string    // ARN of one that it is not
}

func (s sign) of(def types.TaskDefinition, tags []types.Tag) bool {
	if s.but != "" && aws.ToString(def.TaskDefinitionArn) == s.but {
		return false
	}
	for _, t := range tags {
		if aws.ToString(t.Key) == deploymentTag {
			return aws.ToString(t.Value) == s.mark
		}
	}
	return s.content != "" && !aws.ToTime(def.RegisteredAt).Before(s.since) && content(revision(def, tags)) == s.content
}

// lately is how many of a family's newest revisions are searched for one.
const lately = 10

// findRevision finds the revision with a sign among a family's newest; empty if
// there is none.
func (d *Deployer) findRevision(ctx context.Context, family string, known sign) (string, error) {
	list, err := d.ecs.ListTaskDefinitions(ctx, &ecs.ListTaskDefinitionsInput{
		FamilyPrefix: aws.String(family), Sort: types.SortOrderDesc, MaxResults: aws.Int32(lately)})
	if err != nil {
		return "", err
	}
	for _, arn := range list.TaskDefinitionArns {
		out, err := d.ecs.DescribeTaskDefinition(ctx, &ecs.DescribeTaskDefinitionInput{
			TaskDefinition: aws.String(arn), Include: []types.TaskDefinitionField{types.TaskDefinitionFieldTags}})
		if err != nil {
			return "", err
		}
		if known.of(*out.TaskDefinition, out.Tags) {
			return arn, nil
		}
	}
	return "", nil
}

// update brings a task definition to a service and returns the service as
// UpdateService answered, whose PRIMARY deployment is the anchor. percents, if
// not nil, are set with it; earlier are the deployments that were there before.
// With an error there is a service if it was updated all the same.
func (d *Deployer) update(ctx context.Context, arn string, percents *types.DeploymentConfiguration, earlier map[string]bool) (*ecsstatus.Service, error) {
	var after *ecsstatus.Service
	send := func(ctx context.Context) error {
		out, err := d.ecs.UpdateService(ctx, &ecs.UpdateServiceInput{
			Cluster: &d.cluster, Service: &d.name, TaskDefinition: &arn, DeploymentConfiguration: percents})
		if err == nil {
			after = ecsstatus.NewService(*out.Service)
		}
		return err
	}
	made := func(ctx context.Context) (bool, error) {
		s, err := d.reader.Service(ctx, d.name)
		if err != nil {
			return false, err
		}
		after = s
		return begun(s, arn, earlier), nil
	}
	err := d.change(ctx, "update service "+d.name, send, made)
	if err != nil {
		return nil, err
	}
	if p := after.Primary(); p == nil || p.TaskDefinition != arn {
		return after, cli.Errorf(cli.ExitBusy, d.lookAt(), "update service %s: the deployment of %s began, and another one took over at once", d.name, ecsstatus.ShortName(arn))
	}
	return after, nil
}

// begun reports whether a service shows a deployment of arn that was not there
// before, or one that is PRIMARY (ECS's own roll-back takes up an earlier one).
func begun(s *ecsstatus.Service, arn string, earlier map[string]bool) bool {
	for _, dep := range s.Deployments {
		if dep.TaskDefinition == arn && (dep.Status == "PRIMARY" || !earlier[dep.ID]) {
			return true
		}
	}
	return false
}

// ids are the deployments that a service shows.
func ids(s *ecsstatus.Service) map[string]bool {
	out := map[string]bool{}
	for _, dep := range s.Deployments {
		out[dep.ID] = true
	}
	return out
}

// replacing are the percents of the strategy of that name.
func replacing() *types.DeploymentConfiguration { return deploymentPercents(0, 100) }

// deploymentPercents leaves everything else out: what UpdateService is not
// given it keeps.
func deploymentPercents(low, high int) *types.DeploymentConfiguration {
	return &types.DeploymentConfiguration{MinimumHealthyPercent: aws.Int32(int32(low)), MaximumPercent: aws.Int32(int32(high))}
}

// restore puts the percents back to what they were before the strategy
// replacing. Someone who changed them since is left alone, and whose journal
// says that they will put them back. It triggers no deployment.
func (a *attempt) restore(ctx context.Context, low, high int) error {
	d := a.d
	put := func(ctx context.Context) error {
		_, err := d.ecs.UpdateService(ctx, &ecs.UpdateServiceInput{Cluster: &d.cluster, Service: &d.name, DeploymentConfiguration: deploymentPercents(low, high)})
		return err
	}
	there := func(ctx context.Context) (bool, error) {
		s, err := d.reader.Service(ctx, d.name)
		if _, missing := errors.AsType[*ecsstatus.NotFoundError](err); missing || err == nil && s.Status != "ACTIVE" {
			return true, nil // deleted: there is nothing to put back
		}
		if err != nil {
			return false, err
		}
		nowLow, nowHigh := percents(s)
		next, theirs := d.keeper.theirs(s)
		return nowLow != 0 || nowHigh != 100 || theirs && next.leftPercents(0, 100), nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeTime)
	defer cancel()
	if changed, err := d.once(ctx, there); err == nil && changed {
		return nil
	}
	// It goes on unrecorded: 0 and 100 left behind would be worse.
	_ = a.record("UpdateService: %s to minimumHealthyPercent %d and maximumPercent %d, as before", d.name, low, high)
	err := d.change(ctx, "put minimumHealthyPercent and maximumPercent back", put, there)
	if err == nil {
		d.tell(Event{Kind: Restored, Message: fmt.Sprintf("minimumHealthyPercent is %d and maximumPercent is %d again", low, high)})
		return nil
	}
	return &leftError{err, fmt.Sprintf("try again with: r3-container wait --container-type %s; or by hand: aws ecs update-service --region %s --cluster %s --service %s --deployment-configuration minimumHealthyPercent=%d,maximumPercent=%d",
		d.name, d.region, d.cluster, d.name, low, high)}
}

// leftError says that the percents of the strategy replacing were left behind:
// the journal is not closed then, so that the next process puts the others back.
type leftError struct {
	err  error
	next string
}

func (e *leftError) Error() string { return e.err.Error() }

// Unwrap is AWS's error.
func (e *leftError) Unwrap() error { return e.err }

// ExitCode is that of AWS's error; what AWS refuses is a matter of how things are set up.
func (e *leftError) ExitCode() int {
	if code := cli.ExitCode(e.err); code != cli.ExitSoftware {
		return code
	}
	return cli.ExitConfig
}

// Hint is how to put them back.
func (e *leftError) Hint() string { return e.next }

// once asks a question of AWS until it answers, or ctx ends.
func (d *Deployer) once(ctx context.Context, ask func(context.Context) (bool, error)) (bool, error) {
	for try := 1; ; try++ {
		yes, err := ask(ctx)
		if err == nil || try == changeTries {
			return yes, err
		}
		if waitErr := sleep(ctx, d.backoff(try)); waitErr != nil {
			return false, errors.Join(waitErr, err)
		}
	}
}
