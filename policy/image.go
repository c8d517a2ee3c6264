package policy

import (
	"errors"
	"fmt"
	"strings"
)

// reference is an image name taken apart as Docker does it, without a copy of
// anything: registry/[library/]path[:tag][@digest].
type reference struct {
	registry string
	library  bool // path stands below docker.io/library
	path     string
	tag      string // latest, if neither a tag nor a digest was written
	digest   string
}

// parseReference takes an image name apart. It is not ok for what Docker would
// not take for a name, and for a bare 64-digit ID, which Docker takes for an ID.
func parseReference(s string) (r reference, ok bool) {
	if r, ok = takeApart(s); !ok {
		return r, false
	}
	if r.tag == "" && r.digest == "" {
		r.tag = "latest"
	}
	r.registry = sameHost(r.registry)
	r.library = r.inLibrary()
	return r, r.registry != ""
}

// takeApart leaves the registry as it was written, and the tag empty where none was.
func takeApart(s string) (r reference, ok bool) {
	name, digest, pinned := strings.Cut(s, "@")
	if pinned && !sha256(digest) || hexadecimal(s, 64) {
		return r, false
	}
	r.digest = digest
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name, r.tag = name[:i], name[i+1:]
		if !tagName(r.tag) {
			return r, false
		}
	}
	r.registry, r.path = splitRegistry(name)
	r.library = r.inLibrary()
	return r, registryName(r.registry) && pathName(r.path)
}

func (r *reference) inLibrary() bool {
	return r.registry == dockerHub && !strings.Contains(r.path, "/")
}

// Image is the name of one image, or of all that a repository has.
type Image struct {
	Name   string // registry/path, the registry as it was written
	Tag    string // may be empty
	Digest string // sha256:…; may be empty. Beside one, Docker ignores the tag.
}

// ParseImage reads an image's name as Decide does. It is not ok for what Docker
// would not take for a name.
func ParseImage(s string) (i Image, ok bool) {
	r, ok := takeApart(s)
	if !ok {
		return Image{}, false
	}
	path := r.path
	if r.library {
		path = "library/" + path
	}
	return Image{Name: r.registry + "/" + path, Tag: r.tag, Digest: r.digest}, true
}

// All reports whether no image of the repository is named.
func (i Image) All() bool { return i.Tag == "" && i.Digest == "" }

// Version is the digest, or the tag.
func (i Image) Version() string {
	if i.Digest != "" {
		return i.Digest
	}
	return i.Tag
}

// With is the image of the same repository that a tag or a digest names.
func (i Image) With(version string) (Image, bool) {
	switch {
	case sha256(version):
		return Image{Name: i.Name, Digest: version}, true
	case tagName(version):
		return Image{Name: i.Name, Tag: version}, true
	}
	return Image{}, false
}

// String is the name in full, without a tag that Docker ignores.
func (i Image) String() string {
	switch {
	case i.Digest != "":
		return i.Name + "@" + i.Digest
	case i.Tag != "":
		return i.Name + ":" + i.Tag
	}
	return i.Name
}

const dockerHub = "docker.io"

// splitRegistry follows Docker: what stands before the first slash is a
// registry only if it looks like a host.
func splitRegistry(name string) (registry, path string) {
	before, after, slash := strings.Cut(name, "/")
	if !slash || !strings.ContainsAny(before, ".:") && before != "localhost" && strings.ToLower(before) == before {
		return dockerHub, name
	}
	if before == "index.docker.io" {
		return dockerHub, after
	}
	return before, after
}

// sameHost writes a registry the one way that patterns write it: a host's name
// in capitals, and the port that HTTPS has anyway, lead to the same registry.
func sameHost(registry string) string {
	host, port, ok := strings.Cut(registry, ":")
	if ok && strings.TrimLeft(port, "0") == "443" {
		registry = host
	}
	return strings.ToLower(registry)
}

func sha256(s string) bool {
	rest, ok := strings.CutPrefix(s, "sha256:")
	return ok && hexadecimal(rest, 64)
}

