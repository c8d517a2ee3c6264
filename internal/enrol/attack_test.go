package enrol

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"jumpsuite/internal/keys"
	"jumpsuite/internal/tunnel"
)

// answers is a Parameter Store that says what a test makes it say.
type answers struct {
	API
	pages func(n int) (*ssm.GetParametersByPathOutput, error)
	asked int
}

func (a *answers) GetParametersByPath(ctx context.Context, _ *ssm.GetParametersByPathInput, _ ...func(*ssm.Options)) (*ssm.GetParametersByPathOutput, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	a.asked++
	return a.pages(a.asked)
}

func parameter(name, value string) types.Parameter {
	return types.Parameter{Name: aws.String(name), Value: aws.String(value), Type: types.ParameterTypeString}
}

// known is a jump server that knows a host, and the host's key.
func known(t *testing.T) (jump Machine, host tunnel.KeyID) {
	t.Helper()
	_, api := startLab(t)
	jump = machine(t, api, keys.JumpServers, "i-0aaaaaaaaaaaaaaaa")
	h := machine(t, api, keys.Hosts, "i-0bbbbbbbbbbbbbbbb")
	run(t, h, jump)
	ids, err := h.Store.Public()
	if err != nil {
		t.Fatal(err)
	}
	return jump, ids[0]
}

func (m Machine) trusts(t *testing.T, id tunnel.KeyID, name string) bool {
	t.Helper()
	set, err := m.Store.Load(m.others())
	if err != nil {
		t.Fatal(err)
	}
	return set.TrustsAs(id, name)
}

// Whatever Parameter Store says, and whoever says it in its place: who was known stays
// known, and the list can be read.
func TestAnswersThatCannotBeTakenLeaveWhatWasKnown(t *testing.T) {
	many := func(n int) (*ssm.GetParametersByPathOutput, error) {
		out := &ssm.GetParametersByPathOutput{NextToken: aws.String("more")}
		for i := range 10 {
			name := fmt.Sprintf("/jumpsuite/prod/hosts/i-%017x", n*10+i)
			out.Parameters = append(out.Parameters, parameter(name, "ed25519:"+strings.Repeat("A", 43)))
		}
		return out, nil
	}
	for _, tt := range []struct {
		name  string
		pages func(int) (*ssm.GetParametersByPathOutput, error)
		says  string
	}{
		{"pages without end, with machines", many, "more than"},
		{"pages without end, with nothing", func(int) (*ssm.GetParametersByPathOutput, error) {
			return &ssm.GetParametersByPathOutput{NextToken: aws.String("more")}, nil
		}, "more than"},
		{"the second page fails", func(n int) (*ssm.GetParametersByPathOutput, error) {
			if n > 1 {
				return nil, errors.New("throttled")
			}
			return many(n)
		}, "throttled"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			jump, host := known(t)
			jump.API = &answers{API: jump.API, pages: tt.pages}
			if err := jump.Run(t.Context()); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
			if !jump.trusts(t, host, "i-0bbbbbbbbbbbbbbbb") {
				t.Error("the host that was known is not any more")
			}
		})
	}
}

// What is not of this cluster and this role, or not a machine's, is nobody's.
func TestForeignAnswersMakeNobodyTrusted(t *testing.T) {
	jump, _ := known(t)
	key := "ed25519:" + strings.Repeat("A", 43)
	var out ssm.GetParametersByPathOutput
	for _, name := range []string{
		"/jumpsuite/test/hosts/i-0cccccccccccccccc", "/jumpsuite/prod/jump-servers/i-0cccccccccccccccc", "/jumpsuite/prod/hosts/../hosts/i-0cccccccccccccccc",
		"/jumpsuite/prod/hosts/*", "/jumpsuite/prod/hosts/i-0cccccccccccccccc/x", "/other/jumpsuite/prod/hosts/i-0cccccccccccccccc", "", "/jumpsuite/prod/hosts/i-0cccccccccccccccc\n" + key + " *",
	} {
		out.Parameters = append(out.Parameters, parameter(name, key))
	}
	for _, value := range []string{key + "\n" + key + " *", strings.Repeat(key+" ", 3), strings.Repeat("x", 8<<10), key + "#", ""} {
		out.Parameters = append(out.Parameters, parameter(fmt.Sprintf("/jumpsuite/prod/hosts/i-%017x", len(value)), value))
	}
	out.Parameters = append(out.Parameters, types.Parameter{}, parameter("/jumpsuite/prod/hosts/i-0dddddddddddddddd", key))
	jump.API = &answers{API: jump.API, pages: func(int) (*ssm.GetParametersByPathOutput, error) { return &out, nil }}
	if err := jump.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	set, err := jump.Store.Load(keys.Hosts)
	if err != nil || len(set.Entries()) != 1 || set.Entries()[0].Name != "i-0dddddddddddddddd" {
		t.Errorf("got %v, %v", set.Entries(), err)
	}
}

