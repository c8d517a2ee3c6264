package deployer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/cli"
)

// BackRequest is what is asked of RollBack.
type BackRequest struct {
	ContainerType string
	// To is the definition to go back to, family:revision, or a revision of the
	// family that the service has. Empty: what its journal says was before.
	To     string
	Reason string
	// Timeout is how long the roll-back may take, on AWS's clock. Zero means DefaultTimeout.
	Timeout time.Duration
	// MaxFailures is as a Request's.
	MaxFailures int
	// Supersede rolls back although a process is at the deployment: it will give way.
	Supersede bool
	// DryRun ends after the plan.
	DryRun bool
	// Confirm is asked before anything is changed. If nil, nobody is.
	Confirm func(context.Context, *Plan) error
}

// RollBack brings the service of a container type back to what its journal says
// was before the last deployment, or to a revision, and follows that to its
// end. It may be called again whatever became of an earlier call: a roll-back
// that has begun is followed and not begun again.
func (d *Deployer) RollBack(ctx context.Context, r BackRequest) error {
	if r.Timeout == 0 {
		r.Timeout = DefaultTimeout
	}
	d.start(r.ContainerType)
	defer d.endTails(ctx)
	b, err := d.planBack(ctx, r)
	if err != nil {
		return unavailable(ctx, err)
	}
	if b.nothing != "" && !b.open {
		d.tell(Event{Kind: NothingToDo, TaskDefinition: b.current, Message: b.nothing})
		return nil
	}
	p := b.plan()
	d.tell(Event{Kind: Planned, TaskDefinition: b.current, Message: b.current + " back to " + b.target, Plan: p})
	if r.DryRun {
		return nil
	}
	if r.Confirm != nil {
		if err := r.Confirm(ctx, p); err != nil {
			return err
		}
	}
	return d.goBack(ctx, b, r)
}

// wayBack is what RollBack has found.
type wayBack struct {
	service *ecsstatus.Service
	former  Journal // the service's; its zero value: none
	open    bool    // it has not ended
	near    bool    // its process lives, on this machine
	current string  // definition that the service has
	target  string  // to go back to
	nothing string  // why there is no deployment to be made; empty: there is
}

// planBack reads, and decides what to go back to. It changes nothing.
func (d *Deployer) planBack(ctx context.Context, r BackRequest) (*wayBack, error) {
	s, err := d.there(ctx)
	if err != nil {
		return nil, err
	}
	p := s.Primary()
	if s.Config.Controller != "ECS" || p == nil {
		return nil, refusal("use the tool that deploys it", "container type %s is deployed by %s, not by ECS", s.Name, controllerName(s.Config.Controller))
	}
	b := &wayBack{service: s, current: ecsstatus.ShortName(p.TaskDefinition)}
	b.former, _ = d.journalOf(s)
	held := b.former.Attempt != "" && d.held(ctx, s, b.former)
	if held && !r.Supersede {
		return nil, cli.Errorf(cli.ExitBusy, d.follows()+", or give --supersede to take it over", "%s is being deployed by %s", s.Name, b.former.Who())
	}
	b.open = b.former.Attempt != "" && !b.former.State.Ended()
	if at := d.shelf(s); held && at.path != "" {
		b.near, _ = at.lives(ctx, b.former.Attempt, b.former.Holder)
	}
	if err := d.complete(ctx, b); err != nil {
		return nil, err
	}
	return b, b.choose(r.To, d.command("show")+" --deployments")
}

// complete finds what a journal that was left at its beginning does not know yet.
func (d *Deployer) complete(ctx context.Context, b *wayBack) error {
	if !b.open || b.former.State != StateBegun {
		return nil
	}
	a := d.resumed(b.service, b.former, 0)
	found, err := a.find(ctx, &b.former)
	if err != nil || !found {
		return err
	}
	b.service, b.former.State = a.now.Service, StateUpdated
	if p := b.service.Primary(); p != nil {
		b.current = ecsstatus.ShortName(p.TaskDefinition)
	}
	return nil
}

// choose decides what to go back to; show is the command that shows what there is.
func (b *wayBack) choose(to, show string) error {
	j, p := b.former, b.service.Primary()
	switch {
	case to != "":
		return b.chooseRevision(to)
	case j.Attempt == "":
		return cli.Usage("say where to: --to REVISION ("+show+" shows what there is)", "%s has no journal of a deployment, so it is not known what was before", b.service.Name)
	case b.open && j.State == StateBegun:
		b.target, b.nothing = b.current, fmt.Sprintf("the deployment of %s to %s was given up before the service was changed", b.service.Name, j.target())
	case !b.related():
		return cli.Usage("say where to: --to REVISION", "%s has another deployment than its journal is about: %s of %s, and not %s", b.service.Name, p.ID, b.current, j.Definition)
	case j.Back == "":
		return refusal("say where to: --to REVISION", "no deployment of %s had completed before the one to %s: there is nothing to go back to", b.service.Name, j.target())
	default:
		b.target = j.Back
	}
	if b.target == b.current && !b.open {
		b.nothing = fmt.Sprintf("%s has %s", b.service.Name, b.current)
	}
	return nil
}

// related reports whether the journal is about what the service has now.
func (b *wayBack) related() bool {
	j := b.former
	return j.about(b.service.Primary()) || b.open && (b.current == j.Definition || b.current == j.Back)
}

