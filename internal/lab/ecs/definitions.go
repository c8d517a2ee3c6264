package ecs

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// RegisterTaskDefinition adds a revision to a family.
func (p *Plane) RegisterTaskDefinition(_ context.Context, in *sdk.RegisterTaskDefinitionInput) (*sdk.RegisterTaskDefinitionOutput, error) {
	if err := checkDefinition(in); err != nil {
		return nil, err
	}
	out := &sdk.RegisterTaskDefinitionOutput{}
	err := errClosed
	p.mutate(func() {
		err = nil
		d := p.register(in)
		out.TaskDefinition, out.Tags = ptr(d.td), slices.Clone(d.tags)
	})
	return answer(out, err)
}

var errClosed = refuse("ServerException", "the lab is closed")

// register adds what was checked.
func (p *Plane) register(in *sdk.RegisterTaskDefinitionInput) *definition {
	name := str(in.Family)
	f := p.state.families[name]
	if f == nil {
		f = &family{name: name}
		p.state.families[name] = f
	}
	revision := len(f.definitions) + 1
	d := &definition{seq: p.nextSeq(), tags: slices.Clone(in.Tags), td: types.TaskDefinition{
		TaskDefinitionArn: ptr(p.definitionARN(name, revision)), Family: ptr(name), Revision: int32(revision),
		Status: types.TaskDefinitionStatusActive, RegisteredAt: when(p.now()), RegisteredBy: ptr("arn:aws:iam::" + p.account + ":user/lab"),
		ContainerDefinitions: containerDefaults(in), Cpu: in.Cpu, Memory: in.Memory, EnableFaultInjection: in.EnableFaultInjection,
		EphemeralStorage: in.EphemeralStorage, ExecutionRoleArn: in.ExecutionRoleArn,
		IpcMode: in.IpcMode, NetworkMode: in.NetworkMode, PidMode: in.PidMode, PlacementConstraints: orEmpty(in.PlacementConstraints),
		ProxyConfiguration: in.ProxyConfiguration, RequiresCompatibilities: in.RequiresCompatibilities, RuntimePlatform: in.RuntimePlatform,
		TaskRoleArn: in.TaskRoleArn, Volumes: orEmpty(in.Volumes),
		Compatibilities: compatibilities(in), RequiresAttributes: requiredAttributes(in),
	}}
	//lint:ignore SA1019 AWS still gives it back to those who have it
	d.td.InferenceAccelerators = in.InferenceAccelerators
	f.definitions = append(f.definitions, d)
	return d
}

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// containerDefaults are the container definitions as AWS gives them back, with
// what was left out.
func containerDefaults(in *sdk.RegisterTaskDefinitionInput) []types.ContainerDefinition {
	out := slices.Clone(in.ContainerDefinitions)
	for i := range out {
		c := &out[i]
		c.Environment, c.MountPoints = orEmpty(c.Environment), orEmpty(c.MountPoints)
		c.VolumesFrom, c.SystemControls = orEmpty(c.VolumesFrom), orEmpty(c.SystemControls)
		if c.Essential == nil {
			c.Essential = ptr(true)
		}
		c.PortMappings = slices.Clone(orEmpty(c.PortMappings))
		for j := range c.PortMappings {
			portDefaults(&c.PortMappings[j], in.NetworkMode)
		}
		c.HealthCheck = healthDefaults(c.HealthCheck)
	}
	return out
}

func portDefaults(m *types.PortMapping, mode types.NetworkMode) {
	if m.Protocol == "" {
		m.Protocol = types.TransportProtocolTcp
	}
	if m.HostPort != nil || m.ContainerPort == nil {
		return
	}
	m.HostPort = ptr(int32(0))
	if mode == types.NetworkModeAwsvpc || mode == types.NetworkModeHost {
		m.HostPort = m.ContainerPort
	}
}

func healthDefaults(h *types.HealthCheck) *types.HealthCheck {
	if h == nil {
		return nil
	}
	full := *h
	fill := func(p **int32, n int32) {
		if *p == nil {
			*p = &n
		}
	}
	fill(&full.Interval, 30)
	fill(&full.Timeout, 5)
	fill(&full.Retries, 3)
	return &full
}

