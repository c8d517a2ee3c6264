package access

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"jumpsuite/internal/audit"
	"jumpsuite/internal/awsconfig"
	"jumpsuite/internal/caller"
	"jumpsuite/internal/cli"
	"jumpsuite/policy"
)

// sudo opens for a caller who came through sudo, with the machine's credentials.
func (o Options) sudo(ctx context.Context, who *caller.Caller) (*Access, error) {
	if err := o.onlyPolicyDecides(); err != nil {
		return nil, err
	}
	p, err := policy.Load(o.PolicyPath)
	if err != nil {
		return nil, err
	}
	if err := deniedGroupsExist(ctx, p); err != nil {
		return nil, err
	}
	log, err := audit.OpenLog(audit.Options{Path: o.LogPath, Journal: o.Journal})
	if err != nil {
		return nil, err
	}
	a := &Access{Caller: who, Log: log, policy: p, reason: o.Reason}
	if err := a.enter(ctx, o); err != nil {
		a.Close()
		return nil, err
	}
	return a, nil
}

// enter finds the environment that is meant, and the way to AWS there.
func (a *Access) enter(ctx context.Context, o Options) error {
	env, err := o.pick(a.policy, a.Caller)
	if err != nil {
		return a.refuse(o.Action, err)
	}
	a.Cluster, a.Environment = env.Cluster, env.Name
	a.Config, err = awsconfig.Load(ctx, awsconfig.Options{Region: env.Region, Endpoint: env.Endpoint, Sudo: true, Name: o.Command})
	return err
}

// onlyPolicyDecides refuses what would send the machine's credentials, or the
// question, somewhere else.
func (o Options) onlyPolicyDecides() error {
	const hint = "with sudo, region and endpoint are those of the environment in the policy file; without sudo the option is yours to use"
	if o.Region != "" {
		return cli.Usage(hint, "option --region is not available with sudo")
	}
	if o.Endpoint != "" {
		return cli.Usage(hint, "option --endpoint-url is not available with sudo")
	}
	return nil
}

// deniedGroupsExist makes sure that a rule that denies a group can match at all.
func deniedGroupsExist(ctx context.Context, p *policy.Policy) error {
	for _, g := range p.DeniedGroups() {
		if err := caller.GroupExists(ctx, g); err != nil {
			return cli.Errorf(cli.ExitConfig, "nothing is allowed until it can: correct the rule, or the directory service",
				"the policy denies something to group %s, which cannot be resolved: %w", g, err)
		}
	}
	return nil
}

// pick finds the one environment that is meant, among those in which the policy
// allows the action to the caller.
func (o Options) pick(p *policy.Policy, who *caller.Caller) (policy.Environment, error) {
	candidates, err := o.candidates(p)
	if err != nil {
		return policy.Environment{}, err
	}
	var allowed []policy.Environment
	var refusal error
	for _, e := range candidates {
		if err := anywhere(p, who, e.Name, o.Action); err != nil {
			refusal = err
			continue
		}
		allowed = append(allowed, e)
	}
	switch len(allowed) {
	case 0:
		return policy.Environment{}, refusal
	case 1:
		return allowed[0], nil
	}
	return policy.Environment{}, cli.Usage("environments: "+strings.Join(names(allowed), ", "),
		"%s is allowed to you in %d environments: say which, with --environment", o.Action, len(allowed))
}

// candidates are the environments that --environment and --cluster leave over.
func (o Options) candidates(p *policy.Policy) ([]policy.Environment, error) {
	list := slices.Clone(p.Environments())
	if o.Environment != "" {
		e, err := named(list, o.Environment)
		if err != nil {
			return nil, notAmong("environment", o.Environment)
		}
		list = []policy.Environment{e}
	}
	if o.Cluster != "" {
		list = slices.DeleteFunc(list, func(e policy.Environment) bool { return e.Cluster != o.Cluster })
		if len(list) == 0 {
			return nil, notAmong("cluster", o.Cluster)
		}
	}
	return list, nil
}

// notAmong refuses a name. It does not list those that there are: the caller
// may not know of all.
func notAmong(kind, name string) error {
	return &DeniedError{Rule: "default", Text: fmt.Sprintf("%s %q is not in the policy (rule default)", kind, name),
		Next: "leave the option out to get the one that is allowed to you"}
}

// anywhere reports whether the caller may do the action to anything at all in
// an environment: which thing is asked for is decided later, by Allow.
func anywhere(p *policy.Policy, who *caller.Caller, env, action string) error {
	a, err := parse(action)
	if err != nil {
		return err
	}
	d := p.Possible(policy.Request{Principal: principal(who), Environment: env, Action: a})
	return denied(d, who, env, action, policy.Resource{})
}

// decide returns the rule that decided, and nil if it allows.
func decide(p *policy.Policy, who *caller.Caller, env, action string, r policy.Resource, reason string) (rule string, err error) {
	a, err := parse(action)
	if err != nil {
		return "", err
	}
	if !serviceName.MatchString(r.ContainerType) {
		return "default", misnamed(env, r.ContainerType)
	}
	d := p.Decide(policy.Request{Principal: principal(who), Environment: env, Action: a, Resource: r, Reason: reason})
	return d.Rule(), denied(d, who, env, action, r)
}

// serviceName is what ECS takes for the name of a service.
var serviceName = regexp.MustCompile(`^[A-Za-z0-9_-]*$`)

// misnamed refuses a container type that is not called by its name: ECS takes
// an ARN as well, and no rule that denies would know who is meant by it.
func misnamed(env, containerType string) error {
	return &DeniedError{Environment: env, Rule: "default", Next: "with sudo, name it as list --container-types does",
		Text: fmt.Sprintf("%q is no name of a container type (rule default)", containerType)}
}

func parse(action string) (policy.Action, error) {
	a, ok := policy.ParseAction(action)
	if !ok {
		return a, fmt.Errorf("ask the policy for %q: no such action", action)
	}
	return a, nil
}

func principal(who *caller.Caller) policy.Principal {
	return policy.Principal{User: who.Name, Groups: who.Groups}
}

// denied is nil for a decision that allows.
func denied(d policy.Decision, who *caller.Caller, env, action string, r policy.Resource) error {
	if d.Allowed() {
		return nil
	}
	return &DeniedError{Environment: env, Rule: d.Rule(),
		Text: fmt.Sprintf("%s is not allowed to %s in %s (rule %s): %s", action, who.Name, env, d.Rule(), d.Reason()),
		Next: fmt.Sprintf("ask an administrator: r3-admin policy explain --user %s --env %s %s", who.Name, env, typed(action, r))}
}

// typed is a request as r3-admin policy explain takes it.
func typed(action string, r policy.Resource) string {
	words := strings.ReplaceAll(action, ".", " ")
	if action == policy.DockerRun.String() {
		return words + " " + first(r.Image, "IMAGE")
	}
	if r.ContainerType != "" {
		words += " --container-type " + r.ContainerType
	}
	if r.Image != "" {
		words += " --image-url " + r.Image
	}
	return words
}
