package audit

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Where the log is, on a jump server and on a docker host alike.
const (
	DefaultFolder = "/var/log/jumpsuite"
	DefaultPath   = DefaultFolder + "/audit.log"
)

// Options say where the log is and how it behaves. The zero value is what the
// commands use.
type Options struct {
	// Path is the log's file. Its folder is made when it is not there (only the
	// last element). If empty, DefaultPath.
	Path string

	// Owner is the user id that must own the folder and the files. Zero is root.
	Owner int

	// Reserve is the space in bytes that is kept for what is under way when the
	// disk is full. Zero is 8 MiB, negative is none.
	Reserve int64

	// Rate is what one caller may write for long, in bytes per second, and Burst
	// what they may write at once, in bytes. Zero is 16 KiB/s and 4 MiB.
	Rate, Burst float64

	// HeadLines is how many lines may be written without a head, HeadTime how
	// long a line may be without one. Zero is 100 and a minute.
	HeadLines int
	HeadTime  time.Duration

	// LockWait is how long Record waits for other writers, who hold the lock for
	// microseconds: longer means that one is stopped or stuck, and waiting would
	// hang everybody. Zero is five seconds.
	LockWait time.Duration

	// Journal and Syslog are the sockets that heads go to: the second where the
	// first is not there. If empty, /run/systemd/journal/socket and /dev/log.
	Journal, Syslog string

	// Host is the name in each line. If empty, the kernel's.
	Host string

	// Errors is told what goes wrong with heads. If nil, nobody is.
	Errors *slog.Logger

	// Now is the clock. If nil, time.Now.
	Now func() time.Time
}

