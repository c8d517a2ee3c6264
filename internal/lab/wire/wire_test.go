package wire_test

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/document"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/aws/smithy-go"

	"jumpsuite/internal/awsconfig"
	"jumpsuite/internal/lab/wire"
)

// fakeECS answers what a test tells it to, and keeps what it was asked.
type fakeECS struct {
	services *ecs.DescribeServicesOutput
	register *ecs.RegisterTaskDefinitionInput
	create   *ecs.CreateServiceInput
	err      error
}

func (f *fakeECS) DescribeServices(context.Context, *ecs.DescribeServicesInput) (*ecs.DescribeServicesOutput, error) {
	return f.services, f.err
}

func (f *fakeECS) RegisterTaskDefinition(_ context.Context, in *ecs.RegisterTaskDefinitionInput) (*ecs.RegisterTaskDefinitionOutput, error) {
	f.register = in
	return &ecs.RegisterTaskDefinitionOutput{TaskDefinition: &ecstypes.TaskDefinition{ContainerDefinitions: in.ContainerDefinitions}}, f.err
}

func (f *fakeECS) CreateService(_ context.Context, in *ecs.CreateServiceInput) (*ecs.CreateServiceOutput, error) {
	f.create = in
	return &ecs.CreateServiceOutput{Service: &ecstypes.Service{DeploymentConfiguration: in.DeploymentConfiguration}}, f.err
}

// Help has an operation's look but for its types.
func (f *fakeECS) Help(context.Context, *ecs.DescribeServicesInput) (*ecs.DescribeServicesOutput, error) {
	return nil, nil
}

type fakeELB struct{ in *elb.RegisterTargetsInput }

func (f *fakeELB) RegisterTargets(_ context.Context, in *elb.RegisterTargetsInput) (*elb.RegisterTargetsOutput, error) {
	f.in = in
	return &elb.RegisterTargetsOutput{}, nil
}

func (f *fakeELB) DescribeTargetHealth(_ context.Context, in *elb.DescribeTargetHealthInput) (*elb.DescribeTargetHealthOutput, error) {
	return &elb.DescribeTargetHealthOutput{TargetHealthDescriptions: []elbtypes.TargetHealthDescription{{
		Target:       &elbtypes.TargetDescription{Id: aws.String("<i-1 & ü>"), Port: aws.Int32(8080)},
		TargetHealth: &elbtypes.TargetHealth{State: elbtypes.TargetHealthStateEnumUnhealthy, Description: in.TargetGroupArn},
	}}}, nil
}

type fakeSSM struct{}

func (fakeSSM) DescribeInstanceInformation(_ context.Context, in *ssm.DescribeInstanceInformationInput) (*ssm.DescribeInstanceInformationOutput, error) {
	return &ssm.DescribeInstanceInformationOutput{NextToken: in.Filters[0].Key}, nil
}

var keys = wire.Credentials{Region: "eu-central-1", Account: "123456789012",
	Secrets: map[string]string{"AKIDLAB": "secret", "AKIDDENIED": "secret"}, Denied: map[string]bool{"AKIDDENIED": true}}

// world is one endpoint with fakes behind it.
type world struct {
	ecs fakeECS
	elb fakeELB
	url string
}

func start(t *testing.T) *world {
	w := &world{}
	services := wire.Services{
		{Name: "ecs", Target: "AmazonEC2ContainerServiceV20141113", Impl: &w.ecs,
			Unions: []any{&ecstypes.ServiceConnectContainerConfigurationMemberLogLevel{}}, Document: func(v any) any { return document.NewLazyDocument(v) }},
		{Name: "ssm", Target: "AmazonSSM", Titled: true, Invalid: "ValidationException", Impl: fakeSSM{}},
		{Name: "elasticloadbalancing", Version: "2015-12-01", Namespace: "http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/", Invalid: "ValidationError", Impl: &w.elb},
	}
	lab := time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		q, err := services.Parse(r, body)
		if err == nil {
			err = q.Authenticate(keys)
		}
		if err == nil {
			err = q.Decode()
		}
		var out any
		if err == nil {
			out, err = q.Do(r.Context())
		}
		if err := q.Answer(out, err, lab, 1).Write(rw); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	w.url = server.URL
	return w
}

