package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"gopkg.in/yaml.v3"

	"jumpsuite/internal/pattern"
)

// Finding is something in a policy file that is not right, and what to write
// instead.
type Finding struct {
	File      string
	Line, Col int
	What      string
}

func (f Finding) String() string {
	return fmt.Sprintf("%s:%d:%d: %s", f.File, f.Line, f.Col, f.What)
}

// Findings are all that is wrong with a policy file, in the order of the file.
type Findings []Finding

func (f Findings) Error() string {
	var lines []string
	for _, one := range f {
		lines = append(lines, one.String())
	}
	return strings.Join(lines, "\n")
}

// ExitCode is 78: a configuration file is wrong.
func (f Findings) ExitCode() int { return 78 }

// Hint says what follows.
func (f Findings) Hint() string {
	return "nothing is allowed until the policy file is right; try a change with 'r3-admin policy check FILE' before it is put in place"
}

// Parse reads the text of a policy file; file is its name for findings. The
// error is Findings: all there are. A policy with findings allows nothing.
//
// The YAML is plain: one document, no anchors, no tags, each key once.
func Parse(file string, text []byte) (*Policy, error) {
	r := &reader{file: file}
	root := r.document(text)
	if root == nil {
		return nil, r.findings
	}
	p := r.policy(root)
	if len(r.findings) > 0 {
		slices.SortStableFunc(r.findings, func(a, b Finding) int { return a.Line - b.Line })
		return nil, r.findings
	}
	p.index()
	return p, nil
}

// reader turns YAML nodes into a policy and collects findings on the way.
type reader struct {
	file         string
	findings     Findings
	environments []Environment
}

func (r *reader) add(n *yaml.Node, format string, args ...any) {
	r.findings = append(r.findings, Finding{r.file, max(n.Line, 1), max(n.Column, 1), fmt.Sprintf(format, args...)})
}

var yamlLine = pattern.New(`^yaml: line (\d+): (.*)$`)

// document is the only document's root, or nil.
func (r *reader) document(text []byte) *yaml.Node {
	var doc, more yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&doc); err == io.EOF {
		r.add(&yaml.Node{}, "the file is empty: write at least 'environments:' and 'rules:'")
		return nil
	} else if err != nil {
		r.syntax(err)
		return nil
	}
	if err := dec.Decode(&more); err == nil {
		r.add(&more, "a second document: a policy is one document, remove the '---'")
		return nil
	} else if !errors.Is(err, io.EOF) {
		r.syntax(err)
		return nil
	}
	return doc.Content[0]
}

func (r *reader) syntax(err error) {
	at, what := &yaml.Node{}, strings.TrimPrefix(err.Error(), "yaml: ")
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		fmt.Sscan(m[1], &at.Line)
		what = m[2]
	}
	r.add(at, "not YAML: %s", what)
}

// policy reads the whole file.
func (r *reader) policy(root *yaml.Node) *Policy {
	o := r.object(root, "the policy", "credentials", "environments", "limits", "jump-servers", "rules", "tests")
	p := &Policy{rootCredentials: r.credentials(o.optional("credentials"))}
	limits := r.limits(o.optional("limits"), DefaultLimits())
	r.each(o.required("environments", "a list of the environments"), "environments", func(n *yaml.Node) {
		r.environment(n, limits)
	})
	p.environments = r.environments
	names := map[string]int{}
	entries := map[string]int{}
	r.each(o.optional("jump-servers"), "jump-servers", func(n *yaml.Node) {
		p.jumpServers = append(p.jumpServers, r.jumpServers(n, entries))
	})
	r.each(o.required("rules", "a list of rules; an empty one, [], allows nothing"), "rules", func(n *yaml.Node) {
		p.rules = append(p.rules, r.rule(n, names))
	})
	r.each(o.optional("tests"), "tests", func(n *yaml.Node) { p.tests = append(p.tests, r.test(n)) })
	if list := o.optional("environments"); list != nil && len(list.Content) == 0 {
		r.add(list, "no environments: nothing could ever be allowed")
	}
	return p
}

