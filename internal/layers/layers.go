// Package layers holds the import rules of the project as data, and checks them
// in its test.
//
// A rule says which packages of ours a package may reach, through whatever it
// imports, and what must never end up in it. The rules are what lets a reader
// trust a claim like "the gate has no AWS credentials" without reading the gate.
package layers

import (
	"fmt"
	"slices"
	"strings"
)

// Module is our module path.
const Module = "jumpsuite"

// Rule is what a package may and may not reach. Names of ours are without the
// module path; a name ending in / stands for all below it.
type Rule struct {
	Package string
	May     []string // packages of ours, besides those in Everywhere; nil: any
	Never   []string // import paths, or names of ours
	Why     string
}

// Everywhere are packages that any other may import: they know nothing of AWS,
// docker or policies.
var Everywhere = []string{"internal/cli", "internal/commandline", "internal/listen", "internal/pattern", "internal/together"}

// Groups of import paths, for rules.
const (
	awsSDK    = "github.com/aws/"
	docker    = "github.com/docker/docker/"
	dockerCLI = "github.com/docker/cli/"
	http      = "net/http"
	lab       = "internal/lab/"
)

// Rules are the rules. A package without one may import what it likes.
var Rules = []Rule{
	{"policy", []string{}, []string{http, awsSDK, docker, dockerCLI, "internal/cli"}, "the deciding code has no edges: what decides cannot be talked to"},
	{"internal/audit", []string{}, []string{awsSDK, "policy"}, "what records knows nothing of what it records"},
	{"internal/tunnel", []string{"internal/loopback"}, []string{awsSDK, "policy"}, "what carries bytes decides nothing, and holds no credentials"},
	{"internal/keys", []string{"internal/tunnel", "internal/loopback"}, []string{http, awsSDK, docker, "policy"}, "what keeps keys reads files, and no more"},
	{"internal/enrol", []string{"internal/keys", "internal/tunnel", "internal/loopback"}, []string{docker, "policy"}, "it knows public keys, and decides nothing"},
	{"internal/session", []string{"internal/session/", "internal/intact"}, []string{"policy"}, "what carries bytes decides nothing"},
	{"internal/caller", []string{}, []string{http, awsSDK, docker, dockerCLI, "policy"}, "it runs before the environment is clean: what it links could have read it"},
	{"internal/awsconfig", []string{}, []string{docker, dockerCLI, "policy"}, "what has AWS credentials decides nothing"},
	{"internal/ecrlogin", []string{}, []string{http, awsSDK, docker, dockerCLI}, "what the gate links to ask for a login cannot ask AWS itself"},
	{"internal/installed", []string{}, []string{http, awsSDK, docker, dockerCLI}, "it says what root runs"},
	{"internal/taskcopy", []string{"ecsstatus"}, []string{docker, dockerCLI, "policy"}, "it says what would be run, and runs and decides nothing"},
	{"internal/carrier", []string{}, []string{http, awsSDK, docker, dockerCLI}, "what has the tunnel's keys links it to ask for streams, and cannot ask AWS itself"},
	{"ecsstatus", []string{}, []string{"policy", "internal/audit", docker}, "reading asks nobody for leave: its caller has"},
	{"deployer", []string{"ecsstatus", "internal/audit", "internal/awsconfig"}, []string{docker, dockerCLI, "internal/session/", "policy"}, "it changes services, and never a host"},
	{"dockerproxy", []string{"policy", "internal/audit"}, []string{awsSDK, dockerCLI, "internal/session/"}, "what holds the Engine's socket has no AWS credentials"},
	{"cmd/r3-docker", []string{"policy", "dockerproxy", "internal/audit", "internal/caller", "internal/ecrlogin", "internal/tunnel", "internal/loopback", "internal/keys", "internal/carrier", "internal/installed"}, []string{awsSDK, dockerCLI, "internal/session/", "internal/commandline", "github.com/urfave/", "github.com/distribution/"}, "root's half of sudo docker has no AWS credentials, and stays small: it pays at each start for what it links"},
	{"cmd/r3-dockerproxy", []string{"policy", "dockerproxy", "internal/audit", "internal/caller", "internal/ecrlogin", "internal/tunnel", "internal/loopback", "internal/keys", "internal/witness"}, []string{awsSDK, dockerCLI, "internal/session/"}, "what holds the Engine's socket has no AWS credentials"},
	{"cmd/r3-docker-cli", []string{}, []string{awsSDK, "policy", "internal/audit", "google.golang.org/", "github.com/prometheus/", "github.com/klauspost/"}, "it runs as the caller, has nothing of root's, sends no telemetry, and packs no archives"},
	{"cmd/r3-ssm", []string{"internal/session/", "internal/intact", "internal/tunnel", "internal/loopback", "internal/keys", "internal/enrol", "internal/carrier", "internal/awsconfig", "ecsstatus"}, []string{"policy", "dockerproxy"}, "what has AWS credentials decides nothing"},
	{"cmd/r3-container", nil, []string{lab, docker, dockerCLI, "dockerproxy", "internal/session/", "internal/tunnel", "internal/carrier"}, "it reaches AWS, and hosts through sudo docker alone"},
	{"cmd/show-ecs-service-status", nil, []string{lab, docker, dockerCLI, "dockerproxy", "deployer", "internal/session/"}, "it only reads"},
	{"cmd/r3-admin", nil, []string{lab, dockerCLI, "deployer"}, "it reads files of the machine"},
	{"cmd/r3-ecr", nil, []string{lab, docker, dockerCLI, "dockerproxy"}, "what has AWS credentials does not hold the Engine's socket"},
}

