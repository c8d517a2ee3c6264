package deployer_test

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"jumpsuite/deployer"
)

// schema is docs/deploy-events.schema.json, as far as it uses JSON Schema.
type schema struct {
	Ref        string             `json:"$ref"`
	Type       string             `json:"type"`
	Format     string             `json:"format"`
	Enum       []string           `json:"enum"`
	Minimum    *float64           `json:"minimum"`
	Properties map[string]*schema `json:"properties"`
	Required   []string           `json:"required"`
	Additional json.RawMessage    `json:"additionalProperties"`
	Items      *schema            `json:"items"`
	Defs       map[string]*schema `json:"$defs"`
}

func readSchema(t *testing.T) *schema {
	text, err := os.ReadFile("../docs/deploy-events.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var s schema
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	return &s
}

// check is what is wrong with a value, by the schema.
func (s *schema) check(root *schema, at string, v any) (wrong []string) {
	if s.Ref != "" {
		return root.Defs[strings.TrimPrefix(s.Ref, "#/$defs/")].check(root, at, v)
	}
	switch v := v.(type) {
	case map[string]any:
		if s.Type != "object" {
			return []string{at + " is an object"}
		}
		for _, name := range s.Required {
			if _, there := v[name]; !there {
				wrong = append(wrong, at+" has no "+name)
			}
		}
		for name, member := range v {
			switch p := s.Properties[name]; {
			case p != nil:
				wrong = append(wrong, p.check(root, at+"."+name, member)...)
			case string(s.Additional) == "false":
				wrong = append(wrong, at+" has "+name)
			}
		}
	case []any:
		if s.Type != "array" {
			return []string{at + " is a list"}
		}
		for i, item := range v {
			wrong = append(wrong, s.Items.check(root, fmt.Sprintf("%s[%d]", at, i), item)...)
		}
	case string:
		_, err := time.Parse(time.RFC3339, v)
		if s.Type != "string" || len(s.Enum) > 0 && !slices.Contains(s.Enum, v) || s.Format == "date-time" && err != nil {
			return []string{fmt.Sprintf("%s is %q", at, v)}
		}
	case float64:
		if s.Type != "number" && (s.Type != "integer" || v != float64(int(v))) || s.Minimum != nil && v < *s.Minimum {
			return []string{fmt.Sprintf("%s is %v", at, v)}
		}
	default:
		return []string{fmt.Sprintf("%s is %v", at, v)}
	}
	return wrong
}

const schemaWorld = `
clusters: [{name: prod, hosts: [{count: 3}]}]
images:
  - {repository: web, tags: ["1", "2"]}
  - {repository: web, tags: [crash], exit: 137, after: 3s, log: ["starting", "panic: \e[31m"]}
  - {repository: web, tags: ["503"], http: 503}
services: [{name: web, image: "web:1", desired: 2, port: 80, log-group: /ecs/web, load-balancers: [{interval: 5s, healthy: 2, delay: 5s}]}]
`

// What deploy --output json writes is what the schema says, on ways well and ill.
func TestJSONOutputIsWhatTheSchemaSays(t *testing.T) {
	root := readSchema(t)
	p := play(t, schemaWorld)
	p.d.Logs = deployer.CloudWatch(p.cfg)
	var out strings.Builder
	p.d.Tell = (&deployer.JSON{W: &out}).Tell
	seen := map[string]bool{}
	for _, image := range []string{"web:2", "web:2", "web:crash", "web:503"} {
		_ = p.deploy(t.Context(), image) // how it ends is among the events
	}
	for line := range strings.Lines(out.String()) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		for _, wrong := range root.check(root, "event", v) {
			t.Errorf("%s: %s", wrong, line)
		}
		seen[v["event"].(string)] = true
	}
	for _, kind := range []string{"plan", "registered", "updated", "progress", "task-stopped", "task-log", "deployed", "nothing-to-do", "failed", "rolled-back"} {
		if !seen[kind] {
			t.Errorf("no event %s: the test shows nothing about it", kind)
		}
	}
}

func TestTheSchemaRefusesWhatIsNotInIt(t *testing.T) {
	root := readSchema(t)
	good := map[string]any{"time": "2026-11-23T12:00:00Z", "event": "progress", "containerType": "web", "message": ""}
	if wrong := root.check(root, "event", good); len(wrong) > 0 {
		t.Fatal(wrong)
	}
	for member, value := range map[string]any{"time": "noon", "event": "nothing", "message": 1.0, "colour": "red", "usualSeconds": -1.0, "progress": map[string]any{}} {
		bad := map[string]any{}
		for k, v := range good {
			bad[k] = v
		}
		bad[member] = value
		if len(root.check(root, "event", bad)) == 0 {
			t.Errorf("%s: %v passes", member, value)
		}
	}
}

// Every member that an event can have, and every kind, is in the schema.
func TestTheSchemaIsComplete(t *testing.T) {
	root := readSchema(t)
	missing(t, root, root, reflect.TypeFor[deployer.Event](), "event")
	source, err := os.ReadFile("events.go")
	if err != nil {
		t.Fatal(err)
	}
	kinds := regexp.MustCompile(`Kind = "([a-z-]+)"`).FindAllStringSubmatch(string(source), -1)
	if len(kinds) < 20 {
		t.Fatalf("found the kinds %v", kinds)
	}
	for _, k := range kinds {
		if !slices.Contains(root.Properties["event"].Enum, k[1]) {
			t.Errorf("the schema has no event %s", k[1])
		}
	}
}

func missing(t *testing.T, root, s *schema, typ reflect.Type, at string) {
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
		if typ.Kind() == reflect.Slice && s.Items != nil {
			s = s.Items
		}
		typ = typ.Elem()
	}
	if s.Ref != "" {
		s = root.Defs[strings.TrimPrefix(s.Ref, "#/$defs/")]
	}
	if typ.Kind() != reflect.Struct || typ == reflect.TypeFor[time.Time]() {
		return
	}
	for i := range typ.NumField() {
		name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
		if name == "-" || name == "" {
			continue
		}
		if s.Properties[name] == nil {
			t.Errorf("%s.%s is not in the schema", at, name)
			continue
		}
		missing(t, root, s.Properties[name], typ.Field(i).Type, at+"."+name)
	}
}
