// Sudo measures what `sudo docker ps` costs, against sudo with docker's own CLI:
// the same person, the same sudo, the same Docker Engine, in pairs of one right
// after the other, whose order alternates. It needs root, sudo, dockerd and a
// docker CLI, plays a docker host and leaves nothing behind.
//
//	go run ./bench/sudo [-rounds 60] [-cli /usr/bin/docker] [-ask]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"jumpsuite/internal/lab/sudoer"
)

const policy = `
environments: [{name: test, cluster: test, production: false}]
rules:
  - {name: look, effect: allow, principals: ["group:` + sudoer.Group + `"], environments: [test], actions: [docker.ps, docker.version]}
`

// askAll is an nsswitch.conf that leaves more to be asked than two files. It is
// this bench's own /etc.
const askAll = "passwd: files\ngroup: files\ninitgroups: files\n"

func main() {
	rounds := flag.Int("rounds", 60, "how often each is measured")
	cli := flag.String("cli", "docker", "docker's own CLI")
	ask := flag.Bool("ask", false, "as where users are not in files alone: getent and id are started")
	flag.Parse()
	if err := sudoer.Available(); err != nil {
		fail(err)
	}
	if err := sudoer.Enter(); err != nil {
		fail(err)
	}
	if err := measure(*rounds, *cli, *ask); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "sudo bench:", err)
	os.Exit(1)
}

func measure(rounds int, cli string, ask bool) error {
	path, err := exec.LookPath(cli)
	if err != nil {
		return err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return err
	}
	ctx := context.Background()
	h, err := sudoer.Start(ctx, sudoer.Options{Policy: policy, Also: []string{path}})
	if err != nil {
		return err
	}
	defer h.Close()
	if ask {
		if err := os.WriteFile("/etc/nsswitch.conf", []byte(askAll), 0o644); err != nil {
			return err
		}
	}
	ours := func() *exec.Cmd { return h.Sudo(ctx, "ps") }
	stock := func() *exec.Cmd { return h.Command(ctx, "/usr/bin/sudo", "-n", path, "ps") }
	if err := compare("sudo docker ps", rounds, ours, stock); err != nil {
		return err
	}
	return compare("sudo docker --help", rounds, func() *exec.Cmd { return h.Sudo(ctx, "--help") },
		func() *exec.Cmd { return h.Command(ctx, "/usr/bin/sudo", "-n", path, "--help") })
}

func compare(name string, rounds int, ours, stock func() *exec.Cmd) error {
	var a, b, ratios []float64
	for i := range rounds + 3 {
		first, second := ours, stock
		if i%2 == 1 {
			first, second = stock, ours
		}
		x, err := took(first())
		if err != nil {
			return err
		}
		y, err := took(second())
		if err != nil {
			return err
		}
		if i%2 == 1 {
			x, y = y, x
		}
		if i >= 3 { // the first ones read the files from disk
			a, b, ratios = append(a, x), append(b, y), append(ratios, x/y)
		}
	}
	fmt.Printf("%-20s  ours %.1f ms  stock %.1f ms  ratio %.2f (quartiles %.2f, %.2f; %d pairs)   wanted 1.10 at most\n",
		name, at(a, 0.5), at(b, 0.5), at(ratios, 0.5), at(ratios, 0.25), at(ratios, 0.75), rounds)
	return nil
}

// took is how long a command took, in milliseconds.
func took(cmd *exec.Cmd) (float64, error) {
	began := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("%v: %w: %s", cmd.Args, err, out)
	}
	return float64(time.Since(began).Microseconds()) / 1000, nil
}

func at(v []float64, quantile float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[int(quantile*float64(len(s)-1))]
}
