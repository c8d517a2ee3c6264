package dockerproxy

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"jumpsuite/policy"
)

// foundImage is an image that is on the host.
type foundImage struct {
	ID          string `json:"Id"`
	RepoTags    []string
	RepoDigests []string
	Config      struct {
		User    string
		Labels  map[string]string
		Volumes map[string]struct{}
	}

	name  string   // by which it was asked for; policy.None: it has none
	names []string // all of its names, where it was asked for by its id
	raw   []byte
}

// findImage resolves what a caller calls an image.
func (x *exchange) findImage(name string) (*foundImage, error) {
	if !isImageName(name) {
		return nil, noSuch("image", name)
	}
	path := "/images/" + name + "/json"
	if x.gate.FarGate {
		path = "/jumpsuite" + path
	}
	raw, _, err := x.fetch(&ask{method: http.MethodGet, path: path})
	var e *EngineError
	if errors.As(err, &e) {
		return nil, &Refusal{Status: e.Status, Text: e.Text, Engine: true}
	}
	if err != nil {
		return nil, err
	}
	i := &foundImage{raw: raw}
	if err := json.Unmarshal(raw, i); err != nil || !isDigest(i.ID) {
		return nil, unavailable("the Docker Engine's answer about image %s is not understood", printable(name))
	}
	i.identify(name)
	return i, nil
}

// isImageName admits names, tags, digests and ids; nothing that means something
// in a path.
func isImageName(s string) bool {
	if s == "" || len(s) > 512 || strings.Contains(s, "//") || s[0] == '/' || s[len(s)-1] == '/' {
		return false
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "." || part == ".." {
			return false
		}
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/:@._-") == ""
}

func isDigest(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	return ok && isID(hex)
}

// identify finds which of the image's names was meant. An id, whole or in part,
// means all of them: 3f4c can be both a name and the beginning of an id, so what
// was found decides and not how it looks.
func (i *foundImage) identify(asked string) {
	all := slices.Concat(i.RepoTags, i.RepoDigests)
	if full, ok := fullName(asked); ok {
		for _, n := range all {
			if have, ok := fullName(n); ok && have == full {
				i.name = asked
				i.names = []string{asked}
				return
			}
		}
	}
	i.name, i.names = policy.None, all
	if len(all) > 0 {
		i.name = all[0]
	}
}

// saysItself reports whether a name can mean nothing but the image that is called so,
// wherever it is: it is no id, nor the beginning of one, has no digest, and no tag that
// an Engine could take for an id. Then it need not be looked at to know what rules are
// asked about; the host's gate looks.
func saysItself(name string) bool {
	i, ok := policy.ParseImage(name)
	if !ok || i.Digest != "" || strings.HasPrefix(name, "sha256:") {
		return false
	}
	tagged := len(i.Tag) >= shortID && isDigits(i.Tag[:shortID])
	return !tagged && (!isDigits(name) || strings.ContainsAny(name, ":/"))
}

// fullName is registry/path:tag, or registry/path@digest: beside a digest the
// Engine ignores a tag.
func fullName(s string) (string, bool) {
	i, ok := policy.ParseImage(s)
	if ok && i.All() {
		i.Tag = "latest"
	}
	return i.String(), ok
}

// pinned reports whether a name has a digest in it, or is an image's whole id.
func pinned(name string) bool { return strings.Contains(name, "@sha256:") || isDigest(name) }
