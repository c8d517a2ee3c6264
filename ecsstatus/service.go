package ecsstatus

import (
	"context"
	"regexp"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// Service is a container type as it is now.
type Service struct {
	Name           string    `json:"name"`
	ARN            string    `json:"arn"`
	Status         string    `json:"status"` // ACTIVE, DRAINING, INACTIVE
	Desired        int       `json:"desired"`
	Running        int       `json:"running"`
	Pending        int       `json:"pending"`
	TaskDefinition string    `json:"taskDefinition"` // ARN
	Created        time.Time `json:"created,omitzero"`
	Config         Config    `json:"config"`
	// LoadBalancers are where its tasks are registered.
	LoadBalancers []LoadBalancer `json:"loadBalancers"`
	// Deployments are those under way and the last one; the PRIMARY one first.
	Deployments []Deployment `json:"deployments"`
	// Events are ECS's last 100, the newest last.
	Events []Event `json:"events"`

	// AWS is the whole answer, for what is not above.
	AWS types.Service `json:"-"`
}

// Config is how a container type is deployed.
type Config struct {
	Controller     string          `json:"controller"`     // ECS, CODE_DEPLOY, EXTERNAL
	Scheduling     string          `json:"scheduling"`     // REPLICA, DAEMON
	Strategy       string          `json:"strategy"`       // ROLLING, BLUE_GREEN, LINEAR, CANARY
	MinimumHealthy *int            `json:"minimumHealthy"` // percent of desired; nil: not told
	Maximum        *int            `json:"maximum"`        // percent of desired; nil: not told
	CircuitBreaker *CircuitBreaker `json:"circuitBreaker,omitempty"`
	// Grace is how many seconds failing load-balancer checks are forgiven
	// after a task's start; nil: none.
	Grace *int `json:"graceSeconds,omitempty"`
}

// CircuitBreaker is the deployment circuit breaker of a container type.
type CircuitBreaker struct {
	Enabled  bool `json:"enabled"`
	Rollback bool `json:"rollback"`
}

// LoadBalancer is a target group (or a Classic Load Balancer, which has a Name
// and no TargetGroup) and what of each task is registered in it.
type LoadBalancer struct {
	TargetGroup string `json:"targetGroup,omitempty"` // ARN
	// Alternate is the second target group of a service whose traffic is shifted: its
	// tasks are in the one or in the other.
	Alternate string `json:"alternateTargetGroup,omitempty"` // ARN
	Name      string `json:"name,omitempty"`
	Container string `json:"container"`
	Port      int    `json:"port"` // the container's
}

// Deployment is one deployment of a container type.
type Deployment struct {
	ID             string    `json:"id"`     // ecs-svc/N, the startedBy of its tasks
	Status         string    `json:"status"` // PRIMARY, ACTIVE, INACTIVE
	TaskDefinition string    `json:"taskDefinition"`
	Desired        int       `json:"desired"`
	Running        int       `json:"running"`
	Pending        int       `json:"pending"`
	Failed         int       `json:"failed"`       // consecutive failures; 0 again once a task runs
	RolloutState   string    `json:"rolloutState"` // IN_PROGRESS, COMPLETED, FAILED; empty behind a Classic Load Balancer
	Reason         string    `json:"reason"`       // of the rollout state
	Created        time.Time `json:"created,omitzero"`
	Updated        time.Time `json:"updated,omitzero"`
}

// Event is a service event in ECS's words.
type Event struct {
	ID      string    `json:"id"`
	Time    time.Time `json:"time,omitzero"`
	Message string    `json:"message"`
}

// Steady reports whether the container type has what it should: it is active,
// one deployment is left, and as many tasks run as are desired. It does not
// look at the load balancers.
func (s *Service) Steady() bool {
	return s.Status == "ACTIVE" && len(s.Deployments) == 1 && s.Running == s.Desired && s.Pending == 0
}

// Primary is the deployment that ECS works towards, nil if there is none.
func (s *Service) Primary() *Deployment {
	for i := range s.Deployments {
		if s.Deployments[i].Status == "PRIMARY" {
			return &s.Deployments[i]
		}
	}
	return nil
}

// Deployment is the deployment with an ID (ecs-svc/N), nil if ECS shows none.
func (s *Service) Deployment(id string) *Deployment {
	for i := range s.Deployments {
		if s.Deployments[i].ID == id {
			return &s.Deployments[i]
		}
	}
	return nil
}

// serviceName is what ECS takes for one: "up to 255 letters (uppercase and
// lowercase), numbers, underscores, and hyphens" (doc comment of CreateServiceInput).
var serviceName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)

// Service reads a container type by its name. One that was deleted is found
// with status INACTIVE as long as ECS shows it.
//
// ECS would take an ARN as well. Nothing here does: policies know container
// types by name, and one that is denied must not be had under another.
func (r *Reader) Service(ctx context.Context, name string) (*Service, error) {
	if !serviceName.MatchString(name) {
		return nil, r.noSuchService(ctx, name)
	}
	out, err := r.ECS.DescribeServices(ctx, &ecs.DescribeServicesInput{Cluster: &r.Cluster, Services: []string{name},
		// The journal of a deployment is in its tags.
		Include: []types.ServiceField{types.ServiceFieldTags}})
	if err != nil {
		return nil, r.noSuchCluster(ctx, err, "describe service "+name)
	}
	if len(out.Services) == 0 {
		return nil, r.noSuchService(ctx, name)
	}
	return NewService(out.Services[0]), nil
}

