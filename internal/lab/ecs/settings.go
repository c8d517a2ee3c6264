package ecs

import (
	"context"
	"slices"

	sdk "github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// effective are the account settings that differ from what very old accounts have.
var effective = [][2]string{
	{"awsvpcTrunking", "disabled"}, {"containerInsights", "disabled"}, {"containerInstanceLongArnFormat", "enabled"},
	{"defaultLogDriverMode", "non-blocking"}, {"serviceLongArnFormat", "enabled"}, {"tagResourceAuthorization", "on"}, {"taskLongArnFormat", "enabled"},
}

// ListAccountSettings lists the settings in effect: nobody has changed any.
func (p *Plane) ListAccountSettings(_ context.Context, in *sdk.ListAccountSettingsInput) (*sdk.ListAccountSettingsOutput, error) {
	if in.MaxResults < 0 || in.MaxResults > 10 && in.EffectiveSettings {
		return nil, invalid("maxResults must be between 1 and 10")
	}
	out := &sdk.ListAccountSettingsOutput{Settings: []types.Setting{}}
	if !in.EffectiveSettings {
		return out, nil
	}
	for _, s := range effective {
		if in.Name != "" && string(in.Name) != s[0] || in.Value != nil && *in.Value != s[1] {
			continue
		}
		out.Settings = append(out.Settings, types.Setting{Name: types.SettingName(s[0]), Value: ptr(s[1]), PrincipalArn: ptr("arn:aws:iam::" + p.account + ":root")})
	}
	return out, nil
}

// DescribeCapacityProviders describes AWS's own two; the lab's hosts belong to none.
func (p *Plane) DescribeCapacityProviders(_ context.Context, in *sdk.DescribeCapacityProvidersInput) (*sdk.DescribeCapacityProvidersOutput, error) {
	if len(in.CapacityProviders) > 100 {
		return nil, invalid("Capacity providers can have at most 100 elements.")
	}
	out := &sdk.DescribeCapacityProvidersOutput{CapacityProviders: []types.CapacityProvider{}, Failures: []types.Failure{}}
	known := []string{"FARGATE", "FARGATE_SPOT"}
	names := in.CapacityProviders
	if len(names) == 0 {
		names = known
	}
	for _, name := range names {
		arn := p.arn("capacity-provider", lastPart(name))
		if !slices.Contains(known, lastPart(name)) {
			out.Failures = append(out.Failures, missing(arn))
			continue
		}
		out.CapacityProviders = append(out.CapacityProviders, types.CapacityProvider{
			CapacityProviderArn: ptr(arn), Name: ptr(lastPart(name)), Status: types.CapacityProviderStatusActive, Tags: []types.Tag{}})
	}
	return out, nil
}

// ExecuteCommand is refused: no task has the execute command agent. The texts
// are AWS's for a task that was started without it, and for one whose agent does not run.
func (p *Plane) ExecuteCommand(ctx context.Context, in *sdk.ExecuteCommandInput) (*sdk.ExecuteCommandOutput, error) {
	err := p.read(ctx, func(st *state) error {
		c, err := st.find(in.Cluster)
		if err != nil {
			return err
		}
		t := c.task(str(in.Task))
		switch {
		case t == nil:
			return invalid("The referenced task was not found.")
		case in.Container != nil && t.container(*in.Container) == nil:
			return invalid("The referenced container was not found in the task.")
		case !t.exec:
			return invalid("The execute command failed because execute command was not enabled when the task was run or the execute command agent isn’t running. Wait and try again or run a new task with execute command enabled and try again.")
		}
		return refuse("TargetNotConnectedException", "The execute command failed due to an internal error. Try again later.")
	})
	return nil, err
}
