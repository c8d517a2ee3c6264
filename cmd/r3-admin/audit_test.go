package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"jumpsuite/internal/audit"
	"jumpsuite/internal/cli"
)

// sessionID is the audit id of the recorded session in the sample.
const sessionID = "06bzkhpg00000000000000000w"

// sampleLog is a command of the scripts: it writes a log of two files and a
// recording into the folder var, and the newest head into heads.
func sampleLog() {
	if err := writeSample("var", "heads"); err != nil {
		cli.Report(os.Stderr, "sample-log", err)
		os.Exit(cli.ExitCode(err))
	}
}

func writeSample(folder, heads string) error {
	now := time.Date(2026, 1, 31, 10, 0, 0, 0, time.UTC)
	path := filepath.Join(folder, "audit.log")
	l, err := audit.OpenLog(audit.Options{Path: path, Owner: os.Getuid(), Reserve: -1, Host: "jump1",
		Journal: "/nonexistent", Syslog: "/nonexistent", Now: func() time.Time { now = now.Add(time.Minute); return now }})
	if err != nil {
		return err
	}
	defer l.Close()
	sum, err := writeRecording(folder)
	if err != nil {
		return err
	}
	dev1 := audit.Principal{UID: 1001, Name: "dev1", Groups: []string{"dev"}}
	dev2 := audit.Principal{UID: 1002, Name: "dev2", Groups: []string{"dev"}}
	web := audit.Resource{Container: "4f1c00", Name: "web-1", ContainerType: "web"}
	events := []audit.Event{
		{Kind: audit.Decision, Principal: dev1, Environment: "prod", Action: "docker.ps", Verdict: audit.Allow, Rule: "debug"},
		{ID: sessionID, Kind: audit.Open, Principal: dev1, Environment: "prod", Action: "docker.exec", Resource: web, Verdict: audit.Allow, Rule: "debug", Argv: []string{"bash"}},
		{ID: sessionID, Kind: audit.Close, Principal: dev1, Environment: "prod", Action: "docker.exec", Resource: web,
			Result: &audit.Result{Exit: 130, In: 10, Out: 200, Duration: 61 * time.Second, Recording: sum}},
		{Kind: audit.Decision, Principal: dev2, Environment: "prod", Action: "docker.run", Resource: audit.Resource{Image: "alpine"}, Rule: "floor", Detail: "production"},
	}
	if err := recordAll(l, events); err != nil {
		return err
	}
	if err := os.Rename(path, path+".1"); err != nil {
		return err
	}
	last := audit.Event{Kind: audit.Open, Principal: dev2, Environment: "test", Action: "ecs.deploy",
		Resource: audit.Resource{ContainerType: "web", Image: "r/web:2"}, Verdict: audit.Allow, Rule: "deploy", Detail: "line\nbreak \x1b[31m\u202e"}
	if err := l.Record(&last); err != nil {
		return err
	}
	return os.WriteFile(heads, fmt.Appendf(nil, "seq=%d hash=%s\n", last.Seq, last.Hash), 0o600)
}

func recordAll(l *audit.Log, events []audit.Event) error {
	for i := range events {
		if err := l.Record(&events[i]); err != nil {
			return err
		}
	}
	return nil
}

func writeRecording(folder string) (sum string, err error) {
	r, err := audit.StartRecording(audit.RecordingOptions{Folder: folder, Owner: os.Getuid(), ID: sessionID, MinFree: -1,
		Terminal: true, Columns: 80, Rows: 24})
	if err != nil {
		return "", err
	}
	for _, s := range []string{"root@web:/# ls\r\n\x1b[34mbin\x1b[m\r\n", "\x1b]52;c;cm0gLXJmIC8=\a", "\x1b[6nbye\r\n"} {
		fmt.Fprint(r, s)
	}
	return r.Close()
}

const cast = `{"version":2,"width":80,"height":24}
[0.0, "o", "\u001b[31mred\u001b]0;title\u0007"]
[3600.0, "o", "later"]
[3600.1, "i", "secret"]
`

func TestATerminalSeesDrawingInItsTimeAndNoLongPauses(t *testing.T) {
	var out, notes bytes.Buffer
	p := &player{out: &out, notes: &notes, timed: true, speed: 1000, idle: time.Second}
	if err := p.play(context.Background(), strings.NewReader(cast)); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "\x1b[31mredlater\x1b[m"; !strings.HasPrefix(got, want) {
		t.Errorf("got %q, want it to begin with %q", got, want)
	}
	if got, want := notes.String(), "note: 1 control sequence left out\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAReplayEndsWhenItIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("enough")
	time.AfterFunc(10*time.Millisecond, func() { cancel(why) })
	var out, notes bytes.Buffer
	p := &player{out: &out, notes: &notes, timed: true, speed: 1, idle: time.Hour}
	if err := p.play(ctx, strings.NewReader(cast)); !errors.Is(err, why) {
		t.Errorf("got %v, want %v", err, why)
	}
	if !strings.HasSuffix(out.String(), p.screen.Rest()) {
		t.Errorf("the terminal is left as it was: %q", out.String())
	}
}

func TestAChangeSaysWhatHasChanged(t *testing.T) {
	e := audit.Event{Kind: audit.Change, Verdict: audit.Allow, Argv: []string{"id"}, Detail: "the host's gate refused, rule gate"}
	if got := note(e); got != e.Detail {
		t.Errorf("got %q", got)
	}
	if e.Kind = audit.Open; note(e) != "id" {
		t.Errorf("an open: got %q", note(e))
	}
}
