package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	urfave "github.com/urfave/cli/v2"

	"jumpsuite/internal/cli"
	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/world"
	"jumpsuite/internal/lab/worlds"
)

// answerLimit is the most that is read of a lab's answer, in bytes.
const answerLimit = 256 << 20

// labFlag says which lab to talk to.
func labFlag() urfave.Flag {
	return &urfave.StringFlag{Name: "lab", EnvVars: []string{"AWS_ENDPOINT_URL"}, Usage: "`URL` of the lab, as 'r3-lab up' prints it"}
}

func doCommand() *urfave.Command {
	return &urfave.Command{
		Name:        "do",
		Usage:       "make something happen in a running lab",
		ArgsUsage:   "VERB TO [VALUE]",
		Args:        true,
		Description: "Verbs:\n" + verbs(),
		Flags:       []urfave.Flag{labFlag()},
		Action: func(c *urfave.Context) error {
			if c.NArg() < 2 || c.NArg() > 3 {
				return cli.Usage("r3-lab do VERB TO [VALUE], such as: r3-lab do host-lost 10.0.0.10", "do takes two or three arguments, got %d", c.NArg())
			}
			a := world.Action{Do: c.Args().Get(0), To: c.Args().Get(1), Value: c.Args().Get(2)}
			if err := a.Check(); err != nil {
				return cli.Usage(nearestVerb(a.Do), "%w", err)
			}
			body, err := json.Marshal(map[string]string{"do": a.Do, "to": a.To, "value": a.Value})
			if err != nil {
				return err
			}
			return ask(c.Context, c.String("lab"), http.MethodPost, "/lab/do", body, nil)
		},
	}
}

func verbs() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, name := range slices.Sorted(maps.Keys(world.Verbs)) {
		fmt.Fprintf(w, "%s\t%s\n", name, world.Verbs[name])
	}
	w.Flush()
	return b.String()
}

func nearestVerb(given string) string {
	if near := cli.Nearest(given, slices.Sorted(maps.Keys(world.Verbs)), 1); len(near) > 0 && near[0] != given {
		return "did you mean " + near[0] + "?"
	}
	return ""
}

func faultCommand() *urfave.Command {
	return &urfave.Command{
		Name:      "fault",
		Usage:     "make calls of a running lab go wrong",
		ArgsUsage: "YAML",
		Args:      true,
		Description: `A fault is as in a world file:
   r3-lab fault '{operation: UpdateService, error: throttle, times: 2}'
   r3-lab fault '{operation: Describe*, latency: 300ms, stale: 10s}'
Keys: operation (a name or pattern), skip, times, error (throttle, server, denied,
unavailable, cut), after (the request takes effect first), latency, stale.`,
		Flags: []urfave.Flag{labFlag(), &urfave.BoolFlag{Name: "clear", Usage: "end all faults"}},
		Action: func(c *urfave.Context) error {
			if c.Bool("clear") && c.NArg() == 0 {
				return ask(c.Context, c.String("lab"), http.MethodDelete, "/lab/fault", nil, nil)
			}
			if c.NArg() == 0 || c.Bool("clear") {
				return cli.Usage("r3-lab fault '{operation: UpdateService, error: throttle}', or r3-lab fault --clear", "fault takes a fault or --clear")
			}
			text := strings.Join(c.Args().Slice(), " ")
			if _, err := world.ParseFault([]byte(text), "fault"); err != nil {
				return cli.Usage("", "%w", err)
			}
			return ask(c.Context, c.String("lab"), http.MethodPost, "/lab/fault", []byte(text), nil)
		},
	}
}

