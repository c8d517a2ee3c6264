package deployer

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/awsconfig"
	"jumpsuite/internal/cli"
)

// attempt is one deployment from its plan to its end.
type attempt struct {
	d   *Deployer
	r   Request
	now Current
	// before is the service's PRIMARY deployment as the preflight found it.
	before Observation
	plan   *Plan
	// former is the journal that the service had; its zero value: none.
	former    Journal
	back      string // ARN of the definition to go back to; empty: there is none
	goal      Goal
	platforms []platform // of the image; none: not known
	// whole is whether everything that the service's deployment should have is
	// there and healthy, so that there is nothing to wait for and to supersede.
	whole bool
	// resumed is whether another process began it.
	resumed bool
	// asked is the ARN of the service deployment that ECS was asked to roll back.
	asked string
	// changed is whether the service was updated.
	changed bool
	// replaced is whether the percents of the strategy replacing have been, or
	// may have been, set.
	replaced bool
}

// Deploy brings an image to a service and follows it to an end. Its error says
// which end: see the exit codes in package cli. Interrupted by ctx, it leaves
// AWS going.
func (d *Deployer) Deploy(ctx context.Context, r Request) error {
	if r.Timeout == 0 {
		r.Timeout = DefaultTimeout
	}
	if r.Strategy == "" {
		r.Strategy = Rolling
	}
	d.start(r.ContainerType)
	defer d.endTails(ctx)
	a := &attempt{d: d, r: r}
	begin, err := a.prepare(ctx)
	if err != nil || !begin {
		return err
	}
	if err := a.open(ctx); err != nil {
		return err
	}
	err = a.run(ctx)
	err = a.tidy(ctx, err)
	return a.finish(ctx, err)
}

// prepare finds out what there is, plans, and finds what is in the way. It
// changes nothing. The result is whether there is something to do.
func (a *attempt) prepare(ctx context.Context) (begin bool, err error) {
	if err := a.read(ctx); err != nil {
		return false, unavailable(ctx, err)
	}
	if a.plan, err = MakePlan(a.now, a.r); err != nil {
		return false, err
	}
	if a.d.Allow != nil {
		if err := a.d.Allow(a.plan.image); err != nil {
			return false, err
		}
	}
	if err := a.preflight(ctx); err != nil {
		return false, unavailable(ctx, err)
	}
	if a.alreadyThere() {
		return false, nil
	}
	a.d.tell(Event{Kind: Planned, TaskDefinition: a.plan.Base, Message: a.plan.From + " to " + a.plan.To, Plan: a.plan})
	return !a.r.DryRun, nil
}

// unavailable says what an interruption before any change means.
func unavailable(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	return nothingChanged(ctx)
}

func nothingChanged(ctx context.Context) error {
	return cli.Errorf(cli.ExitInterrupted, "", "%v; nothing was changed", context.Cause(ctx))
}

// read reads the service and the task definition that it has: the one of its
// PRIMARY deployment, whatever the family's latest is.
func (a *attempt) read(ctx context.Context) error {
	s, err := a.d.before.Service(ctx, a.r.ContainerType)
	if err != nil {
		return err
	}
	a.now.Service = s
	a.former, _ = a.d.journalOf(s)
	if s.Status != "ACTIVE" {
		return refused(a.d.gone(s))
	}
	if s.Config.Controller != "ECS" {
		return refused(unfit(s, &Plan{wanted: &ecs.RegisterTaskDefinitionInput{}})...)
	}
	definition := s.TaskDefinition
	if p := s.Primary(); p != nil {
		definition = p.TaskDefinition
	}
	a.now.Definition, a.now.Tags, err = a.d.definition(ctx, definition)
	return err
}

func (d *Deployer) definition(ctx context.Context, arn string) (types.TaskDefinition, []types.Tag, error) {
	out, err := d.patient.DescribeTaskDefinition(ctx, &ecs.DescribeTaskDefinitionInput{
		TaskDefinition: aws.String(arn), Include: []types.TaskDefinitionField{types.TaskDefinitionFieldTags}})
	if err != nil {
		return types.TaskDefinition{}, nil, fmt.Errorf("describe task definition %s: %w", ecsstatus.ShortName(arn), awsconfig.Explain(err))
	}
	return *out.TaskDefinition, out.Tags, nil
}

