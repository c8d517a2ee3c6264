package keys

import (
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"jumpsuite/internal/tunnel"
)

func newStore(t *testing.T) Store {
	t.Helper()
	return Store{Dir: filepath.Join(t.TempDir(), "keys"), Admin: filepath.Join(t.TempDir(), "keys"), Owner: os.Geteuid()}
}

func other(t *testing.T) tunnel.KeyID {
	t.Helper()
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return tunnel.IDOf(public)
}

func put(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func TestAKeyIsMadeOnceHoweverManyAsk(t *testing.T) {
	s := newStore(t)
	ids := make(chan tunnel.KeyID, 20)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			key, err := s.Own()
			if err != nil {
				t.Error(err)
				return
			}
			ids <- ID(key)
		})
	}
	all.Wait()
	close(ids)
	first := <-ids
	for id := range ids {
		if id != first {
			t.Errorf("got %s and %s", first, id)
		}
	}
	files, _ := os.ReadDir(s.Dir)
	if info, err := os.Stat(s.own(ownFile)); err != nil || info.Mode().Perm() != 0o600 || len(files) != 1 {
		t.Errorf("got %v, %v, and %d files", info.Mode(), err, len(files))
	}
}

func TestAnOwnKeyThatOthersCanReadIsNotUsed(t *testing.T) {
	for _, mode := range []os.FileMode{0o640, 0o604, 0o660} {
		s := newStore(t)
		if _, err := s.Own(); err != nil {
			t.Fatal(err)
		}
		os.Chmod(s.own(ownFile), mode)
		var file *FileError
		if _, err := s.Own(); !errors.As(err, &file) || !strings.Contains(file.Hint(), "chmod 0600") {
			t.Errorf("mode %o: got %v", mode, err)
		}
	}
	s := newStore(t)
	put(t, s.own(ownFile), "nothing", 0o600)
	if _, err := s.Own(); err == nil || !strings.Contains(err.Error(), "is no private key") {
		t.Errorf("a file that is none: got %v", err)
	}
}

func TestOneKeyFollowsTheOther(t *testing.T) {
	s := newStore(t)
	now := time.Now()
	before, err := s.Public()
	if err != nil || len(before) != 1 {
		t.Fatalf("got %v, %v", before, err)
	}
	if done, err := s.Rotate(now, time.Hour); done || err != nil {
		t.Fatalf("the first call: %v, %v", done, err)
	}
	both, err := s.Public()
	if err != nil || len(both) != 2 || both[0] != before[0] {
		t.Fatalf("while both are there: got %v, %v", both, err)
	}
	var not *NotYetError
	if _, err := s.Rotate(now.Add(time.Minute), time.Hour); !errors.As(err, &not) {
		t.Errorf("too early: got %v", err)
	}
	if done, err := s.Rotate(now.Add(2*time.Hour), time.Hour); !done || err != nil {
		t.Errorf("the second call: %v, %v", done, err)
	}
	if after, err := s.Public(); err != nil || len(after) != 1 || after[0] != both[1] {
		t.Errorf("after: got %v, %v, want %v", after, err, both[1])
	}
}

func TestTheFormerKeySignsWhichOneFollows(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "keys"), Admin: t.TempDir(), Owner: os.Geteuid()}
	own, err := s.Own()
	if err != nil {
		t.Fatal(err)
	}
	ids := []tunnel.KeyID{ID(own)}
	none := func(tunnel.KeyID) bool { return false }
	for n := range 3 {
		if n == 2 { // one that was interrupted before the next key was in use
			if _, err := s.Rotate(time.Now(), 0); err != nil {
				t.Fatal(err)
			}
			if err := s.succeed(); err != nil {
				t.Fatal(err)
			}
		} else {
			for range 2 {
				if _, err := s.Rotate(time.Now(), 0); err != nil {
					t.Fatal(err)
				}
			}
			now, err := s.Own()
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, ID(now))
		}
		former, err := s.Former()
		if err != nil || len(former) != len(ids)-1 {
			t.Fatalf("after %d rotations: %d former keys, %v", n+1, len(former), err)
		}
		line := tunnel.Line(ids[len(ids)-1], former, none)
		slices.Reverse(line)
		if !slices.Equal(line, ids) {
			t.Errorf("after %d rotations the keys are %s, want %s", n+1, line, ids)
		}
	}
	if err := os.WriteFile(s.own(formerFile), []byte("what is no rotation\n at all\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Former(); err == nil || !strings.Contains(err.Error(), "a line is no rotation") {
		t.Errorf("a file that is wrong: %v", err)
	}
}

