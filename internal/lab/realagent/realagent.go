// Package realagent runs the complete amazon-ssm-agent of AWS's as the agent of one of a
// lab's hosts: the core agent, its worker, and a worker for each session.
//
// The programs are not ours and not here: the environment variable OFFICIAL_SSM names a
// folder with them, built from their source (amazon-ssm-agent, ssm-agent-worker,
// ssm-session-worker; session-manager-plugin, the client, may be there too). Without it, what
// needs them says so and is left out.
//
// The agent has pid and mount namespaces of its own, in which /var/lib and /var/log are
// empty but for its own folders. So nothing of it is left on the machine, however it ends:
// the kernel ends all its processes with the first one. The network is this machine's, as
// the lab is there, and the ports that the lab's hosts lead to.
package realagent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"jumpsuite/internal/lab"
)

// Variable is the environment variable that names the folder with the programs.
const Variable = "OFFICIAL_SSM"

// programs are what an agent consists of, as far as sessions need it.
var programs = []string{core, "ssm-agent-worker", "ssm-session-worker"}

const core = "amazon-ssm-agent"

// Folder is the folder with the official programs, or the reason, in words, why they cannot
// be run here.
func Folder() (string, error) {
	folder := os.Getenv(Variable)
	if folder == "" {
		return "", errors.New(Variable + " does not name a folder with the official programs")
	}
	for _, name := range programs {
		if _, err := os.Stat(filepath.Join(folder, name)); err != nil {
			return "", fmt.Errorf("%s: %w", Variable, err)
		}
	}
	if os.Geteuid() != 0 {
		return "", errors.New("the official agent needs root")
	}
	return folder, nil
}

// Plugin is the official client, session-manager-plugin, or the reason why there is none.
func Plugin() (string, error) {
	folder := os.Getenv(Variable)
	if folder == "" {
		return "", errors.New(Variable + " does not name a folder with the official programs")
	}
	plugin := filepath.Join(folder, "session-manager-plugin")
	if _, err := os.Stat(plugin); err != nil {
		return "", fmt.Errorf("%s: %w", Variable, err)
	}
	return plugin, nil
}

// Options say which host the agent is, and where the lab is.
type Options struct {
	// Folder is where the programs are.
	Folder string
	// Dir is an empty folder for what the agent keeps.
	Dir string
	// Instance is the host's id, of ten characters at least.
	Instance string
	// Lab is where it connects to.
	Lab *lab.Lab
}

// Agent is an agent that runs. Close ends it.
type Agent struct {
	options Options
	first   *exec.Cmd // process 1 of its namespaces
	exited  chan struct{}
}

// first is what runs as process 1 of the namespaces. It stays, whatever becomes of the agent,
// which it starts again when it is told to.
const first = `
set -e
mount -t proc proc /proc
mount -t tmpfs tmpfs /var/lib
mount -t tmpfs tmpfs /var/log
mkdir /var/lib/amazon /var/log/amazon
mount --bind "$1/lib" /var/lib/amazon
mount --bind "$1/log" /var/log/amazon
trap 'true' USR1
while true; do
	"$1/amazon-ssm-agent" >>"$1/out" 2>&1 &
	agent=$!
	echo $agent >"$1/pid"
	while kill -0 $agent 2>/dev/null; do wait $agent || true; done
	rm "$1/pid"
	while [ ! -e "$1/again" ]; do sleep 0.1; done
	rm "$1/again"
done
`

// Start starts an agent. Await waits until it is connected.
func Start(o Options) (*Agent, error) {
	if err := o.furnish(); err != nil {
		return nil, fmt.Errorf("furnish the agent of %s: %w", o.Instance, err)
	}
	a := &Agent{options: o, exited: make(chan struct{})}
	a.first = exec.Command("/bin/sh", "-c", first, "r3-lab-agent", o.Dir)
	a.first.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "SSL_CERT_FILE=" + o.certificate(), "NO_PROXY=*"}, o.Lab.Env()...)
	a.first.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Unshareflags: syscall.CLONE_NEWNS, Setsid: true, Pdeathsig: syscall.SIGKILL}
	log, err := os.Create(filepath.Join(o.Dir, "namespace"))
	if err != nil {
		return nil, err
	}
	a.first.Stdout, a.first.Stderr = log, log
	started := make(chan error, 1)
	go func() { // the thread's death is the parent's, to the kernel
		runtime.LockOSThread()
		defer log.Close()
		defer close(a.exited)
		err := a.first.Start()
		started <- err
		if err == nil {
			_ = a.first.Wait() // it is killed: its status says nothing
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start the agent of %s: %w", o.Instance, err)
	}
	return a, nil
}

