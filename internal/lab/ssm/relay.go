package ssm

import (
	"context"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/coder/websocket"

	"jumpsuite/internal/session/frame"
)

// side is an end of a session.
type side int

const (
	client side = iota
	agentSide
)

// session is one session in the relay.
type session struct {
	s          *SSM
	id         string
	instance   string
	document   *document
	properties []byte
	parameters map[string][]string
	owner      string

	toClient, toAgent *lane
	over              context.Context // until the session is over
	cancel            context.CancelFunc

	mu     sync.Mutex
	tokens map[string]side // not used yet
	ended  bool
	last   time.Time // when something was carried; lab time
}

func (s *SSM) newSession(id, instance string) *session {
	one := &session{s: s, id: id, instance: instance, tokens: map[string]side{}, last: s.clock.Now()}
	one.over, one.cancel = context.WithCancel(s.ctx)
	one.toClient = newLane(one, client, s.chance.Uint64())
	one.toAgent = newLane(one, agentSide, s.chance.Uint64())
	if idle := time.Duration(s.World.Link.Idle); idle > 0 {
		s.work.Go(func() { one.watch(idle) })
	}
	return one
}

// token makes a token for one open message.
func (o *session) token(who side) string {
	token := newToken()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tokens[token] = who
	return token
}

// newToken is a token that nobody can guess.
func newToken() string { return "AAEAA" + rand.Text() }

// spend reports whose token it is, and takes it.
func (o *session) spend(token string, who side) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	got, ok := o.tokens[token]
	if !ok || got != who {
		return false
	}
	delete(o.tokens, token)
	return true
}

func (o *session) isOver() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ended
}

// finish ends the session: both sides are told, the client with what went wrong.
func (o *session) finish(output string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended {
		return
	}
	o.ended = true
	closed := frame.ChannelClosed{MessageID: newID().String(), CreatedDate: time.Now().UTC().Format(time.RFC3339), DestinationID: o.instance,
		SessionID: o.id, MessageType: frame.Closed, SchemaVersion: 1, Output: output}
	payload := frame.Encode(closed)
	f := frame.Frame{Type: frame.Closed, Created: time.Now(), ID: newID(), Payload: payload}
	o.toClient.last(f.Append(nil))
	o.toAgent.last(f.Append(nil))
	o.s.forget(o)
	if o.toAgent.current() == nil {
		go o.s.tellControl(o, frame.Closed, payload)
	}
	go func() { // the lanes end when they have said so, or a while later
		defer o.cancel()
		late := time.After(lastWords)
		for _, l := range []*lane{o.toClient, o.toAgent} {
			select {
			case <-l.said:
			case <-late:
			case <-o.over.Done():
			}
		}
	}()
}

// lastWords is how long the end of a session may take to be delivered.
const lastWords = 5 * time.Second

// carried notes that the session is in use.
func (o *session) carried() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = o.s.clock.Now()
}

// watch ends the session when it has been idle for so long.
func (o *session) watch(idle time.Duration) {
	for {
		o.mu.Lock()
		left := idle - o.s.clock.Now().Sub(o.last)
		o.mu.Unlock()
		if left <= 0 {
			o.finish("")
			return
		}
		if o.s.clock.Sleep(o.over, left) != nil {
			return
		}
	}
}

// opposite is the lane to the other side.
func (o *session) opposite(who side) *lane {
	if who == client {
		return o.toAgent
	}
	return o.toClient
}

func (o *session) own(who side) *lane {
	if who == client {
		return o.toClient
	}
	return o.toAgent
}

// lane carries frames to one side, in order, each when its time has come.
type lane struct {
	session *session
	to      side
	queue   chan packet
	came    chan struct{} // closed when the side came for the first time: what is for it waits until then
	said    chan struct{} // closed when the last word was delivered, or lost

	mu     sync.Mutex
	known  bool            // came is closed
	conn   *websocket.Conn // nil while the side is away
	held   []byte          // to be swapped with the next
	chance *mathrand.Rand
}

type packet struct {
	at    time.Time
	bytes []byte
	last  bool
}

// laneLength is how many frames may be on their way.
const laneLength = 1024

func newLane(o *session, to side, seed uint64) *lane {
	return &lane{session: o, to: to, queue: make(chan packet, laneLength), came: make(chan struct{}), said: make(chan struct{}),
		chance: mathrand.New(mathrand.NewPCG(seed, uint64(to)))}
}

