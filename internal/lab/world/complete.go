package world

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"reflect"
	"slices"
	"strings"
	"time"
)

// maxHosts bounds how many hosts alike a world may have: ECS takes 5,000 in a cluster.
const maxHosts = 5000

// problem is something wrong with a world, at a path such as services.2.image.
type problem struct{ path, text string }

// Complete fills in every default, so that later code looks nothing up: hosts
// are one by one with address, instance id, zone, size and architecture; a
// service has its family, containers (also those in short form), health checks,
// target groups and numbers. It reports all that is wrong. To complete a world twice changes nothing.
func (w *World) Complete() error {
	var errs []error
	for _, p := range w.complete() {
		errs = append(errs, fmt.Errorf("world: %s: %s", p.path, p.text))
	}
	return errors.Join(errs...)
}

func (w *World) complete() []problem {
	w.Account = or(w.Account, "123456789012")
	w.Region = or(w.Region, "eu-central-1")
	if w.Clock.Speed == 0 {
		w.Clock.Speed = 1
	}
	problems := w.check()
	if len(problems) > 0 {
		return problems
	}
	if w.Documents == nil {
		w.Documents = []Document{{Name: "jumpsuite-docker", Port: 2376}}
	}
	w.Link.Packets = or(w.Link.Packets, 1000)
	w.completeHosts()
	if problems := w.checkAddresses(); len(problems) > 0 {
		return problems
	}
	for i := range w.Images {
		w.Images[i].Complete()
	}
	for i := range w.Services {
		w.completeService(&w.Services[i])
	}
	return nil
}

// Complete fills in an image's defaults.
func (i *Image) Complete() {
	i.Arch = or(i.Arch, "amd64")
	i.HTTP = or(i.HTTP, 200)
	i.Size = or(i.Size, 40)
	if len(i.Tags) == 0 {
		i.Tags = []string{"latest"}
	}
}

// ECR is the host of the account's registry.
func (w *World) ECR() string { return w.Account + ".dkr.ecr." + w.Region + ".amazonaws.com" }

// Reference is the whole reference of an image that a world file names:
// repository:tag is in the account's ECR, unless its first part is a registry's host.
func (w *World) Reference(image string) string {
	host, _, ok := strings.Cut(image, "/")
	if ok && (strings.ContainsAny(host, ".:") || host == "localhost") {
		return image
	}
	return w.ECR() + "/" + image
}

func or[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

func (w *World) completeHosts() {
	address := netip.MustParseAddr("10.0.0.10")
	n := 0
	for i := range w.Clusters {
		var hosts []Host
		for _, h := range w.Clusters[i].Hosts {
			if h.IP != "" {
				address = netip.MustParseAddr(h.IP)
			}
			instance := h.Instance
			for k := range max(h.Count, 1) {
				one := h
				one.Count = 1
				one.IP = address.String()
				one.Instance = instanceID(instance, k, w.Seed, n)
				one.Zone = or(h.Zone, string(rune('a'+n%3)))
				one.CPU, one.Memory = or(h.CPU, 2048), or(h.Memory, 3900)
				one.Arch = or(h.Arch, "x86_64")
				hosts = append(hosts, one)
				address = address.Next()
				n++
			}
		}
		w.Clusters[i].Hosts = hosts
	}
}

// instanceID is the id of the k-th of hosts that are alike, the n-th of all.
func instanceID(first string, k int, seed int64, n int) string {
	if first != "" && k == 0 {
		return first
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "host %s %d %d", first, seed, n))
	return fmt.Sprintf("i-0%x", sum[:])[:19]
}

func (w *World) completeService(s *Service) {
	if s.Cluster == "" {
		s.Cluster = w.Clusters[0].Name
	}
	s.Family = or(s.Family, s.Name)
	s.NetworkMode = or(s.NetworkMode, "bridge")
	s.Scheduling = or(s.Scheduling, "REPLICA")
	s.Controller = or(s.Controller, "ECS")
	s.Strategy = or(s.Strategy, "ROLLING")
	s.Status = or(s.Status, "ACTIVE")
	s.Revision = or(s.Revision, 1)
	s.numbers()
	s.completeContainers()
	s.completeBalancers()
	if s.CircuitBreaker != nil {
		s.CircuitBreaker.Type = or(s.CircuitBreaker.Type, "BOUNDED_PERCENT")
		s.CircuitBreaker.Value = or(s.CircuitBreaker.Value, 50)
	}
}

