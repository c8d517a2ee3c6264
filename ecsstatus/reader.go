// Package ecsstatus reads what an ECS cluster is doing: its container types
// (services), their deployments and events, their tasks, the hosts that run
// them, and what the load balancers think of them.
//
// A Reader asks AWS and returns values; the values know nothing of AWS and are
// what the commands print as JSON. Nothing here prints while it asks, and
// nothing here changes anything in AWS.
//
// Words: a container type is an ECS service, as the platform calls it; a host
// is a container instance with its EC2 instance; a task ID is the last part of
// a task's ARN.
package ecsstatus

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
)

// Page and batch sizes: the most that the API takes (doc comments of the SDK's
// inputs). DescribeServices takes 10, which is more than the one we ask for.
const (
	pageSize       = 100 // ListTasks, ListContainerInstances, ListServices, ListClusters
	batchSize      = 100 // DescribeTasks, DescribeContainerInstances
	inventoryBatch = 50  // DescribeInstanceInformation: MaxResults is 5 to 50
)

// ECS is the part of the ECS client that a Reader uses.
type ECS interface {
	DescribeServices(context.Context, *ecs.DescribeServicesInput, ...func(*ecs.Options)) (*ecs.DescribeServicesOutput, error)
	ListServices(context.Context, *ecs.ListServicesInput, ...func(*ecs.Options)) (*ecs.ListServicesOutput, error)
	ListClusters(context.Context, *ecs.ListClustersInput, ...func(*ecs.Options)) (*ecs.ListClustersOutput, error)
	ListTasks(context.Context, *ecs.ListTasksInput, ...func(*ecs.Options)) (*ecs.ListTasksOutput, error)
	DescribeTasks(context.Context, *ecs.DescribeTasksInput, ...func(*ecs.Options)) (*ecs.DescribeTasksOutput, error)
	ListContainerInstances(context.Context, *ecs.ListContainerInstancesInput, ...func(*ecs.Options)) (*ecs.ListContainerInstancesOutput, error)
	DescribeContainerInstances(context.Context, *ecs.DescribeContainerInstancesInput, ...func(*ecs.Options)) (*ecs.DescribeContainerInstancesOutput, error)
}

// Inventory is the part of the SSM client that a Reader uses, for the private
// addresses of hosts.
type Inventory interface {
	DescribeInstanceInformation(context.Context, *ssm.DescribeInstanceInformationInput, ...func(*ssm.Options)) (*ssm.DescribeInstanceInformationOutput, error)
}

// Balancers is the part of the ELBv2 client that a Reader uses.
type Balancers interface {
	DescribeTargetHealth(context.Context, *elb.DescribeTargetHealthInput, ...func(*elb.Options)) (*elb.DescribeTargetHealthOutput, error)
}

// Reader reads one cluster. Its methods may be called from several goroutines.
//
// A container type, task or cluster that is not there is a *NotFoundError;
// any other error is the SDK's, wrapped with what was being done.
type Reader struct {
	ECS ECS
	// Inventory names the hosts by their address. If nil, hosts have none.
	Inventory Inventory
	// Balancers tells the health of targets. If nil, TargetHealth refuses.
	Balancers Balancers
	// Cluster is a cluster's name or ARN.
	Cluster string
	// Suggest reports whether the person may hear of a container type when one
	// that is not there was asked for. If nil, he may hear of all.
	Suggest func(containerType string) bool

	mu        sync.Mutex
	instances map[string]Host // container instance ARN → host, for what never changes of it
}

// NewReader reads a cluster with the clients of one configuration.
func NewReader(cfg aws.Config, cluster string) *Reader {
	return &Reader{
		ECS:       ecs.NewFromConfig(cfg),
		Inventory: ssm.NewFromConfig(cfg),
		Balancers: elb.NewFromConfig(cfg),
		Cluster:   cluster,
	}
}

// crew runs functions at the same time and keeps the first error, which ends
// the others' context.
type crew struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
}

func newCrew(ctx context.Context) *crew {
	ctx, cancel := context.WithCancelCause(ctx)
	return &crew{ctx: ctx, cancel: cancel}
}

func (c *crew) do(f func(ctx context.Context) error) {
	c.wg.Go(func() {
		if err := f(c.ctx); err != nil {
			c.cancel(err)
		}
	})
}

func (c *crew) wait() error {
	c.wg.Wait()
	err := context.Cause(c.ctx)
	c.cancel(nil)
	return err
}

// lister returns one page of ARNs and the token of the next page: nil or empty
// at the end, as in the SDK's own paginators.
type lister func(ctx context.Context, token *string) (arns []string, next *string, err error)

// describer returns what the ARNs, no more than a batch, stand for. What has
// gone since it was listed is left out.
type describer[T any] func(ctx context.Context, arns []string) ([]T, error)

// pages lists page after page, which the API makes a chain, and describes each
// page as soon as it is there, while the next one is listed. The result is in
// the order of the pages.
func pages[T any](ctx context.Context, list lister, describe describer[T]) ([]T, error) {
	crew := newCrew(ctx)
	var parts []*[]T
	var token *string
	for {
		arns, next, err := list(crew.ctx, token)
		if err != nil {
			crew.cancel(err)
			break
		}
		if len(arns) > 0 {
			part := new([]T)
			parts = append(parts, part)
			crew.do(func(ctx context.Context) (err error) {
				*part, err = describe(ctx, arns)
				return err
			})
		}
		if token = next; text(token) == "" {
			break
		}
	}
	if err := crew.wait(); err != nil {
		return nil, err
	}
	return concat(parts), nil
}

func concat[T any](parts []*[]T) []T {
	var all []T
	for _, p := range parts {
		all = append(all, *p...)
	}
	return all
}

// collect lists all pages and returns their ARNs.
func collect(ctx context.Context, list lister) ([]string, error) {
	var all []string
	var token *string
	for {
		arns, next, err := list(ctx, token)
		if err != nil {
			return nil, err
		}
		all = append(all, arns...)
		if token = next; text(token) == "" {
			return all, nil
		}
	}
}

// ShortName is the last part of an ARN: the name of a cluster or service, the
// ID of a task, family:revision of a task definition. Anything else is
// returned as it is.
func ShortName(arn string) string {
	return arn[strings.LastIndexByte(arn, '/')+1:]
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func number(n *int32) *int {
	if n == nil {
		return nil
	}
	i := int(*n)
	return &i
}

func moment(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

func pointer[T any](v T) *T { return &v }
