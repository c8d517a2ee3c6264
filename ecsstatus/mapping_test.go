package ecsstatus

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// A field that an SDK update adds to an answer is neither mapped nor named
// here, and fails this test: someone has to decide what it is to us.
func TestEveryFieldOfAnAnswerIsMappedOrLeftOutOnPurpose(t *testing.T) {
	check(t, newTask, func(s *types.Task) {
		s.Group = pointer("service:web")
		s.Attachments[0].Details[0].Name = pointer("privateIPv4Address")
	}, "Attributes", "CapacityProviderName", "ClusterArn", "Connectivity", "ConnectivityAt", "Cpu",
		"EnableExecuteCommand", "EphemeralStorage", "ExecutionStoppedAt", "FargateEphemeralStorage",
		"InferenceAccelerators", "LaunchType", "Memory", "Overrides", "PlatformFamily", "PlatformVersion",
		"PullStartedAt", "PullStoppedAt", "Tags")
	check(t, newContainer, func(s *types.Container) { s.Cpu, s.Memory, s.MemoryReservation = pointer("256"), nil, pointer("128") },
		"ContainerArn", "GpuIds", "GpuSharingStrategy", "ManagedAgents", "Memory", "NetworkInterfaces", "NeuronDeviceIds", "TaskArn")
	check(t, newContainer, func(s *types.Container) { s.Memory, s.MemoryReservation = pointer("512"), nil },
		"ContainerArn", "Cpu", "GpuIds", "GpuSharingStrategy", "ManagedAgents", "MemoryReservation", "NetworkInterfaces", "NeuronDeviceIds", "TaskArn")
	check(t, newPort, nil)
	check(t, newDeployment, nil,
		"CapacityProviderStrategy", "FargateEphemeralStorage", "LaunchType", "NetworkConfiguration", "PlatformFamily",
		"PlatformVersion", "ServiceConnectConfiguration", "ServiceConnectResources", "VolumeConfigurations", "VpcLatticeConfigurations")
	check(t, newLoadBalancer, nil)
	check(t, func(s types.ServiceEvent) Event { return newEvents([]types.ServiceEvent{s})[0] }, nil)
	check(t, shownService, nil,
		"AvailabilityZoneRebalancing", "CapacityProviderStrategy", "ClusterArn", "CreatedBy", "CurrentServiceDeployment",
		"CurrentServiceRevisions", "EnableECSManagedTags", "EnableExecuteCommand", "LaunchType", "NetworkConfiguration",
		"PlacementConstraints", "PlacementStrategy", "PlatformFamily", "PlatformVersion", "PropagateTags",
		"ResourceManagementType", "RoleArn", "ServiceRegistries", "Tags", "TaskSets")
	check(t, newHost, func(s *types.ContainerInstance) {
		s.Attributes = []types.Attribute{{Name: pointer("ecs.availability-zone"), Value: pointer("eu-central-1a")}}
		s.RegisteredResources = []types.Resource{{Name: pointer("CPU"), IntegerValue: 2048}}
		s.RemainingResources = []types.Resource{{Name: pointer("MEMORY"), IntegerValue: 900}}
	}, "AgentUpdateStatus", "Attachments", "CapacityProviderName", "GpuDevices", "HealthStatus", "StatusReason", "Tags", "Version")
}

// shownService is what of a service is shown: without the raw answer.
func shownService(s types.Service) Service {
	out := *NewService(s)
	out.AWS = types.Service{}
	return out
}

