package ecrlogin

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// askTimeout is how long a question may take, with AWS behind it.
const askTimeout = 30 * time.Second

// Asker asks r3-ecr. The zero value is ready.
type Asker struct {
	Socket  string        // empty: the package's Socket
	Timeout time.Duration // of a question; zero: 30 s
}

// MissingError says why there is no login for a registry.
type MissingError struct {
	Registry Registry
	Err      error
	Next     string // what an administrator can do; may be empty
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("there is no login for %s: %v", e.Registry.Host(), e.Err)
}

// Unwrap is the reason.
func (e *MissingError) Unwrap() error { return e.Err }

// Hint is what an administrator can do.
func (e *MissingError) Hint() string { return e.Next }

// Credentials are the login for the registry of an image, as X-Registry-Auth
// wants them: for dockerproxy.Gate. image is written in full. For images that
// are in no registry of ECR they are empty, and nobody is asked. The error is a
// *MissingError, with which a pull can go on: the registry may not want a login.
func (a Asker) Credentials(ctx context.Context, image string) (string, error) {
	r, ok := Of(image)
	if !ok {
		return "", nil
	}
	l, err := a.Login(ctx, r)
	if err != nil {
		return "", err
	}
	return l.header(r)
}

// header is the login in the words of the Engine API: JSON in base64url.
func (l Login) header(r Registry) (string, error) {
	b, err := json.Marshal(struct {
		User     string `json:"username"`
		Password string `json:"password"`
		Server   string `json:"serveraddress"`
	}{l.User, string(l.Password), r.Host()})
	return base64.URLEncoding.EncodeToString(b), err
}

// Login asks for the login of a registry. The error is a *MissingError.
func (a Asker) Login(ctx context.Context, r Registry) (Login, error) {
	timeout := a.Timeout
	if timeout == 0 {
		timeout = askTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("r3-ecr did not answer within %s", timeout))
	defer cancel()
	l, reason, err := a.ask(ctx, r)
	switch {
	case err != nil:
		return Login{}, a.missing(r, err)
	case reason != "":
		return Login{}, &MissingError{Registry: r, Err: errors.New(reason)}
	}
	return l, nil
}

func (a Asker) ask(ctx context.Context, r Registry) (l Login, reason string, err error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", a.socket())
	if err != nil {
		return Login{}, "", preferCause(ctx, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	// Whom r3-ecr does not listen to, it answers without waiting for the question:
	// what it said is read also when that could not be sent. A connection that is
	// dead shows when it is read.
	_, _ = io.WriteString(conn, question(r))
	line, err := readLine(conn, maxAnswer)
	if err != nil {
		return Login{}, "", preferCause(ctx, fmt.Errorf("read the answer of r3-ecr: %w", err))
	}
	l, reason, err = parseAnswer(line)
	if err == nil && reason == "" && l == (Login{}) {
		reason = "r3-ecr does not say why"
	}
	return l, reason, err
}

func (a Asker) socket() string {
	if a.Socket == "" {
		return Socket
	}
	return a.Socket
}

// preferCause is why ctx has ended, if it has.
func preferCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func (a Asker) missing(r Registry, err error) *MissingError {
	e := &MissingError{Registry: r, Err: err, Next: "an administrator looks at: systemctl status r3-ecr.socket r3-ecr.service"}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		e.Err = fmt.Errorf("r3-ecr is not running (%s)", a.socket())
		e.Next = "an administrator starts it: systemctl enable --now r3-ecr.socket"
	}
	return e
}
