package dockerproxy

import (
	"bytes"
	"encoding/json"
	"strings"

	"jumpsuite/internal/pattern"
)

// hidden stands for a value that is not shown.
const hidden = "REDACTED"

// redactor hides the values of environment variables that the policy names,
// wherever the Engine shows them. It works on the Engine's answer, not on what
// the CLI prints, so no --format gets around it. What it does not understand is
// not shown at all.
//
// It protects against people looking over shoulders and against logs that keep
// what was on a screen. Whoever may exec can read the variables in the container.
type redactor struct {
	secret func(variable string) bool
}

func (x *exchange) redactor() redactor {
	p := x.gate.policy.Load()
	env := x.gate.Environment
	return redactor{secret: func(v string) bool { return p.Redacted(env, v) }}
}

var errOpaque = unavailable("the Docker Engine's answer is not understood, and so not shown")

// container redacts an inspected container. Parts that the API of 20.10 to 28
// does not have are left out.
func (r redactor) container(raw []byte) ([]byte, error) {
	o, err := parseObject(raw)
	if err != nil {
		return nil, errOpaque
	}
	o = o.keep(inspectKeys)
	edits := edits{
		"Config": r.config,
		"Path":   r.textValue,
		"Args":   r.stringsValue,
		"State": func(v json.RawMessage) (json.RawMessage, error) {
			return edit(v, edits{"Error": r.textValue}) // it can have the command in it
		},
		"HostConfig": r.hostConfig,
		"GraphDriver": func(v json.RawMessage) (json.RawMessage, error) {
			return edit(v, edits{"Data": func(json.RawMessage) (json.RawMessage, error) { return json.RawMessage("null"), nil }})
		},
	}
	if err := edits.apply(o); err != nil {
		return nil, err
	}
	return append(o.append(nil), '\n'), nil
}

// image redacts an inspected image.
func (r redactor) image(raw []byte) ([]byte, error) {
	o, err := parseObject(raw)
	if err != nil {
		return nil, errOpaque
	}
	o = o.keep(imageKeys)
	if err := (edits{"Config": r.config, "ContainerConfig": r.config}).apply(o); err != nil {
		return nil, err
	}
	return append(o.append(nil), '\n'), nil
}

// list redacts the containers of a ps.
func (r redactor) list(raw []byte) ([]byte, error) {
	return objects(raw, listKeys, edits{"Command": r.textValue, "Labels": r.mapValue})
}

// images redacts a list of images.
func (r redactor) images(raw []byte) ([]byte, error) {
	return objects(raw, imageListKeys, edits{"Labels": r.mapValue})
}

// objects edits each object of a list, and leaves out the keys that are not
// listed.
func objects(raw []byte, keys map[string]bool, e edits) ([]byte, error) {
	var items []json.RawMessage
	if err := json.Unmarshal(raw, &items); err != nil {
		return nil, errOpaque
	}
	out := append(make([]byte, 0, len(raw)+2), '[')
	for i, item := range items {
		o, err := parseObject(item)
		if err != nil {
			return nil, errOpaque
		}
		o = o.keep(keys)
		if err := e.apply(o); err != nil {
			return nil, err
		}
		if i > 0 {
			out = append(out, ',')
		}
		out = o.append(out)
	}
	return append(out, "]\n"...), nil
}

// config redacts a container's or an image's Config.
func (r redactor) config(raw json.RawMessage) (json.RawMessage, error) {
	if isNull(raw) {
		return raw, nil
	}
	o, err := parseObject(raw)
	if err != nil {
		return nil, errOpaque
	}
	o = o.keep(configKeys)
	err = edits{
		"Env": r.envValue, "Cmd": r.stringsValue, "Entrypoint": r.stringsValue,
		"Labels": r.mapValue, "OnBuild": r.stringsValue,
		"Healthcheck": func(v json.RawMessage) (json.RawMessage, error) { return edit(v, edits{"Test": r.stringsValue}) },
	}.apply(o)
	return o.append(nil), err
}

