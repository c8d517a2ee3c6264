package deployer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/service/ecs"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/cli"
)

const (
	// beat is how often, on AWS's clock, a journal says that its process lives.
	beat = time.Minute
	// deadAfter is without how long a sign of life, on AWS's clock, a process on
	// another machine is taken for dead.
	deadAfter = 4 * beat
	// noteTime is how long, on our clock, a note in the journal of something
	// under way may take: what it is about must not wait for it.
	noteTime = 10 * time.Second
)

// keeper keeps the journal of one attempt: in the tags of its service, and in a
// file under the attempt's lock where the Deployer has a folder for that.
type keeper struct {
	d      *Deployer
	j      Journal
	arn    string // of the service
	shelf  shelf  // its path is empty: no file, no lock
	lock   *lock
	former string             // the holder whose journal the tags had before
	since  time.Time          // AWS's clock, when this process began
	now    *ecsstatus.Service // as settled has read it
	unsaid bool               // the tags do not have j
}

// shelf is where the journals of a service are on this machine.
func (d *Deployer) shelf(s *ecsstatus.Service) shelf {
	if d.Folder == "" {
		return shelf{}
	}
	place, err := arn.Parse(s.ARN)
	if err != nil {
		place = arn.ARN{AccountID: "unknown", Region: d.region}
	}
	cluster := ecsstatus.ShortName(aws.ToString(s.AWS.ClusterArn))
	return shelf{filepath.Join(d.Folder, place.AccountID+"."+place.Region+"."+cluster, s.Name)}
}

// journalOf is the journal of a service, of its tags or, where someone has
// removed these, the last one of this machine.
func (d *Deployer) journalOf(s *ecsstatus.Service) (Journal, bool) {
	if j, ok := JournalOf(s); ok {
		return j, true
	}
	if at := d.shelf(s); at.path != "" {
		if js := at.journals(); len(js) > 0 {
			return js[0], true
		}
	}
	return Journal{}, false
}

// held reports whether a journal's process is still at it.
func (d *Deployer) held(ctx context.Context, s *ecsstatus.Service, j Journal) bool {
	if j.State.Ended() || j.Left {
		return false
	}
	if at := d.shelf(s); at.path != "" {
		if alive, known := at.lives(ctx, j.Attempt, j.Holder); known {
			return alive
		}
	}
	return d.clock.Now().Sub(j.Changed) < deadAfter
}

// Who says whose a journal is.
func (j Journal) Who() string {
	return fmt.Sprintf("%s on %s, since %s", j.By, j.Host, j.Began.UTC().Format(time.DateTime+" MST"))
}

// open writes the journal of what is going to be done, before it is. From here
// on the attempt has a journal, which finish closes.
func (a *attempt) open(ctx context.Context) error {
	k := a.d.newKeeper(a.now.Service, a.journal())
	if err := k.take(ctx, a.r.Supersede); err != nil {
		return a.unchanged(err, "")
	}
	a.d.keeper = k
	if err := a.record("TagResource: the journal of %s: %s had %s", a.r.ContainerType, a.plan.Base, k.j.Before.pairs()); err != nil {
		k.j.State = StateAbandoned
		k.keep()
		k.give(true)
		return err
	}
	if err := k.put(ctx); err != nil {
		return a.finish(ctx, a.unchanged(err, ""))
	}
	return nil
}

// journal is the journal that an attempt begins with.
func (a *attempt) journal() Journal {
	now := a.d.clock.Now()
	s := a.now.Service
	low, high := percents(s)
	j := Journal{Attempt: mark(), State: StateBegun, Began: now, ContainerType: s.Name, Reason: a.r.Reason,
		Image: a.plan.To, Container: a.plan.Container, Digest: a.plan.Digest, Strategy: a.r.Strategy, MaxFailures: a.r.MaxFailures,
		Seconds: wholeSeconds(a.r.Timeout), WaitDrained: a.r.WaitDrained, OnInterrupt: a.r.OnInterrupt,
		Before: Before{Definition: a.plan.Base, Desired: s.Desired, MinimumHealthy: low, Maximum: high, Breaker: breaker(s)}, Back: a.plan.Back}
	j.Percents = a.r.Strategy == Replacing && (low != 0 || high != 100)
	if p := s.Primary(); p != nil {
		j.Before.Deployment = p.ID
	}
	return j.inherit(a.former)
}

