package ecsstatus

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"
)

// Host is a docker host: a container instance of the cluster.
type Host struct {
	ID       string `json:"id"`                // EC2 instance id, i-…
	Address  string `json:"address,omitempty"` // private IPv4; empty if it is not known
	Instance string `json:"containerInstance"` // ARN
	Zone     string `json:"zone,omitempty"`
	Status   string `json:"status"` // ACTIVE, DRAINING, REGISTERING, …
	// AgentConnected is whether ECS hears the host's agent. While it does not,
	// what is known of the host and its tasks is what was last heard.
	AgentConnected bool      `json:"agentConnected"`
	Agent          string    `json:"agentVersion,omitempty"`
	Docker         string    `json:"dockerVersion,omitempty"`
	CPU            Resource  `json:"cpu"`    // CPU units
	Memory         Resource  `json:"memory"` // MiB
	Running        int       `json:"runningTasks"`
	Pending        int       `json:"pendingTasks"`
	Registered     time.Time `json:"registeredAt,omitzero"`
}

// Resource is what of something can still be reserved, and what there is.
type Resource struct {
	Free int `json:"free"`
	Max  int `json:"max"`
}

// Used is the reserved part, 0 to 1.
func (r Resource) Used() float64 {
	if r.Max <= 0 {
		return 0
	}
	return min(1, max(0, float64(r.Max-r.Free)/float64(r.Max)))
}

// Label is what people call a host: its address, or its instance id where that
// is not known.
func (h Host) Label() string { return cmp.Or(h.Address, h.ID, ShortName(h.Instance)) }

// Hosts reads all hosts, sorted by address. The second result says why
// addresses are not known, if so: the hosts are good without them.
func (r *Reader) Hosts(ctx context.Context) (hosts []Host, unknown error, err error) {
	hosts, err = pages(ctx, r.listInstances, r.describeInstances)
	if err != nil {
		return nil, nil, r.noSuchCluster(ctx, err, "read hosts")
	}
	unknown = r.Address(ctx, hosts)
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx)
	}
	slices.SortFunc(hosts, byAddress)
	return hosts, unknown, nil
}

func (r *Reader) listInstances(ctx context.Context, token *string) ([]string, *string, error) {
	in := &ecs.ListContainerInstancesInput{Cluster: &r.Cluster, MaxResults: pointer(int32(pageSize)), NextToken: token}
	out, err := r.ECS.ListContainerInstances(ctx, in)
	if err != nil {
		return nil, nil, err
	}
	return out.ContainerInstanceArns, out.NextToken, nil
}

func (r *Reader) describeInstances(ctx context.Context, arns []string) ([]Host, error) {
	in := &ecs.DescribeContainerInstancesInput{Cluster: &r.Cluster, ContainerInstances: arns}
	out, err := r.ECS.DescribeContainerInstances(ctx, in)
	if err != nil {
		return nil, err
	}
	hosts := make([]Host, 0, len(out.ContainerInstances))
	for _, c := range out.ContainerInstances {
		hosts = append(hosts, newHost(c))
	}
	r.remember(hosts)
	return hosts, nil
}

