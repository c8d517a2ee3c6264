package deployer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/awsconfig"
	"jumpsuite/internal/cli"
)

// Pickup is what is asked of Wait.
type Pickup struct {
	ContainerType string
	// Timeout is how long to follow from now on, and the roll-back again, on
	// AWS's clock. Zero means what the journal says, or else DefaultTimeout.
	Timeout time.Duration
	// WaitDrained and OnInterrupt are a Request's, for what is taken over. Nil and empty
	// mean what the journal says.
	WaitDrained *bool
	OnInterrupt OnInterrupt
}

// completed is what is asked, and what the journal says of what is not.
func (r Pickup) completed(j Journal) Pickup {
	said := time.Duration(j.Seconds) * time.Second
	if j.State.Ended() {
		said = 0
	}
	r.Timeout = cmp.Or(r.Timeout, said, DefaultTimeout)
	if r.WaitDrained == nil {
		r.WaitDrained = &j.WaitDrained
	}
	r.OnInterrupt = cmp.Or(r.OnInterrupt, j.OnInterrupt)
	return r
}

// Wait follows the deployment of a container type that is under way to its end,
// and returns what Deploy would have returned.
//
// One whose process lives is only watched. One whose process has ended is taken
// over, if MayFinish allows it: rolled back if it fails, and what is left to be
// put back is. One that nobody has written a journal of is followed, and
// nothing is changed. Where nothing is under way, it returns how the last one ended.
func (d *Deployer) Wait(ctx context.Context, asked Pickup) error {
	d.start(asked.ContainerType)
	defer d.endTails(ctx)
	for {
		s, err := d.there(ctx)
		if err != nil {
			return unavailable(ctx, err)
		}
		j, ok := d.journalOf(s)
		r := asked.completed(j)
		switch {
		case !ok || j.State.Ended():
			return d.waitForOther(ctx, s, j, r)
		case d.held(ctx, s, j):
			err = d.watchHolder(ctx, s, j, r)
		default:
			err = d.pickUp(ctx, s, j, r)
		}
		if !errors.Is(err, errMoved) {
			return err
		}
	}
}

// errMoved says that a journal is no longer what it was: look again.
var errMoved = errors.New("the journal has changed")

// start prepares the Deployer for a container type.
func (d *Deployer) start(containerType string) {
	d.name, d.told, d.keeper, d.tails = containerType, map[string]bool{}, nil, nil
	d.before.Suggest, d.reader.Suggest = d.Suggest, d.Suggest
}

// there reads a container type that is not being deleted.
func (d *Deployer) there(ctx context.Context) (*ecsstatus.Service, error) {
	s, err := d.before.Service(ctx, d.name)
	if err == nil && s.Status != "ACTIVE" {
		return nil, d.gone(s)
	}
	return s, err
}

// waitForOther follows a deployment that has no journal, or tells how the last one ended.
func (d *Deployer) waitForOther(ctx context.Context, s *ecsstatus.Service, j Journal, r Pickup) error {
	p := s.Primary()
	known := p != nil && j.about(p) && j.State != StateAbandoned // as ended, while old tasks drain
	if p == nil || known || !running(s) {
		return d.lastEnd(s, j)
	}
	a, err := d.onlooker(ctx, s, p, r)
	if err != nil {
		return err
	}
	d.tell(Event{Kind: PickedUp, Deployment: p.ID, TaskDefinition: p.TaskDefinition,
		Message: fmt.Sprintf("following deployment %s of %s, which has no journal: nothing will be changed", p.ID, ecsstatus.ShortName(p.TaskDefinition))})
	return a.watch(ctx)
}

// onlooker is an attempt that only follows a deployment of a service.
func (d *Deployer) onlooker(ctx context.Context, s *ecsstatus.Service, dep *ecsstatus.Deployment, r Pickup) (*attempt, error) {
	def, _, err := d.definition(ctx, dep.TaskDefinition)
	if err != nil {
		return nil, unavailable(ctx, err)
	}
	short := ecsstatus.ShortName(dep.TaskDefinition)
	return &attempt{d: d, r: Request{ContainerType: s.Name, Timeout: r.Timeout}, now: Current{Service: s},
		plan: &Plan{ContainerType: s.Name, To: short, Base: short, Desired: s.Desired}, goal: goalSince(s, dep, def)}, nil
}

