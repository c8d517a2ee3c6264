package dockerproxy

import (
	"fmt"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/go-connections/nat"
	"github.com/docker/go-units"

	"jumpsuite/internal/pattern"
)

// Every field of every body that a caller can send, as of API 1.51. A test walks
// the Engine's types and fails when one of them has a field that is not here.
// Where a field says "policy", its values are the policy's to judge; the check
// here is about the form.

func only(check func(reflect.Value) error) verdict {
	return verdict{kind: constrained, check: check}
}

var ok = verdict{kind: harmless}
var no = verdict{kind: denied}

// policyDecides is a field whose value the policy judges.
var policyDecides = verdict{kind: harmless}

var createVerdicts = verdicts{
	// container.Config
	"Hostname":        only(texts(hostname)),
	"Domainname":      no,
	"User":            only(texts(userName)), // policy
	"AttachStdin":     ok,
	"AttachStdout":    ok,
	"AttachStderr":    ok,
	"ExposedPorts":    only(keys(64, portName)),
	"Tty":             ok,
	"OpenStdin":       ok,
	"StdinOnce":       ok,
	"Env":             only(atMost(maxVariables, texts(assigned))),
	"Cmd":             ok,
	"Healthcheck":     no,
	"ArgsEscaped":     no,
	"Image":           only(texts(imageRef)), // policy
	"Volumes":         only(keys(16, mountTarget)),
	"WorkingDir":      only(texts(workDir)),
	"Entrypoint":      ok,
	"NetworkDisabled": ok,
	"MacAddress":      no,
	"OnBuild":         no,
	"Labels":          only(entries(64, label)),
	"StopSignal":      only(words("TERM", "INT", "QUIT", "KILL", "HUP", "SIGTERM", "SIGINT", "SIGQUIT", "SIGKILL", "SIGHUP", "1", "2", "3", "9", "15")),
	"StopTimeout":     only(numbers(0, 60)),
	"Shell":           ok,

	// container.HostConfig
	"HostConfig.Binds":                           only(atMost(16, texts(bindForm))), // policy
	"HostConfig.ContainerIDFile":                 ok,                                // the client's own file; not passed on
	"HostConfig.LogConfig.Type":                  no,
	"HostConfig.LogConfig.Config":                no,
	"HostConfig.NetworkMode":                     only(texts(networkName)), // policy
	"HostConfig.PortBindings":                    only(portBindings),       // policy
	"HostConfig.RestartPolicy.Name":              only(words("no")),
	"HostConfig.RestartPolicy.MaximumRetryCount": no,
	"HostConfig.AutoRemove":                      ok,
	"HostConfig.VolumeDriver":                    no,
	"HostConfig.VolumesFrom":                     no,
	"HostConfig.ConsoleSize":                     ok, // clamped
	"HostConfig.Annotations":                     no,
	"HostConfig.CapAdd":                          no,
	"HostConfig.CapDrop":                         only(atMost(64, texts(capability))),
	"HostConfig.CgroupnsMode":                    only(words("private")),
	"HostConfig.Dns":                             no,
	"HostConfig.DnsOptions":                      no,
	"HostConfig.DnsSearch":                       no,
	"HostConfig.ExtraHosts":                      no,
	"HostConfig.GroupAdd":                        no,
	"HostConfig.IpcMode":                         only(words("private", "none")),
	"HostConfig.Cgroup":                          no,
	"HostConfig.Links":                           no,
	"HostConfig.OomScoreAdj":                     only(numbers(0, 1000)),
	"HostConfig.PidMode":                         no,
	"HostConfig.Privileged":                      policyDecides, // which always refuses it, and says so
	"HostConfig.PublishAllPorts":                 no,
	"HostConfig.ReadonlyRootfs":                  ok,
	"HostConfig.SecurityOpt":                     only(words("no-new-privileges", "no-new-privileges:true", "no-new-privileges=true")),
	"HostConfig.StorageOpt":                      no,
	"HostConfig.Tmpfs":                           only(entries(8, tmpfs)), // written anew
	"HostConfig.UTSMode":                         no,
	"HostConfig.UsernsMode":                      no,
	"HostConfig.ShmSize":                         only(numbers(0, maxShm)),
	"HostConfig.Sysctls":                         no,
	"HostConfig.Runtime":                         no,
	"HostConfig.Isolation":                       no,
	"HostConfig.MaskedPaths":                     only(unset),
	"HostConfig.ReadonlyPaths":                   only(unset),
	"HostConfig.Init":                            ok,

	// container.Resources
	"HostConfig.CpuShares":            only(numbers(0, 1024)),
	"HostConfig.Memory":               policyDecides, // capped
	"HostConfig.NanoCpus":             policyDecides, // capped
	"HostConfig.CgroupParent":         no,
	"HostConfig.BlkioWeight":          no,
	"HostConfig.BlkioWeightDevice":    no,
	"HostConfig.BlkioDeviceReadBps":   no,
	"HostConfig.BlkioDeviceWriteBps":  no,
	"HostConfig.BlkioDeviceReadIOps":  no,
	"HostConfig.BlkioDeviceWriteIOps": no,
	"HostConfig.CpuPeriod":            only(numbers(0, 1000000)),
	"HostConfig.CpuQuota":             only(numbers(0, 1<<40)), // policy, as CPUs
	"HostConfig.CpuRealtimePeriod":    no,
	"HostConfig.CpuRealtimeRuntime":   no,
	"HostConfig.CpusetCpus":           no,
	"HostConfig.CpusetMems":           no,
	"HostConfig.Devices":              no,
	"HostConfig.DeviceCgroupRules":    no,
	"HostConfig.DeviceRequests":       no,
	"HostConfig.KernelMemory":         no,
	"HostConfig.KernelMemoryTCP":      no,
	"HostConfig.MemoryReservation":    only(numbers(0, 1<<50)),
	"HostConfig.MemorySwap":           only(numbers(0, 1<<50)), // written anew: no swap
	"HostConfig.MemorySwappiness":     only(numbers(-1, -1)),
	"HostConfig.OomKillDisable":       no,
	"HostConfig.PidsLimit":            policyDecides, // capped
	"HostConfig.Ulimits":              only(atMost(8, ulimits)),
	"HostConfig.CpuCount":             no,
	"HostConfig.CpuPercent":           no,
	"HostConfig.IOMaximumIOps":        no,
	"HostConfig.IOMaximumBandwidth":   no,

	// mount.Mount
	"HostConfig.Mounts[].Type":                       only(mountType),
	"HostConfig.Mounts[].Source":                     only(texts(mountSource)), // policy
	"HostConfig.Mounts[].Target":                     only(texts(mountTarget)),
	"HostConfig.Mounts[].ReadOnly":                   ok,
	"HostConfig.Mounts[].Consistency":                only(words("default", "consistent", "cached", "delegated")),
	"HostConfig.Mounts[].BindOptions":                no,
	"HostConfig.Mounts[].VolumeOptions.NoCopy":       ok,
	"HostConfig.Mounts[].VolumeOptions.Labels":       no,
	"HostConfig.Mounts[].VolumeOptions.Subpath":      no,
	"HostConfig.Mounts[].VolumeOptions.DriverConfig": no,
	"HostConfig.Mounts[].ImageOptions":               no,
	"HostConfig.Mounts[].TmpfsOptions.SizeBytes":     only(numbers(0, maxShm)),
	"HostConfig.Mounts[].TmpfsOptions.Mode":          only(numbers(0, 0o777)),
	"HostConfig.Mounts[].TmpfsOptions.Options":       no,
	"HostConfig.Mounts[].ClusterOptions":             no,

	// network.NetworkingConfig; the names are the policy's
	"NetworkingConfig.EndpointsConfig{}.IPAMConfig":          no,
	"NetworkingConfig.EndpointsConfig{}.Links":               no,
	"NetworkingConfig.EndpointsConfig{}.Aliases":             no,
	"NetworkingConfig.EndpointsConfig{}.MacAddress":          no,
	"NetworkingConfig.EndpointsConfig{}.DriverOpts":          no,
	"NetworkingConfig.EndpointsConfig{}.GwPriority":          no,
	"NetworkingConfig.EndpointsConfig{}.NetworkID":           no,
	"NetworkingConfig.EndpointsConfig{}.EndpointID":          no,
	"NetworkingConfig.EndpointsConfig{}.Gateway":             no,
	"NetworkingConfig.EndpointsConfig{}.IPAddress":           no,
	"NetworkingConfig.EndpointsConfig{}.IPPrefixLen":         no,
	"NetworkingConfig.EndpointsConfig{}.IPv6Gateway":         no,
	"NetworkingConfig.EndpointsConfig{}.GlobalIPv6Address":   no,
	"NetworkingConfig.EndpointsConfig{}.GlobalIPv6PrefixLen": no,
	"NetworkingConfig.EndpointsConfig{}.DNSNames":            no,
}

