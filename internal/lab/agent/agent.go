// Package agent plays the host's end of a session of type Port as
// amazon-ssm-agent does, with what is unpleasant about it:
//
//   - 1 KiB a message downwards, and a pause of a millisecond after each;
//   - no window, and only the first unacknowledged message is sent again, ten
//     times a second at most;
//   - the handshake is complete before the port is connected to; what comes in
//     between is not acknowledged;
//   - a message whose ack cannot be sent is handed to the port again when it comes again;
//   - it does not look at the digest of what it gets;
//   - what comes before the handshake is complete is acknowledged, and dropped;
//   - when nothing listens on the port it crashes, and who started it waits for a minute
//     before the service is told;
//   - when the port closes, it waits two seconds for acks, and is gone;
//   - when it has lost its websocket for good, it stays, and hears nothing.
//
// It speaks to the service's end as the real one does: it asks for a token,
// signs its requests, opens a websocket. The behaviour is that of the agent's source
// (agent/session/datachannel, agent/session/plugins/port), and was seen with the real one.
package agent

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"jumpsuite/internal/session/frame"
)

// Version is what the agent says of itself.
const Version = "3.3.987.0"

const (
	payloadSize      = 1024
	pumpPause        = time.Millisecond
	resendInterval   = 100 * time.Millisecond
	firstRTO         = 200 * time.Millisecond
	mostRTO          = time.Second
	granularity      = 10 * time.Millisecond
	handshakeTimeout = 15 * time.Second
	drainTimeout     = 2 * time.Second
	bufferMessages   = 100_000
)

// ErrCrashed is a worker that has crashed: the real one of 3.3 does when it cannot connect
// to a port without a type (its BasicPortSession closes a connection that there is not).
var ErrCrashed = errors.New("the session's worker has crashed")

// CrashText is what the service is told of a worker that crashed, CrashTime after it did, by the
// agent that started it (framework/processor/executer/outofproc/master.go).
const (
	CrashText = "document process failed unexpectedly: ipc messaging received timeout signal , check [ssm-document-worker]/[ssm-session-worker] log for crash reason"
	CrashTime = time.Minute
)

// handshakeText begins what the service is told when the handshake comes to nothing.
const handshakeText = "Encountered error while initiating handshake. "

// Config is one session's. It is JSON for a process of its own.
type Config struct {
	Session  string
	Instance string
	// Service is the URL of the service's end: http://127.0.0.1:PORT.
	Service string
	// Region, Key and Secret sign its requests.
	Region, Key, Secret string
	// Kind is the session's type, and Properties are those of its document,
	// parameters put in. Of types other than Port only the beginning is played.
	Kind       string
	Properties json.RawMessage
	// Address is what localhost:PORT leads to on the host; empty is a port
	// that nobody listens on.
	Address string
	// Exact makes it better than the real one: no message is handed to the port
	// twice, and none that is damaged.
	Exact bool
}

// end is the agent's end of one session.
type end struct {
	Config
	cancel context.CancelFunc // the service ended the session

	sending  sync.Mutex  // one stream message at a time
	complete atomic.Bool // the handshake

	mu       sync.Mutex
	conn     *websocket.Conn
	paused   bool
	next     int64 // sequence number of the next message downwards
	unacked  []*sent
	srtt     float64
	rttvar   float64
	rto      time.Duration
	expected int64
	early    map[int64]frame.Frame
	port     net.Conn

	answered chan frame.Handshaken
	flagged  chan struct{}
}

type sent struct {
	sequence int64
	bytes    []byte
	last     time.Time
}

// Run plays a session until it is over, and returns what the service is told
// of its end: nothing, or what went wrong. An error is ErrCrashed.
func Run(ctx context.Context, c Config) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	e := &end{Config: c, cancel: cancel, rto: firstRTO, srtt: float64(100 * time.Millisecond), early: map[int64]frame.Frame{},
		answered: make(chan frame.Handshaken, 1), flagged: make(chan struct{}, 1)}
	if err := e.connect(ctx); err != nil {
		return fmt.Sprintf("Setting up data channel with id %s failed: %v", c.Session, err), nil
	}
	var parts sync.WaitGroup
	parts.Go(func() { e.listen(ctx) })
	parts.Go(func() { e.resend(ctx) })
	e.state(ctx)
	output, err := e.play(ctx)
	if err == nil {
		e.drain(ctx)
	}
	cancel()
	e.hangUp()
	parts.Wait()
	return output, err
}

