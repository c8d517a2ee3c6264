// Session measures what a session to a host costs, through the lab's relay, with
// the limits of the agent and of the service on: how much goes up and down, how late
// an echo is, alone and beside a download, and what an open session takes in memory;
// the same in streams of a tunnel; and the lists of fifty hosts against that of one.
//
// What one session can carry down is bounded by the agent, which reads a KiB, sends it and
// sleeps for a millisecond. The yardstick is that loop alone, on this machine in
// the same run: as many KiB as it sleeps.
//
//	go run ./bench/session [-seconds 5] [-delay 10ms]
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"jumpsuite/internal/awsconfig"
	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/world"
	"jumpsuite/internal/session"
)

const host = "i-0123456789abcdef0"

// Ports of the host, each a document of its own name: what the far side does.
const (
	echoPort  = 1 // sends back what it gets
	sinkPort  = 2 // swallows it
	floodPort = 3 // sends what it has
)

func main() {
	seconds := flag.Int("seconds", 5, "how long each is measured")
	delay := flag.Duration("delay", 10*time.Millisecond, "one way through the relay, for the echo")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, time.Duration(*seconds)*time.Second, *delay)
	if err != nil {
		fmt.Fprintln(os.Stderr, "session bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, long, delay time.Duration) error {
	if os.Getenv("BENCH_GATE") != "" {
		return gateAlone(ctx)
	}
	if n := os.Getenv("BENCH_SESSIONS"); n != "" {
		return hold(ctx, n)
	}
	for _, measure := range []func() error{
		func() error { return up(ctx, long) },
		func() error { return down(ctx, long) },
		func() error { return echo(ctx, long, delay) },
		func() error { return through(ctx, long, delay) },
		func() error { return table(ctx, delay) },
		func() error { return memory(ctx) },
		func() error { return weigh(ctx) },
	} {
		if err := measure(); err != nil {
			return err
		}
	}
	return nil
}

// start starts a lab whose host echoes, swallows and floods.
func start(ctx context.Context, link string) (*lab.Lab, error) {
	text := "clusters: [{name: prod, hosts: [{instance: " + host + "}]}]\nlink: " + link +
		"\ndocuments: [{name: echo, port: 1}, {name: sink, port: 2}, {name: flood, port: 3}]"
	w, err := world.Parse([]byte(text), "world")
	if err != nil {
		return nil, err
	}
	l, err := lab.Start(ctx, lab.Config{World: w})
	if err != nil {
		return nil, err
	}
	for port, far := range map[int]func(net.Conn){
		echoPort:  func(c net.Conn) { io.Copy(c, c) },
		sinkPort:  swallow,
		floodPort: func(c net.Conn) { io.Copy(c, zeros{}) },
	} {
		err := l.Listen(host, port, func(c net.Conn) { defer c.Close(); io.WriteString(c, "!"); far(c) })
		if err != nil {
			return nil, err
		}
	}
	return l, nil
}

// zeros is a stream without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// swallow reads numbers of bytes in ASCII lines' stead: it says after each MiB that it has come.
func swallow(c net.Conn) {
	for {
		if _, err := io.CopyN(io.Discard, c, 1<<20); err != nil {
			return
		}
		if _, err := c.Write([]byte{'.'}); err != nil {
			return
		}
	}
}

// open opens a session, and reads that the far side is there.
func open(ctx context.Context, env []string, document string) (*session.Session, error) {
	s, err := begin(ctx, env, document)
	if err != nil {
		return nil, err
	}
	_, err = io.ReadFull(s, make([]byte, 1))
	return s, err
}

// begin opens a session.
func begin(ctx context.Context, env []string, document string) (*session.Session, error) {
	value := func(name string) string {
		for _, v := range env {
			if found, ok := strings.CutPrefix(v, name+"="); ok {
				return found
			}
		}
		return ""
	}
	keys := credentials.NewStaticCredentialsProvider(value("AWS_ACCESS_KEY_ID"), value("AWS_SECRET_ACCESS_KEY"), "")
	api := ssm.NewFromConfig(aws.Config{Region: value("AWS_REGION"), APIOptions: awsconfig.PlainBodies(), BaseEndpoint: aws.String(value("AWS_ENDPOINT_URL")), Credentials: keys})
	return session.Start(ctx, session.Config{API: api, Credentials: keys, Region: value("AWS_REGION"), Target: host, Document: document})
}

const mb = 1e6

// up measures what goes up, as it is confirmed by the far side.
func up(ctx context.Context, long time.Duration) error {
	l, err := start(ctx, "{}")
	if err != nil {
		return err
	}
	defer l.Close()
	s, err := open(ctx, l.Env(), "sink")
	if err != nil {
		return err
	}
	defer s.Close()
	go io.Copy(s, zeros{})
	began, arrived := time.Now(), 0
	for time.Since(began) < long {
		n, err := s.Read(make([]byte, 64))
		if err != nil {
			return err
		}
		arrived += n << 20
	}
	fmt.Printf("up                       %6.2f MB/s (16 KiB a message, 900 messages a second: %.2f)\n", float64(arrived)/mb/time.Since(began).Seconds(), 900*16384/mb)
	return nil
}

// down measures what comes down, and what the agent's loop could carry.
func down(ctx context.Context, long time.Duration) error {
	l, err := start(ctx, "{}")
	if err != nil {
		return err
	}
	defer l.Close()
	s, err := open(ctx, l.Env(), "flood")
	if err != nil {
		return err
	}
	defer s.Close()
	yardstick := make(chan float64, 1)
	go func() { yardstick <- sleeps(long) }()
	began, got, b := time.Now(), 0, make([]byte, 64<<10)
	for time.Since(began) < long {
		n, err := s.Read(b)
		if err != nil {
			return err
		}
		got += n
	}
	rate, most := float64(got)/mb/time.Since(began).Seconds(), <-yardstick*1024/mb
	fmt.Printf("down                     %6.2f MB/s, %.2f of the %.2f that the agent's loop can carry\n", rate, rate/most, most)
	return nil
}

// sleeps is how many times a second one can sleep for a millisecond.
func sleeps(long time.Duration) float64 {
	n, began := 0, time.Now()
	for time.Since(began) < long {
		time.Sleep(time.Millisecond)
		n++
	}
	return float64(n) / time.Since(began).Seconds()
}

// echo measures keystrokes, alone and with a session that downloads beside it.
func echo(ctx context.Context, long, delay time.Duration) error {
	l, err := start(ctx, "{delay: "+delay.String()+"}")
	if err != nil {
		return err
	}
	defer l.Close()
	s, err := open(ctx, l.Env(), "echo")
	if err != nil {
		return err
	}
	defer s.Close()
	if err := keystrokes(s, "echo", long, delay); err != nil {
		return err
	}
	bulk, err := open(ctx, l.Env(), "flood")
	if err != nil {
		return err
	}
	defer bulk.Close()
	go io.Copy(io.Discard, bulk)
	return keystrokes(s, "echo beside a download", long, delay)
}

func keystrokes(s io.ReadWriter, name string, long, delay time.Duration) error {
	var took []time.Duration
	for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(30 * time.Millisecond) {
		began := time.Now()
		if _, err := s.Write([]byte("x")); err != nil {
			return err
		}
		if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
			return err
		}
		took = append(took, time.Since(began)-2*delay)
	}
	slices.Sort(took)
	at := func(share float64) time.Duration {
		return took[int(share*float64(len(took)-1))].Round(10 * time.Microsecond)
	}
	fmt.Printf("%-24s p50 %v, p90 %v, p99 %v above the link's round trip of %v (%d keys)\n", name, at(.5), at(.9), at(.99), 2*delay, len(took))
	return nil
}

