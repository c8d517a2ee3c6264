package access

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"jumpsuite/internal/cli"
	"jumpsuite/policy"
)

// sudoPath is never looked for in PATH.
const sudoPath = "/usr/bin/sudo"

// Escalate runs the command once more through sudo, where the policy says that
// AWS credentials are root's and it was called without. args are the arguments,
// the name that it was called by first. It returns where there is no need to, and
// then nothing has happened; otherwise the process becomes sudo's.
//
// sudo does not ask for a password: who may not use the command hears so from
// sudo, with its exit code 1.
func Escalate(args []string) error {
	if os.Geteuid() == 0 || help(args) {
		return nil
	}
	p, err := policy.Load(policy.Path)
	if err != nil || !p.RootCredentials() {
		return nil // without a policy to say so, the caller acts in his own name
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	program := calledBy(self, args[0])
	if fromSudo(program, os.Getenv("SUDO_COMMAND")) {
		return cli.Errorf(cli.ExitConfig, "an administrator lets "+program+" run as root: see /etc/sudoers.d/jumpsuite",
			"sudo runs this as uid %d, and the policy says that credentials are root's", os.Geteuid())
	}
	argv := append([]string{"sudo", "-n", "--", program}, args[1:]...)
	if err := syscall.Exec(sudoPath, argv, os.Environ()); err != nil {
		return cli.Errorf(cli.ExitConfig, "an administrator installs sudo", "the policy says that credentials are root's: run %s: %w", sudoPath, err)
	}
	return nil
}

// help reports whether nothing but help or the version was asked for.
func help(args []string) bool {
	if i := slices.Index(args, "--"); i >= 0 {
		args = args[:i]
	}
	return slices.ContainsFunc(args, func(a string) bool {
		return slices.Contains([]string{"-h", "--help", "-v", "--version"}, a)
	})
}

// calledBy is the path of this program under the name that it was called by,
// where that is another name of the same file beside it.
func calledBy(self, name string) string {
	other := filepath.Join(filepath.Dir(self), filepath.Base(name))
	a, err1 := os.Stat(self)
	b, err2 := os.Stat(other)
	if err1 == nil && err2 == nil && os.SameFile(a, b) {
		return other
	}
	return self
}

// fromSudo reports whether it was sudo that ran program, by the command that it
// says it ran. Then it is not asked again.
func fromSudo(program, command string) bool {
	ran, _, _ := strings.Cut(command, " ")
	return ran != "" && filepath.Base(ran) == filepath.Base(program)
}
