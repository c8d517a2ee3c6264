package dockerproxy

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"

	"jumpsuite/internal/audit"
	"jumpsuite/policy"
)

// servePull pulls one image. The caller's credentials are not looked at: those
// that the gate may have are the platform's.
func servePull(x *exchange) error {
	image, err := pullName(x.query.Get("fromImage"), x.query.Get("tag"))
	if err != nil {
		return err
	}
	full := image.String()
	q := x.question(policy.DockerPull, policy.Resource{ContainerType: policy.None, Image: full})
	if _, err := x.permitOpen(q, audit.Event{Resource: audit.Resource{Image: full}}); err != nil {
		return err
	}
	a := &ask{method: http.MethodPost, path: "/images/create", query: url.Values{"fromImage": {image.Name}, "tag": {image.Version()}}}
	var missing error
	if x.gate.Credentials != nil {
		a.auth, missing = x.gate.Credentials(x.ctx, full)
	}
	return withoutLogin(x.streamAs(a, still(q), x.copyMessages), missing)
}

// copyMessages passes on a stream of objects. Others' words are in it (a
// registry's, those of a host that is not ours any more), and must not drive the
// caller's terminal.
func (x *exchange) copyMessages(src *source, in framing) (int64, error) {
	return copyObjects(x.conn.conn, src, in, func(m *json.RawMessage) any { return json.RawMessage(visible(*m)) })
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

// pullName is the one image that is meant: the name that is decided on is the
// one that the Engine gets.
func pullName(from, tag string) (policy.Image, error) {
	i, ok := policy.ParseImage(from)
	if !ok {
		return i, badRequest("%q is no image", clip(from))
	}
	if tag != "" {
		if !i.All() {
			return i, badRequest("the image's tag is given twice")
		}
		if i, ok = i.With(tag); !ok {
			return i, badRequest("%q is no tag", clip(tag))
		}
	}
	if i.All() {
		return i, forbidden("name the tag", "all tags of an image cannot be pulled at once")
	}
	return i, nil
}
