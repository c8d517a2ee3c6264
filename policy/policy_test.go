package policy

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// site is the environments that most tests are about.
const site = `environments:
  - {name: prod, cluster: prod-cluster, production: true}
  - {name: test, cluster: test-cluster, production: false}
`

func parse(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := Parse("policy.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v\nin\n%s", err, text)
	}
	return p
}

// withRules is a policy of the site with rules, one a line.
func withRules(t testing.TB, rules ...string) *Policy {
	t.Helper()
	return parse(t, site+ruleList(rules))
}

func ruleList(rules []string) string {
	if len(rules) == 0 {
		return "rules: []\n"
	}
	var b strings.Builder
	b.WriteString("rules:\n")
	for i, r := range rules {
		fmt.Fprintf(&b, "  - {name: r%d, %s}\n", i+1, r)
	}
	return b.String()
}

// question is "USER[,GROUP…] ENVIRONMENT COMMAND…", with @TYPE, #HOST and
// =IMAGE for what the command line does not say.
func question(t testing.TB, q string) Request {
	t.Helper()
	var r Request
	var res Resource
	var words []string
	for i, w := range strings.Fields(q) {
		switch {
		case i == 0:
			who := strings.Split(w, ",")
			r.Principal = Principal{User: who[0], Groups: who[1:]}
		case i == 1:
			r.Environment = w
		case w[0] == '@':
			res.ContainerType = w[1:]
		case w[0] == '#':
			res.Host = w[1:]
		case w[0] == '=':
			res.Image = w[1:]
		default:
			words = append(words, w)
		}
	}
	c, err := ParseCommand(words)
	if err != nil {
		t.Fatalf("question %q: %v", q, err)
	}
	c.Principal, c.Environment = r.Principal, r.Environment
	for from, to := range map[*string]*string{&res.ContainerType: &c.Resource.ContainerType, &res.Host: &c.Resource.Host, &res.Image: &c.Resource.Image} {
		if *from != "" {
			*to = *from
		}
	}
	return c
}

const (
	devLook = "effect: allow, principals: [group:dev], actions: [docker.ps, docker.logs], environments: [prod, test]"
	devExec = "effect: allow, principals: [group:dev], actions: [docker.exec], environments: ['*']"
	devRun  = "effect: allow, principals: [user:ann], actions: [docker.run, docker.create, docker.pull], environments: [test], images: ['*']"
)

