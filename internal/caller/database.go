package caller

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"jumpsuite/internal/cli"
)

// database is the system's user database. Our binaries are static and have no
// NSS of their own, so it is asked through the system's tools, or read where the
// system would do no more than that.
type database struct {
	getent, id string // absolute paths
	passwd     string // read where that is all, or where getent is not installed
	group      string
	sources    sources
}

var system = database{getent: "/usr/bin/getent", id: "/usr/bin/id", passwd: "/etc/passwd", group: "/etc/group", sources: systemSources}

// verify resolves a claim, names of groups included.
func (d database) verify(ctx context.Context, c claim) (*Caller, error) {
	who, err := d.verifyNumbers(ctx, c)
	if err != nil {
		return nil, err
	}
	if who.Groups, err = d.groupNames(ctx, who.GIDs); err != nil {
		return nil, unresolved(c, err)
	}
	return who, nil
}

// verifyNumbers resolves a claim but for the names of groups. The name, the
// number and the primary group have to be one and the same user's, asked for by
// number and by name.
//
// Every command pays for this. Where the files are not all there is, it takes two
// processes side by side, and groupNames a third.
func (d database) verifyNumbers(ctx context.Context, c claim) (*Caller, error) {
	gids := d.askGIDs(c) // the slower one
	users, err := d.users(ctx, strconv.Itoa(c.uid), c.name)
	groups, err2 := gids(ctx)
	if err := errors.Join(err, err2); err != nil {
		return nil, unresolved(c, err)
	}
	byID, byName := users[0], users[1]
	if byID.name != c.name || byName.name != c.name || byID.uid != c.uid || byName.uid != c.uid || byID.gid != c.gid || byName.gid != c.gid {
		return nil, unresolved(c, fmt.Errorf("uid %d is %s with group %d, and %s is uid %d with group %d",
			c.uid, byID.name, byID.gid, c.name, byName.uid, byName.gid))
	}
	return &Caller{UID: c.uid, GID: c.gid, Name: c.name, Home: byID.home, GIDs: groups}, nil
}

func unresolved(c claim, err error) error {
	return cli.Errorf(cli.ExitNotAllowed, fmt.Sprintf("check 'getent passwd %d', 'getent passwd %s' and 'id %s' on this machine", c.uid, c.name, c.name),
		"the caller (SUDO_UID %d, SUDO_USER %q) is not confirmed by the user database: %w", c.uid, c.name, err)
}

// entry is a line of passwd.
type entry struct {
	name     string
	uid, gid int
	home     string
}

// users are the entries for keys, names or numbers, one each.
func (d database) users(ctx context.Context, keys ...string) ([]entry, error) {
	lines, err := d.lines(ctx, "passwd", d.passwd, keys...)
	if err != nil {
		return nil, err
	}
	entries := make([]entry, len(lines))
	for i, line := range lines {
		f := strings.Split(line, ":")
		if len(f) != 7 {
			return nil, fmt.Errorf("passwd entry of %q: %d fields, not 7", keys[i], len(f))
		}
		uid, err1 := id(f[2])
		gid, err2 := id(f[3])
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("passwd entry of %q: %w", keys[i], err)
		}
		entries[i] = entry{name: f[0], uid: uid, gid: gid, home: f[5]}
	}
	return entries, nil
}

// groupEntry is a line of group.
type groupEntry struct{ name, gid string }

func (d database) groupEntries(ctx context.Context, keys ...string) ([]groupEntry, error) {
	lines, err := d.lines(ctx, "group", d.group, keys...)
	if err != nil {
		return nil, err
	}
	entries := make([]groupEntry, len(lines))
	for i, line := range lines {
		f := strings.Split(line, ":")
		if len(f) != 4 || f[0] == "" {
			return nil, fmt.Errorf("group entry of %q: %d fields, not 4", keys[i], len(f))
		}
		entries[i] = groupEntry{name: f[0], gid: f[2]}
	}
	return entries, nil
}