func (r redactor) hostConfig(raw json.RawMessage) (json.RawMessage, error) {
	within := func(e edits) func(json.RawMessage) (json.RawMessage, error) {
		return func(v json.RawMessage) (json.RawMessage, error) { return edit(v, e) }
	}
	driver := edits{"VolumeOptions": within(edits{"DriverConfig": within(edits{"Options": r.mapValue})})}
	return edit(raw, edits{
		"LogConfig":   within(edits{"Config": r.mapValue}),
		"Annotations": r.mapValue,
		"Mounts":      func(v json.RawMessage) (json.RawMessage, error) { return editEach(v, driver) },
	})
}

// editEach edits each object of a list.
func editEach(raw json.RawMessage, e edits) (json.RawMessage, error) {
	return rewrite(raw, func(list []json.RawMessage) ([]json.RawMessage, bool) {
		changed := false
		for i, item := range list {
			v, err := edit(item, e)
			if err != nil {
				v = json.RawMessage("null") // what is not understood is not shown
			}
			list[i], changed = v, changed || !bytes.Equal(v, item)
		}
		return list, changed
	})
}

// edits are what is done to the values of an object, by key.
type edits map[string]func(json.RawMessage) (json.RawMessage, error)

func (e edits) apply(o object) error {
	for i := range o {
		f := e[o[i].key]
		if f == nil {
			continue
		}
		v, err := f(o[i].value)
		if err != nil {
			return err
		}
		o[i].value = v
	}
	return nil
}

func edit(raw json.RawMessage, e edits) (json.RawMessage, error) {
	if isNull(raw) {
		return raw, nil
	}
	o, err := parseObject(raw)
	if err != nil {
		return nil, errOpaque
	}
	if err := e.apply(o); err != nil {
		return nil, err
	}
	return o.append(nil), nil
}

func isNull(raw json.RawMessage) bool { return string(bytes.TrimSpace(raw)) == "null" }

// rewrite decodes a value into the type that it has to have, changes it and
// encodes it; one that did not change is passed on as it was.
func rewrite[T any](raw json.RawMessage, change func(T) (T, bool)) (json.RawMessage, error) {
	if isNull(raw) {
		return raw, nil
	}
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, errOpaque
	}
	v, changed := change(v)
	if !changed {
		return raw, nil
	}
	b, err := encode(v)
	return bytes.TrimRight(b, "\n"), err
}

// envValue redacts a list of NAME=value.
func (r redactor) envValue(raw json.RawMessage) (json.RawMessage, error) {
	return rewrite(raw, func(list []string) ([]string, bool) {
		changed := false
		for i, s := range list {
			name, value, ok := strings.Cut(s, "=")
			shown := r.text(value)
			if ok && r.secret(name) {
				shown = hidden
			}
			if ok && shown != value {
				list[i], changed = name+"="+shown, true
			}
		}
		return list, changed
	})
}

// stringsValue redacts an argument list. Old Engines have a string for one.
func (r redactor) stringsValue(raw json.RawMessage) (json.RawMessage, error) {
	if len(raw) > 0 && raw[0] == '"' {
		return r.textValue(raw)
	}
	return rewrite(raw, r.arguments)
}

// arguments hides what follows --password and the like, too.
func (r redactor) arguments(list []string) ([]string, bool) {
	changed, next := false, false
	for i, s := range list {
		shown := r.text(s)
		option := strings.HasPrefix(s, "-")
		if next && !option {
			shown = hidden
		}
		next = option && !strings.Contains(s, "=") && len(s) > 2 && r.secret(variable(s))
		if shown != s {
			list[i], changed = shown, true
		}
	}
	return list, changed
}

func (r redactor) textValue(raw json.RawMessage) (json.RawMessage, error) {
	return rewrite(raw, func(s string) (string, bool) {
		shown := r.text(s)
		return shown, shown != s
	})
}

// mapValue redacts labels and options by their keys.
func (r redactor) mapValue(raw json.RawMessage) (json.RawMessage, error) {
	return rewrite(raw, func(m map[string]string) (map[string]string, bool) {
		changed := false
		for k, v := range m {
			if shown := r.label(k, v); shown != v {
				m[k], changed = shown, true
			}
		}
		return m, changed
	})
}

