package access

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"

	"jumpsuite/internal/caller"
	"jumpsuite/internal/cli"
	"jumpsuite/policy"
)

// account is an AWS that has clusters, two a page.
func account(t *testing.T, clusters ...string) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body bytes.Buffer
		if _, err := body.ReadFrom(r.Body); err != nil {
			t.Error(err)
		}
		start := 0
		_, _ = fmt.Sscanf(body.String(), `{"nextToken":"%d"}`, &start)
		var arns []string
		for _, c := range clusters[start:min(start+2, len(clusters))] {
			arns = append(arns, fmt.Sprintf("%q", "arn:aws:ecs:eu-central-1:123456789012:cluster/"+c))
		}
		next := ""
		if start+2 < len(clusters) {
			next = fmt.Sprintf(`,"nextToken":"%d"`, start+2)
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		fmt.Fprintf(w, `{"clusterArns":[%s]%s}`, strings.Join(arns, ","), next)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// own gives the test AWS credentials of its own, and nothing else of AWS.
func own(t *testing.T) {
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); strings.HasPrefix(name, "AWS_") {
			unset(t, name)
		}
	}
	t.Setenv("HOME", t.TempDir())
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDTEST")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	for _, name := range []string{"SUDO_UID", "SUDO_GID", "SUDO_USER", "SUDO_COMMAND"} {
		unset(t, name)
	}
}

func unset(t *testing.T, name string) {
	t.Setenv(name, "")
	if err := os.Unsetenv(name); err != nil {
		t.Fatal(err)
	}
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// summary is what a test compares of an Access or its error.
func summary(a *Access, err error) string {
	if err != nil {
		return fmt.Sprintf("%d: %v", cli.ExitCode(err), err)
	}
	endpoint := ""
	if a.Config.BaseEndpoint != nil {
		endpoint = *a.Config.BaseEndpoint
	}
	return fmt.Sprintf("cluster %s in %s, environment %q, endpoint %q", a.Cluster, a.Config.Region, a.Environment, endpoint)
}

const book = `environments:
  - {name: prod, cluster: p, region: eu-west-1, endpoint: "http://book.example"}
  - {name: test, cluster: t, region: eu-west-2, production: false}
rules: []
`

func TestWithOwnCredentialsThePolicyFileIsAnAddressBook(t *testing.T) {
	own(t)
	one, two, none := account(t, "only"), account(t, "b", "a", "c"), account(t)
	with, without, broken := file(t, book), "/nosuch/policy.yaml", file(t, "rules: [")
	for _, tt := range []struct {
		name string
		o    Options
		want string
	}{
		{"cluster by flag, no file", Options{Cluster: "x", Region: "eu-north-1", PolicyPath: without}, `cluster x in eu-north-1, environment "", endpoint ""`},
		{"environment", Options{Environment: "prod", PolicyPath: with}, `cluster p in eu-west-1, environment "prod", endpoint "http://book.example"`},
		{"flags win over the environment", Options{Environment: "prod", Cluster: "x", Region: "eu-north-1", Endpoint: "http://mine", PolicyPath: with}, `cluster x in eu-north-1, environment "prod", endpoint "http://mine"`},
		{"a cluster that an environment has", Options{Cluster: "t", PolicyPath: with}, `cluster t in eu-west-2, environment "test", endpoint ""`},
		{"a cluster of that name elsewhere", Options{Cluster: "t", Region: "us-east-1", PolicyPath: with}, `cluster t in us-east-1, environment "", endpoint ""`},
		{"the only cluster", Options{Region: "eu-central-1", Endpoint: one, PolicyPath: with}, fmt.Sprintf(`cluster only in eu-central-1, environment "", endpoint %q`, one)},
		{"several clusters", Options{Region: "eu-central-1", Endpoint: two, PolicyPath: without}, "64: there are 3 clusters: say which, with --cluster"},
		{"no cluster", Options{Region: "eu-central-1", Endpoint: none, PolicyPath: without}, "66: no ECS cluster in this account and region"},
		{"unknown environment", Options{Environment: "prd", PolicyPath: with}, `64: unknown environment "prd"`},
		{"an environment without a file", Options{Environment: "prod", PolicyPath: without}, "78: look up the environment prod: policy /nosuch/policy.yaml: no such file or directory"},
		{"a broken file that is not needed", Options{Cluster: "x", Region: "eu-north-1", PolicyPath: broken}, `cluster x in eu-north-1, environment "", endpoint ""`},
		{"no region", Options{Cluster: "x", PolicyPath: without}, "78: no AWS region is configured, and this machine has no instance metadata to take one from"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := Open(t.Context(), tt.o)
			if got := summary(a, err); got != tt.want {
				t.Errorf("got %s\nwant %s", got, tt.want)
			}
			if a != nil && (a.Caller != nil || a.Allow("docker.run", policy.Resource{}) != nil) {
				t.Error("a caller with credentials of his own is asked for more")
			}
		})
	}
}

