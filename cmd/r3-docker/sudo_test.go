package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"jumpsuite/internal/lab/clock"
	"jumpsuite/internal/lab/registry"
	"jumpsuite/internal/lab/rootfs"
	"jumpsuite/internal/lab/sudoer"
	"jumpsuite/internal/lab/world"
)

// The tests play a docker host with a real sudo, a real Engine and real
// terminals. They are skipped, with the reason, where that cannot be.

func TestMain(m *testing.M) {
	flag.Parse()
	if !testing.Short() && sudoer.Available() == nil {
		if err := sudoer.Enter(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	code := m.Run()
	if theHost.host != nil {
		theHost.host.Close()
	}
	os.Exit(code)
}

// theHost is one for all tests of the package.
var theHost struct {
	once sync.Once
	host *sudoer.Host
	err  error
}

// need is the host, in an environment, or a skip that says why.
func need(t *testing.T, environment string) *sudoer.Host {
	t.Helper()
	if testing.Short() {
		t.Skip("no docker host is played with -short")
	}
	if err := sudoer.Available(); err != nil {
		t.Skipf("no docker host can be played here: %v", err)
	}
	theHost.once.Do(func() { theHost.host, theHost.err = furnish() })
	if theHost.err != nil {
		t.Fatal(theHost.err)
	}
	if err := theHost.host.Belong(environment); err != nil {
		t.Fatal(err)
	}
	return theHost.host
}

// policyText is the policy of the host.
func policyText() (string, error) {
	b, err := os.ReadFile("testdata/policy.yaml")
	return string(b), err
}

// furnish plays a host whose Engine has an image, lab/web:1, and can pull
// another, registry.test/app:1.
func furnish() (*sudoer.Host, error) {
	text, err := policyText()
	if err != nil {
		return nil, err
	}
	h, err := sudoer.Start(context.Background(), sudoer.Options{Policy: text, Registries: []string{"registry.test"}, Also: []string{sudoContainer}})
	if err != nil {
		return nil, err
	}
	return h, errors.Join(importImage("lab/web", "1"), serveRegistry(h))
}

func importImage(repository, tag string) error {
	base, err := rootfs.Base()
	if err != nil {
		return err
	}
	_, err = engine("POST", "/images/create?fromSrc=-&repo="+repository+"&tag="+tag, bytes.NewReader(base))
	return err
}

// serveRegistry is registry.test, in the Engine's network.
func serveRegistry(h *sudoer.Host) error {
	w, err := world.Parse([]byte(`images: [{repository: app, registry: registry.test, tags: ["1"]}]`), "the test's")
	if err != nil {
		return err
	}
	images, err := registry.New(w, clock.New(1))
	if err != nil {
		return err
	}
	l, err := h.Docker.Listen("tcp", "127.0.0.1:80")
	if err != nil {
		return err
	}
	go http.Serve(l, images.Handler())
	return nil
}

// engine asks the Engine past the gate.
func engine(method, path string, body io.Reader) (string, error) {
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", sudoer.Engine)
	}}}
	req, err := http.NewRequest(method, "http://engine/v1.41"+path, body)
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, res.Status, b)
	}
	return string(b), err
}

// container makes and starts a container past the gate: one that was there.
func container(t *testing.T, name string, command ...string) {
	t.Helper()
	list, err := json.Marshal(command)
	if err != nil {
		t.Fatal(err)
	}
	body := fmt.Sprintf(`{"Image":"lab/web:1","Cmd":%s,"StopTimeout":1,"Env":["PATH=/bin"]}`, list)
	if _, err := engine("POST", "/containers/create?name="+name, strings.NewReader(body)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := engine("DELETE", "/containers/"+name+"?force=1", nil); err != nil {
			t.Error(err)
		}
	})
	if _, err := engine("POST", "/containers/"+name+"/start", nil); err != nil {
		t.Fatal(err)
	}
}

// result is what a command has printed and ended with.
type result struct {
	out, err string
	code     int
}

