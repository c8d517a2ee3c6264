package policy

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// Who has the terms says of each container and image what Decide says, also when they
// have been written down and read again.
func TestTermsFitWhatDecideAllows(t *testing.T) {
	const all = "effect: allow, principals: [user:ann, group:g], actions: [docker.exec], environments: [prod]"
	deny := func(what string) string {
		return "effect: deny, principals: ['*'], actions: [docker.exec], " + what
	}
	for _, rules := range [][]string{
		{all},
		{all + ", container-types: [web]"},
		{all + ", container-types: ['w*', pay], images: [docker.io/library/*]"},
		{all + ", images: ['*']"},
		{all + ", images: [docker.io/library/web:1]", all + ", images: [docker.io/library/pay], container-types: [pay]"},
		{all + ", hosts: [h1], container-types: [web]"},
		{all + ", hosts: [h2], container-types: [web]"},
		{all, deny("container-types: [pay]")},
		{all, deny("images: ['docker.io/*/*']")},
		{all, deny("container-types: ['*'], images: [docker.io/library/web:1]")},
		{all, deny("hosts: [h1]")},
		{all, deny("hosts: [h2]")},
		{all + ", container-types: [web]", deny("container-types: [web]")},
		{strings.ReplaceAll(all, "user:ann, group:g", "user:bob")},
		{},
	} {
		t.Run(strings.Join(rules, "; "), func(t *testing.T) {
			p, q := withRules(t, append(rules, strings.ReplaceAll(all, "ann, group:g", "zed"))...), question(t, "ann prod docker exec x sh")
			q.Principal.Groups = []string{"g"}
			q.Resource = Resource{Host: "h1"}
			terms, d := p.Terms(q)
			raw, err := json.Marshal(terms)
			if err != nil {
				t.Fatal(err)
			}
			var read Terms
			if err := json.Unmarshal(raw, &read); err != nil {
				t.Fatalf("%s: %v", raw, err)
			}
			for _, kind := range []string{"web", "pay", "other", None, ""} {
				for _, image := range []string{"web:1", "web:2", "pay", "reg.example/web:1", "web@sha256:" + strings.Repeat("a", 64), "not an image", None, ""} {
					q.Resource = Resource{ContainerType: kind, Image: image, Host: "h1"}
					want := p.Decide(q)
					if got := read.Fit(kind, image); got != want.Allowed() || got != terms.Fit(kind, image) {
						t.Errorf("%q of %q: got %v, want %v", kind, image, got, want.Allowed())
					}
					if want.Allowed() && (!d.Allowed() || want.Obligations.Record > d.Obligations.Record) {
						t.Errorf("%q of %q is allowed, recording %v; got %v, recording %v", kind, image, want.Obligations.Record, d.Effect(), d.Obligations.Record)
					}
				}
			}
		})
	}
}

func TestTermsObligeToTheMostThatAnyRuleDoes(t *testing.T) {
	const all = "effect: allow, principals: [user:ann], actions: [docker.exec], environments: [prod]"
	q := question(t, "ann prod docker exec x sh")
	q.Resource = Resource{Host: "h1"}
	if _, d := withRules(t, all, all+", container-types: [pay], record: all").Terms(q); !d.Allowed() || d.Obligations.Record != RecordAll || d.Obligations.Limits == nil {
		t.Errorf("got %v, recording %v", d.Effect(), d.Obligations.Record)
	}
	q = question(t, "ann prod docker exec x id")
	q.Resource = Resource{Host: "h1"}
	if terms, d := withRules(t, all).Terms(q); d.Rule() != "limits.exec.commands" || terms.Fit("web", "web:1") {
		t.Errorf("a command beyond the limits: got rule %s", d.Rule())
	}
	q.Environment = "nosuch"
	if terms, d := withRules(t, all).Terms(q); d.Allowed() || terms.Fit("web", "web:1") {
		t.Error("an unknown environment has terms")
	}
}

// What is not understood may be what would refuse.
func TestTermsThatAreNotUnderstoodAreNone(t *testing.T) {
	for _, raw := range []string{
		`{}`, `[{}]`, `[{"Effect":"Allow"}]`, `[{"Effect":"allow","Hosts":["h"]}]`, `[{"Effect":"allow"},{"Effect":"deny","Types":[]}]`,
		`[{"Effect":"allow"},{"Effect":"deny","Types":["a{b}"]}]`, `[{"Effect":"allow"},{"Effect":"deny","Images":["web"]}]`, `[{"Effect":"allow"},{"Effect":"deny","Types":"web"}]`, `[{"Effect":"allow"}`,
	} {
		terms := Terms{rules: []*rule{{effect: Allow}}}
		if err := json.Unmarshal([]byte(raw), &terms); err == nil {
			t.Errorf("%s is read as %v", raw, terms)
		}
	}
	var none Terms
	if none.Fit("web", "web:1") || json.Unmarshal([]byte("[]"), &none) != nil || none.Fit("web", "web:1") {
		t.Error("no terms fit")
	}
	if got := fmt.Sprint(Terms{}.Fit(None, None)); got != "false" {
		t.Errorf("the zero terms: got %s", got)
	}
}
