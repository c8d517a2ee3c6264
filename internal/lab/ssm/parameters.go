package ssm

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	api "github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"jumpsuite/internal/lab/wire"
)

// Limits of Parameter Store (SSM API reference, PutParameter and
// GetParametersByPath): levels of a name, bytes of a standard value, a page.
const (
	nameLevels  = 15
	nameMost    = 1011
	valueMost   = 4 << 10
	byPathMost  = 10
	byPathFirst = 10
)

var parameterName = regexp.MustCompile(`^(/[a-zA-Z0-9_.-]+)+$`)

// parameters is Parameter Store, as far as names with a path and plain values go.
type parameters struct {
	values map[string]types.Parameter
}

func checkParameter(name string) error {
	switch first := strings.ToLower(strings.TrimPrefix(name, "/")); {
	case !parameterName.MatchString(name) || len(name) > nameMost:
		return &wire.Error{Code: "ValidationException", Message: "Parameter name must be a fully qualified name, made of letters, digits and the symbols . - _ and /"}
	case strings.HasPrefix(first, "aws") || strings.HasPrefix(first, "ssm"):
		return &wire.Error{Code: "ValidationException", Message: `Parameter name: can't be prefixed with "aws" or "ssm" (case-insensitive).`}
	case strings.Count(name, "/") > nameLevels:
		return &wire.Error{Code: "HierarchyLevelLimitExceededException", Message: "Parameter name: can have at most 15 levels"}
	}
	return nil
}

// PutParameter keeps a value. Without Overwrite it makes a new one only.
func (s *SSM) PutParameter(_ context.Context, in *api.PutParameterInput) (*api.PutParameterOutput, error) {
	name, value := aws.ToString(in.Name), aws.ToString(in.Value)
	if err := checkParameter(name); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, there := s.parameters.values[name]
	switch {
	case value == "":
		return nil, &wire.Error{Code: "ValidationException", Message: "1 validation error detected: Value at 'value' failed to satisfy constraint: Member must have length greater than or equal to 1"}
	case len(value) > valueMost:
		return nil, &wire.Error{Code: "ValidationException", Message: "Standard tier parameters support a maximum parameter value of 4096 characters."}
	case there && !aws.ToBool(in.Overwrite):
		return nil, &wire.Error{Code: "ParameterAlreadyExists", Message: "The parameter already exists. To overwrite this value, set the overwrite option in the request to true."}
	case !there && in.Type == "":
		return nil, &wire.Error{Code: "ValidationException", Message: "A parameter type is required when you create a parameter."}
	case in.Type != "" && in.Type != types.ParameterTypeString:
		return nil, &wire.Error{Code: "UnsupportedParameterType", Message: fmt.Sprintf("The lab keeps parameters of type String, not %s.", in.Type)}
	}
	if s.parameters.values == nil {
		s.parameters.values = map[string]types.Parameter{}
	}
	s.parameters.values[name] = types.Parameter{Name: &name, Value: &value, Type: types.ParameterTypeString, DataType: aws.String("text"),
		Version: old.Version + 1, LastModifiedDate: aws.Time(s.clock.Now())}
	return &api.PutParameterOutput{Version: old.Version + 1, Tier: types.ParameterTierStandard}, nil
}

// GetParametersByPath answers page by page for what is below a path: directly,
// or with Recursive at any depth.
func (s *SSM) GetParametersByPath(_ context.Context, in *api.GetParametersByPathInput) (*api.GetParametersByPathOutput, error) {
	path := strings.TrimSuffix(aws.ToString(in.Path), "/") + "/"
	if path != "/" && !parameterName.MatchString(strings.TrimSuffix(path, "/")) {
		return nil, &wire.Error{Code: "ValidationException", Message: "The parameter path must begin with a slash and be made of letters, digits and the symbols . - _ and /"}
	}
	most := int(aws.ToInt32(in.MaxResults))
	if in.MaxResults == nil {
		most = byPathFirst
	}
	if most < 1 || most > byPathMost {
		return nil, &wire.Error{Code: "ValidationException", Message: "1 validation error detected: Value at 'maxResults' failed to satisfy constraint: Member must be between 1 and 10"}
	}
	if len(in.ParameterFilters) > 0 {
		return nil, &wire.Error{Code: "InvalidFilterKey", Message: "The lab has no parameter filters."}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []types.Parameter
	for name, p := range s.parameters.values {
		if below, ok := strings.CutPrefix(name, path); ok && (aws.ToBool(in.Recursive) || !strings.Contains(below, "/")) {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b types.Parameter) int { return strings.Compare(*a.Name, *b.Name) })
	from := 0
	if in.NextToken != nil {
		var err error
		if from, err = strconv.Atoi(strings.TrimPrefix(*in.NextToken, "p")); err != nil || from < 1 || from >= len(all) {
			return nil, &wire.Error{Code: "InvalidNextToken", Message: "The specified token isn't valid."}
		}
	}
	out := &api.GetParametersByPathOutput{Parameters: all[from:min(from+most, len(all))]}
	if from+most < len(all) {
		out.NextToken = aws.String("p" + strconv.Itoa(from+most))
	}
	return out, nil
}

// DeleteParameter forgets one.
func (s *SSM) DeleteParameter(_ context.Context, in *api.DeleteParameterInput) (*api.DeleteParameterOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.parameters.values[aws.ToString(in.Name)]; !ok {
		return nil, &wire.Error{Code: "ParameterNotFound", Message: "The parameter couldn't be found. Verify the name and try again."}
	}
	delete(s.parameters.values, *in.Name)
	return &api.DeleteParameterOutput{}, nil
}
