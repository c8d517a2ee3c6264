package policy

import (
	"fmt"
	"strings"
)

// glob is a pattern for names: * stands for any number of characters, ? for
// one, everything else for itself. It always matches the whole name.
//
// There are no other special characters, so every glob that parse lets through
// compiles: a pattern that cannot match would make a rule that denies do nothing.
type glob struct {
	text string
	head string // the text before the first * or ?
	tail string // the text from there
}

func newGlob(text string) glob {
	i := strings.IndexAny(text, "*?")
	if i < 0 {
		i = len(text)
	}
	return glob{text, text[:i], text[i:]}
}

// parseGlob checks a pattern. valid says which characters names have.
func parseGlob(s string, valid func(byte) bool, kind string) (glob, error) {
	if s == "" {
		return glob{}, fmt.Errorf("an empty pattern matches nothing: write %s, or * for any", kind)
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case c == '*' || c == '?' || valid(c):
		case strings.IndexByte(`[]{}!\^|()+$`, c) >= 0:
			return glob{}, fmt.Errorf("pattern %q has %q, which means nothing here: write * for any characters and ? for one", s, c)
		default:
			return glob{}, fmt.Errorf("pattern %q has %q, which %s cannot have", s, c, kind)
		}
	}
	return newGlob(s), nil
}

// match compares most names by their head alone.
func (g *glob) match(name string) bool {
	switch {
	case !strings.HasPrefix(name, g.head):
		return false
	case g.tail == "":
		return len(name) == len(g.head)
	case g.tail == "*":
		return true
	}
	return match(g.tail, name[len(g.head):])
}

// match is iterative: on a mismatch only the last * is taken back, so that it is
// quadratic at worst, never exponential.
func match[S string | []byte](pattern string, name S) bool {
	p, n, star, mark := 0, 0, -1, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == name[n]):
			p++
			n++
		case star >= 0:
			mark++
			p, n = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

func matchAny(list []glob, name string) bool {
	for i := range list {
		if list[i].match(name) {
			return true
		}
	}
	return false
}

func alphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// serviceName: ECS allows letters, digits, hyphens and underscores.
func serviceName(c byte) bool { return alphanumeric(c) || c == '-' || c == '_' }

// hostName: names, instance ids, IPv4 and IPv6 addresses.
func hostName(c byte) bool { return alphanumeric(c) || strings.IndexByte(".-_:", c) >= 0 }

func variableName(c byte) bool { return alphanumeric(c) || strings.IndexByte("_.-", c) >= 0 }
