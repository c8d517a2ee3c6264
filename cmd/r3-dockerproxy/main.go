// R3-dockerproxy serves the gate (package dockerproxy) on a unix socket: the
// Docker Engine API, for whoever may connect and as far as the policy allows it
// to them. On a port of the loopback it serves jump servers, whose SSM sessions
// come in there (package tunnel). It also ends what callers left behind.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"runtime/debug"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	urfave "github.com/urfave/cli/v2"

	"jumpsuite/dockerproxy"
	"jumpsuite/internal/audit"
	"jumpsuite/internal/caller"
	"jumpsuite/internal/cli"
	"jumpsuite/internal/commandline"
	"jumpsuite/internal/ecrlogin"
	"jumpsuite/internal/keys"
	"jumpsuite/internal/listen"
	"jumpsuite/internal/witness"
	"jumpsuite/policy"
)

func main() { cli.Main("r3-dockerproxy", run) }

// options are what the command line says.
type options struct {
	policy, environment string
	unix                string   // where callers on this host connect; empty: nowhere
	tcp                 []string // where SSM sessions come in
	engine              string
	leases, audit, ecr  string
	keys, trusted       string
	hosts               []string
	mode                uint
	watch, reap, drain  time.Duration
	agentCheck          agentCheck
	document            string
}

func run(ctx context.Context, args []string, stdio cli.Stdio) error {
	if err := commandline.Once(args, "policy", "environment", "engine", "leases", "audit", "ecr", "mode", "keys", "trusted-keys", "agent-check", "document", "drain", "watch", "reap"); err != nil {
		return err
	}
	app := &urfave.App{
		Name:  "r3-dockerproxy",
		Usage: "the Docker Engine API behind a policy, on a unix socket and for SSM sessions",
		Flags: flags(),
		Action: func(c *urfave.Context) error {
			o, err := parse(c)
			if err != nil {
				return err
			}
			if c.Bool("healthcheck") {
				return o.health(ctx)
			}
			return serve(ctx, o, stdio)
		},
	}
	return commandline.Run(ctx, app, args, stdio)
}

func flags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "policy", Value: policy.Path, Usage: "policy `FILE`; read again on SIGHUP"},
		&urfave.StringFlag{Name: "environment", Usage: "`NAME` of the environment in the policy that this host belongs to; else what " + environmentFile + " says"},
		&urfave.StringSliceFlag{Name: "listen", Value: urfave.NewStringSlice("unix://" + socket), Usage: "where to listen, `unix:///PATH` for callers on this host or tcp://127.0.0.1:2376 for SSM sessions; may be given several times, and does not count where systemd passes sockets"},
		&urfave.StringFlag{Name: "engine", Value: "unix:///var/run/docker.sock", Usage: "the Docker Engine, unix:///`PATH`"},
		&urfave.StringFlag{Name: "leases", Value: "/var/lib/jumpsuite/leases", Usage: "`FOLDER` that keeps what was made and started here"},
		&urfave.StringFlag{Name: "audit", Value: audit.DefaultFolder, Usage: "`FOLDER` of the audit log and of recordings"},
		&urfave.StringFlag{Name: "ecr", Value: "unix://" + ecrlogin.Socket, Usage: "where r3-ecr answers, unix:///`PATH`: it has the logins for the account's registries"},
		&urfave.StringSliceFlag{Name: "host", Usage: "a `NAME` of this host, as the policy knows it; may be given several times"},
		&urfave.StringFlag{Name: "mode", Value: "0666", Usage: "who may connect, as `MODE` of the socket: the policy decides what they may do"},
		&urfave.DurationFlag{Name: "watch", Value: 6 * time.Second, Usage: "how long, a `DURATION`, a started container of ECS is watched for the agent's stop"},
		&urfave.StringFlag{Name: "keys", Value: keys.Folder, Usage: "`FOLDER` of this host's key, and of those that were fetched"},
		&urfave.StringFlag{Name: "trusted-keys", Value: keys.AdminFolder, Usage: "`FOLDER` of the lists that administrators write"},
		&urfave.StringFlag{Name: "agent-check", Value: string(checkRecord), Usage: "the SSM session behind a connection: `off|record|require`"},
		&urfave.StringFlag{Name: "document", Value: "jumpsuite-docker", Usage: "`NAME` of the SSM document that sessions have to be of, where --agent-check is require"},
		&urfave.DurationFlag{Name: "drain", Value: 30 * time.Second, Usage: "how long, a `DURATION`, what is open may go on when it is stopped"},
		&urfave.BoolFlag{Name: "healthcheck", Usage: "ask the one that is running whether it answers, and its Engine"},
		&urfave.DurationFlag{Name: "reap", Value: time.Minute, Usage: "look for what was left behind every `DURATION`"},
	}
}

func parse(c *urfave.Context) (options, error) {
	o := options{
		policy: c.String("policy"), environment: c.String("environment"), leases: c.String("leases"),
		audit: c.String("audit"), hosts: c.StringSlice("host"), watch: c.Duration("watch"), reap: c.Duration("reap"),
	}
	o.keys, o.trusted, o.drain = c.String("keys"), c.String("trusted-keys"), c.Duration("drain")
	o.agentCheck, o.document = agentCheck(c.String("agent-check")), c.String("document")
	var err error
	if o.environment == "" && !c.Bool("healthcheck") {
		if o.environment, err = environmentOf(environmentFile); err != nil {
			return o, err
		}
	}
	if o.unix, o.tcp, err = places(c.StringSlice("listen")); err != nil {
		return o, err
	}
	if o.agentCheck != checkOff && o.agentCheck != checkRecord && o.agentCheck != checkRequire {
		return o, cli.Usage("it is off, record or require", "--agent-check %q is none", o.agentCheck)
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
	f, err := o.far(g, record.Record, log)
	if err != nil {
		return err
	}
	return o.listenAndServe(ctx, g, f, log)
}

// far is what serves jump servers. This host's key is made with it.
func (o options) far(g *dockerproxy.Gate, record func(*audit.Event) error, log *slog.Logger) (*far, error) {
	store := keys.Store{Dir: o.keys, Admin: o.trusted, Owner: os.Geteuid()}
	if _, err := store.Own(); err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if len(o.hosts) > 0 {
		host, err = o.hosts[0], nil
	}
	if err != nil {
		return nil, fmt.Errorf("find this host's name: %w", err)
	}
	f := &far{
		gate: g, store: store, host: host, record: record, log: log,
		check: o.agentCheck, document: o.document, look: witness.Witness{}.Look,
	}
	f.reload()
	return f, nil
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

// reload reads the policy again on each SIGHUP. While there is none that can be
// read, nothing is allowed: a right that was to be taken away must not survive by
// a typo. When the program itself is another one by now, it retires.
func (o options) reload(ctx context.Context, hup <-chan os.Signal, g *dockerproxy.Gate, f *far, retire func(), log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
		}
		notify(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
		o.reloadOnce(g, log)
		f.reload()
		notify(daemon.SdNotifyReady)
		if listen.Replaced() {
			retire()
		}
	}
}

func (o options) reloadOnce(g *dockerproxy.Gate, log *slog.Logger) {
	p, err := load(o)
	if err != nil {
		log.Error("nothing is allowed until the policy can be read", "err", err)
		g.SetPolicy(nil)
		return
	}
	g.SetPolicy(p)
	log.Info("the policy was read again")
}
