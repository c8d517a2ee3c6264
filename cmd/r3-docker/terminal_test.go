package main

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"jumpsuite/internal/lab/sudoer"
)

// screen is a terminal with a person before it.
type screen struct {
	t        *testing.T
	terminal *os.File
	programs *os.File // kept open, to look at the settings
	cmd      *exec.Cmd
	done     chan struct{} // closed when the program on it has ended

	mu    sync.Mutex
	shown strings.Builder
}

// on starts a command on a terminal of 24 lines of 80 characters. Where it is
// not to control it, signals of the terminal do not reach the command.
func on(t *testing.T, cmd *exec.Cmd, controls bool) *screen {
	t.Helper()
	terminal, programs, err := sudoer.Terminal(24, 80)
	if err != nil {
		t.Fatal(err)
	}
	s := &screen{t: t, terminal: terminal, programs: programs, cmd: cmd, done: make(chan struct{})}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = programs, programs, programs
	cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, controls
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go s.read()
	go func() {
		cmd.Wait()
		close(s.done)
	}()
	t.Cleanup(s.close)
	return s
}

func (s *screen) close() {
	syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	s.terminal.Close()
	s.programs.Close()
	<-s.done
}

func (s *screen) read() {
	b := make([]byte, 4096)
	for {
		n, err := s.terminal.Read(b)
		s.mu.Lock()
		s.shown.Write(b[:n])
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shown.String()
}

// types sends keys.
func (s *screen) types(keys string) {
	s.t.Helper()
	if _, err := s.terminal.WriteString(keys); err != nil {
		s.t.Fatal(err)
	}
}

// sees waits until a text is on the screen n times.
func (s *screen) sees(text string, n int) {
	s.t.Helper()
	for range 400 {
		if strings.Count(s.text(), text) >= n {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.t.Fatalf("not %d times %q on the screen:\n%s", n, text, s.text())
}

// ends waits for the command's end and compares its code.
func (s *screen) ends(code int) {
	s.t.Helper()
	select {
	case <-s.done:
	case <-time.After(30 * time.Second):
		s.t.Fatalf("the command has not ended; on the screen:\n%s", s.text())
	}
	if got := s.cmd.ProcessState.ExitCode(); got != code {
		s.t.Errorf("ended with %d, want %d; on the screen:\n%s", got, code, s.text())
	}
}

// raw reports whether keys are sent at once and not shown.
func (s *screen) raw() bool {
	s.t.Helper()
	settings, err := unix.IoctlGetTermios(int(s.programs.Fd()), unix.TCGETS)
	if err != nil {
		s.t.Fatal(err)
	}
	return settings.Lflag&unix.ECHO == 0
}

const (
	ctrlC = "\x03"
	ctrlP = "\x10"
	ctrlQ = "\x11"
	ctrlZ = "\x1a"
)

// bothWays runs a test with both kinds of sudo.
func bothWays(t *testing.T, environment string, f func(t *testing.T, h *sudoer.Host)) {
	h := need(t, environment)
	for name, own := range map[string]bool{"sudo with a terminal of its own": true, "sudo on the person's terminal": false} {
		t.Run(name, func(t *testing.T) {
			if err := h.UsePTY(own); err != nil {
				t.Fatal(err)
			}
			f(t, h)
		})
	}
}

func sudoDocker(t *testing.T, h *sudoer.Host, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return h.Sudo(ctx, args...)
}

func TestAShellInAContainer(t *testing.T) {
	bothWays(t, "test", func(t *testing.T, h *sudoer.Host) {
		container(t, "shell", "sleep", "1000")
		s := on(t, sudoDocker(t, h, "exec", "-it", "shell", "sh"), true)
		s.sees("# ", 1)
		s.types("stty size\r")
		s.sees("24 80", 1)
		if err := sudoer.Resize(s.terminal, 50, 132); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the shell knows the new size", func() bool {
			s.types("stty size\r")
			time.Sleep(100 * time.Millisecond)
			return strings.Contains(s.text(), "50 132")
		})
		s.types("sleep 1000; echo after $?\r")
		eventually(t, "sleep runs", func() bool { return strings.Count(s.text(), "sleep 1000") > 0 })
		time.Sleep(200 * time.Millisecond)
		s.types(ctrlC)
		s.sees("# ", 4)
		s.types("echo al''ive\r")
		s.sees("alive", 1)
		s.types("exit 9\r")
		s.ends(9)
		if s.raw() {
			t.Error("the terminal is left raw")
		}
	})
}

func TestDetachingLeavesTheContainerRunning(t *testing.T) {
	bothWays(t, "test", func(t *testing.T, h *sudoer.Host) {
		s := on(t, sudoDocker(t, h, "run", "-it", "--name", "detached", "lab/web:1", "sh"), true)
		t.Cleanup(func() { engine("DELETE", "/containers/detached?force=1", nil) })
		s.sees("# ", 1)
		s.types(ctrlP)
		s.types(ctrlQ)
		s.ends(0)
		if s.raw() {
			t.Error("the terminal is left raw")
		}
		r := docker(t, h, "", "ps", "--filter", "name=detached", "--format", "{{.Names}}")
		r.expect(t, "ps", 0, "detached", "")
	})
}

// A signal of the terminal goes to both halves, and to the container once.
func TestASignalReachesTheContainerOnce(t *testing.T) {
	bothWays(t, "test", func(t *testing.T, h *sudoer.Host) {
		script := `n=0; trap 'n=$((n+1)); echo int $n' INT; trap 'echo usr1' USR1; trap 'echo term; exit 4' TERM; echo ready; while :; do sleep 0.1; done`
		s := on(t, sudoDocker(t, h, "run", "--rm", "lab/web:1", "sh", "-c", script), true)
		s.sees("ready", 1)
		half := halves(t, "run")
		s.types(ctrlC)
		s.sees("int 1", 1)
		syscall.Kill(half.root, syscall.SIGUSR1)
		s.sees("usr1", 1)
		time.Sleep(500 * time.Millisecond)
		if text := s.text(); strings.Contains(text, "int 2") || strings.Count(text, "usr1") != 1 {
			t.Errorf("a signal came twice:\n%s", text)
		}
		syscall.Kill(half.root, syscall.SIGTERM)
		s.ends(4)
	})
}

func TestCtrlZStopsAndFgGoesOn(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("no bash, for its job control")
	}
	bothWays(t, "test", func(t *testing.T, h *sudoer.Host) {
		container(t, "ticks", "sh", "-c", "n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.2; done")
		s := on(t, h.Command(t.Context(), "bash", "--norc", "-i"), true)
		s.types("sudo -n docker logs -f --tail 1 ticks\r")
		s.sees("tick ", 3)
		half := halves(t, "logs")
		s.types(ctrlZ)
		s.sees("Stopped", 1)
		for name, pid := range map[string]int{"root's half": half.root, "the caller's half": half.cli} {
			eventually(t, name+" is stopped", func() bool { return state(t, pid) == "T" })
		}
		// Others are not kept waiting by what is stopped.
		docker(t, h, "", "ps", "-q").expect(t, "ps meanwhile", 0, "", "")
		s.types("fg\r")
		n := strings.Count(s.text(), "tick ")
		s.sees("tick ", n+5)
		s.types(ctrlC)
		s.sees("$ ", 3)
		s.types("echo co''de $?\r")
		s.sees("code 130", 1)
		s.types("exit\r")
	})
}

