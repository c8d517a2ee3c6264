package session

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"jumpsuite/internal/session/frame"
)

// deliver takes a message whose turn it is. Payloads of other session types
// are nothing to us.
func (s *Session) deliver(f frame.Frame) {
	switch f.Kind {
	case frame.Data:
		if !s.shaken() {
			s.over(s.config.refused("it begins without a handshake, as one with a terminal does"))
			return
		}
		s.in.began = true
		s.in.inbox.Write(f.Payload)
		s.readable.Signal()
	case frame.HandshakeRequest:
		s.handshake(f.Payload)
	case frame.HandshakeComplete:
		s.completed()
	case frame.Flag:
		if len(f.Payload) == 4 && binary.BigEndian.Uint32(f.Payload) == frame.PortError {
			s.over(s.config.notListening(""))
		}
	}
}

// shaken reports whether the handshake is complete.
func (s *Session) shaken() bool {
	select {
	case <-s.ready:
		return true
	default:
		return false
	}
}

func (s *Session) completed() {
	if !s.shaken() {
		close(s.ready)
	}
}

// handshake answers what the agent asks for, or ends the session.
func (s *Session) handshake(payload []byte) {
	var asked frame.HandshakeRequested
	if err := json.Unmarshal(payload, &asked); err != nil {
		s.over(s.config.refused(fmt.Sprintf("its handshake cannot be read: %v", err)))
		return
	}
	s.agent = asked.AgentVersion
	answer := frame.Handshaken{ClientVersion: clientVersion, Errors: []string{}}
	for _, a := range asked.Actions {
		if err := s.check(a); err != nil {
			s.over(err)
			return
		}
		answer.Actions = append(answer.Actions, frame.ProcessedAction{Type: a.Type, Status: frame.ActionDone})
	}
	s.out.push(frame.HandshakeResponse, frame.Encode(answer))
}

// check refuses what an action of the agent's would make of the stream: a
// terminal, several streams in one, encryption with a key of the account's
// (which the agent does not have for type Port).
func (s *Session) check(a frame.RequestedAction) error {
	if a.Type != "SessionType" {
		return s.config.refused(a.Type + " is asked for, which is not for this type of session")
	}
	var kind frame.SessionType
	var properties struct {
		Type string `json:"type"`
		Host string `json:"host"`
	}
	if err := json.Unmarshal(a.Parameters, &kind); err != nil {
		return s.config.refused(fmt.Sprintf("its session type cannot be read: %v", err))
	}
	if kind.Name != "Port" {
		return s.config.refused("it is of type " + kind.Name + ", not Port")
	}
	if err := json.Unmarshal(kind.Properties, &properties); err != nil {
		return s.config.refused(fmt.Sprintf("its properties cannot be read: %v", err))
	}
	if properties.Type != "" || properties.Host != "" {
		return s.config.refused(fmt.Sprintf("its type is %q and its host %q, and both have to be empty", properties.Type, properties.Host))
	}
	return nil
}

// acknowledged takes an ack; its own sequence number means nothing.
func (s *Session) acknowledged(f frame.Frame) {
	var a frame.Acknowledged
	if err := json.Unmarshal(f.Payload, &a); err != nil || a.Type != frame.Input {
		s.log.Warn("an ack that is none", "error", err, "type", a.Type)
		return
	}
	if s.out.acknowledge(a.Sequence, time.Now()) {
		s.writable.Broadcast()
	}
	s.look() // the front may be another, and overdue
}

// closedByService takes the service's word that the session is over.
func (s *Session) closedByService(f frame.Frame) {
	var closed frame.ChannelClosed
	if err := json.Unmarshal(f.Payload, &closed); err != nil {
		s.log.Warn("an end without a reason", "error", err)
	}
	switch output := strings.TrimSpace(closed.Output); {
	case strings.Contains(output, portText), strings.Contains(output, crashText) && !s.in.began:
		s.over(s.config.notListening(output))
	case output != "":
		s.over(s.config.ended(output))
	case len(s.in.early) > 0:
		s.over(io.ErrUnexpectedEOF)
	default:
		s.over(io.EOF)
	}
}

// awayLimit is how long the agent may be away before the port has said anything. One whose
// websocket was lost is back after its first attempt or two, which take no half second.
const awayLimit = 2 * time.Second

// away takes the service's word that the agent's websocket is gone. Before the port has
// spoken it most likely is the worker that is gone, since nothing listens: the agents of 3.3 crash
// over that, and say so a minute later. Later than that the agent is waited for.
func (s *Session) away() {
	if s.in.began || s.gone != nil {
		return
	}
	s.gone = time.AfterFunc(awayLimit, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.gone != nil && !s.in.began && s.shaken() {
			s.over(s.config.notListening("the agent's end of the session has gone"))
		}
	})
}

// back takes a sign that the agent is there.
func (s *Session) back() {
	if s.gone != nil {
		s.gone.Stop()
		s.gone = nil
	}
}
