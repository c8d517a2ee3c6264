// Package loopback asks the kernel about the other end of a TCP connection
// within the machine: whose socket it is, and what has arrived there that nobody
// has read.
//
// It uses sock_diag(7), which finds one socket by its four numbers and does not
// walk through all of them as /proc/net/tcp does.
package loopback

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// Peer is the socket at the other end.
type Peer struct {
	UID    int    // who made it
	Inode  uint64 // in the list of open files of its process; zero: nobody has it open any more
	Unread int    // bytes that have arrived and were not read
}

// Watch is a connection whose other end can be asked about.
type Watch struct {
	mu      sync.Mutex
	fd      int
	request []byte
}

// ErrNotLocal is a connection whose other end is not on this machine.
var ErrNotLocal = errors.New("the other end is not on this machine")

// Open prepares for questions about the other end of conn.
func Open(conn net.Conn) (*Watch, error) {
	ours, theirs, err := ends(conn)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("ask the kernel about sockets: %w", err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("ask the kernel about sockets: %w", err)
	}
	return &Watch{fd: fd, request: request(theirs, ours)}, nil
}

func ends(conn net.Conn) (ours, theirs netip.AddrPort, err error) {
	l, ok1 := conn.LocalAddr().(*net.TCPAddr)
	r, ok2 := conn.RemoteAddr().(*net.TCPAddr)
	if !ok1 || !ok2 || !r.IP.IsLoopback() {
		return ours, theirs, ErrNotLocal
	}
	return unmap(l.AddrPort()), unmap(r.AddrPort()), nil
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// Sizes and places in struct inet_diag_req_v2 and struct inet_diag_msg
// (linux/inet_diag.h), each behind a struct nlmsghdr of 16 bytes.
const (
	headSize    = unix.SizeofNlMsghdr
	requestSize = headSize + 56
	answerSize  = headSize + 72
	byFamily    = 20 // SOCK_DIAG_BY_FAMILY
)

// request asks for the one socket that goes from one address to another.
func request(from, to netip.AddrPort) []byte {
	b := make([]byte, requestSize)
	ne := binary.NativeEndian
	ne.PutUint32(b, requestSize)
	ne.PutUint16(b[4:], byFamily)
	ne.PutUint16(b[6:], unix.NLM_F_REQUEST)
	d := b[headSize:]
	d[0], d[1] = unix.AF_INET, unix.IPPROTO_TCP
	if from.Addr().Is6() {
		d[0] = unix.AF_INET6
	}
	ne.PutUint32(d[4:], 1<<unix.BPF_TCP_ESTABLISHED|1<<unix.BPF_TCP_CLOSE_WAIT|1<<unix.BPF_TCP_FIN_WAIT1|1<<unix.BPF_TCP_FIN_WAIT2)
	binary.BigEndian.PutUint16(d[8:], from.Port())
	binary.BigEndian.PutUint16(d[10:], to.Port())
	copy(d[12:28], from.Addr().AsSlice())
	copy(d[28:44], to.Addr().AsSlice())
	for i := 48; i < 56; i++ {
		d[i] = 0xff // any cookie
	}
	return b
}

// Peer asks about the other end as it is now. An error that is unix.ENOENT
// says that it is gone.
func (w *Watch) Peer() (Peer, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := unix.Sendto(w.fd, w.request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return Peer{}, fmt.Errorf("ask the kernel about the other end: %w", err)
	}
	var answer [1024]byte
	n, _, err := unix.Recvfrom(w.fd, answer[:], 0)
	if err != nil {
		return Peer{}, fmt.Errorf("ask the kernel about the other end: %w", err)
	}
	return parse(answer[:n])
}

func parse(b []byte) (Peer, error) {
	ne := binary.NativeEndian
	if len(b) < headSize+4 {
		return Peer{}, errors.New("the kernel's answer is too short")
	}
	if t := ne.Uint16(b[4:]); t == unix.NLMSG_ERROR {
		return Peer{}, fmt.Errorf("ask the kernel about the other end: %w", unix.Errno(-int32(ne.Uint32(b[headSize:]))))
	} else if t != byFamily || len(b) < answerSize {
		return Peer{}, fmt.Errorf("the kernel's answer is of type %d and has %d bytes", t, len(b))
	}
	d := b[headSize:]
	return Peer{
		Unread: int(ne.Uint32(d[56:])),
		UID:    int(ne.Uint32(d[64:])),
		Inode:  uint64(ne.Uint32(d[68:])),
	}, nil
}

// Close ends it.
func (w *Watch) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	fd := w.fd
	w.fd = -1
	if fd < 0 {
		return net.ErrClosed
	}
	return unix.Close(fd)
}