func TestDecisions(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("0123", 16)
	image := func(patterns string) string {
		return "effect: allow, principals: [user:ann], actions: [docker.run], environments: [test], images: [" + patterns + "]"
	}
	deny := func(rest string) string { return "effect: deny, principals: ['*'], " + rest }
	for _, tt := range []struct {
		rules []string
		ask   string
		want  string // effect rule
	}{
		// Nothing is allowed unless a rule allows it.
		{nil, "ann prod docker ps", "deny default"},
		{[]string{devLook}, "ann,dev prod docker ps", "allow r1"},
		{[]string{devLook}, "ann prod docker ps", "deny default"},
		{[]string{devLook}, "dev prod docker ps", "deny default"}, // a user called as the group
		{[]string{devLook}, "ann,ops prod docker ps", "deny default"},
		{[]string{devLook}, "ann,ops,dev prod docker ps", "allow r1"},
		{[]string{devLook}, "ann,dev prod docker stats", "deny default"},
		{[]string{devLook}, "ann,dev nosuch docker ps", "deny default"},
		{[]string{devLook}, "ann,Dev prod docker ps", "deny default"},
		{[]string{devLook}, "ann,dev PROD docker ps", "deny default"},
		// Deny wins, wherever it stands.
		{[]string{devLook, deny("actions: [docker.ps]")}, "ann,dev prod docker ps", "deny r2"},
		{[]string{deny("actions: [docker.ps]"), devLook}, "ann,dev prod docker ps", "deny r1"},
		{[]string{devLook, deny("actions: [docker.ps]")}, "ann,dev prod docker logs x", "allow r1"},
		{[]string{devLook, deny("actions: [docker.*]")}, "ann,dev prod docker logs x", "deny r2"},
		{[]string{devLook, deny("actions: [ecs.*]")}, "ann,dev prod docker logs x", "allow r1"},
		{[]string{devLook, deny("actions: ['*'], environments: [prod]")}, "ann,dev prod docker ps", "deny r2"},
		{[]string{devLook, deny("actions: ['*'], environments: [prod]")}, "ann,dev test docker ps", "allow r1"},
		{[]string{devLook, "effect: deny, principals: [user:ann], actions: ['*']"}, "ann,dev test docker ps", "deny r2"},
		{[]string{devLook, "effect: deny, principals: [user:ann], actions: ['*']"}, "bob,dev test docker ps", "allow r1"},
		{[]string{devLook, "effect: deny, principals: [group:temp], actions: ['*']"}, "ann,dev,temp test docker ps", "deny r2"},
		// The floor is above the rules.
		{[]string{devRun}, "ann test docker run alpine", "allow r1"},
		{[]string{devRun}, "ann prod docker run alpine", "deny floor"},
		{[]string{devRun}, "ann prod docker pull alpine", "deny floor"},
		{[]string{devRun}, "ann prod docker start x", "deny floor"},
		{[]string{devRun}, "ann prod docker create alpine", "deny floor"},
		{[]string{devRun}, "ann prod docker rm x", "deny floor"},
		{[]string{devRun}, "ann nosuch docker run alpine", "deny floor"},
		{[]string{devRun}, "ann  docker run alpine", "question"},
		// Container types.
		{[]string{"effect: allow, principals: [user:ann], actions: [ecs.deploy], environments: [prod], container-types: [web, 'api-*']"}, "ann prod ecs deploy --container-type web", "allow r1"},
		{[]string{"effect: allow, principals: [user:ann], actions: [ecs.deploy], environments: [prod], container-types: [web, 'api-*']"}, "ann prod r3 container deploy --reason why --container-type api-v2", "allow r1"},
		{[]string{"effect: allow, principals: [user:ann], actions: [ecs.deploy], environments: [prod], container-types: [web, 'api-*']"}, "ann prod ecs deploy --container-type web2", "deny default"},
		{[]string{"effect: allow, principals: [user:ann], actions: [ecs.deploy], environments: [prod], container-types: [web]"}, "ann prod ecs deploy", "deny default"},
		{[]string{"effect: allow, principals: [user:ann], actions: [docker.logs], environments: [prod], container-types: ['*']"}, "ann prod docker logs x @-", "deny default"},
		{[]string{devExec, deny("actions: [docker.exec], container-types: [pay]")}, "ann,dev prod docker exec x sh @web", "allow r1"},
		{[]string{devExec, deny("actions: [docker.exec], container-types: [pay]")}, "ann,dev prod docker exec x sh @pay", "deny r2"},
		{[]string{devExec, deny("actions: [docker.exec], container-types: [pay]")}, "ann,dev prod docker exec x sh", "deny r2"}, // not known
		{[]string{devExec, deny("actions: [docker.exec], container-types: [pay]")}, "ann,dev prod docker exec x sh @-", "allow r1"},
		// Hosts.
		{[]string{"effect: allow, principals: [user:ann], actions: [docker.ps], environments: [prod], hosts: ['i-0*']"}, "ann prod docker ps #i-0abc", "allow r1"},
		{[]string{"effect: allow, principals: [user:ann], actions: [docker.ps], environments: [prod], hosts: ['i-0*']"}, "ann prod docker ps #i-1abc", "deny default"},
		{[]string{"effect: allow, principals: [user:ann], actions: [docker.ps], environments: [prod], hosts: ['10.0.?.7']"}, "ann prod docker ps #10.0.12.7", "deny default"},
		{[]string{devLook, deny("actions: [docker.ps], hosts: [bastion]")}, "ann,dev prod docker ps", "deny r2"},
		// Images.
		{[]string{image("docker.io/library/alpine")}, "ann test docker run alpine", "allow r1"},
		{[]string{image("docker.io/library/alpine")}, "ann test docker run docker.io/alpine:3.20", "allow r1"},
		{[]string{image("docker.io/library/alpine")}, "ann test docker run index.docker.io/library/alpine", "allow r1"},
		{[]string{image("docker.io/library/alpine")}, "ann test docker run alpine" + digest, "allow r1"},
		{[]string{image("'*'"), deny("actions: [docker.run], images: [ghcr.io/*]")}, "ann test docker run GHCR.io/evil/x:1", "deny r2"},
		{[]string{image("'*'"), deny("actions: [docker.run], images: [ghcr.io/*]")}, "ann test docker run ghcr.io:443/evil/x:1", "deny r2"},
		{[]string{image("'*'"), deny("actions: [docker.run], images: [ghcr.io/*]")}, "ann test docker run ghcr.io:0443/evil/x:1", "deny r2"},
		{[]string{image("'*'"), deny("actions: [docker.run], images: [ghcr.io/*]")}, "ann test docker run ghcr.io:5000/evil/x:1", "allow r1"},
		{[]string{image("docker.io/library/alpine")}, "ann test docker run evil/alpine", "deny default"},
		{[]string{image("docker.io/library/alpine")}, "ann test docker run evil.example/library/alpine", "deny default"},
		{[]string{image("docker.io/library/alpine")}, "ann test docker run localhost/library/alpine", "deny default"},
		{[]string{image("docker.io/library/alpine:3.*")}, "ann test docker run alpine:3.20", "allow r1"},
		{[]string{image("docker.io/library/alpine:3.*")}, "ann test docker run alpine", "deny default"},
		{[]string{image("docker.io/library/alpine:3.*")}, "ann test docker run alpine:3.20" + digest, "deny default"}, // Docker takes the digest
		{[]string{image("docker.io/library/alpine:latest")}, "ann test docker run alpine", "allow r1"},
		{[]string{image("docker.io/library/alpine" + digest)}, "ann test docker run alpine" + digest, "allow r1"},
		{[]string{image("docker.io/library/alpine" + digest)}, "ann test docker run alpine", "deny default"},
		{[]string{image("registry.example:5000/team-*")}, "ann test docker run registry.example:5000/team-a/web:1", "allow r1"},
		{[]string{image("registry.example:5000/team-*")}, "ann test docker run registry.example/team-a/web:1", "deny default"},
		{[]string{image("registry.example/*")}, "ann test docker run evil.example/registry.example/web", "deny default"},
		{[]string{image("registry.example/*")}, "ann test docker run registry.example.evil/web", "deny default"},
		{[]string{image("docker.io/*")}, "ann test docker run " + strings.Repeat("ab12", 16), "deny default"}, // an ID
		{[]string{image("docker.io/*")}, "ann test docker run UPPER", "deny default"},
		{[]string{image("docker.io/*")}, "ann test docker run a//b", "deny default"},
		{[]string{devRun, deny("actions: [docker.run], images: ['*.example/*']")}, "ann test docker run evil.example/x", "deny r2"},
		{[]string{devRun, deny("actions: [docker.run], images: ['*.example/*']")}, "ann test docker run alpine", "allow r1"},
		{[]string{devRun, deny("actions: [docker.run], images: ['*.example/*']")}, "ann test docker run UPPER", "deny r2"},
		{[]string{devRun, deny("actions: [docker.run], images: ['docker.io/library/alpine:2']")}, "ann test docker run alpine" + digest, "deny r2"},
		{[]string{devRun, deny("actions: [docker.run], images: ['docker.io/library/alpine" + digest + "']")}, "ann test docker run alpine:3", "deny r2"},
		{[]string{devRun, deny("actions: [docker.run], images: ['docker.io/library/alpine" + digest + "']")}, "ann test docker run busybox:3", "allow r1"},
		// The limits are below the rules.
		{[]string{devExec}, "ann,dev prod docker exec -it x bash", "allow r1"},
		{[]string{devExec}, "ann,dev prod docker exec x sh", "allow r1"},
		{[]string{devExec}, "ann,dev prod docker exec x sh -c id", "deny limits.exec.commands"},
		{[]string{devExec}, "ann,dev prod docker exec x /bin/sh", "deny limits.exec.commands"},
		{[]string{devExec}, "ann,dev prod docker exec --privileged x sh", "deny limits.exec.privileged"},
		{[]string{devExec}, "ann,dev prod docker exec -u 0 x sh", "deny limits.exec.users"},
		{[]string{devExec}, "ann,dev prod docker exec -e LD_PRELOAD=/x x sh", "deny limits.exec.env"},
		{[]string{devExec}, "ann,dev prod docker exec -w / x sh", "deny limits.exec.workdir"},
		{[]string{devExec}, "ann,dev prod docker exec -dit x sh", "deny limits.exec.detach"},
		{[]string{devExec}, "bob prod docker exec --privileged x sh", "deny default"},
		{[]string{devRun}, "ann test docker run --privileged alpine", "deny limits.run.privileged"},
		{[]string{devRun}, "ann test docker run -p 22:22 alpine", "deny limits.run.publish"},
		{[]string{devRun}, "ann test docker run -P alpine", "deny limits.run.publish"},
		{[]string{devRun}, "ann test docker run -m 1g alpine", "deny limits.run.memory"},
		{[]string{devRun}, "ann test docker run -m 512m --cpus 1 --pids-limit 256 alpine", "allow r1"},
		{[]string{devRun}, "ann test docker run -m -1 alpine", "deny limits.run.memory"},
		{[]string{devRun}, "ann test docker run --cpus 1.1 alpine", "deny limits.run.cpus"},
		{[]string{devRun}, "ann test docker run --cpus NaN alpine", "deny limits.run.cpus"},
		{[]string{devRun}, "ann test docker run --pids-limit -1 alpine", "deny limits.run.pids"},
		{[]string{devRun}, "ann test docker run --network host alpine", "deny limits.run.networks"},
		{[]string{devRun}, "ann test docker run --network container:x alpine", "deny limits.run.networks"},
		{[]string{devRun}, "ann test docker run --network none alpine", "allow r1"},
		{[]string{devRun}, "ann test docker run -u 0 alpine", "deny limits.run.users"},
		{[]string{devRun}, "ann test docker run -v /etc:/h:ro alpine", "deny limits.run.binds"},
		{[]string{devRun}, "ann test docker run -v data:/h alpine", "deny limits.run.volumes"},
		{[]string{devRun}, "ann test docker run -v /cache alpine", "allow r1"},
	} {
		name := tt.ask
		t.Run(name, func(t *testing.T) {
			if tt.want == "question" {
				if _, err := ParseCommand(strings.Fields(tt.ask)[2:]); err == nil {
					t.Errorf("%q is a command", tt.ask)
				}
				return
			}
			d := withRules(t, tt.rules...).Decide(question(t, tt.ask))
			if got := d.Effect().String() + " " + d.Rule(); got != tt.want {
				t.Errorf("%s\nrules %q\ngot %s (%s), want %s", tt.ask, tt.rules, got, d.Reason(), tt.want)
			}
		})
	}
}

