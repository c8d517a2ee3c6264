package deployer

import (
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/cli"
)

// Strategy is how old tasks give way to new ones.
type Strategy string

const (
	// Rolling keeps within the service's own minimum and maximum.
	Rolling Strategy = "rolling"
	// Replacing stops the old tasks first: minimumHealthyPercent 0 and
	// maximumPercent 100 for this deployment only.
	Replacing Strategy = "replacing"
)

// ParseStrategy parses the name of a strategy; the empty one is Rolling.
func ParseStrategy(s string) (Strategy, error) {
	switch Strategy(s) {
	case "", Rolling:
		return Rolling, nil
	case Replacing:
		return Replacing, nil
	}
	return "", cli.Usage("the strategies are rolling and replacing", "unknown strategy %q", s)
}

// Request is what is wanted.
type Request struct {
	ContainerType string
	Image         Image
	// Container is the container that gets the image; empty: the only one, or
	// the only one with an image of the same repository.
	Container string
	Strategy  Strategy
	// Timeout is how long a deployment may take, and its roll-back again, on
	// AWS's clock. Zero means DefaultTimeout.
	Timeout time.Duration
	// MaxFailures is how many tasks may fail; the deployment has failed with
	// that many. Zero means as many as ECS's circuit breaker takes.
	MaxFailures int
	// Force deploys although the image runs already.
	Force bool
	// Supersede deploys although another deployment is running.
	Supersede bool
	// SkipImageCheck goes on without asking ECR for the image.
	SkipImageCheck bool
	// SkipRoomCheck goes on although the hosts have no room for the new tasks.
	SkipRoomCheck bool
	// Reason is why, in the caller's words, for the journal.
	Reason string
	// WaitDrained waits until the old tasks have stopped too.
	WaitDrained bool
	// OnInterrupt is what becomes of a deployment when the one who follows it is
	// interrupted. Zero leaves it to ECS.
	OnInterrupt OnInterrupt
	// DryRun ends after the plan.
	DryRun bool
}

// OnInterrupt is what to do about a deployment when its following is interrupted.
type OnInterrupt string

const (
	// LeaveGoing ends the following; ECS goes on.
	LeaveGoing OnInterrupt = "leave"
	// RollBack rolls back, and follows that to its end.
	RollBack OnInterrupt = "rollback"
)

// ParseOnInterrupt parses the name of one; the empty one is LeaveGoing.
func ParseOnInterrupt(s string) (OnInterrupt, error) {
	switch OnInterrupt(s) {
	case "", LeaveGoing:
		return LeaveGoing, nil
	case RollBack:
		return RollBack, nil
	}
	return "", cli.Usage("--on-interrupt takes leave and rollback", "unknown --on-interrupt %q", s)
}

// DefaultTimeout is how long a deployment may take. ECS itself has no limit; a
// service with a deregistration delay of five minutes and a slow start needs
// its quarter of an hour.
const DefaultTimeout = 30 * time.Minute

// Current is what there is: a service and the task definition that it has.
type Current struct {
	Service    *ecsstatus.Service
	Definition types.TaskDefinition
	Tags       []types.Tag // of the definition
}

// Plan is what would be done. It is made without asking anybody.
type Plan struct {
	ContainerType string   `json:"containerType"`
	Cluster       string   `json:"cluster"`
	Container     string   `json:"container"`
	From          string   `json:"from"`             // the image it has
	To            string   `json:"to"`               // the image it gets
	Digest        string   `json:"digest,omitempty"` // of the image it gets; empty if it could not be asked for
	Base          string   `json:"taskDefinition"`   // family:revision of the definition it has
	Back          string   `json:"rollbackTo,omitempty"`
	Strategy      Strategy `json:"strategy"`
	Desired       int      `json:"desired"`
	Steps         []string `json:"steps"`
	Diff          string   `json:"diff"`
	Notes         []string `json:"notes,omitempty"`
	// Scan is how many findings of each severity ECR's scan of the image has.
	Scan map[string]int `json:"scanFindings,omitempty"`

	image   Image
	base    *ecs.RegisterTaskDefinitionInput
	wanted  *ecs.RegisterTaskDefinitionInput
	nothing bool // the definition has the image already
	dry     bool // nothing more will be done about it
}

