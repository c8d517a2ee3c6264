// R3-dockerproxy serves the gate (package dockerproxy) on a unix socket: the
// Docker Engine API, for whoever may connect and as far as the policy allows it
// to them. It also ends what callers left behind.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	urfave "github.com/urfave/cli/v2"

	"jumpsuite/dockerproxy"
	"jumpsuite/internal/audit"
	"jumpsuite/internal/caller"
	"jumpsuite/internal/cli"
	"jumpsuite/internal/commandline"
	"jumpsuite/internal/ecrlogin"
	"jumpsuite/policy"
)

func main() { cli.Main("r3-dockerproxy", run) }

// options are what the command line says.
type options struct {
	policy, environment string
	listen, engine      string
	leases, audit, ecr  string
	hosts               []string
	mode                uint
	watch, reap         time.Duration
}

func run(ctx context.Context, args []string, stdio cli.Stdio) error {
	if err := commandline.Once(args, "policy", "environment", "listen", "engine", "leases", "audit", "ecr", "mode"); err != nil {
		return err
	}
	app := &urfave.App{
		Name:  "r3-dockerproxy",
		Usage: "the Docker Engine API behind a policy, on a unix socket",
		Flags: flags(),
		Action: func(c *urfave.Context) error {
			o, err := parse(c)
			if err != nil {
				return err
			}
			return serve(ctx, o, stdio)
		},
	}
	return commandline.Run(ctx, app, args, stdio)
}

func flags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "policy", Value: policy.Path, Usage: "policy `FILE`; read again on SIGHUP"},
		&urfave.StringFlag{Name: "environment", Usage: "`NAME` of the environment in the policy that this host belongs to"},
		&urfave.StringFlag{Name: "listen", Value: "unix:///run/jumpsuite/docker.sock", Usage: "where to listen, unix:///`PATH`"},
		&urfave.StringFlag{Name: "engine", Value: "unix:///var/run/docker.sock", Usage: "the Docker Engine, unix:///`PATH`"},
		&urfave.StringFlag{Name: "leases", Value: "/var/lib/jumpsuite/leases", Usage: "`FOLDER` that keeps what was made and started here"},
		&urfave.StringFlag{Name: "audit", Value: audit.DefaultFolder, Usage: "`FOLDER` of the audit log and of recordings"},
		&urfave.StringFlag{Name: "ecr", Value: "unix://" + ecrlogin.Socket, Usage: "where r3-ecr answers, unix:///`PATH`: it has the logins for the account's registries"},
		&urfave.StringSliceFlag{Name: "host", Usage: "a `NAME` of this host, as the policy knows it; may be given several times"},
		&urfave.StringFlag{Name: "mode", Value: "0666", Usage: "who may connect, as `MODE` of the socket: the policy decides what they may do"},
		&urfave.DurationFlag{Name: "watch", Value: 6 * time.Second, Usage: "how long a started container of ECS is watched for the agent's stop"},
		&urfave.DurationFlag{Name: "reap", Value: time.Minute, Usage: "how often to look for what was left behind"},
	}
}

func parse(c *urfave.Context) (options, error) {
	o := options{
		policy: c.String("policy"), environment: c.String("environment"), leases: c.String("leases"),
		audit: c.String("audit"), hosts: c.StringSlice("host"), watch: c.Duration("watch"), reap: c.Duration("reap"),
	}
	var err error
	if o.environment == "" {
		return o, cli.Usage("give --environment NAME: it decides what is allowed here", "no environment is given")
	}
	if o.listen, err = socketPath("listen", c.String("listen")); err != nil {
		return o, err
	}
	if o.engine, err = socketPath("engine", c.String("engine")); err != nil {
		return o, err
	}
	if o.ecr, err = socketPath("ecr", c.String("ecr")); err != nil {
		return o, err
	}
	if _, err := fmt.Sscanf(c.String("mode"), "%o", &o.mode); err != nil || o.mode > 0o777 {
		return o, cli.Usage("a mode is written 0660", "mode %q is none", c.String("mode"))
	}
	if o.reap <= 0 {
		return o, cli.Usage("a minute is usual", "--reap has to be longer than nothing")
	}
	return o, nil
}

func socketPath(option, s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "unix" || u.Host != "" || u.Path == "" {
		return "", cli.Usage("it is written unix:///PATH", "--%s %q is no unix socket", option, s)
	}
	return u.Path, nil
}

