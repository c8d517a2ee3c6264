package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	dockercontainer "github.com/docker/cli/cli/command/container"
	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"
)

var statsHeaders = formatter.SubHeaderContext{
	"Container": "CONTAINER", "Name": "NAME", "ID": "CONTAINER ID", "CPUPerc": "CPU %", "MemUsage": "MEM USAGE / LIMIT", "MemPerc": "MEM %",
	"NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS",
}

// frame is how often a table that follows is shown anew; docker's own pace.
const frame = 500 * time.Millisecond

// statsTable is docker stats of all hosts.
func statsTable(d *docker, cmd *cobra.Command, args []string, list *hostList) error {
	flags := cmd.Flags()
	theirs := flags.Lookup("format").Value.String()
	source := theirs
	if source == "" {
		source = formatter.TableFormatKey
	}
	t, err := newTable(statsHeaders, dockercontainer.NewStatsFormat(source, "linux"), theirs, list.environments())
	if err != nil {
		return err
	}
	m := &meters{docker: d, list: list, all: isTrue(flags, "all"), whole: isTrue(flags, "no-trunc"), rows: map[string]row{}}
	if isTrue(flags, "no-stream") {
		_, err := eachHost(cmd.Context(), d, list, m.once)
		return first(t.write(d.Out(), m.snapshot()), err)
	}
	f := &follower{meters: m, table: t, lost: map[int]error{}, pause: retry}
	return f.follow(cmd.Context())
}

// meters are the numbers of all containers of all hosts.
type meters struct {
	docker     *docker
	list       *hostList
	all, whole bool

	mu   sync.Mutex
	rows map[string]row  // by place and id
	busy map[string]bool // those that are being read, by host and id
}

// once reads the numbers of a host's containers one time.
func (m *meters) once(ctx context.Context, i int, h farHost) (struct{}, error) {
	return struct{}{}, m.read(ctx, m.docker.on(h, io.Discard, io.Discard), i, h, false)
}

// begin reports whether a container's numbers are not being read yet: from now on
// they are, until end.
func (m *meters) begin(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.busy[id] {
		return false
	}
	if m.busy == nil {
		m.busy = map[string]bool{}
	}
	m.busy[id] = true
	return true
}

func (m *meters) end(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.busy, id)
}

// read reads the numbers of the containers of a host that nobody reads yet;
// following, until they end. Its error is why there is a host whose numbers are not
// known; of one container they may be missing, as in docker's own.
func (m *meters) read(ctx context.Context, o *docker, i int, h farHost, following bool) error {
	found, err := o.Client().ContainerList(ctx, container.ListOptions{All: m.all})
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	broken := make([]error, len(found))
	for n, c := range found {
		id := h.ID + " " + c.ID
		if !m.begin(id) {
			continue
		}
		key := fmt.Sprintf("%05d %05d %s", i, n, c.ID)
		m.set(key, m.row(h, c.ID, strings.Join(c.Names, ","), nil))
		f := func() error {
			defer m.end(id)
			return m.meter(ctx, o, h, key, c.ID, following)
		}
		if following {
			go f() // what ends the numbers of all, the host's events end with, too
			continue
		}
		wg.Go(func() { broken[n] = f() })
	}
	wg.Wait()
	return first(broken...)
}

// meter keeps one container's numbers up to date. That it has none is no error: it
// may have gone meanwhile, or the policy does not show them.
func (m *meters) meter(ctx context.Context, o *docker, h farHost, key, id string, following bool) error {
	if following {
		defer m.set(key, nil) // it is gone
	}
	res, err := o.Client().ContainerStats(ctx, id, following)
	if errdefs.IsNotFound(err) || errdefs.IsPermissionDenied(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer res.Body.Close()
	for dec := json.NewDecoder(res.Body); ; {
		var s container.StatsResponse
		if err := dec.Decode(&s); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("the numbers of %s have ended before their time: %w", id[:min(12, len(id))], err)
		}
		m.set(key, m.row(h, id, s.Name, &s))
	}
}

func (m *meters) set(key string, r row) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r == nil {
		delete(m.rows, key)
		return
	}
	m.rows[key] = r
}

// snapshot is all rows in the order of hosts, and of their containers.
func (m *meters) snapshot() []row {
	m.mu.Lock()
	defer m.mu.Unlock()
	var keys []string
	for k := range m.rows {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var rows []row
	for _, k := range keys {
		rows = append(rows, m.rows[k])
	}
	return rows
}

// row is a line; without numbers it has docker's dashes.
func (m *meters) row(h farHost, id, name string, s *container.StatsResponse) row {
	shown := id
	if !m.whole {
		shown = id[:min(12, len(id))]
	}
	r := row{"Host": h.Name, "Environment": h.Environment, "Container": id, "ID": shown, "Name": strings.TrimPrefix(name, "/"),
		"CPUPerc": "--", "MemUsage": "-- / --", "MemPerc": "--", "NetIO": "--", "BlockIO": "--", "PIDs": "--"}
	if s == nil {
		return r
	}
	used, limit := memory(&s.MemoryStats), float64(s.MemoryStats.Limit)
	received, sent := network(s.Networks)
	read, written := blocks(&s.BlkioStats)
	r["CPUPerc"] = percent(processor(s))
	r["MemUsage"] = units.BytesSize(used) + " / " + units.BytesSize(limit)
	r["MemPerc"] = percent(share(used, limit))
	r["NetIO"] = units.HumanSizeWithPrecision(received, 3) + " / " + units.HumanSizeWithPrecision(sent, 3)
	r["BlockIO"] = units.HumanSizeWithPrecision(read, 3) + " / " + units.HumanSizeWithPrecision(written, 3)
	r["PIDs"] = fmt.Sprint(s.PidsStats.Current)
	return r
}

func percent(v float64) string { return fmt.Sprintf("%.2f%%", v) }

func share(part, whole float64) float64 {
	if whole == 0 {
		return 0
	}
	return part / whole * 100
}

// processor is the share of one processor since the last sample, in percent.
func processor(s *container.StatsResponse) float64 {
	own := float64(s.CPUStats.CPUUsage.TotalUsage) - float64(s.PreCPUStats.CPUUsage.TotalUsage)
	all := float64(s.CPUStats.SystemUsage) - float64(s.PreCPUStats.SystemUsage)
	processors := float64(s.CPUStats.OnlineCPUs)
	if processors == 0 {
		processors = float64(len(s.CPUStats.CPUUsage.PercpuUsage))
	}
	if own <= 0 || all <= 0 {
		return 0
	}
	return own / all * processors * 100
}

// memory is what is used but for the cache, which the kernel can have back.
func memory(m *container.MemoryStats) float64 {
	for _, key := range []string{"total_inactive_file", "inactive_file"} { // cgroup v1, v2
		if cache, ok := m.Stats[key]; ok && cache < m.Usage {
			return float64(m.Usage - cache)
		}
	}
	return float64(m.Usage)
}

func network(all map[string]container.NetworkStats) (received, sent float64) {
	for _, n := range all {
		received += float64(n.RxBytes)
		sent += float64(n.TxBytes)
	}
	return received, sent
}

func blocks(b *container.BlkioStats) (read, written float64) {
	for _, e := range b.IoServiceBytesRecursive {
		switch {
		case strings.EqualFold(e.Op, "read"):
			read += float64(e.Value)
		case strings.EqualFold(e.Op, "write"):
			written += float64(e.Value)
		}
	}
	return read, written
}
