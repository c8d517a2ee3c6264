// R3-ssm carries byte streams to docker hosts over sessions of AWS Systems
// Manager. It has AWS credentials and no keys: what it carries is encrypted
// between r3-docker and the host's gate, and it decides nothing.
//
// Root asks it over a unix socket (package carrier): which hosts a cluster has,
// where a container is, and for streams. It keeps a session to a host for some
// minutes after its last stream, and ends by itself when nothing is left to do.
// systemd starts it with the first request (r3-ssm.socket), as a user of its own.
//
// hosts, where and dial do one thing each, without the socket, with the AWS
// credentials of whoever calls. So does enrol, as root: it is the one that reads
// this machine's keys, publishes their public halves, and ends.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strconv"
	"text/tabwriter"
	"time"

	urfave "github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"jumpsuite/internal/carrier"
	"jumpsuite/internal/cli"
	"jumpsuite/internal/commandline"
	"jumpsuite/internal/listen"
)

func main() { cli.Main("r3-ssm", run) }

// defaultDocument is the session document that jumpsuite brings along.
const defaultDocument = "jumpsuite-docker"

func run(ctx context.Context, args []string, stdio cli.Stdio) error {
	once := []string{"region", "endpoint", "document", "listen", "mode", "idle", "uid", "role", "instance", "keys"}
	if len(args) < 2 || args[1] != "enrol" { // a machine may enrol in several
		once = append(once, "cluster")
	}
	if err := commandline.Once(args, once...); err != nil {
		return err
	}
	app := &urfave.App{
		Name:  "r3-ssm",
		Usage: "streams to docker hosts, over sessions of AWS Systems Manager",
		Commands: []*urfave.Command{
			{Name: "serve", Usage: "answer on a unix socket, for r3-docker", Flags: serveFlags(), Action: func(c *urfave.Context) error {
				return serve(ctx, c, slog.New(slog.NewTextHandler(stdio.Err, nil)))
			}},
			{Name: "hosts", Usage: "the docker hosts of a cluster", Flags: append(placeFlags(), jsonFlag()), Action: func(c *urfave.Context) error {
				return hosts(ctx, c, stdio)
			}},
			{Name: "where", Usage: "on which host a container or task is, as ECS says it", ArgsUsage: "REF", Args: true, Flags: append(placeFlags(), jsonFlag()), Action: func(c *urfave.Context) error {
				return where(ctx, c, stdio)
			}},
			{Name: "dial", Usage: "one stream to a host's gate, on standard input and output", ArgsUsage: "HOST", Args: true, Flags: append(placeFlags(), documentFlag()), Action: func(c *urfave.Context) error {
				return dial(ctx, c, stdio)
			}},
			{Name: "enrol", Usage: "publish this machine's keys and fetch the others', through Parameter Store", Flags: enrolFlags(), Action: func(c *urfave.Context) error {
				return enrolled(ctx, c, slog.New(slog.NewTextHandler(stdio.Err, nil)))
			}},
		},
	}
	return commandline.Run(ctx, app, args, stdio)
}

func placeFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "cluster", Usage: "`NAME` of the ECS cluster"},
		&urfave.StringFlag{Name: "region", Usage: "AWS region `NAME`; none: that of this machine"},
		&urfave.StringFlag{Name: "endpoint", Usage: "`URL` that AWS answers on, instead of its own"},
	}
}

func documentFlag() urfave.Flag {
	return &urfave.StringFlag{Name: "document", Value: defaultDocument, Usage: "`NAME` of the session document"}
}

func jsonFlag() urfave.Flag {
	return &urfave.BoolFlag{Name: "json", Usage: "as JSON"}
}

func serveFlags() []urfave.Flag {
	return []urfave.Flag{
		documentFlag(),
		&urfave.StringFlag{Name: "listen", Value: "unix://" + carrier.Socket, Usage: "where to listen, unix:///`PATH`, when systemd does not hand over a socket"},
		&urfave.StringFlag{Name: "mode", Value: "0600", Usage: "who may connect, as `MODE` of that socket"},
		&urfave.DurationFlag{Name: "idle", Value: 10 * time.Minute, Usage: "how long, a `DURATION`, a session without streams is kept; and then this process without sessions"},
		&urfave.IntFlag{Name: "uid", Usage: "`UID` of the only user who may ask", DefaultText: "0, root"},
	}
}

// serve answers requests until it is told to end, or, where systemd would start
// it again, nobody has asked for long.
func serve(ctx context.Context, c *urfave.Context, log *slog.Logger) error {
	// A dump of the memory would be AWS credentials on disk.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	idle := c.Duration("idle")
	if idle <= 0 {
		return cli.Usage("ten minutes are usual", "--idle has to be longer than nothing")
	}
	l, err := listener(c)
	if err != nil {
		return err
	}
	known := &places{document: c.String("document"), log: log}
	sessions := newPool(known.open, idle, log)
	defer sessions.close()
	s := &carrier.Server{Hosts: known.hosts, Where: known.where, Learn: known.learn, UID: c.Int("uid"), Log: log}
	s.Dial = func(ctx context.Context, p carrier.Place, host string) (carrier.Stream, error) {
		conn, err := sessions.dial(ctx, way{p, host})
		if err != nil {
			return nil, explained(err)
		}
		return stream{conn}, nil
	}
	if listen.Passed() {
		s.Idle = 2 * idle // the sessions have ended by then
		s.Replaced = listen.Replaced
	}
	log.Info("ready", "listen", l.Addr().String())
	return s.Serve(ctx, l)
}