// state is the letter of /proc/PID/stat.
func state(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))[0]
}

func TestAVanishedTerminalEndsALogThatIsSilent(t *testing.T) {
	for name, controls := range map[string]bool{"that controls": true, "that does not control": false} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, "test", func(t *testing.T, h *sudoer.Host) {
				container(t, "silent", "sleep", "1000")
				s := on(t, sudoDocker(t, h, "logs", "-f", "silent"), controls)
				half := halves(t, "logs")
				s.programs.Close()
				s.terminal.Close()
				eventually(t, "both halves have ended", func() bool { return gone(half.root) && gone(half.cli) })
			})
		})
	}
}

// The process of an exec is on the host's side of Docker's API: nothing there
// ends it. The gate is beside the Engine here, as on a host.
func TestKillingEitherHalfLeavesNothing(t *testing.T) {
	for _, tt := range []struct {
		name string
		pid  func(both) int
		code int // of sudo: it dies as root's half does
	}{
		{"the caller's", func(b both) int { return b.cli }, 137},
		{"root's", func(b both) int { return b.root }, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bothWays(t, "test", func(t *testing.T, h *sudoer.Host) {
				container(t, "entered", "sleep", "1000")
				s := on(t, h.Beside(t.Context(), "exec", "-it", "entered", "sh", "-c", "echo entered; exec sleep 2000"), true)
				s.sees("entered", 1)
				if !inside(t, "entered", "sleep 2000") {
					t.Fatal("the command is not seen in the container")
				}
				half := halves(t, "exec")
				if !s.raw() {
					t.Error("the terminal is not raw in a shell")
				}
				syscall.Kill(tt.pid(half), syscall.SIGKILL)
				eventually(t, "both halves have ended", func() bool { return gone(half.root) && gone(half.cli) })
				s.ends(tt.code)
				eventually(t, "the terminal is as it was", func() bool { return !s.raw() })
				eventually(t, "the command in the container has ended", func() bool { return !inside(t, "entered", "sleep 2000") })
				eventually(t, "the undertaker has ended", func() bool { return processOf("r3-docker", "") == 0 })
			})
		})
	}
}

