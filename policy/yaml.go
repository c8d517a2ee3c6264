package policy

import (
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"jumpsuite/internal/pattern"
)

// object is a mapping whose keys were checked.
type object struct {
	r      *reader
	node   *yaml.Node
	what   string
	keys   map[string]*yaml.Node
	values map[string]*yaml.Node // nil: not a mapping
}

// object reads a mapping that may have the known keys, each once.
func (r *reader) object(n *yaml.Node, what string, known ...string) object {
	o := object{r: r, node: n, what: what}
	if !r.plain(n) {
		return o
	}
	if n.Kind != yaml.MappingNode {
		r.add(n, "%s is %s: write keys and values (%s)", what, kind(n), strings.Join(known, ", "))
		return o
	}
	o.keys, o.values = map[string]*yaml.Node{}, map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		o.entry(n.Content[i], n.Content[i+1], known)
	}
	return o
}

func (o object) entry(key, value *yaml.Node, known []string) {
	name := key.Value
	switch {
	case !o.r.plain(key):
	case key.Kind != yaml.ScalarNode || !slices.Contains(known, name):
		o.r.add(key, "unknown key %q in %s: %s", name, o.what, suggest(name, known))
	case o.keys[name] != nil:
		o.r.add(key, "a second %q in %s (the first is in line %d): write it once", name, o.what, o.keys[name].Line)
	case value.Kind == yaml.ScalarNode && value.Tag == "!!null":
		o.keys[name] = key
		o.values[name] = nil
		o.r.add(key, "%s has no value: write one, or leave the key out", name)
	default:
		o.keys[name], o.values[name] = key, value
	}
}

func (o object) ok() bool { return o.values != nil }

// optional is the key's value, or nil.
func (o object) optional(key string) *yaml.Node { return o.values[key] }

// required is the key's value; nil is a finding, which says what to write.
func (o object) required(key, write string) *yaml.Node {
	if o.ok() && o.keys[key] == nil {
		o.r.add(o.node, "%s has no %s: write %s: with %s", o.what, key, key, write)
	}
	return o.values[key]
}

// plain refuses the parts of YAML that make a file mean something else than it
// seems to say.
func (r *reader) plain(n *yaml.Node) bool {
	switch {
	case n.Kind == yaml.AliasNode:
		r.add(n, "an alias (*%s): write the value out", n.Value)
	case n.Anchor != "":
		r.add(n, "an anchor (&%s): write the value without it", n.Anchor)
	case n.Style&yaml.TaggedStyle != 0:
		r.add(n, "a tag (%s): write the value without it", n.Tag)
	default:
		return true
	}
	return false
}

// each visits the items of a list. nil is an empty one.
func (r *reader) each(n *yaml.Node, what string, visit func(*yaml.Node)) {
	if n == nil || !r.plain(n) {
		return
	}
	if n.Kind != yaml.SequenceNode {
		r.add(n, "%s is %s: write a list, [a, b] or a line '- a' for each", what, kind(n))
		return
	}
	for _, item := range n.Content {
		visit(item)
	}
}

// scalar is the text of a value that stands for itself.
func (r *reader) scalar(n *yaml.Node) (string, bool) {
	switch {
	case n == nil || !r.plain(n):
		return "", false
	case n.Kind != yaml.ScalarNode:
		r.add(n, "%s where one value is expected", kind(n))
		return "", false
	case n.Tag == "!!null" || n.Value == "":
		r.add(n, "an empty value: write one")
		return "", false
	case n.Tag == "!!bool" || n.Tag == "!!timestamp":
		r.add(n, "YAML takes %s for something else than text: put it in quotes", n.Value)
		return "", false
	}
	return n.Value, true
}

// text is a scalar that has a form. nil is "".
func (r *reader) text(n *yaml.Node, form *pattern.Pattern, write string) string {
	s, ok := r.scalar(n)
	if ok && !form.MatchString(s) {
		r.add(n, "%q: write %s", s, write)
		return ""
	}
	return s
}

func (r *reader) glob(n *yaml.Node, valid func(byte) bool, what string) glob {
	s, ok := r.scalar(n)
	if !ok {
		return glob{}
	}
	g, err := parseGlob(s, valid, what)
	if err != nil {
		r.add(n, "%v", err)
	}
	return g
}

func (r *reader) boolean(n *yaml.Node, absent bool) bool {
	if n == nil || !r.plain(n) {
		return absent
	}
	if n.Kind == yaml.ScalarNode && n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0 {
		switch n.Value {
		case "true":
			return true
		case "false":
			return false
		}
	}
	r.add(n, "%s: write true or false", described(n))
	return absent
}

func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		return described(n)
	}
	return "something else"
}

func described(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode {
		return kind(n)
	}
	if n.Tag == "!!null" {
		return "empty"
	}
	return "the value " + strconv.Quote(n.Value)
}

// suggest names the nearest of the known words, or all of them.
func suggest(word string, known []string) string {
	if near := nearest(word, known); near != "" {
		return "did you mean " + near + "?"
	}
	return "write one of " + strings.Join(known, ", ")
}

// longWord is what no slip of a finger makes of a known word.
const longWord = 64

func nearest(word string, known []string) (best string) {
	if len(word) > longWord {
		return ""
	}
	// The first half of an action, docker or ecs, is right as a rule: it makes no two alike.
	far := len(word[strings.IndexByte(word, '.')+1:])/3 + 2
	for _, k := range known {
		if d := distance(strings.ToLower(word), k); d < far {
			best, far = k, d
		}
	}
	return best
}

// distance is the Levenshtein distance of a and b, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal, row[j+1] = row[j+1], min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
