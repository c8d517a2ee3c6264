package world

import (
	"fmt"
	"reflect"
	"regexp"
)

// MaxSpeed bounds lab time: at a million lab seconds a second, a timer of a
// day ends in a tenth of one.
const MaxSpeed = 1e6

// maxPort is the last TCP port.
const maxPort = 65535

// awsName is what ECS takes for the name of a cluster or service: "up to 255
// letters (uppercase and lowercase), numbers, underscores, and hyphens" (doc
// comments of CreateClusterInput and CreateServiceInput).
var awsName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)

// regionName can be part of a host's name, which it is in that of the registry.
var regionName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// below are the keys that may have a number below zero: a seed, an exit code,
// the HTTP status -1, and the speed, which says so in its own words.
var below = map[string]bool{"seed": true, "exit": true, "http": true, "speed": true}

// bounds finds all numbers and durations below zero, and ports that are none.
// key is the last part of at.
func bounds(v reflect.Value, at, key string) []problem {
	var out []problem
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			return bounds(v.Elem(), at, key)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			name := v.Type().Field(i).Tag.Get("yaml")
			out = append(out, bounds(v.Field(i), dot(at, name), name)...)
		}
	case reflect.Slice:
		for i := range v.Len() {
			out = append(out, bounds(v.Index(i), fmt.Sprintf("%s.%d", at, i), key)...)
		}
	case reflect.Int, reflect.Int64:
		return bound(v, at, key)
	}
	return out
}

func bound(v reflect.Value, at, key string) []problem {
	switch port := key == "port" || key == "host-port" || key == "ports"; {
	case port && (v.Int() < 0 || v.Int() > maxPort):
		return []problem{{at, fmt.Sprintf("%d is no port", v.Int())}}
	case v.Int() < 0 && !below[key]:
		return []problem{{at, fmt.Sprintf("%v is negative", v.Interface())}}
	}
	return nil
}

// checkSpeed refuses NaN too, which is not smaller and not greater than anything.
func (c Clock) checkSpeed() []problem {
	switch {
	case c.Speed < 0:
		return []problem{{"clock.speed", "time does not run backwards"}}
	case !(c.Speed <= MaxSpeed):
		return []problem{{"clock.speed", fmt.Sprintf("%g is not a speed of up to %d", c.Speed, int(MaxSpeed))}}
	}
	return nil
}

// checkAddresses looks at hosts that are complete: two of a cluster do not
// have one address, and no two one instance id.
func (w *World) checkAddresses() []problem {
	var out []problem
	ids := map[string]bool{}
	for i, c := range w.Clusters {
		at := fmt.Sprintf("clusters.%d", i)
		addresses := map[string]bool{}
		for _, h := range c.Hosts {
			if addresses[h.IP] {
				out = append(out, problem{at, fmt.Sprintf("two hosts of cluster %s have the address %s", c.Name, h.IP)})
			}
			if ids[h.Instance] {
				out = append(out, problem{at, fmt.Sprintf("two hosts are instance %s", h.Instance)})
			}
			addresses[h.IP], ids[h.Instance] = true, true
		}
	}
	return out
}
