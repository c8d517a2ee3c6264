package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strconv"
	"time"
)

// maxDepth bounds the nesting of a request; the deepest shape of ECS has nine levels.
const maxDepth = 64

// json decodes an awsJson1.1 body into struct v. An empty body is an empty input.
func (d decoder) json(body []byte, v reflect.Value) error {
	if len(bytes.TrimSpace(body)) == 0 {
		body = []byte("{}")
	}
	p := &reader{decoder: d, tokens: json.NewDecoder(bytes.NewReader(body))}
	p.tokens.UseNumber()
	token, err := p.next("")
	if err != nil {
		return err
	}
	if token != json.Delim('{') {
		return d.serialization("", "the body is not an object")
	}
	if err := p.structure(v, ""); err != nil {
		return err
	}
	if _, err := p.tokens.Token(); !errors.Is(err, io.EOF) {
		return d.serialization("", "there is something after the object")
	}
	return nil
}

// reader reads one body.
type reader struct {
	decoder
	tokens *json.Decoder
	depth  int
}

func (p *reader) next(path string) (json.Token, error) {
	token, err := p.tokens.Token()
	if err != nil {
		return nil, p.serialization(path, "not JSON: %v", err)
	}
	return token, nil
}

// structure reads the members of a struct, after its '{'.
func (p *reader) structure(v reflect.Value, path string) error {
	seen := map[string]bool{}
	err := p.object(path, func(name string) error {
		f, ok := p.service.field(v.Type(), name)
		if !ok {
			return p.serialization(path, "unknown member %q of %s", name, v.Type().Name())
		}
		token, err := p.next(join(path, name))
		if err != nil || token == nil {
			return err
		}
		seen[f.Name] = true
		return p.value(token, v.FieldByIndex(f.Index), join(path, name))
	})
	if err != nil {
		return err
	}
	return p.complete(v.Type(), seen, path)
}

// object calls read for each name of an object, after its '{'.
func (p *reader) object(path string, read func(name string) error) error {
	if p.depth++; p.depth > maxDepth {
		return p.serialization(path, "nested too deeply")
	}
	defer func() { p.depth-- }()
	seen := map[string]bool{}
	for {
		token, err := p.next(path)
		if err != nil {
			return err
		}
		if token == json.Delim('}') {
			return nil
		}
		name, _ := token.(string)
		if seen[name] {
			return p.serialization(path, "member %q is there twice", name)
		}
		seen[name] = true
		if err := read(name); err != nil {
			return err
		}
	}
}

// value sets v to what begins with token.
func (p *reader) value(token json.Token, v reflect.Value, path string) error {
	switch {
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return p.value(token, v.Elem(), path)
	case v.Type() == timeType:
		return p.time(token, v, path)
	case v.Type() == bytesType:
		return p.blob(token, v, path)
	case isDocument(v.Type()):
		return p.document(token, v, path)
	}
	switch v.Kind() {
	case reflect.Struct, reflect.Map, reflect.Interface:
		if token != json.Delim('{') {
			return p.mismatch(token, "an object", path)
		}
		return p.composite(v, path)
	case reflect.Slice:
		if token != json.Delim('[') {
			return p.mismatch(token, "a list", path)
		}
		return p.list(v, path)
	}
	return p.scalar(token, v, path)
}

func (p *reader) composite(v reflect.Value, path string) error {
	switch v.Kind() {
	case reflect.Struct:
		return p.structure(v, path)
	case reflect.Map:
		return p.mapping(v, path)
	}
	return p.union(v, path)
}

func (p *reader) mapping(v reflect.Value, path string) error {
	v.Set(reflect.MakeMap(v.Type()))
	return p.object(path, func(name string) error {
		token, err := p.next(join(path, name))
		if err != nil || token == nil {
			return err
		}
		key := reflect.New(v.Type().Key()).Elem()
		key.SetString(name)
		element := reflect.New(v.Type().Elem()).Elem()
		if err := p.value(token, element, join(path, name)); err != nil {
			return err
		}
		v.SetMapIndex(key, element)
		return nil
	})
}

func (p *reader) union(v reflect.Value, path string) error {
	return p.object(path, func(name string) error {
		t, ok := p.service.union(v.Type(), name)
		if !ok {
			return p.serialization(path, "the lab knows no member %q of union %s", name, v.Type().Name())
		}
		if !v.IsNil() {
			return p.serialization(path, "more than one member of union %s", v.Type().Name())
		}
		token, err := p.next(join(path, name))
		if err != nil || token == nil {
			return err
		}
		member := reflect.New(t)
		v.Set(member)
		return p.value(token, member.Elem().FieldByName("Value"), join(path, name))
	})
}

