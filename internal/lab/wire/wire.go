// Package wire speaks AWS's two oldest protocols from the service's side:
// awsJson1.1 (ECS, ECR, SSM) and Query with XML answers (ELBv2, STS).
//
// A service is a Go value whose exported methods
//
//	Op(ctx context.Context, in *sdk.OpInput) (*sdk.OpOutput, error)
//
// are its operations. Requests are decoded into the SDK's own input structs
// and answers encoded from its output structs, both by reflection, so that no
// shape is written down twice.
//
// It is strict: a member that the operation does not have, a value of another
// type or outside its enumeration, and a missing required member are refused.
// AWS ignores unknown members; a lab that did would hide a typo.
//
// Package wire knows nothing of what the operations do.
package wire

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Error is an answer that is an error of AWS's: HTTP status, code and message.
type Error struct {
	Status  int // zero means 400
	Code    string
	Message string
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// Errorf is an *Error with status 400, which is what AWS answers to all that
// is the caller's fault.
func Errorf(code, format string, args ...any) *Error {
	return &Error{Status: http.StatusBadRequest, Code: code, Message: fmt.Sprintf(format, args...)}
}

type staleKey struct{}

// WithStale makes Stale answer age for ctx.
func WithStale(ctx context.Context, age time.Duration) context.Context {
	return context.WithValue(ctx, staleKey{}, age)
}

// Stale is how old a state this read is to be answered with, in lab time.
func Stale(ctx context.Context) time.Duration {
	age, _ := ctx.Value(staleKey{}).(time.Duration)
	return age
}

// Service is an AWS service and who plays it.
type Service struct {
	// Name is what requests are signed for: ecs, ecr, ssm, elasticloadbalancing, sts.
	Name string
	// Target is the prefix of X-Amz-Target. Empty for a Query service.
	Target string
	// Version is the API version that a Query service is asked with, and
	// Namespace that of its XML.
	Version, Namespace string
	// Titled members are on the wire as in Go. Otherwise, JSON members start
	// with a small letter.
	Titled bool
	// Invalid is the code for a missing member and a value outside its
	// enumeration; empty means InvalidParameterException.
	Invalid string
	// Impl has the operations as methods.
	Impl any
	// Unions are the members of unions that may be sent to this service, as
	// pointers to the SDK's structs.
	Unions []any
	// Document makes the SDK's document from a decoded JSON value. If nil, documents are refused.
	Document func(any) any
}

// Query reports whether the service speaks Query, with XML answers.
func (s *Service) Query() bool { return s.Target == "" }

// Operations are the names of the operations that the service has, sorted.
func (s *Service) Operations() []string {
	var names []string
	t := reflect.TypeOf(s.Impl)
	for i := range t.NumMethod() {
		if isOperation(t.Method(i)) {
			names = append(names, t.Method(i).Name)
		}
	}
	return names
}

var (
	contextType = reflect.TypeFor[context.Context]()
	errorType   = reflect.TypeFor[error]()
)

// isOperation tells operations from the other methods of a service by their
// signature, whose types the SDK names after the operation.
func isOperation(m reflect.Method) bool {
	t := m.Type
	if t.NumIn() != 3 || t.NumOut() != 2 || t.In(1) != contextType || t.Out(1) != errorType {
		return false
	}
	in, out := t.In(2), t.Out(0)
	return in.Kind() == reflect.Pointer && in.Elem().Name() == m.Name+"Input" &&
		out.Kind() == reflect.Pointer && out.Elem().Name() == m.Name+"Output"
}

// Services are all services that answer on one endpoint.
type Services []*Service

// Request is a request whose service and operation are known.
type Request struct {
	Service   *Service // nil when nobody here answers to it
	Operation string

	http   *http.Request
	body   []byte
	form   url.Values
	method reflect.Value
	input  reflect.Value
}

// Parse finds the service and the operation of a request. The Request is never
// nil, so that one that is refused can be recorded and answered in the protocol it came in.
func (ss Services) Parse(r *http.Request, body []byte) (*Request, error) {
	q := &Request{http: r, body: body}
	if r.Method != http.MethodPost || r.URL.Path != "/" {
		return q, &Error{Status: http.StatusNotFound, Code: "UnknownOperationException", Message: "operations are asked for with POST on /"}
	}
	if target := r.Header.Get("X-Amz-Target"); target != "" {
		return q, q.parseJSON(ss, target)
	}
	return q, q.parseQuery(ss)
}

func (q *Request) parseJSON(ss Services, target string) error {
	prefix, operation, _ := strings.Cut(target, ".")
	q.Operation = operation
	i := slices.IndexFunc(ss, func(s *Service) bool { return !s.Query() && s.Target == prefix })
	if i < 0 {
		return Errorf("UnknownOperationException", "no service has the target %q", prefix)
	}
	q.Service = ss[i]
	if t := contentType(q.http); t != "application/x-amz-json-1.1" {
		return Errorf("SerializationException", "the content type is %q, not application/x-amz-json-1.1", t)
	}
	return q.find("UnknownOperationException")
}

func (q *Request) parseQuery(ss Services) error {
	name := scopeService(q.http)
	i := slices.IndexFunc(ss, func(s *Service) bool { return s.Query() && s.Name == name })
	form, err := url.ParseQuery(string(q.body))
	if err == nil {
		q.Operation = form.Get("Action")
		i = max(i, versionIndex(ss, form.Get("Version"), i))
	}
	if i < 0 {
		return &Error{Status: http.StatusNotFound, Code: "UnknownOperationException", Message: "neither X-Amz-Target nor a Query API that is known"}
	}
	q.Service = ss[i]
	if err != nil {
		return Errorf("MalformedQueryString", "%v", err)
	}
	if got := form.Get("Version"); got != q.Service.Version {
		return Errorf("InvalidAction", "Could not find operation %s for version %s", q.Operation, got)
	}
	q.form = form
	return q.find("InvalidAction")
}

// versionIndex finds a Query service by its API version, for requests that are
// not signed and thus do not say whom they are for.
func versionIndex(ss Services, version string, found int) int {
	if found >= 0 || version == "" {
		return found
	}
	return slices.IndexFunc(ss, func(s *Service) bool { return s.Query() && s.Version == version })
}

func (q *Request) find(code string) error {
	t := reflect.TypeOf(q.Service.Impl)
	m, ok := t.MethodByName(q.Operation)
	if ok && isOperation(m) {
		q.method = reflect.ValueOf(q.Service.Impl).Method(m.Index)
		return nil
	}
	if q.Service.Query() {
		return Errorf(code, "Could not find operation %s for version %s", q.Operation, q.Service.Version)
	}
	return Errorf(code, "the lab's %s has no operation %q", q.Service.Name, q.Operation)
}

func contentType(r *http.Request) string {
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return r.Header.Get("Content-Type")
	}
	return t
}

