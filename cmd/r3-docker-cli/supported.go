package main

import (
	"errors"
	"fmt"

	"github.com/docker/docker/api/types/versions"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Docker marks options that need a certain Engine. They are refused when given
// to another one, and its help does not show them; both in docker's own words.

// check refuses options of cmd that the Engine does not know, and content trust,
// for which docker would ask a server by itself. It asks the Engine only when one
// was given that is marked.
func (d *docker) check(cmd *cobra.Command, _ []string) error {
	var errs []error
	if f := cmd.Flags().Lookup("disable-content-trust"); f != nil && f.Value.String() == "false" {
		return unavailable(exitOurs, "the policy says which images may be run, by digest where that matters", "content trust is not available: nobody is asked for signatures here")
	}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if why := d.unsupported(f); why != "" {
			errs = append(errs, fmt.Errorf("%q %s", "--"+f.Name, why))
		}
	})
	return errors.Join(errs...)
}

// unsupported says what an option needs and the Engine has not.
func (d *docker) unsupported(f *pflag.Flag) string {
	if least := mark(f, "version"); least != "" && versions.LessThan(d.CurrentVersion(), least) {
		return fmt.Sprintf("requires API version %s, but the Docker daemon API version is %s", least, d.CurrentVersion())
	}
	if system := mark(f, "ostype"); system != "" {
		if has := d.ServerInfo().OSType; has != "" && has != system {
			return fmt.Sprintf("is only supported on a Docker daemon running on %s, but the Docker daemon is running on %s", system, has)
		}
	}
	if _, ok := f.Annotations["experimental"]; ok && !d.ServerInfo().HasExperimental {
		return "is only supported on a Docker daemon with experimental features enabled"
	}
	return ""
}

func mark(f *pflag.Flag, name string) string {
	if v := f.Annotations[name]; len(v) == 1 {
		return v[0]
	}
	return ""
}

// hideUnsupported makes the help leave out what the Engine does not know. Where
// it cannot be asked, the help shows everything.
func (d *docker) hideUnsupported(root *cobra.Command) {
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if len(f.Annotations) > 0 && d.unsupported(f) != "" {
				f.Hidden = true
			}
		})
		help(cmd, args)
	})
}
