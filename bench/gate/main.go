// Gate measures what the gate costs: the same work straight to a Docker Engine,
// through the gate, and, as yardsticks in the same run, through a relay that
// copies bytes and knows no HTTP (what any gate can reach at best) and through
// Go's plain httputil.ReverseProxy.
//
// Rounds are paired: in each one every way is measured right after the other,
// and the ratios are of that round; the table has the median of the rounds. It
// needs root and a dockerd, and starts a private one.
//
// The yardsticks are modes of this program, which links more than they need: the
// memory of theirs that counts is the difference between idle and busy.
//
//	go run ./bench/gate [-rounds 7] [-only NAME] [-also BUILD] [-volume BYTES]
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"jumpsuite/internal/lab/dockerd"
)

func main() {
	if len(os.Args) == 4 && os.Args[1] == "serve" {
		fail(serveWay(os.Args[2], os.Args[3]))
		return
	}
	rounds := flag.Int("rounds", 7, "how often each is measured")
	only := flag.String("only", "", "measure this one alone")
	flag.IntVar(&volume, "volume", volume, "`BYTES` that go through an exec")
	also := flag.String("also", "", "another build of r3-dockerproxy to measure in the same rounds")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fail(measure(ctx, *rounds, *only, *also))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "gate bench:", err)
		os.Exit(1)
	}
}

// way is one way to the Engine.
type way struct {
	name   string
	socket string
	cmd    *exec.Cmd // nil: the Engine itself
}

// ways starts a process for each way.
func ways(dir, engine, also string) ([]way, error) {
	all := []way{{name: "direct", socket: engine}}
	if err := clear(dir); err != nil {
		return nil, err
	}
	names := []string{"relay", "reverseproxy", "gate"}
	if also != "" {
		names = append(names, "also")
	}
	for _, name := range names {
		w := way{name: name, socket: filepath.Join(dir, name+".sock")}
		var err error
		if w.cmd, err = command(name, dir, engine, also); err != nil {
			return nil, err
		}
		w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := startForGood(w.cmd); err != nil {
			return nil, err
		}
		all = append(all, w)
	}
	for _, w := range all {
		if err := answers(w.socket); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// startForGood starts cmd from a thread that stays: the process is told to end
// with the thread that started it, and Go ends threads of its own accord.
func startForGood(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		started <- cmd.Start()
		select {}
	}()
	return <-started
}

// clear removes the sockets of a former set of ways.
func clear(dir string) error {
	old, err := filepath.Glob(filepath.Join(dir, "*.sock"))
	for _, path := range old {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

func command(name, dir, engine, also string) (*exec.Cmd, error) {
	switch name {
	case "gate":
		binary, err := build(dir)
		if err != nil {
			return nil, err
		}
		return gate(binary, name, dir, engine)
	case "also":
		return gate(also, name, dir, engine)
	}
	cmd := exec.Command("/proc/self/exe", "serve", name, dir)
	cmd.Env, cmd.Stderr = append(os.Environ(), "BENCH_ENGINE="+engine), os.Stderr
	return cmd, nil
}

func answers(socket string) error {
	var err error
	for range 100 {
		if _, err = newClient(socket).get("/_ping"); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return err
}

func measure(ctx context.Context, rounds int, only, also string) error {
	dir, err := os.MkdirTemp("", "gate-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	d, err := dockerd.Start(ctx, dockerd.Options{})
	if err != nil {
		return err
	}
	defer d.Close()
	engine := d.Host()[len("unix://"):]
	all, err := ways(dir, engine, also)
	if err != nil {
		return err
	}
	defer end(all)
	p, err := prepare(engine)
	if err != nil {
		return err
	}
	for _, b := range benches(p) {
		if only != "" && b.key != only {
			continue
		}
		if err := b.run(all, rounds); err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
	}
	if only == "" || only == "rss" {
		return memory(dir, all, p)
	}
	return nil
}

func end(all []way) {
	for _, w := range all {
		if w.cmd != nil {
			w.cmd.Process.Kill()
			w.cmd.Wait()
		}
	}
}

// bench is one thing that is measured, in units a second, or in seconds where
// less is better.
type bench struct {
	key, name string
	limit     float64 // of the gate's ratio; negative: of its difference, in µs
	one       func(socket string) (float64, error)
	unit      string
	scale     float64
}

func (b bench) run(all []way, rounds int) error {
	got, spent := make([][]float64, len(all)), make([]time.Duration, len(all))
	for range rounds {
		for i, w := range all {
			before := w.spent()
			v, err := b.one(w.socket)
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			got[i] = append(got[i], v)
			spent[i] += w.spent() - before
		}
	}
	fmt.Printf("%-34s", b.name)
	for i, w := range all {
		fmt.Printf("  %s %.4g %s", w.name, median(got[i])*b.scale, b.unit)
		if i > 0 {
			fmt.Printf(" (%s)", b.compare(got[i], got[0]))
		}
	}
	fmt.Printf("   wanted %s\n", b.wanted())
	fmt.Printf("%-34s", "  processor time of it, a round")
	for i, w := range all[1:] {
		fmt.Printf("  %s %v", w.name, (spent[i+1] / time.Duration(rounds)).Round(time.Millisecond))
	}
	fmt.Println()
	return nil
}

// spent is the processor time of the way's process so far, in steps of a
// hundredth of a second (proc(5), stat).
func (w way) spent() time.Duration {
	if w.cmd == nil {
		return 0
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", w.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	var user, system int64
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	fmt.Sscan(fields[11]+" "+fields[12], &user, &system)
	return time.Duration(user+system) * 10 * time.Millisecond
}

func (b bench) compare(way, direct []float64) string {
	var r []float64
	for i := range way {
		if b.limit < 0 {
			r = append(r, (way[i]-direct[i])*1e6)
		} else {
			r = append(r, way[i]/direct[i])
		}
	}
	if b.limit < 0 {
		return fmt.Sprintf("%+.0f µs", median(r))
	}
	return fmt.Sprintf("%.2f", median(r))
}

func (b bench) wanted() string {
	if b.limit < 0 {
		return fmt.Sprintf("+%.0f µs at most", -b.limit)
	}
	return fmt.Sprintf("%.2f", b.limit)
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}
