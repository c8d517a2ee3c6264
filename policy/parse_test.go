package policy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	docker "github.com/distribution/reference"
)

func TestMistakesAreFoundWithTheirPlaceAndTheirCure(t *testing.T) {
	const rule = "  - {name: r, effect: allow, principals: [user:ann], actions: [docker.ps], environments: [prod]}\n"
	for _, tt := range []struct{ name, text, want string }{
		{"empty file", "", "1:1: the file is empty: write at least 'environments:' and 'rules:'"},
		{"only a comment", "# nothing\n", "1:1: the file is empty: write at least 'environments:' and 'rules:'"},
		{"not YAML", "environments: [\n", "1:1: not YAML: did not find expected node content"},
		{"not a mapping", "- a\n", "1:1: the policy is a list: write keys and values (credentials, environments, limits, jump-servers, rules, tests)"},
		{"a second document", site + "rules: []\n---\nrules: []\n", "5:1: a second document: a policy is one document, remove the '---'"},
		{"no rules", site, "1:1: the policy has no rules: write rules: with a list of rules; an empty one, [], allows nothing"},
		{"no environments", "rules: []\n", "1:1: the policy has no environments: write environments: with a list of the environments"},
		{"unknown key", site + "rules: []\nrule: []\n", "5:1: unknown key \"rule\" in the policy: did you mean rules?"},
		{"key in capitals", site + "Rules: []\nrules: []\n", "4:1: unknown key \"Rules\" in the policy: did you mean rules?"},
		{"duplicate key", site + "rules: []\nrules: []\n", "5:1: a second \"rules\" in the policy (the first is in line 4): write it once"},
		{"key without a value", site + "rules:\n", "4:1: rules has no value: write one, or leave the key out"},
		{"merge key", site + "rules: []\n<<: {a: b}\n", "5:1: unknown key \"<<\" in the policy: write one of credentials, environments, limits, jump-servers, rules, tests"},
		{"an anchor on an effect", site + "rules:\n" + strings.Replace(rule, "allow", "&allow deny", 1), "5:23: an anchor (&allow): write the value without it"},
		{"an alias for an effect", site + "rules:\n" + strings.Replace(rule, "name: r", "name: &allow r", 1) + strings.Replace(strings.Replace(rule, "allow", "*allow", 1), "name: r", "name: s", 1), "5:12: an anchor (&allow): write the value without it\npolicy.yaml:6:23: an alias (*allow): write the value out"},
		{"a tag on a recording", site + "rules:\n" + strings.Replace(strings.Replace(rule, "docker.ps", "docker.exec", 1), "[prod]}", "[prod], record: !!str output}", 1), "5:108: a tag (!!str): write the value without it"},
		{"an anchor on credentials", "credentials: &x root\n" + site + "rules: []\n", "1:14: an anchor (&x): write the value without it"},
		{"a tag on commands", "limits: {exec: {commands: !!str any}}\n" + site + "rules: []\n", "1:27: a tag (!!str): write the value without it"},
		{"anchor", site + "rules: &a []\n", "4:8: an anchor (&a): write the value without it"},
		{"tag", site + "rules: !!seq []\n", "4:8: a tag (!!seq): write the value without it"},
		{"rules as a mapping", site + "rules: {a: b}\n", "4:8: rules is a mapping: write a list, [a, b] or a line '- a' for each"},
		{"rule as text", site + "rules: [a]\n", "4:9: a rule is the value \"a\": write keys and values (name, effect, principals, actions, environments, container-types, images, hosts, record)"},

		{"environment without a name", "environments: [{cluster: c}]\nrules: []\n", "1:16: an environment has no name: write name: with a word for people: prod, test"},
		{"environment without a cluster", "environments: [{name: e}]\nrules: []\n", "1:16: an environment has no cluster: write cluster: with the name of its ECS cluster"},
		{"a cluster's ARN", "environments: [{name: e, cluster: 'arn:aws:ecs:x:1:cluster/c'}]\nrules: []\n", "1:35: \"arn:aws:ecs:x:1:cluster/c\": write the cluster's name, not its ARN"},
		{"two of one name", "environments: [{name: e, cluster: c}, {name: e, cluster: d}]\nrules: []\n", "1:46: a second environment called \"e\": each has a name of its own"},
		{"production in words", "environments: [{name: e, cluster: c, production: no}]\nrules: []\n", "1:50: the value \"no\": write true or false"},
		{"production in quotes", "environments: [{name: e, cluster: c, production: 'false'}]\nrules: []\n", "1:50: the value \"false\": write true or false"},
		{"an unknown way to the hosts", "environments: [{name: e, cluster: c, reach: ssh}]\nrules: []\n", "1:45: reach \"ssh\": write ssm on a jump server, or local on a docker host"},
		{"a list of ways to the hosts", "environments: [{name: e, cluster: c, reach: [ssm]}]\nrules: []\n", "1:45: a list where one value is expected"},
		{"production in capitals", "environments: [{name: e, cluster: c, production: False}]\nrules: []\n", "1:50: the value \"False\": write true or false"},
		{"a region that is none", "environments: [{name: e, cluster: c, region: frankfurt}]\nrules: []\n", "1:46: \"frankfurt\": write a region like eu-central-1"},
		{"an account that is none", "environments: [{name: e, cluster: c, account: 12}]\nrules: []\n", "1:47: \"12\": write 12 digits, in quotes"},
		{"an endpoint with a path", "environments: [{name: e, cluster: c, endpoint: 'http://x/y'}]\nrules: []\n", "1:48: \"http://x/y\": write a URL like https://vpce-1234.ecs.eu-central-1.vpce.amazonaws.com, without a path"},
		{"an endpoint with a user", "environments: [{name: e, cluster: c, endpoint: 'http://a@x'}]\nrules: []\n", "1:48: \"http://a@x\": write a URL like https://vpce-1234.ecs.eu-central-1.vpce.amazonaws.com, without a path"},
		{"a name that YAML reads as something else", "environments: [{name: true, cluster: c}]\nrules: []\n", "1:23: YAML takes true for something else than text: put it in quotes"},

		{"jump servers without keys", site + "rules: []\njump-servers: [{name: b, environments: ['*'], actions: [docker.ps]}]\n", "5:16: an entry of jump-servers has no keys: write keys: with a list of what 'r3-admin keys show' prints on the jump servers, or ['*'] for all that the host trusts"},
		{"jump servers with an empty list of keys", site + "rules: []\njump-servers: [{name: b, keys: [], environments: ['*'], actions: [docker.ps]}]\n", "5:32: no keys: an entry for no jump server; write keys, or ['*'] for all that the host trusts"},
		{"a key that is cut", site + "rules: []\njump-servers: [{name: b, keys: ['ed25519:AAAA'], environments: ['*'], actions: [docker.ps]}]\n", "5:33: \"ed25519:AAAA\" is no key: write what 'r3-admin keys show' prints, ed25519: and 43 characters"},
		{"jump servers without actions", site + "rules: []\njump-servers: [{name: b, keys: ['*'], environments: ['*']}]\n", "5:16: an entry of jump-servers has no actions: write actions: with a list of words like docker.logs"},
		{"jump servers with a wildcard", site + "rules: []\njump-servers: [{name: b, keys: ['*'], environments: ['*'], actions: ['ecs.*']}]\n", "5:70: \"ecs.*\" is for rules that deny: name what is allowed, among ecs.list, ecs.show, ecs.status, ecs.deploy, ecs.rollback, ecs.wait, ecs.deployments, ecs.debug"},
		{"jump servers in an unknown environment", site + "rules: []\njump-servers: [{name: b, keys: ['*'], environments: [tset], actions: [docker.ps]}]\n", "5:54: unknown environment \"tset\": did you mean test?"},
		{"two entries of one name", site + "rules: []\njump-servers: [{name: b, keys: ['*'], environments: [prod], actions: [docker.ps]}, {name: b, keys: ['*'], environments: [prod], actions: [docker.ps]}]\n", "5:91: a second entry called \"b\" (the first is in line 5): each has a name of its own"},
		{"effect with a typo", site + strings.Replace("rules:\n"+rule, "allow", "alow", 1), "5:23: effect \"alow\": write allow or deny"},
		{"effect in capitals", site + strings.Replace("rules:\n"+rule, "allow", "Allow", 1), "5:23: effect \"Allow\": write allow or deny"},
		{"rule without an effect", site + strings.Replace("rules:\n"+rule, "effect: allow, ", "", 1), "5:5: a rule has no effect: write effect: with allow or deny"},
		{"rule without a name", site + strings.Replace("rules:\n"+rule, "name: r, ", "", 1), "5:5: a rule has no name: write name: with what a refusal will call it: developers-read"},
		{"two of one name", site + "rules:\n" + rule + rule, "6:12: a second rule called \"r\" (the first is in line 5): each has a name of its own"},
		{"a rule called floor", site + strings.Replace("rules:\n"+rule, "name: r,", "name: floor,", 1), "5:12: a rule cannot be called \"floor\": that is what refusals of the code are called"},
		{"a principal of no kind", site + strings.Replace("rules:\n"+rule, "user:ann", "ann", 1), "5:43: principal \"ann\": write user:ann or group:ann"},
		{"a pattern for a principal", site + strings.Replace("rules:\n"+rule, "user:ann", "user:a*", 1), "5:43: principal \"user:a*\": names are taken as they are, without * and ?: list them, or use a group"},
		{"everyone allowed", site + strings.Replace("rules:\n"+rule, "user:ann", "'*'", 1), "5:43: \"*\" is for rules that deny: name the users and groups that are allowed, as user:NAME and group:NAME"},
		{"no principals", site + strings.Replace("rules:\n"+rule, "user:ann", "", 1), "5:42: no principals: a rule for nobody; write user:NAME or group:NAME"},
		{"an empty name", site + strings.Replace("rules:\n"+rule, "user:ann", "'user:'", 1), "5:43: principal \"user:\": \"\" is not a name of a user"},
		{"an action with a typo", site + strings.Replace("rules:\n"+rule, "docker.ps", "docker.pss", 1), "5:64: unknown action \"docker.pss\": did you mean docker.ps?"},
		{"an action that is a pattern", site + strings.Replace("rules:\n"+rule, "docker.ps", "ecs.*", 1), "5:64: \"ecs.*\" is for rules that deny: name what is allowed, among ecs.list, ecs.show, ecs.status, ecs.deploy, ecs.rollback, ecs.wait, ecs.deployments, ecs.debug"},
		{"an action that is part of a pattern", site + strings.Replace("rules:\n"+rule, "docker.ps", "'docker.p*'", 1), "5:64: unknown action \"docker.p*\": did you mean docker.ps?"},
		{"no actions", site + strings.Replace("rules:\n"+rule, "docker.ps", "", 1), "5:63: no actions: write words like docker.logs"},
		{"an environment with a typo", site + strings.Replace("rules:\n"+rule, "[prod]", "[pord]", 1), "5:91: unknown environment \"pord\": did you mean prod?"},
		{"a pattern for an environment", site + strings.Replace("rules:\n"+rule, "[prod]", "['p*']", 1), "5:91: environment \"p*\": patterns are not for environments; write names, or ['*'] for all"},
		{"allowed nowhere", site + strings.Replace("rules:\n"+rule, ", environments: [prod]", "", 1), "5:5: a rule has no environments: write environments: with a list of names of environments, or ['*'] for all"},
		{"denied in no environment", site + strings.Replace(strings.Replace("rules:\n"+rule, "[prod]", "[]", 1), "allow", "deny", 1), "5:89: no environments: write their names, or ['*'] for all"},
		{"a container type in a list of hosts", site + strings.Replace("rules:\n"+rule, "[prod]}", "[prod], container-types: [web]}", 1), "5:98: container-types says nothing about docker.ps: put that action in a rule without it"},
		{"an empty list", site + strings.Replace("rules:\n"+rule, "[prod]}", "[prod], hosts: []}", 1), "5:105: hosts is an empty list: leave it out to mean all, or write patterns"},
		{"a pattern that does not compile", site + strings.Replace("rules:\n"+rule, "[prod]}", "[prod], hosts: ['i-[0']}", 1), "5:106: pattern \"i-[0\" has '[', which means nothing here: write * for any characters and ? for one"},
		{"a pattern that never matches", site + strings.Replace("rules:\n"+rule, "[prod]}", "[prod], hosts: ['i 0']}", 1), "5:106: pattern \"i 0\" has ' ', which a host cannot have"},
		{"a recording of a look", site + strings.Replace("rules:\n"+rule, "[prod]}", "[prod], record: all}", 1), "5:98: record is for docker.exec, docker.run and docker.start; the rule has none of them"},
		{"run in production", site + "rules:\n  - {name: r, effect: allow, principals: [user:a], actions: [docker.ps, docker.start], environments: [test, prod]}\n", "5:5: rule \"r\" allows docker.start in prod, which is production: that is never allowed; leave out the action or the environment, or write 'production: false' if it is not"},
		{"run everywhere", site + "rules:\n  - {name: r, effect: allow, principals: [user:a], actions: [docker.start], environments: ['*']}\n", "5:5: rule \"r\" allows docker.start in prod, which is production: that is never allowed; leave out the action or the environment, or write 'production: false' if it is not"},
		{"run without images", site + "rules:\n  - {name: r, effect: allow, principals: [user:a], actions: [docker.run], environments: [test]}\n", "5:5: the rule allows docker.run, docker.pull or docker.create, and says nothing of images: write images: [REGISTRY/REPOSITORY:TAG], or ['*'] for any"},

		{"an image without a registry", images("alpine"), "5:106: image pattern \"alpine\" names no registry: write \"docker.io/library/alpine\""},
		{"an image of a registry in capitals", images("GHCR.io/x"), "5:106: image pattern \"GHCR.io/x\": write the registry as \"ghcr.io\""},
		{"an image of a registry with the usual port", images("ghcr.io:443/x"), "5:106: image pattern \"ghcr.io:443/x\": write the registry as \"ghcr.io\""},
		{"an image of a user", images("ann/web:1"), "5:106: image pattern \"ann/web:1\" names no registry: write \"docker.io/ann/web:1\""},
		{"an image without library", images("docker.io/alpine"), "5:106: image pattern \"docker.io/alpine\": write \"docker.io/library/alpine\""},
		{"any registry", images("*.amazonaws.com/web"), "5:106: image pattern \"*.amazonaws.com/web\" allows a registry by pattern, which others could own: write the registry out, or \"*\" for any image"},
		{"a short digest", images("x.example/web@sha256:12"), "5:106: image pattern \"x.example/web@sha256:12\": a digest is written sha256: and 64 hexadecimal digits"},
		{"a repository in capitals", images("x.example/Web"), "5:106: pattern \"Web\" has 'W', which a repository cannot have"},

		{"limits: unknown key", site + "limits: {exec: {command: [[sh]]}}\nrules: []\n", "4:17: unknown key \"command\" in limits.exec: did you mean commands?"},
		{"limits: a word that is none", site + "limits: {reason: yes}\nrules: []\n", "4:18: reason \"yes\": write required or optional"},
		{"limits: a list of reasons", site + "limits: {reason: [required]}\nrules: []\n", "4:18: a list where one value is expected"},
		{"limits: a command that is text", site + "limits: {exec: {commands: [bash]}}\nrules: []\n", "4:28: a command is the value \"bash\": write a list, [a, b] or a line '- a' for each"},
		{"limits: an empty command", site + "limits: {exec: {commands: [[]]}}\nrules: []\n", "4:28: an empty command: write its arguments, [bash]"},
		{"limits: a size without a unit", site + "limits: {run: {memory: 512}}\nrules: []\n", "4:24: \"512\": write a size like 512MiB or 2GiB"},
		{"limits: no CPU", site + "limits: {run: {cpus: 0}}\nrules: []\n", "4:22: \"0\": write a number of cores between 0.01 and 1024, like 0.5"},
		{"limits: not a number", site + "limits: {run: {cpus: .nan}}\nrules: []\n", "4:22: \".nan\": write a number of cores between 0.01 and 1024, like 0.5"},
		{"limits: octal", site + "limits: {run: {pids: 010}}\nrules: []\n", "4:22: \"010\": write a whole number between 1 and 4194304"},
		{"limits: forever", site + "limits: {start: {for: 1000h}}\nrules: []\n", "4:23: \"1000h\": write a time between 1m and 168h, like 8h or 30m"},
		{"limits: the whole host", site + "limits: {run: {binds: [/]}}\nrules: []\n", "4:24: \"/\": write an absolute path below /, with :ro after it for reading only"},
		{"limits: a path that goes up", site + "limits: {run: {binds: [/srv/../etc]}}\nrules: []\n", "4:24: \"/srv/../etc\": write an absolute path below /, with :ro after it for reading only"},
		{"test: not a command", site + "rules: []\ntests: [{user: a, environment: prod, command: docker build ., expect: deny}]\n", "5:47: unknown command \"docker build\": write one of " + strings.Join(Actions(), ", ")},
		{"test: without an answer", site + "rules: []\ntests: [{user: a, environment: prod, command: docker ps}]\n", "5:9: a test has no expect: write expect: with allow or deny"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Parse("policy.yaml", []byte(tt.text))
			if p != nil || err == nil || err.Error() != "policy.yaml:"+tt.want {
				t.Errorf("in\n%s\ngot  %v\nwant policy.yaml:%s", tt.text, err, tt.want)
			}
		})
	}
}