func TestPipes(t *testing.T) {
	bothWays(t, "test", func(t *testing.T, h *sudoer.Host) {
		container(t, "piped", "sh", "-c", "while :; do echo line; sleep 0.1; done")
		big := strings.Repeat("0123456789abcdef", 1<<16)
		if r := docker(t, h, big, "exec", "-i", "piped", "cat"); r.code != 0 || r.out != big {
			t.Errorf("a megabyte through cat: got code %d and %d bytes, want %d", r.code, len(r.out), len(big))
		}
		docker(t, h, big, "exec", "-i", "piped", "sh", "-c", "cat > /tmp/f").expect(t, "to a file", 0, "", "")
		docker(t, h, "", "exec", "piped", "wc", "-c", "/tmp/f").expect(t, "its size", 0, strconv.Itoa(len(big)), "")
		// The person has seen enough: nothing goes on behind his back.
		out, err := h.Command(t.Context(), "sh", "-c", "sudo -n docker logs -f piped | head -n 2").Output()
		if string(out) != "line\nline\n" || err != nil {
			t.Errorf("a reader that goes away: got %q, %v", out, err)
		}
		eventually(t, "both halves have ended", func() bool { return processOf("r3-docker", "logs") == 0 && processOf("r3-docker-cli", "logs") == 0 })
	})
}

func TestStatsAreDrawnAgainAndAgain(t *testing.T) {
	bothWays(t, "test", func(t *testing.T, h *sudoer.Host) {
		container(t, "busy", "sleep", "1000")
		s := on(t, sudoDocker(t, h, "stats", "busy"), true)
		s.sees("CONTAINER ID", 3)
		s.types(ctrlC)
		s.ends(130)
	})
}

// What is stopped has nobody to wake it when sudo and the shell are gone.
func TestWhatIsStoppedEndsWithSudo(t *testing.T) {
	bothWays(t, "test", func(t *testing.T, h *sudoer.Host) {
		container(t, "asleep", "sleep", "1000")
		s := on(t, sudoDocker(t, h, "logs", "-f", "asleep"), true)
		half := halves(t, "logs")
		syscall.Kill(half.cli, syscall.SIGSTOP)
		eventually(t, "root's half is stopped", func() bool { return state(t, half.root) == "T" })
		parent := s.cmd.Process.Pid
		if b, err := os.ReadFile("/proc/" + strconv.Itoa(half.root) + "/stat"); err == nil {
			parent, _ = strconv.Atoi(strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))[1])
		}
		syscall.Kill(parent, syscall.SIGKILL)
		eventually(t, "both halves have ended", func() bool { return gone(half.root) && gone(half.cli) })
	})
}

// The kernel only notes SIGTERM for what is stopped.
func TestWhatIsStoppedEndsWithRootsHalf(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
	}{
		{"logs", []string{"logs", "-f", "asleep"}},
		{"exec", []string{"exec", "-it", "asleep", "sh", "-c", "echo entered; exec sleep 2000"}}, // on a raw terminal
	} {
		t.Run(tt.name, func(t *testing.T) {
			bothWays(t, "test", func(t *testing.T, h *sudoer.Host) {
				container(t, "asleep", "sh", "-c", "echo entered; exec sleep 1000")
				s := on(t, h.Beside(t.Context(), tt.args...), true)
				s.sees("entered", 1)
				half := halves(t, tt.name)
				syscall.Kill(half.cli, syscall.SIGSTOP)
				for name, pid := range map[string]int{"root's half": half.root, "the caller's half": half.cli} {
					eventually(t, name+" is stopped", func() bool { return state(t, pid) == "T" })
				}
				syscall.Kill(half.root, syscall.SIGKILL)
				eventually(t, "the caller's half has ended", func() bool { return gone(half.cli) })
				// Sudo may be stopped, too, or be about to stop: it goes on as the person says.
				eventually(t, "root's half has ended", func() bool {
					syscall.Kill(s.cmd.Process.Pid, syscall.SIGCONT)
					return gone(half.root)
				})
			})
		})
	}
}

func TestSignalsToOneProcessArePassedOn(t *testing.T) {
	bothWays(t, "test", func(t *testing.T, h *sudoer.Host) {
		container(t, "followed", "sleep", "1000")
		for _, tt := range []struct {
			signal syscall.Signal
			code   int
		}{{syscall.SIGTERM, 143}, {syscall.SIGINT, 130}, {syscall.SIGHUP, 129}} {
			s := on(t, sudoDocker(t, h, "logs", "-f", "followed"), true)
			half := halves(t, "logs")
			time.Sleep(300 * time.Millisecond) // until it follows
			syscall.Kill(half.root, tt.signal)
			s.ends(tt.code)
		}
	})
}
