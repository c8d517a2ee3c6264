package policy

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// guesses makes policies and questions at random, of few words, so that they meet.
type guesses struct{ *rand.Rand }

func (g guesses) one(list ...string) string { return list[g.IntN(len(list))] }

func (g guesses) some(list ...string) string {
	var all []string
	for range 1 + g.IntN(2) {
		all = append(all, "'"+g.one(list...)+"'")
	}
	return "[" + strings.Join(all, ", ") + "]"
}

func (g guesses) perhaps(n int, key, value string) string {
	if g.IntN(n) > 0 {
		return ""
	}
	return ", " + key + ": " + value
}

const aDigest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func (g guesses) rule(action, where string) string {
	effect, who, images := "allow", []string{"user:ann", "user:bob", "group:g", "group:h"}, []string{"docker.io/library/web", "docker.io/library/*", "docker.io/library/web:1",
		"docker.io/*", "reg.example/team/*", "docker.io/library/web@" + aDigest, "*", "docker.io/library/web:*", "localhost/a?b"}
	if g.IntN(3) == 0 {
		effect, who = "deny", append(who, "*", "*")
		images = append(images, "*/team/*", "reg.*/web", "docker.io/*/*:?")
	}
	r := fmt.Sprintf("effect: %s, principals: %s, actions: [%s], environments: [%s]", effect, g.some(who...), action, where)
	if action != "docker.run" {
		r += g.perhaps(2, "container-types", g.some("web", "pay", "w*", "?ay", "*"))
	}
	if action == "docker.run" && effect == "allow" {
		r += ", images: " + g.some(images...)
	} else {
		r += g.perhaps(2, "images", g.some(images...))
	}
	r += g.perhaps(3, "hosts", g.some("h1", "h2", "i-*", "alias"))
	if effect == "allow" {
		r += g.perhaps(3, "record", g.one("output", "all"))
	}
	return r
}

func (g guesses) resource() Resource {
	return Resource{
		ContainerType: g.one("web", "pay", "other", "w", None, ""),
		Image: g.one("web", "web:1", "web:2", "docker.io/library/web", "index.docker.io/library/web:1", "WEB", "reg.example/team/web", "REG.example:443/team/web:1",
			"reg.other/web", "web@"+aDigest, "web:1@"+aDigest, "web@sha256:bb", strings.Repeat("a", 64), "localhost/axb", "localhost:5000/axb", None, ""),
		Host: g.one("h1", "h2", "i-9", "", None), HostNames: [][]string{nil, {"alias"}, {"h2", "i-1"}}[g.IntN(3)],
	}
}

// Whatever the rules are: what terms fit, or what is certain, Decide allows, obliging
// to no more. What Decide allows, terms fit.
func TestTermsAndCertaintyPromiseNoMoreThanDecideGives(t *testing.T) {
	g := guesses{rand.New(rand.NewPCG(2026, 11))}
	fits, certain := 0, 0
	for range 4000 {
		action, where := DockerExec, "prod"
		if g.IntN(3) == 0 {
			action, where = DockerRun, "test"
		}
		var rules []string
		for range 1 + g.IntN(6) {
			rules = append(rules, g.rule(action.String(), where))
		}
		p := withRules(t, rules...)
		q := Request{Principal: Principal{User: g.one("ann", "bob", "cy"), Groups: [][]string{nil, {"g"}, {"h", "g"}}[g.IntN(3)]}, Environment: where, Action: action, Resource: g.resource()}
		if action == DockerExec {
			q.Exec = &Exec{Argv: []string{g.one("bash", "sh", "sh", "id")}, User: g.one("", "", "", "0"), Detach: g.IntN(9) == 0}
		} else {
			q.Run = &Run{Digest: true, Network: g.one("", "", "host"), Memory: int64(g.IntN(3)) << 28}
		}
		asked := q
		asked.Resource = Resource{Host: q.Resource.Host, HostNames: q.Resource.HostNames}
		terms, onTerms := p.Terms(asked)
		sure := p.Certain(asked)
		raw, err := json.Marshal(terms)
		var read Terms
		if err == nil {
			err = json.Unmarshal(raw, &read)
		}
		if err != nil {
			t.Fatalf("%q: %s: %v", rules, raw, err)
		}
		for range 12 {
			r := g.resource()
			q.Resource.ContainerType, q.Resource.Image = r.ContainerType, r.Image
			d, fit := p.Decide(q), read.Fit(r.ContainerType, r.Image)
			switch {
			case fit != terms.Fit(r.ContainerType, r.Image), (onTerms.Allowed() && fit) != d.Allowed():
				t.Fatalf("%q of %+v: terms %s fit %v (%v), decided %v by %s", rules, q, raw, fit, onTerms.Effect(), d.Effect(), d.Rule())
			case fit && d.Obligations.Record > onTerms.Obligations.Record, fit && d.Obligations.Limits != onTerms.Obligations.Limits:
				t.Fatalf("%q of %+v: terms %s oblige to %+v, Decide to %+v", rules, q, raw, onTerms.Obligations, d.Obligations)
			case sure.Allowed() && (!d.Allowed() || d.Obligations.Record > sure.Obligations.Record):
				t.Fatalf("%q of %+v: certain, recording %v, and decided %v, recording %v", rules, q, sure.Obligations.Record, d.Effect(), d.Obligations.Record)
			}
			if fit {
				fits++
			}
			if sure.Allowed() {
				certain++
			}
		}
	}
	if fits < 1000 || certain < 300 {
		t.Errorf("only %d fit and %d are certain: the guesses are bad ones", fits, certain)
	}
}

// What is read as terms at all fits no more when it is written down and read again,
// and terms that were cut, or changed in a byte, are refused or are other valid rules:
// never a panic.
func FuzzTermsAreReadOneWay(f *testing.F) {
	f.Add(`[{"Effect":"allow"},{"Effect":"deny","Types":["we?"],"Images":["docker.io/library/*"]}]`, "web", "web:1")
	f.Add(`[{"Effect":"allow","Types":["*"],"types":["pay"]}]`, "web", "web:1")
	f.Fuzz(func(t *testing.T, raw, kind, image string) {
		var first, again Terms
		if json.Unmarshal([]byte(raw), &first) != nil {
			return
		}
		b, err := json.Marshal(first)
		if err == nil {
			err = json.Unmarshal(b, &again)
		}
		if err != nil || first.Fit(kind, image) != again.Fit(kind, image) {
			t.Fatalf("%s, written down as %s: %v; %q of %q: %v, then %v", raw, b, err, kind, image, first.Fit(kind, image), again.Fit(kind, image))
		}
	})
}
