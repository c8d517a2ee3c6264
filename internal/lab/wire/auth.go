package wire

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Credentials are the access keys that requests may be signed with.
type Credentials struct {
	Region string
	// Secrets are the keys' secrets, by access key ID.
	Secrets map[string]string
	// Denied are keys that may do nothing, though they are known.
	Denied map[string]bool
	// Account is named in refusals.
	Account string
}

// signature is what an Authorization header of Signature Version 4 says.
type signature struct {
	key, date, region, service string
	headers                    []string
	signature                  string
}

// Authenticate verifies the signature of a request (Signature Version 4 in the
// Authorization header). The time in it is not compared with any clock: lab
// time may run fast.
func (q *Request) Authenticate(c Credentials) error {
	header := q.http.Header.Get("Authorization")
	if header == "" {
		return q.refusal("MissingAuthenticationTokenException", "MissingAuthenticationToken", "Missing Authentication Token")
	}
	s, ok := parseSignature(header)
	if !ok {
		return q.refusal("IncompleteSignatureException", "IncompleteSignature", "Authorization header is not a signature of version 4")
	}
	if _, err := time.Parse("20060102T150405Z", q.http.Header.Get("X-Amz-Date")); err != nil {
		return q.refusal("IncompleteSignatureException", "IncompleteSignature", "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header")
	}
	if err := q.checkScope(c, s); err != nil {
		return err
	}
	if s.signature != s.sign(q.http, q.body, c.Secrets[s.key]) {
		return q.refusal("InvalidSignatureException", "SignatureDoesNotMatch",
			"The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
	}
	if c.Denied[s.key] {
		action := q.Service.Name + ":" + q.Operation
		return q.refusal("AccessDeniedException", "AccessDenied", "User: arn:aws:iam::"+c.Account+":user/"+strings.ToLower(s.key)+
			" is not authorized to perform: "+action+" on resource: * because no identity-based policy allows the "+action+" action")
	}
	return nil
}

// Verify checks the signature of a request that is no API call, for a service
// by its signing name.
func (c Credentials) Verify(r *http.Request, body []byte, service string) error {
	q := &Request{Service: &Service{Name: service, Target: service}, Operation: r.Method, http: r, body: body}
	return q.Authenticate(c)
}

// checkScope checks the key, and what the signature is for.
func (q *Request) checkScope(c Credentials, s signature) error {
	if _, ok := c.Secrets[s.key]; !ok {
		return q.refusal("UnrecognizedClientException", "InvalidClientTokenId", "The security token included in the request is invalid.")
	}
	if s.region != c.Region {
		return q.refusal("InvalidSignatureException", "SignatureDoesNotMatch", "Credential should be scoped to a valid region, not '"+s.region+"'.")
	}
	if s.service != q.Service.Name {
		return q.refusal("InvalidSignatureException", "SignatureDoesNotMatch", "Credential should be scoped to correct service: '"+q.Service.Name+"'.")
	}
	if !strings.HasPrefix(q.http.Header.Get("X-Amz-Date"), s.date) {
		return q.refusal("InvalidSignatureException", "SignatureDoesNotMatch", "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP")
	}
	return nil
}

// refusal is an error in the words of the request's protocol: JSON services
// answer 400, Query services 403 and other codes.
func (q *Request) refusal(jsonCode, queryCode, message string) *Error {
	if q.isQuery() {
		return &Error{Status: http.StatusForbidden, Code: queryCode, Message: message}
	}
	return &Error{Status: http.StatusBadRequest, Code: jsonCode, Message: message}
}

// Refusal is an AccessDenied error in the words of the request's protocol.
func (q *Request) Refusal(message string) *Error {
	return q.refusal("AccessDeniedException", "AccessDenied", message)
}

// Throttled is AWS's answer to too many calls, in the words of the request's protocol.
func (q *Request) Throttled() *Error {
	code := "ThrottlingException"
	if q.isQuery() {
		code = "Throttling"
	}
	return &Error{Status: http.StatusBadRequest, Code: code, Message: "Rate exceeded"}
}

func parseSignature(header string) (signature, bool) {
	fields, ok := strings.CutPrefix(header, "AWS4-HMAC-SHA256 ")
	if !ok {
		return signature{}, false
	}
	values := map[string]string{}
	for field := range strings.SplitSeq(fields, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		values[name] = value
	}
	scope := strings.Split(values["Credential"], "/")
	if len(scope) != 5 || scope[4] != "aws4_request" || len(values["Signature"]) != 64 {
		return signature{}, false
	}
	s := signature{key: scope[0], date: scope[1], region: scope[2], service: scope[3],
		headers: strings.Split(values["SignedHeaders"], ";"), signature: values["Signature"]}
	return s, slices.Contains(s.headers, "host") && slices.Contains(s.headers, "x-amz-date")
}

// scopeService is the service that a request says it is signed for.
func scopeService(r *http.Request) string {
	s, _ := parseSignature(r.Header.Get("Authorization"))
	return s.service
}

// sign computes the signature that the request should have.
func (s signature) sign(r *http.Request, body []byte, secret string) string {
	scope := strings.Join([]string{s.date, s.region, s.service, "aws4_request"}, "/")
	toSign := strings.Join([]string{"AWS4-HMAC-SHA256", r.Header.Get("X-Amz-Date"), scope, digest([]byte(s.canonical(r, body)))}, "\n")
	key := mac([]byte("AWS4"+secret), s.date)
	for _, part := range []string{s.region, s.service, "aws4_request"} {
		key = mac(key, part)
	}
	return hex.EncodeToString(mac(key, toSign))
}

func (s signature) canonical(r *http.Request, body []byte) string {
	lines := []string{r.Method, r.URL.EscapedPath(), canonicalQuery(r.URL.Query())}
	for _, name := range s.headers {
		lines = append(lines, name+":"+headerValue(r, name))
	}
	return strings.Join(append(lines, "", strings.Join(s.headers, ";"), digest(body)), "\n")
}

func canonicalQuery(q url.Values) string {
	return strings.ReplaceAll(q.Encode(), "+", "%20")
}

// headerValue is a signed header's value with single spaces. net/http takes
// two headers out of the map.
func headerValue(r *http.Request, name string) string {
	if name == "host" {
		return r.Host
	}
	values := r.Header.Values(name)
	if name == "content-length" && len(values) == 0 {
		values = []string{strconv.FormatInt(r.ContentLength, 10)}
	}
	var clean []string
	for _, v := range values {
		clean = append(clean, strings.Join(strings.Fields(v), " "))
	}
	return strings.Join(clean, ",")
}

func mac(key []byte, s string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(s))
	return h.Sum(nil)
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
