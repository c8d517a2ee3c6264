package deployer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/awsconfig"
	"jumpsuite/internal/cli"
)

// preflight finds everything that is in the way, at once. What runs already
// needs neither room nor percents that can move.
func (a *attempt) preflight(ctx context.Context) error {
	image, others := a.checkImage(ctx), a.checkOthers(ctx)
	if image == nil && others == nil && a.runsAlready() {
		return nil
	}
	findings := append([]error{image}, unfit(a.now.Service, a.plan)...)
	findings = append(findings, others)
	findings = append(findings, a.checkHosts(ctx)...)
	findings = append(findings, a.checkJournal(ctx)...)
	return refused(findings...)
}

func (a *attempt) note(format string, args ...any) {
	a.plan.Notes = append(a.plan.Notes, fmt.Sprintf(format, args...))
}

func (a *attempt) checkImage(ctx context.Context) error {
	if a.r.SkipImageCheck {
		a.plan.Digest = a.plan.image.Digest
		a.note("the image is not checked, as --skip-image-check says")
		return nil
	}
	checked, err := a.d.check(ctx, a.plan.image, account(a.now.Service.ARN))
	a.plan.Digest, a.plan.Scan, a.platforms = checked.Digest, checked.Scan, checked.Platforms
	a.plan.Notes = append(a.plan.Notes, checked.Notes...)
	return err
}

// checkHosts finds that the hosts cannot run the image, or have no room for the
// new tasks. That tasks come and go, and that a capacity provider may add hosts,
// makes of no room a note where it is not certain.
func (a *attempt) checkHosts(ctx context.Context) []error {
	if serverless(a.now.Service.AWS) {
		return []error{a.fitsFargate()}
	}
	n := needOf(a.plan.wanted, a.now.Definition.RequiresAttributes, a.now.Service.AWS)
	hosts, more, err := a.d.hosts(ctx, n.expressions)
	if denied(err) {
		a.note("whether the hosts have room and fit the image is not checked: %v", err)
		return nil
	}
	if err != nil {
		return []error{err}
	}
	countTasks(hosts, a.before)
	var found []error
	if len(a.platforms) > 0 {
		found = append(found, misfit(a.plan.image, a.platforms, hosts, n))
	}
	return append(found, a.checkRoom(hosts, n, more))
}

// The capacity providers are the service's own: one that was created without any has those
// of its cluster's default strategy written into it then (doc comments of
// CreateServiceInput.CapacityProviderStrategy and Service.CapacityProviderStrategy).
func (a *attempt) checkRoom(hosts []host, n need, more bool) error {
	s := situationOf(a.now.Service, a.r.Strategy)
	if n.interfaces && surge(s) > 0 {
		a.note("each task takes a network interface: how many the hosts have left, ECS does not tell")
	}
	lack := cramped(s, hosts, n)
	switch provider := a.now.Service.AWS.CapacityProviderStrategy; {
	case lack == "":
		return nil
	case a.r.SkipRoomCheck:
		a.note("%s; it goes on, as --skip-room-check says", lack)
	case len(provider) > 0:
		a.note("%s; capacity provider %s may add hosts", lack, aws.ToString(provider[0].CapacityProvider))
	case more:
		a.note("%s; only the first %d hosts were looked at", lack, mostHosts)
	case !a.whole:
		a.note("%s; that may change with the tasks that are failing or going", lack)
	default:
		return refusal(roomier(s), "%s", lack)
	}
	return nil
}

// roomier is what to do where there is no room.
func roomier(s situation) string {
	if s.shifts {
		return "free or add hosts; --skip-room-check begins nevertheless"
	}
	low, _ := wouldMove(s.desired)
	return fmt.Sprintf("free or add hosts; or set minimumHealthyPercent to %d or less, or deploy with --strategy replacing: then an old task makes room; where hosts are added by themselves (an Auto Scaling group), --skip-room-check begins and waits for them", low)
}

