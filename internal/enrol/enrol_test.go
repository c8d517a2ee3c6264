package enrol

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"jumpsuite/internal/awsconfig"
	"jumpsuite/internal/keys"
	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/world"
)

const small = `
clusters:
  - name: prod
    hosts: [{ip: 10.0.0.11}]
`

func startLab(t *testing.T) (*lab.Lab, *ssm.Client) {
	t.Helper()
	w, err := world.Parse([]byte(small), "world")
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.Start(t.Context(), lab.Config{World: w})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	env := map[string]string{}
	for _, v := range l.Env() {
		name, value, _ := strings.Cut(v, "=")
		env[name] = value
	}
	url := l.URL()
	return l, ssm.NewFromConfig(aws.Config{Region: env["AWS_REGION"], APIOptions: awsconfig.PlainBodies(), BaseEndpoint: &url, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], "")})
}

func machine(t *testing.T, api API, role keys.Role, instance string) Machine {
	t.Helper()
	return Machine{API: api, Cluster: "prod", Region: "eu-central-1", Role: role, Instance: instance,
		Store: keys.Store{Dir: filepath.Join(t.TempDir(), "keys"), Admin: filepath.Join(t.TempDir(), "keys"), Owner: os.Geteuid()}}
}

func run(t *testing.T, machines ...Machine) {
	t.Helper()
	for _, m := range machines {
		if err := m.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMachinesComeToTrustEachOther(t *testing.T) {
	l, api := startLab(t)
	jump := machine(t, api, keys.JumpServers, "i-0aaaaaaaaaaaaaaaa")
	other := machine(t, api, keys.JumpServers, "i-0cccccccccccccccc")
	var hosts []Machine
	for i := range 12 { // two pages
		hosts = append(hosts, machine(t, api, keys.Hosts, fmt.Sprintf("i-0bbbbbbbbbbbbbb%02d", i)))
	}
	stranger := machine(t, api, keys.Hosts, "i-0dddddddddddddddd")
	stranger.Cluster = "test"
	run(t, jump, other, stranger)
	run(t, hosts...)
	run(t, jump)

	trusted, err := jump.Store.Load(keys.Hosts)
	if err != nil || len(trusted.Entries()) != len(hosts) {
		t.Fatalf("the jump server trusts %v, %v", trusted, err)
	}
	for i, h := range hosts {
		ids, _ := h.Store.Public()
		if !trusted.TrustsAs(ids[0], h.Instance) || trusted.TrustsAs(ids[0], hosts[(i+1)%12].Instance) {
			t.Errorf("%s is not trusted as itself alone", h.Instance)
		}
		set, err := h.Store.Load(keys.JumpServers)
		if err != nil || len(set.Entries()) != 2 {
			t.Errorf("%s trusts %v, %v", h.Instance, set, err)
		}
	}
	if own, _ := stranger.Store.Public(); trusted.Trusts(own[0]) {
		t.Error("a host of another cluster is trusted")
	}

	// What is published already is not written again.
	before := puts(l)
	run(t, jump, hosts[0])
	if after := puts(l); after != before {
		t.Errorf("%d values were written again", after-before)
	}
	if err := hosts[0].Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := hosts[0].Forget(t.Context()); err != nil {
		t.Errorf("forgetting what is not there: %v", err)
	}
	run(t, jump)
	trusted, _ = jump.Store.Load(keys.Hosts)
	if own, _ := hosts[0].Store.Public(); trusted.Trusts(own[0]) {
		t.Error("a host that took its key back is trusted")
	}
}

func puts(l *lab.Lab) (n int) {
	for _, c := range l.Calls() {
		if c.Operation == "PutParameter" {
			n++
		}
	}
	return n
}

// A jump server may have several clusters: what is fetched of one takes nothing
// away of the others.
func TestTheHostsOfSeveralClustersAreKnownTogether(t *testing.T) {
	_, api := startLab(t)
	in := func(m Machine, cluster, region string) Machine {
		m.Cluster, m.Region = cluster, region
		return m
	}
	jump := machine(t, api, keys.JumpServers, "i-0aaaaaaaaaaaaaaaa")
	prod, test := machine(t, api, keys.Hosts, "i-0bbbbbbbbbbbbbbb1"), machine(t, api, keys.Hosts, "i-0bbbbbbbbbbbbbbb2")
	test.Cluster = "test"
	run(t, prod, test)
	run(t, jump, in(jump, "test", "eu-central-1"), in(jump, "empty", "eu-west-1"), jump)
	knows := func(h Machine) bool {
		set, err := jump.Store.Load(keys.Hosts)
		ids, _ := h.Store.Public()
		return err == nil && set.TrustsAs(ids[0], h.Instance)
	}
	if !knows(prod) || !knows(test) {
		t.Errorf("knows prod's %v, test's %v; want both", knows(prod), knows(test))
	}
	if err := in(jump, "test", "eu-central-1").Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !knows(prod) || knows(test) {
		t.Errorf("after test was forgotten: knows prod's %v, test's %v", knows(prod), knows(test))
	}
}

// While a machine changes its key, both are trusted.
func TestTheNextKeyIsTrustedBeforeItIsUsed(t *testing.T) {
	_, api := startLab(t)
	jump, host := machine(t, api, keys.JumpServers, "i-0aaaaaaaaaaaaaaaa"), machine(t, api, keys.Hosts, "i-0bbbbbbbbbbbbbbbb")
	if _, err := host.Store.Rotate(time.Now(), 0); err != nil {
		t.Fatal(err)
	}
	run(t, host, jump)
	ids, _ := host.Store.Public()
	set, err := jump.Store.Load(keys.Hosts)
	if err != nil || len(ids) != 2 || !set.TrustsAs(ids[0], host.Instance) || !set.TrustsAs(ids[1], host.Instance) {
		t.Errorf("got %v, %v, want both of %v", set, err, ids)
	}
}

// What one machine wrote and nobody understands keeps no other away.
func TestWhatIsNotUnderstoodIsLeftOut(t *testing.T) {
	_, api := startLab(t)
	jump, host := machine(t, api, keys.JumpServers, "i-0aaaaaaaaaaaaaaaa"), machine(t, api, keys.Hosts, "i-0bbbbbbbbbbbbbbbb")
	run(t, host)
	for name, value := range map[string]string{
		"hosts/i-0eeeeeeeeeeeeeee1": "nonsense", "hosts/i-0eeeeeeeeeeeeeee2": "ed25519:AAAA",
		"hosts/not-an-instance": "x", "hosts/deeper/i-0eeeeeeeeeeeeeee3": "x", "notes": "x",
	} {
		if _, err := api.PutParameter(t.Context(), &ssm.PutParameterInput{Name: aws.String("/jumpsuite/prod/" + name), Value: aws.String(value), Type: types.ParameterTypeString}); err != nil {
			t.Fatal(err)
		}
	}
	run(t, jump)
	set, err := jump.Store.Load(keys.Hosts)
	var names []string
	for _, e := range set.Entries() {
		names = append(names, e.Name)
	}
	if err != nil || !slices.Equal(names, []string{host.Instance}) {
		t.Errorf("got %v, %v", names, err)
	}
}

func TestWhoCannotEnrol(t *testing.T) {
	good := Machine{Cluster: "prod", Region: "eu-central-1", Role: keys.Hosts, Instance: "i-0aaaaaaaaaaaaaaaa"}
	for name, change := range map[string]func(*Machine){
		"a cluster with a slash":  func(m *Machine) { m.Cluster = "prod/hosts" },
		"no instance":             func(m *Machine) { m.Instance = "" },
		"no region":               func(m *Machine) { m.Region = "" },
		"a region with a path":    func(m *Machine) { m.Region = "eu/../x" },
		"an instance with a path": func(m *Machine) { m.Instance = "i-0aaaaaaaa/../x" },
		"a role that is none":     func(m *Machine) { m.Role = "admins" },
	} {
		m := good
		change(&m)
		if err := m.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "enrol: ") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
