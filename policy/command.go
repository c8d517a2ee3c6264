package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ParseCommand reads a command as people type it into what the policy is asked:
// "docker run alpine", "ecs deploy --container-type web --image-url …",
// "r3 container list". It knows the options that the policy has something to
// say about and those that it has nothing against; for any other it returns an
// error. It is for questions and tests: requests are never decided by argv.
func ParseCommand(args []string) (Request, error) {
	args = withoutSudo(args)
	if len(args) < 2 {
		return Request{}, fmt.Errorf("%q is not a command: write one like 'docker run alpine' or 'ecs deploy --container-type web'", strings.Join(args, " "))
	}
	action, ok := ParseAction(args[0] + "." + args[1])
	if !ok {
		return Request{}, fmt.Errorf("unknown command %q: %s", args[0]+" "+args[1], suggest(args[0]+"."+args[1], Actions()))
	}
	r := Request{Action: action}
	if args[0] == "ecs" {
		return r, parseECS(&r, args[2:])
	}
	return r, parseDocker(&r, args[2:])
}

// withoutSudo takes the other ways to say the same: sudo in front, and the ECS
// commands' real names.
func withoutSudo(args []string) []string {
	if len(args) > 0 && args[0] == "sudo" {
		args = args[1:]
	}
	switch {
	case len(args) > 2 && args[0] == "r3" && args[1] == "container":
		return append([]string{"ecs"}, args[2:]...)
	case len(args) > 1 && args[0] == "r3-container":
		return append([]string{"ecs"}, args[1:]...)
	case len(args) > 0 && strings.TrimSuffix(args[0], ".py") == "show-ecs-service-status":
		return append([]string{"ecs", "status"}, args[1:]...)
	}
	return args
}

// option is one of a command line: how many values it takes, and what it means.
type option struct {
	names string // with their hyphens, separated by spaces
	value bool
	set   func(value string) error // nil: the policy has nothing against it
}

func flag(names string, set func()) option {
	return option{names: names, set: func(string) error {
		if set != nil {
			set()
		}
		return nil
	}}
}

func valued(names string, set func(string)) option {
	return option{names: names, value: true, set: func(v string) error {
		if set != nil {
			set(v)
		}
		return nil
	}}
}

func parseECS(r *Request, args []string) error {
	set := func(s *string) func(string) { return func(v string) { *s = v } }
	rest, err := parseOptions(args, true, []option{
		valued("--container-type -t --service -s", set(&r.Resource.ContainerType)),
		valued("--image-url -i", set(&r.Resource.Image)),
		flag("--image --events --deployments --container-types --dry-run --supersede --force --skip-image-check --skip-room-check --wait-drained --quiet -q --watch -w --yes -y", nil),
		valued("--reason", set(&r.Reason)),
		valued("--container-status --container --strategy --to --timeout --interval --max-failures --on-interrupt --output -o --host --cluster -c --environment -e", nil),
	})
	if err == nil && len(rest) > 0 {
		return fmt.Errorf("unexpected argument %q", rest[0])
	}
	return err
}

func parseDocker(r *Request, args []string) error {
	switch r.Action {
	case DockerExec:
		return parseExec(r, args)
	case DockerRun, DockerCreate:
		return parseRun(r, args)
	case DockerPull:
		return parsePull(r, args)
	}
	// The other verbs have options that only change what is shown.
	return nil
}

func parseExec(r *Request, args []string) error {
	x := &Exec{}
	r.Exec = x
	rest, err := parseOptions(args, false, []option{
		flag("-i --interactive -t --tty", nil),
		flag("-d --detach", func() { x.Detach = true }),
		flag("--privileged", func() { x.Privileged = true }),
		valued("-u --user", func(v string) { x.User = v }),
		valued("-w --workdir", func(v string) { x.WorkDir = v }),
		valued("-e --env", func(v string) { x.Env = append(x.Env, before(v, "=")) }),
		valued("--detach-keys", nil),
	})
	if err == nil && len(rest) < 2 {
		return fmt.Errorf("docker exec needs a container and a command")
	}
	if err == nil {
		x.Argv = rest[1:]
	}
	return err
}

func parsePull(r *Request, args []string) error {
	rest, err := parseOptions(args, true, []option{flag("-q --quiet -a --all-tags", nil)})
	if err == nil && len(rest) != 1 {
		return fmt.Errorf("docker pull needs one image")
	}
	if err == nil {
		r.Resource.Image = rest[0]
	}
	return err
}

func parseRun(r *Request, args []string) error {
	x := &Run{}
	r.Run = x
	rest, err := parseOptions(args, false, runOptions(x))
	if err == nil && len(rest) == 0 {
		return fmt.Errorf("%s needs an image", strings.ReplaceAll(r.Action.String(), ".", " "))
	}
	if err == nil {
		r.Resource.Image = rest[0]
		x.Digest = strings.Contains(rest[0], "@sha256:")
	}
	return err
}

