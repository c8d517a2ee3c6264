package deployer

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// roomy is a host with nothing on it.
func roomy(name string) host {
	return host{name: name, status: "ACTIVE", connected: true, cpu: 2048, memory: 3900, ports: map[string]bool{"22/tcp": true},
		attributes: map[string]string{"ecs.cpu-architecture": "x86_64", "ecs.os-type": "linux", "ecs.capability.x": ""}}
}

func TestSurgeIsWhatMustFindRoomBesideTheOldTasks(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   situation
		want int
	}{
		{"an old task may be stopped first", situation{desired: 2, minPercent: 50, maxPercent: 100}, 0},
		{"it may not", situation{desired: 2, minPercent: 100, maxPercent: 200}, 1},
		{"it may not, by rounding up", situation{desired: 1, minPercent: 50, maxPercent: 200}, 1},
		{"replacing", situation{desired: 3, minPercent: 0, maxPercent: 100}, 0},
		{"a daemon", situation{desired: 3, minPercent: 0, maxPercent: 100, daemon: true}, 0},
		{"nothing desired", situation{desired: 0, minPercent: 100, maxPercent: 200}, 0},
		{"shifted traffic", situation{desired: 3, minPercent: 0, maxPercent: 100, shifts: true}, 3},
	} {
		if got := surge(tt.in); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestRoomIsWhatTheSchedulerWouldFind(t *testing.T) {
	one := situation{desired: 2, minPercent: 100, maxPercent: 200}
	all := situation{desired: 4, shifts: true}
	few := need{cpu: 256, memory: 512}
	with := func(change func(*host)) host {
		h := roomy("i-1")
		change(&h)
		return h
	}
	for _, tt := range []struct {
		name  string
		in    situation
		need  need
		hosts []host
		want  string // the end of the finding
	}{
		{"there is room", one, few, []host{roomy("i-1")}, ""},
		{"no host", one, few, nil, "(256 CPU units, 512 MiB each): the cluster has no hosts"},
		{"no host, and none is needed", situation{desired: 2, minPercent: 0, maxPercent: 100}, few, nil, ""},
		{"memory", one, few, []host{with(func(h *host) { h.memory = 511 })}, "i-1 has 511 MiB memory left"},
		{"CPU", one, few, []host{with(func(h *host) { h.cpu = 255 })}, "i-1 has 255 CPU units left"},
		{"just enough", one, few, []host{with(func(h *host) { h.cpu, h.memory = 256, 512 })}, ""},
		{"a GPU", one, need{gpus: 1}, []host{roomy("i-1")}, "(0 CPU units, 0 MiB, 1 GPU each): i-1 has 0 GPUs left"},
		{"a port", one, need{ports: []string{"22/tcp"}}, []host{roomy("i-1")}, "host port 22/tcp each): i-1 has port 22/tcp taken"},
		{"a port of the other protocol", one, need{ports: []string{"22/udp"}}, []host{roomy("i-1")}, ""},
		{"draining", one, few, []host{with(func(h *host) { h.status = "DRAINING" })}, "i-1 is DRAINING"},
		{"no agent", one, few, []host{with(func(h *host) { h.connected = false })}, "i-1 has an agent that ECS does not hear"},
		{"a constraint", one, few, []host{with(func(h *host) { h.excluded = true })}, "i-1 is ruled out by a placement constraint"},
		{"an architecture", one, need{platform: platform{"linux", "arm64"}}, []host{roomy("i-1")}, "i-1 is linux/amd64"},
		{"an attribute", one, need{attributes: []types.Attribute{{Name: aws.String("ecs.capability.y")}}}, []host{roomy("i-1")}, "i-1 lacks the attribute ecs.capability.y"},
		{"an attribute that is there", one, need{attributes: []types.Attribute{{Name: aws.String("ecs.capability.x")}}}, []host{roomy("i-1")}, ""},
		{"distinctInstance", one, need{distinct: true}, []host{with(func(h *host) { h.has = 1 })}, "i-1 has a task of it already (distinctInstance)"},
		{"one of several hosts", one, few, []host{with(func(h *host) { h.cpu = 0 }), roomy("i-2")}, ""},
		{"several hosts, several reasons", one, few, []host{with(func(h *host) { h.cpu = 0 }), with(func(h *host) { h.cpu = 0 }), with(func(h *host) { h.status = "DRAINING" })},
			"each of 2 hosts (i-1, …) has at most 0 CPU units left; i-1 is DRAINING"},
		{"all of them fit", all, need{cpu: 1024}, []host{roomy("i-1"), roomy("i-2")}, ""},
		{"a part of them fits", all, need{cpu: 1025}, []host{roomy("i-1"), roomy("i-2")}, "no room for 4 more tasks, only for 2 beside the old ones (1025 CPU units, 0 MiB each): each of 2 hosts (i-1, …) takes some"},
		{"a port makes it one on each host", all, need{ports: []string{"80/tcp"}}, []host{roomy("i-1"), roomy("i-2")}, "each of 2 hosts (i-1, …) takes some"},
	} {
		got := cramped(tt.in, tt.hosts, tt.need)
		if (got == "") != (tt.want == "") || !strings.HasSuffix(got, tt.want) {
			t.Errorf("%s: found %q, want …%q", tt.name, got, tt.want)
		}
	}
}

func TestNeedIsWhatADefinitionReserves(t *testing.T) {
	in := &ecs.RegisterTaskDefinitionInput{
		RuntimePlatform: &types.RuntimePlatform{CpuArchitecture: types.CPUArchitectureX8664, OperatingSystemFamily: types.OSFamilyLinux},
		ContainerDefinitions: []types.ContainerDefinition{
			{Cpu: 100, Memory: aws.Int32(200), MemoryReservation: aws.Int32(150), PortMappings: []types.PortMapping{{ContainerPort: aws.Int32(80), HostPort: aws.Int32(8080)}, {ContainerPort: aws.Int32(53), HostPort: aws.Int32(53), Protocol: types.TransportProtocolUdp}}},
			{Cpu: 10, Memory: aws.Int32(64), PortMappings: []types.PortMapping{{ContainerPort: aws.Int32(81), HostPort: aws.Int32(0)}}, ResourceRequirements: []types.ResourceRequirement{{Type: types.ResourceTypeGpu, Value: aws.String("2")}}},
		},
		PlacementConstraints: []types.TaskDefinitionPlacementConstraint{{Type: types.TaskDefinitionPlacementConstraintTypeMemberOf, Expression: aws.String("attribute:stack == web")}},
	}
	service := types.Service{PlacementConstraints: []types.PlacementConstraint{{Type: types.PlacementConstraintTypeDistinctInstance}}}
	n := needOf(in, nil, service)
	if got, want := n.String(), "110 CPU units, 214 MiB, 2 GPUs, host port 8080/tcp, host port 53/udp"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !n.distinct || strings.Join(n.expressions, ",") != "attribute:stack == web" || n.platform != (platform{"linux", "amd64"}) {
		t.Errorf("got %+v", n)
	}
	in.Cpu, in.Memory, in.NetworkMode = aws.String("512"), aws.String("1024"), types.NetworkModeAwsvpc
	if got, want := needOf(in, nil, service).String(), "512 CPU units, 1024 MiB, 2 GPUs"; got != want {
		t.Errorf("with a task size and awsvpc: got %q, want %q", got, want)
	}
}

func TestImagesMustFitTheHostsThatTheirTasksMayBePlacedOn(t *testing.T) {
	arm := roomy("i-arm")
	arm.attributes = map[string]string{"ecs.cpu-architecture": "arm64"}
	drained := arm
	drained.status = "DRAINING"
	image := Image{Repository: "web", Tag: "2"}
	amd, both := []platform{{"linux", "amd64"}}, []platform{{"linux", "amd64"}, {"linux", "arm64"}}
	for _, tt := range []struct {
		name  string
		has   []platform
		hosts []host
		need  need
		want  string
	}{
		{"it fits", amd, []host{roomy("i-1")}, need{}, ""},
		{"none fits", amd, []host{arm}, need{}, "image web:2 is for linux/amd64, and the hosts that its tasks would be placed on are linux/arm64"},
		{"some do not", amd, []host{arm, roomy("i-1")}, need{}, "image web:2 is for linux/amd64, and 1 of the 2 hosts that its tasks may be placed on (i-arm, …) are linux/arm64"},
		{"it is for both", both, []host{arm, roomy("i-1")}, need{}, ""},
		{"the others are draining", amd, []host{drained, roomy("i-1")}, need{}, ""},
		{"the definition keeps off the others", amd, []host{arm, roomy("i-1")}, need{platform: platform{"linux", "amd64"}}, ""},
		{"no hosts", amd, nil, need{}, ""},
	} {
		got := ""
		if err := misfit(image, tt.has, tt.hosts, tt.need); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestHostsAreReadAsECSTellsThem(t *testing.T) {
	h := newHost(types.ContainerInstance{Ec2InstanceId: aws.String("i-1"), Status: aws.String("ACTIVE"), AgentConnected: true,
		RemainingResources: []types.Resource{
			{Name: aws.String("CPU"), IntegerValue: 100}, {Name: aws.String("MEMORY"), IntegerValue: 200},
			{Name: aws.String("PORTS"), StringSetValue: []string{"22"}}, {Name: aws.String("PORTS_UDP"), StringSetValue: []string{"53"}},
			{Name: aws.String("GPU"), StringSetValue: []string{"GPU-1", "GPU-2"}}},
		Attributes: []types.Attribute{{Name: aws.String("ecs.os-type"), Value: aws.String("windows")}, {Name: aws.String("ecs.cpu-architecture"), Value: aws.String("x86_64")}}})
	if h.cpu != 100 || h.memory != 200 || h.gpus != 2 || !h.ports["22/tcp"] || !h.ports["53/udp"] || h.platform() != (platform{"windows", "amd64"}) {
		t.Errorf("got %+v", h)
	}
}

func TestManifestsSayWhatTheyAreFor(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"a list", `{"manifests":[{"platform":{"os":"linux","architecture":"arm64"}},{"platform":{"os":"linux","architecture":"amd64"}}]}`, "linux/amd64, linux/arm64"},
		{"an index with attestations", `{"manifests":[{"platform":{"os":"linux","architecture":"amd64"}},{"platform":{"os":"unknown","architecture":"unknown"}}]}`, "linux/amd64"},
		{"schema 1", `{"architecture":"amd64"}`, "linux/amd64"},
		{"one image", `{"config":{"digest":"sha256:1"}}`, ""},
	} {
		if got := platformList(parseManifest(t, tt.in).platforms()); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func parseManifest(t *testing.T, text string) (m manifest) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	return m
}