func TestWhoIsTrusted(t *testing.T) {
	s := newStore(t)
	a, b, c, d := other(t), other(t), other(t), other(t)
	if set, err := s.Load(Hosts); err != nil || set.Trusts(a) {
		t.Fatalf("without lists: %v, %v", set, err)
	}
	if err := s.Fetched(Hosts, "r.c", []Entry{{a, "i-1"}, {b, "i-2"}}); err != nil {
		t.Fatal(err)
	}
	for _, e := range []Entry{{c, Any}, {d, "i-4"}} {
		if err := s.Trust(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Revoke(Entry{b, "i-2"}); err != nil {
		t.Fatal(err)
	}
	set, err := s.Load(Hosts)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		what string
		id   tunnel.KeyID
		name string
		want bool
	}{
		{"fetched", a, "i-1", true},
		{"fetched, as another", a, "i-2", false},
		{"fetched, as any", a, "", true},
		{"revoked", b, "i-2", false},
		{"an administrator's for any", c, "i-9", true},
		{"an administrator's", d, "i-4", true},
		{"unknown", other(t), "i-1", false},
	} {
		if got := set.TrustsAs(tt.id, tt.name); got != tt.want {
			t.Errorf("%s: got %v", tt.what, got)
		}
	}
	if n := len(set.Entries()); n != 3 {
		t.Errorf("got %d entries, want 3", n)
	}
	if set, err := s.Load(JumpServers); err != nil || set.Trusts(a) || !set.Trusts(c) {
		t.Errorf("a host is taken for a jump server: %v, %v", set, err)
	}
	if err := s.Trust(Entry{b, "i-2"}); err == nil || !strings.Contains(err.Error(), "is revoked") {
		t.Errorf("trusting what is revoked: got %v", err)
	}
	own, _ := s.Public()
	if err := s.Revoke(Entry{own[0], Any}); !errors.Is(err, ErrOwn) {
		t.Errorf("revoking the own key: got %v", err)
	}
	var none *Set
	if none.Trusts(a) {
		t.Error("no set trusts somebody")
	}
}

func TestAListThatIsWrongMakesNobodyTrusted(t *testing.T) {
	good := string(other(t)) + " i-1\n"
	for _, tt := range []struct {
		name, text string
		mode       os.FileMode
		says       string
	}{
		{"a key alone", string(other(t)) + "\n", 0o644, "line 1: write a key and a name"},
		{"three words", good + string(other(t)) + " i-1 i-2\n", 0o644, "line 2: write a key and a name"},
		{"a key that is cut", good[:40] + " i-1\n", 0o644, "43 letters"},
		{"a pattern as a name", strings.Replace(good, "i-1", "i-*", 1), 0o644, "is no name"},
		{"writable by the group", good, 0o664, "mode 0664"},
		{"writable by all", good, 0o646, "mode 0646"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, list := range []string{"hosts@r.c", "trusted", "revoked"} {
				s := newStore(t)
				path := s.admin(list)
				if list == "hosts@r.c" {
					path = s.own(list)
				}
				put(t, path, tt.text, tt.mode)
				if set, err := s.Load(Hosts); err == nil || set != nil || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("%s: got %v, %v, want %q", list, set, err, tt.says)
				}
			}
		})
	}
	t.Run("a link", func(t *testing.T) {
		s := newStore(t)
		put(t, s.admin("x"), good, 0o644)
		os.Symlink(s.admin("x"), s.admin(trustedFile))
		if _, err := s.Load(Hosts); err == nil {
			t.Error("it is followed")
		}
	})
	t.Run("another's", func(t *testing.T) {
		s := newStore(t)
		put(t, s.admin(trustedFile), good, 0o644)
		s.Owner++
		if _, err := s.Load(Hosts); err == nil || !strings.Contains(err.Error(), "belongs to uid") {
			t.Errorf("got %v", err)
		}
	})
}

func TestCommentsAreNotRead(t *testing.T) {
	id := other(t)
	got, err := Parse("# those of the test cluster\n\n  " + string(id) + "\ti-1  # new\n")
	if err != nil || len(got) != 1 || got[0] != (Entry{id, "i-1"}) {
		t.Errorf("got %v, %v", got, err)
	}
}
