package ecsstatus

import (
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"jumpsuite/internal/cli"
)

var launched = time.Date(2026, 3, 4, 5, 6, 7, 890_000_000, time.UTC)

func exampleListing() *Listing {
	return &Listing{Cluster: "lab", Unplaced: []Task{}, Hosts: []HostLoad{
		{
			Host: Host{ID: "i-1", Address: "10.12.57.129", Status: "ACTIVE", AgentConnected: true, CPU: Resource{512, 1024}, Memory: Resource{2000, 2000}},
			Tasks: []Task{{ID: "t1", ContainerType: "web", Started: launched, Containers: []Container{
				{Name: "web", Image: "repo/web:v1", LastStatus: "RUNNING", HealthStatus: "HEALTHY", CPU: 256, Memory: 128},
				{Name: "log", Image: "repo/log:v1", LastStatus: "RUNNING", HealthStatus: "UNKNOWN"},
			}}},
		},
		{Host: Host{ID: "i-2", Status: "DRAINING", CPU: Resource{1024, 1024}, Memory: Resource{2000, 2000}}, Tasks: []Task{}},
	}}
}

func TestListingTableIsAsDocumented(t *testing.T) {
	const want = `host: 10.12.57.129 | CPU (free/max): 512/1024 | memory (free/max): 2000/2000
container name  image        reserved CPU  reserved Memory  state              launched
web             repo/web:v1  256           128              RUNNING (healthy)  2026-03-04T05:06:07Z
log             repo/log:v1  0             0                RUNNING            2026-03-04T05:06:07Z

host: i-2 | CPU (free/max): 1024/1024 | memory (free/max): 2000/2000 | DRAINING | agent disconnected
container name  image  reserved CPU  reserved Memory  state  launched
-               -      -             -                -      -
`
	var got strings.Builder
	if err := exampleListing().WriteTable(&got, Bars{}); err != nil {
		t.Fatal(err)
	}
	if got.String() != want {
		t.Errorf("table:\n%s\nwant:\n%s", got.String(), want)
	}
}

func TestASummaryTellsTheImagesOfSeveralContainersApart(t *testing.T) {
	one := []ImageUse{{Container: "web", Image: "repo/web:v1", Digest: "sha256:1", Tasks: 1}, {Container: "web", Image: "repo/web:v1", Digest: "sha256:2", Tasks: 2}}
	two := append(one[:1:1], ImageUse{Container: "web2", Image: "repo/web:v1", Digest: "sha256:1", Tasks: 1})
	for _, tt := range []struct {
		name, want string
		images     []ImageUse
	}{
		{"one container", "image: repo/web:v1 (sha256:1), 1 task\nimage: repo/web:v1 (sha256:2), 2 tasks\n", one},
		{"two containers", "image of web: repo/web:v1 (sha256:1), 1 task\nimage of web2: repo/web:v1 (sha256:1), 1 task\n", two},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			v := &View{Service: &Service{}, Images: &tt.images}
			if err := v.WriteTable(&out); err != nil {
				t.Fatal(err)
			}
			got := ""
			for l := range strings.Lines(out.String()) {
				if strings.HasPrefix(l, "image") {
					got += strings.Join(strings.Fields(l), " ") + "\n"
				}
			}
			if got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func TestBarsFitTheTerminal(t *testing.T) {
	for columns := 16; columns <= 200; columns++ {
		var out strings.Builder
		Bars{Columns: columns}.write(&out, Host{CPU: Resource{512, 1024}, Memory: Resource{0, 2000}})
		for l := range strings.Lines(out.String()) {
			if n := len(strings.TrimSuffix(l, "\n")); n > columns {
				t.Errorf("%d columns: a line of %d: %q", columns, n, l)
			}
		}
	}
}

func TestBarsShowWhatIsReserved(t *testing.T) {
	for _, tt := range []struct {
		name string
		bars Bars
		r    Resource
		want string
	}{
		{"half", Bars{}, Resource{512, 1024}, "CPU    [#####.....]  50%"},
		{"nothing", Bars{Color: true}, Resource{1024, 1024}, "CPU    [..........]   0%"},
		{"all, in red", Bars{Color: true}, Resource{0, 1024}, "CPU    [\x1b[31m##########\x1b[0m] 100%"},
		{"much, in yellow", Bars{Color: true}, Resource{205, 1024}, "CPU    [\x1b[33m########\x1b[0m..]  80%"},
		{"of nothing", Bars{}, Resource{}, "CPU    [..........]   0%"},
		{"more than there is", Bars{}, Resource{-5, 10}, "CPU    [##########] 100%"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.bars.bar("CPU", tt.r, 10); got != tt.want {
				t.Errorf("bar of %v = %q, want %q", tt.r, got, tt.want)
			}
		})
	}
}

func TestPythonList(t *testing.T) {
	for _, tt := range []struct {
		name  string
		names []string
		want  string
	}{
		{"none", nil, "[]"},
		{"two", []string{"container-type-a", "container-type-b"}, "['container-type-a', 'container-type-b']"},
		{"a quote", []string{"it's"}, `["it's"]`},
		{"both quotes", []string{`it's "x"`}, `['it\'s "x"']`},
		{"a backslash and a newline", []string{"a\\b\nc"}, `['a\\b\nc']`},
		{"an escape", []string{"a\x1b[2Jb"}, `['a\u001b[2Jb']`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := PythonList(tt.names); got != tt.want {
				t.Errorf("PythonList(%q) = %s, want %s", tt.names, got, tt.want)
			}
		})
	}
}

