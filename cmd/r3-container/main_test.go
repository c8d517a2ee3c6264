package main

import (
	"testing"

	"jumpsuite/internal/scripttest"
)

func TestMain(m *testing.M) {
	scripttest.Main(m, map[string]func(){"r3-container": main, "r3": main})
}

func TestScripts(t *testing.T) { scripttest.Run(t, "testdata/script") }
