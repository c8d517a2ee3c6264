// Package access answers the three questions that every ECS command asks first:
// who calls, what may he do, and how is AWS reached.
//
// Under sudo the policy file answers all three. It must load; the caller may
// pick among the environments in which it allows him the action, and nothing
// else: no region, no endpoint. Not under sudo, the caller has credentials of
// his own, AWS decides what he may, and a policy file, if there is one that he
// can read, is an address book: its environments are names for clusters.
package access

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"

	"jumpsuite/internal/audit"
	"jumpsuite/internal/awsconfig"
	"jumpsuite/internal/caller"
	"jumpsuite/internal/cli"
	"jumpsuite/policy"
)

// Options are what the command line says. Empty fields are not said.
type Options struct {
	Command     string // for the user agent
	Action      string // what is going to be done, as a policy says it: ecs.list
	Cluster     string // name or ARN
	Region      string
	Endpoint    string
	Environment string    // of the policy file
	Reason      string    // what the caller gives as a reason, for the audit log
	PolicyPath  string    // for tests; empty is policy.Path
	LogPath     string    // for tests; empty is audit.DefaultPath
	Journal     string    // for tests: the socket that heads go to; empty is journald's
	Stderr      io.Writer // for what the person should know; nil is nowhere
}

// Access is an open way to AWS.
type Access struct {
	Config      aws.Config
	Cluster     string         // never empty
	Environment string         // of the policy file; empty if none fits
	Caller      *caller.Caller // nil: not under sudo
	Log         *audit.Log     // nil: not under sudo

	policy *policy.Policy // nil: not under sudo
	reason string
}

// Open finds out who calls, which cluster is meant and how AWS is reached. Whoever
// opens it closes it. Its errors carry exit codes: 64 an option is wrong or missing, 66 no cluster, 69
// AWS out of reach, 74 no audit log that could be written, 77 not allowed, 78 no
// policy that could be trusted.
func Open(ctx context.Context, o Options) (*Access, error) {
	who, err := caller.Enter()
	if err != nil {
		return nil, err
	}
	if o.PolicyPath == "" {
		o.PolicyPath = policy.Path
	}
	if o.Stderr == nil {
		o.Stderr = io.Discard
	}
	if who != nil {
		return o.sudo(ctx, who)
	}
	return o.direct(ctx)
}

// Close ends it: what was recorded last is announced outside of the log, too.
func (a *Access) Close() {
	if a.Log != nil {
		a.Log.Close()
	}
}

// Allow asks the policy whether the caller may do action to r, and records the
// answer: without a record there is none. Not under sudo it says yes: AWS decides.
func (a *Access) Allow(action string, r policy.Resource) error {
	_, err := a.Decide(action, r)
	return err
}

// Suggests is for a Reader's Suggest: whether the caller may do action to a
// container type. It is not recorded, as nothing is done to it.
func (a *Access) Suggests(action string) func(containerType string) bool {
	return func(containerType string) bool {
		if a.Caller == nil {
			return true
		}
		_, refusal := decide(a.policy, a.Caller, a.Environment, action, policy.Resource{ContainerType: containerType}, "to hear its name")
		return refusal == nil
	}
}

// Decide is Allow, and returns what it recorded: the later lines about the same
// request have its id, its principal and its rule. Not under sudo it is empty.
func (a *Access) Decide(action string, r policy.Resource) (audit.Event, error) {
	return a.decide(action, r, a.reason)
}

// DecideBegun is Decide for what someone else has begun and is to be finished: the
// policy does not ask for a reason again.
func (a *Access) DecideBegun(action string, r policy.Resource) (audit.Event, error) {
	return a.decide(action, r, "to finish what has begun")
}

func (a *Access) decide(action string, r policy.Resource, reason string) (audit.Event, error) {
	if a.Caller == nil {
		return audit.Event{}, nil
	}
	rule, refusal := decide(a.policy, a.Caller, a.Environment, action, r, reason)
	e := a.event(a.Environment, action, rule, refusal == nil)
	e.Resource = audit.Resource{ContainerType: r.ContainerType, Image: r.Image, Host: r.Host}
	return e, a.record(&e, refusal)
}

