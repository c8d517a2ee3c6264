package ecs

import (
	"fmt"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/service/ecs"

	"jumpsuite/internal/lab/world"
)

// large is a world of that many hosts and twenty times as many tasks.
func large(tb testing.TB, hosts int) *world.World {
	tb.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "clock: {speed: 100}\nclusters: [{name: lab, hosts: [{count: %d, cpu: 4096, memory: 16000}]}]\n", hosts)
	b.WriteString("images: [{repository: app, tags: [v1]}]\nservices:\n")
	for i := range hosts / 10 {
		fmt.Fprintf(&b, "  - {name: s%d, image: 'app:v1', cpu: 100, memory: 200, port: 80, desired: 200}\n", i)
	}
	w, err := world.Parse([]byte(b.String()), "large")
	if err != nil {
		tb.Fatal(err)
	}
	return w
}

func TestALargeWorldIsComplete(t *testing.T) {
	r := rigOf(t, large(t, 200))
	seen := map[string]bool{}
	in := &sdk.ListTasksInput{Cluster: ptr("lab")}
	pages := 0
	for {
		out, err := r.ListTasks(r.ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		pages++
		tasks, err := r.DescribeTasks(r.ctx, &sdk.DescribeTasksInput{Cluster: in.Cluster, Tasks: out.TaskArns})
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks.Tasks {
			if *task.LastStatus == "RUNNING" {
				seen[*task.TaskArn] = true
			}
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			break
		}
	}
	if len(seen) != 4000 || pages != 40 {
		t.Errorf("%d running tasks on %d pages, want 4000 on 40", len(seen), pages)
	}
}

func BenchmarkBuild(b *testing.B) {
	for _, hosts := range []int{10, 100, 1000} {
		b.Run(fmt.Sprintf("%d hosts", hosts), func(b *testing.B) {
			for b.Loop() {
				r := rigOf(&testing.T{}, large(b, hosts))
				<-r.Steady()
				r.Close()
			}
		})
	}
}

func BenchmarkDescribeTasks(b *testing.B) {
	r := rigOf(&testing.T{}, large(b, 1000))
	defer r.Close()
	list, err := r.ListTasks(r.ctx, &sdk.ListTasksInput{Cluster: ptr("lab")})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := r.DescribeTasks(r.ctx, &sdk.DescribeTasksInput{Cluster: ptr("lab"), Tasks: list.TaskArns}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkListTasks(b *testing.B) {
	r := rigOf(&testing.T{}, large(b, 1000))
	defer r.Close()
	for b.Loop() {
		if _, err := r.ListTasks(r.ctx, &sdk.ListTasksInput{Cluster: ptr("lab")}); err != nil {
			b.Fatal(err)
		}
	}
}
