package audit

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sample is a log of two files, in lines with their newlines.
func sample(t testing.TB) [][]string {
	t.Helper()
	o := options(t)
	l := openTest(t, o)
	record(t, l, read("docker.ps"), read("docker.logs"), read("docker.stats"), read("docker.ps"))
	if err := os.Rename(o.Path, o.Path+".1"); err != nil {
		t.Fatal(err)
	}
	record(t, l, read("docker.ps"), read("docker.inspect"), read("docker.ps"), read("docker.images"))
	return [][]string{lines(t, o.Path+".1"), lines(t, o.Path)}
}

func lines(t testing.TB, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil || len(b) == 0 {
		t.Fatalf("%s is empty: %v", path, err)
	}
	return strings.SplitAfter(string(b), "\n")[:strings.Count(string(b), "\n")]
}

// check verifies files, given as their contents; they are called 1, 2, ….
func check(t testing.TB, files []string, heads ...Head) []Finding {
	t.Helper()
	v := Verifier{Heads: heads}
	for i, f := range files {
		if err := v.Read(fmt.Sprint(i+1), strings.NewReader(f)); err != nil {
			t.Fatal(err)
		}
	}
	return v.Findings()
}

// joined makes files of lines.
func joined(files [][]string) []string {
	var out []string
	for _, f := range files {
		out = append(out, strings.Join(f, ""))
	}
	return out
}

func wantFirst(t *testing.T, what string, findings []Finding, file, line int) {
	t.Helper()
	if len(findings) == 0 {
		t.Fatalf("%s: nothing was found", what)
	}
	if f := findings[0]; f.File != fmt.Sprint(file) || f.Line != line {
		t.Fatalf("%s: got %v, want line %d of file %d named first", what, findings, line, file)
	}
}

func TestTheSampleIsIntact(t *testing.T) {
	if f := check(t, joined(sample(t))); len(f) > 0 {
		t.Fatalf("got %v", f)
	}
}

// lineAt is the line of s that holds its byte i, from 1.
func lineAt(s string, i int) int { return strings.Count(s[:i], "\n") + 1 }

func TestEveryChangedByteIsFoundInItsLine(t *testing.T) {
	files := joined(sample(t))
	for n, s := range files {
		for i := range len(s) {
			for what, changed := range map[string]string{
				"bit":      s[:i] + string(s[i]^1) + s[i+1:],
				"high bit": s[:i] + string([]byte{s[i] ^ 0x80}) + s[i+1:],
				"newline":  s[:i] + "\n" + s[i+1:],
				"missing":  s[:i] + s[i+1:],
				"added":    s[:i] + "0" + s[i:],
				"broken":   s[:i] + "\n" + s[i:],
			} {
				near := s[i] == '\n' || i > 0 && s[i-1] == '\n'
				if changed == s || what != "bit" && i%5 > 0 && !near {
					continue
				}
				all := slices.Clone(files)
				all[n] = changed
				line := lineAt(s, i)
				if what == "broken" && s[i] == '\n' {
					line++ // an empty line after a whole one
				}
				wantFirst(t, fmt.Sprintf("%s at byte %d of file %d", what, i, n+1), check(t, all), n+1, line)
			}
		}
		all := slices.Clone(files)
		all[n] = s + "x"
		wantFirst(t, "byte after the end", check(t, all), n+1, lineAt(s, len(s)))
	}
}

func TestEveryLineThatIsDroppedAddedOrMovedIsFound(t *testing.T) {
	files := sample(t)
	for n, f := range files {
		for i := range f {
			for j := range f {
				moved := slices.Insert(slices.Delete(slices.Clone(f), i, i+1), j, f[i])
				if i != j {
					tryLines(t, fmt.Sprintf("line %d moved to %d", i+1, j+1), files, n, moved, min(i, j)+1, Reordered)
				}
			}
			for j := range len(f) + 1 {
				added := slices.Insert(slices.Clone(f), j, f[i])
				at := j + 1
				if j == i {
					at++ // which of two equal lines was first cannot be told
				}
				tryLines(t, fmt.Sprintf("line %d once more at %d", i+1, j+1), files, n, added, at, "")
			}
			if n == len(files)-1 && i == len(f)-1 {
				continue // that takes a head
			}
			dropped := slices.Delete(slices.Clone(f), i, i+1)
			if i < len(f)-1 {
				tryLines(t, fmt.Sprintf("line %d dropped", i+1), files, n, dropped, i+1, Dropped)
				continue
			}
			all := slices.Clone(files)
			all[n] = dropped
			wantFirst(t, "last line of a file dropped", check(t, joined(all)), n+2, 1)
		}
	}
}

