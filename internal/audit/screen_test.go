package audit

import (
	"regexp"
	"strings"
	"testing"
	"unicode"
)

func TestWhatAttacksATerminalIsLeftOut(t *testing.T) {
	for _, tt := range []struct{ name, in, want, plain string }{
		{"text", "grün €\r\n\ttab", "grün €\r\n\ttab", "grün €\n\ttab"},
		{"colours", "\x1b[1;31mred\x1b[m\x1b[38:2:1:2:3m", "\x1b[1;31mred\x1b[m\x1b[38:2:1:2:3m", "red"},
		{"cursor and erasing", "\x1b[2J\x1b[H\x1b[10;20Hx\x1b[K", "\x1b[2J\x1b[H\x1b[10;20Hx\x1b[K", "x"},
		{"alternate screen", "\x1b[?1049hvi\x1b[?1049l", "\x1b[?1049hvi\x1b[?1049l", "vi"},
		{"line drawing", "\x1b(0qqq\x1b(B", "\x1b(0qqq\x1b(B", "qqq"},
		{"clipboard, ended by BEL", "a\x1b]52;c;cm0gLXJmIC8=\ab", "ab", "ab"},
		{"clipboard, ended by ST", "a\x1b]52;c;cm0=\x1b\\b", "ab", "ab"},
		{"clipboard in one byte", "a\u009d52;c;cm0=\u009cb", "ab", "ab"},
		{"title", "\x1b]0;gotcha\a", "", ""},
		{"title is reported", "\x1b[21t", "", ""},
		{"link", "\x1b]8;;http://evil\x1b\\text\x1b]8;;\x1b\\", "text", "text"},
		{"device control", "\x1bP$q\"p\x1b\\x", "x", "x"},
		{"private message, application command, start of string", "\x1b^a\x1b\\\x1b_b\x1b\\\x1bXc\x1b\\d", "d", "d"},
		{"where is the cursor", "\x1b[6nx", "x", "x"},
		{"who are you", "\x1b[c\x1b[>c\x1bZ\x05x", "x", "x"},
		{"print", "\x1b[5ix\x1b[4i", "x", "x"},
		{"reset", "\x1bcx", "x", "x"},
		{"keys send something else", "\x1b[?1h\x1b=\x1b[?1000h\x1b[?2004h\x1b[>4;2mx", "x", "x"},
		{"scroll-back erased", "\x1b[3Jx", "x", "x"},
		{"repeated a billion times", "x\x1b[1000000000b", "x", "x"},
		{"a billion lines", "\x1b[1000000000Lx", "x", "x"},
		{"among modes one that is not kept", "\x1b[?25;1000hx", "x", "x"},
		{"direction of text", "a\u202eb\u2066c", "abc", "abc"},
		{"bell and other controls", "a\ab\x00c\x0ed", "abcd", "abcd"},
		{"sequence in a string", "\x1b]0;t\x1b[31mred", "\x1b[31mred", "red"},
		{"cancelled", "\x1b]0;t\x18x\x1b[3\x1ay", "xy", "xy"},
		{"newline within a sequence", "\x1b[3\n1mx", "\n\x1b[31mx", "\nx"},
		{"invalid UTF-8", "a\xffb", "a\ufffdb", "a\ufffdb"},
		{"overwritten", "evil\rgood\b\b", "evil\rgood\b\b", "evil\ngood"},
		{"too many parameters", "\x1b[" + strings.Repeat("1;", 100) + "mx", strings.Repeat("1;", 68)[1:] + "mx", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.name == "too many parameters" { // the rest of it is text: seen rather than hidden
				if got := string((&Screen{}).Filter([]byte(tt.in))); strings.ContainsRune(got, esc) || !strings.HasSuffix(got, "mx") {
					t.Errorf("got %q", got)
				}
				return
			}
			for size := 1; size <= len(tt.in); size++ {
				screen, plain := &Screen{}, &Screen{Plain: true}
				var got, gotPlain []byte
				for p := []byte(tt.in); len(p) > 0; p = p[min(size, len(p)):] {
					got = append(got, screen.Filter(p[:min(size, len(p))])...)
					gotPlain = append(gotPlain, plain.Filter(p[:min(size, len(p))])...)
				}
				if string(got) != tt.want || string(gotPlain) != tt.plain {
					t.Fatalf("in pieces of %d: got %q and plain %q, want %q and %q", size, got, gotPlain, tt.want, tt.plain)
				}
			}
		})
	}
}

func TestAStringWithoutAnEndHidesLittle(t *testing.T) {
	s := &Screen{}
	got := string(s.Filter([]byte("\x1b]0;" + strings.Repeat("x", maxBody) + "shown")))
	if !strings.HasSuffix(got, "shown") || s.Left != 1 {
		t.Errorf("got %.40q, %d left out", got, s.Left)
	}
}

func TestTheTerminalIsPutBackIntoOrder(t *testing.T) {
	s := &Screen{}
	if got := s.Rest(); strings.Contains(got, "1049") || strings.Contains(got, "\x1b[r") {
		t.Errorf("nothing was changed, and it is undone: %q", got)
	}
	s.Filter([]byte("\x1b[?1049h\x1b[2;5r"))
	if got := s.Rest(); !strings.Contains(got, "\x1b[?1049l") || !strings.Contains(got, "\x1b[r") {
		t.Errorf("got %q", got)
	}
	s.Filter([]byte("\x1b[r\x1b[?1049l"))
	if got := s.Rest(); strings.Contains(got, "1049") {
		t.Errorf("got %q", got)
	}
}

// harmless is every sequence that may come through.
var harmless = regexp.MustCompile("\x1b(\\[[0-9;:]*[ABCDEFGHJKLMPSTXZ@`adefrm]|\\[\\?[0-9;]*[hl]|\\[[su]|[78DEM]|[()][0AB])")

func FuzzNothingButDrawingComesThrough(f *testing.F) {
	f.Add("\x1b]52;c;x\x07\x1b[6n\u009b5i\x1bP\x1b\\", 3)
	f.Fuzz(func(t *testing.T, in string, size int) {
		s, plain := &Screen{}, &Screen{Plain: true}
		size = max(1, size%50)
		var got, text []byte
		for p := []byte(in); len(p) > 0; p = p[min(size, len(p)):] {
			got = append(got, s.Filter(p[:min(size, len(p))])...)
			text = append(text, plain.Filter(p[:min(size, len(p))])...)
		}
		for what, out := range map[string]string{"terminal": harmless.ReplaceAllString(string(got), ""), "plain": string(text)} {
			for _, r := range out {
				if !unicode.IsPrint(r) && !strings.ContainsRune("\n\r\t\b", r) {
					t.Errorf("%s: %q lets %q through", what, in, r)
				}
			}
		}
	})
}
