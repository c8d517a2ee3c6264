package lab_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"jumpsuite/internal/awsconfig"
	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/engine"
	"jumpsuite/internal/lab/world"
)

const small = `
clock: {speed: 200}
denied-keys: [AKIDLABDENIED]
clusters: [{name: prod, hosts: [{count: 2}, {offline: true}]}]
images:
  - {repository: api, tags: ["1"]}
  - {repository: api, tags: ["2"]}
services:
  - {name: api, image: "api:1", port: 8080, desired: 2, load-balancers: [{interval: 5s}]}
`

// start starts a lab with the simulating engine.
func start(t *testing.T, text string) *lab.Lab {
	t.Helper()
	w, err := world.Parse([]byte(text), "world")
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.Start(t.Context(), lab.Config{World: w})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// env is a variable of the lab's environment.
func env(l *lab.Lab, name string) string {
	for _, v := range l.Env() {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

// config is how the SDK reaches a lab; it tries once.
func config(l *lab.Lab) aws.Config {
	url := l.URL()
	return aws.Config{Region: env(l, "AWS_REGION"), APIOptions: awsconfig.PlainBodies(), BaseEndpoint: &url, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(env(l, "AWS_ACCESS_KEY_ID"), env(l, "AWS_SECRET_ACCESS_KEY"), "")}
}

func client(l *lab.Lab) *ecs.Client { return ecs.NewFromConfig(config(l)) }

func code(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	if err != nil {
		return "no answer"
	}
	return ""
}

func TestZeroConfigIsALab(t *testing.T) {
	l, err := lab.Start(t.Context(), lab.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	out, err := client(l).ListClusters(t.Context(), &ecs.ListClustersInput{})
	if err != nil || len(out.ClusterArns) != 0 {
		t.Errorf("got %v, %v", out, err)
	}
}

func TestAllServicesAnswerOnOneAddress(t *testing.T) {
	l := start(t, small)
	c, ctx := config(l), t.Context()
	services, err := client(l).DescribeServices(ctx, &ecs.DescribeServicesInput{Cluster: aws.String("prod"), Services: []string{"api", "nobody"}})
	if err != nil || len(services.Services) != 1 || services.Services[0].RunningCount != 2 || *services.Failures[0].Reason != "MISSING" {
		t.Fatalf("got %+v, %v", services, err)
	}
	images, err := ecr.NewFromConfig(c).ListImages(ctx, &ecr.ListImagesInput{RepositoryName: aws.String("api")})
	if err != nil || len(images.ImageIds) != 2 {
		t.Errorf("got %+v, %v", images, err)
	}
	group := services.Services[0].LoadBalancers[0].TargetGroupArn
	health, err := elb.NewFromConfig(c).DescribeTargetHealth(ctx, &elb.DescribeTargetHealthInput{TargetGroupArn: group})
	if err != nil || len(health.TargetHealthDescriptions) != 2 {
		t.Errorf("got %+v, %v", health, err)
	}
	hosts, err := ssm.NewFromConfig(c).DescribeInstanceInformation(ctx, &ssm.DescribeInstanceInformationInput{})
	if err != nil || len(hosts.InstanceInformationList) != 3 || hosts.InstanceInformationList[2].PingStatus != "ConnectionLost" {
		t.Errorf("got %+v, %v", hosts, err)
	}
	who, err := sts.NewFromConfig(c).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil || *who.Account != "123456789012" {
		t.Errorf("got %+v, %v", who, err)
	}
	var names []string
	for _, call := range l.Calls() {
		names = append(names, call.Service+":"+call.Operation)
	}
	want := []string{"ecs:DescribeServices", "ecr:ListImages", "elasticloadbalancing:DescribeTargetHealth", "ssm:DescribeInstanceInformation", "sts:GetCallerIdentity"}
	if !slices.Equal(names, want) {
		t.Errorf("got calls %v, want %v", names, want)
	}
	if got := l.Calls()[0]; string(got.Parameters) != `{"services":["api","nobody"],"cluster":"prod"}` || got.Status != 200 || got.Code != "" || !strings.Contains(got.UserAgent, "aws-sdk-go-v2") {
		t.Errorf("got %s, %+v", got.Parameters, got)
	}
	if l.ResetCalls(); len(l.Calls()) != 0 {
		t.Errorf("got %d calls after the reset", len(l.Calls()))
	}
}

func TestAnEngineThatDoesNotStartIsAnErrorAndNoMore(t *testing.T) {
	none := func(context.Context, lab.Parts) (engine.Engine, error) {
		var e *engine.Sim
		return e, errors.New("no engine today")
	}
	l, err := lab.Start(t.Context(), lab.Config{Engine: lab.Docker, StartDocker: none})
	if l != nil || err == nil || err.Error() != "no engine today" {
		t.Errorf("got %v and %v", l, err)
	}
}

func TestRefusedCallsAreRecorded(t *testing.T) {
	l := start(t, small)
	c := config(l)
	c.Credentials = credentials.NewStaticCredentialsProvider("AKIDLABDENIED", env(l, "AWS_SECRET_ACCESS_KEY"), "")
	_, err := ecs.NewFromConfig(c).ListClusters(t.Context(), &ecs.ListClustersInput{})
	if code(err) != "AccessDeniedException" || !strings.Contains(err.Error(), "is not authorized to perform: ecs:ListClusters") {
		t.Errorf("got %v", err)
	}
	if calls := l.Calls(); len(calls) != 1 || calls[0].Code != "AccessDeniedException" || calls[0].Operation != "ListClusters" {
		t.Errorf("got %+v", calls)
	}
	l.ResetCalls()
	long := strings.Repeat("x", 3<<20)
	_, err = ecs.NewFromConfig(config(l)).DescribeServices(t.Context(), &ecs.DescribeServicesInput{Services: []string{long}})
	if code(err) != "RequestEntityTooLargeException" {
		t.Errorf("got %.200v", err)
	}
	if calls := l.Calls(); len(calls) != 1 || calls[0].Status != 413 || calls[0].Operation != "DescribeServices" {
		t.Errorf("got %d calls", len(calls))
	}
}

func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		name, fault string
		want        []string // codes of the first calls
	}{
		{"throttle once", "{operation: ListClusters, error: throttle, times: 1}", []string{"ThrottlingException", ""}},
		{"skip", "{operation: ListClusters, error: server, skip: 1, times: 1}", []string{"", "ServerException", ""}},
		{"pattern", "{operation: List*, error: denied}", []string{"AccessDeniedException", "AccessDeniedException"}},
		{"unavailable", "{operation: '*', error: unavailable, times: 1}", []string{"ServiceUnavailable", ""}},
		{"cut", "{operation: ListClusters, error: cut, times: 1}", []string{"no answer", ""}},
		{"concurrent", "{operation: ListClusters, error: concurrent, times: 1}", []string{"ClientException", ""}},
		{"another operation", "{operation: ListTasks, error: cut}", []string{""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := start(t, "clusters: [{name: prod}]\nfaults: ["+tt.fault+"]")
			for i, want := range tt.want {
				_, err := client(l).ListClusters(t.Context(), &ecs.ListClustersInput{})
				if got := code(err); got != want {
					t.Errorf("call %d: got %q (%v), want %q", i, got, err, want)
				}
			}
		})
	}
}

func TestAFaultAfterTheEffectLeavesTheEffect(t *testing.T) {
	for _, kind := range []string{"server", "cut"} {
		l := start(t, small)
		f, err := world.ParseFault([]byte("{operation: UpdateService, error: "+kind+", after: true}"), "fault")
		if err != nil {
			t.Fatal(err)
		}
		l.AddFault(f)
		_, err = client(l).UpdateService(t.Context(), &ecs.UpdateServiceInput{Cluster: aws.String("prod"), Service: aws.String("api"), DesiredCount: aws.Int32(5)})
		if err == nil {
			t.Errorf("%s: no error", kind)
		}
		out, err := client(l).DescribeServices(t.Context(), &ecs.DescribeServicesInput{Cluster: aws.String("prod"), Services: []string{"api"}})
		if err != nil || out.Services[0].DesiredCount != 5 {
			t.Errorf("%s: got %+v, %v", kind, out, err)
		}
		l.ClearFaults()
		if _, err := client(l).UpdateService(t.Context(), &ecs.UpdateServiceInput{Cluster: aws.String("prod"), Service: aws.String("api"), DesiredCount: aws.Int32(2)}); err != nil {
			t.Errorf("%s: after the faults were cleared: %v", kind, err)
		}
	}
}

func TestRateLimitsAreAWSs(t *testing.T) {
	l := start(t, "rate-limits: true\nclusters: [{name: prod}]")
	throttled := 0
	// Task definition modify: 20 at once, then one a second.
	for range 60 {
		_, err := client(l).DeregisterTaskDefinition(t.Context(), &ecs.DeregisterTaskDefinitionInput{TaskDefinition: aws.String("none:1")})
		if code(err) != "ThrottlingException" {
			continue
		}
		throttled++
		if !strings.Contains(err.Error(), "Rate exceeded") {
			t.Fatalf("got %v", err)
		}
	}
	if throttled == 0 || throttled > 40 {
		t.Errorf("%d of 60 calls were throttled, want about 40", throttled)
	}
	// Other categories have buckets of their own.
	if _, err := client(l).ListClusters(t.Context(), &ecs.ListClustersInput{}); err != nil {
		t.Error(err)
	}
}

func TestActionsHappenAtTheirTimeAndAfterTheirCall(t *testing.T) {
	l := start(t, small+`
actions:
  - {at: 5s, do: desired, to: api, value: "3"}
  - {on: ListTasks, at: 5s, do: host-lost, to: 10.0.0.10}
`)
	await(t, "the desired count is 3", func() bool {
		out, err := client(l).DescribeServices(t.Context(), &ecs.DescribeServicesInput{Cluster: aws.String("prod"), Services: []string{"api"}})
		return err == nil && out.Services[0].DesiredCount == 3
	})
	if lost(t, l) != 1 {
		t.Error("the host is lost before the call that it waits for")
	}
	if _, err := client(l).ListTasks(t.Context(), &ecs.ListTasksInput{Cluster: aws.String("prod")}); err != nil {
		t.Fatal(err)
	}
	await(t, "the host is lost", func() bool { return lost(t, l) == 2 })
	texts := ""
	for _, e := range l.Events(t.Context()) {
		texts += e.Text + "\n"
	}
	for _, want := range []string{"lab: desired api 3\n", "lab: host-lost 10.0.0.10\n", "(service api) has reached a steady state.\n"} {
		if !strings.Contains(texts, want) {
			t.Errorf("got events\n%swant %s", texts, want)
		}
	}
	if err := l.Do(world.Action{Do: "host-back", To: "10.0.0.10"}); err != nil || lost(t, l) != 1 {
		t.Errorf("the host is not back: %v", err)
	}
}

// lost counts the hosts that SSM does not reach.
func lost(t *testing.T, l *lab.Lab) int {
	t.Helper()
	out, err := ssm.NewFromConfig(config(l)).DescribeInstanceInformation(t.Context(), &ssm.DescribeInstanceInformationInput{})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, i := range out.InstanceInformationList {
		if i.PingStatus == "ConnectionLost" {
			n++
		}
	}
	return n
}

// await waits until a thing that takes lab time has happened.
func await(t *testing.T, what string, happened func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !happened() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("it never came to it that %s", what)
		}
	}
}

