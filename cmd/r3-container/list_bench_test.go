package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/world"
)

// latency is what each call takes at least.
const latency = 20 * time.Millisecond

// AWS's token bucket for reading clusters (ListTasks, DescribeTasks and so on):
// what is beyond the burst has to wait for the refill.
const burst, refill = 100, 20

// BenchmarkList runs the command, as it is built, on clusters with 20 tasks a
// host. Besides the time it tells
//
//	calls        that one run makes
//	×chain       the fastest run's time (what else the machine does only adds to it) as a multiple of the slowest chain of calls: ListTasks page after page, and one DescribeTasks
//	×least       the same of what AWS's token bucket lets through, where that is longer than the chain
//	MB           the most memory that a run had (resident set)
func BenchmarkList(b *testing.B) {
	command := build(b)
	for _, hosts := range []int{10, 100, 200, 1000} {
		b.Run(fmt.Sprintf("hosts=%d", hosts), func(b *testing.B) { benchmarkList(b, command, hosts) })
	}
}

func build(b *testing.B) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "r3-container")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		b.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

func benchmarkList(b *testing.B, command string, hosts int) {
	l := startLab(b, hosts)
	var most int64
	fastest := time.Hour
	runs := 0
	for b.Loop() {
		rss, took := runList(b, l, command)
		most, fastest, runs = max(most, rss), min(fastest, took), runs+1
	}
	counts := map[string]int{}
	for _, c := range l.Calls() {
		counts[c.Operation]++
	}
	paced := (counts["ListTasks"] + counts["DescribeTasks"] + counts["ListContainerInstances"] + counts["DescribeContainerInstances"]) / runs
	chain := time.Duration(counts["ListTasks"]/runs+1) * latency
	least := max(chain, time.Duration(paced-burst)*time.Second/refill)
	b.ReportMetric(float64(len(l.Calls()))/float64(runs), "calls")
	b.ReportMetric(float64(fastest)/float64(chain), "×chain")
	b.ReportMetric(float64(fastest)/float64(least), "×least")
	b.ReportMetric(float64(most)/1024, "MB")
}

func startLab(b *testing.B, hosts int) *lab.Lab {
	b.Helper()
	const services = 20
	var text strings.Builder
	fmt.Fprintf(&text, "latency: %v\nclusters: [{name: lab, hosts: [{count: %d, cpu: 8192, memory: 16000}]}]\n", latency, hosts)
	text.WriteString("images: [{repository: web, tags: [v1]}]\nservices:\n")
	for i := range services {
		fmt.Fprintf(&text, "  - {name: type-%02d, image: 'web:v1', cpu: 16, memory: 16, desired: %d}\n", i, hosts)
	}
	w, err := world.Parse([]byte(text.String()), "bench.yaml")
	if err != nil {
		b.Fatal(err)
	}
	l, err := lab.Start(context.Background(), lab.Config{World: w})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	return l
}

// runList returns the most memory that the run had, in KiB, and how long it took.
func runList(b *testing.B, l *lab.Lab, command string) (rss int64, took time.Duration) {
	b.Helper()
	cmd := exec.Command(command, "list", "--cluster", "lab")
	cmd.Env = append(l.Env(), "PATH="+os.Getenv("PATH"))
	cmd.Stderr = os.Stderr
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	ended := make(chan struct{})
	most := make(chan int64)
	go func() { most <- highWater(cmd.Process.Pid, ended) }()
	err := cmd.Wait()
	took = time.Since(begun)
	close(ended)
	if err != nil {
		b.Fatalf("list: %v", err)
	}
	return <-most, took
}

// highWater watches the most memory that a process had, in KiB. The rusage of
// a child would not tell: it begins with the memory of the parent, which has
// the lab.
func highWater(pid int, ended <-chan struct{}) int64 {
	var most int64
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err == nil {
			_, rest, _ := strings.Cut(string(status), "VmHWM:")
			var kib int64
			if _, err := fmt.Sscan(rest, &kib); err == nil {
				most = max(most, kib)
			}
		}
		select {
		case <-ended:
			return most
		case <-tick.C:
		}
	}
}
