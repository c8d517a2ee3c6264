package deployer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/awsconfig"
	"jumpsuite/internal/cli"
)

const (
	// tailLines is how many lines of a failed container's log are shown, and
	// tailWidth how many bytes of each.
	tailLines = 20
	tailWidth = 400
	// tailTasks is of how many failed tasks of a deployment: the next ones fail alike.
	tailTasks = 2
	// tailTries is how often an empty log is read again, a look later each time: the
	// log driver sends in batches.
	tailTries = 3
	// tailTime is how long reading one may take, on our clock: a log that is on a
	// host may need a session to it first.
	tailTime = 10 * time.Second
	// tailPatience is how long the look that finds a failed task waits for its log,
	// so that what is there quickly is told beside the task. Nothing waits longer: a
	// slow one is told later, and a roll-back does not wait for it.
	tailPatience = time.Second
)

// Log says where the log of a container is: what a Deployer's Logs is asked for.
type Log struct {
	ContainerType string
	Task          ecsstatus.Task
	Container     ecsstatus.Container
	// Driver and Options are those of the container's definition; a driver that is
	// not given there is empty: the Docker daemon's own.
	Driver  string
	Options map[string]string
}

// Tail is the end of a container's log, as an event has it.
type Tail struct {
	Task      string   `json:"task"`
	Container string   `json:"container"`
	Lines     []string `json:"lines"` // the last ones, oldest first
	// Why says why there are no lines, and Next how they can be seen.
	Why  string `json:"why,omitempty"`
	Next string `json:"next,omitempty"`
}

// tail is a log that is to be shown.
type tail struct {
	log        Log
	deployment string
	tries      int
	read       chan Tail // gets what was read; nil: nobody reads
}

// wantTails remembers the logs of a task that failed.
func (f *follower) wantTails(t ecsstatus.Task) {
	if f.d.Logs == nil || f.tailed >= tailTasks {
		return
	}
	names := guilty(t, f.w.goal.Container)
	for _, c := range names {
		conf := f.w.goal.Logs[c.Name]
		f.d.tails = append(f.d.tails, &tail{deployment: f.w.goal.ID, log: Log{ContainerType: f.w.goal.ContainerType, Task: t, Container: c, Driver: string(conf.LogDriver), Options: conf.Options}})
	}
	if len(names) > 0 {
		f.tailed++
	}
}

// guilty are the containers of a failed task that ran and whose logs may say why:
// those that ended with a code, or the one with the new image.
func guilty(t ecsstatus.Task, container string) []ecsstatus.Container {
	var out []ecsstatus.Container
	for _, c := range t.Containers {
		if c.RuntimeID != "" && c.ExitCode != nil && *c.ExitCode != 0 {
			out = append(out, c)
		}
	}
	if c := t.Container(container); len(out) == 0 && c != nil && c.RuntimeID != "" {
		out = append(out, *c)
	}
	return out
}

// showTails tells the logs that have been read, and begins to read the others,
// all at the same time. What is not there yet is left for later looks, those of
// a roll-back too.
func (d *Deployer) showTails(ctx context.Context) {
	patience := time.Duration(0)
	for _, t := range d.tails {
		if t.read == nil && t.tries == 0 {
			patience = tailPatience
		}
		d.beginTail(ctx, t)
	}
	d.takeTails(ctx, patience)
}

// endTails tells the logs that are still to be told, when nothing else is left to
// do. Who has interrupted does not wait for them.
func (d *Deployer) endTails(ctx context.Context) {
	for _, t := range d.tails {
		d.beginTail(ctx, t)
		t.tries = tailTries
	}
	d.takeTails(ctx, tailTime+tailPatience)
	d.tails = nil
}

// beginTail begins to read a log, if nobody reads it.
func (d *Deployer) beginTail(ctx context.Context, t *tail) {
	if t.read != nil {
		return
	}
	read := make(chan Tail, 1)
	t.read = read
	t.tries++
	go func() { read <- d.readTail(ctx, t.log) }()
}

// takeTails tells the logs that are read within patience.
func (d *Deployer) takeTails(ctx context.Context, patience time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	d.tails = slices.DeleteFunc(d.tails, func(t *tail) bool {
		shown, ok := t.wait(ctx)
		if ok && len(shown.Lines) == 0 && shown.Next == "" && t.tries < tailTries {
			t.read = nil // log drivers send in batches: once more, at the next look
			return false
		}
		if ok {
			d.tell(Event{Kind: TaskLog, Deployment: t.deployment, Message: tailLine(shown), Log: &shown})
		}
		return ok
	})
}

