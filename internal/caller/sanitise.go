package caller

import (
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"jumpsuite/internal/cli"
	"jumpsuite/internal/pattern"
)

// sanitise takes from the process what whoever started it could choose. Every
// step must succeed: one that did not is a hole.
func sanitise() error {
	if err := cleanEnvironment(); err != nil {
		return err
	}
	if err := leaveGroup(); err != nil {
		return err
	}
	if err := takeRank(); err != nil {
		return err
	}
	debug.SetTraceback("none") // GOTRACEBACK was the caller's until now
	unix.Umask(0o077)
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := raiseLimits(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	takeSignals()
	return nil
}

// safePath is root's, for what is started without an absolute path by libraries.
const safePath = "/usr/sbin:/usr/bin:/sbin:/bin"

// cleanEnvironment leaves a handful of variables that change how text looks, if
// their values can do nothing else. HOME is gone: the AWS SDK would run what
// ~/.aws/config says.
func cleanEnvironment() error {
	kept := keep(os.Environ())
	os.Clearenv()
	for name, value := range kept {
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return os.Setenv("PATH", safePath)
}

var (
	localeValue   = pattern.Sized(64, `^[A-Za-z0-9][A-Za-z0-9_.@-]*$`)
	terminalValue = pattern.Sized(64, `^[A-Za-z0-9][A-Za-z0-9_.+-]*$`)
	localeName    = pattern.Sized(35, `^LC_[A-Z]+$`)
)

// keep picks the variables that are harmless.
func keep(environ []string) map[string]string {
	kept := map[string]string{}
	for _, e := range environ {
		if name, value, ok := strings.Cut(e, "="); ok && harmless(name, value) {
			kept[name] = value
		}
	}
	return kept
}

func harmless(name, value string) bool {
	switch {
	case name == "LANG" || localeName.MatchString(name):
		return localeValue.MatchString(value) && !strings.Contains(value, "..")
	case name == "TERM":
		return terminalValue.MatchString(value) && !strings.Contains(value, "..")
	case name == "NO_COLOR":
		return len(value) <= 16 && !strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' })
	case name == "COLUMNS" || name == "LINES":
		n, err := strconv.ParseUint(value, 10, 16)
		return err == nil && n > 0
	}
	return false
}

// raise are the limits that sudo passes on from the caller: with ulimit -f 0 no
// audit record could be written, with ulimit -t 1 no work finished.
var raise = []int{unix.RLIMIT_FSIZE, unix.RLIMIT_AS, unix.RLIMIT_CPU, unix.RLIMIT_DATA, unix.RLIMIT_RSS}

// files is how many files may be open: enough for all streams of a gate.
// fewFiles is what a root without CAP_SYS_RESOURCE has to be content with.
const (
	files    = 65536
	fewFiles = 1024
)

// raiseLimits fails where the limits cannot be raised: a root without
// CAP_SYS_RESOURCE would work within whatever the caller chose.
func raiseLimits() error {
	for _, resource := range raise {
		if err := setLimit(resource, unix.RLIM_INFINITY, unix.RLIM_INFINITY); err != nil {
			return tooLow(resource, err)
		}
	}
	if err := setLimit(unix.RLIMIT_NOFILE, files, fewFiles); err != nil {
		return tooLow(unix.RLIMIT_NOFILE, err)
	}
	if err := setLimit(unix.RLIMIT_CORE, 0, 0); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	return nil
}

func tooLow(resource int, err error) error {
	return cli.Errorf(cli.ExitNotAllowed, "call it without ulimit; root here lacks CAP_SYS_RESOURCE, and cannot raise them",
		"the resource limits of the caller (number %d) cannot be raised: %w", resource, err)
}

// setLimit sets soft and hard limit to want; where that is not permitted, to
// what the hard limit is, if that is at least.
func setLimit(resource int, want, least uint64) error {
	err := unix.Setrlimit(resource, &unix.Rlimit{Cur: want, Max: want})
	if err == nil {
		return nil
	}
	var now unix.Rlimit
	if err := unix.Getrlimit(resource, &now); err != nil {
		return err
	}
	if now.Max < least {
		return err
	}
	return unix.Setrlimit(resource, &unix.Rlimit{Cur: now.Max, Max: now.Max})
}

// takeSignals makes signals arrive that the caller's shell ignored (trap ” INT).
// Go leaves SIGHUP and SIGINT ignored if they were so at the start, until
// someone asks for them. cli.Main has; for a binary that has not, they end it
// as SIGTERM does.
func takeSignals() {
	for _, s := range []unix.Signal{unix.SIGINT, unix.SIGHUP} {
		if !signal.Ignored(s) {
			continue
		}
		arrived := make(chan os.Signal, 1)
		signal.Notify(arrived, s)
		go func() {
			for range arrived {
				_ = unix.Kill(unix.Getpid(), unix.SIGTERM)
			}
		}()
	}
}
