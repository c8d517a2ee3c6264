// Package world describes what a lab plays: clusters and their hosts, images
// and how they behave, services, faults, and what happens when.
//
// A world is a YAML file. The same file serves a test script, a demo and a bug
// report. Its zero value is an account with nothing in it. Everything that can
// be in a world file can also be done to a lab while it runs, as an Action or
// a Fault.
//
// Durations are Go durations ("40s", "5m") in lab time, which may run faster
// than the time outside: see Clock.
package world

import "time"

// World is a whole world file.
type World struct {
	Account  string    `yaml:"account"` // 12 digits; empty means 123456789012
	Region   string    `yaml:"region"`  // empty means eu-central-1
	Seed     int64     `yaml:"seed"`    // of everything that looks random: IDs, order; zero is as good as another
	Clock    Clock     `yaml:"clock"`
	Clusters []Cluster `yaml:"clusters"`
	Images   []Image   `yaml:"images"`
	Services []Service `yaml:"services"`
	Faults   []Fault   `yaml:"faults"`
	Actions  []Action  `yaml:"actions"`

	// StaleReads is how long Describe and List calls keep showing the state
	// from before a change (AWS: some seconds). Zero is consistent.
	StaleReads Duration `yaml:"stale-reads"`
	// RateLimits switches AWS's token buckets on (ecs.md 3.2); they refill in
	// real time. Off, nothing throttles but faults.
	RateLimits bool `yaml:"rate-limits"`
	// Latency is added to each API call, in real time.
	Latency Duration `yaml:"latency"`
	// Cleanup is how long after its stop a task's containers stay on their
	// host (ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION); zero means 3h.
	Cleanup Duration `yaml:"cleanup"`
	// RegistryLogin makes the account's ECR ask for a login, as AWS's does: the
	// one that GetAuthorizationToken answers with. Off, anybody may pull.
	RegistryLogin bool `yaml:"registry-login"`
	// Documents are the account's Session documents. Nil is the one that
	// jumpsuite brings along, jumpsuite-docker with port 2376; an empty list is none.
	Documents []Document `yaml:"documents"`
	// Link is what happens to sessions on their way.
	Link Link `yaml:"link"`
	// DeniedKeys are access key IDs that are known and may do nothing; their
	// secret is the lab's.
	DeniedKeys []string `yaml:"denied-keys"`
}

// Clock says how fast lab time runs.
type Clock struct {
	// Speed is lab seconds per second outside; zero means 1.
	Speed float64 `yaml:"speed"`
	// Ahead and Behind are how far lab time is from the time outside in the beginning.
	Ahead  Duration `yaml:"ahead"`
	Behind Duration `yaml:"behind"`
}

// Duration is a time.Duration written as in Go.
type Duration time.Duration

// Document is a Session document.
type Document struct {
	Name string `yaml:"name"`
	// Port makes it one of type Port with that port; Content is any other, in
	// the JSON that CreateDocument takes.
	Port    int    `yaml:"port"`
	Content string `yaml:"content"`
}

// Link is how the service carries sessions. Its zero value is a perfect one:
// no delay, nothing lost, no limit but that of packets. All chance is by World.Seed.
type Link struct {
	Delay Duration `yaml:"delay"` // one way, in real time
	// Packets is how many messages a client may send in a second (real time)
	// before its websocket is closed; zero means 1000, as AWS's.
	Packets int `yaml:"packets"`
	// Lose, Repeat, Swap (with the next) and Damage are shares of the messages,
	// 0 to 1, in both directions.
	Lose   float64 `yaml:"lose"`
	Repeat float64 `yaml:"repeat"`
	Swap   float64 `yaml:"swap"`
	Damage float64 `yaml:"damage"`
	// Cut and CutAgent cut each websocket of a client, or an agent, after about
	// so many bytes: from 1 to twice as many. Zero is never.
	Cut      int `yaml:"cut"`
	CutAgent int `yaml:"cut-agent"`
	// Close closes each websocket properly when it is that old (lab time; AWS:
	// about an hour). Zero is never.
	Close Duration `yaml:"close"`
	// Idle ends sessions that have carried nothing for that long (lab time; AWS:
	// 20 minutes). Zero is never.
	Idle Duration `yaml:"idle"`
	// Crash is how long after the worker of a session has crashed, as it does when nothing
	// listens on the port, the agent says so (real time); zero means a minute, as the real one's.
	Crash Duration `yaml:"crash"`
	// Exact keeps agents from handing a message to the port twice when the ack
	// of the first could not be sent, and from handing over a damaged one, both of which the real one does.
	Exact bool `yaml:"exact"`
}

