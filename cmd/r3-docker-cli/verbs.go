//lint:file-ignore SA1019 docker/cli v28 exports its commands, and marks that as ending with v29: they are used in this file only

package main

import (
	"slices"
	"strings"

	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/command/container"
	"github.com/docker/cli/cli/command/image"
	"github.com/docker/cli/cli/command/system"
	"github.com/docker/cli/cli/version"
	"github.com/spf13/cobra"
)

// verb is a word that can be typed.
type verb struct {
	name string
	make func(*docker) *cobra.Command
}

// verbs are all that there are, in the order in which people are told.
var verbs = []verb{
	{"ps", many("ps", container.NewPsCommand, psTable(container.NewPsCommand))},
	{"images", many("images", image.NewImagesCommand, imagesTable(image.NewImagesCommand))},
	{"logs", func(d *docker) *cobra.Command { return container.NewLogsCommand(newLogsOf(d)) }},
	{"exec", from(container.NewExecCommand)},
	{"stats", many("stats", container.NewStatsCommand, statsTable)},
	{"inspect", newInspect},
	{"run", from(container.NewRunCommand)},
	{"pull", from(image.NewPullCommand)},
	{"start", from(container.NewStartCommand)},
	{"create", from(container.NewCreateCommand)},
	{"stop", from(container.NewStopCommand)},
	{"kill", from(container.NewKillCommand)},
	{"rm", from(container.NewRmCommand)},
	{"version", newVersion},
}

func from(f func(command.Cli) *cobra.Command) func(*docker) *cobra.Command {
	return func(d *docker) *cobra.Command { return f(d) }
}

func newVersion(d *docker) *cobra.Command {
	version.Version, version.GitCommit = dockerVersion(), "jumpsuite"
	return system.NewVersionCommand(d)
}

func names() string {
	var list []string
	for _, v := range verbs {
		list = append(list, v.name)
	}
	return strings.Join(list, " ")
}

// add adds to root what args ask for: making all verbs takes longer than most
// of them do. Without a verb in args it adds them all, for the help.
func add(root *cobra.Command, d *docker, args []string) error {
	word := firstWord(args)
	if word == "" || word == "help" {
		for _, v := range verbs {
			root.AddCommand(plain(v.make(d)))
		}
		return nil
	}
	i := slices.IndexFunc(verbs, func(v verb) bool { return v.name == word })
	if i < 0 {
		return unavailable(exitNoSuch, "what is: "+names(), "%q is not available here", word)
	}
	d.headers[verbHeader] = word
	d.args = args[slices.Index(args, word)+1:]
	root.AddCommand(plain(verbs[i].make(d)))
	return nil
}

// plain is a command without [flags] in its usage line; docker's are written out.
func plain(c *cobra.Command) *cobra.Command {
	c.DisableFlagsInUseLine = true
	return c
}

// firstWord is the verb in args, which have no global option any more but the
// one for the help.
func firstWord(args []string) string {
	for _, a := range args {
		if a != "--help" {
			return a
		}
	}
	return ""
}

// verbOf guesses the verb in a whole command line, to know how signals are to be
// taken before anything is parsed.
func verbOf(args []string) string {
	for _, a := range args {
		if slices.ContainsFunc(verbs, func(v verb) bool { return v.name == a }) {
			return a
		}
	}
	return ""
}

func trimVersion(v string) string {
	v, _, _ = strings.Cut(strings.TrimPrefix(v, "v"), "+")
	return v
}