func TestABrokenFileIsMentioned(t *testing.T) {
	own(t)
	var stderr bytes.Buffer
	_, err := Open(t.Context(), Options{Cluster: "x", Region: "eu-north-1", PolicyPath: file(t, "rules: ["), Stderr: &stderr})
	if err != nil || !strings.Contains(stderr.String(), "is not used for cluster names") {
		t.Errorf("got %v and %q", err, stderr.String())
	}
}

func TestSeveralClustersAreListed(t *testing.T) {
	own(t)
	_, err := Open(t.Context(), Options{Region: "eu-central-1", Endpoint: account(t, "b", "a", "c"), PolicyPath: "/nosuch"})
	if h, ok := err.(interface{ Hint() string }); !ok || h.Hint() != "clusters: a, b, c" {
		t.Errorf("got %v, want a hint with the three clusters", err)
	}
}

// asCaller opens as a caller under sudo does, who was verified before.
func asCaller(t *testing.T, who *caller.Caller, text string, o Options) (*Access, error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: the policy file belongs to root")
	}
	own(t)
	for _, name := range []string{"HOME", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"} {
		unset(t, name)
	}
	o.PolicyPath = file(t, text)
	o.LogPath = filepath.Join(t.TempDir(), "audit.log")
	return o.sudo(t.Context(), who)
}

const enforced = `environments:
  - {name: prod, cluster: p, region: eu-west-1, endpoint: "http://aws.example"}
  - {name: test, cluster: t, region: eu-west-2, production: false}
  - {name: lab, cluster: l, region: eu-west-3, production: false}
rules:
  - {name: devs, effect: allow, principals: [group:dev], actions: [ecs.list], environments: [prod, test]}
  - {name: ann-deploys, effect: allow, principals: [user:ann], actions: [ecs.deploy], environments: [test], container-types: [web]}
  - {name: frozen, effect: deny, principals: [group:root], actions: [ecs.deploy], environments: [lab]}
`

