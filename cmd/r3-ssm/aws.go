package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"jumpsuite/ecsstatus"
	"jumpsuite/internal/awsconfig"
	"jumpsuite/internal/carrier"
	"jumpsuite/internal/session"
	"jumpsuite/internal/tunnel"
)

// places know each place that was asked for: AWS is reached in another way for
// each region and endpoint.
type places struct {
	document string
	log      *slog.Logger

	mu      sync.Mutex
	finders map[carrier.Place]*known
}

// known is a place, once it is known how AWS is reached for it.
type known struct {
	ready  chan struct{}
	config aws.Config
	finder *finder
	err    error
}

// mostPlaces bounds how many are remembered. Policies have a handful.
const mostPlaces = 200

// at finds out how AWS is reached for a place. What went wrong is tried again
// with the next question.
func (p *places) at(ctx context.Context, place carrier.Place) (*known, error) {
	p.mu.Lock()
	k := p.finders[place]
	if k == nil {
		k = &known{ready: make(chan struct{})}
		if p.finders == nil || len(p.finders) >= mostPlaces {
			p.finders = map[carrier.Place]*known{}
		}
		p.finders[place] = k
		go p.load(context.WithoutCancel(ctx), place, k)
	}
	p.mu.Unlock()
	select {
	case <-k.ready:
		return k, k.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (p *places) load(ctx context.Context, place carrier.Place, k *known) {
	k.config, k.err = awsconfig.Load(ctx, awsconfig.Options{Region: place.Region, Endpoint: place.Endpoint, Name: "r3-ssm"})
	if k.err == nil {
		k.finder = newFinder(ecsstatus.NewReader(k.config, place.Cluster))
	} else {
		p.mu.Lock()
		delete(p.finders, place)
		p.mu.Unlock()
	}
	close(k.ready)
}

// hosts, where and learn answer requests.
func (p *places) hosts(ctx context.Context, place carrier.Place) ([]carrier.Host, error) {
	k, err := p.at(ctx, place)
	if err != nil {
		return nil, explained(err)
	}
	list, err := k.finder.list(ctx)
	return list, explained(err)
}

func (p *places) where(ctx context.Context, place carrier.Place, ref string) ([]carrier.Found, error) {
	k, err := p.at(ctx, place)
	if err != nil {
		return nil, explained(err)
	}
	found, err := k.finder.where(ctx, ref)
	return found, explained(err)
}

func (p *places) learn(ctx context.Context, place carrier.Place, container, host string) {
	if k, err := p.at(ctx, place); err == nil {
		k.finder.learn(container, host)
	}
}

// open starts a session to a host and waits until its gate has answered.
func (p *places) open(ctx context.Context, w way) (*tunnel.Carrier, error) {
	k, err := p.at(ctx, w.place)
	if err != nil {
		return nil, explained(err)
	}
	s, err := session.Start(ctx, session.Config{
		API: ssm.NewFromConfig(k.config), Credentials: k.config.Credentials, Region: k.config.Region,
		Target: w.host, Document: p.document, Reason: "jumpsuite", Log: p.log,
	})
	if err != nil {
		return nil, explained(err)
	}
	c, err := tunnel.Carry(ctx, s)
	if err != nil {
		return nil, noGate(err, s)
	}
	return c, nil
}

// noGate prefers why the session is over to that it is.
func noGate(err error, s *session.Session) error {
	if e, ok := errors.AsType[*session.Error](s.Err()); ok {
		return explained(e)
	}
	return explained(err)
}

// stream is one of a carrier's: it is closed for both directions, and what the
// host still sends is read.
type stream struct{ net.Conn }

// Read and Write say why the stream was lost as r3-docker is told of it.
func (s stream) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	return n, lost(err)
}

func (s stream) Write(b []byte) (int, error) {
	n, err := s.Conn.Write(b)
	return n, lost(err)
}

// lost is explained for a stream that there was: what ended its session, if it was
// that.
func lost(err error) error {
	if err == nil || err == io.EOF || errors.Is(err, net.ErrClosed) {
		return err
	}
	if e, ok := errors.AsType[*session.Error](err); ok {
		return explained(e)
	}
	if errors.Is(err, tunnel.ErrClosedThere) {
		return &carrier.Error{Kind: carrier.Failed, Text: "the session to the host was ended, and nobody said why: somebody has ended it, or r3-dockerproxy on the host, or its SSM agent, has",
			Next: "try again; if it happens again, look there: journalctl -u r3-dockerproxy -u amazon-ssm-agent"}
	}
	return explained(err)
}

// CloseWrite says that we are done with it. What the host still sends comes.
func (s stream) CloseWrite() error { return s.Close() }

// sessionKinds and awsKinds are what the errors of others are for us.
var sessionKinds = map[session.Kind]carrier.Kind{
	session.Offline: carrier.Offline, session.NoDocument: carrier.NoDocument, session.Denied: carrier.NotAllowed,
	session.NotListening: carrier.NoGate, session.HandshakeRefused: carrier.NoDocument, session.Silent: carrier.Offline,
	session.Lost: carrier.NoAWS,
}

// explained is err as r3-docker is told of it. Nil stays nil.
func explained(err error) error {
	if err == nil {
		return nil
	}
	kind := carrier.Failed
	var known *carrier.Error
	var ofSession *session.Error
	var ofAWS *awsconfig.Error
	var missing *ecsstatus.NotFoundError
	var gate *tunnel.NoGateError
	var version *tunnel.VersionError
	switch {
	case errors.As(err, &known):
		return err
	case errors.As(err, &ofSession):
		if k, ok := sessionKinds[ofSession.Kind]; ok {
			kind = k
		}
	case errors.As(err, &ofAWS):
		kind = carrier.NoAWS
		if ofAWS.Kind == awsconfig.Denied {
			kind = carrier.NotAllowed
		}
	case errors.As(err, &missing):
		kind = carrier.NoSuchHost
	case errors.As(err, &gate), errors.As(err, &version):
		kind = carrier.NoGate
	}
	e := &carrier.Error{Kind: kind, Text: err.Error()}
	var hint interface{ Hint() string }
	if errors.As(err, &hint) {
		e.Next = hint.Hint()
	}
	return e
}

// noHost is a name that no host of the place goes by.
func noHost(name string, place carrier.Place) error {
	return &carrier.Error{Kind: carrier.NoSuchHost, Text: fmt.Sprintf("there is no host %s in cluster %s", name, place.Cluster),
		Next: "r3-ssm hosts shows which there are"}
}
