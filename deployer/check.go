package deployer

import (
	"context"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/awsconfig"
	"jumpsuite/internal/cli"
)

// preflight finds everything that is in the way, at once.
func (a *attempt) preflight(ctx context.Context) error {
	var findings []error
	findings = append(findings, a.checkImage(ctx))
	findings = append(findings, unfit(a.now.Service, a.plan)...)
	findings = append(findings, a.checkOthers(ctx))
	findings = append(findings, a.checkJournal(ctx)...)
	return refused(findings...)
}

func (a *attempt) checkImage(ctx context.Context) error {
	if a.r.SkipImageCheck {
		a.plan.Digest = a.plan.image.Digest
		a.plan.Notes = append(a.plan.Notes, "the image is not checked, as --skip-image-check says")
		return nil
	}
	checked, err := a.d.check(ctx, a.plan.image, account(a.now.Service.ARN))
	a.plan.Digest = checked.Digest
	if checked.Note != "" {
		a.plan.Notes = append(a.plan.Notes, checked.Note)
	}
	return err
}

// account is the account that an ARN belongs to: that of the service is ours.
func account(s string) string {
	parsed, err := arn.Parse(s)
	if err != nil {
		return ""
	}
	return parsed.AccountID
}

// checkOthers finds a deployment that is under way, and the definition to go
// back to. A deployment of which everything new is healthy while old tasks
// drain is no longer in the way. It looks as the following will: what could not
// be followed is not begun.
func (a *attempt) checkOthers(ctx context.Context) error {
	s := a.now.Service
	p := s.Primary()
	if p == nil {
		return a.chooseBack(ctx)
	}
	g := goalFor(s, p, a.now.Definition)
	var err error
	if a.before, err = a.d.watch(a.d.before, g).look(ctx); err != nil {
		return unreadable(err)
	}
	a.whole = p.RolloutState != "FAILED" && !running(s)
	if running(s) {
		v, _ := judge(g, a.before, Trail{})
		a.whole = v.Outcome == Deployed
		if !a.whole && !a.r.Supersede {
			return busy(s, aws.ToString(a.now.Definition.RegisteredBy), a.plan.From)
		}
	}
	return a.chooseBack(ctx)
}

// unreadable is the finding for tasks or targets that cannot be read for a
// reason of their own, a target group that was deleted, say.
func unreadable(err error) error {
	if cli.ExitCode(err) != cli.ExitSoftware {
		return err
	}
	return refusal("the service's tasks and load balancers must be readable: the deployment is followed by them", "%w", err)
}

// chooseBack finds the definition to go back to: the one that the service has,
// if its deployment is whole; else that of the last completed deployment.
func (a *attempt) chooseBack(ctx context.Context) (err error) {
	a.back = lastCompleted(a.now.Service)
	if a.whole {
		a.back = a.now.Service.Primary().TaskDefinition
	} else if a.back == "" {
		if a.back, err = a.d.lastSuccessful(ctx); err != nil {
			return err
		}
	}
	if a.back == "" {
		a.plan.Notes = append(a.plan.Notes, "no deployment of the service has ever completed: there is nothing to roll back to")
	} else {
		a.plan.Back = ecsstatus.ShortName(a.back)
	}
	return nil
}

// lastSuccessful asks ECS's history for the task definition of the last
// deployment that succeeded; empty if it knows none.
func (d *Deployer) lastSuccessful(ctx context.Context) (string, error) {
	list, err := d.patient.ListServiceDeployments(ctx, &ecs.ListServiceDeploymentsInput{
		Cluster: &d.cluster, Service: &d.name, MaxResults: aws.Int32(1),
		Status: []types.ServiceDeploymentStatus{types.ServiceDeploymentStatusSuccessful}})
	if err != nil {
		return "", fmt.Errorf("list the deployments of %s: %w", d.name, awsconfig.Explain(err))
	}
	if len(list.ServiceDeployments) == 0 || list.ServiceDeployments[0].TargetServiceRevisionArn == nil {
		return "", nil
	}
	out, err := d.patient.DescribeServiceRevisions(ctx, &ecs.DescribeServiceRevisionsInput{
		ServiceRevisionArns: []string{*list.ServiceDeployments[0].TargetServiceRevisionArn}})
	if err != nil {
		return "", fmt.Errorf("describe the last completed deployment of %s: %w", d.name, awsconfig.Explain(err))
	}
	if len(out.ServiceRevisions) == 0 {
		return "", nil
	}
	return aws.ToString(out.ServiceRevisions[0].TaskDefinition), nil
}

// alreadyThere reports, and tells, that there is nothing to do: the definition
// has the image, and the tasks run it, by its digest too.
func (a *attempt) alreadyThere() bool {
	if !a.plan.nothing || a.r.Force || !a.whole {
		return false
	}
	for _, t := range a.before.Tasks {
		c := t.Container(a.plan.Container)
		if c != nil && c.Digest != "" && a.plan.Digest != "" && c.Digest != a.plan.Digest {
			a.plan.Notes = append(a.plan.Notes, fmt.Sprintf("%s is another image now: %s runs, %s is in the registry, and a roll-back would get that too", a.plan.image.Short(), short(c.Digest), short(a.plan.Digest)))
			return false
		}
	}
	a.d.tell(Event{Kind: NothingToDo, Deployment: a.now.Service.Primary().ID, TaskDefinition: a.plan.Base, Plan: a.plan,
		Message: fmt.Sprintf("%s has %s already; --force deploys it again", a.r.ContainerType, withDigest(a.plan))})
	return true
}

func withDigest(p *Plan) string {
	if p.Digest == "" || strings.Contains(p.To, p.Digest) {
		return p.To
	}
	return p.To + " (" + short(p.Digest) + ")"
}
