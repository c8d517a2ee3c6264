package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"jumpsuite/internal/cli"
	"jumpsuite/internal/ecrlogin"
	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/labtest"
	"jumpsuite/internal/lab/world"
	"jumpsuite/internal/listen"
)

// asMain in the environment makes this program r3-ecr.
const asMain = "JUMPSUITE_TEST_R3_ECR"

func TestMain(m *testing.M) {
	if os.Getenv(asMain) != "" {
		main()
	}
	os.Exit(m.Run())
}

var ours = ecrlogin.Registry{Account: "123456789012", Region: "eu-central-1"}

// startLab starts a lab whose registry asks for a login, and sets the
// environment for it.
func startLab(t *testing.T) *lab.Lab {
	t.Helper()
	return labtest.Start(t, lab.Config{World: labtest.World(t, "registry-login: true\nimages: [{repository: web, tags: [\"1\"]}]\n")})
}

// start runs r3-ecr until the test ends.
func start(t *testing.T, args ...string) (ecrlogin.Asker, *labtest.Output) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	args = append([]string{"r3-ecr", "--listen", "unix://" + socket, "--allow-uid", fmt.Sprint(os.Geteuid())}, args...)
	said := labtest.Run(t, run, args...)
	return ecrlogin.Asker{Socket: socket}, said
}

// pulls asks the lab's registry for a manifest with what X-Registry-Auth has.
func pulls(t *testing.T, l *lab.Lab, auth string) (status int) {
	t.Helper()
	var login struct{ Username, Password string }
	text, err := base64.URLEncoding.DecodeString(auth)
	if err != nil || auth != "" && json.Unmarshal(text, &login) != nil {
		t.Fatalf("%q is no X-Registry-Auth: %v", auth, err)
	}
	q, err := http.NewRequest(http.MethodGet, l.URL()+"/v2/"+ours.Host()+"/web/manifests/1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if login.Username != "" {
		q.SetBasicAuth(login.Username, login.Password)
	}
	res, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode
}

func calls(l *lab.Lab) (n int) {
	for _, c := range l.Calls() {
		if c.Operation == "GetAuthorizationToken" {
			n++
		}
	}
	return n
}

func TestTheRegistryTakesTheLogin(t *testing.T) {
	l := startLab(t)
	ask, said := start(t, "--account", "123456789012")
	if got := pulls(t, l, ""); got != http.StatusUnauthorized {
		t.Errorf("control, without a login: %d, want 401", got)
	}
	var auth string
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			got, err := ask.Credentials(t.Context(), ours.Host()+"/web:1")
			if err != nil || got == "" {
				t.Errorf("got %q, %v", got, err)
			}
			if i == 0 {
				auth = got
			}
		})
	}
	wg.Wait()
	if got := pulls(t, l, auth); got != http.StatusOK {
		t.Errorf("with the login: %d, want 200", got)
	}
	if n := calls(l); n != 1 {
		t.Errorf("AWS was asked %d times, want once", n)
	}
	login, err := ask.Login(t.Context(), ours)
	if err != nil || strings.Contains(said.String(), string(login.Password)) || strings.Contains(said.String(), string(login.Password)[:20]) {
		t.Errorf("%v, or the password is in the log: %s", err, said)
	}
}

