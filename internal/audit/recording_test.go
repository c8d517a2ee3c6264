package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"jumpsuite/internal/cli"
)

func recordingOptions(t testing.TB) RecordingOptions {
	now := time.Date(2026, 1, 31, 14, 0, 0, 0, time.UTC)
	o := RecordingOptions{Folder: filepath.Join(t.TempDir(), "log"), Owner: os.Getuid(), ID: NewID(now), Terminal: true,
		Columns: 100, Rows: 30, MinFree: -1, Term: "xterm", Title: "sudo docker exec -it web bash"}
	o.Now = func() time.Time { now = now.Add(250 * time.Millisecond); return now }
	return o
}

func startTest(t testing.TB, o RecordingOptions) *Recording {
	t.Helper()
	r, err := StartRecording(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func TestARecordingIsAnAsciicast(t *testing.T) {
	o := recordingOptions(t)
	o.Input = true
	r := startTest(t, o)
	r.Write([]byte("\x1b[31mred\x1b[0m \"q\"\r\n"))
	r.Input([]byte("ls\r"))
	r.Resize(120, 40)
	sum, err := r.Close()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(r.Path())
	if err != nil {
		t.Fatal(err)
	}
	want := `{"version":2,"width":100,"height":30,"timestamp":1769868000,"title":"sudo docker exec -it web bash","env":{"TERM":"xterm"}}
[0.250000, "o", "\u001b[31mred\u001b[0m \"q\"\r\n"]
[0.500000, "i", "ls\r"]
[0.750000, "r", "120x40"]
`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
	if is := sha256.Sum256(b); sum != hex.EncodeToString(is[:]) {
		t.Errorf("got sum %s, want %x", sum, is)
	}
	if wantPath := filepath.Join(o.Folder, "recordings/2026/01/31", o.ID+".cast"); r.Path() != wantPath {
		t.Errorf("got path %s, want %s", r.Path(), wantPath)
	}
	for path, want := range map[string]os.FileMode{r.Path(): 0o600, filepath.Dir(r.Path()): 0o700} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: got mode %v, want %o", path, st.Mode(), want)
		}
	}
}

// played is what a recording shows.
func played(t testing.TB, path string) (string, error) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out strings.Builder
	err = ReadRecording(f, func(RecordingHeader) error { return nil }, func(m Moment) error {
		if m.Code == "o" {
			out.WriteString(m.Data)
		}
		return nil
	})
	return out.String(), err
}

func TestCharactersThatAreSplitStayWhole(t *testing.T) {
	for _, in := range []string{"grün €  😀 end", "\xffraw\xc3", "€\xe2\x82", "\xf0\x9f\x98", strings.Repeat("ü", 40_000)} {
		for _, size := range []int{1, 2, 3, 5, 7, 1000} {
			if len(in) > 1000 && size < 1000 {
				continue
			}
			r := startTest(t, recordingOptions(t))
			for p := []byte(in); len(p) > 0; p = p[min(size, len(p)):] {
				if _, err := r.Write(p[:min(size, len(p))]); err != nil {
					t.Fatal(err)
				}
			}
			r.Close()
			got, err := played(t, r.Path())
			if want := string([]rune(in)); err != nil || got != want {
				t.Errorf("%.40q in pieces of %d: got %.40q, %v; want %.40q", in, size, got, err, want)
			}
		}
	}
}

func TestInputIsRecordedOnlyWhenAskedFor(t *testing.T) {
	r := startTest(t, recordingOptions(t))
	if err := r.Input([]byte("secret")); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if b, _ := os.ReadFile(r.Path()); strings.Contains(string(b), "secret") {
		t.Errorf("got %s", b)
	}
}

func TestNewlinesWithoutATerminalAreWhatATerminalMakesOfThem(t *testing.T) {
	o := recordingOptions(t)
	o.Terminal = false
	r := startTest(t, o)
	for _, s := range []string{"a\nb\r", "\nc\n"} {
		r.Write([]byte(s))
	}
	r.Close()
	if got, _ := played(t, r.Path()); got != "a\r\nb\r\nc\r\n" {
		t.Errorf("got %q", got)
	}
}