func (o Options) resolved() Options {
	o.Path = or(o.Path, DefaultPath)
	o.Reserve = or(o.Reserve, 8<<20)
	o.Rate = or(o.Rate, 16<<10)
	o.Burst = or(o.Burst, 4<<20)
	o.HeadLines = or(o.HeadLines, 100)
	o.HeadTime = or(o.HeadTime, time.Minute)
	o.LockWait = or(o.LockWait, 5*time.Second)
	o.Journal = or(o.Journal, "/run/systemd/journal/socket")
	o.Syslog = or(o.Syslog, "/dev/log")
	if o.Host == "" {
		o.Host, _ = os.Hostname()
	}
	if o.Errors == nil {
		o.Errors = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// Log is an open audit log. Several goroutines may use one, and several
// processes may have the same file open. A nil Log records nothing and says so
// with an error.
//
// Beside the file FILE it keeps .FILE.head (the lock; and number, hash and place of
// the newest line), .FILE.reserve and .FILE.rate, all readable by the owner
// only. The lock is not on the log itself: whoever may read a file may lock it.
type Log struct {
	o    Options
	base string

	mu      sync.Mutex
	dir     *os.File
	file    checked
	head    checked
	reserve *os.File
	rate    *os.File

	at      position // the end of the log, as of the last look
	pending []Event  // what the log must say about itself before the next line
	broken  bool     // the file ends in part of a line
	spilled []string // ids of events that only the journal has
	buf     []byte

	journal  *journal
	unheaded int // lines since the last head
	headed   time.Time
	timer    *time.Timer
	closed   bool
}

// errClosed is Record on a log that was closed, or never opened.
var errClosed = errors.New("the audit log is not open")

// OpenLog opens the log, and makes what is not there.
//
// Folder and files must be Owner's and writable by nobody else; that is checked
// on what was opened, not on its path, and links are not followed.
func OpenLog(o Options) (*Log, error) {
	o = o.resolved()
	l := &Log{o: o, base: filepath.Base(o.Path), journal: newJournal(o.Journal, o.Syslog, o.Errors)}
	if err := l.open(); err != nil {
		l.release()
		return nil, &WriteError{Path: o.Path, Err: err}
	}
	return l, nil
}

func (l *Log) open() (err error) {
	if l.dir, err = openFolder(filepath.Dir(l.o.Path), l.o.Owner); err != nil {
		return err
	}
	if l.file, err = l.openChecked(l.base, unix.O_APPEND, 0o640); err != nil {
		return err
	}
	if l.head, err = l.openChecked("."+l.base+".head", 0, 0o600); err != nil {
		return err
	}
	if l.rate, err = l.openFile("."+l.base+".rate", 0, 0o600); err != nil {
		return err
	}
	if l.o.Reserve < 0 {
		return nil
	}
	l.reserve, err = l.openFile("."+l.base+".reserve", 0, 0o600)
	return err
}

// openFolder opens the folder of a log, and makes it when it is not there.
func openFolder(path string, owner int) (*os.File, error) {
	made := unix.Mkdir(path, 0o750) == nil
	fd, err := unix.Open(path, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_RDONLY, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open folder", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	if made {
		giveToReaders(f, 0o750)
	}
	if err := trusted(f, owner, 0o022); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// openFile opens a file of the log's folder for reading and writing.
func (l *Log) openFile(name string, flags int, mode uint32) (*os.File, error) {
	path := filepath.Join(l.dir.Name(), name)
	flags |= unix.O_RDWR | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK
	fd, err := unix.Openat(int(l.dir.Fd()), name, flags, 0)
	made := false
	if errors.Is(err, unix.ENOENT) {
		fd, err = unix.Openat(int(l.dir.Fd()), name, flags|unix.O_CREAT, mode)
		made = true
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	if made {
		if mode&0o040 != 0 {
			giveToReaders(f, os.FileMode(mode))
		}
		l.dir.Sync()
	}
	if err := trusted(f, l.o.Owner, 0o137); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// checked is a file whose name may come to mean another: it is looked at before
// each use.
type checked struct {
	*os.File
	name       string
	dev, inode uint64
}

func (l *Log) openChecked(name string, flags int, mode uint32) (checked, error) {
	f, err := l.openFile(name, flags, mode)
	if err != nil {
		return checked{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return checked{}, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return checked{f, name, st.Dev, st.Ino}, nil
}

// same reports whether the name still means this file, and its state if it does.
func (c *checked) same(dir *os.File) (st unix.Stat_t, same bool, err error) {
	err = unix.Fstatat(int(dir.Fd()), c.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return st, false, &os.PathError{Op: "stat", Path: c.Name(), Err: err}
	}
	return st, err == nil && st.Ino == c.inode && st.Dev == c.dev, nil
}

// trusted checks what was opened: the owner's, and none of the bits of deny set.
func trusted(f *os.File, owner int, deny uint32) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	folder := st.Mode&unix.S_IFMT == unix.S_IFDIR
	switch {
	case !folder && st.Mode&unix.S_IFMT != unix.S_IFREG:
		return fmt.Errorf("%s is neither a file nor a folder", f.Name())
	case int(st.Uid) != owner:
		return fmt.Errorf("%s belongs to uid %d, not to %d", f.Name(), st.Uid, owner)
	case st.Mode&deny != 0:
		return fmt.Errorf("%s has mode %04o: others may change it, or read what they should not", f.Name(), st.Mode&0o7777)
	case !folder && st.Nlink > 1:
		return fmt.Errorf("%s has %d names: a hard link to it was made", f.Name(), st.Nlink)
	}
	return nil
}

// Record writes e, and fills in what it leaves open. When it fails, what e
// tells must not be done; a Close or a Change that the file cannot take goes to
// the journal instead, and fails only when that is not there either.
//
// It takes no context: a close must be written just when everything else is
// being cancelled. It waits for other writers, Options.LockWait at most.
func (l *Log) Record(e *Event) error {
	if l == nil {
		return errClosed
	}
	l.complete(e)
	if err := e.check(); err != nil {
		return err
	}
	file, err := l.write(e)
	if err != nil && e.underWay() {
		return l.spill(e, err)
	}
	if err != nil || !e.durable() {
		return err
	}
	// Outside of all locks: the kernel gathers what several callers sync. A file
	// that was rotated away meanwhile was synced before it was closed.
	if err := file.Sync(); err != nil && !errors.Is(err, os.ErrClosed) {
		return &WriteError{Path: l.o.Path, Err: err}
	}
	return nil
}

func (l *Log) complete(e *Event) {
	if e.Time.IsZero() {
		e.Time = l.o.Now()
	}
	if e.ID == "" {
		e.ID = NewID(e.Time)
	}
	if e.PID == 0 {
		e.PID = os.Getpid()
	}
	e.Host = or(e.Host, l.o.Host)
}

// write appends e and what the log has to say about itself, and returns the
// file that holds it.
func (l *Log) write(e *Event) (*os.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errClosed
	}
	if err := l.append(e); err != nil {
		return nil, l.explain(err)
	}
	l.announce(e)
	return l.file.File, nil
}

func (l *Log) append(e *Event) error {
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := l.look(); err != nil {
		return err
	}
	refused := l.admit(e)
	if refused != nil && len(l.pending) == 0 {
		return refused
	}
	at := l.at
	l.buf = l.buf[:0]
	if l.broken {
		l.buf = append(l.buf, '\n')
	}
	for i := range l.pending {
		l.buf = at.add(l.buf, &l.pending[i])
	}
	if refused == nil {
		l.buf = at.add(l.buf, e)
	}
	if err := l.put(l.buf, !e.underWay()); err != nil {
		return err
	}
	l.unheaded += 1 + len(l.pending)
	l.settle(at)
	return refused
}

// settle notes that the log now ends at at.
func (l *Log) settle(at position) {
	at.size = l.at.size + int64(len(l.buf))
	if slices.ContainsFunc(l.pending, func(e Event) bool { return e.Kind == spillKind }) {
		l.spilled = nil
	}
	l.at, l.pending, l.broken = at, nil, false
	writeHead(l.head.File, l.at)
}

// add appends e to dst as the line that follows p, and moves p to it.
func (p *position) add(dst []byte, e *Event) []byte {
	e.Seq, e.Prev = p.seq+1, p.hash
	dst, e.Hash = appendLine(dst, e)
	p.seq, p.hash = e.Seq, e.Hash
	return dst
}

// about is a line that the log writes about itself.
func (l *Log) about(kind Kind, detail string, r *repair) Event {
	e := Event{Kind: kind, Detail: detail, repair: r}
	l.complete(&e)
	return e
}

// admit decides whether there is room for e, and whether its caller may write
// so much. What is under way is always admitted, but counts.
func (l *Log) admit(e *Event) error {
	if len(l.spilled) > 0 {
		l.pending = append(l.pending, l.about(spillKind,
			fmt.Sprintf("%d events are in the journal only: %s", len(l.spilled), strings.Join(l.spilled, " ")), nil))
	}
	if !e.underWay() {
		if err := l.fillReserve(); err != nil {
			l.pending = nil
			return err
		}
	}
	if e.Principal.System() {
		return nil
	}
	return l.charge(e)
}

// lock takes the lock between processes.
func (l *Log) lock() (unlock func(), err error) {
	pause := 20 * time.Microsecond
	for start := time.Now(); time.Since(start) < l.o.LockWait; {
		err := unix.Flock(int(l.head.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			if err = l.sameHead(); err == nil {
				return func() { unix.Flock(int(l.head.Fd()), unix.LOCK_UN) }, nil
			}
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, &os.PathError{Op: "lock", Path: l.head.Name(), Err: err}
		}
		time.Sleep(pause)
		pause = min(2*pause, 2*time.Millisecond)
	}
	return nil, fmt.Errorf("another process has held the lock on %s for %v", l.head.Name(), l.o.LockWait)
}

// sameHead sees to it that what was locked is what others lock: the file may
// have been removed and made again. Then it is opened again, and the error is
// EWOULDBLOCK.
func (l *Log) sameHead() error {
	if _, same, err := l.head.same(l.dir); err != nil || same {
		return err
	}
	fresh, err := l.openChecked(l.head.name, 0, 0o600)
	if err != nil {
		return err
	}
	l.head.Close()
	l.head = fresh
	return unix.EWOULDBLOCK
}

// put writes b. New work gets no space from the reserve.
func (l *Log) put(b []byte, newWork bool) error {
	for len(b) > 0 {
		n, err := unix.Write(int(l.file.Fd()), b)
		b = b[max(n, 0):]
		switch {
		case err == nil || errors.Is(err, unix.EINTR):
		case full(err) && !newWork && l.useReserve():
		case full(err):
			return &FullError{Path: l.o.Path}
		default:
			return &os.PathError{Op: "write", Path: l.o.Path, Err: err}
		}
	}
	return nil
}

// spill gives an event that the file cannot take to the journal.
func (l *Log) spill(e *Event, cause error) error {
	e.Seq, e.Prev = 0, noHash
	line, _ := appendLine(nil, e)
	text := string(line[:len(line)-1])
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return cause
	}
	if err := l.journal.send("audit "+text, field{"JUMPSUITE_EVENT", text}); err != nil {
		return errors.Join(cause, err)
	}
	l.spilled = append(l.spilled, e.ID)
	l.o.Errors.Error("an event went to the journal only", "id", e.ID, "kind", e.Kind, "action", e.Action, "error", cause)
	return nil
}

// explain makes err one that says what to do about it.
func (l *Log) explain(err error) error {
	if _, ok := errors.AsType[interface {
		error
		Hint() string
	}](err); ok {
		return err
	}
	return &WriteError{Path: l.o.Path, Err: err}
}

// Close announces the newest line, if none has been yet, and closes the log.
func (l *Log) Close() error {
	if l == nil {
		return errClosed
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	if l.unheaded > 0 {
		l.sendHead()
	}
	l.release()
	return nil
}

func (l *Log) release() {
	l.closed = true
	if l.timer != nil {
		l.timer.Stop()
	}
	for _, f := range []*os.File{l.file.File, l.head.File, l.rate, l.reserve, l.dir} {
		if f != nil {
			f.Close()
		}
	}
	l.journal.close()
}

// look finds out where the log ends now, and what has to be said about it.
func (l *Log) look() error {
	l.pending, l.broken = nil, false
	st, err := l.follow()
	if err != nil {
		return err
	}
	head, known := readHead(l.head.File)
	if known && head.inode == st.Ino && head.size == st.Size && st.Size > 0 {
		l.at = head
		return nil
	}
	if st.Size == 0 {
		return l.start(st, head)
	}
	return l.examine(st, head)
}

// follow sees to it that l.file is the file that Path names: it may have been
// rotated away.
func (l *Log) follow() (unix.Stat_t, error) {
	st, same, err := l.file.same(l.dir)
	if err != nil || same {
		return st, err
	}
	fresh, err := l.openChecked(l.base, unix.O_APPEND, 0o640)
	if err != nil {
		return st, err
	}
	if err := l.file.Sync(); err != nil {
		fresh.Close()
		return st, &os.PathError{Op: "sync", Path: l.o.Path, Err: err}
	}
	l.file.Close()
	l.file = fresh
	return st, unix.Fstat(int(l.file.Fd()), &st)
}

// start prepares the first line of a file, which names the last of the file
// before it.
func (l *Log) start(st unix.Stat_t, head position) error {
	former, end := l.former(head)
	l.at = position{seq: head.seq, hash: or(head.hash, noHash), inode: st.Ino}
	if end.seq >= head.seq && end.hash != "" {
		l.at.seq, l.at.hash = end.seq, end.hash
	}
	detail := "the log begins"
	switch {
	case former != "":
		detail = "continues " + former
	case head.seq > 0:
		detail = "continues a file that is no longer here"
	}
	l.pending = append(l.pending, l.about(fileKind, detail, end.rubbish))
	return nil
}

// examine reads the end of a file that was changed by others.
func (l *Log) examine(st unix.Stat_t, head position) error {
	end, err := readEnd(l.file.File, st.Size)
	if err != nil {
		return err
	}
	l.at = position{seq: end.seq, hash: or(end.hash, noHash), inode: st.Ino, size: st.Size}
	l.broken = end.broken
	if end.rubbish != nil {
		l.pending = append(l.pending, l.about(repairKind, "what precedes this line was not written whole, or was changed", end.rubbish))
	}
	if end.seq < head.seq || end.seq == head.seq && end.hash != head.hash {
		l.at.seq, l.at.hash = head.seq, head.hash
		l.pending = append(l.pending, l.about(cutKind,
			fmt.Sprintf("line %d had been written, the file ended with %d (cut by hand, or lost with the power)", head.seq, end.seq), nil))
	}
	return nil
}

// former finds the file that was the log before this one, and how it ends.
func (l *Log) former(head position) (name string, end fileEnd) {
	names, _ := Files(l.o.Path)
	for _, path := range slices.Backward(names) {
		if path == l.o.Path {
			continue
		}
		packed := strings.HasSuffix(path, ".gz")
		if packed && head.seq > 0 {
			name = or(name, filepath.Base(path))
			continue
		}
		if e, err := endOf(path); err == nil && e.seq > end.seq {
			name, end = filepath.Base(path), e
		}
	}
	return name, end
}

// endOf reads the end of a file that is no longer written.
func endOf(path string) (fileEnd, error) {
	f, err := OpenFile(path)
	if err != nil {
		return fileEnd{}, err
	}
	defer f.Close()
	if plain, ok := f.(*os.File); ok {
		st, err := plain.Stat()
		if err != nil {
			return fileEnd{}, err
		}
		return readEnd(plain, st.Size())
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return fileEnd{}, err
	}
	return readEnd(strings.NewReader(string(b)), int64(len(b)))
}
