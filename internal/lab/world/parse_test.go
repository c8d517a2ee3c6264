package world_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"jumpsuite/internal/lab/world"
)

func TestWhatIsWrongIsToldWithItsPlace(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"an unknown key", "clusters:\n  - name: a\n    host: []\n", `w.yaml:3:5: unknown key "host"; known are name, hosts`},
		{"a key twice", "seed: 1\nregion: x\nseed: 2\n", `w.yaml:3:1: key "seed" is there twice`},
		{"an unknown key further down", "clusters: [{name: p}]\nservices:\n  - name: a\n    health: {intervall: 3s}\n", `w.yaml:4:14: unknown key "intervall"; known are interval, timeout, retries, start-period`},
		{"no duration", "latency: 3\n", `w.yaml:1:10: "3" is not a duration such as 40s or 5m`},
		{"no number", "clusters:\n  - {name: a, hosts: [{cpu: many}]}\n", `w.yaml:2:29: "many" is not a number of the right kind (int)`},
		{"no boolean", "rate-limits: perhaps\n", `w.yaml:1:14: "perhaps" is not true or false`},
		{"a value where a list should be", "clusters: prod\n", `w.yaml:1:11: a value where a list should be`},
		{"a list where a mapping should be", "clock: [1]\n", `w.yaml:1:8: a list where a mapping should be`},
		{"a mapping where a value should be", "region: {a: b}\n", `w.yaml:1:9: a mapping where a value should be`},
		{"an alias", "clusters:\n  - &a {name: a}\n  - *a\n", `w.yaml:3:5: aliases are not taken here`},
		{"a second document", "seed: 1\n---\nseed: 2\n", `w.yaml:2:1: a second document`},
		{"no YAML", "a: [\n", `w.yaml: line 1: did not find expected node content`},
		{"an account that is none", "account: 12\n", `w.yaml:1:10: "12" is not 12 digits`},
		{"a cluster twice", "clusters:\n  - name: a\n  - name: a\n", `w.yaml:3:11: cluster "a" is there twice`},
		{"a cluster without a name", "clusters:\n  - hosts: []\n", `w.yaml:2:5: a cluster needs a name`},
		{"an address that is none", "clusters: [{name: a, hosts: [{ip: 10.0.0}]}]\n", `w.yaml:1:35: "10.0.0" is not an IP address`},
		{"an instance that is none", "clusters: [{name: a, hosts: [{instance: web-1}]}]\n", `w.yaml:1:41: "web-1" is not an instance id such as i-0123456789abcdef0`},
		{"which cluster", "clusters: [{name: a}, {name: b}]\nservices:\n  - name: x\n", `w.yaml:3:5: which of the 2 clusters is service "x" in?`},
		{"another cluster", "clusters: [{name: a}]\nservices:\n  - name: x\n    cluster: b\n", `w.yaml:4:14: there is no cluster "b"`},
		{"a service twice", "clusters: [{name: a}]\nservices: [{name: x}, {name: x}]\n", `w.yaml:2:30: service "x" is there twice`},
		{"both forms", "clusters: [{name: a}]\nservices:\n  - {name: x, image: y, containers: [{image: z}]}\n", `w.yaml:3:5: image, cpu, memory, port, host-port, health and log-group are the short form`},
		{"a container twice", "clusters: [{name: a}]\nservices: [{name: x, containers: [{image: z}, {image: z}]}]\n", `w.yaml:2:47: container "x" is there twice`},
		{"no such network mode", "clusters: [{name: a}]\nservices: [{name: x, network-mode: nat}]\n", `w.yaml:2:36: "nat" is none of bridge, host, awsvpc`},
		{"an image without repository", "images: [{tags: [a]}]\n", `w.yaml:1:10: an image needs a repository`},
		{"no such verb", "actions: [{do: explode, to: a}]\n", `w.yaml:1:16: "explode" is none of alarm, cluster-empty, container-health,`},
		{"an action without a value", "actions: [{do: desired, to: a}]\n", `w.yaml:1:11: desired needs a value: SERVICE, VALUE a number`},
		{"an action for nobody", "actions: [{do: host-lost}]\n", `w.yaml:1:11: host-lost needs to be told whom (to)`},
		{"a fault of nothing", "faults: [{operation: UpdateService}]\n", `w.yaml:1:10: a fault needs an error, latency or stale`},
		{"a fault of an unknown kind", "faults: [{operation: UpdateService, error: odd}]\n", `w.yaml:1:44: "odd" is none of throttle, server, denied, unavailable, cut`},
		{"a negative duration", "latency: -1s\n", `w.yaml:1:10: -1s is negative`},
		{"a negative desired count", "clusters: [{name: a}]\nservices:\n  - name: x\n    desired: -3\n", `w.yaml:4:14: -3 is negative`},
		{"a negative percentage", "clusters: [{name: a}]\nservices: [{name: x, max: -4}]\n", `w.yaml:2:27: -4 is negative`},
		{"a negative size of a host", "clusters: [{name: a, hosts: [{cpu: -5}]}]\n", `w.yaml:1:36: -5 is negative`},
		{"a negative number of hosts", "clusters: [{name: a, hosts: [{count: -1}]}]\n", `w.yaml:1:38: -1 is negative`},
		{"too many hosts", "clusters: [{name: a, hosts: [{count: 5001}]}]\n", `w.yaml:1:38: 5001 is not a number of hosts from 1 to 5000`},
		{"a port that is none", "clusters: [{name: a}]\nservices: [{name: x, port: 70000}]\n", `w.yaml:2:28: 70000 is no port`},
		{"a taken port that is none", "clusters: [{name: a, hosts: [{ports: [22, -1]}]}]\n", `w.yaml:1:43: -1 is no port`},
		{"a fault a negative number of times", "faults: [{operation: x, error: cut, times: -1}]\n", `w.yaml:1:44: -1 is negative`},
		{"an action before the start", "actions: [{at: -1s, do: kill, to: x}]\n", `w.yaml:1:16: -1s is negative`},
		{"time that runs backwards", "clock: {speed: -1}\n", `w.yaml:1:16: time does not run backwards`},
		{"a share of more than all", "link: {lose: 2}\n", `w.yaml:1:14: 2 is not a share from 0 to 1`},
		{"a document without a port", "documents: [{name: d}]\n", `w.yaml:1:13: a document needs a name, and either a port or its content`},
		{"a port that leads nowhere", "clusters: [{name: c, hosts: [{forward: {2376: somewhere}}]}]\n", `w.yaml:1:40: 2376: "somewhere" is not a port and an address such as 2376: 127.0.0.1:4711`},
		{"time that does not run", "clock: {speed: .nan}\n", `w.yaml:1:16: NaN is not a speed of up to 1000000`},
		{"time without end", "clock: {speed: .inf}\n", `w.yaml:1:16: +Inf is not a speed of up to 1000000`},
		{"a region that is none", "region: EU Central\n", `w.yaml:1:9: "EU Central" is no region such as eu-central-1`},
		{"a cluster that ECS would not name so", "clusters: [{name: a/b}]\n", `w.yaml:1:19: "a/b" is no name of a cluster`},
		{"a service that ECS would not name so", "clusters: [{name: a}]\nservices: [{name: 'a b'}]\n", `w.yaml:2:19: "a b" is no name of a service`},
		{"one address twice", "clusters:\n  - {name: a, hosts: [{count: 3, ip: 10.0.0.1}, {ip: 10.0.0.3}]}\n", `w.yaml:2:5: two hosts of cluster a have the address 10.0.0.3`},
		{"one instance twice", "clusters:\n  - {name: a, hosts: [{instance: i-1}]}\n  - {name: b, hosts: [{instance: i-1}]}\n", `w.yaml:3:5: two hosts are instance i-1`},
		{"addresses that run out", "clusters: [{name: a, hosts: [{ip: 255.255.255.254, count: 3}]}]\n", `w.yaml:1:35: there are no 3 addresses from 255.255.255.254 on`},
		{"a fault with a bad pattern", "faults: [{operation: '[', error: cut}]\n", `w.yaml:1:22: "[" is not a pattern`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := world.Parse([]byte(tt.in), "w.yaml")
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("%s: got %v, want %s", tt.in, err, tt.want)
			}
		})
	}
}

