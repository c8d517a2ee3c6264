package wire

import (
	"fmt"
	"reflect"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

var (
	timeType  = reflect.TypeFor[time.Time]()
	bytesType = reflect.TypeFor[[]byte]()
)

// member is the wire's name of a struct field.
func (s *Service) member(field string) string {
	if s.Query() || s.Titled {
		return field
	}
	r, n := utf8.DecodeRuneInString(field)
	return string(unicode.ToLower(r)) + field[n:]
}

// isMember tells the members of a shape from what the SDK adds to its structs.
func isMember(f reflect.StructField) bool {
	return f.IsExported() && !f.Anonymous && f.Name != "ResultMetadata"
}

// field finds the member of a struct that the wire calls name.
func (s *Service) field(t reflect.Type, name string) (reflect.StructField, bool) {
	for i := range t.NumField() {
		f := t.Field(i)
		if isMember(f) && s.member(f.Name) == name {
			return f, true
		}
	}
	return reflect.StructField{}, false
}

// isDocument tells the SDK's documents (any JSON) from unions; both are interfaces.
func isDocument(t reflect.Type) bool {
	return t.Kind() == reflect.Interface && strings.HasSuffix(t.PkgPath(), "/document")
}

// unionMember is the wire's name of a union's member, from the name that the
// SDK gives its struct: UnionMemberName.
func (s *Service) unionMember(t reflect.Type) string {
	_, name, _ := strings.Cut(t.Name(), "Member")
	return s.member(name)
}

// union finds the member of union t that the wire calls name.
func (s *Service) union(t reflect.Type, name string) (reflect.Type, bool) {
	for _, u := range s.Unions {
		m := reflect.TypeOf(u)
		if m.Implements(t) && s.unionMember(m.Elem()) == name {
			return m.Elem(), true
		}
	}
	return nil, false
}

// decoder decodes one request's input.
type decoder struct{ service *Service }

func (d decoder) serialization(path, format string, args ...any) error {
	code := "SerializationException"
	if d.service.Query() {
		code = "MalformedInput"
	}
	what := fmt.Sprintf(format, args...)
	if path != "" {
		what = path + ": " + what
	}
	return Errorf(code, "%s", what)
}

func (d decoder) invalid(format string, args ...any) error {
	code := d.service.Invalid
	if code == "" {
		code = "InvalidParameterException"
	}
	return Errorf(code, "1 validation error detected: "+format, args...)
}

// complete refuses a struct that lacks a required member. seen are the
// members that were sent, by their Go names.
func (d decoder) complete(t reflect.Type, seen map[string]bool, path string) error {
	for _, name := range required(t) {
		if !seen[name] {
			return d.invalid("Value null at '%s' failed to satisfy constraint: Member must not be null", join(path, d.service.member(name)))
		}
	}
	return nil
}

// enum refuses a value that an enumeration does not have. The SDK lists the
// values of each in its method Values.
func (d decoder) enum(v reflect.Value, path string) error {
	m := v.MethodByName("Values")
	if !m.IsValid() || m.Type().NumIn() != 0 || m.Type().NumOut() != 1 {
		return nil
	}
	values := m.Call(nil)[0]
	var names []string
	for i := range values.Len() {
		if values.Index(i).String() == v.String() {
			return nil
		}
		names = append(names, values.Index(i).String())
	}
	return d.invalid("Value '%s' at '%s' failed to satisfy constraint: Member must satisfy enum value set: [%s]", v.String(), path, strings.Join(names, ", "))
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
