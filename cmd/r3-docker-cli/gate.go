package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// gateDescriptor is where r3-docker leaves the socket to itself.
const gateDescriptor = 3

// The words of the two halves, a byte each at the start of a packet. The
// privileged half has the same.
const (
	askConnection = 'c' // answered by the same, with a connection
	tellSignal    = 's' // followed by the number of a signal that arrived here
)

// gate is the socket to the privileged half, which has the gate in it.
type gate struct {
	conn    *net.UnixConn
	mu      sync.Mutex // held from a question to its answer
	answers chan *os.File
	gone    chan struct{} // closed when the other half is gone
}

var errNotStarted = errors.New("r3-docker-cli is started by r3-docker, never by hand\nhint: type: sudo docker …")

// openGate takes over the socket that was left open.
func openGate(fd int) (*gate, error) {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_SEQPACKET {
		return nil, errNotStarted
	}
	f := os.NewFile(uintptr(fd), "gate")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("open the socket to the gate: %w", err)
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errNotStarted
	}
	g := &gate{conn: conn, answers: make(chan *os.File), gone: make(chan struct{})}
	go g.listen()
	return g, nil
}

// listen takes what the other half sends, until it is gone.
func (g *gate) listen() {
	defer close(g.gone)
	var word [1]byte
	rights := make([]byte, unix.CmsgSpace(4))
	for {
		n, r, _, _, err := g.conn.ReadMsgUnix(word[:], rights)
		if err != nil || n == 0 {
			return
		}
		g.answers <- connection(rights[:r])
	}
}

// connection is the file in the control part of a packet; nil if there is none.
func connection(rights []byte) *os.File {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(messages) != 1 {
		return nil
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil
	}
	unix.CloseOnExec(fds[0])
	return os.NewFile(uintptr(fds[0]), "connection")
}

var errGateGone = errors.New("the gate (r3-docker) is gone")

// dial asks for a connection to the gate.
func (g *gate) dial(context.Context, string, string) (net.Conn, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, err := g.conn.Write([]byte{askConnection}); err != nil {
		return nil, errGateGone
	}
	select {
	case <-g.gone:
		return nil, errGateGone
	case f := <-g.answers:
		if f == nil {
			return nil, errors.New("the gate has no connection to give: too many are open")
		}
		defer f.Close()
		return net.FileConn(f)
	}
}

// tell lets the other half know that a signal has arrived here, so that it does
// not pass on the same one.
func (g *gate) tell(s syscall.Signal) {
	// When it is gone there is nobody to pass anything on.
	_, _ = g.conn.Write([]byte{tellSignal, byte(s)})
}

// whenGone calls f when the other half has gone.
func (g *gate) whenGone(f func()) {
	<-g.gone
	f()
}
