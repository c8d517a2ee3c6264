package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// shipped are the programs of both packages.
var shipped = []string{
	"r3-container", "show-ecs-service-status", "r3-admin", "r3-docker", "r3-docker-cli", "r3-dockerproxy", "r3-ecr", "r3-ssm",
}

// made builds the programs, and makes all pages and completions.
func made(t *testing.T) (*book, string) {
	t.Helper()
	if testing.Short() {
		t.Skip("it builds all programs")
	}
	bin, out := t.TempDir(), t.TempDir()
	args := []string{"build", "-o", bin + "/"}
	for _, p := range shipped {
		args = append(args, "../../cmd/"+p)
	}
	if b, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, b)
	}
	o := options{source: "..", bin: bin, out: out, version: "1.2.3", at: time.Unix(1700000000, 0).UTC(), programs: shipped}
	if err := run(o); err != nil {
		t.Fatal(err)
	}
	b, err := readBook(bin, shipped)
	if err != nil {
		t.Fatal(err)
	}
	return b, out
}

func TestPagesAndCompletionsSayWhatTheProgramsSay(t *testing.T) {
	b, out := made(t)
	t.Run("each option and exit code of each command is in its page", func(t *testing.T) { everythingIsSaid(t, b, out) })
	t.Run("each page is good mdoc", func(t *testing.T) { goodPages(t, out) })
	t.Run("each completion is a good script", func(t *testing.T) { goodScripts(t, out) })
	t.Run("bash completes", func(t *testing.T) { bashCompletes(t, out) })
	t.Run("zsh completes", func(t *testing.T) { zshCompletes(t, out) })
	t.Run("fish completes", func(t *testing.T) { fishCompletes(t, out) })
}

func everythingIsSaid(t *testing.T, b *book, out string) {
	seen := 0
	for _, p := range b.programs {
		page := read1(t, out, p.words[0])
		for _, e := range p.exits {
			if !strings.Contains(page, ".It "+e.code+"\n") {
				t.Errorf("%s: exit code %s is not in the page", p.words[0], e.code)
			}
		}
		p.each(func(c *command) {
			if len(c.commands) > 0 {
				return
			}
			for _, o := range c.options {
				seen++
				if o.value == "value" {
					t.Errorf("%s: what %v takes has no name", strings.Join(c.words, " "), o.names)
				}
				if !strings.Contains(page, ".It "+mdocNames(o)+"\n"+mdocText(o.text)) {
					t.Errorf("%s: option %v is not in the page", strings.Join(c.words, " "), o.names)
				}
			}
		})
	}
	if seen < 50 {
		t.Errorf("only %d options were found: are the help texts still read?", seen)
	}
}

func read1(t *testing.T, out, program string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(out, "all/usr/share/man/man?", program+".[1-8]*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s has %d pages", program, len(found))
	}
	if strings.HasSuffix(found[0], ".gz") {
		return "" // a link to another page
	}
	text, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func goodPages(t *testing.T, out string) {
	if _, err := exec.LookPath("mandoc"); err != nil {
		t.Skip("mandoc is not installed")
	}
	pages, err := filepath.Glob(filepath.Join(out, "all/usr/share/man/man?/*.[1-8]"))
	if err != nil || len(pages) < 9 {
		t.Fatalf("%d pages", len(pages))
	}
	for _, p := range pages {
		if strings.HasSuffix(p, "jumpsuite-policy.5") {
			continue // made by md2man: man(7), which mandoc has an opinion on
		}
		if b, err := exec.Command("mandoc", "-T", "lint", "-W", "warning", p).CombinedOutput(); err != nil {
			t.Errorf("%s", b)
		}
	}
}

func goodScripts(t *testing.T, out string) {
	for shell, script := range map[string]string{
		"bash": "all/usr/share/bash-completion/completions/r3",
		"zsh":  "deb/usr/share/zsh/vendor-completions/_jumpsuite",
		"fish": "all/usr/share/fish/vendor_completions.d/jumpsuite.fish",
	} {
		text, err := os.ReadFile(filepath.Join(out, script))
		if err != nil {
			t.Fatal(err)
		}
		if regexp.MustCompile(`(?m)^[^#]*\beval\b`).Match(text) {
			t.Errorf("%s evaluates something", script)
		}
		if _, err := exec.LookPath(shell); err != nil {
			continue
		}
		if b, err := exec.Command(shell, "-n", filepath.Join(out, script)).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", script, err, b)
		}
	}
}