// Possible asks whether the caller may do action to anything at all, for what
// he would find out too late. A refusal is recorded.
func (a *Access) Possible(action string) error {
	if a.Caller == nil {
		return nil
	}
	return a.refuse(action, anywhere(a.policy, a.Caller, a.Environment, action))
}

// AllowRun is Allow for docker.run, of which the limits have something to say too.
func (a *Access) AllowRun(r policy.Resource, run *policy.Run) error {
	if a.Caller == nil {
		return nil
	}
	d := a.policy.Decide(policy.Request{Principal: principal(a.Caller), Environment: a.Environment, Action: policy.DockerRun, Resource: r, Run: run})
	e := a.event(a.Environment, policy.DockerRun.String(), d.Rule(), d.Allowed())
	e.Resource = audit.Resource{Image: r.Image, Host: r.Host}
	return a.record(&e, denied(d, a.Caller, a.Environment, policy.DockerRun.String(), r))
}

// ReachesHosts reports whether the environment's docker hosts are reached from
// this machine, as the policy says.
func (a *Access) ReachesHosts() bool {
	e, _ := a.policy.Environment(a.Environment)
	return e.Reach == policy.ReachSSM
}

// direct opens for a caller with AWS credentials of his own.
func (o Options) direct(ctx context.Context) (*Access, error) {
	env, err := o.lookup()
	if err != nil {
		return nil, err
	}
	region, endpoint := first(o.Region, env.Region), first(o.Endpoint, env.Endpoint)
	cfg, err := awsconfig.Load(ctx, awsconfig.Options{Region: region, Endpoint: endpoint, Name: o.Command})
	if err != nil {
		return nil, err
	}
	a := &Access{Config: cfg, Cluster: first(o.Cluster, env.Cluster), Environment: env.Name}
	if a.Cluster != "" {
		return a, nil
	}
	a.Cluster, err = onlyCluster(ctx, ecs.NewFromConfig(cfg))
	return a, err
}

// lookup finds the environment that the options name, or that fits the cluster
// they name. Without a policy file there is none.
func (o Options) lookup() (policy.Environment, error) {
	p, err := policy.Read(o.PolicyPath)
	if err != nil {
		return o.withoutPolicy(err)
	}
	if o.Environment != "" {
		return named(p.Environments(), o.Environment)
	}
	if o.Cluster == "" {
		return policy.Environment{}, nil
	}
	for _, e := range p.Environments() {
		if e.Cluster == o.Cluster && (o.Region == "" || o.Region == e.Region) {
			return e, nil
		}
	}
	return policy.Environment{}, nil
}

// withoutPolicy goes on without an address book, where none was asked for.
func (o Options) withoutPolicy(err error) (policy.Environment, error) {
	var zero policy.Environment
	if o.Environment != "" {
		return zero, fmt.Errorf("look up the environment %s: %w", o.Environment, err)
	}
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		fmt.Fprintf(o.Stderr, "note: %s is not used for cluster names: %v\n", o.PolicyPath, cli.Printable(err.Error()))
	}
	return zero, nil
}

func named(list []policy.Environment, name string) (policy.Environment, error) {
	i := slices.IndexFunc(list, func(e policy.Environment) bool { return e.Name == name })
	if i < 0 {
		return policy.Environment{}, cli.Usage("environments: "+strings.Join(names(list), ", "), "unknown environment %q", name)
	}
	return list[i], nil
}

// onlyCluster is the cluster that is meant when none is named: the only one.
func onlyCluster(ctx context.Context, api ecs.ListClustersAPIClient) (string, error) {
	var found []string
	for pages := ecs.NewListClustersPaginator(api, &ecs.ListClustersInput{}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return "", fmt.Errorf("list clusters: %w", awsconfig.Explain(err))
		}
		for _, arn := range page.ClusterArns {
			found = append(found, arn[strings.LastIndexByte(arn, '/')+1:])
		}
	}
	switch len(found) {
	case 0:
		return "", cli.Errorf(cli.ExitNotFound, "check the account and the region (aws sts get-caller-identity; --region)", "no ECS cluster in this account and region")
	case 1:
		return found[0], nil
	}
	slices.Sort(found)
	return "", cli.Usage("clusters: "+strings.Join(found, ", "), "there are %d clusters: say which, with --cluster", len(found))
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func names(list []policy.Environment) []string {
	var out []string
	for _, e := range list {
		out = append(out, e.Name)
	}
	return out
}
