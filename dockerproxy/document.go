package dockerproxy

import (
	"encoding/json"
	"strings"

	"jumpsuite/internal/pattern"
)

// document reports whether a text is a JSON object or list with a secret in it: a
// member whose name looks like one, something that is named like one ({"name":
// "DB_PASSWORD", "value": …}), or a text that would be hidden where it stood alone.
func (r redactor) document(s string) bool {
	s = strings.TrimSpace(s)
	if s == "" || s[0] != '{' && s[0] != '[' || !json.Valid([]byte(s)) { // which bounds how deep it is
		return false
	}
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	return r.secretValue(d, "")
}

// secretValue reports whether the value that comes next, of a member called name,
// has a secret in it.
func (r redactor) secretValue(d *json.Decoder, name string) bool {
	t, err := d.Token()
	if err != nil {
		return true // not to be had of valid JSON: what is not understood is not shown
	}
	switch t := t.(type) {
	case string:
		return strings.EqualFold(name, "name") && r.secret(variable(t)) || r.text(t) != t
	case json.Delim:
		return r.secretWithin(d, t == '{')
	}
	return false
}

// secretWithin is secretValue for what is in an object or a list.
func (r redactor) secretWithin(d *json.Decoder, isObject bool) bool {
	for d.More() {
		name := ""
		if isObject {
			t, err := d.Token()
			if name, _ = t.(string); err != nil || r.secret(variable(name)) {
				return true
			}
		}
		if r.secretValue(d, name) {
			return true
		}
	}
	_, err := d.Token() // its end
	return err != nil
}

// memberName is what stands before the value of a member in a text: "name": of JSON,
// which may be quoted once more, name: of YAML or of a header of HTTP.
var memberName = pattern.New(`(\\*["'])?([A-Za-z_][A-Za-z0-9_.-]*)(\\*["'])?\s*:\s*`)

// members hides the values of members that look like secrets in a text that is no
// document but may have one in it, as the arguments of a shell have.
func (r redactor) members(s string) string {
	if strings.IndexByte(s, ':') < 0 {
		return s
	}
	var out strings.Builder
	for {
		m := memberName.FindStringSubmatchIndex(s)
		if m == nil {
			break
		}
		end := m[1]
		out.WriteString(s[:end])
		quoted, gap := m[6] >= 0, strings.TrimLeft(s[m[5]:end], `\"' `+"\t")
		if name := s[m[4]:m[5]]; r.secret(variable(name)) && (quoted || len(gap) > 1) {
			before, after := memberValue(s[end:], quoted, strings.ContainsAny(gap, "\r\n"))
			out.WriteString(s[end:end+before] + hidden)
			end += after
		}
		s = s[end:]
	}
	out.WriteString(s)
	return out.String()
}

// memberValue is where the value of a member begins and ends in what follows its
// name. One that is no single word, or stands on lines of its own, ends with the text.
func memberValue(s string, quoted, below bool) (begin, end int) {
	quote := leadingQuote(s)
	switch {
	case below || s != "" && strings.IndexByte("{[|>", s[0]) >= 0:
		return 0, len(s)
	case quote != "":
		return len(quote), quoteEnd(s, quote)
	case quoted:
		end = strings.IndexAny(s, ",}] \t\r\n")
	default:
		end = strings.IndexAny(s, "\"'\r\n")
	}
	if end < 0 {
		end = len(s)
	}
	return 0, end
}

// leadingQuote is the quote that a text begins with, and the backslashes before it.
func leadingQuote(s string) string {
	n := len(s) - len(strings.TrimLeft(s, `\`))
	if n < len(s) && (s[n] == '"' || s[n] == '\'') {
		return s[:n+1]
	}
	return ""
}

// quoteEnd is where a quoted text ends: before the same quote that has no more
// backslashes before it than the one that it begins with.
func quoteEnd(s, quote string) int {
	for at := len(quote); at < len(s); {
		i := strings.Index(s[at:], quote)
		if i < 0 {
			break
		}
		if at += i; at == len(quote) || s[at-1] != '\\' {
			return at
		}
		at++
	}
	return len(s)
}