// Graph says what each package imports.
type Graph map[string][]string

// Check returns what in the graph breaks a rule, and the names of rules whose
// package is not there.
func (g Graph) Check(rules []Rule) (broken []string, absent []string) {
	for _, r := range rules {
		from := Module + "/" + r.Package
		if _, ok := g[from]; !ok {
			absent = append(absent, r.Package)
			continue
		}
		broken = append(broken, g.check(r, from)...)
	}
	return broken, absent
}

func (g Graph) check(r Rule, from string) (broken []string) {
	via := g.reach(from)
	for _, pkg := range sorted(via) {
		switch {
		case pkg == from:
		case slices.ContainsFunc(r.Never, func(n string) bool { return under(pkg, n) }):
			broken = append(broken, fmt.Sprintf("%s must never link %s (%s): %s", r.Package, pkg, r.Why, path(via, pkg)))
		case r.May != nil && ours(pkg) && !r.allows(pkg):
			broken = append(broken, fmt.Sprintf("%s may not import %s (%s): %s", r.Package, pkg, r.Why, path(via, pkg)))
		}
	}
	return broken
}

func (r Rule) allows(pkg string) bool {
	in := func(n string) bool { return under(pkg, n) }
	return slices.ContainsFunc(r.May, in) || slices.ContainsFunc(Everywhere, in)
}

// reach walks the graph breadth first, and says for each package that it comes
// to from which one it came.
func (g Graph) reach(from string) (via map[string]string) {
	via = map[string]string{from: ""}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		for _, next := range g[queue[0]] {
			if _, seen := via[next]; !seen {
				via[next] = queue[0]
				queue = append(queue, next)
			}
		}
	}
	return via
}

// path shows how a package came in, the shortest way.
func path(via map[string]string, pkg string) string {
	steps := []string{pkg}
	for via[pkg] != "" {
		pkg = via[pkg]
		steps = append(steps, pkg)
	}
	slices.Reverse(steps)
	return strings.Join(steps, " → ")
}

func ours(pkg string) bool { return strings.HasPrefix(pkg, Module+"/") }

// under reports whether pkg is the package, or one of the folder, that a rule names.
func under(pkg, name string) bool {
	short := strings.TrimPrefix(pkg, Module+"/")
	if folder, ok := strings.CutSuffix(name, "/"); ok {
		return short == folder || strings.HasPrefix(short, name)
	}
	return short == name
}

func sorted(via map[string]string) []string {
	var list []string
	for pkg := range via {
		list = append(list, pkg)
	}
	slices.Sort(list)
	return list
}
