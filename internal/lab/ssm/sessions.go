package ssm

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	api "github.com/aws/aws-sdk-go-v2/service/ssm"

	"jumpsuite/internal/lab/wire"
)

// StartSession starts a session on a host that is online, with a document that
// the world has and the parameters that it takes, and lets the host's agent know.
func (s *SSM) StartSession(_ context.Context, in *api.StartSessionInput) (*api.StartSessionOutput, error) {
	name := aws.ToString(in.DocumentName)
	if name == "" {
		name = "SSM-SessionManagerRunShell"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.document(name)
	if err != nil {
		return nil, err
	}
	properties, err := d.properties(in.Parameters)
	if err != nil {
		return nil, err
	}
	h := s.host(aws.ToString(in.Target))
	if h == nil || !s.online(h) {
		return nil, wire.Errorf("TargetNotConnected", "%s is not connected.", aws.ToString(in.Target))
	}
	one := s.open(h, d, properties, in)
	url := strings.Replace(s.Service(), "http", "ws", 1) + "/v1/data-channel/" + one.id + "?role=publish_subscribe&" + clientMark + "=" + cellNumber
	token := one.token(client)
	return &api.StartSessionOutput{SessionId: &one.id, StreamUrl: &url, TokenValue: &token}, nil
}

// clientMark is a parameter of the address that only clients are given: one
// that does not use it as it is will be taken for an agent.
const (
	clientMark = "cell-number"
	cellNumber = "AAEAAQ"
)

// open makes a session and starts the agent's end of it; s.mu is held.
func (s *SSM) open(h *host, d *document, properties []byte, in *api.StartSessionInput) *session {
	one := s.newSession(fmt.Sprintf("lab-0%016x", s.chance.Uint64()), h.Instance)
	one.document, one.properties, one.parameters = d, properties, in.Parameters
	one.owner = "arn:aws:iam::" + s.World.Account + ":user/lab"
	s.sessions[one.id] = one
	s.work.Go(one.toClient.run)
	s.work.Go(one.toAgent.run)
	if real := s.agents[h.Instance]; real != nil {
		told := h.onThisMachine(properties)
		s.work.Go(func() { real.start(one, told) })
		return one
	}
	address := h.address(properties)
	s.work.Go(func() { s.play(one, address) })
	return one
}

// ResumeSession gives the client of a session a new token; an empty one when
// the session is over.
func (s *SSM) ResumeSession(_ context.Context, in *api.ResumeSessionInput) (*api.ResumeSessionOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one, err := s.session(*in.SessionId)
	if err != nil {
		return nil, err
	}
	out := &api.ResumeSessionOutput{SessionId: &one.id, TokenValue: aws.String("")}
	if !one.isOver() {
		out.TokenValue = aws.String(one.token(client))
	}
	return out, nil
}

// TerminateSession ends a session; to end it again is no error.
func (s *SSM) TerminateSession(_ context.Context, in *api.TerminateSessionInput) (*api.TerminateSessionOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one, err := s.session(*in.SessionId)
	if err != nil {
		return nil, err
	}
	one.finish("")
	return &api.TerminateSessionOutput{SessionId: &one.id}, nil
}

func (s *SSM) session(id string) (*session, error) {
	if one := s.sessions[id]; one != nil {
		return one, nil
	}
	return nil, wire.Errorf("DoesNotExistException", "Session %s does not exist", id)
}

// host is the host with an instance id; s.mu is held.
func (s *SSM) host(instance string) *host {
	i := slices.IndexFunc(s.hosts, func(h *host) bool { return h.Instance == instance })
	if i < 0 {
		return nil
	}
	return s.hosts[i]
}

// each are the hosts with an address, instance id or cluster; s.mu is held.
func (s *SSM) each(name string) []*host {
	return slices.DeleteFunc(slices.Clone(s.hosts), func(h *host) bool { return name != h.IP && name != h.Instance && name != h.cluster })
}

// Forward makes a local port of the hosts with that address, instance id or
// cluster lead to an address, such as 127.0.0.1:4711; empty is nowhere. Sessions that
// are open stay as they are.
func (s *SSM) Forward(name string, port int, address string) error {
	if _, _, err := net.SplitHostPort(address); address != "" && err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	hosts := s.each(name)
	if len(hosts) == 0 {
		return fmt.Errorf("there is no host %q", name)
	}
	for _, h := range hosts {
		h.ports[port] = address
	}
	return nil
}

// Cut cuts the websockets of a host's sessions: those of client, agent or both; or the
// control channel of a real agent.
func (s *SSM) Cut(name, side string) error {
	switch side {
	case "client", "agent", "both":
	case "control":
		return s.cutControl(name)
	default:
		return fmt.Errorf("%q is none of client, agent, both, control", side)
	}
	return s.eachSession(name, func(one *session) {
		if side != "agent" {
			one.toClient.cut()
		}
		if side != "client" {
			one.toAgent.cut()
		}
	})
}

func (s *SSM) cutControl(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	hosts := s.each(name)
	if len(hosts) == 0 {
		return fmt.Errorf("there is no host %q", name)
	}
	for _, h := range hosts {
		if c := s.agents[h.Instance]; c != nil {
			go c.conn.CloseNow()
		}
	}
	return nil
}

// End ends a host's sessions, as the service would, with a text.
func (s *SSM) End(name, text string) error {
	return s.eachSession(name, func(one *session) { one.finish(text) })
}

// Open is how many sessions to a host are open.
func (s *SSM) Open(name string) int {
	n := 0
	s.eachSession(name, func(*session) { n++ })
	return n
}

func (s *SSM) eachSession(name string, do func(*session)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	hosts := s.each(name)
	if len(hosts) == 0 {
		return fmt.Errorf("there is no host %q", name)
	}
	for _, one := range s.sessions {
		if !one.isOver() && slices.ContainsFunc(hosts, func(h *host) bool { return h.Instance == one.instance }) {
			do(one)
		}
	}
	return nil
}

// cutOff takes the agents' websockets from a host that is lost: its sessions
// hang, since nobody is left who could say that they are over. s.mu is held.
func (s *SSM) cutOff(h *host) {
	if c := s.agents[h.Instance]; c != nil && !h.lost.IsZero() {
		go c.conn.CloseNow()
	}
	for _, one := range s.sessions {
		if !h.lost.IsZero() && one.instance == h.Instance && !one.isOver() {
			one.toAgent.cut()
		}
	}
}

// online reports whether the service can tell a host's agent of a session: the lab's own
// always hears it, a real one on its control channel. s.mu is held.
func (s *SSM) online(h *host) bool {
	return h.lost.IsZero() && (!h.real || s.agents[h.Instance] != nil)
}

// reachable reports whether a host's agent can talk to the service.
func (s *SSM) reachable(instance string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.host(instance)
	return h != nil && h.lost.IsZero()
}

// forget drops sessions that have been over for a while; s.mu is held.
func (s *SSM) forget(one *session) {
	s.clock.AfterFunc(keepOver, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.sessions, one.id)
	})
}

// keepOver is how long a session that is over is known, in lab time.
const keepOver = 24 * time.Hour
