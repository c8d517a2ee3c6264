//go:build packages

package packaging

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/rootfs"
	"jumpsuite/internal/lab/world"
)

// pair is a jump server and a docker host, each booted by systemd with a network of
// its own, and a lab that is AWS to both: it has their roles' credentials, which
// they get from the instance metadata service, and leads SSM sessions to the host.
type pair struct {
	t          *testing.T
	lab        *lab.Lab
	host, jump *debian
	key        string // the jump server's
}

const (
	hostID   = "i-0aaaaaaaaaaaaaaaa"
	jumpID   = "i-0bbbbbbbbbbbbbbbb"
	registry = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
)

const pairWorld = `
registry-login: true
clusters: [{name: test, hosts: [{instance: ` + hostID + `, ip: 10.0.0.1}]}, {name: prod}]
images: [{repository: web, tags: ["1", "2"]}]
services: [{name: web, cluster: test, image: "web:1"}]
`

// on makes what is done with the pair a part of this test.
func (p *pair) on(t *testing.T) { p.t, p.host.t, p.jump.t = t, t, t }

// TestUnderSystemd boots both machines, follows operations.md on them, and then uses,
// breaks, upgrades and purges what is installed, as it runs there: under systemd, in
// the units' confinement, with keys that were enrolled.
func TestUnderSystemd(t *testing.T) {
	for _, s := range []struct{ host, jump string }{{"bookworm", "trixie"}, {"trixie", "bookworm"}} {
		t.Run("host "+s.host+" and jump server "+s.jump, func(t *testing.T) {
			p := boot(t, s.host, s.jump)
			for _, step := range []struct {
				name string
				run  func(*pair)
			}{
				{"the page's commands set up a jump server", (*pair).setUpJumpServer},
				{"the page's commands set up a docker host", (*pair).setUpHost},
				{"they lead to sudo docker ps for a member of the group", (*pair).firstUse},
				{"sockets belong to who may use them", (*pair).sockets},
				{"every verb works through both gates", (*pair).verbs},
				{"logins for the registry come from r3-ecr", (*pair).pull},
				{"the process of a lost exec is ended", (*pair).lost},
				{"the manager says how exposed the units are", (*pair).exposed},
				{"a reload ends what the policy does not allow any more", (*pair).reload},
				{"a gate that hangs is started again", (*pair).hangs},
				{"a gate that was killed is started again", (*pair).killed},
				{"an upgrade of the host cuts no session", (*pair).upgradeHost},
				{"an upgrade of the jump server cuts no session", (*pair).upgradeJumpServer},
				{"what was left running is removed", (*pair).reaped},
				{"a restart waits for what is open", (*pair).restart},
				{"what was stopped is started by who comes", (*pair).stop},
				{"the log is rotated, and stays whole", (*pair).rotate},
				{"the heads of the chain are in the journal", (*pair).heads},
				{"metadata is for who holds credentials", (*pair).metadata},
				{"a purge leaves what the page says", (*pair).purge},
			} {
				ok := t.Run(step.name, func(t *testing.T) {
					p.on(t)
					step.run(p)
				})
				p.on(t)
				if !ok {
					t.Logf("host:\n%s", p.host.journal())
					t.Logf("jump server:\n%s", p.jump.journal())
					return // each step stands on those before
				}
			}
		})
	}
}

// journal is the end of what our units said.
func (d *debian) journal() string {
	out, _ := d.run("journalctl", "--no-pager", "-n", "25", "-u", "r3-*", "-u", "jumpsuite-*")
	return out
}

