package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// node is a Query parameter or what is below it: Targets.member.1.Id=i-1 is
// Targets → member → 1 → Id.
type node struct {
	value string
	set   bool
	names []string
	below map[string]*node
}

func (n *node) child(name string) *node {
	if n.below == nil {
		n.below = map[string]*node{}
	}
	c, ok := n.below[name]
	if !ok {
		c = &node{}
		n.below[name] = c
		n.names = append(n.names, name)
	}
	return c
}

// query decodes a Query form into struct v.
func (d decoder) query(form url.Values, v reflect.Value) error {
	root := &node{}
	for _, key := range sortedNames(form) {
		if key == "Action" || key == "Version" {
			continue
		}
		if len(form[key]) != 1 {
			return d.serialization(key, "is there %d times", len(form[key]))
		}
		parts := strings.Split(key, ".")
		if len(parts) > maxDepth {
			return d.serialization(key, "nested too deeply")
		}
		n := root
		for _, part := range parts {
			n = n.child(part)
		}
		n.value, n.set = form[key][0], true
	}
	return d.formStruct(root, v, "")
}

func sortedNames(form url.Values) []string {
	var names []string
	for name := range form {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (d decoder) formStruct(n *node, v reflect.Value, path string) error {
	seen := map[string]bool{}
	for _, name := range n.names {
		f, ok := d.service.field(v.Type(), name)
		if !ok {
			return d.serialization(path, "unknown member %q of %s", name, v.Type().Name())
		}
		seen[f.Name] = true
		if err := d.formValue(n.below[name], v.FieldByIndex(f.Index), join(path, name)); err != nil {
			return err
		}
	}
	return d.complete(v.Type(), seen, path)
}

func (d decoder) formValue(n *node, v reflect.Value, path string) error {
	switch {
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return d.formValue(n, v.Elem(), path)
	case v.Kind() == reflect.Slice && v.Type() != bytesType:
		return d.formList(n, v, path)
	case v.Kind() == reflect.Map:
		return d.formMap(n, v, path)
	case v.Kind() == reflect.Struct && v.Type() != timeType:
		if n.set {
			return d.serialization(path, "a value where members should be")
		}
		return d.formStruct(n, v, path)
	}
	if len(n.names) > 0 || !n.set {
		return d.serialization(path, "members where a value should be")
	}
	return d.formScalar(n.value, v, path)
}

// formList reads NAME.member.1, NAME.member.2, … An empty list is NAME=.
func (d decoder) formList(n *node, v reflect.Value, path string) error {
	v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	if n.set && n.value == "" && len(n.names) == 0 {
		return nil
	}
	members, ok := n.below["member"]
	if n.set || !ok || len(n.names) != 1 || members.set {
		return d.serialization(path, "a list is written %s.member.N", path)
	}
	for i := range members.names {
		index := strconv.Itoa(i + 1)
		m, ok := members.below[index]
		if !ok {
			return d.serialization(path, "member %s of the list is missing", index)
		}
		element := reflect.New(v.Type().Elem()).Elem()
		if err := d.formValue(m, element, path+".member."+index); err != nil {
			return err
		}
		v.Set(reflect.Append(v, element))
	}
	return nil
}

// formMap reads NAME.entry.1.key and NAME.entry.1.value, …
func (d decoder) formMap(n *node, v reflect.Value, path string) error {
	v.Set(reflect.MakeMap(v.Type()))
	entries, ok := n.below["entry"]
	if n.set || !ok || len(n.names) != 1 {
		return d.serialization(path, "a map is written %s.entry.N.key and .value", path)
	}
	for _, index := range entries.names {
		at := path + ".entry." + index
		entry := entries.below[index]
		key, value := entry.below["key"], entry.below["value"]
		if key == nil || value == nil || len(entry.names) != 2 {
			return d.serialization(at, "is not a key and a value")
		}
		k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		if err := d.formValue(key, k, at+".key"); err != nil {
			return err
		}
		if err := d.formValue(value, e, at+".value"); err != nil {
			return err
		}
		v.SetMapIndex(k, e)
	}
	return nil
}

func (d decoder) formScalar(s string, v reflect.Value, path string) error {
	switch {
	case v.Type() == timeType:
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return d.serialization(path, "%q is not a time", s)
		}
		v.Set(reflect.ValueOf(t.UTC()))
	case v.Type() == bytesType:
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return d.serialization(path, "not base64: %v", err)
		}
		v.SetBytes(b)
	case v.Kind() == reflect.String:
		v.SetString(s)
		return d.enum(v, path)
	case v.Kind() == reflect.Bool:
		if s != "true" && s != "false" {
			return d.serialization(path, "%q is not true or false", s)
		}
		v.SetBool(s == "true")
	default:
		return d.number(s, v, path)
	}
	return nil
}