func TestAllThatIsWrongIsTold(t *testing.T) {
	_, err := world.Parse([]byte("a: 1\nb: 2\n"), "w")
	if err == nil || len(strings.Split(err.Error(), "\n")) != 2 {
		t.Errorf("got %v, want two lines", err)
	}
}

func TestEmptyWorldsAreWorlds(t *testing.T) {
	for _, in := range []string{"", "# nothing\n", "{}", "---\n"} {
		w, err := world.Parse([]byte(in), "w")
		if err != nil {
			t.Errorf("%q: %v", in, err)
			continue
		}
		if w.Account != "123456789012" || w.Region != "eu-central-1" || w.Clock.Speed != 1 {
			t.Errorf("%q: got %+v", in, w)
		}
	}
}

const small = `
clusters:
  - name: prod
    hosts: [{count: 2}, {ip: 10.1.0.5, instance: i-0aa, cpu: 100, zone: c, arch: arm64}]
  - name: test
    hosts: [{}]
services:
  - {name: api, cluster: prod, image: "api:1", port: 8080, health: {interval: 10s}, load-balancers: [{}], circuit-breaker: {enable: true}}
  - {name: agent, cluster: test, scheduling: DAEMON, containers: [{image: "a:1", reservation: 10}, {name: b, image: "b:1", essential: false}]}
images: [{repository: api}]
`

