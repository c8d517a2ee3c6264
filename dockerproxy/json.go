package dockerproxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode/utf8"
)

// Bounds of a body's JSON.
const (
	maxDepth  = 12    // a create has 6 levels
	maxTokens = 20000 // of values and keys
)

// unmarshal decodes a caller's JSON into v, a pointer to a struct, the strict
// way: UTF-8, one value and then the end, no key twice, only keys that the type
// has, in exactly its spelling. (encoding/json, and so the Engine, folds case,
// takes the last of two keys, and merges objects.)
func unmarshal(data []byte, v any) error {
	if !utf8.Valid(data) {
		return badRequest("the body is not UTF-8")
	}
	if err := checkKeys(data, reflect.TypeOf(v).Elem()); err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return badRequest("the body does not fit: %v", err)
	}
	return nil
}

// keyChecker walks a JSON text along a Go type.
type keyChecker struct {
	dec    *json.Decoder
	tokens int
}

func checkKeys(data []byte, t reflect.Type) error {
	k := keyChecker{dec: json.NewDecoder(bytes.NewReader(data))}
	k.dec.UseNumber()
	if err := k.value(t, 0, ""); err != nil {
		return err
	}
	if _, err := k.dec.Token(); err != io.EOF {
		return badRequest("something follows the body's JSON")
	}
	return loneSurrogate(data)
}

// loneSurrogate refuses escapes that are half a character: parsers replace them
// in different ways.
func loneSurrogate(data []byte) error {
	for i := 0; i+6 <= len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		if data[i+1] != 'u' {
			i++
			continue
		}
		if isSurrogate(data[i+2:], "89abAB") && i+12 <= len(data) && data[i+6] == '\\' && data[i+7] == 'u' && isSurrogate(data[i+8:], "cdefCDEF") {
			i += 11
			continue
		}
		if isSurrogate(data[i+2:], "89abcdefABCDEF") {
			return badRequest("the body has half a character in an escape")
		}
	}
	return nil
}

func isSurrogate(hex []byte, second string) bool {
	return (hex[0] == 'd' || hex[0] == 'D') && strings.IndexByte(second, hex[1]) >= 0
}

func (k *keyChecker) token() (json.Token, error) {
	if k.tokens++; k.tokens > maxTokens {
		return nil, badRequest("the body has more than %d values", maxTokens)
	}
	tok, err := k.dec.Token()
	if err != nil {
		return nil, badRequest("the body is not JSON: %v", err)
	}
	return tok, nil
}

func (k *keyChecker) value(t reflect.Type, depth int, path string) error {
	if depth > maxDepth {
		return badRequest("the body is nested too deep")
	}
	tok, err := k.token()
	if err != nil {
		return err
	}
	switch tok {
	case json.Delim('{'):
		return k.object(t, depth, path)
	case json.Delim('['):
		return k.array(t, depth, path)
	}
	return nil
}

func (k *keyChecker) object(t reflect.Type, depth int, path string) error {
	seen := map[string]bool{}
	for k.dec.More() {
		tok, err := k.token()
		if err != nil {
			return err
		}
		key, _ := tok.(string) // the decoder lets only strings be keys
		if seen[key] {
			return badRequest("the key %q is there twice", clip(path+key))
		}
		seen[key] = true
		of, ok := member(t, key)
		if !ok {
			return badRequest("the key %q is not known", clip(path+key))
		}
		if err := k.value(of, depth+1, path+key+"."); err != nil {
			return err
		}
	}
	_, err := k.token()
	return err
}

func (k *keyChecker) array(t reflect.Type, depth int, path string) error {
	of := element(t)
	for k.dec.More() {
		if err := k.value(of, depth+1, path); err != nil {
			return err
		}
	}
	_, err := k.token()
	return err
}

// anything stands for values below which the type says no more: strings and
// numbers, where the later decoding refuses an object.
var anything = reflect.TypeFor[json.RawMessage]()

func element(t reflect.Type) reflect.Type {
	t = pointed(t)
	if t.Kind() == reflect.Slice || t.Kind() == reflect.Array {
		return t.Elem()
	}
	return anything
}

func pointed(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

// member is the type of what stands under key in an object of type t.
func member(t reflect.Type, key string) (reflect.Type, bool) {
	t = pointed(t)
	switch t.Kind() {
	case reflect.Map:
		return t.Elem(), true
	case reflect.Struct:
		return field(t, key)
	}
	return nil, false
}

func field(t reflect.Type, key string) (reflect.Type, bool) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			if of, ok := member(f.Type, key); ok {
				return of, true
			}
			continue
		}
		if name == "" {
			name = f.Name
		}
		if f.IsExported() && name == key && name != "-" {
			return f.Type, true
		}
	}
	return nil, false
}

// object is a JSON object of the Engine's whose order is kept, so that what is
// not changed is passed on byte for byte.
type object []pair

type pair struct {
	key   string
	value json.RawMessage
}

func parseObject(data []byte) (object, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	tok, err := dec.Token()
	if err != nil {
		return nil, err
	}
	if tok != json.Delim('{') {
		return nil, fmt.Errorf("%v is no object", tok)
	}
	var o object
	seen := map[string]bool{}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, err
		}
		p := pair{key: tok.(string)}
		if seen[p.key] {
			return nil, fmt.Errorf("key %q twice", p.key)
		}
		seen[p.key] = true
		if err := dec.Decode(&p.value); err != nil {
			return nil, err
		}
		o = append(o, p)
	}
	_, err = dec.Token()
	return o, err
}

func (o object) append(b []byte) []byte {
	b = append(b, '{')
	for i, p := range o {
		if i > 0 {
			b = append(b, ',')
		}
		key, _ := encode(p.key) // a string always encodes
		b = append(append(b, bytes.TrimRight(key, "\n")...), ':')
		b = append(b, p.value...)
	}
	return append(b, '}')
}