func images(pattern string) string {
	return site + "rules:\n  - {name: r, effect: allow, principals: [user:a], actions: [docker.run], environments: [test], images: ['" + pattern + "']}\n"
}

func TestAllMistakesAreFoundAtOnce(t *testing.T) {
	_, err := Parse("p.yaml", []byte(`environments:
  - {name: prod, cluster: c, prodution: false}
rules:
  - {name: a, effect: alow, principals: [ann], actions: [docker.pss], environments: [test]}
  - {name: a, effect: deny}
`))
	findings, ok := errors.AsType[Findings](err)
	if !ok || len(findings) != 8 {
		t.Fatalf("got %d findings, want 8:\n%v", len(findings), err)
	}
	for i := 1; i < len(findings); i++ {
		if findings[i].Line < findings[i-1].Line {
			t.Errorf("line %d comes after line %d", findings[i].Line, findings[i-1].Line)
		}
	}
	if findings.ExitCode() != 78 || findings.Hint() == "" {
		t.Errorf("exit code %d, hint %q", findings.ExitCode(), findings.Hint())
	}
}

func TestAPolicyTellsWhichOfItsTestsFail(t *testing.T) {
	p := parse(t, site+`rules: []
tests:
  - {user: a, environment: prod, command: docker ps, expect: deny}
  - {user: a, environment: prod, command: docker ps, expect: allow}
  - {user: a, environment: prod, command: docker run x, expect: deny, rule: default}
`)
	failed, total := p.Test("p.yaml")
	want := `p.yaml:7:5: test "docker ps" by a in prod: deny (rule default: no rule allows it), want allow
p.yaml:8:5: test "docker run x" by a in prod: deny (rule floor: it is never allowed in production, or where the environment is unknown), want deny (rule default)`
	if total != 3 || failed.Error() != want {
		t.Errorf("%d tests:\n%v\nwant\n%s", total, failed, want)
	}
}

