package ecsstatus

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Bars are the load bars of a listing's table. The zero value has none.
type Bars struct {
	Columns int // width of the terminal; 0: no bars
	Color   bool
}

// listHeader is root360's.
var listHeader = []string{"container name", "image", "reserved CPU", "reserved Memory", "state", "launched"}

// WriteTable prints the hosts and what runs on each, as `r3 container list` is
// documented, an empty line between hosts.
func (l *Listing) WriteTable(w io.Writer, b Bars) error {
	var out strings.Builder
	for i, h := range l.Hosts {
		if i > 0 {
			out.WriteByte('\n')
		}
		hostLine(&out, h.Host)
		b.write(&out, h.Host)
		containerTable(&out, h.Tasks)
	}
	if len(l.Unplaced) > 0 {
		if len(l.Hosts) > 0 {
			out.WriteByte('\n')
		}
		out.WriteString("host: - | not placed on a host\n")
		containerTable(&out, l.Unplaced)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func hostLine(w io.Writer, h Host) {
	fmt.Fprintf(w, "host: %s | CPU (free/max): %d/%d | memory (free/max): %d/%d%s\n",
		line(h.Label()), h.CPU.Free, h.CPU.Max, h.Memory.Free, h.Memory.Max, trouble(h))
}

// trouble is what is unusual about a host, in its line: nothing for one that
// is active and heard.
func trouble(h Host) string {
	var out string
	if h.Status != "ACTIVE" {
		out += " | " + line(h.Status)
	}
	if !h.AgentConnected {
		out += " | agent disconnected"
	}
	return out
}

func containerTable(w io.Writer, tasks []Task) {
	t := newTable(w)
	t.row(append([]string{}, listHeader...)...)
	rows := 0
	for _, task := range tasks {
		for _, c := range task.Containers {
			t.row(c.Name, c.Image, strconv.Itoa(c.CPU), strconv.Itoa(c.Memory), state(c)+leaving(task), clock(task.Started))
			rows++
		}
	}
	if rows == 0 {
		t.row(make([]string, len(listHeader))...)
	}
	t.Flush()
}

// state is a container's status, and its health where it is checked.
func state(c Container) string {
	switch c.HealthStatus {
	case "HEALTHY", "UNHEALTHY":
		return c.LastStatus + " (" + strings.ToLower(c.HealthStatus) + ")"
	}
	return c.LastStatus
}

// leaving marks the containers of a task that ECS is stopping.
func leaving(t Task) string {
	if t.DesiredStatus == "STOPPED" {
		return ", draining"
	}
	return ""
}

const (
	barMin, barMax = 10, 40 // columns of a bar, without what stands around it
	barText        = 14     // columns of what does: "memory [] 100%" and two spaces between two bars
)

// write prints the load bars of a host: side by side where both fit.
func (b Bars) write(w io.Writer, h Host) {
	if b.Columns == 0 {
		return
	}
	width, between := b.Columns/2-barText-1, "  "
	if width < barMin {
		width, between = b.Columns-barText, "\n"
	}
	width = max(1, min(width, barMax))
	fmt.Fprintf(w, "%s%s%s\n", b.bar("CPU", h.CPU, width), between, b.bar("memory", h.Memory, width))
}

// bar is one bar: "memory [####......]  40%" is 40 % reserved.
func (b Bars) bar(name string, r Resource, width int) string {
	used := r.Used()
	full := int(used*float64(width) + 0.5)
	filled := strings.Repeat("#", full)
	if b.Color && full > 0 {
		filled = colorOf(used) + filled + "\x1b[0m"
	}
	return fmt.Sprintf("%-6s [%s%s] %3.0f%%", name, filled, strings.Repeat(".", width-full), used*100)
}

func colorOf(used float64) string {
	switch {
	case used >= 0.9:
		return "\x1b[31m"
	case used >= 0.7:
		return "\x1b[33m"
	}
	return "\x1b[32m"
}

// PythonList is names as Python prints a list of strings, which is what
// `r3 container list --container-types` is documented to print.
func PythonList(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = pythonString(n)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// pythonString is Python's repr: single quotes, unless only those are in it.
func pythonString(s string) string {
	s = strings.ReplaceAll(s, `\`, `\\`)
	s = line(s)
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		return `"` + s + `"`
	}
	return "'" + strings.ReplaceAll(s, "'", `\'`) + "'"
}
