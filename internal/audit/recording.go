package audit

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// RecordingOptions say what is recorded, and where.
type RecordingOptions struct {
	// Folder holds recordings/YYYY/MM/DD/ID.cast. If empty, DefaultFolder.
	Folder string

	// Owner is the user id that must own the folders. Zero is root.
	Owner int

	// ID is the audit id of the session. Its own time says in which folder the
	// recording is.
	ID string

	// Columns and Rows are the terminal's size at the start. Zero is 80 by 24.
	Columns, Rows int

	// Terminal says that the session has one. Without one, a newline is recorded
	// as CR LF, which is what a terminal would have made of it.
	Terminal bool

	// Input records what is typed, too: passwords as well.
	Input bool

	// Title and Term go into the header.
	Title, Term string

	// Limit is the most that a recording may take, in bytes. Zero is 256 MiB,
	// negative is no limit.
	Limit int64

	// MinFree is what must stay free on the disk, in bytes, so that a recording
	// does not stop everybody's work. Zero is 64 MiB, negative is nothing.
	MinFree int64

	// FlushEvery is how long output may wait before it is written. Zero is a second.
	FlushEvery time.Duration

	// Now is the clock. If nil, time.Now.
	Now func() time.Time
}

func (o RecordingOptions) resolved() RecordingOptions {
	o.Folder = or(o.Folder, DefaultFolder)
	o.Columns, o.Rows = or(o.Columns, 80), or(o.Rows, 24)
	o.Limit = or(o.Limit, 256<<20)
	o.MinFree = or(o.MinFree, 64<<20)
	o.FlushEvery = or(o.FlushEvery, time.Second)
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// RecordingPath is where the recording of the session id is, below folder.
func RecordingPath(folder, id string) (string, error) {
	t, err := ParseID(id)
	if err != nil {
		return "", err
	}
	return filepath.Join(folder, "recordings", t.Format("2006/01/02"), id+".cast"), nil
}

// Recording writes a session as asciicast v2
// (https://docs.asciinema.org/manual/asciicast/v2/). Its methods may be called
// from several goroutines. Once one has failed, all do, and Failed is closed:
// then the session must end.
type Recording struct {
	o     RecordingOptions
	file  *os.File
	start time.Time

	mu      sync.Mutex
	w       *bufio.Writer
	sum     hash.Hash
	size    int64
	out, in decoder
	line    []byte
	timer   *time.Timer
	err     error
	failed  chan struct{}
	closed  bool
}

// recordingBuffer is how much output waits in memory at most, in bytes.
const recordingBuffer = 64 << 10

// StartRecording makes the file of a recording, which must not be there yet,
// and writes its header.
func StartRecording(o RecordingOptions) (*Recording, error) {
	o = o.resolved()
	path, err := RecordingPath(o.Folder, o.ID)
	if err != nil {
		return nil, err
	}
	f, err := createRecording(o.Folder, path, o.Owner)
	if err != nil {
		return nil, &WriteError{Path: path, Err: err}
	}
	r := &Recording{o: o, file: f, start: o.Now(), sum: sha256.New(), failed: make(chan struct{})}
	r.out.newlines = !o.Terminal
	r.w = bufio.NewWriterSize(recordingFile{r}, recordingBuffer)
	if err := r.header(); err != nil {
		f.Close()
		return nil, err
	}
	return r, nil
}

// createRecording makes the folders from folder down to path, and the file. Each
// is opened from the one above it, checked, and is no link.
func createRecording(folder, path string, owner int) (*os.File, error) {
	dir, err := openFolder(folder, owner)
	if err != nil {
		return nil, err
	}
	defer func() { dir.Close() }()
	rest, err := filepath.Rel(folder, path)
	if err != nil {
		return nil, err
	}
	parts := strings.Split(rest, "/")
	for _, name := range parts[:len(parts)-1] {
		below, err := folderIn(dir, name, owner)
		if err != nil {
			return nil, err
		}
		dir.Close()
		dir = below
	}
	fd, err := unix.Openat(int(dir.Fd()), parts[len(parts)-1],
		unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "create", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func folderIn(dir *os.File, name string, owner int) (*os.File, error) {
	path := filepath.Join(dir.Name(), name)
	if err := unix.Mkdirat(int(dir.Fd()), name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, &os.PathError{Op: "make folder", Path: path, Err: err}
	}
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_RDONLY, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open folder", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	if err := trusted(f, owner, 0o022); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (r *Recording) header() error {
	l := line{b: []byte{'{'}}
	l.number("version", 2)
	l.number("width", int64(r.o.Columns))
	l.number("height", int64(r.o.Rows))
	l.number("timestamp", r.start.Unix())
	l.text("title", r.o.Title, maxText)
	if r.o.Term != "" {
		l.open("env", '{')
		l.text("TERM", r.o.Term, maxName)
		l.close('}')
	}
	l.close('}')
	r.mu.Lock()
	defer r.mu.Unlock()
	r.w.Write(append(l.b, '\n'))
	return r.flush()
}

// Write records output. It fails when the recording has failed, at once or
// before.
func (r *Recording) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(p), r.events('o', &r.out, p)
}

// Input records what was typed, if the recording is to hold that.
func (r *Recording) Input(p []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.o.Input {
		return r.err
	}
	return r.events('i', &r.in, p)
}

// eventBytes is how much one line of a recording takes, before escapes.
const eventBytes = 32 << 10

func (r *Recording) events(code byte, d *decoder, p []byte) error {
	for len(p) > eventBytes {
		r.event(code, d.decode(p[:eventBytes]))
		p = p[eventBytes:]
	}
	return r.event(code, d.decode(p))
}

// Resize records that the terminal has another size.
func (r *Recording) Resize(columns, rows int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.event('r', []byte(fmt.Sprintf("%dx%d", columns, rows)))
}

// Failed is closed when the recording has failed, so that a session that is
// silent ends, too.
func (r *Recording) Failed() <-chan struct{} { return r.failed }

// Err is why the recording has failed, nil when it has not.
func (r *Recording) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Path is where the recording is.
func (r *Recording) Path() string { return r.file.Name() }

// Close writes what is left, and syncs. sum is the SHA-256 of the whole file,
// hex, for Result.Recording.
func (r *Recording) Close() (sum string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return hex.EncodeToString(r.sum.Sum(nil)), r.err
	}
	r.event('o', r.out.rest())
	r.event('i', r.in.rest())
	r.flush()
	if err := r.file.Sync(); err != nil {
		r.fail(err)
	}
	if err := r.file.Close(); err != nil {
		r.fail(err)
	}
	r.closed = true
	return hex.EncodeToString(r.sum.Sum(nil)), r.err
}

func (r *Recording) event(code byte, data []byte) error {
	if r.err != nil || len(data) == 0 {
		return r.err
	}
	if r.closed {
		return os.ErrClosed
	}
	b := append(r.line[:0], '[')
	b = strconv.AppendFloat(b, r.o.Now().Sub(r.start).Seconds(), 'f', 6, 64)
	b = append(b, ',', ' ', '"', code, '"', ',', ' ')
	b, _ = appendQuoted(b, string(data), 6*len(data))
	b = append(b, ']', '\n')
	r.line = b[:0]
	if _, err := r.w.Write(b); err != nil {
		return r.fail(err)
	}
	if r.timer == nil {
		r.timer = time.AfterFunc(r.o.FlushEvery, r.flushByTime)
	}
	return nil
}

func (r *Recording) flushByTime() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.timer = nil
	if !r.closed {
		r.flush()
	}
}