func TestDefaultsAreFilledIn(t *testing.T) {
	w, err := world.Parse([]byte(small), "w")
	if err != nil {
		t.Fatal(err)
	}
	hosts := w.Clusters[0].Hosts
	var ips, zones []string
	for _, h := range append(hosts, w.Clusters[1].Hosts...) {
		ips, zones = append(ips, h.IP), append(zones, h.Zone)
	}
	if want := []string{"10.0.0.10", "10.0.0.11", "10.1.0.5", "10.1.0.6"}; !reflect.DeepEqual(ips, want) {
		t.Errorf("got addresses %v, want %v", ips, want)
	}
	if want := []string{"a", "b", "c", "a"}; !reflect.DeepEqual(zones, want) {
		t.Errorf("got zones %v, want %v", zones, want)
	}
	if hosts[2].Instance != "i-0aa" || hosts[2].CPU != 100 || hosts[2].Memory != 3900 || hosts[0].Instance == hosts[1].Instance || len(hosts[0].Instance) != 19 {
		t.Errorf("got hosts %+v", hosts)
	}
	api, agent := w.Services[0], w.Services[1]
	if *api.Desired != 1 || *api.Min != 100 || *api.Max != 200 || *agent.Min != 0 || *agent.Max != 100 {
		t.Errorf("got %d %d %d and %d %d", *api.Desired, *api.Min, *api.Max, *agent.Min, *agent.Max)
	}
	c := api.Containers[0]
	if c.Name != "api" || c.Image != "api:1" || c.Memory != 128 || !*c.Essential || c.Health.Retries != 3 || c.Health.Interval != world.Duration(10*time.Second) {
		t.Errorf("got container %+v", c)
	}
	if l := api.LoadBalancers[0]; l.TargetGroup != "api" || l.Container != "api" || l.Port != 8080 || l.Path != "/" || l.Healthy != 5 || *l.Delay != world.Duration(300*time.Second) {
		t.Errorf("got load balancer %+v", l)
	}
	if agent.Containers[0].Memory != 0 || *agent.Containers[1].Essential || api.CircuitBreaker.Type != "BOUNDED_PERCENT" {
		t.Errorf("got %+v %+v", agent.Containers, api.CircuitBreaker)
	}
	if i := w.Images[0]; i.HTTP != 200 || i.Arch != "amd64" || !reflect.DeepEqual(i.Tags, []string{"latest"}) {
		t.Errorf("got image %+v", i)
	}
}

