package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Terms are what a decision still depends on where nothing is known of the resource
// yet but its host: what the rules about the action say of container types and images.
// Another gate can hold what it finds against them. Zero terms fit nothing.
//
// In JSON they are a list of rules, with their patterns as a policy's file has them.
type Terms struct{ rules []*rule }

// Terms decides a request as Decide would, were it about a container that the terms
// fit: it allows what is allowed for some, and obliges to the most that any can
// oblige to. The limits count where the request says what is to be done.
func (p *Policy) Terms(r Request) (Terms, Decision) {
	env, d, done := p.before(&r)
	if done {
		return Terms{}, d
	}
	var t Terms
	d = env.rules[r.Action].judge(&r.Principal, func(rl *rule) bool {
		if !rl.fitsHost(&r.Resource) {
			return false
		}
		t.rules = append(t.rules, rl)
		return rl.effect == Allow || rl.types == nil && rl.images == nil
	})
	if !d.Allowed() {
		return Terms{}, d
	}
	d.Obligations.Limits = &env.Limits
	if r.Exec != nil || r.Run != nil {
		d = env.limit(&r, d)
	}
	if !d.Allowed() {
		return Terms{}, d
	}
	return t, d
}

// Fit reports whether the rules allow it for a container of that type and image.
func (t Terms) Fit(containerType, image string) bool {
	r := Request{Resource: Resource{ContainerType: containerType, Image: image}}
	parsed := parseImage(&r)
	var v verdict
	v.weigh(t.rules, func(rl *rule) bool {
		return rl.fits(rl.types, containerType) && rl.fitsImage(image, &parsed)
	})
	return v.decision().Allowed()
}

// term is a rule in JSON. What is absent is any.
type term struct {
	Effect string
	Types  *[]string `json:",omitempty"`
	Images *[]string `json:",omitempty"`
}

// MarshalJSON is Terms in JSON.
func (t Terms) MarshalJSON() ([]byte, error) {
	list := make([]term, 0, len(t.rules))
	for _, rl := range t.rules {
		one := term{Effect: rl.effect.String()}
		if rl.types != nil {
			one.Types = textsOf(rl.types, func(g glob) string { return g.text })
		}
		if rl.images != nil {
			one.Images = textsOf(rl.images, func(p imagePattern) string { return p.text })
		}
		list = append(list, one)
	}
	return json.Marshal(list)
}

func textsOf[T any](list []T, text func(T) string) *[]string {
	all := make([]string, 0, len(list))
	for _, e := range list {
		all = append(all, text(e))
	}
	return &all
}

// UnmarshalJSON takes only what a policy's file could have said: what is not
// understood is an error, and no terms that fit more, or refuse less.
func (t *Terms) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var list []term
	if err := d.Decode(&list); err != nil {
		return fmt.Errorf("read terms: %w", err)
	}
	t.rules = nil
	for _, one := range list {
		rl, err := one.rule()
		if err != nil {
			t.rules = nil
			return fmt.Errorf("read terms: %w", err)
		}
		t.rules = append(t.rules, rl)
	}
	return nil
}

func (one *term) rule() (*rule, error) {
	rl := &rule{}
	switch one.Effect {
	case Allow.String():
		rl.effect = Allow
	case Deny.String():
	default:
		return nil, fmt.Errorf("there is no effect %q", one.Effect)
	}
	var err error
	if rl.types, err = patternsOf(one.Types, func(s string) (glob, error) { return parseGlob(s, serviceName, "a container type") }); err != nil {
		return nil, err
	}
	rl.images, err = patternsOf(one.Images, func(s string) (imagePattern, error) { return parseImagePattern(s, rl.effect == Allow) })
	return rl, err
}

// patternsOf parses patterns; nil is any. An empty list would be for nothing, which
// no rule is.
func patternsOf[T any](list *[]string, parse func(string) (T, error)) ([]T, error) {
	if list == nil {
		return nil, nil
	}
	if len(*list) == 0 {
		return nil, fmt.Errorf("a list of patterns is empty")
	}
	var all []T
	for _, s := range *list {
		p, err := parse(s)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}