// state tells the service, and nobody else, that the agent is there.
func (e *end) state(ctx context.Context) {
	said := frame.SessionState{SchemaVersion: 1, State: "Connected", SessionID: e.Session}
	f := frame.Frame{Type: frame.State, Created: time.Now(), Flags: frame.AckFlags, ID: newID(), Payload: frame.Encode(said)}
	e.mu.Lock()
	conn := e.conn
	e.mu.Unlock()
	write(ctx, conn, f.Append(nil)) // lost, it is lost
}

// play shakes hands, connects to the port and pumps until one side ends.
func (e *end) play(ctx context.Context) (string, error) {
	switch e.Kind {
	case "Standard_Stream", "InteractiveCommands": // a terminal, and no handshake
		e.complete.Store(true)
		e.send(ctx, frame.Data, []byte("sh-5.2$ "))
		<-ctx.Done()
		return "", nil
	}
	if problem := e.handshake(ctx); problem != "" {
		return handshakeText + problem, nil
	}
	port, err := e.dial(ctx)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrCrashed, err)
	}
	defer port.Close()
	e.mu.Lock()
	e.port = port
	e.mu.Unlock()
	done := make(chan struct{})
	go func() { defer close(done); e.pump(port) }()
	select {
	case <-done:
	case <-e.flagged:
	case <-ctx.Done():
	}
	return "", nil
}

func (e *end) dial(ctx context.Context) (net.Conn, error) {
	if e.Address == "" {
		var p struct {
			Port string `json:"portNumber"`
		}
		if err := json.Unmarshal(e.Properties, &p); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("dial tcp 127.0.0.1:%s: connect: connection refused", p.Port)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", e.Address)
}

// handshake returns what the service is told when it comes to nothing, in the
// agent's own words.
func (e *end) handshake(ctx context.Context) string {
	started := time.Now()
	kind, err := json.Marshal(frame.SessionType{Name: e.Kind, Properties: e.Properties})
	if err != nil {
		return err.Error()
	}
	asked := frame.HandshakeRequested{AgentVersion: Version, Actions: []frame.RequestedAction{{Type: "SessionType", Parameters: kind}}}
	e.send(ctx, frame.HandshakeRequest, frame.Encode(asked))
	late := time.NewTimer(handshakeTimeout)
	defer late.Stop()
	select {
	case answer := <-e.answered:
		for _, a := range answer.Actions {
			if a.Status != frame.ActionDone {
				return fmt.Sprintf("%s failed on client with status %d error: %s", a.Type, a.Status, a.Error)
			}
		}
	case <-late.C:
		return "Handshake timed out. Please ensure that you have the latest version of the session manager plugin."
	case <-ctx.Done():
		return ""
	}
	e.send(ctx, frame.HandshakeComplete, frame.Encode(frame.Completed{Took: int64(time.Since(started))}))
	e.complete.Store(true)
	return ""
}

// pump reads the port and sends what it says, a KiB and a millisecond at a time.
func (e *end) pump(port net.Conn) {
	b := make([]byte, payloadSize)
	for {
		if e.active() {
			n, err := port.Read(b)
			if err != nil {
				return
			}
			e.send(context.Background(), frame.Data, b[:n])
		}
		time.Sleep(pumpPause)
	}
}

func (e *end) active() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.paused
}

