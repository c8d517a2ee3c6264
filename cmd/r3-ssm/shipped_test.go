package main

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
)

// The IAM policies that we ship allow what the code calls, and nothing else.
func TestTheIAMPoliciesAreWhatTheCodeCalls(t *testing.T) {
	for _, tt := range []struct {
		files    string
		packages []string
		besides  []string // asked for by no operation of the SDK, or by others with what we give them
		not      []string // operations that only are called alike
	}{
		{
			"jump-server.json jump-server-publish.json",
			[]string{"cmd/r3-ssm", "cmd/r3-container", "cmd/show-ecs-service-status", "internal/session", "internal/enrol", "internal/access", "internal/awsconfig", "ecsstatus", "deployer"},
			[]string{"iam:PassRole", "ssmmessages:OpenDataChannel"},
			[]string{"ecr:TagResource", "logs:TagResource"},
		},
		{
			"docker-host.json",
			[]string{"cmd/r3-ecr", "internal/enrol"},
			[]string{"ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"},
			nil,
		},
	} {
		t.Run(tt.files, func(t *testing.T) {
			want := append(calls(t, tt.packages), tt.besides...)
			want = slices.DeleteFunc(want, func(s string) bool { return slices.Contains(tt.not, s) })
			slices.Sort(want)
			var got []string
			for _, file := range strings.Fields(tt.files) {
				got = append(got, allowed(t, file)...)
			}
			slices.Sort(got)
			if got = slices.Compact(got); !slices.Equal(got, slices.Compact(want)) {
				t.Errorf("the policy allows\n%s\nthe code calls\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// R3-ssm has the jump server's role. Who takes it over must not be able to enrol a
// jump server's key of his own: the right to publish them is apart.
func TestAJumpServersRolePublishesNoKeys(t *testing.T) {
	for _, action := range allowed(t, "jump-server.json") {
		if strings.Contains(action, "*") || strings.HasSuffix(action, "Parameter") {
			t.Errorf("the role of jump servers has %s", action)
		}
	}
	if got := allowed(t, "jump-server-publish.json"); !slices.Equal(got, []string{"ssm:DeleteParameter", "ssm:PutParameter"}) {
		t.Errorf("what publishes them has %s", got)
	}
}

// operations are the SDK's, with the services that have them.
func operations() map[string][]string {
	all := map[string][]string{}
	for service, client := range map[string]any{
		"ssm": (*ssm.Client)(nil), "ecs": (*ecs.Client)(nil), "ecr": (*ecr.Client)(nil), "elasticloadbalancing": (*elasticloadbalancingv2.Client)(nil),
		"logs": (*cloudwatchlogs.Client)(nil),
	} {
		for m := range reflect.TypeOf(client).Methods() {
			if m.Name != "Options" {
				all[m.Name] = append(all[m.Name], service)
			}
		}
	}
	return all
}

// calls are the operations that the packages speak of. GetCallerIdentity needs no leave.
func calls(t *testing.T, packages []string) (list []string) {
	t.Helper()
	known := operations()
	for _, pkg := range packages {
		files, err := filepath.Glob(filepath.Join("../..", pkg, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pkg, len(files), err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok {
					name := strings.TrimSuffix(strings.TrimPrefix(s.Sel.Name, "New"), "Paginator")
					for _, service := range known[name] {
						list = append(list, service+":"+name)
					}
				}
				return true
			})
		}
	}
	return list
}

// allowed are the actions of a policy's statements that allow.
func allowed(t *testing.T, file string) (list []string) {
	t.Helper()
	var policy struct {
		Version   string
		Statement []struct {
			Sid, Effect string
			Action      any
			Resource    any // a text or a list
			Condition   map[string]map[string]string
		}
	}
	read(t, filepath.Join("../../packaging/iam", file), &policy)
	for _, s := range policy.Statement {
		if s.Effect != "Allow" {
			continue
		}
		switch a := s.Action.(type) {
		case string:
			list = append(list, a)
		case []any:
			for _, one := range a {
				list = append(list, one.(string))
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func read(t *testing.T, path string, into any) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := json.NewDecoder(f)
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// A parameter, a host or another type would make the document lead elsewhere.
func TestTheSessionDocumentLeadsToTheGateAndNowhereElse(t *testing.T) {
	var got map[string]any
	read(t, "../../packaging/ssm/jumpsuite-docker.json", &got)
	if got["description"] == "" {
		t.Error("it has no description")
	}
	delete(got, "description")
	want := map[string]any{"schemaVersion": "1.0", "sessionType": "Port", "properties": map[string]any{"portNumber": "2376"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if defaultDocument != "jumpsuite-docker" {
		t.Errorf("r3-ssm asks for %s", defaultDocument)
	}
}
