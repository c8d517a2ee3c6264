package caller

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"jumpsuite/internal/cli"
)

// seen is what a process sees of itself after Enter.
type seen struct {
	Caller   *Caller
	Code     int
	Err      string
	Environ  []string
	Dir      string
	Umask    int
	Limits   map[string]unix.Rlimit
	Dumpable int
	Ignored  []string
	WriteErr string // of a file of 100 kB
	Again    bool   // a second Enter says the same
	Group    string // control group
	Ranks    []rank // of all threads
}

// TestMain makes this test binary the privileged binary that sudo starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "enter" {
		look()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func look() {
	var s seen
	c, err := Enter()
	c2, err2 := Enter()
	s.Caller, s.Again, s.Code = c, c == c2 && err == err2, cli.ExitCode(err)
	if err != nil {
		s.Err = err.Error()
	}
	s.Environ = os.Environ()
	s.Dir, _ = os.Getwd()
	s.Umask = unix.Umask(0)
	unix.Umask(s.Umask)
	s.Limits = map[string]unix.Rlimit{}
	for name, resource := range map[string]int{"fsize": unix.RLIMIT_FSIZE, "core": unix.RLIMIT_CORE, "nofile": unix.RLIMIT_NOFILE, "cpu": unix.RLIMIT_CPU, "as": unix.RLIMIT_AS} {
		var l unix.Rlimit
		_ = unix.Getrlimit(resource, &l)
		s.Limits[name] = l
	}
	s.Dumpable, _ = unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	for _, sig := range []unix.Signal{unix.SIGINT, unix.SIGHUP, unix.SIGTERM} {
		if signal.Ignored(sig) {
			s.Ignored = append(s.Ignored, sig.String())
		}
	}
	s.Ranks = allRanks()
	groups, _ := os.ReadFile("/proc/self/cgroup")
	s.Group = unifiedGroup(string(groups))
	f, err := os.CreateTemp("/tmp", "caller-test")
	if err == nil {
		_, err = f.Write(make([]byte, 100_000))
		f.Close()
		os.Remove(f.Name())
	}
	if err != nil {
		s.WriteErr = err.Error()
	}
	_ = json.NewEncoder(os.Stdout).Encode(s)
}

func TestClaimsAreTakenOnlyFromSudo(t *testing.T) {
	for _, tt := range []struct {
		name string
		env  map[string]string
		want string // claim, "root", or the error
	}{
		{"sudo", map[string]string{"SUDO_UID": "1001", "SUDO_GID": "1002", "SUDO_USER": "dev1", "SUDO_COMMAND": "/x"}, "dev1 1001 1002"},
		{"root through sudo", map[string]string{"SUDO_UID": "0", "SUDO_GID": "0", "SUDO_USER": "root"}, "root 0 0"},
		{"login as root", nil, "root"},
		{"doas", map[string]string{"DOAS_USER": "dev1"}, "DOAS_USER is set: doas and pkexec do not say who calls in a way that is checked here"},
		{"pkexec", map[string]string{"PKEXEC_UID": "1001"}, "PKEXEC_UID is set: doas and pkexec do not say who calls in a way that is checked here"},
		{"doas set by nobody", map[string]string{"DOAS_USER": ""}, "DOAS_USER is set: doas and pkexec do not say who calls in a way that is checked here"},
		{"sudo without uid", map[string]string{"SUDO_USER": "dev1"}, "sudo was used, but SUDO_UID is not there: it is not known who calls"},
		{"sudo command alone", map[string]string{"SUDO_COMMAND": "/x"}, "sudo was used, but SUDO_UID is not there: it is not known who calls"},
		{"empty uid", map[string]string{"SUDO_UID": "", "SUDO_GID": "1", "SUDO_USER": "d"}, `SUDO_UID "", SUDO_GID "1", SUDO_USER "d" do not name a caller`},
		{"no gid", map[string]string{"SUDO_UID": "1", "SUDO_USER": "d"}, `SUDO_UID "1", SUDO_GID "", SUDO_USER "d" do not name a caller`},
		{"no user", map[string]string{"SUDO_UID": "1", "SUDO_GID": "1"}, `SUDO_UID "1", SUDO_GID "1", SUDO_USER "" do not name a caller`},
		{"-1", map[string]string{"SUDO_UID": "-1", "SUDO_GID": "1", "SUDO_USER": "d"}, `SUDO_UID "-1", SUDO_GID "1", SUDO_USER "d" do not name a caller`},
		{"-1 without a sign", map[string]string{"SUDO_UID": "4294967295", "SUDO_GID": "1", "SUDO_USER": "d"}, `SUDO_UID "4294967295", SUDO_GID "1", SUDO_USER "d" do not name a caller`},
		{"zero in other words", map[string]string{"SUDO_UID": "00", "SUDO_GID": "1", "SUDO_USER": "d"}, `SUDO_UID "00", SUDO_GID "1", SUDO_USER "d" do not name a caller`},
		{"a number and more", map[string]string{"SUDO_UID": "1 ", "SUDO_GID": "1", "SUDO_USER": "d"}, `SUDO_UID "1 ", SUDO_GID "1", SUDO_USER "d" do not name a caller`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := parseClaim(func(k string) (string, bool) { v, ok := tt.env[k]; return v, ok })
			got := "root"
			switch {
			case err != nil:
				got = err.Error()
				if cli.ExitCode(err) != cli.ExitNotAllowed {
					t.Errorf("exit code %d, want %d", cli.ExitCode(err), cli.ExitNotAllowed)
				}
			case c != nil:
				got = fmt.Sprint(c.name, " ", c.uid, " ", c.gid)
			}
			if got != tt.want {
				t.Errorf("%v: got %q, want %q", tt.env, got, tt.want)
			}
		})
	}
}

