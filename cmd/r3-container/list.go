package main

import (
	"fmt"
	"io"

	urfave "github.com/urfave/cli/v2"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/cli"
	"jumpsuite/internal/commandline"
	"jumpsuite/policy"
)

func listCommand(stdio cli.Stdio, args []string) *urfave.Command {
	flags := append([]urfave.Flag{
		&urfave.BoolFlag{Name: "container-types", Usage: "only the names of the container types", DisableDefaultText: true},
		&urfave.StringFlag{Name: "container-type", Usage: "only containers of type `NAME`, and the hosts that have one"},
		&urfave.StringFlag{Name: "host", Usage: "only the host with this `IP` or instance id"},
		&urfave.BoolFlag{Name: "draining", Usage: "also the containers that ECS is stopping and that still hold their part of a host", DisableDefaultText: true},
		outputFlag(),
	}, commonFlags()...)
	return &urfave.Command{
		Name:  "list",
		Usage: "List Container by Hosts",
		Flags: flags,
		Action: func(c *urfave.Context) error {
			if err := once(args, flags); err != nil {
				return err
			}
			return list(c, stdio)
		},
	}
}

func list(c *urfave.Context, stdio cli.Stdio) error {
	format, err := ecsstatus.ParseFormat(c.String("output"))
	if err != nil {
		return err
	}
	filter, err := listFilter(c)
	if err != nil {
		return err
	}
	look := bars(stdio.Out)
	a, err := open(c, stdio, "ecs.list")
	if err != nil {
		return err
	}
	defer a.Close()
	if err := a.Allow("ecs.list", policy.Resource{}); err != nil {
		return err
	}
	r := ecsstatus.NewReader(a.Config, a.Cluster)
	if c.Bool("container-types") {
		return listContainerTypes(c, r, format, stdio.Out)
	}
	l, err := r.Listing(c.Context, filter)
	if err != nil {
		return err
	}
	noteListing(stdio.Err, l, filter)
	return ecsstatus.Write(stdio.Out, format, l, func(w io.Writer) error { return l.WriteTable(w, look) })
}

func listFilter(c *urfave.Context) (ecsstatus.Filter, error) {
	f := ecsstatus.Filter{Host: c.String("host"), ContainerType: c.String("container-type"), Stopping: c.Bool("draining")}
	if err := commandline.Filled(c, "host", "container-type"); err != nil {
		return f, err
	}
	for _, flag := range []string{"host", "container-type", "draining"} {
		if c.IsSet(flag) && c.Bool("container-types") {
			return f, cli.Usage("--container-types lists all container types", "options --container-types and --%s do not go together", flag)
		}
	}
	return f, nil
}

func listContainerTypes(c *urfave.Context, r *ecsstatus.Reader, format ecsstatus.Format, w io.Writer) error {
	names, err := r.ContainerTypes(c.Context)
	if err != nil {
		return err
	}
	return ecsstatus.Write(w, format, append([]string{}, names...), func(w io.Writer) error {
		_, err := fmt.Fprintln(w, ecsstatus.PythonList(names))
		return err
	})
}

// bars are for terminals only; NO_COLOR takes the colours, not the bars. It has
// to be asked before access.Open, which under sudo clears the environment.
func bars(w io.Writer) ecsstatus.Bars {
	columns, _ := cli.Terminal(w)
	return ecsstatus.Bars{Columns: columns, Color: cli.Color(w)}
}

// noteListing says what a reader of the listing should know of it.
func noteListing(stderr io.Writer, l *ecsstatus.Listing, f ecsstatus.Filter) {
	noteAddresses(stderr, l.Unknown)
	if len(l.Hosts) == 0 && len(l.Unplaced) == 0 {
		what := "no docker host"
		if f.ContainerType != "" {
			what = "no container of type " + f.ContainerType
		}
		note(stderr, what+" in cluster "+l.Cluster)
	}
}

// noteAddresses says why hosts are called by their instance ids.
func noteAddresses(stderr io.Writer, unknown error) {
	if unknown != nil {
		note(stderr, "hosts are shown by instance id, their addresses are not known: "+unknown.Error())
	}
}

func note(stderr io.Writer, text string) {
	fmt.Fprintf(stderr, "note: %s\n", cli.Printable(text))
}