// sessions is how many are opened to weigh them.
const sessions = 50

// memory lets another process open sessions, so that the lab is not weighed.
func memory(ctx context.Context) error {
	l, err := start(ctx, "{}")
	if err != nil {
		return err
	}
	defer l.Close()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(append(os.Environ(), l.Env()...), "BENCH_SESSIONS="+strconv.Itoa(sessions))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// hold opens sessions and weighs them: idle, and with all of them downloading.
func hold(ctx context.Context, number string) error {
	n, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	warm, err := open(ctx, os.Environ(), "echo") // the SDK's own
	if err != nil {
		return err
	}
	defer warm.Close()
	before := resident()
	for range n {
		s, err := open(ctx, os.Environ(), "flood")
		if err != nil {
			return err
		}
		defer s.Close()
	}
	time.Sleep(2 * time.Second) // nobody reads: what may be held is held
	fmt.Printf("memory of a session      %6.2f MB resident, nobody reading what comes (mean of %d)\n", (resident()-before)/float64(n)/mb, n)
	return nil
}

// resident is this process's memory in bytes, as the kernel counts it.
func resident() float64 {
	runtime.GC()
	debug.FreeOSMemory()
	return residentOf("self")
}

// residentOf is that of a process.
func residentOf(pid string) float64 {
	text, err := os.ReadFile("/proc/" + pid + "/statm")
	if err != nil {
		return 0
	}
	pages, err := strconv.ParseFloat(strings.Fields(string(text))[1], 64)
	if err != nil {
		return 0
	}
	return pages * float64(os.Getpagesize())
}