func TestUnderSudoThePolicyDecidesWhere(t *testing.T) {
	ann := &caller.Caller{UID: 1001, Name: "ann", Groups: []string{"dev"}}
	bob := &caller.Caller{UID: 1002, Name: "bob", Groups: []string{"dev"}}
	eve := &caller.Caller{UID: 1003, Name: "eve", Groups: []string{"eve"}}
	temp := &caller.Caller{UID: 1004, Name: "ann", Groups: []string{"dev", "root"}}
	for _, tt := range []struct {
		name string
		who  *caller.Caller
		o    Options
		want string
	}{
		{"by environment", ann, Options{Action: "ecs.list", Environment: "prod"}, `cluster p in eu-west-1, environment "prod", endpoint "http://aws.example"`},
		{"by cluster", ann, Options{Action: "ecs.list", Cluster: "t"}, `cluster t in eu-west-2, environment "test", endpoint ""`},
		{"the only one allowed", ann, Options{Action: "ecs.deploy"}, `cluster t in eu-west-2, environment "test", endpoint ""`},
		{"several allowed", ann, Options{Action: "ecs.list"}, "64: ecs.list is allowed to you in 2 environments: say which, with --environment"},
		{"none allowed", eve, Options{Action: "ecs.list"}, "77: ecs.list is not allowed to eve in lab (rule default): no rule allows it"},
		{"not there", bob, Options{Action: "ecs.deploy", Environment: "prod"}, "77: ecs.deploy is not allowed to bob in prod (rule default): no rule allows it"},
		{"denied by a rule", temp, Options{Action: "ecs.deploy", Environment: "lab"}, "77: ecs.deploy is not allowed to ann in lab (rule frozen): the rule says deny"},
		{"a cluster of another environment", ann, Options{Action: "ecs.list", Cluster: "t", Environment: "prod"}, `77: cluster "t" is not in the policy (rule default)`},
		{"a cluster that the policy does not know", ann, Options{Action: "ecs.list", Cluster: "x"}, `77: cluster "x" is not in the policy (rule default)`},
		{"an environment that the policy does not know", ann, Options{Action: "ecs.list", Environment: "x"}, `77: environment "x" is not in the policy (rule default)`},
		{"region", ann, Options{Action: "ecs.list", Environment: "prod", Region: "us-east-1"}, "64: option --region is not available with sudo"},
		{"endpoint", ann, Options{Action: "ecs.list", Environment: "prod", Endpoint: "http://evil"}, "64: option --endpoint-url is not available with sudo"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := asCaller(t, tt.who, enforced, tt.o)
			if got := summary(a, err); got != tt.want {
				t.Errorf("got %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestUnderSudoEachThingIsAskedFor(t *testing.T) {
	ann := &caller.Caller{UID: 1001, Name: "ann", Groups: []string{"dev"}}
	a, err := asCaller(t, ann, enforced, Options{Action: "ecs.deploy"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ action, containerType, want string }{
		{"ecs.deploy", "web", "<nil>"},
		{"ecs.deploy", "pay", "ecs.deploy is not allowed to ann in test (rule default): no rule allows it"},
		{"ecs.list", "", "<nil>"},
		{"ecs.list", "arn:aws:ecs:eu-west-2:123456789012:service/t/web", `"arn:aws:ecs:eu-west-2:123456789012:service/t/web" is no name of a container type (rule default)`},
		{"ecs.rollback", "web", "ecs.rollback is not allowed to ann in test (rule default): no rule allows it"},
		{"docker.run", "", "docker.run is not allowed to ann in test (rule default): no rule allows it"},
		{"ecs.nosuch", "", `ask the policy for "ecs.nosuch": no such action`},
	} {
		if got := fmt.Sprint(a.Allow(tt.action, policy.Resource{ContainerType: tt.containerType})); got != tt.want {
			t.Errorf("%s %s: got %s, want %s", tt.action, tt.containerType, got, tt.want)
		}
	}
	refusal, ok := a.Allow("ecs.deploy", policy.Resource{ContainerType: "pay", Image: "docker.io/a/pay:1"}).(*DeniedError)
	if !ok || refusal.ExitCode() != cli.ExitNotAllowed || refusal.Next != "ask an administrator: r3-admin policy explain --user ann --env test ecs deploy --container-type pay --image-url docker.io/a/pay:1" {
		t.Errorf("got %+v, want exit code 77 and a hint", refusal)
	}
}

func TestUnderSudoNothingIsAllowedThatCannotBeRecorded(t *testing.T) {
	ann := &caller.Caller{UID: 1001, Name: "ann", Groups: []string{"dev"}}
	a, err := asCaller(t, ann, enforced, Options{Action: "ecs.deploy"})
	if err != nil {
		t.Fatal(err)
	}
	a.Log.Close()
	if err := a.Allow("ecs.deploy", policy.Resource{ContainerType: "web"}); err == nil {
		t.Error("allowed, and not on record")
	}
	if err := a.Allow("ecs.deploy", policy.Resource{ContainerType: "pay"}); cli.ExitCode(err) != cli.ExitNotAllowed {
		t.Errorf("got %v, want a refusal", err)
	}
}

// Reads announce no head each: without the one at the end nobody would notice that
// the last of them was cut off.
func TestUnderSudoTheLastDecisionIsAnnouncedToo(t *testing.T) {
	journal := filepath.Join(t.TempDir(), "journal")
	heads, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: journal, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer heads.Close()
	ann := &caller.Caller{UID: 1001, Name: "ann", Groups: []string{"dev"}}
	a, err := asCaller(t, ann, enforced, Options{Action: "ecs.list", Environment: "test", Journal: journal})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := a.Allow("ecs.list", policy.Resource{}); err != nil {
			t.Fatal(err)
		}
	}
	a.Close()
	a.Close()                        // once is enough
	const last = "JUMPSUITE_SEQ=4\n" // the first is the file's own
	b := make([]byte, 4096)
	heads.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		n, err := heads.Read(b)
		if err != nil {
			t.Fatalf("no head has %q: %v", last, err)
		}
		if strings.Contains(string(b[:n]), last) {
			return
		}
	}
}

func TestUnderSudoNothingIsAllowedWithoutATrustedPolicy(t *testing.T) {
	ann := &caller.Caller{UID: 1001, Name: "ann", Groups: []string{"dev"}}
	for _, tt := range []struct{ name, text, want string }{
		{"a mistake", strings.Replace(enforced, "deny", "dney", 1), "effect \"dney\": write allow or deny"},
		{"a denied group that is not known", strings.Replace(enforced, "group:root", "group:nosuch-group", 1), "the policy denies something to group nosuch-group, which cannot be resolved"},
	} {
		_, err := asCaller(t, ann, tt.text, Options{Action: "ecs.list", Environment: "prod"})
		if err == nil || !strings.Contains(err.Error(), tt.want) || cli.ExitCode(err) != cli.ExitConfig {
			t.Errorf("%s: got %v (exit code %d), want %q", tt.name, err, cli.ExitCode(err), tt.want)
		}
	}
	path := file(t, enforced)
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	_, err := Options{Action: "ecs.list", PolicyPath: path, LogPath: filepath.Join(t.TempDir(), "audit.log")}.sudo(t.Context(), ann)
	if err == nil || cli.ExitCode(err) != cli.ExitConfig {
		t.Errorf("a file that all may write: got %v, want a refusal", err)
	}
}

func TestThePagesOfClustersAreAllRead(t *testing.T) {
	own(t)
	a, err := Open(t.Context(), Options{Cluster: "x", Region: "eu-central-1", Endpoint: account(t, "a", "b", "c", "d", "e"), PolicyPath: "/nosuch"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = onlyCluster(t.Context(), ecs.NewFromConfig(a.Config))
	if err == nil || !strings.Contains(err.Error(), "there are 5 clusters") {
		t.Errorf("got %v, want 5 clusters", err)
	}
}