// wholeSeconds is a time for the journal, where zero means that none was said.
func wholeSeconds(t time.Duration) int { return int((t + time.Second - 1) / time.Second) }

// inherit takes over what an attempt that never ended has left behind: its
// percents are still to be put back.
func (j Journal) inherit(former Journal) Journal {
	if former.leftPercents(j.Before.MinimumHealthy, j.Before.Maximum) {
		j.Before.MinimumHealthy, j.Before.Maximum = former.Before.MinimumHealthy, former.Before.Maximum
		j.Percents = true
	}
	return j
}

// leftPercents reports whether a service's percents are those of the strategy
// replacing, left behind by an attempt that was to put others back.
func (j Journal) leftPercents(low, high int) bool {
	return j.Percents && !j.State.Ended() && low == 0 && high == 100 && j.Before.Maximum > 0
}

func (d *Deployer) newKeeper(s *ecsstatus.Service, j Journal) *keeper {
	former, _ := JournalOf(s)
	j.Holder, j.Changed, j.Left = mark()[:12], d.clock.Now(), false
	if j.By == "" {
		j.By, j.Host = d.By, d.Host
	}
	return &keeper{d: d, j: j, arn: s.ARN, shelf: d.shelf(s), former: former.Holder, since: j.Changed}
}

// take takes the lock and writes the file. Nothing is begun without.
func (k *keeper) take(ctx context.Context, over bool) (err error) {
	if k.shelf.path == "" {
		return nil
	}
	who := fmt.Sprintf("%s (process %d) since %s", k.d.By, os.Getpid(), instant(k.j.Changed))
	k.lock, err = k.shelf.take(ctx, k.j.Attempt, k.j.Holder, who, over)
	if held, ok := errors.AsType[*heldError](err); ok {
		return cli.Errorf(cli.ExitBusy, k.d.follows(), "%s: %w", k.j.ContainerType, held)
	}
	if err == nil {
		err = k.shelf.save(k.j)
	}
	if err != nil {
		k.give(false)
		return &UnwritableError{Err: err}
	}
	return nil
}

// give gives the lock back.
func (k *keeper) give(ended bool) {
	k.lock.release(ended)
	k.lock = nil
	if k.d.keeper == k {
		k.d.keeper = nil
	}
}

// put writes the tags, and makes sure of it.
func (k *keeper) put(ctx context.Context) error {
	there := func(ctx context.Context) (bool, error) {
		s, err := k.d.reader.Service(ctx, k.j.ContainerType)
		if err != nil {
			return false, err
		}
		j, _ := JournalOf(s)
		return j.Holder == k.j.Holder && j.State == k.j.State, nil
	}
	return k.d.change(ctx, "write the journal of "+k.j.ContainerType+" into the service's tags", k.tag, there)
}

func (k *keeper) tag(ctx context.Context) error {
	_, err := k.d.ecs.TagResource(ctx, &ecs.TagResourceInput{ResourceArn: &k.arn, Tags: k.j.tags()})
	k.unsaid = err != nil
	return err
}

// note changes the journal of something that is under way. It goes on even if
// that cannot be written: the tags are tried again with the next look.
func (k *keeper) note(ctx context.Context, change func(*Journal)) {
	if k == nil {
		return
	}
	change(&k.j)
	k.write(ctx)
}

func (k *keeper) write(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteTime)
	defer cancel()
	k.j.Changed = k.d.clock.Now()
	k.keep()
	_ = k.tag(ctx) // see unsaid
}

// keep writes the file. What is under way goes on when the disk is full: the
// tags have it too.
func (k *keeper) keep() {
	if k.shelf.path != "" {
		_ = k.shelf.save(k.j)
	}
}

// seen looks at the journal in a service's tags as it is now: whose it is, and
// whether it is time to write it again. The verdict is Superseded if someone
// else has taken over.
func (k *keeper) seen(ctx context.Context, s *ecsstatus.Service) Verdict {
	if k == nil || s == nil || s.Status != "ACTIVE" {
		return Verdict{}
	}
	j, theirs := k.theirs(s)
	switch {
	case theirs && j.State == StateBegun:
		return Verdict{} // they may still give way, as our deployment is there
	case theirs && k.came(s, j) == cameUnclear:
		return Verdict{} // whose deployment is PRIMARY in the end decides
	case theirs && j.State != StateAbandoned && k.came(s, j) != cameLast:
		return Verdict{Outcome: Superseded, Other: j.Deployment, Reason: j.tookOver()}
	case theirs, k.unsaid, k.d.clock.Now().Sub(k.j.Changed) >= beat:
		k.write(ctx)
	}
	return Verdict{}
}

