package dockerproxy

import (
	"bufio"
	"io"
	"net"
	"testing"
)

// What a ping of dockerd 20.10 looks like.
const pingAnswer = "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nCache-Control: no-cache, no-store, must-revalidate\r\nContent-Type: text/plain; charset=utf-8\r\n" +
	"Docker-Experimental: false\r\nOstype: linux\r\nPragma: no-cache\r\nServer: Docker/20.10.24 (linux)\r\nDate: Mon, 02 Jan 2026 03:04:05 GMT\r\nContent-Length: 2\r\n\r\nOK"

// BenchmarkPing is one request through the gate, with next to nothing on either
// side: what the gate itself takes. The comparison with others is bench/gate.
func BenchmarkPing(b *testing.B) {
	l, err := net.Listen("unix", b.TempDir()+"/engine.sock")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				buf := make([]byte, 4096)
				for {
					if _, err := conn.Read(buf); err != nil {
						return
					}
					io.WriteString(conn, pingAnswer)
				}
			}()
		}
	}()
	h := newHarness(b, l.Addr().String(), "test")
	conn, err := net.Dial("unix", h.socket("dev"))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	br := bufio.NewReader(conn)
	b.ReportAllocs()
	for b.Loop() {
		io.WriteString(conn, "GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n")
		for {
			line, err := br.ReadSlice('\n')
			if err != nil {
				b.Fatal(err)
			}
			if len(line) == 2 {
				break
			}
		}
		br.Discard(2)
	}
}
