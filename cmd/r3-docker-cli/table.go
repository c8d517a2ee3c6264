package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/cli/templates"
	"github.com/spf13/cobra"
)

// row is a line of a table, by the names that --format knows the columns by.
type row map[string]string

// FullHeader is not used: the table's is.
func (r row) FullHeader() any { return formatter.SubHeaderContext{} }

// Label is for {{.Label "name"}}.
func (r row) Label(name string) string {
	for _, l := range strings.Split(r["Labels"], ",") {
		if key, value, ok := strings.Cut(l, "="); ok && key == name {
			return value
		}
	}
	return ""
}

// parseRow takes a line of docker's --format json.
func parseRow(line []byte) (row, error) {
	var all map[string]any
	if err := json.Unmarshal(line, &all); err != nil {
		return nil, err
	}
	r := row{}
	for key, value := range all {
		switch v := value.(type) {
		case nil:
			r[key] = ""
		case string:
			r[key] = v
		case map[string]any: // a platform
			r[key] = fmt.Sprint(v["os"], "/", v["architecture"])
		default:
			r[key] = fmt.Sprint(v)
		}
	}
	return r, nil
}

// table is how the rows of a verb are shown.
type table struct {
	headers formatter.SubHeaderContext
	format  formatter.Format
}

// tableHeader is what a table's header is made from.
type tableHeader struct{ headers formatter.SubHeaderContext }

// FullHeader is the headers.
func (h tableHeader) FullHeader() any { return h.headers }

// newTable adds the hosts to a format of docker's own, unless it is the caller's.
func newTable(headers formatter.SubHeaderContext, docker formatter.Format, theirs string, several bool) (table, error) {
	headers["Host"], headers["Environment"] = "HOST", "ENVIRONMENT"
	t := table{headers: headers, format: docker}
	if theirs == "" || theirs == formatter.TableFormatKey {
		column := "{{.Host}}\t"
		if several {
			column = "{{.Environment}}\t" + column
		}
		if rest, ok := strings.CutPrefix(string(docker), "table "); ok {
			t.format = formatter.Format("table " + column + rest)
		}
	}
	if theirs == formatter.RawFormatKey {
		t.format = "host: {{.Host}}\n" + docker
	}
	return t, t.check()
}

// check refuses a format that names a column that there is none of: a row would
// leave it empty.
func (t table) check() error {
	text := strings.TrimPrefix(string(t.format), formatter.TableFormatKey)
	if t.format.IsJSON() {
		return nil
	}
	tmpl, err := templates.Parse(strings.Trim(text, " "))
	if err != nil {
		return fmt.Errorf("failed to parse template: %w", err)
	}
	if err := tmpl.Option("missingkey=error").Execute(io.Discard, t.headers); err != nil {
		return fmt.Errorf("failed to execute template: %w", err)
	}
	return nil
}

func (t table) write(out io.Writer, rows []row) error {
	c := formatter.Context{Output: out, Format: t.format}
	return c.Write(tableHeader{t.headers}, func(format func(formatter.SubContext) error) error {
		for _, r := range rows {
			if err := format(r); err != nil {
				return err
			}
		}
		return nil
	})
}

var psHeaders = formatter.SubHeaderContext{
	"ID": "CONTAINER ID", "Names": "NAMES", "Image": "IMAGE", "Command": "COMMAND", "CreatedAt": "CREATED AT", "RunningFor": "CREATED",
	"Ports": "PORTS", "State": "STATE", "Status": "STATUS", "Size": "SIZE", "Labels": "LABELS", "Mounts": "MOUNTS",
	"LocalVolumes": "LOCAL VOLUMES", "Networks": "NETWORKS", "Platform": "PLATFORM",
}

var imageHeaders = formatter.SubHeaderContext{
	"ID": "IMAGE ID", "Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT",
	"Size": "SIZE", "Containers": "CONTAINERS", "VirtualSize": "SIZE", "SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE",
}

// psTable is docker ps for all hosts.
func psTable(make func(command.Cli) *cobra.Command) func(*docker, *cobra.Command, []string, *hostList) error {
	return func(d *docker, cmd *cobra.Command, _ []string, list *hostList) error {
		flags := cmd.Flags()
		theirs, quiet := flags.Lookup("format").Value.String(), isTrue(flags, "quiet")
		size := isTrue(flags, "size") || strings.Contains(theirs, ".Size") && !flags.Changed("size") && !quiet
		t, err := newTable(psHeaders, formatter.NewContainerFormat(theirs, quiet, size), theirs, list.environments())
		if err != nil {
			return err
		}
		rows, err := d.gather(cmd.Context(), list, make, "--quiet=false", fmt.Sprintf("--size=%v", size), "--format={{json .}}")
		last, _ := strconv.Atoi(flags.Lookup("last").Value.String())
		if isTrue(flags, "latest") && last == -1 {
			last = 1
		}
		if last > 0 {
			rows = newest(rows, last)
		}
		return first(t.write(d.Out(), rows), err)
	}
}

// newest are the n that were created last, of all hosts.
func newest(rows []row, n int) []row {
	slices.SortStableFunc(rows, func(a, b row) int { return strings.Compare(b["CreatedAt"], a["CreatedAt"]) })
	return rows[:min(n, len(rows))]
}

// imagesTable is docker images for all hosts.
func imagesTable(make func(command.Cli) *cobra.Command) func(*docker, *cobra.Command, []string, *hostList) error {
	return func(d *docker, cmd *cobra.Command, _ []string, list *hostList) error {
		flags := cmd.Flags()
		if isTrue(flags, "tree") {
			return unavailable(exitOurs, "name a host: sudo docker -H HOST images --tree", "--tree is for one host")
		}
		theirs, quiet := flags.Lookup("format").Value.String(), isTrue(flags, "quiet")
		digests := isTrue(flags, "digests")
		source := theirs
		if source == "" {
			source = formatter.TableFormatKey
		}
		t, err := newTable(imageHeaders, formatter.NewImageFormat(source, quiet, digests), theirs, list.environments())
		if err != nil {
			return err
		}
		digests = digests || strings.Contains(theirs, ".Digest")
		rows, err := d.gather(cmd.Context(), list, make, "--quiet=false", fmt.Sprintf("--digests=%v", digests), "--format={{json .}}")
		return first(t.write(d.Out(), rows), err)
	}
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// gather runs docker's own verb on each host, as it was typed but for the options
// in more. Rows come in the order of the hosts; the error says which are missing.
func (d *docker) gather(ctx context.Context, list *hostList, make func(command.Cli) *cobra.Command, more ...string) ([]row, error) {
	args := withOptions(d.args, more)
	parts, err := eachHost(ctx, d, list, func(ctx context.Context, _ int, h farHost) ([]row, error) { return d.rows(ctx, h, make, args) })
	return slices.Concat(parts...), err
}

// withOptions adds options to a verb's arguments: the last of each counts, and
// behind a -- there are none.
func withOptions(args, more []string) []string {
	if i := slices.Index(args, "--"); i >= 0 {
		return slices.Concat(args[:i], more, args[i:])
	}
	return slices.Concat(args, more)
}