// credentials says whose the AWS credentials are: callers' own where nothing is
// written.
func (r *reader) credentials(n *yaml.Node) (root bool) {
	if n == nil || !r.plain(n) {
		return false
	}
	if n.Kind != yaml.ScalarNode || n.Value != "root" && n.Value != "caller" {
		r.add(n, "credentials is root (commands without sudo go through it) or caller (they use the caller's own)")
		return false
	}
	return n.Value == "root"
}

var (
	environmentName = pattern.Sized(63, `^[a-z0-9][a-z0-9_-]*$`)
	clusterName     = pattern.Sized(255, `^[A-Za-z0-9][A-Za-z0-9_-]*$`)
	regionName      = pattern.New(`^[a-z]{2}(-[a-z]+)+-\d$`)
	accountID       = pattern.New(`^\d{12}$`)
	endpointURL     = pattern.New(`^https?://[A-Za-z0-9.-]+(:\d{1,5})?/?$|^https?://\[[0-9a-f:]+\](:\d{1,5})?/?$`)
	ruleName        = pattern.Sized(63, `^[a-z0-9][a-z0-9-]*$`)
)

func (r *reader) environment(n *yaml.Node, limits Limits) {
	o := r.object(n, "an environment", "name", "cluster", "region", "endpoint", "account", "production", "hosts", "reach", "limits")
	if !o.ok() {
		return
	}
	e := Environment{
		Name:       r.text(o.required("name", "a word for people: prod, test"), environmentName, "lower case letters, digits, - and _"),
		Cluster:    r.text(o.required("cluster", "the name of its ECS cluster"), clusterName, "the cluster's name, not its ARN"),
		Region:     r.text(o.optional("region"), regionName, "a region like eu-central-1"),
		Endpoint:   r.text(o.optional("endpoint"), endpointURL, "a URL like https://vpce-1234.ecs.eu-central-1.vpce.amazonaws.com, without a path"),
		Account:    r.text(o.optional("account"), accountID, "12 digits, in quotes"),
		Production: r.boolean(o.optional("production"), true),
		Reach:      r.reach(o.optional("reach")),
		Limits:     r.limits(o.optional("limits"), limits),
	}
	r.each(o.optional("hosts"), "hosts", func(n *yaml.Node) {
		e.Hosts = append(e.Hosts, r.glob(n, hostName, "a host").text)
	})
	if slices.ContainsFunc(r.environments, func(x Environment) bool { return x.Name == e.Name && e.Name != "" }) {
		r.add(o.optional("name"), "a second environment called %q: each has a name of its own", e.Name)
	}
	r.environments = append(r.environments, e)
}

func (r *reader) reach(n *yaml.Node) Reach {
	if n == nil {
		return ReachLocal
	}
	switch s, _ := r.scalar(n); s {
	case "ssm":
		return ReachSSM
	case "", "local": // the first has been found fault with, if it is one
	default:
		r.add(n, "reach %q: write ssm on a jump server, or local on a docker host", s)
	}
	return ReachLocal
}

// rule reads one rule.
func (r *reader) rule(n *yaml.Node, names map[string]int) rule {
	o := r.object(n, "a rule", "name", "effect", "principals", "actions", "environments", "container-types", "images", "hosts", "record")
	if !o.ok() {
		return rule{}
	}
	rl := rule{line: n.Line, name: r.ruleName(o, names), effect: r.effect(o.required("effect", "allow or deny"))}
	r.principals(o, &rl)
	r.actions(o, &rl)
	r.places(o, &rl)
	r.resources(o, &rl)
	r.recording(o, &rl)
	r.floor(n, &rl)
	return rl
}

func (r *reader) ruleName(o object, names map[string]int) string {
	n := o.required("name", "what a refusal will call it: developers-read")
	name := r.text(n, ruleName, "lower case letters, digits and -")
	switch {
	case name == "":
		return ""
	case name == "floor" || name == "default" || name == "jump-servers" || strings.HasPrefix(name, "limits"):
		r.add(n, "a rule cannot be called %q: that is what refusals of the code are called", name)
	case names[name] > 0:
		r.add(n, "a second rule called %q (the first is in line %d): each has a name of its own", name, names[name])
	}
	names[name] = n.Line
	return name
}

