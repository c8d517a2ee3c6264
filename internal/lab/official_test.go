package lab_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"jumpsuite/internal/lab/realagent"
)

const instance = "i-0123456789abcdef0"

// The official client, where it is.
func TestTheOfficialPluginCanBeTheClient(t *testing.T) {
	plugin, err := realagent.Plugin()
	if err != nil {
		t.Skipf("the official client is left out: %v", err)
	}
	l := start(t, "clusters: [{name: prod, hosts: [{instance: "+instance+"}]}]")
	if err := l.Listen(instance, 2376, func(c net.Conn) { io.WriteString(c, "hello\n"); io.Copy(c, c) }); err != nil {
		t.Fatal(err)
	}
	in := &ssm.StartSessionInput{Target: aws.String(instance), DocumentName: aws.String("jumpsuite-docker")}
	out, err := ssm.NewFromConfig(config(l)).StartSession(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := json.Marshal(map[string]*string{"SessionId": out.SessionId, "StreamUrl": out.StreamUrl, "TokenValue": out.TokenValue})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), plugin, string(answer), l.World.Region, "StartSession", "", `{"Target":"`+instance+`"}`, l.URL())
	cmd.Env = append(os.Environ(), l.Env()...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(stdout)
	for _, step := range []struct{ send, want string }{{"", "hello\n"}, {"one two\n", "one two\n"}} {
		if _, err := io.WriteString(stdin, step.send); err != nil {
			t.Fatal(err)
		}
		for {
			got, err := r.ReadString('\n')
			if err != nil {
				t.Fatalf("after %q: %v", got, err)
			}
			if t.Logf("plugin: %q", got); strings.HasSuffix(got, step.want) {
				break
			}
		}
	}
	if _, err := ssm.NewFromConfig(config(l)).TerminateSession(t.Context(), &ssm.TerminateSessionInput{SessionId: out.SessionId}); err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	io.Copy(io.Discard, r)
	cmd.Wait() // whatever it says of the end
	if n := l.Sessions(instance); n != 0 {
		t.Errorf("%d sessions are open", n)
	}
}
