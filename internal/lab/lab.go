// Package lab plays AWS for one account and region on one machine: ECS with its
// scheduler, ECR with a registry behind it, ELBv2 target health, the inventory
// of SSM, STS. All of them answer on one address, to the real SDKs and the AWS
// CLI with AWS_ENDPOINT_URL set to it.
//
// A lab plays a world (package world), and can be pushed along while it runs:
// Do makes things happen in it, AddFault makes calls go wrong. Every call is
// recorded, also those that were refused.
//
// The lab listens on the loopback only, and knows one secret, which it hands
// out itself. It is for tests and for learning; nothing that is shipped links it.
package lab

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	ecsdocument "github.com/aws/aws-sdk-go-v2/service/ecs/document"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/internal/lab/clock"
	"jumpsuite/internal/lab/ecr"
	"jumpsuite/internal/lab/ecs"
	"jumpsuite/internal/lab/elb"
	"jumpsuite/internal/lab/engine"
	"jumpsuite/internal/lab/logs"
	"jumpsuite/internal/lab/registry"
	"jumpsuite/internal/lab/ssm"
	"jumpsuite/internal/lab/sts"
	"jumpsuite/internal/lab/wire"
	"jumpsuite/internal/lab/world"
)

// Sim and Docker are the engines: tasks that are played by the clock, and
// tasks that are real containers.
const (
	Sim    = "sim"
	Docker = "docker"
)

// Config says what a lab plays, and how. Its zero value is an empty account
// with the simulating engine.
type Config struct {
	// World is what is there. Nil is an empty one. Start completes it.
	World *world.World
	// Engine is Sim or Docker; empty means Sim.
	Engine string
	// StartDocker starts the engine for Docker. It is a value, so that this
	// package does not link a docker client.
	StartDocker func(context.Context, Parts) (engine.Engine, error)
	// Listen is a loopback address to listen on. Empty means 127.0.0.1 and any port.
	Listen string
	// Worker, if set, is a program built from internal/lab/agent/ssm-session-worker:
	// each session's end on its host is then a process of that name with the session's id as its
	// argument, as the real agent's is. State is the folder for the real agent's state
	// files: STATE/INSTANCE/document/state/current/SESSION. Empty means none.
	Worker, State string
	// Patient has lab time wait for the clients, where tasks are played by the clock: no
	// client sees more happen between two looks because the machine is busy. It is for
	// clients that look often, and by the time outside.
	Patient bool
	// Log is told what nobody can be told otherwise. If nil, it is discarded.
	Log *slog.Logger
}

// Parts is what an engine is made from.
type Parts struct {
	World      *world.World
	Clock      *clock.Clock
	Images     engine.Images
	Registry   http.Handler // serves the images over the registry API; the request's Host is the registry
	Registries []string     // the names of the registries that there are
	// Login is what a registry takes, if it asks.
	Login func(registry string) (user, password string)
	Log   *slog.Logger
}

// Lab is a lab that runs. Close ends it.
type Lab struct {
	// Clock is lab time.
	Clock *clock.Clock
	// World is what it plays, complete.
	World *world.World
	// ECS, Balancer, Registry and Engine are the parts, for looking into them.
	ECS      *ecs.Plane
	Balancer *elb.Balancer
	Registry *registry.Registry
	Engine   engine.Engine

	inventory   *ssm.SSM
	images      *ecr.ECR
	services    wire.Services
	credentials wire.Credentials
	log         *slog.Logger
	started     time.Time // lab time at which its clock began
	url         string
	server      *http.Server
	limits      *limits
	pace        *pace
	ports       ports
	certificate certificate

	calls   recorder
	faults  faults
	actions schedule
	close   sync.Once
}