func TestAFileIsTrustedOnlyIfItIsRoots(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: the file belongs to root")
	}
	text := site + "rules: []\n"
	for _, tt := range []struct {
		name string
		make func(path string) error
		want string
	}{
		{"root's", func(string) error { return nil }, ""},
		{"the group may read", func(p string) error { return os.Chmod(p, 0o640) }, ""},
		{"another's", func(p string) error { return os.Chown(p, 65534, 0) }, "belongs to uid 65534, not to 0"},
		{"the group may write", func(p string) error { return os.Chmod(p, 0o664) }, "mode 0664: others may write it"},
		{"all may write", func(p string) error { return os.Chmod(p, 0o646) }, "mode 0646: others may write it"},
		{"a symbolic link", func(p string) error { return errors.Join(os.Rename(p, p+"2"), os.Symlink(p+"2", p)) }, "too many levels of symbolic links"},
		{"a folder", func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o755)) }, "not a plain file"},
		{"a FIFO", func(p string) error { return errors.Join(os.Remove(p), syscall.Mkfifo(p, 0o644)) }, "not a plain file"},
		{"missing", os.Remove, "no such file or directory"},
		{"endless", func(p string) error { return os.Truncate(p, maxSize+1) }, "larger than 1048576 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "policy.yaml")
			if err := errors.Join(os.WriteFile(path, []byte(text), 0o644), os.Chmod(path, 0o644), tt.make(path)); err != nil {
				t.Fatal(err)
			}
			p, err := Load(path)
			if tt.want == "" {
				if err != nil || p == nil {
					t.Errorf("got %v", err)
				}
				return
			}
			want := "policy " + path + ": " + tt.want
			if p != nil || err == nil || err.Error() != want {
				t.Fatalf("got %v, want %s", err, want)
			}
			if e, ok := errors.AsType[*FileError](err); !ok || e.ExitCode() != 78 {
				t.Errorf("%T has no exit code 78", err)
			}
		})
	}
}

