package deployer

import (
	"cmp"
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/smithy-go/middleware"

	"jumpsuite/ecsstatus"
)

// ECS is the part of the ECS client that a Deployer uses besides its Readers.
// UpdateService and RegisterTaskDefinition must not be repeated by the client:
// a repetition after a lost answer would be a second deployment.
type ECS interface {
	ecsstatus.ECS
	DescribeTaskDefinition(context.Context, *ecs.DescribeTaskDefinitionInput, ...func(*ecs.Options)) (*ecs.DescribeTaskDefinitionOutput, error)
	ListTaskDefinitions(context.Context, *ecs.ListTaskDefinitionsInput, ...func(*ecs.Options)) (*ecs.ListTaskDefinitionsOutput, error)
	ListServiceDeployments(context.Context, *ecs.ListServiceDeploymentsInput, ...func(*ecs.Options)) (*ecs.ListServiceDeploymentsOutput, error)
	DescribeServiceRevisions(context.Context, *ecs.DescribeServiceRevisionsInput, ...func(*ecs.Options)) (*ecs.DescribeServiceRevisionsOutput, error)
	DescribeServiceDeployments(context.Context, *ecs.DescribeServiceDeploymentsInput, ...func(*ecs.Options)) (*ecs.DescribeServiceDeploymentsOutput, error)
	StopServiceDeployment(context.Context, *ecs.StopServiceDeploymentInput, ...func(*ecs.Options)) (*ecs.StopServiceDeploymentOutput, error)
	RegisterTaskDefinition(context.Context, *ecs.RegisterTaskDefinitionInput, ...func(*ecs.Options)) (*ecs.RegisterTaskDefinitionOutput, error)
	UpdateService(context.Context, *ecs.UpdateServiceInput, ...func(*ecs.Options)) (*ecs.UpdateServiceOutput, error)
	TagResource(context.Context, *ecs.TagResourceInput, ...func(*ecs.Options)) (*ecs.TagResourceOutput, error)
}

// Deployer deploys to the services of one cluster. Make one with New.
type Deployer struct {
	// Allow is asked before anything is changed, with the whole image URL. If
	// nil, everything is allowed.
	Allow func(image Image) error
	// Record is told of each step before it is taken, with the plan that it is of
	// (before the first, its Digest and Back are known). What it returns an error
	// for is not done; but a roll-back that is due, and putting the percents back,
	// go on. If nil, nobody is told.
	Record func(p *Plan, step string) error
	// MayFinish is asked before the deployment of a process that has ended is taken
	// over, with its journal. If nil, it may be.
	MayFinish func(j Journal) error
	// Suggest reports whether the person may hear of a container type when the one
	// that he named is not there. If nil, he may hear of all.
	Suggest func(containerType string) bool
	// Tell is told what happens. If nil, nobody is.
	Tell func(Event)
	// Interval is how often to look at AWS. Zero adapts: every two seconds
	// while things change; where they do not, every ten, with a glance at the service every two.
	Interval time.Duration
	// Sleep waits between two looks. If nil, they are apart in real time.
	Sleep func(context.Context, time.Duration) error
	// Logs reads the last lines of a failed container's log, beside whatever else
	// goes on, and several at the same time. If nil, no logs are shown. A hint of its
	// error's is shown too.
	Logs func(ctx context.Context, l Log, lines int) ([]string, error)
	// Images gives the ECR client of a region.
	Images func(region string) Images
	// Program is what a person types to call us, for the hints. If empty, it is r3-container.
	Program string
	// By and Host are who deploys, and the name of this machine, for the journal.
	By, Host string
	// Folder is where journals have their local copies, and where the locks are:
	// one process of this machine deploys to a container type at a time. If
	// empty, there are neither; the journal is in the service's tags only.
	Folder string

	web     aws.HTTPClient    // for what ECR has elsewhere
	patient ECS               // repeats reads by itself: for what comes before the change
	ecs     ECS               // repeats nothing: the following repeats itself
	before  *ecsstatus.Reader // with patient
	reader  *ecsstatus.Reader // with ecs
	cluster string
	region  string
	clock   *serverClock
	name    string // of the container type, for the events
	// told are the service events and stopped tasks that have been told, by
	// their IDs: a roll-back of ECS's own is followed from before it began.
	told   map[string]bool
	labels labels
	tails  []*tail // logs that are to be shown
	// keeper keeps the journal of what is under way; nil: there is none.
	keeper *keeper
}