// Start starts a lab and waits until the tasks that its world begins with run.
func Start(ctx context.Context, c Config) (*Lab, error) {
	l := &Lab{World: c.World, log: c.Log}
	if l.World == nil {
		l.World = &world.World{}
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if err := l.World.Complete(); err != nil {
		return nil, err
	}
	l.Clock = clock.Off(l.World.Clock.Speed, time.Duration(l.World.Clock.Ahead-l.World.Clock.Behind))
	l.started = l.Clock.Now()
	l.pace = newPace(l.Clock, l.World.Clock.Speed, c.Patient && c.Engine != Docker)
	if err := l.build(ctx, c); err != nil {
		l.Close()
		return nil, err
	}
	if err := l.listen(c.Listen); err != nil {
		l.Close()
		return nil, err
	}
	select {
	case <-l.ECS.Steady():
	case <-ctx.Done():
		l.Close()
		return nil, fmt.Errorf("start the world's tasks: %w", context.Cause(ctx))
	}
	l.begin()
	return l, nil
}

// build makes the parts of the lab, each from those before it.
func (l *Lab) build(ctx context.Context, c Config) (err error) {
	if l.Registry, err = registry.New(l.World, l.Clock); err != nil {
		return err
	}
	e, err := l.startEngine(ctx, c)
	if err != nil {
		return err // and e may be a nil pointer in an interface, which Close would call
	}
	l.Engine = e
	l.Balancer = elb.New(elb.Config{Clock: l.Clock, Account: l.World.Account, Region: l.World.Region})
	l.ECS = ecs.New(ecs.Config{World: l.World, Clock: l.Clock, Engine: l.Engine, Balancer: l.Balancer, Images: l.Registry})
	l.credentials = credentials(l.World)
	key, secret := key(l.World)
	l.inventory = ssm.New(ssm.Config{World: l.World, Clock: l.Clock, Service: l.URL, Verify: l.credentials.Verify, Key: key, Secret: secret,
		Worker: c.Worker, State: c.State, Opened: l.opened, Log: l.log})
	l.images = &ecr.ECR{World: l.World, Clock: l.Clock, Registry: l.Registry}
	l.services = l.allServices()
	l.faults.add(l.World.Faults...)
	if l.World.RateLimits {
		l.limits = newLimits()
	}
	return nil
}

func (l *Lab) startEngine(ctx context.Context, c Config) (engine.Engine, error) {
	switch c.Engine {
	case "", Sim:
		return engine.NewSim(l.Clock, l.Registry), nil
	case Docker:
		if c.StartDocker == nil {
			return nil, errors.New("this program has no docker engine for the lab")
		}
		return c.StartDocker(ctx, Parts{
			World: l.World, Clock: l.Clock, Images: l.Registry, Log: l.log,
			Registry: l.Registry.Handler(), Registries: l.Registry.Hosts(), Login: l.Registry.Login,
		})
	}
	return nil, fmt.Errorf("engine %q is neither %s nor %s", c.Engine, Sim, Docker)
}

func (l *Lab) allServices() wire.Services {
	return wire.Services{
		{Name: "ecs", Target: "AmazonEC2ContainerServiceV20141113", Impl: l.ECS,
			Unions:   []any{&ecstypes.ServiceConnectContainerConfigurationMemberLogLevel{}},
			Document: func(v any) any { return ecsdocument.NewLazyDocument(v) }},
		{Name: "ecr", Target: "AmazonEC2ContainerRegistry_V20150921", Impl: l.images},
		{Name: "ssm", Target: "AmazonSSM", Impl: l.inventory, Titled: true, Invalid: "ValidationException"},
		{Name: "ec2messages", Target: "EC2WindowsMessageDeliveryService", Impl: ssm.Commands{Of: l.inventory}, Titled: true, Invalid: "ValidationException"},
		{Name: "logs", Target: "Logs_20140328", Impl: &logs.Logs{Written: l.ECS.Written}},
		{Name: "elasticloadbalancing", Version: "2015-12-01", Impl: l.Balancer, Invalid: "ValidationError",
			Namespace: "http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/"},
		{Name: "sts", Version: "2011-06-15", Impl: &sts.STS{Account: l.World.Account, User: "lab"}, Invalid: "ValidationError",
			Namespace: "https://sts.amazonaws.com/doc/2011-06-15/"},
	}
}

// credentials makes the access key that Env hands out, and knows the world's denied ones.
func credentials(w *world.World) wire.Credentials {
	id, secret := key(w)
	c := wire.Credentials{Region: w.Region, Account: w.Account, Secrets: map[string]string{id: secret}, Denied: map[string]bool{}}
	for _, denied := range w.DeniedKeys {
		c.Secrets[denied], c.Denied[denied] = secret, true
	}
	return c
}

// key is the access key of a world: the same for the same account, so that an
// environment outlives a restart of the lab.
func key(w *world.World) (id, secret string) {
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte("lab key of "+w.Account)))
	return "AKIDLAB" + strings.ToUpper(sum[:13]), sum[:40]
}

func (l *Lab) listen(address string) error {
	if address == "" {
		address = "127.0.0.1:0"
	}
	host, _, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("listen on %q: the lab takes loopback addresses only, such as 127.0.0.1:0", address)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", address, err)
	}
	l.url = "http://" + listener.Addr().String()
	l.images.URL = l.url
	l.server = &http.Server{Handler: l.Handler(), ReadHeaderTimeout: time.Minute, ConnState: l.pace.connection, ErrorLog: slog.NewLogLogger(l.log.Handler(), slog.LevelWarn)}
	go func() {
		if err := l.server.Serve(eitherListener{listener, &l.certificate}); !errors.Is(err, http.ErrServerClosed) {
			l.log.Error("the lab's server ended", "error", err)
		}
	}()
	return nil
}

// URL is where the lab answers: http://127.0.0.1:PORT, and https:// with Certificate.
func (l *Lab) URL() string { return l.url }

// Env is the environment in which the SDKs and the AWS CLI use the lab, as
// NAME=VALUE.
func (l *Lab) Env() []string {
	id, secret := key(l.World)
	return []string{
		"AWS_ENDPOINT_URL=" + l.url,
		"AWS_REGION=" + l.World.Region,
		"AWS_DEFAULT_REGION=" + l.World.Region, // the AWS CLI 1.x knows this one only
		"AWS_ACCESS_KEY_ID=" + id,
		"AWS_SECRET_ACCESS_KEY=" + secret,
		"AWS_EC2_METADATA_DISABLED=true",
	}
}

// Close ends the lab with everything that it started. It may be called again.
func (l *Lab) Close() error {
	var err error
	l.close.Do(func() {
		l.actions.stop()
		if l.inventory != nil {
			l.inventory.Close()
		}
		if l.server != nil {
			err = l.server.Close()
		}
		if l.ECS != nil {
			l.ECS.Close()
		}
		if l.Balancer != nil {
			l.Balancer.Close()
		}
		l.closePorts()
		if l.Engine != nil {
			err = errors.Join(err, l.Engine.Close())
		}
	})
	return err
}
