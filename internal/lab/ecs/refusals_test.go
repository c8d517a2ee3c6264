package ecs

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/internal/lab/wire"
)

// isError checks an AWS error's code, and that its message has a part in it.
func isError(t *testing.T, err error, code, part string) {
	t.Helper()
	var e *wire.Error
	if !errors.As(err, &e) {
		t.Errorf("error is %v, want %s", err, code)
		return
	}
	if e.Code != code || !strings.Contains(e.Message, part) {
		t.Errorf("error is %s: %s, want %s: …%s…", e.Code, e.Message, code, part)
	}
}

func TestRequestsThatAWSRefuses(t *testing.T) {
	r := newRig(t, with(""))
	lab, web := ptr("lab"), ptr("web")
	definition := *r.service("web").TaskDefinition
	if _, err := r.DeregisterTaskDefinition(r.ctx, &sdk.DeregisterTaskDefinitionInput{TaskDefinition: ptr(r.register("web", "web:v2"))}); err != nil {
		t.Fatal(err)
	}
	inactive := strings.TrimSuffix(definition, ":1") + ":2"
	container := types.ContainerDefinition{Name: web, Image: ptr("web"), Memory: ptr(int32(64))}
	for _, tt := range []struct {
		name, code, message string
		call                func() error
	}{
		{"an unknown cluster", "ClusterNotFoundException", "Cluster not found.", func() error {
			_, err := r.ListTasks(r.ctx, &sdk.ListTasksInput{Cluster: ptr("nosuch")})
			return err
		}},
		{"the default cluster, where there is none", "ClusterNotFoundException", "Cluster not found.", func() error {
			_, err := r.ListServices(r.ctx, &sdk.ListServicesInput{})
			return err
		}},
		{"eleven services", "InvalidParameterException", "at most 10", func() error {
			_, err := r.DescribeServices(r.ctx, &sdk.DescribeServicesInput{Cluster: lab, Services: make([]string, 11)})
			return err
		}},
		{"101 tasks", "InvalidParameterException", "at most 100", func() error {
			_, err := r.DescribeTasks(r.ctx, &sdk.DescribeTasksInput{Cluster: lab, Tasks: make([]string, 101)})
			return err
		}},
		{"101 instances", "InvalidParameterException", "at most 100", func() error {
			_, err := r.DescribeContainerInstances(r.ctx, &sdk.DescribeContainerInstancesInput{Cluster: lab, ContainerInstances: make([]string, 101)})
			return err
		}},
		{"21 service deployments", "InvalidParameterException", "20", func() error {
			_, err := r.DescribeServiceDeployments(r.ctx, &sdk.DescribeServiceDeploymentsInput{ServiceDeploymentArns: make([]string, 21)})
			return err
		}},
		{"a page of 101", "InvalidParameterException", "maxResults", func() error {
			_, err := r.ListTasks(r.ctx, &sdk.ListTasksInput{Cluster: lab, MaxResults: ptr(int32(101))})
			return err
		}},
		{"a token that is none", "InvalidParameterException", "token", func() error {
			_, err := r.ListTasks(r.ctx, &sdk.ListTasksInput{Cluster: lab, NextToken: ptr("1")})
			return err
		}},
		{"startedBy with another filter", "InvalidParameterException", "cannot specify startedBy with other arguments", func() error {
			_, err := r.ListTasks(r.ctx, &sdk.ListTasksInput{Cluster: lab, StartedBy: ptr("x"), ServiceName: web})
			return err
		}},
		{"tasks of an unknown service", "ServiceNotFoundException", "Service not found.", func() error {
			_, err := r.ListTasks(r.ctx, &sdk.ListTasksInput{Cluster: lab, ServiceName: ptr("nosuch")})
			return err
		}},
		{"an update of an unknown service", "ServiceNotFoundException", "Service not found.", func() error {
			_, err := r.UpdateService(r.ctx, &sdk.UpdateServiceInput{Cluster: lab, Service: ptr("nosuch")})
			return err
		}},
		{"an inactive definition", "ClientException", "TaskDefinition is inactive.", func() error {
			_, err := r.UpdateService(r.ctx, &sdk.UpdateServiceInput{Cluster: lab, Service: web, TaskDefinition: ptr(inactive)})
			return err
		}},
		{"an unknown definition", "ClientException", "not found", func() error {
			_, err := r.UpdateService(r.ctx, &sdk.UpdateServiceInput{Cluster: lab, Service: web, TaskDefinition: ptr("nosuch:1")})
			return err
		}},
		{"a description of an unknown definition", "ClientException", "Unable to describe task definition.", func() error {
			_, err := r.DescribeTaskDefinition(r.ctx, &sdk.DescribeTaskDefinitionInput{TaskDefinition: ptr("nosuch")})
			return err
		}},
		{"an empty list of tags", "InvalidParameterException", "Tags can not be empty.", func() error {
			_, err := r.RegisterTaskDefinition(r.ctx, &sdk.RegisterTaskDefinitionInput{Family: web, ContainerDefinitions: []types.ContainerDefinition{container}, Tags: []types.Tag{}})
			return err
		}},
		{"a tag with a value of AWS's own", "InvalidParameterException", "aws:", func() error {
			_, err := r.RegisterTaskDefinition(r.ctx, &sdk.RegisterTaskDefinitionInput{Family: web, ContainerDefinitions: []types.ContainerDefinition{container}, Tags: []types.Tag{{Key: web, Value: ptr("AWS:x")}}})
			return err
		}},
		{"a tag twice", "InvalidParameterException", "Duplicate tag keys", func() error {
			_, err := r.RegisterTaskDefinition(r.ctx, &sdk.RegisterTaskDefinitionInput{Family: web, ContainerDefinitions: []types.ContainerDefinition{container}, Tags: []types.Tag{{Key: web, Value: web}, {Key: web}}})
			return err
		}},
		{"removing a tag of AWS's own", "InvalidParameterException", "aws:", func() error {
			_, err := r.UntagResource(r.ctx, &sdk.UntagResourceInput{ResourceArn: ptr("arn:aws:ecs:eu-central-1:123456789012:service/lab/web"), TagKeys: []string{"aws:x"}})
			return err
		}},
		{"a tag of AWS's own", "InvalidParameterException", "aws:", func() error {
			_, err := r.RegisterTaskDefinition(r.ctx, &sdk.RegisterTaskDefinitionInput{Family: web, ContainerDefinitions: []types.ContainerDefinition{container}, Tags: []types.Tag{{Key: ptr("aws:x"), Value: web}}})
			return err
		}},
		{"a container without memory", "ClientException", "At least one of 'memory' or 'memoryReservation' must be specified.", func() error {
			_, err := r.RegisterTaskDefinition(r.ctx, &sdk.RegisterTaskDefinitionInput{Family: web, ContainerDefinitions: []types.ContainerDefinition{{Name: web, Image: web}}})
			return err
		}},
		{"an image with a space", "ClientException", "Container.image contains invalid characters.", func() error {
			c := container
			c.Image = ptr("web 2")
			_, err := r.RegisterTaskDefinition(r.ctx, &sdk.RegisterTaskDefinitionInput{Family: web, ContainerDefinitions: []types.ContainerDefinition{c}})
			return err
		}},
		{"an image of 256 characters", "ClientException", "Container.image should be 255 characters or less.", func() error {
			c := container
			c.Image = ptr(strings.Repeat("x", 256))
			_, err := r.RegisterTaskDefinition(r.ctx, &sdk.RegisterTaskDefinitionInput{Family: web, ContainerDefinitions: []types.ContainerDefinition{c}})
			return err
		}},
		{"a container without an image", "ClientException", "Container.image should not be null or empty.", func() error {
			_, err := r.RegisterTaskDefinition(r.ctx, &sdk.RegisterTaskDefinitionInput{Family: web, ContainerDefinitions: []types.ContainerDefinition{{Name: web, Memory: ptr(int32(64))}}})
			return err
		}},
		{"a target group that is not there", "InvalidParameterException", "does not exist", func() error {
			_, err := r.UpdateService(r.ctx, &sdk.UpdateServiceInput{Cluster: lab, Service: web, LoadBalancers: []types.LoadBalancer{{TargetGroupArn: ptr("arn:aws:x"), ContainerName: web, ContainerPort: ptr(int32(8080))}}})
			return err
		}},
		{"a maximum under the minimum", "InvalidParameterException", "maximumPercent", func() error {
			_, err := r.UpdateService(r.ctx, &sdk.UpdateServiceInput{Cluster: lab, Service: web, DeploymentConfiguration: &types.DeploymentConfiguration{MaximumPercent: ptr(int32(50))}})
			return err
		}},
		{"deleting a service with tasks", "InvalidParameterException", "scaled above 0", func() error {
			_, err := r.DeleteService(r.ctx, &sdk.DeleteServiceInput{Cluster: lab, Service: web})
			return err
		}},
		{"stopping an unknown task", "InvalidParameterException", "not found", func() error {
			_, err := r.StopTask(r.ctx, &sdk.StopTaskInput{Cluster: lab, Task: ptr("x")})
			return err
		}},
		{"a command in a task that is not made for it", "InvalidParameterException", "execute command was not enabled", func() error {
			_, err := r.ExecuteCommand(r.ctx, &sdk.ExecuteCommandInput{Cluster: lab, Task: r.tasks("web", "")[0].TaskArn, Command: ptr("sh")})
			return err
		}},
		{"deregistering a host with tasks", "InvalidParameterException", "Found running tasks on the instance.", func() error {
			_, err := r.DeregisterContainerInstance(r.ctx, &sdk.DeregisterContainerInstanceInput{Cluster: lab, ContainerInstance: r.tasks("web", "")[0].ContainerInstanceArn})
			return err
		}},
		{"the stop of an unknown service deployment", "ServiceDeploymentNotFoundException", "", func() error {
			_, err := r.StopServiceDeployment(r.ctx, &sdk.StopServiceDeploymentInput{ServiceDeploymentArn: ptr("arn:aws:ecs:eu-central-1:123456789012:service-deployment/lab/web/x")})
			return err
		}},
	} {
		t.Run(tt.name, func(t *testing.T) { isError(t, tt.call(), tt.code, tt.message) })
	}
}

