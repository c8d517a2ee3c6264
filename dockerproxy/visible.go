package dockerproxy

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// visible takes out of an answer of the Engine's what could drive a terminal:
// labels, variables and commands are written by others, and docker's --format
// prints them as they are. In JSON, control characters are escapes or, from DEL
// on, themselves. What is taken out becomes a question mark; line feeds and tabs stay.
func visible(b []byte) []byte {
	i := nextOdd(b)
	if i < 0 {
		return b
	}
	out := make([]byte, 0, len(b))
	for i >= 0 {
		out = append(out, b[:i]...)
		n, drop := oddity(b[i:])
		if drop {
			out = append(out, '?')
		} else {
			out = append(out, b[i:i+n]...)
		}
		b = b[i+n:]
		i = nextOdd(b)
	}
	return append(out, b...)
}

// nextOdd is where something begins that has to be looked at; -1: nowhere. All
// characters beyond ASCII that drive a terminal begin with one of two bytes.
func nextOdd(b []byte) int {
	for i, c := range b {
		if c == '\\' || c == 0x7f || c == 0xc2 || c == 0xe2 {
			return i
		}
	}
	return -1
}

// oddity is how long what stands at the beginning of b is, in bytes, and whether
// it has to go.
func oddity(b []byte) (n int, drop bool) {
	if b[0] != '\\' {
		c, n := utf8.DecodeRune(b)
		return n, drives(c)
	}
	if len(b) < 2 {
		return len(b), false
	}
	switch b[1] {
	case 'b', 'f':
		return 2, true
	case 'r':
		return 2, !bytes.HasPrefix(b[2:], []byte(`\n`))
	case 'u':
		return escaped(b)
	}
	return 2, false
}

// escaped is oddity for an escape of four digits.
func escaped(b []byte) (n int, drop bool) {
	if len(b) < 6 {
		return len(b), false
	}
	var c rune
	for _, d := range b[2:6] {
		if !isHex(d) {
			return 2, false
		}
		c = c<<4 | rune(unhex(d))
	}
	return 6, drives(c)
}

// drives reports whether a character could drive a terminal, or turn text around.
func drives(c rune) bool {
	return c < ' ' && c != '\n' && c != '\t' || c >= 0x7f && c <= 0x9f || c >= 0x202a && c <= 0x202e || c >= 0x2066 && c <= 0x2069 || c == 0x200e || c == 0x200f
}

// visibleText is visible for plain text.
func visibleText(s string) string {
	return strings.Map(func(c rune) rune {
		if drives(c) {
			return '?'
		}
		return c
	}, s)
}
