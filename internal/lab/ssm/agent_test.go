package ssm_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	api "github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/coder/websocket"

	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/world"
	"jumpsuite/internal/session/frame"
)

// What a real agent does is played here by hand; that it itself can be a host's is a test of
// internal/session.

const real = "i-0123456789abcdef0"

// hosts is a lab with a host for a real agent, and one that was never online.
func hosts(t *testing.T) *lab.Lab {
	t.Helper()
	w, err := world.Parse([]byte("clusters: [{name: prod, hosts: [{instance: "+real+", forward: {2376: '127.0.0.1:4711'}}, {instance: i-0123456789abcdef1, offline: true}]}]"), "world")
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.Start(t.Context(), lab.Config{World: w})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// ask sends a request as an agent does, and returns its answer's status and body.
func ask(t *testing.T, l *lab.Lab, method, path, body string, unsigned bool) (int, string) {
	t.Helper()
	request := signed(t, l, method, path, body)
	if unsigned {
		request.Header.Del("Authorization")
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

func signed(t *testing.T, l *lab.Lab, method, path, body string) *http.Request {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, l.URL()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	c := config(l)
	keys, err := c.Credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte(body))
	if err := v4.NewSigner().SignHTTP(t.Context(), keys, request, hex.EncodeToString(digest[:]), "ssmmessages", c.Region, time.Now()); err != nil {
		t.Fatal(err)
	}
	return request
}

const (
	channels = "/v1/control-channel/"
	asked    = `{"MessageSchemaVersion":"1.0","RequestId":"r"}`
	role     = "?role=subscribe&stream=input"
)

// controlToken gets a token for the control channel of a host.
func controlToken(t *testing.T, l *lab.Lab, instance string) string {
	t.Helper()
	status, text := ask(t, l, "POST", channels+instance, asked, false)
	var answer struct{ TokenValue string }
	if err := xml.Unmarshal([]byte(text), &answer); status != http.StatusCreated || err != nil || answer.TokenValue == "" {
		t.Fatalf("got %d %s", status, text)
	}
	return answer.TokenValue
}

// dialControl opens a control channel, whose first message is open.
func dialControl(t *testing.T, l *lab.Lab, instance, open string) *websocket.Conn {
	t.Helper()
	path := channels + instance + role
	conn, answer, err := websocket.Dial(t.Context(), strings.Replace(l.URL(), "http", "ws", 1)+path, &websocket.DialOptions{HTTPHeader: signed(t, l, "GET", path, "").Header})
	if err != nil {
		t.Fatalf("%v (%v)", err, answer)
	}
	t.Cleanup(func() { conn.CloseNow() })
	if err := conn.Write(t.Context(), websocket.MessageText, []byte(open)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func opens(token string) string {
	return `{"MessageSchemaVersion":"1.0","RequestId":"r","TokenValue":"` + token + `","AgentVersion":"3.3.1.0","PlatformType":"Linux"}`
}

// agent connects a real agent to the lab.
func agent(t *testing.T, l *lab.Lab, instance string) *websocket.Conn {
	t.Helper()
	conn := dialControl(t, l, instance, opens(controlToken(t, l, instance)))
	until(t, func() bool {
		return *information(t, l, instance).AgentVersion == "3.3.1.0" && status(t, l, instance) == types.PingStatusOnline
	})
	return conn
}

func until(t *testing.T, done func() bool) {
	t.Helper()
	for late := time.Now().Add(time.Minute); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatal("it does not come")
		}
	}
}

func information(t *testing.T, l *lab.Lab, instance string) types.InstanceInformation {
	t.Helper()
	out, err := client(l).DescribeInstanceInformation(t.Context(), &api.DescribeInstanceInformationInput{
		Filters: []types.InstanceInformationStringFilter{{Key: aws.String("InstanceIds"), Values: []string{instance}}}})
	if err != nil || len(out.InstanceInformationList) != 1 {
		t.Fatalf("got %+v, %v", out, err)
	}
	return out.InstanceInformationList[0]
}

func status(t *testing.T, l *lab.Lab, instance string) types.PingStatus {
	t.Helper()
	return information(t, l, instance).PingStatus
}

// hears is the next message on a channel, but for those that say who else is there.
func hears(t *testing.T, conn *websocket.Conn) (frame.Frame, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		_, b, err := conn.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		f, err := frame.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if f.Type != frame.Start && f.Type != frame.Pause {
			return f, string(f.Payload)
		}
	}
}

func sessionTo(t *testing.T, l *lab.Lab, instance string) (*api.StartSessionOutput, error) {
	t.Helper()
	return client(l).StartSession(t.Context(), &api.StartSessionInput{Target: &instance, DocumentName: aws.String("jumpsuite-docker")})
}

func TestWhoIsNoAgentOfTheAccountGetsNoControlChannel(t *testing.T) {
	l := hosts(t)
	for _, tt := range []struct {
		name, method, path, body string
		unsigned                 bool
		status                   int
		want                     string
	}{
		{"no signature", "POST", channels + real, asked, true, 403, "<AccessDeniedException>"},
		{"another's host", "POST", channels + "i-0fedcba9876543210", asked, false, 403, "<AccessDeniedException>"},
		{"no request", "POST", channels + real, "{}", false, 400, "<ValidationException>"},
		{"no JSON", "POST", channels + real, "x", false, 400, "<ValidationException>"},
		{"a channel without a role", "GET", channels + real, "", false, 400, "<ValidationException>"},
		{"a channel without a signature", "GET", channels + real + role, "", true, 403, "<AccessDeniedException>"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if status, text := ask(t, l, tt.method, tt.path, tt.body, tt.unsigned); status != tt.status || !strings.Contains(text, tt.want) {
				t.Errorf("got %d %s", status, text)
			}
		})
	}
}