// check fills an answer, and for each field sees whether the result is another
// one without it. It must be, unless the field is left out on purpose.
func check[In, Out any](t *testing.T, mapping func(In) Out, prepare func(*In), leftOut ...string) {
	t.Helper()
	full := func() In {
		var in In
		fill(reflect.ValueOf(&in).Elem(), new(int))
		if prepare != nil {
			prepare(&in)
		}
		return in
	}
	typ := reflect.TypeFor[In]()
	if typ.NumField() < 2 {
		t.Fatalf("%v has no fields to check", typ)
	}
	for i := range typ.NumField() {
		f := typ.Field(i)
		if !f.IsExported() {
			continue
		}
		in := full()
		whole := mapping(in)
		reflect.ValueOf(&in).Elem().Field(i).SetZero()
		mapped := !reflect.DeepEqual(whole, mapping(in))
		if mapped == slices.Contains(leftOut, f.Name) {
			t.Errorf("%v.%s: mapped is %v, left out on purpose is %v", typ, f.Name, mapped, !mapped)
		}
	}
}

// fill gives everything in v a value of its own; n counts.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(int64(1_700_000_000+*n), 0)))
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), n)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		if *n < 10_000 {
			fill(v.Index(0), n)
		}
	case reflect.String:
		v.SetString(fmt.Sprintf("text-%d", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32, reflect.Int64, reflect.Int:
		v.SetInt(int64(*n))
	}
}

func TestTimesAreKeptToTheMillisecondInUTC(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_123).In(time.FixedZone("CET", 3600))
	got := newTask(types.Task{StartedAt: &at}).Started
	if want := "2023-11-14T22:13:20.123Z"; got.Format(time.RFC3339Nano) != want {
		t.Errorf("started = %s, want %s", got.Format(time.RFC3339Nano), want)
	}
}

func TestATaskOfNoServiceHasNoContainerType(t *testing.T) {
	for group, want := range map[string]string{"service:web": "web", "family:web": "", "": "", "web": ""} {
		if got := newTask(types.Task{Group: &group}).ContainerType; got != want {
			t.Errorf("container type of group %q = %q, want %q", group, got, want)
		}
	}
}

func TestReservedMemoryIsTheSoftLimitWhereThereIsOne(t *testing.T) {
	for _, tt := range []struct {
		name       string
		hard, soft *string
		want       int
	}{
		{"both", pointer("512"), pointer("256"), 256},
		{"hard only", pointer("512"), nil, 512},
		{"soft only", nil, pointer("256"), 256},
		{"neither", nil, nil, 0},
		{"not a number", pointer("much"), nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := newContainer(types.Container{Memory: tt.hard, MemoryReservation: tt.soft}).Memory; got != tt.want {
				t.Errorf("memory = %d, want %d", got, tt.want)
			}
		})
	}
}

func TestDeploymentsHaveThePrimaryOneFirstThenTheNewest(t *testing.T) {
	at := func(s int64) *time.Time { return pointer(time.Unix(s, 0)) }
	s := NewService(types.Service{Deployments: []types.Deployment{
		{Id: pointer("old"), Status: pointer("ACTIVE"), CreatedAt: at(1)},
		{Id: pointer("newer"), Status: pointer("ACTIVE"), CreatedAt: at(3)},
		{Id: pointer("primary"), Status: pointer("PRIMARY"), CreatedAt: at(2)},
	}})
	var got []string
	for _, d := range s.Deployments {
		got = append(got, d.ID)
	}
	if want := []string{"primary", "newer", "old"}; !slices.Equal(got, want) {
		t.Errorf("deployments = %v, want %v", got, want)
	}
	if s.Primary().ID != "primary" || s.Deployment("old").ID != "old" || s.Deployment("none") != nil {
		t.Errorf("primary = %v, old = %v, none = %v", s.Primary(), s.Deployment("old"), s.Deployment("none"))
	}
}

func TestEventsHaveTheNewestLast(t *testing.T) {
	at := func(s int64) *time.Time { return pointer(time.Unix(s, 0)) }
	got := newEvents([]types.ServiceEvent{
		{Message: pointer("steady"), CreatedAt: at(9)}, {Message: pointer("completed"), CreatedAt: at(9)}, {Message: pointer("started"), CreatedAt: at(5)},
	})
	if got[0].Message != "started" || got[1].Message != "completed" || got[2].Message != "steady" {
		t.Errorf("events = %v", got)
	}
}
