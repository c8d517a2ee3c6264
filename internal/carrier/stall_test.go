package carrier

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// What stalls at r3-ssm's socket is waited out for as long as it takes:
//
//	R3_TEST_STALLS=1 go test -v -run Stall ./internal/carrier

func needStalls(t *testing.T) {
	if os.Getenv("R3_TEST_STALLS") == "" {
		t.Skip("it takes a minute: R3_TEST_STALLS=1")
	}
}

func TestStallsAtTheSocketAreOverInTheirTime(t *testing.T) {
	needStalls(t)
	many := make([]Host, 5000)
	for i := range many {
		many[i] = Host{ID: host, Name: strings.Repeat("x", 200)}
	}
	c := serve(t, &Server{
		Hosts: func(context.Context, Place) ([]Host, error) { return many, nil },
		Dial:  func(ctx context.Context, _ Place, _ string) (Stream, error) { <-ctx.Done(); return nil, ctx.Err() },
	})
	before := runtime.NumGoroutine()
	for _, tt := range []struct {
		name string
		most time.Duration
		run  func(conn net.Conn)
	}{
		{"nothing is asked", askTimeout, func(conn net.Conn) { io.Copy(io.Discard, conn) }},
		{"a request comes byte by byte", askTimeout, func(conn net.Conn) {
			go func() {
				for range 100 {
					io.WriteString(conn, "{")
					time.Sleep(500 * time.Millisecond)
				}
			}()
			io.Copy(io.Discard, conn)
		}},
		{"a stream is not taken", time.Second, func(conn net.Conn) {
			io.WriteString(conn, `{"op":"dial","cluster":"c","host":"`+host+`"}`+"\n")
			conn.Close()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conn := connected(t, c)
			began := time.Now()
			tt.run(conn)
			took := time.Since(began)
			t.Logf("over after %.1f s, of %v", took.Seconds(), tt.most)
			if took > 2*tt.most {
				t.Errorf("it took %v, want %v", took, tt.most)
			}
		})
	}
	t.Cleanup(func() {
		for end := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > before+2; time.Sleep(100 * time.Millisecond) {
			if time.Now().After(end) {
				t.Errorf("%d goroutines before, %d after", before, runtime.NumGoroutine())
				return
			}
		}
	})
}

// Who does not read the answer holds up nobody, and not for long.
func TestStallsOfAnAnswerAreOverInTheirTime(t *testing.T) {
	needStalls(t)
	many := make([]Host, 5000)
	for i := range many {
		many[i] = Host{ID: host, Name: strings.Repeat("x", 200)}
	}
	c := serve(t, &Server{Hosts: func(context.Context, Place) ([]Host, error) { return many, nil }})
	conn := connected(t, c)
	io.WriteString(conn, `{"op":"hosts","cluster":"c"}`+"\n")
	if list, err := c.Hosts(t.Context(), prod); err != nil || len(list) != len(many) {
		t.Errorf("beside one that is not read: %d hosts, %v", len(list), err)
	}
	time.Sleep(askTimeout + 2*time.Second)
	got, _ := io.ReadAll(conn)
	if strings.HasSuffix(string(got), "\n") {
		t.Errorf("an answer of %d bytes that nobody read for %v has come to its end", len(got), askTimeout)
	}
}

func TestStallsOfR3SSMAreOverInTheirTime(t *testing.T) {
	needStalls(t)
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	began := time.Now()
	_, err = Client{Socket: l.Addr().String()}.Dial(t.Context(), prod, host)
	t.Logf("an r3-ssm that takes nothing: %v after %v", err, time.Since(began))
	if err == nil || time.Since(began) > 2*patience {
		t.Errorf("got %v after %v", err, time.Since(began))
	}
}

func connected(t *testing.T, c Client) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", c.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}
