// Package caller finds out who called a privileged command through sudo, and
// takes away what that person could have planted: environment, umask, working
// directory, resource limits, rank, ignored signals, a control group of his own.
//
// Only sudo makes a caller: SUDO_UID, SUDO_GID and SUDO_USER must be there and
// agree with the user database, or nothing is done. The database is asked the
// way the system asks it, local files, SSSD and LDAP alike, through getent and
// id at fixed paths and with an empty environment; what cannot be resolved is
// refused. Where nsswitch.conf names no more than the local files, and they
// leave nothing to interpretation, they are read instead: it is the same answer.
package caller

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"jumpsuite/internal/cli"
)

// Caller is a person who called through sudo.
type Caller struct {
	UID    int
	GID    int // primary group
	Name   string
	Groups []string // names of all groups, the primary one first
	GIDs   []int    // the same groups, by number
	Home   string   // as the database has it; nothing of it is to be trusted
}

const lookupTimeout = 10 * time.Second // for everything that is asked of the user database

const viaSudo = "call it through sudo, or as the user whose AWS credentials are to be used"

// Enter is the first act of a privileged binary.
//
// Not running as root it returns nil, nil and touches nothing: the user acts in
// his own name. Started by root's own login it returns nil, nil too. Under sudo
// it returns the verified caller, after it has cleaned the process. Everything
// else is an error, after which nothing may be done.
//
// Called again, it returns the same again: the environment that it read is gone.
func Enter() (*Caller, error) { return enter() }

var enter = sync.OnceValues(func() (*Caller, error) {
	c, err := claimed()
	if err != nil || c == nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	return system.verify(ctx, *c)
})

// EnterEarly is Enter for a command that has something to do before the names of
// the caller's groups are known. They are asked for meanwhile, and there when
// groups returns: until then the caller's Groups are nil, and nothing may be
// decided about them. It is called once: the environment that it reads is gone then.
func EnterEarly() (who *Caller, groups func() ([]string, error), err error) {
	c, err := claimed()
	if err != nil || c == nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	if who, err = system.verifyNumbers(ctx, *c); err != nil {
		cancel()
		return nil, nil, err
	}
	groups = sync.OnceValues(func() ([]string, error) {
		defer cancel()
		names, err := system.groupNames(ctx, who.GIDs)
		if err != nil {
			return nil, unresolved(*c, err)
		}
		return names, nil
	})
	return who, groups, nil
}

// claimed reads what sudo says, and cleans the process. Nil is that there is no
// sudo, and no reason to refuse.
func claimed() (*claim, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	c, err := parseClaim(os.LookupEnv)
	if err != nil || c == nil {
		return nil, err
	}
	if err := sanitise(); err != nil {
		return nil, fmt.Errorf("clean the process of what the caller left: %w", err)
	}
	return c, nil
}

// claim is what sudo says about the caller.
type claim struct {
	uid, gid int
	name     string
}

// parseClaim reads sudo's variables; nil is root itself, without sudo.
func parseClaim(lookup func(string) (string, bool)) (*claim, error) {
	values := map[string]string{}
	for _, name := range []string{"SUDO_UID", "SUDO_GID", "SUDO_USER", "SUDO_COMMAND", "DOAS_USER", "PKEXEC_UID"} {
		if v, ok := lookup(name); ok {
			values[name] = v
		}
	}
	if _, ok := values["SUDO_UID"]; !ok {
		return nil, withoutSudo(values)
	}
	uid, err1 := id(values["SUDO_UID"])
	gid, err2 := id(values["SUDO_GID"])
	if err1 != nil || err2 != nil || values["SUDO_USER"] == "" {
		return nil, cli.Errorf(cli.ExitNotAllowed, viaSudo, "SUDO_UID %q, SUDO_GID %q, SUDO_USER %q do not name a caller",
			values["SUDO_UID"], values["SUDO_GID"], values["SUDO_USER"])
	}
	return &claim{uid: uid, gid: gid, name: values["SUDO_USER"]}, nil
}

// withoutSudo is nil for root's own login, which none of these variables marks.
func withoutSudo(values map[string]string) error {
	for _, name := range []string{"DOAS_USER", "PKEXEC_UID"} {
		if _, ok := values[name]; ok {
			return cli.Errorf(cli.ExitNotAllowed, viaSudo, "%s is set: doas and pkexec do not say who calls in a way that is checked here", name)
		}
	}
	if len(values) > 0 {
		return cli.Errorf(cli.ExitNotAllowed, viaSudo, "sudo was used, but SUDO_UID is not there: it is not known who calls")
	}
	return nil
}

// id parses a number as sudo writes it: digits only, no sign, no leading zero,
// and not the -1 that means "no user" to the kernel.
func id(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || strconv.FormatUint(n, 10) != s || n == 1<<32-1 {
		return 0, fmt.Errorf("%q is not a user or group id", s)
	}
	return int(n), nil
}
