// R3-ecr has AWS credentials and answers one question: which login does this
// registry of Amazon ECR take? The gate asks it (package ecrlogin), so that
// callers can pull from the account's registries without a login of their own.
//
// It answers on a unix socket, to root and to users that it is told of, for the
// registries of the policy's environments (account and region), or for those that
// are given by --account and --region. Logins are kept in memory until shortly
// before they end, and nowhere else.
//
// systemd starts it with the first question (r3-ecr.socket), as a user of its
// own. By hand it makes the socket itself.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	urfave "github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"jumpsuite/internal/cli"
	"jumpsuite/internal/commandline"
	"jumpsuite/internal/ecrlogin"
	"jumpsuite/internal/listen"
	"jumpsuite/policy"
)

func main() { cli.Main("r3-ecr", run) }

// options are what the command line says.
type options struct {
	policy, environment string
	accounts, regions   []string
	endpoint            string
	listen              string // path
	mode                os.FileMode
	uids                []int
}

func run(ctx context.Context, args []string, stdio cli.Stdio) error {
	if err := commandline.Once(args, "policy", "environment", "endpoint", "listen", "mode"); err != nil {
		return err
	}
	app := &urfave.App{
		Name:  "r3-ecr",
		Usage: "logins for the account's Amazon ECR, for the gate, on a unix socket",
		Flags: flags(),
		Action: func(c *urfave.Context) error {
			o, err := parse(c)
			if err != nil {
				return err
			}
			return serve(ctx, o, slog.New(slog.NewTextHandler(stdio.Err, nil)))
		},
	}
	return commandline.Run(ctx, app, args, stdio)
}

func flags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "policy", Value: policy.Path, Usage: "policy `FILE`: its environments say which accounts and regions; not read with --account"},
		&urfave.StringFlag{Name: "environment", Usage: "`NAME` of the only environment of the policy that counts; none: all of them"},
		&urfave.StringSliceFlag{Name: "account", Usage: "AWS account `ID` whose registry may be asked for; may be given several times"},
		&urfave.StringSliceFlag{Name: "region", Usage: "AWS region `NAME` of those registries; may be given several times; none: that of this machine"},
		&urfave.StringFlag{Name: "endpoint", Usage: "`URL` that ECR answers on, instead of AWS's own and the policy's"},
		&urfave.StringFlag{Name: "listen", Value: "unix://" + ecrlogin.Socket, Usage: "where to listen, unix:///`PATH`, when systemd does not hand over a socket"},
		&urfave.StringFlag{Name: "mode", Value: "0600", Usage: "who may connect, as `MODE` of that socket"},
		&urfave.IntSliceFlag{Name: "allow-uid", Usage: "`UID` of a user who may ask, besides root; may be given several times"},
	}
}

func parse(c *urfave.Context) (options, error) {
	o := options{
		policy: c.String("policy"), environment: c.String("environment"), endpoint: c.String("endpoint"),
		accounts: c.StringSlice("account"), regions: c.StringSlice("region"), uids: c.IntSlice("allow-uid"),
	}
	if len(o.accounts) == 0 && len(o.regions) > 0 {
		return o, cli.Usage("give --account too, or neither", "--region is for --account; the policy has regions of its own")
	}
	if len(o.accounts) > 0 && o.environment != "" {
		return o, cli.Usage("give one of them", "--environment is for the policy, which is not read with --account")
	}
	u, err := url.Parse(c.String("listen"))
	if err != nil || u.Scheme != "unix" || u.Host != "" || u.Path == "" {
		return o, cli.Usage("it is written unix:///PATH", "--listen %q is no unix socket", c.String("listen"))
	}
	o.listen = u.Path
	mode, err := strconv.ParseUint(c.String("mode"), 8, 9)
	if err != nil {
		return o, cli.Usage("a mode is written 0600", "mode %q is none", c.String("mode"))
	}
	o.mode = os.FileMode(mode)
	return o, nil
}

func serve(ctx context.Context, o options, log *slog.Logger) error {
	// A dump of the memory would be a login on disk.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	places, err := o.places(ctx)
	if err != nil {
		return err
	}
	l, err := listen.Unix("r3-ecr", o.listen, o.mode)
	if err != nil {
		return err
	}
	cache := &ecrlogin.Cache{Fetch: (&source{places: places, log: log}).fetch}
	s := &ecrlogin.Server{Allowed: registries(places), Login: cache.Login, UIDs: o.uids, Log: log}
	log.Info("ready", "listen", l.Addr().String(), "registries", strings.Join(hosts(s.Allowed), " "))
	return s.Serve(ctx, l)
}

func hosts(all []ecrlogin.Registry) (names []string) {
	for _, r := range all {
		names = append(names, r.Host())
	}
	slices.Sort(names)
	return names
}