func listener(c *urfave.Context) (net.Listener, error) {
	u, err := url.Parse(c.String("listen"))
	if err != nil || u.Scheme != "unix" || u.Host != "" || u.Path == "" {
		return nil, cli.Usage("it is written unix:///PATH", "--listen %q is no unix socket", c.String("listen"))
	}
	mode, err := strconv.ParseUint(c.String("mode"), 8, 9)
	if err != nil {
		return nil, cli.Usage("a mode is written 0600", "mode %q is none", c.String("mode"))
	}
	return listen.Unix("r3-ssm", u.Path, os.FileMode(mode))
}

// placeOf is the place that the command line names.
func placeOf(c *urfave.Context) (carrier.Place, error) {
	if c.String("cluster") == "" {
		return carrier.Place{}, cli.Usage("give --cluster NAME", "no cluster is given")
	}
	return carrier.Place{Cluster: c.String("cluster"), Region: c.String("region"), Endpoint: c.String("endpoint")}, nil
}

func hosts(ctx context.Context, c *urfave.Context, stdio cli.Stdio) error {
	place, err := placeOf(c)
	if err != nil {
		return err
	}
	list, err := new(places).hosts(ctx, place)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return json.NewEncoder(stdio.Out).Encode(list)
	}
	w := tabwriter.NewWriter(stdio.Out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "INSTANCE\tADDRESS\tNAME\tECS\tSSM\tAGENT")
	for _, h := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", h.ID, h.Address, cli.Printable(h.Name), h.State, online(h), cli.Printable(h.Agent))
	}
	return w.Flush()
}

func online(h carrier.Host) string {
	switch {
	case h.Online:
		return "online"
	case h.Agent == "":
		return "unknown"
	}
	return "offline"
}

func where(ctx context.Context, c *urfave.Context, stdio cli.Stdio) error {
	ref, err := one(c, "REF: a container's id or the beginning of it, or an ECS task's id")
	if err != nil {
		return err
	}
	place, err := placeOf(c)
	if err != nil {
		return err
	}
	found, err := new(places).where(ctx, place, ref)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return cli.Errorf(cli.ExitNotFound, "containers that ECS did not start are found by: sudo docker ps", "ECS knows no container %s in cluster %s", ref, c.String("cluster"))
	}
	if c.Bool("json") {
		return json.NewEncoder(stdio.Out).Encode(found)
	}
	w := tabwriter.NewWriter(stdio.Out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "HOST\tCONTAINER\tNAME\tTASK")
	for _, f := range found {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", f.Host, f.Container[:12], f.Name, f.Task)
	}
	return w.Flush()
}

func one(c *urfave.Context, what string) (string, error) {
	if c.NArg() != 1 {
		return "", cli.Usage("see '"+c.Command.HelpName+" --help'", "give one %s", what)
	}
	return c.Args().First(), nil
}

// dial carries one stream to a host's gate between here and standard input and
// output: without systemd, and for those who want to see whether a host can be
// reached at all.
func dial(ctx context.Context, c *urfave.Context, stdio cli.Stdio) error {
	name, err := one(c, "HOST: its instance id, private address or name")
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stdio.Err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	known := &places{document: c.String("document"), log: log}
	place, err := placeOf(c)
	if err != nil {
		return err
	}
	w, err := known.way(ctx, place, name)
	if err != nil {
		return err
	}
	carried, err := known.open(ctx, w)
	if err != nil {
		return err
	}
	defer carried.Close()
	conn, err := carried.Open(ctx)
	if err != nil {
		return explained(err)
	}
	defer context.AfterFunc(ctx, func() { carried.Close() })()
	go func() {
		io.Copy(conn, stdio.In)
		conn.Close()
	}()
	_, err = io.Copy(stdio.Out, conn)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// way is the way to the host that goes by name.
func (p *places) way(ctx context.Context, place carrier.Place, name string) (way, error) {
	k, err := p.at(ctx, place)
	if err != nil {
		return way{}, explained(err)
	}
	found, err := k.finder.find(ctx, name)
	switch {
	case err != nil:
		return way{}, explained(err)
	case len(found) == 0:
		return way{}, noHost(name, place)
	case len(found) > 1:
		return way{}, cli.Usage("give the instance id", "%s is several hosts: %s, %s", name, found[0].ID, found[1].ID)
	}
	return way{place: place, host: found[0].ID}, nil
}