// universe is every request that can be made of a few names: of those in the
// policy, and of strangers.
func universe() []Request {
	var all []Request
	for _, who := range []Principal{{User: "ann"}, {User: "bob", Groups: []string{"dev"}}, {User: "cid", Groups: []string{"dev", "temp"}}, {User: "root", Groups: []string{"root"}}} {
		for _, env := range []string{"prod", "test", "nosuch", ""} {
			for a := DockerPs; a < actionCount; a++ {
				for _, res := range []Resource{{}, {"web", "registry.example/web:1", "h1", nil}, {"pay", "alpine", "h2", []string{"h3"}}, {None, None, None, nil}} {
					all = append(all, Request{who, env, a, res, &Exec{Argv: []string{"sh"}}, &Run{}, ""})
					if a == DockerExec {
						all = append(all, Request{who, env, a, res, &Exec{Argv: []string{"rm", "-r"}}, &Run{}, ""})
					}
				}
			}
		}
	}
	return all
}

func allowed(p *Policy) map[int]Obligations {
	out := map[int]Obligations{}
	for i, r := range universe() {
		if d := p.Decide(r); d.Allowed() {
			o := d.Obligations
			o.Limits = nil // another policy's are elsewhere
			out[i] = o
		}
	}
	return out
}

// randomRule is a rule that may stand in a policy.
func randomRule(rnd *rand.Rand) string {
	pick := func(list ...string) string { return list[rnd.IntN(len(list))] }
	if rnd.IntN(3) == 0 {
		return "effect: deny, principals: [" + pick("'*'", "user:ann", "group:dev", "group:temp", "user:bob, group:temp") + "], actions: [" +
			pick("'*'", "docker.*", "ecs.*", "docker.exec", "docker.run, ecs.deploy") + "]" +
			pick("", ", environments: [prod]", ", environments: [test]", ", environments: ['*']")
	}
	return "effect: allow, principals: [" + pick("user:ann", "group:dev", "group:temp", "user:bob, user:root") + "], " +
		pick("actions: [docker.ps, docker.logs], environments: ['*']", "actions: [docker.exec], environments: [prod, test], record: output",
			"actions: [docker.exec, docker.logs], environments: [prod], container-types: [web]", "actions: [docker.run, docker.pull], environments: [test], images: ['registry.example/*']",
			"actions: [ecs.deploy, ecs.show], environments: [prod], container-types: ['p*']", "actions: [docker.start], environments: [test], hosts: [h1]", "actions: [ecs.list], environments: [test]")
}

