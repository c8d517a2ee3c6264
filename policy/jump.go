package policy

import (
	"slices"

	"gopkg.in/yaml.v3"

	"jumpsuite/internal/pattern"
)

// jumpServers is an entry of the file: what callers from some jump servers may
// do at most, whatever the rules allow. It allows nothing by itself.
type jumpServers struct {
	name       string
	any        bool     // each key that the host trusts
	keys       []string // ids
	actions    set
	everywhere bool
	places     []string // environments
}

// keyID is how package tunnel writes the id of a key: 32 bytes in base64.
var keyID = pattern.New(`^ed25519:[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$`)

func (r *reader) jumpServers(n *yaml.Node, names map[string]int) jumpServers {
	o := r.object(n, "an entry of jump-servers", "name", "keys", "environments", "actions")
	if !o.ok() {
		return jumpServers{}
	}
	as := rule{effect: Allow} // lists are read as those of a rule that allows
	j := jumpServers{name: r.text(o.required("name", "what a refusal will call it: bastions"), ruleName, "lower case letters, digits and -")}
	if at, ok := names[j.name]; ok && j.name != "" {
		r.add(o.values["name"], "a second entry called %q (the first is in line %d): each has a name of its own", j.name, at)
	}
	names[j.name] = n.Line
	list := o.required("keys", "a list of what 'r3-admin keys show' prints on the jump servers, or ['*'] for all that the host trusts")
	r.each(list, "keys", func(n *yaml.Node) { r.jumpKey(n, &j) })
	if list != nil && len(list.Content) == 0 {
		r.add(list, "no keys: an entry for no jump server; write keys, or ['*'] for all that the host trusts")
	}
	r.actions(o, &as)
	r.places(o, &as)
	j.actions, j.everywhere, j.places = as.actions, as.everywhere, as.places
	return j
}

func (r *reader) jumpKey(n *yaml.Node, j *jumpServers) {
	s, ok := r.scalar(n)
	switch {
	case !ok:
	case s == "*":
		j.any = true
	case !keyID.MatchString(s):
		r.add(n, "%q is no key: write what 'r3-admin keys show' prints, ed25519: and 43 characters", s)
	default:
		j.keys = append(j.keys, s)
	}
}

// has reports whether the entry is for the jump server that speaks for p.
func (j *jumpServers) has(p *Principal) bool {
	return j.any || slices.Contains(j.keys, p.Key) ||
		slices.ContainsFunc(p.Former, func(key string) bool { return slices.Contains(j.keys, key) })
}

// AnyJumpServer are the entries that are for each key that the host trusts.
func (p *Policy) AnyJumpServer() (names []string) {
	if p == nil {
		return nil
	}
	for _, j := range p.jumpServers {
		if j.any {
			names = append(names, j.name)
		}
	}
	return names
}

func (j *jumpServers) isIn(environment string) bool {
	return j.everywhere || slices.Contains(j.places, environment)
}

// capped decides what a caller from a jump server may not do at all. Entries for
// the same key add up.
func (p *Policy) capped(r *Request) (d Decision, done bool) {
	if r.Principal.Key == "" {
		return d, false
	}
	d = Decision{rule: "jump-servers", why: unknownJumpServer, detail: r.Principal.Key}
	for i := range p.jumpServers {
		j := &p.jumpServers[i]
		if !j.has(&r.Principal) {
			continue
		}
		if j.actions.has(r.Action) && j.isIn(r.Environment) {
			return Decision{}, false
		}
		d.why, d.detail = jumpServerCap, j.name
	}
	return d, true
}
