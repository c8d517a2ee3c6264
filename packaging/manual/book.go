package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// book is all that the programs say of themselves.
type book struct{ programs []*command }

// command is a program, or one of its commands.
type command struct {
	words    []string // as typed: r3-container deploy
	about    string
	commands []*command
	options  []option
	exits    []exit
}

// option is one, with all its names: --cluster, -c.
type option struct {
	names []string
	value string // what its value is called; empty: it takes none
	text  string
}

type exit struct{ code, text string }

// silent are programs that have no help text of their own: r3-docker and its CLI
// show the docker CLI's, and only when called through sudo.
var silent = []string{"r3-docker", "r3-docker-cli"}

// readBook asks each program for its help, and that of its commands.
func readBook(bin string, programs []string) (*book, error) {
	b := &book{}
	for _, p := range programs {
		if slices.Contains(silent, p) {
			b.programs = append(b.programs, &command{words: []string{p}})
			continue
		}
		c, err := read(bin, []string{p})
		if err != nil {
			return nil, err
		}
		b.programs = append(b.programs, c)
	}
	return b, nil
}

// read reads a command and those below it.
func read(bin string, words []string) (*command, error) {
	args := append(slices.Clone(words[1:]), "--help")
	out, err := exec.Command(filepath.Join(bin, words[0]), args...).Output()
	if err != nil {
		return nil, fmt.Errorf("ask %s for help: %w", strings.Join(words, " "), err)
	}
	c := parse(words, string(out))
	if len(c.exits) == 0 && len(c.commands) == 0 {
		return nil, fmt.Errorf("%s --help tells no exit codes", strings.Join(words, " "))
	}
	for i, sub := range c.commands {
		about := sub.about
		if c.commands[i], err = read(bin, sub.words); err != nil {
			return nil, err
		}
		c.commands[i].about = about
	}
	return c, nil
}

var (
	heading    = regexp.MustCompile(`^([A-Z][A-Za-z ]+):\s*$`)
	optionLine = regexp.MustCompile(`^ {2,3}(-\S.*?)(?: {2,}(.*))?$`)
	wordLine   = regexp.MustCompile(`^ {3,4}([a-z][a-z-]*)(?:, [a-z, -]+)? +(\S.*)$`)
	exitLine   = regexp.MustCompile(`^ {3}(\d+) +(.*)$`)
)

// parse takes a help text apart: its sections, a line each.
func parse(words []string, help string) *command {
	c := &command{words: words}
	section := ""
	for _, line := range strings.Split(help, "\n") {
		if m := heading.FindStringSubmatch(line); m != nil {
			section = strings.ToUpper(m[1])
			continue
		}
		switch section {
		case "OPTIONS", "GLOBAL OPTIONS", "OPTIONAL ARGUMENTS":
			if m := optionLine.FindStringSubmatch(line); m != nil {
				c.options = append(c.options, parseOption(m[1], m[2]))
			}
		case "COMMANDS", "COMMAND OVERVIEW":
			if m := wordLine.FindStringSubmatch(line); m != nil && m[1] != "help" {
				c.commands = append(c.commands, &command{words: append(slices.Clone(words), m[1]), about: m[2]})
			}
		case "EXIT STATUS":
			if m := exitLine.FindStringSubmatch(line); m != nil {
				c.exits = append(c.exits, exit{m[1], m[2]})
			}
		}
	}
	return c
}

// parseOption takes "--cluster NAME, -c NAME" apart, and "--allow-uid UID [ --allow-uid UID ]".
func parseOption(names, text string) option {
	names, _, _ = strings.Cut(names, " [ ")
	o := option{text: text}
	for _, one := range strings.Split(names, ", ") {
		name, value, _ := strings.Cut(one, " ")
		o.names = append(o.names, name)
		if value != "" {
			o.value = value
		}
	}
	return o
}

// find is a command by its words; nil: there is none.
func (b *book) find(words []string) *command {
	list := b.programs
	var found *command
	for i := range words {
		at := slices.IndexFunc(list, func(c *command) bool { return c.words[i] == words[i] })
		if at < 0 {
			return nil
		}
		found = list[at]
		list = found.commands
	}
	return found
}

func (b *book) has(program string) bool { return b.find([]string{program}) != nil }

// each calls f for a command and all below it.
func (c *command) each(f func(*command)) {
	f(c)
	for _, sub := range c.commands {
		sub.each(f)
	}
}
