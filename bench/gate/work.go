package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"jumpsuite/internal/lab/rootfs"
)

// client speaks HTTP on one connection and nothing more, so that what is
// measured is the way and not the client.
type client struct {
	socket string
	conn   net.Conn
	br     *bufio.Reader
}

func newClient(socket string) *client { return &client{socket: socket} }

func (c *client) dial() error {
	if c.conn != nil {
		return nil
	}
	conn, err := net.Dial("unix", c.socket)
	if err != nil {
		return err
	}
	c.conn, c.br = conn, bufio.NewReaderSize(conn, 64<<10)
	return nil
}

func (c *client) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

func (c *client) send(method, path, extra string, body []byte) (*http.Response, error) {
	if err := c.dial(); err != nil {
		return nil, err
	}
	head := method + " " + path + " HTTP/1.1\r\nHost: docker\r\n" + extra
	if method == http.MethodPost {
		head += fmt.Sprintf("Content-Length: %d\r\n", len(body))
	}
	if len(body) > 0 && !strings.Contains(extra, "Content-Type") {
		head += "Content-Type: application/json\r\n"
	}
	if _, err := c.conn.Write(append([]byte(head+"\r\n"), body...)); err != nil {
		return nil, err
	}
	return http.ReadResponse(c.br, nil)
}

func (c *client) do(method, path, extra string, body []byte) ([]byte, error) {
	res, err := c.send(method, path, extra, body)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, res.Status, b)
	}
	if res.Close || err != nil {
		c.close()
	}
	return b, err
}

func (c *client) get(path string) ([]byte, error) { return c.do(http.MethodGet, path, "", nil) }

// prepared is what the measurements work with.
type prepared struct{ idle, long, short string }

func prepare(engine string) (p prepared, err error) {
	base, err := rootfs.Base()
	if err != nil {
		return p, err
	}
	c := newClient(engine)
	defer c.close()
	if _, err := c.do(http.MethodPost, "/images/create?fromSrc=-&repo=bench&tag=1", "Content-Type: application/x-tar\r\n", base); err != nil {
		return p, err
	}
	if p.idle, err = runContainer(c, "sleep 100000"); err != nil {
		return p, err
	}
	if p.long, err = runContainer(c, writer(8000, 6000)); err != nil {
		return p, err
	}
	if p.short, err = runContainer(c, writer(99, 150000)); err != nil {
		return p, err
	}
	for _, id := range []string{p.long, p.short} {
		if _, err := c.do(http.MethodPost, "/containers/"+id+"/wait", "", nil); err != nil {
			return p, err
		}
	}
	return p, nil
}

// writer is a script that writes lines.
func writer(length, count int) string {
	return fmt.Sprintf("yes %s | head -n %d", strings.Repeat("x", length), count)
}

func runContainer(c *client, script string) (string, error) {
	body, err := json.Marshal(map[string]any{"Image": "bench:1", "Cmd": []string{"sh", "-c", script}})
	if err != nil {
		return "", err
	}
	b, err := c.do(http.MethodPost, "/containers/create", "", body)
	if err != nil {
		return "", err
	}
	var made struct{ Id string }
	if err := json.Unmarshal(b, &made); err != nil {
		return "", err
	}
	_, err = c.do(http.MethodPost, "/containers/"+made.Id+"/start", "", nil)
	return made.Id, err
}

func benches(p prepared) []bench {
	return []bench{
		{"ping1", "GET /_ping, 1 at a time", 0.40, pings(1), "/s", 1},
		{"ping10", "GET /_ping, 10 at a time", 0.28, pings(10), "/s", 1},
		{"log8k", "logs, lines of 8 kB", 0.88, logs(p.long), "MB/s", 1e-6},
		{"log100", "logs, lines of 100 bytes", 0.80, logs(p.short), "MB/s", 1e-6},
		{"up", "exec, to its input", 0.75, execUp(p.idle), "MB/s", 1e-6},
		{"down", "exec, from its output", 0.93, execDown(p.idle), "MB/s", 1e-6},
		{"echo", "exec, echo of one byte on a tty", -60, echo(p.idle), "µs", 1e6},
	}
}

func pings(clients int) func(string) (float64, error) {
	return func(socket string) (float64, error) {
		const time1 = 700 * time.Millisecond
		counts, errs := make([]int, clients), make([]error, clients)
		var wg sync.WaitGroup
		begin := time.Now()
		for i := range clients {
			wg.Go(func() {
				c := newClient(socket)
				defer c.close()
				for time.Since(begin) < time1 && errs[i] == nil {
					_, errs[i] = c.get("/_ping")
					counts[i]++
				}
			})
		}
		wg.Wait()
		n := 0
		for _, k := range counts {
			n += k
		}
		return float64(n) / time.Since(begin).Seconds(), errors.Join(errs...)
	}
}