var execVerdicts = verdicts{
	"User":         only(texts(userName)), // policy
	"Privileged":   policyDecides,         // which always refuses it, and says so
	"Tty":          ok,
	"ConsoleSize":  ok, // clamped
	"AttachStdin":  ok,
	"AttachStderr": ok,
	"AttachStdout": ok,
	"DetachKeys":   only(texts(detachForm)),
	"Env":          only(atMost(maxVariables, texts(assigned))), // policy
	"WorkingDir":   only(texts(workDir)),                        // policy
	"Cmd":          only(arguments),                             // policy
	"Detach":       ok,                                          // says nothing; the start does
	"Container":    ok,                                          // says nothing; the path does
}

var execStartVerdicts = verdicts{
	"Detach":      ok, // has to fit the request, and the policy
	"Tty":         ok, // has to fit the exec
	"ConsoleSize": ok, // clamped
}

// maxShm bounds shared memory and tmpfs, in bytes.
const maxShm = 256 << 20

var (
	hostnameForm   = pattern.Sized(63, `^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`)
	userForm       = pattern.New(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})?$`)
	variableForm   = pattern.New(`^[A-Za-z_][A-Za-z0-9_.-]*$`)
	capabilityForm = pattern.New(`^[A-Za-z_]{3,40}$`)
	portForm       = pattern.New(`^[0-9]{1,5}(/(tcp|udp|sctp))?$`)
	networkForm    = pattern.Sized(128, `^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
	labelForm      = pattern.Sized(128, `^[A-Za-z0-9][A-Za-z0-9_./-]*$`)
)

