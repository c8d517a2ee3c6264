package main

import (
	"context"
	"maps"
	"slices"

	"jumpsuite/internal/awsconfig"
	"jumpsuite/internal/cli"
	"jumpsuite/internal/ecrlogin"
	"jumpsuite/policy"
)

// places are the registries that may be asked for, each with the URL that ECR
// answers on for it; empty: AWS's own.
type places map[ecrlogin.Registry]string

func registries(p places) []ecrlogin.Registry { return slices.Collect(maps.Keys(p)) }

// places is what the command line or the policy allows.
func (o options) places(ctx context.Context) (places, error) {
	if len(o.accounts) > 0 {
		return o.given(ctx)
	}
	p, err := policy.Load(o.policy)
	if err != nil {
		return nil, err
	}
	all, err := o.environments(p)
	if err != nil {
		return nil, err
	}
	found := places{}
	for _, e := range all {
		if e.Account == "" {
			continue
		}
		if err := o.add(ctx, found, e.Account, e.Region, e.Endpoint); err != nil {
			return nil, err
		}
	}
	if len(found) == 0 {
		return nil, cli.Errorf(cli.ExitConfig, "write 'account:' into its environments, or give --account",
			"the policy %s does not say which AWS account's registry people may pull from", o.policy)
	}
	return found, nil
}

func (o options) environments(p *policy.Policy) ([]policy.Environment, error) {
	if o.environment == "" {
		return p.Environments(), nil
	}
	e, ok := p.Environment(o.environment)
	if !ok {
		return nil, cli.Errorf(cli.ExitConfig, "add it to the file, or correct --environment",
			"the policy %s has no environment %q", o.policy, o.environment)
	}
	return []policy.Environment{e}, nil
}

func (o options) given(ctx context.Context) (places, error) {
	regions := o.regions
	if len(regions) == 0 {
		regions = []string{""}
	}
	found := places{}
	for _, account := range o.accounts {
		for _, region := range regions {
			if err := o.add(ctx, found, account, region, ""); err != nil {
				return nil, err
			}
		}
	}
	return found, nil
}

// add checks a registry and adds it. An empty region is that of this machine.
func (o options) add(ctx context.Context, found places, account, region, endpoint string) error {
	if region == "" {
		cfg, err := awsconfig.Load(ctx, awsconfig.Options{Name: "r3-ecr"})
		if err != nil {
			return err
		}
		region = cfg.Region
	}
	r := ecrlogin.Registry{Account: account, Region: region}
	if !r.Valid() {
		return cli.Errorf(cli.ExitConfig, "an account has 12 digits, a region is written eu-central-1",
			"account %q in region %q is no registry of Amazon ECR", account, region)
	}
	if o.endpoint != "" {
		endpoint = o.endpoint
	}
	found[r] = endpoint
	return nil
}