func serve(ctx context.Context, o options, stdio cli.Stdio) error {
	log := slog.New(slog.NewTextHandler(stdio.Err, nil))
	// The gate holds little and copies much: memory matters more here than the
	// collector's share of the time.
	debug.SetGCPercent(50)
	p, err := load(o)
	if err != nil {
		return err
	}
	record, err := audit.OpenLog(audit.Options{Path: o.audit + "/audit.log", Owner: os.Geteuid(), Errors: log})
	if err != nil {
		return err
	}
	defer record.Close()
	leases, err := dockerproxy.OpenLeases(o.leases)
	if err != nil {
		return cli.Errorf(cli.ExitConfig, "an administrator makes it: install -d -m 0700 FOLDER", "%w", err)
	}
	g := gate(o, log, record, leases)
	g.SetPolicy(p)
	return o.listenAndServe(ctx, g, log)
}

func gate(o options, log *slog.Logger, record *audit.Log, leases *dockerproxy.Leases) *dockerproxy.Gate {
	return &dockerproxy.Gate{
		Engine: func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", o.engine)
		},
		Environment: o.environment,
		Hosts:       o.hosts,
		Record:      record.Record,
		Recorder:    recorder(o.audit),
		Leases:      leases,
		Credentials: ecrlogin.Asker{Socket: o.ecr}.Credentials,
		Log:         log,
		Watch:       o.watch,
		Processes:   os.Geteuid() == 0,
		Files:       true,
	}
}

func recorder(folder string) func(dockerproxy.Session) (dockerproxy.Recording, error) {
	return func(s dockerproxy.Session) (dockerproxy.Recording, error) {
		return audit.StartRecording(audit.RecordingOptions{
			Folder: folder, Owner: os.Geteuid(), ID: s.ID, Columns: s.Columns, Rows: s.Rows,
			Terminal: s.Terminal, Input: s.Input, Title: s.Caller.User + " " + s.Action,
		})
	}
}

// load reads the policy and makes sure that it knows where we are.
func load(o options) (*policy.Policy, error) {
	p, err := policy.Load(o.policy)
	if err != nil {
		return nil, err
	}
	if _, ok := p.Environment(o.environment); !ok {
		return nil, cli.Errorf(cli.ExitConfig, "add it to the file, or correct --environment", "the policy %s has no environment %q", o.policy, o.environment)
	}
	for _, g := range p.DeniedGroups() {
		if err := caller.GroupExists(context.Background(), g); err != nil {
			return nil, cli.Errorf(cli.ExitConfig, "nothing is allowed until it can: correct the rule, or the directory service",
				"the policy denies something to group %s, which cannot be resolved: %w", g, err)
		}
	}
	return p, nil
}

func (o options) listenAndServe(ctx context.Context, g *dockerproxy.Gate, log *slog.Logger) error {
	l, err := o.listener()
	if err != nil {
		return err
	}
	hup := make(chan os.Signal, 1)
	signal.Reset(syscall.SIGHUP) // cli.Main takes it for an end
	signal.Notify(hup, syscall.SIGHUP)
	go o.reload(ctx, hup, g, log)
	go g.Reap(ctx, o.reap)
	debug.FreeOSMemory() // what reading the policy took
	log.Info("ready", "listen", o.listen, "engine", o.engine, "environment", o.environment)
	if err := g.Serve(ctx, l, newDoor().identify); err != nil {
		return err
	}
	var stopped *cli.Interrupted
	if errors.As(context.Cause(ctx), &stopped) {
		log.Info("stopped", "signal", stopped.Signal)
	}
	return nil
}

// listener makes the socket. The mask makes it ours alone for the moment until
// its mode is set. What a former run left is replaced; a socket that somebody
// serves is not.
func (o options) listener() (net.Listener, error) {
	if conn, err := net.Dial("unix", o.listen); err == nil {
		conn.Close()
		return nil, cli.Errorf(cli.ExitUnavailable, "is r3-dockerproxy running already?", "%s is in use", o.listen)
	}
	if info, err := os.Lstat(o.listen); err == nil && info.Mode().Type() == os.ModeSocket {
		if err := os.Remove(o.listen); err != nil {
			return nil, fmt.Errorf("replace the socket of a former run: %w", err)
		}
	}
	old := syscall.Umask(0o177)
	l, err := net.Listen("unix", o.listen)
	syscall.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if err := os.Chmod(o.listen, os.FileMode(o.mode)); err != nil {
		l.Close()
		return nil, fmt.Errorf("let callers connect: %w", err)
	}
	return l, nil
}

// reload reads the policy again on each SIGHUP. While there is none that can be
// read, nothing is allowed: a right that was to be taken away must not survive by
// a typo.
func (o options) reload(ctx context.Context, hup <-chan os.Signal, g *dockerproxy.Gate, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
		}
		p, err := load(o)
		if err != nil {
			log.Error("nothing is allowed until the policy can be read", "err", err)
			g.SetPolicy(nil)
			continue
		}
		g.SetPolicy(p)
		log.Info("the policy was read again")
	}
}