func TestOutputIsWrittenWithinTheTimeToFlush(t *testing.T) {
	o := recordingOptions(t)
	o.FlushEvery = time.Millisecond
	r := startTest(t, o)
	r.Write([]byte("seen"))
	for range 1000 {
		if got, _ := played(t, r.Path()); got == "seen" {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Error("nothing was written")
}

func TestARecordingThatFailsSaysSoToASilentSession(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*RecordingOptions)
		want string
	}{
		{"too long", func(o *RecordingOptions) { o.Limit = 200 }, "the recording would be longer than 200 bytes"},
		{"no room", func(o *RecordingOptions) { o.MinFree = 1 << 62 }, "are kept for the log"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := recordingOptions(t)
			o.FlushEvery = time.Millisecond
			tt.edit(&o)
			r, err := StartRecording(o)
			if err == nil {
				defer r.Close()
				r.Write([]byte(strings.Repeat("x", 200)))
				<-r.Failed()
				_, err = r.Write([]byte("more"))
				if _, closing := r.Close(); closing == nil {
					t.Error("Close says that all is well")
				}
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || cli.ExitCode(err) != cli.ExitAudit {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestARecordingIsNotWrittenTwiceNorElsewhere(t *testing.T) {
	o := recordingOptions(t)
	startTest(t, o).Close()
	if _, err := StartRecording(o); !errors.Is(err, os.ErrExist) {
		t.Errorf("second time: got %v", err)
	}
	o.ID = "../../../../tmp/x"
	if _, err := StartRecording(o); err == nil || !strings.Contains(err.Error(), "is not an audit id") {
		t.Errorf("a path: got %v", err)
	}
	o = recordingOptions(t)
	if err := os.MkdirAll(o.Folder, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(t.TempDir(), filepath.Join(o.Folder, "recordings")); err != nil {
		t.Fatal(err)
	}
	if _, err := StartRecording(o); err == nil || !strings.Contains(err.Error(), "recordings") {
		t.Errorf("a link: got %v", err)
	}
}

func TestADamagedRecordingSaysWhere(t *testing.T) {
	head := `{"version":2,"width":80,"height":24}` + "\n"
	for _, tt := range []struct{ name, in, want string }{
		{"empty", "", "the recording: it is empty"},
		{"another version", `{"version":3}`, "line 1 of the recording: version 3; this reads version 2"},
		{"cut", head + `[0.1, "o", "a`, "line 2 of the recording: unexpected end of JSON input"},
		{"two elements", head + `[0.1, "o"]`, "line 2 of the recording: not a time, a code and text"},
		{"four elements", head + `[0.1, "o", "a", 4]`, "line 2 of the recording: not a time, a code and text"},
		{"negative time", head + `[-1, "o", "a"]`, "line 2 of the recording: not a time, a code and text"},
		{"null", head + `[null, "o", "a"]`, "line 2 of the recording: not a time, a code and text"},
	} {
		err := ReadRecording(strings.NewReader(tt.in), func(RecordingHeader) error { return nil }, func(Moment) error { return nil })
		if err == nil || err.Error() != tt.want || cli.ExitCode(err) != cli.ExitDamaged {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
	}
}

func FuzzARecordingIsValidAndWhole(f *testing.F) {
	f.Add([]byte("\xe2\x82\xac\x1b[0m\r\n\xff"), 2, true)
	f.Add([]byte("a\nb\r"), 1, false)
	f.Fuzz(func(t *testing.T, in []byte, size int, terminal bool) {
		d := decoder{newlines: !terminal}
		size = max(1, size%100)
		var got []byte
		for p := in; len(p) > 0; p = p[min(size, len(p)):] {
			b, _ := appendQuoted(nil, string(d.decode(p[:min(size, len(p))])), 1<<20)
			var s string
			if !utf8.Valid(b) || json.Unmarshal(b, &s) != nil {
				t.Fatalf("%q is not JSON", b)
			}
			got = append(got, s...)
		}
		got = append(got, string([]rune(string(d.rest())))...)
		if want := string([]rune(string(in))); terminal && string(got) != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
