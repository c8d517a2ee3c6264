package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// completions writes those of the programs that people type. What is known is
// in tables; the functions around them are in packaging/completions. No shell
// evaluates a word of what a program answers.
func completions(o options, b *book) error {
	const zshDeb, zshRPM = "deb/usr/share/zsh/vendor-completions/", "rpm/usr/share/zsh/site-functions/"
	for _, s := range []struct{ file, table, to string }{
		{"jumpsuite.bash", b.bash(), bashFolder + "r3"},
		{"jumpsuite.zsh", b.zsh(), zshDeb + "_jumpsuite"},
		{"jumpsuite.zsh", b.zsh(), zshRPM + "_jumpsuite"},
		{"docker.zsh", "", zshDeb + "_0jumpsuite_docker"},
		{"docker.zsh", "", zshRPM + "_0jumpsuite_docker"},
		{"jumpsuite.fish", b.fish(), "all/usr/share/fish/vendor_completions.d/jumpsuite.fish"},
	} {
		text, err := os.ReadFile(filepath.Join(o.source, "completions", s.file))
		if err != nil {
			return err
		}
		if strings.Contains(string(text), place) == (s.table == "") {
			return fmt.Errorf("%s: a table without a place, or a place without a table", s.file)
		}
		if err := write(filepath.Join(o.out, s.to), strings.Replace(string(text), place, s.table, 1)); err != nil {
			return err
		}
	}
	return b.links(o)
}

const (
	place      = "# @TABLES@\n"
	bashFolder = "all/usr/share/bash-completion/completions/"
)

// links are the other names of bash's file, which loads them by the command.
func (b *book) links(o options) error {
	var names []string
	b.typed(func(words string, _ *command) {
		if !strings.Contains(words, " ") && words != "r3" {
			names = append(names, words)
		}
	})
	for _, n := range names {
		if err := os.Symlink("r3", filepath.Join(o.out, bashFolder, n)); err != nil {
			return err
		}
		if n == "show-ecs-service-status" {
			if err := os.Symlink("r3", filepath.Join(o.out, bashFolder, n+".py")); err != nil {
				return err
			}
		}
	}
	return nil
}

// typed are the commands as they are typed: r3-container's are r3 container's,
// too.
func (b *book) typed(f func(words string, c *command)) {
	for _, p := range b.programs {
		if slices.Contains(silent, p.words[0]) {
			continue
		}
		p.each(func(c *command) { f(strings.Join(c.words, " "), c) })
		if p.words[0] != "r3-container" {
			continue
		}
		p.each(func(c *command) { f(strings.Join(append([]string{"r3", "container"}, c.words[1:]...), " "), c) })
		f("r3", &command{commands: []*command{{words: []string{"r3", "container"}}}})
	}
}

func (c *command) subs() string {
	var out []string
	for _, sub := range c.commands {
		out = append(out, sub.words[len(sub.words)-1])
	}
	return strings.Join(out, " ")
}

// flags are all names of the options; of those with a value, or of all.
func (c *command) flags(valued bool) string {
	var out []string
	for _, o := range c.options {
		if !valued || o.value != "" {
			out = append(out, o.names...)
		}
	}
	return strings.Join(out, " ")
}

// bash are associative arrays, which zsh reads as well.
func (b *book) bash() string {
	var commands, flags, valued strings.Builder
	b.typed(func(words string, c *command) {
		fmt.Fprintf(&commands, "\t['%s']='%s'\n", words, c.subs())
		fmt.Fprintf(&flags, "\t['%s']='%s'\n", words, c.flags(false))
		fmt.Fprintf(&valued, "\t['%s']='%s'\n", words, c.flags(true))
	})
	return "declare -gA _jumpsuite_commands=(\n" + commands.String() + ")\n" +
		"declare -gA _jumpsuite_flags=(\n" + flags.String() + ")\n" +
		"declare -gA _jumpsuite_valued=(\n" + valued.String() + ")\n"
}

func (b *book) zsh() string {
	var s strings.Builder
	s.WriteString("typeset -gA _jumpsuite_commands _jumpsuite_flags _jumpsuite_valued\n")
	b.typed(func(words string, c *command) {
		fmt.Fprintf(&s, "_jumpsuite_commands[%s]='%s'\n", zshKey(words), c.subs())
		fmt.Fprintf(&s, "_jumpsuite_flags[%s]='%s'\n", zshKey(words), c.flags(false))
		fmt.Fprintf(&s, "_jumpsuite_valued[%s]='%s'\n", zshKey(words), c.flags(true))
	})
	return s.String()
}

func zshKey(words string) string { return strings.ReplaceAll(words, " ", "_") }

func (b *book) fish() string {
	var s strings.Builder
	b.typed(func(words string, c *command) {
		first, _, _ := strings.Cut(words, " ")
		for _, sub := range c.commands {
			fmt.Fprintf(&s, "complete -c %s -f -n '__jumpsuite_at %s' -a %s -d %s\n", first, words, sub.words[len(sub.words)-1], fishQuote(sub.about))
		}
		for _, o := range c.options {
			fmt.Fprintf(&s, "complete -c %s -f -n '__jumpsuite_at %s'%s -d %s\n", first, words, fishOption(o), fishQuote(o.text))
		}
		if words == "show-ecs-service-status" {
			s.WriteString("complete -c show-ecs-service-status.py -w show-ecs-service-status\n")
		}
	})
	return s.String()
}

func fishOption(o option) string {
	s := ""
	for _, n := range o.names {
		if long, ok := strings.CutPrefix(n, "--"); ok {
			s += " -l " + long
		} else {
			s += " -s " + strings.TrimPrefix(n, "-")
		}
	}
	if o.value != "" {
		s += " -x -a '(__jumpsuite_values " + o.names[0] + ")'"
	}
	return s
}

func fishQuote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'"
}