func boot(t *testing.T, host, jump string) *pair {
	t.Helper()
	if err := rootfs.Available(); err != nil {
		t.Skip(err)
	}
	w, err := world.Parse([]byte(pairWorld), "world")
	must(t, err)
	l, err := lab.Start(t.Context(), lab.Config{World: w})
	must(t, err)
	t.Cleanup(func() { l.Close() })
	p := &pair{t: t, lab: l}
	p.host = install(t, host, "systemd", "systemd-sysv", "procps", "docker.io", "logrotate")
	p.host.dockerInside()
	p.host.boot()
	must(t, load(t, fmt.Sprintf("/proc/%d/root/run/docker.sock", p.host.pid)))
	p.host.listen("127.0.0.1:80", serve(l.Handler())) // what the Engine pulls from
	p.jump = install(t, jump, "systemd", "systemd-sysv", "procps", "logrotate", "nftables")
	p.jump.boot()
	p.aws(p.host, hostID)
	p.aws(p.jump, jumpID)
	must(t, l.Listen(hostID, 2376, func(near net.Conn) {
		join(near, func() (net.Conn, error) { return p.host.dial("127.0.0.1:2376") })
	}))
	return p
}

// dockerInside is what the Engine has to know to run in a machine like this: no
// cgroup's controllers, no tables of packets, and no file system that can be below overlays.
func (d *debian) dockerInside() {
	d.t.Helper()
	d.write("/etc/docker/daemon.json", `{"iptables": false, "ip6tables": false, "userland-proxy": false, "exec-opts": ["native.cgroupdriver=cgroupfs"]}`, 0o644)
	d.write("/etc/fstab", "tmpfs /var/lib/docker tmpfs mode=711 0 0\n", 0o644)
	d.write("/etc/hosts", d.read("/etc/hosts")+"127.0.0.1 "+registry+"\n", 0o644)
}

// aws makes the lab AWS for a machine, and the machine an instance with a role.
func (p *pair) aws(d *debian, instance string) {
	p.t.Helper()
	u, err := url.Parse(p.lab.URL())
	must(p.t, err)
	d.listen(u.Host, lead(func() (net.Conn, error) { return net.Dial("tcp", u.Host) }))
	d.listen("169.254.169.254:80", serve(p.instance(instance)))
	d.write("/var/lib/cloud/data/instance-id", instance+"\n", 0o644)
}

// instance is the instance metadata service, version 2, of an instance with a role.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
func (p *pair) instance(id string) http.Handler {
	const token, role = "a-token", "jumpsuite"
	key, secret := p.credentials()
	answers := map[string]any{
		"/latest/meta-data/iam/security-credentials/": role,
		"/latest/meta-data/iam/security-credentials/" + role: map[string]any{
			"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": key, "SecretAccessKey": secret, "Token": "lab",
			"LastUpdated": time.Now().UTC(), "Expiration": time.Now().Add(6 * time.Hour).UTC(),
		},
		"/latest/dynamic/instance-identity/document": map[string]any{"region": "eu-central-1", "instanceId": id},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, known := answers[r.URL.Path]
		switch {
		case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token":
			w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
			io.WriteString(w, token)
		case r.Header.Get("X-Aws-Ec2-Metadata-Token") != token:
			w.WriteHeader(http.StatusUnauthorized)
		case !known:
			w.WriteHeader(http.StatusNotFound)
		default:
			if text, ok := answer.(string); ok {
				io.WriteString(w, text)
			} else {
				json.NewEncoder(w).Encode(answer)
			}
		}
	})
}

// played is a section's commands with the lab in the place of AWS's own endpoints:
// nothing else of them is changed.
func (p *pair) played(commands string) string {
	commands = strings.ReplaceAll(commands, "region: eu-central-1", "region: eu-central-1, endpoint: "+strconv.Quote(p.lab.URL()))
	return strings.ReplaceAll(commands, "OPTIONS=", "OPTIONS=--endpoint "+p.lab.URL()+" ")
}

func (p *pair) setUpHost() {
	// So that hanging and reaping are seen in seconds, not in minutes.
	p.host.write("/etc/systemd/system/r3-dockerproxy.service.d/quick.conf",
		"[Service]\nWatchdogSec=10\nExecStart=\nExecStart=/usr/sbin/r3-dockerproxy --reap 1s\n", 0o644)
	p.host.follow(p.named(p.played(commandsOf(p.t, "A docker host"))), built(p.t, "jumpsuite-host_*_"+runtime.GOARCH+".deb"))
	p.host.active("r3-dockerproxy.socket", "r3-dockerproxy.service", "r3-ecr.socket", "jumpsuite-enrol.timer")
	p.host.inactive("r3-ecr.service", "jumpsuite-metadata.service")
	p.host.must("r3-dockerproxy", "--healthcheck")
	p.host.wants("dev", "sudo -n docker run --rm --pull never busybox:latest echo hello", 0, "hello")
	p.host.wants("guest", "sudo -n docker ps", 1, "")
}