// Cluster is an ECS cluster and its container instances.
type Cluster struct {
	Name  string `yaml:"name"`
	Hosts []Host `yaml:"hosts"`
}

// Host is a container instance: an EC2 docker host with an ECS agent.
type Host struct {
	Count    int    `yaml:"count"`    // that many alike; zero means 1
	IP       string `yaml:"ip"`       // of the first; the others count up; empty means 10.0.0.10 and up
	Instance string `yaml:"instance"` // EC2 instance id of the first; empty means made from the seed
	Zone     string `yaml:"zone"`     // empty means a, b, c in turn (appended to the region)
	CPU      int    `yaml:"cpu"`      // CPU units; zero means 2048
	Memory   int    `yaml:"memory"`   // MiB; zero means 3900
	Ports    []int  `yaml:"ports"`    // taken host ports, besides the agent's 22, 2375, 2376, 51678, 51679
	Draining bool   `yaml:"draining"`
	Lost     bool   `yaml:"lost"`    // agent disconnected from the start
	Offline  bool   `yaml:"offline"` // not reachable through SSM: PingStatus ConnectionLost
	// Cached are images (repository:tag) that the host has already, so that it
	// starts them although they are gone (ECS_IMAGE_PULL_BEHAVIOR=default).
	Cached []string `yaml:"cached"`
	Arch   string   `yaml:"arch"` // x86_64 or arm64; empty means x86_64
	GPUs   int      `yaml:"gpus"`
	ENIs   int      `yaml:"enis"` // network interfaces for awsvpc tasks; zero means 15
	// Forward says what the host's local ports lead to, for sessions: an address
	// such as 127.0.0.1:4711, by port. Nobody listens on the others.
	Forward map[int]string `yaml:"forward"`
}

// Image is an image in the account's ECR, or in another registry, and how a
// container of it behaves. Both engines play the same behaviour: sim by the
// clock, docker with a real container made from busybox.
type Image struct {
	Repository string   `yaml:"repository"`
	Registry   string   `yaml:"registry"` // host of a registry outside the account; empty is the account's ECR
	Tags       []string `yaml:"tags"`
	Arch       string   `yaml:"arch"` // amd64 or arm64; empty means amd64
	// Platforms makes it an image of several architectures, behind a manifest list: [amd64, arm64].
	Platforms []string `yaml:"platforms"`
	Missing   bool     `yaml:"missing"` // the repository is there, the image is not
	// Size in MiB and Pull, how long a pull takes (zero: 2s in sim, what it takes in docker).
	Size int      `yaml:"size"`
	Pull Duration `yaml:"pull"`
	// Findings are the numbers of ECR scan findings by severity (CRITICAL, HIGH, …).
	Findings map[string]int `yaml:"findings"`

	// Exit, if set, is the code that the container ends with, After its start.
	Exit  *int     `yaml:"exit"`
	After Duration `yaml:"after"`
	// OOM makes the end an out-of-memory kill.
	OOM bool `yaml:"oom"`
	// StartError, if set, is the reason that docker gives for not starting it.
	StartError string `yaml:"start-error"`
	// Unhealthy makes the container health check fail; it becomes healthy, if
	// ever, HealthyAfter its start.
	Unhealthy    bool     `yaml:"unhealthy"`
	HealthyAfter Duration `yaml:"healthy-after"`
	// HTTP is the status that its port answers with; zero means 200, -1 that
	// nothing listens. HTTPAfter: nothing listens before.
	HTTP      int      `yaml:"http"`
	HTTPAfter Duration `yaml:"http-after"`
	// Stop is how long it takes to end after SIGTERM; more than its stop
	// time-out means that it is killed.
	Stop Duration `yaml:"stop"`
	// Log is written to its standard output at start, a line each.
	Log []string `yaml:"log"`
}

