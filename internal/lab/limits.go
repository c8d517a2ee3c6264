package lab

import (
	"strings"

	"golang.org/x/time/rate"
)

// bucket is a token bucket of AWS's: so many calls at once, and so many a
// second after that. All operations of a category share one
// [Amazon ECS API Reference, "Request throttling for the Amazon ECS API"].
type bucket struct {
	category string
	burst    int
	refill   rate.Limit
	// operations are names, or patterns that end in *.
	operations string
}

var buckets = []bucket{
	{"service deployment", 50, 20, "DescribeServiceDeployments ListServiceDeployments"},
	{"service revision", 50, 20, "DescribeServiceRevisions"},
	{"services by namespace", 10, 1, "ListServicesByNamespace"},
	{"service read", 100, 20, "DescribeServices ListServices DescribeTaskSets"},
	{"service modify", 50, 5, "CreateService DeleteService UpdateService StopServiceDeployment ContinueServiceDeployment CreateTaskSet DeleteTaskSet UpdateTaskSet UpdateServicePrimaryTaskSet"},
	{"cluster resource read", 100, 20, "DescribeContainerInstances DescribeTasks ListAttributes ListContainerInstances ListTasks"},
	{"cluster resource modify", 100, 40, "DeleteAttributes DeregisterContainerInstance ExecuteCommand PutAttributes RegisterContainerInstance RunTask StartTask StopTask UpdateContainerInstancesState"},
	{"task definition deletion", 5, 1, "DeleteTaskDefinitions"},
	{"task definition modify", 20, 1, "RegisterTaskDefinition DeregisterTaskDefinition"},
	{"task definition read", 50, 20, "DescribeTaskDefinition ListTaskDefinitions ListTaskDefinitionFamilies"},
	{"cluster read", 50, 20, "DescribeClusters ListClusters"},
	{"cluster modify", 20, 1, "CreateCluster DeleteCluster PutClusterCapacityProviders UpdateCluster UpdateClusterSettings"},
	{"capacity provider read", 50, 20, "DescribeCapacityProviders"},
	{"capacity provider modify", 10, 1, "CreateCapacityProvider DeleteCapacityProvider UpdateCapacityProvider"},
	{"tag read", 50, 20, "ListTagsForResource"},
	{"tag modify", 20, 10, "TagResource UntagResource"},
	{"settings read", 50, 20, "ListAccountSettings"},
	{"settings modify", 10, 1, "PutAccountSetting PutAccountSettingDefault DeleteAccountSetting"},
	{"agent modify", 200, 120, "UpdateContainerAgent"},
	{"task protection", 200, 80, "GetTaskProtection UpdateTaskProtection"},
}

// limits are the buckets of an account, full at the start. They refill in real time.
type limits struct {
	byOperation map[string]*rate.Limiter
}

func newLimits() *limits {
	l := &limits{byOperation: map[string]*rate.Limiter{}}
	for _, b := range buckets {
		shared := rate.NewLimiter(b.refill, b.burst)
		for operation := range strings.FieldsSeq(b.operations) {
			l.byOperation[operation] = shared
		}
	}
	return l
}

// allow takes a token for a call of ECS. Nil limits allow everything, as do
// operations of no category.
func (l *limits) allow(service, operation string) bool {
	if l == nil || service != "ecs" {
		return true
	}
	b, ok := l.byOperation[operation]
	return !ok || b.Allow()
}
