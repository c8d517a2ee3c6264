package session

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/coder/websocket"
)

const (
	// resumeFor is how long a lost session is tried to be resumed.
	resumeFor = 5 * time.Minute
	// Retries wait for a random time up to a bound that doubles.
	resumeFirst = 100 * time.Millisecond
	resumeMost  = 10 * time.Second
)

// resume gets a session a new websocket, with credentials that are read anew.
// It tries for minutes, unless the service says that the session is over or that we
// may not.
func (s *Session) resume() (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(s.ctx, resumeFor)
	defer cancel()
	for bound := resumeFirst; ; bound = min(2*bound, resumeMost) {
		conn, err := s.resumeOnce(ctx)
		if err == nil {
			return conn, nil
		}
		if e, ok := errors.AsType[*Error](err); ok && e.Kind != Lost {
			return nil, err
		}
		s.log.Debug("the session is not resumed yet", "error", err)
		if sleep(ctx, rand.N(bound)) != nil {
			return nil, s.config.lost(err)
		}
	}
}

func (s *Session) resumeOnce(ctx context.Context) (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*dialTimeout)
	defer cancel()
	out, err := s.config.API.ResumeSession(ctx, &ssm.ResumeSessionInput{SessionId: &s.id})
	if err != nil {
		return nil, s.config.explainResume(err)
	}
	if aws.ToString(out.TokenValue) == "" {
		return nil, s.config.forgotten(nil)
	}
	s.token = *out.TokenValue
	s.tell(out.ResultMetadata)
	return s.dial(ctx)
}

// explainResume tells what is final from what may pass.
func (c Config) explainResume(err error) error {
	if codeOf(err) == "DoesNotExistException" {
		return c.forgotten(err)
	}
	if message, ok := isDenied(err); ok {
		return c.denied("ssm:ResumeSession", message, err)
	}
	return err
}
