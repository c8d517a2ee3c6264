package dockerproxy

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"jumpsuite/internal/audit"
	"jumpsuite/policy"
)

// servePull pulls one image. The caller's credentials are not looked at: those
// that the gate may have are the platform's.
func servePull(x *exchange) error {
	named, version, err := pullName(x.query.Get("fromImage"), x.query.Get("tag"))
	if err != nil {
		return err
	}
	full := named.String()
	q := x.question(policy.DockerPull, policy.Resource{ContainerType: policy.None, Image: full})
	if _, err := x.permitOpen(q, audit.Event{Resource: audit.Resource{Image: full}}); err != nil {
		return err
	}
	a := &ask{method: http.MethodPost, path: "/images/create", query: url.Values{"fromImage": {named.Name()}, "tag": {version}}}
	var missing error
	if x.gate.Credentials != nil {
		a.auth, missing = x.gate.Credentials(x.ctx, full)
	}
	return withoutLogin(x.stream(a, still(q), nil), missing)
}

// withoutLogin adds to the Engine's refusal why the gate had no credentials.
// They may not be what was wanting, but the registry does not say.
func withoutLogin(err, missing error) error {
	var r *Refusal
	if missing == nil || !errors.As(err, &r) || !r.Engine {
		return err
	}
	told := *r
	told.Text += "\nhint: " + missing.Error()
	var h interface{ Hint() string }
	if errors.As(missing, &h) && h.Hint() != "" {
		told.Text += "\nhint: " + h.Hint()
	}
	return &told
}

// pullName is the one image that is meant, in full, and its tag or digest.
func pullName(from, tag string) (named reference.Named, version string, err error) {
	named, err = reference.ParseNormalizedNamed(from)
	if err != nil {
		return nil, "", badRequest("%q is no image: %v", clip(from), err)
	}
	if tag != "" {
		if !reference.IsNameOnly(named) {
			return nil, "", badRequest("the image's tag is given twice")
		}
		if named, err = withVersion(named, tag); err != nil {
			return nil, "", badRequest("%q is no tag: %v", clip(tag), err)
		}
	}
	switch r := named.(type) {
	case reference.Digested:
		named, err = reference.WithDigest(reference.TrimNamed(named), r.Digest())
		return named, r.Digest().String(), err
	case reference.Tagged:
		return named, r.Tag(), nil
	}
	return nil, "", forbidden("name the tag", "all tags of an image cannot be pulled at once")
}

func withVersion(named reference.Named, tag string) (reference.Named, error) {
	if !strings.Contains(tag, ":") {
		return reference.WithTag(named, tag)
	}
	d, err := digest.Parse(tag)
	if err != nil {
		return nil, err
	}
	return reference.WithDigest(named, d)
}
