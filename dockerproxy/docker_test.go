package dockerproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"jumpsuite/internal/audit"
)

// The docker CLI through the gate to a real Engine. Every CLI that is installed
// is tried: they differ in what they send.

func dockerCLIs(t *testing.T) []string {
	var found []string
	for _, path := range []string{"/usr/bin/docker", "/usr/local/bin/docker"} {
		if _, err := os.Stat(path); err == nil {
			found = append(found, path)
		}
	}
	if len(found) == 0 {
		t.Skip("no docker CLI is installed")
	}
	return found
}

// docker is a CLI that calls on a socket.
type docker struct {
	t            *testing.T
	path, socket string
	home         string
}

func (d docker) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	d.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, d.path, args...)
	cmd.Env = []string{"DOCKER_HOST=unix://" + d.socket, "HOME=" + d.home, "PATH=/usr/bin:/bin", "DOCKER_CONFIG=" + d.home}
	return cmd
}

// run runs the CLI and returns what it printed, both streams together.
func (d docker) run(stdin string, args ...string) (out string, code int) {
	d.t.Helper()
	cmd := d.command(args...)
	cmd.Stdin = strings.NewReader(stdin)
	b, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		d.t.Fatalf("docker %v: %v", args, err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

func (d docker) expect(stdin, want string, code int, args ...string) string {
	d.t.Helper()
	out, got := d.run(stdin, args...)
	if got != code || !strings.Contains(out, want) {
		d.t.Errorf("docker %s: got exit %d and %q, want %d and %q", strings.Join(args, " "), got, out, code, want)
	}
	return out
}

func eachCLI(t *testing.T, f func(t *testing.T, cli, engine string)) {
	engine := needEngine(t)
	for _, cli := range dockerCLIs(t) {
		t.Run(strings.ReplaceAll(strings.Trim(cli, "/"), "/", "-"), func(t *testing.T) { f(t, cli, engine) })
	}
}

func TestDockerCLI(t *testing.T) {
	eachCLI(t, func(t *testing.T, cli, engine string) { everyVerb(t, newHarness(t, engine, "test"), cli, engine) })
}

func TestDockerCLIThroughTwoGates(t *testing.T) {
	engine := needEngine(t)
	h := newHarness(t, engine, "test")
	h.behindAnother()
	everyVerb(t, h, dockerCLIs(t)[0], engine)
	host := map[string]bool{}
	for _, e := range h.hostLog.all() {
		if e.Principal.Key != "jump1" {
			t.Errorf("on the host: an event that does not say which jump server: %+v", e)
		}
		host[e.Far] = true
	}
	for _, e := range h.log.all() {
		if e.Decides() && e.Verdict == audit.Allow && !host[e.ID] && e.Detail != "outline, for logs, stats, exec or start" {
			t.Errorf("allowed at the jump server, and not on record at the host: %+v", e)
		}
	}
}

// everyVerb types what people type.
func everyVerb(t *testing.T, h *harness, cli, engine string) {
	d := docker{t, cli, h.socket("dev"), t.TempDir()}
	id := makeContainer(t, engine, "web", sleeper(map[string]any{"Cmd": []string{"sh", "-c", "echo one; echo two >&2; exec sleep 1000"}}), true)

	d.expect("", "Server", 0, "version")
	d.expect("", "web", 0, "ps")
	d.expect("", "lab/web", 0, "images")
	eventually(t, "the log has both lines", func() bool {
		out, _ := d.run("", "logs", "web")
		return strings.Contains(out, "one\n") && strings.Contains(out, "two\n")
	})
	d.expect("", "DB_PASSWORD=REDACTED", 0, "inspect", "web")
	d.expect("", "PLAIN=seen", 0, "inspect", "web")
	d.expect("", "APP_SECRET=REDACTED", 0, "inspect", "lab/web:1")
	d.expect("", "No such object: nosuch", 1, "inspect", "nosuch")
	d.expect("", "web", 0, "stats", "--no-stream")
	d.expect("", "web", 0, "stats", "--no-stream", "web")

	d.expect("", "hello\n", 0, "exec", "web", "echo", "hello")
	d.expect("", "", 7, "exec", "web", "sh", "-c", "exit 7")
	d.expect("piped through", "piped through", 0, "exec", "-i", "web", "cat")
	big := strings.Repeat("0123456789", 100000)
	if out, code := d.run(big, "exec", "-i", "web", "cat"); out != big || code != 0 {
		t.Errorf("a megabyte through exec -i cat: got %d bytes, exit %d", len(out), code)
	}
	d.expect("written", "", 0, "exec", "-i", "web", "sh", "-c", "cat > /tmp/f")
	d.expect("", "written", 0, "exec", "web", "cat", "/tmp/f")
	d.expect("", "", 0, "exec", "-d", "web", "touch", "/tmp/detached")
	d.expect("", "limits.exec.users", 1, "exec", "-u", "0", "web", "id")
	d.expect("", "privileged", 1, "exec", "--privileged", "web", "id")

	d.expect("", "from run\n", 0, "run", "--rm", "lab/web:1", "echo", "from run")
	d.expect("x y z", "3", 0, "run", "-i", "--rm", "lab/web:1", "wc", "-w")
	d.expect("", "", 3, "run", "--rm", "lab/web:1", "sh", "-c", "exit 3")
	d.expect("", "limits.run.privileged", 125, "run", "--privileged", "lab/web:1", "true")
	d.expect("", "limits.run.binds", 125, "run", "-v", "/:/h", "lab/web:1", "true")
	d.expect("", "docker.run is not allowed in test", 125, "run", "evil/web:1", "true")
	d.expect("", "docker.run is not allowed in test", 125, "run", "evil/absent:1", "true")
	d.expect("", "docker.pull is not allowed in test", 1, "pull", "evil/absent:1")

	d.expect("", "", 0, "create", "--name", "one", "lab/web:1", "sh", "-c", "echo one speaks; exit 4")
	d.expect("", "one speaks", 4, "start", "-a", "one")
	d.expect("", "one", 0, "rm", "one")
	printed := strings.Fields(d.expect("", "", 0, "run", "-d", "--name", "r1", "lab/web:1", "sleep", "1000"))
	made := printed[len(printed)-1] // behind what the Engine warns of
	other := docker{t, cli, h.socket("other"), t.TempDir()}
	other.expect("", "made or started", 1, "rm", "-f", "r1")
	other.expect("", "made or started", 1, "stop", "r1")
	other.expect("", "made or started", 1, "start", "r1")
	d.expect("", "r1", 0, "stop", "-t", "0", "r1")
	d.expect("", "r1", 0, "rm", "r1")

	d.expect("", "not available through the gate", 1, "rename", "web", "x")
	d.expect("", "not available through the gate", 1, "pause", "web")
	d.expect("", "made or started", 1, "stop", "web")
	checkTrail(t, h.log.all(), id, made)
}

// checkTrail looks at the audit log of a whole session: what was opened was
// closed, once, and says how it ended.
func checkTrail(t *testing.T, events []audit.Event, web, made string) {
	t.Helper()
	open := map[string]audit.Event{}
	sevens := 0
	for _, e := range events {
		switch e.Kind {
		case audit.Open:
			open[e.ID] = e
		case audit.Close:
			if _, ok := open[e.ID]; !ok {
				t.Errorf("a close without its open: %+v", e)
			}
			delete(open, e.ID)
			if e.Action == "docker.exec" && e.Result.Exit == 7 && e.Resource.Container == web {
				sevens++
			}
		}
		if e.Principal.Name == "" || e.Environment != "test" || e.Action == "" {
			t.Errorf("an event that does not say who, where or what: %+v", e)
		}
	}
	if len(open) > 0 {
		t.Errorf("%d events are not closed: %+v", len(open), open)
	}
	if sevens != 1 {
		t.Errorf("got %d closes of an exec with exit code 7, want 1", sevens)
	}
	if !isID(made) {
		t.Errorf("run -d printed %q, want an id", made)
	}
}

func TestDockerCLIInProduction(t *testing.T) {
	eachCLI(t, func(t *testing.T, cli, engine string) {
		h := newHarness(t, engine, "prod")
		d := docker{t, cli, h.socket("dev"), t.TempDir()}
		makeContainer(t, engine, "web", sleeper(nil), true)
		makeContainer(t, engine, "old", sleeper(nil), false)
		d.expect("", "web", 0, "ps")
		d.expect("", "lab/web", 0, "images")
		d.expect("", "", 0, "logs", "web")
		d.expect("", "web", 0, "stats", "--no-stream")
		d.expect("", "REDACTED", 0, "inspect", "web")
		d.expect("", "bash", 1, "exec", "web", "id") // the default limits: a shell
		d.expect("", "docker.run is not allowed in prod (rule floor)", 125, "run", "lab/web:1", "true")
		d.expect("", "is not allowed in prod (rule floor)", 1, "create", "lab/web:1")
		d.expect("", "docker.start is not allowed in prod (rule floor)", 1, "start", "old")
		d.expect("", "docker.pull is not allowed in prod (rule floor)", 1, "pull", "lab/web:1")
	})
}

func TestLogsFollow(t *testing.T) {
	eachCLI(t, func(t *testing.T, cli, engine string) {
		h := newHarness(t, engine, "test")
		d := docker{t, cli, h.socket("dev"), t.TempDir()}
		makeContainer(t, engine, "ticker", sleeper(map[string]any{"Cmd": []string{"sh", "-c", "i=0; while true; do echo tick $i; i=$((i+1)); sleep 0.1; done"}}), true)
		cmd := d.command("logs", "-f", "ticker")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			var n int
			if _, err := fmt.Fscanf(out, "tick %d\n", &n); err != nil || n != i {
				t.Fatalf("line %d: got %d, %v", i, n, err)
			}
		}
		cmd.Process.Kill()
		io.Copy(io.Discard, out)
		cmd.Wait()
		eventually(t, "the gate lets go", func() bool {
			h.gate.mu.Lock()
			defer h.gate.mu.Unlock()
			return len(h.gate.open) == 0
		})
	})
}

// terminal is a pseudo terminal: what a person has.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo terminals: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

func setSize(t *testing.T, f *os.File, rows, columns uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(f.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		t.Fatal(err)
	}
}

// onTerminal starts the CLI on a terminal and returns it, and what it shows.
func (d docker) onTerminal(args ...string) (*exec.Cmd, *os.File, *shown) {
	d.t.Helper()
	master, slave := terminal(d.t)
	setSize(d.t, master, 24, 80)
	cmd := d.command(args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = newSession()
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	slave.Close()
	s := &shown{}
	go io.Copy(s, master)
	d.t.Cleanup(func() { cmd.Process.Kill() })
	return cmd, master, s
}

func TestATerminalThroughTheGate(t *testing.T) {
	eachCLI(t, func(t *testing.T, cli, engine string) {
		h := newHarness(t, engine, "test")
		d := docker{t, cli, h.socket("dev"), t.TempDir()}
		makeContainer(t, engine, "web", sleeper(nil), true)
		for _, args := range [][]string{{"exec", "-it", "web", "sh"}, {"run", "-it", "--rm", "lab/web:1", "sh"}} {
			cmd, keys, screen := d.onTerminal(args...)
			eventually(t, args[0]+": a prompt", func() bool { return screen.has("# ") })
			// An old CLI tells the size once the container runs: the shell may be first.
			eventually(t, args[0]+": an answer", func() bool {
				fmt.Fprint(keys, "echo $((6*7)); stty size\r")
				time.Sleep(50 * time.Millisecond)
				return screen.has("42") && screen.has("24 80")
			})
			setSize(t, keys, 33, 101)
			cmd.Process.Signal(unix.SIGWINCH)
			eventually(t, args[0]+": the new size", func() bool {
				fmt.Fprint(keys, "stty size\r")
				time.Sleep(50 * time.Millisecond)
				return screen.has("33 101")
			})
			fmt.Fprint(keys, "sleep 1000\r")
			time.Sleep(200 * time.Millisecond)
			fmt.Fprint(keys, "\x03") // Ctrl-C: for the sleep, not for us
			fmt.Fprint(keys, "echo ali''ve\r")
			eventually(t, args[0]+": still there after Ctrl-C", func() bool { return screen.has("alive") })
			fmt.Fprint(keys, "exit 5\r")
			cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != 5 {
				t.Errorf("%s: got exit %d, want 5; it showed %q", args[0], code, screen.text())
			}
		}
	})
}

func TestDetachKeysLeaveTheContainerRunning(t *testing.T) {
	eachCLI(t, func(t *testing.T, cli, engine string) {
		h := newHarness(t, engine, "test")
		d := docker{t, cli, h.socket("dev"), t.TempDir()}
		cmd, keys, screen := d.onTerminal("run", "-it", "--name", "left", "lab/web:1", "sh")
		t.Cleanup(func() { d.run("", "rm", "-f", "left") })
		eventually(t, "a prompt", func() bool { return screen.has("# ") })
		fmt.Fprint(keys, "\x10\x11") // Ctrl-P Ctrl-Q
		cmd.Wait()
		d.expect("", "left", 0, "ps")
	})
}

// The star: a container that ECS stopped is started and looked into, although
// the ECS agent stops it once more at first.
func TestStartOfWhatECSStopped(t *testing.T) {
	eachCLI(t, func(t *testing.T, cli, engine string) {
		notices := make(chan string, 4)
		h := newHarness(t, engine, "test", func(g *Gate) {
			g.Watch = 5 * time.Second
			g.Notify = func(_ Caller, text string) { notices <- text }
		})
		d := docker{t, cli, h.socket("dev"), t.TempDir()}
		labels := map[string]string{ecsFamilyLabel: "web", ecsTaskLabel: "arn:aws:ecs:eu-central-1:123456789012:task/test/0123"}
		id := makeContainer(t, engine, "ecs-web-1", sleeper(map[string]any{
			"Labels": labels, "Cmd": []string{"sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.1; done"},
		}), false)
		agent := make(chan struct{})
		go func() { // it sees the container come back, and stops it once
			defer close(agent)
			for range 400 {
				if running(engine, id) {
					rawPost(engine, "/v1.41/containers/"+id+"/stop?t=5")
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		}()
		d.expect("", "ecs-web-1", 0, "start", "ecs-web-1")
		<-agent
		select {
		case text := <-notices:
			if !strings.Contains(text, "started again") {
				t.Errorf("got %q, want a word on the second start", text)
			}
		default:
			t.Error("nothing was said about the second start")
		}
		d.expect("", "in here", 0, "exec", "ecs-web-1", "echo", "in here")
		d.expect("", "ecs-web-1", 0, "stop", "-t", "1", "ecs-web-1")
	})
}
