package ssm_test

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	api "github.com/aws/aws-sdk-go-v2/service/ssm"

	"jumpsuite/internal/awsconfig"
	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/world"
	"jumpsuite/internal/session"
)

// The agent's end can be looked at as that of the real agent: the connection to
// the port is that of a process ssm-session-worker SESSION, and a file says whose it is.
func TestAWorkerIsAProcessWithAStateFile(t *testing.T) {
	worker, state := filepath.Join(t.TempDir(), "ssm-session-worker"), t.TempDir()
	if out, err := exec.Command("go", "build", "-o", worker, "jumpsuite/internal/lab/agent/ssm-session-worker").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w, err := world.Parse([]byte("clusters: [{name: prod, hosts: [{instance: i-0abc}]}]"), "world")
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.Start(t.Context(), lab.Config{World: w, Worker: worker, State: state})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Listen("i-0abc", 2376, func(c net.Conn) { io.WriteString(c, "!"); io.Copy(c, c) }); err != nil {
		t.Fatal(err)
	}
	s := connect(t, l)
	defer s.Close()
	if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(state, "i-0abc", "document", "state", "current", s.ID())
	pid := statePID(t, file)
	exe, err := os.Readlink("/proc/" + pid + "/exe")
	if err != nil || exe != worker {
		t.Errorf("the process runs %s (%v)", exe, err)
	}
	line, err := os.ReadFile("/proc/" + pid + "/cmdline")
	if err != nil || string(line) != "ssm-session-worker\x00"+s.ID()+"\x00" {
		t.Errorf("its command line is %q (%v)", line, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	l.Close()
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the state file is still there: %v", err)
	}
}

// statePID checks what the state file says, and returns the process's id.
func statePID(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		DocumentInformation struct {
			DocumentName, SessionOwner string
			ProcInfo                   struct{ Pid json.Number }
		}
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if d := got.DocumentInformation; d.DocumentName != "jumpsuite-docker" || d.SessionOwner != "arn:aws:iam::123456789012:user/lab" {
		t.Errorf("got %s", text)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode is %v (%v)", info.Mode(), err)
	}
	return got.DocumentInformation.ProcInfo.Pid.String()
}

// config is how the SDK reaches a lab.
func config(l *lab.Lab) aws.Config {
	env := map[string]string{}
	for _, v := range l.Env() {
		name, value, _ := strings.Cut(v, "=")
		env[name] = value
	}
	keys := credentials.NewStaticCredentialsProvider(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], "")
	return aws.Config{Region: env["AWS_REGION"], APIOptions: awsconfig.PlainBodies(), BaseEndpoint: aws.String(l.URL()), Credentials: keys}
}

func client(l *lab.Lab) *api.Client { return api.NewFromConfig(config(l)) }

func connect(t *testing.T, l *lab.Lab) *session.Session {
	t.Helper()
	c := config(l)
	s, err := session.Start(t.Context(), session.Config{API: client(l), Credentials: c.Credentials, Region: c.Region, Target: "i-0abc", Document: "jumpsuite-docker"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
