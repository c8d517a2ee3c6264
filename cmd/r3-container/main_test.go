package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"jumpsuite/internal/lab/worlds"
	"jumpsuite/internal/scripttest"
)

func TestMain(m *testing.M) {
	scripttest.Main(m, map[string]func(){"r3-container": main, "r3": main})
}

func TestScripts(t *testing.T) { scripttest.Run(t, "testdata/script") }

// Each way in which a deployment can go is a script, and in the table of the docs.
func TestEachWorldHasAScenarioAndARowInTheDocs(t *testing.T) {
	docs, err := os.ReadFile("../../docs/deploying.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(err, files)
	}
	var scripts strings.Builder
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		scripts.Write(text)
	}
	for _, name := range worlds.Names() {
		if !strings.Contains(scripts.String(), "\nworld "+name+"\n") {
			t.Errorf("no script plays world %s", name)
		}
		if !strings.Contains(string(docs), "`"+name+"`") {
			t.Errorf("docs/deploying.md does not say what one sees on world %s", name)
		}
	}
}
