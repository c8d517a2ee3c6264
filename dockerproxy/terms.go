package dockerproxy

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	"jumpsuite/internal/audit"
	"jumpsuite/policy"
)

// Where a jump server's rules tell containers apart, its gate has to know the
// container before it can decide, and that is a round trip. Instead it can say on
// which terms its policy allows what is asked, and ask at once: the host's gate holds
// the container that it finds against the terms, besides deciding by its own policy,
// and does nothing where they do not fit. It says which container that was, and the
// jump server's gate decides once more, with it. So who has to believe whom is as
// before: what a container is, and that nothing was done, is the host's word.
//
// Where the terms do not fit, the jump server's gate goes the long way: it looks at
// the container, decides, and records that.

// termsHeader has the terms: JSON in base64.
const termsHeader = "x-jumpsuite-terms"

// terms are what has to hold of a container for our policy to allow something.
type terms struct {
	// Any has the rules' terms, by the container's type and image: one has to fit.
	Any []policy.Terms `json:",omitempty"`
	// Made, if not nil, counts in place of Any for containers that were made through
	// the gate, by the image that they were made of.
	Made []policy.Terms
	// Yours says that it has to be one that the caller made or started.
	Yours bool `json:",omitempty"`
}

// fit reports whether what is known of a container fits.
func (s *terms) fit(o *outlook) bool {
	t := o.target()
	if s.Yours && !t.yours {
		return false
	}
	list, r := s.Any, t.resource()
	if s.Made != nil && t.made() {
		list, r = s.Made, policy.Resource{ContainerType: policy.None, Image: t.lease.Image}
	}
	return slices.ContainsFunc(list, func(p policy.Terms) bool { return p.Fit(r.ContainerType, r.Image) })
}

// encoded is the terms as a header has them; empty: they are too long for one.
func (s *terms) encoded() string {
	raw, err := json.Marshal(s)
	if err != nil || base64.StdEncoding.EncodedLen(len(raw)) > maxLine-100 {
		return ""
	}
	return base64.StdEncoding.EncodeToString(raw)
}

// errUnfit is a container that the terms do not fit, or a gate that knows no terms:
// nothing was done.
var errUnfit = errors.New("not done: it is not known to be a container that the rules allow it for")

// onTerms serves an operation to a jump server's gate on the terms that it states.
func onTerms(serve func(*exchange) error) func(*exchange) error {
	return func(x *exchange) error {
		if !x.conn.caller.fromFar() {
			return noPage("/" + strings.Join(x.req.path, "/"))
		}
		var err error
		if x.terms, err = termsIn(x.req.value(termsHeader)); err != nil {
			return badRequest("the jump server's terms are not understood: %v", err)
		}
		return serve(x)
	}
}

// termsIn parses the header. What is not understood could be what would not fit.
func termsIn(value string) (*terms, error) {
	raw, err := base64.StdEncoding.DecodeString(value)
	if err != nil {
		return nil, err
	}
	s := &terms{}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something comes after them")
	}
	return s, nil
}

// agreed refuses a container that the terms of the jump server's gate do not fit, or
// of which it could not be told.
func (x *exchange) agreed(t *target) error {
	if x.terms == nil {
		return nil
	}
	o := x.outlookOf(t)
	if x.header == "" || !x.terms.fit(&o) {
		r := &Refusal{Status: http.StatusPreconditionFailed, Text: "the jump server's rules are not for it"}
		return x.refuse(x.question(x.op.action, t.resource()), t.about(), r)
	}
	return nil
}

// unseen reports whether it is a container on another host, of which nothing is known
// that counts. Who has been asked on terms himself looks, and holds it against them.
func (x *exchange) unseen() bool {
	return x.gate.FarGate && x.seen == nil && !x.unfit && x.terms == nil && isRef(x.ref)
}

