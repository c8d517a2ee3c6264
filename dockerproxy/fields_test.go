package dockerproxy

import (
	"reflect"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
)

// bodies are the types of all bodies that a caller can send, and the verdicts
// on their fields.
var bodies = []struct {
	name  string
	of    reflect.Type
	table verdicts
}{
	{"create", reflect.TypeFor[container.CreateRequest](), createVerdicts},
	{"exec", reflect.TypeFor[execRequest](), execVerdicts},
	{"exec start", reflect.TypeFor[container.ExecStartOptions](), execStartVerdicts},
}

// leaves calls each for the path of everything below t, until table has a verdict.
func leaves(t reflect.Type, path string, table verdicts, each func(path string, judged bool)) {
	if _, ok := table[path]; ok {
		each(path, true)
		return
	}
	switch t.Kind() {
	case reflect.Pointer:
		leaves(t.Elem(), path, table, each)
	case reflect.Struct:
		for i := range t.NumField() {
			leaves(t.Field(i).Type, fieldPath(path, t.Field(i)), table, each)
		}
	case reflect.Slice, reflect.Array:
		leaves(t.Elem(), path+"[]", table, each)
	case reflect.Map:
		leaves(t.Elem(), path+"{}", table, each)
	default:
		each(path, false)
	}
}

func TestEveryFieldOfTheEnginesTypesHasAVerdict(t *testing.T) {
	for _, b := range bodies {
		seen := map[string]bool{}
		leaves(b.of, "", b.table, func(path string, judged bool) {
			seen[path] = true
			if !judged {
				t.Errorf("%s: field %s has no verdict: decide what a caller may put there", b.name, path)
			}
		})
		if len(seen) < 3 {
			t.Errorf("%s: only %d fields were found", b.name, len(seen))
		}
		for path := range b.table {
			if !seen[path] {
				t.Errorf("%s: there is a verdict on %s, which is no field", b.name, path)
			}
		}
	}
}

