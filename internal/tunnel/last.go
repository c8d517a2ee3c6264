package tunnel

import (
	"errors"
	"time"
)

// Before a host's gate ends its direction it can say what is no data: how what was
// asked for came out, or why it is ended. That costs no round trip, and what is
// told of an end comes before it.

// last is that message.
type last struct {
	Exit  *int        `json:"exit,omitempty"`
	Ended *EndedError `json:"ended,omitempty"`
	additions
}

// EndedError is a connection that the host's gate ended, in its words.
type EndedError struct {
	Text string `json:"text"`
	Next string `json:"hint,omitempty"`
	Code int    `json:"code"` // exit code
}

func (e *EndedError) Error() string { return "the host's gate ended it: " + e.Text }

// Hint is what the host says to do about it.
func (e *EndedError) Hint() string { return e.Next }

// ExitCode is the one that the host says; 77 where it says none that can be.
func (e *EndedError) ExitCode() int { return (&RefusedError{Code: e.Code}).ExitCode() }

// SayExit tells the jump server's end the exit code of what it asked for. No data
// follows.
func (c *Conn) SayExit(code int) error { return c.writeMessage(last{Exit: &code}) }

// Exit is the exit code that the host's gate has said, once Read has given io.EOF.
func (c *Conn) Exit() (code int, said bool) {
	if e := c.exit.Load(); e != nil {
		return *e, true
	}
	return 0, false
}

// reasonTime bounds how long the other end may take to hear why it is ended: it
// may read no more.
const reasonTime = 2 * time.Second

// CloseBecause is Close for a host's gate that tells the other end why: its Read
// gives that as an *EndedError, with the hint and exit code of why.
func (c *Conn) CloseBecause(why error) error {
	r := refusal(why)
	c.SetWriteDeadline(time.Now().Add(reasonTime))
	_ = c.writeMessage(last{Ended: &EndedError{Text: r.Text, Next: r.Next, Code: r.Code}}) // or it hears the end alone
	return c.Close()
}

// readLast reads that message, which only a jump server's end hears.
func (c *Conn) readLast() error {
	b, err := c.whole()
	if err != nil {
		return err
	}
	var m last
	switch err := decode(b, &m); {
	case !c.hearing:
		return errors.New("a message came where data belongs")
	case err != nil:
		return ofAnotherRelease("its last message", err)
	case m.Ended != nil:
		return m.Ended
	case m.Exit == nil || !c.exit.CompareAndSwap(nil, m.Exit):
		return errors.New("the host's last message says nothing new")
	}
	return nil
}
