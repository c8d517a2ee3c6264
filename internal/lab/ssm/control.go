package ssm

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"

	"jumpsuite/internal/intact"
	"jumpsuite/internal/session/frame"
)

// A real amazon-ssm-agent can take the place of the lab's on a host: it opens a
// control channel, is told there of each session, and says there how it ended.
//
// From the first control channel on, the host is that agent's: the lab's own plays no
// more there, and the host is online while the channel is open. The messages are those of
// the agent's source (agent/session/controlchannel, agent/session/contracts,
// agent/messageservice/interactor/mgsinteractor), and were seen with the real one.

// control is the control channel of a real agent.
type control struct {
	instance string
	version  string // the agent's
	mu       sync.Mutex
	conn     *websocket.Conn // one writer at a time
}

// sessionTopic is the topic of the messages about sessions.
const sessionTopic = "aws.ssm.session"

// The messages of a control channel, as far as sessions need them.
const (
	taskBegins       = "interactive_shell"
	taskComplete     = "agent_task_complete"
	taskAcknowledged = "agent_task_acknowledge"
)

// controlOpen is the first message on a control channel, a text.
type controlOpen struct {
	Schema    string `json:"MessageSchemaVersion"`
	RequestID string `json:"RequestId"`
	Token     string `json:"TokenValue"`
	Version   string `json:"AgentVersion"`
	Platform  string `json:"PlatformType"`
}

// refuse answers an agent as the message gateway does: the agent looks for the
// name of the error in the text.
func refuse(w http.ResponseWriter, status int, code, message string) {
	type answer struct {
		XMLName xml.Name
		Message string
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	xml.NewEncoder(w).Encode(answer{xml.Name{Local: code}, message})
}

const accessDenied = "AccessDeniedException"

// serveControlToken gives an agent a token for its control channel.
func (s *SSM) serveControlToken(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<16))
	if err != nil {
		return
	}
	if !s.admit(w, r, body) {
		return
	}
	if err := checkAsked(body); err != nil {
		refuse(w, http.StatusBadRequest, "ValidationException", err.Error())
		return
	}
	answerToken(w, "CreateControlChannelResponse", s.controlToken(r.PathValue("instance")))
}

// admit answers who may not have a control channel for the host of a request.
func (s *SSM) admit(w http.ResponseWriter, r *http.Request, body []byte) bool {
	if err := s.Verify(r, body, signedFor); err != nil {
		refuse(w, http.StatusForbidden, accessDenied, err.Error())
		return false
	}
	s.mu.Lock()
	h := s.host(r.PathValue("instance"))
	lost := h != nil && !h.lost.IsZero() && !h.Offline
	s.mu.Unlock()
	switch {
	case h == nil:
		refuse(w, http.StatusForbidden, accessDenied, "The instance "+r.PathValue("instance")+" is not this account's")
	case lost:
		panic(http.ErrAbortHandler) // the network is what is lost: nobody answers
	}
	return h != nil
}

// checkAsked refuses what is no request for a token.
func checkAsked(body []byte) error {
	var asked struct {
		Schema    string `json:"MessageSchemaVersion"`
		RequestID string `json:"RequestId"`
	}
	if err := json.Unmarshal(body, &asked); err != nil {
		return fmt.Errorf("the request is not JSON: %w", err)
	}
	if asked.Schema != frame.OpenSchema || asked.RequestID == "" {
		return errors.New("a request for a token has the schema version 1.0 and an id")
	}
	return nil
}

// controlToken makes a token for one control channel.
func (s *SSM) controlToken(instance string) string {
	token := newToken()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[token] = instance
	return token
}

// serveControl serves an agent's control channel: while it is open, the host is online.
func (s *SSM) serveControl(w http.ResponseWriter, r *http.Request) {
	if !s.admit(w, r, nil) {
		return
	}
	if q := r.URL.Query(); q.Get("role") != "subscribe" || q.Get("stream") != "input" {
		refuse(w, http.StatusBadRequest, "ValidationException", "a control channel has the role subscribe and the stream input")
		return
	}
	conn, err := intact.Accept(w, r)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	conn.SetReadLimit(1 << 20)
	c := &control{instance: r.PathValue("instance"), conn: conn}
	if err := s.greet(c); err != nil {
		conn.Close(websocket.StatusPolicyViolation, err.Error())
		return
	}
	s.attach(c)
	defer s.detach(c)
	for {
		kind, b, err := conn.Read(s.ctx)
		if err != nil {
			return
		}
		if kind == websocket.MessageBinary {
			s.fromAgent(c, b)
		}
	}
}

