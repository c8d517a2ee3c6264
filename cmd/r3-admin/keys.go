package main

import (
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	urfave "github.com/urfave/cli/v2"

	"jumpsuite/internal/cli"
	"jumpsuite/internal/keys"
	"jumpsuite/internal/tunnel"
)

func keysCommand(stdio cli.Stdio) *urfave.Command {
	return &urfave.Command{
		Name:  "keys",
		Usage: "this machine's key, and those that it trusts",
		Subcommands: []*urfave.Command{
			{
				Name: "show", Usage: "this machine's key, and whose it trusts", Flags: keyFlags(),
				Action: func(c *urfave.Context) error { return showKeys(c, stdio) },
			},
			{
				Name: "trust", Usage: "trust a key that was not fetched", ArgsUsage: "KEY [NAME]", Args: true, Flags: keyFlags(),
				Description: "NAME is the machine that has the key, as others call it: an instance's id. Without one the key is trusted as any machine's.",
				Action:      func(c *urfave.Context) error { return changeKeys(c, stdio, "trusted", keys.Store.Trust) },
			},
			{
				Name: "revoke", Usage: "trust a key no more, whoever says otherwise", ArgsUsage: "KEY [NAME]", Args: true, Flags: keyFlags(),
				Description: "The gate ends open connections of the key within ten seconds. NAME is a note.",
				Action:      func(c *urfave.Context) error { return changeKeys(c, stdio, "revoked", keys.Store.Revoke) },
			},
			{
				Name: "rotate", Usage: "change this machine's key, in two steps",
				Description: "The first call makes the next key, which is published with the one in use. The second, a day later, puts it into use:\n" +
					"the gate takes it within ten seconds, and ends no connection for it.",
				Flags: append(keyFlags(),
					&urfave.DurationFlag{Name: "overlap", Value: keys.Overlap, Usage: "how long, a `DURATION`, the others have to hear of the next key"},
					&urfave.BoolFlag{Name: "now", Usage: "the others have heard of it"}),
				Action: func(c *urfave.Context) error { return rotate(c, stdio) },
			},
		},
	}
}

func keyFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "keys", Value: keys.Folder, Usage: "`FOLDER` of this machine's key, and of those that were fetched"},
		&urfave.StringFlag{Name: "trusted-keys", Value: keys.AdminFolder, Usage: "`FOLDER` of the lists that administrators write"},
	}
}

func storeOf(c *urfave.Context) keys.Store {
	return keys.Store{Dir: c.String("keys"), Admin: c.String("trusted-keys"), Owner: os.Geteuid()}
}

func showKeys(c *urfave.Context, stdio cli.Stdio) error {
	if c.NArg() > 0 {
		return cli.Usage("r3-admin keys show", "keys show takes no arguments")
	}
	s := storeOf(c)
	own, err := s.Public()
	if err != nil {
		return err
	}
	out := tabwriter.NewWriter(stdio.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "WHOSE\tKEY\tNAME")
	for i, id := range own {
		fmt.Fprintf(out, "%s\t%s\t-\n", []string{"own", "own, next"}[i], id)
	}
	for _, list := range []struct {
		role keys.Role
		what string
	}{{keys.JumpServers, "jump server"}, {keys.Hosts, "host"}} {
		set, err := s.Load(list.role)
		if err != nil {
			return err
		}
		for _, e := range set.Entries() {
			fmt.Fprintf(out, "%s\t%s\t%s\n", list.what, e.Key, e.Name)
		}
		if list.role == keys.Hosts {
			for _, e := range set.Revoked() {
				fmt.Fprintf(out, "revoked\t%s\t%s\n", e.Key, e.Name)
			}
		}
	}
	return out.Flush()
}

func changeKeys(c *urfave.Context, stdio cli.Stdio, done string, change func(keys.Store, keys.Entry) error) error {
	if c.NArg() < 1 || c.NArg() > 2 {
		return cli.Usage("r3-admin keys "+c.Command.Name+" KEY [NAME]", "keys %s needs a key, and may have a name", c.Command.Name)
	}
	id, err := tunnel.ParseKeyID(c.Args().First())
	if err != nil {
		return cli.Usage("'r3-admin keys show' prints it on the machine that has it", "%w", err)
	}
	name := c.Args().Get(1)
	if name == "" {
		name = keys.Any
	}
	if err := keys.CheckName(name); err != nil {
		return cli.Usage("an instance's id is usual: i-0123456789abcdef0", "%w", err)
	}
	if err := change(storeOf(c), keys.Entry{Key: id, Name: name}); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdio.Out, "%s: %s %s\n", done, id, name)
	return err
}

// former is the key that was in use before.
func former(c *urfave.Context) string {
	list, err := storeOf(c).Former()
	if err != nil || len(list) == 0 {
		return "KEY"
	}
	return string(list[0].Key)
}

func rotate(c *urfave.Context, stdio cli.Stdio) error {
	if c.NArg() > 0 {
		return cli.Usage("r3-admin keys rotate", "keys rotate takes no arguments")
	}
	overlap := c.Duration("overlap")
	if c.Bool("now") {
		overlap = 0
	}
	done, err := storeOf(c).Rotate(time.Now(), overlap)
	if err != nil {
		return err
	}
	says := "the next key was made: once it is published everywhere, run this again to put it into use"
	if done {
		says = "the next key is in use; the former one is published for another day, for what is open\n" +
			"if it was stolen, on each machine that trusts it: r3-admin keys revoke " + former(c)
	}
	_, err = fmt.Fprintln(stdio.Out, says)
	return err
}
