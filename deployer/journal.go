package deployer

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/ecsstatus"
)

// Journal is the note that a deployment leaves of what was before it and of how
// far it is. It is written before the first change, into tags of the ECS
// service, so that any jump server can pick the deployment up; and into a file.
//
// Task definitions are family:revision, deployments are ECS's ids, times are AWS's.
type Journal struct {
	// Attempt is random. The revision that the attempt registers has it as its
	// tag jumpsuite:deployment.
	Attempt string `json:"attempt"`
	State   State  `json:"state"`
	// Changed is when it was last written. A process that is at it writes once a minute.
	Changed time.Time `json:"changed"`
	// Holder is the process that is at it: random, anew for each one that picks it up.
	Holder string `json:"holder"`
	// Left is whether that process has ended, and left ECS going.
	Left bool `json:"left,omitempty"`

	ContainerType string    `json:"containerType"`
	By            string    `json:"by"`   // who, as the system names them
	Host          string    `json:"host"` // the jump server
	Began         time.Time `json:"began"`
	Reason        string    `json:"reason,omitempty"` // as given by --reason

	Image       string   `json:"image,omitempty"`     // wanted
	Container   string   `json:"container,omitempty"` // that gets it
	Digest      string   `json:"digest,omitempty"`
	Strategy    Strategy `json:"strategy"`
	MaxFailures int      `json:"maxFailures,omitempty"`
	// Seconds is the time-out, WaitDrained and OnInterrupt are a Request's: who picks it
	// up takes them over. Zero: not said.
	Seconds     int         `json:"timeoutSeconds,omitempty"`
	WaitDrained bool        `json:"waitDrained,omitempty"`
	OnInterrupt OnInterrupt `json:"onInterrupt,omitempty"`

	Before Before `json:"before"`
	// Percents is whether Before's percents are to be put back: the strategy
	// replacing has others while it is at it.
	Percents bool `json:"percents,omitempty"`
	// Back is the definition to go back to; empty: there is none.
	Back string `json:"rollbackTo,omitempty"`

	Definition string `json:"taskDefinition,omitempty"` // the new one; empty: not known yet
	Deployment string `json:"deployment,omitempty"`     // of it; empty: not known yet
	Return     string `json:"rollback,omitempty"`       // the deployment that rolls back
	Why        string `json:"why,omitempty"`            // it failed
}

// Before is what a service was before the first change.
type Before struct {
	Definition     string  `json:"taskDefinition"`
	Deployment     string  `json:"deployment,omitempty"`
	Desired        int     `json:"desired"`
	MinimumHealthy int     `json:"minimumHealthyPercent"`
	Maximum        int     `json:"maximumPercent"`
	Breaker        Breaker `json:"circuitBreaker"`
}

// State is how far a deployment is. The words are API: docs/deploying.md.
type State string

// The states of a Journal.
const (
	StateBegun       State = "begun"        // nothing was changed that its journal knows of
	StateUpdated     State = "updated"      // the service was updated to Definition
	StateRollingBack State = "rolling-back" // it failed, and is to go back to Back

	StateDeployed      State = "deployed"
	StateRolledBack    State = "rolled-back"
	StateNotRolledBack State = "not-rolled-back"
	StateSuperseded    State = "superseded" // someone else's deployment took over
	StateAbandoned     State = "abandoned"  // the service was never changed
)

// Ended reports whether there is nothing left to be done.
func (s State) Ended() bool {
	return s != StateBegun && s != StateUpdated && s != StateRollingBack
}

// The tags of a journal. All of them are written at once, so that a journal is
// always one attempt's.
const (
	tagAttempt   = deploymentTag
	tagState     = "jumpsuite:state"     // STATE TIME HOLDER [left]
	tagBy        = "jumpsuite:by"        // TIME HOST WHO
	tagReason    = "jumpsuite:reason"    // free text
	tagImage     = "jumpsuite:image"     // the wanted one
	tagContainer = "jumpsuite:container" // that gets it
	tagFrom      = "jumpsuite:from"      // definition before
	tagBefore    = "jumpsuite:before"    // KEY=VALUE …
	tagTo        = "jumpsuite:to"        // the new definition
	tagBack      = "jumpsuite:back"      // definition to go back to
	tagHow       = "jumpsuite:how"       // KEY=VALUE …
	tagWhy       = "jumpsuite:why"       // why it failed, free text
)