// What the file says of jump servers only takes away, and a key that it does not
// name gets nothing.
func TestAJumpServersKeyBoundsItsCallers(t *testing.T) {
	const a, b = "ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "ed25519:BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	const site = `
environments:
  - {name: prod, cluster: prod}
  - {name: test, cluster: test, production: false}
rules:
  - {name: look, effect: allow, principals: [user:ann], actions: [docker.ps, docker.logs], environments: ['*']}
  - {name: not-stats, effect: deny, principals: [user:ann], actions: [docker.stats]}
`
	for _, tt := range []struct {
		name, entries, key, environment string
		action                          Action
		want                            string
	}{
		{"an entry for a key that led to it", "{name: e, keys: ['" + b + "'], environments: ['*'], actions: [docker.ps]}", a + " " + b, "test", DockerPs, "allow look"},
		{"and no more than that one may", "{name: e, keys: ['" + b + "'], environments: ['*'], actions: [docker.ps]}", a + " " + b, "test", DockerLogs, "deny jump-servers"},
		{"an entry for one that it led to", "{name: e, keys: ['" + a + "'], environments: ['*'], actions: [docker.ps]}", b, "test", DockerPs, "deny jump-servers"},
		{"on the host itself", "", "", "prod", DockerPs, "allow look"},
		{"no entries", "", a, "test", DockerPs, "deny jump-servers"},
		{"no entry for the key", "{name: e, keys: ['" + b + "'], environments: ['*'], actions: [docker.ps]}", a, "test", DockerPs, "deny jump-servers"},
		{"an entry for it", "{name: e, keys: ['" + a + "'], environments: ['*'], actions: [docker.ps]}", a, "test", DockerPs, "allow look"},
		{"an entry for all", "{name: e, keys: ['*'], environments: ['*'], actions: [docker.ps]}", a, "test", DockerPs, "allow look"},
		{"another action", "{name: e, keys: ['*'], environments: ['*'], actions: [docker.ps]}", a, "test", DockerLogs, "deny jump-servers"},
		{"another environment", "{name: e, keys: ['*'], environments: [test], actions: [docker.ps]}", a, "prod", DockerPs, "deny jump-servers"},
		{"two entries add up", "{name: e, keys: ['*'], environments: [test], actions: [docker.ps]}, {name: f, keys: ['" + a + "'], environments: [prod], actions: [docker.ps]}", a, "prod", DockerPs, "allow look"},
		{"but not across", "{name: e, keys: ['*'], environments: [test], actions: [docker.ps]}, {name: f, keys: ['*'], environments: [prod], actions: [docker.logs]}", a, "prod", DockerPs, "deny jump-servers"},
		{"an entry allows nothing by itself", "{name: e, keys: ['*'], environments: ['*'], actions: [docker.images]}", a, "test", DockerImages, "deny default"},
		{"nor undoes a rule that denies", "{name: e, keys: ['*'], environments: ['*'], actions: [docker.stats]}", a, "test", DockerStats, "deny not-stats"},
		{"nor the floor", "{name: e, keys: ['*'], environments: ['*'], actions: [docker.pull]}", a, "prod", DockerPull, "deny floor"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Parse("p.yaml", []byte(site+"jump-servers: ["+tt.entries+"]\n"))
			if err != nil {
				t.Fatal(err)
			}
			key, former, _ := strings.Cut(tt.key, " ")
			r := Request{Principal: Principal{User: "ann", Key: key, Former: strings.Fields(former)}, Environment: tt.environment, Action: tt.action}
			for what, d := range map[string]Decision{"Decide": p.Decide(r), "Possible": p.Possible(r)} {
				if got := d.Effect().String() + " " + d.Rule(); got != tt.want {
					t.Errorf("%s: got %s (%s), want %s", what, got, d.Reason(), tt.want)
				}
			}
		})
	}
}