// watch follows, and changes nothing whatever it sees.
func (a *attempt) watch(ctx context.Context) error {
	v, err := a.d.follow(ctx, a.goal, a.r.Timeout)
	if err != nil {
		return a.interrupted(err, "the deployment goes on")
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
	case Lost:
		return a.lost(v)
	}
	a.tellFailure(v)
	return a.notRolledBack(v, "it is not for this command to change", a.d.rollsBack())
}

// rollsBack is how a person rolls back.
func (d *Deployer) rollsBack() string {
	return "roll it back with: " + d.command("rollback")
}

// lastEnd is how the last deployment ended, if the service still has what its
// journal says; where it has another deployment, that one is all there is to tell.
func (d *Deployer) lastEnd(s *ecsstatus.Service, j Journal) error {
	p := s.Primary()
	if p == nil {
		return cli.Errorf(cli.ExitNotFound, "", "%s has no deployment", s.Name)
	}
	what := fmt.Sprintf("no deployment of %s is under way; it has %s", s.Name, ecsstatus.ShortName(p.TaskDefinition))
	about := j.about(p)
	switch {
	case about && j.State == StateRolledBack:
		return cli.Errorf(cli.ExitRolledBack, "", "%s: the one to %s failed and was rolled back: %s", what, j.target(), j.Why)
	case about && j.State == StateNotRolledBack:
		return cli.Errorf(cli.ExitNotRolledBack, d.rollsBack(), "%s: the one to %s failed and was not rolled back: %s", what, j.target(), j.Why)
	case p.RolloutState == "FAILED":
		return cli.Errorf(cli.ExitNotRolledBack, d.rollsBack(), "%s: deployment %s of it failed: %s", what, p.ID, p.Reason)
	case about && j.State == StateAbandoned:
		return cli.Errorf(cli.ExitRolledBack, "deploy again", "%s: the one to %s was given up before the service was changed: %s", what, j.target(), j.Why)
	}
	d.tell(Event{Kind: NothingToDo, Deployment: p.ID, TaskDefinition: p.TaskDefinition, Message: what})
	return nil
}

// about reports whether a journal has to do with a deployment.
func (j Journal) about(p *ecsstatus.Deployment) bool {
	switch p.ID {
	case "":
		return false
	case j.Deployment, j.Return:
		return true
	case j.Before.Deployment:
		return j.State == StateAbandoned || j.State == StateBegun
	}
	return false
}

// target is what a journal's deployment was to bring, as people know it.
func (j Journal) target() string {
	if j.Image != "" {
		return j.Image
	}
	return j.Definition
}

// watchHolder watches a deployment whose process lives, until that process has
// written its end, or has died: errMoved.
func (d *Deployer) watchHolder(ctx context.Context, s *ecsstatus.Service, j Journal, r Pickup) error {
	d.tell(Event{Kind: PickedUp, Deployment: j.Deployment, Message: fmt.Sprintf("following what %s does (%s to %s): nothing is changed while that process lives", j.Who(), j.State, j.target())})
	end := d.clock.Now().Add(r.Timeout)
	// sight knows how AWS answers, and f what it says of the deployment.
	sight := &follower{d: d, w: d.watch(d.reader, Goal{ContainerType: s.Name, ID: j.Deployment}), deadline: end}
	var f *follower
	for d.clock.Now().Before(end) {
		if err := sleep(ctx, d.lookAgain(sight, f)); err != nil {
			return cli.Errorf(cli.ExitInterrupted, d.follows(), "%v; the deployment of %s goes on, by %s", err, s.Name, j.Who())
		}
		now, err := d.reader.Service(ctx, d.name)
		if err != nil {
			if v := sight.blind(ctx, awsconfig.Explain(err)); v.Outcome == Lost {
				return cli.Errorf(cli.ExitUnavailable, d.lookAt(), "lost sight of what %s does with %s: %w", j.Who(), s.Name, v.Err)
			}
			continue // AWS in trouble decides nothing
		}
		sight.seen()
		if now.Status != "ACTIVE" {
			return d.gone(now)
		}
		latest, _ := d.journalOf(now)
		if latest.Holder != j.Holder || latest.State.Ended() || !d.held(ctx, now, latest) {
			return errMoved
		}
		if f = d.show(ctx, f, now, latest, r); f != nil {
			f.once(ctx) // its verdict is the holder's to act on
		}
	}
	return cli.Errorf(cli.ExitBusy, d.follows(), "the deployment of %s to %s is still under way, by %s", s.Name, j.target(), j.Who())
}

