package awsconfig

import (
	"cmp"
	"context"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/smithy-go/middleware"
	"golang.org/x/time/rate"
)

type apiOption = func(*middleware.Stack) error

// bucket is one of ECS's token buckets: tokens at most, tokens a second.
type bucket struct {
	category string
	burst    int
	refill   rate.Limit
}

// The categories of ECS operations, per account and Region, from AWS's
// documentation "Request throttling for the Amazon ECS API". All colleagues and
// the console draw from the same buckets, so AWS may still throttle; but never
// for a burst of ours.
var (
	serviceRead       = bucket{"service read", 100, 20}
	serviceModify     = bucket{"service modify", 50, 5}
	serviceDeployment = bucket{"service deployment", 50, 20}
	serviceRevision   = bucket{"service revision", 50, 20}
	resourceRead      = bucket{"cluster resource read", 100, 20}
	resourceModify    = bucket{"cluster resource modify", 100, 40}
	definitionModify  = bucket{"task definition modify", 20, 1}
	definitionRead    = bucket{"task definition read", 50, 20}
	definitionDelete  = bucket{"task definition deletion", 5, 1}
	clusterRead       = bucket{"cluster read", 50, 20}
	clusterModify     = bucket{"cluster modify", 20, 1}
	providerRead      = bucket{"capacity provider read", 50, 20}
	providerModify    = bucket{"capacity provider modify", 10, 1}
	tagRead           = bucket{"tag read", 50, 20}
	tagModify         = bucket{"tag modify", 20, 10}
	settingsRead      = bucket{"settings read", 50, 20}
	settingsModify    = bucket{"settings modify", 10, 1}
	taskProtection    = bucket{"task protection", 200, 80}
	byNamespace       = bucket{"services by namespace", 10, 1}
)

// ecsOperations says which bucket an ECS operation draws from. One that is
// missing here is not paced.
var ecsOperations = map[string]bucket{
	"DescribeServices": serviceRead, "ListServices": serviceRead,
	"CreateService": serviceModify, "DeleteService": serviceModify, "UpdateService": serviceModify,
	"DescribeServiceDeployments": serviceDeployment, "ListServiceDeployments": serviceDeployment,
	"StopServiceDeployment":    serviceDeployment,
	"DescribeServiceRevisions": serviceRevision,
	"ListServicesByNamespace":  byNamespace,

	"DescribeContainerInstances": resourceRead, "ListContainerInstances": resourceRead,
	"DescribeTasks": resourceRead, "ListTasks": resourceRead, "ListAttributes": resourceRead,
	"ExecuteCommand": resourceModify, "RunTask": resourceModify, "StartTask": resourceModify,
	"StopTask": resourceModify, "UpdateContainerInstancesState": resourceModify,
	"PutAttributes": resourceModify, "DeleteAttributes": resourceModify,

	"RegisterTaskDefinition": definitionModify, "DeregisterTaskDefinition": definitionModify,
	"DescribeTaskDefinition": definitionRead, "ListTaskDefinitions": definitionRead,
	"ListTaskDefinitionFamilies": definitionRead,
	"DeleteTaskDefinitions":      definitionDelete,

	"DescribeClusters": clusterRead, "ListClusters": clusterRead,
	"CreateCluster": clusterModify, "DeleteCluster": clusterModify, "UpdateCluster": clusterModify,
	"DescribeCapacityProviders": providerRead,
	"CreateCapacityProvider":    providerModify, "UpdateCapacityProvider": providerModify,
	"ListTagsForResource": tagRead,
	"TagResource":         tagModify, "UntagResource": tagModify,
	"ListAccountSettings": settingsRead, "PutAccountSetting": settingsModify,
	"GetTaskProtection": taskProtection, "UpdateTaskProtection": taskProtection,
}

// buckets pace the attempts of all clients made from one Config.
type buckets map[bucket]*rate.Limiter

func newBuckets(speed float64) buckets {
	b := buckets{}
	for _, k := range ecsOperations {
		b[k] = rate.NewLimiter(k.refill*rate.Limit(cmp.Or(speed, 1)), k.burst)
	}
	return b
}

// limit makes each attempt, the repeated ones too, wait for its token.
func (b buckets) limit(stack *middleware.Stack) error {
	wait := middleware.FinalizeMiddlewareFunc("jumpsuite:pace", func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
		if err := b.wait(ctx); err != nil {
			return middleware.FinalizeOutput{}, middleware.Metadata{}, err
		}
		return next.HandleFinalize(ctx, in)
	})
	return stack.Finalize.Insert(wait, "Retry", middleware.After)
}

func (b buckets) wait(ctx context.Context) error {
	if awsmiddleware.GetServiceID(ctx) != "ECS" {
		return nil
	}
	kind, paced := ecsOperations[awsmiddleware.GetOperationName(ctx)]
	if !paced {
		return nil
	}
	return b[kind].Wait(ctx)
}
