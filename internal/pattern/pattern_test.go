package pattern

import (
	"strings"
	"testing"
)

func TestALongerTextDoesNotMatch(t *testing.T) {
	p := Sized(3, `^[a-z]+$`)
	for text, want := range map[string]bool{"": false, "a": true, "abc": true, "abcd": false, "a1": false} {
		if got := p.MatchString(text); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
		if got := p.FindStringSubmatch(text) != nil; got != want {
			t.Errorf("find in %q: got %v, want %v", text, got, want)
		}
	}
}

func TestWithoutABoundAnyLengthMatches(t *testing.T) {
	if !New(`^a+$`).MatchString(strings.Repeat("a", 100000)) {
		t.Error("a long text does not match")
	}
	if got := New("b").ReplaceAllStringFunc("abc", strings.ToUpper); got != "aBc" {
		t.Errorf("got %q", got)
	}
}

func TestAnExpressionIsNotCompiledBeforeItIsUsed(t *testing.T) {
	p := New("(")
	defer func() {
		if recover() == nil {
			t.Error("an expression that does not compile matches")
		}
	}()
	p.MatchString("")
}
