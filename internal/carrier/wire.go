package carrier

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"jumpsuite/internal/cli"
)

// Limits of what is sent, in bytes. A host takes some 150 bytes of an answer; an
// ECS cluster has at most 5,000 of them.
const (
	maxRequest = 4 << 10
	maxAnswer  = 2 << 20
	maxText    = 2000
)

// The operations.
const (
	opHosts = "hosts"
	opWhere = "where"
	opLearn = "learn"
	opDial  = "dial"
	opWhy   = "why"
)

// request is what is asked for.
type request struct {
	Op string `json:"op"`
	Place
	Host string `json:"host,omitempty"` // instance id
	Ref  string `json:"ref,omitempty"`  // container id or the beginning of one, or an ECS task's id; of why: name of a stream
}

// answer is what comes back.
type answer struct {
	Hosts []Host  `json:"hosts,omitempty"`
	Found []Found `json:"found,omitempty"`
	Error *Error  `json:"error,omitempty"`
}

// decode takes exactly one value, of known keys only.
func decode(line []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more than one value")
	}
	return nil
}

// parseRequest takes a line, without its end.
func parseRequest(line []byte) (request, error) {
	var r request
	if err := decode(line, &r); err != nil {
		return request{}, fmt.Errorf("the request is not understood: %w", err)
	}
	return r, r.check()
}

// check makes sure that what is sent on to AWS looks as AWS has it: r3-ssm has
// credentials, and sends them nowhere else.
func (r *request) check() error {
	switch {
	case !isCluster(r.Cluster):
		return fmt.Errorf("%q is no name of a cluster", clip(r.Cluster))
	case r.Region != "" && !isRegion(r.Region):
		return fmt.Errorf("%q is no region", clip(r.Region))
	case r.Endpoint != "" && !isEndpoint(r.Endpoint):
		return fmt.Errorf("%q is no address of AWS", clip(r.Endpoint))
	}
	switch r.Op {
	case opHosts:
		return nil
	case opWhere:
		return r.needs(r.Ref != "" && isRef(r.Ref), "ref", r.Ref)
	case opLearn:
		return r.needs(isContainer(r.Ref) && IsInstance(r.Host), "container and host", r.Ref+" "+r.Host)
	case opDial:
		return r.needs(IsInstance(r.Host), "instance id", r.Host)
	case opWhy:
		return r.needs(isStreamName(r.Ref), "name of a stream", r.Ref)
	}
	return fmt.Errorf("there is no operation %q", clip(r.Op))
}

func (r *request) needs(ok bool, what, given string) error {
	if ok {
		return nil
	}
	return fmt.Errorf("%s: %q is no %s", r.Op, clip(given), what)
}

const (
	digits  = "0123456789"
	hex     = digits + "abcdef"
	letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

func only(s, of string, most int) bool { return s != "" && len(s) <= most && strings.Trim(s, of) == "" }

// IsInstance reports whether s is an EC2 instance id, or one that SSM gives to a
// machine that is not of EC2.
func IsInstance(s string) bool {
	id, ok := strings.CutPrefix(strings.TrimPrefix(s, "m"), "i-")
	return ok && len(id) >= 8 && only(id, hex, 17)
}

func isStreamName(s string) bool {
	id, ok := strings.CutPrefix(s, streamName)
	return ok && len(id) == 32 && only(id, hex, 32)
}

func isCluster(s string) bool { return only(s, letters+digits+"-_", 255) && s[0] != '-' }
func isRegion(s string) bool {
	return only(s, "abcdefghijklmnopqrstuvwxyz"+digits+"-", 32) && s[0] != '-'
}
func isContainer(s string) bool { return len(s) == 64 && only(s, hex, 64) }

// isRef takes ids, names and a task's ARN.
func isRef(s string) bool { return only(s, letters+digits+"-_.:/", 255) }

// isEndpoint takes a scheme, a host and a port.
func isEndpoint(s string) bool {
	rest, ok := strings.CutPrefix(s, "http")
	rest, ok2 := strings.CutPrefix(strings.TrimPrefix(rest, "s"), "://")
	return ok && ok2 && only(strings.TrimSuffix(rest, "/"), letters+digits+"-.:[]", 255)
}

// plain makes an answer's texts ones that a terminal can be shown.
func (a *answer) plain() error {
	for i := range a.Hosts {
		h := &a.Hosts[i]
		if !IsInstance(h.ID) {
			return fmt.Errorf("%q is no host", clip(h.ID))
		}
		h.Address, h.Name = word(h.Address), word(h.Name)
		h.State, h.Agent = word(h.State), word(h.Agent)
	}
	for i := range a.Found {
		f := &a.Found[i]
		if !IsInstance(f.Host) || !isContainer(f.Container) {
			return fmt.Errorf("%q on %q is no container", clip(f.Container), clip(f.Host))
		}
		f.Name, f.Task = word(f.Name), word(f.Task)
	}
	if a.Error == nil {
		return nil
	}
	if !a.Error.valid() {
		return errors.New("an error that is none")
	}
	a.Error.Text, a.Error.Next = sentence(a.Error.Text), sentence(a.Error.Next)
	return nil
}

// word is s where it is a plain word, else nothing: hosts say themselves what
// they are called.
func word(s string) string {
	if only(s, letters+digits+"-_.:/", 255) {
		return s
	}
	return ""
}

func clip(s string) string { return cli.Printable(s[:min(len(s), 80)]) }

// sentence makes a text one that fits into an answer.
func sentence(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(cli.Printable(s), "?")), " ")
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText-len("…")], "") + "…"
}

// readLine reads up to a line's end and not a byte more: what follows is a
// stream. The answer to a dial has a handful of bytes.
func readLine(r io.Reader, most int) ([]byte, error) {
	var line []byte
	var b [1]byte
	for len(line) < most {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return nil, unexpected(err, len(line) > 0)
		}
		if b[0] == '\n' {
			return line, nil
		}
		line = append(line, b[0])
	}
	return nil, fmt.Errorf("longer than %d bytes", most)
}

// unexpected is an end within a line; before it, it is io.EOF.
func unexpected(err error, within bool) error {
	if within && errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