// MakePlan plans r. Its errors are usage errors: a container or a registry
// that would have to be guessed is not.
func MakePlan(now Current, r Request) (*Plan, error) {
	base := revision(now.Definition, now.Tags)
	n, err := choose(base.ContainerDefinitions, r)
	if err != nil {
		return nil, err
	}
	container := base.ContainerDefinitions[n]
	from := aws.ToString(container.Image)
	image, ok := r.Image.complete(parseLoose(from))
	if !ok {
		return nil, cli.Usage(imageExample, "image URL %q names no registry, and container %s has another repository (%s)", r.Image, aws.ToString(container.Name), from)
	}
	if n := len(image.String()); n > mostImage {
		return nil, cli.Usage("shorten the repository's name or the tag", "image URL %s has %d characters, and ECS takes %d", image, n, mostImage)
	}
	p := &Plan{
		ContainerType: now.Service.Name, Cluster: ecsstatus.ShortName(aws.ToString(now.Service.AWS.ClusterArn)), Container: aws.ToString(container.Name),
		From: from, To: image.String(), Base: shortRevision(now.Definition), Strategy: r.Strategy, Desired: desired(now.Service),
		image: image, base: base, wanted: withImage(base, n, image.String()),
	}
	p.nothing, p.dry = p.From == p.To, r.DryRun
	p.Diff = differences(p.Base, base, aws.ToString(base.Family)+" (new revision)", p.wanted)
	if image != r.Image {
		p.Notes = append(p.Notes, "the registry is the one of the image that container "+p.Container+" has now")
	}
	if len(base.Tags) >= mostTags {
		p.Notes = append(p.Notes, fmt.Sprintf("task definition %s has %d tags, which is AWS's limit: the new revision is not marked as ours", p.Base, len(base.Tags)))
	}
	p.Steps = steps(p, now.Service)
	return p, nil
}

// mostImage is how long an image's name may be in a task definition: "up to 255
// letters …" (doc comment of ContainerDefinition.Image).
const mostImage = 255

func withImage(base *ecs.RegisterTaskDefinitionInput, container int, image string) *ecs.RegisterTaskDefinitionInput {
	out := *base
	out.ContainerDefinitions = append([]types.ContainerDefinition(nil), base.ContainerDefinitions...)
	out.ContainerDefinitions[container].Image = aws.String(image)
	return &out
}

// choose returns the index of the container that gets the image.
func choose(containers []types.ContainerDefinition, r Request) (int, error) {
	if r.Container != "" {
		return named(containers, r.Container)
	}
	if len(containers) == 1 {
		return 0, nil
	}
	var same []int
	for i, c := range containers {
		if sameRepository(r.Image, parseLoose(aws.ToString(c.Image))) {
			same = append(same, i)
		}
	}
	if len(same) == 1 {
		return same[0], nil
	}
	return 0, cli.Usage("say which with --container: "+strings.Join(names(containers), ", "),
		"%d of the %d containers of %s have an image of repository %s", len(same), len(containers), r.ContainerType, r.Image.Name())
}

func named(containers []types.ContainerDefinition, name string) (int, error) {
	for i, c := range containers {
		if aws.ToString(c.Name) == name {
			return i, nil
		}
	}
	return 0, cli.Usage("the containers are "+strings.Join(names(containers), ", "), "no container %q in the task definition", name)
}

func names(containers []types.ContainerDefinition) []string {
	var out []string
	for _, c := range containers {
		out = append(out, aws.ToString(c.Name))
	}
	return out
}

func sameRepository(given, now Image) bool {
	completed, ok := given.complete(now)
	return ok && completed.Name() == now.Name()
}

func steps(p *Plan, s *ecsstatus.Service) []string {
	out := []string{fmt.Sprintf("register a new revision of %s in which container %s has %s", aws.ToString(p.base.Family), p.Container, p.To)}
	update := "update service " + p.ContainerType + " to it"
	if p.Strategy == Replacing {
		update += ", with minimumHealthyPercent 0 and maximumPercent 100"
	}
	out = append(out, update)
	if shifts(s) {
		return append(out, stageSteps(s))
	}
	if p.Desired == 0 {
		out = append(out, "no task is desired: wait until ECS has completed the deployment")
	} else {
		out = append(out, fmt.Sprintf("follow until %s and healthy", countOf(p.Desired, "new task is running", "new tasks are running")))
	}
	if p.Strategy == Replacing {
		low, high := percents(s)
		out = append(out, fmt.Sprintf("put minimumHealthyPercent %d and maximumPercent %d back", low, high))
	}
	return out
}

func countOf(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// shortRevision is family:revision.
func shortRevision(d types.TaskDefinition) string {
	return fmt.Sprintf("%s:%d", aws.ToString(d.Family), d.Revision)
}

// desired is the live number of tasks: ECS counts it itself for a DAEMON
// service, one for each host.
func desired(s *ecsstatus.Service) int {
	if p := s.Primary(); p != nil && s.Config.Scheduling == "DAEMON" {
		return p.Desired
	}
	return s.Desired
}

// percents are minimumHealthyPercent and maximumPercent, with AWS's defaults
// where it tells none (100 and 200; a DAEMON service has 0 and 100).
func percents(s *ecsstatus.Service) (low, high int) {
	low, high = 100, 200
	if s.Config.Scheduling == "DAEMON" {
		low, high = 0, 100
	}
	if p := s.Config.MinimumHealthy; p != nil {
		low = *p
	}
	if p := s.Config.Maximum; p != nil {
		high = *p
	}
	return low, high
}