func shaped(form *pattern.Pattern, what string) func(string) error {
	return func(s string) error {
		if !form.MatchString(s) {
			return fmt.Errorf("%q is no %s", clip(s), what)
		}
		return nil
	}
}

var (
	hostname    = shaped(hostnameForm, "host name")
	userName    = shaped(userForm, "user")
	capability  = shaped(capabilityForm, "capability")
	portName    = shaped(portForm, "port")
	networkName = shaped(networkForm, "network that is available")
)

// assigned is NAME=value, or NAME alone, which takes the variable away.
func assigned(s string) error {
	name, value, _ := strings.Cut(s, "=")
	if !variableForm.MatchString(name) {
		return fmt.Errorf("%q is no variable's name", clip(name))
	}
	if len(value) > 32<<10 || strings.IndexByte(value, 0) >= 0 {
		return fmt.Errorf("the value of %s is not available", clip(name))
	}
	return nil
}

func imageRef(s string) error {
	if !isImageName(s) {
		return fmt.Errorf("%q is no image", clip(s))
	}
	return nil
}

func detachForm(s string) error {
	_, err := detachKeys(s)
	return err
}

// reservedLabels are the gate's and those by which ECS knows its containers.
var reservedLabels = []string{labelPrefix, "com.amazonaws.", "com.docker."}

// reserved is the beginning of a label by which it is reserved; empty: it is not.
func reserved(key string) string {
	for _, p := range reservedLabels {
		if strings.HasPrefix(strings.ToLower(key), p) {
			return p
		}
	}
	return ""
}

func label(key, value string) error {
	if err := shaped(labelForm, "label")(key); err != nil {
		return err
	}
	if p := reserved(key); p != "" {
		return fmt.Errorf("labels %s… are reserved", p)
	}
	if len(value) > 4<<10 {
		return fmt.Errorf("the value of %s is too long", key)
	}
	return nil
}

// mountTarget is a path in a container.
func mountTarget(s string) error {
	if !strings.HasPrefix(s, "/") || path.Clean(s) != s || strings.ContainsAny(s, ":\x00") || len(s) > 1024 {
		return fmt.Errorf("%q is no path in a container, in its plain form", clip(s))
	}
	for _, not := range []string{"/proc", "/sys", "/dev"} {
		if s == "/" || within(s, not) {
			return fmt.Errorf("nothing can be mounted at %s", s)
		}
	}
	return nil
}

// mountType: a bind goes to the policy, as all that has the host's path does.
func mountType(v reflect.Value) error {
	switch mount.Type(v.String()) {
	case mount.TypeVolume, mount.TypeTmpfs, mount.TypeBind:
		return nil
	}
	return fmt.Errorf("%q is not available", clip(v.String()))
}

