package ssm

import (
	"bufio"
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"jumpsuite/internal/intact"
	"jumpsuite/internal/session/frame"
)

// openTimeout is how long the first message may take.
const openTimeout = 20 * time.Second

// signedFor is the service that requests for channels are signed for.
const signedFor = "ssmmessages"

// Handler answers what clients and agents ask of the message gateway: /v1/data-channel/
// and, for agents, /v1/control-channel/.
func (s *SSM) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/data-channel/{session}", s.serveToken)
	mux.HandleFunc("GET /v1/data-channel/{session}", s.serveData)
	mux.HandleFunc("POST /v1/control-channel/{instance}", s.serveControlToken)
	mux.HandleFunc("GET /v1/control-channel/{instance}", s.serveControl)
	return mux
}

// known is the session that a request is about, if its signature is right. Old
// clients do not sign; agents always do.
func (s *SSM) known(w http.ResponseWriter, r *http.Request, body []byte) *session {
	if r.Header.Get("Authorization") != "" || !fromClient(r) {
		if err := s.Verify(r, body, signedFor); err != nil {
			refuse(w, http.StatusForbidden, accessDenied, err.Error())
			return nil
		}
	}
	s.mu.Lock()
	one := s.sessions[r.PathValue("session")]
	s.mu.Unlock()
	if one != nil && !fromClient(r) && !s.reachable(one.instance) {
		panic(http.ErrAbortHandler) // the host's network is lost: nobody answers
	}
	if one == nil || one.isOver() {
		http.Error(w, "Session is already terminated", http.StatusBadRequest)
		return nil
	}
	return one
}

func fromClient(r *http.Request) bool { return r.URL.Query().Get(clientMark) == cellNumber }

// serveToken gives an agent a token for a data channel.
func (s *SSM) serveToken(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<16))
	if err != nil {
		return
	}
	one := s.known(w, r, body)
	if one == nil {
		return
	}
	answerToken(w, "CreateDataChannelResponse", one.token(agentSide))
}

func answerToken(w http.ResponseWriter, name, token string) {
	type answer struct {
		XMLName xml.Name
		Schema  string `xml:"MessageSchemaVersion"`
		Token   string `xml:"TokenValue"`
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(http.StatusCreated)
	xml.NewEncoder(w).Encode(answer{xml.Name{Local: name}, frame.OpenSchema, token})
}

// serveData serves one websocket of a session.
func (s *SSM) serveData(w http.ResponseWriter, r *http.Request) {
	one := s.known(w, r, nil)
	if one == nil {
		return
	}
	who, cut := agentSide, s.World.Link.CutAgent
	if fromClient(r) {
		who, cut = client, s.World.Link.Cut
		if s.Opened != nil {
			if err := s.Opened(r, one.id); err != nil {
				http.Error(w, err.Error(), http.StatusForbidden)
				return
			}
		}
	}
	conn, err := intact.Accept(s.cutting(w, cut), r)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	conn.SetReadLimit(1 << 20)
	if err := one.greet(conn, who); err != nil {
		conn.Close(websocket.StatusPolicyViolation, err.Error())
		return
	}
	one.serve(conn, who)
}

// greet reads the open message.
func (o *session) greet(conn *websocket.Conn, who side) error {
	ctx, cancel := context.WithTimeout(o.over, openTimeout)
	defer cancel()
	kind, b, err := conn.Read(ctx)
	if err != nil {
		return err
	}
	var open frame.Open
	if err := json.Unmarshal(b, &open); kind != websocket.MessageText || err != nil {
		return fmt.Errorf("the first message is not the one that opens a channel")
	}
	if open.Schema != frame.OpenSchema || open.RequestID == "" || !o.spend(open.Token, who) {
		return fmt.Errorf("the token is not this session's, or was used before")
	}
	return nil
}

// serve takes what a side sends, until its websocket is lost.
func (o *session) serve(conn *websocket.Conn, who side) {
	ctx, cancel := context.WithCancel(o.over)
	defer cancel()
	other := o.opposite(who)
	o.own(who).attach(conn)
	if other.current() != nil {
		other.say(publication(frame.Start))
	}
	defer func() {
		if o.own(who).detach(conn) && other.current() != nil {
			other.say(publication(frame.Pause))
		}
	}()
	if age := time.Duration(o.s.World.Link.Close); age > 0 {
		bye := o.s.clock.AfterFunc(age, func() { conn.Close(websocket.StatusNormalClosure, "Bye") })
		defer bye.Stop()
	}
	o.take(ctx, conn, who, other)
}

// take reads frames and puts them on the other side's lane.
func (o *session) take(ctx context.Context, conn *websocket.Conn, who side, other *lane) {
	limit := meter{most: o.s.World.Link.Packets}
	for {
		kind, b, err := conn.Read(ctx)
		if err != nil {
			return
		}
		if who == client && !limit.allow(time.Now()) {
			o.s.Log.Warn("too many messages from a client: cut", "session", o.id)
			return // and the websocket is closed without a word
		}
		if kind != websocket.MessageBinary || len(b) == 0 {
			continue
		}
		if who == agentSide && isState(b) {
			continue // for the service alone
		}
		if other.wanted() {
			o.carried()
			other.put(ctx, b)
		}
	}
}

// isState reports whether a message says how the agent is.
func isState(b []byte) bool {
	f, err := frame.ParseUnchecked(b)
	return err == nil && f.Type == frame.State
}

// meter counts messages in seconds.
type meter struct {
	most  int
	since time.Time
	n     int
}

func (m *meter) allow(now time.Time) bool {
	if now.Sub(m.since) >= time.Second {
		m.since, m.n = now, 0
	}
	m.n++
	return m.n <= m.most
}

// cutting makes the connection under w end after about so many bytes; zero is never.
func (s *SSM) cutting(w http.ResponseWriter, about int) http.ResponseWriter {
	if about <= 0 {
		return w
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return &cutter{ResponseWriter: w, after: 1 + s.chance.Int64N(2*int64(about))}
}

type cutter struct {
	http.ResponseWriter
	after int64
}

// Hijack gives the connection away, with its end in it.
func (c *cutter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(c.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	short := &shortConn{Conn: conn}
	short.left.Store(c.after)
	rw.Writer.Reset(short)
	return short, rw, nil
}

// shortConn is cut when a number of bytes has gone either way.
type shortConn struct {
	net.Conn
	left atomic.Int64
}

func (c *shortConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.left.Add(-int64(n)) < 0 {
		c.Conn.Close()
	}
	return n, err
}

func (c *shortConn) Write(b []byte) (int, error) {
	if left := c.left.Add(-int64(len(b))); left < 0 {
		n, err := c.Conn.Write(b[:max(int64(len(b))+left, 0)])
		c.Conn.Close()
		if err == nil {
			err = net.ErrClosed
		}
		return n, err
	}
	return c.Conn.Write(b)
}
