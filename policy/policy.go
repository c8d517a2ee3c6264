// Package policy decides whether a principal may act on a resource.
//
// A policy is a list of rules. Nothing is allowed unless a rule allows it, and a
// rule that denies wins over every rule that allows, so order never matters.
//
//   - A principal is the user who called, with the groups the system says he is in.
//   - An action is a word that people type: docker.exec, ecs.deploy (see Actions).
//   - A resource is what is acted on: a container type, an image, a host.
//   - An environment is an ECS cluster and what is known of it. It is the place
//     where the resource is; a caller cannot choose it, only name it.
//
// Two things stand above the rules. The floor: what changes containers by hand
// (see Action.Floored) is refused in production whatever the file says, and an
// environment that is unknown or does not say otherwise is production. The
// limits: how an exec or a run may look, in each environment. And whoever comes
// from a jump server by its key gets no more than the file says of that key.
//
// Decide is pure: it knows no clock, no network and no user database. A Decision
// is a value whose zero denies. The package does no I/O but Load's, and has no
// AWS or docker types.
package policy

import (
	"slices"
	"time"
)

// Effect is what a rule does to a request that it matches.
type Effect int

// The effects. The zero value denies.
const (
	Deny Effect = iota
	Allow
)

func (e Effect) String() string {
	if e == Allow {
		return "allow"
	}
	return "deny"
}

// Principal is who asks: the names as the system's user database has them.
type Principal struct {
	User   string
	Groups []string
	// Key is the id of the key of the jump server that says so, where another
	// machine does. What the file says of jump servers bounds him then.
	Key string
	// Former are keys that the jump server had before, each of which has signed
	// which one takes its place: what the file says of one of them holds for Key.
	Former []string
}

// None in a field of a Resource says that there is no such thing, where the
// empty string says that it is not known: a container that was not made by ECS
// has the container type None. A rule that denies takes "not known" for a match.
const None = "-"

// Resource is what is acted on. Fields that an action has nothing to do with
// stay empty (see Action.Has).
type Resource struct {
	ContainerType string   // the ECS service, or the task definition family of a container
	Image         string   // as people write it (alpine) or in full; tag or digest or both
	Host          string   // as the environment names its hosts: instance id, address or name
	HostNames     []string // what else the host is called: a rule that names it by one of these is about it
}

// Request is one thing that someone wants to do.
type Request struct {
	Principal   Principal
	Environment string // empty and unknown ones count as production
	Action      Action
	Resource    Resource

	// Exec and Run are what docker.exec, and docker.run and docker.create, were
	// asked for. For these actions nil is refused: what is not known is not allowed.
	Exec *Exec
	Run  *Run

	// Reason is why, in the person's words: limits may ask for one of who deploys or
	// rolls back.
	Reason string
}

// Exec is the part of an exec that the limits speak of.
type Exec struct {
	Argv       []string
	User       string   // --user; empty: the container's own
	Env        []string // names of --env
	WorkDir    string   // --workdir; empty: the container's own
	Privileged bool
	Detach     bool
}

// Run is the part of a run or create that the limits speak of.
type Run struct {
	User       string   // --user; empty: the image's own
	Network    string   // empty: default
	Volumes    []string // names of volumes that are mounted
	Binds      []string // paths of the host that are mounted; with :ro appended where read-only
	Privileged bool
	Publish    bool  // any port of the host
	Memory     int64 // bytes; zero: not said, the cap is taken
	CPUs       float64
	Pids       int64
	Digest     bool // the image is pinned by digest
}

// Environment is one environment of the policy file.
type Environment struct {
	Name       string
	Cluster    string // ECS cluster: a name, not an ARN
	Region     string // AWS region; empty: that of the instance
	Endpoint   string // URL that replaces AWS's endpoints (VPC endpoint, lab); empty: AWS's
	Account    string // AWS account id, 12 digits; empty: not checked
	Production bool
	Hosts      []string // patterns of its hosts; empty: those of the cluster
	Reach      Reach    // how its docker hosts are reached
	Limits     Limits   // defaults, then the file's limits, then the environment's
}

// Reach is how the docker hosts of an environment are reached from the machine
// that reads the policy.
type Reach int

// The ways. The zero value is this machine: it is the docker host.
const (
	ReachLocal Reach = iota
	ReachSSM         // through sessions of AWS Systems Manager
)

func (r Reach) String() string {
	if r == ReachSSM {
		return "ssm"
	}
	return "local"
}

// HasHost reports whether a host that goes by these names is one of the
// environment's, as far as Hosts says.
func (e *Environment) HasHost(names ...string) bool {
	if len(e.Hosts) == 0 {
		return true
	}
	for _, pattern := range e.Hosts {
		if slices.ContainsFunc(names, func(n string) bool { return match(pattern, n) }) {
			return true
		}
	}
	return false
}

// Recording says how much of a session is to be recorded.
type Recording int

