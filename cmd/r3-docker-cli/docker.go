package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/config/configfile"
	clicontext "github.com/docker/cli/cli/context/docker"
	"github.com/docker/cli/cli/context/store"
	"github.com/docker/docker/api"
	"github.com/docker/docker/client"
	"golang.org/x/sys/unix"

	"jumpsuite/internal/together"
)

// Headers of ours, from the CLI to the gate. They can only narrow what it allows.
const (
	hostHeader = "X-Jumpsuite-Host" // the host that was meant, by -H
	verbHeader = "X-Jumpsuite-Verb" // which word was typed

	environmentHeader = "X-Jumpsuite-Environment" // which environment was meant, by --environment
	faultHeader       = "X-Jumpsuite-Fault"       // from the gate: neither the Engine nor the policy says no
	farHeader         = "X-Jumpsuite-Far"         // from the gate: the stream comes from another host
	ttyHeader         = "X-Jumpsuite-Tty"         // from the gate: the log is one of a terminal (true, false)
)

// address is what the client library believes to talk to: nothing is there.
const address = "unix:///run/jumpsuite/gate"

// docker is the CLI's own idea of itself, without what it would read from files
// and variables of the caller's. The embedded one is never initialised: it lends
// the three streams.
type docker struct {
	*command.DockerCli
	gate    *gate
	config  *configfile.ConfigFile
	headers map[string]string
	args    []string             // behind the verb, as they were typed
	fault   atomic.Bool          // the gate could not do its part
	tty     atomic.Pointer[bool] // what the gate said of a log
	lost    func()               // called when a stream of another host's is cut off; nil: who reads it says so
	connect func() (*client.Client, command.ServerInfo)

	patience together.Patience // of a table's hosts
}

// Docker's commands take any command.Cli.
var _ command.Cli = (*docker)(nil)

func newDocker(g *gate) *docker {
	streams, err := command.NewDockerCli()
	if err != nil {
		panic(err) // no option of ours is there to fail
	}
	d := &docker{DockerCli: streams, gate: g, config: configfile.New(""), headers: map[string]string{}, patience: tablePatience}
	d.connectUntil(context.Background())
	return d
}

// connectUntil has the client made when it is wanted first, unless ctx has ended.
// Docker's own commands ask for it without a context.
func (d *docker) connectUntil(ctx context.Context) {
	d.connect = sync.OnceValues(func() (*client.Client, command.ServerInfo) { return d.connectOnce(ctx) })
}

// http leads to the gate. The client library takes its dialler for streams from
// the transport, so that what looks at the answers is put beneath it.
func (d *docker) http() *http.Client {
	outer := &http.Transport{DialContext: d.gate.dial}
	inner := &http.Transport{DisableCompression: true, DialContext: d.gate.dial}
	outer.RegisterProtocol("http", notes{inner, d})
	return &http.Client{Transport: outer}
}

// notes keeps what the gate says beside its answers.
type notes struct {
	http.RoundTripper
	docker *docker
}

// RoundTrip is what it is beneath.
func (n notes) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := n.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if res.Header.Get(faultHeader) != "" {
		n.docker.fault.Store(true)
	}
	if tty, err := strconv.ParseBool(res.Header.Get(ttyHeader)); err == nil {
		n.docker.tty.Store(&tty)
	}
	if lost := n.docker.lost; lost != nil && res.Header.Get(farHeader) != "" {
		res.Body = watched{res.Body, r.Context(), lost}
	}
	return res, nil
}

// watched is a stream that says when it was cut off.
type watched struct {
	io.ReadCloser
	ctx  context.Context
	lost func()
}

// Read is the stream's.
func (w watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if err != nil && err != io.EOF && w.ctx.Err() == nil {
		w.lost()
	}
	return n, err
}

// connectOnce makes the client, and asks the gate which version the Engine
// speaks. When that fails, so will what comes next, and it will say why.
func (d *docker) connectOnce(ctx context.Context) (*client.Client, command.ServerInfo) {
	c := d.client()
	ping, err := c.Ping(ctx)
	if err != nil {
		return c, command.ServerInfo{}
	}
	c.NegotiateAPIVersionPing(ping)
	return c, command.ServerInfo{
		HasExperimental: ping.Experimental,
		OSType:          ping.OSType,
		BuildkitVersion: ping.BuilderVersion,
		SwarmStatus:     ping.SwarmStatus,
	}
}

// connectUnasked makes the client for one of many hosts: that the gates speak the
// newest version with each other goes without asking.
func (d *docker) connectUnasked() (*client.Client, command.ServerInfo) {
	return d.client(client.WithVersion(api.DefaultVersion)), command.ServerInfo{OSType: "linux"}
}

func (d *docker) client(more ...client.Opt) *client.Client {
	c, err := client.NewClientWithOpts(append([]client.Opt{
		client.WithHost(address),
		client.WithHTTPClient(d.http()),
		client.WithHTTPHeaders(d.headers),
		client.WithUserAgent(command.UserAgent()),
	}, more...)...)
	if err != nil {
		panic(err) // every option is a constant
	}
	return c
}

// Client is the connection to the gate.
func (d *docker) Client() client.APIClient {
	c, _ := d.connect()
	return c
}

// ServerInfo is what the Engine says of itself.
func (d *docker) ServerInfo() command.ServerInfo {
	_, info := d.connect()
	return info
}

// CurrentVersion is the version of the API that is spoken.
func (d *docker) CurrentVersion() string { return d.Client().ClientVersion() }

// ConfigFile is one without anything in it.
func (d *docker) ConfigFile() *configfile.ConfigFile { return d.config }

// BuildKitEnabled is of no concern: nothing is built here.
func (d *docker) BuildKitEnabled() (bool, error) { return false, nil }

// ContextStore is nil: there are no contexts.
func (d *docker) ContextStore() store.Store { return nil }

// CurrentContext is the name of docker's context for "none".
func (d *docker) CurrentContext() string { return command.DefaultContextName }

// DockerEndpoint is the gate.
func (d *docker) DockerEndpoint() clicontext.Endpoint {
	return clicontext.Endpoint{EndpointMeta: clicontext.EndpointMeta{Host: address}}
}

// restoreTerminal undoes raw mode, if there was any.
func (d *docker) restoreTerminal() {
	d.In().RestoreTerminal()
	d.Out().RestoreTerminal()
	d.Err().RestoreTerminal()
}

// leaveTerminal is restoreTerminal for a process that nobody waits for any more. In
// the background (it was stopped) the terminal is somebody else's by now, and a
// last word to it is not to stop this process again.
func (d *docker) leaveTerminal() {
	signal.Ignore(syscall.SIGTTOU)
	front, err := unix.IoctlGetInt(int(d.In().FD()), unix.TIOCGPGRP)
	if err != nil || front == 0 || front == unix.Getpgrp() { // 0: it has nobody's any more
		d.restoreTerminal()
	}
}

// unavailable is an error with docker's form and an exit code.
func unavailable(code int, hint, format string, args ...any) error {
	return statusError(code, fmt.Sprintf("docker: "+format, args...)+"\nhint: "+hint)
}