// docker runs sudo docker as the person.
func docker(t *testing.T, h *sudoer.Host, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := h.Sudo(ctx, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		t.Fatalf("sudo docker %s: %v", strings.Join(args, " "), err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// expect compares a result: its code, and what its streams have in them.
func (r result) expect(t *testing.T, what string, code int, out, errs string) {
	t.Helper()
	if r.code != code || !strings.Contains(r.out, out) || !strings.Contains(r.err, errs) {
		t.Errorf("%s: got code %d, stdout %q, stderr %q; want %d, %q, %q", what, r.code, r.out, r.err, code, out, errs)
	}
}

func TestTheTenVerbsInTest(t *testing.T) {
	h := need(t, "test")
	container(t, "web", "sh", "-c", "echo from the log; exec sleep 1000")
	container(t, "ended", "true")
	for _, tt := range []struct {
		name, stdin string
		args        string
		code        int
		out, err    string
	}{
		{"ps", "", "ps", 0, "lab/web:1", ""},
		{"ps with a format", "", "ps --format {{.Names}}", 0, "web\n", ""},
		{"images", "", "images", 0, "lab/web", ""},
		{"logs", "", "logs web", 0, "from the log\n", ""},
		{"exec", "", "exec web echo hello", 0, "hello\n", ""},
		{"exec ends with the command's code", "", "exec web false", 1, "", ""},
		{"exec takes its input to the end", "one two", "exec -i web wc -w", 0, "2\n", ""},
		{"stats", "", "stats --no-stream web", 0, "web", ""},
		{"inspect a container", "", "inspect web --format {{.Name}}", 0, "/web\n", ""},
		{"inspect an image", "", "inspect lab/web:1 --format {{.Os}}", 0, "linux\n", ""},
		{"inspect nothing", "", "inspect nosuch", 1, "[]\n", "No such object: nosuch"},
		{"inspect a network", "", "inspect bridge", 1, "[]\n", "No such object: bridge"},
		{"run", "", "run --rm lab/web:1 echo from run", 0, "from run\n", ""},
		{"run ends with the command's code", "", "run --rm lab/web:1 sh -c exit~7", 7, "", ""},
		{"run takes its input to the end", "a b c", "run -i --rm lab/web:1 wc -w", 0, "3\n", ""},
		{"pull", "", "pull registry.test/app:1", 0, "Status: ", ""},
		{"create", "", "create --name made lab/web:1 true", 0, "", ""},
		{"start what was made", "", "start made", 0, "made\n", ""},
		{"start what was there", "", "start ended", 0, "ended\n", ""},
		{"start and look", "", "start -a made", 0, "", ""},
		{"rm what was made", "", "rm -f made", 0, "made\n", ""},
		{"version", "", "version --format {{.Server.APIVersion}}", 0, "1.", ""},
		{"an escape is refused", "", "run --privileged lab/web:1 true", 125, "", "limits.run.privileged"},
		{"another image is refused", "", "run evil/web:1 true", 125, "", "docker.run is not allowed in test"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := strings.Fields(tt.args)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "~", " ")
			}
			docker(t, h, tt.stdin, args...).expect(t, tt.args, tt.code, tt.out, tt.err)
		})
	}
}

func TestSixVerbsInProduction(t *testing.T) {
	h := need(t, "prod")
	container(t, "prodweb", "sh", "-c", "echo from the log; exec sleep 1000")
	for _, tt := range []struct {
		args     string
		code     int
		out, err string
	}{
		{"ps", 0, "prodweb", ""},
		{"images", 0, "lab/web", ""},
		{"logs prodweb", 0, "from the log\n", ""},
		{"stats --no-stream prodweb", 0, "prodweb", ""},
		{"inspect prodweb", 0, `"Name": "/prodweb"`, ""},
		{"exec prodweb echo hello", 1, "", "limits.exec.commands"},
		{"run lab/web:1 true", 125, "", "docker.run is not allowed in prod (rule floor)"},
		{"create lab/web:1 true", 1, "", "docker.create is not allowed in prod (rule floor)"},
		{"pull registry.test/app:1", 1, "", "docker.pull is not allowed in prod (rule floor)"},
		{"start prodweb", 1, "", "docker.start is not allowed in prod (rule floor)"},
		{"start -a prodweb", 1, "", "docker.start is not allowed in prod (rule floor)"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			r := docker(t, h, "", strings.Fields(tt.args)...)
			r.expect(t, tt.args, tt.code, tt.out, tt.err)
			if n := strings.Count(r.err, "hint:"); r.code != 0 && n != 1 {
				t.Errorf("%d hints in %q", n, r.err)
			}
		})
	}
	docker(t, h, "echo typed\nexit 5\n", "exec", "-i", "prodweb", "sh").expect(t, "a shell in production", 5, "typed\n", "")
}

