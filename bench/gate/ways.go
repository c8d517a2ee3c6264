package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
)

// serveWay is a child: one of the ways, until it is killed.
func serveWay(name, dir string) error {
	engine := os.Getenv("BENCH_ENGINE")
	l, err := net.Listen("unix", filepath.Join(dir, name+".sock"))
	if err != nil {
		return err
	}
	switch name {
	case "relay":
		return relay(l, engine)
	case "reverseproxy":
		return reverseProxy(l, engine)
	}
	return fmt.Errorf("no way is called %q", name)
}

func dialer(engine string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", engine)
	}
}

func relay(l net.Listener, engine string) error {
	for {
		client, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer client.Close()
			up, err := net.Dial("unix", engine)
			if err != nil {
				return
			}
			defer up.Close()
			done := make(chan struct{})
			go func() { oneWay(up, client); close(done) }()
			oneWay(client, up)
			client.Close()
			<-done
		}()
	}
}

func oneWay(dst, src net.Conn) {
	io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, make([]byte, 64<<10))
	dst.(*net.UnixConn).CloseWrite()
}

func reverseProxy(l net.Listener, engine string) error {
	p := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "docker" },
		FlushInterval: -1,
		Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 100,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dialer(engine)(ctx) }},
	}
	return http.Serve(l, p)
}

const benchPolicy = `
environments:
  - {name: bench, cluster: bench, region: eu-central-1, production: false, limits: {exec: {commands: any}}}
rules:
  - name: all
    effect: allow
    principals: [user:root]
    actions: [docker.version, docker.ps, docker.images, docker.logs, docker.stats, docker.inspect, docker.exec]
    environments: ["*"]
`

// build makes the command as it is shipped.
func build(dir string) (binary string, err error) {
	binary = filepath.Join(dir, "r3-dockerproxy")
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "jumpsuite/cmd/r3-dockerproxy")
	cmd.Env, cmd.Stderr = append(os.Environ(), "CGO_ENABLED=0"), os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build r3-dockerproxy: %w", err)
	}
	return binary, nil
}

// gate is the command that is shipped, policy, audit log and all.
func gate(binary, name, dir, engine string) (*exec.Cmd, error) {
	file := filepath.Join(dir, "policy.yaml")
	if err := os.WriteFile(file, []byte(benchPolicy), 0o600); err != nil {
		return nil, err
	}
	return exec.Command(binary, "--policy", file, "--environment", "bench",
		"--listen", "unix://"+filepath.Join(dir, name+".sock"), "--engine", "unix://"+engine,
		"--leases", filepath.Join(dir, name+".leases"), "--audit", filepath.Join(dir, name+".audit")), nil
}
