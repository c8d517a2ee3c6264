package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"jumpsuite/internal/carrier"
	"jumpsuite/internal/keys"
)

// The last part of the demo, in which the same person types sudo docker on a jump
// server: each host of the cluster has a gate, r3-dockerproxy, before its own Docker
// Engine, and is reached through a session of the lab's SSM.

// jumpServers lets the callers of the jump server with the key do what a host's rules
// say.
const jumpServers = `
jump-servers:
  - name: demo
    keys: [%q]
    environments: [prod]
    actions: [docker.version, docker.ps, docker.images, docker.logs, docker.stats, docker.inspect, docker.exec]
`

// gatePort is where a host's gate listens for sessions.
const gatePort = 2376

func (d *demo) onJumpServer(ctx context.Context, container string) []step {
	image := d.lab.World.ECR() + "/api:1.1"
	var both []string
	for _, h := range d.hosts() {
		both = append(both, `^`+regexp.QuoteMeta(h.IP)+` +ecs-api-7-api-`)
	}
	return []step{
		{
			say:    "On the jump server: no docker here, and the hosts are reached through SSM sessions only. Where a container is, ECS says.",
			before: func() error { return d.becomeJumpServer(ctx) }, sudo: true,
			command: []string{"docker", "logs", container},
			see:     []string{`^api 1\.1 is listening on port 8080$`},
		},
		{
			say: "A shell in it: through the session, the tunnel in it, and the gates at both ends.", sudo: true,
			command: []string{"docker", "exec", "-it", container, "sh"},
			types:   "hostname; exit 3\r", exit: 3,
			see: []string{`^[0-9a-f]{12}$`},
		},
		{
			say: "The containers of all hosts in one table, also those that ECS has stopped.", sudo: true,
			command: []string{"docker", "ps", "-a", "--format", `table {{.Host}}\t{{.Names}}\t{{.Status}}`},
			see:     both,
		},
		{
			say: "One host by its address.", sudo: true,
			command: []string{"docker", "-H", d.here, "ps", "--format", `table {{.Names}}\t{{.Status}}`},
			see:     []string{`^ecs-api-8-api-[0-9a-f]+ +Up `},
		},
		{
			say: "And what is not allowed is not, here either.", sudo: true,
			command: []string{"docker", "-H", d.here, "run", "--rm", image, "true"},
			exit:    exitRefused, see: []string{`docker\.run is not allowed in prod \(rule floor\)`},
		},
	}
}

// becomeJumpServer starts what is behind one.
func (d *demo) becomeJumpServer(ctx context.Context) error {
	for _, h := range d.hosts() {
		if err := d.serveHost(ctx, h.IP); err != nil {
			return fmt.Errorf("the gate of host %s: %w", h.IP, err)
		}
	}
	if _, err := d.daemon(ctx, "r3-ssm", "serve", "--listen", "unix://"+carrier.Socket); err != nil {
		return err
	}
	if err := os.Remove("/etc/jumpsuite/environment"); err != nil {
		return err
	}
	return d.host.SetPolicy(strings.Replace(demoPolicy, "{name: prod, ", "{name: prod, reach: ssm, endpoint: \""+d.lab.URL()+"\", ", 1))
}

// serveHost starts the gate of a host, and lets it and the jump server trust each other.
func (d *demo) serveHost(ctx context.Context, address string) error {
	dir, err := os.MkdirTemp("", "r3-lab-host")
	if err != nil {
		return err
	}
	d.behind = append(d.behind, func() { os.RemoveAll(dir) })
	there := keys.Store{Dir: filepath.Join(dir, "keys"), Admin: filepath.Join(dir, "trusted")}
	if err := introduce(keys.Store{}, there); err != nil {
		return err
	}
	policy := filepath.Join(dir, "policy.yaml")
	here, err := keys.Store{}.Public()
	if err != nil {
		return err
	}
	if err := os.WriteFile(policy, []byte(demoPolicy+fmt.Sprintf(jumpServers, here[0])), 0o644); err != nil {
		return err
	}
	said, err := d.daemon(ctx, "r3-dockerproxy", "--policy", policy, "--environment", "prod", "--listen", "tcp://127.0.0.1:0", "--engine", "unix://"+d.engineSocket(address),
		"--leases", filepath.Join(dir, "leases"), "--audit", filepath.Join(dir, "audit"), "--keys", there.Dir, "--trusted-keys", there.Admin, "--agent-check", "off")
	if err != nil {
		return err
	}
	return d.lab.Forward(address, gatePort, gateAddress.FindString(said))
}

var gateAddress = regexp.MustCompile(`127\.0\.0\.1:\d+`)

// introduce makes a jump server and a host trust each other.
func introduce(jump, host keys.Store) error {
	for _, pair := range []struct{ who, by keys.Store }{{jump, host}, {host, jump}} {
		own, err := pair.who.Own()
		if err != nil {
			return err
		}
		if err := pair.by.Trust(keys.Entry{Key: keys.ID(own), Name: keys.Any}); err != nil {
			return err
		}
	}
	return nil
}

// daemon starts a command that goes on until the demo ends, and returns the line
// in which it says that it is ready.
func (d *demo) daemon(ctx context.Context, name string, args ...string) (line string, err error) {
	cmd := exec.CommandContext(ctx, d.program(name), args...)
	cmd.Env = d.environment()
	out, err := cmd.StderrPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("start %s: %w", name, err)
	}
	d.behind = append(d.behind, func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	r := bufio.NewReader(out)
	for {
		line, err = r.ReadString('\n')
		if err != nil {
			return "", fmt.Errorf("%s is not ready: %s", name, strings.TrimSpace(line))
		}
		if strings.Contains(line, "msg=ready") {
			go io.Copy(io.Discard, r)
			return line, nil
		}
	}
}

// endBehind ends what becomeJumpServer started.
func (d *demo) endBehind() {
	for _, end := range d.behind {
		end()
	}
}
