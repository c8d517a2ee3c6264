package frame

import (
	"encoding/binary"
	"encoding/json"
)

// Acknowledged is the payload of an Ack: which message has arrived. The ack's
// own sequence number means nothing.
type Acknowledged struct {
	Type       string `json:"AcknowledgedMessageType"`
	ID         string `json:"AcknowledgedMessageId"`
	Sequence   int64  `json:"AcknowledgedMessageSequenceNumber"`
	Sequential bool   `json:"IsSequentialMessage"`
}

// AckFlags are the flags of an Ack.
const AckFlags = First | Last

// Acknowledge is the payload that acknowledges f.
func (f Frame) Acknowledge() []byte {
	return encode(Acknowledged{Type: f.Type, ID: f.ID.String(), Sequence: f.Sequence, Sequential: true})
}

// Open is the first message on a websocket, a text: who opens it.
type Open struct {
	Schema     string `json:"MessageSchemaVersion"`
	RequestID  string `json:"RequestId"`
	Token      string `json:"TokenValue"`
	ClientID   string `json:"ClientId,omitempty"`
	Version    string `json:"ClientVersion,omitempty"`
	InstanceID string `json:"ClientInstanceId,omitempty"` // the agent's
}

// OpenSchema is the schema version that all ends send.
const OpenSchema = "1.0"

// HandshakeRequested is what the agent asks for before the stream begins.
type HandshakeRequested struct {
	AgentVersion string            `json:"AgentVersion"`
	Actions      []RequestedAction `json:"RequestedClientActions"`
}

// RequestedAction is one thing that the agent asks for.
type RequestedAction struct {
	Type       string          `json:"ActionType"` // SessionType, KMSEncryption
	Parameters json.RawMessage `json:"ActionParameters"`
}

// SessionType are the parameters of the action of that name.
type SessionType struct {
	Name       string          `json:"SessionType"`
	Properties json.RawMessage `json:"Properties"`
}

// Handshaken is the client's answer.
type Handshaken struct {
	ClientVersion string            `json:"ClientVersion"`
	Actions       []ProcessedAction `json:"ProcessedClientActions"`
	Errors        []string          `json:"Errors"`
}

// ProcessedAction says what became of a RequestedAction.
type ProcessedAction struct {
	Type   string `json:"ActionType"`
	Status int    `json:"ActionStatus"`
	Result any    `json:"ActionResult"`
	Error  string `json:"Error"`
}

// The statuses of a ProcessedAction.
const (
	ActionDone        = 1
	ActionFailed      = 2
	ActionUnsupported = 3
)

// Completed is the agent's last word in the handshake.
type Completed struct {
	Took    int64  `json:"HandshakeTimeToComplete"` // nanoseconds
	Message string `json:"CustomerMessage"`
}

// ChannelClosed is why the service ends a session. Output is empty for an end
// that is none's fault.
type ChannelClosed struct {
	MessageID     string `json:"MessageId"`
	CreatedDate   string `json:"CreatedDate"`
	DestinationID string `json:"DestinationId"`
	SessionID     string `json:"SessionId"`
	MessageType   string `json:"MessageType"`
	SchemaVersion int    `json:"SchemaVersion"`
	Output        string `json:"Output"`
}

// SessionState is the payload of a State message: the agent tells the service how it is.
type SessionState struct {
	SchemaVersion int    `json:"SchemaVersion"`
	State         string `json:"SessionState"`
	SessionID     string `json:"SessionId"`
}

// FlagPayload is the payload of a Flag message.
func FlagPayload(flag uint32) []byte { return binary.BigEndian.AppendUint32(nil, flag) }

// encode marshals what cannot fail to be marshalled.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("frame: " + err.Error()) // a type of this package that JSON has no form for
	}
	return b
}

// Encode is the JSON of one of this package's payloads.
func Encode[T Acknowledged | Open | HandshakeRequested | Handshaken | Completed | ChannelClosed | SessionState](v T) []byte {
	return encode(v)
}
