// Package ssm is the lab's AWS Systems Manager: its inventory says which hosts
// can be reached through it, and its sessions carry bytes to their ports.
//
// A session has a client's and an agent's websocket, and the relay between them
// passes frames on as they are. What the client sends while the agent's
// is away is lost, and the other way round; who is there is told that the other is
// away. The link of a world (world.Link) makes it worse. The wire format is the real one.
package ssm

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	api "github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"jumpsuite/internal/lab/clock"
	"jumpsuite/internal/lab/wire"
	"jumpsuite/internal/lab/world"
)

// Limits of MaxResults (SSM API reference, DescribeInstanceInformation).
const (
	pageSize  = 10
	pageLeast = 5
	pageMost  = 50
)

// pings is how often an agent tells that it is there, in lab time.
const pings = 5 * time.Minute

// agentVersion is the version that all agents have.
const agentVersion = "3.3.987.0"

// Config says whose inventory it is, and how sessions reach hosts.
type Config struct {
	World *world.World
	Clock *clock.Clock
	// Service is the URL that agents and clients reach the data channels under.
	Service func() string
	// Verify checks the signature of a request for a service.
	Verify func(r *http.Request, body []byte, service string) error
	// Key and Secret are what the lab's agents sign with.
	Key, Secret string
	// Opened is told of each data channel that a client opens, and may refuse it. Nil allows.
	Opened func(r *http.Request, session string) error
	// Worker and State are as in lab.Config.
	Worker, State string
	Log           *slog.Logger // nil discards
}

// SSM is the inventory of a world's hosts, and the sessions to them.
type SSM struct {
	Config
	clock   *clock.Clock
	started time.Time
	ctx     context.Context // until Close
	cancel  context.CancelFunc
	work    sync.WaitGroup

	mu       sync.Mutex
	hosts    []*host
	sessions map[string]*session
	chance   *rand.Rand // of ids and of links; under mu
	agents   map[string]*control
	tokens   map[string]string // for control channels, not used yet: whose

	parameters parameters
}

type host struct {
	world.Host
	cluster string
	lost    time.Time // when the connection was lost; zero is Online
	ports   map[int]string

	real    bool      // a real agent has been there
	version string    // its version
	pinged  time.Time // when its control channel was opened, or closed
	said    UpdateInstanceInformationInput
}

// New makes the inventory of a world that is complete. Close ends its sessions.
func New(c Config) *SSM {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &SSM{Config: c, clock: c.Clock, started: c.Clock.Now(), sessions: map[string]*session{}, agents: map[string]*control{}, tokens: map[string]string{},
		chance: rand.New(rand.NewPCG(uint64(c.World.Seed), 1))}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for _, cluster := range c.World.Clusters {
		for _, h := range cluster.Hosts {
			entry := &host{Host: h, cluster: cluster.Name, ports: maps.Clone(h.Forward)}
			if entry.ports == nil {
				entry.ports = map[int]string{}
			}
			if h.Offline || h.Lost {
				entry.lost = s.started.Add(-time.Hour)
			}
			s.hosts = append(s.hosts, entry)
		}
	}
	return s
}

// Close ends all sessions, and waits for their agents.
func (s *SSM) Close() {
	s.cancel()
	s.work.Wait()
}

// Lose ends the connection of the hosts with that address, instance id or cluster.
func (s *SSM) Lose(name string) { s.set(name, s.clock.Now()) }

// Back connects them again, but for those that were never reachable.
func (s *SSM) Back(name string) { s.set(name, time.Time{}) }

func (s *SSM) set(name string, lost time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.hosts {
		if (name == h.IP || name == h.Instance || name == h.cluster) && !h.Offline {
			h.lost = lost
			s.cutOff(h)
		}
	}
}

// DescribeInstanceInformation answers page by page for the hosts that the
// filters leave, in the order of the world.
func (s *SSM) DescribeInstanceInformation(_ context.Context, in *api.DescribeInstanceInformationInput) (*api.DescribeInstanceInformationOutput, error) {
	filters, err := filtersOf(in)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []types.InstanceInformation
	for _, h := range s.hosts {
		info := s.describe(h)
		if matches(info, filters) {
			all = append(all, info)
		}
	}
	page, next, err := paged(all, in.NextToken, in.MaxResults)
	if err != nil {
		return nil, err
	}
	return &api.DescribeInstanceInformationOutput{InstanceInformationList: page, NextToken: next}, nil
}

