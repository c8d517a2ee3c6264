package audit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// HeadMessageID is the MESSAGE_ID of heads in the journal:
// journalctl -o json MESSAGE_ID=… > heads.json
const HeadMessageID = "6d1f3a2e9b6c4f0f8d5c7e2a41b09c35"

// Identifier is the SYSLOG_IDENTIFIER of what the log sends.
const Identifier = "jumpsuite-audit"

// Head is the newest line of a log at some time, as it was announced outside of
// the log.
type Head struct {
	Seq  uint64
	Hash string
	Time time.Time // when it was announced; may be zero
}

// announce sends a head when one is due: at the first line, at what changes
// something, each HeadLines lines and each HeadTime.
func (l *Log) announce(e *Event) {
	due := l.headed.IsZero() || e.durable() || l.unheaded >= l.o.HeadLines
	if due {
		l.sendHead()
		return
	}
	if l.timer == nil {
		l.timer = time.AfterFunc(l.o.HeadTime, l.headByTime)
	}
}

func (l *Log) headByTime() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer = nil
	if !l.closed && l.unheaded > 0 {
		l.sendHead()
	}
}

func (l *Log) sendHead() {
	l.headed = time.Now()
	text := fmt.Sprintf("head seq=%d hash=%s log=%s", l.at.seq, l.at.hash, l.o.Path)
	err := l.journal.send(text,
		field{"MESSAGE_ID", HeadMessageID},
		field{"JUMPSUITE_LOG", l.o.Path},
		field{"JUMPSUITE_SEQ", strconv.FormatUint(l.at.seq, 10)},
		field{"JUMPSUITE_HASH", l.at.hash})
	l.unheaded = 0
	if err != nil {
		l.unheaded = 1 // tried again, but not for each line
	}
}

type field struct{ name, value string }

// journal sends to journald's socket, in its native protocol
// (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/), or else to syslog's.
type journal struct {
	native, syslog string
	log            *slog.Logger
	fd             int
	told           bool
}

func newJournal(native, syslog string, log *slog.Logger) *journal {
	return &journal{native: native, syslog: syslog, log: log, fd: -1}
}

// journalWait is how long a full socket is waited for. It may be full because
// somebody floods the journal.
const journalWait = 100 * time.Millisecond

func (j *journal) send(text string, fields ...field) error {
	err := j.sendTo(j.native, nativeMessage(text, fields))
	if err != nil {
		if other := j.sendTo(j.syslog, syslogMessage(text)); other != nil {
			err = errors.Join(err, other)
		} else {
			err = nil
		}
	}
	if err != nil && !j.told {
		j.told = true
		j.log.Error("neither journald nor syslog takes what the audit log announces; a cut tail will not be found", "error", err)
	}
	return err
}

func (j *journal) sendTo(socket string, b []byte) error {
	if err := j.open(); err != nil {
		return err
	}
	err := unix.Sendto(j.fd, b, unix.MSG_NOSIGNAL, &unix.SockaddrUnix{Name: socket})
	if err != nil {
		return &os.PathError{Op: "send to", Path: socket, Err: err}
	}
	return nil
}

func (j *journal) open() error {
	if j.fd >= 0 {
		return nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	wait := unix.NsecToTimeval(journalWait.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait); err != nil {
		unix.Close(fd)
		return os.NewSyscallError("setsockopt", err)
	}
	j.fd = fd
	return nil
}

func (j *journal) close() {
	if j.fd >= 0 {
		unix.Close(j.fd)
		j.fd = -1
	}
}

func nativeMessage(text string, fields []field) []byte {
	fields = append([]field{{"MESSAGE", text}, {"PRIORITY", "6"}, {"SYSLOG_IDENTIFIER", Identifier}, {"SYSLOG_FACILITY", "10"}}, fields...)
	var b []byte
	for _, f := range fields {
		b = append(b, f.name...)
		if strings.Contains(f.value, "\n") {
			b = append(b, '\n')
			b = binary.LittleEndian.AppendUint64(b, uint64(len(f.value)))
		} else {
			b = append(b, '=')
		}
		b = append(append(b, f.value...), '\n')
	}
	return b
}

// syslogMessage is text for authpriv, at level info.
func syslogMessage(text string) []byte {
	return fmt.Appendf(nil, "<86>%s[%d]: %s", Identifier, os.Getpid(), text)
}