// lookAgain is how long to wait until the next look at what another process does.
func (d *Deployer) lookAgain(sight, f *follower) time.Duration {
	if sight.failures > 0 || f == nil {
		return sight.pause()
	}
	return max(f.pause(), sight.least)
}

// show is the follower of what a journal says is under way; nil if that has not begun.
func (d *Deployer) show(ctx context.Context, f *follower, s *ecsstatus.Service, j Journal, r Pickup) *follower {
	id := j.Deployment
	if j.Return != "" {
		id = j.Return
	}
	dep := s.Deployment(id)
	if dep == nil || f != nil && f.w.goal.ID == id {
		return f
	}
	def, _, err := d.definition(ctx, dep.TaskDefinition)
	if err != nil {
		return f
	}
	return &follower{d: d, w: d.watch(d.reader, goalSince(s, dep, def)), deadline: d.clock.Now().Add(r.Timeout)}
}

// pickUp goes on with a deployment whose process has ended.
func (d *Deployer) pickUp(ctx context.Context, s *ecsstatus.Service, j Journal, r Pickup) error {
	if d.MayFinish != nil {
		if err := d.MayFinish(j); err != nil {
			return d.lookOn(ctx, s, j, r, err)
		}
	}
	a := d.resumed(s, j, r.Timeout)
	a.r.WaitDrained, a.r.OnInterrupt = *r.WaitDrained, r.OnInterrupt
	j.Seconds, j.WaitDrained, j.OnInterrupt = wholeSeconds(r.Timeout), a.r.WaitDrained, a.r.OnInterrupt
	if err := a.adopt(ctx, s, j, false); err != nil {
		return err
	}
	err := a.tidy(ctx, a.resume(ctx))
	return a.finish(ctx, err)
}

// lookOn follows what the caller may not finish.
func (d *Deployer) lookOn(ctx context.Context, s *ecsstatus.Service, j Journal, r Pickup, no error) error {
	p := s.Primary()
	if p == nil || !running(s) {
		return no
	}
	a, err := d.onlooker(ctx, s, p, r)
	if err != nil {
		return err
	}
	d.tell(Event{Kind: PickedUp, Deployment: p.ID, TaskDefinition: p.TaskDefinition,
		Message: fmt.Sprintf("following deployment %s, whose process has ended, and changing nothing: %v", p.ID, no)})
	return a.watch(ctx)
}

// resumed is the attempt that a journal tells of.
func (d *Deployer) resumed(s *ecsstatus.Service, j Journal, timeout time.Duration) *attempt {
	a := &attempt{d: d, now: Current{Service: s}, former: j, replaced: j.Percents, resumed: true,
		r: Request{ContainerType: s.Name, Strategy: j.Strategy, Timeout: timeout, MaxFailures: j.MaxFailures, Reason: j.Reason},
		plan: &Plan{ContainerType: s.Name, Cluster: ecsstatus.ShortName(aws.ToString(s.AWS.ClusterArn)), Container: j.Container, From: j.Before.Definition,
			To: j.target(), Digest: j.Digest, Base: j.Before.Definition, Back: j.Back, Strategy: j.Strategy, Desired: s.Desired}}
	if j.Back != "" {
		a.back = definitionARN(s, j.Back)
	}
	return a
}

// definitionARN is the ARN of a task definition (family:revision) in a service's account.
func definitionARN(s *ecsstatus.Service, short string) string {
	prefix, _, _ := strings.Cut(s.ARN, ":service/")
	return prefix + ":task-definition/" + short
}