func (p *reader) list(v reflect.Value, path string) error {
	if p.depth++; p.depth > maxDepth {
		return p.serialization(path, "nested too deeply")
	}
	defer func() { p.depth-- }()
	v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	for {
		at := fmt.Sprintf("%s[%d]", path, v.Len())
		token, err := p.next(at)
		if err != nil {
			return err
		}
		if token == json.Delim(']') {
			return nil
		}
		if token == nil {
			return p.mismatch(token, "a value", at)
		}
		element := reflect.New(v.Type().Elem()).Elem()
		if err := p.value(token, element, at); err != nil {
			return err
		}
		v.Set(reflect.Append(v, element))
	}
}

func (p *reader) scalar(token json.Token, v reflect.Value, path string) error {
	switch v.Kind() {
	case reflect.String:
		s, ok := token.(string)
		if !ok {
			return p.mismatch(token, "a string", path)
		}
		v.SetString(s)
		return p.enum(v, path)
	case reflect.Bool:
		b, ok := token.(bool)
		if !ok {
			return p.mismatch(token, "true or false", path)
		}
		v.SetBool(b)
		return nil
	}
	n, ok := token.(json.Number)
	if !ok {
		return p.mismatch(token, "a number", path)
	}
	return p.number(n.String(), v, path)
}

// number sets v, an integer or float, from its decimal form.
func (d decoder) number(s string, v reflect.Value, path string) error {
	if v.CanFloat() {
		f, err := strconv.ParseFloat(s, v.Type().Bits())
		if err != nil {
			return d.serialization(path, "%q is not a number that fits", s)
		}
		v.SetFloat(f)
		return nil
	}
	if !v.CanInt() {
		return d.serialization(path, "the lab does not know %s", v.Type())
	}
	n, err := strconv.ParseInt(s, 10, v.Type().Bits())
	if err != nil {
		return d.serialization(path, "%q is not an integer of %d bits", s, v.Type().Bits())
	}
	v.SetInt(n)
	return nil
}

func (p *reader) time(token json.Token, v reflect.Value, path string) error {
	n, ok := token.(json.Number)
	if !ok {
		return p.mismatch(token, "a number of seconds", path)
	}
	seconds, err := n.Float64()
	if err != nil || math.Abs(seconds) > 1e12 {
		return p.serialization(path, "%s is not a time", n)
	}
	v.Set(reflect.ValueOf(time.UnixMilli(int64(math.Round(seconds * 1000))).UTC()))
	return nil
}

func (p *reader) blob(token json.Token, v reflect.Value, path string) error {
	s, ok := token.(string)
	if !ok {
		return p.mismatch(token, "a string in base64", path)
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return p.serialization(path, "not base64: %v", err)
	}
	v.SetBytes(b)
	return nil
}

func (p *reader) document(token json.Token, v reflect.Value, path string) error {
	if p.service.Document == nil {
		return p.serialization(path, "the lab takes no documents here")
	}
	value, err := p.any(token, path)
	if err != nil {
		return err
	}
	v.Set(reflect.ValueOf(p.service.Document(value)))
	return nil
}

// any reads a value of no known shape.
func (p *reader) any(token json.Token, path string) (any, error) {
	switch t := token.(type) {
	case json.Number:
		return t.Float64()
	case json.Delim:
		if t == '{' {
			return p.anyObject(path)
		}
		return p.anyList(path)
	}
	return token, nil
}

func (p *reader) anyObject(path string) (any, error) {
	out := map[string]any{}
	err := p.object(path, func(name string) error {
		token, err := p.next(join(path, name))
		if err != nil {
			return err
		}
		out[name], err = p.any(token, join(path, name))
		return err
	})
	return out, err
}

func (p *reader) anyList(path string) (any, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.serialization(path, "nested too deeply")
	}
	defer func() { p.depth-- }()
	out := []any{}
	for {
		token, err := p.next(path)
		if err != nil {
			return nil, err
		}
		if token == json.Delim(']') {
			return out, nil
		}
		value, err := p.any(token, path)
		if err != nil {
			return nil, err
		}
		out = append(out, value)
	}
}

func (p *reader) mismatch(token json.Token, want, path string) error {
	return p.serialization(path, "%s is not %s", kindOf(token), want)
}

func kindOf(token json.Token) string {
	switch t := token.(type) {
	case nil:
		return "null"
	case json.Delim:
		if t == '{' {
			return "an object"
		}
		return "a list"
	}
	return fmt.Sprintf("%v", token)
}

