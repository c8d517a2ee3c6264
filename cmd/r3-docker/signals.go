package main

import (
	"os"
	"os/signal"
	"syscall"
	"time"
)

// relayed are the signals that somebody may send to this process and mean the
// CLI.
var relayed = []os.Signal{
	syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT,
	syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH,
}

// takeSignals takes what would end or stop this process. SIGTSTP is left to the
// CLI: this process stops when the CLI has. SIGPIPE is taken so that a reader
// that went away kills nothing.
func takeSignals() <-chan os.Signal {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, relayed...)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTSTP, syscall.SIGPIPE)
	return signals
}

func ignore(s os.Signal) { signal.Ignore(s) }

// direct is how long before or after a signal arrived here the same one may have
// arrived at the CLI for both to be one.
const direct = 50 * time.Millisecond

// relay passes on what arrived here and not at the CLI. The terminal, and sudo
// where it made a terminal of its own, send signals to the whole group: then the
// CLI has it already, and says so (see heard). What was sent to this process
// alone, it does not have.
func (c *child) relay(signals <-chan os.Signal) {
	for s := range signals {
		sig, arrived := s.(syscall.Signal), time.Now()
		time.AfterFunc(direct, func() {
			if !c.heardSince(sig, arrived.Add(-direct)) {
				c.kill(sig)
			}
		})
	}
}

// heard notes that a signal has arrived at the CLI. One that was passed on is
// noted as well, and keeps nothing back that arrives here later than that.
func (c *child) heard(s syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.direct[s] = time.Now()
}

func (c *child) heardSince(s syscall.Signal, t time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.direct[s].After(t)
}
