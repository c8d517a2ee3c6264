package dockerproxy

import (
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// hangups notices peers that are gone, on sockets that nobody reads (any more): one
// more epoll, in one goroutine for all of them.
type hangups struct {
	fd   int
	mu   sync.Mutex
	next int32
	gone map[int32]func() // by a number of ours: descriptors are used again
}

func newHangups() (*hangups, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	h := &hangups{fd: fd, gone: map[int32]func(){}}
	go h.run(os.NewFile(uintptr(fd), "epoll"))
	return h, nil
}

// watchHangup calls gone once when the peer of conn has closed its socket
// altogether, until stop. A tunnel's connection tells that itself (Gone); where
// conn is no socket otherwise it does nothing.
func (g *Gate) watchHangup(conn net.Conn, gone func()) (stop func()) {
	if c, ok := conn.(interface{ Gone() <-chan struct{} }); ok {
		return afterClose(c.Gone(), gone)
	}
	stop, ok := g.watchSocket(conn, 0, gone)
	if !ok {
		return func() {}
	}
	return stop
}

// watchSocket calls gone once when one of the events comes, or the peer has closed
// its socket altogether, until stop. Where conn is no socket, it is not ok.
func (g *Gate) watchSocket(conn net.Conn, events uint32, gone func()) (stop func(), ok bool) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil, false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, false
	}
	h := g.hangupWatch()
	if h == nil {
		return nil, false
	}
	var number int32
	err = raw.Control(func(fd uintptr) { number, ok = h.add(int(fd), events, gone) })
	return func() { h.take(number) }, ok && err == nil
}

// afterClose calls then when c is closed, until stop.
func afterClose(c <-chan struct{}, then func()) (stop func()) {
	stopped := make(chan struct{})
	go func() {
		select {
		case <-c:
			then()
		case <-stopped:
		}
	}()
	return sync.OnceFunc(func() { close(stopped) })
}

func (g *Gate) hangupWatch() *hangups {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.hangups == nil {
		h, err := newHangups()
		if err != nil {
			g.log().Warn("clients that vanish are not noticed", "err", err)
			return nil
		}
		g.hangups = h
	}
	return g.hangups
}

// add watches fd. A socket that is closed leaves the epoll by itself. Hanging up is
// always reported, whatever the events are.
func (h *hangups) add(fd int, events uint32, gone func()) (number int32, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next++
	if unix.EpollCtl(h.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLONESHOT | events, Fd: h.next}) != nil {
		return 0, false
	}
	h.gone[h.next] = gone
	return h.next, true
}

func (h *hangups) run(f *os.File) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	raw.Read(func(uintptr) bool {
		h.collect()
		return false // wait for more, for ever
	})
}

func (h *hangups) collect() {
	var events [64]unix.EpollEvent
	for {
		n, err := unix.EpollWait(h.fd, events[:], 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		for _, e := range events[:n] {
			if gone := h.take(e.Fd); gone != nil {
				go gone()
			}
		}
	}
}

func (h *hangups) take(number int32) func() {
	h.mu.Lock()
	defer h.mu.Unlock()
	gone := h.gone[number]
	delete(h.gone, number)
	return gone
}

// hungUp reports whether the peer of a socket has closed it altogether.
func hungUp(conn net.Conn) bool {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	up := false
	raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd)}} // hanging up is always reported
		n, err := unix.Poll(fds, 0)
		up = err == nil && n > 0 && fds[0].Revents&unix.POLLHUP != 0
	})
	return up
}

// alive reports whether a kept connection to the Engine can still be used: it
// is open, and nothing that nobody asked for has arrived on it.
func alive(conn net.Conn) bool {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	ok = false
	raw.Control(func(fd uintptr) {
		var b [1]byte
		_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		ok = err == unix.EAGAIN
	})
	return ok
}
