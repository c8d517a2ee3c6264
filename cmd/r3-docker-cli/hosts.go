package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"

	"jumpsuite/internal/together"
)

// On a jump server ps, images and stats are about all hosts: each is asked on its
// own, as with -H, at the same time, and the answers become one table.

// farHost is one of the hosts that the gate leads to.
type farHost struct{ ID, Name, Environment string }

// hostList is what the gate says of them.
type hostList struct {
	Hosts   []farHost
	Missing []struct{ Environment, Error string }
}

// hostTime is how long a host may take to answer.
const hostTime = 10 * time.Second

// tablePatience is how long the hosts of a table wait for those among them that do not
// answer. The least has room for a session that has to be started.
var tablePatience = together.Patience{Most: hostTime, Least: 3 * time.Second, Times: 5}

// hosts asks the gate which hosts there are, for a verb. Nil: it is the gate of
// this host alone.
func (d *docker) hosts(ctx context.Context, verb string) (*hostList, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://gate/jumpsuite/hosts?for="+verb, nil)
	if err != nil {
		return nil, err
	}
	for key, value := range d.headers {
		req.Header.Set(key, value)
	}
	res, err := d.http().Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the gate for its hosts: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return nil, fmt.Errorf("ask the gate for its hosts: %w", err)
	case res.StatusCode == http.StatusNotFound && !d.fault.Load():
		return nil, nil
	case res.StatusCode != http.StatusOK:
		return nil, errors.New("Error response from daemon: " + message(body)) // docker's own words
	}
	list := &hostList{}
	if err := json.Unmarshal(body, list); err != nil {
		return nil, fmt.Errorf("the gate's list of hosts is not understood: %w", err)
	}
	return list, nil
}

func message(body []byte) string {
	var m struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &m) != nil || m.Message == "" {
		return strings.TrimSpace(string(body))
	}
	return m.Message
}

// on is the CLI for one host, whose output goes elsewhere.
func (d *docker) on(h farHost, out, errOut io.Writer) *docker {
	streams, err := command.NewDockerCli(command.WithInputStream(io.NopCloser(strings.NewReader(""))), command.WithOutputStream(out), command.WithErrorStream(errOut))
	if err != nil {
		panic(err) // no option of ours is there to fail
	}
	o := &docker{DockerCli: streams, gate: d.gate, config: d.config, headers: map[string]string{}}
	for key, value := range d.headers {
		o.headers[key] = value
	}
	o.headers[hostHeader], o.headers[environmentHeader] = h.ID, h.Environment
	o.connect = sync.OnceValues(o.connectUnasked)
	return o
}

// many is a verb that has one answer on a docker host, and a table of many on a
// jump server. With containers that are named it has one answer there, too: the gate
// finds out where they are.
func many(verb string, make func(command.Cli) *cobra.Command, table func(*docker, *cobra.Command, []string, *hostList) error) func(*docker) *cobra.Command {
	return func(d *docker) *cobra.Command {
		cmd := make(d)
		one := cmd.RunE
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if d.headers[hostHeader] != "" || verb == "stats" && len(args) > 0 {
				return one(cmd, args)
			}
			list, err := d.hosts(cmd.Context(), verb)
			if err != nil {
				return err
			}
			if list == nil {
				return one(cmd, args)
			}
			return table(d, cmd, args, list)
		}
		return cmd
	}
}

// eachHost asks each host for something, and says which came to nothing.
func eachHost[T any](ctx context.Context, d *docker, list *hostList, ask func(ctx context.Context, i int, h farHost) (T, error)) ([]T, error) {
	answers, errs := together.Ask(ctx, len(list.Hosts), d.patience, func(ctx context.Context, i int) (T, error) {
		return ask(ctx, i, list.Hosts[i])
	})
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return answers, d.told(list, errs)
}

// errSomeHosts is a table in which hosts are missing; which, has been said.
var errSomeHosts = statusError(exitByDefault, "")

// told names the hosts that did not answer.
func (d *docker) told(list *hostList, errs []error) error {
	var err error
	for _, m := range list.Missing {
		fmt.Fprintf(d.Err(), "docker: the hosts of %s are missing: %s\n", m.Environment, strings.TrimPrefix(m.Error, "jumpsuite: "))
		err = errSomeHosts
	}
	for i, e := range errs {
		if e == nil {
			continue
		}
		text := strings.TrimPrefix(strings.TrimPrefix(e.Error(), "Error response from daemon: "), "jumpsuite: ")
		if name := "host " + list.Hosts[i].Name; !strings.HasPrefix(text, name) {
			text = name + ": " + text
		}
		fmt.Fprintf(d.Err(), "docker: %s\n", text)
		err = errSomeHosts
	}
	return err
}

// rows runs a verb of docker's own on a host, and returns the lines of its table
// by the names of their columns.
func (d *docker) rows(ctx context.Context, h farHost, make func(command.Cli) *cobra.Command, args []string) ([]row, error) {
	var out bytes.Buffer
	o := d.on(h, &out, io.Discard)
	cmd := make(o)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cmd.SetArgs(args)
	if err := cmd.ExecuteContext(ctx); err != nil {
		return nil, err
	}
	var rows []row
	for line := range bytes.Lines(out.Bytes()) {
		r, err := parseRow(line)
		if err != nil {
			return nil, fmt.Errorf("what docker says of it is not understood: %w", err)
		}
		r["Host"], r["Environment"] = h.Name, h.Environment
		rows = append(rows, r)
	}
	return rows, nil
}

// environments reports whether a list has hosts of several.
func (l *hostList) environments() bool {
	return slices.ContainsFunc(l.Hosts, func(h farHost) bool { return h.Environment != l.Hosts[0].Environment })
}