// adopt takes the lock and the journal of an attempt over from a process that
// has ended. Of two who try, one gives way: errMoved.
func (a *attempt) adopt(ctx context.Context, s *ecsstatus.Service, j Journal, over bool) error {
	k := a.d.newKeeper(s, j)
	if err := k.take(ctx, over); err != nil {
		return err
	}
	a.d.keeper = k
	if err := a.record("TagResource: take over the journal of %s (%s): %s to %s, back to %s", s.Name, j.State, j.Before.Definition, j.target(), j.Back); err != nil {
		k.give(false)
		return err
	}
	if err := k.put(ctx); err != nil {
		k.give(false)
		return err
	}
	switch _, theirs, err := k.settled(ctx); {
	case err != nil:
		k.give(false)
		return err
	case theirs:
		k.give(true)
		return errMoved
	}
	a.d.tell(Event{Kind: PickedUp, Deployment: j.Deployment, Message: fmt.Sprintf("picking up the deployment to %s (%s) that %s has left", j.target(), j.State, j.Who())})
	return nil
}

// resume goes on where the journal ends.
func (a *attempt) resume(ctx context.Context) error {
	j := a.d.keeper.j
	if j.State == StateBegun {
		k := a.d.keeper
		found, err := a.find(ctx, &k.j)
		if err != nil {
			return err
		}
		if !found {
			return a.neverBegun()
		}
		k.note(ctx, func(j *Journal) { j.State = StateUpdated })
		j = k.j
	}
	g, err := a.goalOf(ctx, a.now.Service, j)
	if err != nil {
		return err
	}
	a.goal = g
	if j.State == StateRollingBack {
		return a.resumeBack(ctx, Verdict{Outcome: Failed, Reason: j.Why})
	}
	return a.see(ctx)
}

// find looks for what a journal does not know of yet: the deployment of the
// revision that has the attempt's mark. Some seconds of AWS's clock must have
// passed without it before it is believed that there is none. It fills in the
// journal's Definition and Deployment.
func (a *attempt) find(ctx context.Context, j *Journal) (bool, error) {
	limited, cancel := context.WithTimeout(ctx, changeTime)
	defer cancel()
	found, err := a.d.settle(limited, func(ctx context.Context) (bool, error) {
		arn, err := a.registered(ctx, *j)
		if err != nil || arn == "" {
			return false, err
		}
		j.Definition = ecsstatus.ShortName(arn)
		s, err := a.d.reader.Service(ctx, a.d.name)
		if err != nil {
			return false, err
		}
		a.now.Service = s
		for _, dep := range s.Deployments {
			if dep.TaskDefinition == arn {
				j.Deployment = dep.ID
			}
		}
		return j.Deployment != "", nil
	})
	if err != nil {
		return false, unavailable(ctx, fmt.Errorf("look for the deployment of attempt %s: %w", j.Attempt, awsconfig.Explain(err)))
	}
	return found, nil
}

// registered is the revision that an attempt has registered: its journal knows it
// where it has no mark, or else its content tells. Empty if there is none.
func (a *attempt) registered(ctx context.Context, j Journal) (arn string, err error) {
	if j.Definition != "" {
		return definitionARN(a.now.Service, j.Definition), nil
	}
	return a.d.findRevision(ctx, family(j.Before.Definition), a.signOf(ctx, j))
}

// signOf is how the revision is known that an attempt has registered, by its journal.
func (a *attempt) signOf(ctx context.Context, j Journal) sign {
	known := sign{mark: j.Attempt, since: j.Began.Add(-registerSlack)}
	def, tags, err := a.d.definition(ctx, definitionARN(a.now.Service, j.Before.Definition))
	if err != nil {
		return known // the mark alone, if there is no more of the former one to be read
	}
	base := revision(def, tags)
	if n, err := named(base.ContainerDefinitions, j.Container); err == nil && !markable(base) {
		known.content = content(withImage(base, n, j.Image))
	}
	return known
}

// neverBegun is the end of a deployment that was given up before its service was changed.
func (a *attempt) neverBegun() error {
	left := "nothing was changed"
	if d := a.d.keeper.j.Definition; d != "" {
		left = unused(d)
	}
	a.d.tell(Event{Kind: NotBegun, Message: left})
	return cli.Errorf(cli.ExitRolledBack, "deploy again", "the deployment of %s to %s was given up before it began; %s", a.r.ContainerType, a.plan.To, left)
}