// Who waits for an answer that does not come can be told to stop, and has lost nothing.
func TestAnAnswerThatComesLateIsNotTaken(t *testing.T) {
	jump, host := known(t)
	ctx, cancel := context.WithCancel(t.Context())
	jump.API = &answers{API: jump.API, pages: func(int) (*ssm.GetParametersByPathOutput, error) {
		cancel()
		return &ssm.GetParametersByPathOutput{NextToken: aws.String("more")}, nil
	}}
	if err := jump.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if !jump.trusts(t, host, "i-0bbbbbbbbbbbbbbbb") {
		t.Error("the host that was known is not any more")
	}
}

// A key that was published again after it was revoked is not trusted: what the
// administrator of a machine says there is above what Parameter Store says.
func TestARolledBackParameterBringsNoRevokedKeyBack(t *testing.T) {
	jump, host := known(t)
	if err := jump.Store.Revoke(keys.Entry{Key: host, Name: "i-0bbbbbbbbbbbbbbbb"}); err != nil {
		t.Fatal(err)
	}
	run(t, jump)
	if jump.trusts(t, host, "i-0bbbbbbbbbbbbbbbb") {
		t.Error("it is trusted")
	}
}

// In a rotation there is no moment at which the one in use, or the one that streams
// were opened with, is not known; a day later the former one is not.
func TestARotationCutsNobodyOff(t *testing.T) {
	_, api := startLab(t)
	jump, host := machine(t, api, keys.JumpServers, "i-0aaaaaaaaaaaaaaaa"), machine(t, api, keys.Hosts, "i-0bbbbbbbbbbbbbbbb")
	run(t, host, jump)
	before, err := host.Store.Public()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := host.Store.Rotate(time.Now(), 0); err != nil {
			t.Fatal(err)
		}
		run(t, host, jump)
		now, err := host.Store.Public()
		if err != nil {
			t.Fatal(err)
		}
		if !jump.trusts(t, now[0], host.Instance) || !jump.trusts(t, before[0], host.Instance) {
			t.Errorf("not known: the key in use, or the one that was: %v", now)
		}
	}
	host.Now = func() time.Time { return time.Now().Add(keys.Overlap + time.Hour) }
	run(t, host, jump)
	now, err := host.Store.Public()
	if err != nil {
		t.Fatal(err)
	}
	if !jump.trusts(t, now[0], host.Instance) || jump.trusts(t, before[0], host.Instance) {
		t.Error("a day later the former key is known, or the present one is not")
	}
}

// Which of two keys is in use is nothing that is published: an administrator is not
// asked again to publish the same two.
func TestTheSameTwoKeysAreNotPublishedAgain(t *testing.T) {
	l, api := startLab(t)
	jump := machine(t, api, keys.JumpServers, "i-0aaaaaaaaaaaaaaaa")
	if _, err := jump.Store.Rotate(time.Now(), 0); err != nil {
		t.Fatal(err)
	}
	run(t, jump)
	before := puts(l)
	if _, err := jump.Store.Rotate(time.Now(), 0); err != nil {
		t.Fatal(err)
	}
	run(t, jump)
	if after := puts(l); after != before {
		t.Errorf("%d values were written again", after-before)
	}
}

// denied is a Parameter Store in which nothing may be changed.
type denied struct{ API }

func (denied) DeleteParameter(context.Context, *ssm.DeleteParameterInput, ...func(*ssm.Options)) (*ssm.DeleteParameterOutput, error) {
	return nil, errors.New("AccessDeniedException")
}

// A machine that may not take its keys back trusts nobody of the cluster any more all
// the same, and says who has to do the rest.
func TestWhoMayNotTakeItsKeysBackForgetsTheOthersAllTheSame(t *testing.T) {
	jump, host := known(t)
	jump.API = denied{jump.API}
	err := jump.Forget(t.Context())
	var not *ForgetError
	if !errors.As(err, &not) || !strings.Contains(not.Hint(), "aws ssm delete-parameter --region eu-central-1 --name /jumpsuite/prod/jump-servers/i-0aaaaaaaaaaaaaaaa") {
		t.Errorf("got %v", err)
	}
	if jump.trusts(t, host, "i-0bbbbbbbbbbbbbbbb") {
		t.Error("the host is trusted")
	}
}