// greet reads the open message of a control channel.
func (s *SSM) greet(c *control) error {
	ctx, cancel := context.WithTimeout(s.ctx, openTimeout)
	defer cancel()
	kind, b, err := c.conn.Read(ctx)
	if err != nil {
		return err
	}
	var open controlOpen
	if err := json.Unmarshal(b, &open); kind != websocket.MessageText || err != nil {
		return errors.New("the first message is not the one that opens a channel")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	instance, known := s.tokens[open.Token]
	if open.Schema != frame.OpenSchema || open.RequestID == "" || !known || instance != c.instance {
		return errors.New("the token is not this host's, or was used before")
	}
	delete(s.tokens, open.Token)
	if open.Version == "" || open.Platform == "" {
		return errors.New("the first message names no agent")
	}
	c.version = open.Version
	return nil
}

// attach makes c its host's control channel. The one before is closed.
func (s *SSM) attach(c *control) {
	s.mu.Lock()
	before, h := s.agents[c.instance], s.host(c.instance)
	s.agents[c.instance] = c
	h.real, h.version, h.pinged = true, c.version, s.clock.Now()
	if h.Offline {
		h.Offline, h.lost = false, time.Time{} // somebody has started it
	}
	s.mu.Unlock()
	if before != nil {
		before.conn.CloseNow()
	}
}

func (s *SSM) detach(c *control) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.agents[c.instance] == c {
		delete(s.agents, c.instance)
		s.host(c.instance).pinged = s.clock.Now()
	}
}

// RealAgent is the version of the real agent that has been a host's (instance id), and whether
// its control channel is open.
func (s *SSM) RealAgent(instance string) (version string, connected bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.host(instance); h != nil && h.real {
		return h.version, s.agents[instance] != nil
	}
	return "", false
}

// complete is what an agent says of a session that is over.
type complete struct {
	Session string `json:"TaskId"`
	Topic   string `json:"Topic"`
	Status  string `json:"FinalTaskStatus"`
	Output  string `json:"Output"`
}

// fromAgent takes what an agent says on its control channel: the end of a session, which
// it says again until it is acknowledged.
func (s *SSM) fromAgent(c *control, b []byte) {
	f, err := frame.Parse(b)
	if err != nil || f.Type != taskComplete {
		return
	}
	var said complete
	if json.Unmarshal(f.Payload, &said) != nil {
		return
	}
	s.mu.Lock()
	one := s.sessions[said.Session]
	s.mu.Unlock()
	if one != nil && one.instance == c.instance {
		one.finish(said.Output)
	}
	if err := c.acknowledge(s.ctx, f.ID, said); err != nil {
		s.Log.Debug("the end of a session is not acknowledged", "session", said.Session, "error", err)
	}
}

// acknowledge tells the agent that its message about the end of a session has come.
func (c *control) acknowledge(ctx context.Context, id frame.ID, said complete) error {
	payload, err := json.Marshal(map[string]any{"SchemaVersion": 1, "MessageId": id.String(), "TaskId": said.Session, "Topic": said.Topic})
	if err != nil {
		return err
	}
	return c.tell(ctx, taskAcknowledged, payload)
}

// tell sends a message to the agent.
func (c *control) tell(ctx context.Context, kind string, payload []byte) error {
	f := frame.Frame{Type: kind, Created: time.Now(), ID: newID(), Payload: payload}
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return c.conn.Write(ctx, websocket.MessageBinary, f.Append(nil))
}

// start tells an agent to take a session.
func (c *control) start(one *session, properties []byte) {
	content, err := json.Marshal(map[string]any{
		"DocumentName": one.document.name, "SessionId": one.id, "SessionOwner": one.owner, "RunAsUser": "", "Parameters": map[string]any{},
		"DocumentContent": map[string]any{"schemaVersion": "1.0", "description": "", "sessionType": one.document.Kind,
			"inputs": map[string]any{}, "parameters": map[string]any{}, "properties": json.RawMessage(properties)},
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
	if err := c.tell(one.over, taskBegins, payload); err != nil {
		one.finish("the agent is gone")
	}
}

// tellControl tells the agent of a session over its control channel: so it hears of the
// end of one whose data channel it has lost.
func (s *SSM) tellControl(one *session, kind string, payload []byte) {
	s.mu.Lock()
	c := s.agents[one.instance]
	s.mu.Unlock()
	if c == nil {
		return
	}
	if err := c.tell(s.ctx, kind, payload); err != nil {
		s.Log.Debug("an agent is not told", "session", one.id, "error", err)
	}
}

// onThisMachine are the properties of a document for a real agent. It shares this
// machine with the lab's other hosts, so it is told of the port that the host's
// leads to, if that is one of this machine.
func (h *host) onThisMachine(properties []byte) []byte {
	to, ok := localPort(h.address(properties))
	if !ok {
		return properties
	}
	var all map[string]any
	if json.Unmarshal(properties, &all) != nil {
		return properties
	}
	all["portNumber"] = strconv.Itoa(to)
	told, err := json.Marshal(all)
	if err != nil {
		return properties
	}
	return told
}
