// Package scripttest runs test scripts (testscript, txtar) of our commands
// against labs. A command's behaviour is a script, and its world is a file in it:
//
//	world world.yaml
//	! exec r3-container deploy --container-type web --image-url web:nosuch
//	stderr 'no image web:nosuch'
//	calls DescribeServices DescribeImages
//
//	-- world.yaml --
//	clusters: [{name: prod, hosts: [{count: 2}]}]
//	…
//
// Besides testscript's own commands there are
//
//	world FILE            start a lab with a world from the script, or with one
//	                      of package worlds by its name (image-missing), and set
//	                      the environment for it; a second world ends the first
//	lab VERB TO [VALUE]   make something happen in it (world.Verbs)
//	fault YAML            make calls go wrong: fault {operation: UpdateService, error: throttle}
//	fault clear           no more
//	calls OP…             exactly these operations were called since the last reset,
//	                      each any number of times; none: no call was made
//	callcount OP N        operation OP was called N times; N may be <=4 or >=2
//	called OP [TEXT]      OP was called, with TEXT in its parameters (JSON); they go to stdout
//	resetcalls            forget the calls so far
//	pass DURATION         let lab time pass
//	freeze                let it stand still from now on, but for pass
//	thaw                  let it go on
//	killed AFTER AT COMMAND…
//	                      exec COMMAND, which is killed at its first call of operation AT
//	                      after one of operation AFTER; that call does not take place
//	eventually exec …     run a command again and again until it succeeds, for at
//	                      most a minute outside
//	exitcode N COMMAND…   exec COMMAND, which ends with the exit code N
//
// All but world, fault clear, resetcalls, pass, freeze, thaw, killed and exitcode can be
// negated. While a client is connected, lab time waits for it (lab.Config's Patient).
//
// Each script runs once with each engine of the lab: sim, and docker where
// there can be one (root, dockerd, busybox). A script without a world, or with
// `# engines: sim` in its head, runs once. The conditions [sim] and [docker] tell
// which it is, [root] who runs it; $ME, for a pattern, is who. LAB_ENGINES=sim in the environment leaves the other out.
//
// When a script fails, the lab's calls and events are in its log. With -update,
// what cmp compares is written into the scripts.
package scripttest

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"jumpsuite/internal/lab"
	"jumpsuite/internal/lab/dockerengine"
	"jumpsuite/internal/lab/engine"
	"jumpsuite/internal/lab/world"
)

// Speeds of lab time in worlds that do not say, in lab seconds a second: fast
// enough for minutes of ECS in a second, and slow enough for containers, which take the
// time they take.
const (
	simSpeed    = 300
	dockerSpeed = 40
)

// startTimeout is how long a lab may take to start, outside.
const startTimeout = 2 * time.Minute

var update = flag.Bool("update", false, "write what cmp compares into the test scripts")

// Main is for TestMain: it makes commands available to scripts, by name, and runs the tests.
func Main(m *testing.M, commands map[string]func()) { testscript.Main(m, commands) }

// Run runs all scripts of a folder. It fails if there are none.
func Run(t *testing.T, dir string) {
	scripts := find(t, dir)
	t.Run(lab.Sim, func(t *testing.T) { run(t, lab.Sim, scripts) })
	twice := slices.DeleteFunc(slices.Clone(scripts), simOnly)
	if len(twice) == 0 {
		return
	}
	t.Run(lab.Docker, func(t *testing.T) {
		if err := DockerAvailable(); err != nil {
			t.Skipf("%d scripts are not run with containers: %v", len(twice), err)
		}
		run(t, lab.Docker, twice)
	})
}

// DockerAvailable reports, in words, why no lab with real containers can run
// here; nil if one can.
func DockerAvailable() error {
	if engines := os.Getenv("LAB_ENGINES"); engines != "" && !strings.Contains(engines, lab.Docker) {
		return fmt.Errorf("LAB_ENGINES is %s", engines)
	}
	return dockerengine.Available()
}

func find(t *testing.T, dir string) []string {
	t.Helper()
	scripts, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts in %s (%v)", dir, err)
	}
	return scripts
}

