package deployer

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/cli"
)

// rollBack rolls forward to the definition that the service had before, and
// follows that to its end by the same rules. It always ends in an error: 75 if
// the service is as it was, 76 if not.
//
// It is begun even if ctx has ended in the meantime: the deployment has failed,
// and nobody else would take it back.
func (a *attempt) rollBack(ctx context.Context, why Verdict) error {
	if a.back == "" {
		return a.notRolledBack(why, "no deployment of the service has completed before, so there is nothing to go back to", "")
	}
	now, err := a.latest(ctx)
	if err != nil {
		return a.notRolledBack(why, err.Error(), a.byHand())
	}
	now, j, taken := a.d.keeper.takenBy(ctx, now)
	if v := takenOver(a.goal, now); v.Outcome != Going {
		return a.leave(ctx, why, v)
	}
	if taken {
		return a.overtaken(Verdict{Outcome: Superseded, Other: j.Deployment, Reason: j.tookOver()})
	}
	if a.askECS(ctx, why, now) {
		if following, err := a.followAsked(ctx, why); following {
			return err
		}
		if now, err = a.latest(ctx); err != nil {
			return a.notRolledBack(why, err.Error(), a.byHand())
		}
		if v := takenOver(a.goal, now); v.Outcome != Going {
			return a.leave(ctx, why, v)
		}
	}
	if a.goal.Stages != "" {
		if following, err := a.stopStaged(ctx, why); following {
			return err
		}
	}
	return a.forward(ctx, why, ids(now))
}

// latest reads the service once more before anything is done about it.
func (a *attempt) latest(ctx context.Context) (s *ecsstatus.Service, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeTime)
	defer cancel()
	_, err = a.d.once(ctx, func(ctx context.Context) (bool, error) {
		s, err = a.d.reader.Service(ctx, a.d.name)
		return true, err
	})
	return s, err
}

// rolledBy reads the service until it shows the deployment that ECS rolls back
// to as PRIMARY: this read may be older than the one that did. After a while it
// is believed that it does not.
func (a *attempt) rolledBy(ctx context.Context, id string) (s *ecsstatus.Service, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeTime)
	defer cancel()
	_, err = a.d.settle(ctx, func(ctx context.Context) (bool, error) {
		found, err := a.d.reader.Service(ctx, a.d.name)
		if _, missing := errors.AsType[*ecsstatus.NotFoundError](err); missing {
			s = &ecsstatus.Service{Status: "INACTIVE"}
			return true, nil
		}
		if err != nil {
			return false, err
		}
		s = found
		p := s.Primary()
		return p != nil && p.ID == id, nil
	})
	return s, err
}

// takenOver says whether the failed deployment is no longer the PRIMARY one, and
// who is. A service that does not show it at all is not believed, as the read may
// be old, unless ECS says that it has failed.
func takenOver(g Goal, s *ecsstatus.Service) Verdict {
	own, primary := s.Deployment(g.ID), s.Primary()
	switch {
	case s.Status != "ACTIVE":
		return Verdict{Outcome: Gone, Reason: "the service was deleted"}
	case g.supersededBy(primary):
		return superseded(primary)
	case primary != nil && primary.ID != g.ID && (own != nil || givenUp(g, s)):
		return Verdict{Outcome: TakenBack, Other: primary.ID}
	}
	return Verdict{}
}

func (a *attempt) leave(ctx context.Context, why, v Verdict) error {
	switch v.Outcome {
	case TakenBack:
		why.Other = v.Other
		return a.followECS(ctx, why)
	case Superseded:
		return a.overtaken(v)
	}
	return a.notRolledBack(why, v.Reason, "")
}

// forward brings the former definition to the service. One that was
// deregistered in the meantime is registered anew.
func (a *attempt) forward(ctx context.Context, why Verdict, earlier map[string]bool) error {
	changing, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeTime)
	defer cancel()
	def, tags, err := a.d.definition(changing, a.back)
	if err != nil {
		return a.notRolledBack(why, err.Error(), a.byHand())
	}
	back := a.back
	// What is due is done, recorded or not: nobody else would take it back.
	if def.Status == types.TaskDefinitionStatusInactive {
		if back, err = a.registerBack(changing, def, tags); err != nil {
			return a.notRolledBack(why, err.Error(), a.byHand())
		}
		a.back = back
	}
	var percents *types.DeploymentConfiguration
	if a.replaced && a.r.Strategy == Replacing {
		percents = replacing()
	}
	_ = a.record("UpdateService: %s back to %s, since deployment %s failed: %s", a.d.name, back, a.goal.ID, why.Reason)
	a.d.keeper.note(ctx, func(j *Journal) { j.State, j.Back, j.Why = StateRollingBack, ecsstatus.ShortName(back), why.Reason })
	after, err := a.d.update(changing, back, percents, earlier)
	if err != nil {
		return a.notRolledBack(why, err.Error(), a.byHand())
	}
	return a.seeBack(ctx, why, a.goalBack(after, def), "rolled back to "+ecsstatus.ShortName(back))
}

// registerBack registers the definition to go back to anew, unless a process before this
// one has.
func (a *attempt) registerBack(ctx context.Context, def types.TaskDefinition, tags []types.Tag) (string, error) {
	if back, err := a.findBack(ctx, a.backSign(def, tags)); err != nil || back != "" {
		return back, err
	}
	_ = a.record("RegisterTaskDefinition: %s again, which is inactive", a.back)
	back, err := a.d.register(ctx, revision(def, tags), a.d.keeper.j.backMark())
	if err == nil {
		a.d.tell(Event{Kind: Registered, TaskDefinition: back, Message: fmt.Sprintf("%s is inactive: registered it anew as %s", ecsstatus.ShortName(a.back), ecsstatus.ShortName(back))})
	}
	return back, err
}