func TestOnlyHarmlessVariablesStay(t *testing.T) {
	for _, tt := range []struct {
		variable string
		stays    bool
	}{
		{"LANG=de_DE.UTF-8", true}, {"LANG=C", true}, {"LC_ALL=en_US.utf8@euro", true}, {"LC_TIME=C.UTF-8", true},
		{"TERM=xterm-256color", true}, {"TERM=screen.xterm-256color", true}, {"NO_COLOR=1", true}, {"NO_COLOR=", true},
		{"COLUMNS=80", true}, {"LINES=24", true},
		{"LANG=../../tmp/evil", false}, {"LANG=/tmp/evil", false}, {"LANG=", false}, {"LC_=C", false}, {"LC_all=C", false},
		{"TERM=/tmp/x", false}, {"TERM=a..b", false}, {"TERM=", false}, {"TERM=x\n", false}, {"NO_COLOR=\x1b[2J", false},
		{"COLUMNS=0", false}, {"COLUMNS=-1", false}, {"COLUMNS=80x", false}, {"LINES=99999", false},
		{"HOME=/root", false}, {"PATH=/tmp", false}, {"LD_PRELOAD=/tmp/x.so", false}, {"GODEBUG=http2debug=2", false},
		{"AWS_PROFILE=x", false}, {"AWS_ENDPOINT_URL=http://evil", false}, {"HTTPS_PROXY=http://evil", false}, {"SSL_CERT_FILE=/tmp/x", false},
		{"TZ=/tmp/x", false}, {"TMPDIR=/tmp/x", false}, {"DOCKER_HOST=tcp://evil", false}, {"SUDO_UID=0", false}, {"TERMINFO=/tmp", false}, {"novalue", false},
	} {
		name, _, _ := strings.Cut(tt.variable, "=")
		if _, stays := keep([]string{tt.variable})[name]; stays != tt.stays {
			t.Errorf("%q: stays %v, want %v", tt.variable, stays, tt.stays)
		}
	}
}

// fake is a user database made of two scripts, and a file that getent's
// environment is written to.
func fake(t *testing.T, getent, id string) database {
	t.Helper()
	dir := t.TempDir()
	for name, script := range map[string]string{"getent": getent, "id": id} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return database{getent: filepath.Join(dir, "getent"), id: filepath.Join(dir, "id"), passwd: "/nosuch", group: "/nosuch"}
}

