package deployer

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/cli"
)

func TestPreflightFindsWhatCannotBeDeployedTo(t *testing.T) {
	number := func(n int) *int { return &n }
	for _, tt := range []struct {
		name   string
		change func(*ecsstatus.Service)
		want   string // the findings, in a line
	}{
		{"nothing is wrong", func(*ecsstatus.Service) {}, ""},
		{"CodeDeploy", func(s *ecsstatus.Service) { s.Config.Controller = "CODE_DEPLOY" }, "78 container type web is deployed by AWS CodeDeploy, not by ECS"},
		{"external", func(s *ecsstatus.Service) { s.Config.Controller = "EXTERNAL" }, "78 container type web is deployed by an external controller (EXTERNAL), not by ECS"},
		{"stuck", func(s *ecsstatus.Service) { s.Config.MinimumHealthy, s.Config.Maximum = number(100), number(100) }, "78 ECS could neither stop nor start a task: with 2 desired, minimumHealthyPercent 100 and maximumPercent 100 allow exactly 2"},
		{"blue/green, whose percents do not count", func(s *ecsstatus.Service) {
			s.Config.Strategy, s.Config.MinimumHealthy, s.Config.Maximum = "BLUE_GREEN", number(100), number(100)
		}, ""},
		{"stuck, but nothing is desired", func(s *ecsstatus.Service) {
			s.Desired, s.Config.MinimumHealthy, s.Config.Maximum = 0, number(100), number(100)
		}, ""},
		{"a daemon service", func(s *ecsstatus.Service) { s.Config.Scheduling = "DAEMON" }, ""},
		{"a load balancer with another port", func(s *ecsstatus.Service) {
			s.LoadBalancers = []ecsstatus.LoadBalancer{{Container: "app", Port: 81}}
		}, "78 a load balancer of web expects port 81 of container app, which task definition web:7 does not have"},
		{"two things at once", func(s *ecsstatus.Service) {
			s.Config.MinimumHealthy, s.Config.Maximum = number(75), number(125)
			s.LoadBalancers = []ecsstatus.LoadBalancer{{Container: "x", Port: 80}}
		}, "78 ECS could neither stop nor start a task: with 2 desired, minimumHealthyPercent 75 and maximumPercent 125 allow exactly 2; 78 a load balancer of web expects port 80 of container x, which task definition web:7 does not have"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			now := current("app", "web:1")
			now.Definition.ContainerDefinitions[0].PortMappings = []types.PortMapping{{ContainerPort: aws.Int32(80)}}
			tt.change(now.Service)
			p, err := MakePlan(now, request(t, "web:2"))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range unfit(now.Service, p) {
				got = append(got, strings.TrimSpace(codeOf(f)+" "+f.Error()))
			}
			if strings.Join(got, "; ") != tt.want {
				t.Errorf("found %q, want %q", strings.Join(got, "; "), tt.want)
			}
		})
	}
}

func codeOf(err error) string {
	return map[int]string{cli.ExitNotFound: "66", cli.ExitConfig: "78", cli.ExitBusy: "73"}[cli.ExitCode(err)]
}

func TestStuckServiceIsToldWhatWouldWork(t *testing.T) {
	found := stuck(situation{desired: 3, minPercent: 75, maxPercent: 125})
	if len(found) != 1 {
		t.Fatalf("found %v", found)
	}
	want := "minimumHealthyPercent 66 or less, or maximumPercent 134 or more, would work; or deploy with --strategy replacing, which stops the old tasks first"
	if got := found[0].(interface{ Hint() string }).Hint(); got != want {
		t.Errorf("hint %q, want %q", got, want)
	}
}