func (w *world) config(key, secret, region string) aws.Config {
	return aws.Config{Region: region, APIOptions: awsconfig.PlainBodies(), BaseEndpoint: &w.url, Credentials: credentials.NewStaticCredentialsProvider(key, secret, ""),
		RetryMaxAttempts: 1}
}

func (w *world) client() *ecs.Client {
	return ecs.NewFromConfig(w.config("AKIDLAB", "secret", "eu-central-1"))
}

func TestAnswersReachTheSDK(t *testing.T) {
	w := start(t)
	at := time.Date(2026, 11, 1, 12, 0, 0, 123e6, time.UTC)
	want := ecstypes.Service{
		ServiceName: aws.String("api \"ü\" <&> \u2028"), DesiredCount: 3, CreatedAt: &at,
		PropagateTags: ecstypes.PropagateTagsService,
		Deployments:   []ecstypes.Deployment{{Id: aws.String("ecs-svc/1"), RolloutState: ecstypes.DeploymentRolloutStateFailed, CreatedAt: &at}},
		DeploymentConfiguration: &ecstypes.DeploymentConfiguration{
			MinimumHealthyPercent: aws.Int32(0), DeploymentCircuitBreaker: &ecstypes.DeploymentCircuitBreaker{Enable: true},
		},
	}
	w.ecs.services = &ecs.DescribeServicesOutput{Services: []ecstypes.Service{want}}
	out, err := w.client().DescribeServices(t.Context(), &ecs.DescribeServicesInput{Services: []string{"api"}})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(out.Services[0], want) {
		t.Errorf("got %+v, want %+v", out.Services[0], want)
	}
	if out.Failures == nil {
		t.Error("an empty list of failures is missing; AWS sends []")
	}
}

