package main

import (
	"runtime/debug"
	"strings"

	dockercli "github.com/docker/cli/cli"
	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/version"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func statusError(code int, text string) error {
	return dockercli.StatusError{StatusCode: code, Status: text}
}

// why says of each of docker's global options that is refused why it is.
var why = map[string]string{
	"config":    "no configuration of the caller's is read here",
	"context":   "there are no contexts here: the gate knows the host",
	"tls":       "the way to the host is the gate's, and encrypted where it leaves this machine",
	"tlscacert": "the way to the host is the gate's, and encrypted where it leaves this machine",
	"tlscert":   "the way to the host is the gate's, and encrypted where it leaves this machine",
	"tlskey":    "the way to the host is the gate's, and encrypted where it leaves this machine",
	"tlsverify": "the way to the host is the gate's, and encrypted where it leaves this machine",
}

// newRoot is docker's root command without any verb.
func newRoot(d *docker) *cobra.Command {
	root := &cobra.Command{
		Use:                   "docker [OPTIONS] COMMAND [ARG...]",
		Short:                 "Containers of docker hosts, as far as the policy allows",
		SilenceUsage:          true,
		SilenceErrors:         true,
		TraverseChildren:      true,
		DisableFlagsInUseLine: true,
		CompletionOptions:     cobra.CompletionOptions{DisableDefaultCmd: true},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SetOut(d.Err())
			cmd.HelpFunc()(cmd, nil)
			return nil
		},
	}
	root.PersistentPreRunE = d.check
	root.SetIn(d.In())
	root.SetOut(d.Out())
	root.SetErr(d.Err())
	config.SetDir("/nonexistent") // or it looks for the caller's home
	dockercli.SetupRootCommand(root)
	d.hideUnsupported(root)
	root.Flags().BoolP("version", "v", false, "Print version information and quit")
	for name := range why {
		_ = root.Flags().MarkHidden(name) // each of them is there: a test says so
	}
	root.Flags().Lookup("host").Usage = "Name of the docker host"
	root.Flags().String("environment", "", "Name of the environment that is meant, to make sure")
	root.Annotations = map[string]string{"additionalHelp": "What is allowed is up to the policy: a refusal names the rule that decided."}
	return root
}

// maxHostName is the length of the longest name that DNS knows.
const maxHostName = 253

// isHostName tells a bare name or address from what has a scheme, a port or a
// path. It is no pattern, because every start of the CLI would compile it.
func isHostName(s string) bool {
	const first = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	return s != "" && len(s) <= maxHostName && strings.Contains(first, s[:1]) && strings.Trim(s, first+".-") == ""
}

// globals takes the options before the verb, and returns the verb and all
// behind it.
func globals(root *cobra.Command, d *docker, args []string) (rest []string, err error) {
	flags := pflag.NewFlagSet("docker", pflag.ContinueOnError)
	flags.SetInterspersed(false)
	flags.Usage = func() {}
	flags.AddFlagSet(root.Flags())
	flags.AddFlagSet(root.PersistentFlags())
	if err := flags.Parse(args); err != nil {
		return nil, root.FlagErrorFunc()(root, err)
	}
	if err := refused(flags); err != nil {
		return nil, err
	}
	if host := flags.Lookup("host"); host.Changed {
		if err := d.setHost(host.Value.String()); err != nil {
			return nil, err
		}
	}
	if env := flags.Lookup("environment"); env.Changed {
		if err := d.setEnvironment(env.Value.String()); err != nil {
			return nil, err
		}
	}
	if err := setLogLevel(flags); err != nil {
		return nil, err
	}
	return remaining(flags), nil
}

// remaining is what is left to do: the help is asked for by an option, and cobra
// answers it. The version is answered here.
func remaining(flags *pflag.FlagSet) []string {
	rest := flags.Args()
	if isTrue(flags, "version") {
		return []string{versionOption}
	}
	if isTrue(flags, "help") {
		return append([]string{"--help"}, rest...)
	}
	return rest
}

// versionOption is all that is left of a command line that asks for the version.
const versionOption = "--version"

func isTrue(flags *pflag.FlagSet, name string) bool {
	return flags.Lookup(name).Value.String() == "true"
}

func refused(flags *pflag.FlagSet) (err error) {
	flags.Visit(func(f *pflag.Flag) {
		if reason, ok := why[f.Name]; ok && err == nil {
			err = unavailable(exitOurs, "leave it out", "--%s is not available: %s", f.Name, reason)
		}
	})
	return err
}

// setHost keeps the name of the host that is meant. The gate knows how to get
// there, and whether it may.
func (d *docker) setHost(name string) error {
	if !isHostName(name) {
		return unavailable(exitOurs, "give the bare name of a host: its instance id, private address or name", "-H %q is no name of a host: the way to it is the gate's", name)
	}
	d.headers[hostHeader] = name
	return nil
}

// setEnvironment keeps the environment that is meant. It chooses nothing: where
// a host is decides, and what is elsewhere is refused.
func (d *docker) setEnvironment(name string) error {
	if !isHostName(strings.ReplaceAll(name, "_", "-")) {
		return unavailable(exitOurs, "give the name of one that the policy knows", "--environment %q is no name of an environment", name)
	}
	d.headers[environmentHeader] = name
	return nil
}

func setLogLevel(flags *pflag.FlagSet) error {
	level := flags.Lookup("log-level").Value.String()
	if isTrue(flags, "debug") {
		level = "debug"
	}
	parsed, err := logrus.ParseLevel(level)
	if err != nil {
		return statusError(exitByDefault, "Unable to parse logging level: "+level)
	}
	logrus.SetLevel(parsed)
	return nil
}

// dockerVersion is the version of the docker CLI that is in here.
func dockerVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return version.Version
	}
	for _, m := range info.Deps {
		if m.Path == "github.com/docker/cli" {
			return trimVersion(m.Version)
		}
	}
	return version.Version
}