// goalOf is the goal of a journal's deployment.
func (a *attempt) goalOf(ctx context.Context, s *ecsstatus.Service, j Journal) (Goal, error) {
	def, _, err := a.d.definition(ctx, definitionARN(s, j.Definition))
	if err != nil {
		return Goal{}, unavailable(ctx, err)
	}
	dep := s.Deployment(j.Deployment)
	if dep == nil { // it was rolled back or superseded, and ECS shows it no more
		dep = &ecsstatus.Deployment{ID: j.Deployment, TaskDefinition: aws.ToString(def.TaskDefinitionArn), Created: j.Began}
	}
	g := goalSince(s, dep, def)
	g.Earlier[j.Before.Deployment] = true
	g.Container, g.Digest, g.MaxFailures, g.WaitDrained = j.Container, j.Digest, j.MaxFailures, a.r.WaitDrained
	return g, nil
}

// goalSince is the goal of a deployment that began some time ago: those that
// began after it are not earlier ones.
func goalSince(s *ecsstatus.Service, dep *ecsstatus.Deployment, def types.TaskDefinition) Goal {
	g := goalFor(s, dep, def)
	for _, other := range s.Deployments {
		if other.Created.After(dep.Created) {
			delete(g.Earlier, other.ID)
		}
	}
	return g
}

// resumeBack goes on with a roll-back: it is followed if it has begun, and begun if not.
func (a *attempt) resumeBack(ctx context.Context, why Verdict) error {
	if a.goal.Stages != "" && a.stagesBack(ctx) {
		return a.followStaged(ctx, why, "rolled back to ")
	}
	now, back, err := a.backBegun(ctx)
	if err != nil {
		return a.notRolledBack(why, err.Error(), a.byHand())
	}
	if back == nil {
		return a.rollBack(ctx, why)
	}
	def, _, err := a.d.definition(context.WithoutCancel(ctx), back.TaskDefinition)
	if err != nil {
		return a.notRolledBack(why, err.Error(), a.byHand())
	}
	g := goalSince(now, back, def)
	g.Earlier[a.goal.ID] = a.goal.ID != ""
	g.MaxFailures, g.Undoes = a.r.MaxFailures, a.goal.Since
	if back.Created.Before(a.goal.Since) { // ECS's own: what it did before is none of ours
		g.Since = a.goal.Since
	}
	return a.seeBack(ctx, why, g, "rolled back to "+ecsstatus.ShortName(back.TaskDefinition))
}

// stagesBack reports whether ECS takes a deployment in stages back already.
func (a *attempt) stagesBack(ctx context.Context) bool {
	arn, err := a.rolloutARN(ctx, Verdict{})
	if err != nil || arn == "" {
		return false
	}
	back, err := a.d.isTakenBack(ctx, arn)
	return err == nil && back
}

// backBegun looks for the deployment of a roll-back: the service's PRIMARY one, if
// it is of the definition to go back to, or of the revision that was registered
// in its place. It is given the same seconds as any change.
func (a *attempt) backBegun(ctx context.Context) (now *ecsstatus.Service, back *ecsstatus.Deployment, err error) {
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeTime)
	defer cancel()
	again, err := a.backAgain(limited)
	if err != nil {
		return nil, nil, err
	}
	_, err = a.d.settle(limited, func(ctx context.Context) (bool, error) {
		if now, err = a.d.reader.Service(ctx, a.d.name); err != nil {
			return false, err
		}
		if p := now.Primary(); p != nil && p.ID != a.goal.ID && (p.TaskDefinition == a.back || p.TaskDefinition == again) {
			back = p
		}
		return back != nil, nil
	})
	return now, back, err
}

// backAgain finds the revision that a roll-back has registered in place of an
// inactive one, and makes it the one to go back to; empty if it has not.
func (a *attempt) backAgain(ctx context.Context) (arn string, err error) {
	def, tags, err := a.d.definition(ctx, a.back)
	if err == nil && def.Status == types.TaskDefinitionStatusActive {
		return "", nil
	}
	known := sign{mark: a.d.keeper.j.backMark()} // if there is no more of the former one to be read
	if err == nil {
		known = a.backSign(def, tags)
	}
	arn, err = a.findBack(ctx, known)
	if err == nil && arn != "" {
		a.back = arn
	}
	return arn, err
}
