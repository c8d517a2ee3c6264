package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"os"
	"reflect"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

func TestAModuleIsWhatWasLinked(t *testing.T) {
	other := &debug.Module{Path: "example.com/fork", Version: "v1.2.3", Sum: "h1:b"}
	for _, tt := range []struct {
		name string
		m    *debug.Module
		want component
	}{
		{
			"as go.mod asks for it", &debug.Module{Path: "example.com/a", Version: "v2.0.0+incompatible", Sum: "h1:a"},
			component{Type: "library", Ref: "pkg:golang/example.com/a@v2.0.0%2Bincompatible", Name: "example.com/a", Version: "v2.0.0+incompatible",
				PURL: "pkg:golang/example.com/a@v2.0.0%2Bincompatible", Properties: []property{{"go.sum", "h1:a"}}},
		},
		{
			"another module in its place", &debug.Module{Path: "example.com/a", Version: "v1.0.0", Replace: other},
			component{Type: "library", Ref: "pkg:golang/example.com/fork@v1.2.3", Name: "example.com/fork", Version: "v1.2.3",
				PURL: "pkg:golang/example.com/fork@v1.2.3", Properties: []property{{"go.sum", "h1:b"}}},
		},
		{
			"a folder in its place", &debug.Module{Path: "example.com/a", Version: "v1.0.0", Replace: &debug.Module{Path: "./internal/absent/a"}},
			component{Type: "library", Ref: "folder:internal/absent/a", Name: "internal/absent/a", Version: "9",
				Properties: []property{{"instead-of", "example.com/a@v1.0.0"}}},
		},
	} {
		if got := module(tt.m, "9"); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

// The test's own program is one that the linker has left a list in.
func TestEveryReferenceIsToAComponentWithAVersion(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := read("p", "1.0", time.Unix(0, 0).UTC(), []string{self})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := write(&b, doc); err != nil || !json.Valid(b.Bytes()) {
		t.Errorf("no JSON: %v", err)
	}
	known := map[string]bool{doc.Metadata.Component.Ref: true}
	for _, c := range doc.Components {
		known[c.Ref] = true
		if c.Version == "" || strings.HasSuffix(c.Ref, "@") {
			t.Errorf("%s has no version", c.Ref)
		}
	}
	for _, d := range doc.Dependencies {
		for _, ref := range append(d.DependsOn, d.Ref) {
			if !known[ref] {
				t.Errorf("%s is no component", ref)
			}
		}
	}
	info, err := buildinfo.ReadFile(self)
	if err != nil || !known["pkg:golang/std@"+info.GoVersion] {
		t.Errorf("the standard library is not named: %v", err)
	}
}