func (p *pair) setUpJumpServer() {
	p.jump.follow(p.played(commandsOf(p.t, "A jump server")), built(p.t, "jumpsuite_*_"+runtime.GOARCH+".deb"))
	p.jump.active("r3-ssm.socket", "jumpsuite-enrol.timer")
	p.jump.inactive("r3-ssm.service", "jumpsuite-metadata.service")
	if p.key = ownKey.FindString(p.jump.must("r3-admin", "keys", "show")); p.key == "" {
		p.t.Fatal("the jump server does not say its key")
	}
}

var ownKey = regexp.MustCompile(`ed25519:\S{43}`)

// named is a page's commands with the jump server's key where the page says that it is
// to be written.
func (p *pair) named(commands string) string {
	p.t.Helper()
	const placeholder = "ed25519:WRITE-HERE-WHAT-r3-admin-keys-show-PRINTS-0"
	if strings.Count(commands, placeholder) != 1 {
		p.t.Fatalf("the page does not say where to write the jump server's key:\n%s", commands)
	}
	return strings.Replace(commands, placeholder, p.key, 1)
}

// firstUse is what the page promises for when AWS is prepared. The timers run on
// their own in some minutes: here somebody is in a hurry.
func (p *pair) firstUse() {
	p.host.must("systemctl", "start", "jumpsuite-enrol.service")
	p.published()
	for _, d := range []*debian{p.jump, p.host} {
		d.must("systemctl", "start", "jumpsuite-enrol.service")
	}
	p.jump.eventually("host-ends-with-0", "su", "-", "dev", "-c", "sudo docker ps; echo host-ends-with-$?") // the gate looks for keys every few seconds
	p.jump.active("r3-ssm.service")
	page := p.jump.pageText()
	for line, say := range map[string]string{
		"sudo docker ps":                                         "CONTAINER ID",
		"r3 container list --environment test":                   "web",
		"sudo show-ecs-service-status --environment test -s web": `"ACTIVE"`,
	} {
		if !strings.Contains(page, "`"+line+"`") {
			p.t.Errorf("operations.md does not say %q", line)
		}
		p.jump.wants("dev", line, 0, say)
	}
	p.jump.wants("guest", "sudo -n docker ps", 1, "")
}

var putParameter = regexp.MustCompile(`aws ssm put-parameter --region eu-central-1 --type String --overwrite --name (\S+) --value '([^']+)'`)

// published does what an administrator does for a new jump server, whose role may not
// publish its key: what the journal says, with credentials that may.
func (p *pair) published() {
	p.t.Helper()
	p.lab.AddFault(world.Fault{Operation: "PutParameter", Error: "denied"})
	p.jump.run("systemctl", "start", "jumpsuite-enrol.service") // it fails, having fetched what it may
	said := p.jump.eventually("jumpsuite/test/jump-servers/"+jumpID, "journalctl", "--no-pager", "-o", "cat", "-u", "jumpsuite-enrol")
	p.lab.ClearFaults()
	lines := putParameter.FindAllStringSubmatch(said, -1)
	if len(lines) == 0 {
		p.t.Fatalf("the journal does not say what to run:\n%s", said)
	}
	key, secret := p.credentials()
	client := ssm.New(ssm.Options{
		Region: "eu-central-1", BaseEndpoint: aws.String(p.lab.URL()),
		Credentials: credentials.NewStaticCredentialsProvider(key, secret, ""),
	})
	for _, m := range lines {
		_, err := client.PutParameter(p.t.Context(), &ssm.PutParameterInput{Name: &m[1], Value: &m[2], Type: types.ParameterTypeString, Overwrite: aws.Bool(true)})
		must(p.t, err)
	}
}