// countTasks counts the service's tasks on each host.
func countTasks(hosts []host, o Observation) {
	on := map[string]int{}
	for _, t := range living(slices.Concat(o.Tasks, o.Old)) {
		on[t.Instance]++
	}
	for i := range hosts {
		hosts[i].has = on[hosts[i].arn]
	}
}

// serverless reports whether a service's tasks have no hosts of ours.
func serverless(s types.Service) bool {
	return s.LaunchType == types.LaunchTypeFargate || slices.ContainsFunc(s.CapacityProviderStrategy, func(c types.CapacityProviderStrategyItem) bool {
		return strings.HasPrefix(aws.ToString(c.CapacityProvider), "FARGATE")
	})
}

// fitsFargate finds that an image is not for the platform that its definition
// asks Fargate for: Linux on x86_64 if it does not say.
func (a *attempt) fitsFargate() error {
	p := platform{"linux", "amd64"}
	if asked := needOf(a.plan.wanted, nil, types.Service{}).platform; asked != (platform{}) {
		p = platform{cmp.Or(asked.OS, p.OS), cmp.Or(asked.Arch, p.Arch)}
	}
	if len(a.platforms) == 0 || slices.Contains(a.platforms, p) {
		return nil
	}
	return refusal("build it for "+p.String()+", or say in the task definition what it is for (runtimePlatform)",
		"image %s is for %s, and its tasks run on %s", a.plan.image.Short(), platformList(a.platforms), p)
}

// denied reports whether an error means that we may not ask.
func denied(err error) bool {
	e, ok := errors.AsType[*awsconfig.Error](err)
	return ok && e.Kind == awsconfig.Denied
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
	g.Stages = "" // it is looked at now and not followed
	var err error
	w := a.d.watch(a.d.before, g)
	w.labels = nil // nobody is shown the hosts yet
	if a.before, err = w.look(ctx); err != nil {
		return unreadable(err)
	}
	if shifts(s) {
		if err := a.d.readRollouts(ctx); err != nil {
			return unreadable(err)
		}
	}
	a.whole = p.RolloutState != "FAILED" && !running(s)
	if running(s) {
		if !shifts(s) { // there the rest of the stages is still to come
			v, _ := judge(g, a.before, Trail{})
			a.whole = v.Outcome == Deployed
		}
		if !a.whole && !a.r.Supersede {
			return busy(s, a.whose(p), a.plan.From)
		}
	}
	return a.chooseBack(ctx)
}

// whose says who began a deployment: by its journal, else by who registered its
// task definition.
func (a *attempt) whose(p *ecsstatus.Deployment) string {
	j := a.former
	if j.Deployment == p.ID && j.By != "" {
		text := ", begun by " + j.By + " on " + j.Host
		if j.Reason != "" {
			text += " (" + j.Reason + ")"
		}
		return text
	}
	if by := aws.ToString(a.now.Definition.RegisteredBy); by != "" {
		return ", task definition registered by " + ecsstatus.ShortName(by)
	}
	return ""
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

// runsAlready reports whether there is nothing to do: the definition has the
// image, and the tasks run it, by its digest too.
func (a *attempt) runsAlready() bool {
	return a.plan.nothing && !a.r.Force && a.whole && a.another() == nil
}

// another is the container of a task that runs another image of the wanted name.
func (a *attempt) another() *ecsstatus.Container {
	for _, t := range a.before.Tasks {
		if c := t.Container(a.plan.Container); c != nil && c.Digest != "" && a.plan.Digest != "" && c.Digest != a.plan.Digest {
			return c
		}
	}
	return nil
}

// alreadyThere reports, and tells, that there is nothing to do.
func (a *attempt) alreadyThere() bool {
	if c := a.another(); a.plan.nothing && !a.r.Force && a.whole && c != nil {
		a.note("%s is another image now: %s runs, %s is in the registry, and a roll-back would get that too", a.plan.image.Short(), short(c.Digest), short(a.plan.Digest))
	}
	if !a.runsAlready() {
		return false
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