// tryLines verifies files with the nth made of lines instead.
func tryLines(t *testing.T, what string, files [][]string, n int, lines []string, line int, fault Fault) {
	t.Helper()
	all := slices.Clone(files)
	all[n] = lines
	findings := check(t, joined(all))
	wantFirst(t, fmt.Sprintf("file %d: %s", n+1, what), findings, n+1, line)
	if fault != "" && findings[0].Fault != fault {
		t.Fatalf("file %d: %s: got %v, want it %s", n+1, what, findings[0], fault)
	}
}

// forged is line with another detail, and with a hash that is right for that.
func forged(t testing.TB, line string) string {
	t.Helper()
	e, err := ParseLine([]byte(strings.TrimSuffix(line, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	e.Rule = "forged"
	out, _ := appendLine(nil, &e)
	return string(out)
}

func TestALineWithAForgedHashIsFound(t *testing.T) {
	files := sample(t)
	for i := range len(files[0]) {
		f := slices.Clone(files[0])
		f[i] = forged(t, f[i])
		tryLines(t, fmt.Sprintf("line %d forged", i+1), files, 0, f, i+1, Replaced)
		before := slices.Insert(slices.Clone(files[0]), i, f[i])
		tryLines(t, fmt.Sprintf("forged line before %d", i+1), files, 0, before, i+1, Inserted)
		after := slices.Insert(slices.Clone(files[0]), i+1, f[i])
		tryLines(t, fmt.Sprintf("forged line after %d", i+1), files, 0, after, i+2, Inserted)
	}
}

func TestACutTailIsFoundWithAHead(t *testing.T) {
	files := sample(t)
	last := files[1][len(files[1])-1]
	e, err := ParseLine([]byte(strings.TrimSuffix(last, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	head := Head{Seq: e.Seq, Hash: e.Hash}
	if f := check(t, joined(files), head); len(f) > 0 {
		t.Fatalf("whole log: got %v", f)
	}
	whole := strings.Join(files[1], "")
	for cut := range len(whole) {
		got := check(t, []string{joined(files)[0], whole[:cut]}, head)
		if len(got) == 0 || !slices.ContainsFunc(got, func(f Finding) bool { return f.Fault == CutOff }) {
			t.Fatalf("cut to %d bytes: got %v, want it to be cut", cut, got)
		}
	}
	got := check(t, []string{strings.Join(files[0], "")}, head)
	if len(got) != 1 || got[0].Fault != CutOff || got[0].Line != 5 || !strings.Contains(got[0].Text, "line 10 was announced: lines 6 to 10 of the log are missing") {
		t.Errorf("file dropped: got %v", got)
	}
}

func TestAChainThatWasMadeAnewIsFoundWithAHead(t *testing.T) {
	a, b := sample(t), sample(t)
	e, err := ParseLine([]byte(strings.TrimSuffix(a[0][2], "\n")))
	if err != nil {
		t.Fatal(err)
	}
	got := check(t, joined(b), Head{Seq: e.Seq, Hash: e.Hash})
	wantFirst(t, "another chain", got, 1, 3)
	if got[0].Fault != Replaced {
		t.Errorf("got %v", got)
	}
}

func TestFilesThatExpiredAreNoFault(t *testing.T) {
	files := sample(t)
	v := Verifier{}
	if err := v.Read("2", strings.NewReader(strings.Join(files[1], ""))); err != nil {
		t.Fatal(err)
	}
	if f := v.Findings(); len(f) > 0 || len(v.Notes) != 1 || !strings.Contains(v.Notes[0], "begins with line 6 of the log (continues audit.log.1)") {
		t.Errorf("got %v, notes %q", f, v.Notes)
	}
	cut := []string{strings.Join(files[1][1:], "")}
	wantFirst(t, "first line of the oldest file dropped", check(t, cut), 1, 1)
}

func TestPackedFilesAreReadInTheirOrder(t *testing.T) {
	o := options(t)
	l := openTest(t, o)
	for n := range 12 {
		record(t, l, read("docker.ps"))
		name := fmt.Sprintf("%s.%d.gz", o.Path, 12-n)
		pack(t, o.Path, name)
	}
	record(t, l, read("docker.ps"))
	wantIntact(t, o.Path, 2*13)
	os.Remove(o.Path + ".5.gz")
	_, findings := verified(t, o.Path)
	if len(findings) != 1 || findings[0].Fault != Dropped || findings[0].File != "audit.log.4.gz" || findings[0].Line != 1 {
		t.Errorf("got %v, want line 1 of audit.log.4.gz", findings)
	}
}

// pack moves a file into a packed one, as logrotate does.
func pack(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	w.Write(b)
	w.Close()
	if err := os.WriteFile(to, z.Bytes(), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(from); err != nil {
		t.Fatal(err)
	}
}

func TestHeadsCountOnlyFromTheRightUser(t *testing.T) {
	hash := strings.Repeat("ab", 32)
	in := strings.Join([]string{
		`{"_UID":"0","JUMPSUITE_SEQ":"7","JUMPSUITE_HASH":"` + hash + `","JUMPSUITE_LOG":"/a","__REALTIME_TIMESTAMP":"1769868000000000"}`,
		`{"_UID":"1001","JUMPSUITE_SEQ":"9999","JUMPSUITE_HASH":"` + hash + `","JUMPSUITE_LOG":"/a"}`,
		`{"_UID":"0","JUMPSUITE_SEQ":"8","JUMPSUITE_HASH":"` + hash + `","JUMPSUITE_LOG":"/b"}`,
		`{"_UID":"0","JUMPSUITE_SEQ":["9","10"],"JUMPSUITE_HASH":"` + hash + `","JUMPSUITE_LOG":"/a"}`,
		`{"_UID":"0","MESSAGE":[1,2,3]}`,
		`Jan 31 14:00:00 jump1 jumpsuite-audit[77]: head seq=12 hash=` + hash + ` log=/a`,
		`nothing of ours`,
	}, "\n")
	heads, foreign, err := ReadHeads(strings.NewReader(in), 0, "/a")
	if err != nil || foreign != 1 || len(heads) != 2 || heads[0].Seq != 7 || heads[1].Seq != 12 || heads[0].Time.Unix() != 1769868000 {
		t.Errorf("got %v, %d foreign, %v", heads, foreign, err)
	}
	if _, _, err := ReadHeads(strings.NewReader("{broken"), 0, ""); err == nil || !strings.HasPrefix(err.Error(), "line 1 of the heads: not journalctl's JSON") {
		t.Errorf("got %v", err)
	}
}

func FuzzTheVerifierTakesAnything(f *testing.F) {
	for _, s := range joined(sample(f)) {
		f.Add([]byte(s))
	}
	f.Add([]byte("\n\n{\"hash\":\"\"}\n\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		v := Verifier{Heads: []Head{{Seq: 1 << 62, Hash: noHash}}}
		if err := v.Read("f", bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
		if len(v.Findings()) == 0 {
			t.Error("no log has so many lines, and nothing was found")
		}
		readEnd(bytes.NewReader(b), int64(len(b)))
	})
}

func FuzzALineComesBack(f *testing.F) {
	f.Add("dev1", "docker.exec", "a\x1b]52;c;x\x07\u202e", "\xff\xfe\U000e0001")
	f.Fuzz(func(t *testing.T, name, action, detail, arg string) {
		e := &Event{Kind: Open, Prev: noHash, Principal: Principal{Name: name}, Action: action, Detail: detail, Argv: []string{arg}, Result: &Result{Error: detail}}
		line, hash := appendLine(nil, e)
		if len(line) > MaxLine {
			t.Fatalf("%d bytes", len(line))
		}
		if i := bytes.IndexFunc(line[:len(line)-1], func(r rune) bool { return r < 0x20 || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0x202e }); i >= 0 {
			t.Errorf("%q does not print", line[i])
		}
		got, err := ParseLine(line[:len(line)-1])
		if err != nil || got.Hash != hash {
			t.Fatalf("%s: %v", line, err)
		}
		if want := string([]rune(name)); len(got.Cut) == 0 && got.Principal.Name != want {
			t.Errorf("got name %q, want %q", got.Principal.Name, want)
		}
	})
}

func TestTheLogOfAnotherFolderIsNotMixedIn(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"audit.log", "audit.log.1", "audit.log-20260131", "audit.logs", "other.log", ".audit.log.head"} {
		os.WriteFile(filepath.Join(dir, name), nil, 0o600)
	}
	os.Mkdir(filepath.Join(dir, "audit.log.d"), 0o700)
	files, err := Files(filepath.Join(dir, "audit.log"))
	if err != nil || len(files) != 3 {
		t.Errorf("got %v, %v; want three files", files, err)
	}
}