func TestAControlChannelIsOpenedByAFreshTokenOfItsHost(t *testing.T) {
	l := hosts(t)
	used := controlToken(t, l, real)
	dialControl(t, l, real, opens(used))
	until(t, func() bool { return *information(t, l, real).AgentVersion == "3.3.1.0" })
	for _, tt := range []struct{ name, open string }{
		{"used", opens(used)},
		{"made up", opens("AAEAA")},
		{"another host's", opens(controlToken(t, l, "i-0123456789abcdef1"))},
		{"of an agent without a version", strings.Replace(opens(controlToken(t, l, real)), "3.3.1.0", "", 1)},
		{"not there", "{}"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn := dialControl(t, l, real, tt.open)
			if err := closed(t, conn); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAHostIsOnlineWhileItsRealAgentIs(t *testing.T) {
	l := hosts(t)
	if _, err := sessionTo(t, l, real); err != nil { // the lab's own
		t.Fatal(err)
	}
	for _, instance := range []string{real, "i-0123456789abcdef1"} {
		conn := agent(t, l, instance)
		conn.CloseNow()
		until(t, func() bool { return status(t, l, instance) == types.PingStatusConnectionLost })
		if _, err := sessionTo(t, l, instance); err == nil || !strings.Contains(err.Error(), "TargetNotConnected") {
			t.Errorf("got %v", err)
		}
	}
}

func TestARealAgentIsToldOfASessionAndItsEndIsAcknowledged(t *testing.T) {
	l := hosts(t)
	conn := agent(t, l, real)
	out, err := sessionTo(t, l, real)
	if err != nil {
		t.Fatal(err)
	}
	f, text := hears(t, conn)
	if f.Type != "interactive_shell" || !strings.Contains(text, *out.SessionId) || !strings.Contains(text, `\"portNumber\":\"4711\"`) {
		t.Errorf("got %s %s", f.Type, text)
	}
	payload, err := json.Marshal(map[string]any{"SchemaVersion": 1, "TaskId": *out.SessionId, "Topic": "agent_task_complete", "FinalTaskStatus": "Failed", "Output": "no"})
	if err != nil {
		t.Fatal(err)
	}
	said := frame.Frame{Type: "agent_task_complete", Created: time.Now(), ID: frame.ID{1, 2, 3}, Payload: payload}
	for range 2 { // it may say it again
		if err := conn.Write(t.Context(), websocket.MessageBinary, said.Append(nil)); err != nil {
			t.Fatal(err)
		}
	}
	var acks, ends int
	for range 3 {
		switch f, text := hears(t, conn); {
		case f.Type == "agent_task_acknowledge" && strings.Contains(text, said.ID.String()) && strings.Contains(text, *out.SessionId):
			acks++
		case f.Type == frame.Closed && strings.Contains(text, *out.SessionId): // its data channel was never there
			ends++
		default:
			t.Errorf("got %s %s", f.Type, text)
		}
	}
	if acks != 2 || ends != 1 || l.Sessions(real) != 0 {
		t.Errorf("got %d acks, %d ends, %d sessions", acks, ends, l.Sessions(real))
	}
}

func TestARealAgentSaysWhatItsHostIs(t *testing.T) {
	l := hosts(t)
	agent(t, l, real)
	body := `{"InstanceId":"` + real + `","AgentName":"amazon-ssm-agent","AgentVersion":"3.3.1.0","ComputerName":"web-1","PlatformName":"Debian GNU/Linux","PlatformType":"Linux","PlatformVersion":"12"}`
	request := signed(t, l, "POST", "/", body)
	request.Header.Set("X-Amz-Target", "AmazonSSM.UpdateInstanceInformation")
	request.Header.Set("Content-Type", "application/x-amz-json-1.1")
	c := config(l)
	keys, err := c.Credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte(body))
	if err := v4.NewSigner().SignHTTP(t.Context(), keys, request, hex.EncodeToString(digest[:]), "ssm", c.Region, time.Now()); err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	i := information(t, l, real)
	if answer.StatusCode != 200 || *i.ComputerName != "web-1" || *i.PlatformName != "Debian GNU/Linux" || *i.PlatformVersion != "12" {
		t.Errorf("got %s, %+v", answer.Status, i)
	}
}

func TestALostHostsAgentFindsNobody(t *testing.T) {
	l := hosts(t)
	conn := agent(t, l, real)
	if err := l.Do(world.Action{Do: "host-lost", To: real}); err != nil {
		t.Fatal(err)
	}
	if err := closed(t, conn); websocket.CloseStatus(err) != -1 {
		t.Errorf("got %v, want a cut without a word", err)
	}
	if status, text := ask(t, l, "POST", channels+real, asked, false); status != 0 {
		t.Errorf("got %d %s, want no answer", status, text)
	}
	if err := l.Do(world.Action{Do: "host-back", To: real}); err != nil {
		t.Fatal(err)
	}
	agent(t, l, real)
}
