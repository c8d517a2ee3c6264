package ecs

import (
	"context"
	"slices"
	"strconv"

	sdk "github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// ListClusters lists the account's clusters.
func (p *Plane) ListClusters(ctx context.Context, in *sdk.ListClustersInput) (*sdk.ListClustersOutput, error) {
	out := &sdk.ListClustersOutput{}
	err := p.read(ctx, func(st *state) (err error) {
		var arns []string
		for _, c := range st.clusters {
			arns = append(arns, c.arn)
		}
		out.ClusterArns, out.NextToken, err = page{query: "ListClusters", token: in.NextToken, max: in.MaxResults, size: 100}.cut(numbered(arns))
		return err
	})
	return answer(out, err)
}

// answer leaves the output out where there is an error.
func answer[T any](out *T, err error) (*T, error) {
	if err != nil {
		return nil, err
	}
	return out, nil
}

// DescribeClusters describes clusters by name or ARN; without any, the default one.
func (p *Plane) DescribeClusters(ctx context.Context, in *sdk.DescribeClustersInput) (*sdk.DescribeClustersOutput, error) {
	if len(in.Clusters) > 100 {
		return nil, invalid("Clusters can have at most 100 elements.")
	}
	names := in.Clusters
	if len(names) == 0 {
		names = []string{"default"}
	}
	out := &sdk.DescribeClustersOutput{Clusters: []types.Cluster{}, Failures: []types.Failure{}}
	err := p.read(ctx, func(st *state) error {
		for _, name := range names {
			if c := st.cluster(name); c != nil {
				out.Clusters = append(out.Clusters, c.render(in.Include))
			} else {
				out.Failures = append(out.Failures, missing(p.clusterARN(name)))
			}
		}
		return nil
	})
	return answer(out, err)
}

func (p *Plane) clusterARN(name string) string {
	if isARN(name, "cluster") {
		return name
	}
	return p.arn("cluster", name)
}

// find returns the cluster that a request names; none is "default".
func (st *state) find(name *string) (*cluster, error) {
	c := st.cluster(or(str(name), "default"))
	if c == nil {
		return nil, noCluster()
	}
	return c, nil
}

func (c *cluster) render(include []types.ClusterField) types.Cluster {
	n := c.count()
	out := types.Cluster{
		ClusterArn: ptr(c.arn), ClusterName: ptr(c.name), Status: ptr("ACTIVE"),
		ActiveServicesCount: n.services, RunningTasksCount: n.running, PendingTasksCount: n.pending,
		RegisteredContainerInstancesCount: int32(len(c.instances)),
		CapacityProviders:                 []string{}, DefaultCapacityProviderStrategy: []types.CapacityProviderStrategyItem{},
		Settings: []types.ClusterSetting{}, Statistics: []types.KeyValuePair{}, Tags: []types.Tag{},
	}
	if slices.Contains(include, types.ClusterFieldTags) {
		out.Tags = slices.Clone(c.tags)
	}
	if slices.Contains(include, types.ClusterFieldSettings) {
		out.Settings = []types.ClusterSetting{{Name: types.ClusterSettingNameContainerInsights, Value: ptr("disabled")}}
	}
	if slices.Contains(include, types.ClusterFieldStatistics) {
		out.Statistics = n.statistics()
	}
	return out
}

// tally counts what is in a cluster.
type tally struct{ services, daemons, draining, running, pending int32 }

func (c *cluster) count() tally {
	var n tally
	for _, s := range c.services {
		switch {
		case s.status == "DRAINING":
			n.draining++
		case s.status == "ACTIVE" && s.daemon():
			n.daemons++
			n.services++
		case s.status == "ACTIVE":
			n.services++
		}
	}
	for _, t := range c.tasks {
		if t.running() {
			n.running++
		} else if t.pending() {
			n.pending++
		}
	}
	return n
}

func (n tally) statistics() []types.KeyValuePair {
	var out []types.KeyValuePair
	add := func(name string, value int32) {
		out = append(out, types.KeyValuePair{Name: ptr(name), Value: ptr(strconv.Itoa(int(value)))})
	}
	add("runningEC2TasksCount", n.running)
	add("pendingEC2TasksCount", n.pending)
	add("activeEC2ServiceCount", n.services-n.daemons)
	add("drainingEC2ServiceCount", n.draining)
	add("activeDaemonServiceCount", n.daemons)
	return out
}

func ptr[T any](v T) *T { return &v }