// encodeXML encodes the answer to a Query operation.
func encodeXML(s *Service, operation string, out reflect.Value, id string) []byte {
	e := &xmlEncoder{service: s}
	e.open(operation+"Response", s.Namespace)
	e.open(operation+"Result", "")
	e.members(out, true)
	e.close(operation + "Result")
	e.open("ResponseMetadata", "")
	e.text("RequestId", id)
	e.close("ResponseMetadata")
	e.close(operation + "Response")
	return e.Bytes()
}

func encodeXMLError(s *Service, err *Error, id string) []byte {
	e := &xmlEncoder{service: s}
	namespace := ""
	if s != nil {
		namespace = s.Namespace
	}
	blame := "Sender"
	if err.Status >= 500 {
		blame = "Receiver"
	}
	e.open("ErrorResponse", namespace)
	e.open("Error", "")
	e.text("Type", blame)
	e.text("Code", err.Code)
	e.text("Message", err.Message)
	e.close("Error")
	e.text("RequestId", id)
	e.close("ErrorResponse")
	return e.Bytes()
}

type xmlEncoder struct {
	bytes.Buffer
	service *Service
}

func (e *xmlEncoder) open(name, namespace string) {
	e.WriteString("<" + name)
	if namespace != "" {
		e.WriteString(` xmlns="` + namespace + `"`)
	}
	e.WriteString(">")
}

func (e *xmlEncoder) close(name string) { e.WriteString("</" + name + ">") }

func (e *xmlEncoder) text(name, s string) {
	e.open(name, "")
	e.escape(s)
	e.close(name)
}

// escape writes s as character data; what XML cannot hold comes out as U+FFFD.
func (e *xmlEncoder) escape(s string) {
	// A bytes.Buffer takes every write.
	_ = xml.EscapeText(&e.Buffer, []byte(s))
}

func (e *xmlEncoder) members(v reflect.Value, lists bool) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		empty := lists && f.Type.Kind() == reflect.Slice && f.Type != bytesType
		if !isMember(f) || absent(v.Field(i)) && !empty {
			continue
		}
		e.open(e.service.member(f.Name), "")
		e.value(v.Field(i))
		e.close(e.service.member(f.Name))
	}
}

func (e *xmlEncoder) value(v reflect.Value) {
	switch {
	case v.Kind() == reflect.Pointer:
		e.value(v.Elem())
	case v.Type() == timeType:
		e.escape(v.Interface().(time.Time).UTC().Format("2006-01-02T15:04:05.000Z"))
	case v.Type() == bytesType:
		e.escape(base64.StdEncoding.EncodeToString(v.Bytes()))
	case v.Kind() == reflect.Struct:
		e.members(v, false)
	case v.Kind() == reflect.Slice:
		e.list(v)
	case v.Kind() == reflect.Map:
		e.mapping(v)
	default:
		e.scalar(v)
	}
}

func (e *xmlEncoder) list(v reflect.Value) {
	for i := range v.Len() {
		e.open("member", "")
		e.value(v.Index(i))
		e.close("member")
	}
}

func (e *xmlEncoder) mapping(v reflect.Value) {
	for _, key := range sortedKeys(v) {
		e.open("entry", "")
		e.text("key", key.String())
		e.open("value", "")
		e.value(v.MapIndex(key))
		e.close("value")
		e.close("entry")
	}
}

func (e *xmlEncoder) scalar(v reflect.Value) {
	switch {
	case v.Kind() == reflect.String:
		e.escape(v.String())
	case v.Kind() == reflect.Bool:
		e.WriteString(strconv.FormatBool(v.Bool()))
	case v.CanInt():
		e.WriteString(strconv.FormatInt(v.Int(), 10))
	case v.CanFloat():
		e.WriteString(strconv.FormatFloat(v.Float(), 'f', -1, 64))
	}
}