// mountSource is the name of a volume, or a path of the host.
func mountSource(s string) error {
	if strings.HasPrefix(s, "/") {
		if path.Clean(s) != s || len(s) > 1024 || strings.ContainsAny(s, ":\x00") {
			return fmt.Errorf("%q is not in its plain form", clip(s))
		}
		return nil
	}
	if !isRef(s) {
		return fmt.Errorf("%q is no volume's name", clip(s))
	}
	return nil
}

// bind is one of HostConfig.Binds: source:target[:ro|rw]. Other options (z,
// propagation, copy) change the host.
type bind struct {
	source, target string
	readOnly       bool
}

func parseBind(s string) (b bind, err error) {
	parts := strings.Split(s, ":")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" {
		return b, fmt.Errorf("%q is not SOURCE:TARGET or SOURCE:TARGET:ro", clip(s))
	}
	b.source, b.target = parts[0], parts[1]
	if err := mountSource(b.source); err != nil {
		return b, err
	}
	if err := mountTarget(b.target); err != nil {
		return b, err
	}
	if len(parts) == 3 {
		if parts[2] != "ro" && parts[2] != "rw" {
			return b, fmt.Errorf("option %q of a mount is not available", clip(parts[2]))
		}
		b.readOnly = parts[2] == "ro"
	}
	return b, nil
}

func bindForm(s string) error {
	_, err := parseBind(s)
	return err
}

// portBindings may only be ports of the host's loopback that need no root.
func portBindings(v reflect.Value) error {
	m := v.Interface().(nat.PortMap)
	if len(m) > 16 {
		return fmt.Errorf("more than 16")
	}
	for port, hosts := range m {
		if err := portName(string(port)); err != nil {
			return err
		}
		for _, h := range hosts {
			if err := hostPort(h); err != nil {
				return err
			}
		}
	}
	return nil
}

func hostPort(h nat.PortBinding) error {
	if h.HostIP != "127.0.0.1" {
		return fmt.Errorf("ports can be published on 127.0.0.1 only: write 127.0.0.1:HOST:CONTAINER")
	}
	if h.HostPort == "" {
		return nil
	}
	n, err := strconv.ParseUint(h.HostPort, 10, 16)
	if err != nil || n < 1024 {
		return fmt.Errorf("host port %q is not within 1024 to 65535", clip(h.HostPort))
	}
	return nil
}

// tmpfs options: what the gate writes in their place is at least as narrow.
func tmpfs(target, options string) error {
	if err := mountTarget(target); err != nil {
		return err
	}
	_, err := tmpfsSize(options)
	return err
}

func tmpfsSize(options string) (int64, error) {
	size := int64(maxShm)
	for o := range strings.SplitSeq(options, ",") {
		key, value, _ := strings.Cut(o, "=")
		switch {
		case o == "" || slices.Contains([]string{"rw", "noexec", "nosuid", "nodev"}, o):
		case key == "size":
			n, err := units.RAMInBytes(value)
			if err != nil || n <= 0 || n > maxShm {
				return 0, fmt.Errorf("tmpfs size %q is not within %d bytes", clip(value), maxShm)
			}
			size = n
		default:
			return 0, fmt.Errorf("tmpfs option %q is not available", clip(o))
		}
	}
	return size, nil
}

// maxUlimits are the largest values.
var maxUlimits = map[string]int64{"nofile": 65536, "nproc": 4096, "core": 0, "stack": 64 << 20, "fsize": 1 << 40, "cpu": 1 << 40}

func ulimits(v reflect.Value) error {
	for i := range v.Len() {
		u, _ := v.Index(i).Interface().(*container.Ulimit)
		if u == nil {
			return fmt.Errorf("null is no limit")
		}
		most, known := maxUlimits[u.Name]
		if !known || u.Soft < 0 || u.Hard < 0 || u.Soft > most || u.Hard > most {
			return fmt.Errorf("%s=%d:%d is not available", clip(u.Name), u.Soft, u.Hard)
		}
	}
	return nil
}

// arguments of an exec.
func arguments(v reflect.Value) error {
	switch {
	case v.Len() == 0:
		return fmt.Errorf("no command is given")
	case v.Len() > maxExecArgs:
		return fmt.Errorf("more than %d arguments", maxExecArgs)
	}
	return nil
}

// clampConsole bounds a terminal's size, as [height, width].
func clampConsole(size *[2]uint) {
	if size == nil {
		return
	}
	for i := range size {
		size[i] = min(size[i], maxConsole)
	}
}