// credentials are those that the lab knows.
func (p *pair) credentials() (key, secret string) {
	for _, v := range p.lab.Env() {
		name, value, _ := strings.Cut(v, "=")
		switch name {
		case "AWS_ACCESS_KEY_ID":
			key = value
		case "AWS_SECRET_ACCESS_KEY":
			secret = value
		}
	}
	return key, secret
}

func (d *debian) active(units ...string) {
	d.t.Helper()
	for _, u := range units {
		d.must("systemctl", "is-active", u)
	}
}

// becomesActive waits for a unit; "inactive" has the word in it, too.
func (d *debian) becomesActive(unit string) {
	d.t.Helper()
	d.eventually("ActiveState=active", "systemctl", "show", "-p", "ActiveState", unit)
}

func (d *debian) inactive(units ...string) {
	d.t.Helper()
	for _, u := range units {
		if out, code := d.run("systemctl", "is-active", u); code == 0 {
			d.t.Errorf("%s is %s", u, out)
		}
	}
}

func (p *pair) sockets() {
	for _, tt := range []struct {
		on         *debian
		path, want string
	}{
		{p.host, "/run/jumpsuite", "755 root root"},
		{p.host, "/run/jumpsuite/docker.sock", "660 root jumpsuite"},
		{p.host, "/run/jumpsuite/ecr.sock", "600 root root"},
		{p.jump, "/run/jumpsuite/ssm.sock", "600 root root"},
		{p.host, "/var/lib/jumpsuite/keys", "700 root root"},
		{p.jump, "/var/lib/jumpsuite/keys", "700 root root"},
		{p.host, "/var/log/jumpsuite", "750 root adm"},
		{p.host, "/var/log/jumpsuite/audit.log", "640 root adm"},
	} {
		if got := strings.TrimSpace(tt.on.must("stat", "-c", "%a %U %G", tt.path)); got != tt.want {
			p.t.Errorf("%s is %s, want %s", tt.path, got, tt.want)
		}
	}
	for unit, want := range map[string]string{"r3-ssm.service": "r3-ssm", "r3-dockerproxy.service": "root"} {
		d := p.host
		if unit == "r3-ssm.service" {
			d = p.jump
		}
		if got := strings.TrimSpace(d.must("ps", "-o", "user=", "-p", d.pidOf(unit))); got != want {
			p.t.Errorf("%s runs as %s, want %s", unit, got, want)
		}
	}
}

// pidOf is the main process of a unit.
func (d *debian) pidOf(unit string) string {
	d.t.Helper()
	pid := d.property(unit, "MainPID")
	if pid == "0" {
		d.t.Fatalf("%s does not run", unit)
	}
	return pid
}

func (d *debian) property(unit, name string) string {
	d.t.Helper()
	return strings.TrimSpace(d.must("systemctl", "show", "--value", "-p", name, unit))
}

// pairPolicy is the policy of both for what comes after the page: %s is ssm's reach
// on the jump server, the endpoint, its key, and actions that are not allowed.
const pairPolicy = `credentials: root
environments:
  - {name: test, cluster: test, region: eu-central-1, account: "123456789012", production: false%s, endpoint: %q}
jump-servers:
  - name: all
    keys: [%q]
    environments: [test]
    actions: [docker.version, docker.ps, docker.images, docker.logs, docker.stats, docker.inspect, docker.exec, docker.start,
      docker.stop, docker.rm, docker.run, docker.create, docker.pull]
limits:
  run: {for: %s}
rules:
  - name: all
    effect: allow
    principals: [group:jumpsuite]
    actions: [docker.version, docker.ps, docker.images, docker.logs, docker.stats, docker.inspect, docker.exec, docker.start,
      docker.stop, docker.rm, ecs.list]
    environments: [test]
  - name: run
    effect: allow
    principals: [group:jumpsuite]
    actions: [docker.run, docker.create, docker.pull]
    environments: [test]
    images: ["docker.io/library/busybox:*", "` + registry + `/*"]
%s`

