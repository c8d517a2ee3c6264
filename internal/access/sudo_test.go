package access

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs"

	"jumpsuite/internal/cli"
	"jumpsuite/policy"
)

// TestMain makes this test binary the command that sudo starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "list-clusters" {
		listClusters(os.Args[2:])
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// listed is what that command says.
type listed struct {
	Summary, Refusal, Key, Error string
	Clusters                     []string
}

func listClusters(args []string) {
	ctx := context.Background()
	o := Options{Command: "test", Action: "ecs.list"}
	for _, arg := range args {
		key, value, _ := strings.Cut(arg, "=")
		switch key {
		case "environment":
			o.Environment = value
		case "endpoint":
			o.Endpoint = value
		}
	}
	var l listed
	a, err := Open(ctx, o)
	l.Summary = summary(a, err)
	if err == nil {
		l.Refusal = fmt.Sprint(a.Allow("ecs.deploy", policy.Resource{ContainerType: "web"}))
		c, err := a.Config.Credentials.Retrieve(ctx)
		l.Key, l.Error = c.AccessKeyID, fmt.Sprint(err)
		if out, err := ecs.NewFromConfig(a.Config).ListClusters(ctx, nil); err == nil {
			l.Clusters = out.ClusterArns
		}
	}
	_ = json.NewEncoder(os.Stdout).Encode(l)
}

// machine is a jump server: this machine with an /etc and a /var/log of its own, in which nobody
// may call this binary through sudo, and plant what he likes in its environment.
type machine struct{ etc, log, binary string }

func newMachine(t *testing.T, policyFile string) machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes an /etc of its own")
	}
	for _, tool := range []string{"sudo", "setpriv", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	if out, err := exec.Command("unshare", "-m", "true").CombinedOutput(); err != nil {
		t.Skipf("needs a mount namespace: %s", out)
	}
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m := machine{etc: filepath.Join(t.TempDir(), "etc"), log: t.TempDir(), binary: binary}
	if out, err := exec.Command("cp", "-a", "/etc", m.etc).CombinedOutput(); err != nil {
		t.Fatalf("copy /etc: %v\n%s", err, out)
	}
	m.write(t, "sudoers.d/test", fmt.Sprintf("Defaults!%[1]s env_keep += \"AWS_* HOME\"\nnobody ALL=(root:root) NOPASSWD:SETENV: %[1]s\n", binary), 0o440)
	m.write(t, "jumpsuite/policy.yaml", policyFile, 0o644)
	m.write(t, "jumpsuite/aws/credentials", "[default]\naws_access_key_id = AKIDROOT\naws_secret_access_key = s\n", 0o600)
	return m
}

func (m machine) write(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	path := filepath.Join(m.etc, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// sudo calls the command as nobody, with variables that he sets.
func (m machine) sudo(t *testing.T, variables []string, args ...string) listed {
	t.Helper()
	script := "mount --bind " + m.etc + " /etc && mount --bind " + m.log + " /var/log && exec setpriv --reuid=65534 --regid=65534 --clear-groups sudo -n " +
		strings.Join(variables, " ") + " " + m.binary + " list-clusters " + strings.Join(args, " ")
	out, err := exec.Command("unshare", "-m", "sh", "-c", script).Output()
	if err != nil {
		exit, _ := err.(*exec.ExitError)
		t.Fatalf("%v\n%s", err, exit.Stderr)
	}
	var l listed
	if err := json.Unmarshal(out, &l); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return l
}

func TestThroughRealSudoThePolicyAndNothingElseCounts(t *testing.T) {
	var evil atomic.Int32
	trap := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { evil.Add(1) }))
	t.Cleanup(trap.Close)
	planted := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(planted, []byte("[default]\ncredential_process = touch "+planted+".ran\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	text := `environments:
  - {name: prod, cluster: p, region: eu-west-1, endpoint: "ENDPOINT"}
  - {name: test, cluster: t, region: eu-west-2, endpoint: "ENDPOINT", production: false}
rules:
  - {name: look, effect: allow, principals: [user:nobody], actions: [ecs.list], environments: [prod, test]}
  - {name: deploy, effect: allow, principals: [group:root], actions: [ecs.deploy], environments: [prod]}
`
	aws := account(t, "c")
	m := newMachine(t, strings.ReplaceAll(text, "ENDPOINT", aws))
	variables := []string{"AWS_ENDPOINT_URL=" + trap.URL, "AWS_ENDPOINT_URL_ECS=" + trap.URL, "AWS_CONFIG_FILE=" + planted,
		"AWS_SHARED_CREDENTIALS_FILE=" + planted, "HOME=" + filepath.Dir(planted), "AWS_ACCESS_KEY_ID=EVIL", "AWS_SECRET_ACCESS_KEY=x", "AWS_REGION=us-east-1", "HTTP_PROXY=" + trap.URL}

	got := m.sudo(t, variables, "environment=prod")
	if want := fmt.Sprintf(`cluster p in eu-west-1, environment "prod", endpoint %q`, aws); got.Summary != want {
		t.Fatalf("got %+v\nwant %s", got, want)
	}
	if got.Key != "AKIDROOT" || len(got.Clusters) != 1 || evil.Load() != 0 {
		t.Errorf("key %s, %d clusters, %d calls to the planted endpoint; want root's key, 1, 0", got.Key, len(got.Clusters), evil.Load())
	}
	recorded, err := os.ReadFile(filepath.Join(m.log, "jumpsuite/audit.log"))
	if err != nil || !strings.Contains(string(recorded), `"verdict":"deny","rule":"default"`) {
		t.Errorf("the refusal is not in the audit log: %v\n%s", err, recorded)
	}
	if _, err := os.Stat(planted + ".ran"); err == nil {
		t.Error("the planted credential_process ran")
	}
	if want := "ecs.deploy is not allowed to nobody in prod (rule default): no rule allows it"; got.Refusal != want {
		t.Errorf("got %q, want %q", got.Refusal, want)
	}
	for args, want := range map[string]string{
		"":                         "64: ecs.list is allowed to you in 2 environments: say which, with --environment",
		"environment=nosuch":       `77: environment "nosuch" is not in the policy (rule default)`,
		"endpoint=http://evil.org": "64: option --endpoint-url is not available with sudo",
	} {
		if got := m.sudo(t, nil, args); got.Summary != want {
			t.Errorf("%q: got %s, want %s", args, got.Summary, want)
		}
	}
}

func TestThroughRealSudoAPolicyThatOthersMayWriteIsRefused(t *testing.T) {
	m := newMachine(t, enforced)
	if err := os.Chmod(filepath.Join(m.etc, "jumpsuite/policy.yaml"), 0o666); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%d: policy /etc/jumpsuite/policy.yaml: mode 0666: others may write it", cli.ExitConfig)
	if got := m.sudo(t, nil, "environment=prod"); got.Summary != want {
		t.Errorf("got %s, want %s", got.Summary, want)
	}
}
