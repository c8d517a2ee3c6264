package installed

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhatOthersMayChangeIsNotRun(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("files of root's cannot be made without root")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "program")
	for _, tt := range []struct {
		name string
		make func() error
		want string // empty: it is run
	}{
		{"root's own", func() error { return os.WriteFile(path, nil, 0o755) }, ""},
		{"writable by others", func() error { return os.Chmod(path, 0o757) }, "others than root may write it"},
		{"another's", func() error { return chownAndMode(path, 1000, 0o755) }, "owner 1000"},
		{"in another's folder", func() error { return chownAndMode(dir, 1000, 0o755) }, "others than root may change what is in it"},
		{"in a folder that others may write", func() error { return chownAndMode(dir, 0, 0o777) }, "others than root may change what is in it"},
		{"in a folder like /tmp", func() error { return chownAndMode(dir, 0, 0o777|os.ModeSticky) }, ""},
		{"a link", func() error { return link(path) }, "is not a plain file"},
		{"nothing", func() error { return os.Remove(path) }, "no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := chownAndMode(dir, 0, 0o755); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(path); err == nil {
				if err := chownAndMode(path, 0, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := tt.make(); err != nil {
				t.Fatal(err)
			}
			err := trusted(path)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func chownAndMode(path string, uid int, mode os.FileMode) error {
	if err := os.Chown(path, uid, 0); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

func link(path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return os.Symlink("/bin/true", path)
}

func TestWhatIsNotThereIsSaidToBeSo(t *testing.T) {
	for name, find := range map[string]func(string) (string, error){"beside": Beside, "anywhere": Find} {
		if _, err := find("r3-nosuch"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %v, want that it is not there", name, err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if path, _ := Find(filepath.Base(self)); path != self { // whether it is trusted depends on where tests are built
		t.Errorf("got %s, want %s", path, self)
	}
}