// policies puts a policy in place on both, the way the page says: by renaming.
func (p *pair) policies(runFor, more string) {
	p.t.Helper()
	for _, d := range []*debian{p.host, p.jump} {
		reach := ""
		if d == p.jump {
			reach = ", reach: ssm"
		}
		d.write("/etc/jumpsuite/new.yaml", fmt.Sprintf(pairPolicy, reach, p.lab.URL(), p.key, runFor, more), 0o644)
		d.must("r3-admin", "policy", "check", "/etc/jumpsuite/new.yaml")
		d.must("mv", "/etc/jumpsuite/new.yaml", "/etc/jumpsuite/policy.yaml")
	}
	p.host.must("systemctl", "reload", "r3-dockerproxy")
}

func (p *pair) verbs() {
	p.policies("1m", "")
	p.jump.wants("dev", "sudo -n docker run -d --name brief --pull never busybox:latest sleep 3600", 0, "") // see reaped
	p.policies("1h", "")
	for _, tt := range append(slices.Clone(verbs), typed{"sudo -n docker rm once", 0, "once"}) {
		p.jump.wants("dev", tt.line, tt.code, tt.say)
	}
	// The port is for SSM sessions: the gate knows who is at its other end.
	p.host.as("guest", "exec 3<>/dev/tcp/127.0.0.1/2376 && head -c 1 <&3")
	p.host.eventually("and not by the SSM agent, was refused", "journalctl", "--no-pager", "-u", "r3-dockerproxy")
	log := p.host.read("/var/log/jumpsuite/audit.log")
	for _, want := range []string{`"docker.exec"`, `"far"`, `"dev"`} {
		if !strings.Contains(log, want) {
			p.t.Errorf("the host's log does not say %s:\n%s", want, last(log))
		}
	}
}

func (p *pair) pull() {
	p.host.inactive("r3-ecr.service")
	p.jump.wants("dev", "sudo -n docker pull "+registry+"/web:1", 0, "web:1")
	p.host.active("r3-ecr.service")
	if got := strings.TrimSpace(p.host.must("ps", "-o", "user=", "-p", p.host.pidOf("r3-ecr.service"))); got != "r3-ecr" {
		p.t.Errorf("r3-ecr runs as %s", got)
	}
}

// session is a command of dev's on the jump server, with its input open.
type session struct {
	*exec.Cmd
	in  io.WriteCloser
	out *words
}

// words is what was said so far.
type words struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *words) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(b)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// opens a session and waits until it answers.
func (p *pair) opens() *session {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 3*time.Minute)
	s := &session{Cmd: p.jump.command(ctx, "su", "-", "dev", "-c", "sudo -n docker exec -i web sh"), out: &words{}}
	var err error
	s.in, err = s.StdinPipe()
	must(p.t, err)
	s.Stdout, s.Stderr = s.out, s.out
	must(p.t, s.Start())
	p.t.Cleanup(cancel)
	p.answers(s, "opened")
	return s
}

// answers says something in the session that it answers.
func (p *pair) answers(s *session, word string) {
	p.t.Helper()
	fmt.Fprintf(s.in, "echo %s-$((1+1))\n", word)
	p.says(s, word+"-2")
}

