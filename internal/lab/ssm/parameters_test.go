package ssm

import (
	"errors"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	api "github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"jumpsuite/internal/lab/clock"
	"jumpsuite/internal/lab/wire"
	"jumpsuite/internal/lab/world"
)

// What Parameter Store refuses, the lab refuses with its words.
func TestParametersAreRefusedAsAWSDoes(t *testing.T) {
	s := New(Config{World: &world.World{}, Clock: clock.New(1)})
	defer s.Close()
	put := func(name, value string, overwrite bool, kind types.ParameterType) error {
		_, err := s.PutParameter(t.Context(), &api.PutParameterInput{Name: &name, Value: &value, Overwrite: &overwrite, Type: kind})
		return err
	}
	const text = types.ParameterTypeString
	if err := put("/jumpsuite/prod/hosts/i-1", "x", false, text); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		err  error
		code string
	}{
		{"a second one", put("/jumpsuite/prod/hosts/i-1", "y", false, text), "ParameterAlreadyExists"},
		{"in its place", put("/jumpsuite/prod/hosts/i-1", "y", true, ""), ""},
		{"a new one without a type", put("/a", "y", true, ""), "ValidationException"},
		{"an empty value", put("/a", "", true, text), "ValidationException"},
		{"a long value", put("/a", strings.Repeat("x", 4097), true, text), "ValidationException"},
		{"AWS's own names", put("/aws/x", "y", true, text), "ValidationException"},
		{"a colon", put("/jumpsuite/arn:x", "y", true, text), "ValidationException"},
		{"sixteen levels", put(strings.Repeat("/a", 16), "y", true, text), "HierarchyLevelLimitExceededException"},
		{"what is not there", func() error {
			_, err := s.DeleteParameter(t.Context(), &api.DeleteParameterInput{Name: aws.String("/none")})
			return err
		}(), "ParameterNotFound"},
		{"eleven at a time", func() error {
			_, err := s.GetParametersByPath(t.Context(), &api.GetParametersByPathInput{Path: aws.String("/"), MaxResults: aws.Int32(11)})
			return err
		}(), "ValidationException"},
		{"a token of its own", func() error {
			_, err := s.GetParametersByPath(t.Context(), &api.GetParametersByPathInput{Path: aws.String("/"), NextToken: aws.String("p7")})
			return err
		}(), "InvalidNextToken"},
	} {
		got, refused := "", (*wire.Error)(nil)
		if errors.As(tt.err, &refused) {
			got = refused.Code
		}
		if got != tt.code {
			t.Errorf("%s: got %q (%v), want %q", tt.name, got, tt.err, tt.code)
		}
	}
	for path, want := range map[string]int{"/jumpsuite/prod": 0, "/jumpsuite/prod/hosts": 1, "/jumpsuite/prod/host": 0} {
		out, err := s.GetParametersByPath(t.Context(), &api.GetParametersByPathInput{Path: &path})
		if err != nil || len(out.Parameters) != want {
			t.Errorf("below %s: got %d, %v, want %d", path, len(out.Parameters), err, want)
		}
	}
}
