package policy

import "slices"

// Action is what is done to a resource, in the words that people type. The zero
// value is no action, and never allowed.
type Action uint8

// The actions.
const (
	noAction Action = iota
	DockerPs
	DockerImages
	DockerLogs
	DockerExec
	DockerStats
	DockerInspect
	DockerRun
	DockerPull
	DockerStart
	DockerCreate
	DockerStop
	DockerRm
	DockerVersion
	ECSList
	ECSShow
	ECSStatus
	ECSDeploy
	ECSRollback
	ECSWait
	ECSDeployments
	ECSDebug
	actionCount
)

// field is one of a Resource's, as a set.
type field uint8

const (
	containerType field = 1 << iota
	image
	host
)

type actionFacts struct {
	word  string
	has   field // what of the resource is known for it
	floor bool  // never in production
}

var actions = [actionCount]actionFacts{
	DockerPs:       {"docker.ps", host, false},
	DockerImages:   {"docker.images", host, false},
	DockerLogs:     {"docker.logs", host | containerType | image, false},
	DockerExec:     {"docker.exec", host | containerType | image, false},
	DockerStats:    {"docker.stats", host | containerType | image, false},
	DockerInspect:  {"docker.inspect", host | containerType | image, false},
	DockerRun:      {"docker.run", host | image, true},
	DockerPull:     {"docker.pull", host | image, true},
	DockerStart:    {"docker.start", host | containerType | image, true},
	DockerCreate:   {"docker.create", host | image, true},
	DockerStop:     {"docker.stop", host | containerType | image, true},
	DockerRm:       {"docker.rm", host | containerType | image, true},
	DockerVersion:  {"docker.version", host, false},
	ECSList:        {"ecs.list", 0, false},
	ECSShow:        {"ecs.show", containerType, false},
	ECSStatus:      {"ecs.status", containerType, false},
	ECSDeploy:      {"ecs.deploy", containerType | image, false},
	ECSRollback:    {"ecs.rollback", containerType, false},
	ECSWait:        {"ecs.wait", containerType, false},
	ECSDeployments: {"ecs.deployments", containerType, false},
	ECSDebug:       {"ecs.debug", containerType, false},
}

// needsImages are the actions that bring an image in: a rule that allows them
// has to say which.
var needsImages = []Action{DockerRun, DockerPull, DockerCreate}

// ParseAction finds the action for a word.
func ParseAction(word string) (Action, bool) {
	for a := DockerPs; a < actionCount; a++ {
		if actions[a].word == word {
			return a, true
		}
	}
	return noAction, false
}

// Actions are the words of all actions.
func Actions() []string {
	var words []string
	for a := DockerPs; a < actionCount; a++ {
		words = append(words, actions[a].word)
	}
	return words
}

func (a Action) String() string {
	if a == noAction || a >= actionCount {
		return "no action"
	}
	return actions[a].word
}

// Floored reports whether the action is refused in production whatever a policy
// file says.
func (a Action) Floored() bool { return a >= actionCount || actions[a].floor }

// Has reports whether rules can tell requests for a apart by the container
// type, the image, the host they are about.
func (a Action) Has() (byContainerType, byImage, byHost bool) {
	if a >= actionCount {
		return false, false, false
	}
	has := actions[a].has
	return has&containerType != 0, has&image != 0, has&host != 0
}

// set is a set of actions.
type set uint32

func (s set) has(a Action) bool { return s&(1<<a) != 0 }

func setOf(list ...Action) set {
	var s set
	for _, a := range list {
		s |= 1 << a
	}
	return s
}

func (s set) actions() []Action {
	var list []Action
	for a := DockerPs; a < actionCount; a++ {
		if s.has(a) {
			list = append(list, a)
		}
	}
	return list
}

func (s set) bringsImages() bool { return slices.ContainsFunc(needsImages, s.has) }
