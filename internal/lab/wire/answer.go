package wire

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"time"
)

// Answer is what is sent back: headers and body are made by Request.Answer.
type Answer struct {
	Status    int
	Code      string // of the error; empty for none
	RequestID string
	header    http.Header
	body      []byte
}

// Answer makes the answer to a request from the output of its operation, or
// its error. now is lab time, for the Date header; n is the number of the request.
func (q *Request) Answer(out any, err error, now time.Time, n int64) *Answer {
	a := &Answer{Status: http.StatusOK, header: http.Header{}, RequestID: requestID(fmt.Sprintf("%s %d %d", q.Operation, n, now.UnixNano()))}
	a.header.Set("Date", now.UTC().Format(http.TimeFormat))
	if err != nil {
		e := asError(err)
		a.Status, a.Code = e.Status, e.Code
		q.encodeError(a, e)
	} else {
		q.encode(a, reflect.ValueOf(out).Elem())
	}
	a.header.Set("X-Amzn-Requestid", a.RequestID)
	a.header.Set("Content-Length", strconv.Itoa(len(a.body)))
	return a
}

// asError turns what is no *Error into AWS's word for a fault of its own.
func asError(err error) *Error {
	var e *Error
	if !errors.As(err, &e) {
		return &Error{Status: http.StatusInternalServerError, Code: "ServerException", Message: err.Error()}
	}
	if e.Status == 0 {
		e = &Error{Status: http.StatusBadRequest, Code: e.Code, Message: e.Message}
	}
	return e
}

// isQuery is the protocol of a request, also of one that nobody answers to:
// then X-Amz-Target tells.
func (q *Request) isQuery() bool {
	if q.Service != nil {
		return q.Service.Query()
	}
	return q.http.Header.Get("X-Amz-Target") == ""
}

func (q *Request) encode(a *Answer, out reflect.Value) {
	if q.isQuery() {
		a.header.Set("Content-Type", "text/xml")
		a.body = encodeXML(q.Service, q.Operation, out, a.RequestID)
		return
	}
	a.jsonBody(encodeJSON(q.Service, out, true))
}

func (q *Request) encodeError(a *Answer, e *Error) {
	if q.isQuery() {
		a.header.Set("Content-Type", "text/xml")
		a.body = encodeXMLError(q.Service, e, a.RequestID)
		return
	}
	prefix := ""
	if q.Service != nil {
		prefix = "com.amazonaws." + q.Service.Name + "#"
	}
	a.header.Set("X-Amzn-Errortype", e.Code)
	a.jsonBody(encodeJSONError(prefix+e.Code, e.Message))
}

func (a *Answer) jsonBody(body []byte) {
	a.header.Set("Content-Type", "application/x-amz-json-1.1")
	a.body = body
}

// Write sends the answer.
func (a *Answer) Write(w http.ResponseWriter) error {
	for name, values := range a.header {
		w.Header()[name] = values
	}
	w.WriteHeader(a.Status)
	_, err := w.Write(a.body)
	return err
}
