package deployer

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/awsconfig"
)

const (
	// pastMost is how many deployments of ECS's history are shown:
	// DescribeServiceDeployments and DescribeServiceRevisions take as many at once.
	pastMost = 20
	// pastSlack is how far the times of a journal, and of the deployment that it is
	// about, may be apart: as long as the changes before it may take.
	pastSlack = 2 * changeTime
)

// past are the deployments of ECS's own history that have ended and that none of the
// entries tells of. Who began one is known if the tags of the revision that it brought
// say so.
func (d *Deployer) past(ctx context.Context, s *ecsstatus.Service, known []Entry) ([]Entry, error) {
	ended, err := d.pastDeployments(ctx, s)
	if err != nil {
		return nil, err
	}
	definitions, err := d.definitionsOf(ctx, ended)
	if err != nil {
		return nil, fmt.Errorf("describe the service revisions of %s: %w", s.Name, awsconfig.Explain(err))
	}
	marks := map[string]bool{}
	for _, k := range known {
		marks[k.Attempt] = true
	}
	var out []Entry
	for _, one := range slices.Backward(ended) { // the newest first
		if e := pastEntry(s, one, definitions); !e.toldBy(known) {
			out = append(out, d.signed(ctx, s, e, marks))
		}
	}
	return out, nil
}

func (d *Deployer) pastDeployments(ctx context.Context, s *ecsstatus.Service) ([]types.ServiceDeployment, error) {
	list, err := d.patient.ListServiceDeployments(ctx, &ecs.ListServiceDeploymentsInput{Cluster: &d.cluster, Service: &s.Name, MaxResults: aws.Int32(pastMost)})
	if err != nil {
		return nil, fmt.Errorf("list the service deployments of %s: %w", s.Name, awsconfig.Explain(err))
	}
	var arns []string
	for _, b := range list.ServiceDeployments {
		if pastState(b.Status) != "" {
			arns = append(arns, aws.ToString(b.ServiceDeploymentArn))
		}
	}
	if len(arns) == 0 {
		return nil, nil
	}
	found, err := d.patient.DescribeServiceDeployments(ctx, &ecs.DescribeServiceDeploymentsInput{ServiceDeploymentArns: arns})
	if err != nil {
		return nil, fmt.Errorf("describe the service deployments of %s: %w", s.Name, awsconfig.Explain(err))
	}
	return found.ServiceDeployments, nil
}

// pastState is the status of a service deployment that has ended, as a journal's
// state; empty for one that has not.
func pastState(status types.ServiceDeploymentStatus) State {
	switch status {
	case types.ServiceDeploymentStatusSuccessful:
		return StateDeployed
	case types.ServiceDeploymentStatusRollbackSuccessful:
		return StateRolledBack
	case types.ServiceDeploymentStatusRollbackFailed:
		return StateNotRolledBack
	case types.ServiceDeploymentStatusStopped: // as ECS does when the next one begins
		return StateSuperseded
	}
	return ""
}

// definitionsOf are the task definitions of the revisions that deployments are about, by
// the revisions' ARNs. ECS has no revisions from before 2024-10-25.
func (d *Deployer) definitionsOf(ctx context.Context, list []types.ServiceDeployment) (map[string]string, error) {
	var arns []string
	for _, one := range list {
		for _, r := range one.SourceServiceRevisions {
			arns = append(arns, aws.ToString(r.Arn))
		}
		if r := one.TargetServiceRevision; r != nil {
			arns = append(arns, aws.ToString(r.Arn))
		}
	}
	slices.Sort(arns)
	out := map[string]string{}
	for some := range slices.Chunk(slices.Compact(arns), pastMost) {
		found, err := d.patient.DescribeServiceRevisions(ctx, &ecs.DescribeServiceRevisionsInput{ServiceRevisionArns: some})
		if err != nil {
			return nil, err
		}
		for _, r := range found.ServiceRevisions {
			out[aws.ToString(r.ServiceRevisionArn)] = ecsstatus.ShortName(aws.ToString(r.TaskDefinition))
		}
	}
	return out, nil
}

func pastEntry(s *ecsstatus.Service, one types.ServiceDeployment, definitions map[string]string) Entry {
	j := Journal{ContainerType: s.Name, State: pastState(one.Status), Began: aws.ToTime(one.CreatedAt), Changed: aws.ToTime(one.UpdatedAt)}
	if r := one.TargetServiceRevision; r != nil {
		j.Definition = definitions[aws.ToString(r.Arn)]
	}
	if len(one.SourceServiceRevisions) > 0 {
		j.Before.Definition = definitions[aws.ToString(one.SourceServiceRevisions[0].Arn)]
	}
	if j.State != StateDeployed {
		j.Why = aws.ToString(one.StatusReason)
	}
	return Entry{Journal: j}
}

// toldBy reports whether one of the entries that are known tells of what is in the
// history: of the same definition, or the one that it went back to, at its time.
func (e Entry) toldBy(known []Entry) bool {
	return slices.ContainsFunc(known, func(k Entry) bool {
		then := !e.Began.Before(k.Began.Add(-time.Minute)) && (k.UnderWay || !e.Began.After(k.Changed.Add(time.Minute)))
		return then && (e.Definition == k.Definition || e.Definition == k.Back)
	})
}

// signed adds to an entry what its revision says of who registered it, if that was for
// this deployment: another one may have brought the revision again, and another tool
// may have copied the tags of one whose mark has been seen. What cannot be read is missing.
func (d *Deployer) signed(ctx context.Context, s *ecsstatus.Service, e Entry, marks map[string]bool) Entry {
	if e.Definition == "" {
		return e
	}
	def, tags, err := d.definition(ctx, definitionARN(s, e.Definition))
	if err != nil {
		return e
	}
	if len(def.ContainerDefinitions) == 1 {
		e.Image = aws.ToString(def.ContainerDefinitions[0].Image)
	}
	j := signature(tags)
	if after := e.Began.Sub(j.Began); j.By != "" && !marks[j.Attempt] && after > -time.Minute && after < pastSlack {
		e.Attempt, e.By, e.Host, e.Reason = j.Attempt, j.By, j.Host, j.Reason
	}
	marks[j.Attempt] = true
	return e
}

// signature is who registered a revision, and why, by its tags.
func signature(tags []types.Tag) (j Journal) {
	for _, t := range tags {
		switch aws.ToString(t.Key) {
		case tagAttempt:
			j.Attempt = aws.ToString(t.Value)
		case tagBy:
			j.by(aws.ToString(t.Value))
		case tagReason:
			j.Reason = aws.ToString(t.Value)
		}
	}
	return j
}