// numbers sets the counts and percentages that AWS has as defaults.
func (s *Service) numbers() {
	least, most := 100, 200
	if s.Scheduling == "DAEMON" {
		least, most = 0, 100
	}
	one := 1
	for _, n := range []struct {
		p    **int
		zero *int
	}{{&s.Desired, &one}, {&s.Min, &least}, {&s.Max, &most}} {
		if *n.p == nil {
			*n.p = n.zero
		}
	}
}

func (s *Service) completeContainers() {
	if len(s.Containers) == 0 {
		s.Containers = []Container{{Image: or(s.Image, s.Name+":latest"), CPU: s.CPU, Memory: s.Memory, Port: s.Port, HostPort: s.HostPort, Health: s.Health, LogGroup: s.LogGroup}}
		s.Image, s.CPU, s.Memory, s.Port, s.HostPort, s.Health, s.LogGroup = "", 0, 0, 0, 0, nil, ""
	}
	for i := range s.Containers {
		c := &s.Containers[i]
		c.Name = or(c.Name, s.Name)
		if c.Memory == 0 && c.Reservation == 0 {
			c.Memory = 128
		}
		if c.Essential == nil {
			yes := true
			c.Essential = &yes
		}
		c.Health.complete()
	}
}

func (h *Health) complete() {
	if h == nil {
		return
	}
	h.Interval = or(h.Interval, Duration(30*time.Second))
	h.Timeout = or(h.Timeout, Duration(5*time.Second))
	h.Retries = or(h.Retries, 3)
}

func (s *Service) completeBalancers() {
	for i := range s.LoadBalancers {
		l := &s.LoadBalancers[i]
		l.TargetGroup = or(l.TargetGroup, s.Name)
		if s.Strategy != "ROLLING" && !l.Classic {
			l.Alternate = or(l.Alternate, l.TargetGroup+"-2")
		}
		l.Container = or(l.Container, s.Containers[0].Name)
		if l.Port == 0 {
			l.Port = s.port(l.Container)
		}
		l.Complete()
	}
}

// Complete fills in the health check of a target group.
func (l *LoadBalancer) Complete() {
	l.Path = or(l.Path, "/")
	l.Interval = or(l.Interval, Duration(30*time.Second))
	l.Timeout = or(l.Timeout, Duration(5*time.Second))
	l.Healthy, l.Unhealthy = or(l.Healthy, 5), or(l.Unhealthy, 2)
	if l.Delay == nil {
		delay := Duration(300 * time.Second)
		l.Delay = &delay
	}
}

func (s *Service) port(container string) int {
	for _, c := range s.Containers {
		if c.Name == container {
			return c.Port
		}
	}
	return 0
}

func (w *World) check() []problem {
	var out []problem
	if len(w.Account) != 12 || strings.Trim(w.Account, "0123456789") != "" {
		out = append(out, problem{"account", fmt.Sprintf("%q is not 12 digits", w.Account)})
	}
	if !regionName.MatchString(w.Region) {
		out = append(out, problem{"region", fmt.Sprintf("%q is no region such as eu-central-1", w.Region)})
	}
	out = append(out, w.Clock.checkSpeed()...)
	out = append(out, bounds(reflect.ValueOf(*w), "", "")...)
	out = append(out, w.checkClusters()...)
	seen := map[string]bool{}
	for i, s := range w.Services {
		at := fmt.Sprintf("services.%d", i)
		out = append(out, w.checkService(s, at)...)
		if key := s.Cluster + "/" + s.Name; seen[key] {
			out = append(out, problem{at + ".name", fmt.Sprintf("service %q is there twice", s.Name)})
		} else {
			seen[key] = true
		}
	}
	for i, m := range w.Images {
		out = append(out, m.check(fmt.Sprintf("images.%d", i))...)
	}
	out = append(out, w.Link.check()...)
	for i, d := range w.Documents {
		if d.Name == "" || (d.Port == 0) == (d.Content == "") {
			out = append(out, problem{fmt.Sprintf("documents.%d", i), "a document needs a name, and either a port or its content"})
		}
	}
	for i, f := range w.Faults {
		out = append(out, f.check(fmt.Sprintf("faults.%d", i))...)
	}
	for i, a := range w.Actions {
		out = append(out, a.check(fmt.Sprintf("actions.%d", i))...)
	}
	return out
}

func (w *World) checkClusters() []problem {
	var out []problem
	seen := map[string]bool{}
	for i, c := range w.Clusters {
		at := fmt.Sprintf("clusters.%d", i)
		if c.Name == "" {
			out = append(out, problem{at, "a cluster needs a name"})
		} else if !awsName.MatchString(c.Name) {
			out = append(out, problem{at + ".name", fmt.Sprintf("%q is no name of a cluster: up to 255 letters, numbers, - and _", c.Name)})
		}
		if seen[c.Name] {
			out = append(out, problem{at + ".name", fmt.Sprintf("cluster %q is there twice", c.Name)})
		}
		seen[c.Name] = true
		for k, h := range c.Hosts {
			out = append(out, h.check(fmt.Sprintf("%s.hosts.%d", at, k))...)
		}
	}
	return out
}

