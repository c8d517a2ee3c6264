package dockerproxy

import (
	"context"
	"errors"

	"jumpsuite/internal/audit"
)

// Running is an exec that is under way, for whoever has to end it when the gate
// that serves it is gone.
type Running struct {
	Exec      string
	Container string // full id
	Terminal  bool
	Caller    Caller
	Event     audit.Event // the open one
}

// running tells Begun of an exec that begins.
func (x *exchange) running(e *execution) (over func()) {
	if x.gate.Begun == nil {
		return func() {}
	}
	return x.gate.Begun(Running{Exec: e.id, Container: e.container, Terminal: e.tty, Caller: x.conn.caller, Event: x.event})
}

var errGateGone = errors.New("the gate that served it is gone")

// EndExec ends an exec that a gate left which is gone, and closes its event.
func (g *Gate) EndExec(ctx context.Context, r Running) {
	x := &exchange{ctx: ctx, gate: g, conn: &connection{gate: g, caller: r.Caller}, event: r.Event, opened: true}
	e := &execution{id: r.Exec, container: r.Container, tty: r.Terminal}
	x.closeWith(x.afterExec(e, errGateGone), errGateGone)
}