// Decode reads the input of the operation. It must come before Do.
func (q *Request) Decode() error {
	in := reflect.New(q.method.Type().In(1).Elem())
	d := decoder{service: q.Service}
	var err error
	if q.Service.Query() {
		err = d.query(q.form, in.Elem())
	} else {
		err = d.json(q.body, in.Elem())
	}
	if err != nil {
		return err
	}
	q.input = in
	return nil
}

// Parameters are the request's input as JSON, as nearly as it can be told: for
// a request that could not be decoded, what was sent.
func (q *Request) Parameters() json.RawMessage {
	if q.input.IsValid() {
		return encodeJSON(q.Service, q.input.Elem(), false)
	}
	if json.Valid(q.body) {
		return slices.Clone(q.body)
	}
	sent, err := json.Marshal(string(q.body))
	if err != nil {
		return nil
	}
	return sent
}

// Do calls the operation. The answer is a pointer to the SDK's output struct.
func (q *Request) Do(ctx context.Context) (any, error) {
	out := q.method.Call([]reflect.Value{reflect.ValueOf(ctx), q.input})
	if err, _ := out[1].Interface().(error); err != nil {
		return nil, err
	}
	if out[0].IsNil() {
		return nil, &Error{Status: http.StatusInternalServerError, Code: "ServerException", Message: q.Operation + " has no answer"}
	}
	return out[0].Interface(), nil
}

// requestID makes a request's id, in the form of a UUID, from a text that no other request has.
func requestID(seed string) string {
	h := sha256.Sum256([]byte(seed))
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[:4], h[4:6], h[6:8], h[8:10], h[10:16])
}
