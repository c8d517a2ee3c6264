package audit

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"jumpsuite/internal/cli"
)

// smallDisk is a folder on a file system of its own, of size bytes.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "mode=0750,size="+size); err != nil {
		t.Skipf("mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes all the space that is left.
func fill(t *testing.T, dir string) (path string) {
	t.Helper()
	path = filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(block)
	}
	if !full(err) {
		t.Fatal(err)
	}
	return path
}

func TestAFullDiskStopsNewWorkAndNotWhatIsUnderWay(t *testing.T) {
	o := options(t)
	dir := smallDisk(t, "4m")
	o.Path, o.Reserve = filepath.Join(dir, "audit.log"), 1<<20
	l := openTest(t, o)
	record(t, l, read("docker.ps"))
	filler := fill(t, dir)

	wrote, closed := 0, 0
	for ; wrote < 100; wrote++ { // what is left of the last block may be used
		err := l.Record(read("docker.ps"))
		if err == nil {
			continue
		}
		if _, ok := errors.AsType[*FullError](err); !ok || cli.ExitCode(err) != cli.ExitAudit {
			t.Fatalf("got %v, want a *FullError", err)
		}
		break
	}
	if wrote == 100 {
		t.Fatal("the disk is full, and new work goes on")
	}
	for ; closed < 1200; closed++ {
		e := read("docker.logs")
		e.Kind, e.Result = Close, &Result{}
		if err := l.Record(e); err != nil {
			break
		}
	}
	if closed < 1000 {
		t.Errorf("the reserve took %d closes, want at least 1000", closed)
	}
	if err := l.Record(read("docker.ps")); err == nil {
		t.Error("the reserve is in use, and new work goes on")
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	record(t, l, read("docker.ps"))
	v, findings := verified(t, o.Path)
	if len(findings) > 0 || v.Lines < 1+1+wrote+closed+1 {
		t.Errorf("got %v in %d lines, want none in %d or more", findings, v.Lines, wrote+closed+3)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(l.reserve.Fd()), &st); err != nil || st.Blocks*512 < o.Reserve {
		t.Errorf("the reserve is not whole again: %d of %d bytes, %v", st.Blocks*512, o.Reserve, err)
	}
}

func TestWhatADiskWithoutReserveCannotTakeGoesToTheJournal(t *testing.T) {
	o := options(t)
	dir := smallDisk(t, "512k")
	o.Path = filepath.Join(dir, "audit.log")
	entries := listen(t, &o.Journal)
	l := openTest(t, o)
	record(t, l, read("docker.ps"))
	filler := fill(t, dir)
	var ids []string
	for range 20 {
		e := read("ecs.deploy")
		e.Kind, e.Detail = Change, strings.Repeat("rolling back ", 40)
		record(t, l, e)
		ids = append(ids, e.ID)
	}
	spilled := 0
	for range 40 {
		text, err := next(entries)
		if err != nil {
			break
		}
		if strings.Contains(text, "JUMPSUITE_EVENT={") && strings.Contains(text, "rolling back") {
			spilled++
		}
	}
	if spilled == 0 || spilled > len(ids) {
		t.Fatalf("%d events are in the journal, want some of %d", spilled, len(ids))
	}
	os.Remove(filler)
	record(t, l, read("docker.ps"))
	b, _ := os.ReadFile(o.Path)
	if want := fmt.Sprintf("%d events are in the journal only", spilled); !strings.Contains(string(b), want) || !strings.Contains(string(b), ids[len(ids)-1]) {
		t.Errorf("the log does not say that %s", want)
	}
	if _, findings := verified(t, o.Path); len(findings) > 0 {
		t.Errorf("got %v", findings)
	}
}

// listen plays journald.
func listen(t *testing.T, path *string) <-chan string {
	t.Helper()
	dir, err := os.MkdirTemp("", "j") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	*path = filepath.Join(dir, "s")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: *path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	in := make(chan string, 1000)
	go func() {
		b := make([]byte, 64<<10)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			in <- string(b[:n])
		}
	}()
	return in
}

// next is the next datagram.
func next(in <-chan string) (string, error) {
	select {
	case text := <-in:
		return text, nil
	case <-time.After(200 * time.Millisecond):
		return "", os.ErrDeadlineExceeded
	}
}

// heads are the numbers of the heads that were sent, in their order.
func heads(c <-chan string) (out []string) {
	for {
		text, err := next(c)
		if err != nil {
			return out
		}
		for line := range strings.Lines(text) {
			if seq, ok := strings.CutPrefix(line, "JUMPSUITE_SEQ="); ok {
				out = append(out, strings.TrimSpace(seq))
			}
		}
	}
}

func TestHeadsGoToTheJournal(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(l *Log)
		want string
	}{
		{"the first line, and the last when the log is closed", func(l *Log) {
			record(t, l, read("docker.ps"), read("docker.ps"), read("docker.ps"))
			l.Close()
		}, "2 4"},
		{"what changes something, at once", func(l *Log) { record(t, l, read("docker.ps"), read("docker.ps"), read("docker.exec")) }, "2 4"},
		{"each ten lines", func(l *Log) {
			for range 30 {
				record(t, l, read("docker.ps"))
			}
		}, "2 12 22"},
		{"by time", func(l *Log) {
			l.o.HeadTime = 10 * time.Millisecond
			record(t, l, read("docker.ps"), read("docker.ps"))
		}, "2 3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := options(t)
			o.HeadLines = 10
			c := listen(t, &o.Journal)
			tt.do(openTest(t, o))
			if got := strings.Join(heads(c), " "); got != tt.want {
				t.Errorf("got heads %s, want %s", got, tt.want)
			}
		})
	}
}

func TestAHeadIsWhatTheVerifierReads(t *testing.T) {
	o := options(t)
	c := listen(t, &o.Journal)
	l := openTest(t, o)
	record(t, l, read("docker.ps"))
	text, err := next(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"MESSAGE=head seq=2 hash=" + l.at.hash + " log=" + o.Path + "\n", "PRIORITY=6\n", "SYSLOG_IDENTIFIER=jumpsuite-audit\n", "MESSAGE_ID=" + HeadMessageID + "\n", "JUMPSUITE_LOG=" + o.Path + "\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in %q", want, text)
		}
	}
	got, _, err := ReadHeads(strings.NewReader(text), 0, o.Path)
	if err != nil || len(got) != 1 {
		t.Fatalf("got %v, %v", got, err)
	}
	os.Truncate(o.Path, int64(len(strings.Join(lines(t, o.Path)[:1], ""))))
	if _, findings := verified(t, o.Path, got...); len(findings) != 1 || findings[0].Fault != CutOff || findings[0].Line != 1 {
		t.Errorf("got %v, want it cut after line 1", findings)
	}
}

func TestSyslogTakesHeadsWhereThereIsNoJournal(t *testing.T) {
	o := options(t)
	c := listen(t, &o.Syslog)
	l := openTest(t, o)
	record(t, l, read("docker.ps"))
	text, err := next(c)
	want := fmt.Sprintf("<86>jumpsuite-audit[%d]: head seq=2 hash=%s log=%s", os.Getpid(), l.at.hash, o.Path)
	if err != nil || text != want {
		t.Errorf("got %q, %v; want %q", text, err, want)
	}
}
