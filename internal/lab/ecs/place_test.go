package ecs

import (
	"fmt"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

func TestWhatATaskDoesNotFindOnAHost(t *testing.T) {
	for _, tt := range []struct{ name, host, service, want string }{
		{"a port", "{ports: [8080]}", "port: 8080, host-port: 8080", "is already using a port required by your task"},
		{"CPU", "{cpu: 100}", "cpu: 200", "has insufficient CPU units available"},
		{"memory", "{memory: 100}", "memory: 200", "has insufficient memory available"},
		{"an agent", "{lost: true}", "", `encountered error "AGENT"`},
		{"a network interface", "{enis: 1}", "network-mode: awsvpc, desired: 2", `encountered error "RESOURCE:ENI"`},
		{"an active host", "{draining: true}", "", `encountered error "INACTIVE"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			settings := "name: web, image: 'web:v1', fresh: true"
			if tt.service != "" {
				settings += ", " + tt.service
			}
			r := newRig(t, fmt.Sprintf("clusters: [{name: lab, hosts: [%s]}]\nimages: [{repository: web, tags: [v1]}]\nservices: [{%s}]\n", tt.host, settings))
			r.event("web", "(service web) was unable to place a task because no container instance met all of its requirements. The closest matching (container-instance ",
				") "+tt.want+". For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.")
		})
	}
}

func TestAClusterWithoutHostsSaysSo(t *testing.T) {
	r := newRig(t, "clusters: [{name: lab}]\nservices: [{name: web, fresh: true}]\n")
	r.event("web", "Reason: No Container Instances were found in your cluster.")
}

func TestAnArchitectureIsARequirement(t *testing.T) {
	r := newRig(t, "clusters: [{name: lab, hosts: [{}, {arch: arm64}]}]\nimages: [{repository: web, tags: [v1], arch: arm64}]\n")
	out, err := r.RegisterTaskDefinition(r.ctx, &sdk.RegisterTaskDefinitionInput{Family: ptr("web"),
		RuntimePlatform:      &types.RuntimePlatform{CpuArchitecture: types.CPUArchitectureArm64},
		ContainerDefinitions: []types.ContainerDefinition{{Name: ptr("web"), Image: ptr(r.world.Reference("web:v1")), Memory: ptr(int32(64))}}})
	if err != nil {
		t.Fatal(err)
	}
	ran, err := r.RunTask(r.ctx, &sdk.RunTaskInput{Cluster: ptr("lab"), TaskDefinition: out.TaskDefinition.TaskDefinitionArn, Count: ptr(int32(2))})
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range ran.Tasks {
		for _, a := range r.instanceOf(task).Attributes {
			if *a.Name == "ecs.cpu-architecture" && *a.Value != "arm64" {
				t.Errorf("placed on %s", *a.Value)
			}
		}
	}
}

func TestTasksSpreadOverZonesThenHosts(t *testing.T) {
	r := newRig(t, strings.Replace(with("    desired: 6\n"), "{count: 3}", "{count: 2, zone: a}, {count: 2, zone: b}, {count: 2, zone: c}", 1))
	zones, hosts := map[string]int{}, map[string]int{}
	for _, task := range r.tasks("web", "") {
		zones[*task.AvailabilityZone]++
		hosts[*task.ContainerInstanceArn]++
	}
	if len(zones) != 3 || zones["eu-central-1a"] != 2 || len(hosts) != 6 {
		t.Errorf("zones %v, hosts %v", zones, hosts)
	}
}

func TestResourcesAreCounted(t *testing.T) {
	r := newRig(t, strings.Replace(with("    host-port: 8080\n"), "{count: 3}", "{}", 1))
	i := r.instanceOf(r.tasks("web", "")[0])
	remaining := map[string]types.Resource{}
	for _, x := range i.RemainingResources {
		remaining[*x.Name] = x
	}
	if remaining["CPU"].IntegerValue != 2048-100 || remaining["MEMORY"].IntegerValue != 3900-200 {
		t.Errorf("remaining CPU %d, memory %d", remaining["CPU"].IntegerValue, remaining["MEMORY"].IntegerValue)
	}
	if got := strings.Join(remaining["PORTS"].StringSetValue, " "); got != "22 2375 2376 51678 51679 8080" {
		t.Errorf("ports %s", got)
	}
	r.do("desired", "web", "0")
	r.until("the resources to be given back", func() bool {
		out, err := r.DescribeContainerInstances(r.ctx, &sdk.DescribeContainerInstancesInput{Cluster: ptr("lab"), ContainerInstances: []string{*i.ContainerInstanceArn}})
		return err == nil && out.ContainerInstances[0].RemainingResources[0].IntegerValue == 2048
	})
}

func TestDynamicHostPortsAreDifferent(t *testing.T) {
	r := newRig(t, strings.Replace(with("    desired: 3\n"), "{count: 3}", "{}", 1))
	r.until("the tasks to be known", func() bool {
		select {
		case <-r.Steady():
			return true
		default:
			return false
		}
	})
	ports := map[int32]bool{}
	for _, task := range r.tasks("web", "") {
		b := task.Containers[0].NetworkBindings[0]
		ports[*b.HostPort] = true
		if *b.ContainerPort != 8080 || *b.HostPort < 32768 {
			t.Errorf("binding %d to %d", *b.ContainerPort, *b.HostPort)
		}
	}
	if len(ports) != 3 {
		t.Errorf("ports %v", ports)
	}
}

func TestRunTaskStartsTasksOutsideOfServices(t *testing.T) {
	r := newRig(t, with(""))
	out, err := r.RunTask(r.ctx, &sdk.RunTaskInput{Cluster: ptr("lab"), TaskDefinition: ptr(r.register("web", "web:crash")), StartedBy: ptr("someone"), Count: ptr(int32(2))})
	if err != nil || len(out.Tasks) != 2 || len(out.Failures) != 0 {
		t.Fatalf("run task: %+v, %v", out, err)
	}
	list, err := r.ListTasks(r.ctx, &sdk.ListTasksInput{Cluster: ptr("lab"), StartedBy: ptr("someone")})
	if err != nil || len(list.TaskArns) != 2 {
		t.Errorf("started by someone: %v, %v", list, err)
	}
	r.until("the task to end", func() bool { return *r.task(*out.Tasks[0].TaskArn).LastStatus == "STOPPED" })
	if task := r.task(*out.Tasks[0].TaskArn); *task.Group != "family:web" || *task.Containers[0].ExitCode != 3 {
		t.Errorf("group %s, exit code %d", *task.Group, *task.Containers[0].ExitCode)
	}
	full, err := r.RunTask(r.ctx, &sdk.RunTaskInput{Cluster: ptr("lab"), TaskDefinition: ptr("web:2"), Count: ptr(int32(1)),
		PlacementConstraints: []types.PlacementConstraint{{Type: types.PlacementConstraintTypeMemberOf, Expression: ptr("attribute:disk == ssd")}}})
	if err != nil || len(full.Failures) != 1 || *full.Failures[0].Reason != "ATTRIBUTE" {
		t.Errorf("failures %+v, %v", full, err)
	}
}

func TestExpressionsOfTheClusterQueryLanguage(t *testing.T) {
	i := &instance{zone: "eu-central-1a", ec2: "i-1", arch: "x86_64", connected: true}
	for _, tt := range []struct {
		expression string
		want       bool
	}{
		{"", true},
		{"attribute:ecs.availability-zone == eu-central-1a", true},
		{"attribute:ecs.availability-zone != eu-central-1a", false},
		{"attribute:ecs.availability-zone in [eu-central-1b, eu-central-1a]", true},
		{"attribute:ecs.instance-type =~ t3.*", true},
		{"attribute:disk exists", false},
		{"attribute:disk !exists", true},
		{"ec2InstanceId == i-1 and agentConnected == true", true},
		{"ec2InstanceId == i-2 or agentConnected == true", true},
	} {
		m, err := parseExpression(tt.expression)
		if err != nil {
			t.Errorf("%q: %v", tt.expression, err)
			continue
		}
		if got := m(i); got != tt.want {
			t.Errorf("%q is %t, want %t", tt.expression, got, tt.want)
		}
	}
	_, err := parseExpression("task:group ~~ x")
	isError(t, err, "InvalidParameterException", "Invalid expression")
}

func TestAClientTokenMakesRunTaskIdempotent(t *testing.T) {
	r := newRig(t, with(""))
	in := &sdk.RunTaskInput{Cluster: ptr("lab"), TaskDefinition: r.service("web").TaskDefinition, ClientToken: ptr("once")}
	first, err := r.RunTask(r.ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	second, err := r.RunTask(r.ctx, in)
	if err != nil || len(second.Tasks) != 1 || *second.Tasks[0].TaskArn != *first.Tasks[0].TaskArn {
		t.Errorf("the same token made %+v, %v", second.Tasks, err)
	}
}

func TestAForcedDeregistrationMovesTheTasks(t *testing.T) {
	r := newRig(t, with(""))
	task := r.tasks("web", "")[0]
	if _, err := r.DeregisterContainerInstance(r.ctx, &sdk.DeregisterContainerInstanceInput{Cluster: ptr("lab"), ContainerInstance: task.ContainerInstanceArn, Force: ptr(true)}); err != nil {
		t.Fatal(err)
	}
	if got := *r.task(*task.TaskArn).StoppedReason; got != "Container instance deregistration forced by user" {
		t.Errorf("stopped with %q", got)
	}
	r.until("another task", func() bool { return r.service("web").RunningCount == 1 })
}
