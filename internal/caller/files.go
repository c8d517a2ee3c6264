package caller

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Starting getent and id costs more than all that is done with their answers.
// So where the system itself would look into two files and nowhere else, and
// where those leave nothing to interpretation, they are read here. Everything
// else is asked for as ever: another service in nsswitch.conf (SSSD, LDAP), a
// cache (nscd), records of systemd's, a line that readers could take
// differently, and whatever the files do not have.

// sources says where the system looks, as nsswitch.conf(5), nscd(8) and
// nss-systemd(8) have it. Its zero value is that nothing is known, and getent
// and id are always asked.
type sources struct {
	nsswitch string
	cache    string   // nscd's socket: where it is, what it says counts
	varlink  string   // folder of services that systemd's module asks
	records  []string // folders of records that systemd's module reads
}

var systemSources = sources{
	nsswitch: "/etc/nsswitch.conf",
	cache:    "/var/run/nscd/socket",
	varlink:  "/run/systemd/userdb",
	records:  []string{"/etc/userdb", "/run/userdb", "/run/host/userdb", "/usr/local/lib/userdb", "/usr/lib/userdb"},
}

// dynamicUsers is systemd's own service for the users of running units. It
// knows nothing of groups that a user is in, and is asked only for users whom
// the files do not have.
const dynamicUsers = "io.systemd.DynamicUser"

// onlyFiles reports whether nobody but the files has a say in who is in which
// group, and nobody before them in who is who.
func (s sources) onlyFiles() bool {
	if s.nsswitch == "" {
		return false
	}
	if _, err := os.Lstat(s.cache); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	text, ok := small(s.nsswitch)
	if !ok {
		return false
	}
	systemd, ok := servicesAreFiles(text)
	return ok && (!systemd || s.systemdIsSilent())
}

// servicesAreFiles reports whether the files come first for users and groups,
// with systemd's module at most behind them. A line for initgroups, or anything
// unknown, is a no.
func servicesAreFiles(nsswitch string) (systemd, ok bool) {
	seen := map[string]bool{}
	for line := range strings.Lines(nsswitch) {
		line, _, _ = strings.Cut(line, "#")
		kind, services, _ := strings.Cut(strings.TrimLeft(line, " \t"), ":")
		switch strings.TrimSpace(kind) {
		case "initgroups":
			return false, false
		case "passwd", "group":
		default:
			continue
		}
		switch kind + ":" + strings.Join(strings.Fields(services), " ") {
		case "passwd:files", "group:files":
		case "passwd:files systemd", "group:files systemd", "group:files [SUCCESS=merge] systemd":
			systemd = true
		default:
			return false, false
		}
		if seen[kind] {
			return false, false
		}
		seen[kind] = true
	}
	return systemd, seen["passwd"] && seen["group"]
}

// systemdIsSilent reports whether systemd's module has nothing to add.
func (s sources) systemdIsSilent() bool {
	for _, dir := range s.records {
		if !holdsOnly(dir, "") {
			return false
		}
	}
	return holdsOnly(s.varlink, dynamicUsers)
}

// holdsOnly reports whether a folder is not there, or has nothing but name in it.
func holdsOnly(dir, name string) bool {
	f, err := os.Open(dir)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	defer f.Close()
	names, err := f.Readdirnames(2)
	return len(names) == 0 && errors.Is(err, io.EOF) || len(names) == 1 && names[0] == name
}

// largest is the size of a file up to which it is read here, in bytes.
const largest = 1 << 20

// small is the text of a plain file that is not large.
func small(path string) (string, bool) {
	f, err := os.Open(path)
	if err != nil {
		return "", false
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() || st.Size() > largest {
		return "", false
	}
	text := make([]byte, st.Size()+1)
	n, err := io.ReadFull(f, text)
	return string(text[:n]), errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) // or it grew
}

// table is a file like /etc/passwd, each line taken apart.
type table [][]string

// readTable reads a file in which every line means one thing to every reader.
func readTable(path string, fields int) (t table, ok bool) {
	text, ok := small(path)
	if !ok {
		return nil, false
	}
	return parseTable(text, fields)
}

// parseTable wants as many fields as there have to be, numbers as they are
// written out, no spaces where some readers skip them, and no + or - with which
// a line is an instruction.
func parseTable(text string, fields int) (t table, ok bool) {
	if strings.IndexByte(text, 0) >= 0 {
		return nil, false
	}
	for line := range strings.SplitSeq(text, "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Split(line, ":")
		if len(f) != fields || !isPlain(f[0]) || !isNumber(f[2]) || fields == passwdFields && !isNumber(f[3]) {
			return nil, false
		}
		t = append(t, f)
	}
	return t, true
}

func isNumber(s string) bool {
	_, err := id(s)
	return err == nil
}

// isPlain reports whether a name, or a list of them, is one that readers can
// neither trim nor take for a number or an instruction.
func isPlain(name string) bool {
	if name == "" || name[0] >= '0' && name[0] <= '9' || name[0] == '-' {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '+' || r > '~' })
}

const (
	passwdFields = 7
	groupFields  = 4
)

// find is the line for a key: a number where it is one, as with getent.
func (t table) find(key string) ([]string, bool) {
	field := 0
	if isNumber(key) {
		field = 2
	} else if !isPlain(key) {
		return nil, false
	}
	i := slices.IndexFunc(t, func(f []string) bool { return f[field] == key })
	if i < 0 {
		return nil, false
	}
	return t[i], true
}

// inFiles are the lines for keys, if the files can answer for the system.
func (d database) inFiles(kind string, keys []string) (lines []string, ok bool) {
	path, fields := d.passwd, passwdFields
	if kind == "group" {
		path, fields = d.group, groupFields
	}
	if !d.sources.onlyFiles() {
		return nil, false
	}
	t, ok := readTable(path, fields)
	if !ok {
		return nil, false
	}
	for _, key := range keys {
		f, ok := t.find(key)
		if !ok {
			return nil, false
		}
		lines = append(lines, strings.Join(f, ":"))
	}
	return lines, true
}

// gidsInFiles are the groups of a user in the order in which id has them, if the
// files can answer for the system.
func (d database) gidsInFiles(c claim) (gids []int, ok bool) {
	if !isPlain(c.name) || !d.sources.onlyFiles() {
		return nil, false
	}
	t, ok := readTable(d.group, groupFields)
	if !ok {
		return nil, false
	}
	gids = []int{c.gid}
	for _, f := range t {
		members := f[3]
		if members != "" && !isPlain(members) {
			return nil, false
		}
		gid, err := strconv.Atoi(f[2])
		if err == nil && !slices.Contains(gids, gid) && slices.Contains(strings.Split(members, ","), c.name) {
			gids = append(gids, gid)
		}
	}
	return gids, true
}
