package lab

import (
	"net"
	"net/http"
	"sync"
	"time"

	"jumpsuite/internal/lab/clock"
)

// leash is how much time passes between two looks of a client, outside: a little more
// than the least interval at which our own commands look.
const leash = 120 * time.Millisecond

// pace has lab time wait for the clients of the lab. Where the machine is busy they
// get to look less often; in a lab that runs a hundred times faster than the time
// outside they would miss minutes, and what a script expects them to see.
//
// A look is what a client calls until it calls something for the second time. While a
// client has a connection, lab time does not go on from one look by more than leash
// before the next one begins, as long as that comes in clock.Patience.
type pace struct {
	clock *clock.Clock
	leash time.Duration // lab time; zero: time waits for nobody

	mu   sync.Mutex
	open int             // connections
	seen map[string]bool // the calls of this look
}

// newPace is the pace of a lab whose time may wait. Containers wait for nobody, so it
// does not where tasks are containers.
func newPace(c *clock.Clock, speed float64, patient bool) *pace {
	p := &pace{clock: c}
	if patient && speed > 1 {
		p.leash = time.Duration(speed * float64(leash))
	}
	return p
}

// connection is told of the states of the server's connections.
func (p *pace) connection(_ net.Conn, s http.ConnState) {
	if p.leash == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch s {
	case http.StateNew:
		if p.open++; p.open == 1 {
			p.begin()
		}
	case http.StateClosed, http.StateHijacked:
		if p.open--; p.open == 0 {
			p.clock.Free()
		}
	}
}

// call is told of a call before it is answered: of all that makes it another one.
func (p *pace) call(what string) {
	if p.leash == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen[what] {
		p.begin()
	}
	if p.open > 0 {
		p.seen[what] = true
	}
}

// begin begins a look.
func (p *pace) begin() {
	p.seen = map[string]bool{}
	p.clock.Until(p.leash)
}