func (o Options) certificate() string { return filepath.Join(o.Dir, "lab.pem") }

// furnish makes the agent's folder: it takes its configuration from beside its program, if
// the other programs are there too and all is root's.
func (o Options) furnish() error {
	for _, dir := range []string{"lib", "log", "configuration"} {
		if err := os.Mkdir(filepath.Join(o.Dir, dir), 0o755); err != nil {
			return err
		}
	}
	for _, name := range programs {
		if err := os.Symlink(filepath.Join(o.Folder, name), filepath.Join(o.Dir, name)); err != nil {
			return err
		}
	}
	text, err := json.Marshal(o.configuration())
	if err != nil {
		return err
	}
	certificate, err := o.Lab.Certificate()
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(o.certificate(), certificate, 0o644),
		os.WriteFile(filepath.Join(o.Dir, "configuration", "amazon-ssm-agent.json"), text, 0o644))
}

// configuration makes all services of AWS's the lab, and the host one that need not be asked
// for who it is.
func (o Options) configuration() any {
	region := o.Lab.World.Region
	endpoint := map[string]string{"Endpoint": strings.Replace(o.Lab.URL(), "http:", "https:", 1), "Region": region}
	identity := map[string]string{"InstanceID": o.Instance, "Region": region, "AvailabilityZone": region + "a", "InstanceType": "m5.large", "CredentialsProvider": "DefaultCredentials"}
	without := map[string]string{"Endpoint": endpoint["Endpoint"]}
	return map[string]any{"Mgs": endpoint, "S3": endpoint, "Mds": without, "Ssm": without, "Kms": without, "Agent": map[string]string{"Region": region},
		"Identity": map[string]any{"ConsumptionOrder": []string{"CustomIdentity"}, "CustomIdentities": []any{identity}}}
}

// Await waits until the agent is connected to the lab, or is not any more.
func (a *Agent) Await(ctx context.Context, connected bool) error {
	for {
		if version, now := a.options.Lab.RealAgent(a.options.Instance); version != "" && now == connected {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-a.exited:
			return fmt.Errorf("the agent of %s has ended", a.options.Instance)
		case <-ctx.Done():
			return fmt.Errorf("wait for the agent of %s: %w", a.options.Instance, context.Cause(ctx))
		}
	}
}

// Command is a program beside the agent: it has the agent's files and processes before it, and
// ends with the agent at the latest.
func (a *Agent) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	pid := strconv.Itoa(a.first.Process.Pid)
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"-t", pid, "-m", "-p", "--", name}, args...)...)
	cmd.WaitDelay = time.Second // nsenter has a child, which may outlive it
	return cmd
}

// Stop ends the agent, as systemd does; what it has started for its sessions goes on. It
// waits until the agent has ended.
func (a *Agent) Stop(ctx context.Context) error { return a.kill(ctx, "TERM") }

// Kill ends the agent and its worker, which has the control channel, without a warning. What it has
// started for its sessions goes on.
func (a *Agent) Kill(ctx context.Context) error {
	if err := a.kill(ctx, "KILL"); err != nil {
		return err
	}
	// The kernel knows the first 15 characters of a name; in this namespace it is one process's.
	if out, err := a.Command(ctx, "pkill", "-KILL", "-x", "ssm-agent-worke").CombinedOutput(); err != nil {
		return fmt.Errorf("end the agent's worker on %s: %w: %s", a.options.Instance, err, out)
	}
	return nil
}

func (a *Agent) kill(ctx context.Context, signal string) error {
	file := filepath.Join(a.options.Dir, "pid")
	pid, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("the agent of %s does not run: %w", a.options.Instance, err)
	}
	if out, err := a.Command(ctx, "kill", "-"+signal, strings.TrimSpace(string(pid))).CombinedOutput(); err != nil {
		return fmt.Errorf("end the agent of %s: %w: %s", a.options.Instance, err, out)
	}
	for {
		if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Again starts an agent that was ended.
func (a *Agent) Again() error {
	return os.WriteFile(filepath.Join(a.options.Dir, "again"), nil, 0o600)
}

// Log is what the agent has written so far.
func (a *Agent) Log() string {
	text, err := os.ReadFile(filepath.Join(a.options.Dir, "log", "ssm", "amazon-ssm-agent.log"))
	if err != nil {
		text, _ = os.ReadFile(filepath.Join(a.options.Dir, "out"))
	}
	return string(text)
}

// Close ends the agent and all that it has started.
func (a *Agent) Close() error {
	err := a.first.Process.Kill()
	<-a.exited
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}