// Service is an ECS service with its task definition family. In the beginning
// it is steady, with all its tasks running, unless Fresh.
type Service struct {
	Name    string `yaml:"name"`
	Cluster string `yaml:"cluster"` // empty: the only one
	Family  string `yaml:"family"`  // empty: the name
	// Containers of the task definition. One with an empty name is called as
	// the service; Image, CPU, Memory, Ports are the short form for one container.
	Containers []Container `yaml:"containers"`
	Image      string      `yaml:"image"`
	CPU        int         `yaml:"cpu"`
	Memory     int         `yaml:"memory"`
	Port       int         `yaml:"port"`      // container port
	HostPort   int         `yaml:"host-port"` // zero: dynamic
	Health     *Health     `yaml:"health"`
	LogGroup   string      `yaml:"log-group"`

	Desired     *int     `yaml:"desired"`      // nil means 1
	Min         *int     `yaml:"min"`          // minimumHealthyPercent; nil means 100 (0 for DAEMON)
	Max         *int     `yaml:"max"`          // maximumPercent; nil means 200 (100 for DAEMON)
	NetworkMode string   `yaml:"network-mode"` // bridge (default), host, awsvpc
	Scheduling  string   `yaml:"scheduling"`   // REPLICA (default), DAEMON
	Controller  string   `yaml:"controller"`   // ECS (default), CODE_DEPLOY, EXTERNAL
	Strategy    string   `yaml:"strategy"`     // ROLLING (default), BLUE_GREEN, LINEAR, CANARY
	Bake        Duration `yaml:"bake"`         // bake time of the other strategies
	// Percent is a step of LINEAR (zero: 10), or what CANARY shifts first (zero:
	// 5); StepBake is how long that lasts (zero: 6m and 10m).
	Percent  float64  `yaml:"percent"`
	StepBake Duration `yaml:"step-bake"`
	// Hooks are run at stages of a BLUE_GREEN, LINEAR or CANARY deployment.
	Hooks []Hook `yaml:"hooks"`
	// Alarms are CloudWatch alarms that roll a deployment back; the verb alarm lets one go off.
	Alarms []string `yaml:"alarms"`

	LoadBalancers []LoadBalancer `yaml:"load-balancers"`
	Grace         Duration       `yaml:"grace"` // health check grace period
	// CapacityProvider is the name of one that the service uses; it scales nothing.
	CapacityProvider string `yaml:"capacity-provider"`
	// Constraints are placement constraints: distinctInstance, or a memberOf expression.
	Constraints    []string          `yaml:"constraints"`
	CircuitBreaker *CircuitBreaker   `yaml:"circuit-breaker"`
	Revision       int               `yaml:"revision"` // of the task definition in use; zero means 1; the ones before are there too
	Tags           map[string]string `yaml:"tags"`     // of the task definition
	// Fresh starts it with its first deployment IN_PROGRESS and no tasks.
	Fresh bool `yaml:"fresh"`
	// Failed starts it after a first deployment that never completed.
	Failed bool `yaml:"failed"`
	// Protected tasks are not scaled in.
	Protected bool `yaml:"protected"`
	// Draining or inactive services: ACTIVE (default), DRAINING, INACTIVE.
	Status string `yaml:"status"`
}

// Container is a container definition.
type Container struct {
	Name        string            `yaml:"name"`
	Image       string            `yaml:"image"` // repository:tag in the account's ECR, or a whole reference
	CPU         int               `yaml:"cpu"`
	Memory      int               `yaml:"memory"`      // hard limit, MiB
	Reservation int               `yaml:"reservation"` // soft limit, MiB
	Port        int               `yaml:"port"`
	HostPort    int               `yaml:"host-port"`
	GPUs        int               `yaml:"gpus"`
	Essential   *bool             `yaml:"essential"` // nil means true
	Health      *Health           `yaml:"health"`
	StopTimeout Duration          `yaml:"stop-timeout"`
	Environment map[string]string `yaml:"environment"`
	Command     []string          `yaml:"command"`
	// LogGroup is where its log goes in CloudWatch Logs; empty: it stays on the host.
	LogGroup string `yaml:"log-group"`
}

// Health is a container health check.
type Health struct {
	Interval    Duration `yaml:"interval"`     // zero means 30s
	Timeout     Duration `yaml:"timeout"`      // zero means 5s
	Retries     int      `yaml:"retries"`      // zero means 3
	StartPeriod Duration `yaml:"start-period"` // zero means none
}

// Hook is a lifecycle hook.
type Hook struct {
	Stages []string `yaml:"stages"` // PRE_SCALE_UP, POST_TEST_TRAFFIC_SHIFT, …
	Type   string   `yaml:"type"`   // AWS_LAMBDA (default) or PAUSE
	// Result of a Lambda hook is SUCCEEDED (default) or FAILED, after it Takes that long.
	Result string   `yaml:"result"`
	Takes  Duration `yaml:"takes"`
	// Timeout (whole minutes; zero means 24h) and what happens then: ROLLBACK (default) or CONTINUE.
	Timeout Duration `yaml:"timeout"`
	Action  string   `yaml:"action"`
}

