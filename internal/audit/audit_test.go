package audit

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"jumpsuite/internal/cli"
)

// options are those of a test: a log in a folder of its own, no reserve unless
// it is asked for, and a journal that nobody reads.
func options(t testing.TB) Options {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	return Options{Path: filepath.Join(dir, "log", "audit.log"), Owner: os.Getuid(), Reserve: -1, Host: "jump1",
		Journal: filepath.Join(dir, "nojournal"), Syslog: filepath.Join(dir, "nosyslog")}
}

func openTest(t testing.TB, o Options) *Log {
	t.Helper()
	l, err := OpenLog(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func read(action string) *Event {
	return &Event{Kind: Decision, Principal: Principal{UID: 1001, Name: "dev1", Groups: []string{"dev"}}, Environment: "prod",
		Action: action, Resource: Resource{ContainerType: "web"}, Verdict: Allow, Rule: "debug"}
}

func record(t testing.TB, l *Log, events ...*Event) {
	t.Helper()
	for _, e := range events {
		if err := l.Record(e); err != nil {
			t.Fatalf("record %s: %v", e.Action, err)
		}
	}
}

// verified reads the log at path with all its files.
func verified(t testing.TB, path string, heads ...Head) (*Verifier, []Finding) {
	t.Helper()
	files, err := Files(path)
	if err != nil {
		t.Fatal(err)
	}
	v := &Verifier{Heads: heads}
	for _, name := range files {
		f, err := OpenNow(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Read(filepath.Base(name), f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return v, v.Findings()
}

func wantIntact(t testing.TB, path string, lines int) *Verifier {
	t.Helper()
	v, findings := verified(t, path)
	if len(findings) > 0 || v.Lines != lines {
		b, _ := os.ReadFile(path)
		t.Fatalf("got %d lines, findings %v; want %d lines and none\n%s", v.Lines, findings, lines, b)
	}
	return v
}

func TestAnEventComesBackAsItWasWritten(t *testing.T) {
	o := options(t)
	l := openTest(t, o)
	open := &Event{Kind: Open, Principal: Principal{UID: 1001, Name: "dev1", Groups: []string{"dev", "web"}, Key: "k1"}, Environment: "prod",
		Action: "docker.exec", Resource: Resource{Container: "4f1c", Name: "web-1", ContainerType: "web", Image: "r/web:1", Host: "10.0.0.1"},
		Verdict: Allow, Rule: "debug", Reason: "ticket \x1b[31m42", Argv: []string{"bash", "-c", "a\nb"}, Far: "f1"}
	record(t, l, open)
	done := &Event{ID: open.ID, Kind: Close, Principal: open.Principal, Action: "docker.exec",
		Result: &Result{Exit: 143, Signal: "TERM", In: 3, Out: 4, Duration: 5 * time.Millisecond, Recording: strings.Repeat("a", 64)}}
	record(t, l, done)

	b, err := os.ReadFile(o.Path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	if len(lines) != 3 {
		t.Fatalf("got %d lines, want 3:\n%s", len(lines), b)
	}
	for i, want := range []*Event{open, done} {
		got, err := ParseLine([]byte(lines[i+1]))
		if err != nil {
			t.Fatal(err)
		}
		want.Time = want.Time.UTC().Round(0) // takes the monotonic clock off
		if !reflect.DeepEqual(got, *want) {
			t.Errorf("got  %+v\nwant %+v", got, *want)
		}
	}
	if !strings.Contains(lines[1], `"reason":"ticket \u001b[31m42"`) || !strings.Contains(lines[1], `"a\nb"`) {
		t.Errorf("control characters are not escaped: %s", lines[1])
	}
	wantIntact(t, o.Path, 3)
}

func TestTheKeysOfALineHaveAFixedOrder(t *testing.T) {
	e := read("docker.logs")
	e.Seq, e.Prev, e.Host, e.PID, e.ID = 7, noHash, "jump1", 9, "01"
	e.Time = time.Date(2026, 1, 31, 14, 0, 0, 5, time.UTC)
	e.Detail, e.Argv = "d", []string{"-f"}
	line, hash := appendLine(nil, e)
	want := `{"v":1,"seq":7,"prev":"` + noHash + `","time":"2026-01-31T14:00:00.000000005Z","id":"01","kind":"decision","host":"jump1","pid":9,` +
		`"principal":{"uid":1001,"name":"dev1","groups":["dev"]},"environment":"prod","action":"docker.logs","resource":{"container_type":"web"},` +
		`"verdict":"allow","rule":"debug","argv":["-f"],"detail":"d","hash":"` + hash + `"}` + "\n"
	if string(line) != want {
		t.Errorf("got  %s\nwant %s", line, want)
	}
}

func TestEventsThatSayTooLittleAreRefused(t *testing.T) {
	l := openTest(t, options(t))
	for _, tt := range []struct {
		name string
		edit func(*Event)
		want string
	}{
		{"no principal", func(e *Event) { e.Principal = Principal{} }, "record decision of docker.ps: the event names no principal"},
		{"no action", func(e *Event) { e.Action = "" }, "record decision: the event names no action"},
		{"no kind", func(e *Event) { e.Kind = "" }, `record event: kind "" is not one that a caller writes`},
		{"a kind of the log's own", func(e *Event) { e.Kind = cutKind }, `record event: kind "cut" is not one that a caller writes`},
		{"close without a result", func(e *Event) { e.Kind = Close }, "record close of docker.ps: the event has no result"},
		{"an id that is a path", func(e *Event) { e.ID = "../../etc/passwd" }, `record decision of docker.ps: "../../etc/passwd" is not an audit id (26 of 0-9 a-z without i, l, o, u)`},
	} {
		e := read("docker.ps")
		tt.edit(e)
		if err := l.Record(e); err == nil || err.Error() != tt.want {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
	}
	var none *Log
	if err := none.Record(read("docker.ps")); !errors.Is(err, errClosed) {
		t.Errorf("no log: got %v, want %v", err, errClosed)
	}
}

func TestOverlongFieldsAreCutAndSaySo(t *testing.T) {
	long := strings.Repeat("\x1b", 100_000)
	e := &Event{Kind: Open, Principal: Principal{UID: 1, Name: long, Key: long}, Environment: long, Action: long, Host: long, Far: long,
		Resource: Resource{long, long, long, long, long}, Rule: long, Reason: long, Detail: long, ID: long,
		Result: &Result{Signal: long, Recording: long, Error: long}}
	for range 10_000 {
		e.Argv = append(e.Argv, long)
		e.Principal.Groups = append(e.Principal.Groups, long)
	}
	line, _ := appendLine(nil, e)
	if len(line) > MaxLine {
		t.Errorf("the longest line has %d bytes, want at most %d", len(line), MaxLine)
	}
	e.Prev = noHash
	line, _ = appendLine(nil, e)
	got, err := ParseLine(line[:len(line)-1])
	if err != nil {
		t.Fatal(err)
	}
	cut := strings.Join(got.Cut, " ")
	for _, name := range []string{"name", "groups", "argv", "reason", "detail", "error"} {
		if !strings.Contains(cut, name) {
			t.Errorf("cut fields %q do not name %s", cut, name)
		}
	}
}

func TestIDsSortByTimeAndCarryIt(t *testing.T) {
	at := time.Date(2026, 1, 31, 23, 59, 59, 0, time.UTC)
	a, b := NewID(at), NewID(at.Add(time.Millisecond))
	if a >= b {
		t.Errorf("%s is not before %s", a, b)
	}
	got, err := ParseID(a)
	if err != nil || !got.Equal(at) {
		t.Errorf("got %v, %v; want %v", got, err, at)
	}
	for _, bad := range []string{"", a[:25], a + "0", strings.ToUpper(a), a[:25] + "/", a[:25] + "z"} {
		if _, err := ParseID(bad); err == nil {
			t.Errorf("%q passes for an id", bad)
		}
	}
}

func TestSeveralLogsOnOneFileMakeOneChain(t *testing.T) {
	o := options(t)
	logs := []*Log{openTest(t, o), openTest(t, o), openTest(t, o)}
	var wg sync.WaitGroup
	for _, l := range logs {
		for range 3 {
			wg.Go(func() {
				for range 20 {
					record(t, l, read("docker.ps"))
				}
			})
		}
	}
	wg.Wait()
	wantIntact(t, o.Path, 1+3*3*20)
}

// TestWriteUntilKilled is a process of the test below.
func TestWriteUntilKilled(t *testing.T) {
	path := os.Getenv("AUDIT_TEST_LOG")
	if path == "" {
		return
	}
	o := options(t)
	o.Path, o.Burst = path, 1e12
	l := openTest(t, o)
	for {
		record(t, l, read("docker.ps"))
	}
}

func TestProcessesThatAreKilledLeaveAWholeChain(t *testing.T) {
	o := options(t)
	openTest(t, o).Close()
	var writers []*exec.Cmd
	for range 4 {
		w := exec.Command(os.Args[0], "-test.run=^TestWriteUntilKilled$")
		w.Env = append(os.Environ(), "AUDIT_TEST_LOG="+o.Path)
		if err := w.Start(); err != nil {
			t.Fatal(err)
		}
		writers = append(writers, w)
	}
	for n, w := range writers {
		size := int64(0)
		for start := time.Now(); size < int64(n+1)*50_000 && time.Since(start) < 20*time.Second; time.Sleep(time.Millisecond) {
			if st, err := os.Stat(o.Path); err == nil {
				size = st.Size()
			}
		}
		w.Process.Kill()
		w.Wait()
	}
	record(t, openTest(t, o), read("docker.ps"))
	v, findings := verified(t, o.Path)
	if len(findings) > 0 || v.Lines < 100 {
		t.Errorf("got %v in %d lines, want none in 100 or more", findings, v.Lines)
	}
	pids := map[int]bool{}
	f, err := os.Open(o.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ReadLines(f, func(l Line) error { pids[l.Event.PID] = true; return nil })
	if len(pids) < 3 {
		t.Errorf("only %d processes wrote", len(pids))
	}
}

func TestTheChainGoesOnOverRotatedFiles(t *testing.T) {
	for _, held := range []bool{true, false} {
		t.Run(fmt.Sprintf("writer stays %v", held), func(t *testing.T) {
			o := options(t)
			l := openTest(t, o)
			for n := range 4 {
				record(t, l, read("docker.ps"), read("docker.logs"))
				if err := os.Rename(o.Path, fmt.Sprintf("%s.%d", o.Path, 9-n)); err != nil {
					t.Fatal(err)
				}
				if !held {
					l.Close()
					l = openTest(t, o)
				}
			}
			record(t, l, read("docker.ps"))
			v := wantIntact(t, o.Path, 4*3+2)
			if v.First != 1 || v.Last != 14 {
				t.Errorf("got lines %d to %d, want 1 to 14", v.First, v.Last)
			}
		})
	}
}

func TestALostHeadFileIsMadeAgainFromTheLog(t *testing.T) {
	o := options(t)
	l := openTest(t, o)
	record(t, l, read("docker.ps"))
	head := filepath.Join(filepath.Dir(o.Path), ".audit.log.head")
	for _, harm := range []func() error{
		func() error { return os.Remove(head) },
		func() error { return os.WriteFile(head, []byte("torn"), 0o600) },
		func() error { return os.Truncate(head, 0) },
		func() error { return errors.Join(os.Remove(head), os.Rename(o.Path, o.Path+".1")) },
	} {
		if err := harm(); err != nil {
			t.Fatal(err)
		}
		record(t, l, read("docker.ps"))
		record(t, openTest(t, o), read("docker.ps"))
	}
	wantIntact(t, o.Path, 1+1+4*2+1)
}

func TestAWriterThatDiedBeforeItsNoteIsNoFault(t *testing.T) {
	o := options(t)
	l := openTest(t, o)
	record(t, l, read("docker.ps"))
	head := filepath.Join(filepath.Dir(o.Path), ".audit.log.head")
	noted, err := os.ReadFile(head)
	if err != nil {
		t.Fatal(err)
	}
	record(t, l, read("docker.ps"))
	if err := os.WriteFile(head, noted, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(o.Path, o.Path+".1"); err != nil {
		t.Fatal(err)
	}
	record(t, openTest(t, o), read("docker.ps"))
	if err := os.WriteFile(head, noted, 0o600); err != nil {
		t.Fatal(err)
	}
	record(t, openTest(t, o), read("docker.ps"))
	wantIntact(t, o.Path, 3+3)
}

func TestPartOfALineIsMarkedNotHidden(t *testing.T) {
	for _, tt := range []struct{ name, rubbish string }{
		{"a few bytes", `{"v":1,"seq":3`},
		{"more than the first look takes", strings.Repeat("x", 3*MaxLine)},
		{"zeros, as a lost power leaves them", strings.Repeat("\x00", 4096)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := options(t)
			record(t, openTest(t, o), read("docker.ps"))
			appendTo(t, o.Path, tt.rubbish)
			_, findings := verified(t, o.Path)
			if len(findings) != 1 || findings[0].Fault != Partial || findings[0].Line != 3 {
				t.Errorf("before the repair: got %v, want line 3 partial", findings)
			}
			record(t, openTest(t, o), read("docker.logs"))
			v := wantIntact(t, o.Path, 4)
			if notes := strings.Join(v.Notes, "\n"); !strings.Contains(notes, fmt.Sprintf("audit.log:3: part of a line of %d bytes", len(tt.rubbish))) {
				t.Errorf("got notes %q, want line 3 named", notes)
			}
		})
	}
}

func TestPartOfALineBeforeARotationIsMarkedInTheNewFile(t *testing.T) {
	o := options(t)
	record(t, openTest(t, o), read("docker.ps"))
	appendTo(t, o.Path, `{"v":1`)
	os.Rename(o.Path, o.Path+".1")
	record(t, openTest(t, o), read("docker.ps"))
	v := wantIntact(t, o.Path, 4)
	if notes := strings.Join(v.Notes, "\n"); !strings.Contains(notes, "audit.log.1:3: part of a line of 6 bytes") {
		t.Errorf("got notes %q", notes)
	}
}

func TestAChangedLastLineIsNotTakenForACrash(t *testing.T) {
	o := options(t)
	record(t, openTest(t, o), read("docker.ps"))
	b, _ := os.ReadFile(o.Path)
	b[len(b)-100] ^= 1
	os.WriteFile(o.Path, append(b, "more"...), 0o640)
	record(t, openTest(t, o), read("docker.logs"))
	_, findings := verified(t, o.Path)
	if len(findings) == 0 || findings[0].Line != 2 || findings[0].Fault != Altered {
		t.Errorf("got %v, want line 2 altered", findings)
	}
}

func TestACutTailIsMarkedByTheNextWriter(t *testing.T) {
	o := options(t)
	l := openTest(t, o)
	record(t, l, read("docker.ps"), read("docker.ps"), read("docker.ps"))
	b, _ := os.ReadFile(o.Path)
	lines := strings.SplitAfter(string(b), "\n")
	os.WriteFile(o.Path, []byte(strings.Join(lines[:2], "")), 0o640)
	record(t, l, read("docker.ps"))
	_, findings := verified(t, o.Path)
	if len(findings) != 1 || findings[0].Fault != Dropped || findings[0].Line != 3 {
		t.Fatalf("got %v, want lines dropped before line 3", findings)
	}
	b, _ = os.ReadFile(o.Path)
	if !strings.Contains(string(b), "line 4 had been written, the file ended with 2") {
		t.Errorf("no mark in\n%s", b)
	}
}

func appendTo(t *testing.T, path, s string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(s); err != nil {
		t.Fatal(err)
	}
}

func TestWhatOthersCouldChangeIsNotWrittenTo(t *testing.T) {
	for _, tt := range []struct {
		name string
		harm func(path string) error
		want string
	}{
		{"file for all to write", func(p string) error { return os.Chmod(p, 0o666) }, "has mode 0666"},
		{"file for all to read", func(p string) error { return os.Chmod(p, 0o644) }, "has mode 0644"},
		{"folder for the group to write", func(p string) error { return os.Chmod(filepath.Dir(p), 0o770) }, "has mode 0770"},
		{"link", func(p string) error { return errors.Join(os.Rename(p, p+".x"), os.Symlink(p+".x", p)) }, "too many levels of symbolic links"},
		{"hard link", func(p string) error { return os.Link(p, p+".x") }, "has 2 names"},
		{"folder is a link", func(p string) error {
			d := filepath.Dir(p)
			return errors.Join(os.Rename(d, d+".x"), os.Symlink(d+".x", d))
		}, "not a directory"},
		{"pipe", func(p string) error { return errors.Join(os.Remove(p), unix.Mkfifo(p, 0o640)) }, "neither a file nor a folder"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := options(t)
			openTest(t, o).Close()
			if err := tt.harm(o.Path); err != nil {
				t.Fatal(err)
			}
			_, err := OpenLog(o)
			if err == nil || !strings.Contains(err.Error(), tt.want) || cli.ExitCode(err) != cli.ExitAudit {
				t.Errorf("got %v, want %q with code %d", err, tt.want, cli.ExitAudit)
			}
		})
	}
}

func TestAFileOfAnotherOwnerIsNotWrittenTo(t *testing.T) {
	o := options(t)
	openTest(t, o).Close()
	o.Owner++
	if _, err := OpenLog(o); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("belongs to uid %d, not to %d", os.Getuid(), o.Owner)) {
		t.Errorf("got %v", err)
	}
}

func TestFilesAreForTheOwnerAndReaders(t *testing.T) {
	o := options(t)
	o.Reserve = 1 << 16
	old := unix.Umask(0o077)
	l := openTest(t, o)
	record(t, l, read("docker.ps"))
	unix.Umask(old)
	for name, want := range map[string]os.FileMode{".": 0o750, "audit.log": 0o640, ".audit.log.head": 0o600, ".audit.log.rate": 0o600, ".audit.log.reserve": 0o600} {
		st, err := os.Stat(filepath.Join(filepath.Dir(o.Path), name))
		if err != nil {
			t.Fatal(err)
		}
		// Where there is no group adm, the umask's narrower mode stays.
		if got := st.Mode().Perm(); got&^want != 0 || got&0o600 != 0o600 {
			t.Errorf("%s: got mode %o, want %o or less", name, got, want)
		}
	}
}

func TestALockThatIsHeldFailsInTheEnd(t *testing.T) {
	o := options(t)
	o.LockWait = 50 * time.Millisecond
	l := openTest(t, o)
	f, err := os.Open(filepath.Join(filepath.Dir(o.Path), ".audit.log.head"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	if err := l.Record(read("docker.ps")); err == nil || !strings.Contains(err.Error(), "another process has held the lock") {
		t.Errorf("got %v", err)
	}
}

func TestOneCallerCannotFillTheDisk(t *testing.T) {
	o := options(t)
	now := time.Date(2026, 1, 31, 14, 0, 0, 0, time.UTC)
	o.Now = func() time.Time { return now }
	o.Rate, o.Burst = 1000, 20_000
	l := openTest(t, o)
	var refused *RateError
	allowed := 0
	for range 200 {
		var ok bool
		err := l.Record(read("docker.ps"))
		if refused, ok = errors.AsType[*RateError](err); !ok && err != nil {
			t.Fatal(err)
		} else if !ok {
			allowed++
		}
	}
	if refused == nil || allowed < 20 || allowed > 60 {
		t.Fatalf("got %d allowed of 200, refusal %v", allowed, refused)
	}
	if refused.Error() != "dev1 has filled the audit log too fast" || refused.Wait <= 0 || cli.ExitCode(refused) != cli.ExitNotAllowed {
		t.Errorf("got %v, wait %v", refused, refused.Wait)
	}
	// A process of its own has the same bucket, what is under way goes on, and others do, too.
	again := openTest(t, o)
	if err := again.Record(read("docker.ps")); err == nil {
		t.Error("another process lets the caller go on")
	}
	closing := read("docker.logs")
	closing.Kind, closing.Result = Close, &Result{}
	other := read("docker.ps")
	other.Principal = Principal{UID: 1002, Name: "dev2"}
	reaper := read("docker.ps")
	reaper.Principal = Principal{Name: "system:reaper"}
	record(t, again, closing, other, reaper)
	now = now.Add(refused.Wait)
	record(t, again, read("docker.ps"))
	b, _ := os.ReadFile(o.Path)
	for what, n := range map[string]int{"is refused for now": 1, "requests of this caller were refused": 1} {
		if got := strings.Count(string(b), what); got != n {
			t.Errorf("%q stands %d times in the log, want %d", what, got, n)
		}
	}
	if want := fmt.Sprintf("%d requests of this caller", 200-allowed+1); !strings.Contains(string(b), want) {
		t.Errorf("the log does not say %q", want)
	}
	wantIntact(t, o.Path, 1+allowed+1+3+2)
}

func TestTheClockSetBackDoesNotLockCallersOut(t *testing.T) {
	o := options(t).resolved()
	o.Rate, o.Burst = 1000, 10_000
	now := time.Now()
	slots := make([]bucket, slotReach)
	i := pick(slots, 7, o, now.Add(24*time.Hour))
	slots[i].tokens = -1
	if j := pick(slots, 7, o, now); j != i || slots[j].tokens > 0 {
		t.Fatalf("got slot %d with %v", j, slots[j].tokens)
	}
	pick(slots, 7, o, now.Add(time.Second))
	if slots[i].tokens < 900 {
		t.Errorf("a second later: got %v tokens, want about 999", slots[i].tokens)
	}
}

func TestABucketThatIsInUseIsNotGivenAway(t *testing.T) {
	o := options(t).resolved()
	now := time.Now()
	slots := make([]bucket, slotReach)
	for key := range uint64(slotReach) {
		i := pick(slots, key+1, o, now)
		slots[i].tokens = float64(key)
	}
	pick(slots, 100, o, now)
	for key := range uint64(slotReach - 1) {
		if i := pick(slots, key+1, o, now); slots[i].tokens > float64(key)+1 {
			t.Errorf("caller %d got %v tokens from a stranger's coming", key+1, slots[i].tokens)
		}
	}
}
