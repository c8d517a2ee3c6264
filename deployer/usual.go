package deployer

import (
	"context"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

const (
	// usualOf is of how many of the last deployments the usual time is taken.
	usualOf = 5
	// usualTime is how long asking for it may take, on our clock: it is only to be shown.
	usualTime = 3 * time.Second
)

// usual is how many seconds the service's last deployments took that succeeded: the
// median, from ECS's history. Zero: there is none, or it cannot be read.
func (d *Deployer) usual(ctx context.Context) int {
	ctx, cancel := context.WithTimeout(ctx, usualTime)
	defer cancel()
	out, err := d.ecs.ListServiceDeployments(ctx, &ecs.ListServiceDeploymentsInput{Cluster: &d.cluster, Service: &d.name, MaxResults: aws.Int32(usualOf),
		Status: []types.ServiceDeploymentStatus{types.ServiceDeploymentStatusSuccessful}})
	if err != nil {
		return 0
	}
	return median(out.ServiceDeployments)
}

func median(list []types.ServiceDeploymentBrief) int {
	var took []int
	for _, s := range list {
		if s.StartedAt != nil && s.FinishedAt != nil && s.FinishedAt.After(*s.StartedAt) {
			took = append(took, int(s.FinishedAt.Sub(*s.StartedAt).Seconds()))
		}
	}
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[len(took)/2]
}
