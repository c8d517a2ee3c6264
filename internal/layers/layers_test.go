package layers

import (
	"go/parser"
	"go/token"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// list asks the go tool about all packages of ours, one line each.
func list(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		exit, _ := err.(*exec.ExitError)
		t.Fatalf("go %v: %v\n%s", cmd.Args, err, exit.Stderr)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func TestNoPackageReachesWhatItMustNot(t *testing.T) {
	g := Graph{}
	for _, line := range list(t, "-deps", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...") {
		f := strings.Fields(line)
		g[f[0]] = f[1:]
	}
	if len(g["jumpsuite/policy"]) == 0 || len(g["net/http"]) == 0 {
		t.Fatalf("the graph of %d packages has no policy or no net/http", len(g))
	}
	broken, absent := g.Check(Rules)
	for _, b := range broken {
		t.Error(b)
	}
	for _, a := range absent {
		t.Errorf("there is a rule for %s, and no such package: the rule holds nothing", a)
	}
	for _, r := range Rules {
		for _, name := range slices.Concat(r.May, r.Never, Everywhere) {
			if named := slices.ContainsFunc(slices.Collect(maps.Keys(g)), func(pkg string) bool { return under(pkg, name) }); !named && isOurs(name) {
				t.Errorf("the rule for %s speaks of %s, and there is no such package", r.Package, name)
			}
		}
	}
}

// isOurs tells a name of ours from an import path: that has a host, or is net/http.
func isOurs(name string) bool {
	first, _, _ := strings.Cut(name, "/")
	return !strings.Contains(first, ".") && name != http
}

func TestNothingShippedLinksTheLab(t *testing.T) {
	g := Graph{}
	for _, line := range list(t, "-deps", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./cmd/...") {
		f := strings.Fields(line)
		g[f[0]] = f[1:]
	}
	shipped := 0
	for pkg := range g {
		if !strings.HasPrefix(pkg, Module+"/cmd/") || pkg == Module+"/cmd/r3-lab" {
			continue
		}
		shipped++
		broken, _ := g.Check([]Rule{{Package: strings.TrimPrefix(pkg, Module+"/"), Never: []string{lab}, Why: "the lab is for tests"}})
		for _, b := range broken {
			t.Error(b)
		}
	}
	if shipped < 8 {
		t.Errorf("only %d programs were checked", shipped)
	}
}

func TestABrokenRuleShowsHowItCameAbout(t *testing.T) {
	g := Graph{
		"jumpsuite/policy":       {"fmt", "jumpsuite/ecsstatus"},
		"jumpsuite/ecsstatus":    {"github.com/aws/sdk/ecs"},
		"github.com/aws/sdk/ecs": {"net/http"},
		"net/http":               {},
	}
	got, absent := g.Check([]Rule{
		{"policy", []string{}, []string{http, awsSDK}, "edges"},
		{"ecsstatus", []string{}, []string{docker}, "reads"},
		{"internal/tunnel", nil, nil, "later"},
	})
	want := []string{
		"policy must never link github.com/aws/sdk/ecs (edges): jumpsuite/policy → jumpsuite/ecsstatus → github.com/aws/sdk/ecs",
		"policy may not import jumpsuite/ecsstatus (edges): jumpsuite/policy → jumpsuite/ecsstatus",
		"policy must never link net/http (edges): jumpsuite/policy → jumpsuite/ecsstatus → github.com/aws/sdk/ecs → net/http",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !slices.Equal(absent, []string{"internal/tunnel"}) {
		t.Errorf("absent: %q", absent)
	}
}

func TestEveryRuleHasAReason(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Rules {
		if r.Why == "" || r.Package == "" || seen[r.Package] {
			t.Errorf("%+v: no reason, no package, or a second rule for it", r)
		}
		seen[r.Package] = true
	}
}

func TestEveryPackageHasOneDoc(t *testing.T) {
	checked := 0
	for _, line := range list(t, "-f", `{{.Dir}} {{.Name}}`, "./...") {
		dir, name, _ := strings.Cut(line, " ")
		docs := docsIn(t, dir)
		if len(docs) != 1 {
			t.Errorf("%s has %d package docs, want 1: %q", dir, len(docs), docs)
			continue
		}
		want := "package " + name + " "
		if name == "main" {
			want = filepath.Base(dir) + " " // "Command r3-lab serves" or "R3-lab serves"
		}
		if got := strings.TrimPrefix(strings.ToLower(docs[0]), "command "); !strings.HasPrefix(got, want) {
			t.Errorf("%s: the package doc starts with %q, want the name %q", dir, firstLine(docs[0]), want)
		}
		checked++
	}
	if checked < 5 {
		t.Errorf("only %d packages were checked", checked)
	}
}

// docsIn are the texts of all package docs in a folder, but for its tests'.
func docsIn(t *testing.T, dir string) (docs []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if f.Doc != nil && f.Doc.Text() != "" {
			docs = append(docs, f.Doc.Text())
		}
	}
	return docs
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