// The recordings. More of it is a larger number.
const (
	RecordNothing Recording = iota
	RecordOutput
	RecordAll // what is typed, too
)

func (r Recording) String() string {
	switch r {
	case RecordOutput:
		return "output"
	case RecordAll:
		return "all"
	}
	return "nothing"
}

// Limits are the bounds of what rules allow in an environment. DefaultLimits
// are those of a file that says nothing.
type Limits struct {
	Exec    ExecLimits
	Run     RunLimits
	Start   StartLimits
	Session SessionLimits
	Reason  bool     // who deploys or rolls back must say why
	Redact  []string // patterns of names of environment variables; their values are not shown
}

// SessionLimits bound the streams in which a person is in a container: those of
// exec, and of what run and start attach to. Zero is no bound.
type SessionLimits struct {
	Idle time.Duration // without a byte in either direction
	For  time.Duration // altogether
}

// ExecLimits bound docker.exec.
type ExecLimits struct {
	Commands   [][]string // exact argument lists
	AnyCommand bool       // Commands does not count
	Users      []string   // values of --user besides the container's own
	Env        []string   // names that --env may set
	WorkDir    bool       // --workdir may be given
	Detach     bool       // --detach may be given
	Escapes    []string   // container types whose containers may be entered although they are privileged
}

// RunLimits bound docker.run and docker.create. Caps are set by the gate
// whether asked for or not.
type RunLimits struct {
	Memory     int64   // bytes
	CPUs       float64 // cores
	Pids       int64
	Containers int           // made by one caller on one host at a time
	For        time.Duration // then it is removed
	Networks   []string      // besides the default one
	Users      []string      // values of --user besides the image's own; "*" is any
	Volumes    []string      // patterns of names of volumes
	Binds      []string      // paths of the host, with :ro where only reading is allowed
	Publish    bool          // ports of the host may be published
	Digest     bool          // images must be pinned by digest
}

// StartLimits bound docker.start.
type StartLimits struct {
	For     time.Duration // then it is stopped
	Escapes []string      // container types whose containers may be started although they are privileged
}

// DefaultLimits are the limits of a file that has none.
func DefaultLimits() Limits {
	return Limits{
		Exec: ExecLimits{Commands: [][]string{{"bash"}, {"sh"}}},
		Run: RunLimits{
			Memory: 512 << 20, CPUs: 1, Pids: 256, Containers: 5, For: 8 * time.Hour,
			Networks: []string{"bridge", "none"},
		},
		Start:  StartLimits{For: 8 * time.Hour},
		Redact: []string{"*SECRET*", "*PASSW*", "*TOKEN*", "*KEY*", "*CREDENTIAL*", "*PRIVATE*", "*AUTH*", "*DSN*", "*CONNECTION_STRING*"},
	}
}

// Policy is a policy file that was understood to the last word. The zero value
// and nil deny everything.
type Policy struct {
	environments []Environment
	byName       map[string]*environment
	jumpServers  []jumpServers
	rules        []rule
	tests        []test

	rootCredentials bool
}

// RootCredentials reports whether the file says that AWS credentials are root's:
// a command that was called without sudo goes through sudo then.
func (p *Policy) RootCredentials() bool { return p != nil && p.rootCredentials }

// environment is an Environment with the rules that speak of it, by action.
type environment struct {
	Environment
	rules  [actionCount]ruleSet
	redact []glob
	run    struct{ volumes []glob }
}

// Environments are the policy's, in the order of the file.
func (p *Policy) Environments() []Environment {
	if p == nil {
		return nil
	}
	return p.environments
}

// Environment finds one by its name.
func (p *Policy) Environment(name string) (Environment, bool) {
	if p == nil {
		return Environment{}, false
	}
	e, ok := p.byName[name]
	if !ok {
		return Environment{}, false
	}
	return e.Environment, true
}

// Rules is how many rules there are.
func (p *Policy) Rules() int {
	if p == nil {
		return 0
	}
	return len(p.rules)
}

// DeniedGroups are the groups that rules with effect deny name. Where one of
// them is unknown to the system, such a rule matches nobody: who enforces the
// policy has to refuse everything then.
func (p *Policy) DeniedGroups() []string {
	return p.named(func(r *rule) []string {
		if r.effect == Deny {
			return r.groups
		}
		return nil
	})
}

// Principals are all users and groups that the rules name, each once.
func (p *Policy) Principals() (users, groups []string) {
	return p.named(func(r *rule) []string { return r.users }), p.named(func(r *rule) []string { return r.groups })
}

func (p *Policy) named(of func(*rule) []string) []string {
	if p == nil {
		return nil
	}
	var out []string
	seen := map[string]bool{}
	for i := range p.rules {
		for _, name := range of(&p.rules[i]) {
			if !seen[name] {
				seen[name] = true
				out = append(out, name)
			}
		}
	}
	return out
}