// ownersTerms are those on which whoever made or started a container may use it, if
// there are any: not where a session may have to be recorded.
func (x *exchange) ownersTerms(yours bool) *offer {
	p := x.gate.policy.Load()
	q := x.question(policy.DockerStart, policy.Resource{})
	run := x.question(policy.DockerRun, policy.Resource{ContainerType: policy.None})
	run.Run = &policy.Run{Digest: true}
	start, d := p.Terms(q)
	made, ofRun := p.Terms(run)
	s := &terms{Yours: yours, Made: []policy.Terms{}}
	if d.Allowed() {
		s.Any, s.Made = append(s.Any, start), append(s.Made, start)
	}
	if ofRun.Allowed() {
		s.Made = append(s.Made, made)
	}
	if !d.Allowed() {
		q, d = run, ofRun
	}
	unrecorded := func(d policy.Decision) bool { return d.Obligations.Record == policy.RecordNothing }
	if !d.Allowed() || !unrecorded(d) || !unrecorded(ofRun) {
		return nil
	}
	return &offer{s, q, d, x.questionOn}
}

// offer is what is asked on terms: what the policy says before the container is known,
// and what it is asked when it is.
type offer struct {
	terms    *terms
	question policy.Request
	decision policy.Decision
	again    func(*target) policy.Request
}

// asksOnTerms asks the host's gate to do something to the container that goes by
// x.ref, on terms; detail is the event's. done is false where that was not to be: then
// it has to be looked at.
func (x *exchange) asksOnTerms(a *ask, o *offer, detail string) (ans *answer, done bool, err error) {
	if a.terms = o.terms.encoded(); a.terms == "" {
		return nil, false, nil
	}
	about := x.termed(x.aboutRef())
	about.Detail = detail
	if _, err := x.permitted(o.question, o.decision, about, audit.Open); err != nil {
		return nil, true, x.hide(err)
	}
	a.path, a.outlook = "/jumpsuite"+a.path, true
	if ans, err = x.send(a); err != nil {
		return nil, true, err
	}
	t, _, err := x.tookOnTerms(ans, o.terms)
	if err != nil {
		if errors.Is(err, errUnfit) {
			x.close(err)
			return nil, false, nil
		}
		return nil, true, err
	}
	x.was(o.again(t), t.about())
	return ans, true, nil
}

// termed adds to an event that what it allows depends on the container.
func (x *exchange) termed(about audit.Event) audit.Event {
	about.Reason = "if the rules are for that container"
	return about
}

// tookOnTerms reads the answer to what was asked on terms, and with which container it
// was done. What came of it is an error as engineRefusal has them, or errUnfit.
func (x *exchange) tookOnTerms(ans *answer, s *terms) (*target, []byte, error) {
	t, told := x.outlookOn(ans)
	raw, _, err := x.take(ans)
	var e *EngineError
	switch {
	case errors.As(err, &e) && knowsNoTerms(e):
		x.unfit = true
		if t != nil {
			x.seen = &sighting{target: t}
		}
		return nil, nil, errUnfit
	case err != nil:
		return nil, nil, engineRefusal(err)
	case told != nil:
		return nil, nil, told
	case t == nil || !s.fit(outlookFor(t)):
		return nil, nil, unavailable("host %s: its gate was asked to do it to no container but one that the rules are for, and has done it to another", x.gate.host())
	}
	return t, raw, nil
}

// knowsNoTerms reports whether a host's gate refused for the terms, or as it does not
// know of any.
func knowsNoTerms(e *EngineError) bool {
	return e.Status == http.StatusPreconditionFailed || e.Status == http.StatusNotFound && strings.HasPrefix(e.Text, "page not found: /jumpsuite/")
}

// outlookFor is the outlook that a target was made from, as far as terms go.
func outlookFor(t *target) *outlook {
	o := &outlook{outline: outlineOf(t), Type: t.kind(), ECS: t.byECS(), Yours: t.yours}
	if t.made() {
		o.Made = t.lease.Image
	}
	return o
}