func randomRules(rnd *rand.Rand) []string {
	var rules []string
	for range 1 + rnd.IntN(8) {
		rules = append(rules, randomRule(rnd))
	}
	return rules
}

func TestOrderNeverMatters(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		rules := randomRules(rnd)
		want := allowed(withRules(t, rules...))
		rnd.Shuffle(len(rules), func(i, j int) { rules[i], rules[j] = rules[j], rules[i] })
		if got := allowed(withRules(t, rules...)); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("in another order other requests are allowed:\n%s", strings.Join(rules, "\n"))
		}
	}
}

func TestARuleMoreMovesTheVerdictItsOwnWayOnly(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	changed := 0
	for range 120 {
		rules := randomRules(rnd)
		more := randomRule(rnd)
		policy := withRules(t, rules...)
		before, after := allowed(policy), allowed(withRules(t, append(rules, more)...))
		if len(before) != len(after) {
			changed++
		}
		less, than := before, after
		if strings.Contains(more, "deny") {
			less, than = after, before
		}
		for i := range less {
			if _, ok := than[i]; !ok {
				t.Fatalf("%q turned request %+v round", more, universe()[i])
			}
		}
		// A rule that denies is not undone by any that allows.
		for i, r := range universe() {
			if d := policy.Decide(r); d.why == byRule && !d.Allowed() {
				if _, ok := after[i]; ok {
					t.Fatalf("%q undid a denial", more)
				}
			}
		}
	}
	if changed < 20 {
		t.Errorf("only %d of 120 rules changed anything: the test tests nothing", changed)
	}
}

