package lab

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"jumpsuite/internal/lab/wire"
)

// bodyLimit is the largest request that is read, in bytes. AWS's own limits
// are lower for all that the lab does.
const bodyLimit = 2 << 20

// Handler answers the AWS APIs on /, the registry's on /v2/, the channels of
// sessions on /v1/, and what steers the lab on /lab/.
func (l *Lab) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/v2/", l.Registry.Handler())
	mux.Handle("/v1/", l.inventory.Handler())
	mux.Handle("/lab/", l.control())
	mux.HandleFunc("/", l.serveAWS)
	return mux
}

// errCut stands for an answer that is not sent: the connection is closed instead.
var errCut = errors.New("cut")

// serveAWS answers one API call and records it.
func (l *Lab) serveAWS(w http.ResponseWriter, r *http.Request) {
	number := l.calls.next()
	body, unread := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyLimit))
	q, err := l.services.Parse(r, body)
	if unread != nil {
		err = &wire.Error{Status: http.StatusRequestEntityTooLarge, Code: "RequestEntityTooLargeException", Message: unread.Error()}
	}
	l.pace.call(q.Operation + string(body))
	var out any
	if err == nil {
		out, err = l.call(r.Context(), q)
	}
	if errors.Is(err, errCut) {
		l.record(q, number, 0, "cut", r.UserAgent())
		// net/http closes the connection without an answer.
		panic(http.ErrAbortHandler)
	}
	answer := q.Answer(out, err, l.Clock.Now(), number)
	l.record(q, number, answer.Status, answer.Code, r.UserAgent())
	if err == nil {
		l.triggered(q.Operation)
	}
	if err := answer.Write(w); err != nil {
		l.log.Debug("the caller went away", "operation", q.Operation, "error", err)
	}
}

// call authenticates, and does what the request asks for, with the faults that
// it meets.
func (l *Lab) call(ctx context.Context, q *wire.Request) (any, error) {
	if err := q.Authenticate(l.credentials); err != nil {
		return nil, err
	}
	if l.faults.intercepts(q.Operation) {
		return nil, errCut
	}
	v := l.faults.meet(q.Operation)
	if err := wait(ctx, v.latency+time.Duration(l.World.Latency)); err != nil {
		return nil, errCut
	}
	if !l.limits.allow(q.Service.Name, q.Operation) {
		return nil, q.Throttled()
	}
	failure := v.failure(q)
	if failure != nil && !v.after {
		return nil, failure
	}
	out, err := l.do(ctx, q, v)
	if err == nil && failure != nil {
		return nil, failure
	}
	return out, err
}

// do decodes the input and calls the operation.
func (l *Lab) do(ctx context.Context, q *wire.Request, v verdict) (any, error) {
	if err := q.Decode(); err != nil {
		return nil, err
	}
	if isRead(q.Operation) {
		ctx = wire.WithStale(ctx, max(v.stale, time.Duration(l.World.StaleReads)))
	}
	// What has begun takes effect, even when the caller goes away.
	return q.Do(context.WithoutCancel(ctx))
}

// wait waits for d of real time.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l *Lab) record(q *wire.Request, number int64, status int, code, agent string) {
	c := Call{Number: number, Time: l.Clock.Now(), Operation: q.Operation, Parameters: q.Parameters(), Status: status, Code: code, UserAgent: agent}
	if q.Service != nil {
		c.Service = q.Service.Name
	}
	l.calls.add(c)
}

// control steers the lab over HTTP.
func (l *Lab) control() http.Handler {
	mux := http.NewServeMux()
	for pattern, serve := range map[string]func(*http.Request) (any, error){
		"POST /lab/do":      l.controlDo,
		"POST /lab/fault":   l.controlFault,
		"DELETE /lab/fault": func(*http.Request) (any, error) { l.ClearFaults(); return nil, nil },
		"GET /lab/calls":    func(*http.Request) (any, error) { return l.Calls(), nil },
		"DELETE /lab/calls": func(*http.Request) (any, error) { l.ResetCalls(); return nil, nil },
		"GET /lab/events":   func(r *http.Request) (any, error) { return l.Events(r.Context()), nil },
		"GET /lab/env":      func(*http.Request) (any, error) { return l.Env(), nil },
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { answerControl(w, r, serve) })
	}
	return mux
}

// errBrowser is why a request with an Origin is refused: a page in a browser
// on this machine could reach the loopback.
var errBrowser = errors.New("the lab is not steered by web pages")

func answerControl(w http.ResponseWriter, r *http.Request, serve func(*http.Request) (any, error)) {
	if r.Header.Get("Origin") != "" {
		http.Error(w, errBrowser.Error(), http.StatusForbidden)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, bodyLimit)
	out, err := serve(r)
	if err != nil {
		http.Error(w, strings.TrimSpace(err.Error()), http.StatusBadRequest)
		return
	}
	writeJSON(w, out)
}
