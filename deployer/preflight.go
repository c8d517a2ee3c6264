package deployer

import (
	"fmt"
	"strings"
	"time"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/cli"
)

// RefusedError is why a deployment does not begin: everything that was found,
// at once. Nothing has been changed.
type RefusedError struct {
	Findings []error
}

func (e *RefusedError) Error() string {
	if len(e.Findings) == 1 {
		return e.Findings[0].Error()
	}
	lines := []string{fmt.Sprintf("%d things are in the way; nothing was changed", len(e.Findings))}
	for _, f := range e.Findings {
		lines = append(lines, "  - "+f.Error())
	}
	return strings.Join(lines, "\n")
}

// ExitCode is the code of the first finding.
func (e *RefusedError) ExitCode() int { return cli.ExitCode(e.Findings[0]) }

// Unwrap gives the findings, each with its hint.
func (e *RefusedError) Unwrap() []error { return e.Findings }

// refused is a *RefusedError with the findings, nil if there are none.
func refused(findings ...error) error {
	var found []error
	for _, f := range findings {
		if f != nil {
			found = append(found, f)
		}
	}
	if len(found) == 0 {
		return nil
	}
	return &RefusedError{Findings: found}
}

// refusal is a finding about how the service is set up: code 78.
func refusal(hint, format string, args ...any) error {
	return cli.Errorf(cli.ExitConfig, hint, format, args...)
}

// situation is what decides whether a deployment can move.
type situation struct {
	desired, minPercent, maxPercent int
	daemon                          bool
	shifts                          bool // traffic: the new tasks all stand beside the old ones
}

func situationOf(s *ecsstatus.Service, strategy Strategy) situation {
	low, high := percents(s)
	if strategy == Replacing {
		low, high = 0, 100
	}
	return situation{desired(s), low, high, s.Config.Scheduling == "DAEMON", shifts(s)}
}

// unfit finds what about an ACTIVE service cannot be deployed to. It is pure.
func unfit(s *ecsstatus.Service, p *Plan) []error {
	var found []error
	switch {
	case s.Config.Controller != "ECS":
		found = append(found, refusal("deploy it with the tool that controls it",
			"container type %s is deployed by %s, not by ECS", s.Name, controllerName(s.Config.Controller)))
	case shifts(s) && p.Strategy == Replacing:
		found = append(found, refusal("leave --strategy out: ECS begins with the old tasks still there, and shifts the traffic",
			"container type %s is deployed by ECS's strategy %s, which stops no task before the new ones have the traffic", s.Name, s.Config.Strategy))
	case shifts(s): // its percents are not looked at
	default:
		found = append(found, stuck(situationOf(s, p.Strategy))...)
	}
	return append(found, unbalanced(s, p)...)
}

// shifts reports whether ECS deploys a service by shifting its traffic from the
// old tasks to the new ones, in stages.
func shifts(s *ecsstatus.Service) bool { return s.Config.Strategy != "ROLLING" }

func controllerName(c string) string {
	if c == "CODE_DEPLOY" {
		return "AWS CodeDeploy"
	}
	return "an external controller (" + c + ")"
}

// gone is the finding for a service that is being deleted, or was.
func (d *Deployer) gone(s *ecsstatus.Service) error {
	what := "was deleted"
	if s.Status == "DRAINING" {
		what = "is being deleted"
	}
	return cli.Errorf(cli.ExitNotFound, d.typed("list --container-types")+" shows what there is", "container type %s %s (its status is %s)", s.Name, what, s.Status)
}

// unbalanced finds load balancers whose container or port the definition does
// not have: UpdateService would refuse it.
func unbalanced(s *ecsstatus.Service, p *Plan) []error {
	var found []error
	for _, l := range s.LoadBalancers {
		if !exposes(p, l.Container, l.Port) {
			found = append(found, refusal("mend the load balancer of the service or its task definition first",
				"a load balancer of %s expects port %d of container %s, which task definition %s does not have", s.Name, l.Port, l.Container, p.Base))
		}
	}
	return found
}

func exposes(p *Plan, container string, port int) bool {
	for _, c := range p.wanted.ContainerDefinitions {
		if c.Name == nil || *c.Name != container {
			continue
		}
		for _, m := range c.PortMappings {
			if m.ContainerPort != nil && int(*m.ContainerPort) == port || m.ContainerPortRange != nil {
				return true
			}
		}
	}
	return false
}

// running reports whether a deployment is under way, by what ECS says alone:
// its rollout state, or for services without one (Classic Load Balancer) what
// its counters tell.
func running(s *ecsstatus.Service) bool {
	p := s.Primary()
	switch {
	case p == nil || p.RolloutState == "COMPLETED" || p.RolloutState == "FAILED":
		return false
	case p.RolloutState == "IN_PROGRESS":
		return true
	}
	return len(s.Deployments) > 1 || p.Running < p.Desired
}

// busy is the finding for a deployment that is under way: whose (", begun by …"),
// since when.
func busy(s *ecsstatus.Service, who string, image string) error {
	p := s.Primary()
	return cli.Errorf(cli.ExitBusy, "wait for it, or give --supersede to roll your image out over it",
		"another deployment of %s is running: %s to %s (%s) since %s%s", s.Name, p.ID, ecsstatus.ShortName(p.TaskDefinition), image, p.Created.UTC().Format(time.DateTime+" MST"), who)
}

// lastCompleted is the task definition of the last deployment that completed,
// among those that the service still shows; empty if none did.
func lastCompleted(s *ecsstatus.Service) string {
	for _, d := range s.Deployments { // the primary first, then the newest
		if d.RolloutState == "COMPLETED" {
			return d.TaskDefinition
		}
	}
	return ""
}