// goodGetent answers all keys of a question, as getent does.
const goodGetent = `db=$2; shift 2; for key; do case "$db $key" in
"passwd 1001"|"passwd dev1") echo "dev1:x:1001:1002:Dev One:/home/dev1:/bin/sh";;
"group 1002") echo "dev1:x:1002:";;
"group 5000") echo "developers:*:5000:dev1,dev2";;
"group 7000") echo "developers:*:5000:dev1,dev2";;
*) exit 2;;
esac; done`

func TestACallerIsWhoTheDatabaseSays(t *testing.T) {
	got, err := fake(t, goodGetent, "echo 1002 5000").verify(t.Context(), claim{1001, 1002, "dev1"})
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != "dev1" || got.UID != 1001 || got.GID != 1002 || !slices.Equal(got.Groups, []string{"dev1", "developers"}) || !slices.Equal(got.GIDs, []int{1002, 5000}) {
		t.Errorf("got %+v", got)
	}
}

func TestWhatTheDatabaseDoesNotConfirmIsRefused(t *testing.T) {
	good := claim{1001, 1002, "dev1"}
	for _, tt := range []struct {
		name       string
		getent, id string
		claim      claim
		want       string
	}{
		{"another name", goodGetent, "echo 1002", claim{1001, 1002, "root"}, `passwd ["1001" "root"]: not in the user database`},
		{"another uid", goodGetent, "echo 1002", claim{0, 1002, "dev1"}, `passwd ["0" "dev1"]: not in the user database`},
		{"another primary group", goodGetent, "echo 0", claim{1001, 0, "dev1"}, "dev1 is uid 1001 with group 1002"},
		{"two users of one uid", strings.ReplaceAll(goodGetent, `"passwd 1001"|`, `"passwd 1001") echo "other:x:1001:1002::/:/bin/sh";;`), "echo 1002", good, "uid 1001 is other"},
		{"a group without a name", goodGetent, "echo 1002 6000", good, `group ["1002" "6000"]: not in the user database`},
		{"a group under another number", goodGetent, "echo 1002 7000", good, "group 7000 is said to be developers, with the number 5000"},
		{"groups that start elsewhere", goodGetent, "echo 5000 1002", good, "does not start with the group 1002"},
		{"no groups", goodGetent, "true", good, "does not start with the group 1002"},
		{"an id that is slow to say no", goodGetent, "sleep 0.1; exit 1", good, "exit status 1"},
		{"an id that fails", goodGetent, "echo 1002; exit 1", good, "exit status 1"},
		{"an id that says something else", goodGetent, "echo 1002 wheel", good, `"wheel" is not a user or group id`},
		{"a getent that breaks", "exit 3", "echo 1002", good, "exit status 3"},
		{"a getent that is killed", "kill -9 $$", "echo 1002", good, "ended by signal 9"},
		{"a getent that says nothing", "true", "echo 1002", good, "not one line each"},
		{"three lines", "echo a; echo b; echo c", "echo 1002", good, "not one line each"},
		{"too few fields", "echo dev1:x:1001; echo dev1:x:1001", "echo 1002", good, "3 fields, not 7"},
		{"an endless answer", "exec cat /dev/zero", "echo 1002", good, "answer too long"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := fake(t, tt.getent, tt.id).verify(t.Context(), tt.claim)
			if c != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %+v, %v, want %q", c, err, tt.want)
			}
			if cli.ExitCode(err) != cli.ExitNotAllowed {
				t.Errorf("exit code %d, want %d", cli.ExitCode(err), cli.ExitNotAllowed)
			}
		})
	}
}

func TestADatabaseThatHangsIsGivenUp(t *testing.T) {
	for name, getent := range map[string]string{
		"it says nothing":              "exec sleep 60",
		"it has said all":              goodGetent + "; exec >&-; exec sleep 60",
		"another has its output still": "sleep 3 & " + goodGetent,
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			_, err := fake(t, getent, "echo 1002").verify(ctx, claim{1001, 1002, "dev1"})
			if err == nil || !strings.Contains(err.Error(), "no answer in time") {
				t.Errorf("got %v, want no answer in time", err)
			}
		})
	}
}