func TestWhatChoosesADaemonOrAConfigurationIsRefused(t *testing.T) {
	h := need(t, "test")
	for _, tt := range []struct {
		args string
		code int
		err  string
	}{
		{"-H unix:///var/run/docker.sock ps", 125, "is no name of a host"},
		{"-H tcp://127.0.0.1:2375 ps", 125, "is no name of a host"},
		{"-H ssh://x ps", 125, "is no name of a host"},
		{"-H a -H b ps", 125, "only one -H"},
		{"-H elsewhere ps", 1, "host elsewhere is not reached from here"},
		{"-H localhost ps -q", 0, ""},
		{"--config /tmp ps", 125, "--config is not available"},
		{"--context x ps", 125, "--context is not available"},
		{"-c x ps", 125, "--context is not available"},
		{"--tls ps", 125, "--tls is not available"},
		{"--tlsverify=false ps", 125, "--tlsverify is not available"},
		{"pull --disable-content-trust=false registry.test/app:1", 125, "content trust is not available"},
		{"run --disable-content-trust=false --rm lab/web:1 true", 125, "content trust is not available"},
		{"--nonsense ps", 125, "unknown flag: --nonsense"},
		{"build .", 126, "what is: ps images logs"},
		{"container ls", 126, `"container" is not available here`},
		{"__complete ps", 126, `"__complete" is not available here`},
		{"compose up", 126, `"compose" is not available here`},
		{"ps --nonsense", 125, "unknown flag: --nonsense"},
		{"cp web:/etc/passwd .", 126, `"cp" is not available here`},
	} {
		r := docker(t, h, "", strings.Fields(tt.args)...)
		r.expect(t, tt.args, tt.code, "", tt.err)
		if strings.Contains(r.err, "nsolicited") {
			t.Errorf("%s: an answer that nobody asked for: %s", tt.args, r.err)
		}
	}
}

func TestTheHelpShowsWhatExists(t *testing.T) {
	h := need(t, "test")
	r := docker(t, h, "", "--help")
	r.expect(t, "--help", 0, "Run 'docker COMMAND --help'", "")
	for _, word := range []string{"ps", "images", "logs", "exec", "stats", "inspect", "run", "pull", "start", "create", "version"} {
		if !strings.Contains(r.out, "  "+word+" ") {
			t.Errorf("the help has no %s: %s", word, r.out)
		}
	}
	for _, word := range []string{"build", "--config", "--tls", "--context", "swarm", "completion"} {
		if strings.Contains(r.out, word) {
			t.Errorf("the help has %s: %s", word, r.out)
		}
	}
	docker(t, h, "", "exec", "--help").expect(t, "exec --help", 0, "docker exec [OPTIONS] CONTAINER COMMAND", "")
	docker(t, h, "", "help", "logs").expect(t, "help logs", 0, "docker logs [OPTIONS] CONTAINER", "")
	docker(t, h, "", "--version").expect(t, "--version", 0, "Docker version 28.", "")
}