// ContainerTypes returns the names of all container types, sorted.
func (r *Reader) ContainerTypes(ctx context.Context) ([]string, error) {
	arns, err := collect(ctx, r.listServices)
	if err != nil {
		return nil, r.noSuchCluster(ctx, err, "list services")
	}
	names := shortNames(arns)
	slices.Sort(names)
	return names, nil
}

func (r *Reader) listServices(ctx context.Context, token *string) ([]string, *string, error) {
	in := &ecs.ListServicesInput{Cluster: &r.Cluster, MaxResults: pointer(int32(pageSize)), NextToken: token}
	out, err := r.ECS.ListServices(ctx, in)
	if err != nil {
		return nil, nil, err
	}
	return out.ServiceArns, out.NextToken, nil
}

// NewService is the Service that an answer of AWS holds, DescribeServices' or
// UpdateService's.
func NewService(s types.Service) *Service {
	out := &Service{
		Name:           text(s.ServiceName),
		ARN:            text(s.ServiceArn),
		Status:         text(s.Status),
		Desired:        int(s.DesiredCount),
		Running:        int(s.RunningCount),
		Pending:        int(s.PendingCount),
		TaskDefinition: text(s.TaskDefinition),
		Created:        moment(s.CreatedAt),
		Config:         newConfig(s),
		LoadBalancers:  []LoadBalancer{},
		Deployments:    []Deployment{},
		Events:         newEvents(s.Events),
		AWS:            s,
	}
	for _, l := range s.LoadBalancers {
		out.LoadBalancers = append(out.LoadBalancers, newLoadBalancer(l))
	}
	for _, d := range s.Deployments {
		out.Deployments = append(out.Deployments, newDeployment(d))
	}
	slices.SortStableFunc(out.Deployments, primaryFirst)
	return out
}

// newConfig fills in what ECS leaves out: the doc comments of the SDK's Service
// name ECS, REPLICA and ROLLING as what is meant when nothing is said.
func newConfig(s types.Service) Config {
	c := Config{Controller: "ECS", Scheduling: "REPLICA", Strategy: "ROLLING", Grace: number(s.HealthCheckGracePeriodSeconds)}
	if s.DeploymentController != nil {
		c.Controller = string(s.DeploymentController.Type)
	}
	if s.SchedulingStrategy != "" {
		c.Scheduling = string(s.SchedulingStrategy)
	}
	d := s.DeploymentConfiguration
	if d == nil {
		return c
	}
	if d.Strategy != "" {
		c.Strategy = string(d.Strategy)
	}
	c.MinimumHealthy, c.Maximum = number(d.MinimumHealthyPercent), number(d.MaximumPercent)
	if b := d.DeploymentCircuitBreaker; b != nil {
		c.CircuitBreaker = &CircuitBreaker{Enabled: b.Enable, Rollback: b.Rollback}
	}
	return c
}

func newLoadBalancer(l types.LoadBalancer) LoadBalancer {
	out := LoadBalancer{
		TargetGroup: text(l.TargetGroupArn),
		Name:        text(l.LoadBalancerName),
		Container:   text(l.ContainerName),
	}
	if l.ContainerPort != nil {
		out.Port = int(*l.ContainerPort)
	}
	if l.AdvancedConfiguration != nil {
		out.Alternate = text(l.AdvancedConfiguration.AlternateTargetGroupArn)
	}
	return out
}

func newDeployment(d types.Deployment) Deployment {
	return Deployment{
		ID:             text(d.Id),
		Status:         text(d.Status),
		TaskDefinition: text(d.TaskDefinition),
		Desired:        int(d.DesiredCount),
		Running:        int(d.RunningCount),
		Pending:        int(d.PendingCount),
		Failed:         int(d.FailedTasks),
		RolloutState:   string(d.RolloutState),
		Reason:         text(d.RolloutStateReason),
		Created:        moment(d.CreatedAt),
		Updated:        moment(d.UpdatedAt),
	}
}

// primaryFirst orders deployments: the primary one, then the newest.
func primaryFirst(a, b Deployment) int {
	if (a.Status == "PRIMARY") != (b.Status == "PRIMARY") {
		if a.Status == "PRIMARY" {
			return -1
		}
		return 1
	}
	return b.Created.Compare(a.Created)
}

// newEvents turns the newest-first list of the API around.
func newEvents(events []types.ServiceEvent) []Event {
	out := make([]Event, 0, len(events))
	for _, e := range slices.Backward(events) {
		out = append(out, Event{ID: text(e.Id), Time: moment(e.CreatedAt), Message: text(e.Message)})
	}
	slices.SortStableFunc(out, func(a, b Event) int { return a.Time.Compare(b.Time) })
	return out
}