func TestToCompleteTwiceChangesNothing(t *testing.T) {
	w, err := world.Parse([]byte(small), "w")
	if err != nil {
		t.Fatal(err)
	}
	before, err := yaml.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Complete(); err != nil {
		t.Fatal(err)
	}
	after, err := yaml.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	if string(before) != string(after) {
		t.Errorf("got\n%s\nwant\n%s", after, before)
	}
}

func TestReferencesAreWhole(t *testing.T) {
	w := &world.World{}
	if err := w.Complete(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, in, want string }{
		{"in the account's ECR", "api:1", "123456789012.dkr.ecr.eu-central-1.amazonaws.com/api:1"},
		{"with a namespace", "team/api:1", "123456789012.dkr.ecr.eu-central-1.amazonaws.com/team/api:1"},
		{"in another registry", "quay.io/x/y:1", "quay.io/x/y:1"},
		{"with a port", "localhost:5000/x", "localhost:5000/x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := w.Reference(tt.in); got != tt.want {
				t.Errorf("%s: got %s, want %s", tt.in, got, tt.want)
			}
		})
	}
}

func TestSomeNumbersAreBelowZero(t *testing.T) {
	if _, err := world.Parse([]byte("seed: -1\nimages: [{repository: a, http: -1, exit: -1}]\n"), "w"); err != nil {
		t.Error(err)
	}
}

func TestAFaultOfItsOwnIsCheckedToo(t *testing.T) {
	_, err := world.ParseFault([]byte("{operation: x, error: cut, skip: -2, latency: -1s}"), "fault")
	if want := "fault:1:34: -2 is negative\nfault:1:47: -1s is negative"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestAnImageOfItsOwnIsCheckedToo(t *testing.T) {
	_, err := world.ParseImage("{pull: -1s, arch: x86}")
	if want := "image:1:8: -1s is negative\nimage:1:19: \"x86\" is none of amd64, arm64"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if i, err := world.ParseImage("{exit: 1, after: 2s}"); err != nil || *i.Exit != 1 {
		t.Errorf("got %+v and %v", i, err)
	}
}

func TestFaultsAffectOperationsByPattern(t *testing.T) {
	for _, tt := range []struct {
		pattern, operation string
		want               bool
	}{{"Describe*", "DescribeTasks", true}, {"Describe*", "ListTasks", false}, {"*", "ListTasks", true}, {"UpdateService", "UpdateServicePrimaryTaskSet", false}} {
		if got := (world.Fault{Operation: tt.pattern}).Affects(tt.operation); got != tt.want {
			t.Errorf("%s, %s: got %v, want %v", tt.pattern, tt.operation, got, tt.want)
		}
	}
}

func TestEveryVerbHasAHelpAndIsTaken(t *testing.T) {
	if len(world.Verbs) == 0 {
		t.Fatal("there are no verbs")
	}
	for verb := range world.Verbs {
		if err := (world.Action{Do: verb, To: "x", Value: "1"}).Check(); err != nil {
			t.Errorf("%s: %v", verb, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(small)
	f.Add("faults: [{operation: '*', error: cut}]\nactions: [{do: kill, to: x}]")
	f.Fuzz(func(t *testing.T, in string) {
		w, err := world.Parse([]byte(in), "w")
		if err != nil {
			return
		}
		if err := w.Complete(); err != nil {
			t.Errorf("%q is a world, but not when it is completed again: %v", in, err)
		}
	})
}
