package deployer

import (
	"maps"
	"slices"
	"time"

	"jumpsuite/ecsstatus"
)

// Kind is what an Event tells. The words are API: docs/deploying.md lists them.
type Kind string

// The kinds of events.
const (
	Planned       Kind = "plan"            // Plan is what will be done
	Registered    Kind = "registered"      // TaskDefinition is the new revision
	Updated       Kind = "updated"         // Deployment has begun
	Progressed    Kind = "progress"        // Progress is how far it is
	ServiceSaid   Kind = "service-event"   // Message is ECS's, of the service
	TaskStopped   Kind = "task-stopped"    // Task is a task of the deployment that stopped
	TaskLog       Kind = "task-log"        // Log is the end of a failed container's log
	AWSLost       Kind = "aws-lost"        // AWS does not answer; the following goes on
	AWSBack       Kind = "aws-back"        // AWS answers again
	Done          Kind = "deployed"        // every new task is running and healthy
	NothingToDo   Kind = "nothing-to-do"   // the image runs already
	Broke         Kind = "failed"          // Message says why
	RollingBack   Kind = "rolling-back"    // to TaskDefinition, by Deployment
	Asked         Kind = "roll-back-asked" // ECS was asked to roll back, and did not
	RolledBack    Kind = "rolled-back"     // every task of the former definition is running and healthy
	NotRolledBack Kind = "not-rolled-back" // Message says why
	Overtaken     Kind = "superseded"      // someone else's deployment took over
	Restored      Kind = "restored"        // minimumHealthyPercent and maximumPercent are as they were
	Interrupted   Kind = "interrupted"     // the following ended, AWS goes on
	Unseen        Kind = "unseen"          // nobody watches any more; a failing deployment is followed all the same
	PickedUp      Kind = "picked-up"       // what is under way, from another process
	NotBegun      Kind = "not-begun"       // what was picked up had never changed the service
)

// Event is something that happened. Its JSON is API: docs/deploying.md.
type Event struct {
	Time           time.Time       `json:"time"` // AWS's clock
	Kind           Kind            `json:"event"`
	ContainerType  string          `json:"containerType"`
	Deployment     string          `json:"deployment,omitempty"`
	TaskDefinition string          `json:"taskDefinition,omitempty"`
	Message        string          `json:"message"`
	Plan           *Plan           `json:"plan,omitempty"`
	Progress       *Progress       `json:"progress,omitempty"`
	Task           *ecsstatus.Task `json:"task,omitempty"`
	// Targets are what the load balancers last said of Task, if it was unwell.
	Targets []ecsstatus.Target `json:"targets,omitempty"`
	Log     *Tail              `json:"log,omitempty"`
	// UsualSeconds is, with Updated, how long the last deployments took that succeeded: the
	// median, until ECS had completed them; zero: not known.
	UsualSeconds int `json:"usualSeconds,omitempty"`
	// Changed is whether Progress differs from the one before.
	Changed bool `json:"-"`
}

// Progress is how far a deployment is.
type Progress struct {
	Desired  int    `json:"desired"`
	Started  int    `json:"started"` // new tasks that have not stopped
	Running  int    `json:"running"`
	Healthy  int    `json:"healthy"` // running, healthy, and healthy in every load balancer
	Failed   int    `json:"failed"`  // new tasks that stopped by themselves
	Old      int    `json:"old"`     // tasks of earlier deployments that run
	Draining int    `json:"draining"`
	Rollout  string `json:"rolloutState,omitempty"`
	// Stage is ECS's lifecycle stage, and Traffic the percent of the production
	// traffic on the new tasks, of a deployment that shifts it.
	Stage   string   `json:"lifecycleStage,omitempty"`
	Traffic *float64 `json:"traffic,omitempty"`
	// Hosts are those that have tasks of the service, and how many.
	Hosts []HostTasks `json:"hosts,omitempty"`
	// Missing is what is still to come, in words.
	Missing []string `json:"missing,omitempty"`
}

// HostTasks is how many living tasks of a service a host has.
type HostTasks struct {
	Host string `json:"host"` // what people call it
	New  int    `json:"new"`
	Old  int    `json:"old"`
}

// Usual is UsualSeconds.
func (e Event) Usual() time.Duration { return time.Duration(e.UsualSeconds) * time.Second }

// hostTasks counts the living tasks on each host that is known, in the order of
// their names.
func hostTasks(o Observation) []HostTasks {
	at := map[string]*HostTasks{}
	count := func(tasks []ecsstatus.Task, add func(*HostTasks)) {
		for _, t := range living(tasks) {
			name := o.Hosts[t.Instance]
			if name == "" {
				continue
			}
			if at[name] == nil {
				at[name] = &HostTasks{Host: name}
			}
			add(at[name])
		}
	}
	count(o.Tasks, func(h *HostTasks) { h.New++ })
	count(o.Old, func(h *HostTasks) { h.Old++ })
	var out []HostTasks
	for _, name := range slices.Sorted(maps.Keys(at)) {
		out = append(out, *at[name])
	}
	return out
}

// tell tells an event, at AWS's time.
func (d *Deployer) tell(e Event) {
	if d.Tell == nil {
		return
	}
	if e.Time.IsZero() {
		e.Time = d.clock.Now()
	}
	e.Time = e.Time.UTC().Truncate(time.Millisecond)
	e.ContainerType = d.name
	d.Tell(e)
}

// progress sums an observation up.
func progress(g Goal, o Observation, v Verdict) Progress {
	p := Progress{Missing: v.Missing, Failed: len(failing(o.Tasks))}
	p.Old, p.Draining = oldTasks(o)
	if r := o.Rollout; r != nil {
		p.Stage, p.Traffic = string(r.LifecycleStage), traffic(*r)
	}
	for _, t := range o.Tasks {
		if t.LastStatus == "STOPPED" || t.DesiredStatus == "STOPPED" {
			continue
		}
		p.Started++
		if t.LastStatus == "RUNNING" {
			p.Running++
		}
		if lacking(g, o, t) == "" {
			p.Healthy++
		}
	}
	p.Hosts = hostTasks(o)
	if o.Service != nil {
		p.Desired = desired(o.Service)
		if own := o.Service.Deployment(g.ID); own != nil {
			p.Rollout = own.RolloutState
		}
	}
	return p
}
