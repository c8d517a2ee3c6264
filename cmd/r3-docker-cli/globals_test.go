package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

	dockercli "github.com/docker/cli/cli"
	"github.com/spf13/pflag"
)

// parsed is what globals makes of a command line, without a gate.
func parsed(args ...string) (rest []string, d *docker, err error) {
	d = newDocker(nil)
	rest, err = globals(newRoot(d), d, args)
	return rest, d, err
}

func TestGlobalOptionsAreTakenOrRefused(t *testing.T) {
	for _, tt := range []struct {
		args string
		rest string // or the error
		code int
		host string
	}{
		{"ps -a", "ps -a", 0, ""},
		{"-H web1 ps", "ps", 0, "web1"},
		{"--host=i-0123 exec -it -H x y", "exec -it -H x y", 0, "i-0123"},
		{"-H10.0.0.1 ps", "ps", 0, "10.0.0.1"},
		{"-D -l warn ps", "ps", 0, ""},
		{"--help", "--help", 0, ""},
		{"--help run", "--help run", 0, ""},
		{"--version ps", "--version", 0, ""},
		{"-v", "--version", 0, ""},
		{"-- ps", "ps", 0, ""},
		{"-H", "flag needs an argument: 'H' in -H", 125, ""},
		{"-H= ps", "is no name of a host", 125, ""},
		{"-H /run/docker.sock ps", "is no name of a host", 125, ""},
		{"-H unix:///x ps", "is no name of a host", 125, ""},
		{"-H host:2375 ps", "is no name of a host", 125, ""},
		{"-H -x ps", "is no name of a host", 125, ""},
		{"-H web1 --tls=false ps", "--tls is not available", 125, ""},
		{"--config= ps", "--config is not available", 125, ""},
		{"-l nonsense ps", "Unable to parse logging level: nonsense", 1, ""},
	} {
		t.Run(tt.args, func(t *testing.T) {
			rest, d, err := parsed(strings.Fields(tt.args)...)
			var status dockercli.StatusError
			if errors.As(err, &status); status.StatusCode != tt.code {
				t.Fatalf("got %v, want code %d", err, tt.code)
			}
			if err != nil {
				if !strings.Contains(err.Error(), tt.rest) {
					t.Errorf("got %q, want %q", err, tt.rest)
				}
				return
			}
			if got := strings.Join(rest, " "); got != tt.rest || d.headers[hostHeader] != tt.host {
				t.Errorf("got %q and host %q, want %q and %q", got, d.headers[hostHeader], tt.rest, tt.host)
			}
		})
	}
}

// A new docker/cli may bring a new option: somebody has to say what becomes of it.
func TestEveryGlobalOptionIsDecidedAbout(t *testing.T) {
	taken := []string{"debug", "environment", "log-level", "host", "help", "version"}
	root := newRoot(newDocker(nil))
	var found []string
	for _, set := range []*pflag.FlagSet{root.Flags(), root.PersistentFlags()} {
		set.VisitAll(func(f *pflag.Flag) { found = append(found, f.Name) })
	}
	for _, name := range found {
		if _, refused := why[name]; refused == slices.Contains(taken, name) {
			t.Errorf("--%s is neither taken nor refused, or both", name)
		}
	}
	for name := range why {
		if !slices.Contains(found, name) {
			t.Errorf("--%s is refused, and docker has no such option", name)
		}
	}
}

func TestEveryVerbIsMadeUnderItsName(t *testing.T) {
	d := newDocker(nil)
	for _, v := range verbs {
		if got := v.make(d).Name(); got != v.name {
			t.Errorf("%s makes %s", v.name, got)
		}
		root := newRoot(d)
		if err := add(root, d, []string{v.name, "x"}); err != nil || len(root.Commands()) != 1 || d.headers[verbHeader] != v.name {
			t.Errorf("%s: %v, %d commands, verb %q", v.name, err, len(root.Commands()), d.headers[verbHeader])
		}
	}
	root := newRoot(d)
	if err := add(root, d, []string{"--help"}); err != nil || len(root.Commands()) != len(verbs) {
		t.Errorf("the help: %v, %d commands", err, len(root.Commands()))
	}
}

func TestVerbsThatAreNotThereEndWith126(t *testing.T) {
	d := newDocker(nil)
	for _, word := range []string{"build", "container", "attach", "cp", "info", "login", "system", "plugin", "completion", "__complete", "PS", "-x", "ps "} {
		err := add(newRoot(d), d, []string{word})
		var status dockercli.StatusError
		if !errors.As(err, &status) || status.StatusCode != 126 || !strings.Contains(err.Error(), "what is: ps images logs exec stats inspect run pull start create") {
			t.Errorf("%q: got %v", word, err)
		}
	}
}

func FuzzHostNamesChooseNoDaemon(f *testing.F) {
	f.Add("web1")
	f.Add("unix:///var/run/docker.sock")
	f.Add("a\r\nX-Registry-Auth: x")
	f.Fuzz(func(t *testing.T, name string) {
		if newDocker(nil).setHost(name) == nil && (name == "" || strings.ContainsAny(name, ":/\\@%\r\n\x00 ") || len(name) > 253 || name[0] == '-') {
			t.Errorf("%q is taken for the name of a host", name)
		}
	})
}
