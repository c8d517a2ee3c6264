package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ssm"
	urfave "github.com/urfave/cli/v2"

	"jumpsuite/internal/awsconfig"
	"jumpsuite/internal/carrier"
	"jumpsuite/internal/cli"
	"jumpsuite/internal/enrol"
	"jumpsuite/internal/keys"
)

// instanceFile is where cloud-init leaves the instance's id.
const instanceFile = "/var/lib/cloud/data/instance-id"

func enrolFlags() []urfave.Flag {
	return append(placeFlags()[1:],
		&urfave.StringSliceFlag{Name: "cluster", Usage: "`NAME` of the ECS cluster; a jump server may have several: give it once for each"},
		&urfave.StringFlag{Name: "role", Usage: "what this machine is: `host|jump-server`"},
		&urfave.StringFlag{Name: "instance", Usage: "`ID` of this machine's instance; none: what cloud-init says"},
		&urfave.StringFlag{Name: "keys", Value: keys.Folder, Usage: "`FOLDER` of this machine's key, and of those that are fetched"},
		&urfave.BoolFlag{Name: "forget", Usage: "take this machine's keys out of Parameter Store, and do nothing else"},
	)
}

var roles = map[string]keys.Role{"host": keys.Hosts, "jump-server": keys.JumpServers}

// enrolled publishes this machine's keys and fetches the others', once: a timer
// does it again.
func enrolled(ctx context.Context, c *urfave.Context, log *slog.Logger) error {
	clusters := c.StringSlice("cluster")
	role, ok := roles[c.String("role")]
	switch {
	case len(clusters) == 0:
		return cli.Usage("give --cluster NAME", "no cluster is given")
	case role == keys.Hosts && len(clusters) > 1:
		return cli.Usage("give the one that its ECS agent has joined", "a host is in one cluster, and %d are given", len(clusters))
	case !ok:
		return cli.Usage("give --role host, or --role jump-server", "--role %q is none", c.String("role"))
	}
	instance, err := instanceOf(c.String("instance"))
	if err != nil {
		return err
	}
	cfg, err := awsconfig.Load(ctx, awsconfig.Options{Region: c.String("region"), Endpoint: c.String("endpoint"), Name: "r3-ssm"})
	if err != nil {
		return err
	}
	m := enrol.Machine{API: ssm.NewFromConfig(cfg), Region: cfg.Region, Role: role, Instance: instance, Log: log,
		Store: keys.Store{Dir: c.String("keys"), Owner: os.Geteuid()}}
	var errs []error
	for _, m.Cluster = range clusters { // what fails with one is no reason to leave the others out
		if c.Bool("forget") {
			errs = append(errs, m.Forget(ctx))
		} else {
			errs = append(errs, m.Run(ctx))
		}
	}
	return errors.Join(errs...)
}

func instanceOf(given string) (string, error) {
	if given == "" {
		b, err := os.ReadFile(instanceFile)
		if err != nil {
			return "", cli.Usage("give --instance ID", "which instance this is is not known: %w", err)
		}
		given = strings.TrimSpace(string(b))
	}
	if !carrier.IsInstance(given) {
		return "", cli.Usage("an instance id is written i-0123456789abcdef0", "%q is no instance id", cli.Printable(given))
	}
	return given, nil
}
