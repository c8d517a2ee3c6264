package dockerproxy

import (
	"fmt"
	"reflect"
	"strings"
)

// A verdict says what a caller may put into a field.
type verdict struct {
	kind  verdictKind
	check func(reflect.Value) error // of a constrained one
}

type verdictKind uint8

const (
	denied      verdictKind = iota // it has to be zero
	harmless                       // anything goes
	constrained                    // check decides
)

// verdicts are by the field's path in JSON: HostConfig.Memory. What is in a list
// is below Mounts[], what is in a map below EndpointsConfig{}. A verdict on an
// object, list or map is on all that is in it.
type verdicts map[string]verdict

// judge checks every field of v, a pointer to a struct. A field without a
// verdict is refused.
func judge(v any, table verdicts) error {
	return table.value(reflect.ValueOf(v).Elem(), "")
}

func (t verdicts) value(v reflect.Value, path string) error {
	if entry, ok := t[path]; ok {
		return entry.apply(v, path)
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return t.value(v.Elem(), path)
	case reflect.Struct:
		return t.object(v, path)
	case reflect.Slice:
		return t.list(v, path)
	case reflect.Map:
		return t.mapping(v, path)
	}
	return forbidden("", "%s is not known to the gate", path)
}

func (t verdicts) object(v reflect.Value, path string) error {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name := fieldPath(path, f)
		if err := t.value(v.Field(i), name); err != nil {
			return err
		}
	}
	return nil
}

func (t verdicts) list(v reflect.Value, path string) error {
	for i := range v.Len() {
		if err := t.value(v.Index(i), path+"[]"); err != nil {
			return err
		}
	}
	return nil
}

func (t verdicts) mapping(v reflect.Value, path string) error {
	for it := v.MapRange(); it.Next(); {
		if err := t.value(it.Value(), path+"{}"); err != nil {
			return err
		}
	}
	return nil
}

