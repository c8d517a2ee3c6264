package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"jumpsuite/internal/lab/wire"
	"jumpsuite/internal/lab/world"
)

// ports are the listeners that stand for ports of hosts.
type ports struct {
	mu        sync.Mutex
	listeners []net.Listener
}

// Listen makes a local port of a host (instance id, IP or cluster) reach handle, in
// a goroutine for each connection; handle closes it.
func (l *Lab) Listen(host string, port int, handle func(net.Conn)) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for port %d of %s: %w", port, host, err)
	}
	if err := l.Forward(host, port, listener.Addr().String()); err != nil {
		return errors.Join(err, listener.Close())
	}
	l.ports.mu.Lock()
	l.ports.listeners = append(l.ports.listeners, listener)
	l.ports.mu.Unlock()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go handle(conn)
		}
	}()
	return nil
}

// Forward makes a local port of a host (instance id, IP or cluster) lead to a TCP address,
// for sessions that start from now on. Empty is a port that nobody listens on.
func (l *Lab) Forward(host string, port int, address string) error {
	return l.inventory.Forward(host, port, address)
}

// Sessions is how many sessions to a host (instance id, IP or cluster) are open.
func (l *Lab) Sessions(host string) int { return l.inventory.Open(host) }

// RealAgent is the version of the real agent that has connected to the lab for a host (instance
// id), and whether it is connected now. Without one, the lab plays the agent.
func (l *Lab) RealAgent(host string) (version string, connected bool) {
	return l.inventory.RealAgent(host)
}

func (l *Lab) closePorts() {
	l.ports.mu.Lock()
	defer l.ports.mu.Unlock()
	for _, listener := range l.ports.listeners {
		listener.Close()
	}
}

// forward takes the action of that name: PORT=ADDRESS.
func (l *Lab) forward(a world.Action) error {
	port, address, ok := strings.Cut(a.Value, "=")
	n, err := strconv.Atoi(port)
	if !ok || err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("%q is not PORT=ADDRESS", a.Value)
	}
	return l.Forward(a.To, n, address)
}

// opened records that a client opens a data channel, which IAM may not allow it:
// faults can be about OpenDataChannel.
func (l *Lab) opened(r *http.Request, session string) error {
	v := l.faults.meet("OpenDataChannel")
	err := wait(r.Context(), v.latency)
	if v.err != "" && err == nil {
		err = &wire.Error{Code: "AccessDeniedException", Message: "User is not authorized to perform: ssmmessages:OpenDataChannel"}
	}
	c := Call{Number: l.calls.next(), Time: l.Clock.Now(), Service: "ssmmessages", Operation: "OpenDataChannel", Status: http.StatusSwitchingProtocols, UserAgent: r.UserAgent()}
	c.Parameters, _ = json.Marshal(struct {
		SessionID string `json:"SessionId"`
		Signed    bool
	}{session, r.Header.Get("Authorization") != ""}) // of strings and booleans: cannot fail
	if err != nil {
		c.Status, c.Code = http.StatusForbidden, "AccessDeniedException"
	}
	l.calls.add(c)
	return err
}
