package lab_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/realagent"
	"jumpsuite/internal/lab/world"
)

const instance = "i-0123456789abcdef0"

// The official client, where it is, with the lab's agent.
func TestTheOfficialPluginCanBeTheClient(t *testing.T) {
	plugin, err := realagent.Plugin()
	if err != nil {
		t.Skipf("the official client is left out: %v", err)
	}
	throughPlugin(t, start(t, "clusters: [{name: prod, hosts: [{instance: "+instance+"}]}]"), plugin)
}

// Both ends are the official ones; the relay between them is ours.
func TestTheOfficialPluginAndTheOfficialAgentUnderstandEachOther(t *testing.T) {
	plugin, err := realagent.Plugin()
	if err != nil {
		t.Skipf("the official client is left out: %v", err)
	}
	folder, err := realagent.Folder()
	if err != nil {
		t.Skipf("the official agent is left out: %v", err)
	}
	l := start(t, "clusters: [{name: prod, hosts: [{instance: "+instance+"}]}]")
	a, err := realagent.Start(realagent.Options{Folder: folder, Dir: t.TempDir(), Instance: instance, Lab: l})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the agent says:\n%s", a.Log())
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := a.Await(ctx, true); err != nil {
		t.Fatal(err)
	}
	throughPlugin(t, l, plugin)
}

// throughPlugin has the official client carry lines to a host's port and back, while the agent loses
// its websocket, and ends the session. The client's own is left alone: what is typed while
// that is away ends it, and it does not acknowledge again what it has had before.
func throughPlugin(t *testing.T, l *lab.Lab, plugin string) {
	t.Helper()
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
	reads := func(want string) {
		for {
			got, err := r.ReadString('\n')
			if err != nil {
				t.Fatalf("after %q: %v", got, err)
			}
			if t.Logf("plugin: %q", got); strings.HasSuffix(got, want) {
				return
			}
		}
	}
	reads("hello\n")
	for i := range 3 {
		if i > 0 {
			if err := l.Do(world.Action{Do: "session-cut", To: instance, Value: "agent"}); err != nil {
				t.Fatal(err)
			}
		}
		line := fmt.Sprintln("line", i)
		if _, err := io.WriteString(stdin, line); err != nil {
			t.Fatal(err)
		}
		reads(line)
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