// label is the value of a label, or of an option of a driver's, as it is shown.
func (r redactor) label(key, value string) string {
	if value != "" && r.secret(variable(key[strings.LastIndexByte(key, '.')+1:])) {
		return hidden
	}
	return r.text(value)
}

// assignment is NAME=value and --name=value within a text, the value quoted or
// up to the next space.
var assignment = pattern.New(`(-{0,2}[A-Za-z_][A-Za-z0-9_.-]*)=("[^"]*"|'[^']*'|[^\s"']+)`)

// optionAndValue is --name value within a text, the value quoted or up to the next space.
var optionAndValue = pattern.New(`(^|[\s"'])--?[A-Za-z][A-Za-z0-9_.-]+\s+("[^"]*"|'[^']*'|[^\s"'-][^\s"']*)`)

// userOfURL is the user and the password in a URL (RFC 3986, 3.2.1).
var userOfURL = pattern.New(`://[^\s/?#:@"']*:[^\s/?#"']+@`)

// passwordOfURL hides the passwords in URLs, whatever the variable is called that
// they are in: DATABASE_URL=postgres://user:password@host/.
func passwordOfURL(s string) string {
	if !strings.Contains(s, "://") {
		return s
	}
	return userOfURL.ReplaceAllStringFunc(s, func(m string) string {
		user, _, _ := strings.Cut(m[len("://"):], ":")
		return "://" + user + ":" + hidden + "@"
	})
}

// text hides what is secret in a text of any kind.
func (r redactor) text(s string) string {
	s = passwordOfURL(s)
	if r.document(s) {
		return hidden
	}
	s = r.members(s)
	if strings.IndexByte(s, '-') >= 0 && strings.ContainsAny(s, " \t\n") {
		s = optionAndValue.ReplaceAllStringFunc(s, r.optionText)
	}
	if strings.IndexByte(s, '=') < 0 {
		return s
	}
	return assignment.ReplaceAllStringFunc(s, func(m string) string {
		name, value, _ := strings.Cut(m, "=")
		if r.secret(variable(name)) {
			return name + "=" + hidden
		}
		if value[0] == '"' || value[0] == '\'' {
			return name + "=" + r.text(value)
		}
		return name + "=" + r.assignments(value)
	})
}

// assignments is text for a value that has assignments in it: user=x,password=y. It
// has neither quotes nor blanks, and all else in it was looked at already.
func (r redactor) assignments(value string) string {
	var out strings.Builder
	for {
		i := strings.IndexByte(value, '=')
		if i < 0 || i == len(value)-1 {
			break
		}
		out.WriteString(value[:i+1])
		if name := endingName(value[:i]); name != "" && r.secret(variable(name)) {
			return out.String() + hidden
		}
		value = value[i+1:]
	}
	return out.String() + value
}

// endingName is the name that a text ends with, as assignment has it, but for the
// dashes before it.
func endingName(s string) string {
	before := strings.TrimRightFunc(s, func(c rune) bool {
		return c == '_' || c == '.' || c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
	})
	return strings.TrimLeft(s[len(before):], "0123456789.-")
}

func (r redactor) optionText(m string) string {
	name := strings.TrimLeft(m, " \t\n\"'")
	name = name[:strings.IndexAny(name, " \t\n\f\r\v")]
	if !r.secret(variable(name)) {
		return m
	}
	return m[:strings.Index(m, name)] + name + " " + hidden
}

// variable is an option's or a label's name as a variable would have it:
// --db-password is DB_PASSWORD.
func variable(option string) string {
	return strings.ToUpper(strings.ReplaceAll(strings.TrimLeft(option, "-"), "-", "_"))
}

// keep drops the keys that are not listed.
func (o object) keep(keys map[string]bool) object {
	out := o[:0]
	for _, p := range o {
		if keys[p.key] {
			out = append(out, p)
		}
	}
	return out
}
