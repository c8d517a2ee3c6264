// Manual makes manual pages and completions from what the programs themselves say
// of their commands and options, so that neither can say anything else.
//
// A page in packaging/man is mdoc(7) with lines that are replaced:
//
//	.\" @options PROGRAM COMMAND…   the list of its options
//	.\" @exits PROGRAM              the list of exit codes
//
// and the words @VERSION@ and @DATE@. A page belongs to the packages that have
// its program, and pages of no program to all.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cpuguy83/go-md2man/v2/md2man"
)

// options are what the command line says.
type options struct {
	source, bin, out string
	version          string
	at               time.Time
	programs         []string
}

func main() {
	var o options
	flag.StringVar(&o.source, "source", "packaging", "`FOLDER` of pages and completions")
	flag.StringVar(&o.bin, "bin", "bin", "`FOLDER` of the programs, as they can be run here")
	flag.StringVar(&o.out, "out", "", "`FOLDER` to write to: all, deb and rpm below it")
	flag.StringVar(&o.version, "version", "", "`VERSION` of the package")
	epoch := flag.Int64("epoch", 0, "`SECONDS` since 1970: the date of the pages")
	flag.Parse()
	o.at, o.programs = time.Unix(*epoch, 0).UTC(), flag.Args()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "manual:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	b, err := readBook(o.bin, o.programs)
	if err != nil {
		return err
	}
	if err := pages(o, b); err != nil {
		return err
	}
	if err := policyPage(o); err != nil {
		return err
	}
	return completions(o, b)
}

// pages writes the pages that belong to the programs.
func pages(o options, b *book) error {
	all, err := filepath.Glob(filepath.Join(o.source, "man", "*.[1-8]"))
	if err != nil || len(all) == 0 {
		return fmt.Errorf("no pages in %s/man", o.source)
	}
	for _, path := range all {
		name := filepath.Base(path)
		if p := program(name); p != "" && !b.has(p) {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if other, ok := strings.CutPrefix(strings.TrimSpace(string(text)), ".so "); ok {
			if err := link(o, name, other); err != nil {
				return err
			}
			continue
		}
		page, err := b.fill(string(text), o.version, o.at)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		to := filepath.Join(o.out, "all/usr/share/man", "man"+name[len(name)-1:], name)
		if err := write(to, page); err != nil {
			return err
		}
	}
	return nil
}

// link is a page that is another one under a second name. Both are compressed in
// the package.
func link(o options, name, other string) error {
	folder := filepath.Join(o.out, "all/usr/share/man", "man"+name[len(name)-1:])
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	return os.Symlink(filepath.Base(other)+".gz", filepath.Join(folder, name+".gz"))
}

// policyPage makes jumpsuite-policy(5) from the page in docs, which has it all.
func policyPage(o options) error {
	text, err := os.ReadFile(filepath.Join(o.source, "../docs/policy.md"))
	if err != nil {
		return err
	}
	title, rest, ok := strings.Cut(string(text), "\n")
	if !ok || title != "# The policy" {
		return fmt.Errorf("docs/policy.md begins with %q", title)
	}
	head := fmt.Sprintf("%% jumpsuite-policy 5 \"%s\" \"jumpsuite %s\"\n# NAME\njumpsuite-policy - who may do what: /etc/jumpsuite/policy.yaml\n\n# DESCRIPTION\n",
		o.at.Format("January 2, 2006"), o.version)
	page := md2man.Render([]byte(head + strings.ReplaceAll(rest, "\n## ", "\n# ")))
	return write(filepath.Join(o.out, "all/usr/share/man/man5/jumpsuite-policy.5"), string(page))
}

// program is the one that a page is about; empty: none.
func program(page string) string {
	name := strings.TrimSuffix(strings.TrimSuffix(page, filepath.Ext(page)), ".py")
	switch {
	case name == "r3", name == "jumpsuite-deploy":
		return "r3-container"
	case strings.HasPrefix(name, "jumpsuite"):
		return ""
	}
	return name
}

// fill replaces what the pages leave to the programs.
func (b *book) fill(text, version string, at time.Time) (string, error) {
	var out bytes.Buffer
	for line := range strings.Lines(text) {
		if words, ok := strings.CutPrefix(strings.TrimSpace(line), `.\" @options `); ok {
			c := b.find(strings.Fields(words))
			if c == nil {
				return "", fmt.Errorf("there is no command %q", words)
			}
			out.WriteString(c.mdoc())
			continue
		}
		if words, ok := strings.CutPrefix(strings.TrimSpace(line), `.\" @exits `); ok {
			c := b.find(strings.Fields(words))
			if c == nil || len(c.exits) == 0 {
				return "", fmt.Errorf("%q tells no exit codes", words)
			}
			out.WriteString(c.mdocExits())
			continue
		}
		line = strings.ReplaceAll(line, "@VERSION@", version)
		out.WriteString(strings.ReplaceAll(line, "@DATE@", at.Format("January 2, 2006")))
	}
	return out.String(), nil
}

func (c *command) mdoc() string {
	if len(c.options) == 0 {
		return ""
	}
	s := ".Bl -tag -width Ds\n"
	for _, o := range c.options {
		s += ".It " + mdocNames(o) + "\n" + mdocText(o.text) + "\n"
	}
	return s + ".El\n"
}

// mdocNames are an option's names with its value: Fl -cluster Ar NAME , Fl c Ar NAME.
func mdocNames(o option) string {
	var all []string
	for _, n := range o.names {
		s := "Fl " + strings.ReplaceAll(strings.TrimPrefix(n, "-"), "-", `\-`)
		if o.value != "" {
			s += " Ar " + mdocEscape(o.value)
		}
		all = append(all, s)
	}
	return strings.Join(all, " , ")
}

func (c *command) mdocExits() string {
	s := ".Bl -tag -width 130 -compact\n"
	for _, e := range c.exits {
		s += ".It " + e.code + "\n" + mdocText(e.text) + "\n"
	}
	return s + ".El\n"
}

// mdocText is text that begins no macro.
func mdocText(s string) string {
	s = mdocEscape(s)
	if s != "" && strings.ContainsRune(".'", rune(s[0])) {
		return `\&` + s
	}
	return s
}

var mdocEscapes = strings.NewReplacer(`\`, `\e`, "…", `\[u2026]`, "’", "'", "–", `\[en]`)

func mdocEscape(s string) string { return mdocEscapes.Replace(s) }

func write(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}