// Address fills in the hosts' private addresses, where a Reader has an Inventory
// that knows them: one call for each 50 hosts. Its error changes nothing about
// the hosts.
//
// ECS does not know them: a container instance has neither an attribute nor an
// attachment with its address. SSM's inventory does, by instance id; hosts are
// reached through SSM anyway, so it asks for no permission that the platform
// does not have, and with the ids as a filter its pages of 50 are asked at the
// same time. The EC2 API, the other way, would be one more permission.
func (r *Reader) Address(ctx context.Context, hosts []Host) error {
	if r.Inventory == nil || len(hosts) == 0 {
		return nil
	}
	at := make(map[string]*Host, len(hosts))
	ids := make([]string, 0, len(hosts))
	for i := range hosts {
		if id := hosts[i].ID; id != "" {
			at[id] = &hosts[i]
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	found, err := pages(ctx, batches(ids, inventoryBatch), r.inventory)
	if err != nil {
		return failed(ctx, err, "read the inventory of SSM")
	}
	for _, i := range found {
		if h := at[text(i.InstanceId)]; h != nil {
			h.Address = text(i.IPAddress)
		}
	}
	return nil
}

func (r *Reader) inventory(ctx context.Context, ids []string) ([]ssmtypes.InstanceInformation, error) {
	in := &ssm.DescribeInstanceInformationInput{
		Filters:    []ssmtypes.InstanceInformationStringFilter{{Key: pointer("InstanceIds"), Values: ids}},
		MaxResults: pointer(int32(inventoryBatch)),
	}
	var found []ssmtypes.InstanceInformation
	for {
		out, err := r.Inventory.DescribeInstanceInformation(ctx, in)
		if err != nil {
			return nil, err
		}
		found = append(found, out.InstanceInformationList...)
		if in.NextToken = out.NextToken; text(in.NextToken) == "" {
			return found, nil
		}
	}
}

// TaskHosts reads the hosts of tasks, by container instance ARN, without their
// addresses unless Hosts has read them. What is known already is not asked
// again: use it for what does not change, the EC2 instance id.
func (r *Reader) TaskHosts(ctx context.Context, tasks []Task) (map[string]Host, error) {
	missing := r.unknownHosts(tasks)
	if _, err := pages(ctx, batches(missing, batchSize), r.describeInstances); err != nil {
		return nil, r.noSuchCluster(ctx, err, "describe hosts")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	hosts := map[string]Host{}
	for _, t := range tasks {
		if h, ok := r.instances[t.Instance]; ok {
			hosts[t.Instance] = h
		}
	}
	return hosts, nil
}

func (r *Reader) unknownHosts(tasks []Task) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var missing []string
	for _, t := range tasks {
		if _, known := r.instances[t.Instance]; !known && t.Instance != "" && !slices.Contains(missing, t.Instance) {
			missing = append(missing, t.Instance)
		}
	}
	return missing
}

func (r *Reader) remember(hosts []Host) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.instances == nil {
		r.instances = map[string]Host{}
	}
	for _, h := range hosts {
		r.instances[h.Instance] = h
	}
}

func newHost(c types.ContainerInstance) Host {
	h := Host{
		ID:             text(c.Ec2InstanceId),
		Instance:       text(c.ContainerInstanceArn),
		Status:         text(c.Status),
		AgentConnected: c.AgentConnected,
		CPU:            Resource{amount(c.RemainingResources, "CPU"), amount(c.RegisteredResources, "CPU")},
		Memory:         Resource{amount(c.RemainingResources, "MEMORY"), amount(c.RegisteredResources, "MEMORY")},
		Running:        int(c.RunningTasksCount),
		Pending:        int(c.PendingTasksCount),
		Registered:     moment(c.RegisteredAt),
	}
	if v := c.VersionInfo; v != nil {
		h.Agent = text(v.AgentVersion)
		h.Docker = strings.TrimPrefix(text(v.DockerVersion), "DockerVersion: ")
	}
	for _, a := range c.Attributes {
		if text(a.Name) == "ecs.availability-zone" {
			h.Zone = text(a.Value)
		}
	}
	return h
}

func amount(resources []types.Resource, name string) int {
	for _, r := range resources {
		if text(r.Name) == name {
			return int(r.IntegerValue)
		}
	}
	return 0
}

// byAddress sorts hosts by address as a number; hosts without one come last,
// by instance id.
func byAddress(a, b Host) int {
	x, errX := netip.ParseAddr(a.Address)
	y, errY := netip.ParseAddr(b.Address)
	switch {
	case errX == nil && errY == nil && x != y:
		return x.Compare(y)
	case errX == nil && errY != nil:
		return -1
	case errX != nil && errY == nil:
		return 1
	}
	return cmp.Or(strings.Compare(a.ID, b.ID), strings.Compare(a.Instance, b.Instance))
}