// TestATypoNeverWidensThePolicy changes, drops, doubles and swaps single bytes.
// Whatever still parses must allow nothing that the file did not allow before.
// Not touched are the names that only the site knows, of users, groups,
// container types and the like: no parser can tell that "pay" was meant where
// "pya" stands. For those there are the file's own tests, and the notes that
// 'r3-admin policy check' makes about names it does not know. Nor is a # or a
// line break put in: these are not slips in a word, they take text away.
func TestATypoNeverWidensThePolicy(t *testing.T) {
	text := `environments:
  - name: prod
    cluster: prod-cluster
    production: true
  - name: test
    cluster: test-cluster
    production: false
limits:
  exec:
    commands: [[sh]]
  reason: required
rules:
  - name: look
    effect: allow
    principals: [group:dev]
    actions: [docker.ps, docker.logs]
    environments: [prod, test]
  - name: enter
    effect: allow
    principals: [group:dev]
    actions: [docker.exec]
    environments: [prod, test]
    record: output
  - name: begin
    effect: allow
    principals: [group:dev]
    actions: [docker.start]
    environments: [test]
    hosts: [h1]
  - name: ship
    effect: allow
    principals: [group:dev]
    actions: [ecs.deploy, ecs.rollback]
    environments: [prod, test]
  - name: nothing
    effect: deny
    principals: [group:temp]
    actions: [docker.exec]
    environments: [prod, test]
  - name: locked
    effect: deny
    principals: ["*"]
    actions: [docker.exec]
    container-types: [pay]
`
	want := allowed(parse(t, text))
	if len(want) < 20 {
		t.Fatalf("%d requests are allowed: the test tests nothing", len(want))
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	parsed, tries := 0, 0
	for line, start := 0, 0; start < len(text); line++ {
		end := start + strings.IndexByte(text[start:], '\n')
		for at := start; at < end; at++ {
			if ourWord(text[start:end], at-start) {
				for _, typo := range typos(text, at, rnd) {
					tries++
					p, err := Parse("p.yaml", []byte(typo))
					if err != nil {
						continue
					}
					parsed++
					for i, o := range allowed(p) {
						if was, ok := want[i]; !ok || o.Record < was.Record {
							t.Fatalf("line %d: %q\nnow allows %+v", line+1, strings.Split(typo, "\n")[line], universe()[i])
						}
					}
				}
			}
		}
		start = end + 1
	}
	if tries < 3000 || parsed < 50 {
		t.Errorf("%d typos, of which %d parse: the test tests nothing", tries, parsed)
	}
}

// ourWord reports whether the byte of a line is part of what the policy's
// grammar defines, and not of a name of the site.
func ourWord(line string, at int) bool {
	key, _, _ := strings.Cut(strings.TrimLeft(line, " -"), ":")
	colon := strings.IndexByte(line, ':')
	switch key {
	case "principals", "container-types", "hosts", "commands":
		return at < colon
	case "name", "cluster":
		return at < colon
	}
	return true
}

func typos(text string, at int, rnd *rand.Rand) []string {
	const letters = "abcdefghijklmnopqrstuvwxyz ABCXYZ0189-_.:,*?'\"[]{}&!|>%@`/\\"
	c := string(letters[rnd.IntN(len(letters))])
	out := []string{
		text[:at] + text[at+1:],               // left out
		text[:at] + text[at:at+1] + text[at:], // doubled
		text[:at] + c + text[at+1:],           // another key
		text[:at] + c + text[at:],             // one more key
		text[:at] + "*" + text[at+1:],
		text[:at] + strings.ToUpper(text[at:at+1]) + text[at+1:],
	}
	if text[at+1] != '\n' {
		out = append(out, text[:at]+text[at+1:at+2]+text[at:at+1]+text[at+2:]) // swapped
	}
	return out
}

// TestImagesAreReadAsDockerReadsThem holds our reading against the one that
// docker itself uses.
func TestImagesAreReadAsDockerReadsThem(t *testing.T) {
	for _, s := range imageSeeds {
		agree(t, s)
	}
}

var imageSeeds = []string{"alpine", "alpine:3", "ann/web", "localhost/x", "localhost:5000/x", "a.b/c/d:1", "docker.io/alpine", "docker.io/library/alpine",
	"index.docker.io/x", "Docker/x", "UPPER", "a//b", "/a", "a/", "", ":", "@", "a:", "a@", "a:1:2", "a.b:5000/c", "a:5000/c", "a@sha256:" + strings.Repeat("ab12", 16),
	"a:1@sha256:" + strings.Repeat("ab12", 16), strings.Repeat("ab12", 16), strings.Repeat("a", 300), "a..b", "a__b", "a---b", "-a", "[::1]:5000/x", "docker.io/a/b/c"}

func agree(t *testing.T, s string) {
	t.Helper()
	ours, ok := parseReference(s)
	theirs, err := docker.ParseDockerRef(s)
	if err != nil || !ok {
		return // what one of us does not take is allowed to nobody
	}
	path := ours.path
	if ours.library {
		path = "library/" + path
	}
	if ours.registry != sameHost(docker.Domain(theirs)) || path != docker.Path(theirs) {
		t.Errorf("%q: ours %s / %s, docker's %s / %s", s, ours.registry, path, docker.Domain(theirs), docker.Path(theirs))
	}
	if d, ok := theirs.(docker.Digested); ok != (ours.digest != "") || ok && d.Digest().String() != ours.digest {
		t.Errorf("%q: digest %q, docker's %v", s, ours.digest, theirs)
	}
	if tag, ok := theirs.(docker.Tagged); ok && tag.Tag() != ours.tag {
		t.Errorf("%q: tag %q, docker's %q", s, ours.tag, tag.Tag())
	}
	image, _ := ParseImage(s)
	if image.All() {
		image, _ = image.With("latest")
	}
	if image.String() != theirs.String() {
		t.Errorf("%q: in full %q, docker's %q", s, image, theirs)
	}
}

func TestAVersionIsATagOrADigest(t *testing.T) {
	web, ok := ParseImage("Reg.example:443/web")
	if !ok || !web.All() || web.Name != "Reg.example:443/web" {
		t.Fatalf("got %+v, %v", web, ok)
	}
	digest := "sha256:" + strings.Repeat("ab12", 16)
	for version, want := range map[string]string{"1.2": web.Name + ":1.2", digest: web.Name + "@" + digest,
		"": "", "5000/evil": "", "1@" + digest: "", "sha256:ab12": "", "-1": "", "a b": ""} {
		got, ok := web.With(version)
		if ok != (want != "") || ok && (got.String() != want || got.Version() != version) {
			t.Errorf("%q: got %v, %v, want %q", version, got, ok, want)
		}
	}
}

func FuzzImage(f *testing.F) {
	for _, s := range imageSeeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { agree(t, s) })
}

