// Package pattern has regular expressions that cost nothing until they are used,
// and bounds of length that cost nothing at all.
//
// A command that asks little should start fast. Compiling an expression when a
// program starts takes some 20 µs, and one with a repetition like {0,254} some
// 300, whether it is needed or not.
package pattern

import (
	"regexp"
	"sync"
)

// Pattern is a regular expression for texts of a bounded length.
type Pattern struct {
	max      int // in bytes
	compiled func() *regexp.Regexp
}

// unbounded is longer than any text.
const unbounded = int(^uint(0) >> 1)

// New is the pattern of an expression. One that does not compile panics when it
// is used first.
func New(text string) *Pattern { return Sized(unbounded, text) }

// Sized matches texts of at most max bytes.
func Sized(max int, text string) *Pattern {
	return &Pattern{max: max, compiled: sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })}
}

// MatchString reports whether s is short enough and matches.
func (p *Pattern) MatchString(s string) bool { return len(s) <= p.max && p.compiled().MatchString(s) }

// FindStringSubmatch is the match in s and those of its parts; nil if there is
// none, or s is too long.
func (p *Pattern) FindStringSubmatch(s string) []string {
	if len(s) > p.max {
		return nil
	}
	return p.compiled().FindStringSubmatch(s)
}

// FindStringSubmatchIndex is where in s that match and its parts are; nil if there is
// none, or s is too long.
func (p *Pattern) FindStringSubmatchIndex(s string) []int {
	if len(s) > p.max {
		return nil
	}
	return p.compiled().FindStringSubmatchIndex(s)
}

// ReplaceAllStringFunc replaces all matches in s by what f makes of them.
func (p *Pattern) ReplaceAllStringFunc(s string, f func(string) string) string {
	return p.compiled().ReplaceAllStringFunc(s, f)
}