func compatibilities(in *sdk.RegisterTaskDefinitionInput) []types.Compatibility {
	out := []types.Compatibility{types.CompatibilityExternal, types.CompatibilityEc2}
	if in.NetworkMode == types.NetworkModeAwsvpc {
		out = []types.Compatibility{types.CompatibilityEc2}
	}
	if in.NetworkMode == types.NetworkModeAwsvpc && in.Cpu != nil && in.Memory != nil {
		out = append(out, types.CompatibilityFargate)
	}
	return out
}

// requiredAttributes are the agent's capabilities that AWS derives from a definition.
func requiredAttributes(in *sdk.RegisterTaskDefinitionInput) []types.Attribute {
	names := map[string]bool{}
	for _, c := range in.ContainerDefinitions {
		if strings.Contains(str(c.Image), ".dkr.ecr.") {
			names["com.amazonaws.ecs.capability.ecr-auth"] = true
		}
		if c.HealthCheck != nil {
			names["ecs.capability.container-health-check"] = true
			names["com.amazonaws.ecs.capability.docker-remote-api.1.24"] = true
		}
		if c.LogConfiguration != nil {
			names["com.amazonaws.ecs.capability.logging-driver."+string(c.LogConfiguration.LogDriver)] = true
		}
		if c.Privileged != nil && *c.Privileged {
			names["com.amazonaws.ecs.capability.privileged-container"] = true
		}
		if len(c.DependsOn) > 0 {
			names["ecs.capability.container-ordering"] = true
		}
	}
	if in.NetworkMode == types.NetworkModeAwsvpc {
		names["ecs.capability.task-eni"] = true
	}
	if in.TaskRoleArn != nil {
		names["com.amazonaws.ecs.capability.task-iam-role"] = true
	}
	names["com.amazonaws.ecs.capability.docker-remote-api.1.18"] = true
	out := []types.Attribute{}
	for _, name := range sortedKeys(names) {
		out = append(out, types.Attribute{Name: ptr(name)})
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

var (
	familyPattern    = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)
	containerPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)
)

// checkDefinition refuses what AWS refuses.
func checkDefinition(in *sdk.RegisterTaskDefinitionInput) error {
	if !familyPattern.MatchString(str(in.Family)) {
		return clientError("Invalid family name. Up to 255 letters (uppercase and lowercase), numbers, hyphens, and underscores are allowed.")
	}
	if len(in.ContainerDefinitions) == 0 {
		return clientError("Container definitions must not be empty.")
	}
	if len(in.ContainerDefinitions) > 10 {
		return clientError("Too many container definitions.")
	}
	if err := checkTags(in.Tags, "Tags can not be empty."); err != nil {
		return err
	}
	if err := checkTaskSize(in); err != nil {
		return err
	}
	return checkContainers(in)
}

// checkTags refuses an empty list, more than 50 tags, and keys of AWS's own. A
// nil list is no list.
func checkTags(tags []types.Tag, empty string) error {
	if tags != nil && len(tags) == 0 {
		return invalid(empty)
	}
	if len(tags) > 50 {
		return invalid("Too many tags: 50 are allowed per resource.")
	}
	keys := map[string]bool{}
	for _, t := range tags {
		if err := checkTag(t); err != nil {
			return err
		}
		if keys[str(t.Key)] {
			return invalid("Duplicate tag keys found. Please note that Tag keys are case sensitive.")
		}
		keys[str(t.Key)] = true
	}
	return nil
}

func checkTag(t types.Tag) error {
	key := str(t.Key)
	switch {
	case key == "" || len([]rune(key)) > 128:
		return invalid("Tag keys must have between 1 and 128 characters.")
	case len([]rune(str(t.Value))) > 256:
		return invalid("Tag values can have at most 256 characters.")
	case isAWS(key), isAWS(str(t.Value)):
		return invalid("Some tags contain invalid values. The aws: prefix is reserved for AWS use.")
	case !tagPattern.MatchString(key) || !tagPattern.MatchString(str(t.Value)):
		return invalid("Some tags contain invalid characters. Valid characters: UTF-8 letters, spaces, numbers and _ . / = + - : @")
	}
	return nil
}