// fieldPath is the path of a struct's field; an embedded struct adds nothing.
func fieldPath(path string, f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	switch {
	case f.Anonymous && name == "":
		return path
	case name == "":
		name = f.Name
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

func (e verdict) apply(v reflect.Value, path string) error {
	switch e.kind {
	case harmless:
		return nil
	case constrained:
		if err := e.check(v); err != nil {
			return forbidden("", "%s: %s", asTyped(path), reason(err))
		}
		return nil
	}
	if !isZero(v) {
		return forbidden("", "%s is not available", asTyped(path))
	}
	return nil
}

// reason is an error's text without what a refusal adds to it.
func reason(err error) string {
	if r, ok := err.(*Refusal); ok {
		return r.Text
	}
	return err.Error()
}

// asTyped is a field as the docker CLI's options have it.
func asTyped(path string) string {
	if option := optionOf[path]; option != "" {
		return option + " (" + path + ")"
	}
	return path
}

var optionOf = map[string]string{
	"HostConfig.Binds": "--volume", "HostConfig.CapAdd": "--cap-add", "HostConfig.CgroupParent": "--cgroup-parent",
	"HostConfig.DeviceCgroupRules": "--device-cgroup-rule", "HostConfig.DeviceRequests": "--gpus", "HostConfig.Devices": "--device",
	"HostConfig.Dns": "--dns", "HostConfig.ExtraHosts": "--add-host", "HostConfig.GroupAdd": "--group-add",
	"HostConfig.IpcMode": "--ipc", "HostConfig.Links": "--link", "HostConfig.LogConfig.Type": "--log-driver",
	"HostConfig.PidMode": "--pid", "HostConfig.PublishAllPorts": "--publish-all", "HostConfig.PortBindings": "--publish",
	"HostConfig.RestartPolicy.Name": "--restart", "HostConfig.Runtime": "--runtime", "HostConfig.SecurityOpt": "--security-opt",
	"HostConfig.Sysctls": "--sysctl", "HostConfig.Tmpfs": "--tmpfs", "HostConfig.UTSMode": "--uts", "HostConfig.UsernsMode": "--userns",
	"HostConfig.Ulimits": "--ulimit", "HostConfig.VolumeDriver": "--volume-driver", "HostConfig.VolumesFrom": "--volumes-from",
	"HostConfig.ShmSize": "--shm-size", "HostConfig.OomKillDisable": "--oom-kill-disable", "HostConfig.OomScoreAdj": "--oom-score-adj",
	"HostConfig.Annotations": "--annotation", "HostConfig.StorageOpt": "--storage-opt", "HostConfig.CgroupnsMode": "--cgroupns",
	"HostConfig.Mounts[].VolumeOptions.DriverConfig": "--mount volume-driver, volume-opt", "HostConfig.Mounts[].BindOptions": "--mount bind-…",
	"HostConfig.BlkioWeight": "--blkio-weight", "HostConfig.BlkioWeightDevice": "--blkio-weight-device",
	"HostConfig.BlkioDeviceReadBps": "--device-read-bps", "HostConfig.BlkioDeviceWriteBps": "--device-write-bps",
	"HostConfig.BlkioDeviceReadIOps": "--device-read-iops", "HostConfig.BlkioDeviceWriteIOps": "--device-write-iops",
	"HostConfig.CpuPeriod": "--cpu-period", "HostConfig.CpuQuota": "--cpu-quota", "HostConfig.CpuShares": "--cpu-shares",
	"HostConfig.CpuRealtimePeriod": "--cpu-rt-period", "HostConfig.CpuRealtimeRuntime": "--cpu-rt-runtime",
	"HostConfig.CpusetCpus": "--cpuset-cpus", "HostConfig.CpusetMems": "--cpuset-mems", "HostConfig.CapDrop": "--cap-drop",
	"HostConfig.DnsOptions": "--dns-option", "HostConfig.DnsSearch": "--dns-search", "HostConfig.Isolation": "--isolation",
	"HostConfig.KernelMemory": "--kernel-memory", "HostConfig.LogConfig.Config": "--log-opt", "HostConfig.NetworkMode": "--network",
	"HostConfig.MemoryReservation": "--memory-reservation", "HostConfig.MemorySwap": "--memory-swap", "HostConfig.MemorySwappiness": "--memory-swappiness",
	"HostConfig.Mounts[].Type": "--mount type", "HostConfig.Mounts[].Source": "--mount source", "HostConfig.Mounts[].Target": "--mount target",
	"HostConfig.Mounts[].TmpfsOptions.SizeBytes": "--mount tmpfs-size", "HostConfig.Mounts[].TmpfsOptions.Mode": "--mount tmpfs-mode",
	"HostConfig.Mounts[].VolumeOptions.Subpath": "--mount volume-subpath", "StopSignal": "--stop-signal", "ExposedPorts": "--expose", "Volumes": "--volume",
	"Labels": "--label", "Env": "--env", "WorkingDir": "--workdir", "User": "--user", "Healthcheck": "--health-…, --no-healthcheck",
	"MacAddress": "--mac-address", "Domainname": "--domainname", "Hostname": "--hostname", "StopTimeout": "--stop-timeout",
	"NetworkingConfig.EndpointsConfig{}.Aliases": "--network-alias", "NetworkingConfig.EndpointsConfig{}.IPAMConfig": "--ip",
}

// isZero takes what is empty for zero, as clients send it: {}, [], a pointer to
// false.
func isZero(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer:
		return v.IsNil() || isZero(v.Elem())
	case reflect.Slice, reflect.Map:
		return v.Len() == 0
	case reflect.Struct:
		for i := range v.NumField() {
			if !isZero(v.Field(i)) {
				return false
			}
		}
		return true
	}
	return v.IsZero()
}

// Checks of constrained fields. A pointer that is nil, and what is empty, is
// always fine: nothing was asked for.

func texts(check func(string) error) func(reflect.Value) error {
	return func(v reflect.Value) error {
		if v.Kind() == reflect.String {
			if v.Len() == 0 {
				return nil
			}
			return check(v.String())
		}
		for i := range v.Len() {
			if err := check(v.Index(i).String()); err != nil {
				return err
			}
		}
		return nil
	}
}

func words(allowed ...string) func(reflect.Value) error {
	return texts(func(s string) error {
		for _, w := range allowed {
			if s == w {
				return nil
			}
		}
		return fmt.Errorf("%q is not available", clip(s))
	})
}

func numbers(least, most int64) func(reflect.Value) error {
	return func(v reflect.Value) error {
		if v.Kind() == reflect.Pointer {
			if v.IsNil() {
				return nil
			}
			v = v.Elem()
		}
		n := int64(0)
		if v.CanUint() {
			n = int64(min(v.Uint(), 1<<62))
		} else {
			n = v.Int()
		}
		if n < least || n > most {
			return fmt.Errorf("%d is not within %d to %d", n, least, most)
		}
		return nil
	}
}

func keys(most int, check func(key string) error) func(reflect.Value) error {
	return func(v reflect.Value) error {
		if v.Len() > most {
			return fmt.Errorf("more than %d", most)
		}
		for _, k := range v.MapKeys() {
			if err := check(k.String()); err != nil {
				return err
			}
		}
		return nil
	}
}

// entries checks each of a map[string]string.
func entries(most int, check func(key, value string) error) func(reflect.Value) error {
	return func(v reflect.Value) error {
		if v.Len() > most {
			return fmt.Errorf("more than %d", most)
		}
		for it := v.MapRange(); it.Next(); {
			if err := check(it.Key().String(), it.Value().String()); err != nil {
				return err
			}
		}
		return nil
	}
}

// unset admits only null: an empty list means something else.
func unset(v reflect.Value) error {
	if !v.IsNil() {
		return fmt.Errorf("not available")
	}
	return nil
}

// atMost bounds the length of a list.
func atMost(n int, check func(reflect.Value) error) func(reflect.Value) error {
	return func(v reflect.Value) error {
		if v.Len() > n {
			return fmt.Errorf("more than %d", n)
		}
		return check(v)
	}
}