// typed is a line, and what completes its last word.
var typed = []struct{ line, want string }{
	{"r3 ", "container"},
	{"r3 container deploym", "deployments"},
	{"r3-container deploy --strategy r", "rolling replacing"},
	{"r3-container deploy --image-u", "--image-url"},
	{"r3 container show --container-type w", "web worker"},
	{"r3-admin policy ex", "explain"},
	{"r3-ssm en", "enrol"},
	{"show-ecs-service-status.py --service wo", "worker"},
	{"docker lo", "logs"},
	{"docker logs we", "web-1"},
	{"docker exec -it we", "web-1"},
	{"docker -H 10.0.0.1 --environment test lo", "logs"},
}

// answers is a sudo whose programs answer, and with names that nobody hopes for.
const answers = `#!/bin/sh
case "$*" in
*--container-types*) echo "['web', 'worker', '\$(touch evil)']" ;;
"-n -- docker ps"*) printf '%s\n' web-1 'db 1' '$(touch evil)' ;;
esac
`

// member is a machine where sudo answers so, and id says that we are in the group.
func member(t *testing.T) (path string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"sudo": answers, "id": "#!/bin/sh\n[ \"$1\" = -u ] && echo 1001 || echo dev jumpsuite\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if _, err := os.Stat(filepath.Join(dir, "evil")); err == nil {
			t.Error("a name was run as a command")
		}
	})
	return dir
}

// completed runs a shell that prints what completes a line, and compares.
func completed(t *testing.T, dir, line, want string, shell ...string) {
	t.Helper()
	cmd := exec.Command(shell[0], shell[1:]...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "HOME=" + dir}
	b, err := cmd.CombinedOutput()
	word := line[strings.LastIndexByte(line, ' ')+1:]
	got := slices.DeleteFunc(strings.Fields(string(b)), func(s string) bool { return !strings.HasPrefix(s, word) })
	wanted := strings.Fields(want)
	slices.Sort(got)
	slices.Sort(wanted)
	if err != nil || !slices.Equal(got, wanted) {
		t.Errorf("%q: got %q (%v), want %q", line, got, err, wanted)
	}
}

// zshCompletes plays what zsh's completion is for the functions: the words, and a
// compadd that says what it is given.
func zshCompletes(t *testing.T, out string) {
	if _, err := exec.LookPath("zsh"); err != nil {
		t.Skip("zsh is not installed")
	}
	folder := filepath.Join(out, "deb/usr/share/zsh/vendor-completions")
	dir := member(t)
	for _, tt := range typed {
		script := filepath.Join(folder, "_jumpsuite")
		if strings.HasPrefix(tt.line, "docker ") {
			script = filepath.Join(folder, "_0jumpsuite_docker")
		}
		completed(t, dir, tt.line, tt.want, append([]string{"zsh", "-fc", `
			compadd() { if [[ $1 == -a ]]; then print -rl -- ${(P)2}; else print -rl -- "$@[2,-1]"; fi }
			script=$1; shift; words=("$@"); CURRENT=$#; PREFIX=$words[CURRENT]; set --; source $script`, "zsh", script}, strings.Split(tt.line, " ")...)...)
	}
}

func fishCompletes(t *testing.T, out string) {
	if _, err := exec.LookPath("fish"); err != nil {
		t.Skip("fish is not installed")
	}
	dir := member(t)
	for _, tt := range typed {
		completed(t, dir, tt.line, tt.want, "fish", "--no-config", "-c",
			`source $argv[1]; complete -C $argv[2] | string split -f1 \t; true`, filepath.Join(out, "all/usr/share/fish/vendor_completions.d/jumpsuite.fish"), tt.line)
	}
}

func bashCompletes(t *testing.T, out string) {
	script := filepath.Join(out, "all/usr/share/bash-completion/completions/r3")
	dir := member(t)
	for _, tt := range typed {
		function := "_jumpsuite"
		if strings.HasPrefix(tt.line, "docker ") {
			function = "_jumpsuite_docker"
		}
		completed(t, dir, tt.line, tt.want, append([]string{"bash", "-c", `. "$1"; f=$2; shift 2
			COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); $f; printf '%s\n' "${COMPREPLY[@]}"`, "bash", script, function}, strings.Split(tt.line, " ")...)...)
	}
}