func callsCommand(stdio cli.Stdio) *urfave.Command {
	return &urfave.Command{
		Name:  "calls",
		Usage: "list the API calls that a running lab got",
		Flags: []urfave.Flag{
			labFlag(),
			&urfave.BoolFlag{Name: "count", Usage: "count them by operation"},
			&urfave.BoolFlag{Name: "json", Usage: "one JSON object a line"},
			&urfave.BoolFlag{Name: "reset", Usage: "forget them afterwards"},
		},
		Action: func(c *urfave.Context) error {
			var calls []lab.Call
			if err := ask(c.Context, c.String("lab"), http.MethodGet, "/lab/calls", nil, &calls); err != nil {
				return err
			}
			if err := printCalls(stdio.Out, calls, c.Bool("count"), c.Bool("json")); err != nil || !c.Bool("reset") {
				return err
			}
			return ask(c.Context, c.String("lab"), http.MethodDelete, "/lab/calls", nil, nil)
		},
	}
}

func printCalls(out io.Writer, calls []lab.Call, count, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(out)
		for _, c := range calls {
			if err := enc.Encode(c); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if count {
		counts := map[string]int{}
		for _, c := range calls {
			counts[c.Service+":"+c.Operation]++
		}
		for _, name := range slices.Sorted(maps.Keys(counts)) {
			fmt.Fprintf(w, "%s\t%d\n", name, counts[name])
		}
		return w.Flush()
	}
	for _, c := range calls {
		fmt.Fprintf(w, "%s\t%s:%s\t%s\t%s\n", c.Time.Format(time.TimeOnly), c.Service, c.Operation, cmp.Or(c.Code, "OK"), cli.Printable(string(c.Parameters)))
	}
	return w.Flush()
}

func eventsCommand(stdio cli.Stdio) *urfave.Command {
	return &urfave.Command{
		Name:  "events",
		Usage: "list what happened in a running lab: its own events and those of all services",
		Flags: []urfave.Flag{labFlag()},
		Action: func(c *urfave.Context) error {
			var events []lab.Event
			if err := ask(c.Context, c.String("lab"), http.MethodGet, "/lab/events", nil, &events); err != nil {
				return err
			}
			for _, e := range events {
				if _, err := fmt.Fprintf(stdio.Out, "%s  %s\n", e.Time.Format(time.TimeOnly), cli.Printable(e.Text)); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func worldsCommand(stdio cli.Stdio) *urfave.Command {
	return &urfave.Command{
		Name:      "worlds",
		Usage:     "list the worlds that r3-lab brings along, or print one",
		ArgsUsage: "[NAME]",
		Args:      true,
		Action: func(c *urfave.Context) error {
			if c.NArg() > 0 {
				text, err := worlds.Text(c.Args().First())
				if err != nil {
					return cli.Errorf(cli.ExitNotFound, hintNear(cli.Nearest(c.Args().First(), worlds.Names(), 3)), "%w", err)
				}
				_, err = stdio.Out.Write(text)
				return err
			}
			return printWorlds(stdio.Out)
		},
	}
}

// printWorlds lists names with the first line of each world's head.
func printWorlds(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, name := range worlds.Names() {
		text, err := worlds.Text(name)
		if err != nil {
			return err
		}
		first, _, _ := strings.Cut(string(text), "\n")
		fmt.Fprintf(w, "%s\t%s\n", name, strings.TrimLeft(first, "# "))
	}
	return w.Flush()
}

// ask makes a request to a running lab and decodes its answer into out, if that is not nil.
func ask(ctx context.Context, url, method, path string, body []byte, out any) error {
	if url == "" {
		return cli.Usage("give --lab URL, or set AWS_ENDPOINT_URL to what 'r3-lab up' printed", "which lab?")
	}
	q, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(url, "/")+path, bytes.NewReader(body))
	if err != nil {
		return cli.Usage("it looks like http://127.0.0.1:40123", "lab %q: %w", url, err)
	}
	r, err := http.DefaultClient.Do(q)
	if err != nil {
		return cli.Errorf(cli.ExitUnavailable, "is 'r3-lab up' still running?", "reach the lab: %w", err)
	}
	defer r.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(r.Body, answerLimit))
	if err != nil {
		return cli.Errorf(cli.ExitUnavailable, "", "read the lab's answer: %w", err)
	}
	if r.StatusCode != http.StatusOK {
		return cli.Errorf(cli.ExitNotFound, "", "the lab refused: %s", strings.TrimSpace(string(answer)))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}