func TestTheDatabaseGetsAnEmptyEnvironment(t *testing.T) {
	t.Setenv("LD_LIBRARY_PATH", "/tmp/evil")
	d := fake(t, `test -z "$LD_LIBRARY_PATH" || exit 3
`+goodGetent, "echo 1002")
	if _, err := d.verify(t.Context(), claim{1001, 1002, "dev1"}); err != nil {
		t.Error(err)
	}
}

func TestWithoutGetentTheFilesAreRead(t *testing.T) {
	d := fake(t, "", "echo 1002 5000")
	d.getent = "/nosuch/getent"
	d.passwd, d.group = filepath.Join(t.TempDir(), "passwd"), filepath.Join(t.TempDir(), "group")
	for path, text := range map[string]string{
		d.passwd: "root:x:0:0::/root:/bin/sh\n1001:x:7:7::/:/bin/sh\ndev1:x:1001:1002::/home/dev1:/bin/sh\n",
		d.group:  "dev1:x:1002:\ndevelopers:x:5000:dev1\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// A user who is called by another one's number is not taken for him.
	c, err := d.verify(t.Context(), claim{1001, 1002, "dev1"})
	if err != nil || !slices.Equal(c.Groups, []string{"dev1", "developers"}) {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestThisMachinesDatabase(t *testing.T) {
	if err := UserExists(t.Context(), "root"); err != nil {
		t.Errorf("root: %v", err)
	}
	if err := GroupExists(t.Context(), "root"); err != nil {
		t.Errorf("group root: %v", err)
	}
	for _, name := range []string{"nosuchgroup", "0", "-1", "--help", ""} {
		if err := GroupExists(t.Context(), name); err == nil {
			t.Errorf("group %q exists", name)
		}
	}
	groups, err := GroupsOf(t.Context(), "root")
	if err != nil || len(groups) == 0 || groups[0] != "root" {
		t.Errorf("groups of root: %q, %v", groups, err)
	}
}

// underSudo runs this binary as root, called by nobody through a real sudo whose
// rule lets every variable pass. before is shell that the caller runs first.
func underSudo(t *testing.T, user, before string, env ...string) seen {
	t.Helper()
	return underSudoIn(t, "", user, before, env...)
}

// underSudoIn is underSudo, called from a control group. Empty: that of the test.
func underSudoIn(t *testing.T, group, user, before string, env ...string) seen {
	t.Helper()
	binary := needSudo(t)
	script := before + "\nexec sudo -n " + strings.Join(env, " ") + " " + binary + " enter"
	cmd := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script)
	if user == "root" {
		cmd = exec.Command("sh", "-c", script)
	}
	cmd.Dir = "/tmp"
	if group != "" {
		cmd.SysProcAttr = startIn(t, group)
	}
	out, err := cmd.Output()
	if err != nil {
		exit, _ := err.(*exec.ExitError)
		t.Fatalf("sudo as %s: %v\n%s", user, err, exit.Stderr)
	}
	var s seen
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return s
}

// needSudo installs a rule for the time of the test, and returns the binary
// that it is for.
func needSudo(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it writes a sudo rule")
	}
	for _, tool := range []string{"sudo", "visudo", "setpriv"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	rule := fmt.Sprintf("Defaults!%[1]s env_keep += \"AWS_* HOME LD_* GODEBUG\"\nroot,nobody ALL=(root:root) NOPASSWD:SETENV: %[1]s\n", binary)
	draft := filepath.Join(t.TempDir(), "rule")
	if err := os.WriteFile(draft, []byte(rule), 0o440); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("visudo", "-cf", draft).CombinedOutput(); err != nil {
		t.Fatalf("visudo: %v\n%s", err, out)
	}
	path := fmt.Sprintf("/etc/sudoers.d/jumpsuite-test-%d", os.Getpid())
	t.Cleanup(func() { os.Remove(path) })
	if err := os.WriteFile(path, []byte(rule), 0o440); err != nil {
		t.Fatal(err)
	}
	return binary
}

func TestUnderRealSudoNothingPlantedGetsThrough(t *testing.T) {
	got := underSudo(t, "nobody", "umask 000; ulimit -c unlimited 2>/dev/null; trap '' INT HUP; cd /tmp",
		"AWS_CONFIG_FILE=/tmp/evil", "AWS_ENDPOINT_URL=http://evil", "HOME=/tmp/evil", "LD_PRELOAD=/tmp/evil.so", "GODEBUG=http2debug=2", "GOTRACEBACK=crash",
		"DOCKER_CONFIG=/tmp/evil", "HTTPS_PROXY=http://evil", "TERM=xterm", "LANG=C.UTF-8", "PATH=/tmp/evil:/usr/bin")
	if got.Caller == nil || got.Caller.Name != "nobody" || got.Caller.UID != 65534 {
		t.Fatalf("caller %+v, error %q, want nobody", got.Caller, got.Err)
	}
	if !got.Again {
		t.Error("a second Enter said something else")
	}
	for _, e := range got.Environ {
		name, value, _ := strings.Cut(e, "=")
		if !slices.Contains([]string{"PATH", "LANG", "TERM", "COLUMNS", "LINES", "NO_COLOR"}, name) && !strings.HasPrefix(name, "LC_") {
			t.Errorf("%s got through", e)
		}
		if name == "PATH" && value != safePath {
			t.Errorf("PATH is %s", value)
		}
	}
	if !slices.Contains(got.Environ, "TERM=xterm") || !slices.Contains(got.Environ, "LANG=C.UTF-8") {
		t.Errorf("TERM or LANG did not get through: %q", got.Environ)
	}
	if got.Dir != "/" || got.Umask != 0o077 || got.Dumpable != 0 || len(got.Ignored) > 0 {
		t.Errorf("directory %s, umask %03o, dumpable %d, ignored signals %q", got.Dir, got.Umask, got.Dumpable, got.Ignored)
	}
	if got.Limits["core"] != (unix.Rlimit{}) {
		t.Errorf("core limit %+v, want 0", got.Limits["core"])
	}
}

func TestUnderRealSudoTheCallersLimitsDoNotHold(t *testing.T) {
	for _, tt := range []struct{ name, limits string }{
		{"soft limits", "ulimit -S -f 0; ulimit -S -n 30; ulimit -S -t 600; ulimit -S -c 0"},
		{"hard limits", "ulimit -f 0; ulimit -n 30; ulimit -t 600"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := underSudo(t, "nobody", tt.limits)
			if tt.name == "hard limits" && !mayRaise(t) {
				if got.Caller != nil || got.Code != cli.ExitNotAllowed || !strings.Contains(got.Err, "cannot be raised") {
					t.Errorf("a root that may not raise limits: got %+v, %q, want a refusal", got.Caller, got.Err)
				}
				return
			}
			if got.Err != "" || got.WriteErr != "" {
				t.Fatalf("Enter: %q, a file of 100 kB: %q", got.Err, got.WriteErr)
			}
			for name, want := range map[string]uint64{"fsize": unix.RLIM_INFINITY, "cpu": unix.RLIM_INFINITY, "as": unix.RLIM_INFINITY} {
				if got.Limits[name].Cur != want {
					t.Errorf("limit %s is %d, want %d", name, got.Limits[name].Cur, want)
				}
			}
			if n := got.Limits["nofile"].Cur; n < fewFiles {
				t.Errorf("%d files may be open, want %d at least", n, fewFiles)
			}
		})
	}
}

// mayRaise reports whether root may raise hard limits here; in many containers it
// may not.
func mayRaise(t *testing.T) bool { return capable(t, unix.CAP_SYS_RESOURCE) }

// capable reports whether root has a capability here.
func capable(t *testing.T, number int) bool {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var caps uint64
		if n, _ := fmt.Sscanf(line, "CapEff: %x", &caps); n == 1 {
			return caps&(1<<number) != 0
		}
	}
	return false
}

