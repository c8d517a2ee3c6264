package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// rule is a rule of the file.
type rule struct {
	name       string
	at         int // place among the rules
	line       int
	effect     Effect
	everyone   bool // rules that deny only
	users      []string
	groups     []string
	actions    set
	everywhere bool     // all environments
	places     []string // environments
	types      []glob
	images     []imagePattern
	hosts      []glob
	record     Recording
}

// Decision is what the policy says to a request. Its zero value denies.
type Decision struct {
	effect Effect
	rule   string
	why    why
	detail string

	// Obligations are what an allowed request comes with. Who acts on the
	// decision has to fulfil them, or not act.
	Obligations Obligations
}

// Obligations come with a decision that allows.
type Obligations struct {
	// Record says how much of the session is to be recorded: the most that any
	// matching rule asks for.
	Record Recording
	// Limits are those of the environment: caps to set, values to redact. Never
	// nil where the decision allows. They belong to the policy: not to be changed.
	Limits *Limits
}

// why is the reason of a decision, which is put into words only when asked for.
type why uint8

const (
	noRule why = iota
	byRule
	floor
	unknownAction
	unknownUser
	unknownRequest
	unknownJumpServer
	jumpServerCap
	execCommand
	execUser
	execEnv
	execWorkDir
	execPrivileged
	execDetach
	runUser
	runNetwork
	runVolume
	runBind
	runPrivileged
	runPublish
	runMemory
	runCPUs
	runPids
	runDigest
	noReason
)

// Allowed reports whether the request may be carried out.
func (d Decision) Allowed() bool { return d.effect == Allow }

// Effect is Allow or Deny.
func (d Decision) Effect() Effect { return d.effect }

// Rule is the name of what decided: a rule of the file, "floor", "default"
// (nothing allows it), "jump-servers", or a limit ("limits.exec.commands").
func (d Decision) Rule() string {
	if d.rule == "" {
		return "default"
	}
	return d.rule
}

// Reason is the decision in words.
func (d Decision) Reason() string {
	switch d.why {
	case byRule:
		return "the rule says " + d.effect.String()
	case floor:
		return "it is never allowed in production, or where the environment is unknown"
	case unknownAction:
		return "no such action"
	case unknownUser:
		return "it is not known who asks"
	case unknownRequest:
		return "it is not known what exactly is asked for"
	case noRule:
		return "no rule allows it"
	}
	return fmt.Sprintf(limitText[d.why], d.detail)
}

var limitText = map[why]string{
	unknownJumpServer: "the policy here says nothing of the jump server with the key %s",
	jumpServerCap:     "the entry %s does not let callers from their jump server do it here",

	execCommand:    "the command %s is not in the list",
	execUser:       "exec as user %s is not in the list",
	execEnv:        "the variable %s may not be set",
	execWorkDir:    "a working directory (%s) may not be chosen",
	execPrivileged: "a privileged exec is never allowed%s",
	execDetach:     "a detached exec is not allowed%s",
	runUser:        "user %s is not in the list",
	runNetwork:     "network %s is not in the list",
	runVolume:      "volume %s is not in the list",
	runBind:        "the host's path %s is not in the list",
	runPrivileged:  "a privileged container is never allowed%s",
	runPublish:     "ports of the host may not be published%s",
	runMemory:      "it asks for more memory than %s",
	runCPUs:        "it asks for more CPU than %s",
	runPids:        "it asks for more processes than %s",
	runDigest:      "the image %s is not pinned by digest",

	noReason: "no reason is given: give --reason%s",
}

// Decide decides a request. It does not allocate when it allows.
func (p *Policy) Decide(r Request) Decision {
	env, d, done := p.before(&r)
	if done {
		return d
	}
	image := parseImage(&r)
	d = env.rules[r.Action].judge(&r.Principal, func(rl *rule) bool { return rl.reaches(&r, &image) })
	if !d.Allowed() {
		return d
	}
	d.Obligations.Limits = &env.Limits
	return env.limit(&r, d)
}

// Possible decides whether the principal may do the action to anything at all in
// the environment: the request's resource, Exec and Run do not count. It is the
// question before it is known what exactly will be asked for.
func (p *Policy) Possible(r Request) Decision {
	env, d, done := p.before(&r)
	if done {
		return d
	}
	d = env.rules[r.Action].judge(&r.Principal, func(rl *rule) bool { return rl.effect == Allow || rl.unconditional() })
	if d.Allowed() {
		d.Obligations.Limits = &env.Limits
	}
	return d
}

