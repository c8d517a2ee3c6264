package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"jumpsuite/internal/cli"
	"jumpsuite/internal/keys"
	"jumpsuite/internal/lab/world"
)

func TestAHostAndAJumpServerGetToKnowEachOther(t *testing.T) {
	l := startLab(t, "")
	dir := t.TempDir()
	enrols := func(role, instance string, more ...string) error {
		args := append([]string{"r3-ssm", "enrol", "--cluster", "prod", "--role", role, "--instance", instance, "--keys", filepath.Join(dir, instance)}, more...)
		return run(t.Context(), args, cli.Stdio{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard})
	}
	for range 2 { // who comes first knows the other the second time
		for instance, role := range map[string]string{first: "host", second: "jump-server"} {
			if err := enrols(role, instance); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := count(l, "PutParameter"); n != 2 {
		t.Errorf("published %d times, want once each", n)
	}
	for _, tt := range []struct {
		who, other string
		role       keys.Role
	}{{first, second, keys.JumpServers}, {second, first, keys.Hosts}} {
		here := keys.Store{Dir: filepath.Join(dir, tt.who), Admin: filepath.Join(dir, "admin"), Owner: os.Geteuid()}
		there, err := keys.Store{Dir: filepath.Join(dir, tt.other), Owner: os.Geteuid()}.Public()
		if err != nil {
			t.Fatal(err)
		}
		set, err := here.Load(tt.role)
		if err != nil || !set.TrustsAs(there[0], tt.other) {
			t.Errorf("%s does not know %s: %v", tt.who, tt.other, err)
		}
	}
	if err := enrols("jump-server", second, "--cluster", "test"); err != nil || count(l, "PutParameter") != 3 {
		t.Errorf("in two clusters at a time: %v, published %d times, want once more", err, count(l, "PutParameter"))
	}
	if err := enrols("host", first, "--forget"); err != nil || count(l, "DeleteParameter") != 1 {
		t.Errorf("forget: %v", err)
	}
	for _, tt := range []struct{ role, instance, want string }{
		{"", first, `--role "" is none`},
		{"several", first, "a host is in one cluster, and 2 are given"},
		{"host", "web-1", `"web-1" is no instance id`},
	} {
		var more []string
		if tt.role == "several" {
			tt.role, more = "host", []string{"--cluster", "test"}
		}
		if err := enrols(tt.role, tt.instance, more...); err == nil || !strings.Contains(err.Error(), tt.want) || cli.ExitCode(err) != cli.ExitUsage {
			t.Errorf("%s %s: got %v, want %q", tt.role, tt.instance, err, tt.want)
		}
	}
}

// A jump server's role may not publish: an administrator is told what to run, and
// the hosts' keys come all the same.
func TestAJumpServerThatMayNotPublishFetches(t *testing.T) {
	l := startLab(t, "")
	dir := t.TempDir()
	enrols := func(role, instance string) error {
		args := []string{"r3-ssm", "enrol", "--cluster", "prod", "--role", role, "--instance", instance, "--keys", filepath.Join(dir, instance)}
		return run(t.Context(), args, cli.Stdio{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard})
	}
	if err := enrols("host", first); err != nil {
		t.Fatal(err)
	}
	l.AddFault(world.Fault{Operation: "PutParameter", Error: "denied"})
	err := enrols("jump-server", second)
	own, kerr := keys.Store{Dir: filepath.Join(dir, second), Owner: os.Geteuid()}.Public()
	if kerr != nil {
		t.Fatal(kerr)
	}
	var out strings.Builder
	cli.Report(&out, "r3-ssm", err)
	for _, want := range []string{"publish this machine's keys as /jumpsuite/prod/jump-servers/" + second, "hint: somebody who may runs, anywhere: aws ssm put-parameter --region ",
		" --type String --overwrite --name /jumpsuite/prod/jump-servers/" + second + " --value '" + string(own[0]) + "'"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not said: %s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "add ssm:PutParameter") || cli.ExitCode(err) != cli.ExitUnavailable {
		t.Errorf("the role is to get the right that it must not have, or it ends with %d: %s", cli.ExitCode(err), out.String())
	}
	there, kerr := keys.Store{Dir: filepath.Join(dir, first), Owner: os.Geteuid()}.Public()
	if kerr != nil {
		t.Fatal(kerr)
	}
	set, kerr := keys.Store{Dir: filepath.Join(dir, second), Admin: filepath.Join(dir, "admin"), Owner: os.Geteuid()}.Load(keys.Hosts)
	if kerr != nil || !set.TrustsAs(there[0], first) {
		t.Errorf("the host is not known: %v", kerr)
	}
}