var journalTags = []string{tagAttempt, tagState, tagBy, tagReason, tagImage, tagContainer, tagFrom, tagBefore, tagTo, tagBack, tagHow, tagWhy}

// nothing is the value of a tag that has none: a value of an earlier attempt must not stay.
const nothing = "-"

// mostTagValue is how many characters the value of a tag can have.
const mostTagValue = 256

// tags are a journal as tags. What is only for people to read is cut to fit.
func (j Journal) tags() []types.Tag {
	value := map[string]string{
		tagAttempt: j.Attempt, tagState: strings.Join([]string{string(j.State), instant(j.Changed), word(j.Holder)}, " "), tagBy: strings.Join([]string{instant(j.Began), word(j.Host), word(j.By)}, " "),
		tagReason: j.Reason, tagImage: j.Image, tagContainer: j.Container, tagFrom: j.Before.Definition, tagTo: j.Definition, tagBack: j.Back, tagWhy: j.Why,
		tagBefore: j.Before.pairs(), tagHow: j.how(),
	}
	if j.Left {
		value[tagState] += " left"
	}
	var out []types.Tag
	for _, key := range journalTags {
		out = append(out, types.Tag{Key: aws.String(key), Value: aws.String(tagText(value[key]))})
	}
	return out
}

func (b Before) pairs() string {
	text := fmt.Sprintf("desired=%d min=%d max=%d", b.Desired, b.MinimumHealthy, b.Maximum)
	if b.Deployment != "" {
		text += " deployment=" + b.Deployment
	}
	if b.Breaker.Enabled {
		text += fmt.Sprintf(" breaker=%v:%s:%d", b.Breaker.Rollback, b.Breaker.Type, b.Breaker.Value)
	}
	return text
}

func (j Journal) how() string {
	parts := []string{"strategy=" + string(j.Strategy)}
	if j.MaxFailures > 0 {
		parts = append(parts, fmt.Sprintf("failures=%d", j.MaxFailures))
	}
	if j.Percents {
		parts = append(parts, "percents=restore")
	}
	for _, p := range [][2]string{{"digest", j.Digest}, {"deployment", j.Deployment}, {"rollback", j.Return}} {
		if p[1] != "" {
			parts = append(parts, p[0]+"="+p[1])
		}
	}
	return strings.Join(append(parts, j.wishes()...), " ")
}

// wishes are last in their tag: should it ever be cut, they can be missed.
func (j Journal) wishes() (parts []string) {
	if j.Seconds > 0 {
		parts = append(parts, fmt.Sprintf("timeout=%d", j.Seconds))
	}
	if j.WaitDrained {
		parts = append(parts, "drained=1")
	}
	if j.OnInterrupt == RollBack {
		parts = append(parts, "stop=back")
	}
	return parts
}

// tagText is text as a tag can have it: letters, digits, spaces and + - = . _ : / @
// (Amazon ECS Developer Guide, "Tagging your resources"); anything else is a dot.
func tagText(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsLetter(r), unicode.IsNumber(r), strings.ContainsRune("+-=._:/@", r):
			return r
		case unicode.IsSpace(r):
			return ' '
		}
		return '.'
	}, strings.ToValidUTF8(s, "."))
	if r := []rune(s); len(r) > mostTagValue {
		s = string(r[:mostTagValue])
	}
	if s = strings.TrimSpace(s); s == "" {
		return nothing
	}
	if len(s) >= len(reservedPrefix) && strings.EqualFold(s[:len(reservedPrefix)], reservedPrefix) {
		return s[:len(reservedPrefix)-1] + "." + s[len(reservedPrefix):]
	}
	return s
}

// reservedPrefix is what no value may begin with, in capitals or not (ibid., "Tag restrictions").
const reservedPrefix = "aws:"

// word is text without spaces, short enough for three of them in a tag.
func word(s string) string {
	const most = 80
	r := []rune(strings.Join(strings.Fields(s), "_"))
	if len(r) == 0 {
		return nothing
	}
	return string(r[:min(len(r), most)])
}