// encodeJSON encodes struct v. Members that are not set are left out. With
// lists, its own lists are there even when they are empty, as AWS's answers have them.
func encodeJSON(s *Service, v reflect.Value, lists bool) []byte {
	e := &jsonEncoder{service: s}
	e.structure(v, lists)
	return e.Bytes()
}

func encodeJSONError(code, message string) []byte {
	e := &jsonEncoder{}
	e.WriteString(`{"__type":`)
	e.string(code)
	e.WriteString(`,"message":`)
	e.string(message)
	e.WriteByte('}')
	return e.Bytes()
}

type jsonEncoder struct {
	bytes.Buffer
	service *Service
}

func (e *jsonEncoder) structure(v reflect.Value, lists bool) {
	e.WriteByte('{')
	comma := false
	for i := range v.NumField() {
		f := v.Type().Field(i)
		empty := lists && f.Type.Kind() == reflect.Slice && f.Type != bytesType
		if !isMember(f) || absent(v.Field(i)) && !empty {
			continue
		}
		if comma {
			e.WriteByte(',')
		}
		comma = true
		e.string(e.service.member(f.Name))
		e.WriteByte(':')
		e.value(v.Field(i))
	}
	e.WriteByte('}')
}

// absent reports whether a member is not set. Numbers and booleans that are no
// pointers have a default of zero, which AWS sends.
func absent(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface:
		return v.IsNil()
	case reflect.String:
		return v.Len() == 0
	}
	return false
}

func (e *jsonEncoder) value(v reflect.Value) {
	switch {
	case v.Type() == timeType:
		e.WriteString(epoch(v.Interface().(time.Time)))
	case v.Type() == bytesType:
		e.string(base64.StdEncoding.EncodeToString(v.Bytes()))
	case isDocument(v.Type()):
		e.document(v)
	case v.Kind() == reflect.Pointer:
		e.value(v.Elem())
	case v.Kind() == reflect.Struct:
		e.structure(v, false)
	case v.Kind() == reflect.Slice:
		e.list(v)
	case v.Kind() == reflect.Map:
		e.mapping(v)
	case v.Kind() == reflect.Interface:
		e.union(v)
	default:
		e.scalar(v)
	}
}

// epoch is a time as AWS's JSON has it: seconds since 1970 with milliseconds.
func epoch(t time.Time) string {
	return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', -1, 64)
}

func (e *jsonEncoder) scalar(v reflect.Value) {
	switch {
	case v.Kind() == reflect.String:
		e.string(v.String())
	case v.Kind() == reflect.Bool:
		e.WriteString(strconv.FormatBool(v.Bool()))
	case v.CanInt():
		e.WriteString(strconv.FormatInt(v.Int(), 10))
	case v.CanFloat():
		e.WriteString(strconv.FormatFloat(v.Float(), 'f', -1, 64))
	default:
		e.WriteString("null")
	}
}

func (e *jsonEncoder) list(v reflect.Value) {
	e.WriteByte('[')
	for i := range v.Len() {
		if i > 0 {
			e.WriteByte(',')
		}
		e.value(v.Index(i))
	}
	e.WriteByte(']')
}

func (e *jsonEncoder) mapping(v reflect.Value) {
	e.WriteByte('{')
	for i, key := range sortedKeys(v) {
		if i > 0 {
			e.WriteByte(',')
		}
		e.string(key.String())
		e.WriteByte(':')
		e.value(v.MapIndex(key))
	}
	e.WriteByte('}')
}

func sortedKeys(v reflect.Value) []reflect.Value {
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int {
		switch {
		case a.String() < b.String():
			return -1
		case a.String() > b.String():
			return 1
		}
		return 0
	})
	return keys
}

func (e *jsonEncoder) union(v reflect.Value) {
	member := v.Elem().Elem()
	e.WriteByte('{')
	e.string(e.service.unionMember(member.Type()))
	e.WriteByte(':')
	e.value(member.FieldByName("Value"))
	e.WriteByte('}')
}

func (e *jsonEncoder) document(v reflect.Value) {
	m, ok := v.Interface().(interface{ MarshalSmithyDocument() ([]byte, error) })
	if !ok {
		e.WriteString("null")
		return
	}
	b, err := m.MarshalSmithyDocument()
	if err != nil || !json.Valid(b) {
		b = []byte("null")
	}
	e.Write(b)
}

// string writes s as JSON. Text that is no UTF-8 comes out with U+FFFD, as encoding/json has it.
func (e *jsonEncoder) string(s string) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		e.WriteString(`""`)
		return
	}
	e.Write(bytes.TrimRight(b.Bytes(), "\n"))
}
