//go:build packages

package packaging

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// stubSudo stands for the sudo of a distribution that has rpm: the root has a real
// one, which rpm does not know of.
const stubSudo = `Name: sudo
Version: 1.9.13
Release: 1
Summary: Stub
License: ISC
BuildArch: noarch
%description
Stub.
%files
`

// repository is a folder with our packages and the stub, as dnf reads it.
func repository(t *testing.T) string {
	t.Helper()
	for _, p := range []string{"rpm", "rpmbuild", "dnf", "createrepo_c"} {
		need(t, p)
	}
	dir := t.TempDir()
	for _, p := range both {
		path := built(t, p+"-[0-9]*."+rpmArch()+".rpm")
		must(t, os.Symlink(path, filepath.Join(dir, filepath.Base(path))))
	}
	must(t, os.WriteFile(dir+"/sudo.spec", []byte(stubSudo), 0o644))
	for _, c := range [][]string{
		{"rpmbuild", "-bb", "--quiet", "--define", "_topdir " + dir + "/top", "--define", "_rpmdir " + dir, dir + "/sudo.spec"},
		{"createrepo_c", "--quiet", dir},
	} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", c, err, last(string(out)))
		}
	}
	return dir
}

// rpm runs this machine's rpm on the root. Scriptlets run in there, with what
// Debian has: a shell, useradd, visudo.
func (d *debian) rpm(args ...string) (string, error) {
	d.t.Helper()
	out, err := exec.Command("rpm", append([]string{"--root", d.root}, args...)...).CombinedOutput()
	return string(out), err
}

func (d *debian) dnf(repository string, args ...string) (string, error) {
	d.t.Helper()
	out, err := exec.Command("dnf", append([]string{"-q", "-y", "--installroot=" + d.root, "--releasever=1", "--repofrompath=l," + repository,
		"--repo=l", "--nogpgcheck", "--setopt=install_weak_deps=False", "--setopt=cachedir=" + d.t.TempDir()}, args...)...).CombinedOutput()
	return string(out), err
}

func (d *debian) mustRPM(args ...string) string {
	d.t.Helper()
	out, err := d.rpm(args...)
	if err != nil {
		d.t.Fatalf("rpm %q: %v\n%s", args, err, last(out))
	}
	return out
}

func TestRPMs(t *testing.T) {
	repository := repository(t)
	d := install(t, "bookworm", "sudo")
	for _, p := range []struct{ name, other, user string }{{"jumpsuite-host", "jumpsuite", "r3-ecr"}, {"jumpsuite", "jumpsuite-host", "r3-ssm"}} {
		t.Run(p.name, func(t *testing.T) {
			d.t = t
			if out, err := d.dnf(repository, "install", p.name); err != nil {
				t.Fatalf("dnf: %v\n%s", err, last(out))
			}
			d.mustRPM("-q", "sudo") // what it depends on came with it
			if out, err := d.dnf(repository, "install", p.other); err == nil || !strings.Contains(out, "conflict") {
				t.Errorf("the other one beside it: %v\n%s", err, last(out))
			}
			if out := d.mustRPM("-V", p.name); out != "" {
				t.Errorf("rpm -V after installing:\n%s", out)
			}
			d.scriptlets(p.user)
			d.upgradeRPM(p.name, newer(t, p.name+"-[0-9]*."+rpmArch()+".rpm"))
			d.erase(p.name)
		})
	}
}

// scriptlets is what they have to have done.
func (d *debian) scriptlets(user string) {
	d.t.Helper()
	d.must("getent", "passwd", user)
	d.must("usermod", "-aG", "jumpsuite", "dev")
	for path, want := range map[string]string{
		"/var/lib/jumpsuite/keys": "700 root root", "/var/lib/jumpsuite": "711 root root", "/etc/jumpsuite/keys": "755 root root",
		"/var/log/jumpsuite": "750 root adm", "/etc/sudoers.d/jumpsuite": "440 root root",
	} {
		if got := strings.TrimSpace(d.must("stat", "-c", "%a %U %G", path)); got != want {
			d.t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
	d.wants("dev", "sudo -n docker ps", 125, "policy")
	d.wants("guest", "sudo -n docker ps", 1, "")
}

// upgradeRPM is an upgrade over a changed sudoers file, and the same once more over
// one that is broken.
func (d *debian) upgradeRPM(name, path string) {
	d.t.Helper()
	const rules = "/etc/sudoers.d/jumpsuite"
	good := d.read(rules)
	d.write(rules, good+"# ours\n", 0o440)
	if out, _ := d.rpm("-V", name); !strings.Contains(out, "c "+rules) || strings.Count(out, "\n") != 1 {
		d.t.Errorf("rpm -V with changed rules:\n%s", out)
	}
	old := d.versionRPM(name)
	d.mustRPM("-U", path)
	if now := d.versionRPM(name); now == old || strings.Contains(now, "\n") {
		d.t.Fatalf("upgraded from %s to %s", old, now)
	}
	if out, _ := d.rpm("-V", name); !strings.Contains(out, "c "+rules) || strings.Count(out, "\n") != 1 {
		d.t.Errorf("rpm -V after the upgrade:\n%s", out)
	}
	d.wants("dev", "sudo -n docker ps", 125, "policy")
	if !strings.Contains(d.read(rules), "# ours") {
		d.t.Error("the upgrade took a change of the sudoers file away")
	}
	d.write(rules, "%jumpsuite ALL=(root NOPASSWD: oops\n", 0o440)
	if out, err := d.rpm("-U", "--replacepkgs", path); !strings.Contains(out, "sudo does not understand") {
		d.t.Errorf("with a broken sudoers file: %v\n%s", err, last(out))
	}
	if d.has(rules) || !d.has(rules+".refused") {
		d.t.Error("the broken sudoers file is still in force")
	}
	d.must("rm", rules+".refused")
	d.write(rules, good+"# ours\n", 0o440)
}

// versionRPM is what rpm says, and the programs.
func (d *debian) versionRPM(name string) string {
	d.t.Helper()
	version := strings.TrimSpace(d.mustRPM("-q", "--queryformat", "%{VERSION}\\n", name))
	if out := d.must("r3-admin", "--version"); !strings.Contains(out, version) {
		d.t.Errorf("%s is %s, and r3-admin says %s", name, version, out)
	}
	return version
}

// erase removes it: what was changed or written here stays, and has no effect.
func (d *debian) erase(name string) {
	d.t.Helper()
	d.write("/etc/jumpsuite/policy.yaml", "environments: []\n", 0o644)
	d.mustRPM("-e", name)
	for path, stays := range map[string]bool{
		"/etc/sudoers.d/jumpsuite": false, "/etc/sudoers.d/jumpsuite.rpmsave": true, "/etc/jumpsuite/policy.yaml": true,
		"/var/log/jumpsuite": true, "/usr/libexec/jumpsuite": false, "/usr/sbin/r3-admin": false, "/usr/share/" + name: false, "/usr/share/doc/" + name: false, "/etc/logrotate.d/jumpsuite": false,
	} {
		if d.has(path) != stays {
			d.t.Errorf("removed: %s there: %v, want %v", path, !stays, stays)
		}
	}
	d.wants("dev", "sudo -n docker ps", 1, "")
	d.must("rm", "/etc/sudoers.d/jumpsuite.rpmsave", "/etc/jumpsuite/policy.yaml")
	if out, err := d.rpm("-q", name); err == nil {
		d.t.Error(fmt.Sprint("still installed: ", out))
	}
}