func instant(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// JournalOf reads the journal in a service's tags; false if there is none. A tag
// that someone has spoilt is as if it were not there. So is a definition to go
// back to of another family than the service's: who may only tag a service must
// not bring one to it that has other rights.
func JournalOf(s *ecsstatus.Service) (Journal, bool) {
	value := map[string]string{}
	for _, t := range s.AWS.Tags {
		if v := aws.ToString(t.Value); v != nothing {
			value[aws.ToString(t.Key)] = v
		}
	}
	j := Journal{ContainerType: s.Name, Attempt: value[tagAttempt],
		Reason: value[tagReason], Image: value[tagImage], Container: value[tagContainer],
		Definition: value[tagTo], Back: value[tagBack], Why: value[tagWhy]}
	j.state(value[tagState])
	j.by(value[tagBy])
	j.setBefore(value[tagFrom], pairs(value[tagBefore]))
	j.setHow(pairs(value[tagHow]))
	if family(j.Back) != family(ecsstatus.ShortName(s.TaskDefinition)) {
		j.Back = ""
	}
	return j, j.Attempt != "" && j.State != ""
}

func (j *Journal) state(text string) {
	words := strings.Fields(text)
	if len(words) < 3 {
		return
	}
	j.State, j.Holder = State(words[0]), words[2]
	j.Changed, _ = time.Parse(time.RFC3339, words[1])
	j.Left = len(words) > 3 && words[3] == "left"
}

func (j *Journal) by(text string) {
	words := strings.SplitN(text, " ", 3)
	if len(words) < 3 {
		return
	}
	j.Began, _ = time.Parse(time.RFC3339, words[0])
	j.Host, j.By = words[1], words[2]
}

func (j *Journal) setBefore(definition string, p map[string]string) {
	j.Before = Before{Definition: definition, Deployment: p["deployment"],
		Desired: whole(p["desired"]), MinimumHealthy: whole(p["min"]), Maximum: whole(p["max"])}
	if b := strings.Split(p["breaker"], ":"); len(b) == 3 {
		j.Before.Breaker = Breaker{Enabled: true, Rollback: b[0] == "true", Type: b[1], Value: whole(b[2])}
	}
}

func (j *Journal) setHow(p map[string]string) {
	j.Strategy, j.MaxFailures = Strategy(p["strategy"]), whole(p["failures"])
	j.Percents = p["percents"] == "restore" && j.Before.Maximum > 0
	j.Digest, j.Deployment, j.Return = p["digest"], p["deployment"], p["rollback"]
	j.Seconds, j.WaitDrained = min(max(whole(p["timeout"]), 0), math.MaxInt32), p["drained"] == "1"
	if p["stop"] == "back" {
		j.OnInterrupt = RollBack
	}
}

// family is that of a task definition, family:revision.
func family(definition string) string {
	name, _, _ := strings.Cut(definition, ":")
	return name
}

// pairs are the KEY=VALUE of a tag.
func pairs(text string) map[string]string {
	out := map[string]string{}
	for _, f := range strings.Fields(text) {
		key, value, _ := strings.Cut(f, "=")
		out[key] = value
	}
	return out
}

func whole(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

// tagRoom finds what keeps a service from having a journal: an ARN of the old
// format, which takes no tags, too many tags of its owner's, names that are too long.
func tagRoom(s *ecsstatus.Service, j Journal) error {
	if strings.Count(s.ARN, "/") < 2 {
		return refusal("switch on the long ARN format of the account (serviceLongArnFormat) and create the service anew",
			"container type %s has an ARN of the old format (%s), which takes no tags, and the journal of a deployment is kept in tags", s.Name, s.ARN)
	}
	have := 0
	for _, t := range s.AWS.Tags {
		if k := aws.ToString(t.Key); !strings.HasPrefix(strings.ToLower(k), "aws:") && !isJournalTag(k) {
			have++
		}
	}
	if have+len(journalTags) > mostTags {
		return refusal(fmt.Sprintf("remove %s", countOf(have+len(journalTags)-mostTags, "tag", "tags")),
			"container type %s has %d tags: with the %d of a deployment's journal these would be more than the %d that AWS allows", s.Name, have, len(journalTags), mostTags)
	}
	for _, name := range []string{j.Before.Definition, j.Back} {
		if len(name) > mostTagValue-1 { // the next revision may have a digit more
			return refusal("give the task definition a shorter family", "the name %s is too long for a tag: the journal of a deployment is kept in tags", name)
		}
	}
	return nil
}

func isJournalTag(key string) bool {
	for _, k := range journalTags {
		if k == key {
			return true
		}
	}
	return false
}
