package deployer

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/awsconfig"
	"jumpsuite/internal/cli"
)

// Entry is a deployment as `deployments` lists it. Its JSON is API: docs/deploying.md.
type Entry struct {
	Journal
	UnderWay bool `json:"underWay"`
	// Process is whether the process that deploys lives: Running, Ended, or
	// empty for one that is over or has no journal.
	Process Process `json:"process,omitempty"`
}

// Process is whether a process lives, as far as can be told.
type Process string

// The values of a Process.
const (
	Running Process = "running"
	Ended   Process = "ended" // wait or rollback picks it up
)

// servicesAtOnce is how many services DescribeServices takes (doc comment of
// DescribeServicesInput).
const servicesAtOnce = 10

// Deployments lists what is under way, and how the last ones ended: of one
// container type, or of all that see allows. Those that are under way come
// first, then the newest. Each service's tags hold its last one; this machine
// knows of some before it, and of a container type that is named ECS's own history is
// read too. The second result says why it cannot be, if so.
func (d *Deployer) Deployments(ctx context.Context, containerType string, see func(containerType string) bool) (list []Entry, unknown, err error) {
	d.start(containerType)
	services, err := d.services(ctx, containerType, see)
	if err != nil {
		return nil, nil, err
	}
	out := []Entry{}
	for _, s := range services {
		out = append(out, d.entries(ctx, s)...)
	}
	if containerType != "" {
		var past []Entry
		past, unknown = d.past(ctx, services[0], out)
		out = append(out, past...)
	}
	slices.SortStableFunc(out, func(a, b Entry) int {
		if a.UnderWay != b.UnderWay {
			if a.UnderWay {
				return -1
			}
			return 1
		}
		return b.Began.Compare(a.Began)
	})
	return out, unknown, nil
}

func (d *Deployer) services(ctx context.Context, containerType string, see func(string) bool) ([]*ecsstatus.Service, error) {
	if containerType != "" {
		s, err := d.before.Service(ctx, containerType)
		if err != nil {
			return nil, err
		}
		return []*ecsstatus.Service{s}, nil
	}
	names, err := d.before.ContainerTypes(ctx)
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !see(name) })
	var out []*ecsstatus.Service
	for some := range slices.Chunk(names, servicesAtOnce) {
		found, err := d.patient.DescribeServices(ctx, &ecs.DescribeServicesInput{Cluster: &d.cluster, Services: some, Include: []types.ServiceField{types.ServiceFieldTags}})
		if err != nil {
			return nil, fmt.Errorf("describe services in cluster %s: %w", ecsstatus.ShortName(d.cluster), awsconfig.Explain(err))
		}
		for _, s := range found.Services {
			out = append(out, ecsstatus.NewService(s))
		}
	}
	return out, nil
}

// entries are those of one service.
func (d *Deployer) entries(ctx context.Context, s *ecsstatus.Service) []Entry {
	j, ok := d.journalOf(s)
	var out []Entry
	if p := s.Primary(); p != nil && running(s) && !(ok && j.about(p)) {
		out = append(out, Entry{UnderWay: true, Journal: Journal{ContainerType: s.Name, Began: p.Created, Changed: p.Updated, Deployment: p.ID, Definition: ecsstatus.ShortName(p.TaskDefinition)}})
	}
	if ok {
		out = append(out, d.entry(ctx, s, j))
	}
	if at := d.shelf(s); at.path != "" {
		for _, local := range at.journals() {
			if local.Attempt != j.Attempt && local.State.Ended() {
				out = append(out, Entry{Journal: local})
			}
		}
	}
	return out
}

func (d *Deployer) entry(ctx context.Context, s *ecsstatus.Service, j Journal) Entry {
	e := Entry{Journal: j, UnderWay: !j.State.Ended()}
	switch {
	case !e.UnderWay:
	case d.held(ctx, s, j):
		e.Process = Running
	default:
		e.Process = Ended
	}
	return e
}

// WriteDeployments prints entries as a table.
func WriteDeployments(w io.Writer, list []Entry) error {
	var text strings.Builder
	t := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.ToUpper("container type\tstate\tprocess\tfrom\tto\timage\tby\ton\tsince\tchanged\treason"))
	for _, e := range list {
		from, to := e.route()
		cells := []string{e.ContainerType, string(e.State), string(e.Process), from, to, e.Image, e.By, e.Host, moment(e.Began), moment(e.Changed), e.Reason}
		for i, c := range cells {
			if cells[i] = strings.Join(strings.Fields(c), " "); cells[i] == "" {
				cells[i] = nothing
			}
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	t.Flush()
	_, err := io.WriteString(w, cli.Printable(text.String()))
	return err
}

// route is from which definition to which one the service goes, or went.
func (e Entry) route() (from, to string) {
	if e.Before.Definition != "" && e.Before.Definition == e.Definition { // by rollback
		return e.Definition, e.Back
	}
	return e.Before.Definition, e.Definition
}

func moment(t time.Time) string {
	if t.IsZero() {
		return nothing
	}
	return t.UTC().Format("2006-01-02T15:04:05Z")
}