// What the caller has prepared for root is read with the caller's own rights,
// or not at all.
func TestTheCallersFilesAreReadAsTheCaller(t *testing.T) {
	h := need(t, "test")
	if err := os.WriteFile("/etc/secret", []byte("the secret of root\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	config := sudoer.Home + "/.docker"
	if err := os.MkdirAll(config, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config+"/config.json", []byte(`{"psFormat":"from the config","credsStore":"evil","proxies":{"default":{"httpProxy":"http://evil"}}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	container(t, "files", "sleep", "1000")
	r := docker(t, h, "", "create", "--env-file", "/etc/secret", "lab/web:1", "true")
	if r.code == 0 || strings.Contains(r.err+r.out, "the secret") || !strings.Contains(r.err, "permission denied") {
		t.Errorf("an env-file of root's: %+v", r)
	}
	docker(t, h, "", "create", "--cidfile", "/etc/cron.d/x", "lab/web:1", "true").expect(t, "a cidfile in root's folder", 1, "", "permission denied")
	if _, err := os.Stat("/etc/cron.d/x"); err == nil {
		t.Error("the caller has written into /etc/cron.d")
	}
	docker(t, h, "", "run", "--rm", "--cidfile", "cid", "lab/web:1", "true").expect(t, "a cidfile in the caller's folder", 0, "", "")
	info, err := os.Stat(sudoer.Home + "/cid")
	if err != nil || info.Sys().(*syscall.Stat_t).Uid != sudoer.UID || info.Mode().Perm() != 0o644 {
		t.Errorf("the cidfile is not the caller's, with the caller's mode: %v, %v", info, err)
	}
	r = docker(t, h, "", "ps")
	if strings.Contains(r.out, "from the config") {
		t.Errorf("config.json was read: %q", r.out)
	}
	docker(t, h, "", "run", "--rm", "lab/web:1", "env").expect(t, "env", 0, "PATH=", "")
	if r := docker(t, h, "", "run", "--rm", "lab/web:1", "env"); strings.Contains(r.out, "evil") {
		t.Errorf("a proxy of config.json is in the container: %q", r.out)
	}
}

func TestNobodyIsServedWhomSudoDoesNotName(t *testing.T) {
	h := need(t, "test")
	for _, tt := range []struct {
		name string
		cmd  *exec.Cmd
		err  string
	}{
		{"not through sudo", h.Command(t.Context(), sudoer.Bin+"/sbin/docker", "ps"), "hint: type: sudo docker ps\n"},
		{"the CLI by hand", h.Command(t.Context(), sudoer.Bin+"/r3-docker-cli", "ps"), "hint: type: sudo docker …\n"},
		{"root's own login", exec.Command(sudoer.Bin+"/sbin/docker", "ps"), "only sudo can say who calls"},
		{"a name that is not the number's", exec.Command("/usr/bin/env", "SUDO_UID=0", "SUDO_GID=0", "SUDO_USER="+sudoer.User, sudoer.Bin+"/sbin/docker", "ps"), "is not confirmed by the user database"},
		{"doas", exec.Command("/usr/bin/env", "DOAS_USER="+sudoer.User, sudoer.Bin+"/sbin/docker", "ps"), "doas and pkexec do not say who calls"},
	} {
		var out, errs bytes.Buffer
		tt.cmd.Stdout, tt.cmd.Stderr = &out, &errs
		err := tt.cmd.Run()
		if out.Len() > 0 || tt.cmd.ProcessState.ExitCode() != 125 || !strings.Contains(errs.String(), tt.err) {
			t.Errorf("%s: %v, stdout %q, stderr %q; want 125, %q", tt.name, err, out.String(), errs.String(), tt.err)
		}
	}
}

// The CLI has nothing of root's: no id, no capability, no descriptor but its
// socket.
func TestTheCLIIsTheCaller(t *testing.T) {
	h := need(t, "test")
	container(t, "still", "sleep", "1000")
	cmd := h.Sudo(t.Context(), "logs", "-f", "still")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	half := halves(t, "logs")
	defer syscall.Kill(half.root, syscall.SIGTERM)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", half.cli))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		fmt.Sprintf("Uid:\t%d\t%[1]d\t%[1]d\t%[1]d\n", sudoer.UID), fmt.Sprintf("Gid:\t%d\t%[1]d\t%[1]d\t%[1]d\n", sudoer.UID),
		fmt.Sprintf("Groups:\t%d %d \n", sudoer.UID, sudoer.UID+1),
		"CapInh:\t0000000000000000\n", "CapPrm:\t0000000000000000\n", "CapEff:\t0000000000000000\n", "CapAmb:\t0000000000000000\n",
		"NoNewPrivs:\t1\n",
	} {
		if !strings.Contains(string(status), want) {
			t.Errorf("the CLI's status has no %q:\n%s", want, status)
		}
	}
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", half.cli))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range strings.Split(strings.TrimRight(string(environ), "\x00"), "\x00") {
		switch name, _, _ := strings.Cut(v, "="); name {
		case "LANG", "TERM", "PATH", "GOGC", "GOMEMLIMIT":
		default:
			t.Errorf("the CLI's environment has %s", v)
		}
	}
	if dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", half.cli)); dir != sudoer.Home {
		t.Errorf("the CLI is in %q (%v), want %s", dir, err, sudoer.Home)
	}
}