func hexadecimal(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func tagName(s string) bool {
	if s == "" || len(s) > 128 || s[0] == '.' || s[0] == '-' {
		return false
	}
	return only(s, tagByte)
}

func tagByte(c byte) bool { return alphanumeric(c) || c == '_' || c == '.' || c == '-' }

func registryName(s string) bool {
	return s != "" && only(s, registryByte)
}

func registryByte(c byte) bool { return alphanumeric(c) || c == '.' || c == '-' || c == ':' }

func pathName(s string) bool {
	return s != "" && len(s) <= 255 && s[0] != '/' && s[len(s)-1] != '/' && !strings.Contains(s, "//") && only(s, pathByte)
}

func pathByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == '-' || c == '/'
}

func only(s string, valid func(byte) bool) bool {
	for i := range len(s) {
		if !valid(s[i]) {
			return false
		}
	}
	return true
}

// imagePattern is a pattern for image names: REGISTRY/PATH[:TAG][@DIGEST]. A *
// in the path crosses slashes; one in the registry never leaves it. Without tag
// and digest it is for all of them.
type imagePattern struct {
	text     string
	any      bool // the pattern *
	registry glob
	path     glob
	tag      glob
	digest   string
}

// parseImagePattern checks a pattern. allow is stricter: the registry must be
// written out.
func parseImagePattern(s string, allow bool) (imagePattern, error) {
	p := imagePattern{text: s, any: s == "*"}
	if p.any {
		return p, nil
	}
	name, digest, pinned := strings.Cut(s, "@")
	if pinned && !sha256(digest) {
		return p, fmt.Errorf("image pattern %q: a digest is written sha256: and 64 hexadecimal digits", s)
	}
	p.digest = digest
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		g, err := parseGlob(name[i+1:], tagByte, "a tag")
		if err != nil {
			return p, err
		}
		name, p.tag = name[:i], g
	}
	if p.tag.text != "" && pinned {
		return p, fmt.Errorf("image pattern %q: Docker ignores the tag beside a digest; write one of them", s)
	}
	return p, p.place(name, allow)
}

// place checks the registry and the path of a pattern.
func (p *imagePattern) place(name string, allow bool) error {
	registry, path, slash := strings.Cut(name, "/")
	if !slash || !strings.ContainsAny(registry, ".:*?") && registry != "localhost" {
		return fmt.Errorf("image pattern %q names no registry: write %q", p.text, inFull(p.text))
	}
	if allow && strings.ContainsAny(registry, "*?") {
		return fmt.Errorf("image pattern %q allows a registry by pattern, which others could own: write the registry out, or %q for any image", p.text, "*")
	}
	if same := sameHost(registry); same != registry {
		return fmt.Errorf("image pattern %q: write the registry as %q", p.text, same)
	}
	if registry == "index.docker.io" {
		return fmt.Errorf("image pattern %q: write docker.io for index.docker.io", p.text)
	}
	if registry == dockerHub && !strings.ContainsAny(path, "/*") {
		return fmt.Errorf("image pattern %q: write %q", p.text, strings.Replace(p.text, "/", "/library/", 1))
	}
	var err1, err2 error
	p.registry, err1 = parseGlob(registry, registryByte, "a registry")
	p.path, err2 = parseGlob(path, pathByte, "a repository")
	return errors.Join(err1, err2)
}

func inFull(s string) string {
	if strings.Contains(s, "/") {
		return dockerHub + "/" + s
	}
	return dockerHub + "/library/" + s
}

// matches reports whether the pattern of a rule with that effect is for r.
// Docker ignores a tag beside a digest, and what a tag stands for can change:
// where a pattern speaks of the one and the request of the other, a rule that
// allows does not match and a rule that denies does.
func (p *imagePattern) matches(r *reference, effect Effect) bool {
	if p.any {
		return true
	}
	if !p.registry.match(r.registry) || !p.matchesPath(r) {
		return false
	}
	switch {
	case p.digest != "" && r.digest != "":
		return p.digest == r.digest
	case p.digest != "":
		return effect == Deny
	case p.tag.text == "" || p.tag.text == "*":
		return true
	case r.digest != "":
		return effect == Deny
	}
	return p.tag.match(r.tag)
}

func (p *imagePattern) matchesPath(r *reference) bool {
	if !r.library {
		return p.path.match(r.path)
	}
	var full [len("library/") + 255]byte
	return match(p.path.text, append(append(full[:0], "library/"...), r.path...))
}