func TestImagesComeAndGo(t *testing.T) {
	l := start(t, small)
	if err := l.Do(world.Action{Do: "image-push", To: "api:3", Value: "{http: 503}"}); err != nil {
		t.Fatal(err)
	}
	_, behaviour, err := l.Registry.Resolve(l.World.ECR() + "/api:3")
	if err != nil || behaviour.HTTP != 503 {
		t.Errorf("got %+v, %v", behaviour, err)
	}
	if err := l.Do(world.Action{Do: "image-delete", To: "api:3"}); err != nil {
		t.Fatal(err)
	}
	want := "image-delete api:3: there is no image api:3"
	if err := l.Do(world.Action{Do: "image-delete", To: "api:3"}); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestSomebodysDeploymentIsRefusedWhatAWSRefuses(t *testing.T) {
	l := start(t, small)
	want := "deploy api: deploy: ClientException: Container.image contains invalid characters."
	if err := l.Do(world.Action{Do: "deploy", To: "api", Value: "x y"}); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// ask makes one request to the lab's control.
func ask(t *testing.T, l *lab.Lab, method, path, body string, header ...string) (int, string) {
	t.Helper()
	q, err := http.NewRequest(method, l.URL()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		q.Header.Set(header[i], header[i+1])
	}
	r, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(bytes.TrimSpace(text))
}

func TestALabIsSteeredOverHTTP(t *testing.T) {
	l := start(t, small)
	for _, tt := range []struct {
		name, method, path, body string
		status                   int
		want                     string
	}{
		{"an action", "POST", "/lab/do", `{"do":"desired","to":"api","value":"1"}`, 200, "{}"},
		{"an action for nobody", "POST", "/lab/do", `{"do":"desired","to":"web","value":"1"}`, 400, "desired web: "},
		{"an unknown verb", "POST", "/lab/do", `{"do":"explode","to":"api"}`, 400, `"explode" is none of`},
		{"an unknown member", "POST", "/lab/do", `{"verb":"desired"}`, 400, "an action is"},
		{"a fault", "POST", "/lab/fault", "{operation: ListTasks, error: throttle}", 200, "{}"},
		{"no fault", "POST", "/lab/fault", "{operation: ListTasks, err: throttle}", 400, `fault:1:24: unknown key "err"`},
		{"no more faults", "DELETE", "/lab/fault", "", 200, "{}"},
		{"calls", "GET", "/lab/calls", "", 200, "null"},
		{"forget calls", "DELETE", "/lab/calls", "", 200, "{}"},
		{"environment", "GET", "/lab/env", "", 200, `["AWS_ENDPOINT_URL=http://127.0.0.1:`},
		{"events", "GET", "/lab/events", "", 200, `[{"time":`},
		{"nothing", "GET", "/lab/nothing", "", 404, "404 page not found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, text := ask(t, l, tt.method, tt.path, tt.body)
			if status != tt.status || !strings.HasPrefix(text, tt.want) {
				t.Errorf("got %d %s, want %d %s", status, text, tt.status, tt.want)
			}
		})
	}
	if status, text := ask(t, l, "GET", "/lab/env", "", "Origin", "https://example.com"); status != 403 || !strings.Contains(text, "web pages") {
		t.Errorf("a web page got %d %s", status, text)
	}
}

func TestTheLabListensOnTheLoopbackOnly(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "192.0.2.1:0", "nonsense"} {
		l, err := lab.Start(t.Context(), lab.Config{Listen: address})
		if err == nil {
			l.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "loopback") {
			t.Errorf("%s: got %v", address, err)
		}
	}
}

