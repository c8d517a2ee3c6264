package lab_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"jumpsuite/internal/lab"
)

// awsCLI runs the AWS CLI against a lab and returns its answer.
func awsCLI(t *testing.T, l *lab.Lab, args ...string) map[string]any {
	t.Helper()
	c := exec.Command("aws", append(args, "--output", "json")...)
	c.Env = append(l.Env(), "PATH="+os.Getenv("PATH"), "HOME="+t.TempDir(), "AWS_PAGER=", "AWS_MAX_ATTEMPTS=1", "LC_ALL=C.UTF-8")
	// A pyenv shim looks for its versions below the root.
	if root := os.Getenv("PYENV_ROOT"); root != "" {
		c.Env = append(c.Env, "PYENV_ROOT="+root)
	}
	var errText strings.Builder
	c.Stderr = &errText
	out, err := c.Output()
	if err != nil {
		t.Fatalf("aws %s: %v\n%s", strings.Join(args, " "), err, errText.String())
	}
	var v map[string]any
	if err := json.Unmarshal(out, &v); err != nil {
		t.Fatalf("aws %s: %v in %s", strings.Join(args, " "), err, out)
	}
	return v
}

// at is the value at a path such as services.0.serviceName, as text.
func at(v any, path string) string {
	for part := range strings.SplitSeq(path, ".") {
		switch node := v.(type) {
		case map[string]any:
			v = node[part]
		case []any:
			var i int
			if _, err := fmt.Sscan(part, &i); err != nil || i >= len(node) {
				return "no " + part
			}
			v = node[i]
		default:
			return "no " + part
		}
	}
	return fmt.Sprint(v)
}

func TestTheAWSCLIWorks(t *testing.T) {
	if _, err := exec.LookPath("aws"); err != nil {
		t.Skip("the AWS CLI is not installed: aws is not in PATH")
	}
	l := start(t, small)
	const ecr = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
	container := `[{"name":"api","image":"` + ecr + `/api:2","memory":128,"essential":true,"portMappings":[{"containerPort":8080}]}]`
	service := awsCLI(t, l, "ecs", "describe-services", "--cluster", "prod", "--services", "api")
	if got := at(service, "services.0.deployments.0.rolloutState"); got != "COMPLETED" {
		t.Errorf("got rolloutState %s", got)
	}
	group := at(service, "services.0.loadBalancers.0.targetGroupArn")
	task := at(awsCLI(t, l, "ecs", "list-tasks", "--cluster", "prod", "--service-name", "api"), "taskArns.0")
	instance := at(awsCLI(t, l, "ecs", "list-container-instances", "--cluster", "prod"), "containerInstanceArns.0")
	// It takes a second to start: the reads run side by side.
	t.Run("reads", func(t *testing.T) {
		for _, tt := range []struct{ command, path, want string }{
			{"ecs list-clusters", "clusterArns.0", "arn:aws:ecs:eu-central-1:123456789012:cluster/prod"},
			{"ecs describe-clusters --clusters prod", "clusters.0.registeredContainerInstancesCount", "3"},
			{"ecs describe-container-instances --cluster prod --container-instances " + instance, "containerInstances.0.agentConnected", "true"},
			{"ecs list-services --cluster prod", "serviceArns.0", "arn:aws:ecs:eu-central-1:123456789012:service/prod/api"},
			{"ecs describe-tasks --cluster prod --tasks " + task, "tasks.0.group", "service:api"},
			{"ecs list-task-definitions", "taskDefinitionArns.0", "arn:aws:ecs:eu-central-1:123456789012:task-definition/api:1"},
			{"ecs describe-task-definition --task-definition api --include TAGS", "taskDefinition.containerDefinitions.0.image", ecr + "/api:1"},
			{"elbv2 describe-target-health --target-group-arn " + group, "TargetHealthDescriptions.1.Target.AvailabilityZone", "<nil>"},
			{"ecr describe-images --repository-name api --image-ids imageTag=2", "imageDetails.0.imageTags.0", "2"},
			{"ssm describe-instance-information --filters Key=PingStatus,Values=ConnectionLost", "InstanceInformationList.0.IPAddress", "10.0.0.12"},
			{"sts get-caller-identity", "Account", "123456789012"},
		} {
			t.Run(tt.command, func(t *testing.T) {
				t.Parallel()
				if got := at(awsCLI(t, l, strings.Fields(tt.command)...), tt.path); got != tt.want {
					t.Errorf("got %s at %s, want %s", got, tt.path, tt.want)
				}
			})
		}
	})
	registered := awsCLI(t, l, "ecs", "register-task-definition", "--family", "api", "--network-mode", "bridge", "--container-definitions", container)
	if got := at(registered, "taskDefinition.revision"); got != "2" {
		t.Errorf("got revision %s", got)
	}
	updated := awsCLI(t, l, "ecs", "update-service", "--cluster", "prod", "--service", "api", "--task-definition", "api:2")
	if got := at(updated, "service.deployments.0.taskDefinition"); got != "arn:aws:ecs:eu-central-1:123456789012:task-definition/api:2" {
		t.Errorf("got task definition %s", got)
	}
	for _, call := range l.Calls() {
		if call.Code != "" {
			t.Errorf("%s: %s", call.Operation, call.Code)
		}
	}
}
