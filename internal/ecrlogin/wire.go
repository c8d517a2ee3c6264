package ecrlogin

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"jumpsuite/internal/cli"
)

// Limits of a line, its end included, in bytes. A password of ECR has some 2,500.
const (
	maxQuestion = 128
	maxAnswer   = 16 << 10
	maxReason   = 1000
)

// readLine reads what is sent up to a line's end, which has to be the end of it all.
func readLine(r io.Reader, limit int64) (string, error) {
	b := make([]byte, 0, 512)
	for {
		if int64(len(b)) >= limit {
			return "", fmt.Errorf("longer than %d bytes", limit)
		}
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):min(int64(cap(b)), limit)])
		b = b[:len(b)+n]
		if line, rest, ok := strings.Cut(string(b), "\n"); ok {
			if rest != "" {
				return "", errors.New("more than one line")
			}
			return line, nil
		}
		if err != nil {
			return "", unexpected(err)
		}
	}
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func question(r Registry) string { return "login " + r.Host() + "\n" }

// parseQuestion returns the host that is asked about. It need not be one of ECR's.
func parseQuestion(line string) (host string, err error) {
	host, ok := strings.CutPrefix(line, "login ")
	if !ok || host == "" || !isWord(host) {
		return "", errors.New("the question is not 'login HOST'")
	}
	return host, nil
}

func answerLogin(l Login) (string, error) {
	if !l.usable() {
		return "", errors.New("the login has characters that no login has")
	}
	line := "login " + l.User + " " + string(l.Password) + "\n"
	if len(line) > maxAnswer {
		return "", fmt.Errorf("the login is longer than %d bytes", maxAnswer)
	}
	return line, nil
}

func answerNone(reason string) string { return "none " + clean(reason) + "\n" }

// errAnswer does not say what came: it may have been a password.
var errAnswer = errors.New("the answer is neither 'login USER PASSWORD' nor 'none REASON'")

// parseAnswer returns a login, or else the reason why there is none.
func parseAnswer(line string) (l Login, reason string, err error) {
	kind, rest, _ := strings.Cut(line, " ")
	switch kind {
	case "none":
		return Login{}, clean(rest), nil
	case "login":
		user, password, _ := strings.Cut(rest, " ")
		l = Login{User: user, Password: Secret(password)}
		if l.usable() {
			return l, "", nil
		}
	}
	return Login{}, "", errAnswer
}

func (l Login) usable() bool {
	return l.User != "" && l.Password != "" && isWord(l.User) && isWord(string(l.Password))
}

// isWord reports whether s is ASCII that can be seen: no space, no control character.
func isWord(s string) bool {
	return strings.IndexFunc(s, func(c rune) bool { return c <= ' ' || c > '~' }) < 0
}

// clean makes a reason one short line that a terminal can show.
func clean(reason string) string {
	reason = strings.Join(strings.Fields(strings.ToValidUTF8(cli.Printable(reason), "?")), " ")
	if len(reason) <= maxReason {
		return reason
	}
	return strings.ToValidUTF8(reason[:maxReason], "") + "…"
}
