package worlds_test

import (
	"strings"
	"testing"

	"jumpsuite/internal/lab/world"
	"jumpsuite/internal/lab/worlds"
)

// The scenarios are the ways in which a deployment can go; none may get lost.
const scenarios = 22

func TestAllWorldsParseAndSayWhatTheyAre(t *testing.T) {
	names := worlds.Names()
	if len(names) < scenarios {
		t.Errorf("got %d worlds, want %d or more", len(names), scenarios)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			w, err := worlds.Read(name)
			if err != nil {
				t.Fatal(err)
			}
			if len(w.Clusters) == 0 || len(w.Services) == 0 {
				t.Error("it has no cluster or no service")
			}
			text, err := worlds.Text(name)
			if err != nil {
				t.Fatal(err)
			}
			if head, _, _ := strings.Cut(string(text), "\n"); len(head) < 20 || !strings.HasPrefix(head, "# ") || !strings.HasSuffix(head, ".") {
				t.Errorf("its first line is %q, want a sentence that says what happens: r3-lab worlds shows it alone", head)
			}
		})
	}
}

func TestUnknownWorldsAreErrors(t *testing.T) {
	_, err := worlds.Read("nothing")
	if want := `there is no world "nothing"`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// What happens in a world must be said of services and hosts that are there.
func TestActionsNameWhatIsThere(t *testing.T) {
	for _, name := range worlds.Names() {
		w, err := worlds.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range w.Actions {
			if !has(w, a.To) {
				t.Errorf("%s: %s: there is no %s", name, a.Do, a.To)
			}
		}
	}
}

func has(w *world.World, name string) bool {
	for _, c := range w.Clusters {
		for _, h := range c.Hosts {
			if h.IP == name || h.Instance == name || c.Name == name {
				return true
			}
		}
	}
	for _, s := range w.Services {
		if s.Name == name || strings.HasPrefix(name, s.Family+":") {
			return true
		}
	}
	return false
}
