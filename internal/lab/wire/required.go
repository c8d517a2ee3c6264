package wire

import (
	_ "embed"
	"reflect"
	"strings"
	"sync"
)

// requiredText lists the members that AWS requires, a struct of the SDK's a
// line: "ecs.UpdateServiceInput Service". The SDK says so in the comments of
// its structs only, so a test makes the list from the SDK's source; go test
// -update writes it.
//
//go:embed required.txt
var requiredText string

var requiredMembers = sync.OnceValue(func() map[string][]string {
	members := map[string][]string{}
	for line := range strings.Lines(requiredText) {
		fields := strings.Fields(line)
		if len(fields) > 1 {
			members[fields[0]] = fields[1:]
		}
	}
	return members
})

// required are the members of struct t that AWS requires, by their Go names.
func required(t reflect.Type) []string { return requiredMembers()[shapeName(t)] }

// shapeName is a struct's name with its service: ecs.LoadBalancer, for one in
// package ecs as in package ecs/types.
func shapeName(t reflect.Type) string {
	path := strings.TrimSuffix(t.PkgPath(), "/types")
	return path[strings.LastIndexByte(path, '/')+1:] + "." + t.Name()
}
