package main

import (
	"testing"

	"jumpsuite/internal/lab/world"
	"jumpsuite/internal/scripttest"
)

func TestMain(m *testing.M) { scripttest.Main(m, map[string]func(){"r3-lab": main}) }

func TestScripts(t *testing.T) { scripttest.Run(t, "testdata/script") }

func TestTheDefaultWorldIsOne(t *testing.T) {
	w, err := world.Parse(defaultWorld, "default.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(w.Clusters) != 2 || len(w.Services) < 3 || len(w.Images) < 5 {
		t.Errorf("got %d clusters, %d services, %d images", len(w.Clusters), len(w.Services), len(w.Images))
	}
}