// theirs is the journal in a service's tags if it is someone else's, and newer:
// a read may be old, and so may the one have been by which we know the former.
func (k *keeper) theirs(s *ecsstatus.Service) (Journal, bool) {
	j, ok := JournalOf(s)
	over := j.State.Ended() && j.Changed.Before(k.since.Truncate(time.Second)) // a tag has whole seconds
	return j, ok && j.Holder != k.j.Holder && j.Holder != k.former && !over
}

// turn is in which order two deployments came that began at the same time.
type turn int

const (
	cameFirst   turn = iota // ours came first, or it is ours that theirs is about
	cameUnclear             // ECS does not show theirs yet
	cameLast                // ours came last, although their journal did
)

// came tells whether our deployment came last of two attempts that both found
// their own journal in the tags, and both updated the service: the order of the
// journals is not that of the deployments then. ECS's order counts.
func (k *keeper) came(s *ecsstatus.Service, j Journal) turn {
	p := s.Primary()
	if p == nil || k.j.Return != "" || p.ID != k.j.Deployment || j.Attempt == k.j.Attempt || j.Deployment == "" || j.Deployment == p.ID {
		return cameFirst
	}
	theirs := s.Deployment(j.Deployment)
	switch {
	case j.State == StateSuperseded, theirs != nil && theirs.Created.Before(p.Created):
		return cameLast
	}
	return cameUnclear
}

// takenBy tells, before something is done about a service, whether someone else has taken
// it over, by the journal in its tags, with the service as it was last read. Where ECS
// does not show the deployment of that journal, it is given the seconds that a read may
// lag behind; one that is still not shown came before ours, and has gone. So is a journal
// without a deployment: its process gives way to ours, takes the service over, or has died.
func (k *keeper) takenBy(ctx context.Context, s *ecsstatus.Service) (now *ecsstatus.Service, j Journal, taken bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settledAfter+noteTime)
	defer cancel()
	come := cameLast
	_, _ = k.d.settle(ctx, func(ctx context.Context) (bool, error) {
		if come == cameUnclear {
			again, err := k.d.reader.Service(ctx, k.j.ContainerType)
			if err != nil {
				return false, err
			}
			s = again
		}
		theirs := false
		switch j, theirs = k.theirs(s); {
		case !theirs, j.State == StateAbandoned:
			come = cameLast
		case j.State == StateBegun:
			come = cameUnclear
		default:
			come = k.came(s, j)
		}
		return come != cameUnclear, nil
	})
	return s, j, come == cameFirst
}

func (j Journal) tookOver() string {
	switch {
	case j.State == StateRollingBack || j.State == StateRolledBack:
		return "it is rolled back to " + j.Back + " by " + j.Who()
	case j.Deployment == "":
		return "it was taken over by " + j.Who()
	}
	return fmt.Sprintf("deployment %s to %s took over, by %s", j.Deployment, j.Definition, j.Who())
}

// mine makes sure, right before a service is updated, that the journal in its
// tags is this attempt's and that nobody's deployment has begun since the
// preflight: of two who begin at the same time, the one whose journal was
// written over gives way.
func (a *attempt) mine(ctx context.Context) error {
	k := a.d.keeper
	if k == nil {
		return nil
	}
	j, theirs, err := k.settled(ctx)
	if err != nil {
		return err
	}
	if theirs {
		return cli.Errorf(cli.ExitBusy, a.d.follows(), "another deployment of %s began at the same time: %s", a.r.ContainerType, j.Who())
	}
	now := k.now
	if p := now.Primary(); p != nil && !a.r.Supersede && !ids(a.now.Service)[p.ID] {
		return cli.Errorf(cli.ExitBusy, a.d.follows(), "another deployment of %s began meanwhile: %s to %s", a.r.ContainerType, p.ID, ecsstatus.ShortName(p.TaskDefinition))
	}
	return nil
}