// groupNames are the names of groups. One without a name is an error: a rule
// that denies it could not match.
func (d database) groupNames(ctx context.Context, gids []int) (names []string, err error) {
	var keys []string
	for _, gid := range gids {
		keys = append(keys, strconv.Itoa(gid))
	}
	entries, err := d.groupEntries(ctx, keys...)
	if err != nil {
		return nil, err
	}
	for i, e := range entries {
		if e.gid != keys[i] {
			return nil, fmt.Errorf("group %s is said to be %s, with the number %s", keys[i], e.name, e.gid)
		}
		names = append(names, e.name)
	}
	return names, nil
}

var errNotFound = errors.New("not in the user database")

// lines are the lines that the database has for keys, one each, in their order.
func (d database) lines(ctx context.Context, kind, file string, keys ...string) ([]string, error) {
	if lines, ok := d.inFiles(kind, keys); ok {
		return lines, nil
	}
	if _, err := os.Stat(d.getent); errors.Is(err, os.ErrNotExist) {
		return fileLines(kind, file, keys)
	}
	out, err := ask(d.getent, append([]string{"--", kind}, keys...)...).answer(ctx)
	if err == exitStatus(2) {
		return nil, fmt.Errorf("%s %q: %w", kind, keys, errNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("getent %s %q: %w", kind, keys, err)
	}
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	if out == "" || len(lines) != len(keys) {
		return nil, fmt.Errorf("getent %s %q: not one line each", kind, keys)
	}
	return lines, nil
}

// fileLines finds keys, names or numbers, in a file like /etc/passwd.
func fileLines(kind, file string, keys []string) (lines []string, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		line, ok := fileLine(string(text), key)
		if !ok {
			return nil, fmt.Errorf("%s %q: %w", kind, key, errNotFound)
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// fileLine takes a key that is a number for one, as getent does.
func fileLine(text, key string) (string, bool) {
	field := 0
	if _, err := id(key); err == nil {
		field = 2
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if f := strings.Split(line, ":"); len(f) > 2 && f[field] == key {
			return line, true
		}
	}
	return "", false
}

// gids are all groups of the caller, the primary one first.
func (d database) gids(ctx context.Context, c claim) ([]int, error) { return d.askGIDs(c)(ctx) }

// askGIDs asks for them; the answer has to be fetched.
func (d database) askGIDs(c claim) (answer func(context.Context) ([]int, error)) {
	if gids, ok := d.gidsInFiles(c); ok {
		return func(context.Context) ([]int, error) { return gids, nil }
	}
	asked := ask(d.id, "-G", "--", c.name)
	return func(ctx context.Context) ([]int, error) {
		out, err := asked.answer(ctx)
		if err != nil {
			return nil, fmt.Errorf("id -G %q: %w", c.name, err)
		}
		return parseGIDs(out, c)
	}
}

func parseGIDs(out string, c claim) (gids []int, err error) {
	for _, f := range strings.Fields(out) {
		gid, err := id(f)
		if err != nil {
			return nil, fmt.Errorf("id -G %q: %w", c.name, err)
		}
		gids = append(gids, gid)
	}
	if len(gids) == 0 || gids[0] != c.gid {
		return nil, fmt.Errorf("id -G %q does not start with the group %d", c.name, c.gid)
	}
	return gids, nil
}

// GroupExists reports why a group that a policy names cannot be resolved, or nil.
func GroupExists(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	got, err := system.groupEntries(ctx, name)
	if err == nil && got[0].name != name {
		return fmt.Errorf("group %q is called %q by the system", name, got[0].name)
	}
	return err
}

// UserExists reports why a user that a policy names cannot be resolved, or nil.
func UserExists(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	_, err := system.named(ctx, name)
	return err
}

// GroupsOf are the names of a user's groups, as the system has them.
func GroupsOf(ctx context.Context, name string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	user, err := system.named(ctx, name)
	if err != nil {
		return nil, err
	}
	gids, err := system.gids(ctx, claim{uid: user.uid, gid: user.gid, name: name})
	if err != nil {
		return nil, err
	}
	return system.groupNames(ctx, gids)
}

// named finds a user by a name that is exactly his.
func (d database) named(ctx context.Context, name string) (entry, error) {
	users, err := d.users(ctx, name)
	if err != nil {
		return entry{}, err
	}
	if users[0].name != name {
		return entry{}, fmt.Errorf("user %q is called %q by the system", name, users[0].name)
	}
	return users[0], nil
}