func FuzzParse(f *testing.F) {
	example, err := os.ReadFile("../policy.example.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(example))
	f.Add(site + "rules:\n  - {name: r, effect: allow, principals: [user:ann], actions: [docker.run], environments: [test], images: ['*']}\n")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse("p.yaml", []byte(text))
		if (p == nil) == (err == nil) {
			t.Fatalf("policy %v, error %v", p, err)
		}
		if err != nil {
			if findings, ok := errors.AsType[Findings](err); !ok || len(findings) == 0 {
				t.Fatalf("%T without findings", err)
			}
			return
		}
		for _, r := range []Request{
			{Principal{User: "ann", Groups: []string{"dev"}}, "nosuch", DockerPs, Resource{}, nil, nil, ""},
			{Principal{}, "prod", DockerPs, Resource{}, nil, nil, ""},
			{Principal{User: "ann", Groups: []string{"dev"}}, "test", DockerExec, Resource{}, nil, nil, ""},
			{Principal{User: "ann", Groups: []string{"dev"}}, "test", DockerExec, Resource{}, &Exec{Privileged: true, Argv: []string{"sh"}}, nil, ""},
			{Principal{User: "ann", Groups: []string{"dev"}}, "test", DockerRun, Resource{Image: "alpine"}, nil, &Run{Privileged: true}, ""},
		} {
			if d := p.Decide(r); d.Allowed() {
				t.Errorf("%+v is allowed by %s", r, d.Rule())
			}
		}
		for _, e := range p.Environments() {
			for a := DockerPs; a < actionCount; a++ {
				if e.Production && a.Floored() && p.Possible(Request{Principal: Principal{User: "ann", Groups: []string{"dev"}}, Environment: e.Name, Action: a}).Allowed() {
					t.Errorf("%v is possible in production", a)
				}
			}
		}
	})
}

