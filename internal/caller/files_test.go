package caller

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// plainHost is a host with its user database in files, whose getent and id must
// not be started.
func plainHost(t *testing.T) database {
	t.Helper()
	d := fake(t, `echo started >&2; exit 3`, `echo started >&2; exit 3`)
	dir := t.TempDir()
	d.passwd, d.group = filepath.Join(dir, "passwd"), filepath.Join(dir, "group")
	d.sources = sources{
		nsswitch: filepath.Join(dir, "nsswitch.conf"),
		cache:    filepath.Join(dir, "nscd"),
		varlink:  filepath.Join(dir, "varlink"),
		records:  []string{filepath.Join(dir, "records")},
	}
	for path, text := range map[string]string{
		d.sources.nsswitch: "# of this host\npasswd: files systemd\ngroup:  files [SUCCESS=merge] systemd # and no more\nhosts: dns\n",
		d.passwd:           "# people\nroot:x:0:0:root:/root:/bin/sh\n\ndev1:x:1001:1002:Dev One, 2nd floor:/home/dev1:/bin/sh\n",
		d.group:            "root:x:0:\ndev1:x:1002:\nother:x:4000:someone\ndevelopers:*:5000:dev2,dev1\nagain:x:5000:dev1\nlast:x:6000:dev1",
	} {
		writeFile(t, path, text)
	}
	if err := os.Mkdir(d.sources.varlink, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(d.sources.varlink, dynamicUsers), "")
	return d
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

var dev1 = claim{1001, 1002, "dev1"}

func TestWhereTheFilesAreAllNobodyElseIsAsked(t *testing.T) {
	got, err := plainHost(t).verify(t.Context(), dev1)
	if err != nil {
		t.Fatal(err)
	}
	if got.Home != "/home/dev1" || !slices.Equal(got.GIDs, []int{1002, 5000, 6000}) || !slices.Equal(got.Groups, []string{"dev1", "developers", "last"}) {
		t.Errorf("got %+v", got)
	}
}

// TestElseTheSystemIsAsked has everything that may not be settled by reading
// the files: getent and id are started, which say no here.
func TestElseTheSystemIsAsked(t *testing.T) {
	change := func(of func(database) string, from, to string) func(*testing.T, database) {
		return func(t *testing.T, d database) {
			path := of(d)
			text, err := os.ReadFile(path)
			if err != nil || !strings.Contains(string(text), from) {
				t.Fatalf("%s has no %q: %v", path, from, err)
			}
			writeFile(t, path, strings.Replace(string(text), from, to, 1))
		}
	}
	nsswitch := func(from, to string) func(*testing.T, database) {
		return change(func(d database) string { return d.sources.nsswitch }, from, to)
	}
	passwd := func(from, to string) func(*testing.T, database) {
		return change(func(d database) string { return d.passwd }, from, to)
	}
	group := func(from, to string) func(*testing.T, database) {
		return change(func(d database) string { return d.group }, from, to)
	}
	for _, tt := range []struct {
		name   string
		change func(*testing.T, database)
	}{
		{"users in SSSD, too", nsswitch("passwd: files", "passwd: files sss")},
		{"users in SSSD first", nsswitch("passwd: files", "passwd: sss files")},
		{"groups in LDAP", nsswitch("systemd # and", "ldap # and")},
		{"groups with another action", nsswitch("[SUCCESS=merge]", "[NOTFOUND=return]")},
		{"users with an action", nsswitch("files systemd", "files [SUCCESS=merge] systemd")},
		{"users in compat", nsswitch("passwd: files systemd", "passwd: compat")},
		{"groups of users from elsewhere", nsswitch("hosts:", "initgroups: sss\nhosts:")},
		{"no line for groups", nsswitch("group:", "#group:")},
		{"two lines for users", nsswitch("hosts:", "passwd: files\nhosts:")},
		{"a line that readers take apart differently", nsswitch("passwd:", "passwd :")},
		{"no nsswitch.conf", func(t *testing.T, d database) { remove(t, d.sources.nsswitch) }},
		{"nscd", func(t *testing.T, d database) { writeFile(t, d.sources.cache, "") }},
		{"systemd's userdbd", func(t *testing.T, d database) {
			writeFile(t, filepath.Join(d.sources.varlink, "io.systemd.Multiplexer"), "")
		}},
		{"systemd's homed alone", func(t *testing.T, d database) {
			remove(t, filepath.Join(d.sources.varlink, dynamicUsers))
			writeFile(t, filepath.Join(d.sources.varlink, "io.systemd.Home"), "")
		}},
		{"systemd's records", func(t *testing.T, d database) {
			if err := os.Mkdir(d.sources.records[0], 0o755); err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Join(d.sources.records[0], "dev1:root.membership"), "")
		}},
		{"a folder that cannot be read", func(t *testing.T, d database) { writeFile(t, d.sources.records[0], "") }},
		{"a user that the file does not have", passwd("dev1:x:1001", "dev3:x:1003")},
		{"a group that the file does not have", group("dev1:x:1002", "dev1:x:1003")},
		{"an instruction among users", passwd("root:x", "+@team::::::\nroot:x")},
		{"an instruction among groups", group("root:x", "+:::\nroot:x")},
		{"a user taken back", passwd("root:x", "-dev1::::::\nroot:x")},
		{"a user of too few fields", passwd(":/bin/sh\n\n", "\n\n")},
		{"a group of too few fields", group("root:x:0:", "root:x:0")},
		{"a user with an odd number", passwd("root:x:0:0", "root:x:00:0")},
		{"a user with an odd group", passwd("root:x:0:0", "root:x:0:zero")},
		{"a group with an odd number", group("other:x:4000", "other:x:0x4000")},
		{"a line that starts with a space", passwd("root:x", " root:x")},
		{"a space among members", group("dev2,dev1", "dev2, dev1")},
		{"a line's end from elsewhere", group("someone\n", "someone\r\n")},
		{"a zero byte", passwd("Dev One", "Dev\x00One")},
		{"a user whose name is a number", passwd("root:x", "1001:x")},
		{"a large file", func(t *testing.T, d database) { writeFile(t, d.group, strings.Repeat("#\n", largest)) }},
		{"no file", func(t *testing.T, d database) { remove(t, d.group) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := plainHost(t)
			tt.change(t, d)
			if got, err := d.verify(t.Context(), dev1); got != nil || err == nil || !strings.Contains(err.Error(), "exit status 3") {
				t.Errorf("got %+v, %v, want what getent or id say", got, err)
			}
		})
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func TestFilesThatDisagreeAreARefusal(t *testing.T) {
	for _, tt := range []struct {
		name  string
		claim claim
	}{
		{"another name", claim{1001, 1002, "root"}},
		{"another number", claim{0, 1002, "dev1"}},
		{"another group", claim{1001, 1003, "dev1"}},
	} {
		d := plainHost(t)
		if got, err := d.verify(t.Context(), tt.claim); got != nil || err == nil {
			t.Errorf("%s: got %+v, %v", tt.name, got, err)
		}
	}
}

// TestTheFilesSayWhatTheSystemSays asks both about every user of this machine.
func TestTheFilesSayWhatTheSystemSays(t *testing.T) {
	if !system.sources.onlyFiles() {
		t.Skip("this machine's users are not in files alone")
	}
	asked := system
	asked.sources = sources{}
	users, ok := readTable(system.passwd, passwdFields)
	if !ok || len(users) == 0 {
		t.Skip("this machine's /etc/passwd is not plain")
	}
	for _, f := range users {
		read, err1 := GroupsOf(t.Context(), f[0])
		entry, err2 := asked.named(t.Context(), f[0])
		gids, err3 := asked.gids(t.Context(), claim{uid: entry.uid, gid: entry.gid, name: f[0]})
		names, err4 := asked.groupNames(t.Context(), gids)
		if err1 != nil || err2 != nil || err3 != nil || err4 != nil || !slices.Equal(read, names) {
			t.Errorf("%s: read %q (%v), the system says %q (%v, %v, %v)", f[0], read, err1, names, err2, err3, err4)
		}
	}
}

func FuzzTable(f *testing.F) {
	f.Add("root:x:0:\ndev1:x:1002:a,b\n# x\n\nlast:x:3:")
	f.Add("+:::\nroot:x:0")
	f.Fuzz(func(t *testing.T, text string) {
		lines, ok := parseTable(text, groupFields)
		if !ok {
			return
		}
		for _, l := range lines {
			if len(l) != groupFields || !isPlain(l[0]) || !isNumber(l[2]) {
				t.Errorf("%q: took %q", text, l)
			}
		}
	})
}
