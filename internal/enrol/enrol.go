// Package enrol makes the machines of a cluster known to each other: each
// publishes the public halves of its keys in SSM Parameter Store, under its
// instance id, and fetches those of the other side.
//
//	/jumpsuite/CLUSTER/hosts/INSTANCE           keys of a docker host
//	/jumpsuite/CLUSTER/jump-servers/INSTANCE    keys of a jump server
//
// A value is one key or, while a machine changes its key and for a while after that,
// two with a space in between. Who may write what is IAM's to say: each machine its own name, and no
// other (packaging/iam). The helper that does this has AWS credentials, and the
// gates that use the lists have none.
package enrol

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"jumpsuite/internal/keys"
	"jumpsuite/internal/tunnel"
)

// API is the part of the SSM client that is used.
type API interface {
	GetParametersByPath(context.Context, *ssm.GetParametersByPathInput, ...func(*ssm.Options)) (*ssm.GetParametersByPathOutput, error)
	PutParameter(context.Context, *ssm.PutParameterInput, ...func(*ssm.Options)) (*ssm.PutParameterOutput, error)
	DeleteParameter(context.Context, *ssm.DeleteParameterInput, ...func(*ssm.Options)) (*ssm.DeleteParameterOutput, error)
}

// Machine is one that enrols.
type Machine struct {
	API      API
	Cluster  string
	Region   string    // where the cluster is
	Role     keys.Role // its own
	Instance string    // its EC2 instance id
	Store    keys.Store
	Log      *slog.Logger     // what was left out; nil discards
	Now      func() time.Time // nil: the clock's
}