func TestALoadBalancersContainerAndPortMustStay(t *testing.T) {
	r := newRig(t, with(balanced))
	for _, tt := range []struct{ name, container, port, message string }{
		{"another container", "app", "8080", "The container web does not exist in the task definition."},
		{"another port", "web", "9090", "The container web did not have a container port 8080 defined."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var port int32
			fmt.Sscan(tt.port, &port)
			out, err := r.RegisterTaskDefinition(r.ctx, &sdk.RegisterTaskDefinitionInput{Family: ptr("web"), ContainerDefinitions: []types.ContainerDefinition{{
				Name: &tt.container, Image: ptr("web"), Memory: ptr(int32(64)), PortMappings: []types.PortMapping{{ContainerPort: &port}}}}})
			if err != nil {
				t.Fatal(err)
			}
			_, err = r.UpdateService(r.ctx, &sdk.UpdateServiceInput{Cluster: ptr("lab"), Service: ptr("web"), TaskDefinition: out.TaskDefinition.TaskDefinitionArn})
			isError(t, err, "InvalidParameterException", tt.message)
		})
	}
}

func TestUnknownNamesAreFailuresNotErrors(t *testing.T) {
	r := newRig(t, with(""))
	services, err := r.DescribeServices(r.ctx, &sdk.DescribeServicesInput{Cluster: ptr("lab"), Services: []string{"nosuch", "web"}})
	if err != nil || len(services.Services) != 1 || *services.Failures[0].Reason != "MISSING" || *services.Failures[0].Arn != "arn:aws:ecs:eu-central-1:123456789012:service/lab/nosuch" {
		t.Errorf("services: %+v, %v", services, err)
	}
	clusters, err := r.DescribeClusters(r.ctx, &sdk.DescribeClustersInput{Clusters: []string{"lab", "nosuch"}})
	if err != nil || len(clusters.Clusters) != 1 || *clusters.Failures[0].Reason != "MISSING" {
		t.Errorf("clusters: %+v, %v", clusters, err)
	}
	tasks, err := r.DescribeTasks(r.ctx, &sdk.DescribeTasksInput{Cluster: ptr("lab"), Tasks: []string{"x"}})
	if err != nil || *tasks.Failures[0].Arn != "arn:aws:ecs:eu-central-1:123456789012:task/lab/x" {
		t.Errorf("tasks: %+v, %v", tasks, err)
	}
}