// Certain decides as Decide does, whichever container type and image it will turn
// out to be about: it allows what is allowed for each, and obliges to the most that
// any can oblige to. The limits count where the request says what is to be done.
func (p *Policy) Certain(r Request) Decision {
	env, d, done := p.before(&r)
	if done {
		return d
	}
	rules, here := &env.rules[r.Action], func(rl *rule) bool { return rl.fitsHost(&r.Resource) }
	d = rules.judge(&r.Principal, func(rl *rule) bool {
		return here(rl) && (rl.effect == Deny || rl.types == nil && rl.images == nil)
	})
	if !d.Allowed() {
		return d
	}
	most := rules.judge(&r.Principal, func(rl *rule) bool { return here(rl) && rl.effect == Allow })
	d.Obligations = Obligations{Record: most.Obligations.Record, Limits: &env.Limits}
	if r.Exec == nil && r.Run == nil {
		return d
	}
	return env.limit(&r, d)
}

// before decides what needs no rules: the floor, and what is not known.
func (p *Policy) before(r *Request) (env *environment, d Decision, done bool) {
	if p != nil {
		env = p.byName[r.Environment]
	}
	switch {
	case r.Action == noAction || r.Action >= actionCount:
		return env, Decision{why: unknownAction}, true
	case r.Action.Floored() && (env == nil || env.Production):
		return env, Decision{rule: "floor", why: floor}, true
	case r.Principal.User == "":
		return env, Decision{why: unknownUser}, true
	case env == nil:
		return env, Decision{}, true
	}
	d, done = p.capped(r)
	return env, d, done
}

// ruleSet is the rules for one action in one environment, by whom they speak of:
// a request is held against its principal's rules only.
type ruleSet struct {
	everyone []*rule
	users    map[string][]*rule
	groups   map[string][]*rule
}

func (s *ruleSet) add(rl *rule) {
	if s.users == nil {
		s.users, s.groups = map[string][]*rule{}, map[string][]*rule{}
	}
	if rl.everyone {
		s.everyone = append(s.everyone, rl)
	}
	for _, u := range rl.users {
		s.users[u] = append(s.users[u], rl)
	}
	for _, g := range rl.groups {
		s.groups[g] = append(s.groups[g], rl)
	}
}

// judge holds a principal's rules against a request.
func (s *ruleSet) judge(p *Principal, matches func(*rule) bool) Decision {
	var v verdict
	v.weigh(s.everyone, matches)
	v.weigh(s.users[p.User], matches)
	for _, g := range p.Groups {
		v.weigh(s.groups[g], matches)
	}
	return v.decision()
}

// verdict is the whole of the logic: a matching deny wins, else a matching allow
// allows, else nothing does. The obligations of all that allow add up. Of
// several rules that say the same the first in the file is named.
type verdict struct {
	deny, allow *rule
	record      Recording
}

func (v *verdict) weigh(rules []*rule, matches func(*rule) bool) {
	for _, rl := range rules {
		if !matches(rl) {
			continue
		}
		if rl.effect == Deny {
			v.deny = earlier(v.deny, rl)
			continue
		}
		v.allow = earlier(v.allow, rl)
		v.record = max(v.record, rl.record)
	}
}

func earlier(a, b *rule) *rule {
	if a == nil || b.at < a.at {
		return b
	}
	return a
}

func (v *verdict) decision() Decision {
	switch {
	case v.deny != nil:
		return Decision{rule: v.deny.name, why: byRule}
	case v.allow != nil:
		return Decision{effect: Allow, rule: v.allow.name, why: byRule, Obligations: Obligations{Record: v.record}}
	}
	return Decision{}
}

// image is a request's, taken apart.
type parsedImage struct {
	reference
	ok bool
}

func parseImage(r *Request) parsedImage {
	ref, ok := parseReference(r.Resource.Image)
	return parsedImage{ref, ok}
}

// speaksOf reports whether the rule is about the principal.
func (rl *rule) speaksOf(p *Principal) bool {
	if rl.everyone || slices.Contains(rl.users, p.User) {
		return true
	}
	for _, g := range rl.groups {
		if slices.Contains(p.Groups, g) {
			return true
		}
	}
	return false
}

// reaches reports whether the rule is about the request's resource.
func (rl *rule) reaches(r *Request, image *parsedImage) bool {
	return rl.fits(rl.types, r.Resource.ContainerType) && rl.fitsHost(&r.Resource) && rl.fitsImage(r.Resource.Image, image)
}

// unconditional rules are about every resource.
func (rl *rule) unconditional() bool { return rl.types == nil && rl.images == nil && rl.hosts == nil }

// fits matches a name against a rule's patterns. No patterns fit all; a name
// that is not known fits a rule that denies, and no other.
func (rl *rule) fits(patterns []glob, name string) bool {
	switch {
	case patterns == nil:
		return true
	case name == "":
		return rl.effect == Deny
	case name == None:
		return false
	}
	return matchAny(patterns, name)
}

