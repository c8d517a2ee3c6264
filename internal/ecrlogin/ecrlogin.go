// Package ecrlogin is how the gate gets a login for a registry of Amazon ECR: it
// asks r3-ecr, which has AWS credentials and runs as a user of its own, over a
// unix socket. Both ends are here; what asks AWS is not.
//
//   - A registry is ACCOUNT.dkr.ecr.REGION.amazonaws.com (.cn in China): an account in a region.
//   - A login is the user name and the password that the registry takes, for 12 hours.
//   - For everything else, a public registry or an account that is not ours,
//     there is no login, and that is no error: the pull goes on without.
//
// One connection is one question and one answer, a line each:
//
//	question  login HOST
//	answer    login USER PASSWORD
//	          none REASON
//
// A password is never in an error, a log or a file, and formatting a Login does not show it.
package ecrlogin

import (
	"fmt"
	"io"
	"strings"
)

// Socket is where r3-ecr listens.
const Socket = "/run/jumpsuite/ecr.sock"

// Registry is an account's registry in a region.
type Registry struct {
	Account string // 12 digits
	Region  string // eu-central-1
}

const middle = ".dkr.ecr."

// Of is the registry that an image, written in full, is in. ok is false if it
// is in no registry of ECR.
func Of(image string) (r Registry, ok bool) {
	host, _, ok := strings.Cut(image, "/")
	if !ok {
		return Registry{}, false
	}
	return ParseHost(host)
}

// ParseHost takes the host of a registry apart. It knows the one form that AWS
// documents, in lower case and without a port, and no other: a login is sent to
// the host, which therefore has to be AWS's.
func ParseHost(host string) (r Registry, ok bool) {
	account, rest, _ := strings.Cut(host, middle)
	region, _, _ := strings.Cut(rest, ".")
	r = Registry{Account: account, Region: region}
	if !r.Valid() || r.Host() != host {
		return Registry{}, false
	}
	return r, true
}

// Host is the name that images of the registry begin with.
func (r Registry) Host() string {
	domain := "amazonaws.com"
	if strings.HasPrefix(r.Region, "cn-") {
		domain += ".cn"
	}
	return r.Account + middle + r.Region + "." + domain
}

// Valid reports whether both parts look as AWS writes them.
func (r Registry) Valid() bool { return isAccount(r.Account) && isRegion(r.Region) }

func isAccount(s string) bool { return len(s) == 12 && only(s, "0123456789") }

// maxRegion is longer than any region's name.
const maxRegion = 32

// isRegion takes what has the form of a region's name: words of letters, and a
// number behind the last dash.
func isRegion(s string) bool {
	words := strings.Split(s, "-")
	if len(words) < 3 || len(s) > maxRegion {
		return false
	}
	last := len(words) - 1
	for _, w := range words[:last] {
		if w == "" || !only(w, "abcdefghijklmnopqrstuvwxyz") {
			return false
		}
	}
	return words[last] != "" && only(words[last], "0123456789")
}

func only(s, of string) bool { return strings.Trim(s, of) == "" }

// Login is what a registry takes. The zero value is none.
type Login struct {
	User     string
	Password Secret
}

// Secret is a text that formatting does not show: neither fmt nor slog nor JSON.
type Secret string

const hidden = "[secret]"

// Format writes, for every verb, that there is a secret.
func (Secret) Format(f fmt.State, _ rune) { io.WriteString(f, hidden) }

// MarshalText is for JSON and slog.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }
