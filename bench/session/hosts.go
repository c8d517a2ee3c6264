package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"jumpsuite/dockerproxy"
	"jumpsuite/internal/audit"
	"jumpsuite/internal/carrier"
	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/world"
	"jumpsuite/internal/tunnel"
	"jumpsuite/policy"
)

// fleetSize is how many hosts a table is made of.
const fleetSize = 50

const fleetPolicy = `
jump-servers: [{name: all, keys: ["*"], environments: [test], actions: [docker.ps, docker.inspect, docker.logs, docker.exec]}]
environments: [{name: test, cluster: test, region: eu-central-1, production: false, limits: {exec: {commands: any}}}]
rules: [{name: all, effect: allow, principals: [user:dev1], actions: [docker.ps, docker.inspect, docker.logs, docker.exec], environments: [test]}]
`

// cluster is a lab with hosts behind r3-ssm, and what leads there.
type cluster struct {
	*dockerproxy.Fleet
	hosts []dockerproxy.FarHost
}

// table measures the listing of one host, and that of all at the same time: with
// the sessions to start, and on warm ones. Each host's Engine has ten containers.
func table(ctx context.Context, delay time.Duration) error {
	dir, err := os.MkdirTemp("", "bench-session-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, end, err := newCluster(ctx, dir, delay)
	if err != nil {
		return err
	}
	defer end()
	first, err := c.list(ctx, c.hosts[:1])
	if err != nil {
		return err
	}
	cold, err := c.list(ctx, c.hosts)
	if err != nil {
		return err
	}
	var one, all []time.Duration
	for range turns {
		for list, took := range map[int]*[]time.Duration{1: &one, fleetSize: &all} {
			d, err := c.list(ctx, c.hosts[:list])
			if err != nil {
				return err
			}
			*took = append(*took, d)
		}
	}
	slices.Sort(one)
	slices.Sort(all)
	ms := func(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
	fmt.Printf("list of one host         %v, the first time %v (hosts %v away, median of %d)\n", ms(one[turns/2]), ms(first), 2*delay, turns)
	fmt.Printf("lists of %d hosts        %v, %.1f times one host; with 49 sessions to start %v\n", fleetSize, ms(all[turns/2]), float64(all[turns/2])/float64(one[turns/2]), ms(cold))
	return c.later(ctx, delay)
}

// later measures commands to a host whose session is there, each on a new stream.
func (c *cluster) later(ctx context.Context, delay time.Duration) error {
	for _, what := range []string{"json", "logs?stdout=1", "exec"} {
		var all []time.Duration
		for range turns {
			fleet, err := c.anew()
			if err != nil {
				return err
			}
			began := time.Now()
			if what == "exec" {
				err = execs(ctx, fleet, c.hosts[0])
			} else {
				err = ask(ctx, fleet, c.hosts[0], "/containers/web/"+what)
			}
			if err != nil {
				return err
			}
			all = append(all, time.Since(began))
		}
		slices.Sort(all)
		took := all[turns/2]
		fmt.Printf("%-24s %v, %.1f round trips\n", "web: "+what, took.Round(time.Millisecond), float64(took)/float64(2*delay))
	}
	return nil
}

func fleetHosts() (hosts []dockerproxy.FarHost) {
	for i := range fleetSize {
		hosts = append(hosts, dockerproxy.FarHost{ID: fmt.Sprintf("i-0123456789abcd%03x", i), Names: []string{fmt.Sprintf("10.0.0.%d", i+1)}, Environment: "test"})
	}
	return hosts
}

func fleetLab(ctx context.Context, hosts []dockerproxy.FarHost, delay time.Duration) (*lab.Lab, error) {
	var list []string
	for _, h := range hosts {
		list = append(list, fmt.Sprintf("{instance: %s, ip: %s}", h.ID, h.Names[0]))
	}
	w, err := world.Parse([]byte("clusters: [{name: test, hosts: ["+strings.Join(list, ", ")+"]}]\nlink: {delay: "+delay.String()+"}"), "world")
	if err != nil {
		return nil, err
	}
	return lab.Start(ctx, lab.Config{World: w})
}

// newCluster starts lab, hosts and r3-ssm. The hosts share one gate and Engine,
// and each has a session of its own.
func newCluster(ctx context.Context, dir string, delay time.Duration) (*cluster, func(), error) {
	c := &cluster{hosts: fleetHosts()}
	l, err := fleetLab(ctx, c.hosts, delay)
	if err != nil {
		return nil, nil, err
	}
	stop, err := c.connect(ctx, dir, l)
	if err != nil {
		l.Close()
		return nil, nil, err
	}
	return c, func() { stop(); l.Close() }, nil
}

func (c *cluster) connect(ctx context.Context, dir string, l *lab.Lab) (stop func(), err error) {
	p, err := policy.Parse("policy.yaml", []byte(fleetPolicy))
	if err != nil {
		return nil, err
	}
	f, err := newFar()
	if err != nil {
		return nil, err
	}
	address, err := f.listen(ctx, gate(ctx, p))
	if err != nil {
		return nil, err
	}
	for _, h := range c.hosts {
		if err := l.Forward(h.ID, 2376, address); err != nil {
			return nil, err
		}
	}
	socket := filepath.Join(dir, "ssm.sock")
	_, stop, err = startSSM(ctx, dir, socket, l.Env())
	c.Fleet = c.fleet(f, socket)
	c.SetPolicy(p)
	return stop, err
}

// gate is the hosts', before an Engine that is made up.
func gate(ctx context.Context, p *policy.Policy) func(*tunnel.Conn, tunnel.Hello) {
	g := &dockerproxy.Gate{
		Environment: "test", Record: func(*audit.Event) error { return nil },
		Engine: func(context.Context) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go engine(theirs)
			return ours, nil
		},
	}
	g.SetPolicy(p)
	return func(conn *tunnel.Conn, h tunnel.Hello) {
		g.ServeConn(ctx, conn, dockerproxy.Caller{UID: h.UID, Principal: policy.Principal{User: h.User, Groups: h.Groups, Key: string(conn.Key())}})
	}
}

// made is an exec's, as the Engine answers.
var made = fmt.Sprintf(`{"Id":"%064x"}`, 3)

func engine(conn net.Conn) {
	defer conn.Close()
	var list []string
	for i := range 10 {
		list = append(list, fmt.Sprintf(`{"Id":"%064x","Names":["/web%d"],"Image":"web:1","Command":"web","Labels":{},"State":"running","Status":"Up 2 hours"}`, i, i))
	}
	br := bufio.NewReader(conn)
	for {
		r, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		io.Copy(io.Discard, r.Body)
		body := "[" + strings.Join(list, ",") + "]"
		if strings.HasSuffix(r.URL.Path, "/exec") {
			fmt.Fprintf(conn, "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(made), made)
			continue
		}
		if strings.HasSuffix(r.URL.Path, "/start") {
			io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nx")
			io.Copy(io.Discard, br)
			return
		}
		if strings.Contains(r.URL.Path, "/containers/web/") || strings.HasSuffix(r.URL.Path, fmt.Sprintf("/containers/%064x/json", 1)) {
			body = fmt.Sprintf(`{"Id":"%064x","Name":"/web","Image":"sha256:%064x","Config":{"Image":"web:1"},"HostConfig":{}}`, 1, 2)
		}
		if strings.HasSuffix(r.URL.Path, "/_ping") {
			body = "OK"
		}
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nApi-Version: 1.51\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}
}

// startSSM builds and starts r3-ssm.
func startSSM(ctx context.Context, dir, socket string, env []string) (pid int, stop func(), err error) {
	bin := filepath.Join(dir, "r3-ssm")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", bin, "jumpsuite/cmd/r3-ssm").CombinedOutput(); err != nil {
		return 0, nil, fmt.Errorf("build r3-ssm: %w: %s", err, out)
	}
	cmd := exec.CommandContext(ctx, bin, "serve", "--listen", "unix://"+socket, "--uid", fmt.Sprint(os.Geteuid()))
	cmd.Env = append(os.Environ(), env...)
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	stop = func() { cmd.Process.Signal(os.Interrupt); cmd.Wait() }
	for range 500 {
		if conn, err := net.Dial("unix", socket); err == nil {
			conn.Close()
			return cmd.Process.Pid, stop, nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	return 0, nil, fmt.Errorf("r3-ssm does not answer on %s", socket)
}

func (c *cluster) fleet(f *far, socket string) *dockerproxy.Fleet {
	ssm, place := carrier.Client{Socket: socket}, carrier.Place{Cluster: "test"}
	return &dockerproxy.Fleet{
		Front:        &dockerproxy.Gate{Record: func(*audit.Event) error { return nil }},
		Environments: []string{"test"},
		Hosts:        func(context.Context, string) ([]dockerproxy.FarHost, error) { return c.hosts, nil },
		Where:        func(context.Context, string, string) ([]dockerproxy.Spot, error) { return nil, nil },
		Dial: func(ctx context.Context, h dockerproxy.FarHost) (net.Conn, error) {
			raw, err := ssm.Dial(ctx, place, h.ID)
			if err != nil {
				return nil, err
			}
			return tunnel.Client(ctx, raw, f.identity, tunnel.Hello{User: "dev1", UID: 1001, Groups: []string{"dev"}, Audit: "a", Environment: "test"})
		},
	}
}

// list asks hosts for their containers, all at the same time, each on a new
// stream, as the commands of people are.
func (c *cluster) list(ctx context.Context, hosts []dockerproxy.FarHost) (time.Duration, error) {
	fleet, err := c.anew()
	if err != nil {
		return 0, err
	}
	errs := make([]error, len(hosts))
	began := time.Now()
	var wg sync.WaitGroup
	for i, h := range hosts {
		wg.Go(func() { errs[i] = ask(ctx, fleet, h, "/containers/json") })
	}
	wg.Wait()
	took := time.Since(began)
	for _, err := range errs {
		if err != nil {
			return 0, err
		}
	}
	return took, nil
}

// anew is a fleet that has no stream yet, as that of a new command.
func (c *cluster) anew() (*dockerproxy.Fleet, error) {
	fleet := &dockerproxy.Fleet{Front: &dockerproxy.Gate{Record: c.Front.Record}, Environments: c.Environments, Hosts: c.Hosts, Where: c.Where, Dial: c.Dial}
	p, err := policy.Parse("policy.yaml", []byte(fleetPolicy))
	if err != nil {
		return nil, err
	}
	fleet.SetPolicy(p)
	return fleet, nil
}

func ask(ctx context.Context, fleet *dockerproxy.Fleet, h dockerproxy.FarHost, path string) error {
	ours, theirs := net.Pipe()
	defer ours.Close()
	go fleet.ServeConn(ctx, theirs, dockerproxy.Caller{UID: 1001, Principal: policy.Principal{User: "dev1", Groups: []string{"dev"}}})
	go fmt.Fprintf(ours, "GET /v1.51%s HTTP/1.1\r\nHost: x\r\nX-Jumpsuite-Host: %s\r\n\r\n", path, h.ID)
	res, err := http.ReadResponse(bufio.NewReader(ours), nil)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s of %s: %s: %s: %w", path, h.ID, res.Status, body, err)
	}
	return nil
}

// execs is docker exec up to its first output: what docker's CLI asks for.
func execs(ctx context.Context, fleet *dockerproxy.Fleet, h dockerproxy.FarHost) error {
	for _, on := range [][]string{
		{"GET /v1.51/containers/web/json", "POST /v1.51/containers/web/exec {\"AttachStdin\":true,\"AttachStdout\":true,\"Cmd\":[\"sh\"]}"},
		{"POST /v1.51/exec/" + made[7:71] + "/start {\"Detach\":false,\"Tty\":false}"},
	} {
		ours, theirs := net.Pipe()
		defer ours.Close()
		go fleet.ServeConn(ctx, theirs, dockerproxy.Caller{UID: 1001, Principal: policy.Principal{User: "dev1", Groups: []string{"dev"}}})
		br := bufio.NewReader(ours)
		for _, request := range on {
			method, rest, _ := strings.Cut(request, " ")
			path, body, _ := strings.Cut(rest, " ")
			more := ""
			if strings.HasSuffix(path, "/start") {
				more = "Connection: Upgrade\r\nUpgrade: tcp\r\n"
			}
			if body != "" {
				more += fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
			}
			go fmt.Fprintf(ours, "%s %s HTTP/1.1\r\nHost: x\r\nX-Jumpsuite-Verb: exec\r\nX-Jumpsuite-Host: %s\r\n%s\r\n%s", method, path, h.ID, more, body)
			res, err := http.ReadResponse(br, nil)
			if err != nil {
				return err
			}
			if res.StatusCode == http.StatusSwitchingProtocols {
				_, err := br.ReadByte()
				return err
			}
			text, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode >= 300 {
				return fmt.Errorf("%s of %s: %s: %s: %w", path, h.ID, res.Status, text, err)
			}
		}
	}
	return nil
}
