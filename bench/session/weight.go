package main

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"jumpsuite/internal/carrier"
	"jumpsuite/internal/lab"
	"jumpsuite/internal/tunnel"
)

// weigh weighs what an open session takes with its tunnel, where it is most: a host
// sends all that it can, and nobody reads. At the jump server that is r3-ssm's, at
// the host the gate's; each is a process of its own.
func weigh(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "bench-session-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l, err := fleetLab(ctx, fleetHosts(), 0)
	if err != nil {
		return err
	}
	defer l.Close()
	gate, stopGate, err := startGate(ctx, l)
	if err != nil {
		return err
	}
	defer stopGate()
	socket := filepath.Join(dir, "ssm.sock")
	ssm, stop, err := startSSM(ctx, dir, socket, l.Env())
	if err != nil {
		return err
	}
	defer stop()
	return compare(ctx, socket, strconv.Itoa(ssm), gate)
}

// compare opens one session, and then the others.
func compare(ctx context.Context, socket, ssm, gate string) error {
	hosts := fleetHosts()
	if err := flood(ctx, socket, hosts[0].ID); err != nil {
		return err
	}
	near, far := settledAt(ssm), settledAt(gate)
	for _, h := range hosts[1:] {
		if err := flood(ctx, socket, h.ID); err != nil {
			return err
		}
	}
	n := float64(len(hosts) - 1)
	fmt.Printf("with its tunnel          %6.2f MB in r3-ssm, %.2f MB in the host's gate, nobody reading what comes (mean of %d)\n",
		(settledAt(ssm)-near)/n/mb, (settledAt(gate)-far)/n/mb, len(hosts)-1)
	return nil
}

// settledAt is a process's memory once all that may be held is held.
func settledAt(pid string) float64 {
	time.Sleep(3 * time.Second)
	return residentOf(pid)
}

// flood lets a host send, and reads nothing of it.
func flood(ctx context.Context, socket, host string) error {
	raw, err := carrier.Client{Socket: socket}.Dial(ctx, carrier.Place{Cluster: "test"}, host)
	if err != nil {
		return err
	}
	f, err := newIdentity()
	if err != nil {
		return err
	}
	c, err := tunnel.Client(ctx, raw, f, tunnel.Hello{User: "dev1", UID: 1001, Groups: []string{"dev"}, Audit: "a", Purpose: "noise"})
	if err != nil {
		return err
	}
	_, err = c.Welcome()
	return err
}

// startGate starts the hosts' end in a process of its own.
func startGate(ctx context.Context, l *lab.Lab) (pid string, stop func(), err error) {
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env, cmd.Stderr = append(os.Environ(), "BENCH_GATE=1"), os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() { cmd.Process.Kill(); cmd.Wait() }
	address, err := bufio.NewReader(out).ReadString('\n')
	for _, h := range fleetHosts() {
		if err == nil {
			err = l.Forward(h.ID, 2376, strings.TrimSpace(address))
		}
	}
	if err != nil {
		stop()
		return "", nil, fmt.Errorf("start the gate: %w", err)
	}
	return strconv.Itoa(cmd.Process.Pid), stop, nil
}

// gateAlone is that process.
func gateAlone(ctx context.Context) error {
	id, err := newIdentity()
	if err != nil {
		return err
	}
	f := &far{identity: id, noise: make([]byte, 32<<10)}
	rand.NewChaCha8([32]byte{}).Read(f.noise)
	address, err := f.listen(ctx, f.stream)
	if err != nil {
		return err
	}
	fmt.Println(address)
	<-ctx.Done()
	return nil
}
