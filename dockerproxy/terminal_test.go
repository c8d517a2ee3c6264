package dockerproxy

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
)

// shown is what a terminal has shown so far.
type shown struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *shown) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *shown) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func (s *shown) has(text string) bool { return strings.Contains(s.text(), text) }

// newSession makes standard input the controlling terminal.
func newSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true, Setctty: true} }

// rawPost and running are for goroutines, which may not fail a test.

func rawPost(engine, path string) { rawAsk(engine, post(path, "")) }

func running(engine, id string) bool {
	var c struct{ State struct{ Running bool } }
	return json.Unmarshal(rawAsk(engine, get("/v1.41/containers/"+id+"/json")), &c) == nil && c.State.Running
}

func rawAsk(engine, raw string) []byte {
	conn, err := net.Dial("unix", engine)
	if err != nil {
		return nil
	}
	defer conn.Close()
	io.WriteString(conn, raw)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil
	}
	b, _ := io.ReadAll(res.Body)
	return b
}