// fitsHost is fits for a host, by any of its names.
func (rl *rule) fitsHost(r *Resource) bool {
	if rl.fits(rl.hosts, r.Host) {
		return true
	}
	for _, name := range r.HostNames {
		if matchAny(rl.hosts, name) {
			return true
		}
	}
	return false
}

func (rl *rule) fitsImage(name string, image *parsedImage) bool {
	switch {
	case rl.images == nil:
		return true
	case name == None:
		return false
	case !image.ok:
		return rl.effect == Deny
	}
	for i := range rl.images {
		if rl.images[i].matches(&image.reference, rl.effect) {
			return true
		}
	}
	return false
}

// limit refuses what the rules allow, but not in this form.
func (e *environment) limit(r *Request, d Decision) Decision {
	switch r.Action {
	case DockerExec:
		return e.limitExec(r.Exec, d)
	case DockerRun, DockerCreate:
		return e.limitRun(r.Run, r.Resource.Image, d)
	case ECSDeploy, ECSRollback:
		if e.Limits.Reason && strings.TrimSpace(r.Reason) == "" {
			return beyond("reason", noReason, "")
		}
	}
	return d
}

// beyond is the refusal of a limit.
func beyond(limit string, w why, detail string) Decision {
	return Decision{rule: "limits." + limit, why: w, detail: detail}
}

func (e *environment) limitExec(x *Exec, d Decision) Decision {
	l := &e.Limits.Exec
	switch {
	case x == nil:
		return Decision{why: unknownRequest}
	case x.Privileged:
		return beyond("exec.privileged", execPrivileged, "")
	case !l.AnyCommand && !slices.ContainsFunc(l.Commands, func(c []string) bool { return slices.Equal(c, x.Argv) }):
		return beyond("exec.commands", execCommand, strconv.Quote(strings.Join(x.Argv, " ")))
	case x.User != "" && !listed(l.Users, x.User):
		return beyond("exec.users", execUser, strconv.Quote(x.User))
	case x.WorkDir != "" && !l.WorkDir:
		return beyond("exec.workdir", execWorkDir, strconv.Quote(x.WorkDir))
	case x.Detach && !l.Detach:
		return beyond("exec.detach", execDetach, "")
	}
	for _, name := range x.Env {
		if !slices.Contains(l.Env, name) {
			return beyond("exec.env", execEnv, strconv.Quote(name))
		}
	}
	return d
}

func (e *environment) limitRun(x *Run, image string, d Decision) Decision {
	l := &e.Limits.Run
	switch {
	case x == nil:
		return Decision{why: unknownRequest}
	case x.Privileged:
		return beyond("run.privileged", runPrivileged, "")
	case x.Publish && !l.Publish:
		return beyond("run.publish", runPublish, "")
	case x.User != "" && !listed(l.Users, x.User):
		return beyond("run.users", runUser, strconv.Quote(x.User))
	case x.Network != "" && x.Network != "default" && !slices.Contains(l.Networks, x.Network):
		return beyond("run.networks", runNetwork, strconv.Quote(x.Network))
	case x.Memory > l.Memory || x.Memory < 0:
		return beyond("run.memory", runMemory, strconv.FormatInt(l.Memory>>20, 10)+" MiB")
	case !(x.CPUs >= 0 && x.CPUs <= l.CPUs): // written so that NaN is refused
		return beyond("run.cpus", runCPUs, strconv.FormatFloat(l.CPUs, 'g', -1, 64))
	case x.Pids > l.Pids || x.Pids < 0:
		return beyond("run.pids", runPids, strconv.FormatInt(l.Pids, 10))
	case l.Digest && !x.Digest:
		return beyond("run.digest", runDigest, strconv.Quote(image))
	}
	return e.limitMounts(x, d)
}

func (e *environment) limitMounts(x *Run, d Decision) Decision {
	for _, v := range x.Volumes {
		if v == "" || !matchAny(e.run.volumes, v) {
			return beyond("run.volumes", runVolume, strconv.Quote(v))
		}
	}
	for _, b := range x.Binds {
		if !bindListed(e.Limits.Run.Binds, b) {
			return beyond("run.binds", runBind, strconv.Quote(b))
		}
	}
	return d
}

// listed reports whether a value is in a list in which * stands for any.
func listed(list []string, value string) bool {
	return slices.Contains(list, value) || slices.Contains(list, "*")
}

// bindListed: a path that is listed for writing may be mounted for reading.
func bindListed(list []string, bind string) bool {
	return slices.Contains(list, bind) || slices.Contains(list, strings.TrimSuffix(bind, ":ro"))
}

// Redacted reports whether the value of an environment variable is to be hidden
// in an environment. In one that is unknown everything is.
func (p *Policy) Redacted(environment, variable string) bool {
	if p == nil {
		return true
	}
	env, ok := p.byName[environment]
	return !ok || matchAny(env.redact, strings.ToUpper(variable))
}