func logs(id string) func(string) (float64, error) {
	return func(socket string) (float64, error) {
		c := newClient(socket)
		defer c.close()
		begin := time.Now()
		res, err := c.send(http.MethodGet, "/v1.41/containers/"+id+"/logs?stdout=1&tail=all", "", nil)
		if err != nil {
			return 0, err
		}
		n, err := io.Copy(io.Discard, res.Body)
		if n < 1<<20 {
			return 0, fmt.Errorf("only %d bytes, status %s", n, res.Status)
		}
		return float64(n) / time.Since(begin).Seconds(), err
	}
}

var volume = 256 << 20 // bytes that go through an exec

// execute creates and starts an exec and returns its stream.
func execute(socket, id string, tty bool, argv ...string) (*client, error) {
	c := newClient(socket)
	body, err := json.Marshal(map[string]any{"AttachStdin": true, "AttachStdout": true, "AttachStderr": true, "Tty": tty, "Cmd": argv})
	if err != nil {
		return nil, err
	}
	b, err := c.do(http.MethodPost, "/v1.41/containers/"+id+"/exec", "", body)
	if err != nil {
		return nil, err
	}
	var made struct{ Id string }
	if err := json.Unmarshal(b, &made); err != nil {
		return nil, err
	}
	res, err := c.send(http.MethodPost, "/v1.41/exec/"+made.Id+"/start", "Connection: Upgrade\r\nUpgrade: tcp\r\n",
		[]byte(fmt.Sprintf(`{"Detach":false,"Tty":%v}`, tty)))
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("exec: %s", res.Status)
	}
	return c, nil
}

func execUp(id string) func(string) (float64, error) {
	chunk := make([]byte, 256<<10)
	return func(socket string) (float64, error) {
		c, err := execute(socket, id, false, "dd", "of=/dev/null", "bs=64k")
		if err != nil {
			return 0, err
		}
		defer c.close()
		begin := time.Now()
		for range volume / len(chunk) {
			if _, err := c.conn.Write(chunk); err != nil {
				return 0, err
			}
		}
		c.conn.(*net.UnixConn).CloseWrite()
		out, err := io.ReadAll(c.br)
		if !bytes.Contains(out, []byte("records in")) {
			err = fmt.Errorf("the exec said %q", out)
		}
		return float64(volume) / time.Since(begin).Seconds(), err
	}
}

func execDown(id string) func(string) (float64, error) {
	return func(socket string) (float64, error) {
		c, err := execute(socket, id, false, "head", "-c", fmt.Sprint(volume), "/dev/zero")
		if err != nil {
			return 0, err
		}
		defer c.close()
		begin := time.Now()
		n, err := io.Copy(io.Discard, c.br)
		if n < int64(volume) {
			return 0, fmt.Errorf("only %d bytes", n)
		}
		return float64(n) / time.Since(begin).Seconds(), err
	}
}

// echo is the median time in which a terminal echoes a byte.
func echo(id string) func(string) (float64, error) {
	return func(socket string) (float64, error) {
		c, err := execute(socket, id, true, "sleep", "60")
		if err != nil {
			return 0, err
		}
		defer c.close()
		var took []float64
		for i := range 1500 {
			begin := time.Now()
			if _, err := c.conn.Write([]byte("x")); err != nil {
				return 0, err
			}
			if _, err := c.br.ReadByte(); err != nil {
				return 0, err
			}
			if i >= 100 {
				took = append(took, time.Since(begin).Seconds())
			}
			if i%1000 == 999 { // the line must not fill up
				c.conn.Write([]byte{0x15})
				drain(c)
			}
		}
		return median(took), nil
	}
}

// drain reads what a terminal writes to take its line back.
func drain(c *client) {
	c.conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	io.Copy(io.Discard, c.br)
	c.conn.SetReadDeadline(time.Time{})
}

// memory prints the resident memory of each way, started anew: idle, and with 200
// silent logs -f.
func memory(dir string, all []way, p prepared) error {
	end(all)
	fresh, err := ways(dir, all[0].socket, "")
	if err != nil {
		return err
	}
	defer end(fresh)
	fmt.Printf("%-34s", "memory, idle (RSS)")
	for _, w := range fresh[1:] {
		fmt.Printf("  %s %.1f MB", w.name, rss(w))
	}
	fmt.Println("   wanted 12 MB at most")
	fmt.Printf("%-34s", "memory, 200 silent logs -f (RSS)")
	for _, w := range fresh[1:] {
		mb, err := following(w, p.idle)
		if err != nil {
			return err
		}
		fmt.Printf("  %s %.1f MB", w.name, mb)
	}
	fmt.Println("   wanted 20 MB at most")
	return nil
}

func following(w way, id string) (float64, error) {
	for range 200 {
		c := newClient(w.socket)
		defer c.close()
		res, err := c.send(http.MethodGet, "/v1.41/containers/"+id+"/logs?"+url.Values{"stdout": {"1"}, "follow": {"1"}}.Encode(), "", nil)
		if err != nil {
			return 0, err
		}
		if res.StatusCode != http.StatusOK {
			return 0, fmt.Errorf("logs -f: %s", res.Status)
		}
	}
	time.Sleep(time.Second)
	return rss(w), nil
}

func rss(w way) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	var kb float64
	fmt.Sscan(rest, &kb)
	return kb / 1000
}
