package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"jumpsuite/internal/scripttest"
)

func TestMain(m *testing.M) {
	scripttest.Main(m, map[string]func(){"r3-admin": main, "sample-log": sampleLog})
}

func TestScripts(t *testing.T) {
	scripttest.Run(t, "testdata/script")
}

// TestTheExample runs on the file that is shipped.
func TestTheExample(t *testing.T) {
	example, err := filepath.Abs("../../policy.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(example); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Files: []string{"testdata/example.txtar"},
		Setup: func(e *testscript.Env) error {
			e.Setenv("EXAMPLE", example)
			return nil
		},
		RequireExplicitExec: true,
	})
}