// Who reads the file has to be told of entries that bound no key.
func TestEntriesForAnyKeyAreKnown(t *testing.T) {
	p, err := Parse("p.yaml", []byte(`
environments: [{name: test, cluster: test, production: false}]
jump-servers:
  - {name: named, keys: ['ed25519:WRITE-HERE-WHAT-r3-admin-keys-show-PRINTS-0'], environments: [test], actions: [docker.ps]}
  - {name: all, keys: ['*'], environments: [test], actions: [docker.ps]}
rules: []
`))
	if err != nil {
		t.Fatal(err)
	}
	if got := p.AnyJumpServer(); !slices.Equal(got, []string{"all"}) {
		t.Errorf("got %q", got)
	}
	var none *Policy
	if got := none.AnyJumpServer(); got != nil {
		t.Errorf("of no policy: %q", got)
	}
}

// Where it is required, of two actions only, and by environment too.
func TestAReasonCanBeRequired(t *testing.T) {
	const site = `
environments:
  - {name: prod, cluster: prod}
  - {name: test, cluster: test, production: false, limits: {reason: optional}}
limits: {reason: required}
rules:
  - {name: all, effect: allow, principals: [user:ann], actions: [ecs.deploy, ecs.rollback, ecs.wait, ecs.deployments], environments: ['*']}
`
	p, err := Parse("p.yaml", []byte(site))
	if err != nil {
		t.Fatal(err)
	}
	for ask, want := range map[string]string{
		"ann prod ecs deploy --container-type web --image-url web:1":                   "deny limits.reason",
		"ann prod ecs deploy --container-type web --image-url web:1 --reason ticket-7": "allow all",
		"ann prod ecs rollback --container-type web --yes":                             "deny limits.reason",
		"ann prod ecs rollback --container-type web --reason=ticket-7":                 "allow all",
		"ann prod ecs wait --container-type web":                                       "allow all",
		"ann prod ecs deployments":                                                     "allow all",
		"ann test ecs deploy --container-type web --wait-drained -q":                   "allow all",
		"bob prod ecs deploy --container-type web --on-interrupt leave":                "deny default",
	} {
		r := question(t, ask)
		d := p.Decide(r)
		if got := d.Effect().String() + " " + d.Rule(); got != want {
			t.Errorf("%s: got %s (%s), want %s", ask, got, d.Reason(), want)
		}
		if !p.Possible(r).Allowed() && r.Principal.User == "ann" {
			t.Errorf("%s: it is not possible", ask)
		}
	}
	r := question(t, "ann prod ecs deploy --container-type web")
	if r.Reason = " \t"; p.Decide(r).Allowed() {
		t.Error("nothing but spaces is a reason")
	}
}