// backSign is how the revision is known that was registered in place of an inactive one:
// by its mark, and where there was no room for one by its content, which is all that matters.
// What has failed may say the same, where its image's tag is another image now.
func (a *attempt) backSign(def types.TaskDefinition, tags []types.Tag) sign {
	known, again := sign{mark: a.d.keeper.j.backMark(), but: a.goal.Definition}, revision(def, tags)
	if !markable(again) {
		known.content = content(again)
	}
	return known
}

func (a *attempt) findBack(ctx context.Context, known sign) (arn string, err error) {
	_, err = a.d.once(ctx, func(ctx context.Context) (bool, error) {
		arn, err = a.d.findRevision(ctx, family(ecsstatus.ShortName(a.back)), known)
		return true, err
	})
	return arn, err
}

// goalBack is the goal of a roll-back: any image will do, as long as it is
// healthy.
func (a *attempt) goalBack(after *ecsstatus.Service, def types.TaskDefinition) Goal {
	g := goalFor(after, after.Primary(), def)
	g.Earlier[a.goal.ID] = g.ID != a.goal.ID
	g.MaxFailures, g.Undoes = a.r.MaxFailures, a.goal.Since
	return g
}

// followECS follows the roll-back that ECS's circuit breaker, or a person, has
// begun: the earlier deployment is PRIMARY again.
func (a *attempt) followECS(ctx context.Context, why Verdict) error {
	if a.goal.Stages != "" {
		return a.followStaged(ctx, why, "ECS rolled back to ")
	}
	s, err := a.rolledBy(ctx, why.Other)
	if err != nil {
		return a.notRolledBack(why, "ECS has begun to roll back, and then "+err.Error(), a.byHand())
	}
	if v := takenOver(a.goal, s); v.Outcome == Superseded || v.Outcome == Gone {
		return a.leave(ctx, why, v)
	}
	p := s.Deployment(why.Other)
	if p == nil || p.Status != "PRIMARY" {
		return a.notRolledBack(why, "ECS had begun to roll back to "+why.Other+", which is gone", a.byHand())
	}
	return a.followTakenUp(ctx, why, s, p, "ECS rolled back to ")
}

// followTakenUp follows a deployment that ECS has taken up again instead of ours.
func (a *attempt) followTakenUp(ctx context.Context, why Verdict, s *ecsstatus.Service, p *ecsstatus.Deployment, done string) error {
	def, _, err := a.d.definition(context.WithoutCancel(ctx), p.TaskDefinition)
	if err != nil {
		return a.notRolledBack(why, err.Error(), a.byHand())
	}
	g := goalFor(s, p, def)
	g.Earlier[a.goal.ID] = true
	g.Undoes = a.goal.Since
	g.Since = a.goal.Since // what the earlier deployment did before is none of ours
	return a.seeBack(ctx, why, g, done+ecsstatus.ShortName(p.TaskDefinition))
}

// seeBack follows a roll-back to its end.
func (a *attempt) seeBack(ctx context.Context, why Verdict, g Goal, done string) error {
	a.tellRollingBack(ctx, g)
	a.d.keeper.note(ctx, func(j *Journal) { j.State, j.Return, j.Why = StateRollingBack, g.ID, why.Reason })
	failed := a.goal
	v, err := a.d.follow(ctx, g, a.r.Timeout)
	if err != nil {
		a.goal = g
		return a.interrupted(err, fmt.Sprintf("deployment %s has failed (%s), the roll-back goes on", failed.ID, why.Reason))
	}
	switch v.Outcome {
	case Deployed:
		if v.Reason != "" {
			done += "; " + v.Reason
		}
		a.d.tell(Event{Kind: RolledBack, Deployment: g.ID, TaskDefinition: g.Definition, Message: done})
		return cli.Errorf(cli.ExitRolledBack, "", "deployment of %s to %s failed: %s; %s", a.r.ContainerType, a.plan.To, why.Reason, done)
	case Superseded:
		return a.overtaken(v)
	}
	return a.notRolledBack(why, "the roll-back to "+ecsstatus.ShortName(g.Definition)+" came to nothing: "+v.Reason, a.byHand())
}

// tellRollingBack tells that a roll-back has begun, after what ECS has said until
// then: what it says of the roll-back comes later, in the telling too.
func (a *attempt) tellRollingBack(ctx context.Context, g Goal) {
	now := a.d.clock.Now()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteTime)
	defer cancel()
	if s, err := a.d.reader.Service(ctx, a.d.name); err == nil { // else what it has said comes with the next look
		a.d.tellEvents(s, a.goal, now)
	}
	a.d.tell(Event{Time: now, Kind: RollingBack, Deployment: g.ID, TaskDefinition: g.Definition, Message: fmt.Sprintf("rolling back to %s by deployment %s", ecsstatus.ShortName(g.Definition), g.ID)})
}

// notRolledBack is the worst end: code 76, and what to do by hand.
func (a *attempt) notRolledBack(why Verdict, reason, byHand string) error {
	a.d.tell(Event{Kind: NotRolledBack, Deployment: a.goal.ID, Message: reason})
	return cli.Errorf(cli.ExitNotRolledBack, byHand, "deployment of %s to %s failed: %s; not rolled back: %s", a.r.ContainerType, a.plan.To, why.Reason, reason)
}

// byHand is the command that would roll back.
func (a *attempt) byHand() string {
	return fmt.Sprintf("by hand: aws ecs update-service --region %s --cluster %s --service %s --task-definition %s",
		a.d.region, a.d.cluster, a.d.name, ecsstatus.ShortName(a.back))
}
