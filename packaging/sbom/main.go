// Sbom writes what is linked into programs as a CycloneDX 1.5 document: each
// module once, with its version and the hash that go.sum has for it, and which
// of the programs has it. It reads what the Go linker left in the programs, so
// it says what is in them, and not what a go.mod asks for.
package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

type document struct {
	Format       string       `json:"bomFormat"`
	Spec         string       `json:"specVersion"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Timestamp string    `json:"timestamp"`
	Component component `json:"component"`
}

type component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	PURL       string     `json:"purl,omitempty"`
	Hashes     []hash     `json:"hashes,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type hash struct {
	Alg     string `json:"alg"`
	Content string `json:"content"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn"`
}

func main() {
	name := flag.String("name", "", "`NAME` of the package")
	version := flag.String("version", "", "its `VERSION`")
	epoch := flag.Int64("epoch", 0, "`SECONDS` since 1970: the time in the document")
	flag.Parse()
	doc, err := read(*name, *version, time.Unix(*epoch, 0).UTC(), flag.Args())
	if err == nil {
		err = write(os.Stdout, doc)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func write(w io.Writer, doc *document) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(doc)
}

// read makes the document of a package that has these programs in it.
func read(name, version string, at time.Time, programs []string) (*document, error) {
	root := component{Type: "application", Ref: name, Name: name, Version: version}
	doc := &document{Format: "CycloneDX", Spec: "1.5", Version: 1, Metadata: metadata{at.Format(time.RFC3339), root}}
	seen := map[string]bool{}
	all := dependency{Ref: name, DependsOn: []string{}}
	for _, file := range programs {
		info, err := buildinfo.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read what is linked into %s: %w", file, err)
		}
		program, modules, err := parts(file, version, info)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all.DependsOn = append(all.DependsOn, program.Ref)
		doc.Components = append(doc.Components, program)
		d := dependency{Ref: program.Ref, DependsOn: []string{}}
		for _, m := range modules {
			d.DependsOn = append(d.DependsOn, m.Ref)
			if !seen[m.Ref] {
				seen[m.Ref] = true
				doc.Components = append(doc.Components, m)
			}
		}
		doc.Dependencies = append(doc.Dependencies, d)
	}
	doc.Dependencies = append([]dependency{all}, doc.Dependencies...)
	slices.SortStableFunc(doc.Components, func(a, b component) int { return strings.Compare(a.Type+a.Ref, b.Type+b.Ref) })
	return doc, nil
}

// parts are the program itself, with the hash of its file, and its modules, the
// standard library among them.
func parts(file, version string, info *debug.BuildInfo) (component, []component, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return component{}, nil, err
	}
	sum := sha256.Sum256(b)
	base := filepath.Base(file)
	program := component{
		Type: "application", Ref: "program:" + base, Name: base, Version: version,
		Hashes: []hash{{"SHA-256", hex.EncodeToString(sum[:])}},
	}
	modules := []component{{
		Type: "library", Ref: "pkg:golang/std@" + info.GoVersion, Name: "std",
		Version: info.GoVersion, PURL: "pkg:golang/std@" + strings.TrimPrefix(info.GoVersion, "go"),
	}}
	for _, m := range info.Deps {
		modules = append(modules, module(m, version))
	}
	return program, modules, nil
}

// module is one that was linked in. Go's hash of it is no hash of a file (it is
// over the names and hashes of its files, as go.sum has it), so it is a property.
//
// A module that a folder of ours stands in for was not linked in, whatever its
// path says: it has the package's version, and no URL that a scanner for holes in
// the module of that name would find.
func module(m *debug.Module, version string) component {
	if r := m.Replace; r != nil && r.Version == "" {
		return component{Type: "library", Ref: "folder:" + path.Clean(r.Path), Name: path.Clean(r.Path), Version: version,
			Properties: []property{{"instead-of", m.Path + "@" + m.Version}}}
	} else if r != nil {
		m = r
	}
	purl := "pkg:golang/" + m.Path + "@" + strings.ReplaceAll(m.Version, "+", "%2B")
	c := component{Type: "library", Ref: purl, Name: m.Path, Version: m.Version, PURL: purl}
	if m.Sum != "" {
		c.Properties = []property{{"go.sum", m.Sum}}
	}
	return c
}