func TestInputsAreWhatTheSDKSent(t *testing.T) {
	w := start(t)
	want := &ecs.RegisterTaskDefinitionInput{
		Family: aws.String("api"), NetworkMode: ecstypes.NetworkModeBridge,
		ContainerDefinitions: []ecstypes.ContainerDefinition{{
			Name: aws.String("api"), Image: aws.String("api:1"), Cpu: 10, Essential: aws.Bool(true),
			DockerLabels: map[string]string{"a.b": "c", "": "empty"},
			Ulimits:      []ecstypes.Ulimit{{Name: ecstypes.UlimitNameCore, HardLimit: math.MaxInt32, SoftLimit: -1}},
			Environment:  []ecstypes.KeyValuePair{{Name: aws.String("X"), Value: aws.String("")}},
		}},
		Tags: []ecstypes.Tag{{Key: aws.String("k")}},
	}
	if _, err := w.client().RegisterTaskDefinition(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(w.ecs.register, want) {
		t.Errorf("got %+v, want %+v", w.ecs.register, want)
	}
}

func TestUnionsAndDocumentsGoBothWays(t *testing.T) {
	w := start(t)
	out, err := w.client().CreateService(t.Context(), &ecs.CreateServiceInput{
		ServiceName: aws.String("api"),
		ServiceConnectConfiguration: &ecstypes.ServiceConnectConfiguration{Enabled: true,
			ContainerConfigurations: []ecstypes.ServiceConnectContainerConfiguration{&ecstypes.ServiceConnectContainerConfigurationMemberLogLevel{Value: "debug"}}},
		DeploymentConfiguration: &ecstypes.DeploymentConfiguration{LifecycleHooks: []ecstypes.DeploymentLifecycleHook{{
			HookDetails: document.NewLazyDocument(map[string]any{"a": []any{"b", true}})}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	level := w.ecs.create.ServiceConnectConfiguration.ContainerConfigurations[0].(*ecstypes.ServiceConnectContainerConfigurationMemberLogLevel)
	if level.Value != "debug" {
		t.Errorf("got level %q, want debug", level.Value)
	}
	var details map[string]any
	if err := out.Service.DeploymentConfiguration.LifecycleHooks[0].HookDetails.UnmarshalSmithyDocument(&details); err != nil {
		t.Fatal(err)
	}
	if want := map[string]any{"a": []any{"b", true}}; !reflect.DeepEqual(details, want) {
		t.Errorf("got %v, want %v", details, want)
	}
}

func TestErrorsHaveTheTypesOfTheSDK(t *testing.T) {
	w := start(t)
	w.ecs.err = wire.Errorf("ClusterNotFoundException", "Cluster not found.")
	_, err := w.client().DescribeServices(t.Context(), &ecs.DescribeServicesInput{Services: []string{"api"}})
	notFound, ok := errors.AsType[*ecstypes.ClusterNotFoundException](err)
	if !ok || notFound.ErrorMessage() != "Cluster not found." {
		t.Errorf("got %v, want a ClusterNotFoundException", err)
	}
	w.ecs.err = errors.New("out of order")
	_, err = w.client().DescribeServices(t.Context(), &ecs.DescribeServicesInput{Services: []string{"api"}})
	if _, ok := errors.AsType[*ecstypes.ServerException](err); !ok {
		t.Errorf("got %v, want a ServerException", err)
	}
}

func TestQueryGoesBothWays(t *testing.T) {
	w := start(t)
	client := elb.NewFromConfig(w.config("AKIDLAB", "secret", "eu-central-1"))
	want := []elbtypes.TargetDescription{{Id: aws.String("i-1"), Port: aws.Int32(80)}, {Id: aws.String("i-2 &=%")}}
	if _, err := client.RegisterTargets(t.Context(), &elb.RegisterTargetsInput{TargetGroupArn: aws.String("arn:x"), Targets: want}); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(w.elb.in.Targets, want) {
		t.Errorf("got %+v, want %+v", w.elb.in.Targets, want)
	}
	out, err := client.DescribeTargetHealth(t.Context(), &elb.DescribeTargetHealthInput{TargetGroupArn: aws.String("arn:x")})
	if err != nil {
		t.Fatal(err)
	}
	got := out.TargetHealthDescriptions[0]
	if *got.Target.Id != "<i-1 & ü>" || *got.Target.Port != 8080 || got.TargetHealth.State != "unhealthy" || *got.TargetHealth.Description != "arn:x" {
		t.Errorf("got %+v %+v", got.Target, got.TargetHealth)
	}
}

func TestMembersOfSSMAreTitled(t *testing.T) {
	w := start(t)
	client := ssm.NewFromConfig(w.config("AKIDLAB", "secret", "eu-central-1"))
	out, err := client.DescribeInstanceInformation(t.Context(), filtered("PingStatus"))
	if err != nil || aws.ToString(out.NextToken) != "PingStatus" {
		t.Errorf("got %v, %v", out, err)
	}
}

func TestSignaturesAreVerified(t *testing.T) {
	w := start(t)
	w.ecs.services = &ecs.DescribeServicesOutput{}
	for _, tt := range []struct{ name, key, secret, region, json, query string }{
		{"right", "AKIDLAB", "secret", "eu-central-1", "", ""},
		{"unknown key", "AKIDNOBODY", "secret", "eu-central-1", "UnrecognizedClientException", "InvalidClientTokenId"},
		{"wrong secret", "AKIDLAB", "guess", "eu-central-1", "InvalidSignatureException", "SignatureDoesNotMatch"},
		{"another region", "AKIDLAB", "secret", "us-east-1", "InvalidSignatureException", "SignatureDoesNotMatch"},
		{"denied key", "AKIDDENIED", "secret", "eu-central-1", "AccessDeniedException", "AccessDenied"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			config := w.config(tt.key, tt.secret, tt.region)
			_, err := ecs.NewFromConfig(config).DescribeServices(t.Context(), &ecs.DescribeServicesInput{Services: []string{"api"}})
			if got := code(err); got != tt.json {
				t.Errorf("ecs: got %q (%v), want %q", got, err, tt.json)
			}
			_, err = elb.NewFromConfig(config).DescribeTargetHealth(t.Context(), &elb.DescribeTargetHealthInput{TargetGroupArn: aws.String("x")})
			if got := code(err); got != tt.query {
				t.Errorf("elb: got %q (%v), want %q", got, err, tt.query)
			}
		})
	}
}

func filtered(key string) *ssm.DescribeInstanceInformationInput {
	return &ssm.DescribeInstanceInformationInput{Filters: []ssmtypes.InstanceInformationStringFilter{{Key: &key, Values: []string{"Online"}}}}
}

func code(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	return ""
}

func TestAnswersHaveAWSsHeaders(t *testing.T) {
	w := start(t)
	q, err := http.NewRequest(http.MethodPost, w.url, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("X-Amz-Target", "AmazonEC2ContainerServiceV20141113.DescribeServices")
	q.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"Date": "Tue, 06 May 2031 07:08:09 GMT", "Content-Type": "application/x-amz-json-1.1", "X-Amzn-Errortype": "MissingAuthenticationTokenException",
	} {
		if got := r.Header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if want := `{"__type":"com.amazonaws.ecs#MissingAuthenticationTokenException","message":"Missing Authentication Token"}`; string(body) != want {
		t.Errorf("got %s, want %s", body, want)
	}
	if r.StatusCode != 400 || len(r.Header.Get("X-Amzn-Requestid")) != 36 {
		t.Errorf("got status %d and request id %q", r.StatusCode, r.Header.Get("X-Amzn-Requestid"))
	}
}

func TestOnlyOperationsAreOperations(t *testing.T) {
	s := wire.Service{Target: "x", Impl: &fakeECS{}}
	want := []string{"CreateService", "DescribeServices", "RegisterTaskDefinition"}
	if got := s.Operations(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// refusals are requests that are not answered, and why. TARGET is X-Amz-Target
// without its prefix; a body with Action= is a Query.
var refusals = []struct{ name, target, body, want string }{
	{"an operation that is not there", "DescribeNothing", `{}`, "UnknownOperationException: the lab's ecs has no operation"},
	{"a method that is no operation", "Help", `{}`, "UnknownOperationException"},
	{"not JSON", "DescribeServices", `{"services"`, "SerializationException: services: not JSON"},
	{"not an object", "DescribeServices", `[]`, "SerializationException: the body is not an object"},
	{"two objects", "DescribeServices", `{"services":[]}{}`, "SerializationException: there is something after the object"},
	{"an unknown member", "DescribeServices", `{"services":[],"Cluster":"x"}`, `SerializationException: unknown member "Cluster" of DescribeServicesInput`},
	{"an unknown member further down", "RegisterTaskDefinition", `{"family":"a","containerDefinitions":[{"name":"x"},{"nam":"x"}]}`, `SerializationException: containerDefinitions[1]: unknown member "nam"`},
	{"the SDK's own fields", "DescribeServices", `{"services":[],"noSmithyDocumentSerde":{}}`, "SerializationException: unknown member"},
	{"a member twice", "DescribeServices", `{"services":[],"services":[]}`, `SerializationException: member "services" is there twice`},
	{"a missing member", "DescribeServices", `{}`, "InvalidParameterException: 1 validation error detected: Value null at 'services'"},
	{"a member that is null", "DescribeServices", `{"services":null}`, "InvalidParameterException: 1 validation error detected: Value null at 'services'"},
	{"another type", "DescribeServices", `{"services":"api"}`, "SerializationException: services: api is not a list"},
	{"null in a list", "DescribeServices", `{"services":[null]}`, "SerializationException: services[0]: null is not a value"},
	{"a number that does not fit", "CreateService", `{"serviceName":"a","desiredCount":3000000000}`, "SerializationException: desiredCount: \"3000000000\" is not an integer of 32 bits"},
	{"a fraction", "CreateService", `{"serviceName":"a","desiredCount":1.5}`, "SerializationException: desiredCount"},
	{"outside the enumeration", "CreateService", `{"serviceName":"a","launchType":"ec2"}`, "InvalidParameterException: 1 validation error detected: Value 'ec2' at 'launchType' failed to satisfy constraint: Member must satisfy enum value set: [EC2,"},
	{"two members of a union", "CreateService", `{"serviceName":"a","serviceConnectConfiguration":{"enabled":true,"containerConfigurations":[{"logLevel":"debug","x":1}]}}`, "SerializationException"},
	{"nested without end", "CreateService", `{"serviceName":"a","deploymentConfiguration":{"lifecycleHooks":[{"hookDetails":` + strings.Repeat("[", 100), "SerializationException"},
	{"Query: an unknown action", "", "Action=Nothing&Version=2015-12-01", "InvalidAction: Could not find operation Nothing for version 2015-12-01"},
	{"Query: another version", "", "Action=RegisterTargets&Version=2012-06-01", "UnknownOperationException"},
	{"Query: an unknown member", "", "Action=RegisterTargets&Version=2015-12-01&TargetGroup=x", `MalformedInput: unknown member "TargetGroup"`},
	{"Query: a missing member", "", "Action=RegisterTargets&Version=2015-12-01&TargetGroupArn=x", "ValidationError: 1 validation error detected: Value null at 'Targets'"},
	{"Query: a list with a hole", "", "Action=RegisterTargets&Version=2015-12-01&TargetGroupArn=x&Targets.member.2.Id=y", "MalformedInput: Targets: member 1 of the list is missing"},
	{"Query: a list that is a value", "", "Action=RegisterTargets&Version=2015-12-01&TargetGroupArn=x&Targets=y", "MalformedInput: Targets: a list is written Targets.member.N"},
	{"Query: not a number", "", "Action=RegisterTargets&Version=2015-12-01&TargetGroupArn=x&Targets.member.1.Id=y&Targets.member.1.Port=http", "MalformedInput: Targets.member.1.Port"},
	{"Query: a member twice", "", "Action=RegisterTargets&Version=2015-12-01&TargetGroupArn=x&TargetGroupArn=y", "MalformedInput: TargetGroupArn: is there 2 times"},
}

func request(target, body string) *http.Request {
	q := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	q.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if target != "" {
		q.Header.Set("Content-Type", "application/x-amz-json-1.1")
		q.Header.Set("X-Amz-Target", "AmazonEC2ContainerServiceV20141113."+target)
	}
	return q
}

func fakes() wire.Services {
	return wire.Services{
		{Name: "ecs", Target: "AmazonEC2ContainerServiceV20141113", Impl: &fakeECS{}, Document: func(v any) any { return document.NewLazyDocument(v) },
			Unions: []any{&ecstypes.ServiceConnectContainerConfigurationMemberLogLevel{}}},
		{Name: "elasticloadbalancing", Version: "2015-12-01", Invalid: "ValidationError", Impl: &fakeELB{}},
	}
}

// decode parses and decodes a request as the lab does.
func decode(target, body string) error {
	q, err := fakes().Parse(request(target, body), []byte(body))
	if err != nil {
		return err
	}
	return q.Decode()
}

func TestRequestsAreReadStrictly(t *testing.T) {
	for _, tt := range refusals {
		t.Run(tt.name, func(t *testing.T) {
			err := decode(tt.target, tt.body)
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("%s: got %v, want %s", tt.body, err, tt.want)
			}
		})
	}
}

func FuzzDecodeJSON(f *testing.F) {
	for _, tt := range refusals {
		if tt.target != "" {
			f.Add(tt.body)
		}
	}
	f.Add(`{"serviceName":"a","serviceConnectConfiguration":{"enabled":true,"containerConfigurations":[{"logLevel":"debug"}]}}`)
	f.Fuzz(func(t *testing.T, body string) {
		for _, target := range []string{"CreateService", "RegisterTaskDefinition", "DescribeServices"} {
			q, err := fakes().Parse(request(target, body), []byte(body))
			if err != nil {
				t.Fatal(err)
			}
			if q.Decode() != nil {
				continue
			}
			// What was understood, written down, is understood the same again.
			again := string(q.Parameters())
			if err := decode(target, again); err != nil && !strings.Contains(err.Error(), "Value null") {
				t.Errorf("%s was read as %s, which is refused: %v", body, again, err)
			}
		}
	})
}

func FuzzDecodeQuery(f *testing.F) {
	for _, tt := range refusals {
		if tt.target == "" {
			f.Add(tt.body)
		}
	}
	f.Add("Action=RegisterTargets&Version=2015-12-01&TargetGroupArn=x&Targets.member.1.Id=y&Targets.member.1.Port=80")
	f.Fuzz(func(t *testing.T, body string) {
		q, err := fakes().Parse(request("", body), []byte(body))
		if err == nil {
			err = q.Decode()
		}
		if err != nil {
			if _, ok := errors.AsType[*wire.Error](err); !ok {
				t.Errorf("%q: %v is no answer of AWS's", body, err)
			}
		}
	})
}