func (r *reader) effect(n *yaml.Node) Effect {
	if n == nil || !r.plain(n) {
		return Deny
	}
	switch n.Value {
	case "allow":
		return Allow
	case "deny":
	default:
		r.add(n, "effect %q: write allow or deny", n.Value)
	}
	return Deny
}

func (r *reader) principals(o object, rl *rule) {
	list := o.required("principals", "a list of user:NAME and group:NAME")
	count := 0
	r.each(list, "principals", func(n *yaml.Node) {
		count++
		r.principal(n, rl)
	})
	if list != nil && count == 0 {
		r.add(list, "no principals: a rule for nobody; write user:NAME or group:NAME")
	}
}

func (r *reader) principal(n *yaml.Node, rl *rule) {
	s, ok := r.scalar(n)
	if !ok {
		return
	}
	kind, name, _ := strings.Cut(s, ":")
	switch {
	case s == "*" && rl.effect == Deny:
		rl.everyone = true
	case s == "*":
		r.add(n, `"*" is for rules that deny: name the users and groups that are allowed, as user:NAME and group:NAME`)
	case kind != "user" && kind != "group":
		r.add(n, "principal %q: write user:%s or group:%s", s, s, s)
	case strings.ContainsAny(name, "*?"):
		r.add(n, "principal %q: names are taken as they are, without * and ?: list them, or use a group", s)
	case !isPrincipalName(name) || strings.HasSuffix(name, " "):
		r.add(n, "principal %q: %q is not a name of a %s", s, name, kind)
	case kind == "user":
		rl.users = append(rl.users, name)
	default:
		rl.groups = append(rl.groups, name)
	}
}

func (r *reader) actions(o object, rl *rule) {
	list := o.required("actions", "a list of words like docker.logs")
	count := 0
	r.each(list, "actions", func(n *yaml.Node) {
		count++
		if s, ok := r.scalar(n); ok {
			rl.actions |= r.action(n, s, rl.effect)
		}
	})
	if list != nil && count == 0 {
		r.add(list, "no actions: write words like docker.logs")
	}
}

// action is one word, or a wildcard in a rule that denies: in a rule that
// allows it would grant what a later version invents.
func (r *reader) action(n *yaml.Node, word string, effect Effect) set {
	if a, ok := ParseAction(word); ok {
		return setOf(a)
	}
	if word != "*" && word != "docker.*" && word != "ecs.*" {
		r.add(n, "unknown action %q: %s", word, suggest(word, Actions()))
		return 0
	}
	var s set
	for a := DockerPs; a < actionCount; a++ {
		if match(word, a.String()) {
			s |= setOf(a)
		}
	}
	if effect == Allow {
		var words []string
		for _, a := range s.actions() {
			words = append(words, a.String())
		}
		r.add(n, "%q is for rules that deny: name what is allowed, among %s", word, strings.Join(words, ", "))
	}
	return s
}

func (r *reader) places(o object, rl *rule) {
	list := o.optional("environments")
	if list == nil {
		if rl.effect == Deny {
			rl.everywhere = true
			return
		}
		o.required("environments", "a list of names of environments, or ['*'] for all")
		return
	}
	count := 0
	r.each(list, "environments", func(n *yaml.Node) {
		count++
		r.place(n, rl)
	})
	if count == 0 {
		r.add(list, "no environments: write their names, or ['*'] for all")
	}
}

func (r *reader) place(n *yaml.Node, rl *rule) {
	s, ok := r.scalar(n)
	if !ok {
		return
	}
	var known []string
	for _, e := range r.environments {
		known = append(known, e.Name)
	}
	switch {
	case s == "*":
		rl.everywhere = true
	case slices.Contains(known, s):
		rl.places = append(rl.places, s)
	case strings.ContainsAny(s, "*?"):
		r.add(n, "environment %q: patterns are not for environments; write names, or ['*'] for all", s)
	default:
		r.add(n, "unknown environment %q: %s", s, suggest(s, known))
	}
}

