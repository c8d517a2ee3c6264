package main

import (
	"context"

	"jumpsuite/deployer"
	"jumpsuite/internal/access"
	"jumpsuite/internal/cli"
	"jumpsuite/policy"
)

// logs reads the logs of failed containers for those whom the policy allows
// docker.logs: a deployment is no way to what one may not read.
func logs(way *access.Access) func(context.Context, deployer.Log, int) ([]string, error) {
	read := deployer.CloudWatch(way.Config)
	return func(ctx context.Context, l deployer.Log, lines int) ([]string, error) {
		if err := way.Allow("docker.logs", policy.Resource{ContainerType: l.ContainerType, Image: l.Container.Image}); err != nil {
			return nil, cli.Errorf(cli.ExitNotAllowed, "someone who may can see it with: "+deployer.DockerLogs(l), "%v", err)
		}
		return read(ctx, l, lines)
	}
}