func TestThePolicySaysWhichRegistries(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a policy has to be root's")
	}
	l := startLab(t)
	path := filepath.Join(t.TempDir(), "policy.yaml")
	text := "environments:\n" +
		"  - {name: test, cluster: test, region: eu-central-1, account: \"123456789012\", production: false, endpoint: \"" + l.URL() + "\"}\n" +
		"  - {name: prod, cluster: prod, region: eu-west-1, account: \"999999999999\", production: true}\n" +
		"  - {name: bare, cluster: bare, region: eu-west-1, production: true}\n" +
		"rules: []\n"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1") // the policy's wins
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"all environments", []string{"--policy", path}, "123456789012.dkr.ecr.eu-central-1.amazonaws.com 999999999999.dkr.ecr.eu-west-1.amazonaws.com"},
		{"one environment", []string{"--policy", path, "--environment", "test"}, "123456789012.dkr.ecr.eu-central-1.amazonaws.com"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ask, said := start(t, tt.args...)
			if !strings.Contains(said.String(), tt.want+"\n") && !strings.Contains(said.String(), tt.want+"\"\n") {
				t.Errorf("got %s, want %q", said, tt.want)
			}
			auth, err := ask.Credentials(t.Context(), ours.Host()+"/web:1")
			if err != nil || pulls(t, l, auth) != http.StatusOK {
				t.Errorf("the registry does not take it: %v", err)
			}
			_, err = ask.Login(t.Context(), ecrlogin.Registry{Account: "999999999999", Region: "eu-central-1"})
			if err == nil || !strings.Contains(err.Error(), "r3-ecr is not configured for account 999999999999 in eu-central-1") {
				t.Errorf("another account: got %v", err)
			}
		})
	}
	for _, tt := range []struct {
		name, environment string
		want              string
	}{
		{"no such environment", "stage", `has no environment "stage"`},
		{"an environment without account", "bare", "does not say which AWS account's registry"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := serve(t.Context(), options{policy: path, environment: tt.environment}, slog.New(slog.DiscardHandler))
			if err == nil || !strings.Contains(err.Error(), tt.want) || cli.ExitCode(err) != cli.ExitConfig {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestWhatAWSSaysIsTold(t *testing.T) {
	l := startLab(t)
	ask, said := start(t, "--account", "123456789012", "--region", "eu-central-1")
	l.AddFault(world.Fault{Operation: "GetAuthorizationToken", Error: "denied", Times: 1})
	_, err := ask.Login(t.Context(), ours)
	if err == nil || !strings.Contains(err.Error(), "the AWS credentials do not allow ecr:GetAuthorizationToken") || !strings.Contains(said.String(), "ecr:GetAuthorizationToken") {
		t.Errorf("got %v, and the log %s", err, said)
	}
	if _, err := ask.Login(t.Context(), ours); err != nil {
		t.Errorf("a refusal is not remembered, but: %v", err)
	}
}

func TestTheCommandLineIsChecked(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		want string
		code int
	}{
		{"a region without account", []string{"--region", "eu-central-1"}, "--region is for --account", cli.ExitUsage},
		{"an environment with an account", []string{"--account", "123456789012", "--environment", "test"}, "--environment is for the policy", cli.ExitUsage},
		{"no unix socket", []string{"--listen", "tcp://127.0.0.1:1"}, "is no unix socket", cli.ExitUsage},
		{"no mode", []string{"--mode", "rw"}, `mode "rw" is none`, cli.ExitUsage},
		{"a mode that is too much", []string{"--mode", "4777"}, `mode "4777" is none`, cli.ExitUsage},
		{"no account", []string{"--account", "12", "--region", "eu-central-1"}, `account "12" in region "eu-central-1" is no registry`, cli.ExitConfig},
		{"no policy", []string{"--policy", "/nonexistent/policy.yaml"}, "no such file", cli.ExitConfig},
		{"twice", []string{"--policy", "a", "--policy", "b"}, "given 2 times", cli.ExitUsage},
	} {
		t.Run(tt.name, func(t *testing.T) {
			said := &labtest.Output{}
			err := run(t.Context(), append([]string{"r3-ecr"}, tt.args...), cli.Stdio{In: strings.NewReader(""), Out: said, Err: said})
			if err == nil || !strings.Contains(err.Error(), tt.want) || cli.ExitCode(err) != tt.code {
				t.Errorf("%q: got %v, code %d; want %q, %d", tt.args, err, cli.ExitCode(err), tt.want, tt.code)
			}
		})
	}
}

func TestASocketIsTakenOverFromSystemd(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may ask")
	}
	l := startLab(t)
	path := filepath.Join(t.TempDir(), "s")
	socket, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	cmd, said := labtest.Activate(t, asMain, socket, "1", "--account", "123456789012")
	auth, err := ecrlogin.Asker{Socket: path}.Credentials(t.Context(), ours.Host()+"/web:1")
	if err != nil || pulls(t, l, auth) != http.StatusOK {
		t.Errorf("the registry does not take it: %v; %s", err, said)
	}
	cmd.Process.Signal(os.Interrupt)
	if err := cmd.Wait(); err != nil {
		t.Errorf("an interrupt ends it with %v; %s", err, said)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the socket is systemd's, and was removed: %v", err)
	}
}

func TestAnythingButOneUnixSocketIsRefused(t *testing.T) {
	startLab(t)
	path := filepath.Join(t.TempDir(), "s")
	unix, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	for _, tt := range []struct {
		name  string
		l     net.Listener
		count string
		want  string
	}{
		{"two sockets", unix, "2", "sockets were passed, not one"},
		{"a network socket", tcp, "1", "is no unix socket"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd, said := labtest.Activate(t, asMain, tt.l, tt.count, "--account", "123456789012")
			cmd.Wait()
			if cmd.ProcessState.ExitCode() != cli.ExitConfig || !strings.Contains(said.String(), tt.want) {
				t.Errorf("got %v and %s, want %q", cmd.ProcessState, said, tt.want)
			}
		})
	}
}

func TestASocketThatIsServedIsNotTaken(t *testing.T) {
	startLab(t)
	ask, _ := start(t, "--account", "123456789012")
	_, err := listen.Unix("r3-ecr", ask.Socket, 0o600)
	if err == nil || !strings.Contains(err.Error(), "is in use") {
		t.Errorf("got %v, want that it is in use", err)
	}
	info, err := os.Stat(ask.Socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its mode is %v, %v; want 0600", info.Mode(), err)
	}
}

func TestATokenThatIsNoneIsNotShown(t *testing.T) {
	now := time.Now()
	later, text := now.Add(time.Hour), func(s string) *string { return &s }
	b64 := func(s string) *string { return text(base64.StdEncoding.EncodeToString([]byte(s))) }
	for _, tt := range []struct {
		name string
		data []types.AuthorizationData
	}{
		{"nothing", nil},
		{"no token", []types.AuthorizationData{{ExpiresAt: &later}}},
		{"no end", []types.AuthorizationData{{AuthorizationToken: b64("AWS:hunter2")}}},
		{"it has ended", []types.AuthorizationData{{AuthorizationToken: b64("AWS:hunter2"), ExpiresAt: &now}}},
		{"no base64", []types.AuthorizationData{{AuthorizationToken: text("AWS:hunter2"), ExpiresAt: &later}}},
		{"no user", []types.AuthorizationData{{AuthorizationToken: b64(":hunter2"), ExpiresAt: &later}}},
		{"no colon", []types.AuthorizationData{{AuthorizationToken: b64("hunter2"), ExpiresAt: &later}}},
	} {
		if _, _, err := login(&ecr.GetAuthorizationTokenOutput{AuthorizationData: tt.data}, now); !errors.Is(err, errToken) {
			t.Errorf("%s: got %v, want %v", tt.name, err, errToken)
		}
	}
	l, life, err := login(&ecr.GetAuthorizationTokenOutput{AuthorizationData: []types.AuthorizationData{{AuthorizationToken: b64("AWS:a:b"), ExpiresAt: &later}}}, now)
	if err != nil || l.User != "AWS" || string(l.Password) != "a:b" || life != time.Hour {
		t.Errorf("a good one: got %v, %s, %v", l.User, life, err)
	}
}