func TestTheZeroValueDenies(t *testing.T) {
	var d Decision
	if d.Allowed() || d.Effect() != Deny || d.Rule() != "default" || d.Reason() == "" {
		t.Errorf("the zero Decision: %v, %q, %q", d.Effect(), d.Rule(), d.Reason())
	}
	var zero Policy
	for _, p := range []*Policy{nil, &zero} {
		for a := noAction; a <= actionCount; a++ {
			r := Request{Principal: Principal{User: "root"}, Environment: "prod", Action: a, Exec: &Exec{Argv: []string{"sh"}}, Run: &Run{}}
			if p.Decide(r).Allowed() || p.Possible(r).Allowed() || p.Explain(r).Allowed() {
				t.Errorf("an empty policy allows %v", a)
			}
		}
	}
	if !(*Policy)(nil).Redacted("prod", "PATH") {
		t.Error("no policy shows values")
	}
}

func TestWhatIsNotKnownIsNotAllowed(t *testing.T) {
	p := withRules(t, devExec, devRun)
	for _, tt := range []struct {
		name string
		r    Request
	}{
		{"no user", Request{Principal: Principal{Groups: []string{"dev"}}, Environment: "prod", Action: DockerExec, Exec: &Exec{Argv: []string{"sh"}}}},
		{"no command", Request{Principal: Principal{User: "ann", Groups: []string{"dev"}}, Environment: "prod", Action: DockerExec}},
		{"no run", Request{Principal: Principal{User: "ann"}, Environment: "test", Action: DockerRun, Resource: Resource{Image: "alpine"}}},
		{"no action", Request{Principal: Principal{User: "ann", Groups: []string{"dev"}}, Environment: "prod"}},
		{"an action from the future", Request{Principal: Principal{User: "ann", Groups: []string{"dev"}}, Environment: "test", Action: 200}},
	} {
		if d := p.Decide(tt.r); d.Allowed() {
			t.Errorf("%s: allowed by %s", tt.name, d.Rule())
		}
	}
}

func TestAnEnvironmentIsProductionUnlessItSaysOtherwise(t *testing.T) {
	p := parse(t, "environments: [{name: e, cluster: c}]\nrules: []\n")
	if e, ok := p.Environment("e"); !ok || !e.Production {
		t.Errorf("got %+v, want production", e)
	}
	if _, ok := p.Environment("nosuch"); ok {
		t.Error("there is an environment that there is not")
	}
}

func TestObligationsOfAllMatchingRulesAddUp(t *testing.T) {
	const plain = "effect: allow, principals: [user:ann], actions: [docker.exec], environments: [prod]"
	for _, tt := range []struct {
		rules []string
		want  Recording
	}{
		{[]string{plain}, RecordNothing},
		{[]string{plain, plain + ", record: output"}, RecordOutput},
		{[]string{plain + ", record: all", plain + ", record: output", plain}, RecordAll},
	} {
		d := withRules(t, tt.rules...).Decide(question(t, "ann prod docker exec x sh"))
		if !d.Allowed() || d.Obligations.Record != tt.want || d.Obligations.Limits == nil {
			t.Errorf("%q: got %v, recording %v, want %v", tt.rules, d.Effect(), d.Obligations.Record, tt.want)
		}
	}
}

