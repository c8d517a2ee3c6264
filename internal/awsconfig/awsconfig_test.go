package awsconfig

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/smithy-go"

	"jumpsuite/internal/cli"
)

// answer is what a test's AWS says to every call.
type answer struct {
	status  int
	code    string
	message string
}

func (a answer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(a.status)
	if a.code != "" {
		fmt.Fprintf(w, `{"__type":%q,"message":%q}`, a.code, a.message)
		return
	}
	fmt.Fprint(w, `{"clusterArns":["arn:aws:ecs:eu-central-1:123456789012:cluster/c"]}`)
}

// serve returns the URL of an AWS that counts its calls.
func serve(t *testing.T, h http.Handler) (url string, calls *atomic.Int32) {
	calls = new(atomic.Int32)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL, calls
}

// isolate keeps the test's own AWS configuration out, and gives it credentials.
func isolate(t *testing.T) {
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); strings.HasPrefix(name, "AWS_") {
			unset(t, name)
		}
	}
	t.Setenv("HOME", t.TempDir())
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDTEST")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
}

func unset(t *testing.T, name string) {
	t.Setenv(name, "")
	if err := os.Unsetenv(name); err != nil {
		t.Fatal(err)
	}
}

func client(t *testing.T, o Options) *ecs.Client {
	t.Helper()
	if o.Region == "" {
		o.Region = "eu-central-1"
	}
	cfg, err := Load(t.Context(), o)
	if err != nil {
		t.Fatalf("Load(%+v): %v", o, err)
	}
	return ecs.NewFromConfig(cfg)
}

func TestErrorsSayWhatToCheck(t *testing.T) {
	const iam = "User: arn:aws:sts::1:assumed-role/r/i is not authorized to perform: ecs:ListClusters on resource: arn:aws:ecs:eu-central-1:1:cluster/x because no identity-based policy allows it"
	for _, tt := range []struct {
		name  string
		a     answer
		kind  Kind
		want  string
		calls int32
	}{
		{"denied by IAM", answer{400, "AccessDeniedException", iam}, Denied, "the AWS credentials do not allow ecs:ListClusters on arn:aws:ecs:eu-central-1:1:cluster/x", 1},
		{"denied without a reason", answer{400, "AccessDeniedException", "no"}, Denied, "the AWS credentials do not allow ecs:ListClusters", 1},
		{"expired token", answer{400, "ExpiredTokenException", "The security token included in the request is expired"}, Expired, "the AWS credentials have expired (ExpiredTokenException)", 1},
		{"unknown key", answer{400, "UnrecognizedClientException", "The security token included in the request is invalid."}, Refused, "AWS does not accept the credentials (UnrecognizedClientException): The security token included in the request is invalid.", 1},
		{"broken", answer{500, "ServerException", "oops"}, Faulty, "AWS answered ecs:ListClusters with an error of its own: 500 ServerException", otherTries},
	} {
		t.Run(tt.name, func(t *testing.T) {
			isolate(t)
			url, calls := serve(t, tt.a)
			_, err := client(t, Options{Endpoint: url}).ListClusters(t.Context(), nil)
			ours, ok := errors.AsType[*Error](Explain(err))
			if !ok || ours.Kind != tt.kind || ours.Error() != tt.want {
				t.Errorf("got %v (%+v), want %q", err, ours, tt.want)
			}
			if code := cli.ExitCode(fmt.Errorf("list clusters: %w", err)); code != cli.ExitUnavailable {
				t.Errorf("exit code %d, want %d, also without Explain", code, cli.ExitUnavailable)
			}
			if calls.Load() != tt.calls {
				t.Errorf("%d calls, want %d", calls.Load(), tt.calls)
			}
		})
	}
}