func TestDeploymentUnderWay(t *testing.T) {
	dep := func(status, rollout string, desired, running int) ecsstatus.Deployment {
		return ecsstatus.Deployment{Status: status, RolloutState: rollout, Desired: desired, Running: running, TaskDefinition: "td/" + status + rollout}
	}
	for _, tt := range []struct {
		name    string
		in      []ecsstatus.Deployment
		running bool
		back    string // lastCompleted
	}{
		{"completed", []ecsstatus.Deployment{dep("PRIMARY", "COMPLETED", 2, 2)}, false, "td/PRIMARYCOMPLETED"},
		{"in progress beside a completed one", []ecsstatus.Deployment{dep("PRIMARY", "IN_PROGRESS", 2, 1), dep("ACTIVE", "COMPLETED", 0, 1)}, true, "td/ACTIVECOMPLETED"},
		{"in progress beside others in progress", []ecsstatus.Deployment{dep("PRIMARY", "IN_PROGRESS", 2, 1), dep("ACTIVE", "IN_PROGRESS", 0, 1)}, true, ""},
		{"failed", []ecsstatus.Deployment{dep("PRIMARY", "FAILED", 2, 0), dep("ACTIVE", "COMPLETED", 0, 2)}, false, "td/ACTIVECOMPLETED"},
		{"Classic, steady", []ecsstatus.Deployment{dep("PRIMARY", "", 2, 2)}, false, ""},
		{"Classic, two deployments", []ecsstatus.Deployment{dep("PRIMARY", "", 2, 2), dep("ACTIVE", "", 0, 1)}, true, ""},
		{"Classic, not all are running", []ecsstatus.Deployment{dep("PRIMARY", "", 2, 1)}, true, ""},
		{"none", nil, false, ""},
	} {
		s := &ecsstatus.Service{Deployments: tt.in}
		if got := running(s); got != tt.running {
			t.Errorf("%s: running %v, want %v", tt.name, got, tt.running)
		}
		if got := lastCompleted(s); got != tt.back {
			t.Errorf("%s: last completed %q, want %q", tt.name, got, tt.back)
		}
	}
}

func TestBusySaysWhoseAndSinceWhen(t *testing.T) {
	s := &ecsstatus.Service{Name: "web", Deployments: []ecsstatus.Deployment{{ID: "ecs-svc/9", Status: "PRIMARY", TaskDefinition: "arn:aws:ecs:r:1:task-definition/web:8", Created: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)}}}
	err := busy(s, ", begun by anna on jump1", "web:3")
	want := "another deployment of web is running: ecs-svc/9 to web:8 (web:3) since 2026-11-23 12:00:00 UTC, begun by anna on jump1"
	if err.Error() != want || cli.ExitCode(err) != cli.ExitBusy {
		t.Errorf("got %q (code %d), want %q", err, cli.ExitCode(err), want)
	}
}

func TestRefusalShowsAllFindingsAtOnce(t *testing.T) {
	if err := refused(nil, nil); err != nil {
		t.Errorf("nothing was found: %v", err)
	}
	err := refused(nil, cli.Errorf(cli.ExitNotFound, "push it", "no image"), refusal("mend it", "stuck"))
	want := "2 things are in the way; nothing was changed\n  - no image\n  - stuck"
	if err.Error() != want || cli.ExitCode(err) != cli.ExitNotFound {
		t.Errorf("got %q (code %d), want %q (66)", err, cli.ExitCode(err), want)
	}
	var b strings.Builder
	cli.Report(&b, "r3", err)
	if !strings.HasSuffix(b.String(), "hint: push it\nhint: mend it\n") {
		t.Errorf("hints are missing:\n%s", b.String())
	}
}

func TestAServiceThatIsGoneIsNotFound(t *testing.T) {
	d := &Deployer{Program: "r3 container"}
	for status, want := range map[string]string{
		"DRAINING": "66 container type web is being deleted (its status is DRAINING)",
		"INACTIVE": "66 container type web was deleted (its status is INACTIVE)",
	} {
		err := d.gone(&ecsstatus.Service{Name: "web", Status: status})
		if got := codeOf(err) + " " + err.Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