func TestStaleReadsShowWhatWas(t *testing.T) {
	l := start(t, strings.Replace(small, "speed: 200", "speed: 1", 1)+"\nstale-reads: 60s\n")
	in := &ecs.DescribeServicesInput{Cluster: aws.String("prod"), Services: []string{"api"}}
	updated, err := client(l).UpdateService(t.Context(), &ecs.UpdateServiceInput{Cluster: aws.String("prod"), Service: aws.String("api"), DesiredCount: aws.Int32(1)})
	if err != nil || updated.Service.DesiredCount != 1 {
		t.Fatalf("got %+v, %v", updated, err)
	}
	out, err := client(l).DescribeServices(t.Context(), in)
	if err != nil || len(out.Services) != 1 || out.Services[0].DesiredCount != 2 {
		t.Errorf("got %+v, %v; want the desired count of before", out, err)
	}
}

func TestCallsAreJSON(t *testing.T) {
	l := start(t, small)
	if _, err := client(l).ListClusters(t.Context(), &ecs.ListClustersInput{MaxResults: aws.Int32(5)}); err != nil {
		t.Fatal(err)
	}
	_, text := ask(t, l, "GET", "/lab/calls", "")
	var calls []lab.Call
	if err := json.Unmarshal([]byte(text), &calls); err != nil || len(calls) != 1 || string(calls[0].Parameters) != `{"maxResults":5}` {
		t.Errorf("got %s, %v", text, err)
	}
}
