//go:build packages

package packaging

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

// both are the packages.
var both = []string{"jumpsuite", "jumpsuite-host"}

func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("needs %s: make test-packages installs it on Debian, as root", program)
	}
}

// What lintian says all the same is in lintian-overrides, with a reason for each.
func TestLintianFindsNothing(t *testing.T) {
	need(t, "lintian")
	for _, p := range both {
		out, err := exec.Command("lintian", "--fail-on", "error,warning", "--allow-root", built(t, p+"_*_"+runtime.GOARCH+".deb")).Output()
		if err != nil || len(bytes.TrimSpace(out)) > 0 {
			t.Errorf("%s: %v\n%s", p, err, last(string(out)))
		}
	}
}

// accepted is what rpmlint may say, and why that is so.
var accepted = map[string]string{
	"no-signature":                 "who releases signs, last: a signature has a time",
	"non-readable":                 "sudo wants its rules to be read by root alone",
	"no-url-tag":                   "there is no page of the project yet",
	"no-group-tag":                 "groups are of no use to any package tool since 2017",
	"not-listed-as-documentation":  "matters to installing without documentation only",
	"manpage-not-compressed":       "it wants bzip2; gzip is what the other packages of a system have",
	"invalid-license":              "it knows the old names; Apache-2.0 is SPDX's",
	"dangerous-command-in-%post":   "install makes folders, with owners and modes",
	"dangerous-command-in-%postun": "rm is for a purge, which rpm does not know",
	"incoherent-logrotate-file":    "both packages have the same log, and the same file",
	// It cannot unpack what nfpm packs; rpm, dnf and rpm2cpio can.
	"no-binary": "wrong", "only-non-binary-in-usr-lib": "wrong", "no-documentation": "wrong",
	"no-manual-page-for-binary": "wrong", "logrotate-exception": "wrong",
}

var rpmlintLine = regexp.MustCompile(`(?m)^\S+: [EW]: (\S+).*$`)

func TestRPMLintFindsNothingNew(t *testing.T) {
	need(t, "rpmlint")
	for _, p := range both {
		out, _ := exec.Command("rpmlint", built(t, p+"-[0-9]*."+rpmArch()+".rpm")).Output()
		if !strings.Contains(string(out), "1 packages and 0 specfiles checked") {
			t.Fatalf("%s: rpmlint did not look at it:\n%s", p, last(string(out)))
		}
		for _, m := range rpmlintLine.FindAllStringSubmatch(string(out), -1) {
			if accepted[m[1]] == "" {
				t.Errorf("%s", m[0])
			}
		}
	}
}

func rpmArch() string {
	return map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
}

// exposure is what systemd says of a unit at most, times ten. operations.md argues
// what r3-dockerproxy has left.
var exposure = map[string]int{"r3-ssm": 20, "r3-ecr": 20, "jumpsuite-enrol": 20, "r3-dockerproxy": 27}

func TestUnitsAreExposedNoMoreThanArgued(t *testing.T) {
	need(t, "systemd-analyze")
	for unit, most := range exposure {
		cmd := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", fmt.Sprintf("--threshold=%d", most), "systemd/"+unit+".service")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", unit, err, last(string(out)))
		}
	}
}

// The same source in another folder gives the same packages, to the byte.
func TestTheSameSourceGivesTheSamePackages(t *testing.T) {
	var sbom struct {
		Metadata struct {
			Timestamp time.Time
			Component struct{ Version string }
		}
	}
	b, err := os.ReadFile(built(t, "jumpsuite_*_"+runtime.GOARCH+".cdx.json"))
	must(t, err)
	must(t, json.Unmarshal(b, &sbom))
	elsewhere := filepath.Join(t.TempDir(), "another name", "of the folder")
	must(t, os.MkdirAll(elsewhere, 0o755))
	out, err := exec.Command("sh", "-c", `cd .. && tar --exclude=./.git --exclude=./dist --exclude=./bin -cf - . | tar -xf - -C "$1"`, "sh", elsewhere).CombinedOutput()
	if err != nil {
		t.Fatalf("copy the source: %v\n%s", err, out)
	}
	cmd := exec.Command("packaging/build", runtime.GOARCH)
	cmd.Dir = elsewhere
	cmd.Env = append(os.Environ(), "DIST=dist", "VERSION="+sbom.Metadata.Component.Version, fmt.Sprint("SOURCE_DATE_EPOCH=", sbom.Metadata.Timestamp.Unix()))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, last(string(out)))
	}
	got, err := os.ReadFile(filepath.Join(elsewhere, "dist/SHA256SUMS"))
	must(t, err)
	want, err := os.ReadFile(filepath.Join(dist(), "SHA256SUMS"))
	must(t, err)
	for _, line := range strings.Split(strings.TrimSpace(string(got)), "\n") {
		if !strings.Contains(string(want), line) {
			t.Errorf("built in another folder: %s\nand here:\n%s", line, want)
		}
	}
	if n := strings.Count(string(got), "\n"); n != 6 {
		t.Errorf("%d files, want 2 deb, 2 rpm and 2 SBOMs", n)
	}
}