func runOptions(x *Run) []option {
	return []option{
		flag("-i --interactive -t --tty -d --detach --rm --init --read-only -q --quiet", nil),
		valued("--name --entrypoint -e --env -l --label -w --workdir -h --hostname -a --attach --detach-keys", nil),
		flag("--privileged", func() { x.Privileged = true }),
		flag("-P --publish-all", func() { x.Publish = true }),
		valued("-p --publish", func(string) { x.Publish = true }),
		valued("-u --user", func(v string) { x.User = v }),
		valued("--network --net", func(v string) { x.Network = v }),
		valued("-v --volume", x.mount),
		{"-m --memory", true, func(v string) (err error) { x.Memory, err = dockerSize(v); return err }},
		{"--cpus", true, func(v string) (err error) { x.CPUs, err = strconv.ParseFloat(v, 64); return err }},
		{"--pids-limit", true, func(v string) (err error) { x.Pids, err = strconv.ParseInt(v, 10, 64); return err }},
	}
}

// mount reads -v: /path:/target[:ro] is a bind, name:/target a volume, and
// /target alone an anonymous volume, which is the container's own.
func (x *Run) mount(v string) {
	source, rest, ok := strings.Cut(v, ":")
	if !ok {
		return
	}
	if !strings.HasPrefix(source, "/") && !strings.HasPrefix(source, ".") && !strings.HasPrefix(source, "~") {
		x.Volumes = append(x.Volumes, source)
		return
	}
	if _, mode, ok := strings.Cut(rest, ":"); ok && slices.Contains(strings.Split(mode, ","), "ro") {
		source += ":ro"
	}
	x.Binds = append(x.Binds, source)
}

// dockerSize is docker's notation: 512m, 1g, bytes without a letter.
func dockerSize(v string) (int64, error) {
	v = strings.ToLower(strings.TrimSuffix(strings.ToLower(v), "b"))
	shift := 0
	for i, suffix := range []string{"k", "m", "g"} {
		if s, ok := strings.CutSuffix(v, suffix); ok {
			v, shift = s, 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(v, 10, 32)
	return n << shift, err
}

func before(s, sep string) string {
	b, _, _ := strings.Cut(s, sep)
	return b
}

// parseOptions reads options and returns what is none. interspersed: options may
// stand after arguments; otherwise the first argument ends them, as in docker
// exec and docker run.
func parseOptions(args []string, interspersed bool, known []option) (rest []string, err error) {
	for len(args) > 0 {
		arg := args[0]
		switch {
		case arg == "--":
			return append(rest, args[1:]...), nil
		case len(arg) > 1 && arg[0] == '-':
			if args, err = parseOption(args, known); err != nil {
				return nil, err
			}
		case !interspersed:
			return args, nil
		default:
			rest, args = append(rest, arg), args[1:]
		}
	}
	return rest, nil
}

// parseOption reads the option at the front, and returns what follows it.
func parseOption(args []string, known []option) ([]string, error) {
	arg := args[0]
	if !strings.HasPrefix(arg, "--") {
		return parseShort(arg[1:], args[1:], known)
	}
	name, value, given := strings.Cut(arg, "=")
	o, err := find(known, name)
	if err != nil {
		return nil, err
	}
	switch {
	case !o.value && given && value != "true":
		return nil, fmt.Errorf("option %s: leave the value out", name)
	case o.value && !given:
		return takeValue(name, o, args[1:])
	}
	return args[1:], o.apply(name, value)
}

// parseShort reads -it, -u0, -u 0.
func parseShort(letters string, args []string, known []option) ([]string, error) {
	for i, letter := range letters {
		name := "-" + string(letter)
		o, err := find(known, name)
		if err != nil {
			return nil, err
		}
		rest := letters[i+len(string(letter)):]
		if o.value && rest == "" {
			return takeValue(name, o, args)
		}
		if o.value {
			return args, o.apply(name, strings.TrimPrefix(rest, "="))
		}
		if err := o.apply(name, ""); err != nil {
			return nil, err
		}
	}
	return args, nil
}

func takeValue(name string, o option, args []string) ([]string, error) {
	if len(args) == 0 {
		return nil, fmt.Errorf("option %s needs a value", name)
	}
	return args[1:], o.apply(name, args[0])
}

func (o option) apply(name, value string) error {
	if err := o.set(value); err != nil {
		return fmt.Errorf("option %s: %q is not a number", name, value)
	}
	return nil
}

func find(known []option, name string) (option, error) {
	for _, o := range known {
		if slices.Contains(strings.Fields(o.names), name) {
			return o, nil
		}
	}
	return option{}, fmt.Errorf("option %s is not available", name)
}
