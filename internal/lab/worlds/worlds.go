// Package worlds has a world for each way in which a deployment on ECS can go,
// by a name in words: image-missing, slow-drain. They are for scripts (world
// image-missing), for r3-lab up --world image-missing, and to copy from. The head
// of each file says what happens in it, what AWS's API shows, and what a
// caller can get wrong.
//
// They have in common a cluster prod with a service api, which is what goes
// wrong when api:2 is deployed, or is about to.
package worlds

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"jumpsuite/internal/lab/world"
)

//go:embed *.yaml
var files embed.FS

// Names are the names of all worlds, sorted.
func Names() []string {
	entries, err := fs.Glob(files, "*.yaml")
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e, ".yaml"))
	}
	slices.Sort(names) // a name comes before those that begin with it, its file does not
	return names
}

// Text is the file of a world.
func Text(name string) ([]byte, error) {
	data, err := files.ReadFile(name + ".yaml")
	if err != nil {
		return nil, fmt.Errorf("there is no world %q", name)
	}
	return data, nil
}

// Read reads a world by its name.
func Read(name string) (*world.World, error) {
	data, err := Text(name)
	if err != nil {
		return nil, err
	}
	return world.Parse(data, name+".yaml")
}
