package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"jumpsuite/internal/cli"
	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/sudoer"
)

// commands builds what the demo shows, and r3-lab itself.
func commands(t *testing.T) (bin string) {
	t.Helper()
	bin = t.TempDir()
	cmd := exec.Command("go", "build", "-o", bin, ".", "../r3-container", "../show-ecs-service-status", "../r3-docker", "../r3-docker-cli", "../r3-ecr", "../r3-admin", "../r3-ssm", "../r3-dockerproxy")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the commands: %v\n%s", err, out)
	}
	return bin
}

func TestTheDemoShowsWhatItSays(t *testing.T) {
	bin := commands(t)
	for _, tt := range []struct{ engine, says string }{
		{lab.Sim, "Left out: sudo docker on a docker host, because there are no real containers here."},
		{lab.Docker, "through the session, the tunnel in it, and the gates at both ends"},
	} {
		t.Run(tt.engine, func(t *testing.T) {
			t.Parallel()
			if err := sudoer.Available(); tt.engine == lab.Docker && err != nil {
				t.Skip(err)
			}
			// As a process of its own: it moves to a mount namespace.
			out, err := exec.CommandContext(t.Context(), bin+"/r3-lab", "demo", "--engine", tt.engine).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, want := range []string{"commands did what they should", tt.says} {
				if !strings.Contains(string(out), want) {
					t.Errorf("it does not say %q:\n%s", want, out)
				}
			}
		})
	}
}

func TestTheDemoNeedsTheOtherCommands(t *testing.T) {
	err := run(t.Context(), []string{"r3-lab", "demo", "--engine", "sim", "--bin", t.TempDir()}, cli.Stdio{Out: new(bytes.Buffer), Err: new(bytes.Buffer)})
	if err == nil || cli.ExitCode(err) != cli.ExitConfig || !strings.Contains(err.Error(), "the demo needs the other commands") {
		t.Errorf("without the commands: %v, exit code %d; want %d", err, cli.ExitCode(err), cli.ExitConfig)
	}
}

func TestADemoStepFailsWhenItsCommandDoesOtherwise(t *testing.T) {
	s := step{command: []string{"show"}, exit: 66, see: []string{`^hint: .*\bapi\b`, `^no such`}}
	for _, tt := range []struct {
		name, seen, want string
		exit             int
	}{
		{"as it should", "no such thing\nhint: did you mean api?\n", "", 66},
		{"exit code", "no such thing\nhint: did you mean api?\n", "show: exit code 0; want 66", 0},
		{"output", "hint: did you mean rapid?\n", "show: no line matches \"^hint: .*\\\\bapi\\\\b\"\nshow: no line matches \"^no such\"", 66},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if err := s.check(tt.exit, tt.seen); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("exit %d, seen %q: %q; want %q", tt.exit, tt.seen, got, tt.want)
			}
		})
	}
}

func TestADemoPrintsCommandsAsAShellTakesThem(t *testing.T) {
	got := strings.Join(quote([]string{"docker", "--format", "it's {{.ID}}", "a/b:1", ""}), " ")
	if want := `docker --format 'it'\''s {{.ID}}' a/b:1 ''`; got != want {
		t.Errorf("%s; want %s", got, want)
	}
}
