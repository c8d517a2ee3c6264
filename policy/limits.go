package policy

import (
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"jumpsuite/internal/pattern"
)

// limits reads limits over those that hold without them. What a file does not
// speak of stays.
func (r *reader) limits(n *yaml.Node, l Limits) Limits {
	if n == nil {
		return l
	}
	o := r.object(n, "limits", "exec", "run", "start", "session", "reason", "redact")
	r.exec(o.optional("exec"), &l.Exec)
	r.run(o.optional("run"), &l.Run)
	r.start(o.optional("start"), &l.Start)
	r.session(o.optional("session"), &l.Session)
	l.Reason = r.reason(o.optional("reason"), l.Reason)
	r.strings(o, "redact", &l.Redact, func(n *yaml.Node) string { return r.glob(n, variableName, "a variable").text })
	return l
}

// reason is whether one must be given.
func (r *reader) reason(n *yaml.Node, absent bool) bool {
	s, ok := r.scalar(n)
	switch {
	case !ok:
		return absent
	case s != "required" && s != "optional":
		r.add(n, "reason %q: write required or optional", s)
	}
	return s != "optional" // in doubt it is
}

func (r *reader) exec(n *yaml.Node, l *ExecLimits) {
	if n == nil {
		return
	}
	o := r.object(n, "limits.exec", "commands", "users", "env", "workdir", "detach", "escapes")
	r.commands(o, l)
	r.strings(o, "users", &l.Users, func(n *yaml.Node) string {
		return r.text(n, userName, "a user of the container, a number, or '*' for any")
	})
	r.strings(o, "env", &l.Env, func(n *yaml.Node) string { return r.text(n, envName, "the name of a variable") })
	r.strings(o, "escapes", &l.Escapes, r.typeName)
	l.WorkDir = r.boolean(o.optional("workdir"), l.WorkDir)
	l.Detach = r.boolean(o.optional("detach"), l.Detach)
}

func (r *reader) run(n *yaml.Node, l *RunLimits) {
	if n == nil {
		return
	}
	o := r.object(n, "limits.run", "memory", "cpus", "pids", "containers", "for", "networks", "users", "volumes", "binds", "publish", "digest")
	r.size(o.optional("memory"), &l.Memory)
	r.cpus(o.optional("cpus"), &l.CPUs)
	pids := r.count(o.optional("pids"), int(l.Pids), 1<<22)
	l.Pids = int64(pids)
	l.Containers = r.count(o.optional("containers"), l.Containers, 1000)
	r.duration(o.optional("for"), &l.For)
	r.strings(o, "networks", &l.Networks, func(n *yaml.Node) string { return r.text(n, networkName, "the name of a network") })
	r.strings(o, "users", &l.Users, func(n *yaml.Node) string { return r.text(n, userName, "a user of the image, a number, or '*' for any") })
	r.strings(o, "volumes", &l.Volumes, func(n *yaml.Node) string { return r.glob(n, variableName, "a volume").text })
	r.strings(o, "binds", &l.Binds, r.bind)
	l.Publish = r.boolean(o.optional("publish"), l.Publish)
	l.Digest = r.boolean(o.optional("digest"), l.Digest)
}

func (r *reader) start(n *yaml.Node, l *StartLimits) {
	if n == nil {
		return
	}
	o := r.object(n, "limits.start", "for", "escapes")
	r.duration(o.optional("for"), &l.For)
	r.strings(o, "escapes", &l.Escapes, r.typeName)
}

func (r *reader) session(n *yaml.Node, l *SessionLimits) {
	if n == nil {
		return
	}
	o := r.object(n, "limits.session", "idle", "for")
	r.duration(o.optional("idle"), &l.Idle)
	r.duration(o.optional("for"), &l.For)
}

