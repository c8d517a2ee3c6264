package ecsstatus

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"

	"gopkg.in/yaml.v3"

	"jumpsuite/internal/cli"
)

// Format is how something is printed.
type Format string

// The formats. JSON and YAML have the same keys and hold everything that is
// known; the table is for people.
const (
	Table Format = "table"
	JSON  Format = "json"
	YAML  Format = "yaml"
)

// ParseFormat reads the value of --output.
func ParseFormat(s string) (Format, error) {
	switch f := Format(s); f {
	case Table, JSON, YAML:
		return f, nil
	}
	return "", cli.Usage("formats: json, yaml, table", "unknown output format %q", s)
}

// Write prints v in a format; table prints it as a table.
func Write(w io.Writer, f Format, v any, table func(io.Writer) error) error {
	switch f {
	case JSON:
		return WriteJSON(w, v)
	case YAML:
		return writeYAML(w, v)
	}
	return table(w)
}

// WriteJSON prints v as indented JSON in ASCII control-free text: what could
// move a terminal's cursor or turn its text around is escaped.
func WriteJSON(w io.Writer, v any) error {
	text, err := marshal(v)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, text, "", "  "); err != nil {
		return err
	}
	// Control characters stand in strings only, where \uXXXX means the same.
	_, err = io.WriteString(w, cli.Printable(out.String()))
	return err
}

// WriteJSONLine prints v as one line of JSON.
func WriteJSONLine(w io.Writer, v any) error {
	text, err := marshal(v)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, cli.Printable(string(text)))
	return err
}

// marshal is v as JSON with a newline at its end, <, > and & left as they are.
func marshal(v any) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return out.Bytes(), err
}

// writeYAML prints v with the keys, in the order, of its JSON, which is YAML
// already, in block style.
func writeYAML(w io.Writer, v any) error {
	text, err := marshal(v)
	if err != nil {
		return err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(cli.Printable(string(text))), &doc); err != nil {
		return err
	}
	blockStyle(&doc)
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return err
	}
	_, err = io.WriteString(w, cli.Printable(out.String()))
	return err
}

// yaml11 is text that YAML 1.1, which most readers still speak, takes for a
// boolean or a number, and YAML 1.2 does not: yes, on, 1_000, 12:30 (base 60).
var yaml11 = regexp.MustCompile(`^(?i:y|n|yes|no|on|off|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])*(\.[0-9_]*)?)$`)

// blockStyle takes away JSON's brackets and quotes, where YAML can do without.
// Text that is not printable stays quoted, so that it can be escaped.
func blockStyle(n *yaml.Node) {
	n.Style = 0
	if n.Kind == yaml.ScalarNode && (cli.Printable(n.Value) != n.Value || n.Tag == "!!str" && yaml11.MatchString(n.Value)) {
		n.Style = yaml.DoubleQuotedStyle
	}
	if len(n.Content) == 0 && (n.Kind == yaml.SequenceNode || n.Kind == yaml.MappingNode) {
		n.Style = yaml.FlowStyle
	}
	for _, c := range n.Content {
		blockStyle(c)
	}
}

// table is columns two spaces apart.
type table struct{ *tabwriter.Writer }

func newTable(w io.Writer) table { return table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)} }

// row prints cells, each made printable and kept on its line; an empty one is
// a dash.
func (t table) row(cells ...string) {
	for i, c := range cells {
		if c == "" {
			c = "-"
		}
		cells[i] = line(c)
	}
	fmt.Fprintln(t, strings.Join(cells, "\t"))
}

var inOneLine = strings.NewReplacer("\n", `\n`, "\t", `\t`)

// line makes text of AWS's printable in one line.
func line(s string) string { return inOneLine.Replace(cli.Printable(s)) }

// clock is a time as tables show it: RFC 3339, UTC, seconds; empty if unknown.
func clock(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