// resources reads the patterns. A key is refused where an action of the rule
// knows nothing of it: there a rule that denies would deny always, and one that
// allows never allow.
func (r *reader) resources(o object, rl *rule) {
	r.pattern(o, rl, "container-types", containerType, func(n *yaml.Node) {
		rl.types = append(rl.types, r.glob(n, serviceName, "a container type"))
	})
	r.pattern(o, rl, "hosts", host, func(n *yaml.Node) { rl.hosts = append(rl.hosts, r.glob(n, hostName, "a host")) })
	r.pattern(o, rl, "images", image, func(n *yaml.Node) { r.image(n, rl) })
	if rl.effect == Allow && rl.actions.bringsImages() && o.optional("images") == nil {
		r.add(o.node, "the rule allows docker.run, docker.pull or docker.create, and says nothing of images: write images: [REGISTRY/REPOSITORY:TAG], or ['*'] for any")
	}
}

func (r *reader) image(n *yaml.Node, rl *rule) {
	s, ok := r.scalar(n)
	if !ok {
		return
	}
	p, err := parseImagePattern(s, rl.effect == Allow)
	if err != nil {
		r.add(n, "%v", err)
		return
	}
	rl.images = append(rl.images, p)
}

func (r *reader) pattern(o object, rl *rule, key string, f field, read func(*yaml.Node)) {
	list := o.optional(key)
	if list == nil {
		return
	}
	count := 0
	r.each(list, key, func(n *yaml.Node) {
		count++
		read(n)
	})
	if count == 0 {
		r.add(list, "%s is an empty list: leave it out to mean all, or write patterns", key)
	}
	for _, a := range rl.actions.actions() {
		if actions[a].has&f == 0 {
			r.add(o.keys[key], "%s says nothing about %s: put that action in a rule without it", key, a)
		}
	}
}

func (r *reader) recording(o object, rl *rule) {
	n := o.optional("record")
	if n == nil || !r.plain(n) {
		return
	}
	switch n.Value {
	case "output":
		rl.record = RecordOutput
	case "all":
		rl.record = RecordAll
	default:
		r.add(n, "record %q: write output, or all to record what is typed too", n.Value)
	}
	if rl.effect == Deny {
		r.add(o.keys["record"], "record is for rules that allow")
	}
	if rl.actions&setOf(DockerExec, DockerRun, DockerStart) == 0 {
		r.add(o.keys["record"], "record is for docker.exec, docker.run and docker.start; the rule has none of them")
	}
}

// floor refuses a rule that grants what the code refuses: whoever wrote it
// believes in something that will not happen.
func (r *reader) floor(n *yaml.Node, rl *rule) {
	if rl.effect != Allow {
		return
	}
	for _, e := range r.environments {
		if !e.Production || !rl.everywhere && !slices.Contains(rl.places, e.Name) {
			continue
		}
		for _, a := range rl.actions.actions() {
			if a.Floored() {
				r.add(n, "rule %q allows %s in %s, which is production: that is never allowed; leave out the action or the environment, or write 'production: false' if it is not", rl.name, a, e.Name)
			}
		}
	}
}

// index prepares the policy for decisions.
func (p *Policy) index() {
	for i := range p.rules {
		p.rules[i].at = i
	}
	p.byName = make(map[string]*environment, len(p.environments))
	for _, e := range p.environments {
		p.byName[e.Name] = p.environment(e)
	}
}

func (p *Policy) environment(e Environment) *environment {
	env := &environment{Environment: e}
	for i := range p.rules {
		rl := &p.rules[i]
		if !rl.everywhere && !slices.Contains(rl.places, e.Name) {
			continue
		}
		for _, a := range rl.actions.actions() {
			env.rules[a].add(rl)
		}
	}
	for _, s := range e.Limits.Redact {
		env.redact = append(env.redact, newGlob(strings.ToUpper(s)))
	}
	for _, s := range e.Limits.Run.Volumes {
		env.run.volumes = append(env.run.volumes, newGlob(s))
	}
	return env
}

// isPrincipalName reports whether the user database can have such a name. It is
// no expression: the classes of letters take long to compile, for every command.
func isPrincipalName(s string) bool {
	for i, c := range s {
		if c == '_' || unicode.In(c, unicode.L, unicode.N) || i > 0 && strings.ContainsRune(`.@\+$ -`, c) {
			continue
		}
		return false
	}
	return s != ""
}