func TestRootThroughSudoIsACallerToo(t *testing.T) {
	got := underSudo(t, "root", "true")
	if got.Caller == nil || got.Caller.UID != 0 || got.Caller.Name != "root" {
		t.Errorf("caller %+v, error %q, want root", got.Caller, got.Err)
	}
}

// direct runs this binary without sudo, as uid, with an environment of its own.
func direct(t *testing.T, uid uint32, env ...string) seen {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/fd/3", "enter")
	f, err := os.Open(binary) // its folder may be closed to uid
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd.ExtraFiles = []*os.File{f}
	cmd.Env = env
	cmd.Dir = "/tmp"
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("as uid %d: %v", uid, err)
	}
	var s seen
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return s
}

func TestWithoutSudoNothingIsTouched(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it becomes others")
	}
	for _, tt := range []struct {
		name string
		uid  uint32
		env  []string
	}{
		{"a user", 65534, []string{"HOME=/tmp/mine", "AWS_PROFILE=mine"}},
		{"a user who says sudo", 65534, []string{"SUDO_UID=0", "SUDO_GID=0", "SUDO_USER=root"}},
		{"root's login", 0, []string{"HOME=/root", "AWS_PROFILE=mine"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := direct(t, tt.uid, tt.env...)
			if got.Caller != nil || got.Err != "" || !slices.Equal(got.Environ, tt.env) || got.Dir != "/tmp" {
				t.Errorf("got %+v, want no caller and nothing changed", got)
			}
		})
	}
}

func TestAForgedClaimIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, env := range [][]string{
		{"SUDO_UID=65534", "SUDO_GID=65534", "SUDO_USER=root"},
		{"SUDO_UID=0", "SUDO_GID=0", "SUDO_USER=nobody"},
		{"SUDO_UID=4242424", "SUDO_GID=4242424", "SUDO_USER=ghost"},
		{"DOAS_USER=nobody"}, {"PKEXEC_UID=65534"}, {"SUDO_USER=nobody"},
	} {
		got := direct(t, 0, env...)
		if got.Caller != nil || got.Code != cli.ExitNotAllowed {
			t.Errorf("%q: got %+v, exit code %d, want a refusal", env, got.Caller, got.Code)
		}
	}
}

func FuzzClaim(f *testing.F) {
	f.Add("1001", "1002", "dev1")
	f.Add("-1", "0x0", "root\n")
	f.Fuzz(func(t *testing.T, uid, gid, name string) {
		env := map[string]string{"SUDO_UID": uid, "SUDO_GID": gid, "SUDO_USER": name}
		c, err := parseClaim(func(k string) (string, bool) { v, ok := env[k]; return v, ok })
		if err == nil && (fmt.Sprint(c.uid) != uid || fmt.Sprint(c.gid) != gid || c.name != name || c.uid < 0) {
			t.Errorf("%q was read as %+v", env, c)
		}
	})
}

func FuzzKeep(f *testing.F) {
	f.Add("LANG", "C.UTF-8")
	f.Add("TERM", "../x")
	f.Fuzz(func(t *testing.T, name, value string) {
		for k, v := range keep([]string{name + "=" + value}) {
			if strings.ContainsAny(v, "/\n\x00\x1b%") || strings.Contains(v, "..") {
				t.Errorf("%q=%q stays", k, v)
			}
		}
	})
}

func TestAPeerIsWhoTheDatabaseSays(t *testing.T) {
	root, err := OfUID(t.Context(), 0)
	if err != nil || root.Name != "root" || len(root.Groups) == 0 || root.Groups[0] != "root" {
		t.Errorf("uid 0: %+v, %v", root, err)
	}
	if got, err := OfUID(t.Context(), 4242424); got != nil || err == nil || !strings.Contains(err.Error(), "not in the user database") {
		t.Errorf("a uid of nobody: %+v, %v", got, err)
	}
	lying := fake(t, `shift 2; for key; do echo "dev1:x:1001:1002::/:/bin/sh"; done`, "echo 1002")
	if got, err := lying.ofUID(t.Context(), 7); got != nil || err == nil || !strings.Contains(err.Error(), "answers with uid 1001") {
		t.Errorf("another one's entry: %+v, %v", got, err)
	}
}
