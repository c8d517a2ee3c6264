package ecs

import (
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// state is everything that can be read. Values of the SDK's types in it are
// replaced, never changed in place, so that copies may share them.
type state struct {
	clusters  []*cluster
	families  map[string]*family
	rollouts  map[string]*rollout  // by ARN
	revisions map[string]*revision // by ARN
}

func newState() *state {
	return &state{families: map[string]*family{}, rollouts: map[string]*rollout{}, revisions: map[string]*revision{}}
}

type cluster struct {
	name, arn string
	instances []*instance
	gone      []*instance // given up; they may come back
	services  []*service  // inactive ones too, for a while
	tasks     []*task     // stopped ones too, for a while; in the order of their making
	zones     []string
	byTask    map[string]*task
	tags      []types.Tag
}

// instance is a container instance.
type instance struct {
	seq           int64
	index         int // among the instances that its cluster ever had
	cluster       *cluster
	id, arn       string
	ec2, ip, zone string
	inZone        int    // in its cluster's zones
	arch          string // x86_64, arm64
	cpu, memory   int
	enis          int
	gpus          int
	usedCPU       int
	usedMemory    int
	usedGPUs      int
	usedENIs      int
	reserved      []int             // host ports that no task may have
	ports         map[hostPort]bool // host ports of tasks
	nextPort      int               // where the search for a dynamic port begins
	status        string            // ACTIVE, DRAINING, INACTIVE
	connected     bool
	lost          int // how often its agent went away, to know an old timer
	cached        map[string]string
	attributes    []types.Attribute // set by callers
	tasks         []*task           // not stopped
	tags          []types.Tag
	registered    time.Time
	version       int64
}

type hostPort struct {
	port int
	udp  bool
}

// family is a task definition family; revision n is definitions[n-1].
type family struct {
	name        string
	definitions []*definition
}

type definition struct {
	seq  int64
	td   types.TaskDefinition
	tags []types.Tag
}

// service is an ECS service.
type service struct {
	seq         int64
	name, arn   string
	cluster     *cluster
	status      string // ACTIVE, DRAINING, INACTIVE
	desired     int
	config      types.DeploymentConfiguration
	controller  types.DeploymentControllerType
	scheduling  types.SchedulingStrategy
	launchType  types.LaunchType
	capacity    []types.CapacityProviderStrategyItem
	balancers   []types.LoadBalancer
	network     *types.NetworkConfiguration
	registries  []types.ServiceRegistry
	constraints []types.PlacementConstraint
	strategy    []types.PlacementStrategy
	grace       *int32 // seconds
	exec        bool
	managedTags bool
	propagate   types.PropagateTags
	balancing   types.AvailabilityZoneRebalancing
	role        string
	created     time.Time
	inactive    time.Time
	tags        []types.Tag
	bake        time.Duration // of the world; overrides the configuration's minutes
	stepBake    time.Duration // the same, of a step of LINEAR, or of CANARY
	alarm       bool          // one of its alarms is in ALARM

	deployments []*deployment // PRIMARY first
	completed   *deployment   // what a roll-back goes to; nil: none
	rollouts    []*rollout    // oldest first
	revisions   []*revision
	events      []types.ServiceEvent // newest first
	conditions  map[string]condition // events that are not repeated
	notes       notes                // what the next look at the service makes events of
	tasks       []*task              // not stopped
	protect     bool                 // new tasks are protected from scale-in

	held     bool // the scheduler leaves it alone: the world says that it is DRAINING or INACTIVE
	steady   bool
	starved  bool      // a task found no place
	wake     time.Time // when the scheduler looks next
	wakeTurn int       // to know an old timer
}

// deployment is one of a service's deployments: tasks of one revision. For
// services with an external or CodeDeploy controller it is a task set.
type deployment struct {
	id           string // ecs-svc/N
	service      *service
	status       string // PRIMARY, ACTIVE, INACTIVE
	def          *definition
	revision     *revision
	rollout      *rollout // that is under way for it; nil when it is over
	state        types.DeploymentRolloutState
	reason       string
	created      time.Time
	updated      time.Time
	want         int       // for ACTIVE: tasks that it still keeps
	owed         int       // replacements for unhealthy tasks that had to be stopped first
	failed       int       // consecutive tasks that did not start
	breaker      int       // the circuit breaker's count
	starts       int       // consecutive failed starts, for the throttle
	notUntil     time.Time // the throttle starts no task before
	nextUnplaced time.Time // when a task without a place counts again
	stage        stage
	done         time.Time // when it became healthy, for the bake time
	network      *types.NetworkConfiguration
}

// revision is a service revision: what a deployment was started with.
type revision struct {
	seq       int64
	arn       string
	service   *service
	def       *definition
	balancers []types.LoadBalancer
	groups    []string // the target group that it has of each balancer; empty for a Classic one
	network   *types.NetworkConfiguration
	created   time.Time
	digests   map[string]string // by container, once resolved
}

// rollout is a service deployment: the way from revisions to a revision.
type rollout struct {
	seq           int64
	arn           string
	service       *service
	target        *deployment
	sources       []*deployment
	status        types.ServiceDeploymentStatus
	reason        string
	created       time.Time
	started       time.Time
	updated       time.Time
	stopped       time.Time
	finished      time.Time
	config        types.DeploymentConfiguration
	breakerStatus types.ServiceDeploymentRollbackMonitorsStatus
	failures      int
	threshold     int
	rollback      *types.Rollback
	rollbackTo    *deployment
	requested     int // tasks, when it ended
	running       int
	over          bool
	lifecycle     types.ServiceDeploymentLifecycleStage
	weight        float64 // of production traffic that the target gets, percent
	testWeight    float64
	hooks         []types.DeploymentLifecycleHookDetail
	hookEnds      map[string]time.Time // by hook id: when nobody's answer is waited for any more
	deaf          bool                 // an alarm was there in the beginning: alarms do not count
	alarmed       bool
}

// task is a task of a service, or one that RunTask started.
type task struct {
	seq        int64
	id, arn    string
	cluster    *cluster
	service    *service
	deployment *deployment
	instance   *instance
	def        *definition
	group      string
	startedBy  string
	last       string // lastStatus
	desired    string // desiredStatus
	containers []*container
	created    time.Time
	pullStart  time.Time
	pullStop   time.Time
	started    time.Time
	stopping   time.Time
	ended      time.Time // executionStoppedAt
	stopped    time.Time
	stopCode   types.TaskStopCode
	reason     string
	eni        *eni
	targets    []*target
	tags       []types.Tag
	overrides  *types.TaskOverride
	exec       bool
	protected  bool
	until      time.Time // of the protection; zero: for ever
	needs      needs
	version    int64

	engaged   bool // the engine has it
	ran       bool // it was RUNNING once
	fit       bool // it was healthy once
	orderly   bool // its end was asked for: no failure
	unfit     bool // its failing health was told as an event
	replaced  bool // its end was counted by the circuit breaker
	beginning bool // it is one of those that the world begins with
	known     bool // of those: the engine has reported it
}

type eni struct {
	attachment, id, ip, mac, subnet string
}

type container struct {
	name      string
	id        string
	image     string
	digest    string
	runtime   string
	last      string
	exit      *int32
	reason    string
	health    types.HealthStatus
	checked   bool // has a health check
	essential bool
	cpu       int32
	memory    int32
	soft      int32
	ports     []portBinding
}

type portBinding struct {
	container, host int
	udp             bool
	fixed           bool // the task definition names the host port
}

// target is a task's place in a target group.
type target struct {
	arn       string
	id        string
	port      int
	container string
	inside    int // container port
	path      string
	state     string
	reason    string
	why       string // description
}

type targetKey struct {
	arn  string
	id   string
	port int
}

func (t *target) key() targetKey { return targetKey{t.arn, t.id, t.port} }

// notes are what happened since the scheduler last wrote events.
type notes struct {
	registered   map[string]int // target group → number
	deregistered map[string]int
}

type condition struct {
	text string
	at   time.Time
}

func (s *state) cluster(name string) *cluster {
	for _, c := range s.clusters {
		if c.name == name || c.arn == name {
			return c
		}
	}
	return nil
}

// service finds one by its name or ARN. Of several with one name the active one
// is meant, else the newest.
func (c *cluster) service(name string) *service {
	var found *service
	for _, s := range c.services {
		if s.name != name && s.arn != name && s.shortARN() != name {
			continue
		}
		if found == nil || s.status != "INACTIVE" || found.status == "INACTIVE" {
			found = s
		}
	}
	return found
}

func (s *service) primary() *deployment {
	if len(s.deployments) == 0 {
		return nil
	}
	return s.deployments[0]
}

func (s *service) daemon() bool { return s.scheduling == types.SchedulingStrategyDaemon }

// rolls reports whether ECS itself deploys the service.
func (s *service) rolls() bool { return s.controller == types.DeploymentControllerTypeEcs }

// classic reports whether a Classic Load Balancer is attached.
func (s *service) classic() bool {
	for _, b := range s.balancers {
		if b.LoadBalancerName != nil && b.TargetGroupArn == nil {
			return true
		}
	}
	return false
}

func (t *task) alive() bool  { return t.last != "STOPPED" && t.last != "DELETED" }
func (t *task) wanted() bool { return t.desired == "RUNNING" }
func (t *task) pending() bool {
	return t.last == "PROVISIONING" || t.last == "PENDING" || t.last == "ACTIVATING"
}
func (t *task) running() bool { return t.last == "RUNNING" }

// shielded reports whether t may not be scaled in at the time now.
func (t *task) shielded(now time.Time) bool {
	return t.protected && (t.until.IsZero() || now.Before(t.until))
}

func (t *task) container(name string) *container {
	for _, c := range t.containers {
		if c.name == name {
			return c
		}
	}
	return nil
}

// path is what a target group's checks ask for.
func (p *Plane) path(arn string) string { return or(p.groups[arn].Path, "/") }
