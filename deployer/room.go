package deployer

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// surge is how many new tasks must find room beside the old ones for a
// deployment to get on: none where ECS may stop an old one first, whose place a
// new one then takes; one where it may not; all where traffic is shifted.
func surge(s situation) int {
	if s.desired == 0 || s.daemon {
		return 0
	}
	if s.shifts {
		return s.desired
	}
	if low, _ := bounds(s.desired, s.minPercent, s.maxPercent); low < s.desired {
		return 0
	}
	return 1
}

// unusable is why a host is out of the question for a task, whatever is free on
// it; empty if it is not.
func (h host) unusable(n need) string {
	switch {
	case h.status != "ACTIVE":
		return "is " + h.status
	case !h.connected:
		return "has an agent that ECS does not hear"
	case h.excluded:
		return "is ruled out by a placement constraint"
	}
	if p := h.platform(); n.platform.OS != "" && n.platform.OS != p.OS || n.platform.Arch != "" && n.platform.Arch != p.Arch {
		return "is " + p.String()
	}
	for _, a := range n.attributes {
		got, has := h.attributes[aws.ToString(a.Name)]
		if !has || a.Value != nil && *a.Value != got {
			return "lacks the attribute " + aws.ToString(a.Name)
		}
	}
	return ""
}

// full is why there is no room on a host for one more task; empty if there is.
// Left is how much there still is of what is short, for a %d in the reason.
func (h host) full(n need) (reason string, left int) {
	switch {
	case n.distinct && h.has > 0:
		return "has a task of it already (distinctInstance)", 0
	case h.memory < n.memory:
		return "has %d MiB memory left", h.memory
	case h.cpu < n.cpu:
		return "has %d CPU units left", h.cpu
	case h.gpus < n.gpus:
		return "has %d GPUs left", h.gpus
	}
	for _, p := range n.ports {
		if h.ports[p] {
			return "has port " + p + " taken", 0
		}
	}
	return "", 0
}

// capacity is how many more tasks a host takes, up to most.
func (h host) capacity(n need, most int) int {
	if reason, _ := h.full(n); reason != "" || h.unusable(n) != "" {
		return 0
	}
	if n.distinct || len(n.ports) > 0 {
		return 1
	}
	for _, r := range [][2]int{{h.cpu, n.cpu}, {h.memory, n.memory}, {h.gpus, n.gpus}} {
		if r[1] > 0 {
			most = min(most, r[0]/r[1])
		}
	}
	return most
}

// places is how many of count tasks find a place.
func places(hosts []host, n need, count int) int {
	total := 0
	for _, h := range hosts {
		total += h.capacity(n, count-total)
	}
	return total
}

// cramped finds that there is no room for a deployment; empty if there is.
func cramped(s situation, hosts []host, n need) string {
	want := surge(s)
	got := places(hosts, n, want)
	if got == want {
		return ""
	}
	what := "one more task"
	if want > 1 {
		what = fmt.Sprintf("%d more tasks, only for %d", want, got)
	}
	return fmt.Sprintf("the hosts have no room for %s beside the old ones (%s each): %s", what, n, why(hosts, n))
}

// String is what a task takes.
func (n need) String() string {
	parts := []string{fmt.Sprintf("%d CPU units, %d MiB", n.cpu, n.memory)}
	if n.gpus > 0 {
		parts = append(parts, countOf(n.gpus, "GPU", "GPUs"))
	}
	for _, p := range n.ports {
		parts = append(parts, "host port "+p)
	}
	return strings.Join(parts, ", ")
}

// mostReasons is how many reasons are told; of a large cluster's, the most frequent.
const mostReasons = 4

// why tells what keeps the hosts from taking a task: "2 have port 80/tcp taken".
func why(hosts []host, n need) string {
	if len(hosts) == 0 {
		return "the cluster has no hosts"
	}
	reasons := map[string]*shortage{}
	for _, h := range hosts {
		reason, left := h.unusable(n), 0
		if reason == "" {
			reason, left = h.full(n)
		}
		reason = cmp.Or(reason, "takes some")
		if reasons[reason] == nil {
			reasons[reason] = &shortage{reason: reason, first: h.name}
		}
		reasons[reason].hosts++
		reasons[reason].most = max(reasons[reason].most, left)
	}
	sorted := slices.SortedFunc(maps.Values(reasons), func(a, b *shortage) int {
		return cmp.Or(b.hosts-a.hosts, strings.Compare(a.reason, b.reason))
	})
	var parts []string
	for i, r := range sorted {
		if i == mostReasons {
			parts = append(parts, "…")
			break
		}
		parts = append(parts, r.String())
	}
	return strings.Join(parts, "; ")
}

// shortage is what several hosts are short of.
type shortage struct {
	reason string
	first  string // host
	hosts  int
	most   int // of what is left
}

func (s *shortage) String() string {
	text, number := s.reason, fmt.Sprint(s.most)
	if s.hosts == 1 {
		return s.first + " " + strings.Replace(text, "%d", number, 1)
	}
	return fmt.Sprintf("each of %d hosts (%s, …) %s", s.hosts, s.first, strings.Replace(text, "%d", "at most "+number, 1))
}

// misfit finds hosts that a task may be placed on and that cannot run the image.
func misfit(image Image, has []platform, hosts []host, n need) error {
	var bad []string
	wants := map[platform]bool{}
	usable := 0
	for _, h := range hosts {
		if h.unusable(n) != "" {
			continue
		}
		usable++
		if p := h.platform(); p.Arch != "" && !slices.Contains(has, p) {
			bad, wants[p] = append(bad, h.name), true
		}
	}
	if len(bad) == 0 {
		return nil
	}
	slices.Sort(bad)
	which := "the hosts that its tasks would be placed on are"
	if len(bad) < usable {
		which = fmt.Sprintf("%d of the %d hosts that its tasks may be placed on (%s, …) are", len(bad), usable, bad[0])
	}
	need := platformList(slices.Collect(maps.Keys(wants)))
	return refusal("build it for "+need+", or keep its tasks off those hosts: runtimePlatform in the task definition, or a placement constraint (attribute:ecs.cpu-architecture)",
		"image %s is for %s, and %s %s", image.Short(), platformList(has), which, need)
}
