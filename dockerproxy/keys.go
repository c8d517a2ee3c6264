package dockerproxy

import (
	"reflect"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
)

// What the Engine's answers may have, in the API of 20.10 to 28: the client's
// types know all of it.
var (
	inspectKeys   = keysOf(reflect.TypeFor[container.InspectResponse]())
	listKeys      = keysOf(reflect.TypeFor[container.Summary]())
	imageListKeys = keysOf(reflect.TypeFor[image.Summary]())
	imageKeys     = keysOf(reflect.TypeFor[image.InspectResponse]())
	configKeys    = keysOf(reflect.TypeFor[container.Config](), pointed(memberType(reflect.TypeFor[image.InspectResponse](), "Config")))
)

func memberType(t reflect.Type, key string) reflect.Type {
	of, _ := member(t, key)
	return of
}

// keysOf are the JSON keys of structs.
func keysOf(types ...reflect.Type) map[string]bool {
	keys := map[string]bool{}
	for _, t := range types {
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch {
			case f.Anonymous && name == "":
				for k := range keysOf(pointed(f.Type)) {
					keys[k] = true
				}
			case name == "-" || !f.IsExported():
			case name == "":
				keys[f.Name] = true
			default:
				keys[name] = true
			}
		}
	}
	return keys
}
