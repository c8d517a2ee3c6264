package dockerproxy

import (
	"encoding/json"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// param checks the value of a query's key and returns it as it is passed on;
// an empty one is left out.
type param func(value string) (string, error)

// params are the keys that an operation knows.
type params map[string]param

// parse reads a query strictly: known keys, each at most once.
func (p params) parse(raw string) (url.Values, error) {
	if raw == "" {
		return nil, nil
	}
	out := url.Values{}
	seen := map[string]bool{}
	for part := range strings.SplitSeq(raw, "&") {
		key, value, err := unescape(part)
		if err != nil {
			return nil, err
		}
		check, ok := p[key]
		if !ok {
			return nil, badRequest("the query's key %q is not available here", clip(key))
		}
		if seen[key] {
			return nil, badRequest("the query's key %q is there twice", key)
		}
		seen[key] = true
		value, err = check(value)
		if err != nil {
			return nil, err
		}
		if value != "" {
			out.Set(key, value)
		}
	}
	return out, nil
}

func unescape(part string) (key, value string, err error) {
	if strings.Contains(part, ";") {
		return "", "", badRequest("a semicolon in the query")
	}
	k, v, _ := strings.Cut(part, "=")
	if key, err = url.QueryUnescape(k); err == nil {
		value, err = url.QueryUnescape(v)
	}
	if err != nil {
		return "", "", badRequest("the query has an escape that is none")
	}
	if strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c == 0x7f || c == 0xfffd }) {
		return "", "", badRequest("the query's key %q has a control character", clip(key))
	}
	return key, value, nil
}

// boolean takes what the Engine takes, in one spelling for each.
func boolean(v string) (string, error) {
	switch v {
	case "1", "true", "True":
		return "1", nil
	case "", "0", "false", "False":
		return "0", nil
	}
	return "", badRequest("%q is neither true nor false", clip(v))
}

// number is an integer of a range.
func number(least, most int64) param {
	return func(v string) (string, error) {
		if v == "" {
			return "", nil
		}
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < least || n > most {
			return "", badRequest("%q is no number from %d to %d", clip(v), least, most)
		}
		return strconv.FormatInt(n, 10), nil
	}
}

// clamped is a size of a terminal.
func clamped(v string) (string, error) {
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil {
		return "", badRequest("%q is no size of a terminal", clip(v))
	}
	return strconv.FormatUint(min(max(n, 1), maxConsole), 10), nil
}

// maxConsole is the largest height and width of a terminal, in characters.
const maxConsole = 1000

func oneOf(words ...string) param {
	return func(v string) (string, error) {
		if v == "" || slices.Contains(words, v) {
			return v, nil
		}
		return "", badRequest("%q is none of %s", clip(v), strings.Join(words, ", "))
	}
}

// dropped is accepted and not passed on.
func dropped(string) (string, error) { return "", nil }

// mustBeEmpty is a key that clients send whether they need it or not.
func mustBeEmpty(name string) param {
	return func(v string) (string, error) {
		if v != "" {
			return "", badRequest("%s is not available here", name)
		}
		return "", nil
	}
}

// off is a switch that may be named, but not turned on.
func off(name string) param {
	return func(v string) (string, error) {
		on, err := boolean(v)
		if on == "1" {
			err = badRequest("%s is not available here", name)
		}
		return "", err
	}
}

// timestamp is seconds, with a fraction, since 1970; or RFC 3339.
func timestamp(v string) (string, error) {
	if len(v) > 40 || strings.Trim(v, "0123456789.:TZ+-") != "" {
		return "", badRequest("%q is no time", clip(v))
	}
	return v, nil
}

func lines(v string) (string, error) {
	if v == "" || v == "all" {
		return v, nil
	}
	return number(-1, 1<<40)(v)
}

// detachKeys are single letters and ctrl-LETTER, as the docker CLI takes them.
func detachKeys(v string) (string, error) {
	if v == "" {
		return "", nil
	}
	for key := range strings.SplitSeq(v, ",") {
		rest, ctrl := strings.CutPrefix(key, "ctrl-")
		if len(rest) != 1 || rest[0] <= ' ' || rest[0] >= 0x7f || ctrl && strings.IndexByte(ctrlKeys, rest[0]) < 0 {
			return "", badRequest("%q are no detach keys", clip(v))
		}
	}
	return v, nil
}

const ctrlKeys = `abcdefghijklmnopqrstuvwxyz@[]\^_`

// signal is one that a terminal or a person sends.
func signal(v string) (string, error) {
	name := strings.TrimPrefix(strings.ToUpper(v), "SIG")
	if n, err := strconv.Atoi(v); err == nil {
		name = signalNumbers[n]
	}
	if !slices.Contains(signalNames, name) {
		return "", badRequest("signal %q is not available here", clip(v))
	}
	return name, nil
}

var signalNames = []string{"HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "ALRM", "TERM", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "WINCH"}

var signalNumbers = map[int]string{1: "HUP", 2: "INT", 3: "QUIT", 9: "KILL", 10: "USR1", 12: "USR2", 14: "ALRM", 15: "TERM", 18: "CONT", 19: "STOP", 20: "TSTP", 21: "TTIN", 22: "TTOU", 28: "WINCH"}

func imageName(v string) (string, error) {
	if len(v) > 512 {
		return "", badRequest("the image's name is too long")
	}
	return v, nil
}

// containerName is the name of a container that is to be made.
func containerName(v string) (string, error) {
	if v != "" && !isRef(v) {
		return "", badRequest("Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", printable(v))
	}
	return v, nil
}

// isRef reports whether s can be a container's name or id.
func isRef(s string) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		alphanumeric := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alphanumeric && (i == 0 || c != '_' && c != '.' && c != '-') {
			return false
		}
	}
	return true
}

// filters are the names of filters that an operation knows. What is passed on
// is written anew.
func filters(names ...string) param {
	return func(v string) (string, error) {
		if v == "" {
			return "", nil
		}
		set, err := parseFilters(v)
		if err != nil {
			return "", err
		}
		for name := range set {
			if !slices.Contains(names, name) {
				return "", badRequest("Invalid filter '%s'", printable(name))
			}
		}
		return formatFilters(set), nil
	}
}

// parseFilters takes both of the forms that the API has: an object of objects
// with true, and an object of lists.
func parseFilters(v string) (map[string][]string, error) {
	bad := badRequest("the filters are not understood")
	if len(v) > 8<<10 || checkKeys([]byte(v), reflect.TypeFor[map[string]json.RawMessage]()) != nil && checkKeys([]byte(v), reflect.TypeFor[map[string]map[string]bool]()) != nil {
		return nil, bad
	}
	lists := map[string][]string{}
	if json.Unmarshal([]byte(v), &lists) == nil {
		return lists, nil
	}
	var maps map[string]map[string]bool
	if json.Unmarshal([]byte(v), &maps) != nil {
		return nil, bad
	}
	out := map[string][]string{}
	for name, values := range maps {
		for value, on := range values {
			if !on {
				return nil, bad
			}
			out[name] = append(out[name], value)
		}
	}
	return out, nil
}

func formatFilters(set map[string][]string) string {
	out := map[string]map[string]bool{}
	for name, values := range set {
		out[name] = map[string]bool{}
		for _, v := range values {
			out[name][v] = true
		}
	}
	b, _ := json.Marshal(out) // maps of strings and booleans always marshal
	return string(b)
}
