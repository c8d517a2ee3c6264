package session_test

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/realagent"
)

// official starts the complete official agent on the lab's host, where the environment variable
// OFFICIAL_SSM names a folder with it: the tests of this package are then about a
// session with it, through the lab's relay. Without, the lab plays the agent.
func official(t testing.TB, l *lab.Lab) *realagent.Agent {
	t.Helper()
	folder, err := realagent.Folder()
	if err != nil {
		if os.Getenv(realagent.Variable) != "" {
			t.Fatal(err)
		}
		return nil
	}
	certificate, err := l.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	a, err := realagent.Start(realagent.Options{Folder: folder, Dir: t.TempDir(), Instance: host, URL: l.URL(), Certificate: certificate, Env: l.Env()})
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
	connected(t, l, a, true)
	l.ResetCalls()
	return a
}

// exact leaves a test out whose link asks for an agent that is better than the official
// one, where that is the host's, and does what shows it.
func exact(t *testing.T, link string) {
	t.Helper()
	if _, err := realagent.Folder(); err == nil && (strings.Contains(link, "damage") || strings.Contains(link, "cut-agent")) {
		t.Skip("left out with the official agent, which hands messages to the port twice, and damaged ones")
	}
}

// labsOwn is the version of the agent that the lab plays.
const labsOwn = "3.3.987.0"

// connected waits until the real agent is connected to the lab, or is not any more.
func connected(t testing.TB, l *lab.Lab, a *realagent.Agent, want bool) {
	t.Helper()
	for late := time.Now().Add(2 * time.Minute); time.Now().Before(late); time.Sleep(100 * time.Millisecond) {
		out, err := config(l).API.(*ssm.Client).DescribeInstanceInformation(t.Context(), &ssm.DescribeInstanceInformationInput{
			Filters: []types.InstanceInformationStringFilter{{Key: aws.String("InstanceIds"), Values: []string{host}}}})
		if err != nil {
			t.Fatal(err)
		}
		i := out.InstanceInformationList[0]
		if aws.ToString(i.AgentVersion) != labsOwn && (i.PingStatus == types.PingStatusOnline) == want {
			return
		}
	}
	t.Fatalf("the official agent is not connected: %v; it says\n%s", want, a.Log())
}

func TestTheOfficialAgentIsTheHostsWhereItIs(t *testing.T) {
	if _, err := realagent.Folder(); err != nil {
		t.Skipf("the official agent is left out: %v", err)
	}
	l := start(t, "")
	listen(t, l, echo)
	s := open(t, l)
	greeted(t, s)
	if s.AgentVersion() == labsOwn {
		t.Error("the lab's own agent has answered")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}
