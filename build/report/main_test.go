package main

import (
	"strings"
	"testing"
)

// run feeds lines of go test -json to a report and returns what it wrote.
func run(t *testing.T, lines ...string) (out string, well bool) {
	t.Helper()
	var b strings.Builder
	r := newReport(&b)
	if err := r.read(strings.NewReader(strings.Join(lines, "\n"))); err != nil {
		t.Fatal(err)
	}
	well = r.finish()
	return b.String(), well
}

func TestAReportEndsInGoTestsOwnLines(t *testing.T) {
	out, well := run(t,
		`{"Action":"run","Package":"jumpsuite/a","Test":"TestScripts/list/docker"}`,
		`{"Action":"output","Package":"jumpsuite/a","Test":"TestScripts/list/docker","Output":"=== RUN   x\n"}`,
		`{"Action":"pass","Package":"jumpsuite/a","Test":"TestScripts/list/docker"}`,
		`{"Action":"output","Package":"jumpsuite/a","Test":"TestB","Output":"    b_test.go:7: needs root\n"}`,
		`{"Action":"skip","Package":"jumpsuite/a","Test":"TestB"}`,
		`{"Action":"output","Package":"jumpsuite/a","Output":"PASS\n"}`,
		`{"Action":"output","Package":"jumpsuite/a","Output":"ok  \tjumpsuite/a\t0.5s\n"}`,
		`{"Action":"pass","Package":"jumpsuite/a","Elapsed":0.5}`)
	want := `jumpsuite/a: 1 passed, 0.5 s

engines: 0 tests with simulated tasks, 1 with real containers
skipped: needs root: a TestB

ok  	jumpsuite/a	0.5s
`
	if out != want || !well {
		t.Errorf("well: %v; got\n%s\nwant\n%s", well, out, want)
	}
}

func TestAFailureIsShownWithItsOutput(t *testing.T) {
	out, well := run(t,
		`{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:3: got 1, want 2\n"}`,
		`{"Action":"output","Package":"p","Test":"TestA","Output":"--- FAIL: TestA (0.00s)\n"}`,
		`{"Action":"fail","Package":"p","Test":"TestA"}`,
		`{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}`,
		`{"Action":"fail","Package":"p"}`)
	for _, want := range []string{"a_test.go:3: got 1, want 2", "--- FAIL: TestA", "p: FAILED"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if !strings.HasSuffix(out, "\nFAIL\tp\t0.1s\n") {
		t.Errorf("it does not end in go test's line:\n%s", out)
	}
	if well {
		t.Error("it says that all is well")
	}
}

func TestWhatGoesWrongBeforeATestIsAFailure(t *testing.T) {
	for _, tt := range []struct{ name, line, want string }{
		{"a build", `{"Action":"build-output","ImportPath":"p","Output":"p.go:1: syntax\n"}` + "\n" + `{"Action":"build-fail","ImportPath":"p"}`, "p.go:1: syntax"},
		{"go itself", `go: cannot find main module`, "go: cannot find main module"},
		{"no test at all", `{"Action":"skip","Package":"p"}`, "no test ran"},
		{"a panic", `{"Action":"output","Package":"p","Test":"TestA","Output":"panic: oh\n"}` + "\n" + `{"Action":"fail","Package":"p"}`, "panic: oh"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, well := run(t, tt.line)
			if well || !strings.Contains(out, tt.want) {
				t.Errorf("well: %v; got %q; want %q in it", well, out, tt.want)
			}
		})
	}
}
