package ssm

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"

	"jumpsuite/internal/intact"
	"jumpsuite/internal/session/frame"
)

// A real amazon-ssm-agent can take the place of the lab's on a host: it opens a
// control channel, is told there of each session, and says there how it ended.

// control is the control channel of a real agent.
type control struct {
	instance string
	mu       sync.Mutex // one writer at a time
	conn     *websocket.Conn
}

// sessionTopic is the topic of the messages about sessions.
const sessionTopic = "aws.ssm.session"

func (s *SSM) serveControlToken(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<16))
	if err != nil {
		return
	}
	if err := s.Verify(r, body, signedFor); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	answerToken(w, "CreateControlChannelResponse", r.PathValue("instance"))
}

// serveControl serves an agent's control channel: while it is open, the host is online.
func (s *SSM) serveControl(w http.ResponseWriter, r *http.Request) {
	if err := s.Verify(r, nil, signedFor); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	conn, err := intact.Accept(w, r)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	conn.SetReadLimit(1 << 20)
	c := &control{instance: r.PathValue("instance"), conn: conn}
	s.mu.Lock()
	s.agents[c.instance] = c
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.agents[c.instance] == c {
			delete(s.agents, c.instance)
		}
	}()
	for {
		_, b, err := conn.Read(s.ctx)
		if err != nil {
			return
		}
		s.fromAgent(b)
	}
}

// fromAgent takes what an agent says on its control channel: the end of a session.
func (s *SSM) fromAgent(b []byte) {
	f, err := frame.Parse(b)
	if err != nil || f.Type != "agent_task_complete" {
		return
	}
	var complete struct {
		Session string `json:"TaskId"`
		Output  string `json:"Output"`
	}
	if json.Unmarshal(f.Payload, &complete) != nil {
		return
	}
	s.mu.Lock()
	one := s.sessions[complete.Session]
	s.mu.Unlock()
	if one != nil {
		one.finish(complete.Output)
	}
}

// start tells an agent to take a session.
func (c *control) start(one *session) {
	content, err := json.Marshal(map[string]any{
		"DocumentName": one.document.name, "SessionId": one.id, "SessionOwner": one.owner, "RunAsUser": "", "Parameters": map[string]any{},
		"DocumentContent": map[string]any{"schemaVersion": "1.0", "description": "", "sessionType": one.document.Kind,
			"inputs": map[string]any{}, "parameters": map[string]any{}, "properties": json.RawMessage(one.properties)},
	})
	if err != nil {
		one.finish(err.Error())
		return
	}
	payload, err := json.Marshal(map[string]any{"Content": string(content), "TaskId": one.id, "Topic": sessionTopic, "SchemaVersion": 1})
	if err != nil {
		one.finish(err.Error())
		return
	}
	f := frame.Frame{Type: "interactive_shell", Created: time.Now(), ID: newID(), Payload: payload}
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx, cancel := context.WithTimeout(one.over, time.Minute)
	defer cancel()
	if err := c.conn.Write(ctx, websocket.MessageBinary, f.Append(nil)); err != nil {
		one.finish("the agent is gone")
	}
}
