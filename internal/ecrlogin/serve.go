package ecrlogin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"jumpsuite/internal/listen"
)

// Limits of a conversation.
const (
	talkTimeout    = 5 * time.Second // to send a question, and again to take the answer
	maxConnections = 64              // at a time; more have to wait
)

// Server answers questions. All its fields but UIDs and Log must be set.
type Server struct {
	// Allowed are the registries that there are logins for.
	Allowed []Registry
	// Login finds the login for one of them. The text of its error is sent; it
	// is not logged here.
	Login func(context.Context, Registry) (Login, error)
	// UIDs are who may ask, besides root.
	UIDs []int
	// Log is told who was refused and what did not work. Nil: nobody.
	Log *slog.Logger
}

// Serve answers until ctx ends, and closes l. Who had asked by then is answered.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	room := make(chan struct{}, maxConnections)
	for {
		conn, err := listen.Accept(ctx, l)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept connections: %w", err)
		}
		room <- struct{}{}
		wg.Go(func() {
			s.converse(context.WithoutCancel(ctx), conn)
			<-room
		})
	}
}

// converse answers one question and ends the connection.
func (s *Server) converse(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(talkTimeout))
	if err := s.mayAsk(conn); err != nil {
		s.log().Warn("somebody who may not ask was refused", "err", err)
		io.WriteString(conn, answerNone(err.Error()))
		return
	}
	line, err := readLine(conn, maxQuestion)
	if err != nil {
		s.log().Warn("a question did not come", "err", err)
		return
	}
	answer := s.answer(ctx, line)
	conn.SetDeadline(time.Now().Add(talkTimeout))
	// Who went away does not want it any more.
	io.WriteString(conn, answer)
}

// answer is the whole answer to a question.
func (s *Server) answer(ctx context.Context, line string) string {
	host, err := parseQuestion(line)
	if err != nil {
		s.log().Warn("a question was not understood", "err", err)
		return answerNone(err.Error())
	}
	r, ok := ParseHost(host)
	if !ok {
		return answerNone(host + " is no registry of Amazon ECR")
	}
	if !slices.Contains(s.Allowed, r) {
		return answerNone("r3-ecr is not configured for account " + r.Account + " in " + r.Region)
	}
	l, err := s.Login(ctx, r)
	if err != nil {
		return answerNone(err.Error())
	}
	answer, err := answerLogin(l)
	if err != nil {
		s.log().Error("no login that can be used", "registry", host, "err", err)
		return answerNone(err.Error())
	}
	return answer
}

// mayAsk asks the kernel who connected.
func (s *Server) mayAsk(conn net.Conn) error {
	uid, err := peer(conn)
	if err != nil {
		return fmt.Errorf("it is not known who asks: %w", err)
	}
	if uid != 0 && !slices.Contains(s.UIDs, uid) {
		return fmt.Errorf("uid %d may not ask for logins", uid)
	}
	return nil
}

func peer(conn net.Conn) (uid int, err error) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, errors.New("only a unix socket says who connected")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	control := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(control, err); err != nil {
		return 0, err
	}
	return int(cred.Uid), nil
}

func (s *Server) log() *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}