// LoadBalancer is a target group and what of a service is registered in it.
type LoadBalancer struct {
	TargetGroup string `yaml:"target-group"` // name; empty means the service's
	// Alternate is the second target group of a BLUE_GREEN, LINEAR or CANARY
	// service; empty means that of the first with -2.
	Alternate string    `yaml:"alternate"`
	Container string    `yaml:"container"` // empty: the first
	Port      int       `yaml:"port"`      // empty: the container's first
	Path      string    `yaml:"path"`      // empty means /
	Interval  Duration  `yaml:"interval"`  // zero means 30s
	Timeout   Duration  `yaml:"timeout"`   // zero means 5s
	Healthy   int       `yaml:"healthy"`   // good checks until healthy; zero means 5
	Unhealthy int       `yaml:"unhealthy"` // bad checks until unhealthy; zero means 2
	Delay     *Duration `yaml:"delay"`     // deregistration delay; nil means 300s
	Classic   bool      `yaml:"classic"`   // a Classic Load Balancer: no target group, no rolloutState
}

// CircuitBreaker is the deployment circuit breaker of a service.
type CircuitBreaker struct {
	Enable         bool   `yaml:"enable"`
	Rollback       bool   `yaml:"rollback"`
	Type           string `yaml:"type"`  // BOUNDED_PERCENT (default), UNBOUNDED_PERCENT, COUNT
	Value          int    `yaml:"value"` // zero means 50
	NoResetHealthy bool   `yaml:"no-reset-on-healthy"`
}

// Fault makes API calls go wrong.
type Fault struct {
	// Operation is an API operation (UpdateService), or a pattern (Describe*, *).
	Operation string `yaml:"operation"`
	Skip      int    `yaml:"skip"`  // calls that it leaves alone first
	Times     int    `yaml:"times"` // calls that it affects; zero means all from then on
	// Error is throttle (ThrottlingException, 400), server (ServerException,
	// 500), denied (AccessDeniedException, 400), unavailable (503), cut (the connection is closed without an answer),
	// concurrent (ClientException of RegisterTaskDefinition, when others register
	// revisions of the family at the same time), or empty for none.
	Error string `yaml:"error"`
	// After lets the request take effect before the error is answered.
	After bool `yaml:"after"`
	// Latency is added, in real time.
	Latency Duration `yaml:"latency"`
	// Stale answers reads with the state of that long ago (lab time).
	Stale Duration `yaml:"stale"`
}

// Action is something that happens in a world, at a time, after a call, or when
// a lab is told so. Do is one of the verbs in Verbs.
type Action struct {
	// At is lab time since the start. On, if set, is an operation: the action
	// happens At after the first call of it (that succeeds).
	At Duration `yaml:"at"`
	On string   `yaml:"on"`
	Do string   `yaml:"do"`
	// To is whom: a host (IP or instance id), a service, a task, an image (repository:tag).
	To    string `yaml:"to"`
	Value string `yaml:"value"`
}

// Verbs are the actions, with what To and Value mean.
var Verbs = map[string]string{
	"host-lost":         "HOST: its agent disconnects, its containers are gone; ECS notices the tasks 14 minutes later",
	"host-back":         "HOST: its agent connects again",
	"host-drain":        "HOST: its state becomes DRAINING",
	"host-active":       "HOST: its state becomes ACTIVE",
	"image-delete":      "IMAGE: deleted from its registry",
	"image-push":        "IMAGE, VALUE an image spec in YAML flow style: pushed, or its tag moved",
	"desired":           "SERVICE, VALUE a number: its desired count, as autoscaling would",
	"deploy":            "SERVICE, VALUE an image: a foreign deployment with a new revision",
	"service-delete":    "SERVICE: deleted",
	"definition-delete": "TASK DEFINITION (family:revision): deregistered",
	"protect":           "SERVICE, VALUE on or off: its tasks are protected from scale-in",
	"kill":              "TASK or SERVICE (one task of it), VALUE an exit code: its first essential container ends",
	"stop-task":         "TASK or SERVICE (all its tasks): as StopTask does",
	"target-health":     "SERVICE, VALUE an HTTP status or none: what its running tasks answer from now on",
	"container-health":  "SERVICE, VALUE healthy or unhealthy: what the health checks of its running tasks say from now on",
	"alarm":             "SERVICE, VALUE on or off: an alarm of its deployment configuration goes off, or ends",
	"cluster-empty":     "CLUSTER: all its hosts are lost",
	"forward":           "HOST, VALUE PORT=ADDRESS: what a local port of it leads to, for sessions; PORT= is nothing",
	"session-cut":       "HOST, VALUE client, agent or both: the websockets of its sessions are cut",
	"session-end":       "HOST, VALUE a text: its sessions are ended by the service, with that text",
}
