// Package audit keeps the record of what people did: a log of events, one JSON
// line each and chained by hashes, and recordings of sessions.
//
// An event is one line. What takes time is an open and a close with one id;
// what is over at once is a decision; a step of something under way is a
// change. Each line holds its number in the chain, the hash of the line before
// it, and at its end its own SHA-256, over everything that precedes the hash:
//
//	{"v":1,"seq":7,"prev":"HASH OF 6","time":…,"id":…,"kind":…, … ,"hash":"HASH OF 7"}
//
// So a line that was altered, dropped, added or moved can be named. A tail that
// was cut off cannot, by the chain alone: a head (number and hash of the
// newest line) goes to journald often enough that it shows.
//
// The log is written before something is done: when Record fails, the caller
// does nothing. The package decides nothing about who may do what.
package audit

import (
	"fmt"
	"time"
)

// Version is the version of the line format.
const Version = 1

// Kind says what a line is.
type Kind string

// The kinds of a caller's lines, and of those that the log writes about itself.
const (
	Open     Kind = "open"     // something begins; a Close with the same id follows
	Close    Kind = "close"    // it ended, with a Result
	Decision Kind = "decision" // over at once: a read, or a refusal
	Change   Kind = "change"   // a step of something that is under way

	fileKind   Kind = "file"   // the first line of each file
	repairKind Kind = "repair" // what stands between the line before and this one is rubbish
	cutKind    Kind = "cut"    // lines that had been written are gone
	rateKind   Kind = "rate"   // a caller wrote too much and was refused
	spillKind  Kind = "spill"  // events that could go to the journal only
)

// Verdict is the answer of the policy. The zero value denies.
type Verdict bool

// The two verdicts.
const (
	Deny  Verdict = false
	Allow Verdict = true
)

func (v Verdict) String() string {
	if v {
		return "allow"
	}
	return "deny"
}

// Event is one line of the log. Seq, Prev and Hash are set by Record; Time, ID,
// Host and PID too where they are zero.
type Event struct {
	Seq  uint64 // number in the chain, from 1
	Prev string // hash of the line before, hex
	Hash string // hash of this line, hex

	Time time.Time
	ID   string // NewID's; the same in the Open and the Close
	Kind Kind
	Host string
	PID  int

	Principal   Principal
	Environment string
	Action      string // docker.exec, ecs.deploy
	Resource    Resource
	Verdict     Verdict  // of an Open or a Decision
	Rule        string   // the rule that decided
	Reason      string   // what the caller gave as a reason
	Argv        []string // what is to be run, or was typed
	Detail      string
	Far         string  // the id that the other gate gave to the same request
	Follows     bool    // it changes nothing that is not on record already: written, not synced
	Result      *Result // of a Close

	// Cut names the fields that were longer than the log takes and were cut.
	Cut []string

	repair *repair // of a repairKind or fileKind
}

// Principal is who called.
type Principal struct {
	UID    int
	Name   string // system:… for our own; no limit of rate applies to those
	Groups []string
	Key    string // the jump server's key id, when the caller is on another machine
}

// System reports whether p is a part of jumpsuite rather than a person.
func (p Principal) System() bool {
	return len(p.Name) > 7 && p.Name[:7] == "system:"
}

func (p Principal) zero() bool {
	return p.UID == 0 && p.Name == "" && p.Key == "" && len(p.Groups) == 0
}

// Resource is what it was done to. Empty fields are left out of the line.
type Resource struct {
	Container     string // full id
	Name          string
	ContainerType string
	Image         string
	Host          string
}

// Result is how something ended.
type Result struct {
	Exit      int
	Signal    string // without SIG, empty when none
	In, Out   int64  // bytes from and to the caller
	Duration  time.Duration
	Recording string // SHA-256 of the recording, hex, empty when none was made
	Error     string // why it ended, where that was not by itself
}

// repair says what rubbish precedes a line: its length without the newline that
// ended it, and its SHA-256.
type repair struct {
	Bytes int64  `json:"bytes"`
	Sum   string `json:"sha256"`
}

// reads are the actions that change nothing. Their lines are written but not
// synced; an action that is not listed is, but for what Follows.
var reads = map[string]bool{
	"docker.ps": true, "docker.images": true, "docker.logs": true, "docker.stats": true,
	"docker.inspect": true, "docker.version": true, "docker.events": true,
	"ecs.list": true, "ecs.show": true, "ecs.status": true, "ecs.deployments": true,
}

// Decides reports whether e has a verdict.
func (e *Event) Decides() bool { return e.Kind == Open || e.Kind == Decision }

// underWay reports whether e belongs to something that was begun, so that it
// may use the reserve.
func (e *Event) underWay() bool { return e.Kind == Close || e.Kind == Change }

// durable reports whether e must be on disk before the caller goes on.
func (e *Event) durable() bool {
	if e.Kind == Close || e.Decides() && e.Verdict == Deny {
		return false
	}
	return !e.Follows && !reads[e.Action]
}

// check refuses events that say too little to be of use.
func (e *Event) check() error {
	switch e.Kind {
	case Open, Close, Decision, Change:
	default:
		return fmt.Errorf("record event: kind %q is not one that a caller writes", e.Kind)
	}
	if e.Principal.Name == "" {
		return fmt.Errorf("record %s of %s: the event names no principal", e.Kind, e.Action)
	}
	if e.Action == "" {
		return fmt.Errorf("record %s: the event names no action", e.Kind)
	}
	if e.Kind == Close && e.Result == nil {
		return fmt.Errorf("record close of %s: the event has no result", e.Action)
	}
	if _, err := ParseID(e.ID); err != nil {
		return fmt.Errorf("record %s of %s: %w", e.Kind, e.Action, err)
	}
	return nil
}
