package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"jumpsuite/internal/carrier"
	"jumpsuite/internal/keys"
	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/sudoer"
	"jumpsuite/internal/lab/world"
)

// The jump server's tests play, besides sudo and the Engine, AWS with its
// sessions, r3-ssm, and two docker hosts: an r3-dockerproxy each, with keys and
// an audit log of its own, before the same Engine. A third host is offline.
const (
	testHost = "i-0123456789abcdef0" // 10.0.0.1, in test
	prodHost = "i-0123456789abcdef1" // 10.0.1.1, in prod
	deadHost = "i-0123456789abcdef2" // 10.0.1.2, in prod
)

// far is the jump server and what is behind it.
type far struct {
	*sudoer.Host
	t      *testing.T // the test that has it
	lab    *lab.Lab
	engine string // socket of the hosts' Engine
	ssm    *background
	audits map[string]string // folder, by host
	keys   map[string]keys.Store
}

// background is a command that runs until the test ends.
type background struct {
	cmd  *exec.Cmd
	mu   sync.Mutex
	said bytes.Buffer
}

func (b *background) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.said.Write(p)
}

func (b *background) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.said.String()
}

// daemon starts a command of ours and waits until it is ready.
func daemon(t *testing.T, env []string, name string, args ...string) *background {
	t.Helper()
	return ready(t, env, exec.Command(filepath.Join(sudoer.Bin, name), args...))
}

// ready starts a command that runs one of ours and waits until that is ready.
func ready(t *testing.T, env []string, cmd *exec.Cmd) *background {
	t.Helper()
	b := &background{cmd: cmd}
	b.cmd.Env, b.cmd.Stderr = append(os.Environ(), env...), b
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.cmd.Process.Kill()
		b.cmd.Wait()
	})
	for range 3000 {
		if strings.Contains(b.text(), "msg=ready") {
			return b
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s is not ready: %s", cmd, b.text())
	return nil
}

// others builds what else runs on jump servers and hosts, once.
var others = sync.OnceValue(func() error {
	root, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	cmd := exec.Command("go", "build", "-o", sudoer.Bin+"/", "./cmd/r3-ssm", "./cmd/r3-dockerproxy", "./cmd/r3-container")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
})

var tcpAddress = regexp.MustCompile(`127\.0\.0\.1:\d+`)

// jumpServer makes the host of the other tests a jump server until the test ends.
func jumpServer(t *testing.T) *far {
	return jumpServerIn(t, `
clusters:
  - {name: test, hosts: [{instance: `+testHost+`, ip: 10.0.0.1}]}
  - {name: prod, hosts: [{instance: `+prodHost+`, ip: 10.0.1.1}, {instance: `+deadHost+`, ip: 10.0.1.2, offline: true}]}
`, lab.Config{})
}

// jumpServerIn is jumpServer in a world of its own. Where the lab has an Engine, that
// one is the hosts'.
func jumpServerIn(t *testing.T, text string, c lab.Config) *far {
	f := &far{Host: need(t, "test"), t: t, engine: sudoer.Engine, audits: map[string]string{}, keys: map[string]keys.Store{}}
	if err := others(); err != nil {
		t.Fatal(err)
	}
	var err error
	if c.World, err = world.Parse([]byte(text), "world"); err != nil {
		t.Fatal(err)
	}
	if f.lab, err = lab.Start(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.lab.Close() })
	if e, ok := f.lab.Engine.(interface{ Host() string }); ok {
		f.engine = strings.TrimPrefix(e.Host(), "unix://")
	}
	if err := os.MkdirAll(filepath.Dir(carrier.Socket), 0o755); err != nil {
		t.Fatal(err)
	}
	f.ssm = daemon(t, f.lab.Env(), "r3-ssm", "serve", "--listen", "unix://"+carrier.Socket)
	f.policy(t)
	f.host(t, testHost, "test")
	f.host(t, prodHost, "prod")
	return f
}

// policy makes the environments ones that are reached from here.
func (f *far) policy(t *testing.T) {
	t.Helper()
	text, err := policyText()
	if err != nil {
		t.Fatal(err)
	}
	reach := ", reach: ssm, region: eu-central-1, endpoint: \"" + f.lab.URL() + "\""
	there := text
	for _, env := range []string{"prod", "test"} {
		there = strings.Replace(there, "cluster: "+env, "cluster: "+env+reach, 1)
	}
	if err := f.SetPolicy(there); err != nil {
		t.Fatal(err)
	}
	os.Remove(environmentPath)
	t.Cleanup(func() {
		if err := f.SetPolicy(text); err != nil {
			t.Error(err)
		}
		f.Belong("test")
	})
}

