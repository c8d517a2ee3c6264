package scripttest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/world"
	"jumpsuite/internal/lab/worlds"
)

// patience is how long eventually tries, outside.
const patience = time.Minute

// commands are the script commands, as the package comment has them.
var commands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"world":      cmdWorld,
	"lab":        cmdLab,
	"fault":      cmdFault,
	"calls":      cmdCalls,
	"callcount":  cmdCallCount,
	"called":     cmdCalled,
	"resetcalls": cmdResetCalls,
	"pass":       cmdPass,
	"freeze":     cmdFreeze,
	"thaw":       cmdThaw,
	"killed":     cmdKilled,
	"eventually": cmdEventually,
	"exitcode":   cmdExitCode,
}

func stageOf(ts *testscript.TestScript) *stage { return ts.Value(stageKey{}).(*stage) }

// labOf is the lab of a script; it must have a world.
func labOf(ts *testscript.TestScript) *lab.Lab {
	l := stageOf(ts).lab
	if l == nil {
		ts.Fatalf("there is no lab yet: world FILE starts one")
	}
	return l
}

func usage(ts *testscript.TestScript, ok bool, text string) {
	if !ok {
		ts.Fatalf("usage: %s", text)
	}
}

func cmdWorld(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "world FILE|NAME")
	w, err := readWorld(ts.MkAbs(args[0]), args[0])
	ts.Check(err)
	s := stageOf(ts)
	ts.Check(s.start(w))
	for _, v := range s.lab.Env() {
		name, value, _ := strings.Cut(v, "=")
		ts.Setenv(name, value)
	}
}

// readWorld reads a world from a file of the script, or one of package worlds.
func readWorld(file, name string) (*world.World, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return worlds.Read(name)
	}
	return world.Parse(data, name)
}

func cmdLab(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) == 2 || len(args) == 3, "lab VERB TO [VALUE]")
	a := world.Action{Do: args[0], To: args[1]}
	if len(args) == 3 {
		a.Value = args[2]
	}
	err := labOf(ts).Do(a)
	if !neg {
		ts.Check(err)
	} else if err == nil {
		ts.Fatalf("%s %s worked", a.Do, a.To)
	} else {
		ts.Logf("%v", err)
	}
}

func cmdFault(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) > 0, "fault YAML | fault clear")
	text := strings.Join(args, " ")
	if text == "clear" && !neg {
		labOf(ts).ClearFaults()
		return
	}
	f, err := world.ParseFault([]byte(text), "fault")
	if neg {
		if err == nil {
			ts.Fatalf("%s is a fault", text)
		}
		return
	}
	ts.Check(err)
	labOf(ts).AddFault(f)
}

// operations are the names of the operations that were called, sorted.
func operations(l *lab.Lab) []string {
	var names []string
	for _, c := range l.Calls() {
		names = append(names, c.Operation)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func cmdCalls(ts *testscript.TestScript, neg bool, args []string) {
	want := slices.Clone(args)
	slices.Sort(want)
	got := operations(labOf(ts))
	if same := slices.Equal(got, slices.Compact(want)); same == neg {
		ts.Fatalf("called %s", strings.Join(got, " "))
	}
}

func count(l *lab.Lab, operation string) int {
	n := 0
	for _, c := range l.Calls() {
		if c.Operation == operation {
			n++
		}
	}
	return n
}

func cmdCallCount(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) == 2, "callcount OP N|<=N|>=N")
	limit, compare := strings.TrimLeft(args[1], "<>="), strings.TrimRight(args[1], "0123456789")
	want, err := strconv.Atoi(limit)
	ts.Check(err)
	got := count(labOf(ts), args[0])
	ok, known := map[string]bool{"": got == want, "<=": got <= want, ">=": got >= want}[compare]
	usage(ts, known, "callcount OP N|<=N|>=N")
	if ok == neg {
		ts.Fatalf("%s was called %d times", args[0], got)
	}
}

func cmdCalled(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) > 0, "called OP [TEXT]")
	text, found := strings.Join(args[1:], " "), false
	out := ts.Stdout()
	for _, c := range labOf(ts).Calls() {
		if c.Operation == args[0] && strings.Contains(string(c.Parameters), text) {
			found = true
			out.Write(append(slices.Clone(c.Parameters), '\n'))
		}
	}
	if found == neg {
		ts.Fatalf("%s was called with %q in its parameters: %v", args[0], text, found)
	}
}

func cmdResetCalls(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 0, "resetcalls")
	labOf(ts).ResetCalls()
}

func cmdPass(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "pass DURATION")
	d, err := time.ParseDuration(args[0])
	ts.Check(err)
	ts.Check(labOf(ts).Clock.Pass(context.Background(), d))
}

func cmdFreeze(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 0, "freeze")
	labOf(ts).Clock.Freeze()
}

func cmdThaw(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 0, "thaw")
	labOf(ts).Clock.Thaw()
}

// cmdKilled runs a command in a shell that first writes down its process, which is
// the command's.
func cmdKilled(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 3, "killed AFTER AT COMMAND…")
	pid := ts.MkAbs(".killed")
	e := &executioner{after: args[0], at: args[1], pid: pid}
	l := labOf(ts)
	l.Intercept(e.meet)
	defer l.Intercept(nil)
	err := ts.Exec("sh", append([]string{"-c", `echo $$ >"$0"; exec "$@"`, pid}, args[2:]...)...)
	ts.Check(e.failure())
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		ts.Fatalf("%s ended before it called %s after %s: %v", strings.Join(args[2:], " "), e.at, e.after, err)
	}
}

// executioner kills a process at a call that comes after another one.
type executioner struct {
	after, at string
	pid       string // the file that has its number

	mu    sync.Mutex
	begun bool
	done  bool
	err   error
}

// meet reports whether a call is not to be carried out: its process is dead.
func (e *executioner) meet(operation string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.done || !e.begun || operation != e.at {
		e.begun = e.begun || operation == e.after
		return false
	}
	e.done = true
	e.err = killProcess(e.pid)
	return true
}

// failure is why the process could not be killed. The call that did it may still be
// on its way when the process is gone.
func (e *executioner) failure() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

func killProcess(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}

func cmdEventually(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) > 1 && args[0] == "exec", "eventually exec COMMAND…")
	args = args[1:]
	for end := time.Now().Add(patience); ; {
		err := ts.Exec(args[0], args[1:]...)
		if (err == nil) != neg {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s did not come to it in %v: %v", strings.Join(args, " "), patience, err)
		}
		// Between two tries of a command that exits, not a wait for a state.
		time.Sleep(20 * time.Millisecond)
	}
}

func cmdExitCode(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 2, "exitcode N COMMAND…")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%s ended with %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}
