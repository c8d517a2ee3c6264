//go:build packages

package packaging

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// shell runs lines in a folder.
func shell(t *testing.T, dir string, env []string, lines string) string {
	t.Helper()
	cmd := exec.Command("sh", "-ec", lines)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s\n%v\n%s", lines, err, last(string(out)))
	}
	return string(out)
}

// The page's commands sign what was built, with a key that is thrown away, and its
// other commands check it. A package that was changed afterwards is found.
func TestTheCommandsOfThePageSignAndCheck(t *testing.T) {
	for _, p := range []string{"gpg", "rpm", "rpmsign"} {
		need(t, p)
	}
	sign, check := commandsOf(t, "Releases"), commandsOf(t, "Checking a release")
	home, err := os.MkdirTemp("", "r3-sign-") // gpg's agent listens in there: a longer path is none for a socket
	must(t, err)
	must(t, os.Mkdir(home+"/dist", 0o755))
	for _, p := range []string{"*.deb", "*.rpm", "*.json"} {
		shell(t, home, nil, "cp "+strings.ReplaceAll(absolute(t, dist()), " ", "\\ ")+"/"+p+" dist/")
	}
	must(t, os.WriteFile(home+"/.rpmmacros", []byte("%_dbpath "+home+"/rpmdb\n"), 0o600))
	env := []string{"HOME=" + home, "GNUPGHOME=" + home, "MAINTAINER=Somebody <somebody@example.org>"}
	t.Cleanup(func() {
		shell(t, home, env, "gpgconf --kill all")
		os.RemoveAll(home)
	})
	shell(t, home, env, `gpg --batch --quiet --passphrase "" --quick-generate-key "$MAINTAINER" rsa3072 sign never`)
	shell(t, home, env, sign)
	out := shell(t, home, env, check)
	if n := strings.Count(out, "digests signatures OK"); n < 4 {
		t.Errorf("rpm found %d good signatures:\n%s", n, out)
	}
	for _, f := range []string{built(t, "jumpsuite_*_"+runtime.GOARCH+".deb"), built(t, "jumpsuite-[0-9]*."+rpmArch()+".rpm")} {
		shell(t, home, env, "printf x | dd of=dist/"+filepath.Base(f)+" bs=1 seek=20000 conv=notrunc 2>/dev/null")
		cmd := exec.Command("sh", "-ec", check)
		cmd.Dir, cmd.Env = home, append(os.Environ(), env...)
		if out, err := cmd.CombinedOutput(); err == nil {
			t.Errorf("%s was changed, and nothing is found:\n%s", filepath.Base(f), out)
		}
	}
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	must(t, err)
	return path
}

// What is released says who answers for it, and which version it is.
func TestAReleaseSaysWhoAnswersForIt(t *testing.T) {
	for _, tt := range []struct{ version, maintainer, say string }{
		{"1.0.0", "", "somebody has to answer"},
		{"", "Somebody <somebody@example.org>", "has a version"},
		{"1.0.0", "somebody", "is written NAME <ADDRESS>"},
	} {
		cmd := exec.Command("./build", runtime.GOARCH)
		cmd.Env = append(os.Environ(), "RELEASE=1", "DIST="+t.TempDir()+"/dist", "VERSION="+tt.version, "MAINTAINER="+tt.maintainer)
		out, err := cmd.CombinedOutput()
		if e, ok := errors.AsType[*exec.ExitError](err); !ok || e.ExitCode() != 2 || !strings.Contains(string(out), tt.say) {
			t.Errorf("version %q, maintainer %q: %v\n%s", tt.version, tt.maintainer, err, last(string(out)))
		}
	}
}

// The programs for the other architecture run: under qemu, where that is there.
func TestTheProgramsForARM64Run(t *testing.T) {
	const qemu = "qemu-aarch64-static"
	if runtime.GOARCH != "arm64" {
		need(t, qemu)
	}
	root := t.TempDir()
	for _, p := range both {
		deb := built(t, p+"_*_arm64.deb")
		if out, err := exec.Command("dpkg-deb", "-x", deb, root).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", deb, err, out)
		}
	}
	programs, err := filepath.Glob(root + "/usr/*bin/*")
	must(t, err)
	if len(programs) < 8 {
		t.Fatalf("the packages have only these programs: %q", programs)
	}
	run := func(args ...string) (string, int) {
		if runtime.GOARCH != "arm64" {
			args = append([]string{qemu}, args...)
		}
		cmd := exec.Command(args[0], args[1:]...)
		out, err := cmd.CombinedOutput()
		if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed {
			t.Fatalf("%q: %v", args, err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	for _, p := range programs {
		for option, say := range map[string]string{"--version": " version ", "--help": "usage:"} {
			if out, code := run(p, option); code != 0 || !strings.Contains(strings.ToLower(out), say) {
				t.Errorf("%s %s: exit code %d\n%s", filepath.Base(p), option, code, last(out))
			}
		}
	}
	for _, p := range []string{"r3-docker", "r3-docker-cli"} {
		if out, code := run(root+"/usr/libexec/jumpsuite/"+p, "ps"); code != 125 || !strings.Contains(out, "sudo docker") {
			t.Errorf("%s: exit code %d\n%s", p, code, last(out))
		}
	}
	policy := t.TempDir() + "/policy.yaml"
	must(t, os.WriteFile(policy, []byte(`environments: [{name: test, cluster: test, region: eu-central-1, production: false}]
rules: [{name: all, effect: allow, principals: ["user:dev"], actions: [docker.ps], environments: [test]}]
tests: [{user: dev, environment: test, command: docker ps, expect: allow}]
`), 0o644))
	if out, code := run(root+"/usr/sbin/r3-admin", "policy", "check", policy); code != 0 || !strings.Contains(out, "1 tests passed") && !strings.Contains(out, "1 test passed") {
		t.Errorf("r3-admin policy check: exit code %d\n%s", code, out)
	}
}