// host is a docker host with its gate, which the jump server trusts, and which
// trusts it.
func (f *far) host(t *testing.T, id, environment string) {
	t.Helper()
	f.hostWith(t, id, environment, "")
}

// hostWith is host without some of the actions that it lets jump servers have.
func (f *far) hostWith(t *testing.T, id, environment, without string) {
	t.Helper()
	b := daemon(t, nil, "r3-dockerproxy", append(f.gate(t, id, environment, without), "--agent-check", "off")...)
	if err := f.lab.Forward(id, 2376, tcpAddress.FindString(b.text())); err != nil {
		t.Fatal(err)
	}
}

// gate furnishes a docker host, and returns the arguments of its gate.
func (f *far) gate(t *testing.T, id, environment, without string) []string {
	t.Helper()
	dir := t.TempDir()
	text, err := policyText()
	if err != nil {
		t.Fatal(err)
	}
	policyFile := filepath.Join(dir, "policy.yaml")
	text += `
jump-servers:
  - {name: jump, keys: ["*"], environments: [test, prod], actions: [docker.version, docker.ps, docker.images, docker.logs,
     docker.stats, docker.inspect, docker.exec, docker.run, docker.create, docker.start, docker.rm]}
`
	at := strings.LastIndex(text, "actions: ")
	text = text[:at] + strings.Replace(text[at:], without, "", 1)
	if err := os.WriteFile(policyFile, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	var here keys.Store
	there := keys.Store{Dir: filepath.Join(dir, "keys"), Admin: filepath.Join(dir, "trusted")}
	for _, pair := range []struct {
		who, by keys.Store
		name    string
	}{{here, there, "jump"}, {there, here, id}} {
		own, err := pair.who.Own()
		if err != nil {
			t.Fatal(err)
		}
		if err := pair.by.Trust(keys.Entry{Key: keys.ID(own), Name: pair.name}); err != nil {
			t.Fatal(err)
		}
	}
	f.audits[id], f.keys[id] = filepath.Join(dir, "audit"), there
	return []string{"--policy", policyFile, "--environment", environment, "--listen", "tcp://127.0.0.1:0",
		"--engine", "unix://" + f.engine, "--leases", filepath.Join(dir, "leases"), "--keys", there.Dir, "--trusted-keys", there.Admin,
		"--audit", f.audits[id], "--watch", "100ms", "--host", "ip-" + environment}
}

func TestOneDockerForTheWholeCluster(t *testing.T) {
	f := jumpServer(t)
	container(t, "web", "sh", "-c", "echo from the log; exec sleep 1000")
	for _, tt := range []struct {
		name, stdin, args string
		code              int
		out, err          string
	}{
		{"logs on a host", "", "-H 10.0.0.1 logs web", 0, "from the log\n", ""},
		{"logs on a host by its id", "", "-H " + testHost + " logs web", 0, "from the log\n", ""},
		{"logs without a host", "", "--environment test logs web", 0, "from the log\n", ""},
		{"exec takes its input to the end", "one two three", "-H 10.0.0.1 exec -i web wc -w", 0, "3\n", ""},
		{"exec ends with the command's code", "", "--environment test exec web sh -c exit~7", 7, "", ""},
		{"inspect", "", "-H 10.0.0.1 inspect web --format {{.Name}}", 0, "/web\n", ""},
		{"stats", "", "-H 10.0.0.1 stats --no-stream web", 0, "web", ""},
		{"run", "", "-H 10.0.0.1 run --rm lab/web:1 echo from run", 0, "from run\n", ""},
		{"run takes the only host", "", "--environment test run --rm lab/web:1 echo from run", 0, "from run\n", ""},
		{"run takes its input to the end", "a b c", "-H 10.0.0.1 run -i --rm lab/web:1 wc -w", 0, "3\n", ""},
		{"version", "", "-H 10.0.0.1 version --format {{.Server.APIVersion}}", 0, "1.", ""},
		{"ps of all hosts", "", "ps --format {{.Environment}}/{{.Host}}/{{.Names}}", 1, "test/10.0.0.1/web", "host 10.0.1.2: " + deadHost + " is not connected to Session Manager"},
		{"ps of one environment", "", "--environment test ps --format {{.Host}}/{{.Names}}", 0, "10.0.0.1/web\n", ""},
		{"images of one environment", "", "--environment test images --format {{.Host}}/{{.Repository}}", 0, "10.0.0.1/lab/web\n", ""},
		{"stats of a container that there is none of", "", "--environment test stats --no-stream nosuch", 1, "", "No such container: nosuch"},
		{"stats of one environment", "", "--environment test stats --no-stream --format {{.Host}}/{{.Name}}", 0, "10.0.0.1/web\n", ""},
		{"run in production", "", "-H 10.0.1.1 run --rm lab/web:1 true", 125, "", "docker.run is not allowed in prod (rule floor)"},
		{"a command that production does not list", "", "-H 10.0.1.1 exec web id", 1, "", "limits.exec.commands"},
		{"a name that is on two hosts, with one that is offline", "", "logs web", 125, "", "web can be several containers"},
		{"no such host", "", "-H nosuch ps", 125, "", "there is no host nosuch in prod, test"},
		{"the host is in another environment", "", "-H 10.0.0.1 --environment prod ps", 125, "", "there is no host 10.0.0.1 in prod"},
		{"a host that is offline", "", "-H 10.0.1.2 ps", 125, "", deadHost + " is not connected to Session Manager"},
		{"no such container", "", "--environment test logs nosuch", 1, "", "No such container: nosuch"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := strings.Fields(tt.args)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "~", " ")
			}
			docker(t, f.Host, tt.stdin, args...).expect(t, tt.args, tt.code, tt.out, tt.err)
		})
	}
	if n := f.starts(testHost); n != 1 {
		t.Errorf("%d sessions were started to one host, want 1 for all commands", n)
	}
	f.bothRecorded(t)
}