// New returns a Deployer for a cluster (name or ARN).
func New(cfg aws.Config, cluster string) *Deployer {
	clock := &serverClock{}
	cfg = cfg.Copy()
	cfg.APIOptions = append(cfg.APIOptions, clock.watch)
	once := cfg.Copy()
	once.Retryer = signedAnew
	d := &Deployer{patient: ecs.NewFromConfig(cfg), ecs: ecs.NewFromConfig(once), cluster: cluster, region: cfg.Region, clock: clock, web: cfg.HTTPClient}
	if d.web == nil {
		d.web = http.DefaultClient
	}
	d.before = &ecsstatus.Reader{ECS: d.patient, Balancers: elb.NewFromConfig(cfg), Cluster: cluster}
	d.reader = &ecsstatus.Reader{Inventory: ssm.NewFromConfig(once), ECS: d.ecs, Balancers: elb.NewFromConfig(once), Cluster: cluster}
	d.Images = func(region string) Images {
		return ecr.NewFromConfig(cfg, func(o *ecr.Options) { o.Region = region })
	}
	return d
}

// command is a command of ours as a person types it, about the container type that
// is at hand.
func (d *Deployer) command(name string) string {
	return d.typed(name + " --container-type " + d.name)
}

// typed is a command line of ours as a person types it.
func (d *Deployer) typed(arguments string) string {
	return cmp.Or(d.Program, "r3-container") + " " + arguments
}

// signedAnew repeats, once, a call that was refused for the time of its signature,
// when our clock and AWS's differ: it was not carried out. It repeats nothing else.
func signedAnew() aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = 2
		o.Retryables = []retry.IsErrorRetryable{retry.RetryableError{}} // the SDK's sign of clock skew
	})
}

// serverClock is AWS's clock: the Date header of its last answer. Its zero
// value has heard nothing yet, and goes by our clock.
type serverClock struct {
	mu    sync.Mutex
	at    time.Time // AWS's
	heard time.Time // ours, then
}

// Now is AWS's time: what it last said, and what has passed here since.
func (c *serverClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() {
		return time.Now().UTC()
	}
	return c.at.Add(time.Since(c.heard)).UTC()
}

// hear keeps the latest time: answers may come in another order than they were
// made in.
func (c *serverClock) hear(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at.After(c.at) {
		c.at, c.heard = at, time.Now()
	}
}

// watch is an API option of the SDK that hears the time of each answer of AWS's, of
// errors too. It is AWS's if it has a request id: a proxy's clock is none of ours.
func (c *serverClock) watch(stack *middleware.Stack) error {
	return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("jumpsuite:clock", func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
		out, metadata, err := next.HandleDeserialize(ctx, in)
		at, timed := awsmiddleware.GetServerTime(metadata)
		if _, ours := awsmiddleware.GetRequestIDMetadata(metadata); timed && ours {
			c.hear(at)
		}
		return out, metadata, err
	}), middleware.Before)
}

// sleep waits for d of our time, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

const (
	// shortLook is the time between two looks when a verdict is near: three calls a
	// second of those that AWS's buckets refill with twenty a second of.
	shortLook = time.Second
	quickLook = 2 * time.Second
	// calmLooks is how many looks may see no change before they come further apart.
	calmLooks = 15
	slowLook  = 10 * time.Second
	// MinInterval is the least Interval: ten looks a second are forty calls,
	// twice what AWS's buckets refill with.
	MinInterval = 100 * time.Millisecond
	// MaxInterval is the longest Interval: with longer ones a deployment is not
	// followed any more.
	MaxInterval = time.Minute
)

// backoff is how long to wait before the n-th repetition (from 1).
func (d *Deployer) backoff(n int) time.Duration {
	base := quickLook
	if d.Interval > 0 {
		base = min(d.Interval, quickLook)
	}
	return base << min(n-1, 4)
}