var (
	clusterForm  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,254}$`)
	regionForm   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	instanceForm = regexp.MustCompile(`^m?i-[0-9a-f]{8,17}$`)
)

// mostKeys in a value: the one in use, and the next or the former one.
const mostKeys = 2

// maxPages of ten parameters are fetched of a cluster: many times the hosts that one
// can have. Who may write below it must not make each machine fetch for ever.
const maxPages = 1000

func (m Machine) check() error {
	switch {
	case !clusterForm.MatchString(m.Cluster):
		return fmt.Errorf("enrol: %q is no name of a cluster", m.Cluster)
	case !regionForm.MatchString(m.Region):
		return fmt.Errorf("enrol: %q is no name of a region", m.Region)
	case !instanceForm.MatchString(m.Instance):
		return fmt.Errorf("enrol: %q is no id of an instance", m.Instance)
	case m.Role != keys.Hosts && m.Role != keys.JumpServers:
		return fmt.Errorf("enrol: %q is no role", m.Role)
	}
	return nil
}

func (m Machine) path() string { return "/jumpsuite/" + m.Cluster }

func (m Machine) own() string { return m.path() + "/" + string(m.Role) + "/" + m.Instance }

// others is the role of those whose keys this machine needs.
func (m Machine) others() keys.Role {
	if m.Role == keys.Hosts {
		return keys.JumpServers
	}
	return keys.Hosts
}

// Run publishes this machine's keys where they are not as they are, and puts the
// others' in place for whoever trusts them, also where it may not publish. When the
// others' cannot be had, those that were fetched before stay.
func (m Machine) Run(ctx context.Context) error {
	if err := m.check(); err != nil {
		return err
	}
	all, err := m.fetch(ctx)
	if err != nil {
		return err
	}
	published := m.publish(ctx, all[m.own()])
	return errors.Join(published, m.Store.Fetched(m.others(), m.place(), m.entries(all)))
}

// fetch reads all there is of the cluster, by name.
func (m Machine) fetch(ctx context.Context) (map[string]string, error) {
	all := map[string]string{}
	in := &ssm.GetParametersByPathInput{Path: aws.String(m.path()), Recursive: aws.Bool(true), MaxResults: aws.Int32(10)}
	for range maxPages {
		out, err := m.API.GetParametersByPath(ctx, in)
		if err != nil {
			return nil, fmt.Errorf("read the keys below %s: %w", m.path(), err)
		}
		for _, p := range out.Parameters {
			all[aws.ToString(p.Name)] = aws.ToString(p.Value)
		}
		if aws.ToString(out.NextToken) == "" {
			return all, nil
		}
		in.NextToken = out.NextToken
	}
	return nil, fmt.Errorf("read the keys below %s: there are more than %d pages: somebody writes there who should not", m.path(), maxPages)
}

func (m Machine) publish(ctx context.Context, published string) error {
	ids, err := m.Store.Published(m.now())
	if err != nil {
		return err
	}
	if same(ids, published) {
		return nil
	}
	value := join(ids)
	_, err = m.API.PutParameter(ctx, &ssm.PutParameterInput{
		Name: aws.String(m.own()), Value: aws.String(value), Type: types.ParameterTypeString, Overwrite: aws.Bool(true),
	})
	switch {
	case err != nil && m.Role == keys.JumpServers:
		return &PublishError{Name: m.own(), Value: value, Region: m.Region, Err: err}
	case err != nil:
		return fmt.Errorf("publish this machine's keys as %s: %w", m.own(), err)
	}
	return nil
}

// PublishError is a jump server's keys that could not be published. It may not do
// that by itself, as packaging/iam has it: an administrator does, who has the right to,
// once for each key. So it does not unwrap: what to do is not what AWS's refusal asks
// for elsewhere, to give the role the right.
type PublishError struct {
	Name, Value, Region string
	Err                 error
}

func (e *PublishError) Error() string {
	return fmt.Sprintf("publish this machine's keys as %s: %v", e.Name, e.Err)
}

// ExitCode is 69, that of what AWS does not do.
func (e *PublishError) ExitCode() int { return 69 }

// Hint is what to do about it.
func (e *PublishError) Hint() string {
	return fmt.Sprintf("somebody who may runs, anywhere: aws ssm put-parameter --region %s --type String --overwrite --name %s --value '%s'", e.Region, e.Name, e.Value)
}

// same reports whether a value has just these keys, in whichever order: which of them is
// in use is not what it says.
func same(ids []tunnel.KeyID, value string) bool {
	words, want := strings.Fields(value), strings.Fields(join(ids))
	slices.Sort(words)
	slices.Sort(want)
	return slices.Equal(words, want)
}

func join(ids []tunnel.KeyID) string {
	var words []string
	for _, id := range ids {
		words = append(words, string(id))
	}
	return strings.Join(words, " ")
}

// entries are the others' keys. What is not understood is left out: it is one
// machine's, and not to keep the others away.
func (m Machine) entries(all map[string]string) (entries []keys.Entry) {
	prefix := m.path() + "/" + string(m.others()) + "/"
	for name, value := range all {
		instance, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		ids, err := parse(instance, value)
		if err != nil {
			m.log().Warn("a machine's keys are left out", "parameter", name, "err", err)
			continue
		}
		for _, id := range ids {
			entries = append(entries, keys.Entry{Key: id, Name: instance})
		}
	}
	slices.SortFunc(entries, func(a, b keys.Entry) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Key, b.Key)) })
	return entries
}

func parse(instance, value string) (ids []tunnel.KeyID, err error) {
	if !instanceForm.MatchString(instance) {
		return nil, errors.New("it is not called as an instance")
	}
	words := strings.Fields(value)
	if len(words) == 0 || len(words) > mostKeys {
		return nil, fmt.Errorf("it has %d keys", len(words))
	}
	for _, w := range words {
		id, err := tunnel.ParseKeyID(w)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// place tells apart what is fetched of several clusters: regions have some of the
// same name. Neither has a dot.
func (m Machine) place() string { return m.Region + "." + m.Cluster }

// Forget takes back what this machine published, and trusts none of the cluster's
// any more, also where it may not take back: nor is it trusted by those who fetch after
// that.
func (m Machine) Forget(ctx context.Context) error {
	if err := m.check(); err != nil {
		return err
	}
	_, err := m.API.DeleteParameter(ctx, &ssm.DeleteParameterInput{Name: aws.String(m.own())})
	var none *types.ParameterNotFound
	if errors.As(err, &none) {
		err = nil
	}
	switch {
	case err != nil && m.Role == keys.JumpServers:
		err = &ForgetError{Name: m.own(), Region: m.Region, Err: err}
	case err != nil:
		err = fmt.Errorf("take back this machine's keys, %s: %w", m.own(), err)
	}
	return errors.Join(err, m.Store.Forget(m.others(), m.place()))
}

// ForgetError is a jump server's keys that are still published: it may not take its own
// back. As PublishError it does not unwrap.
type ForgetError struct {
	Name, Region string
	Err          error
}

func (e *ForgetError) Error() string {
	return fmt.Sprintf("take back this machine's keys, %s: %v", e.Name, e.Err)
}

// ExitCode is 69, that of what AWS does not do.
func (e *ForgetError) ExitCode() int { return 69 }

// Hint is what to do about it.
func (e *ForgetError) Hint() string {
	return fmt.Sprintf("somebody who may runs, anywhere: aws ssm delete-parameter --region %s --name %s", e.Region, e.Name)
}

func (m Machine) now() time.Time {
	if m.Now == nil {
		return time.Now()
	}
	return m.Now()
}

func (m Machine) log() *slog.Logger {
	if m.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return m.Log
}