// starts counts the sessions that were started to a host.
func (f *far) starts(host string) (n int) {
	for _, c := range f.lab.Calls() {
		if c.Operation == "StartSession" && strings.Contains(string(c.Parameters), host) {
			n++
		}
	}
	return n
}

// bothRecorded looks for what was allowed to be run at the jump server in the
// host's log: one request has an event in each, and the host's names the other. No
// event of the host's names one that is not there.
func (f *far) bothRecorded(t *testing.T) {
	t.Helper()
	there, atHost := map[string]bool{}, map[string]bool{}
	for _, e := range events(t, filepath.Join(f.audits[testHost], "audit.log")) {
		there[e.Far], atHost[e.Far] = true, true
	}
	found := 0
	here := events(t, "/var/log/jumpsuite/audit.log")
	for _, e := range here {
		delete(there, e.ID)
	}
	if delete(there, ""); len(there) > 0 {
		t.Errorf("the host's log names events that the jump server's does not have: %v", there)
	}
	for _, e := range here {
		if e.Action != "docker.run" || e.Kind != "open" || e.Resource.Host != "10.0.0.1" {
			continue
		}
		found++
		if !atHost[e.ID] {
			t.Errorf("event %s is not in the host's log", e.ID)
		}
	}
	if found == 0 {
		t.Error("no run is on record at the jump server")
	}
}

type recorded struct {
	ID, Far, Kind, Action string
	Resource              struct{ Host string }
}

func events(t *testing.T, path string) (all []recorded) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for l := range bytes.Lines(b) {
		var e recorded
		if err := json.Unmarshal(l, &e); err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

func TestAHostWhoseKeyIsNotTrustedIsNotSpokenTo(t *testing.T) {
	f := jumpServer(t)
	container(t, "web", "sleep", "1000")
	own, err := f.keys[testHost].Own()
	if err != nil {
		t.Fatal(err)
	}
	var here keys.Store
	if err := here.Revoke(keys.Entry{Key: keys.ID(own), Name: testHost}); err != nil {
		t.Fatal(err)
	}
	docker(t, f.Host, "", "-H", "10.0.0.1", "ps").expect(t, "ps", 125, "", "the key "+string(keys.ID(own))+" is not trusted here")
}

func TestWithoutR3SSMNoHostIsReached(t *testing.T) {
	f := jumpServer(t)
	f.ssm.cmd.Process.Kill()
	f.ssm.cmd.Wait()
	docker(t, f.Host, "", "-H", "10.0.0.1", "ps").expect(t, "ps", 125, "", "r3-ssm is not running (/run/jumpsuite/ssm.sock)\nhint: an administrator starts it: systemctl enable --now r3-ssm.socket")
}

func TestAShellOnAnotherHost(t *testing.T) {
	f := jumpServer(t)
	container(t, "shell", "sleep", "1000")
	s := on(t, sudoDocker(t, f.Host, "-H", "10.0.0.1", "exec", "-it", "shell", "sh"), true)
	s.sees("# ", 1)
	s.types("stty size\r")
	s.sees("24 80", 1)
	if err := sudoer.Resize(s.terminal, 50, 132); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the shell knows the new size", func() bool {
		s.types("stty size\r")
		time.Sleep(100 * time.Millisecond)
		return strings.Contains(s.text(), "50 132")
	})
	s.types("exit 9\r")
	s.ends(9)
	if s.raw() {
		t.Error("the terminal is left raw")
	}
}