// wait is what was read, if it is before ctx ends.
func (t *tail) wait(ctx context.Context) (shown Tail, ok bool) {
	select {
	case shown = <-t.read:
		return shown, true
	case <-ctx.Done():
	}
	select {
	case shown = <-t.read: // both were so
		return shown, true
	default:
		return shown, false
	}
}

// readTail reads a log. That it cannot be read is no error: it is told.
func (d *Deployer) readTail(ctx context.Context, l Log) Tail {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tailTime)
	defer cancel()
	out := Tail{Task: l.Task.ID, Container: l.Container.Name, Lines: []string{}}
	lines, err := d.Logs(ctx, l, tailLines)
	if err != nil {
		out.Why, out.Next = err.Error(), hintOf(err)
		return out
	}
	for _, line := range lines[max(0, len(lines)-tailLines):] {
		out.Lines = append(out.Lines, strings.TrimRight(shorten(line, tailWidth), "\r\n"))
	}
	if len(out.Lines) == 0 {
		out.Why = "it is empty"
	}
	return out
}

// shorten cuts s to n bytes, at the beginning of a rune.
func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

func hintOf(err error) string {
	if h, ok := errors.AsType[interface {
		error
		Hint() string
	}](err); ok {
		return h.Hint()
	}
	return ""
}

func tailLine(t Tail) string {
	line := fmt.Sprintf("task %s, container %s", t.Task, t.Container)
	if len(t.Lines) > 0 {
		return line + ", the last lines"
	}
	line += ": " + t.Why
	if t.Next != "" {
		line += "; " + t.Next
	}
	return line
}

// CloudWatch reads the logs of containers with the log driver awslogs. Those of
// others are a *NoLogError.
func CloudWatch(cfg aws.Config) func(ctx context.Context, l Log, lines int) ([]string, error) {
	return func(ctx context.Context, l Log, lines int) ([]string, error) {
		if l.Driver != string(types.LogDriverAwslogs) {
			return nil, &NoLogError{Log: l}
		}
		client := cloudwatchlogs.NewFromConfig(cfg, func(o *cloudwatchlogs.Options) {
			if region := l.Options["awslogs-region"]; region != "" {
				o.Region = region
			}
		})
		out, err := client.GetLogEvents(ctx, &cloudwatchlogs.GetLogEventsInput{
			LogGroupName: aws.String(l.Options["awslogs-group"]), LogStreamName: aws.String(l.stream()),
			Limit: aws.Int32(int32(lines)), StartFromHead: aws.Bool(false)})
		if err != nil {
			return nil, fmt.Errorf("read log stream %s of %s: %w", l.stream(), l.Options["awslogs-group"], awsconfig.Explain(err))
		}
		var text []string
		for _, e := range out.Events {
			text = append(text, aws.ToString(e.Message))
		}
		return text, nil
	}
}

// stream is the name of the log stream of a container: PREFIX/CONTAINER/TASK, or
// the Docker container's ID where there is no prefix (doc comment of the SDK's
// LogConfiguration, awslogs-stream-prefix).
func (l Log) stream() string {
	if prefix := l.Options["awslogs-stream-prefix"]; prefix != "" {
		return prefix + "/" + l.Container.Name + "/" + l.Task.ID
	}
	return l.Container.RuntimeID
}

// NoLogError says that a log is on the task's host and not in AWS.
type NoLogError struct{ Log Log }

func (e *NoLogError) Error() string {
	driver := e.Log.Driver
	if driver == "" {
		driver = "the Docker daemon's own"
	}
	return "the log is on its host (log driver " + driver + ")"
}

// ExitCode is cli.ExitNotFound.
func (e *NoLogError) ExitCode() int { return cli.ExitNotFound }

// Hint is the command that shows it.
func (e *NoLogError) Hint() string { return "see it with: " + DockerLogs(e.Log) }

// DockerLogs is the command that shows the log of a container on its host.
func DockerLogs(l Log) string {
	return fmt.Sprintf("sudo docker logs --tail %d %s", tailLines, l.Container.RuntimeID[:min(len(l.Container.RuntimeID), 12)])
}