var (
	// userName may be "name", "1000", "1000:1000".
	userName    = pattern.New(`^(\*|[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?)$`)
	envName     = pattern.New(`^[A-Za-z_][A-Za-z0-9_]*$`)
	networkName = pattern.New(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
	typeName    = pattern.Sized(255, `^[A-Za-z0-9_-]+$`)
	sizeText    = pattern.New(`^([1-9]\d{0,6})(MiB|GiB)$`)
)

func (r *reader) typeName(n *yaml.Node) string {
	return r.text(n, typeName, "the name of a container type, without * and ?")
}

// commands are lists of arguments, or the word any.
func (r *reader) commands(o object, l *ExecLimits) {
	n := o.optional("commands")
	if n == nil || !r.plain(n) {
		return
	}
	if n.Kind == yaml.ScalarNode && n.Value == "any" {
		l.AnyCommand = true
		return
	}
	l.AnyCommand, l.Commands = false, [][]string{}
	r.each(n, "commands", func(n *yaml.Node) {
		var argv []string
		r.each(n, "a command", func(n *yaml.Node) {
			if s, ok := r.scalar(n); ok {
				argv = append(argv, s)
			}
		})
		if len(argv) > 0 {
			l.Commands = append(l.Commands, argv)
		} else if n.Kind == yaml.SequenceNode {
			r.add(n, "an empty command: write its arguments, [bash]")
		}
	})
}

// bind is a path of the host, as it would stand in -v without its target.
func (r *reader) bind(n *yaml.Node) string {
	s, ok := r.scalar(n)
	if !ok {
		return ""
	}
	path := strings.TrimSuffix(s, ":ro")
	if !strings.HasPrefix(path, "/") || path == "/" || strings.ContainsAny(path, ":*?") || dotted(path) {
		r.add(n, "%q: write an absolute path below /, with :ro after it for reading only", s)
	}
	return s
}

// dotted reports whether path has elements that do not stand for themselves.
func dotted(path string) bool {
	for element := range strings.SplitSeq(path[1:], "/") {
		if element == "" || element == "." || element == ".." {
			return true
		}
	}
	return false
}

// strings replaces a list as a whole, where the key is there.
func (r *reader) strings(o object, key string, list *[]string, read func(*yaml.Node) string) {
	n := o.optional(key)
	if n == nil {
		return
	}
	*list = []string{}
	r.each(n, key, func(n *yaml.Node) { *list = append(*list, read(n)) })
}

func (r *reader) size(n *yaml.Node, bytes *int64) {
	s, ok := r.scalar(n)
	if !ok {
		return
	}
	m := sizeText.FindStringSubmatch(s)
	if m == nil {
		r.add(n, "%q: write a size like 512MiB or 2GiB", s)
		return
	}
	number, _ := strconv.ParseInt(m[1], 10, 64)
	*bytes = number << 20
	if m[2] == "GiB" {
		*bytes = number << 30
	}
}

func (r *reader) cpus(n *yaml.Node, cpus *float64) {
	s, ok := r.scalar(n)
	if !ok {
		return
	}
	number, err := strconv.ParseFloat(s, 64)
	if err != nil || !(number >= 0.01 && number <= 1024) {
		r.add(n, "%q: write a number of cores between 0.01 and 1024, like 0.5", s)
		return
	}
	*cpus = number
}

func (r *reader) count(n *yaml.Node, absent, most int) int {
	s, ok := r.scalar(n)
	if !ok {
		return absent
	}
	number, err := strconv.Atoi(s)
	if err != nil || number < 1 || number > most || s != strconv.Itoa(number) {
		r.add(n, "%q: write a whole number between 1 and %d", s, most)
		return absent
	}
	return number
}

// longest time that something made by hand may run.
const longest = 7 * 24 * time.Hour

func (r *reader) duration(n *yaml.Node, d *time.Duration) {
	s, ok := r.scalar(n)
	if !ok {
		return
	}
	number, err := time.ParseDuration(s)
	if err != nil || number < time.Minute || number > longest {
		r.add(n, "%q: write a time between 1m and %dh, like 8h or 30m", s, int(longest.Hours()))
		return
	}
	*d = number
}