// A right that is taken away at the jump server ends what it allowed on a host.
func TestAStreamToAHostEndsWithItsRight(t *testing.T) {
	f := jumpServer(t)
	container(t, "web", "sh", "-c", "echo one; exec sleep 1000")
	s := on(t, sudoDocker(t, f.Host, "-H", "10.0.0.1", "logs", "-f", "web"), true)
	s.sees("one", 1)
	b, err := os.ReadFile(sudoer.Policy)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.SetPolicy(strings.Replace(string(b), "docker.logs, ", "", 1)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.done:
	case <-time.After(20 * time.Second):
		t.Errorf("it goes on; on the screen:\n%s", s.text())
	}
}

// A host says itself what it is called, and could say another's address or id.
func TestAHostIsNotCalledAsAnotherIs(t *testing.T) {
	for _, tt := range []struct {
		name, says string
		want       string
	}{
		{"a name with a domain", "ip-10-0-0-1.internal", "10.0.0.1 ip-10-0-0-1.internal ip-10-0-0-1"},
		{"no name", "", "10.0.0.1"},
		{"its own address", "10.0.0.1", "10.0.0.1"},
		{"another's address", "10.0.1.1", "10.0.0.1"},
		{"another's id", prodHost, "10.0.0.1"},
		{"another's id with a domain", prodHost + ".internal", "10.0.0.1 " + prodHost + ".internal"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := strings.Join(namesOf(carrier.Host{ID: testHost, Address: "10.0.0.1", Name: tt.says}), " ")
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// What a caller made is his when the jump server's key was rotated since. Another
// jump server's key that is trusted, too, has nothing of it.
func TestWhatWasMadeIsItsCallersAfterARotation(t *testing.T) {
	f := jumpServer(t)
	docker(t, f.Host, "", "-H", "10.0.0.1", "run", "-d", "--name", "made", "lab/web:1", "sleep", "1000").expect(t, "run", 0, "", "")
	var here keys.Store
	rotate := func(now string) {
		t.Helper()
		if done, err := here.Rotate(time.Now(), 0); err != nil || done != (now == "in use") {
			t.Fatalf("rotate: %v, %v", done, err)
		}
	}
	rotate("made")
	all, err := here.Public()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.keys[testHost].Trust(keys.Entry{Key: all[1], Name: "jump"}); err != nil {
		t.Fatal(err)
	}
	rotate("in use")
	eventually(t, "the host has read its lists", func() bool { return docker(t, f.Host, "", "-H", "10.0.0.1", "ps").code == 0 })
	former, err := os.ReadFile(keys.Folder + "/former")
	if err != nil {
		t.Fatal(err)
	}
	// Without the former key's word for it the present one is a stranger's.
	if err := os.Remove(keys.Folder + "/former"); err != nil {
		t.Fatal(err)
	}
	docker(t, f.Host, "", "-H", "10.0.0.1", "kill", "made").expect(t, "kill, by a key of its own", 1, "", "made or started")
	if err := os.WriteFile(keys.Folder+"/former", former, 0o644); err != nil {
		t.Fatal(err)
	}
	docker(t, f.Host, "", "-H", "10.0.0.1", "kill", "made").expect(t, "kill", 0, "made\n", "")
	docker(t, f.Host, "", "-H", "10.0.0.1", "rm", "made").expect(t, "rm", 0, "made\n", "")
}
