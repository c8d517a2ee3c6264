// Command r3-container shows, deploys and debugs what runs on an ECS cluster's docker
// hosts. Called as r3 it takes `container` first: `r3 container list`.
//
// It is flags and wiring: ecsstatus reads, deployer writes, access says who
// may.
package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"jumpsuite/internal/access"
	"jumpsuite/internal/cli"
	"jumpsuite/internal/commandline"
)

func main() { cli.Main(calledAs(os.Args[0]), run) }

// calledAs is what a person has to type to call us once more.
func calledAs(program string) string {
	if filepath.Base(program) == "r3" {
		return "r3 container"
	}
	return "r3-container"
}

func run(ctx context.Context, args []string, stdio cli.Stdio) error {
	if err := access.Escalate(args); err != nil {
		return err
	}
	commands := []*urfave.Command{
		listCommand(stdio, args),
		deployCommand(stdio, args),
		deploymentsCommand(stdio, args),
		rollbackCommand(stdio, args),
		showCommand(stdio, args),
		waitCommand(stdio, args),
		debugCommand(stdio, args),
	}
	app := &urfave.App{
		Name:                  "r3-container",
		Usage:                 about,
		Commands:              commands,
		CustomAppHelpTemplate: overview("r3-container", commands),
	}
	if calledAs(args[0]) != app.Name {
		app = r3(commands)
	}
	return commandline.Run(ctx, app, args, stdio)
}

// r3 has the commands below `container`, as root360's r3 has.
func r3(commands []*urfave.Command) *urfave.App {
	return &urfave.App{
		Name:  "r3",
		Usage: about,
		Commands: []*urfave.Command{{
			Name:               "container",
			Usage:              about,
			Subcommands:        commands,
			CustomHelpTemplate: overview("r3 container", commands),
		}},
	}
}

const about = "Manage Docker Hosts and Containers on root360 Cloud Platform"

// overview is the help text of the command that has the others below it, in
// the words that root360 documents.
func overview(name string, commands []*urfave.Command) string {
	var names []string
	lines := ""
	for _, c := range commands {
		names = append(names, c.Name)
		lines += "    " + c.Name + strings.Repeat(" ", max(1, 12-len(c.Name))) + c.Usage + "\n"
	}
	all := "{" + strings.Join(names, ",") + "}"
	return "usage: " + name + " [-h] " + all + " ...\n\n" + about + "\n\n" +
		"optional arguments:\n  -h, --help  show this help message and exit\n\n" +
		"Command Overview:\n  " + all + "\n" + lines + "\n" + cli.ExitHelp
}

// commonFlags say which cluster is meant and how AWS is reached.
func commonFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "cluster", Aliases: []string{"c"}, Usage: "ECS cluster `NAME`; not needed where there is only one"},
		&urfave.StringFlag{Name: "environment", Aliases: []string{"e"}, Usage: "environment `NAME` of the policy file"},
		&urfave.StringFlag{Name: "region", Usage: "AWS `REGION`; not with sudo"},
		&urfave.StringFlag{Name: "endpoint-url", Usage: "`URL` to reach AWS at; not with sudo"},
	}
}

func outputFlag() urfave.Flag {
	return &urfave.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "output `FORMAT`: table, json or yaml", Value: "table"}
}

// open asks for the way to AWS that the common flags describe.
func open(c *urfave.Context, stdio cli.Stdio, action string) (*access.Access, error) {
	if err := commandline.Filled(c, "cluster", "environment", "region", "endpoint-url"); err != nil {
		return nil, err
	}
	return access.Open(c.Context, access.Options{
		Command:     "r3-container",
		Action:      action,
		Cluster:     c.String("cluster"),
		Environment: c.String("environment"),
		Region:      c.String("region"),
		Endpoint:    c.String("endpoint-url"),
		Reason:      c.String("reason"),
		Stderr:      stdio.Err,
	})
}

// required returns a flag's value; one that is missing or empty is a usage error.
func required(c *urfave.Context, flag, example string) (string, error) {
	v := c.String(flag)
	if v == "" {
		return "", cli.Usage("for example --"+flag+" "+example, "option --%s is needed", flag)
	}
	return v, nil
}

// once refuses a flag that is given twice.
func once(args []string, flags []urfave.Flag) error {
	for _, f := range flags {
		if err := commandline.Once(args, f.Names()...); err != nil {
			return err
		}
	}
	return nil
}