func (l Link) check() []problem {
	var out []problem
	for _, one := range []struct {
		name  string
		share float64
	}{{"lose", l.Lose}, {"repeat", l.Repeat}, {"swap", l.Swap}, {"damage", l.Damage}} {
		if !(one.share >= 0 && one.share <= 1) { // NaN neither
			out = append(out, problem{"link." + one.name, fmt.Sprintf("%g is not a share from 0 to 1", one.share)})
		}
	}
	return out
}

func (h Host) check(at string) []problem {
	var out []problem
	if _, err := netip.ParseAddr(h.IP); h.IP != "" && err != nil {
		out = append(out, problem{at + ".ip", fmt.Sprintf("%q is not an IP address", h.IP)})
	}
	if h.Count > maxHosts {
		out = append(out, problem{at + ".count", fmt.Sprintf("%d is not a number of hosts from 1 to %d", h.Count, maxHosts)})
	} else if last, err := netip.ParseAddr(h.IP); err == nil && !above(last, h.Count).IsValid() {
		out = append(out, problem{at + ".ip", fmt.Sprintf("there are no %d addresses from %s on", h.Count, h.IP)})
	}
	if h.Instance != "" && !strings.HasPrefix(h.Instance, "i-") {
		out = append(out, problem{at + ".instance", fmt.Sprintf("%q is not an instance id such as i-0123456789abcdef0", h.Instance)})
	}
	for port, address := range h.Forward {
		if _, _, err := net.SplitHostPort(address); port < 1 || port > maxPort || err != nil {
			out = append(out, problem{at + ".forward", fmt.Sprintf("%d: %q is not a port and an address such as 2376: 127.0.0.1:4711", port, address)})
		}
	}
	return append(out, one(at+".arch", h.Arch, "x86_64", "arm64")...)
}

// above is the n-th address from a on, invalid if there are not so many.
func above(a netip.Addr, n int) netip.Addr {
	for range n - 1 {
		a = a.Next()
	}
	return a
}

func (m Image) check(at string) []problem {
	var out []problem
	if m.Repository == "" {
		out = append(out, problem{at, "an image needs a repository"})
	}
	for i, p := range m.Platforms {
		out = append(out, one(fmt.Sprintf("%s.platforms.%d", at, i), or(p, "none"), "amd64", "arm64")...)
	}
	return append(out, one(at+".arch", m.Arch, "amd64", "arm64")...)
}

// For is the image that a host of an architecture (x86_64, arm64; empty means
// x86_64) gets of it. The error's text is docker's, for an image of several
// platforms without the host's.
func (i Image) For(host string) (Image, error) {
	if len(i.Platforms) == 0 {
		return i, nil
	}
	arch, docker := "amd64", "linux/amd64"
	if host == "arm64" {
		arch, docker = "arm64", "linux/arm64/v8"
	}
	if !slices.Contains(i.Platforms, arch) {
		return Image{}, fmt.Errorf("no matching manifest for %s in the manifest list entries", docker)
	}
	i.Arch, i.Platforms = arch, nil
	return i, nil
}

func (w *World) checkService(s Service, at string) []problem {
	var out []problem
	if s.Name == "" {
		out = append(out, problem{at, "a service needs a name"})
	} else if !awsName.MatchString(s.Name) {
		out = append(out, problem{at + ".name", fmt.Sprintf("%q is no name of a service: up to 255 letters, numbers, - and _", s.Name)})
	}
	known := slices.ContainsFunc(w.Clusters, func(c Cluster) bool { return c.Name == s.Cluster })
	switch {
	case s.Cluster == "" && len(w.Clusters) != 1:
		out = append(out, problem{at, fmt.Sprintf("which of the %d clusters is service %q in?", len(w.Clusters), s.Name)})
	case s.Cluster != "" && !known:
		out = append(out, problem{at + ".cluster", fmt.Sprintf("there is no cluster %q", s.Cluster)})
	}
	if len(s.Containers) > 0 && (s.Image != "" || s.CPU != 0 || s.Memory != 0 || s.Port != 0 || s.HostPort != 0 || s.Health != nil || s.LogGroup != "") {
		out = append(out, problem{at, "image, cpu, memory, port, host-port, health and log-group are the short form: with containers, they stand there"})
	}
	out = append(out, one(at+".network-mode", s.NetworkMode, "bridge", "host", "awsvpc")...)
	out = append(out, one(at+".scheduling", s.Scheduling, "REPLICA", "DAEMON")...)
	out = append(out, one(at+".controller", s.Controller, "ECS", "CODE_DEPLOY", "EXTERNAL")...)
	out = append(out, one(at+".strategy", s.Strategy, "ROLLING", "BLUE_GREEN", "LINEAR", "CANARY")...)
	out = append(out, one(at+".status", s.Status, "ACTIVE", "DRAINING", "INACTIVE")...)
	for i, h := range s.Hooks {
		out = append(out, h.check(fmt.Sprintf("%s.hooks.%d", at, i))...)
	}
	if s.CircuitBreaker != nil {
		out = append(out, one(at+".circuit-breaker.type", s.CircuitBreaker.Type, "BOUNDED_PERCENT", "UNBOUNDED_PERCENT", "COUNT")...)
	}
	return append(out, s.checkContainers(at)...)
}

