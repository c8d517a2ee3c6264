package ecsstatus

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// summaryEvents is how many events a summary shows.
const summaryEvents = 5

// WriteTable prints what was asked for. More than one thing gets titles.
func (v *View) WriteTable(w io.Writer) error {
	var parts []part
	add := func(title string, asked bool, render func(io.Writer)) {
		if asked {
			parts = append(parts, part{title, render})
		}
	}
	add("", v.Service != nil, v.summary)
	add("images", v.Images != nil && v.Service == nil, v.images)
	add("deployments", v.Deployments != nil, func(w io.Writer) { deployments(w, *v.Deployments) })
	add("events", v.Events != nil, func(w io.Writer) { events(w, *v.Events) })
	add("tasks", v.Tasks != nil, func(w io.Writer) { tasks(w, *v.Tasks) })
	add("task", v.Task != nil, func(w io.Writer) { task(w, v.Task) })
	var out strings.Builder
	write(&out, parts)
	_, err := io.WriteString(w, out.String())
	return err
}

type part struct {
	title  string
	render func(io.Writer)
}

func write(w io.Writer, parts []part) {
	for i, p := range parts {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if len(parts) > 1 {
			fmt.Fprintf(w, "%s:\n", p.title)
		}
		p.render(w)
	}
}

func (v *View) summary(w io.Writer) {
	s := v.Service
	f := newFields(w)
	f.field("container type", s.Name)
	f.field("cluster", v.Cluster)
	f.field("status", s.Status)
	f.field("desired", strconv.Itoa(s.Desired))
	f.field("running", strconv.Itoa(s.Running))
	f.field("pending", strconv.Itoa(s.Pending))
	f.field("task definition", ShortName(s.TaskDefinition))
	for _, u := range *v.Images {
		f.field(imageTitle(u, *v.Images), usage(u))
	}
	for _, d := range s.Deployments {
		f.field("deployment", progress(d))
	}
	f.Flush()
	fmt.Fprintln(w, "\nlast events:")
	events(w, s.Events[max(0, len(s.Events)-summaryEvents):])
}

// imageTitle names the container of an image where there are several.
func imageTitle(u ImageUse, all []ImageUse) string {
	if u.Container == all[0].Container && u.Container == all[len(all)-1].Container {
		return "image"
	}
	return "image of " + u.Container
}

// usage is an image in words: "REF (sha256:…), 2 tasks".
func usage(u ImageUse) string {
	s := fmt.Sprintf("%s (%s), %d tasks", u.Image, cmp.Or(u.Digest, "digest unknown"), u.Tasks)
	if u.Tasks == 1 {
		s = strings.TrimSuffix(s, "s")
	}
	return s
}

// progress is a deployment in words: "PRIMARY web:7, 2 of 2 running, COMPLETED".
func progress(d Deployment) string {
	s := fmt.Sprintf("%s %s, %d of %d running", d.Status, ShortName(d.TaskDefinition), d.Running, d.Desired)
	if d.Failed > 0 {
		s += fmt.Sprintf(", %d failed", d.Failed)
	}
	if d.RolloutState != "" {
		s += ", " + d.RolloutState
	}
	return s
}

func (v *View) images(w io.Writer) {
	t := newTable(w)
	t.row("container name", "image", "digest", "tasks")
	for _, u := range *v.Images {
		t.row(u.Container, u.Image, u.Digest, strconv.Itoa(u.Tasks))
	}
	if len(*v.Images) == 0 {
		t.row("", "", "", "")
	}
	t.Flush()
}

func deployments(w io.Writer, list []Deployment) {
	t := newTable(w)
	t.row("deployment", "status", "task definition", "desired", "running", "pending", "failed", "rollout state", "created", "updated", "reason")
	for _, d := range list {
		t.row(d.ID, d.Status, ShortName(d.TaskDefinition), strconv.Itoa(d.Desired), strconv.Itoa(d.Running), strconv.Itoa(d.Pending),
			strconv.Itoa(d.Failed), d.RolloutState, clock(d.Created), clock(d.Updated), d.Reason)
	}
	t.Flush()
}

// events prints one event a line, in ECS's words.
func events(w io.Writer, list []Event) {
	for _, e := range list {
		fmt.Fprintf(w, "%s  %s\n", clock(e.Time), line(e.Message))
	}
}

func tasks(w io.Writer, list []Task) {
	t := newTable(w)
	t.row("task", "lastStatus", "desiredStatus", "task definition", "created")
	for _, task := range list {
		t.row(task.ID, task.LastStatus, task.DesiredStatus, ShortName(task.TaskDefinition), clock(task.Created))
	}
	t.Flush()
}

// task prints a task under the names that the API has for its facts.
func task(w io.Writer, t *HostedTask) {
	f := newFields(w)
	f.field("task", t.ID)
	f.field("containerType", t.ContainerType)
	f.field("taskDefinition", ShortName(t.TaskDefinition))
	f.field("lastStatus", t.LastStatus)
	f.field("desiredStatus", t.DesiredStatus)
	f.known("stoppedReason", t.StoppedReason)
	f.known("stopCode", t.StopCode)
	f.field("healthStatus", t.HealthStatus)
	f.field("startedAt", clock(t.Started))
	f.known("stoppedAt", clock(t.Stopped))
	f.field("host", place(t))
	for _, c := range t.Containers {
		container(f, c)
	}
	f.Flush()
}

// place is where a task is: "10.0.0.10 (i-…, eu-central-1a)".
func place(t *HostedTask) string {
	switch {
	case t.Host != nil:
		return fmt.Sprintf("%s (%s, %s)", t.Host.Label(), t.Host.ID, cmp.Or(t.Host.Zone, t.Zone, "-"))
	case t.Instance != "":
		return ShortName(t.Instance) + " (gone)"
	}
	return ""
}

func container(f fields, c Container) {
	f.field("container", c.Name)
	f.field("  image", c.Image)
	f.field("  imageDigest", c.Digest)
	f.field("  lastStatus", c.LastStatus)
	f.field("  healthStatus", c.HealthStatus)
	if c.ExitCode != nil {
		f.field("  exitCode", strconv.Itoa(*c.ExitCode))
	}
	f.known("  reason", c.Reason)
	f.known("  runtimeId", c.RuntimeID)
	for _, p := range c.Ports {
		f.field("  port", p.String())
	}
}

// String is a port as docker shows it: "0.0.0.0:32768->8080/tcp".
func (p Port) String() string {
	host, inside := strconv.Itoa(p.Host), strconv.Itoa(p.Container)
	if p.ContainerRange != "" {
		host, inside = p.HostRange, p.ContainerRange
	}
	return fmt.Sprintf("%s:%s->%s/%s", cmp.Or(p.BindIP, "0.0.0.0"), host, inside, cmp.Or(p.Protocol, "tcp"))
}

// fields prints "name:  value" lines with the values below each other.
type fields struct{ table }

func newFields(w io.Writer) fields { return fields{newTable(w)} }

func (f fields) field(name, value string) { f.row(name+":", value) }

// known prints a field that is left out where there is nothing to say.
func (f fields) known(name, value string) {
	if value != "" {
		f.field(name, value)
	}
}