func TestListsComeInPages(t *testing.T) {
	text := "clusters: [{name: lab, hosts: [{count: 2, memory: 8000}]}]\nservices:\n"
	for i := range 23 {
		text += fmt.Sprintf("  - {name: s%d, image: 'web:v1'}\n", i)
	}
	r := newRig(t, text)
	seen := map[string]bool{}
	var token *string
	pages := 0
	for {
		out, err := r.ListServices(r.ctx, &sdk.ListServicesInput{Cluster: ptr("lab"), NextToken: token})
		if err != nil {
			t.Fatal(err)
		}
		pages++
		for _, arn := range out.ServiceArns {
			seen[arn] = true
		}
		if token = out.NextToken; token == nil {
			break
		}
		if _, err := r.ListTasks(r.ctx, &sdk.ListTasksInput{Cluster: ptr("lab"), NextToken: token}); err == nil {
			t.Error("ListTasks takes a token of ListServices")
		}
	}
	if pages != 3 || len(seen) != 23 {
		t.Errorf("%d services on %d pages, want 23 on 3", len(seen), pages)
	}
}

func TestTagsAreThereWhenAskedFor(t *testing.T) {
	r := newRig(t, with("    tags: {team: red}\n"))
	definition := r.service("web").TaskDefinition
	plain, err := r.DescribeTaskDefinition(r.ctx, &sdk.DescribeTaskDefinitionInput{TaskDefinition: definition})
	if err != nil || len(plain.Tags) != 0 {
		t.Errorf("tags without include: %v, %v", plain.Tags, err)
	}
	full, err := r.DescribeTaskDefinition(r.ctx, &sdk.DescribeTaskDefinitionInput{TaskDefinition: definition, Include: []types.TaskDefinitionField{types.TaskDefinitionFieldTags}})
	if err != nil || len(full.Tags) != 1 || *full.Tags[0].Value != "red" {
		t.Errorf("tags with include: %v, %v", full.Tags, err)
	}
	arn := r.service("web").ServiceArn
	if _, err := r.TagResource(r.ctx, &sdk.TagResourceInput{ResourceArn: arn, Tags: []types.Tag{{Key: ptr("journal"), Value: ptr("1")}, {Key: ptr("b"), Value: ptr("")}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.UntagResource(r.ctx, &sdk.UntagResourceInput{ResourceArn: arn, TagKeys: []string{"b"}}); err != nil {
		t.Fatal(err)
	}
	tags, err := r.ListTagsForResource(r.ctx, &sdk.ListTagsForResourceInput{ResourceArn: arn})
	if err != nil || len(tags.Tags) != 1 || *tags.Tags[0].Key != "journal" {
		t.Errorf("tags: %v, %v", tags, err)
	}
	if s := r.service("web"); s.Tags != nil {
		t.Errorf("the service shows tags unasked: %v", s.Tags)
	}
	out, err := r.DescribeServices(r.ctx, &sdk.DescribeServicesInput{Cluster: ptr("lab"), Services: []string{"web"}, Include: []types.ServiceField{types.ServiceFieldTags}})
	if err != nil || len(out.Services[0].Tags) != 1 {
		t.Errorf("tags with include: %v, %v", out, err)
	}
}

func TestAnAbsentFieldIsKept(t *testing.T) {
	r := newRig(t, with("    circuit-breaker: {enable: true, rollback: true, type: COUNT, value: 9, no-reset-on-healthy: true}\n"))
	before := r.service("web")
	r.update(&sdk.UpdateServiceInput{Service: ptr("web"), Cluster: ptr("lab"), DeploymentConfiguration: &types.DeploymentConfiguration{
		MinimumHealthyPercent: ptr(int32(0)), DeploymentCircuitBreaker: &types.DeploymentCircuitBreaker{Enable: true}}})
	after := r.service("web")
	c, b := after.DeploymentConfiguration, after.DeploymentConfiguration.DeploymentCircuitBreaker
	if *c.MinimumHealthyPercent != 0 || *c.MaximumPercent != 200 || after.DesiredCount != 1 {
		t.Errorf("min %d, max %d, desired %d", *c.MinimumHealthyPercent, *c.MaximumPercent, after.DesiredCount)
	}
	if b.Rollback || b.ThresholdConfiguration == nil || b.ThresholdConfiguration.Value != 9 || *b.ResetOnHealthyTask {
		t.Errorf("circuit breaker %+v", b)
	}
	if *after.Deployments[0].Id != *before.Deployments[0].Id {
		t.Error("a change of the configuration began a deployment")
	}
	if id := r.update(&sdk.UpdateServiceInput{Service: ptr("web"), Cluster: ptr("lab"), TaskDefinition: before.TaskDefinition}); id != *before.Deployments[0].Id {
		t.Error("the same task definition began a deployment")
	}
	if id := r.update(&sdk.UpdateServiceInput{Service: ptr("web"), Cluster: ptr("lab"), ForceNewDeployment: true}); id == *before.Deployments[0].Id {
		t.Error("a forced deployment did not begin")
	}
}
