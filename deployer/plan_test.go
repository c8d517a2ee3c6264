package deployer

import (
	"reflect"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/cli"
)

// current is service web with a definition of the given containers (name, image
// in turn), two tasks desired.
func current(containers ...string) Current {
	def := types.TaskDefinition{Family: aws.String("web"), Revision: 7, Cpu: aws.String("256"), TaskDefinitionArn: aws.String("arn:aws:ecs:eu-central-1:123456789012:task-definition/web:7")}
	for i := 0; i < len(containers); i += 2 {
		def.ContainerDefinitions = append(def.ContainerDefinitions, types.ContainerDefinition{Name: aws.String(containers[i]), Image: aws.String(containers[i+1])})
	}
	s := ecsstatus.NewService(types.Service{
		ServiceName: aws.String("web"), ServiceArn: aws.String("arn:aws:ecs:eu-central-1:123456789012:service/prod/web"),
		ClusterArn: aws.String("arn:aws:ecs:eu-central-1:123456789012:cluster/prod"), Status: aws.String("ACTIVE"), DesiredCount: 2,
		Deployments: []types.Deployment{{Id: aws.String("ecs-svc/1"), Status: aws.String("PRIMARY"), DesiredCount: 2, RolloutState: types.DeploymentRolloutStateCompleted, TaskDefinition: def.TaskDefinitionArn}},
	})
	return Current{Service: s, Definition: def}
}

func request(t *testing.T, image string) Request {
	t.Helper()
	i, err := ParseImage(image)
	if err != nil {
		t.Fatal(err)
	}
	return Request{ContainerType: "web", Image: i, Strategy: Rolling}
}

func TestPlanChangesTheImageOfOneContainerAndNothingElse(t *testing.T) {
	now := current("web", ecrHostA+"/web:1", "log", "log:3")
	p, err := MakePlan(now, request(t, ecrHostA+"/web:2"))
	if err != nil {
		t.Fatal(err)
	}
	if got := aws.ToString(p.wanted.ContainerDefinitions[0].Image); got != ecrHostA+"/web:2" {
		t.Errorf("the image is %s", got)
	}
	p.wanted.ContainerDefinitions[0].Image = p.base.ContainerDefinitions[0].Image
	if !reflect.DeepEqual(p.wanted, p.base) {
		t.Errorf("more than the image differs:\n%s\n%s", definitionJSON(p.wanted), definitionJSON(p.base))
	}
	if n := strings.Count(p.Diff, "\n+ ") + strings.Count(p.Diff, "\n- "); n != 2 {
		t.Errorf("the diff has %d changed lines, want 2:\n%s", n, p.Diff)
	}
}

func TestPlanChoosesTheContainer(t *testing.T) {
	for _, tt := range []struct {
		name       string
		containers []string
		image      string
		container  string // --container
		want       string // container: image, or the error
		hint       string
	}{
		{"the only one", []string{"app", ecrHostA + "/web:1"}, "web:2", "", "app: " + ecrHostA + "/web:2", ""},
		{"the only one may change its repository", []string{"app", ecrHostA + "/web:1"}, "quay.io/x/other:2", "", "app: quay.io/x/other:2", ""},
		{"the one of the same repository", []string{"log", "log:1", "app", ecrHostA + "/web:1"}, ecrHostA + "/web:2", "", "app: " + ecrHostA + "/web:2", ""},
		{"the one of the same repository, by its last part", []string{"log", "log:1", "app", ecrHostA + "/team/web:1"}, "web:2", "", "app: " + ecrHostA + "/team/web:2", ""},
		{"the named one", []string{"log", "log:1", "app", ecrHostA + "/web:1"}, "log:2", "log", "log: log:2", ""},
		{"two of the same repository", []string{"a", "web:1", "b", "web:1"}, "web:2", "", "2 of the 2 containers of web have an image of repository web", "say which with --container: a, b"},
		{"none of the same repository", []string{"a", "x:1", "b", "y:1"}, "web:2", "", "0 of the 2 containers of web have an image of repository web", "say which with --container: a, b"},
		{"a name that is not there", []string{"a", "x:1", "b", "y:1"}, "x:2", "c", `no container "c" in the task definition`, "the containers are a, b"},
		{"no registry, and another repository", []string{"app", ecrHostA + "/web:1"}, "api:2", "", `image URL "api:2" names no registry, and container app has another repository (` + ecrHostA + "/web:1)", imageExample},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := request(t, tt.image)
			r.Container = tt.container
			p, err := MakePlan(current(tt.containers...), r)
			if err != nil {
				hinted, _ := err.(interface{ Hint() string })
				if err.Error() != tt.want || hinted.Hint() != tt.hint || cli.ExitCode(err) != cli.ExitUsage {
					t.Errorf("error %q, hint %q, code %d, want %q, %q, 64", err, hinted.Hint(), cli.ExitCode(err), tt.want, tt.hint)
				}
				return
			}
			if got := p.Container + ": " + p.To; got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestPlanSaysWhatItCompleted(t *testing.T) {
	p, err := MakePlan(current("app", ecrHostA+"/web:1"), request(t, "web:2"))
	if err != nil {
		t.Fatal(err)
	}
	want := "the registry is the one of the image that container app has now"
	if len(p.Notes) != 1 || p.Notes[0] != want {
		t.Errorf("notes %q, want %q", p.Notes, want)
	}
}

func TestPlanStepsOfTheStrategies(t *testing.T) {
	r := request(t, "web:2")
	r.Strategy = Replacing
	p, err := MakePlan(current("app", "web:1"), r)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"register a new revision of web in which container app has web:2",
		"update service web to it, with minimumHealthyPercent 0 and maximumPercent 100",
		"follow until 2 new tasks are running and healthy",
		"put minimumHealthyPercent 100 and maximumPercent 200 back",
	}
	if !reflect.DeepEqual(p.Steps, want) {
		t.Errorf("steps:\n%s\nwant:\n%s", strings.Join(p.Steps, "\n"), strings.Join(want, "\n"))
	}
	idle := current("app", "web:1")
	idle.Service.Desired = 0
	if p, err = MakePlan(idle, request(t, "web:2")); err != nil || p.Steps[2] != "no task is desired: wait until ECS has completed the deployment" {
		t.Errorf("with desired 0: %v, %v", p.Steps, err)
	}
}