func TestCommandsThatCannotBeReadAreNotGuessed(t *testing.T) {
	for _, tt := range []struct{ command, want string }{
		{"", `"" is not a command: write one like 'docker run alpine' or 'ecs deploy --container-type web'`},
		{"docker", `"docker" is not a command: write one like 'docker run alpine' or 'ecs deploy --container-type web'`},
		{"docker execc x sh", `unknown command "docker execc": did you mean docker.exec?`},
		{"docker exec x", "docker exec needs a container and a command"},
		{"docker exec --env-file /etc/shadow x sh", "option --env-file is not available"},
		{"docker exec -zi x sh", "option -z is not available"},
		{"docker exec -u", "option -u needs a value"},
		{"docker exec --privileged=false x sh", "option --privileged: leave the value out"},
		{"docker run", "docker run needs an image"},
		{"docker run --cap-add ALL alpine", "option --cap-add is not available"},
		{"docker run -m lots alpine", `option -m: "lots" is not a number`},
		{"docker pull a b", "docker pull needs one image"},
		{"ecs deploy web", `unexpected argument "web"`},
		{"ecs deploy --nosuch", "option --nosuch is not available"},
	} {
		_, err := ParseCommand(strings.Fields(tt.command))
		if err == nil || err.Error() != tt.want {
			t.Errorf("%q: got %v, want %s", tt.command, err, tt.want)
		}
	}
}

func TestOptionsAreReadAsDockerReadsThem(t *testing.T) {
	for _, command := range []string{
		"docker exec -itu0 -eA=1 --env=B=2 -w/x -- c sh -c -d",
		"docker exec -i -t -u 0 -e A=1 -e B --workdir=/x c sh -c -d",
		"docker exec --interactive --tty --user=0 --env A=1 --env B=2 -w /x c sh -c -d",
	} {
		r, err := ParseCommand(strings.Fields(command))
		want := Exec{Argv: []string{"sh", "-c", "-d"}, User: "0", Env: []string{"A", "B"}, WorkDir: "/x"}
		if err != nil || fmt.Sprintf("%+v", *r.Exec) != fmt.Sprintf("%+v", want) {
			t.Errorf("%q: got %+v, %v, want %+v", command, r.Exec, err, want)
		}
	}
}

// TestTheDocumentNamesEverything holds docs/policy.md against the code.
func TestTheDocumentNamesEverything(t *testing.T) {
	text, err := os.ReadFile("../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	words := append(Actions(), "production", "endpoint", "account", "container-types", "images", "hosts", "record", "expect",
		"exec.commands", "exec.users", "exec.env", "exec.workdir", "exec.detach", "exec.escapes", "start.escapes", "start.for",
		"run.memory", "run.cpus", "run.pids", "run.containers", "run.for", "run.networks", "run.users", "run.volumes", "run.binds", "run.publish", "run.digest", "redact")
	for _, word := range words {
		if !strings.Contains(string(text), "`"+word+"`") {
			t.Errorf("docs/policy.md says nothing of %s", word)
		}
	}
}