func TestPossibleAsksBeforeTheResourceIsKnown(t *testing.T) {
	const web = "effect: allow, principals: [user:ann], actions: [ecs.deploy], environments: [prod], container-types: [web]"
	for _, tt := range []struct {
		rules []string
		ask   string
		want  bool
	}{
		{[]string{web}, "ann prod ecs deploy", true},
		{[]string{web}, "ann test ecs deploy", false},
		{[]string{web}, "bob prod ecs deploy", false},
		{[]string{web, "effect: deny, principals: ['*'], actions: [ecs.deploy], container-types: [pay]"}, "ann prod ecs deploy", true},
		{[]string{web, "effect: deny, principals: ['*'], actions: [ecs.deploy]"}, "ann prod ecs deploy", false},
		{[]string{devRun}, "ann prod docker run alpine", false},
	} {
		if got := withRules(t, tt.rules...).Possible(question(t, tt.ask)).Allowed(); got != tt.want {
			t.Errorf("%q %s: got %v, want %v", tt.rules, tt.ask, got, tt.want)
		}
	}
}

// What is certain is what Decide says of every container and image, or less.
func TestCertainIsWhateverTheResourceIs(t *testing.T) {
	const all = "effect: allow, principals: [user:ann], actions: [docker.exec], environments: [prod]"
	for _, tt := range []struct {
		name   string
		rules  []string
		want   bool
		record Recording
	}{
		{"a rule about all", []string{all}, true, RecordNothing},
		{"a rule about some", []string{all + ", container-types: [web]"}, false, RecordNothing},
		{"a rule about some images", []string{all + ", images: [docker.io/library/web]"}, false, RecordNothing},
		{"a rule about this host", []string{all + ", hosts: [h1]"}, true, RecordNothing},
		{"a rule about another host", []string{all + ", hosts: [h2]"}, false, RecordNothing},
		{"a denial of some", []string{all, "effect: deny, principals: ['*'], actions: [docker.exec], container-types: [pay]"}, false, RecordNothing},
		{"a denial on another host", []string{all, "effect: deny, principals: ['*'], actions: [docker.exec], hosts: [h2]"}, true, RecordNothing},
		{"some are recorded", []string{all, all + ", container-types: [pay], record: all"}, true, RecordAll},
		{"somebody else's rule", []string{strings.Replace(all, "ann", "bob", 1)}, false, RecordNothing},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, q := withRules(t, tt.rules...), question(t, "ann prod docker exec x sh")
			q.Resource = Resource{Host: "h1"}
			d := p.Certain(q)
			if d.Allowed() != tt.want || d.Allowed() && d.Obligations.Record != tt.record {
				t.Errorf("got %v, recording %v", d.Effect(), d.Obligations.Record)
			}
			for _, kind := range []string{"web", "pay", None} {
				q.Resource = Resource{ContainerType: kind, Image: kind + ":1", Host: "h1"}
				if one := p.Decide(q); d.Allowed() && (!one.Allowed() || one.Obligations.Record > d.Obligations.Record) {
					t.Errorf("%s: it is not certain: %v, recording %v", kind, one.Effect(), one.Obligations.Record)
				}
			}
		})
	}
	q := question(t, "ann prod docker exec x id")
	q.Resource = Resource{Host: "h1"}
	if d := withRules(t, all).Certain(q); d.Rule() != "limits.exec.commands" {
		t.Errorf("a command beyond the limits: got rule %s", d.Rule())
	}
	if q.Exec = nil; !withRules(t, all).Certain(q).Allowed() {
		t.Error("the limits count before it is known what is to be done")
	}
}

func TestLimitsOfAnEnvironmentStandOverThoseOfTheFile(t *testing.T) {
	p := parse(t, `environments:
  - {name: prod, cluster: p, production: true}
  - name: test
    cluster: t
    production: false
    limits:
      exec: {commands: any, users: ["0"], env: [A], workdir: true, detach: true}
      run: {binds: [/srv/x, "/etc/ssl:ro"], volumes: ["scratch-*"], networks: [host], users: ["*"], publish: true, memory: 2GiB}
limits:
  exec: {commands: [[ls, -l]]}
  run: {pids: 10, for: 30m}
rules:
  - {name: r1, effect: allow, principals: [user:ann], actions: [docker.exec], environments: ["*"]}
  - {name: r2, effect: allow, principals: [user:ann], actions: [docker.run], environments: [test], images: ["*"]}
`)
	for ask, want := range map[string]string{
		"ann prod docker exec x ls -l":                            "r1",
		"ann prod docker exec x bash":                             "limits.exec.commands",
		"ann test docker exec -u 0 -e A=1 -w / -d x rm -r /":      "r1",
		"ann test docker exec -u 1 x sh":                          "limits.exec.users",
		"ann test docker exec -e B=1 x sh":                        "limits.exec.env",
		"ann test docker exec --privileged x sh":                  "limits.exec.privileged",
		"ann test docker run -v /srv/x:/x alpine":                 "r2",
		"ann test docker run -v /srv/x:/x:ro alpine":              "r2",
		"ann test docker run -v /etc/ssl:/x:ro alpine":            "r2",
		"ann test docker run -v /etc/ssl:/x alpine":               "limits.run.binds",
		"ann test docker run -v /srv/x/../..:/x alpine":           "limits.run.binds",
		"ann test docker run -v scratch-1:/x alpine":              "r2",
		"ann test docker run -v data:/x alpine":                   "limits.run.volumes",
		"ann test docker run --net host -u 0 -p 1:1 -m 2g alpine": "r2",
		"ann test docker run --net bridge alpine":                 "limits.run.networks",
		"ann test docker run --pids-limit 11 alpine":              "limits.run.pids",
	} {
		if got := p.Decide(question(t, ask)); got.Rule() != want {
			t.Errorf("%s: rule %s (%s), want %s", ask, got.Rule(), got.Reason(), want)
		}
	}
	if e, _ := p.Environment("test"); e.Limits.Run.For.Minutes() != 30 || e.Limits.Start.For.Hours() != 8 || e.Limits.Run.CPUs != 1 {
		t.Errorf("limits of test: %+v", e.Limits)
	}
}

