package audit

import (
	"bytes"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Screen makes recorded output safe to show. A recording is what somebody's
// program wrote, and it is replayed on the terminal of an administrator: so
// only what draws is kept, and what makes a terminal answer, print, copy,
// rename itself or change what its keys send is left out.
//
// Kept are printable characters; newline, carriage return, tab, backspace; and,
// unless Plain, these sequences: colours (SGR), moving the cursor, erasing,
// inserting and deleting lines and characters, scrolling and margins, saving and restoring
// the cursor, index and reverse index, line drawing, and the private modes 6 (origin), 7 (wrap),
// 25 (cursor) and 47, 1047, 1048, 1049 (alternate screen).
//
// A Screen keeps state between calls, since sequences may be split.
type Screen struct {
	// Plain leaves out every sequence, and what goes back in a line: a carriage
	// return begins a new one.
	Plain bool

	// Left is how many sequences and characters were left out.
	Left int

	state  screenState
	params []byte
	held   []byte
	body   int

	cr        bool // Plain: a carriage return came, and nothing since
	alternate bool // the alternate screen is shown
	margins   bool // scrolling is limited to a part of the screen
}

type screenState int

const (
	text       screenState = iota
	escape                 // after ESC
	csi                    // after ESC [
	charset                // after ESC ( or another intermediate
	stringBody             // in OSC, DCS, APC, PM, SOS
	stringEsc              // after ESC in one
)

const (
	maxParams = 64
	// maxBody is after how many bytes a string that has no end is taken for text
	// again, so that it cannot hide the rest of a recording.
	maxBody = 4096
	esc     = 0x1b
)

// Filter returns what of p may be shown.
func (s *Screen) Filter(p []byte) []byte {
	p = append(s.held, p...)
	n := whole(p)
	s.held = append([]byte(nil), p[n:]...)
	var out []byte
	for p = p[:n]; len(p) > 0; {
		r, size := utf8.DecodeRune(p)
		out = s.rune(out, r)
		p = p[size:]
	}
	return out
}

func (s *Screen) rune(out []byte, r rune) []byte {
	if r == 0x18 || r == 0x1a { // CAN, SUB: end every sequence
		s.leave(text)
		return out
	}
	switch s.state {
	case escape:
		return s.escaped(out, r)
	case csi:
		return s.control(out, r)
	case charset:
		return s.chosen(out, r)
	case stringBody:
		s.inString(r)
		return out
	case stringEsc:
		return s.afterString(out, r)
	}
	return s.plain(out, r)
}

// leave counts what is left out, and goes on in state.
func (s *Screen) leave(state screenState) {
	s.Left++
	s.state = state
}

// c1 is what ESC and a letter stand for in one character, where we follow it.
var c1 = map[rune]screenState{0x9b: csi, 0x90: stringBody, 0x98: stringBody, 0x9d: stringBody, 0x9e: stringBody, 0x9f: stringBody}

func (s *Screen) plain(out []byte, r rune) []byte {
	switch {
	case s.Plain && (r == '\r' || r == '\b'):
		s.cr = s.cr || r == '\r'
	case r == '\n' || r == '\r' || r == '\t' || r == '\b':
		return append(s.newLine(out, r), byte(r))
	case r == esc:
		s.state = escape
	case c1[r] != text:
		s.begin(c1[r])
	case unicode.IsPrint(r):
		return utf8.AppendRune(s.newLine(out, r), r)
	default:
		s.Left++
	}
	return out
}

// newLine makes a new line of a carriage return that was not followed by one.
func (s *Screen) newLine(out []byte, r rune) []byte {
	if s.cr && r != '\n' {
		out = append(out, '\n')
	}
	s.cr = false
	return out
}

func (s *Screen) begin(state screenState) {
	s.params, s.body, s.state = s.params[:0], 0, state
}

func (s *Screen) escaped(out []byte, r rune) []byte {
	s.state = text
	switch {
	case r == '[':
		s.begin(csi)
	case strings.ContainsRune("]P_^X", r):
		s.begin(stringBody)
	case r == esc:
		s.leave(escape)
	case r >= 0x20 && r <= 0x2f:
		s.begin(charset)
		s.params = append(s.params, byte(r))
	case strings.ContainsRune("78DEM", r):
		return s.keep(out, []byte{esc, byte(r)})
	default:
		s.Left++
	}
	return out
}

// keep appends a sequence that draws.
func (s *Screen) keep(out, sequence []byte) []byte {
	s.state = text
	if s.Plain {
		s.Left++
		return out
	}
	return append(out, sequence...)
}

// chosen ends ESC ( B and its like.
func (s *Screen) chosen(out []byte, r rune) []byte {
	if r >= 0x20 && r <= 0x2f && len(s.params) < maxParams {
		s.params = append(s.params, byte(r))
		return out
	}
	if len(s.params) == 1 && strings.ContainsRune("()", rune(s.params[0])) && strings.ContainsRune("0AB", r) {
		return s.keep(out, []byte{esc, s.params[0], byte(r)})
	}
	s.leave(text)
	return out
}

func (s *Screen) control(out []byte, r rune) []byte {
	switch {
	case r == esc:
		s.leave(escape)
	case r >= 0x20 && r <= 0x3f && len(s.params) < maxParams:
		s.params = append(s.params, byte(r))
	case r >= 0x40 && r <= 0x7e && draws(s.params, byte(r)):
		s.note(byte(r))
		return s.keep(out, append(append([]byte{esc, '['}, s.params...), byte(r)))
	case r == '\n' || r == '\r' || r == '\t' || r == '\b': // acts inside of a sequence, too
		return s.plain(out, r)
	default:
		s.leave(text)
	}
	return out
}

// note remembers what Rest has to undo.
func (s *Screen) note(final byte) {
	switch {
	case final == 'r':
		s.margins = len(s.params) > 0
	case (final == 'h' || final == 'l') && bytes.Contains(s.params, []byte("47")),
		(final == 'h' || final == 'l') && bytes.Contains(s.params, []byte("1049")):
		s.alternate = final == 'h'
	}
}

// draws reports whether ESC [ params final does nothing but draw.
func draws(params []byte, final byte) bool {
	if private, ok := bytes.CutPrefix(params, []byte("?")); ok {
		return (final == 'h' || final == 'l') && allIn(private, 6, 7, 25, 47, 1047, 1048, 1049)
	}
	switch {
	case final == 'J' && bytes.ContainsRune(params, '3'): // erases what was scrolled away
		return false
	case final == 'm':
		return numeric(params, ":;")
	case strings.IndexByte("ABCDEFGHJKLMPSTXZ@`adefr", final) >= 0:
		return numeric(params, ";")
	}
	return len(params) == 0 && (final == 's' || final == 'u')
}

// numeric reports whether params are numbers of at most four digits, so that
// nobody asks for a billion lines.
func numeric(params []byte, separators string) bool {
	for _, p := range bytes.FieldsFunc(params, func(r rune) bool { return strings.ContainsRune(separators, r) }) {
		if _, err := strconv.ParseUint(string(p), 10, 16); err != nil || len(p) > 4 {
			return false
		}
	}
	return true
}

func allIn(params []byte, modes ...int) bool {
	for _, p := range bytes.Split(params, []byte(";")) {
		n, err := strconv.Atoi(string(p))
		known := false
		for _, m := range modes {
			known = known || err == nil && n == m
		}
		if !known {
			return false
		}
	}
	return true
}

// inString passes over OSC, DCS, APC, PM and SOS up to their end: BEL, ST, or
// too long a wait for it.
func (s *Screen) inString(r rune) {
	s.body++
	switch {
	case r == 0x07 || r == 0x9c || s.body > maxBody:
		s.leave(text)
	case r == esc:
		s.state = stringEsc
	}
}

// afterString follows an ESC inside of a string: it ends the string, alone or
// by beginning something else.
func (s *Screen) afterString(out []byte, r rune) []byte {
	s.leave(text)
	if r == '\\' {
		return out
	}
	return s.escaped(out, r)
}

// Rest puts a terminal back into order after a recording.
func (s *Screen) Rest() string {
	if s.Plain {
		return ""
	}
	rest := "\x1b[m\x1b(B\x1b[?6l\x1b[?7h\x1b[?25h"
	if s.margins {
		rest += "\x1b7\x1b[r\x1b8"
	}
	if s.alternate {
		rest += "\x1b[?1049l"
	}
	return rest + "\r\n"
}
