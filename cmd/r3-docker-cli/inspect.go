package main

import (
	"bytes"
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	dockercli "github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command/inspect"
	cliflags "github.com/docker/cli/cli/flags"
	"github.com/docker/docker/client"
	"github.com/spf13/cobra"
)

// newInspect is docker inspect for what the gate shows: containers and images.
// Docker's own would go on to look for networks, volumes, plugins and the like.
func newInspect(d *docker) *cobra.Command {
	var format, kind string
	var size bool
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] NAME|ID [NAME|ID...]",
		Short: "Return low-level information on containers and images",
		Args:  dockercli.RequiresMinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			find, err := d.finder(cmd.Context(), kind, size)
			if err != nil {
				return err
			}
			return inspect.Inspect(d.Out(), args, format, find)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&format, "format", "f", "", cliflags.InspectFormatHelp)
	flags.StringVar(&kind, "type", "", `Only inspect objects of the given type ("container", "image")`)
	flags.BoolVarP(&size, "size", "s", false, "Display total file sizes if the type is container")
	return cmd
}

// finder returns how to find an object of a kind; empty: of either.
func (d *docker) finder(ctx context.Context, kind string, size bool) (inspect.GetRefFunc, error) {
	find := map[string]inspect.GetRefFunc{
		"container": func(ref string) (any, []byte, error) { return d.Client().ContainerInspectWithRaw(ctx, ref, size) },
		"image":     func(ref string) (any, []byte, error) { return d.inspectImage(ctx, ref, size) },
	}
	if kind != "" {
		if f, ok := find[kind]; ok {
			return f, nil
		}
		return nil, unavailable(exitByDefault, "what can be inspected: container, image", "--type %q is not available here", kind)
	}
	return func(ref string) (any, []byte, error) {
		for _, kind := range []string{"container", "image"} {
			v, raw, err := find[kind](ref)
			if err == nil || !errdefs.IsNotFound(err) {
				return v, raw, err
			}
		}
		return nil, nil, fmt.Errorf("Error: No such object: %s", ref) // docker's own words
	}, nil
}

func (d *docker) inspectImage(ctx context.Context, ref string, size bool) (any, []byte, error) {
	var raw bytes.Buffer
	v, err := d.Client().ImageInspect(ctx, ref, client.ImageInspectWithRawResponse(&raw))
	if err == nil && size {
		fmt.Fprintln(d.Err(), "WARNING: --size ignored for image")
	}
	return v, raw.Bytes(), err
}