var hasWorld = regexp.MustCompile(`(?m)^(\[[^\]]*\] )?world\s`)

// simOnly reports whether a script runs with the simulating engine only.
func simOnly(script string) bool {
	text, err := os.ReadFile(script)
	if err != nil {
		return false
	}
	commands, _, _ := strings.Cut(string(text), "\n-- ")
	for line := range strings.Lines(commands) {
		if !strings.HasPrefix(line, "#") {
			break
		}
		if rest, ok := strings.CutPrefix(line, "# engines:"); ok {
			return !strings.Contains(rest, lab.Docker)
		}
	}
	return !hasWorld.MatchString(commands)
}

func run(t *testing.T, engine string, scripts []string) {
	testscript.Run(t, testscript.Params{
		Files:               scripts,
		Setup:               func(e *testscript.Env) error { setup(e, engine); return nil },
		Cmds:                commands,
		Condition:           func(c string) (bool, error) { return condition(c, engine) },
		UpdateScripts:       *update && engine == lab.Sim,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

func condition(name, engine string) (bool, error) {
	switch name {
	case lab.Sim, lab.Docker:
		return name == engine, nil
	case "root":
		return os.Geteuid() == 0, nil
	}
	return false, fmt.Errorf("unknown condition %q", name)
}

// stage is where one run of a script plays.
type stage struct {
	engine string
	lab    *lab.Lab
}

type stageKey struct{}

func setup(e *testscript.Env, engine string) {
	s := &stage{engine: engine}
	e.Values[stageKey{}] = s
	e.Vars = append(e.Vars, "NO_COLOR=1", "TZ=UTC", "LC_ALL=C.UTF-8", "AWS_EC2_METADATA_DISABLED=true",
		"XDG_STATE_HOME="+filepath.Join(e.WorkDir, ".state"), "ME="+regexp.QuoteMeta(me()))
	e.Defer(func() { s.end(e.T()) })
}

// me is the name by which our commands know who runs the tests.
func me() string {
	u, err := user.Current()
	if err != nil {
		return "nobody known"
	}
	return u.Username
}

// end closes the lab, and tells what happened in it when the script failed.
func (s *stage) end(t testscript.T) {
	if s.lab == nil {
		return
	}
	if failing, ok := t.(interface{ Failed() bool }); ok && failing.Failed() {
		t.Log(s.report())
	}
	if err := s.lab.Close(); err != nil {
		t.Log("close lab:", err)
	}
	s.lab = nil
}

// report is what the lab has seen, for a person to read.
func (s *stage) report() string {
	var b strings.Builder
	b.WriteString("the lab's calls:\n")
	for _, c := range s.lab.Calls() {
		fmt.Fprintf(&b, "  %s %s:%s %d %s %s\n", c.Time.Format("15:04:05.000"), c.Service, c.Operation, c.Status, c.Code, c.Parameters)
	}
	b.WriteString("the lab's events:\n")
	for _, e := range s.lab.Events(context.Background()) {
		fmt.Fprintf(&b, "  %s %s\n", e.Time.Format("15:04:05.000"), e.Text)
	}
	return b.String()
}

// start starts a lab with a world, instead of the one that runs.
func (s *stage) start(w *world.World) error {
	if s.lab != nil {
		if err := s.lab.Close(); err != nil {
			return err
		}
	}
	if w.Clock.Speed <= 1 {
		w.Clock.Speed = simSpeed
	}
	if s.engine == lab.Docker {
		w.Clock.Speed = min(w.Clock.Speed, dockerSpeed)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	l, err := lab.Start(ctx, lab.Config{World: w, Engine: s.engine, StartDocker: StartDocker, Patient: true})
	s.lab = l
	return err
}

// StartDocker starts the engine that runs real containers, for lab.Config.
func StartDocker(ctx context.Context, p lab.Parts) (engine.Engine, error) {
	return dockerengine.Start(ctx, dockerengine.Config{Clock: p.Clock, Images: p.Images, Registry: p.Registry, Registries: p.Registries, Login: p.Login, Cleanup: time.Duration(p.World.Cleanup), Log: p.Log})
}