// A constrained field must not take what its check was not made for.
func TestConstrainedFieldsRefuseWhatIsOutOfBounds(t *testing.T) {
	for _, tt := range []struct{ name, body, field string }{
		{"a device", `{"HostConfig":{"Devices":[{"PathOnHost":"/dev/sda"}]}}`, "HostConfig.Devices"},
		{"a capability", `{"HostConfig":{"CapAdd":["SYS_ADMIN"]}}`, "HostConfig.CapAdd"},
		{"a capability as a string", `{"HostConfig":{"CapAdd":"SYS_ADMIN"}}`, "HostConfig.CapAdd"},
		{"unmasked paths", `{"HostConfig":{"MaskedPaths":[]}}`, "HostConfig.MaskedPaths"},
		{"writable paths", `{"HostConfig":{"ReadonlyPaths":[]}}`, "HostConfig.ReadonlyPaths"},
		{"the host's processes", `{"HostConfig":{"PidMode":"host"}}`, "HostConfig.PidMode"},
		{"another's processes", `{"HostConfig":{"PidMode":"container:x"}}`, "HostConfig.PidMode"},
		{"the host's IPC", `{"HostConfig":{"IpcMode":"host"}}`, "HostConfig.IpcMode"},
		{"shareable IPC", `{"HostConfig":{"IpcMode":"shareable"}}`, "HostConfig.IpcMode"},
		{"the host's UTS", `{"HostConfig":{"UTSMode":"host"}}`, "HostConfig.UTSMode"},
		{"the host's users", `{"HostConfig":{"UsernsMode":"host"}}`, "HostConfig.UsernsMode"},
		{"the host's cgroups", `{"HostConfig":{"CgroupnsMode":"host"}}`, "HostConfig.CgroupnsMode"},
		{"another's network", `{"HostConfig":{"NetworkMode":"container:x"}}`, "HostConfig.NetworkMode"},
		{"a network by path", `{"HostConfig":{"NetworkMode":"ns:/proc/1/ns/net"}}`, "HostConfig.NetworkMode"},
		{"a cgroup parent", `{"HostConfig":{"CgroupParent":"/system.slice"}}`, "HostConfig.CgroupParent"},
		{"a runtime", `{"HostConfig":{"Runtime":"io.containerd.runc.v2"}}`, "HostConfig.Runtime"},
		{"sysctls", `{"HostConfig":{"Sysctls":{"net.ipv4.ip_forward":"1"}}}`, "HostConfig.Sysctls"},
		{"a log driver", `{"HostConfig":{"LogConfig":{"Type":"syslog","Config":{"syslog-address":"unix:///var/run/docker.sock"}}}}`, "HostConfig.LogConfig.Type"},
		{"a driver's options", `{"HostConfig":{"Mounts":[{"Type":"volume","Target":"/h","VolumeOptions":{"DriverConfig":{"Options":{"type":"none","o":"bind","device":"/"}}}}]}}`, "DriverConfig"},
		{"a sub-path", `{"HostConfig":{"Mounts":[{"Type":"volume","Source":"scratch","Target":"/h","VolumeOptions":{"Subpath":"../.."}}]}}`, "Subpath"},
		{"an image mount", `{"HostConfig":{"Mounts":[{"Type":"image","Source":"evil","Target":"/h"}]}}`, "Type"},
		{"a mount in upper case", `{"HostConfig":{"Mounts":[{"Type":"BIND","Source":"/","Target":"/h"}]}}`, "Type"},
		{"a mount over /proc", `{"HostConfig":{"Mounts":[{"Type":"tmpfs","Target":"/proc/sys"}]}}`, "Target"},
		{"propagation", `{"HostConfig":{"Mounts":[{"Type":"bind","Source":"/srv","Target":"/h","BindOptions":{"Propagation":"rshared"}}]}}`, "BindOptions"},
		{"a bind with dots", `{"HostConfig":{"Binds":["/tmp/ok/../../etc:/h"]}}`, "HostConfig.Binds"},
		{"a bind with a label", `{"HostConfig":{"Binds":["/srv:/h:z"]}}`, "HostConfig.Binds"},
		{"volumes of another", `{"HostConfig":{"VolumesFrom":["db"]}}`, "HostConfig.VolumesFrom"},
		{"a volume driver", `{"HostConfig":{"VolumeDriver":"local"}}`, "HostConfig.VolumeDriver"},
		{"a port everywhere", `{"HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}]}}}`, "HostConfig.PortBindings"},
		{"a low port", `{"HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"22"}]}}}`, "HostConfig.PortBindings"},
		{"all ports", `{"HostConfig":{"PublishAllPorts":true}}`, "HostConfig.PublishAllPorts"},
		{"restarts", `{"HostConfig":{"RestartPolicy":{"Name":"always"}}}`, "HostConfig.RestartPolicy.Name"},
		{"a link", `{"HostConfig":{"Links":["prod:db"]}}`, "HostConfig.Links"},
		{"a name server", `{"HostConfig":{"Dns":["10.0.0.1"]}}`, "HostConfig.Dns"},
		{"a host's name", `{"HostConfig":{"ExtraHosts":["db:host-gateway"]}}`, "HostConfig.ExtraHosts"},
		{"a group", `{"HostConfig":{"GroupAdd":["0"]}}`, "HostConfig.GroupAdd"},
		{"seccomp off", `{"HostConfig":{"SecurityOpt":["seccomp:unconfined"]}}`, "HostConfig.SecurityOpt"},
		{"a later setuid", `{"HostConfig":{"SecurityOpt":["no-new-privileges","no-new-privileges=false"]}}`, "HostConfig.SecurityOpt"},
		{"SELinux off", `{"HostConfig":{"SecurityOpt":["disable"]}}`, "HostConfig.SecurityOpt"},
		{"never killed", `{"HostConfig":{"OomKillDisable":true}}`, "HostConfig.OomKillDisable"},
		{"others killed first", `{"HostConfig":{"OomScoreAdj":-1000}}`, "HostConfig.OomScoreAdj"},
		{"swappiness", `{"HostConfig":{"MemorySwappiness":100}}`, "HostConfig.MemorySwappiness"},
		{"a big tmpfs", `{"HostConfig":{"Tmpfs":{"/t":"size=64g"}}}`, "HostConfig.Tmpfs"},
		{"setuid on tmpfs", `{"HostConfig":{"Tmpfs":{"/t":"exec,suid,dev"}}}`, "HostConfig.Tmpfs"},
		{"big shared memory", `{"HostConfig":{"ShmSize":68719476736}}`, "HostConfig.ShmSize"},
		{"many files", `{"HostConfig":{"Ulimits":[{"Name":"nofile","Soft":1000000000,"Hard":1000000000}]}}`, "HostConfig.Ulimits"},
		{"locked memory", `{"HostConfig":{"Ulimits":[{"Name":"memlock","Soft":1,"Hard":1}]}}`, "HostConfig.Ulimits"},
		{"annotations", `{"HostConfig":{"Annotations":{"run.oci.handler":"x"}}}`, "HostConfig.Annotations"},
		{"storage options", `{"HostConfig":{"StorageOpt":{"size":"100G"}}}`, "HostConfig.StorageOpt"},
		{"block devices", `{"HostConfig":{"BlkioDeviceReadBps":[{"Path":"/dev/sda","Rate":1}]}}`, "HostConfig.BlkioDeviceReadBps"},
		{"real time", `{"HostConfig":{"CpuRealtimeRuntime":950000}}`, "HostConfig.CpuRealtimeRuntime"},
		{"our label", `{"Labels":{"jumpsuite.owner":"root"}}`, "Labels"},
		{"ECS's label", `{"Labels":{"com.amazonaws.ecs.task-definition-family":"web"}}`, "Labels"},
		{"a health check", `{"Healthcheck":{"Test":["CMD","x"]}}`, "Healthcheck"},
		{"no end", `{"StopTimeout":1000000000}`, "StopTimeout"},
		{"a signal that ends nothing", `{"StopSignal":"SIGCHLD"}`, "StopSignal"},
		{"a leaked directory", `{"WorkingDir":"/proc/self/fd/8"}`, "WorkingDir"},
		{"a MAC address", `{"MacAddress":"02:42:ac:11:00:02"}`, "MacAddress"},
		{"a static address", `{"NetworkingConfig":{"EndpointsConfig":{"bridge":{"IPAMConfig":{"IPv4Address":"172.17.0.9"}}}}}`, "IPAMConfig"},
		{"a network alias", `{"NetworkingConfig":{"EndpointsConfig":{"bridge":{"Aliases":["prod-db"]}}}}`, "Aliases"},
		{"a network by id", `{"NetworkingConfig":{"EndpointsConfig":{"bridge":{"NetworkID":"x"}}}}`, "NetworkID"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var c container.CreateRequest
			if err := unmarshal([]byte(tt.body), &c); err != nil {
				t.Fatalf("%s: %v", tt.body, err)
			}
			err := judge(&c, createVerdicts)
			if err == nil || !strings.Contains(err.Error(), tt.field) {
				t.Errorf("%s: got %v, want a refusal that names %s", tt.body, err, tt.field)
			}
		})
	}
}

