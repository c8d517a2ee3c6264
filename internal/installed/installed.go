// Package installed finds programs of ours on this machine, for those of us that
// run as root: where packages put them, and only what nobody but root can change.
//
// Neither PATH nor a variable nor the name that a link has been given plays a
// part.
package installed

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Folder is where packages put what people do not call by its own name.
const Folder = "/usr/libexec/jumpsuite"

// Beside is the path of a program that lies beside the file that is running. It
// is an fs.ErrNotExist where there is none.
func Beside(name string) (string, error) {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	path := filepath.Join(filepath.Dir(self), name)
	return path, trusted(path)
}

// Find is Beside, and where nothing lies there the same in Folder.
func Find(name string) (string, error) {
	path, err := Beside(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	path = filepath.Join(Folder, name)
	return path, trusted(path)
}

// trusted reports why somebody else than root could change what lies at path.
func trusted(path string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("%s is not a plain file", path)
	}
	if st.Uid != 0 || st.Mode&0o022 != 0 {
		return fmt.Errorf("%s: owner %d, mode %04o: others than root may write it", path, st.Uid, st.Mode&0o7777)
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if err := unix.Lstat(dir, &st); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
		if st.Uid != 0 || st.Mode&0o022 != 0 && st.Mode&unix.S_ISVTX == 0 {
			return fmt.Errorf("%s: owner %d, mode %04o: others than root may change what is in it", dir, st.Uid, st.Mode&0o7777)
		}
		if dir == "/" {
			return nil
		}
	}
}
