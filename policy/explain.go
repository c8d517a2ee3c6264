package policy

import (
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"
)

// Explanation is a decision and how it came about.
type Explanation struct {
	Decision
	Considered []Consideration // all rules, in the order of the file
}

// Consideration is what a rule had to do with a request.
type Consideration struct {
	Rule    string
	Line    int // in the file
	Effect  Effect
	Matched bool
	Why     string // the first thing that does not match; empty if all does
}

// Explain decides as Decide does, and says what each rule had to do with it.
func (p *Policy) Explain(r Request) Explanation {
	e := Explanation{Decision: p.Decide(r)}
	if p == nil {
		return e
	}
	image := parseImage(&r)
	for i := range p.rules {
		rl := &p.rules[i]
		c := Consideration{Rule: rl.name, Line: rl.line, Effect: rl.effect, Why: rl.mismatch(p, &r, &image)}
		c.Matched = c.Why == ""
		e.Considered = append(e.Considered, c)
	}
	return e
}

// mismatch is the first thing in which a rule is not about a request.
func (rl *rule) mismatch(p *Policy, r *Request, image *parsedImage) string {
	switch {
	case !rl.actions.has(r.Action):
		return "it is not about " + r.Action.String()
	case !rl.isIn(p, r.Environment):
		return "it is not about the environment " + quoted(r.Environment)
	case !rl.speaksOf(&r.Principal):
		return "it does not name user " + quoted(r.Principal.User) + ", nor any of the groups " + quoted(strings.Join(r.Principal.Groups, ", "))
	case !rl.fits(rl.types, r.Resource.ContainerType):
		return "it is not about the container type " + quoted(r.Resource.ContainerType)
	case !rl.fitsHost(&r.Resource):
		return "it is not about the host " + quoted(r.Resource.Host)
	case !rl.fitsImage(r.Resource.Image, image):
		return "it is not about the image " + quoted(r.Resource.Image)
	}
	return ""
}

func (rl *rule) isIn(p *Policy, name string) bool {
	if _, known := p.byName[name]; !known {
		return false
	}
	if rl.everywhere {
		return true
	}
	for _, place := range rl.places {
		if place == name {
			return true
		}
	}
	return false
}

// quoted shows a name that may be missing.
func quoted(s string) string {
	switch s {
	case "":
		return "(not known)"
	case None:
		return "(none)"
	}
	return fmt.Sprintf("%q", s)
}

// test is one of the file's own.
type test struct {
	at      *yaml.Node
	command string
	request Request
	expect  Effect
	rule    string // that has to decide; empty: any
}

func (r *reader) test(n *yaml.Node) test {
	o := r.object(n, "a test", "user", "groups", "jump-server", "environment", "command", "container-type", "image", "host", "expect", "rule")
	if !o.ok() {
		return test{}
	}
	t := test{at: n, expect: r.effect(o.required("expect", "allow or deny"))}
	t.command, _ = r.scalar(o.required("command", "what is typed: docker run alpine"))
	request, err := ParseCommand(strings.Fields(t.command))
	if err != nil && t.command != "" {
		r.add(o.values["command"], "%v", err)
	}
	t.request = request
	t.request.Environment, _ = r.scalar(o.required("environment", "the name of one"))
	t.request.Principal.User, _ = r.scalar(o.required("user", "the name of one"))
	r.strings(o, "groups", &t.request.Principal.Groups, func(n *yaml.Node) string { s, _ := r.scalar(n); return s })
	t.request.Principal.Key = r.text(o.optional("jump-server"), keyID, "what 'r3-admin keys show' prints, ed25519: and 43 characters")
	r.override(o, "container-type", &t.request.Resource.ContainerType)
	r.override(o, "image", &t.request.Resource.Image)
	r.override(o, "host", &t.request.Resource.Host)
	t.rule, _ = r.scalar(o.optional("rule"))
	return t
}

func (r *reader) override(o object, key string, s *string) {
	if v, ok := r.scalar(o.optional(key)); ok {
		*s = v
	}
}

// Test runs the file's own tests and returns the findings, and how many there are.
func (p *Policy) Test(file string) (failed Findings, total int) {
	if p == nil {
		return nil, 0
	}
	for _, t := range p.tests {
		d := p.Decide(t.request)
		if d.Effect() == t.expect && (t.rule == "" || t.rule == d.Rule()) {
			continue
		}
		failed = append(failed, Finding{file, t.at.Line, t.at.Column, fmt.Sprintf("test %q by %s in %s: %s (rule %s: %s), want %s",
			t.command, t.request.Principal.User, t.request.Environment, d.Effect(), d.Rule(), d.Reason(), t.wanted())})
	}
	return failed, len(p.tests)
}

func (t test) wanted() string {
	if t.rule == "" {
		return t.expect.String()
	}
	return t.expect.String() + " (rule " + t.rule + ")"
}
