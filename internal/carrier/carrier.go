// Package carrier is how sudo docker gets a stream to a docker host: r3-docker,
// which has the tunnel's keys and no AWS credentials, asks r3-ssm, which has the
// credentials and no keys, over a unix socket. Both ends are here; what talks to
// AWS is not, and nothing here decides who may reach what.
//
//   - A place is an ECS cluster: its name, its region, where AWS answers.
//   - A host is a docker host of it, known by its EC2 instance id. Its address and
//     its name are for people; a stream is asked for by the id.
//   - A stream is bytes in both directions, of which each can be ended on its own.
//     r3-ssm does not understand them: TLS is inside.
//
// One connection is one request and one answer, a line of JSON each:
//
//	{"op":"hosts","cluster":"prod","region":"eu-central-1"}      {"hosts":[…]}
//	{"op":"where","cluster":"prod",…,"ref":"4f1c9d2e8a77"}       {"found":[…]}
//	{"op":"learn","cluster":"prod",…,"ref":ID,"host":"i-0abc…"}  {}
//	{"op":"dial","cluster":"prod",…,"host":"i-0abc…"}            {}
//	{"op":"why","cluster":"prod",…,"ref":STREAM}                 {}, or why it was lost
//
// After the answer to a dial the connection is the stream. It has a name, which is
// that of the client's end of the connection: STREAM, while r3-ssm still knows why a
// stream was lost that ended before its time. An answer that is none
// is {"error":{"kind":…,"text":…,"hint":…}}. Only root may ask: the kernel says
// who does.
package carrier

import (
	"slices"
	"strings"

	"jumpsuite/internal/cli"
)

// Socket is where r3-ssm listens.
const Socket = "/run/jumpsuite/ssm.sock"

// Place is an ECS cluster and how AWS is reached for it.
type Place struct {
	Cluster  string `json:"cluster"`
	Region   string `json:"region,omitempty"`   // empty: that of the machine r3-ssm runs on
	Endpoint string `json:"endpoint,omitempty"` // URL that takes the place of AWS's; empty: AWS's
}

// Host is a docker host.
type Host struct {
	ID      string `json:"id"`                // EC2 instance id, i-…
	Address string `json:"address,omitempty"` // private IPv4; empty: not known
	Name    string `json:"name,omitempty"`    // its own idea of its name; empty: not known
	State   string `json:"state,omitempty"`   // ECS's: ACTIVE, DRAINING, …
	Online  bool   `json:"online"`            // SSM hears its agent
	Agent   string `json:"agent,omitempty"`   // version of the SSM agent
}

// Label is what people call a host: its address, or its id where that is not known.
func (h *Host) Label() string {
	if h.Address != "" {
		return h.Address
	}
	return h.ID
}

// Is reports whether a person can mean the host by name: its id, its address,
// its name with or without the domain. An instance id is meant as one, whatever a
// host calls itself.
func (h *Host) Is(name string) bool {
	if IsInstance(name) {
		return name == h.ID
	}
	short, _, _ := strings.Cut(h.Name, ".")
	return name != "" && (name == h.ID || name == h.Address || strings.EqualFold(name, h.Name) || strings.EqualFold(name, short))
}

// Found is where a container is.
type Found struct {
	Host      string `json:"host"`           // instance id
	Container string `json:"container"`      // full id
	Name      string `json:"name,omitempty"` // in its task definition
	Task      string `json:"task,omitempty"` // id of its ECS task; empty: ECS does not know it
}

// Kind is why something could not be had.
type Kind string

// The kinds of Error.
const (
	NoSuchHost Kind = "no-host"     // not in the cluster, or not in SSM's inventory
	Offline    Kind = "offline"     // SSM does not hear the host's agent
	NoDocument Kind = "no-document" // the session document is not there
	NotAllowed Kind = "not-allowed" // IAM says no
	NoGate     Kind = "no-gate"     // nothing listens on the host where the gate should
	NoAWS      Kind = "no-aws"      // out of reach, throttled, no credentials
	NotRunning Kind = "not-running" // there is no r3-ssm
	Refused    Kind = "refused"     // r3-ssm does not do it: who asks, or what is asked
	Failed     Kind = "failed"      // anything else
)

var kinds = []Kind{NoSuchHost, Offline, NoDocument, NotAllowed, NoGate, NoAWS, NotRunning, Refused, Failed}

// Error is an answer that is none. It is an error of the command line (see
// ExitCode), and a sentence for people.
type Error struct {
	Kind Kind   `json:"kind"`
	Text string `json:"text"`
	Next string `json:"hint,omitempty"` // what to do about it
}

func (e *Error) Error() string { return e.Text }

// Hint is what to do about it.
func (e *Error) Hint() string { return e.Next }

// ExitCode is what a command of ours ends with.
func (e *Error) ExitCode() int {
	switch e.Kind {
	case NoSuchHost:
		return cli.ExitNotFound
	case Refused:
		return cli.ExitNotAllowed
	case NoDocument:
		return cli.ExitConfig
	case Offline, NoGate, NoAWS, NotAllowed, NotRunning:
		return cli.ExitUnavailable
	}
	return cli.ExitSoftware
}

// valid reports whether the error can be shown as it is.
func (e *Error) valid() bool {
	return slices.Contains(kinds, e.Kind) && e.Text != "" && len(e.Text) <= maxText && len(e.Next) <= maxText
}