func TestWhatIsNotAWSIsUnreachable(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		body   string
	}{
		{"a login page", 200, "<html><body>log in</body></html>"},
		{"a proxy that refuses", 403, "<html><body>forbidden</body></html>"},
		{"a proxy that wants a password", 407, ""},
		{"a redirection", 302, ""},
		{"a redirection of a POST", 307, "<html></html>"},
		{"another API", 404, `{"error":"no such page"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			isolate(t)
			url, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "http://127.0.0.1:1/")
				w.WriteHeader(tt.status)
				fmt.Fprint(w, tt.body)
			}))
			cfg, err := Load(t.Context(), Options{Region: "eu-central-1", Endpoint: url})
			if err != nil {
				t.Fatal(err)
			}
			_, json := ecs.NewFromConfig(cfg).ListClusters(t.Context(), nil)
			_, query := elb.NewFromConfig(cfg).DescribeTargetGroups(t.Context(), nil)
			want := fmt.Sprintf("AWS is out of reach: what answers at %s is not AWS (status %d)", strings.TrimPrefix(url, "http://"), tt.status)
			for _, err := range []error{json, query} {
				if got := Explain(err); got == nil || got.Error() != want || cli.ExitCode(got) != cli.ExitUnavailable {
					t.Errorf("got %v, want %s", got, want)
				}
			}
		})
	}
}

func TestARegionIsPartOfAName(t *testing.T) {
	isolate(t)
	for region, want := range map[string]string{"eu-central-1": "", "eu central": `"eu central" is no AWS region`, "evil.example/": `"evil.example/" is no AWS region`} {
		_, err := Load(t.Context(), Options{Region: region})
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != want || want != "" && cli.ExitCode(err) != cli.ExitConfig {
			t.Errorf("region %q: got %q, want %q", region, got, want)
		}
	}
}

func TestErrorsAboutTheThingItselfStay(t *testing.T) {
	isolate(t)
	url, _ := serve(t, answer{400, "ClusterNotFoundException", "Cluster not found."})
	_, err := client(t, Options{Endpoint: url}).ListTasks(t.Context(), nil)
	if _, ok := errors.AsType[*types.ClusterNotFoundException](Explain(err)); !ok {
		t.Errorf("got %v, want a ClusterNotFoundException", err)
	}
	if _, ok := errors.AsType[*Error](err); ok {
		t.Errorf("%v was taken for one of ours", err)
	}
}

func TestThrottlingIsWaitedOut(t *testing.T) {
	isolate(t)
	var n atomic.Int32
	url, calls := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) <= 4 {
			answer{400, "ThrottlingException", "Rate exceeded"}.ServeHTTP(w, r)
			return
		}
		answer{status: 200}.ServeHTTP(w, r)
	}))
	if _, err := client(t, Options{Endpoint: url}).ListClusters(t.Context(), nil); err != nil {
		t.Fatalf("after 4 throttled attempts: %v", err)
	}
	if calls.Load() != 5 {
		t.Errorf("%d calls, want 5", calls.Load())
	}
}

func TestAQuotaIsNotTakenForThrottling(t *testing.T) {
	isolate(t)
	url, calls := serve(t, answer{400, "LimitExceededException", "Too many revisions"})
	_, err := client(t, Options{Endpoint: url}).RegisterTaskDefinition(t.Context(), &ecs.RegisterTaskDefinitionInput{
		Family: new(string), ContainerDefinitions: []types.ContainerDefinition{}})
	if api, ok := errors.AsType[smithy.APIError](err); !ok || api.ErrorCode() != "LimitExceededException" || calls.Load() != 1 {
		t.Errorf("got %v after %d calls, want LimitExceededException after 1", err, calls.Load())
	}
	if _, ok := errors.AsType[*Error](Explain(err)); ok {
		t.Errorf("%v was taken for throttling", err)
	}
}

func TestAClosedPortIsUnreachable(t *testing.T) {
	isolate(t)
	url, _ := serve(t, answer{status: 200})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	_, err = client(t, Options{Endpoint: "http://" + closed}).ListClusters(t.Context(), nil)
	want := "AWS is out of reach: " + closed + " refuses connections"
	if got := Explain(err); got.Error() != want || cli.ExitCode(got) != cli.ExitUnavailable {
		t.Errorf("got %v, want %q", got, want)
	}
	if _, err := client(t, Options{Endpoint: url}).ListClusters(t.Context(), nil); err != nil {
		t.Errorf("control, an open port: %v", err)
	}
}

func TestAnUnknownNameIsUnreachable(t *testing.T) {
	isolate(t)
	_, err := client(t, Options{Endpoint: "http://nosuch.invalid"}).ListClusters(t.Context(), nil)
	ours, ok := errors.AsType[*Error](err)
	if !ok || ours.Kind != Unreachable || !strings.Contains(ours.What, "nosuch.invalid") {
		t.Errorf("got %v, want that there is no address for nosuch.invalid", err)
	}
}

func TestSilenceIsUnreachable(t *testing.T) {
	isolate(t)
	stop := make(chan struct{})
	url, calls := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-stop }))
	t.Cleanup(func() { close(stop) })
	_, err := client(t, Options{Endpoint: url, callTimeout: 50 * time.Millisecond}).ListClusters(t.Context(), nil)
	got := Explain(err)
	if !strings.Contains(got.Error(), "does not answer in time (2 tries)") || calls.Load() != silentTries {
		t.Errorf("got %v after %d calls, want that it does not answer in time after %d", got, calls.Load(), silentTries)
	}
}

func TestAnInterruptStaysAnInterrupt(t *testing.T) {
	isolate(t)
	url, _ := serve(t, answer{400, "ThrottlingException", "Rate exceeded"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := client(t, Options{Endpoint: url}).ListClusters(ctx, nil)
	if _, ok := errors.AsType[*Error](err); ok || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled and nothing of ours", err)
	}
}

func TestNoCredentialsSaysSo(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  func(t *testing.T)
	}{
		{"metadata service switched off", func(*testing.T) {}},
		{"metadata service silent", func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0") // accepts into its backlog, and never answers
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			unset(t, "AWS_EC2_METADATA_DISABLED")
			t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://"+l.Addr().String())
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			isolate(t)
			unset(t, "AWS_ACCESS_KEY_ID")
			unset(t, "AWS_SECRET_ACCESS_KEY")
			tt.set(t)
			url, calls := serve(t, answer{status: 200})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // far longer than ours
			defer cancel()
			_, err := client(t, Options{Endpoint: url}).ListClusters(ctx, nil)
			ours, ok := errors.AsType[*Error](err)
			if !ok || ours.Kind != NoCredentials || ctx.Err() != nil || calls.Load() != 0 {
				t.Errorf("got %v (context: %v, %d calls), want that there are no credentials", err, ctx.Err(), calls.Load())
			}
		})
	}
}

func TestNoRegionIsAMatterOfConfiguration(t *testing.T) {
	isolate(t)
	_, err := Load(t.Context(), Options{})
	if cli.ExitCode(err) != cli.ExitConfig || !strings.Contains(err.Error(), "no AWS region") {
		t.Errorf("got %v (exit code %d), want that there is no region", err, cli.ExitCode(err))
	}
}

func TestTheEndpointThatWasAskedForWins(t *testing.T) {
	isolate(t)
	wrong, wrongCalls := serve(t, answer{status: 200})
	right, rightCalls := serve(t, answer{status: 200})
	t.Setenv("AWS_ENDPOINT_URL", wrong)
	t.Setenv("AWS_ENDPOINT_URL_ECS", wrong)
	if _, err := client(t, Options{Endpoint: right}).ListClusters(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if rightCalls.Load() != 1 || wrongCalls.Load() != 0 {
		t.Errorf("%d calls to the right endpoint, %d to the wrong one", rightCalls.Load(), wrongCalls.Load())
	}
	if _, err := client(t, Options{}).ListClusters(t.Context(), nil); err != nil || wrongCalls.Load() != 1 {
		t.Errorf("control, without an endpoint of ours: %v, %d calls", err, wrongCalls.Load())
	}
}

func TestTheUserAgentNamesTheCommand(t *testing.T) {
	isolate(t)
	var agent atomic.Value
	url, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		agent.Store(r.UserAgent())
		answer{status: 200}.ServeHTTP(w, r)
	}))
	if _, err := client(t, Options{Endpoint: url, Name: "r3-container"}).ListClusters(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if got := agent.Load().(string); !strings.Contains(got, "jumpsuite/r3-container") {
		t.Errorf("user agent %q does not name the command", got)
	}
}

func TestABurstStaysWithinTheBucket(t *testing.T) {
	isolate(t)
	url, calls := serve(t, answer{status: 200})
	cfg, err := Load(t.Context(), Options{Endpoint: url, Region: "eu-central-1"})
	if err != nil {
		t.Fatal(err)
	}
	// Two clients of one Config share a bucket: of task definition modify, with
	// 20 tokens and one a second after that, no more than the burst passes at once.
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	passed := 0
	for i := range 40 {
		c := ecs.NewFromConfig(cfg)
		_, err := c.DeregisterTaskDefinition(ctx, &ecs.DeregisterTaskDefinitionInput{TaskDefinition: new(string)})
		if err == nil {
			passed++
		} else if i < definitionModify.burst {
			t.Fatalf("call %d of the burst: %v", i, err)
		}
	}
	if passed != definitionModify.burst || int(calls.Load()) != passed {
		t.Errorf("%d calls passed, %d arrived, want the burst of %d", passed, calls.Load(), definitionModify.burst)
	}
}

func TestEveryPacedOperationExists(t *testing.T) {
	if len(ecsOperations) < 40 {
		t.Fatalf("%d operations: the table is not there", len(ecsOperations))
	}
	for op, b := range ecsOperations {
		if b.burst < 1 || b.refill < 1 || b.category == "" {
			t.Errorf("%s draws from %+v", op, b)
		}
	}
}

// sudo prepares what internal/caller leaves behind, and returns a folder that
// may stand for Dir.
func sudo(t *testing.T) string {
	if os.Geteuid() != 0 {
		t.Skip("needs root: the files under test belong to root")
	}
	isolate(t)
	for _, name := range []string{"HOME", "AWS_EC2_METADATA_DISABLED", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} {
		unset(t, name)
	}
	dir := filepath.Join(t.TempDir(), "jumpsuite", "aws")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		t.Fatal(err)
	}
}

const credentialsFile = "[default]\naws_access_key_id = AKIDROOT\naws_secret_access_key = s\n"

func TestUnderSudoTheFilesAreRoots(t *testing.T) {
	dir := sudo(t)
	write(t, filepath.Join(dir, "credentials"), credentialsFile, 0o600)
	cfg, err := Load(t.Context(), Options{Region: "eu-central-1", Sudo: true, dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	c, err := cfg.Credentials.Retrieve(t.Context())
	if err != nil || c.AccessKeyID != "AKIDROOT" {
		t.Errorf("got %q, %v, want the key of root's file", c.AccessKeyID, err)
	}
}

func TestUnderSudoFilesThatOthersCouldTouchAreRefused(t *testing.T) {
	for _, tt := range []struct {
		name string
		make func(t *testing.T, dir string)
		want string
	}{
		{"credentials that all may read", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "credentials"), credentialsFile, 0o644)
		}, "has mode 0644"},
		{"config that the group may write", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "config"), "", 0o664)
		}, "has mode 0664"},
		{"config of another user", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "config"), "", 0o644)
			if err := os.Chown(filepath.Join(dir, "config"), 65534, 0); err != nil {
				t.Fatal(err)
			}
		}, "belongs to uid 65534"},
		{"a symbolic link", func(t *testing.T, dir string) {
			if err := os.Symlink("/etc/passwd", filepath.Join(dir, "config")); err != nil {
				t.Fatal(err)
			}
		}, "neither a file nor a folder"},
		{"a folder that all may write", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "config"), "", 0o644)
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
		}, "has mode 0777"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := sudo(t)
			tt.make(t, dir)
			_, err := Load(t.Context(), Options{Region: "eu-central-1", Sudo: true, dir: dir})
			if err == nil || !strings.Contains(err.Error(), tt.want) || cli.ExitCode(err) != cli.ExitConfig {
				t.Errorf("got %v (exit code %d), want %q and %d", err, cli.ExitCode(err), tt.want, cli.ExitConfig)
			}
		})
	}
}

func TestUnderSudoAnEnvironmentThatWasNotCleanedIsRefused(t *testing.T) {
	for _, name := range []string{"HOME", "AWS_CONFIG_FILE", "AWS_ENDPOINT_URL", "AWS_PROFILE"} {
		dir := sudo(t)
		t.Setenv(name, "/tmp/evil")
		_, err := Load(t.Context(), Options{Region: "eu-central-1", Sudo: true, dir: dir})
		if err == nil || !strings.Contains(err.Error(), name+" is still set") {
			t.Errorf("%s: got %v, want that it is still set", name, err)
		}
		unset(t, name)
	}
}

// An answer whose connection breaks in the middle is AWS's all the same, and no page of
// somebody else's; it is asked for again.
func TestAnAnswerThatBreaksOffIsAskedForAgain(t *testing.T) {
	for _, tt := range []struct {
		name  string
		serve func(w http.ResponseWriter)
	}{
		{"closed", func(w http.ResponseWriter) { breakOff(t, w, false) }},
		{"reset", func(w http.ResponseWriter) { breakOff(t, w, true) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			isolate(t)
			url, calls := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { tt.serve(w) }))
			cfg, err := Load(t.Context(), Options{Region: "eu-central-1", Endpoint: url})
			if err != nil {
				t.Fatal(err)
			}
			_, json := ecs.NewFromConfig(cfg).ListClusters(t.Context(), nil)
			if n := calls.Swap(0); n != otherTries {
				t.Errorf("ECS was asked %d times, want %d", n, otherTries)
			}
			_, query := elb.NewFromConfig(cfg).DescribeTargetGroups(t.Context(), nil)
			if n := calls.Load(); n != otherTries {
				t.Errorf("ELB was asked %d times, want %d", n, otherTries)
			}
			want := "AWS is out of reach: " + strings.TrimPrefix(url, "http://") + " broke off its answer"
			for _, err := range []error{json, query} {
				ours, ok := errors.AsType[*Error](Explain(err))
				if !ok || ours.Kind != Unreachable || !strings.HasPrefix(ours.Error(), want) {
					t.Errorf("got %v, want %s", err, want)
				}
			}
		})
	}
}

// breakOff sends half an answer, and ends the connection.
func breakOff(t *testing.T, w http.ResponseWriter, reset bool) {
	w.Header().Set("Content-Length", "1000")
	fmt.Fprint(w, `{"clusterArns":[`)
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok && reset {
		tcp.SetLinger(0)
	}
	conn.Close()
}
