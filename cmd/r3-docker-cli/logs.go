package main

import (
	"context"
	"errors"
	"io"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
)

// logsOf is the CLI for docker logs, which looks at the container before it asks
// for its log, to know how that is written. The gate says so beside the log: where
// the container is far away the look would be a round trip more.
type logsOf struct {
	*docker
	config *container.Config // the container's: what is known of it
}

func newLogsOf(d *docker) logsOf { return logsOf{d, &container.Config{}} }

// Client is the connection to the gate.
func (l logsOf) Client() client.APIClient {
	return &logsClient{APIClient: l.docker.Client(), docker: l.docker, config: l.config}
}

type logsClient struct {
	client.APIClient
	docker *docker
	config *container.Config
}

// ContainerInspect asks nobody: whether there is such a container shows next.
func (c *logsClient) ContainerInspect(_ context.Context, ref string) (container.InspectResponse, error) {
	return container.InspectResponse{ContainerJSONBase: &container.ContainerJSONBase{ID: ref}, Config: c.config}, nil
}

var errUnknownLog = errors.New("the gate does not say how the log is written: r3-docker and r3-docker-cli are not of one release")

// ContainerLogs is the log, and completes what was said of the container.
func (c *logsClient) ContainerLogs(ctx context.Context, ref string, o container.LogsOptions) (io.ReadCloser, error) {
	body, err := c.APIClient.ContainerLogs(ctx, ref, o)
	if err != nil {
		return nil, err
	}
	tty := c.docker.tty.Load()
	if tty == nil {
		body.Close()
		return nil, errUnknownLog
	}
	c.config.Tty = *tty
	return body, nil
}
