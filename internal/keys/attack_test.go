package keys

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"jumpsuite/internal/tunnel"
)

// Administrators, and what they start, work at the same time: what one of them took
// away must not come back by what another one added.
func TestNoRevocationIsLostToAnother(t *testing.T) {
	s := newStore(t)
	var all sync.WaitGroup
	var ids []tunnel.KeyID
	for i := range 16 {
		id := other(t)
		ids = append(ids, id)
		all.Go(func() {
			if err := s.Revoke(Entry{id, fmt.Sprintf("i-%d", i)}); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			if err := s.Trust(Entry{other(t), "i-x"}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	set, err := s.Load(Hosts)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if !set.Revokes(id) {
			t.Errorf("%s is not revoked", id)
		}
	}
	if n := len(set.Entries()); n != 16 {
		t.Errorf("%d are trusted, want 16", n)
	}
}

// The lists are there for all to read, and who can read a file or a folder can lock it.
func TestNobodyHoldsUpARevocation(t *testing.T) {
	s := newStore(t)
	for _, e := range []func(Entry) error{s.Trust, s.Revoke} {
		if err := e(Entry{other(t), "i-x"}); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{s.Admin, s.admin(trustedFile), s.admin(revokedFile)} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() { done <- s.Revoke(Entry{other(t), "i-y"}) }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits for who has locked what he may read")
	}
	if info, err := os.Stat(s.own(lockFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the lock itself: %v, %v; want it for the owner alone", info, err)
	}
}

// Who can write to a folder can take the list of revoked keys away, whoever the files
// in it belong to.
func TestAFolderThatOthersCanWriteMakesNobodyTrusted(t *testing.T) {
	id := other(t)
	for _, mode := range []os.FileMode{0o775, 0o757, 0o777 | os.ModeSticky} {
		for what, dir := range map[string]func(Store) string{"own keys": func(s Store) string { return s.Dir }, "lists": func(s Store) string { return s.Admin }} {
			s := newStore(t)
			if _, err := s.Own(); err != nil {
				t.Fatal(err)
			}
			if err := s.Trust(Entry{id, Any}); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(dir(s), mode); err != nil {
				t.Fatal(err)
			}
			var file *FileError
			if set, err := s.Load(Hosts); set != nil || !errors.As(err, &file) || file.Path != dir(s) || !strings.Contains(file.Hint(), "chmod") || file.ExitCode() != 78 {
				t.Errorf("the folder of %s with mode %v: got %v", what, mode, err)
			}
		}
	}
	t.Run("another's", func(t *testing.T) {
		s := newStore(t)
		if err := s.Trust(Entry{id, Any}); err != nil {
			t.Fatal(err)
		}
		s.Owner++
		if set, err := s.Load(Hosts); set != nil || err == nil || !strings.Contains(err.Error(), "belongs to uid") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no folder", func(t *testing.T) {
		s := newStore(t)
		s.Admin = filepath.Join(s.Admin, "nosuch")
		put(t, s.own("x"), "", 0o600)
		if err := os.WriteFile(filepath.Dir(s.Admin), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if set, err := s.Load(Hosts); set != nil || err == nil {
			t.Errorf("got %v, %v", set, err)
		}
	})
}

// What the machine's own key can be, other than a file of its own that is whole.
func TestAnOwnKeyThatIsNotWholeIsNotReplaced(t *testing.T) {
	whole := func(t *testing.T) []byte {
		s := newStore(t)
		if _, err := s.Own(); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(s.own(ownFile))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, tt := range []struct {
		name string
		put  func(t *testing.T, path string)
	}{
		{"empty", func(t *testing.T, path string) { put(t, path, "", 0o600) }},
		{"half of one", func(t *testing.T, path string) { b := whole(t); put(t, path, string(b[:len(b)/2]), 0o600) }},
		{"two of them", func(t *testing.T, path string) { b := whole(t); put(t, path, string(b)+string(whole(t)), 0o600) }},
		{"a link to one", func(t *testing.T, path string) {
			put(t, path+".real", string(whole(t)), 0o600)
			if err := os.Symlink(path+".real", path); err != nil {
				t.Fatal(err)
			}
		}},
		{"a link to nothing", func(t *testing.T, path string) {
			put(t, path+".x", "", 0o600)
			if err := os.Symlink(path+".nosuch", path); err != nil {
				t.Fatal(err)
			}
		}},
		{"a folder", func(t *testing.T, path string) {
			if err := os.MkdirAll(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, name := range []string{ownFile, nextFile} {
				s := newStore(t)
				if name == nextFile {
					if _, err := s.Own(); err != nil {
						t.Fatal(err)
					}
				}
				tt.put(t, s.own(name))
				before, _ := os.Lstat(s.own(name))
				var file *FileError
				if ids, err := s.Public(); !errors.As(err, &file) || ids != nil {
					t.Errorf("%s: got %v, %v", name, ids, err)
				}
				if _, err := s.Rotate(time.Now(), 0); err == nil {
					t.Errorf("%s: it was rotated", name)
				}
				if after, err := os.Lstat(s.own(name)); err != nil || !os.SameFile(before, after) {
					t.Errorf("%s: it was replaced: %v", name, err)
				}
			}
		})
	}
}

// A clock that goes wrong holds a rotation up, and never brings it forward; --now is
// there for that.
func TestAWrongClockPutsNoKeyIntoUseEarly(t *testing.T) {
	s := newStore(t)
	made := time.Now()
	if _, err := s.Rotate(made, time.Hour); err != nil {
		t.Fatal(err)
	}
	var not *NotYetError
	for _, now := range []time.Time{made.Add(-1000 * time.Hour), time.Unix(0, 0), made.Add(time.Minute)} {
		if done, err := s.Rotate(now, time.Hour); done || !errors.As(err, &not) {
			t.Errorf("at %v: %v, %v", now, done, err)
		}
	}
	if done, err := s.Rotate(made, 0); !done || err != nil {
		t.Errorf("without an overlap: %v, %v", done, err)
	}
}

// What was opened with the former key goes on, as that one is known a while longer.
// Then it is not, and a clock that is wrong makes that no longer than the overlap.
func TestTheFormerKeyIsPublishedForAsLongAsTheOverlap(t *testing.T) {
	s := newStore(t)
	now := time.Now()
	first, err := s.Public()
	if err != nil {
		t.Fatal(err)
	}
	published := func(at time.Time) []tunnel.KeyID {
		t.Helper()
		ids, err := s.Published(at)
		if err != nil {
			t.Fatal(err)
		}
		return ids
	}
	if got := published(now); !slices.Equal(got, first) {
		t.Errorf("before a rotation: got %v, want %v", got, first)
	}
	if _, err := s.Rotate(now, 0); err != nil {
		t.Fatal(err)
	}
	both, _ := s.Public()
	if got := published(now); !slices.Equal(got, both) {
		t.Errorf("with the next key: got %v, want %v", got, both)
	}
	if _, err := s.Rotate(now, 0); err != nil {
		t.Fatal(err)
	}
	for at, want := range map[time.Duration][]tunnel.KeyID{
		0: {both[1], both[0]}, Overlap - time.Minute: {both[1], both[0]}, Overlap + time.Minute: both[1:], -time.Minute: {both[1], both[0]}, -2 * Overlap: both[1:],
	} {
		if got := published(now.Add(at)); !slices.Equal(got, want) {
			t.Errorf("%v after: got %v, want %v", at, got, want)
		}
	}
	if _, err := s.Rotate(now, 0); err != nil {
		t.Fatal(err)
	}
	if got := published(now); len(got) != 2 || got[0] != both[1] || got[1] == both[0] {
		t.Errorf("when the one after is made: got %v: there is room for two", got)
	}
}

// More than what is read again is not put in place: then nobody would be trusted.
func TestAListThatIsTooLongLeavesTheOneBefore(t *testing.T) {
	s := newStore(t)
	id := other(t)
	if err := s.Fetched(Hosts, "r.c", []Entry{{id, "i-0123456789abcdef0"}}); err != nil {
		t.Fatal(err)
	}
	many := make([]Entry, maxSize/60)
	for i := range many {
		many[i] = Entry{id, fmt.Sprintf("i-%017x", i)}
	}
	if err := s.Fetched(Hosts, "r.c", many); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("got %v", err)
	}
	set, err := s.Load(Hosts)
	if err != nil || len(set.Entries()) != 1 {
		t.Errorf("got %v, %v", set, err)
	}
}
