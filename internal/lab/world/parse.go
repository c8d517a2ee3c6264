package world

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// UnmarshalYAML reads a duration as Go writes it: 40s, 5m, 1h30m, 0.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := time.ParseDuration(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil {
		return fmt.Errorf("%q is not a duration such as 40s or 5m", n.Value)
	}
	*d = Duration(v)
	return nil
}

// MarshalYAML writes a duration as UnmarshalYAML reads it.
func (d Duration) MarshalYAML() (any, error) { return time.Duration(d).String(), nil }

func (d Duration) String() string { return time.Duration(d).String() }

// Read reads the world file of that name.
func Read(name string) (*World, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read world: %w", err)
	}
	return Parse(data, name)
}

// Parse reads a world file, fills in its defaults (see Complete) and checks
// it. name is for errors, which are all that is wrong, a line each, as
// "NAME:LINE:COLUMN: what". An empty file is an empty world.
func Parse(data []byte, name string) (*World, error) {
	w := &World{}
	root, err := decode(data, name, w)
	if err != nil {
		return nil, err
	}
	if problems := w.complete(); len(problems) > 0 {
		return nil, located(name, root, problems)
	}
	return w, nil
}

// ParseImage reads the value of an image-push action.
func ParseImage(value string) (Image, error) {
	var i Image
	root, err := decode([]byte(value), "image", &i)
	if err != nil {
		return i, err
	}
	problems := append(bounds(reflect.ValueOf(i), "", ""), one("arch", i.Arch, "amd64", "arm64")...)
	if len(problems) > 0 {
		return i, located("image", root, problems)
	}
	return i, nil
}

// ParseFault reads a fault.
func ParseFault(data []byte, name string) (Fault, error) {
	var f Fault
	root, err := decode(data, name, &f)
	if err != nil {
		return f, err
	}
	if problems := append(f.check(""), bounds(reflect.ValueOf(f), "", "")...); len(problems) > 0 {
		return f, located(name, root, problems)
	}
	return f, nil
}

// decode reads one YAML document strictly into v, a pointer to a struct.
func decode(data []byte, name string, v any) (*yaml.Node, error) {
	var doc, more yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&doc); errors.Is(err, io.EOF) {
		return &yaml.Node{Line: 1, Column: 1}, nil
	} else if err != nil {
		return nil, fmt.Errorf("%s: %s", name, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s:%d:%d: a second document", name, more.Line, more.Column)
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return root, nil
	}
	s := strict{name: name}
	s.value(root, reflect.TypeOf(v).Elem())
	if len(s.errs) > 0 {
		return nil, errors.Join(s.errs...)
	}
	if err := root.Decode(v); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return root, nil
}

// strict finds what in a document does not fit a type, with its place.
type strict struct {
	name string
	errs []error
}

func (s *strict) problem(n *yaml.Node, format string, args ...any) {
	s.errs = append(s.errs, fmt.Errorf("%s:%d:%d: %s", s.name, n.Line, n.Column, fmt.Sprintf(format, args...)))
}

var durationType = reflect.TypeFor[Duration]()

func (s *strict) value(n *yaml.Node, t reflect.Type) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case n.Kind == yaml.AliasNode:
		s.problem(n, "aliases are not taken here")
	case t == durationType:
		s.scalar(n, t)
	case t.Kind() == reflect.Struct:
		s.mapping(n, func(key string) (reflect.Type, bool) { return fieldType(t, key) }, keys(t))
	case t.Kind() == reflect.Map:
		s.mapping(n, func(string) (reflect.Type, bool) { return t.Elem(), true }, nil)
	case t.Kind() == reflect.Slice:
		s.list(n, t)
	default:
		s.scalar(n, t)
	}
}

func (s *strict) mapping(n *yaml.Node, of func(string) (reflect.Type, bool), known []string) {
	if n.Kind != yaml.MappingNode {
		s.problem(n, "%s where a mapping should be", kind(n))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		t, ok := of(key.Value)
		switch {
		case seen[key.Value]:
			s.problem(key, "key %q is there twice", key.Value)
		case !ok:
			s.problem(key, "unknown key %q; known are %s", key.Value, strings.Join(known, ", "))
		default:
			s.value(n.Content[i+1], t)
		}
		seen[key.Value] = true
	}
}

func (s *strict) list(n *yaml.Node, t reflect.Type) {
	if n.Kind != yaml.SequenceNode {
		s.problem(n, "%s where a list should be", kind(n))
		return
	}
	for _, element := range n.Content {
		s.value(element, t.Elem())
	}
}

func (s *strict) scalar(n *yaml.Node, t reflect.Type) {
	if n.Kind != yaml.ScalarNode {
		s.problem(n, "%s where a value should be", kind(n))
		return
	}
	if t.Kind() == reflect.String && n.Tag != "!!null" {
		return
	}
	v := reflect.New(t)
	if err := n.Decode(v.Interface()); err != nil || n.Tag == "!!null" {
		s.problem(n, "%s", wrongScalar(n, t, err))
	}
}

func wrongScalar(n *yaml.Node, t reflect.Type, err error) string {
	if t == durationType && err != nil {
		return err.Error()
	}
	if t.Kind() == reflect.Bool {
		return fmt.Sprintf("%q is not true or false", n.Value)
	}
	return fmt.Sprintf("%q is not a number of the right kind (%s)", n.Value, t.Kind())
}

func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	return "a value"
}

func fieldType(t reflect.Type, key string) (reflect.Type, bool) {
	for i := range t.NumField() {
		if t.Field(i).Tag.Get("yaml") == key {
			return t.Field(i).Type, true
		}
	}
	return nil, false
}

func keys(t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		names = append(names, t.Field(i).Tag.Get("yaml"))
	}
	return names
}

// located turns problems into errors with their places in the document.
func located(name string, root *yaml.Node, problems []problem) error {
	var errs []error
	for _, p := range problems {
		n := find(root, p.path)
		errs = append(errs, fmt.Errorf("%s:%d:%d: %s", name, n.Line, n.Column, p.text))
	}
	return errors.Join(errs...)
}

// find is the node at a path such as services.2.image, or the nearest above it.
func find(n *yaml.Node, path string) *yaml.Node {
	if path == "" {
		return n
	}
	head, rest, _ := strings.Cut(path, ".")
	if n.Kind == yaml.SequenceNode {
		for i, element := range n.Content {
			if fmt.Sprint(i) == head {
				return find(element, rest)
			}
		}
		return n
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == head {
			return find(n.Content[i+1], rest)
		}
	}
	return n
}
