package ecs

import (
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// Written is what a container has written to a log stream of CloudWatch Logs: the
// lines of its image, from when it started. The driver awslogs calls the stream
// PREFIX/CONTAINER/TASK (LogConfiguration's doc comment, awslogs-stream-prefix).
func (p *Plane) Written(group, stream string) (lines []string, at time.Time, found bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.state.clusters {
		for _, t := range c.tasks {
			if !strings.HasSuffix(stream, "/"+t.id) {
				continue
			}
			if ref := t.writer(group, stream); ref != "" {
				return p.imageLog(ref), t.started, true
			}
		}
	}
	return nil, time.Time{}, false
}

// writer is the image of the task's container that writes to a stream, as it
// was pulled; empty if none does, or it has not run.
func (t *task) writer(group, stream string) string {
	for _, d := range t.def.td.ContainerDefinitions {
		l := d.LogConfiguration
		if l == nil || l.LogDriver != types.LogDriverAwslogs || l.Options["awslogs-group"] != group {
			continue
		}
		for _, c := range t.containers {
			if c.name == *d.Name && c.runtime != "" && l.Options["awslogs-stream-prefix"]+"/"+c.name+"/"+t.id == stream {
				return c.image
			}
		}
	}
	return ""
}

func (p *Plane) imageLog(ref string) []string {
	if p.images == nil {
		return nil
	}
	_, image, err := p.images.Resolve(ref)
	if err != nil {
		return nil
	}
	return image.Log
}