// run makes the changes and follows them.
func (a *attempt) run(ctx context.Context) error {
	if ctx.Err() != nil {
		return nothingChanged(ctx)
	}
	if err := a.record("RegisterTaskDefinition: family %s, container %s gets %s", aws.ToString(a.plan.wanted.Family), a.plan.Container, withDigest(a.plan)); err != nil {
		return err
	}
	definition, err := a.d.register(ctx, a.plan.wanted, a.d.keeper.j.Attempt)
	if err != nil {
		return a.unchanged(err, "")
	}
	a.d.tell(Event{Kind: Registered, TaskDefinition: definition, Message: "registered " + ecsstatus.ShortName(definition)})
	if !markable(a.plan.wanted) { // who picks this up would not find it by its mark
		a.d.keeper.note(ctx, func(j *Journal) { j.Definition = ecsstatus.ShortName(definition) })
	}
	if ctx.Err() != nil {
		return cli.Errorf(cli.ExitInterrupted, "", "%v; %s", context.Cause(ctx), unused(definition))
	}
	if err := a.mine(ctx); err != nil {
		return fmt.Errorf("%w; %s", err, unused(definition))
	}
	if err := a.record("UpdateService: %s to %s", a.r.ContainerType, definition); err != nil {
		return fmt.Errorf("%w; %s", err, unused(definition))
	}
	if err := a.begin(ctx, definition); err != nil {
		return a.unchanged(err, definition)
	}
	return a.see(ctx)
}

// record records a step before it is taken.
func (a *attempt) record(format string, args ...any) error {
	if a.d.Record == nil {
		return nil
	}
	return a.d.Record(a.plan, fmt.Sprintf(format, args...))
}

// unused says what is left when a revision was registered and nothing else was done.
func unused(definition string) string {
	return "the service is unchanged, revision " + ecsstatus.ShortName(definition) + " is registered and not used"
}

// unchanged says what an error before the deployment began left behind. What
// AWS refuses is a matter of how things are set up.
func (a *attempt) unchanged(err error, definition string) error {
	if _, coded := err.(interface{ ExitCode() int }); coded {
		return err
	}
	left := "nothing was changed"
	if definition != "" {
		left = unused(definition)
	}
	code := cli.ExitCode(err)
	if code == cli.ExitSoftware {
		code = cli.ExitConfig
	}
	return cli.Errorf(code, "", "%w; %s", err, left)
}

// begin updates the service; the deployment id in the answer is the anchor.
func (a *attempt) begin(ctx context.Context, definition string) error {
	var percents *types.DeploymentConfiguration
	before := a.d.keeper.j.Before
	switch a.replaced = a.d.keeper.j.Percents; {
	case a.replaced && a.r.Strategy == Replacing:
		percents = replacing()
	case a.replaced: // left so by an attempt that never ended
		percents = deploymentPercents(before.MinimumHealthy, before.Maximum)
	}
	earlier := ids(a.now.Service)
	after, err := a.d.update(ctx, definition, percents, earlier)
	a.changed = after != nil
	if err != nil {
		return err
	}
	wanted := types.TaskDefinition{ContainerDefinitions: a.plan.wanted.ContainerDefinitions}
	a.goal = goalFor(after, after.Primary(), wanted)
	maps.Copy(a.goal.Earlier, earlier)
	a.goal.Container, a.goal.Digest, a.goal.MaxFailures, a.goal.WaitDrained = a.plan.Container, a.plan.Digest, a.r.MaxFailures, a.r.WaitDrained
	a.d.keeper.note(ctx, func(j *Journal) {
		j.State, j.Definition, j.Deployment = StateUpdated, ecsstatus.ShortName(definition), a.goal.ID
	})
	a.d.tell(Event{Kind: Updated, Deployment: a.goal.ID, TaskDefinition: definition, UsualSeconds: a.d.usual(ctx), Message: fmt.Sprintf("deployment %s of %s began", a.goal.ID, ecsstatus.ShortName(definition))})
	return nil
}

// see follows the deployment and does what its end asks for.
func (a *attempt) see(ctx context.Context) error {
	v, err := a.d.follow(ctx, a.goal, a.r.Timeout)
	if err != nil {
		return a.stopFollowing(ctx, err)
	}
	switch v.Outcome {
	case Deployed:
		a.d.tell(Event{Kind: Done, Deployment: a.goal.ID, TaskDefinition: a.goal.Definition, Message: a.success(v)})
		return nil
	case TakenBack:
		a.tellFailure(v)
		return a.followECS(ctx, v)
	case Superseded:
		return a.overtaken(v)
	case Gone:
		a.tellFailure(v)
		return a.notRolledBack(v, "the service was deleted", "")
	case Lost:
		return a.lost(v)
	}
	a.tellFailure(v)
	return a.rollBack(ctx, v)
}