func (h Hook) check(at string) []problem {
	out := slices.Concat(one(at+".type", h.Type, "AWS_LAMBDA", "PAUSE"), one(at+".result", h.Result, "SUCCEEDED", "FAILED"), one(at+".action", h.Action, "ROLLBACK", "CONTINUE"))
	if len(h.Stages) == 0 {
		out = append(out, problem{at, "a hook needs stages"})
	}
	for i, s := range h.Stages {
		out = append(out, one(fmt.Sprintf("%s.stages.%d", at, i), or(s, "none"), "RECONCILE_SERVICE", "PRE_SCALE_UP", "POST_SCALE_UP", "TEST_TRAFFIC_SHIFT",
			"POST_TEST_TRAFFIC_SHIFT", "PRE_PRODUCTION_TRAFFIC_SHIFT", "PRODUCTION_TRAFFIC_SHIFT", "POST_PRODUCTION_TRAFFIC_SHIFT")...)
	}
	return out
}

func (s Service) checkContainers(at string) []problem {
	var out []problem
	names := map[string]bool{}
	for i, c := range s.Containers {
		where := fmt.Sprintf("%s.containers.%d", at, i)
		if c.Image == "" {
			out = append(out, problem{where, "a container needs an image"})
		}
		if name := or(c.Name, s.Name); names[name] {
			out = append(out, problem{where, fmt.Sprintf("container %q is there twice", name)})
		} else {
			names[name] = true
		}
	}
	return out
}

// one refuses a value that is neither empty nor one of those that are known.
func one(at, value string, known ...string) []problem {
	if value == "" || slices.Contains(known, value) {
		return nil
	}
	return []problem{{at, fmt.Sprintf("%q is none of %s", value, strings.Join(known, ", "))}}
}

func (f Fault) check(at string) []problem {
	out := one(dot(at, "error"), f.Error, "throttle", "server", "denied", "unavailable", "cut", "concurrent")
	if f.Operation == "" {
		out = append(out, problem{at, "a fault needs an operation, or a pattern such as Describe*"})
	}
	if _, err := path.Match(f.Operation, ""); err != nil {
		out = append(out, problem{dot(at, "operation"), fmt.Sprintf("%q is not a pattern", f.Operation)})
	}
	if f.Error == "" && f.Latency == 0 && f.Stale == 0 {
		out = append(out, problem{at, "a fault needs an error, latency or stale"})
	}
	return out
}

// Affects reports whether a fault is about an operation.
func (f Fault) Affects(operation string) bool {
	ok, err := path.Match(f.Operation, operation)
	return err == nil && ok
}

func dot(at, name string) string {
	if at == "" {
		return name
	}
	return at + "." + name
}

// Check reports what is wrong with an action: its verb, or what the verb needs.
func (a Action) Check() error {
	var errs []error
	for _, p := range a.check("") {
		errs = append(errs, errors.New(p.text))
	}
	return errors.Join(errs...)
}

func (a Action) check(at string) []problem {
	help, ok := Verbs[a.Do]
	if !ok {
		return []problem{{dot(at, "do"), fmt.Sprintf("%q is none of %s", a.Do, strings.Join(verbs(), ", "))}}
	}
	if a.To == "" {
		return []problem{{at, fmt.Sprintf("%s needs to be told whom (to): %s", a.Do, help)}}
	}
	if head, _, _ := strings.Cut(help, ":"); strings.Contains(head, "VALUE") && a.Value == "" && !strings.HasPrefix(a.Do, "kill") {
		return []problem{{at, fmt.Sprintf("%s needs a value: %s", a.Do, help)}}
	}
	return nil
}

func verbs() []string {
	var names []string
	for name := range Verbs {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