func (r *Recording) flush() error {
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
	if err := r.w.Flush(); err != nil {
		return r.fail(err)
	}
	return r.err
}

func (r *Recording) fail(err error) error {
	if r.err == nil {
		r.err = &WriteError{Path: r.file.Name(), Err: err}
		close(r.failed)
	}
	return r.err
}

// recordingFile is the file behind the buffer: counted, limited, and summed.
type recordingFile struct{ r *Recording }

func (f recordingFile) Write(p []byte) (int, error) {
	r := f.r
	if r.o.Limit > 0 && r.size+int64(len(p)) > r.o.Limit {
		return 0, fmt.Errorf("the recording would be longer than %d bytes", r.o.Limit)
	}
	if err := r.room(); err != nil {
		return 0, err
	}
	n, err := r.file.Write(p)
	r.size += int64(n)
	r.sum.Write(p[:n])
	return n, err
}

func (r *Recording) room() error {
	if r.o.MinFree < 0 {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(r.file.Fd()), &st); err != nil {
		return os.NewSyscallError("fstatfs", err)
	}
	if free := int64(st.Bavail) * st.Bsize; free < r.o.MinFree {
		return fmt.Errorf("only %d bytes are free on the disk, and %d are kept for the log", free, r.o.MinFree)
	}
	return nil
}

// decoder makes text of a stream of bytes. A character that is split between two
// writes is kept until it is whole; what is no UTF-8 becomes U+FFFD, as
// asciinema does it.
type decoder struct {
	newlines bool // write LF as CR LF
	cr       bool // the last byte was CR
	held     []byte
	b        []byte
}

func (d *decoder) decode(p []byte) []byte {
	d.b = append(append(d.b[:0], d.held...), p...)
	n := whole(d.b)
	d.held = append(d.held[:0], d.b[n:]...)
	return d.terminated(d.b[:n])
}

// rest is what was kept, which now will not become whole.
func (d *decoder) rest() []byte {
	rest := d.held
	d.held = nil
	return rest
}

// terminated writes LF as CR LF, where that is asked for.
func (d *decoder) terminated(b []byte) []byte {
	if !d.newlines {
		return b
	}
	out := make([]byte, 0, len(b)+len(b)/16)
	for _, c := range b {
		if c == '\n' && !d.cr {
			out = append(out, '\r')
		}
		out = append(out, c)
		d.cr = c == '\r'
	}
	return out
}

// whole is how much of b can be decoded now: all but the beginning of a
// character at its end.
func whole(b []byte) int {
	for i := len(b) - 1; i >= 0 && i > len(b)-utf8.UTFMax; i-- {
		if utf8.RuneStart(b[i]) {
			if utf8.FullRune(b[i:]) {
				return len(b)
			}
			return i
		}
	}
	return len(b)
}

// Moment is one event of a recording.
type Moment struct {
	At   time.Duration
	Code string // o, i, r, m
	Data string
}

// RecordingHeader is the first line of a recording.
type RecordingHeader struct {
	Version   int               `json:"version"`
	Width     int               `json:"width"`
	Height    int               `json:"height"`
	Timestamp int64             `json:"timestamp"`
	Title     string            `json:"title"`
	Env       map[string]string `json:"env"`
}

// ReadRecording reads an asciicast v2, and calls each for its moments until that
// returns an error, which it returns.
func ReadRecording(r io.Reader, header func(RecordingHeader) error, each func(Moment) error) error {
	b := bufio.NewReaderSize(r, 64<<10)
	for n := 1; ; n++ {
		raw, long, err := readRaw(b)
		if err != nil && err != io.EOF {
			return err
		}
		if len(raw) == 0 && err == io.EOF {
			if n == 1 {
				return &DamagedError{What: "the recording", Err: errors.New("it is empty")}
			}
			return nil
		}
		if err := readMoment(n, raw, long, header, each); err != nil {
			return err
		}
	}
}
