// Command report reads the output of `go test -json` and tells what a person
// wants of it: what failed, as it fails; how each package did; and at the end
// which engines of the lab ran, what was skipped and why, and go test's own
// lines. It exits with 1 if anything failed, or nothing ran.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

func main() {
	r := newReport(os.Stdout)
	if err := r.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
	if !r.finish() {
		os.Exit(1)
	}
}

// event is a line of go test -json (go doc test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string // of a build
	Test       string
	Elapsed    float64
	Output     string
}

// report is what is known so far.
type report struct {
	out     io.Writer
	outputs map[string][]string // of tests that run, by package and name
	passed  map[string]int      // by package
	skipped map[string][]string // tests by reason
	engines map[string]int      // tests by engine
	closing []string            // go test's own line for each package
	failed  bool
	ran     int
}

func newReport(out io.Writer) *report {
	return &report{
		out: out, outputs: map[string][]string{}, passed: map[string]int{},
		skipped: map[string][]string{}, engines: map[string]int{},
	}
}

func (r *report) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			r.line(line)
		}
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// line takes a line in: an event, or what go said that is none.
func (r *report) line(line []byte) {
	var e event
	if err := json.Unmarshal(line, &e); err != nil {
		r.out.Write(line)
		return
	}
	switch {
	case e.Action == "build-output":
		fmt.Fprint(r.out, e.Output)
	case e.Action == "build-fail":
		r.failed = true
	case e.Test != "":
		r.test(e)
	default:
		r.pkg(e)
	}
}

func (r *report) test(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		if !strings.HasPrefix(e.Output, "=== ") {
			r.outputs[key] = append(r.outputs[key], e.Output)
		}
	case "pass":
		r.ran++
		r.passed[e.Package]++
		r.countEngine(e.Package + "/" + e.Test)
	case "skip":
		why := reason(r.outputs[key])
		r.skipped[why] = append(r.skipped[why], strings.TrimPrefix(e.Package, "jumpsuite/")+" "+e.Test)
	case "fail":
		r.ran++
		r.failed = true
		fmt.Fprint(r.out, strings.Join(r.outputs[key], ""))
	}
	if e.Action == "pass" || e.Action == "skip" || e.Action == "fail" {
		delete(r.outputs, key)
	}
}

// countEngine counts a test that ran with an engine of the lab: its name, or
// its package's, has the engine as a part.
func (r *report) countEngine(test string) {
	for part := range strings.SplitSeq(test, "/") {
		switch part {
		case "sim":
			r.engines["sim"]++
		case "docker", "dockerengine":
			r.engines["docker"]++
		}
	}
}

// reason is why a test was skipped, from its output: "    file.go:12: why".
func reason(output []string) string {
	for _, line := range output {
		line = strings.TrimSpace(line)
		if _, why, ok := strings.Cut(line, ".go:"); ok {
			if _, why, ok = strings.Cut(why, ": "); ok {
				return why
			}
		}
	}
	return "no reason given"
}

func (r *report) pkg(e event) {
	switch e.Action {
	case "output":
		r.pkgOutput(e)
	case "pass":
		fmt.Fprintf(r.out, "%s: %d passed, %.1f s\n", e.Package, r.passed[e.Package], e.Elapsed)
	case "fail":
		r.failed = true
		r.unfinished(e.Package)
		fmt.Fprintf(r.out, "%s: FAILED\n", e.Package)
	}
}

// pkgOutput keeps go test's closing lines for the end, and shows what else a
// package says, such as a panic.
func (r *report) pkgOutput(e event) {
	for _, word := range []string{"ok  \t", "FAIL\t", "?   \t", "---"} {
		if strings.HasPrefix(e.Output, word) {
			r.closing = append(r.closing, e.Output)
			return
		}
	}
	for _, noise := range []string{"PASS\n", "FAIL\n", "testing: warning: no tests to run\n", "=== "} {
		if e.Output == noise || strings.HasPrefix(e.Output, noise) {
			return
		}
	}
	if !strings.HasPrefix(e.Output, "\t"+e.Package+"\t") { // no test files
		fmt.Fprint(r.out, e.Output)
	}
}

// unfinished shows the output of tests that a package's failure cut off.
func (r *report) unfinished(pkg string) {
	for _, key := range slices.Sorted(maps.Keys(r.outputs)) {
		if strings.HasPrefix(key, pkg+" ") {
			fmt.Fprint(r.out, strings.Join(r.outputs[key], ""))
			delete(r.outputs, key)
		}
	}
}

// finish writes the end and says whether all is well.
func (r *report) finish() bool {
	fmt.Fprintln(r.out)
	fmt.Fprintf(r.out, "engines: %d tests with simulated tasks, %d with real containers\n", r.engines["sim"], r.engines["docker"])
	if len(r.skipped) == 0 {
		fmt.Fprintln(r.out, "skipped: nothing")
	}
	for _, why := range slices.Sorted(maps.Keys(r.skipped)) {
		tests := r.skipped[why]
		slices.Sort(tests)
		fmt.Fprintf(r.out, "skipped: %s: %s\n", why, some(tests, 3))
	}
	if r.ran == 0 {
		fmt.Fprintln(r.out, "no test ran")
	}
	fmt.Fprintln(r.out)
	for _, line := range slices.SortedStableFunc(slices.Values(r.closing), failuresLast) {
		fmt.Fprint(r.out, line)
	}
	return !r.failed && r.ran > 0
}

func failuresLast(a, b string) int {
	fails := func(line string) int {
		if strings.HasPrefix(line, "FAIL") {
			return 1
		}
		return 0
	}
	return cmp.Compare(fails(a), fails(b))
}

// some is a list cut after n.
func some(list []string, n int) string {
	if len(list) <= n {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s, and %d more", strings.Join(list[:n], ", "), len(list)-n)
}
