package main

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"jumpsuite/internal/cli"
	"jumpsuite/internal/lab"
	"jumpsuite/internal/scripttest"
)

func TestTheDemoShowsWhatItSays(t *testing.T) {
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin, "../r3-container", "../show-ecs-service-status").CombinedOutput(); err != nil {
		t.Fatalf("build the commands: %v\n%s", err, out)
	}
	for _, engine := range []string{lab.Sim, lab.Docker} {
		t.Run(engine, func(t *testing.T) {
			if err := scripttest.DockerAvailable(); engine == lab.Docker && err != nil {
				t.Skip(err)
			}
			var out bytes.Buffer
			args := []string{"r3-lab", "demo", "--engine", engine, "--bin", bin}
			if err := run(t.Context(), args, cli.Stdio{In: strings.NewReader(""), Out: &out, Err: &out}); err != nil {
				t.Fatalf("%v\n%s", err, out.String())
			}
			if !strings.Contains(out.String(), "commands did what they should") {
				t.Errorf("it does not say that all is well:\n%s", out.String())
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