func (p *pair) says(s *session, want string) {
	p.t.Helper()
	for range 600 {
		if strings.Contains(s.out.String(), want) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	p.t.Fatalf("the session does not say %q:\n%s", want, s.out)
}

// ends closes the session's input and waits until it is over.
func (p *pair) ends(s *session) {
	p.t.Helper()
	s.in.Close()
	if err := s.Wait(); err != nil {
		p.t.Errorf("the session ends with %v:\n%s", err, s.out)
	}
}

// lost kills what a person runs: the gate has to find the process in the container,
// and may signal it, although it is confined and sees it in another namespace.
func (p *pair) lost() {
	s := p.opens()
	fmt.Fprintln(s.in, "exec sleep 4711")
	p.host.eventually("sleep 4711", "ps", "-eo", "args")
	p.jump.must("pkill", "-9", "-x", "r3-docker-cli")
	s.in.Close()
	_ = s.Wait() // it was killed
	for range 300 {
		if out := p.host.must("ps", "-eo", "args"); !strings.Contains(out, "sleep 4711") {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	p.t.Error("the process of an exec whose client was killed is still there")
}

// reaped is what happened to the container that was made some steps ago, and had a
// minute.
func (p *pair) reaped() {
	for range 600 {
		if out, _ := p.jump.as("dev", "sudo -n docker ps -a --format '{{.Names}}'"); !strings.Contains(out, "brief") {
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	p.jump.wants("dev", "sudo -n docker inspect brief", 1, "")
	if out := p.host.must("r3-admin", "audit", "list"); !strings.Contains(out, "system:reaper") {
		p.t.Errorf("the log does not say who removed it:\n%s", last(out))
	}
	p.policies("1h", "")
}

var exposureLine = regexp.MustCompile(`Overall exposure level for \S+: (\d+)\.(\d)`)

// exposed asks the manager that runs the units, with the drop-ins it has.
func (p *pair) exposed() {
	for unit, most := range exposure {
		d := p.host
		if unit == "r3-ssm" {
			d = p.jump
		}
		out := d.must("systemd-analyze", "security", "--no-pager", unit+".service")
		m := exposureLine.FindStringSubmatch(out)
		if m == nil {
			p.t.Fatalf("systemd-analyze security %s:\n%s", unit, last(out))
		}
		whole, _ := strconv.Atoi(m[1])
		tenth, _ := strconv.Atoi(m[2])
		p.t.Logf("%s: %s.%s", unit, m[1], m[2])
		if whole*10+tenth > most {
			p.t.Errorf("%s: %s.%s, more than %d tenths", unit, m[1], m[2], most)
		}
	}
}

func (p *pair) reload() {
	s := p.opens()
	before := p.host.pidOf("r3-dockerproxy.service")
	p.policies("1h", "  - {name: no-shell, effect: deny, principals: [group:jumpsuite], actions: [docker.exec], environments: [test]}\n")
	if err := s.Wait(); err == nil {
		p.t.Error("a session that is not allowed any more ends as if it were over")
	}
	p.says(s, "the policy was changed and does not allow it any more") // whichever gate sees it first
	p.jump.wants("dev", "echo true | sudo -n docker exec -i web sh", 1, "no-shell")
	if after := p.host.pidOf("r3-dockerproxy.service"); after != before {
		p.t.Errorf("a reload started another process: %s was %s", after, before)
	}
	p.policies("1h", "")
	p.answered()
}

// answered is that the host can be used.
func (p *pair) answered() {
	p.t.Helper()
	p.jump.wants("dev", "sudo -n docker ps", 0, "web")
}

// hangs stops the gate's process: systemd notices that it does not say any more
// that it lives.
func (p *pair) hangs() {
	before := p.host.pidOf("r3-dockerproxy.service")
	p.host.must("kill", "-STOP", before)
	p.restarted(before)
	p.host.eventually("watchdog", "journalctl", "--no-pager", "-u", "r3-dockerproxy")
}

func (p *pair) killed() {
	before := p.host.pidOf("r3-dockerproxy.service")
	p.host.must("kill", "-KILL", before)
	p.restarted(before)
	before = p.jump.pidOf("r3-ssm.service")
	p.jump.must("kill", "-KILL", before)
	p.answered()
	if after := p.jump.pidOf("r3-ssm.service"); after == before {
		p.t.Error("r3-ssm is the one that was killed")
	}
}

// restarted waits for another process of the gate, and uses it.
func (p *pair) restarted(before string) {
	p.t.Helper()
	for range 300 {
		if now := p.host.property("r3-dockerproxy.service", "MainPID"); now != "0" && now != before {
			p.host.becomesActive("r3-dockerproxy.service")
			p.answered()
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	p.t.Fatalf("r3-dockerproxy is still process %s", before)
}

// upgrade is a newer version over the one that runs, while a session is open that
// goes through both machines.
func (p *pair) upgrade(d *debian, pkg, unit string) {
	p.t.Helper()
	s := p.opens()
	before := d.pidOf(unit)
	old := d.version(pkg)
	d.add(newer(p.t, pkg+"_*_"+runtime.GOARCH+".deb"))
	if now := d.version(pkg); now == old {
		p.t.Fatalf("%s is still %s", pkg, old)
	}
	p.answers(s, "upgraded")
	p.answered()
	if now := d.pidOf(unit); now != before {
		p.t.Errorf("%s was restarted with a session open", unit)
	}
	p.ends(s)
}

func (p *pair) upgradeHost() {
	const unit = "r3-dockerproxy.service"
	before := p.host.pidOf(unit)
	p.upgrade(p.host, "jumpsuite-host", unit)
	p.host.eventually("replaced", "journalctl", "--no-pager", "-u", unit, "-g", "replaced")
	p.restarted(before)
	p.runsWhatIsInstalled(p.host, unit)
	p.runsWhatIsInstalled(p.host, "r3-ecr.service")
}

func (p *pair) upgradeJumpServer() {
	const unit = "r3-ssm.service"
	before := p.jump.pidOf(unit)
	p.upgrade(p.jump, "jumpsuite", unit)
	for range 300 {
		if p.jump.property(unit, "MainPID") != before {
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	p.answered()
	p.runsWhatIsInstalled(p.jump, unit)
}

func (p *pair) runsWhatIsInstalled(d *debian, unit string) {
	p.t.Helper()
	if exe := d.must("readlink", "/proc/"+d.pidOf(unit)+"/exe"); strings.Contains(exe, "deleted") {
		p.t.Errorf("%s still runs %s", unit, exe)
	}
}

// restart waits for what is open, for half a minute: and who comes meanwhile waits,
// since systemd has the sockets.
func (p *pair) restart() {
	const unit = "r3-dockerproxy.service"
	s := p.opens()
	before := p.host.pidOf(unit)
	p.host.must("systemctl", "restart", "--no-block", unit)
	p.host.eventually("deactivating", "systemctl", "show", "-p", "ActiveState", unit)
	p.answers(s, "restarting")
	if now := p.host.property(unit, "MainPID"); now != before {
		p.t.Errorf("it was process %s, and is %s", before, now)
	}
	p.ends(s)
	p.answered()
	p.restarted(before)
}

// stop is for good: nothing listens any more, until the socket is started again.
func (p *pair) stop() {
	for _, tt := range []struct {
		on   *debian
		name string
	}{{p.host, "r3-dockerproxy"}, {p.jump, "r3-ssm"}} {
		tt.on.must("systemctl", "stop", tt.name+".socket", tt.name+".service")
		tt.on.inactive(tt.name+".socket", tt.name+".service")
		p.jump.wants("dev", "sudo -n docker ps", 1, "systemctl")
		tt.on.must("systemctl", "start", tt.name+".socket")
		p.answered() // the first connection starts it
		tt.on.active(tt.name + ".service")
	}
}

func (p *pair) rotate() {
	for _, d := range []*debian{p.host, p.jump} {
		d.must("logrotate", "--force", "/etc/logrotate.d/jumpsuite")
		d.must("stat", "/var/log/jumpsuite/audit.log.1")
	}
	p.answered()
	for _, d := range []*debian{p.host, p.jump} {
		if got := strings.TrimSpace(d.must("stat", "-c", "%a %U %G", "/var/log/jumpsuite/audit.log")); got != "640 root adm" {
			p.t.Errorf("the new log is %s", got)
		}
		d.must("r3-admin", "audit", "verify")
	}
}

// headsLine is the page's.
const headsLine = "journalctl -o json MESSAGE_ID=6d1f3a2e9b6c4f0f8d5c7e2a41b09c35 | r3-admin audit verify --heads -"

func (p *pair) heads() {
	if !strings.Contains(p.host.pageText(), headsLine) {
		p.t.Fatalf("operations.md does not say %s", headsLine)
	}
	for _, d := range []*debian{p.host, p.jump} {
		d.eventually("_", "journalctl", "-o", "json", "MESSAGE_ID=6d1f3a2e9b6c4f0f8d5c7e2a41b09c35")
		d.t.Log(strings.TrimSpace(d.must("sh", "-c", headsLine)))
	}
}

// metadata is the jump server's rules, which outlive it that nftables.service takes
// all rules away and reads its own again.
func (p *pair) metadata() {
	const ask = "exec 3<>/dev/tcp/169.254.169.254/80 && echo reached"
	p.jump.must("systemctl", "start", "nftables.service")
	p.jump.wants("dev", ask, 0, "reached")
	p.jump.must("systemctl", "enable", "--now", "jumpsuite-metadata.service")
	p.jump.wants("dev", ask, 1, "")
	for _, verb := range []string{"reload", "restart"} {
		p.jump.must("systemctl", verb, "nftables.service")
		p.jump.eventually("table inet jumpsuite", "nft", "list", "tables")
		p.jump.becomesActive("jumpsuite-metadata.service")
		p.jump.wants("dev", ask, 1, "")
	}
	if out := p.jump.must("bash", "-c", ask); !strings.Contains(out, "reached") {
		p.t.Errorf("root does not get there: %s", out)
	}
	p.jump.must("systemctl", "stop", "r3-ssm.service") // the next one has to ask for credentials
	p.answered()
	p.jump.must("systemctl", "start", "jumpsuite-enrol.service")
	p.jump.must("systemctl", "reload", "jumpsuite-metadata.service")
	p.jump.wants("dev", ask, 1, "")
}

// purge follows "Taking it away" while everything runs.
func (p *pair) purge() {
	for _, tt := range []struct {
		on              *debian
		pkg, role, user string
		port            string
	}{{p.jump, "jumpsuite", "jump-server", "r3-ssm", ""}, {p.host, "jumpsuite-host", "host", "r3-ecr", "127.0.0.1:2376"}} {
		d := tt.on
		d.must("r3-ssm", "enrol", "--endpoint", p.lab.URL(), "--forget", "--role", tt.role, "--cluster", "test")
		d.must("apt-get", "-qq", "-y", "purge", tt.pkg)
		if out, _ := d.run("systemctl", "list-units", "--all", "--no-legend", "--plain", "r3-*", "jumpsuite-*"); strings.TrimSpace(out) != "" {
			p.t.Errorf("%s: units are left:\n%s", tt.pkg, out)
		}
		if out, _ := d.run("pgrep", "-a", "r3-"); out != "" {
			p.t.Errorf("%s: processes are left:\n%s", tt.pkg, out)
		}
		if conn, err := d.dial(tt.port); tt.port != "" && err == nil {
			conn.Close()
			p.t.Errorf("%s: something listens on %s", tt.pkg, tt.port)
		}
		if out, _ := d.run("nft", "list", "tables"); strings.Contains(out, "jumpsuite") {
			p.t.Errorf("%s: %s is left", tt.pkg, out)
		}
		d.wants("dev", "sudo -n docker ps", 1, "")
		d.gone(tt.user)
		out := d.must("find", "/", "-xdev", "(", "-path", "/proc", "-o", "-path", "/root", "-o", "-path", "/var/cache", "-o", "-path", "/etc/systemd/system/r3-dockerproxy.service.d",
			")", "-prune", "-o", "(", "-name", "*jumpsuite*", "-o", "-name", "r3*", ")", "-print")
		out += d.must("find", "/run", "-name", "*jumpsuite*", "-o", "-name", "r3-*")
		if out != "" {
			p.t.Errorf("%s: these are left:\n%s", tt.pkg, out)
		}
	}
}

// gone is what the page leaves to the administrator, and who then has no trace in
// the user database.
func (d *debian) gone(user string) {
	d.t.Helper()
	const line = "userdel r3-ecr; groupdel jumpsuite"
	if page := d.pageText(); !strings.Contains(page, line) || !strings.Contains(page, "rm -r /var/log/jumpsuite") {
		d.t.Fatalf("operations.md does not say %q", line)
	}
	d.must("test", "-s", "/var/log/jumpsuite/audit.log")
	d.must("rm", "-r", "/var/log/jumpsuite")
	d.must("sh", "-ec", strings.ReplaceAll(line, "r3-ecr", user))
	for _, file := range []string{"/etc/passwd", "/etc/group", "/etc/shadow"} {
		if text := d.read(file); strings.Contains(text, user) || strings.Contains(text, "jumpsuite") {
			d.t.Errorf("%s: %s", file, text)
		}
	}
}
