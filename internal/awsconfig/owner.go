package awsconfig

import (
	"os"
	"syscall"

	"jumpsuite/internal/cli"
)

// ownedByRoot reports why path may not be trusted: it is not root's, or has one
// of the mode bits in mask, or is neither a folder nor a plain file.
func ownedByRoot(path string, mask os.FileMode) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	switch {
	case !info.IsDir() && !info.Mode().IsRegular():
		return cli.Errorf(cli.ExitConfig, "put a plain file there", "%s is neither a file nor a folder", path)
	case owner != 0:
		return cli.Errorf(cli.ExitConfig, "chown root:root "+path, "%s belongs to uid %d, not to root", path, owner)
	case info.Mode().Perm()&mask != 0:
		return cli.Errorf(cli.ExitConfig, "chmod "+tighter(info.Mode().Perm()&^mask)+" "+path,
			"%s has mode %04o: others could change or read it", path, info.Mode().Perm())
	}
	return nil
}

func tighter(mode os.FileMode) string {
	const digits = "01234567"
	return string([]byte{'0', digits[mode>>6&7], digits[mode>>3&7], digits[mode&7]})
}
