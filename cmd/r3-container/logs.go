package main

import (
	"context"
	"strconv"
	"strings"

	"jumpsuite/deployer"
	"jumpsuite/ecsstatus"
	"jumpsuite/internal/access"
	"jumpsuite/internal/cli"
	"jumpsuite/policy"
)

// mostLog is how much of a log is kept, in bytes.
const mostLog = 64 << 10

// logs reads the logs of failed containers for those whom the policy allows
// docker.logs: a deployment is no way to what one may not read. What is not in
// CloudWatch Logs, or cannot be read there, is read on the host, where hosts are
// reached from here.
func logs(way *access.Access) func(context.Context, deployer.Log, int) ([]string, error) {
	read := deployer.CloudWatch(way.Config)
	if way.Caller == nil {
		return read
	}
	return func(ctx context.Context, l deployer.Log, lines int) ([]string, error) {
		host := hostOf(ctx, way, l.Task)
		if err := way.Allow("docker.logs", onHost(policy.Resource{ContainerType: l.ContainerType, Image: l.Container.Image}, host)); err != nil {
			return nil, cli.Errorf(cli.ExitNotAllowed, "someone who may can see it with: "+deployer.DockerLogs(l), "%v", err)
		}
		text, err := read(ctx, l, lines)
		if err == nil {
			return text, nil
		}
		docker, none := findDocker(way)
		if none != nil {
			return nil, err
		}
		return docker.logs(ctx, way.Environment, l, host, lines)
	}
}

// logs reads a log on its host.
func (d *sudoDocker) logs(ctx context.Context, environment string, l deployer.Log, host *ecsstatus.Host, lines int) ([]string, error) {
	args := append(at(environment, host), "logs", "--tail", strconv.Itoa(lines), "--", l.Container.RuntimeID)
	text, err := d.say(ctx, mostLog, args...)
	if err != nil {
		return nil, cli.Errorf(cli.ExitUnavailable, "see it with: "+deployer.DockerLogs(l), "read it on its host: %w", err)
	}
	if text = strings.TrimRight(text, "\r\n"); text == "" {
		return nil, nil
	}
	return strings.Split(text, "\n"), nil
}

// at are the arguments of docker that say where; a host that is not known is found
// by what is asked for.
func at(environment string, host *ecsstatus.Host) []string {
	args := []string{"--environment", environment}
	if host != nil {
		args = append(args, "-H", host.ID)
	}
	return args
}

// hostOf is the host of a task; nil where it is gone, or AWS does not say.
func hostOf(ctx context.Context, way *access.Access, t ecsstatus.Task) *ecsstatus.Host {
	v, err := ecsstatus.NewReader(way.Config, way.Cluster).View(ctx, t.ContainerType, ecsstatus.Ask{Task: t.ID})
	if err != nil {
		return nil
	}
	return v.Task.Host
}

// onHost is a resource on a host, by all names that it has. Where no host is known,
// neither are rules' words about hosts met.
func onHost(r policy.Resource, h *ecsstatus.Host) policy.Resource {
	if h != nil {
		r.Host, r.HostNames = h.Label(), []string{h.ID}
	}
	return r
}