// settled reads the journal in the tags until it is no longer the one from
// before: it is this attempt's, or someone's who wrote over it.
func (k *keeper) settled(ctx context.Context) (j Journal, theirs bool, err error) {
	limited, cancel := context.WithTimeout(ctx, changeTime)
	defer cancel()
	there, err := k.d.settle(limited, func(ctx context.Context) (done bool, err error) {
		if k.now, err = k.d.reader.Service(ctx, k.j.ContainerType); err != nil {
			return false, err
		}
		j, ok := JournalOf(k.now)
		_, theirs := k.theirs(k.now)
		return ok && j.Holder == k.j.Holder || theirs, nil
	})
	switch {
	case ctx.Err() != nil:
		return j, false, cli.Errorf(cli.ExitInterrupted, "", "%v", context.Cause(ctx))
	case err != nil:
		return j, false, fmt.Errorf("read the journal of %s again: %w", k.j.ContainerType, err)
	case !there:
		return j, false, cli.Errorf(cli.ExitUnavailable, "try again", "AWS does not show the journal of %s that was written into the service's tags", k.j.ContainerType)
	}
	j, theirs = k.theirs(k.now)
	return j, theirs, nil
}

// follows is how a person follows what is under way.
func (d *Deployer) follows() string {
	return "follow it with: " + d.command("wait")
}

// finish closes the journal as the error of the attempt says, and lets go of the lock.
func (a *attempt) finish(ctx context.Context, err error) error {
	k := a.d.keeper
	if k == nil {
		return err
	}
	if state, ended := a.ending(err); ended {
		k.j.State = state
	} else {
		k.j.Left = true
	}
	if err != nil && k.j.Why == "" {
		k.j.Why = err.Error()
	}
	k.close(ctx)
	return err
}

// ending is the state that an attempt ended in: false if it has not, and ECS
// goes on, or it is for the next process to find out, or to put the percents back.
func (a *attempt) ending(err error) (State, bool) {
	code, began := cli.ExitCode(err), a.goal.ID != "" || a.changed
	_, unknown := errors.AsType[*UncertainError](err)
	switch {
	case unknown, unrestored(err):
		return "", false
	case !began && err != nil && (!a.resumed || code == cli.ExitRolledBack):
		return StateAbandoned, true
	case code == cli.ExitOK:
		return StateDeployed, true
	case code == cli.ExitBusy:
		return StateSuperseded, true
	case code == cli.ExitRolledBack:
		return StateRolledBack, true
	case code == cli.ExitNotRolledBack:
		return StateNotRolledBack, true
	}
	return "", false
}

// close writes the last state, unless someone else's journal is in the tags.
func (k *keeper) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteTime)
	defer cancel()
	k.j.Changed = k.d.clock.Now()
	k.keep()
	_, _ = k.d.once(ctx, func(ctx context.Context) (bool, error) { return true, k.last(ctx) })
	k.shelf.prune()
	k.give(k.j.State.Ended())
}

// checkJournal finds what keeps the attempt from having a journal, and whose
// journal is in the way. One whose process has died, or left ECS going, is
// none: what it has left behind is taken over.
func (a *attempt) checkJournal(ctx context.Context) []error {
	var found []error
	if err := tagRoom(a.now.Service, Journal{Before: Before{Definition: a.plan.Base}, Back: a.plan.Back}); err != nil {
		found = append(found, err)
	}
	if !a.r.Supersede && a.former.State == StateBegun && a.d.held(ctx, a.now.Service, a.former) {
		found = append(found, cli.Errorf(cli.ExitBusy, a.d.follows(), "another deployment of %s is beginning: %s, to %s", a.r.ContainerType, a.former.Who(), a.former.Image))
	}
	return found
}

// backMark is the mark of the revision that a roll-back registers, if it must.
func (j Journal) backMark() string { return j.Attempt + "-back" }

// last writes the last state into the tags, unless they are someone else's, or the service is gone.
func (k *keeper) last(ctx context.Context) error {
	s, err := k.d.reader.Service(ctx, k.j.ContainerType)
	if _, missing := errors.AsType[*ecsstatus.NotFoundError](err); missing || err == nil && s.Status != "ACTIVE" {
		return nil
	}
	if err != nil {
		return err
	}
	if j, theirs := k.theirs(s); theirs && j.State == StateBegun {
		return nil // it may be under way, and ours has ended
	}
	if _, _, taken := k.takenBy(ctx, s); taken {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteTime)
	defer cancel()
	return k.tag(ctx)
}