// isAWS reports whether a tag's key or value begins as only AWS's own may, in any
// case (developer guide, "Tag restrictions").
func isAWS(s string) bool { return strings.HasPrefix(strings.ToLower(s), "aws:") }

var tagPattern = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$`)

func checkTaskSize(in *sdk.RegisterTaskDefinitionInput) error {
	for _, size := range []struct {
		name  string
		value *string
	}{{"cpu", in.Cpu}, {"memory", in.Memory}} {
		if size.value == nil {
			continue
		}
		if n, err := strconv.Atoi(*size.value); err != nil || n <= 0 {
			return clientError(fmt.Sprintf("Invalid '%s' setting for task.", size.name))
		}
	}
	return nil
}

func checkContainers(in *sdk.RegisterTaskDefinitionInput) error {
	names := map[string]bool{}
	essential := false
	for _, c := range in.ContainerDefinitions {
		if err := checkContainer(c, in); err != nil {
			return err
		}
		if names[*c.Name] {
			return clientError(fmt.Sprintf("Container name %s is already used.", *c.Name))
		}
		names[*c.Name] = true
		essential = essential || c.Essential == nil || *c.Essential
	}
	if !essential {
		return clientError("At least one container in the task definition must be marked as essential.")
	}
	return checkHostPorts(in)
}

func checkContainer(c types.ContainerDefinition, in *sdk.RegisterTaskDefinitionInput) error {
	if !containerPattern.MatchString(str(c.Name)) {
		return clientError("Container.name should not be null or empty.")
	}
	if err := checkImage(str(c.Image)); err != nil {
		return err
	}
	if err := checkMemory(c, in); err != nil {
		return err
	}
	return checkPorts(c, in.NetworkMode)
}

// imagePattern is what AWS takes for an image: "up to 255 letters (uppercase and
// lowercase), numbers, hyphens, underscores, colons, periods, forward slashes, and
// number signs" (doc comment of ContainerDefinition.Image), and the @ of a digest,
// which the same comment shows.
var imagePattern = regexp.MustCompile(`^[A-Za-z0-9_:./#@-]+$`)

func checkImage(image string) error {
	switch {
	case image == "":
		return clientError("Container.image should not be null or empty.")
	case len(image) > 255:
		return clientError("Container.image should be 255 characters or less.")
	case !imagePattern.MatchString(image):
		return clientError("Container.image contains invalid characters.")
	}
	return nil
}

func checkMemory(c types.ContainerDefinition, in *sdk.RegisterTaskDefinitionInput) error {
	switch {
	case c.Memory == nil && c.MemoryReservation == nil && in.Memory == nil:
		return clientError(fmt.Sprintf("Invalid setting for container '%s'. At least one of 'memory' or 'memoryReservation' must be specified.", *c.Name))
	case c.Memory != nil && *c.Memory < 6:
		return clientError(fmt.Sprintf("Invalid setting for container '%s'. 'memory' must be at least 6.", *c.Name))
	case c.Memory != nil && c.MemoryReservation != nil && *c.MemoryReservation > *c.Memory:
		return clientError(fmt.Sprintf("Invalid setting for container '%s'. 'memory' must be greater than 'memoryReservation'.", *c.Name))
	case c.Cpu < 0:
		return clientError(fmt.Sprintf("Invalid setting for container '%s'. 'cpu' must not be negative.", *c.Name))
	}
	return nil
}

func checkPorts(c types.ContainerDefinition, mode types.NetworkMode) error {
	for _, m := range c.PortMappings {
		if m.ContainerPort == nil && m.ContainerPortRange == nil {
			return clientError("Container port must be specified.")
		}
		host, inside := value(m.HostPort), value(m.ContainerPort)
		if host < 0 || host > 65535 || inside < 0 || inside > 65535 {
			return clientError("Invalid port: it must be between 0 and 65535.")
		}
		if mode == types.NetworkModeAwsvpc && host != 0 && host != inside {
			return clientError("When networkMode=awsvpc, the host ports and container ports in port mappings must match.")
		}
	}
	return nil
}

func checkHostPorts(in *sdk.RegisterTaskDefinitionInput) error {
	taken := map[string]bool{}
	for _, c := range in.ContainerDefinitions {
		for _, m := range c.PortMappings {
			key := fmt.Sprintf("%d/%s", value(m.HostPort), or(string(m.Protocol), "tcp"))
			if value(m.HostPort) == 0 {
				continue
			}
			if taken[key] {
				return clientError(fmt.Sprintf("Host port %d is used by more than one container.", *m.HostPort))
			}
			taken[key] = true
		}
	}
	return nil
}

// value is the number behind n; nil is zero.
func value[N int32 | int64 | int](n *N) int {
	if n == nil {
		return 0
	}
	return int(*n)
}

// definition finds a task definition by family, family:revision or ARN. A family
// alone means its newest active revision.
func (st *state) definition(name string) *definition {
	if _, after, ok := strings.Cut(name, ":task-definition/"); ok {
		name = after
	}
	base, number, pinned := strings.Cut(name, ":")
	f := st.families[base]
	if f == nil {
		return nil
	}
	if !pinned {
		return f.newest()
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || n > len(f.definitions) {
		return nil
	}
	return f.definitions[n-1]
}

func (f *family) newest() *definition {
	for _, d := range slices.Backward(f.definitions) {
		if d.td.Status == types.TaskDefinitionStatusActive {
			return d
		}
	}
	return nil
}

func (f *family) active() bool { return f.newest() != nil }

// use finds a definition that tasks may be started from.
func (st *state) use(name string) (*definition, error) {
	d := st.definition(name)
	if d == nil {
		return nil, clientError("TaskDefinition not found.")
	}
	if d.td.Status != types.TaskDefinitionStatusActive {
		return nil, clientError("TaskDefinition is inactive.")
	}
	return d, nil
}

// DescribeTaskDefinition describes one revision; its tags are left out unless asked for.
func (p *Plane) DescribeTaskDefinition(ctx context.Context, in *sdk.DescribeTaskDefinitionInput) (*sdk.DescribeTaskDefinitionOutput, error) {
	out := &sdk.DescribeTaskDefinitionOutput{}
	err := p.read(ctx, func(st *state) error {
		d := st.definition(str(in.TaskDefinition))
		if d == nil {
			return clientError("Unable to describe task definition.")
		}
		out.TaskDefinition = ptr(d.td)
		if slices.Contains(in.Include, types.TaskDefinitionFieldTags) {
			out.Tags = slices.Clone(orEmpty(d.tags))
		}
		return nil
	})
	return answer(out, err)
}

// DeregisterTaskDefinition makes a revision INACTIVE. Its name must be complete.
func (p *Plane) DeregisterTaskDefinition(_ context.Context, in *sdk.DeregisterTaskDefinitionInput) (*sdk.DeregisterTaskDefinitionOutput, error) {
	out := &sdk.DeregisterTaskDefinitionOutput{}
	err := errClosed
	p.mutate(func() {
		var d *definition
		if d, err = p.deregister(str(in.TaskDefinition)); err == nil {
			out.TaskDefinition = ptr(d.td)
		}
	})
	return answer(out, err)
}

func (p *Plane) deregister(name string) (*definition, error) {
	if !strings.Contains(lastPart(name), ":") {
		return nil, clientError("Task definition revision must be specified.")
	}
	d := p.state.definition(name)
	if d == nil || d.td.Status == types.TaskDefinitionStatusDeleteInProgress {
		return nil, clientError("The specified task definition does not exist.")
	}
	if d.td.Status == types.TaskDefinitionStatusActive {
		d.td.Status = types.TaskDefinitionStatusInactive
		d.td.DeregisteredAt = when(p.now())
	}
	return d, nil
}

// DeleteTaskDefinitions deletes up to ten INACTIVE revisions. AWS takes them
// away when nothing uses them any more; the lab leaves them DELETE_IN_PROGRESS.
func (p *Plane) DeleteTaskDefinitions(_ context.Context, in *sdk.DeleteTaskDefinitionsInput) (*sdk.DeleteTaskDefinitionsOutput, error) {
	if len(in.TaskDefinitions) == 0 || len(in.TaskDefinitions) > 10 {
		return nil, invalid("Task definitions must have between 1 and 10 elements.")
	}
	out := &sdk.DeleteTaskDefinitionsOutput{TaskDefinitions: []types.TaskDefinition{}, Failures: []types.Failure{}}
	err := errClosed
	p.mutate(func() {
		err = nil
		for _, name := range in.TaskDefinitions {
			if d, failure := p.deleteDefinition(name); failure != nil {
				out.Failures = append(out.Failures, *failure)
			} else {
				out.TaskDefinitions = append(out.TaskDefinitions, d.td)
			}
		}
	})
	return answer(out, err)
}

func (p *Plane) deleteDefinition(name string) (*definition, *types.Failure) {
	failure := func(reason string) *types.Failure { return &types.Failure{Arn: ptr(name), Reason: ptr(reason)} }
	d := p.state.definition(name)
	if d == nil || !strings.Contains(lastPart(name), ":") {
		return nil, failure("The specified task definition does not exist. Specify a valid account, family, revision and try again.")
	}
	if d.td.Status == types.TaskDefinitionStatusActive {
		return nil, failure("The specified task definition is still in ACTIVE status. Please deregister the target and try again.")
	}
	d.td.Status = types.TaskDefinitionStatusDeleteInProgress
	d.td.DeleteRequestedAt = when(p.now())
	return d, nil
}

// ListTaskDefinitions lists revisions, by family and revision. The prefix is
// the whole name of a family.
func (p *Plane) ListTaskDefinitions(ctx context.Context, in *sdk.ListTaskDefinitionsInput) (*sdk.ListTaskDefinitionsOutput, error) {
	out := &sdk.ListTaskDefinitionsOutput{}
	status := types.TaskDefinitionStatus(or(string(in.Status), string(types.TaskDefinitionStatusActive)))
	err := p.read(ctx, func(st *state) (err error) {
		var arns []string
		for _, name := range sortedKeys(st.families) {
			if in.FamilyPrefix == nil || name == *in.FamilyPrefix {
				arns = append(arns, st.families[name].arns(status)...)
			}
		}
		if in.Sort == types.SortOrderDesc {
			slices.Reverse(arns)
		}
		query := strings.Join([]string{"ListTaskDefinitions", str(in.FamilyPrefix), string(status), string(in.Sort)}, "|")
		out.TaskDefinitionArns, out.NextToken, err = page{query: query, token: in.NextToken, max: in.MaxResults, size: 100}.cut(numbered(arns))
		return err
	})
	return answer(out, err)
}

func (f *family) arns(status types.TaskDefinitionStatus) []string {
	var arns []string
	for _, d := range f.definitions {
		if d.td.Status == status {
			arns = append(arns, *d.td.TaskDefinitionArn)
		}
	}
	return arns
}

// ListTaskDefinitionFamilies lists families; without a status, also ones that
// have no active revision any more.
func (p *Plane) ListTaskDefinitionFamilies(ctx context.Context, in *sdk.ListTaskDefinitionFamiliesInput) (*sdk.ListTaskDefinitionFamiliesOutput, error) {
	out := &sdk.ListTaskDefinitionFamiliesOutput{}
	err := p.read(ctx, func(st *state) (err error) {
		var names []string
		for _, name := range sortedKeys(st.families) {
			if strings.HasPrefix(name, str(in.FamilyPrefix)) && st.families[name].is(in.Status) {
				names = append(names, name)
			}
		}
		query := strings.Join([]string{"ListTaskDefinitionFamilies", str(in.FamilyPrefix), string(in.Status)}, "|")
		out.Families, out.NextToken, err = page{query: query, token: in.NextToken, max: in.MaxResults, size: 100}.cut(numbered(names))
		return err
	})
	return answer(out, err)
}

func (f *family) is(status types.TaskDefinitionFamilyStatus) bool {
	switch status {
	case types.TaskDefinitionFamilyStatusActive:
		return f.active()
	case types.TaskDefinitionFamilyStatusInactive:
		return !f.active()
	}
	return true
}
