package main

import (
	"context"
	"fmt"
	"io"

	"jumpsuite/internal/caller"
	"jumpsuite/internal/cli"
	"jumpsuite/policy"
)

// groupsOf asks the system for a user's groups.
func groupsOf(ctx context.Context, user string) ([]string, error) {
	groups, err := caller.GroupsOf(ctx, user)
	if err != nil {
		return nil, cli.Errorf(cli.ExitNotFound, "for someone who is not known here, say the groups: --group developers", "groups of %s: %w", user, err)
	}
	return groups, nil
}

// warn names the users and groups of a policy that this machine does not know:
// a misspelt name in a rule that denies is a hole that no parser can see.
func warn(ctx context.Context, w io.Writer, p *policy.Policy) {
	users, groups := p.Principals()
	for _, u := range users {
		if err := caller.UserExists(ctx, u); err != nil {
			fmt.Fprintf(w, "note: user %s is not known on this machine\n", cli.Printable(u))
		}
	}
	denied := p.DeniedGroups()
	for _, g := range groups {
		if err := caller.GroupExists(ctx, g); err != nil {
			fmt.Fprintf(w, "note: group %s is not known on this machine%s\n", cli.Printable(g), consequence(g, denied))
		}
	}
}

// open names what a policy leaves to others: an entry for each key that is trusted is
// for those, too, that somebody publishes one day.
func open(w io.Writer, p *policy.Policy) {
	for _, name := range p.AnyJumpServer() {
		fmt.Fprintf(w, "note: the entry %s of jump-servers is for every key that this host trusts: whoever may write below "+
			"/jumpsuite/CLUSTER/jump-servers in Parameter Store can add one; narrower: what 'r3-admin keys show' prints on the jump servers\n", cli.Printable(name))
	}
}

func consequence(group string, denied []string) string {
	for _, d := range denied {
		if d == group {
			return "; a rule denies it something, so here nothing would be allowed"
		}
	}
	return ""
}