func (a *attempt) success(v Verdict) string {
	line := fmt.Sprintf("%s runs %s (%s)", a.r.ContainerType, withDigest(a.plan), ecsstatus.ShortName(a.goal.Definition))
	if v.Reason != "" {
		line += "; " + v.Reason
	}
	return line
}

func (a *attempt) tellFailure(v Verdict) {
	a.d.tell(Event{Kind: Broke, Deployment: a.goal.ID, TaskDefinition: a.goal.Definition, Message: v.Reason})
}

// stopFollowing does what the person wants to be done when he interrupts.
func (a *attempt) stopFollowing(ctx context.Context, err error) error {
	if a.r.OnInterrupt != RollBack {
		return a.interrupted(err, "the deployment goes on")
	}
	v := Verdict{Outcome: Failed, Reason: err.Error() + ", which --on-interrupt rollback asks to be rolled back"}
	a.tellFailure(v)
	return a.rollBack(context.WithoutCancel(ctx), v)
}

// interrupted leaves AWS going and says so: what nobody follows, nobody rolls back.
func (a *attempt) interrupted(err error, what string) error {
	message := fmt.Sprintf("%v; %s in AWS: %s of %s", err, what, a.goal.ID, ecsstatus.ShortName(a.goal.Definition))
	a.d.tell(Event{Kind: Interrupted, Deployment: a.goal.ID, TaskDefinition: a.goal.Definition, Message: message})
	return cli.Errorf(cli.ExitInterrupted, a.picksUp(), "%s", message)
}

// picksUp is how a person goes on with what was interrupted, and what happens until
// then if it fails.
func (a *attempt) picksUp() string {
	switch b := a.goal.Breaker; {
	case a.d.keeper == nil: // it was not ours to take back
		return a.d.follows()
	case b.Enabled && b.Rollback:
		return "pick it up with: " + a.d.command("wait") + " (until then it is rolled back only if ECS's circuit breaker does)"
	}
	return "pick it up with: " + a.d.command("wait") + " (until then nobody rolls it back if it fails)"
}

func (a *attempt) overtaken(v Verdict) error {
	a.d.tell(Event{Kind: Overtaken, Deployment: v.Other, Message: v.Reason})
	return cli.Errorf(cli.ExitBusy, a.d.lookAt(), "deployment of %s to %s was superseded: %s; it is left alone", a.r.ContainerType, a.plan.To, v.Reason)
}

func (a *attempt) lost(v Verdict) error {
	return cli.Errorf(cli.ExitUnavailable, a.d.lookAt(), "lost sight of deployment %s of %s, which goes on in AWS: %w", a.goal.ID, a.r.ContainerType, v.Err)
}

// tidy puts the percents back, however it ended.
func (a *attempt) tidy(ctx context.Context, err error) error {
	if !a.d.keeper.j.Percents {
		return err
	}
	before := a.d.keeper.j.Before
	if cli.ExitCode(err) == cli.ExitInterrupted && a.goal.ID != "" && !canMove(desired(a.now.Service), before.MinimumHealthy, before.Maximum) {
		a.awaitStop(ctx)
	}
	restoring := a.restore(ctx, before.MinimumHealthy, before.Maximum)
	if restoring == nil {
		return err
	}
	if err == nil {
		return fmt.Errorf("%s is deployed, but %w", a.r.ContainerType, restoring)
	}
	return &both{first: err, second: restoring}
}

// awaitStop waits, for the seconds that ECS takes, until it has begun to stop the old tasks
// of a replacement that is left going: with the percents put back before that, it could
// neither stop nor start a task.
func (a *attempt) awaitStop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeTime)
	defer cancel()
	w := a.d.watch(a.d.reader, a.goal)
	w.labels = nil // nobody is shown the hosts
	_, _ = a.d.settle(ctx, func(ctx context.Context) (bool, error) {
		o, err := w.look(ctx)
		running, _ := oldTasks(o)
		return running == 0, err
	})
}

// unrestored reports whether an error says that the percents were left behind.
func unrestored(err error) bool {
	_, left := errors.AsType[*leftError](err)
	return left
}

// both is an error and what went wrong when tidying up after it. The first
// one's exit code counts.
type both struct{ first, second error }

func (e *both) Error() string   { return e.first.Error() + "; and: " + e.second.Error() }
func (e *both) ExitCode() int   { return cli.ExitCode(e.first) }
func (e *both) Unwrap() []error { return []error{e.first, e.second} }