func (s *SSM) describe(h *host) types.InstanceInformation {
	status, ping := types.PingStatusOnline, s.clock.Now().Truncate(pings)
	switch {
	case !h.lost.IsZero():
		status, ping = types.PingStatusConnectionLost, h.lost
	case !s.online(h):
		status, ping = types.PingStatusConnectionLost, h.pinged
	case h.real:
		ping = h.pinged
	}
	latest := !h.real
	version, registered := cmp.Or(h.version, agentVersion), s.started.Add(-24*time.Hour)
	name := cmp.Or(aws.ToString(h.said.ComputerName), "ip-"+strings.ReplaceAll(h.IP, ".", "-"))
	platform, platformVersion := cmp.Or(aws.ToString(h.said.PlatformName), "Amazon Linux"), cmp.Or(aws.ToString(h.said.PlatformVersion), "2023")
	return types.InstanceInformation{
		InstanceId: &h.Instance, IPAddress: &h.IP, ComputerName: &name, PingStatus: status, LastPingDateTime: &ping,
		AgentVersion: &version, IsLatestVersion: &latest, PlatformType: types.PlatformTypeLinux, PlatformName: &platform, PlatformVersion: &platformVersion,
		ResourceType: types.ResourceTypeEc2Instance, RegistrationDate: &registered, SourceId: &h.Instance, SourceType: types.SourceTypeAwsEc2Instance,
	}
}

// filter is one condition: the value of key is among values.
type filter struct {
	key    string
	values []string
}

func filtersOf(in *api.DescribeInstanceInformationInput) ([]filter, error) {
	if len(in.Filters) > 0 && len(in.InstanceInformationFilterList) > 0 {
		return nil, wire.Errorf("InvalidFilterKey", "Filters and InstanceInformationFilterList cannot be used together")
	}
	var filters []filter
	for _, f := range in.Filters {
		filters = append(filters, filter{*f.Key, f.Values})
	}
	for _, f := range in.InstanceInformationFilterList {
		filters = append(filters, filter{string(f.Key), f.ValueSet})
	}
	for _, f := range filters {
		if _, ok := values[f.key]; !ok {
			return nil, wire.Errorf("InvalidFilterKey", "The lab does not know the filter key %s", f.key)
		}
		if len(f.values) == 0 || len(f.values) > 100 {
			return nil, wire.Errorf("InvalidInstanceInformationFilterValue", "A filter has 1 to 100 values")
		}
	}
	return filters, nil
}

// values says what each filter key is compared with.
var values = map[string]func(types.InstanceInformation) string{
	"InstanceIds":   func(i types.InstanceInformation) string { return *i.InstanceId },
	"PingStatus":    func(i types.InstanceInformation) string { return string(i.PingStatus) },
	"PlatformTypes": func(i types.InstanceInformation) string { return string(i.PlatformType) },
	"AgentVersion":  func(i types.InstanceInformation) string { return *i.AgentVersion },
	"ResourceType":  func(i types.InstanceInformation) string { return string(i.ResourceType) },
	"SourceIds":     func(i types.InstanceInformation) string { return *i.SourceId },
	"SourceTypes":   func(i types.InstanceInformation) string { return string(i.SourceType) },
}

func matches(i types.InstanceInformation, filters []filter) bool {
	for _, f := range filters {
		if !slices.Contains(f.values, values[f.key](i)) {
			return false
		}
	}
	return true
}

func paged(all []types.InstanceInformation, token *string, size *int32) (page []types.InstanceInformation, next *string, err error) {
	n := pageSize
	if size != nil {
		n = int(*size)
	}
	if n < pageLeast || n > pageMost {
		return nil, nil, wire.Errorf("ValidationException", "1 validation error detected: Value '%d' at 'maxResults' failed to satisfy constraint: Member must have value between %d and %d", n, pageLeast, pageMost)
	}
	from := 0
	if token != nil && *token != "" {
		number, ok := strings.CutPrefix(*token, "lab-page-")
		from, err = strconv.Atoi(number)
		if !ok || err != nil || from < 1 || from > len(all) {
			return nil, nil, wire.Errorf("InvalidNextToken", "The specified token isn't valid.")
		}
	}
	to := min(from+n, len(all))
	if to < len(all) {
		made := "lab-page-" + strconv.Itoa(to)
		next = &made
	}
	return all[from:to], next, nil
}
