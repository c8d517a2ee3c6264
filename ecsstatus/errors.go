package ecsstatus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/smithy-go"

	"jumpsuite/internal/cli"
)

// The kinds of things that may not be there.
const (
	KindCluster       = "cluster"
	KindContainerType = "container type"
	KindTask          = "task"
	KindHost          = "host"
)

// nearest is how many names an error suggests.
const nearest = 3

// NotFoundError says that something is not there, and what is.
type NotFoundError struct {
	Kind string // one of the Kind constants
	Name string // as it was given
	In   string // the cluster that was searched; empty for clusters
	// Near are the names most like Name, the nearest first. If nothing is like
	// it and there are few names, they are all of them.
	Near []string
	// Note, if set, is the hint instead of the nearest names.
	Note string
}

func (e *NotFoundError) Error() string {
	if e.In == "" {
		return fmt.Sprintf("no %s %q", e.Kind, e.Name)
	}
	return fmt.Sprintf("no %s %q in cluster %s", e.Kind, e.Name, e.In)
}

// ExitCode is cli.ExitNotFound, 66.
func (e *NotFoundError) ExitCode() int { return cli.ExitNotFound }

// Hint names the nearest names.
func (e *NotFoundError) Hint() string {
	switch {
	case e.Note != "":
		return e.Note
	case len(e.Near) == 0:
		return ""
	case len(e.Near) == 1:
		return fmt.Sprintf("did you mean %s?", e.Near[0])
	}
	return "the nearest are " + strings.Join(e.Near, ", ")
}

// notFound is a NotFoundError with the nearest of the names that are there.
func notFound(kind, name, in string, names []string) *NotFoundError {
	near := cli.Nearest(name, names, nearest)
	if len(near) == 0 && len(names) <= nearest {
		near = names
	}
	return &NotFoundError{Kind: kind, Name: name, In: in, Near: near}
}

// noSuchCluster turns AWS's ClusterNotFoundException into a NotFoundError, and
// wraps any other error with what was being done. The names of the clusters
// are an extra: if they cannot be listed, the error goes without.
func (r *Reader) noSuchCluster(ctx context.Context, err error, doing string) error {
	if _, ok := errors.AsType[*types.ClusterNotFoundException](err); !ok {
		return failed(ctx, err, doing+" in cluster "+ShortName(r.Cluster))
	}
	arns, listErr := collect(ctx, r.listClusters)
	if listErr != nil {
		arns = nil
	}
	return notFound(KindCluster, r.Cluster, "", shortNames(arns))
}

// failed says what was being done, in place of the SDK's "operation error
// SERVICE: OPERATION". Of a context that ended, the cause is all there is to say.
func failed(ctx context.Context, err error, doing string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if op, ok := err.(*smithy.OperationError); ok {
		err = op.Err
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func (r *Reader) listClusters(ctx context.Context, token *string) ([]string, *string, error) {
	out, err := r.ECS.ListClusters(ctx, &ecs.ListClustersInput{MaxResults: pointer(int32(pageSize)), NextToken: token})
	if err != nil {
		return nil, nil, err
	}
	return out.ClusterArns, out.NextToken, nil
}

// noSuchService is a NotFoundError for a container type. If the names of the
// others cannot be listed, it goes without.
func (r *Reader) noSuchService(ctx context.Context, name string) error {
	names, err := r.ContainerTypes(ctx)
	if err != nil {
		names = nil
	}
	if r.Suggest != nil {
		names = slices.DeleteFunc(names, func(n string) bool { return !r.Suggest(n) })
	}
	e := notFound(KindContainerType, name, ShortName(r.Cluster), names)
	if slices.Contains(names, ShortName(name)) {
		e.Near = []string{ShortName(name)} // given as an ARN
	}
	return e
}

func shortNames(arns []string) []string {
	var names []string
	for _, arn := range arns {
		names = append(names, ShortName(arn))
	}
	return names
}