// hostileTexts are what could do something to a terminal, or to a table.
var hostileTexts = []string{"\x1b[2J", "\u009b2J", "a\rb", "\u202egpj.exe", "a\tb\nc", "\x7f", "back\\slash", `"quoted"`, "<&>", "nöt", "2026-01-01", "true", "- a", "# no"}

func TestHostileTextCannotReachATerminalInAnyFormat(t *testing.T) {
	for _, text := range hostileTexts {
		l := exampleListing()
		l.Hosts[0].Tasks[0].Containers[0].Image = text
		for _, f := range []Format{Table, JSON, YAML} {
			var out strings.Builder
			err := Write(&out, f, l, func(w io.Writer) error { return l.WriteTable(w, Bars{}) })
			if err != nil {
				t.Fatal(err)
			}
			if cli.Printable(out.String()) != out.String() {
				t.Errorf("%s of %q is not printable: %q", f, text, out.String())
			}
		}
	}
}

func TestJSONAndYAMLKeepHostileTextAsItIs(t *testing.T) {
	for _, text := range hostileTexts {
		in := map[string]string{"k": text}
		var j, y strings.Builder
		if err := errors.Join(WriteJSON(&j, in), writeYAML(&y, in)); err != nil {
			t.Fatal(err)
		}
		var fromJSON, fromYAML map[string]string
		if err := json.Unmarshal([]byte(j.String()), &fromJSON); err != nil || fromJSON["k"] != text {
			t.Errorf("JSON of %q: %s gives %q, %v", text, j.String(), fromJSON["k"], err)
		}
		if err := yaml.Unmarshal([]byte(y.String()), &fromYAML); err != nil || fromYAML["k"] != text {
			t.Errorf("YAML of %q: %s gives %q, %v", text, y.String(), fromYAML["k"], err)
		}
	}
}

func TestYAMLSaysWhatJSONSays(t *testing.T) {
	l := exampleListing()
	var j, y strings.Builder
	if err := errors.Join(WriteJSON(&j, l), writeYAML(&y, l)); err != nil {
		t.Fatal(err)
	}
	var fromJSON, fromYAML any
	if err := errors.Join(json.Unmarshal([]byte(j.String()), &fromJSON), yaml.Unmarshal([]byte(y.String()), &fromYAML)); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(fromYAML)
	if err != nil {
		t.Fatal(err)
	}
	var back any
	if err := json.Unmarshal(again, &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back, fromJSON) {
		t.Errorf("YAML:\n%s\nis not JSON:\n%s", y.String(), j.String())
	}
}

func TestYAMLQuotesWhatOldReadersTakeForSomethingElse(t *testing.T) {
	var out strings.Builder
	if err := Write(&out, YAML, []any{"yes", "No", "off", "y", "1_000", "12:30", "0777", "null", "web:10", "2.1.0", "on-call", 7}, nil); err != nil {
		t.Fatal(err)
	}
	const want = `- "yes"
- "No"
- "off"
- "y"
- "1_000"
- "12:30"
- "0777"
- "null"
- web:10
- 2.1.0
- on-call
- 7
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestFormats(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Format
		err  string
	}{
		{"", "", `unknown output format ""`}, {"table", Table, ""}, {"json", JSON, ""}, {"yaml", YAML, ""},
		{"JSON", "", `unknown output format "JSON"`}, {"xml", "", `unknown output format "xml"`},
	} {
		got, err := ParseFormat(tt.in)
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
			t.Errorf("ParseFormat(%q) = %q, %v; want %q, %s", tt.in, got, err, tt.want, tt.err)
		}
	}
}

func TestPorts(t *testing.T) {
	for _, tt := range []struct {
		port Port
		want string
	}{
		{Port{Container: 80, Host: 32768, Protocol: "tcp", BindIP: "0.0.0.0"}, "0.0.0.0:32768->80/tcp"},
		{Port{Container: 53, Host: 53, Protocol: "udp"}, "0.0.0.0:53->53/udp"},
		{Port{ContainerRange: "80-90", HostRange: "4000-4010"}, "0.0.0.0:4000-4010->80-90/tcp"},
	} {
		if got := tt.port.String(); got != tt.want {
			t.Errorf("%+v = %s, want %s", tt.port, got, tt.want)
		}
	}
}

func TestWhatIsNotFoundNamesTheNearest(t *testing.T) {
	for _, tt := range []struct {
		name        string
		names       []string
		given, hint string
	}{
		{"one is near", []string{"web", "worker", "mail", "db"}, "wep", "did you mean web?"},
		{"several are near", []string{"web-a", "web-b", "mailer", "frontend"}, "web", "the nearest are web-a, web-b"},
		{"none is near, few are there", []string{"mailer", "frontend"}, "web", "the nearest are mailer, frontend"},
		{"none is near, many are there", []string{"mail", "db", "cron", "front"}, "zzzzzz", ""},
		{"none is there", nil, "web", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := notFound(KindContainerType, tt.given, "lab", tt.names)
			if err.Hint() != tt.hint {
				t.Errorf("hint for %q among %v = %q, want %q", tt.given, tt.names, err.Hint(), tt.hint)
			}
			if want := `no container type "` + tt.given + `" in cluster lab`; err.Error() != want || err.ExitCode() != cli.ExitNotFound {
				t.Errorf("%q with code %d, want %q with %d", err.Error(), err.ExitCode(), want, cli.ExitNotFound)
			}
		})
	}
}