// put lets a frame go its way, or what the link makes of it.
func (l *lane) put(ctx context.Context, b []byte) {
	for _, b := range l.weather(b) {
		p := packet{at: time.Now().Add(time.Duration(l.session.s.World.Link.Delay)), bytes: b}
		select {
		case l.queue <- p:
		case <-ctx.Done():
		}
	}
}

// weather is what becomes of a frame: nothing, itself, more, or another one.
func (l *lane) weather(b []byte) [][]byte {
	link := l.session.s.World.Link
	l.mu.Lock()
	defer l.mu.Unlock()
	out := [][]byte{b}
	switch {
	case l.chance.Float64() < link.Lose:
		out = nil
	case l.chance.Float64() < link.Damage:
		out = [][]byte{l.damage(b)}
	case l.chance.Float64() < link.Repeat:
		out = [][]byte{b, b}
	}
	if l.held != nil {
		out = append(out, l.held)
		l.held = nil
	} else if len(out) == 1 && l.chance.Float64() < link.Swap {
		l.held, out = out[0], nil
	}
	return out
}

// damage cuts a frame short, or changes a byte of it.
func (l *lane) damage(b []byte) []byte {
	b = slices.Clone(b)
	at := l.chance.IntN(len(b))
	if l.chance.IntN(2) == 0 {
		return b[:at]
	}
	b[at] ^= byte(1 + l.chance.IntN(255))
	return b
}

// say puts what the service itself says, which no weather befalls.
func (l *lane) say(b []byte) {
	select {
	case l.queue <- packet{at: time.Now().Add(time.Duration(l.session.s.World.Link.Delay)), bytes: b}:
	case <-l.session.over.Done():
	}
}

// last puts the session's last word.
func (l *lane) last(b []byte) {
	p := packet{at: time.Now().Add(time.Duration(l.session.s.World.Link.Delay)), bytes: b, last: true}
	go func() {
		select {
		case l.queue <- p:
		case <-l.session.over.Done():
		}
	}()
}

// run delivers until the session is over.
func (l *lane) run() {
	select {
	case <-l.came:
	case <-l.session.over.Done():
		return
	}
	for {
		select {
		case p := <-l.queue:
			l.deliver(p)
		case <-l.session.over.Done():
			l.attach(nil)
			return
		}
	}
}

func (l *lane) deliver(p packet) {
	if wait := time.Until(p.at); wait > 0 {
		select {
		case <-time.After(wait):
		case <-l.session.over.Done():
		}
	}
	l.write(p.bytes)
	if p.last {
		if conn := l.current(); conn != nil {
			conn.Close(websocket.StatusNormalClosure, "Bye")
		}
		close(l.said)
	}
}

// write sends to the side, if it is there.
func (l *lane) write(b []byte) {
	conn := l.current()
	if conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(l.session.over, time.Minute)
	defer cancel()
	if conn.Write(ctx, websocket.MessageBinary, b) != nil {
		conn.CloseNow()
	}
}

func (l *lane) current() *websocket.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn
}

// attach makes conn the side's websocket; nil is away. The one before is cut.
func (l *lane) attach(conn *websocket.Conn) {
	l.mu.Lock()
	before := l.conn
	l.conn = conn
	if conn != nil && !l.known {
		l.known = true
		close(l.came)
	}
	l.mu.Unlock()
	if before != nil {
		before.CloseNow()
	}
}

// wanted reports whether a frame for the side is worth carrying: it is there, or
// has not come yet. What is sent while it is away is lost.
func (l *lane) wanted() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn != nil || !l.known
}

// detach makes the side away, if conn is still its websocket.
func (l *lane) detach(conn *websocket.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != conn {
		return false
	}
	l.conn = nil
	return true
}

// cut cuts the side's websocket; who reads it sees that, and tells the other side.
func (l *lane) cut() {
	if conn := l.current(); conn != nil {
		conn.CloseNow()
	}
}

// publication tells a side that the other is there, or away. As the service
// does it, with no digest.
func publication(name string) []byte {
	b := frame.Frame{Type: name, Created: time.Now(), ID: newID()}.Append(nil)
	clear(b[80:112])
	return b
}

// newID is a random UUID (version 4).
func newID() frame.ID {
	var id frame.ID
	rand.Read(id[:]) // never fails
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}

func (o *session) String() string { return fmt.Sprintf("session %s to %s", o.id, o.instance) }