// send numbers a message, sends it unless the service has said that nobody is
// there, and keeps it until it is acknowledged: from then on, so that an ack that
// was quicker is in vain.
func (e *end) send(ctx context.Context, kind frame.Payload, payload []byte) {
	e.sending.Lock()
	defer e.sending.Unlock()
	e.mu.Lock()
	f := frame.Frame{Type: frame.Output, Created: time.Now(), Sequence: e.next, ID: newID(), Kind: kind, Payload: payload}
	if e.next == 0 {
		f.Flags = frame.First
	}
	m := &sent{sequence: e.next, bytes: f.Append(nil)}
	e.next++
	conn, paused := e.conn, e.paused
	e.mu.Unlock()
	if !paused {
		write(ctx, conn, m.bytes) // what is lost here comes again
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	m.last = time.Now()
	if len(e.unacked) < bufferMessages {
		e.unacked = append(e.unacked, m)
	}
}

func write(ctx context.Context, conn *websocket.Conn, b []byte) error {
	if conn == nil {
		return net.ErrClosed
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return conn.Write(ctx, websocket.MessageBinary, b)
}

// resend sends the front again, as long as nobody acknowledges it.
func (e *end) resend(ctx context.Context) {
	tick := time.NewTicker(resendInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if conn, b := e.overdue(time.Now()); b != nil {
			write(ctx, conn, b)
		}
	}
}

func (e *end) overdue(now time.Time) (*websocket.Conn, []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.paused || len(e.unacked) == 0 || now.Sub(e.unacked[0].last) <= e.rto {
		return nil, nil
	}
	e.unacked[0].last = now
	return e.conn, e.unacked[0].bytes
}

// drain waits for the acks of what was sent, two seconds at most.
func (e *end) drain(ctx context.Context) {
	late := time.NewTimer(drainTimeout)
	defer late.Stop()
	for e.pending() {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-late.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (e *end) pending() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.unacked) > 0
}

// got handles one frame of the service's; an error is one that ends nothing.
func (e *end) got(ctx context.Context, b []byte) {
	parse := frame.ParseUnchecked
	if e.Exact {
		parse = frame.Parse
	}
	f, err := parse(b)
	if err != nil {
		return
	}
	switch f.Type {
	case frame.Input:
		e.input(ctx, f)
	case frame.Ack:
		e.acknowledged(f)
	case frame.Closed:
		e.cancel()
	case frame.Pause, frame.Start:
		e.mu.Lock()
		e.paused = f.Type == frame.Pause
		e.mu.Unlock()
	}
}

// input handles a message by its number. Only this goroutine touches expected.
func (e *end) input(ctx context.Context, f frame.Frame) {
	e.mu.Lock()
	e.paused = false
	e.mu.Unlock()
	switch {
	case f.Sequence < e.expected:
		e.acknowledge(ctx, f)
	case f.Sequence > e.expected:
		if len(e.early) < bufferMessages && e.acknowledge(ctx, f) == nil {
			f.Payload = append([]byte(nil), f.Payload...)
			e.early[f.Sequence] = f
		}
	case e.process(f):
		// The order of the real one: it has been processed, and when the ack
		// fails it is still expected.
		if err := e.acknowledge(ctx, f); err != nil && !e.Exact {
			return
		}
		e.expected++
		e.turn()
	}
}

func (e *end) turn() {
	for {
		f, ok := e.early[e.expected]
		if !ok || !e.process(f) {
			return
		}
		delete(e.early, e.expected)
		e.expected++
	}
}

// process reports whether the message was taken.
func (e *end) process(f frame.Frame) bool {
	switch f.Kind {
	case frame.HandshakeResponse:
		var answer frame.Handshaken
		if json.Unmarshal(f.Payload, &answer) == nil {
			e.answered <- answer
		}
		return true
	case frame.Data, frame.Flag:
	default:
		return true
	}
	if !e.complete.Load() {
		return true // and it is lost
	}
	e.mu.Lock()
	port := e.port
	e.mu.Unlock()
	if port == nil {
		return false // the port's handler is not ready
	}
	if f.Kind == frame.Data {
		_, err := port.Write(f.Payload)
		return err == nil
	}
	e.flag(port, f.Payload)
	return true
}

func (e *end) flag(port io.Closer, payload []byte) {
	if len(payload) != 4 {
		return
	}
	switch binary.BigEndian.Uint32(payload) {
	case frame.DisconnectPort:
		port.Close()
	case frame.TerminateSession:
		select {
		case e.flagged <- struct{}{}:
		default:
		}
	}
}

func (e *end) acknowledge(ctx context.Context, f frame.Frame) error {
	e.mu.Lock()
	conn := e.conn
	e.mu.Unlock()
	ack := frame.Frame{Type: frame.Ack, Created: time.Now(), Flags: frame.AckFlags, ID: newID(), Payload: f.Acknowledge()}
	return write(ctx, conn, ack.Append(nil))
}

func (e *end) acknowledged(f frame.Frame) {
	var a frame.Acknowledged
	if json.Unmarshal(f.Payload, &a) != nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.paused = false
	for i, m := range e.unacked {
		if m.sequence == a.Sequence {
			e.measure(time.Since(m.last))
			e.unacked = append(e.unacked[:i], e.unacked[i+1:]...)
			return
		}
	}
}

// measure is the agent's own arithmetic: it counts resent ones too.
func (e *end) measure(rtt time.Duration) {
	difference := e.srtt - float64(rtt)
	e.rttvar = 0.75*e.rttvar + 0.25*max(difference, -difference)
	e.srtt = 0.875*e.srtt + 0.125*float64(rtt)
	e.rto = min(time.Duration(e.srtt+max(float64(granularity), 4*e.rttvar)), mostRTO)
}