// chooseRevision takes a revision of the family that the service has, and of no
// other: what else there is in the account is not for a roll-back.
func (b *wayBack) chooseRevision(to string) error {
	family := family(b.current)
	if name, revision, ok := strings.Cut(ecsstatus.ShortName(to), ":"); ok {
		if name != family {
			return cli.Usage("roll back to a revision of "+family, "%s is no revision of %s, which %s has", to, family, b.service.Name)
		}
		to = revision
	}
	if n, err := strconv.Atoi(to); err != nil || n < 1 {
		return cli.Usage("for example --to 12, or --to "+family+":12", "%q is no revision of a task definition", to)
	}
	b.target = family + ":" + to
	if b.target == b.current {
		b.nothing = fmt.Sprintf("%s has %s", b.service.Name, b.current)
	}
	return nil
}

// plan is what would be done, for a person to agree to and for the record.
func (b *wayBack) plan() *Plan {
	p := &Plan{ContainerType: b.service.Name, Cluster: ecsstatus.ShortName(aws.ToString(b.service.AWS.ClusterArn)), Container: b.former.Container,
		From: b.current, To: b.target, Base: b.current, Strategy: b.strategy(), Desired: desired(b.service)}
	if b.nothing == "" {
		p.Steps = append(p.Steps, fmt.Sprintf("update service %s to %s", b.service.Name, b.target), "follow until its tasks are running and healthy")
	} else {
		p.Notes = append(p.Notes, b.nothing)
	}
	if low, high := percents(b.service); b.former.leftPercents(low, high) {
		p.Steps = append(p.Steps, fmt.Sprintf("put minimumHealthyPercent %d and maximumPercent %d back", b.former.Before.MinimumHealthy, b.former.Before.Maximum))
	}
	return p
}

func (b *wayBack) strategy() Strategy {
	if b.former.Percents && !b.former.State.Ended() {
		return Replacing
	}
	return Rolling
}

// journal is the journal of the roll-back: what it undoes is what was before it.
func (b *wayBack) journal(d *Deployer, r BackRequest) Journal {
	low, high := percents(b.service)
	p := b.service.Primary()
	j := Journal{Attempt: mark(), State: StateRollingBack, Began: d.clock.Now(), ContainerType: b.service.Name, By: d.By, Host: d.Host, Reason: r.Reason,
		Strategy: b.strategy(), MaxFailures: r.MaxFailures, Seconds: wholeSeconds(r.Timeout), Image: b.image(), Container: b.former.Container,
		Before:     Before{Definition: b.current, Deployment: p.ID, Desired: b.service.Desired, MinimumHealthy: low, Maximum: high, Breaker: breaker(b.service)},
		Definition: b.current, Deployment: p.ID, Back: b.target, Why: "rolled back by hand"}
	if b.open && !b.near {
		j.Attempt = b.former.Attempt // what it has registered carries this mark
	}
	if b.open && b.former.Back == b.target && b.former.Definition != "" {
		j.Definition, j.Deployment, j.Return, j.Why = b.former.Definition, b.former.Deployment, b.former.Return, cmp.Or(b.former.Why, j.Why)
	}
	return j.inherit(b.former)
}

// image is the image that is rolled back, if the journal is about it.
func (b *wayBack) image() string {
	if b.former.Definition == b.current || b.open {
		return b.former.Image
	}
	return ""
}

// goBack begins or picks up the roll-back, and follows it.
func (d *Deployer) goBack(ctx context.Context, b *wayBack, r BackRequest) error {
	j := b.journal(d, r)
	if err := tagRoom(b.service, j); err != nil {
		return err
	}
	a := d.resumed(b.service, j, r.Timeout)
	a.plan.From, a.plan.To = b.current, b.target
	if err := a.adopt(ctx, b.service, j, r.Supersede); err != nil {
		return d.moved(b.service, err)
	}
	err := a.tidy(ctx, a.undo(ctx, b))
	return rolled(a.finish(ctx, err))
}

// moved says what it means that someone else was quicker.
func (d *Deployer) moved(s *ecsstatus.Service, err error) error {
	if err == errMoved {
		return cli.Errorf(cli.ExitBusy, d.follows(), "someone else has taken the deployment of %s over at the same time", s.Name)
	}
	return err
}

// undo rolls back, if there is something to.
func (a *attempt) undo(ctx context.Context, b *wayBack) error {
	if b.nothing != "" {
		a.d.tell(Event{Kind: NotBegun, TaskDefinition: b.current, Message: b.nothing})
		return cli.Errorf(cli.ExitRolledBack, "", "%s", b.nothing) // see rolled
	}
	g, err := a.goalOf(ctx, a.now.Service, a.d.keeper.j)
	if err != nil {
		return err
	}
	a.goal = g
	why := Verdict{Outcome: Failed, Reason: a.d.keeper.j.Why}
	if b.former.State == StateRollingBack || b.target == b.current { // it may have begun
		return a.resumeBack(ctx, why)
	}
	return a.rollBack(ctx, why)
}

// rolled is the error of a roll-back that was asked for: that it is done is none.
func rolled(err error) error {
	left, ok := errors.AsType[*leftError](err)
	switch {
	case ok && cli.ExitCode(err) == cli.ExitRolledBack:
		return fmt.Errorf("it is rolled back, but %w", left)
	case cli.ExitCode(err) == cli.ExitRolledBack:
		return nil
	}
	return err
}