func TestValuesOfSecretsAreRedacted(t *testing.T) {
	p := withRules(t)
	for name, want := range map[string]bool{
		"DB_PASSWORD": true, "api_token": true, "AWS_SECRET_ACCESS_KEY": true, "DSN": true, "PATH": false, "LANG": false, "": false,
	} {
		if got := p.Redacted("prod", name); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
	if !p.Redacted("nosuch", "PATH") {
		t.Error("in an unknown environment values are shown")
	}
}

func TestPrincipalsAreNamedOnce(t *testing.T) {
	p := withRules(t, devLook, devExec, devRun, "effect: deny, principals: [group:temp, group:dev], actions: ['*']")
	users, groups := p.Principals()
	if got := fmt.Sprint(users, groups, p.DeniedGroups()); got != "[ann] [dev temp] [temp dev]" {
		t.Errorf("got %s", got)
	}
}

func TestExplainNamesWhatDoesNotMatch(t *testing.T) {
	p := withRules(t, devLook, devExec, devRun,
		"effect: deny, principals: ['*'], actions: [docker.exec], container-types: [pay]",
		"effect: deny, principals: ['*'], actions: [docker.exec], hosts: [h]",
		"effect: deny, principals: ['*'], actions: [docker.exec], images: [evil.example/x]",
		"effect: allow, principals: [user:bob], actions: [docker.exec], environments: [prod]",
		"effect: allow, principals: [user:ann], actions: [docker.exec], environments: [test]")
	e := p.Explain(question(t, "ann,dev prod docker exec x sh @web #i =good.example/x"))
	want := []string{"it is not about docker.exec", "", "it is not about docker.exec", `it is not about the container type "web"`,
		`it is not about the host "i"`, `it is not about the image "good.example/x"`,
		`it does not name user "ann", nor any of the groups "dev"`, `it is not about the environment "prod"`}
	if !e.Allowed() || e.Rule() != "r2" || len(e.Considered) != len(want) {
		t.Fatalf("got %+v", e)
	}
	for i, c := range e.Considered {
		if c.Why != want[i] || c.Matched != (want[i] == "") || c.Line == 0 {
			t.Errorf("rule %s: %+v, want %q", c.Rule, c, want[i])
		}
	}
}

func TestTheExampleAnswersAsItSays(t *testing.T) {
	text, err := os.ReadFile("../policy.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p := parse(t, string(text))
	failed, total := p.Test("policy.example.yaml")
	if len(failed) > 0 || total < 15 {
		t.Errorf("%d tests, failed: %v", total, failed)
	}
	defaults := DefaultLimits()
	prod, _ := p.Environment("prod")
	defaults.Exec.Users, defaults.Exec.Env, defaults.Exec.Escapes = []string{}, []string{}, []string{}
	defaults.Run.Users, defaults.Run.Volumes, defaults.Run.Binds, defaults.Start.Escapes = []string{}, []string{}, []string{}, []string{}
	if got, want := fmt.Sprintf("%#v", prod.Limits), fmt.Sprintf("%#v", defaults); got != want {
		t.Errorf("the example says the defaults are\n%s\nthey are\n%s", got, want)
	}
	for ask, want := range map[string]string{
		"dev1,developers prod docker ps -a":                             "developers-look",
		"dev1,developers prod sudo show-ecs-service-status.py -s web":   "developers-look",
		"dev1,developers prod r3 container list --container-types":      "developers-look",
		"dev1,developers test docker exec web cat /etc/hosts @web":      "developers-exec-test",
		"dev1,developers prod docker start web":                         "floor",
		"dev1,developers test docker start web":                         "developers-start-test",
		"dev1,developers test docker rm web":                            "default",
		"dev1,developers prod r3 container deploy --container-type web": "default",
		"dev1,developers test r3 container deploy --container-type web": "developers-deploy-test",
		"dev1,developers,contractors prod docker exec web sh @web":      "contractors-no-inspect",
		"root prod docker ps":                                           "default",
	} {
		if got := p.Decide(question(t, ask)); got.Rule() != want {
			t.Errorf("%s: rule %s, want %s", ask, got.Rule(), want)
		}
	}
}

func TestDecideDoesNotAllocate(t *testing.T) {
	p := hundred(t)
	for _, ask := range []string{
		"u99,g1,g2,g3 test docker exec x sh @web #i-1 =docker.io/library/alpine:3",
		"u99 test docker run registry.example/team/web:1 #i-1",
		"u99 test docker run alpine #h99",
	} {
		r := question(t, ask)
		if d := p.Decide(r); !d.Allowed() {
			t.Fatalf("%s: %s (%s)", ask, d.Rule(), d.Reason())
		}
		if n := testing.AllocsPerRun(100, func() { p.Decide(r) }); n != 0 {
			t.Errorf("%s: %v allocations", ask, n)
		}
	}
}

// hundred is a policy of 100 rules, all of which a request has to be held against.
func hundred(t testing.TB) *Policy {
	var rules []string
	for i := range 100 {
		rules = append(rules, fmt.Sprintf("effect: allow, principals: [group:a%d, group:b%d, user:u%d], actions: [docker.exec, docker.run], environments: [test], images: ['registry.example/*', docker.io/library/alpine], hosts: ['i-*', h%d]", i, i, i, i))
	}
	return withRules(t, rules...)
}

// BenchmarkDecide asks a policy of 100 rules for the action and the environment:
// rules about others, and rules about the caller that differ in what they cover.
func BenchmarkDecide(b *testing.B) {
	for name, principals := range map[string]string{"of others": "group:aNN, user:uNN", "of mine": "group:staff, user:uNN"} {
		b.Run(name, func(b *testing.B) {
			text := site + "rules:\n"
			for i := range 100 {
				rule := "  - {name: rNN, effect: EFFECT, principals: [" + principals + "], actions: [docker.exec], environments: [test], images: ['registry.example/team-NN/*'], container-types: ['web-*', api]}\n"
				text += strings.NewReplacer("NN", fmt.Sprint(i), "EFFECT", []string{"allow", "deny"}[i%2]).Replace(rule)
			}
			p := parse(b, strings.Replace(text, "group:a98", "group:staff", 1))
			r := Request{Principal: Principal{User: "dev1", Groups: []string{"users", "developers", "docker-readers", "vpn", "staff"}}, Environment: "test", Action: DockerExec,
				Resource: Resource{ContainerType: "web-1", Image: "registry.example/team-98/web:1.2.3", Host: "i-0123456789"}, Exec: &Exec{Argv: []string{"bash"}}}
			if d := p.Decide(r); !d.Allowed() {
				b.Fatalf("%s: %s", d.Rule(), d.Reason())
			}
			b.ReportAllocs()
			for b.Loop() {
				p.Decide(r)
			}
		})
	}
}

func TestAnEnvironmentSaysHowItsHostsAreReachedAndWhichTheyAre(t *testing.T) {
	p := parse(t, `
environments:
  - {name: far, cluster: a, reach: ssm, hosts: ["i-0a*", "10.0.1.?"]}
  - {name: here, cluster: b}
rules: []
`)
	far, _ := p.Environment("far")
	here, _ := p.Environment("here")
	if far.Reach != ReachSSM || here.Reach != ReachLocal {
		t.Errorf("reach: far %v, here %v", far.Reach, here.Reach)
	}
	for _, tt := range []struct {
		env   Environment
		names []string
		want  bool
	}{
		{far, []string{"10.0.1.2", "i-0b1"}, true},
		{far, []string{"10.0.2.2", "i-0a1"}, true},
		{far, []string{"10.0.1.22", "i-0b1"}, false},
		{far, nil, false},
		{here, []string{"i-0b1"}, true},
	} {
		if got := tt.env.HasHost(tt.names...); got != tt.want {
			t.Errorf("%s has %v: got %v, want %v", tt.env.Name, tt.names, got, tt.want)
		}
	}
}

func TestAHostIsKnownByAnyOfItsNames(t *testing.T) {
	const rules = "effect: %s, principals: [user:ann], actions: [docker.ps], environments: [test]"
	allow, deny := fmt.Sprintf(rules, "allow"), fmt.Sprintf(rules, "deny")
	for _, tt := range []struct {
		name  string
		rules []string
		host  string
		names []string
		want  bool
	}{
		{"allowed by its other name", []string{allow + `, hosts: ["i-0a*"]`}, "10.0.0.1", []string{"i-0a1"}, true},
		{"denied by its other name", []string{allow, deny + `, hosts: ["i-0a*"]`}, "10.0.0.1", []string{"i-0a1"}, false},
		{"another host", []string{allow + `, hosts: ["i-0a*"]`}, "10.0.0.1", []string{"i-0b1"}, false},
		{"its first name", []string{allow + `, hosts: ["10.0.0.*"]`}, "10.0.0.1", []string{"i-0b1"}, true},
	} {
		p := withRules(t, tt.rules...)
		q := question(t, "ann test docker ps")
		q.Resource.Host, q.Resource.HostNames = tt.host, tt.names
		if got := p.Decide(q).Allowed(); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
		if got := p.Explain(q).Allowed(); got != tt.want {
			t.Errorf("%s, explained: got %v, want %v", tt.name, got, tt.want)
		}
	}
}