// What docker run of 28 sends when nothing special is asked for: it must pass.
const plainCreate = `{"Hostname":"","Domainname":"","User":"","AttachStdin":false,"AttachStdout":true,"AttachStderr":true,"Tty":false,"OpenStdin":false,"StdinOnce":false,
"Env":null,"Cmd":["true"],"Image":"lab/web:1","Volumes":{},"WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":{},
"HostConfig":{"Binds":null,"ContainerIDFile":"","LogConfig":{"Type":"","Config":{}},"NetworkMode":"default","PortBindings":{},"RestartPolicy":{"Name":"no","MaximumRetryCount":0},
"AutoRemove":true,"VolumeDriver":"","VolumesFrom":null,"ConsoleSize":[24,80],"CapAdd":null,"CapDrop":null,"CgroupnsMode":"","Dns":[],"DnsOptions":[],"DnsSearch":[],"ExtraHosts":null,
"GroupAdd":null,"IpcMode":"","Cgroup":"","Links":null,"OomScoreAdj":0,"PidMode":"","Privileged":false,"PublishAllPorts":false,"ReadonlyRootfs":false,"SecurityOpt":null,"UTSMode":"",
"UsernsMode":"","ShmSize":0,"Isolation":"","CpuShares":0,"Memory":0,"NanoCpus":0,"CgroupParent":"","BlkioWeight":0,"BlkioWeightDevice":[],"BlkioDeviceReadBps":[],"BlkioDeviceWriteBps":[],
"BlkioDeviceReadIOps":[],"BlkioDeviceWriteIOps":[],"CpuPeriod":0,"CpuQuota":0,"CpuRealtimePeriod":0,"CpuRealtimeRuntime":0,"CpusetCpus":"","CpusetMems":"","Devices":[],"DeviceCgroupRules":null,
"DeviceRequests":null,"MemoryReservation":0,"MemorySwap":0,"MemorySwappiness":-1,"OomKillDisable":false,"PidsLimit":0,"Ulimits":[],"CpuCount":0,"CpuPercent":0,"IOMaximumIOps":0,"IOMaximumBandwidth":0,
"MaskedPaths":null,"ReadonlyPaths":null},
"NetworkingConfig":{"EndpointsConfig":{"default":{"IPAMConfig":null,"Links":null,"Aliases":null,"MacAddress":"","DriverOpts":null,"GwPriority":0,"NetworkID":"","EndpointID":"","Gateway":"","IPAddress":"","IPPrefixLen":0,"IPv6Gateway":"","GlobalIPv6Address":"","GlobalIPv6PrefixLen":0,"DNSNames":null}}}}`

func TestWhatThePlainClientSendsPasses(t *testing.T) {
	var c container.CreateRequest
	if err := unmarshal([]byte(plainCreate), &c); err != nil {
		t.Fatal(err)
	}
	if err := judge(&c, createVerdicts); err != nil {
		t.Errorf("got %v, want no refusal", err)
	}
}
