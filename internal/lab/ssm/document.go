package ssm

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"jumpsuite/internal/lab/wire"
	"jumpsuite/internal/lab/world"
)

// document is a Session document (schema 1.0).
type document struct {
	name       string
	Schema     string               `json:"schemaVersion"`
	About      string               `json:"description"`
	Kind       string               `json:"sessionType"`
	Parameters map[string]parameter `json:"parameters"`
	Properties json.RawMessage      `json:"properties"`
	Inputs     json.RawMessage      `json:"inputs"`
}

type parameter struct {
	Type    string `json:"type"`
	About   string `json:"description"`
	Default string `json:"default"`
	Allowed string `json:"allowedPattern"`
}

// document is the world's document of that name.
func (s *SSM) document(name string) (*document, error) {
	i := slices.IndexFunc(s.World.Documents, func(d world.Document) bool { return d.Name == name })
	if i < 0 {
		return nil, wire.Errorf("InvalidDocument", "Document with name %s does not exist.", name)
	}
	d := &document{name: name, Schema: "1.0", Kind: "Port"}
	content := s.World.Documents[i].Content
	if content == "" {
		d.Properties = fmt.Appendf(nil, `{"portNumber":"%d"}`, s.World.Documents[i].Port)
		return d, nil
	}
	decoder := json.NewDecoder(strings.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(d); err != nil {
		return nil, wire.Errorf("InvalidDocument", "Document %s is not a session document: %v", name, err)
	}
	if d.Schema != "1.0" {
		return nil, wire.Errorf("InvalidDocument", "Document %s is of schema %q, not 1.0", name, d.Schema)
	}
	return d, nil
}

// placeholder is where a parameter goes.
var placeholder = regexp.MustCompile(`\{\{ *([A-Za-z0-9]+) *\}\}`)

// properties are the document's with the parameters put in. As the agent does
// it, that is textual; here a value is escaped, as it stands in a JSON string.
func (d *document) properties(given map[string][]string) ([]byte, error) {
	values, err := d.values(given)
	if err != nil {
		return nil, err
	}
	var unknown string
	out := placeholder.ReplaceAllStringFunc(string(d.Properties), func(m string) string {
		name := placeholder.FindStringSubmatch(m)[1]
		value, ok := values[name]
		if !ok {
			unknown = name
		}
		quoted := strconv.Quote(value)
		return quoted[1 : len(quoted)-1]
	})
	if unknown != "" {
		return nil, wire.Errorf("InvalidParameters", "Parameter %s of document %s has no value", unknown, d.name)
	}
	return []byte(out), nil
}

// values are the parameters given, checked, and the defaults of the others.
func (d *document) values(given map[string][]string) (map[string]string, error) {
	values := map[string]string{}
	for name, p := range d.Parameters {
		values[name] = p.Default
	}
	for name, value := range given {
		p, ok := d.Parameters[name]
		if !ok {
			return nil, wire.Errorf("InvalidParameters", "Document %s has no parameter %s", d.name, name)
		}
		if len(value) != 1 {
			return nil, wire.Errorf("InvalidParameters", "Parameter %s takes one value", name)
		}
		if ok, err := regexp.MatchString(p.Allowed, value[0]); p.Allowed != "" && (err != nil || !ok) {
			return nil, wire.Errorf("InvalidParameters", "Parameter %s has value not matching %s", name, p.Allowed)
		}
		values[name] = value[0]
	}
	for name, value := range values {
		if value == "" {
			return nil, wire.Errorf("InvalidParameters", "Parameter %s of document %s is required", name, d.name)
		}
	}
	return values, nil
}

// localPort is the port of an address that is this machine's loopback.
func localPort(address string) (int, bool) {
	to, err := netip.ParseAddrPort(address)
	return int(to.Port()), err == nil && to.Addr().IsLoopback()
}

// address is what the port in a session's properties leads to.
func (h *host) address(properties []byte) string {
	var p struct {
		Port string `json:"portNumber"`
	}
	if json.Unmarshal(properties, &p) != nil {
		return ""
	}
	port, err := strconv.Atoi(p.Port)
	if err != nil {
		return ""
	}
	return h.ports[port]
}
